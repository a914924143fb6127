// SPDX-License-Identifier: Apache-2.0
// Adds up keys and values of recorded items by channel: moments before and after RoPE, energy of
// pairs, attention to the first token, coding errors and their damage.
#include <float.h>
#include <stdlib.h>

#include "analysis/studies/anatomy_inside.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/quant/format.h"
#include "sim/replay/damage.h"
#include "traces/tables.h"

enum { BATCH = 16, SINK_ROWS = 8 }; // items held apart at a time; every so many rows' attention

// Sums of one item, by channel of each cell.
enum by_channel { SUM, BEFORE, SQUARE, FOURTH, LOW, HIGH, ERROR, DAMAGE, N_BY_CHANNEL };

struct sums {
    double *at[N_BY_CHANNEL]; // [n_cells][head_dim]
    double *first, *others;   // [n_cells] norms of the first token and, added up, of the others
    double *sink;             // [n_cells / 2] attention to the first token, added up
    double rows;              // whose attention is in sink
};

struct job {
    const struct kv_anatomy *a;
    const struct kv_format *f;
    const float *channels; // of kv_trace_channels, or NULL
    uint8_t width;
    size_t first;      // item of the batch
    struct sums *sums; // [BATCH]
    struct kv_cell_table_scratch **scratch;
};

static size_t n_cells(const struct kv_anatomy *a) {
    return a->n_layers * a->n_heads * 2;
}

static void sums_new(struct sums *s, const struct kv_anatomy *a) {
    size_t cells = n_cells(a), n = cells * a->head_dim;
    double *block = kv_alloc(N_BY_CHANNEL * n + 3 * cells, sizeof *block);
    for (int k = 0; k < N_BY_CHANNEL; k++) s->at[k] = block + (size_t)k * n;
    s->first = block + N_BY_CHANNEL * n;
    s->others = s->first + cells;
    s->sink = s->others + cells;
}

static void sums_clear(struct sums *s, const struct kv_anatomy *a) {
    size_t n = n_cells(a) * a->head_dim;
    memset(s->at[0], 0, (N_BY_CHANNEL * n + 3 * n_cells(a)) * sizeof(double));
    for (size_t i = 0; i < n; i++) s->at[LOW][i] = DBL_MAX, s->at[HIGH][i] = -DBL_MAX;
    s->rows = 0;
}

// ---- an item --------------------------------------------------------------------------

static void add_vector(struct sums *s, size_t cell, size_t d, const float *x, bool first) {
    double norm = 0;
    for (size_t i = 0, at = cell * d; i < d; i++, at++) {
        double v = (double)x[i], square = v * v;
        s->at[SUM][at] += v;
        s->at[SQUARE][at] += square;
        s->at[FOURTH][at] += square * square;
        if (v < s->at[LOW][at]) s->at[LOW][at] = v;
        if (v > s->at[HIGH][at]) s->at[HIGH][at] = v;
        norm += square;
    }
    *(first ? &s->first[cell] : &s->others[cell]) += sqrt(norm);
}

static void add_row(const struct kv_anatomy *a, struct sums *s, const struct kv_trace_item *it,
                    size_t row) {
    const struct kv_trace_info *in = kv_trace_info(a->options.trace);
    size_t d = a->head_dim, cells = n_cells(a), position = kv_trace_position(it, row);
    float x[1024];
    for (size_t cell = 0; cell < cells; cell++) {
        const uint16_t *half = (cell & 1 ? it->v : it->k) + (row * cells / 2 + cell / 2) * d;
        size_t layer = cell / 2 / a->n_heads;
        kv_f16_to_f32_n(half, x, d);
        add_vector(s, cell, d, x, position == 0);
        if (!(cell & 1)) kv_turn(x, d, in->order, in->rope + layer * (d / 2), -(double)position);
        for (size_t i = 0; i < d; i++) s->at[BEFORE][cell * d + i] += (double)x[i];
    }
}

// Errors of a cell and what they are expected to cost, channel by channel (the form of
// KV_TABLE_CHANNEL).
static void add_errors(const struct job *j, struct sums *s, const struct kv_trace_item *it,
                       size_t row, const float *error) {
    size_t d = j->a->head_dim, cells = n_cells(j->a);
    for (size_t cell = 0; cell < cells; cell++) {
        double g2 = 0.5 * (double)it->sens[row * cells + cell] / (double)d;
        for (size_t i = 0, at = cell * d; i < d; i++, at++) {
            double e2 = (double)error[(row * cells + cell) * d + i];
            e2 *= e2;
            s->at[ERROR][at] += e2;
            s->at[DAMAGE][at] += g2 * e2 * (j->channels ? (double)j->channels[at] : 1);
        }
    }
}

