// SPDX-License-Identifier: Apache-2.0
// Attention over recorded queries, once with recorded and once with decoded keys and values.
#include "sim/replay/attention.h"

#include <pthread.h>
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/half.h"
#include "sim/base/finite.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/model/kernels.h"
#include "sim/model/paths.h"
#include "sim/quant/code.h"

enum { MAX_DIM = 256 }; // channels of a head

// ---- one layer ------------------------------------------------------------------------

// What attention in one layer reads, recorded [0] or decoded [1].
struct reading {
    float *k, *v, *k_t; // [n_tokens][n_kv_heads * d]; k_t transposed, [n_kv_heads * d][ld]
};

// One worker's item.
struct bench {
    const struct kv_trace_info *info;
    const struct kv_trace_item *item;
    struct kv_tree tree;
    struct kv_paths at;
    struct reading read[2];
    float *q, *q_scaled, *weights; // one layer's queries; a row's group; [group][ld_row]
    float *log_ratio;              // [longest path] of one query head
    uint8_t *masked;
    // The recorded run's attention, kept for all specs of the item: outputs
    // [n_layers][n_tokens][n_heads * d] and weights, each row's group at its offset.
    float *out, *ref_weights;
    size_t *offset; // [n_tokens + 1] of a row's weights of one layer and query head
    float *mixed;   // [n_tokens][n_heads * d] the decoded run's output
};

static void bench_open(struct bench *b, const struct kv_trace_info *in,
                       const struct kv_trace_item *it) {
    const struct kv_shape *s = &in->shape;
    size_t n = it->n_tokens, n_kv = (size_t)s->n_kv_heads * s->head_dim,
           n_q = (size_t)s->n_heads * s->head_dim, group = s->n_heads / s->n_kv_heads;
    *b = (struct bench){.info = in, .item = it};
    b->tree = (struct kv_tree){it->n_tokens, it->n_context, it->n_choices, it->first, it->ids};
    kv_paths_init(&b->at, &b->tree);
    for (int c = 0; c < 2; c++)
        b->read[c] =
            (struct reading){kv_alloc(n * n_kv, sizeof(float)), kv_alloc(n * n_kv, sizeof(float)),
                             kv_alloc(n_kv * b->at.ld, sizeof(float))};
    b->q = kv_alloc(n * n_q, sizeof(float));
    b->q_scaled = kv_alloc(group * s->head_dim, sizeof(float));
    b->weights = kv_alloc(group * b->at.ld_row, sizeof(float));
    b->log_ratio = kv_alloc(b->at.longest + 1, sizeof(float));
    b->masked = kv_alloc(b->at.longest + 1, 1);
    b->mixed = kv_alloc(n * n_q, sizeof(float));
    b->offset = kv_alloc(n + 1, sizeof *b->offset);
    for (size_t row = 0; row < n; row++)
        b->offset[row + 1] = b->offset[row] + s->n_heads * (size_t)(b->at.position[row] + 1);
    b->out = kv_alloc(s->n_layers * n * n_q, sizeof(float));
    b->ref_weights = kv_alloc(s->n_layers * b->offset[n], sizeof(float));
}

static void bench_close(struct bench *b) {
    for (int c = 0; c < 2; c++) {
        free(b->read[c].k);
        free(b->read[c].v);
        free(b->read[c].k_t);
    }
    void *blocks[] = {b->q,   b->q_scaled,    b->weights, b->masked, b->log_ratio,
                      b->out, b->ref_weights, b->offset,  b->mixed};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
    kv_paths_fini(&b->at);
}

static void load_layer(struct bench *b, uint32_t layer) {
    const struct kv_shape *s = &b->info->shape;
    size_t n_kv = (size_t)s->n_kv_heads * s->head_dim, n_q = (size_t)s->n_heads * s->head_dim;
    for (size_t row = 0; row < b->item->n_tokens; row++) {
        size_t at = row * s->n_layers + layer;
        kv_f16_to_f32_n(b->item->q + at * n_q, b->q + row * n_q, n_q);
        kv_f16_to_f32_n(b->item->k + at * n_kv, b->read[0].k + row * n_kv, n_kv);
        kv_f16_to_f32_n(b->item->v + at * n_kv, b->read[0].v + row * n_kv, n_kv);
    }
    kv_paths_transpose(&b->at, n_kv, b->read[0].k, b->read[0].k_t);
}

