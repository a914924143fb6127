// SPDX-License-Identifier: Apache-2.0
// Turns stored weights into a model's matrices: decoders of ggml's blocks, names, shapes, checks.
#include "sim/model/weights.h"

#include <stdlib.h>

#include "sim/base/cpu.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"

// ---- types ----------------------------------------------------------------------------
//
// Blocks as ggml lays them out (ggml/src/ggml-common.h and the dequantize_row functions of
// ggml-quants.c in https://github.com/ggml-org/llama.cpp): 32 values, fp16 scale d, for the _1
// types fp16 minimum m, for 5 bits a word of fifth bits, then nibbles: value j in the low half of
// byte j, value j + 16 in its high half. d has 11 significant bits and a code at most 8, so d *
// code is exact and a fused multiply-add changes nothing.

#define BLOCK 32

static float half_at(const uint8_t *p) {
    return kv_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static void decode_f32(const uint8_t *in, size_t n, float *out) {
    memcpy(out, in, n * 4);
}

// A small integral part of a row at a time, since a file may hold halves at odd addresses.
static void decode_f16(const uint8_t *in, size_t n, float *out) {
    uint16_t half[256];
    for (size_t i = 0; i < n; i += 256) {
        size_t k = n - i < 256 ? n - i : 256;
        memcpy(half, in + 2 * i, 2 * k);
        kv_f16_to_f32_n(half, out + i, k);
    }
}

static void decode_bf16(const uint8_t *in, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)in[2 * i] << 16 | (uint32_t)in[2 * i + 1] << 24;
        memcpy(out + i, &bits, 4);
    }
}

static void decode_q4_0(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 18, out += BLOCK) {
        float d = half_at(in);
        for (int j = 0; j < BLOCK / 2; j++) {
            out[j] = (float)((in[2 + j] & 15) - 8) * d;
            out[j + BLOCK / 2] = (float)((in[2 + j] >> 4) - 8) * d;
        }
    }
}

static void decode_q4_1(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 20, out += BLOCK) {
        float d = half_at(in), m = half_at(in + 2);
        for (int j = 0; j < BLOCK / 2; j++) {
            out[j] = (float)(in[4 + j] & 15) * d + m;
            out[j + BLOCK / 2] = (float)(in[4 + j] >> 4) * d + m;
        }
    }
}

// The code of value j: its nibble and its fifth bit.
static int five_bits(const uint8_t *fifth, const uint8_t *nibbles, int j) {
    int nibble = j < BLOCK / 2 ? nibbles[j] & 15 : nibbles[j - BLOCK / 2] >> 4;
    return nibble | ((fifth[j / 8] >> (j % 8)) & 1) << 4;
}

static void decode_q5_0(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 22, out += BLOCK) {
        float d = half_at(in);
        for (int j = 0; j < BLOCK; j++) out[j] = (float)(five_bits(in + 2, in + 6, j) - 16) * d;
    }
}

static void decode_q5_1(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 24, out += BLOCK) {
        float d = half_at(in), m = half_at(in + 2);
        for (int j = 0; j < BLOCK; j++) out[j] = (float)five_bits(in + 4, in + 8, j) * d + m;
    }
}

static void decode_q8_0(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 34, out += BLOCK) {
        float d = half_at(in);
        for (int j = 0; j < BLOCK; j++) out[j] = (float)(int8_t)in[2 + j] * d;
    }
}

static const struct kv_weight_type types[] = {
    {"F32", 1, 4, decode_f32},        {"F16", 1, 2, decode_f16},
    {"BF16", 1, 2, decode_bf16},      {"Q4_0", BLOCK, 18, decode_q4_0},
    {"Q4_1", BLOCK, 20, decode_q4_1}, {"Q5_0", BLOCK, 22, decode_q5_0},
    {"Q5_1", BLOCK, 24, decode_q5_1}, {"Q8_0", BLOCK, 34, decode_q8_0},
};
#define N_TYPES (sizeof types / sizeof *types)

const struct kv_weight_type *kv_weight_type_named(const char *name) {
    for (size_t i = 0; i < N_TYPES; i++)
        if (strcmp(types[i].name, name) == 0) return &types[i];
    return NULL;
}

// ---- tensors of a Llama model ---------------------------------------------------------

enum dim { NONE, ONE, HIDDEN, Q_ROWS, KV_ROWS, FFN, VOCAB };

