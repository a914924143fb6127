// SPDX-License-Identifier: Apache-2.0
// A decoder's memory and weights, and the machine beside it: bandwidth and barriers of its threads.
#include "sim/cache/decode_inside.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"

#include <stdlib.h>
#include <unistd.h>

enum { FILL_ROWS = 16 };

// ---- weights --------------------------------------------------------------------------

static size_t vector_length(const struct kv_shape *s, enum kv_decoder_matrix m) {
    switch (m) {
    case KV_M_QKV_BIAS:
        return (s->n_heads + 2 * (size_t)s->n_kv_heads) * s->head_dim;
    case KV_M_GATEUP_BIAS:
        return 2 * (size_t)s->ffn;
    case KV_M_Q_NORM:
    case KV_M_K_NORM:
        return s->head_dim;
    default:
        return s->hidden;
    }
}

static void noise_rows(void *self, enum kv_decoder_matrix m, uint32_t layer, size_t first, size_t n,
                       float *out) {
    const struct kv_shape *s = self;
    size_t cols = m == KV_M_OUT    ? (size_t)s->n_heads * s->head_dim
                  : m == KV_M_DOWN ? s->ffn
                                   : s->hidden;
    bool norm =
        m == KV_M_ATTN_NORM || m == KV_M_FFN_NORM || m == KV_M_FINAL_NORM || m >= KV_M_Q_NORM;
    if (m >= KV_M_QKV_BIAS) cols = vector_length(s, m);
    uint64_t z = (uint64_t)(m + 1) * 0x9E3779B97F4A7C15u ^ (uint64_t)layer << 32 ^ first;
    float amplitude = 1 / sqrtf((float)cols);
    for (size_t i = 0; i < n * cols; i++) {
        z = z * 6364136223846793005u + 1442695040888963407u; // Knuth's MMIX generator
        out[i] = norm ? 1.0f : ((float)(int32_t)(z >> 32) * 0x1p-31f) * amplitude;
    }
}

struct filling {
    struct kv_decoder *d;
    struct kv_weights *w;
    enum kv_decoder_matrix m;
    uint32_t layer;
};

static void fill_rows(void *self, unsigned worker) {
    struct filling *f = self;
    const struct kv_matrix_rows *source = &f->d->s.source;
    float *rows = kv_alloc(FILL_ROWS * f->w->cols, sizeof *rows);
    size_t step = (size_t)FILL_ROWS * f->d->n_threads;
    for (size_t r = (size_t)FILL_ROWS * worker; r < f->w->rows; r += step) {
        size_t n = f->w->rows - r < FILL_ROWS ? f->w->rows - r : FILL_ROWS;
        source->rows(source->self, f->m, f->layer, r, n, rows);
        kv_weights_put(f->w, r, n, rows);
    }
    free(rows);
}

static void fill(struct kv_decoder *d, struct kv_weights *w, enum kv_decoder_matrix m,
                 uint32_t layer, size_t rows, size_t cols) {
    kv_weights_init(w, d->s.weights, rows, cols);
    kv_team_run(d->team, fill_rows, &(struct filling){d, w, m, layer});
}

static float *vector_of(struct kv_decoder *d, enum kv_decoder_matrix m, uint32_t layer) {
    float *x = kv_alloc(vector_length(&d->s.shape, m) + 16, sizeof *x);
    d->s.source.rows(d->s.source.self, m, layer, 0, 1, x);
    return x;
}

static double bytes_a_weight(enum kv_weight_kind kind) {
    static const double bytes[KV_N_WEIGHT_KINDS] = {4, 2, 34.0 / 32, 18.0 / 32};
    return bytes[kind];
}