// Recorded values plus one layer's coding error [n_tokens][n_layers][n_kv_heads][2][d].
static void add_error(struct bench *b, uint32_t layer, const float *error) {
    const struct kv_shape *s = &b->info->shape;
    size_t d = s->head_dim, n_kv = s->n_kv_heads * d;
    for (size_t row = 0; row < b->item->n_tokens; row++)
        for (size_t h = 0; h < s->n_kv_heads; h++) {
            const float *e = error + ((row * s->n_layers + layer) * s->n_kv_heads + h) * 2 * d;
            size_t to = row * n_kv + h * d;
            for (size_t i = 0; i < d; i++) {
                b->read[1].k[to + i] = b->read[0].k[to + i] + e[i];
                b->read[1].v[to + i] = b->read[0].v[to + i] + e[d + i];
            }
        }
    kv_paths_transpose(&b->at, n_kv, b->read[1].k, b->read[1].k_t);
}

static void add_span(struct kv_attend *a, const struct bench *b, bool coded_k, bool coded_v,
                     size_t head, size_t start, size_t column, size_t from, size_t to) {
    if (from >= to) return;
    size_t d = b->info->shape.head_dim, width = b->info->shape.n_kv_heads * d;
    a->span[a->n_spans++] =
        (struct kv_span){.k_t = b->read[coded_k].k_t + head * d * b->at.ld + column + from,
                         .ld_k = b->at.ld,
                         .v = b->read[coded_v].v + (start + from) * width + head * d,
                         .ld_v = width,
                         .count = to - from};
}

// Cuts a segment that begins at position `base` where coded keys or values end.
static void add_segment(struct kv_attend *a, const struct bench *b, const size_t upto[2],
                        size_t head, size_t start, size_t column, size_t base, size_t visible) {
    size_t end[2];
    for (int s = 0; s < 2; s++) {
        end[s] = upto[s] > base ? upto[s] - base : 0;
        if (end[s] > visible) end[s] = visible;
    }
    size_t low = end[0] < end[1] ? end[0] : end[1], high = end[0] + end[1] - low;
    add_span(a, b, true, true, head, start, column, 0, low);
    add_span(a, b, end[0] == high, end[1] == high, head, start, column, low, high);
    add_span(a, b, false, false, head, start, column, high, visible);
}

// Attention of one row's query heads over one KV head. upto: positions read coded, K and V apart.
// `gone` marks evicted rows [n_tokens], or is NULL; what a layer's window has passed weighs 0 as
// they do. Leaves softmax weights in b->weights.
static void attend_row(struct bench *b, uint32_t layer, uint32_t row, size_t head,
                       const size_t upto[2], const uint8_t *gone, float *out) {
    const struct kv_shape *s = &b->info->shape;
    const struct kv_tree *t = &b->tree;
    size_t d = s->head_dim, group = s->n_heads / s->n_kv_heads,
           first = (row * s->n_heads + head * group) * d;
    uint32_t c = b->at.choice[row];
    struct kv_attend a = {.n_q = group,
                          .dim = d,
                          .q = b->q_scaled,
                          .len = b->at.position[row] + 1,
                          .weights = b->weights,
                          .ld_w = b->at.ld_row,
                          .out = out + first};
    float scale = 1.0f / sqrtf((float)d);
    for (size_t i = 0; i < group * d; i++) b->q_scaled[i] = b->q[first + i] * scale;
    if (c == t->n_choices)
        add_segment(&a, b, upto, head, 0, 0, 0, a.len);
    else {
        add_segment(&a, b, upto, head, 0, 0, 0, t->n_context);
        add_segment(&a, b, upto, head, t->first[c], b->at.column[c], t->n_context,
                    a.len - t->n_context);
    }
    const uint32_t *windows = b->info->windows;
    size_t from = windows ? kv_window_start(windows[layer], b->at.position[row]) : 0;
    if (gone || from > 0) {
        for (size_t j = 0; j < a.len; j++)
            b->masked[j] =
                j < from || (gone && gone[j < t->n_context ? j : t->first[c] + j - t->n_context]);
        b->masked[a.len - 1] = 0; // a token's own query sees it
        a.masked = b->masked;
    }
    kv_kernels()->attend(&a);
}