static size_t dim_size(const struct kv_shape *s, enum dim d) {
    const size_t sizes[] = {[NONE] = 0,
                            [ONE] = 1,
                            [HIDDEN] = s->hidden,
                            [Q_ROWS] = (size_t)s->n_heads * s->head_dim,
                            [KV_ROWS] = (size_t)s->n_kv_heads * s->head_dim,
                            [FFN] = s->ffn,
                            [VOCAB] = s->vocab};
    return sizes[d];
}

// A tensor: its name in both layouts (enum kv_weight_names; after "blk.N." or "model.layers.N." for
// those of a layer), its shape, and where it goes: a member of kv_layer_weights or kv_model, from
// row after[0] + after[1] on.
struct slot {
    const char *name[2];
    enum dim rows, cols;
    size_t member;
    bool vector; // the member is a float *, not a kv_matrix
    enum dim after[2];
};

#define LAYER(m) offsetof(struct kv_layer_weights, m)
#define MODEL(m) offsetof(struct kv_model, m)

static const struct slot layer_slots[] = {
    {{"attn_norm.weight", "input_layernorm.weight"}, ONE, HIDDEN, LAYER(attn_norm), true, {NONE}},
    {{"attn_q.weight", "self_attn.q_proj.weight"}, Q_ROWS, HIDDEN, LAYER(qkv), false, {NONE}},
    {{"attn_k.weight", "self_attn.k_proj.weight"}, KV_ROWS, HIDDEN, LAYER(qkv), false, {Q_ROWS}},
    {{"attn_v.weight", "self_attn.v_proj.weight"},
     KV_ROWS,
     HIDDEN,
     LAYER(qkv),
     false,
     {Q_ROWS, KV_ROWS}},
    {{"attn_output.weight", "self_attn.o_proj.weight"}, HIDDEN, Q_ROWS, LAYER(out), false, {NONE}},
    {{"ffn_norm.weight", "post_attention_layernorm.weight"},
     ONE,
     HIDDEN,
     LAYER(ffn_norm),
     true,
     {NONE}},
    {{"ffn_gate.weight", "mlp.gate_proj.weight"}, FFN, HIDDEN, LAYER(gateup), false, {NONE}},
    {{"ffn_up.weight", "mlp.up_proj.weight"}, FFN, HIDDEN, LAYER(gateup), false, {FFN}},
    {{"ffn_down.weight", "mlp.down_proj.weight"}, HIDDEN, FFN, LAYER(down), false, {NONE}},
};
#define N_LAYER_SLOTS (sizeof layer_slots / sizeof *layer_slots)

static const struct slot model_slots[] = {
    {{"token_embd.weight", "model.embed_tokens.weight"},
     VOCAB,
     HIDDEN,
     MODEL(embed),
     false,
     {NONE}},
    {{"output_norm.weight", "model.norm.weight"}, ONE, HIDDEN, MODEL(final_norm), true, {NONE}},
    {{"output.weight", "lm_head.weight"}, VOCAB, HIDDEN, MODEL(head), false, {NONE}},
};
#define N_MODEL_SLOTS (sizeof model_slots / sizeof *model_slots)

