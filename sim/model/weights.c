// SPDX-License-Identifier: Apache-2.0
// Turns stored weights into a model's matrices: finds, checks, allocates and copies its tensors.
#include "sim/model/weights.h"

#include <stdlib.h>

#include "sim/base/cpu.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"

// ---- checks ---------------------------------------------------------------------------

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
    size_t q = kv_dim_size(s, KV_DIM_QUERIES), kv = kv_dim_size(s, KV_DIM_KEYS), h = s->hidden;
    size_t layer = (2 * q + 2 * kv) * h + 3 * h * s->ffn;
    return s->n_layers * layer + (tied ? 1 : 2) * (size_t)s->vocab * h;
}

// Vectors of a layer, and how many floats they are.
static const struct {
    size_t member;
    enum kv_dim parts[3];
} vectors[] = {
#define TO(m) offsetof(struct kv_layer_weights, m)
    {TO(attn_norm), {KV_DIM_HIDDEN}}, {TO(qkv_bias), {KV_DIM_QUERIES, KV_DIM_KEYS, KV_DIM_KEYS}},
    {TO(q_norm), {KV_DIM_HEAD}},      {TO(k_norm), {KV_DIM_HEAD}},
    {TO(out_bias), {KV_DIM_HIDDEN}},  {TO(attn_post_norm), {KV_DIM_HIDDEN}},
    {TO(ffn_norm), {KV_DIM_HIDDEN}},  {TO(gateup_bias), {KV_DIM_FFN, KV_DIM_FFN}},
    {TO(down_bias), {KV_DIM_HIDDEN}}, {TO(ffn_post_norm), {KV_DIM_HIDDEN}},
#undef TO
};

float **kv_layer_vector(struct kv_layer_weights *l, size_t i) {
    if (i >= sizeof vectors / sizeof *vectors) return NULL;
    return (float **)(void *)((char *)l + vectors[i].member);
}

size_t kv_layer_vector_floats(const struct kv_shape *s, size_t i) {
    size_t n = 0;
    for (size_t p = 0; p < 3; p++) n += kv_dim_size(s, vectors[i].parts[p]);
    return n;
}

// Whether a slot is there, in a model that has these groups of biases.
static bool has_slot(const struct kv_model *m, const struct kv_slot *slot, unsigned biases) {
    if (m->tied && slot->flags & KV_SLOT_UNLESS_TIED) return false;
    unsigned group = slot->flags & KV_SLOT_BIASES;
    return !group || group & biases;
}

// Zeros, since a file may hold a part of a bias that is one vector here.
static void allocate_vectors(struct kv_model *m, struct kv_layer_weights *l, unsigned biases) {
    float **to;
    for (size_t k = 0; k < KV_SLOT_LISTS && m->architecture->layer_slots[k]; k++)
        for (const struct kv_slot *s = m->architecture->layer_slots[k]; s->name[0]; s++)
            for (size_t i = 0; (to = kv_layer_vector(l, i)); i++)
                if (s->member == vectors[i].member && has_slot(m, s, biases) && !*to)
                    *to = kv_alloc(kv_layer_vector_floats(&m->shape, i), sizeof **to);
}

