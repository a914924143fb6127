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

// Pages of one KV head in a class.
static uint32_t head_pages(const struct kv_cache *c, uint32_t layer, uint32_t head, size_t class) {
    const struct kv_class *k = &c->streams[kv_stream_of(c, layer, head)].classes[class];
    return (k->n + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
}

static void attend_pages(const struct kv_cache *c, uint32_t layer, uint32_t head, size_t class,
                         uint32_t first, uint32_t end, const float *q, struct kv_partial *p) {
    const struct kv_class *k = &c->streams[kv_stream_of(c, layer, head)].classes[class];
    uint32_t group = c->shape.n_heads / c->shape.n_kv_heads, dim = c->shape.head_dim;
    uint32_t stop = end * KV_PAGE_TOKENS < k->n ? end * KV_PAGE_TOKENS : k->n;
    struct kv_attend_job job = {.heads = group,
                                .dim = dim,
                                .query = q + (size_t)head * group * dim,
                                .pages = k->pages + first,
                                .n = stop - first * KV_PAGE_TOKENS,
                                .max = p->max + head * group,
                                .sum = p->sum + head * group,
                                .out = p->out + (size_t)head * group * dim};
    bool plain = false;
    for (int side = 0; side < 2; side++) {
        job.layout[side] = &c->layouts[side][kv_class_port(class, side)];
        job.at[side] = kv_block_at(c, class, kv_member_of(c, layer, head), side);
        plain |= job.layout[side]->n_groups != 1;
    }
    kv_attend_kernel(plain || dim != 64 ? 0 : c->kernel)(&job);
}

void kv_cache_attend_part(const struct kv_cache *c, uint32_t layer, const float *q, unsigned part,
                          unsigned n_parts, struct kv_partial *p) {
    uint32_t heads = c->shape.n_kv_heads, dim = c->shape.head_dim;
    float scale = 1.0f / sqrtf((float)dim), scaled[KV_MAX_QUERY];
    for (uint32_t h = 0; h < c->shape.n_heads; h++) {
        p->max[h] = -INFINITY;
        p->sum[h] = 0;
    }
    memset(p->out, 0, sizeof *p->out * c->shape.n_heads * dim);
    for (uint32_t i = 0; i < c->shape.n_heads * dim; i++) scaled[i] = q[i] * scale;
    // Each class is shared out by itself, so that parts stay even whatever a width costs.
    for (size_t class = 0; class < KV_CLASSES; class ++) {
        size_t total = 0, at = 0;
        for (uint32_t h = 0; h < heads; h++) total += head_pages(c, layer, h, class);
        size_t low = total * part / n_parts, high = total * (part + 1) / n_parts;
        for (uint32_t h = 0; h < heads && at < high; h++) {
            size_t n = head_pages(c, layer, h, class);
            size_t first = low > at ? low - at : 0, end = high - at < n ? high - at : n;
            if (first < end)
                attend_pages(c, layer, h, class, (uint32_t)first, (uint32_t)end, scaled, p);
            at += n;
        }
    }
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
    struct kv_partial p = {max, sum, sums};
    kv_cache_attend_part(c, layer, q, 0, 1, &p);
    kv_cache_attend_merge(c, &p, 1, out);
}