// Weight that a query pays to position 0 among the keys of its path that it sees.
static double weight_of_first(const struct kv_anatomy *a, const struct kv_trace_item *it,
                              size_t row, size_t layer, size_t head, uint32_t window) {
    const struct kv_trace_info *in = kv_trace_info(a->options.trace);
    size_t d = a->head_dim, n_q = in->shape.n_heads, kv = head / (n_q / a->n_heads);
    double scale = a->options.model ? (double)a->options.model->attn_scale : 1 / sqrt((double)d);
    double most = -DBL_MAX, sum = 0, first = -DBL_MAX;
    float q[1024], k[1024];
    kv_f16_to_f32_n(it->q + ((row * a->n_layers + layer) * n_q + head) * d, q, d);
    for (size_t t = window && row >= window ? row + 1 - window : 0; t <= row; t++) {
        double score = 0;
        kv_f16_to_f32_n(it->k + ((t * a->n_layers + layer) * a->n_heads + kv) * d, k, d);
        for (size_t i = 0; i < d; i++) score += (double)(q[i] * k[i]);
        score *= scale;
        if (t == 0) first = score;
        sum = score > most ? sum * exp(most - score) + 1 : sum + exp(score - most);
        if (score > most) most = score;
    }
    return exp(first - most) / sum;
}

static void add_sinks(const struct kv_anatomy *a, struct sums *s, const struct kv_trace_item *it) {
    const struct kv_trace_info *in = kv_trace_info(a->options.trace);
    const struct kv_model *m = a->options.model;
    size_t share = in->shape.n_heads / a->n_heads;
    for (size_t row = SINK_ROWS; it->q && row < it->n_context; row += SINK_ROWS, s->rows++)
        for (size_t l = 0; l < a->n_layers; l++)
            for (size_t h = 0; h < in->shape.n_heads; h++)
                s->sink[l * a->n_heads + h / share] +=
                    weight_of_first(a, it, row, l, h, m ? m->layers[l].window : 0) / (double)share;
}

static int measure_item(void *self, unsigned worker, size_t i, struct kv_error *e) {
    const struct job *j = self;
    const struct kv_anatomy *a = j->a;
    const struct kv_trace *trace = a->options.trace;
    const struct kv_trace_item *it = kv_trace_item(trace, j->first + i);
    size_t cells = n_cells(a), n = it->n_tokens;
    struct sums *s = &j->sums[i];
    int rc = kv_trace_check_item(trace, j->first + i, KV_KEEP_KV | KV_KEEP_SENS, e);
    if (rc) return rc;
    uint8_t *decided = kv_alloc(n * cells, 1);
    float *error = kv_alloc(n * cells * a->head_dim, sizeof *error);
    memset(decided, j->width, n * cells);
    sums_clear(s, a);
    rc = kv_coding_error(kv_trace_info(trace), it, j->f, decided, j->scratch[worker], error, e);
    for (size_t row = 0; row < n && rc == 0; row++) {
        add_row(a, s, it, row);
        add_errors(j, s, it, row, error);
    }
    if (rc == 0) add_sinks(a, s, it);
    free(decided);
    free(error);
    return rc;
}

// ---- all items ------------------------------------------------------------------------

static void merge(const struct kv_anatomy *a, struct sums *to, const struct sums *from) {
    size_t cells = n_cells(a), n = cells * a->head_dim;
    for (int k = 0; k < N_BY_CHANNEL; k++)
        for (size_t i = 0; i < n; i++) {
            double x = from->at[k][i], *y = &to->at[k][i];
            *y = k == LOW ? fmin(*y, x) : k == HIGH ? fmax(*y, x) : *y + x;
        }
    for (size_t c = 0; c < cells; c++) {
        to->first[c] += from->first[c];
        to->others[c] += from->others[c];
        to->sink[c] += from->sink[c];
    }
    to->rows += from->rows;
}