static int check_shape(const struct kv_decoder_setting *s, struct kv_error *e) {
    const struct kv_shape *m = &s->shape;
    if (m->hidden % 32 || m->ffn % 32 || m->n_heads * m->head_dim % 32 || m->head_dim % 2)
        return kv_fail(e, KV_EFAIL, "decode",
                       "hidden %u, ffn %u and %u heads of %u: expected multiples of 32", m->hidden,
                       m->ffn, m->n_heads, m->head_dim);
    double per_layer =
        (double)m->hidden * (2.0 * m->head_dim * (m->n_heads + m->n_kv_heads) + 3.0 * m->ffn);
    double bytes =
        bytes_a_weight(s->weights) * (m->n_layers * per_layer + (double)m->vocab * m->hidden);
    double memory = (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (bytes > memory)
        return kv_fail(e, KV_EFAIL, "decode", "%s weights take %.1f GB; %.1f GB of memory are free",
                       kv_weight_kind_names[s->weights], bytes / 1e9, memory / 1e9);
    return 0;
}

int kv_decoder_new(struct kv_decoder **out, const struct kv_decoder_setting *setting,
                   struct kv_error *e) {
    *out = NULL;
    int rc = check_shape(setting, e);
    if (rc) return rc;
    struct kv_decoder *d = kv_alloc(1, sizeof *d);
    d->s = *setting;
    const struct kv_shape *s = &d->s.shape;
    if (!d->s.source.rows) d->s.source = (struct kv_matrix_rows){&d->s.shape, noise_rows};
    d->team = kv_team_new(setting->n_threads);
    d->n_threads = kv_team_size(d->team);
    size_t heads = (size_t)s->n_heads * s->head_dim, kv = (size_t)s->n_kv_heads * s->head_dim;
    d->layers = kv_alloc(s->n_layers, sizeof *d->layers);
    for (uint32_t l = 0; l < s->n_layers; l++) {
        struct layer *y = &d->layers[l];
        y->attn_norm = vector_of(d, KV_M_ATTN_NORM, l);
        y->ffn_norm = vector_of(d, KV_M_FFN_NORM, l);
        for (enum kv_decoder_matrix m = KV_M_QKV_BIAS; m < KV_N_MATRICES; m++)
            if (d->s.vectors >> m & 1) y->vector[m] = vector_of(d, m, l);
        fill(d, &y->qkv, KV_M_QKV, l, heads + 2 * kv, s->hidden);
        fill(d, &y->out, KV_M_OUT, l, s->hidden, heads);
        fill(d, &y->gateup, KV_M_GATEUP, l, 2 * (size_t)s->ffn, s->hidden);
        fill(d, &y->down, KV_M_DOWN, l, s->hidden, s->ffn);
    }
    d->final_norm = vector_of(d, KV_M_FINAL_NORM, 0);
    fill(d, &d->head, KV_M_HEAD, 0, s->vocab, s->hidden);
    d->qkv = kv_alloc(heads + 2 * kv + 16, sizeof(float));
    d->y = kv_alloc(s->hidden + 16, sizeof(float));
    d->ffn = kv_alloc(s->ffn + 16, sizeof(float));
    d->gate = kv_alloc(s->ffn + 16, sizeof(float));
    d->up = kv_alloc(2 * (size_t)s->ffn + 16, sizeof(float));
    d->logits = kv_alloc(s->vocab + 16, sizeof(float));
    d->cos = kv_alloc(s->head_dim, sizeof(float));
    d->sin = kv_alloc(s->head_dim, sizeof(float));
    d->lanes = kv_alloc(d->n_threads, sizeof *d->lanes);
    d->partials = kv_alloc(d->n_threads + 1, sizeof *d->partials);
    for (unsigned i = 0; i <= d->n_threads; i++)
        d->partials[i] = (struct kv_partial){.max = kv_alloc(s->n_heads, sizeof(float)),
                                             .sum = kv_alloc(s->n_heads, sizeof(float)),
                                             .out = kv_alloc(heads, sizeof(float)),
                                             .weighted = kv_alloc(s->n_heads, sizeof(float)),
                                             .oldest = kv_alloc(s->n_heads, sizeof(float))};
    d->features =
        kv_alloc((size_t)d->n_threads * s->n_kv_heads * KV_N_CELL_FEATURES, sizeof(float));
    d->widths = kv_alloc(s->n_kv_heads, 2);
    size_t widest = s->ffn > s->hidden ? s->ffn : s->hidden;
    if (heads > widest) widest = heads;
    for (unsigned i = 0; i < d->n_threads; i++) {
        struct lane *lane = &d->lanes[i];
        lane->x = kv_alloc(s->hidden, sizeof(float));
        lane->normed = kv_alloc(s->hidden, sizeof(float));
        lane->context = kv_alloc(heads, sizeof(float));
        lane->act.pair = kv_alloc(widest, sizeof(int32_t));
        lane->act.sum = kv_alloc(widest, sizeof(int32_t));
    }
    *out = d;
    return 0;
}

void kv_decoder_free(struct kv_decoder *d) {
    if (!d) return;
    for (uint32_t l = 0; l < d->s.shape.n_layers; l++) {
        struct layer *y = &d->layers[l];
        free(y->attn_norm);
        free(y->ffn_norm);
        for (size_t m = 0; m < KV_N_MATRICES; m++) free(y->vector[m]);
        kv_weights_fini(&y->qkv);
        kv_weights_fini(&y->out);
        kv_weights_fini(&y->gateup);
        kv_weights_fini(&y->down);
    }
    for (unsigned i = 0; i < d->n_threads; i++) {
        struct lane *lane = &d->lanes[i];
        float *owned[] = {lane->x, lane->normed, lane->context};
        for (size_t k = 0; k < sizeof owned / sizeof *owned; k++) free(owned[k]);
        free(lane->act.pair);
        free(lane->act.sum);
    }
    for (unsigned i = 0; i <= d->n_threads; i++) {
        struct kv_partial *p = &d->partials[i];
        float *owned[] = {p->max, p->sum, p->out, p->weighted, p->oldest};
        for (size_t k = 0; k < sizeof owned / sizeof *owned; k++) free(owned[k]);
    }
    float *owned[] = {d->final_norm, d->qkv,    d->y,   d->ffn, d->gate,
                      d->up,         d->logits, d->cos, d->sin, d->features};
    for (size_t k = 0; k < sizeof owned / sizeof *owned; k++) free(owned[k]);
    free(d->widths);
    kv_weights_fini(&d->head);
    kv_team_free(d->team);
    free(d->layers);
    free(d->lanes);
    free(d->partials);
    free(d);
}

void kv_decoder_control(struct kv_decoder *d, const struct kv_controller *c) {
    d->s.controller = c;
}

size_t kv_decoder_weight_bytes(const struct kv_decoder *d) {
    size_t bytes = d->head.bytes;
    for (uint32_t l = 0; l < d->s.shape.n_layers; l++)
        bytes += d->layers[l].qkv.bytes + d->layers[l].out.bytes + d->layers[l].gateup.bytes +
                 d->layers[l].down.bytes;
    return bytes;
}

unsigned kv_decoder_threads(const struct kv_decoder *d) {
    return d->n_threads;
}

// ---- the machine beside it ------------------------------------------------------------

struct reading {
    struct kv_decoder *d;
    const char *data;
    size_t bytes, n;
    double *bytes_per_ns;
    uint64_t sums[64];
};

static void read_all(void *self, unsigned worker) {
    struct reading *r = self;
    size_t piece = r->bytes / r->d->n_threads / 4096 * 4096;
    for (size_t i = 0; i < r->n; i++) {
        kv_team_barrier(r->d->team);
        double begin = kv_now_s();
        r->sums[worker % 64] ^= kv_stream_read(r->data + worker * piece, piece);
        kv_team_barrier(r->d->team);
        if (worker == 0)
            r->bytes_per_ns[i] = (double)(piece * r->d->n_threads) / ((kv_now_s() - begin) * 1e9);
    }
}

void kv_decoder_bandwidth(struct kv_decoder *d, size_t bytes, size_t n, double *bytes_per_ns) {
    char *data = kv_alloc(bytes, 1);
    memset(data, 1, bytes); // touched: untouched pages would all be one page of zeros
    struct reading r = {.d = d, .data = data, .bytes = bytes, .n = n, .bytes_per_ns = bytes_per_ns};
    kv_team_run(d->team, read_all, &r);
    free(data);
}

enum { BARRIERS = 1000 };

static void meet(void *self, unsigned worker) {
    struct reading *r = self;
    double begin = kv_now_s();
    for (int i = 0; i < BARRIERS; i++) kv_team_barrier(r->d->team);
    if (worker == 0) *r->bytes_per_ns = (kv_now_s() - begin) * 1e9 / BARRIERS;
}

double kv_decoder_barrier_ns(struct kv_decoder *d) {
    double ns = 0;
    kv_team_run(d->team, meet, &(struct reading){.d = d, .bytes_per_ns = &ns});
    return ns;
}