// ---- one item -------------------------------------------------------------------------

static void attend_reference(struct bench *b) {
    const struct kv_shape *s = &b->info->shape;
    size_t group = s->n_heads / s->n_kv_heads, n = b->item->n_tokens,
           n_q = (size_t)s->n_heads * s->head_dim, exact[2] = {0, 0};
    for (uint32_t l = 0; l < s->n_layers; l++) {
        load_layer(b, l);
        for (size_t h = 0; h < s->n_kv_heads; h++)
            for (uint32_t row = 0; row < n; row++) {
                size_t len = b->at.position[row] + 1;
                float *keep = b->ref_weights + l * b->offset[n] + b->offset[row] + h * group * len;
                attend_row(b, l, row, h, exact, NULL, b->out + l * n * n_q);
                for (size_t g = 0; g < group; g++)
                    memcpy(keep + g * len, b->weights + g * b->at.ld_row, len * sizeof *keep);
            }
    }
}

// Row of the item at a position of `row`'s path.
static size_t row_at(const struct bench *b, uint32_t row, size_t position) {
    uint32_t n = b->tree.n_context;
    return position < n ? position : b->tree.first[b->at.choice[row]] + position - n;
}

// |first-order change of one head's output|^2: sum over positions j of a_j (eps_j - mean eps) v_j +
// a_j e_j, with eps the scores' errors, read up to a constant from b->log_ratio, how the weights
// changed. Where tokens are evicted the weights' change is taken as it is.
static double linear_change(const struct bench *b, uint32_t row, size_t head, const float *ref,
                            const float *w, size_t coded_upto, bool evicted) {
    const struct kv_shape *s = &b->info->shape;
    size_t d = s->head_dim, len = b->at.position[row] + 1, width = s->n_kv_heads * d;
    double mean = 0, sum = 0;
    float change[MAX_DIM] = {0};
    for (size_t j = 0; j < len; j++) mean += (double)(ref[j] * b->log_ratio[j]);
    for (size_t j = 0; j < len; j++) {
        size_t from = row_at(b, row, j) * width + head * d;
        float a = ref[j], tilt = w[j] - a, read = j < coded_upto ? a : 0;
        if (!evicted && w[j] > 0 && a > 0) tilt = a * (float)(log((double)w[j] / (double)a) - mean);
        const float *v = b->read[0].v + from, *coded = b->read[1].v + from;
        for (size_t i = 0; i < d; i++) change[i] += tilt * v[i] + read * (coded[i] - v[i]);
    }
    for (size_t i = 0; i < d; i++) sum += (double)change[i] * (double)change[i];
    return sum;
}

// Adds one row's and KV head's |o' - o|^2 / |o|^2 and KL to the layer's sums, and |o' - o|^2 itself
// and to first order to change.
static void compare_row(const struct bench *b, uint32_t layer, uint32_t row, size_t head,
                        size_t coded_upto, bool evicted, struct kv_attention_layer *to,
                        double change[2]) {
    const struct kv_shape *s = &b->info->shape;
    size_t d = s->head_dim, group = s->n_heads / s->n_kv_heads, len = b->at.position[row] + 1,
           n = b->item->n_tokens;
    const float *ref = b->ref_weights + layer * b->offset[n] + b->offset[row] + head * group * len;
    for (size_t g = 0; g < group; g++, ref += len) {
        size_t at = (row * s->n_heads + head * group + g) * d;
        const float *o = b->out + layer * n * s->n_heads * d + at, *x = b->mixed + at,
                    *w = b->weights + g * b->at.ld_row;
        double norm = 0, error = 0, kl = 0, lost = 0;
        for (size_t i = 0; i < d; i++) {
            norm += (double)o[i] * (double)o[i];
            error += (double)(x[i] - o[i]) * (double)(x[i] - o[i]);
        }
        // KL as a sum of terms that are not negative: rounded weights that do not add up to 1
        // exactly must not show. Where positions are lost, the rest are compared, scaled to add up
        // to 1.
        for (size_t j = 0; j < len; j++) {
            bool both = w[j] > 0 && ref[j] > 0;
            b->log_ratio[j] = both ? logf(w[j] / ref[j]) : 0;
            kl += (double)(w[j] - ref[j] - ref[j] * b->log_ratio[j]);
            lost += both ? 0 : (double)ref[j];
        }
        if (lost > 0 && lost < 1) kl = kl / (1 - lost) - log1p(-lost);
        if (norm > 0) to->output += error / norm;
        change[0] += error;
        change[1] += linear_change(b, row, head, ref, w, coded_upto, evicted);
        to->kl_nats += kv_not_negative(kl);
    }
}