int kv_weights_check_shape(const struct kv_shape *s, const char *path, struct kv_error *e) {
    const struct {
        const char *name;
        uint32_t value, most;
    } limits[] = {
        {"layers", s->n_layers, 1024},
        {"attention heads", s->n_heads, 1024},
        {"KV heads", s->n_kv_heads, 1024},
        {"channels a head", s->head_dim, 1024},
        {"hidden channels", s->hidden, 1u << 17},
        {"feed-forward channels", s->ffn, 1u << 19},
        {"tokens in the vocabulary", s->vocab, 1u << 22},
        {"tokens of context", s->max_tokens, 1u << 20},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (limits[i].value == 0 || limits[i].value > limits[i].most)
            return kv_fail(e, KV_EFAIL, path, "the model claims %u %s; 1 to %u are read",
                           limits[i].value, limits[i].name, limits[i].most);
    if (s->n_heads % s->n_kv_heads)
        return kv_fail(e, KV_EFAIL, path, "%u attention heads do not share %u KV heads evenly",
                       s->n_heads, s->n_kv_heads);
    if (s->head_dim % 2)
        return kv_fail(e, KV_EFAIL, path, "%u channels a head is odd, but RoPE rotates pairs",
                       s->head_dim);
    return KV_OK;
}

// ---- memory ---------------------------------------------------------------------------

// Not kv_alloc: the pages are first touched by the cores that fill them, and too large a model is
// refused.
static void *large_array(size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - 64) return NULL;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static bool allocate_matrix(struct kv_matrix *w, size_t rows, size_t cols, enum kv_weights_as as) {
    *w = (struct kv_matrix){.rows = rows, .cols = cols};
    if (as == KV_WEIGHTS_F32)
        w->f32 = large_array(rows * cols, sizeof *w->f32);
    else
        w->bf16 = large_array(rows * cols, sizeof *w->bf16);
    return w->f32 || w->bf16;
}

static size_t n_weights(const struct kv_shape *s, bool tied) {
    size_t q = dim_size(s, Q_ROWS), kv = dim_size(s, KV_ROWS), h = s->hidden;
    size_t layer = (2 * q + 2 * kv) * h + 3 * h * s->ffn;
    return s->n_layers * layer + (tied ? 1 : 2) * (size_t)s->vocab * h;
}

int kv_weights_allocate(struct kv_model *m, enum kv_weights_as as, struct kv_error *e) {
    const struct kv_shape *s = &m->shape;
    size_t q = dim_size(s, Q_ROWS), kv = dim_size(s, KV_ROWS), h = s->hidden;
    m->n_layers = s->n_layers;
    m->layers = kv_alloc(s->n_layers, sizeof *m->layers);
    m->final_norm = kv_alloc(h, sizeof *m->final_norm);
    bool ok = allocate_matrix(&m->embed, s->vocab, h, as);
    if (m->tied)
        m->head = m->embed;
    else
        ok = ok && allocate_matrix(&m->head, s->vocab, h, as);
    for (size_t i = 0; i < m->n_layers && ok; i++) {
        struct kv_layer_weights *l = &m->layers[i];
        l->attn_norm = kv_alloc(h, sizeof *l->attn_norm);
        l->ffn_norm = kv_alloc(h, sizeof *l->ffn_norm);
        ok = allocate_matrix(&l->qkv, q + 2 * kv, h, as) && allocate_matrix(&l->out, h, q, as) &&
             allocate_matrix(&l->gateup, 2 * (size_t)s->ffn, h, as) &&
             allocate_matrix(&l->down, h, s->ffn, as);
    }
    if (!ok)
        return kv_fail(e, KV_ENOMEM, "memory",
                       "the model's weights need %.1f GB, more than is free",
                       (double)n_weights(s, m->tied) * (as == KV_WEIGHTS_F32 ? 4 : 2) * 1e-9);
    snprintf(m->weights_as, sizeof m->weights_as, "%s", as == KV_WEIGHTS_F32 ? "f32" : "bf16");
    return KV_OK;
}

// ---- copy -----------------------------------------------------------------------------

#define NAME_BYTES 64
// Values a job converts: large enough to hide its start, small enough to share among cores.
#define BAND_VALUES (1u << 18)

struct tensor {
    char name[NAME_BYTES];
    const struct slot *slot;
    size_t layer; // SIZE_MAX: the model's own
    const struct kv_weight_type *type;
    struct kv_weight_source source;
};

// Rows [first, first + n) of a tensor, and where they go: exactly one of f32 and bf16 is set.
struct band {
    const struct tensor *tensor;
    size_t first, n;
    float *f32;
    uint16_t *bf16;
};

// NaN and infinity are the numbers whose exponent is all ones.
static bool all_finite(const float *x, size_t n) {
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        bad |= (bits & 0x7F800000u) == 0x7F800000u;
    }
    return !bad;
}

static int not_finite(const struct tensor *t, size_t row, const float *x, struct kv_error *e) {
    size_t col = 0;
    while (isfinite(x[col])) col++;
    return kv_fail(e, KV_EFAIL, t->source.path, "tensor %s holds %s at row %zu, column %zu",
                   t->name, isnan(x[col]) ? "NaN" : "infinity", row, col);
}

static int copy_band(void *self, unsigned worker, size_t i, struct kv_error *e) {
    (void)worker;
    const struct band *b = (const struct band *)self + i;
    const struct kv_weight_type *type = b->tensor->type;
    size_t cols = b->tensor->source.cols, n_blocks = cols / type->block_values;
    const uint8_t *in = b->tensor->source.data + b->first * n_blocks * type->block_bytes;
    float *row = b->f32 ? NULL : kv_alloc(cols, sizeof *row);
    int rc = KV_OK;
    for (size_t r = 0; r < b->n && !rc; r++, in += n_blocks * type->block_bytes) {
        float *out = b->f32 ? b->f32 + r * cols : row;
        type->decode(in, n_blocks, out);
        if (!all_finite(out, cols)) rc = not_finite(b->tensor, b->first + r, out, e);
        for (size_t c = 0; c < cols && b->bf16; c++) b->bf16[r * cols + c] = kv_f32_to_bf16(out[c]);
    }
    free(row);
    return rc;
}

