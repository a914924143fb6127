// SPDX-License-Identifier: Apache-2.0
// The decode step: weights streamed once, the cache read where it lies, each part timed.
#include "sim/cache/decode_inside.h"
#include "sim/base/work.h"

#include <sys/resource.h>

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

// Layers that turn alike follow each other, or are all of them: cosines are made when angles
// change.
static void set_position(struct kv_decoder *d, uint32_t position, uint32_t layer) {
    uint32_t dim = d->s.shape.head_dim, half = dim / 2;
    const double *angles = d->s.angles ? d->s.angles + (size_t)layer * half : NULL;
    double gain = d->s.rope_gain > 0 ? (double)d->s.rope_gain : 1;
    if (layer > 0 && (!angles || memcmp(angles, angles - half, half * sizeof *angles) == 0)) return;
    for (uint32_t i = 0; i < half; i++) {
        double angle =
            position * (angles ? angles[i] : pow((double)d->s.rope_base, -2.0 * i / dim));
        d->cos[i] = (float)(gain * cos(angle));
        d->sin[i] = (float)(gain * sin(angle));
    }
}

// Norms of heads, RoPE and the queries' gain, of one token's fused Q, K and V.
static void finish_qkv(const struct kv_decoder *d, const struct layer *w) {
    const struct kv_shape *s = &d->s.shape;
    size_t dim = s->head_dim, heads = s->n_heads;
    for (size_t h = 0; h < heads + s->n_kv_heads; h++) {
        const float *gain = w->vector[h < heads ? KV_M_Q_NORM : KV_M_K_NORM];
        if (gain) rms_norm(d->qkv + h * dim, gain, dim, d->s.rms_eps, d->qkv + h * dim);
    }
    rotate(d, d->qkv, heads + s->n_kv_heads);
    if (d->s.query_gain > 0)
        for (size_t i = 0; i < heads * dim; i++) d->qkv[i] *= d->s.query_gain;
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

static void product(struct kv_decoder *d, const struct kv_weights *w, const float *bias,
                    const float *x, unsigned worker, float *y, struct watch *t) {
    size_t first, end;
    kv_activation_set(&d->lanes[worker].act, w->kind, x, w->cols);
    book(t, KV_PART_OTHER);
    share(d, w->rows, worker, &first, &end);
    kv_gemv(w, &d->lanes[worker].act, first, end, y);
    if (bias) add(y + first, bias + first, end - first);
}

static float gate(const struct kv_decoder *d, float x) {
    if (!d->s.gelu) return x / (1 + expf(-x));
    return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
}

static void gated(struct kv_decoder *d, const struct kv_weights *w, const float *bias,
                  const float *x, unsigned worker, struct watch *t) {
    size_t first, end, ffn = d->s.shape.ffn;
    kv_activation_set(&d->lanes[worker].act, w->kind, x, w->cols);
    book(t, KV_PART_OTHER);
    share(d, ffn, worker, &first, &end);
    kv_gemv(w, &d->lanes[worker].act, first, end, d->gate);
    kv_gemv(w, &d->lanes[worker].act, ffn + first, ffn + end, d->up);
    book(t, KV_PART_WEIGHTS);
    if (bias) {
        add(d->gate + first, bias + first, end - first);
        add(d->up + ffn + first, bias + ffn + first, end - first);
    }
    for (size_t i = first; i < end; i++) d->ffn[i] = gate(d, d->gate[i]) * d->up[ffn + i];
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

// What a part of the layer has put into d->y, onto this worker's residual stream.
static void add_part(const struct kv_decoder *d, struct lane *lane, const float *post_norm) {
    size_t n = d->s.shape.hidden;
    if (post_norm) rms_norm(d->y, post_norm, n, d->s.rms_eps, lane->normed);
    add(lane->x, post_norm ? lane->normed : d->y, n);
}

static void layer_step(struct kv_decoder *d, uint32_t l, unsigned worker, struct watch *t) {
    const struct kv_shape *s = &d->s.shape;
    const struct layer *w = &d->layers[l];
    struct lane *lane = &d->lanes[worker];
    size_t heads = (size_t)s->n_heads * s->head_dim, kv = (size_t)s->n_kv_heads * s->head_dim;
    rms_norm(lane->x, w->attn_norm, s->hidden, d->s.rms_eps, lane->normed);
    product(d, &w->qkv, w->vector[KV_M_QKV_BIAS], lane->normed, worker, d->qkv, t);
    kv_team_barrier(d->team);
    book(t, KV_PART_WEIGHTS);
    if (worker == 0) {
        set_position(d, kv_cache_tokens(d->cache) - 1, l);
        finish_qkv(d, w);
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
    product(d, &w->out, w->vector[KV_M_OUT_BIAS], lane->context, worker, d->y, t);
    kv_team_barrier(d->team);
    book(t, KV_PART_WEIGHTS);
    if (d->s.controller && worker == 0) { // all have decided
        kv_cache_place(d->cache, l, d->widths);
        kv_cache_put(d->cache, l, d->qkv + heads, d->qkv + heads + kv);
        book(t, KV_PART_APPEND);
    }
    add_part(d, lane, w->vector[KV_M_ATTN_POST_NORM]);
    rms_norm(lane->x, w->ffn_norm, s->hidden, d->s.rms_eps, lane->normed);
    gated(d, &w->gateup, w->vector[KV_M_GATEUP_BIAS], lane->normed, worker, t);
    kv_team_barrier(d->team);
    book(t, KV_PART_OTHER);
    product(d, &w->down, w->vector[KV_M_DOWN_BIAS], d->ffn, worker, d->y, t);
    kv_team_barrier(d->team);
    book(t, KV_PART_WEIGHTS);
    add_part(d, lane, w->vector[KV_M_FFN_POST_NORM]);
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
    if (worker == 0) kv_cache_extend(d->cache, d->s.controller ? NULL : d->bits);
    for (uint32_t l = 0; l < s->n_layers; l++) layer_step(d, l, worker, &t);
    book(&t, KV_PART_OTHER);
    rms_norm(lane->x, d->final_norm, s->hidden, d->s.rms_eps, lane->normed);
    product(d, &d->head, NULL, lane->normed, worker, d->logits, &t);
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
