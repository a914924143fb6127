// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (Su et al. 2021, RoFormer): frequencies, tables, turning heads.
#include "sim/model/rope.h"

#include "sim/base/memory.h"
#include "sim/model/forward.h"

struct kv_rope kv_rope_plain(float base) {
    return (struct kv_rope){
        .base = base, .factor = 1, .low_factor = 1, .high_factor = 1, .attention_factor = 1};
}

double kv_rope_frequency(const struct kv_rope *r, uint32_t head_dim, uint32_t pair) {
    return pow((double)r->base, -2.0 * (double)pair / (double)head_dim);
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
