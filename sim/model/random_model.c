// SPDX-License-Identifier: Apache-2.0
// Models of seeded random weights, for tests and device runs.
#include <stdlib.h>

#include "sim/base/cpu.h"
#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/model/rope.h"
#include "sim/model/weights.h"

struct fill {
    const struct kv_matrix *w;
    uint64_t seed;
    uint64_t matrix; // its number in the model: each has a stream of its own
};

// A row: uniform with mean 0 and variance 1/cols, so that activations keep their size.
static int fill_row(void *self, unsigned worker, size_t row, struct kv_error *e) {
    (void)worker, (void)e;
    const struct fill *f = self;
    size_t cols = f->w->cols;
    float scale = (float)sqrt(12.0 / (double)cols);
    for (size_t c = 0; c < cols; c++)
        f->w->f32[row * cols + c] =
            scale * (float)(kv_draw(f->seed, f->matrix, row * cols + c) - 0.5);
    return KV_OK;
}

// Fails only when interrupted; the rows not filled then are never used, since the run ends.
static int fill_matrix(const struct kv_matrix *w, uint64_t seed, uint64_t number) {
    struct fill f = {w, seed, number};
    return kv_parallel(w->rows, kv_cpu_count(), fill_row, &f, NULL);
}

// Uniform from `low` to low + 1.
static void fill_vector(float *x, size_t n, float low, uint64_t seed, uint64_t number) {
    for (size_t i = 0; i < n; i++) x[i] = low + (float)kv_draw(seed, number, i);
}

// Vectors beside the two norms that every layer has: norms around 1, biases around 0.
static void fill_other_vectors(struct kv_model *m, size_t layer, uint64_t seed) {
    struct kv_layer_weights *l = &m->layers[layer];
    float **vector;
    for (size_t i = 0; (vector = kv_layer_vector(l, i)); i++) {
        bool bias = *vector == l->qkv_bias || *vector == l->out_bias || *vector == l->gateup_bias ||
                    *vector == l->down_bias;
        if (*vector && *vector != l->attn_norm && *vector != l->ffn_norm)
            fill_vector(*vector, kv_layer_vector_floats(&m->shape, i), bias ? -0.5f : 0.5f, seed,
                        UINT64_C(1) << 32 | layer << 8 | i);
    }
}

static int fill_layer(struct kv_model *m, size_t layer, uint64_t seed, uint64_t *n) {
    struct kv_layer_weights *l = &m->layers[layer];
    fill_vector(l->attn_norm, m->shape.hidden, 0.5f, seed, (*n)++);
    fill_vector(l->ffn_norm, m->shape.hidden, 0.5f, seed, (*n)++);
    fill_other_vectors(m, layer, seed);
    int rc = fill_matrix(&l->qkv, seed, (*n)++);
    if (!rc) rc = fill_matrix(&l->out, seed, (*n)++);
    if (!rc) rc = fill_matrix(&l->gateup, seed, (*n)++);
    return rc ? rc : fill_matrix(&l->down, seed, (*n)++);
}

static void set_ropes(struct kv_model *m, const struct kv_random_model *how) {
    for (size_t i = 0; i < 2; i++)
        if (how->rope[i].base > 0) {
            m->rope[i] = how->rope[i];
            m->n_ropes = i + 1;
        }
    if (how->attn_scale > 0) m->attn_scale = how->attn_scale;
    if (how->window) kv_architecture_slide(m, how->window, how->window_pattern);
    kv_rope_make_tables(m);
}

// Two models of a shape and a seed are one only if all else of them is.
static uint64_t hash_of(const struct kv_model *m, const struct kv_random_model *how,
                        uint64_t digest) {
    char text[256];
    int n = snprintf(text, sizeof text, "%s %d %u %u %g", how->architecture, how->biases,
                     how->window, how->window_pattern, (double)m->attn_scale);
    digest = kv_hash(text, (size_t)n, digest);
    for (size_t i = 0; i < m->n_ropes; i++)
        digest =
            kv_hash(m->rope[i].cos,
                    (size_t)m->shape.max_tokens * (m->shape.head_dim / 2) * sizeof(float), digest);
    return digest;
}

struct kv_model *kv_model_random_as(const struct kv_shape *shape, enum kv_order order, bool tied,
                                    uint64_t seed, const struct kv_random_model *how) {
    KV_GUARD_ELSE(return NULL);
    const struct kv_architecture *a = kv_architecture_usual;
    const char *name = how->architecture ? how->architecture : a->name[KV_LAYOUT_GGUF];
    if (kv_architecture_find(&a, KV_LAYOUT_GGUF, name, "", "", NULL)) return NULL;
    struct kv_model *m = kv_alloc(1, sizeof *m);
    m->shape = *shape;
    kv_architecture_apply(m, a, KV_LAYOUT_GGUF);
    m->order = order;
    m->tied = tied;
    m->rms_eps = 1e-5f;
    uint64_t n = 0;
    unsigned biases = a->biases | (how->biases ? a->may_have_biases : 0);
    int rc = kv_weights_allocate(m, biases, KV_WEIGHTS_F32, NULL);
    if (!rc) rc = fill_matrix(&m->embed, seed, n++);
    if (!rc && !tied) rc = fill_matrix(&m->head, seed, n++);
    if (!rc) fill_vector(m->final_norm, shape->hidden, 0.5f, seed, n++);
    for (size_t i = 0; i < m->n_layers && !rc; i++) rc = fill_layer(m, i, seed, &n);
    if (rc) {
        kv_model_close(m);
        return NULL;
    }
    snprintf(m->name, sizeof m->name, "random L%u h%u", shape->n_layers, shape->hidden);
    snprintf(m->source, sizeof m->source, "random (seed %llu)", (unsigned long long)seed);
    set_ropes(m, how);
    uint64_t digest = kv_hash(&m->shape, sizeof m->shape, seed * 4 + (uint64_t)order * 2 + tied);
    kv_hex64(how->architecture ? hash_of(m, how, digest) : digest, m->digest);
    return m;
}

struct kv_model *kv_model_random(const struct kv_shape *shape, enum kv_order order, bool tied,
                                 uint64_t seed) {
    return kv_model_random_as(shape, order, tied, seed, &(struct kv_random_model){0});
}
