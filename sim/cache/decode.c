// SPDX-License-Identifier: Apache-2.0
// The decode step: weights streamed once, the cache read where it lies, each part timed.
#include "sim/cache/decode.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/cache/team.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { FILL_ROWS = 16 };

// What a thread computes for itself: the residual stream, its normed copy, partial attention.
struct lane {
    float *x, *normed, *context;
    struct kv_activation act;
    struct kv_partial partial;
};

struct kv_decoder {
    struct kv_decoder_setting s;
    struct kv_team *team;
    unsigned n_threads;
    struct layer {
        float *attn_norm, *ffn_norm;
        struct kv_weights qkv, out, gateup, down;
    } * layers;
    float *final_norm;
    struct kv_weights head;
    float *qkv, *y, *ffn, *gate, *up, *logits; // shared; a phase writes rows, a barrier, all read
    float *cos, *sin;
    struct lane *lanes;
    struct kv_partial *partials; // [n_threads], and the token's own
    float *features;             // of each worker: [n_kv_heads][KV_N_CELL_FEATURES]
    uint8_t *widths;             // [n_kv_heads][2]
    // the call in progress
    struct kv_cache *cache;
    const uint8_t *bits;
    const float *embedding;
    size_t n_steps;
    bool keep;
    struct kv_step_time *times;
    double entropy, confidence;
};

// ---- weights --------------------------------------------------------------------------

static void noise_rows(void *self, enum kv_decoder_matrix m, uint32_t layer, size_t first, size_t n,
                       float *out) {
    const struct kv_shape *s = self;
    size_t cols = m == KV_M_OUT    ? (size_t)s->n_heads * s->head_dim
                  : m == KV_M_DOWN ? s->ffn
                                   : s->hidden;
    bool norm = m == KV_M_ATTN_NORM || m == KV_M_FFN_NORM || m == KV_M_FINAL_NORM;
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

static float *norm_of(struct kv_decoder *d, enum kv_decoder_matrix m, uint32_t layer) {
    float *x = kv_alloc(d->s.shape.hidden, sizeof *x);
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
        y->attn_norm = norm_of(d, KV_M_ATTN_NORM, l);
        y->ffn_norm = norm_of(d, KV_M_FFN_NORM, l);
        fill(d, &y->qkv, KV_M_QKV, l, heads + 2 * kv, s->hidden);
        fill(d, &y->out, KV_M_OUT, l, s->hidden, heads);
        fill(d, &y->gateup, KV_M_GATEUP, l, 2 * (size_t)s->ffn, s->hidden);
        fill(d, &y->down, KV_M_DOWN, l, s->hidden, s->ffn);
    }
    d->final_norm = norm_of(d, KV_M_FINAL_NORM, 0);
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

// ---- small operations -----------------------------------------------------------------

static void rms_norm(const float *x, const float *gain, size_t n, float eps, float *y) {
    float sum[8] = {0}, total = 0;
    for (size_t i = 0; i < n; i++) sum[i % 8] += x[i] * x[i];
    for (int i = 0; i < 8; i++) total += sum[i];
    float scale = 1 / sqrtf(total / (float)n + eps);
    for (size_t i = 0; i < n; i++) y[i] = x[i] * scale * gain[i];
}

static void add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}

static void rotate(const struct kv_decoder *d, float *x, size_t n_heads) {
    uint32_t dim = d->s.shape.head_dim, half = dim / 2;
    bool paired = d->s.order == KV_ORDER_GGML;
    for (size_t h = 0; h < n_heads; h++, x += dim)
        for (uint32_t i = 0; i < half; i++) {
            float *a = paired ? &x[2 * i] : &x[i], *b = paired ? &x[2 * i + 1] : &x[i + half];
            float u = *a, v = *b;
            *a = u * d->cos[i] - v * d->sin[i];
            *b = v * d->cos[i] + u * d->sin[i];
        }
}

static void set_position(struct kv_decoder *d, uint32_t position) {
    uint32_t dim = d->s.shape.head_dim;
    for (uint32_t i = 0; i < dim / 2; i++) {
        double angle = position * pow(d->s.rope_base, -2.0 * i / dim);
        d->cos[i] = (float)cos(angle);
        d->sin[i] = (float)sin(angle);
    }
}

