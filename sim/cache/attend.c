// SPDX-License-Identifier: Apache-2.0
// Which attention kernel runs, and how one query's parts are shared out and joined.
#include "sim/cache/attend_isa.h"
#include "sim/cache/insides.h"
#include "sim/base/cpu.h"

#include <stdlib.h>

const char *const kv_attend_kernels[] = {"base", "avx2", "avx512", "avx512vnni", NULL};

kv_attend_fn *kv_attend_kernel(size_t level) {
#if defined(__x86_64__)
    static kv_attend_fn *const kernels[] = {kv_attend_base, kv_attend_avx2, kv_attend_avx512,
                                            kv_attend_avx512vnni};
    return kernels[level];
#else
    (void)level;
    return kv_attend_base;
#endif
}

size_t kv_cache_best_kernel(void) {
    size_t level = (size_t)kv_cpu_level();
#if defined(__x86_64__)
    if (level == KV_CPU_AVX512 && __builtin_cpu_supports("avx512vnni")) level++;
#endif
    return level;
}

bool kv_cache_force_kernel(struct kv_cache *c, const char *name) {
    size_t best = kv_cache_best_kernel();
    if (!name) c->kernel = best;
    for (size_t i = 0; name && i <= best; i++)
        if (strcmp(kv_attend_kernels[i], name) == 0) {
            c->kernel = i;
            return true;
        }
    return !name;
}

// What a head's cells cost to read: bytes, and a floor for what a cell takes whatever its width.
static size_t head_cost(const struct kv_cache *c, uint32_t layer, uint32_t head) {
    enum { FLOOR_BYTES = 24 };
    const struct kv_stream *s = &c->streams[kv_stream_of(c, layer, head)];
    size_t cost = 0;
    for (uint32_t i = 0; i < s->n_spans; i++)
        for (int side = 0; side < 2; side++)
            for (size_t p = 0; p < KV_PORT_WIDTHS; p++)
                cost += (size_t)s->spans[i].runs[side][p].n *
                        (c->layouts[side][p].unit_bytes + FLOOR_BYTES);
    return cost;
}

// The token at which a share that ends after `cost` of a head's `whole` cost ends, of tokens
// [oldest, n): at a page's width, so that pages of consecutive tokens stay whole.
static uint32_t cut(size_t cost, size_t whole, uint32_t oldest, uint32_t n) {
    uint32_t at = oldest + (uint32_t)((double)cost / (double)whole * (n - oldest));
    at = at / KV_PAGE_TOKENS * KV_PAGE_TOKENS;
    return cost >= whole ? n : at > oldest ? at : oldest;
}

// A thread's jobs in their order, each told of the next one: one is held back until that is known.
struct line {
    const struct kv_cache *c;
    struct kv_attend_job job[2];
    size_t n;
};

static void run_job(const struct line *l, size_t i, bool has_next) {
    struct kv_attend_job job = l->job[i % 2];
    bool plain = job.dim / l->c->layouts[0][0].n_groups % 16 != 0; // no whole words
    job.next = has_next ? &l->job[(i + 1) % 2] : NULL;
    kv_attend_kernel(plain ? 0 : l->c->kernel)(&job);
}

static void add_tokens(struct line *l, uint32_t layer, uint32_t head, uint32_t first, uint32_t end,
                       const float *q, const struct kv_partial *p) {
    const struct kv_cache *c = l->c;
    const struct kv_stream *s = &c->streams[kv_stream_of(c, layer, head)];
    uint32_t group = c->shape.n_heads / c->shape.n_kv_heads, dim = c->shape.head_dim;
    uint32_t at = head * group;
    for (uint32_t i = first / KV_SPAN_TOKENS; i * KV_SPAN_TOKENS < end; i++) {
        uint32_t begin = i * KV_SPAN_TOKENS, left = end - begin;
        uint32_t from = first > begin ? first - begin : 0;
        l->job[l->n++ % 2] = (struct kv_attend_job){
            .layouts = c->layouts,
            .span = &s->spans[i],
            .member = kv_member_of(c, layer, head),
            .first = from,
            .end = left < KV_SPAN_TOKENS ? left : KV_SPAN_TOKENS,
            .heads = group,
            .dim = dim,
            .query = q + (size_t)at * dim,
            .max = p->max + at,
            .sum = p->sum + at,
            .weighted = p->weighted ? p->weighted + at : NULL,
            .out = p->out + (size_t)at * dim,
            .oldest = p->oldest && begin + from == 0 ? p->oldest + at : NULL};
        if (l->n > 1) run_job(l, l->n - 2, true);
    }
}

