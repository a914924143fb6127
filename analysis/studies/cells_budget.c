// SPDX-License-Identifier: Apache-2.0
// Bits against the price of a bit: what policy cells starts from when it is given a budget.
#include "analysis/studies/cells_budget.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/base/work.h"

enum { SAMPLE = 8000, DRAW_SAMPLE = 8001, HALVINGS = 60 };

static const double log_s_bound = 30, log_lambda_bound = 80;

// ---- the rule ------------------------------------------------------------------------------

// Adds up the cells [first, first + n step) of a token that share a width and picks it. Returns the
// bits that they take together.
static double pick(const struct kv_cells_choices *c, const float *token, size_t first, size_t n,
                   size_t step, double lambda) {
    double best = INFINITY, bits_of_best = 0, d = (double)c->shape->head_dim;
    for (size_t w = 0; w < c->n_widths; w++) {
        double damage = 0, bits = 0;
        for (size_t i = 0; i < n; i++) {
            size_t place = first + i * step;
            damage += (double)token[place * c->n_widths + w];
            bits += d * c->bits[place & 1][w];
        }
        if (damage + lambda * bits < best) {
            best = damage + lambda * bits;
            bits_of_best = bits;
        }
    }
    return bits_of_best;
}

// Bits that a token's cells take in each layer.
static void pick_token(const struct kv_cells_choices *c, const float *token, double lambda,
                       double *bits) {
    size_t layers = c->shape->n_layers, per = 2 * (size_t)c->shape->n_kv_heads;
    double whole =
        c->grain == KV_CELLS_GRAIN_TOKEN ? pick(c, token, 0, layers * per, 1, lambda) : 0;
    for (size_t l = 0; l < layers; l++) {
        size_t first = l * per;
        bits[l] = 0;
        if (c->grain == KV_CELLS_GRAIN_TOKEN)
            bits[l] = whole / (double)layers; // each layer takes the same
        else if (c->grain == KV_CELLS_GRAIN_LAYER)
            bits[l] = pick(c, token, first, per, 1, lambda);
        else if (c->grain == KV_CELLS_GRAIN_KV)
            for (size_t side = 0; side < 2; side++)
                bits[l] += pick(c, token, first + side, per / 2, 2, lambda);
        else
            for (size_t i = 0; i < per; i++) bits[l] += pick(c, token, first + i, 1, 1, lambda);
    }
}

double kv_cells_bits_at(const struct kv_cells_choices *c, double lambda, double *layer_bits,
                        double *step_bits) {
    size_t layers = c->shape->n_layers, per = 2 * (size_t)c->shape->n_kv_heads;
    double *sum = kv_alloc((KV_CELLS_STEPS + 1) * layers, sizeof *sum), *bits = sum, all = 0;
    double weight[KV_CELLS_STEPS] = {0}, total = 0, values = (double)(per * c->shape->head_dim);
    sum += layers;
    for (size_t t = 0; t < c->n; t++) {
        double share = c->weight ? c->weight[t] : 1;
        size_t step = c->step ? c->step[t] : 0;
        pick_token(c, c->damage + t * layers * per * c->n_widths, lambda, bits);
        for (size_t l = 0; l < layers; l++) sum[step * layers + l] += share * bits[l];
        weight[step] += share;
        total += share;
    }
    for (size_t l = 0; l < layers; l++) {
        double layer = 0;
        for (size_t k = 0; k < KV_CELLS_STEPS; k++) layer += sum[k * layers + l];
        layer /= total * values;
        all += layer / (double)layers;
        if (layer_bits) layer_bits[l] = layer;
        for (size_t k = 0; step_bits && k < KV_CELLS_STEPS; k++)
            step_bits[k * layers + l] =
                weight[k] > 0 ? sum[k * layers + l] / (weight[k] * values) : layer;
    }
    free(bits);
    return all;
}

// ---- the curve -----------------------------------------------------------------------------