static double relative_square(const float *x, const float *y, size_t n) {
    double norm = 0, error = 0;
    for (size_t i = 0; i < n; i++) {
        norm += (double)x[i] * (double)x[i];
        error += (double)(y[i] - x[i]) * (double)(y[i] - x[i]);
    }
    return norm > 0 ? error / norm : 0;
}

static const uint8_t *evicted_rows(const struct bench *b, const uint8_t *cells, uint32_t layer,
                                   size_t head, uint8_t *gone) {
    const struct kv_shape *s = &b->info->shape;
    size_t per_token = kv_cells(s), at = (layer * s->n_kv_heads + head) * 2;
    bool any = false;
    for (size_t row = 0; row < b->item->n_tokens; row++)
        any |= gone[row] = cells[row * per_token + at] == KV_EVICT;
    return any ? gone : NULL;
}

// Fills every layer for one spec's coding error.
static void attend_coded(struct bench *b, const struct kv_replay *r,
                         const struct kv_replay_spec *spec, const uint8_t *cells,
                         const float *error, struct kv_attention_layer *layers) {
    const struct kv_shape *s = &b->info->shape;
    size_t d = s->head_dim, n = b->item->n_tokens, n_kv = s->n_kv_heads * d;
    size_t(*upto)[2] = kv_alloc(n, sizeof *upto);
    uint8_t *gone = kv_alloc(n, 1);
    for (uint32_t row = 0; row < n; row++)
        for (int side = 0; side < 2; side++)
            upto[row][side] = kv_coded_upto(spec->format, (enum kv_side)side,
                                            row < b->tree.n_context ? 0 : b->tree.n_context,
                                            b->at.position[row], r->self_exact);
    for (uint32_t l = 0; l < s->n_layers; l++) {
        struct kv_attention_layer *to = &layers[l];
        double change[2] = {0, 0};
        *to = (struct kv_attention_layer){0};
        load_layer(b, l);
        add_error(b, l, error);
        for (size_t h = 0; h < s->n_kv_heads; h++) {
            const uint8_t *masked = evicted_rows(b, cells, l, h, gone);
            for (uint32_t row = 0; row < n; row++) {
                attend_row(b, l, row, h, upto[row], masked, b->mixed);
                compare_row(b, l, row, h, upto[row][KV_VALUE], masked != NULL, to, change);
                size_t at = row * n_kv + h * d;
                to->key += relative_square(b->read[0].k + at, b->read[1].k + at, d);
                to->value += relative_square(b->read[0].v + at, b->read[1].v + at, d);
            }
        }
        to->output /= (double)(n * s->n_heads);
        to->stretch = change[1] > 0 ? change[0] / change[1] : 1;
        to->kl_nats /= (double)(n * s->n_heads);
        to->key /= (double)(n * s->n_kv_heads);
        to->value /= (double)(n * s->n_kv_heads);
    }
    free(upto);
    free(gone);
}

struct engine {
    const struct kv_replay *r;
    int (*take)(void *, size_t, size_t, const struct kv_attention_error *, struct kv_error *);
    void *self;
    pthread_mutex_t lock;
    struct kv_progress *progress;
};