// Entropy and largest probability of the logits, as an entropy policy would read them.
static void read_features(struct kv_decoder *d) {
    const float *y = d->logits;
    size_t n = d->s.shape.vocab;
    float top = y[0];
    for (size_t i = 1; i < n; i++) top = y[i] > top ? y[i] : top;
    double sum = 0, weighted = 0;
    for (size_t i = 0; i < n; i++) {
        float p = expf(y[i] - top);
        sum += p;
        weighted += p * (y[i] - top);
    }
    d->entropy = log(sum) - weighted / sum;
    d->confidence = 1 / sum;
}

// ---- a step ---------------------------------------------------------------------------

// Worker 0's stopwatch: each call books the time since the last one.
struct watch {
    double at;
    double *part_ns; // NULL on other workers
};
static void book(struct watch *w, enum kv_part part) {
    if (!w->part_ns) return;
    double now = kv_now_s();
    w->part_ns[part] += (now - w->at) * 1e9;
    w->at = now;
}

// This worker's rows of a matrix, in whole tiles of 16.
static void share(const struct kv_decoder *d, size_t rows, unsigned worker, size_t *first,
                  size_t *end) {
    size_t tiles = (rows + 15) / 16;
    *first = tiles * worker / d->n_threads * 16;
    *end = tiles * (worker + 1) / d->n_threads * 16;
    if (*end > rows) *end = rows;
}

static void product(struct kv_decoder *d, const struct kv_weights *w, const float *x,
                    unsigned worker, float *y, struct watch *t) {
    size_t first, end;
    kv_activation_set(&d->lanes[worker].act, w->kind, x, w->cols);
    book(t, KV_PART_OTHER);
    share(d, w->rows, worker, &first, &end);
    kv_gemv(w, &d->lanes[worker].act, first, end, y);
}

static void swiglu(struct kv_decoder *d, const struct kv_weights *w, const float *x,
                   unsigned worker, struct watch *t) {
    size_t first, end, ffn = d->s.shape.ffn;
    kv_activation_set(&d->lanes[worker].act, w->kind, x, w->cols);
    book(t, KV_PART_OTHER);
    share(d, ffn, worker, &first, &end);
    kv_gemv(w, &d->lanes[worker].act, first, end, d->gate);
    kv_gemv(w, &d->lanes[worker].act, ffn + first, ffn + end, d->up);
    book(t, KV_PART_WEIGHTS);
    for (size_t i = first; i < end; i++)
        d->ffn[i] = d->gate[i] / (1 + expf(-d->gate[i])) * d->up[ffn + i];
}

// The newest token's part in its own attention, from its exact key and value.
static void attend_own(struct kv_decoder *d, const float *k, const float *v) {
    const struct kv_shape *s = &d->s.shape;
    struct kv_partial *own = &d->partials[d->n_threads];
    uint32_t group = s->n_heads / s->n_kv_heads, dim = s->head_dim;
    for (uint32_t h = 0; h < s->n_heads; h++) {
        const float *q = d->qkv + h * dim, *key = k + h / group * dim;
        float score = 0;
        for (uint32_t i = 0; i < dim; i++) score += q[i] * key[i];
        own->max[h] = score / sqrtf((float)dim);
        own->sum[h] = 1;
        own->weighted[h] = 0;
        own->oldest[h] = NAN;
        memcpy(own->out + h * dim, v + h / group * dim, dim * sizeof *v);
    }
}

// Each worker decides for some cells.
static void decide(struct kv_decoder *d, uint32_t l, unsigned worker, const float *k,
                   const float *v) {
    const struct kv_shape *s = &d->s.shape;
    uint32_t cells = 2 * s->n_kv_heads, first = cells * worker / d->n_threads;
    uint32_t end = cells * (worker + 1) / d->n_threads;
    float *x = d->features + (size_t)worker * s->n_kv_heads * KV_N_CELL_FEATURES;
    kv_controller_features(s, d->partials, d->n_threads + 1, k, v, first / 2, (end + 1) / 2, x);
    kv_controller_decide(d->s.controller, d->cache, l, first, end, x, d->lanes[worker].normed, k, v,
                         d->widths + first);
}