// The log of the lambda at which the bits fall to `bits`: they never rise with lambda.
static double find_lambda(const struct kv_cells_choices *c, double bits) {
    double low = -log_lambda_bound, high = log_lambda_bound;
    for (int i = 0; i < HALVINGS; i++) {
        double middle = (low + high) / 2;
        if (kv_cells_bits_at(c, exp(middle), NULL, NULL) > bits)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}

void kv_cells_budget_curve(const struct kv_cells_choices *c, struct kv_cells_budget *budget) {
    size_t layers = c->shape->n_layers;
    double narrow = (c->bits[0][0] + c->bits[1][0]) / 2;
    double wide = (c->bits[0][c->n_widths - 1] + c->bits[1][c->n_widths - 1]) / 2;
    double from = find_lambda(c, wide - 0.01 * (wide - narrow));
    double to = find_lambda(c, narrow + 0.01 * (wide - narrow));
    size_t steps = KV_CELLS_STEPS * layers;
    double *by_layer = kv_alloc(layers + steps, sizeof *by_layer), *by_step = by_layer + layers;
    if (!(to > from)) to = from + 1e-3; // all cells alike: the curve is a step
    budget->layer_bits = kv_alloc(KV_CELLS_BUDGETS * layers, sizeof *budget->layer_bits);
    budget->step_bits = kv_alloc(KV_CELLS_BUDGETS * steps, sizeof *budget->step_bits);
    for (size_t b = 0; b < KV_CELLS_BUDGETS; b++) {
        double lambda = exp(from + (to - from) * (double)b / (KV_CELLS_BUDGETS - 1));
        budget->lambda[b] = (float)lambda;
        budget->bits[b] = (float)kv_cells_bits_at(c, (double)budget->lambda[b], by_layer, by_step);
        for (size_t l = 0; l < layers; l++) budget->layer_bits[b * layers + l] = (float)by_layer[l];
        for (size_t k = 0; k < steps; k++) budget->step_bits[b * steps + k] = (float)by_step[k];
    }
    free(by_layer);
}

void kv_cells_budget_fini(struct kv_cells_budget *budget) {
    free(budget->layer_bits);
    free(budget->step_bits);
    free(budget->format);
    kv_cells_spread_free(budget->spread);
    *budget = (struct kv_cells_budget){0};
}

// ---- of a trained model --------------------------------------------------------------------

struct sample {
    const struct kv_cells_ground *g;
    uint32_t *token; // [n] ascending
    size_t n, n_runs;
    size_t *run;    // [n_runs + 1] tokens of one item
    const float *f; // [n][P] correction
    size_t width[KV_MAX_WIDTHS];
    float *damage;         // [n][P][n_widths]
    double *weight;        // [n]
    uint8_t *step, *class; // [n]
};

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

// The first of a shuffle (Fisher and Yates), so no token twice.
static void draw_sample(struct sample *s) {
    const struct kv_cells_ground *g = s->g;
    s->n = g->n_learns < SAMPLE ? g->n_learns : SAMPLE;
    s->token = kv_alloc(g->n_learns, sizeof *s->token);
    s->run = kv_alloc(s->n + 1, sizeof *s->run);
    memcpy(s->token, g->learns, g->n_learns * sizeof *s->token);
    for (size_t i = 0; i < s->n; i++) {
        size_t j =
            i + (size_t)(kv_draw(g->o->fit.seed, DRAW_SAMPLE, i) * (double)(g->n_learns - i));
        uint32_t swap = s->token[i];
        s->token[i] = s->token[j];
        s->token[j] = swap;
    }
    qsort(s->token, s->n, sizeof *s->token, ascending);
    for (size_t i = 0; i < s->n; i++)
        if (i == 0 || g->item_of[s->token[i]] != g->item_of[s->token[i - 1]])
            s->run[s->n_runs++] = i;
    s->run[s->n_runs] = s->n;
}

// Where a row stands in its sequence.
static void place_row(const struct kv_trace_item *it, uint32_t row, uint8_t *step, uint8_t *class) {
    uint32_t position = (uint32_t)kv_trace_position(it, row);
    *class = (uint8_t)kv_cells_class(position);
    position /= KV_CELLS_STEP_TOKENS;
    *step = (uint8_t)(position < KV_CELLS_STEPS ? position : KV_CELLS_STEPS - 1);
}

static int measure_run(void *self, unsigned worker, size_t at, struct kv_error *e) {
    const struct sample *s = self;
    const struct kv_cells_ground *g = s->g;
    size_t from = s->run[at], n = s->run[at + 1] - from, places = kv_cells_places(&g->of);
    size_t n_widths = g->o->n_widths;
    const struct kv_cells_item *item = &g->items[g->item_of[s->token[from]]];
    uint32_t *rows = kv_alloc(n, sizeof *rows);
    float *error = kv_alloc(n * places, sizeof *error);
    int rc = 0;
    (void)worker;
    for (size_t i = 0; i < n; i++) {
        rows[i] = (uint32_t)(s->token[from + i] - item->first);
        s->weight[from + i] = kv_cells_row_weight(item->item, rows[i]);
        place_row(item->item, rows[i], &s->step[from + i], &s->class[from + i]);
    }
    for (size_t w = 0; w < n_widths && rc == 0; w++) {
        rc = kv_cells_errors(g, item->item, rows, n, s->width[w], error, e);
        for (size_t c = 0; c < n * places && rc == 0; c++) {
            double log_s = (double)g->bias[c % places] + (double)s->f[from * places + c];
            log_s = fmin(fmax(log_s, -log_s_bound), log_s_bound);
            s->damage[(from * places + c) * n_widths + w] =
                (float)(0.5 * exp(log_s) * (double)error[c]);
        }
    }
    free(rows);
    free(error);
    return rc;
}

int kv_cells_budget_measure(const struct kv_cells_ground *g, const struct kv_cells_model *m,
                            struct kv_cells_budget *budget, struct kv_error *e) {
    struct sample s = {.g = g};
    double bits[2][KV_MAX_WIDTHS];
    size_t places = kv_cells_places(&g->of);
    for (size_t w = 0; w < g->o->n_widths; w++) {
        int rc = kv_cells_width(g, g->o->widths[w], &s.width[w], e);
        if (rc) return rc;
        for (int side = 0; side < 2; side++) {
            struct kv_unit_size u =
                kv_format_size(g->format, (enum kv_side)side, (uint32_t)s.width[w]);
            bits[side][w] = 8.0 * u.bytes / u.values;
        }
    }
    draw_sample(&s);
    float *f = kv_alloc(s.n * places, sizeof *f);
    s.f = f;
    s.weight = kv_alloc(s.n, sizeof *s.weight);
    s.step = kv_alloc(s.n, 1);
    s.class = kv_alloc(s.n, 1);
    s.damage = kv_alloc(s.n * places * g->o->n_widths, sizeof *s.damage);
    const struct kv_cells_data d = kv_cells_ground_data(g);
    const struct kv_cells_rows rows = {.n = s.n, .token = s.token};
    int rc = kv_cells_predict(m, &d, &rows, g->o->fit.jobs, f, e);
    if (rc == 0) rc = kv_parallel(s.n_runs, g->o->fit.jobs, measure_run, &s, e);
    const struct kv_cells_choices c = {.shape = &g->shape,
                                       .grain = g->o->grain,
                                       .n = s.n,
                                       .n_widths = g->o->n_widths,
                                       .damage = s.damage,
                                       .bits = (const double(*)[KV_MAX_WIDTHS])bits,
                                       .weight = s.weight,
                                       .step = s.step,
                                       .class = s.class};
    if (rc == 0) kv_cells_budget_curve(&c, budget);
    if (rc == 0) budget->spread = kv_cells_spread_measure(&c, kv_cells_middle(g->o));
    budget->format = kv_strdup(g->format->canonical);
    void *owned[] = {s.token, s.run, f, s.damage, s.weight, s.step, s.class};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    return rc;
}
