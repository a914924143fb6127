// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (Su et al. 2021, RoFormer): frequencies, tables, turning heads.
#include "sim/model/rope.h"

#include "sim/base/memory.h"
#include "sim/model/forward.h"

struct kv_rope kv_rope_plain(float base) {
    return (struct kv_rope){
        .base = base, .factor = 1, .low_factor = 1, .high_factor = 1, .attention_factor = 1};
}

static const double two_pi = 6.283185307179586;

// Llama 3.1: waves that went round less than low_factor times in the original context are stretched
// by the factor, those that went round more than high_factor times are kept, between them the
// frequency goes linearly from one to the other
// (https://github.com/meta-llama/llama-models, models/llama3/model.py, apply_scaling).
static double llama3(const struct kv_rope *r, double f) {
    double rounds = (double)r->original_tokens * f / two_pi, low = (double)r->low_factor,
           high = (double)r->high_factor;
    double kept = (rounds - low) / (high - low);
    kept = kept < 0 ? 0 : kept > 1 ? 1 : kept;
    return kept * f + (1 - kept) * f / (double)r->factor;
}

// The pair, as a real number, that goes round so many times in the original context.
static double pair_of_rounds(const struct kv_rope *r, uint32_t head_dim, double rounds) {
    return (double)head_dim * log((double)r->original_tokens / (rounds * two_pi)) /
           (2 * log((double)r->base));
}

// YaRN (Peng et al. 2023, arXiv 2309.00071, section 3.2): a ramp over the pairs, whose ends are
// rounded outwards as in the authors' program (https://github.com/jquesnelle/yarn).
static double yarn(const struct kv_rope *r, uint32_t head_dim, uint32_t pair, double f) {
    double first = floor(pair_of_rounds(r, head_dim, (double)r->high_factor)),
           last = ceil(pair_of_rounds(r, head_dim, (double)r->low_factor));
    first = first > 0 ? first : 0;
    last = last < head_dim - 1 ? last : head_dim - 1;
    if (first == last) last += 0.001; // a step
    double stretched = ((double)pair - first) / (last - first);
    stretched = stretched < 0 ? 0 : stretched > 1 ? 1 : stretched;
    return (1 - stretched) * f + stretched * f / (double)r->factor;
}

double kv_rope_frequency(const struct kv_rope *r, uint32_t head_dim, uint32_t pair) {
    double f = pow((double)r->base, -2.0 * (double)pair / (double)head_dim);
    switch (r->scaling) {
    case KV_ROPE_LINEAR: // Chen et al. 2023, arXiv 2306.15595
        return f / (double)r->factor;
    case KV_ROPE_LLAMA3:
        return llama3(r, f);
    case KV_ROPE_YARN:
        return yarn(r, head_dim, pair, f);
    case KV_ROPE_DIVISORS:
        return f / (double)r->divisors[pair];
    default:
        return f;
    }
}

int kv_rope_check(const struct kv_rope *r, const char *path, struct kv_error *e) {
    bool ramp = r->scaling == KV_ROPE_LLAMA3 || r->scaling == KV_ROPE_YARN;
    if (r->scaling != KV_ROPE_PLAIN && !(r->factor >= 1))
        return kv_fail(e, KV_EFAIL, path, "RoPE's scaling factor is %g, not at least 1",
                       (double)r->factor);
    if (ramp && (!r->original_tokens || !(r->low_factor > 0 && r->low_factor < r->high_factor)))
        return kv_fail(e, KV_EFAIL, path,
                       "RoPE is scaled from a context of %u tokens between %g and %g rounds; the "
                       "context should be positive, the rounds too and the second more",
                       r->original_tokens, (double)r->low_factor, (double)r->high_factor);
    if (r->scaling == KV_ROPE_YARN && !(r->base > 1))
        return kv_fail(e, KV_EFAIL, path, "YaRN needs a RoPE base above 1, not %g",
                       (double)r->base);
    return KV_OK;
}

float kv_rope_yarn_attention(float factor) {
    return factor > 1 ? (float)(0.1 * log((double)factor) + 1) : 1;
}

// In double, so that long contexts lose nothing before the rounding to float.
static void make_tables(struct kv_rope *r, const struct kv_shape *s) {
    size_t half = s->head_dim / 2, n = s->max_tokens;
    r->cos = kv_alloc(n * half, sizeof *r->cos);
    r->sin = kv_alloc(n * half, sizeof *r->sin);
    for (size_t i = 0; i < half; i++) {
        double step = kv_rope_frequency(r, s->head_dim, (uint32_t)i);
        for (size_t pos = 0; pos < n; pos++) {
            double angle = (double)pos * step;
            r->cos[pos * half + i] = (float)(cos(angle) * (double)r->attention_factor);
            r->sin[pos * half + i] = (float)(sin(angle) * (double)r->attention_factor);
        }
    }
}

void kv_rope_make_tables(struct kv_model *m) {
    for (size_t i = 0; i < m->n_ropes; i++) make_tables(&m->rope[i], &m->shape);
}

// Pairs are (2i, 2i + 1) in GGUF's order and (i, i + d/2) in Hugging Face's.
void kv_rope_turn(const struct kv_model *m, uint32_t layer, float *x, size_t n_heads,
                  uint32_t position, float sign) {
    size_t d = m->shape.head_dim, half = d / 2;
    const struct kv_rope *r = &m->rope[m->layers[layer].rope];
    const float *c = r->cos + position * half, *s = r->sin + position * half;
    for (size_t h = 0; h < n_heads; h++, x += d) {
        if (m->order == KV_ORDER_GGML)
            for (size_t i = 0; i < half; i++) {
                float a = x[2 * i], b = x[2 * i + 1], si = sign * s[i];
                x[2 * i] = a * c[i] - b * si;
                x[2 * i + 1] = a * si + b * c[i];
            }
        else
            for (size_t i = 0; i < half; i++) {
                float a = x[i], b = x[i + half], si = sign * s[i];
                x[i] = a * c[i] - b * si;
                x[i + half] = a * si + b * c[i];
            }
    }
}

void kv_rope_keys(const struct kv_model *m, uint32_t layer, float *k, size_t n,
                  const uint32_t *positions) {
    size_t width = (size_t)m->shape.n_kv_heads * m->shape.head_dim;
    for (size_t i = 0; i < n; i++)
        kv_rope_turn(m, layer, k + i * width, m->shape.n_kv_heads, positions[i], 1);
}

void kv_rope_back(const struct kv_model *m, uint32_t layer, float *x, size_t n, size_t n_heads,
                  const uint32_t *positions) {
    for (size_t i = 0; i < n; i++)
        kv_rope_turn(m, layer, x + i * n_heads * m->shape.head_dim, n_heads, positions[i], -1);
}