int kv_weights_allocate(struct kv_model *m, unsigned biases, enum kv_weights_as as,
                        struct kv_error *e) {
    const struct kv_shape *s = &m->shape;
    size_t q = kv_dim_size(s, KV_DIM_QUERIES), kv = kv_dim_size(s, KV_DIM_KEYS), h = s->hidden;
    m->final_norm = kv_alloc(h, sizeof *m->final_norm);
    bool ok = allocate_matrix(&m->embed, s->vocab, h, as);
    if (m->tied)
        m->head = m->embed;
    else
        ok = ok && allocate_matrix(&m->head, s->vocab, h, as);
    for (size_t i = 0; i < m->n_layers && ok; i++) {
        struct kv_layer_weights *l = &m->layers[i];
        allocate_vectors(m, l, biases);
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
    const struct kv_slot *slot;
    size_t layer; // SIZE_MAX: the model's own
    const struct kv_weight_type *type;
    struct kv_weight_source source;
    float shift; // added to each value
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
        for (size_t c = 0; c < cols && b->tensor->shift != 0; c++) out[c] += b->tensor->shift;
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
        return kv_fail(e, KV_EFAIL, path, "tensor %s has type %s, which is not read; supported: %s",
                       t->name, t->source.type_name, kv_weight_types_text((char[256]){""}, 256));
    size_t rows = kv_dim_size(&m->shape, t->slot->rows),
           cols = kv_dim_size(&m->shape, t->slot->cols);
    if (t->source.rows != rows || t->source.cols != cols)
        return kv_fail(e, KV_EFAIL, path,
                       "tensor %s has %zu rows of %zu, but the model's shape asks for %zu of %zu",
                       t->name, t->source.rows, t->source.cols, rows, cols);
    return KV_OK;
}

static size_t add_bands(struct band *bands, const struct tensor *t, struct kv_model *m) {
    char *owner = t->layer == SIZE_MAX ? (char *)m : (char *)&m->layers[t->layer];
    const struct kv_slot *slot = t->slot;
    size_t rows = t->source.rows, cols = t->source.cols;
    size_t step = cols < BAND_VALUES ? BAND_VALUES / cols : 1, n = 0;
    size_t after = kv_dim_size(&m->shape, slot->after[0]) + kv_dim_size(&m->shape, slot->after[1]);
    for (size_t first = 0; first < rows; first += step, n++) {
        if (!bands) continue;
        bands[n] = (struct band){t, first, rows - first < step ? rows - first : step, NULL, NULL};
        if (slot->flags & KV_SLOT_VECTOR) {
            memcpy(&bands[n].f32, owner + slot->member, sizeof bands[n].f32);
            bands[n].f32 += after;
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

// The type that holds most values; of equals the one that comes first.
static const char *most_used_type(const struct tensor *tensors, size_t n) {
    size_t most = 0;
    const char *name = "";
    for (size_t i = 0; i < n; i++) {
        size_t values = 0;
        for (size_t k = 0; k < n; k++)
            if (tensors[k].type == tensors[i].type)
                values += tensors[k].source.rows * tensors[k].source.cols;
        if (values > most) name = tensors[i].type->name;
        if (values > most) most = values;
    }
    return name;
}

// Appends a slot as a tensor to be found; layer SIZE_MAX: the model's own.
static void list_slot(struct tensor *to, size_t *n, const struct kv_model *m,
                      enum kv_model_layout layout, const struct kv_slot *slot, size_t layer) {
    const struct kv_architecture *a = m->architecture;
    struct tensor *t = &to[(*n)++];
    *t = (struct tensor){.slot = slot, .layer = layer};
    if (slot->flags & KV_SLOT_NORM) t->shift = a->norm_shift[layout];
    if (layer == SIZE_MAX)
        snprintf(t->name, sizeof t->name, "%s", slot->name[layout]);
    else
        snprintf(t->name, sizeof t->name, "%s%u.%s", a->layer_prefix[layout], (unsigned)layer,
                 slot->name[layout]);
}

static size_t count_slots(const struct kv_slot *slots) {
    size_t n = 0;
    for (; slots->name[0]; slots++) n++;
    return n;
}

// All that the model may hold, its biases included. Caller frees.
static struct tensor *list_tensors(const struct kv_model *m, enum kv_model_layout layout,
                                   size_t *n) {
    const struct kv_architecture *a = m->architecture;
    unsigned biases = a->biases | a->may_have_biases;
    size_t room = count_slots(a->model_slots);
    for (size_t k = 0; k < KV_SLOT_LISTS && a->layer_slots[k]; k++)
        room += m->n_layers * count_slots(a->layer_slots[k]);
    struct tensor *list = kv_alloc(room, sizeof *list);
    *n = 0;
    for (const struct kv_slot *s = a->model_slots; s->name[0]; s++)
        if (has_slot(m, s, biases)) list_slot(list, n, m, layout, s, SIZE_MAX);
    for (size_t i = 0; i < m->n_layers; i++)
        for (size_t k = 0; k < KV_SLOT_LISTS && a->layer_slots[k]; k++)
            for (const struct kv_slot *s = a->layer_slots[k]; s->name[0]; s++)
                if (has_slot(m, s, biases)) list_slot(list, n, m, layout, s, i);
    return list;
}

// Finds the tensors that must be there and those that are; drops biases that are not, and says
// which groups of them the model has.
static int find_tensors(struct tensor *list, size_t *n, const struct kv_model *m,
                        const struct kv_weight_file *file, unsigned *biases, struct kv_error *e) {
    size_t kept = 0;
    int rc = KV_OK;
    *biases = m->architecture->biases | file->biases;
    for (size_t i = 0; i < *n && !rc; i++) {
        unsigned group = list[i].slot->flags & KV_SLOT_BIASES;
        bool must = has_slot(m, list[i].slot, *biases & ~file->may_have_biases);
        if (!must && !(group & file->may_have_biases &&
                       file->find(file->self, list[i].name, &list[i].source)))
            continue;
        list[kept] = list[i];
        rc = find_tensor(&list[kept++], m, file, e);
        *biases |= group;
    }
    *n = kept;
    return rc;
}

int kv_weights_load(struct kv_model *m, const struct kv_weight_file *file, enum kv_weights_as as,
                    const char **main_type, struct kv_error *e) {
    size_t n, n_bands = 0;
    unsigned biases;
    struct tensor *tensors = list_tensors(m, file->layout, &n);
    struct band *bands = NULL;
    int rc = find_tensors(tensors, &n, m, file, &biases, e);
    if (!rc) rc = kv_weights_allocate(m, biases, as, e);
    if (rc) goto done;

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