// The oldest token that the newest one's query sees.
static uint32_t oldest_seen(const struct kv_cache *c, uint32_t layer) {
    uint32_t window = c->windows ? c->windows[layer] : 0;
    return window && c->n > window ? c->n - window : 0;
}

void kv_cache_attend_part(const struct kv_cache *c, uint32_t layer, const float *q, unsigned part,
                          unsigned n_parts, struct kv_partial *p) {
    uint32_t heads = c->shape.n_kv_heads, dim = c->shape.head_dim;
    float scale = 1.0f / sqrtf((float)dim), scaled[KV_MAX_QUERY];
    for (uint32_t h = 0; h < c->shape.n_heads; h++) {
        p->max[h] = -INFINITY;
        p->sum[h] = 0;
        if (p->weighted) p->weighted[h] = 0;
        if (p->oldest) p->oldest[h] = NAN;
    }
    memset(p->out, 0, sizeof *p->out * c->shape.n_heads * dim);
    for (uint32_t i = 0; i < c->shape.n_heads * dim; i++) scaled[i] = q[i] * scale;
    struct line line = {.c = c};
    size_t total = 0, at = 0;
    for (uint32_t h = 0; h < heads; h++) total += head_cost(c, layer, h);
    size_t low = total * part / n_parts, high = total * (part + 1) / n_parts;
    for (uint32_t h = 0; h < heads && at < high; h++) {
        size_t whole = head_cost(c, layer, h);
        uint32_t n = c->streams[kv_stream_of(c, layer, h)].n;
        uint32_t oldest = oldest_seen(c, layer);
        uint32_t first = low > at ? cut(low - at, whole, oldest, n) : oldest,
                 end = cut(high - at, whole, oldest, n);
        if (first < end) add_tokens(&line, layer, h, first, end, scaled, p);
        at += whole;
    }
    if (line.n) run_job(&line, line.n - 1, false);
}

void kv_cache_attend_merge(const struct kv_cache *c, const struct kv_partial *p, unsigned n_parts,
                           float *out) {
    uint32_t dim = c->shape.head_dim;
    for (uint32_t h = 0; h < c->shape.n_heads; h++, out += dim) {
        float top = -INFINITY, sum = 0;
        for (unsigned i = 0; i < n_parts; i++) top = fmaxf(top, p[i].max[h]);
        memset(out, 0, dim * sizeof *out);
        for (unsigned i = 0; i < n_parts; i++) {
            if (p[i].sum[h] == 0) continue;
            float weight = expf(p[i].max[h] - top);
            sum += weight * p[i].sum[h];
            for (uint32_t d = 0; d < dim; d++) out[d] += weight * p[i].out[h * dim + d];
        }
        for (uint32_t d = 0; d < dim && sum > 0; d++) out[d] /= sum;
    }
}

void kv_cache_attend(const struct kv_cache *c, uint32_t layer, const float *q, float *out) {
    float max[KV_MAX_QUERY / 8], sum[KV_MAX_QUERY / 8], sums[KV_MAX_QUERY];
    struct kv_partial p = {.max = max, .sum = sum, .out = sums};
    kv_cache_attend_part(c, layer, q, 0, 1, &p);
    kv_cache_attend_merge(c, &p, 1, out);
}