static void layer_step(struct kv_decoder *d, uint32_t l, unsigned worker, struct watch *t) {
    const struct kv_shape *s = &d->s.shape;
    const struct layer *w = &d->layers[l];
    struct lane *lane = &d->lanes[worker];
    size_t heads = (size_t)s->n_heads * s->head_dim, kv = (size_t)s->n_kv_heads * s->head_dim;
    rms_norm(lane->x, w->attn_norm, s->hidden, d->s.rms_eps, lane->normed);
    product(d, &w->qkv, lane->normed, worker, d->qkv, t);
    kv_team_barrier(d->team);
    book(t, KV_PART_WEIGHTS);
    if (worker == 0) {
        rotate(d, d->qkv, s->n_heads + s->n_kv_heads);
        book(t, KV_PART_OTHER);
        if (d->s.controller)
            attend_own(d, d->qkv + heads, d->qkv + heads + kv);
        else
            kv_cache_put(d->cache, l, d->qkv + heads, d->qkv + heads + kv);
    }
    kv_team_barrier(d->team);
    book(t, KV_PART_APPEND);
    kv_cache_attend_part(d->cache, l, d->qkv, worker, d->n_threads, &d->partials[worker]);
    kv_team_barrier(d->team);
    kv_cache_attend_merge(d->cache, d->partials, d->n_threads + (d->s.controller != NULL),
                          lane->context);
    book(t, KV_PART_ATTEND);
    if (d->s.controller) {
        decide(d, l, worker, d->qkv + heads, d->qkv + heads + kv);
        book(t, KV_PART_POLICY);
    }
    product(d, &w->out, lane->context, worker, d->y, t);
    kv_team_barrier(d->team);
    book(t, KV_PART_WEIGHTS);
    if (d->s.controller && worker == 0) { // all have decided
        kv_cache_place(d->cache, l, d->widths);
        kv_cache_put(d->cache, l, d->qkv + heads, d->qkv + heads + kv);
        book(t, KV_PART_APPEND);
    }
    add(lane->x, d->y, s->hidden);
    rms_norm(lane->x, w->ffn_norm, s->hidden, d->s.rms_eps, lane->normed);
    swiglu(d, &w->gateup, lane->normed, worker, t);
    kv_team_barrier(d->team);
    book(t, KV_PART_OTHER);
    product(d, &w->down, d->ffn, worker, d->y, t);
    kv_team_barrier(d->team);
    book(t, KV_PART_WEIGHTS);
    add(lane->x, d->y, s->hidden);
}

static long preemptions(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? u.ru_nivcsw : 0;
}

static void one_step(struct kv_decoder *d, unsigned worker, struct kv_step_time *time) {
    const struct kv_shape *s = &d->s.shape;
    struct lane *lane = &d->lanes[worker];
    long before = preemptions();
    double begin = kv_now_s();
    struct watch t = {begin, worker == 0 ? time->part_ns : NULL};
    memcpy(lane->x, d->embedding, s->hidden * sizeof(float));
    if (worker == 0) {
        kv_cache_extend(d->cache, d->s.controller ? NULL : d->bits);
        set_position(d, kv_cache_tokens(d->cache) - 1);
    }
    for (uint32_t l = 0; l < s->n_layers; l++) layer_step(d, l, worker, &t);
    book(&t, KV_PART_OTHER);
    rms_norm(lane->x, d->final_norm, s->hidden, d->s.rms_eps, lane->normed);
    product(d, &d->head, lane->normed, worker, d->logits, &t);
    kv_team_barrier(d->team);
    book(&t, KV_PART_HEAD);
    if (worker != 0) return;
    if (d->s.features) read_features(d);
    book(&t, KV_PART_POLICY);
    time->step_ns = (t.at - begin) * 1e9;
    time->disturbed = preemptions() != before;
}

static void run_steps(void *self, unsigned worker) {
    struct kv_decoder *d = self;
    for (size_t i = 0; i < d->n_steps; i++) {
        struct kv_step_time time = {0};
        one_step(d, worker, &time);
        if (worker == 0) {
            if (d->times) d->times[i] = time;
            if (!d->keep || i + 1 < d->n_steps)
                kv_cache_truncate(d->cache, kv_cache_tokens(d->cache) - 1);
        }
        kv_team_barrier(d->team);
    }
}

void kv_decoder_steps(struct kv_decoder *d, struct kv_cache *cache, const uint8_t *bits, size_t n,
                      const float *x, struct kv_step_time *times, bool keep, float *logits) {
    d->cache = cache;
    d->bits = bits;
    d->embedding = x;
    d->n_steps = n;
    d->keep = keep;
    d->times = times;
    kv_team_run(d->team, run_steps, d);
    if (logits) memcpy(logits, d->logits, d->s.shape.vocab * sizeof *logits);
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
