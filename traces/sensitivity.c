// SPDX-License-Identifier: Apache-2.0
// Squared gradients of every cell, averaged over label draws.
#include "traces/sensitivity.h"

#include <stdlib.h>

#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "traces/products.h"

const char *const kv_adjoint_modes[] = {"inline", "prefill", "prefill1", NULL};
const char *const kv_adjoint_scores[] = {"choices", "all", NULL};

struct draws {
    const struct kv_shape *shape;
    const struct kv_trace_item *item;
    size_t n_draws, first; // the draw that comes back as 0
    const float *error;    // of each cell, or NULL
    double *channel;       // sums over tokens and draws
    struct kv_sensitivity *out;
};

static double squared_norm(const float *g, size_t n) {
    double s = 0;
    for (size_t i = 0; i < n; i++) s += (double)g[i] * (double)g[i];
    return s;
}

static void keep_gradient(const struct draws *d, uint16_t *to, size_t draw, uint32_t layer,
                          const float *g) {
    size_t width = (size_t)d->shape->n_kv_heads * d->shape->head_dim;
    if (!to) return;
    for (size_t row = 0; row < d->item->n_tokens; row++) {
        uint16_t *at = to + ((row * d->n_draws + draw) * d->shape->n_layers + layer) * width;
        for (size_t i = 0; i < width; i++) at[i] = kv_f32_to_bf16(g[row * width + i]);
    }
}

// Adds g_i^2 of every token of a layer to the sums of its channels, K's or V's.
static void add_channels(const struct draws *d, uint32_t layer, size_t side, const float *g) {
    size_t heads = d->shape->n_kv_heads, dim = d->shape->head_dim;
    for (size_t row = 0; row < d->item->n_tokens; row++)
        for (size_t h = 0; h < heads; h++, g += dim) {
            double *sum = d->channel + ((layer * heads + h) * 2 + side) * dim;
            for (size_t i = 0; i < dim; i++) sum[i] += (double)g[i] * (double)g[i];
        }
}

// Adds one draw's sum_i g_i^2 e_i^2 to the cells of a layer.
static void add_numerators(const struct draws *d, uint32_t layer, size_t side, const float *g) {
    size_t heads = d->shape->n_kv_heads, dim = d->shape->head_dim;
    for (size_t row = 0; row < d->item->n_tokens; row++)
        for (size_t h = 0; h < heads; h++, g += dim) {
            size_t cell = ((row * d->shape->n_layers + layer) * heads + h) * 2 + side;
            d->out->numerator[cell] +=
                kv_weighted_square(g, d->error + cell * dim, dim) / (float)d->n_draws;
        }
}

// Adds one draw's squares; sens and spread hold sums until the end.
static void take(void *self, size_t draw, uint32_t layer, const float *dk, const float *dv,
                 const float *d_evict) {
    const struct draws *d = self;
    size_t heads = d->shape->n_kv_heads, dim = d->shape->head_dim,
           n = (size_t)d->item->n_tokens * heads;
    for (size_t i = 0; i < n; i++) {
        size_t cell = (i / heads * d->shape->n_layers + layer) * heads + i % heads;
        for (int side = 0; side < 2; side++) {
            double s = squared_norm((side ? dv : dk) + i * dim, dim);
            d->out->sens[2 * cell + (size_t)side] += (float)s;
            d->out->spread[2 * cell + (size_t)side] += (float)(s * s);
        }
        d->out->evict[cell] += d_evict[i] * d_evict[i] / (float)d->n_draws;
    }
    for (size_t side = 0; side < 2; side++) {
        add_channels(d, layer, side, side ? dv : dk);
        if (d->error) add_numerators(d, layer, side, side ? dv : dk);
    }
    keep_gradient(d, d->out->k_grad, d->first + draw, layer, dk);
    keep_gradient(d, d->out->v_grad, d->first + draw, layer, dv);
}

// Positions of a path that a row reads coded in the recorded mode; NULL when all reads count.
static uint32_t *counted_reads(const struct kv_tree *t, const struct kv_adjoint_info *how) {
    bool exact = strcmp(how->self, "exact") == 0;
    uint32_t prompt = strcmp(how->mode, "prefill") == 0    ? t->n_context - 1
                      : strcmp(how->mode, "prefill1") == 0 ? t->n_context
                                                           : 0;
    if (!exact && prompt == 0) return NULL;
    uint32_t *counted = kv_alloc(t->n_tokens, sizeof *counted);
    for (uint32_t row = prompt; row < t->n_tokens; row++)
        counted[row] = kv_tree_position(t, row) + !exact;
    return counted;
}