// Looks a tensor up and checks it against the shape.
static int find_tensor(struct tensor *t, const struct kv_model *m,
                       const struct kv_weight_file *file, struct kv_error *e) {
    if (!file->find(file->self, t->name, &t->source))
        return kv_fail(e, KV_EFAIL, file->path, "tensor %s is missing", t->name);
    const char *path = t->source.path;
    t->type = kv_weight_type_named(t->source.type_name);
    if (!t->type)
        return kv_fail(e, KV_EFAIL, path,
                       "tensor %s has type %s, which is not read; supported: " KV_WEIGHT_TYPES,
                       t->name, t->source.type_name);
    size_t rows = dim_size(&m->shape, t->slot->rows), cols = dim_size(&m->shape, t->slot->cols);
    if (t->source.rows != rows || t->source.cols != cols)
        return kv_fail(e, KV_EFAIL, path,
                       "tensor %s has %zu rows of %zu, but the model's shape asks for %zu of %zu",
                       t->name, t->source.rows, t->source.cols, rows, cols);
    return KV_OK;
}

static size_t add_bands(struct band *bands, const struct tensor *t, struct kv_model *m) {
    char *owner = t->layer == SIZE_MAX ? (char *)m : (char *)&m->layers[t->layer];
    const struct slot *slot = t->slot;
    size_t rows = t->source.rows, cols = t->source.cols;
    size_t step = cols < BAND_VALUES ? BAND_VALUES / cols : 1, n = 0;
    size_t after = dim_size(&m->shape, slot->after[0]) + dim_size(&m->shape, slot->after[1]);
    for (size_t first = 0; first < rows; first += step, n++) {
        if (!bands) continue;
        bands[n] = (struct band){t, first, rows - first < step ? rows - first : step, NULL, NULL};
        if (slot->vector) {
            memcpy(&bands[n].f32, owner + slot->member, sizeof bands[n].f32);
            continue;
        }
        struct kv_matrix w;
        memcpy(&w, owner + slot->member, sizeof w);
        if (w.f32)
            bands[n].f32 = w.f32 + (after + first) * cols;
        else
            bands[n].bf16 = w.bf16 + (after + first) * cols;
    }
    return n;
}

static const char *most_used_type(const struct tensor *tensors, size_t n) {
    size_t values[N_TYPES] = {0}, most = 0;
    for (size_t i = 0; i < n; i++)
        values[tensors[i].type - types] += tensors[i].source.rows * tensors[i].source.cols;
    for (size_t i = 1; i < N_TYPES; i++)
        if (values[i] > values[most]) most = i;
    return types[most].name;
}

int kv_weights_load(struct kv_model *m, const struct kv_weight_file *file, enum kv_weights_as as,
                    const char **main_type, struct kv_error *e) {
    size_t n_own = m->tied ? N_MODEL_SLOTS - 1 : N_MODEL_SLOTS;
    size_t n = n_own + m->shape.n_layers * N_LAYER_SLOTS;
    struct tensor *tensors = kv_alloc(n, sizeof *tensors);
    struct band *bands = NULL;
    int rc = KV_OK;
    for (size_t i = 0; i < n && !rc; i++) {
        struct tensor *t = &tensors[i];
        if (i < n_own) {
            t->slot = &model_slots[i];
            t->layer = SIZE_MAX;
            snprintf(t->name, sizeof t->name, "%s", t->slot->name[file->names]);
        } else {
            t->slot = &layer_slots[(i - n_own) % N_LAYER_SLOTS];
            t->layer = (i - n_own) / N_LAYER_SLOTS;
            snprintf(t->name, sizeof t->name, "%s%u.%s",
                     file->names == KV_NAMES_GGUF ? "blk." : "model.layers.", (unsigned)t->layer,
                     t->slot->name[file->names]);
        }
        rc = find_tensor(t, m, file, e);
    }
    if (!rc) rc = kv_weights_allocate(m, as, e);
    if (rc) goto done;

    size_t n_bands = 0;
    for (size_t i = 0; i < n; i++) n_bands += add_bands(NULL, &tensors[i], m);
    bands = kv_alloc(n_bands, sizeof *bands);
    n_bands = 0;
    for (size_t i = 0; i < n; i++) n_bands += add_bands(bands + n_bands, &tensors[i], m);
    rc = kv_parallel(n_bands, kv_cpu_count(), copy_band, bands, e);
    *main_type = most_used_type(tensors, n);
done:
    free(bands);
    free(tensors);
    return rc;
}