// Energy by RoPE pair of a key: the pair with the most.
static void find_pair(const struct kv_anatomy *a, const double *square, double energy,
                      struct kv_anatomy_place *p) {
    size_t half = a->head_dim / 2;
    bool adjacent = kv_trace_info(a->options.trace)->order == KV_ORDER_GGML;
    p->pair_pct = p->side == KV_KEY ? 0 : NAN;
    for (size_t i = 0; i < half && p->side == KV_KEY; i++) {
        size_t one = adjacent ? 2 * i : i, two = adjacent ? one + 1 : one + half;
        double pct = 100 * (square[one] + square[two]) / energy;
        if (pct > p->pair_pct) p->pair_pct = pct, p->pair = (uint32_t)i;
    }
}

static void fill_place(struct kv_anatomy *a, const struct sums *s, size_t cell, double tokens,
                       double items, double scored) {
    struct kv_anatomy_place *p = &a->places[cell];
    size_t d = a->head_dim, at = cell * d;
    double energy = 0, fourth = 0, before = 0, after = 0, error = 0, n = tokens * (double)d;
    for (size_t i = 0; i < d; i++) {
        double m = s->at[BEFORE][at + i] / tokens, c = s->at[SUM][at + i] / tokens;
        a->mean[at + i] = fabs(m);
        a->range[at + i] = s->at[HIGH][at + i] - s->at[LOW][at + i];
        a->damage[at + i] = s->at[DAMAGE][at + i] / scored;
        if (a->mean[at + i] > p->mean) p->mean = a->mean[at + i], p->mean_channel = (uint32_t)i;
        if (a->range[at + i] > p->range)
            p->range = a->range[at + i], p->range_channel = (uint32_t)i;
        energy += s->at[SQUARE][at + i];
        fourth += s->at[FOURTH][at + i];
        error += s->at[ERROR][at + i];
        before += m * m;
        after += c * c;
        p->damage += a->damage[at + i];
    }
    p->constant_pct = 100 * before * tokens / energy;
    p->after_pct = 100 * after * tokens / energy;
    p->kurtosis = fourth / n / pow(energy / n, 2);
    p->first_ratio = s->first[cell] / items / (s->others[cell] / (tokens - items));
    p->sink_pct = s->rows > 0 ? 100 * s->sink[cell / 2] / s->rows : NAN;
    p->error = sqrt(error / energy);
    p->buried = sqrt(error / fmax(energy - before * tokens, 1e-12 * energy));
    find_pair(a, s->at[SQUARE] + at, energy, p);
}

int kv_anatomy_measure(struct kv_anatomy *a, const struct kv_item_range *items,
                       const struct kv_format *f, uint8_t width, struct kv_error *e) {
    const struct kv_trace *trace = a->options.trace;
    struct sums all, batch[BATCH];
    struct job j = {a, f, kv_trace_channels(trace), width, items->first, batch, NULL};
    unsigned jobs = a->options.jobs;
    double tokens = 0, scored = 0;
    int rc = 0;
    j.scratch = kv_alloc(jobs, sizeof(struct kv_cell_table_scratch *));
    for (unsigned w = 0; w < jobs; w++) j.scratch[w] = kv_cell_table_scratch_new(f);
    sums_new(&all, a);
    sums_clear(&all, a);
    for (size_t i = 0; i < BATCH; i++) sums_new(&batch[i], a);
    for (size_t done = 0; done < items->n && rc == 0; done += BATCH) {
        size_t here = items->n - done < BATCH ? items->n - done : BATCH;
        j.first = items->first + done;
        rc = kv_parallel(here, jobs, measure_item, &j, e);
        for (size_t i = 0; i < here && rc == 0; i++) { // in order, whatever the workers
            const struct kv_trace_item *it = kv_trace_item(trace, j.first + i);
            merge(a, &all, &batch[i]);
            tokens += it->n_tokens;
            scored += kv_fisher_scored(kv_trace_info(trace), it);
        }
    }
    for (size_t c = 0; c < n_cells(a) && rc == 0; c++) {
        fill_place(a, &all, c, tokens, (double)items->n, scored);
        a->all_damage += a->places[c].damage;
    }
    for (size_t c = 0; c < n_cells(a); c++)
        a->places[c].damage_pct = 100 * a->places[c].damage / a->all_damage;
    a->n_tokens = (size_t)tokens;
    for (unsigned w = 0; w < jobs; w++) kv_cell_table_scratch_free(j.scratch[w]);
    free(j.scratch);
    free(all.at[0]);
    for (size_t i = 0; i < BATCH; i++) free(batch[i].at[0]);
    return rc;
}