// Scored rows: those kept for judging, the branch point once a choice; or every row that predicts a
// token.
static size_t list_scored(const struct kv_trace_item *it, bool all, struct kv_scored *scored) {
    size_t n = 0, f = 0;
    for (uint32_t row = 0; row < it->n_tokens; row++) {
        bool final = f < it->n_final && it->final_rows[f] == row;
        f += final;
        bool branch = it->n_choices > 0 && row + 1 == it->n_context;
        if (final || (all && row + 1 < it->n_context))
            scored[n++] = (struct kv_scored){row, branch ? it->n_choices : 1};
    }
    return n;
}

size_t kv_scored_count(const struct kv_trace_item *item, const char *score) {
    struct kv_scored *scored = kv_alloc(item->n_tokens, sizeof *scored);
    size_t rows = list_scored(item, strcmp(score, "all") == 0, scored), n = 0;
    for (size_t i = 0; i < rows; i++) n += scored[i].count;
    free(scored);
    return n;
}

enum { AT_ONCE = 8 }; // draws: bounds the gradients of the residual stream held

void kv_sensitivity_measure(const struct kv_model *m, const struct kv_trace_item *it,
                            const struct kv_adjoint_info *how, bool keep_gradients,
                            struct kv_tape *tape, const float *final, const float *error,
                            struct kv_scratch *s, struct kv_sensitivity *out) {
    const struct kv_shape *sh = &m->shape;
    size_t cells = (size_t)it->n_tokens * sh->n_layers * sh->n_kv_heads, r = how->draws;
    size_t channels = kv_cells(sh) * sh->head_dim;
    struct kv_tree tree = {it->n_tokens, it->n_context, it->n_choices, it->first, it->ids};
    *out = (struct kv_sensitivity){.sens = kv_alloc(2 * cells, sizeof(float)),
                                   .spread = kv_alloc(2 * cells, sizeof(float)),
                                   .evict = kv_alloc(cells, sizeof(float)),
                                   .channel = kv_alloc(channels, sizeof(float))};
    if (error) out->numerator = kv_alloc(2 * cells, sizeof(float));
    if (keep_gradients) {
        out->k_grad = kv_alloc(cells * r * sh->head_dim, sizeof(uint16_t));
        out->v_grad = kv_alloc(cells * r * sh->head_dim, sizeof(uint16_t));
    }
    struct kv_scored *scored = kv_alloc(it->n_tokens, sizeof *scored);
    size_t n = (size_t)it->n_tokens * sh->hidden, some = r < AT_ONCE ? r : AT_ONCE;
    float *d_final = kv_alloc(some * n, sizeof *d_final);
    uint32_t *counted = counted_reads(&tree, how);
    struct draws d = {.shape = sh, .item = it, .n_draws = r, .error = error, .out = out};
    d.channel = kv_alloc(channels, sizeof *d.channel);
    struct kv_adjoint_seed seed;
    size_t n_scored = list_scored(it, strcmp(how->score, "all") == 0, scored);
    kv_adjoint_seed(m, final, scored, n_scored, how->seed + it->key, r, s, &seed);
    for (; d.first < r; d.first += some) {
        some = r - d.first < AT_ONCE ? r - d.first : AT_ONCE;
        for (size_t i = 0; i < some; i++)
            kv_adjoint_draw(m, &seed, d.first + i, it->n_tokens, d_final + i * n);
        kv_adjoint(m,
                   &(struct kv_adjoint){.tree = &tree,
                                        .tape = tape,
                                        .counted = counted,
                                        .n_draws = some,
                                        .d_final = d_final,
                                        .take = take,
                                        .self = &d},
                   s);
    }
    for (size_t i = 0; i < 2 * cells; i++) {
        float mean = out->sens[i] / (float)r;
        out->sens[i] = mean;
        out->spread[i] =
            r > 1 ? sqrtf(fmaxf(0, (out->spread[i] - (float)r * mean * mean) / (float)(r - 1)))
                  : NAN;
    }
    for (size_t i = 0; i < channels; i++) out->channel[i] = (float)(d.channel[i] / (double)r);
    kv_adjoint_seed_fini(&seed);
    free(d.channel);
    free(scored);
    free(d_final);
    free(counted);
}

void kv_sensitivity_fini(struct kv_sensitivity *s) {
    free(s->sens);
    free(s->spread);
    free(s->evict);
    free(s->channel);
    free(s->numerator);
    free(s->k_grad);
    free(s->v_grad);
    *s = (struct kv_sensitivity){0};
}