static int replay_spec(struct engine *g, struct bench *b, size_t i, size_t j, uint8_t *cells,
                       float *error, struct kv_attention_layer *layers, struct kv_error *e) {
    const struct kv_replay *r = g->r;
    const struct kv_replay_spec *spec = &r->specs[j];
    size_t n_layers = b->info->shape.n_layers;
    struct kv_cell_table_scratch *s = kv_cell_table_scratch_new(spec->format);
    int rc = kv_decide(r, j, i, cells, e);
    if (rc == 0) rc = kv_coding_error(b->info, b->item, spec->format, cells, s, error, e);
    kv_cell_table_scratch_free(s);
    if (rc) return rc;
    size_t n_errors = b->item->n_tokens * kv_cells(&b->info->shape) * b->info->shape.head_dim;
    if (kv_all_finite(error, n_errors))
        attend_coded(b, r, spec, cells, error, layers);
    else // what attention would make of an infinite error may look like a number
        for (size_t l = 0; l < n_layers; l++)
            layers[l] = (struct kv_attention_layer){NAN, NAN, NAN, NAN, NAN};
    struct kv_attention_error x = {.n_layers = n_layers, .layer = layers};
    for (size_t l = 0; l < n_layers; l++) {
        x.mean.output += layers[l].output / (double)n_layers;
        x.mean.stretch += layers[l].stretch / (double)n_layers;
        x.mean.kl_nats += layers[l].kl_nats / (double)n_layers;
        x.mean.key += layers[l].key / (double)n_layers;
        x.mean.value += layers[l].value / (double)n_layers;
    }
    KV_LOCK(&g->lock);
    return g->take(g->self, i, j, &x, e);
}

static int replay_item(void *self, unsigned worker, size_t index, struct kv_error *e) {
    struct engine *g = self;
    const struct kv_replay *r = g->r;
    const struct kv_trace_info *in = kv_trace_info(r->trace);
    size_t i = r->first_item + index, n_cells = kv_cells(&in->shape), done = 0;
    const struct kv_trace_item *it = kv_trace_item(r->trace, i);
    struct bench b;
    int rc = kv_trace_check_item(r->trace, i, KV_KEEP_KV | KV_KEEP_Q, e);
    (void)worker;
    if (rc) return rc;
    bench_open(&b, in, it);
    attend_reference(&b);
    uint8_t *cells = kv_alloc(it->n_tokens * n_cells, 1);
    float *error = kv_alloc(it->n_tokens * n_cells * in->shape.head_dim, sizeof *error);
    struct kv_attention_layer *layers = kv_alloc(in->shape.n_layers, sizeof *layers);
    for (size_t j = 0; j < r->n_specs && rc == 0; j++) {
        if (r->wanted && !r->wanted(r->self, i, j)) continue;
        rc = replay_spec(g, &b, i, j, cells, error, layers, e);
        if (rc == 0 && kv_interrupted()) rc = kv_fail(e, KV_EINTR, "", "interrupted");
        done++;
    }
    free(cells);
    free(error);
    free(layers);
    bench_close(&b);
    if (rc == 0) kv_progress_step(g->progress, done);
    return rc;
}

int kv_attention_answers(const struct kv_trace_info *in, struct kv_error *e) {
    if (in->shape.head_dim > MAX_DIM)
        return kv_fail(e, KV_EFAIL, in->path, "has heads of %u channels; attention replay takes %d",
                       in->shape.head_dim, MAX_DIM);
    if (in->keep & KV_KEEP_KV && in->keep & KV_KEEP_Q) return 0;
    return kv_fail(e, KV_EFAIL, in->path,
                   "keeps no Q, K and V, which attention replay reads; record with --keep q,kv");
}

int kv_replay_attention(const struct kv_replay *r, unsigned jobs,
                        int (*take)(void *, size_t, size_t, const struct kv_attention_error *,
                                    struct kv_error *),
                        void *self, struct kv_error *e) {
    KV_GUARD(e);
    int rc = kv_attention_answers(kv_trace_info(r->trace), e);
    if (rc) return rc;
    struct engine g = {.r = r, .take = take, .self = self};
    pthread_mutex_init(&g.lock, NULL);
    g.progress = kv_progress_start("attention", r->n_items * r->n_specs, "item-specs");
    rc = kv_parallel(r->n_items, jobs, replay_item, &g, e);
    kv_progress_end(g.progress);
    pthread_mutex_destroy(&g.lock);
    return rc;
}
