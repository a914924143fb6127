// SPDX-License-Identifier: Apache-2.0
// Gathers what policy cells is trained on.
#include "analysis/studies/cells_ground.h"

#include <stdlib.h>

#include "sim/base/finite.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "traces/sensitivity.h"

enum { DRAW_HOLDOUT = 8000, PAPER_FEATURES = 4, TOKEN_FEATURES = 4 };

static const float target_cap = 200, least_deviation = 1e-3f, least_variance = 1e-12f;

const char *const kv_cells_grains[] = {"cell", "kv", "layer", "token", NULL};

static bool has(const struct kv_cells_ground *g, enum kv_cells_group group) {
    return g->o->groups >> group & 1;
}

// ---- the traces against each other ---------------------------------------------------------

static int check_trace(const struct kv_cells_ground *g, const struct kv_trace_info *info,
                       struct kv_error *e) {
    const struct kv_trace_info *first = kv_trace_info(g->traces[0]);
    if (!(info->keep & KV_KEEP_CELLS))
        return kv_fail(e, KV_EFAIL, info->path,
                       "holds no sensitivities by cell; kvsim record --keep cells does");
    if (memcmp(&info->shape, &first->shape, sizeof info->shape) != 0)
        return kv_fail(e, KV_EFAIL, info->path, "is of a model of another shape than %s",
                       first->path);
    if (strcmp(info->model_digest, first->model_digest) != 0 || info->order != first->order)
        return kv_fail(e, KV_EFAIL, info->path, "is of model %s, %s of %s", info->model_digest,
                       first->path, first->model_digest);
    if (strcmp(info->cells_format, first->cells_format) != 0)
        return kv_fail(e, KV_EFAIL, info->path, "has cells of format %s, %s of %s",
                       info->cells_format, first->path, first->cells_format);
    for (size_t i = 0; kv_trace_info(g->traces[i]) != info; i++)
        if (strcmp(kv_trace_info(g->traces[i])->digest, info->digest) == 0)
            return kv_fail(e, KV_EUSAGE, info->path, "is the same recording as %s",
                           kv_trace_info(g->traces[i])->path);
    uint32_t paper = KV_NEED(KV_ENTROPY_NATS) | KV_NEED(KV_CONFIDENCE) | KV_NEED(KV_RARITY_NATS) |
                     KV_NEED(KV_ATTN_VAR);
    return has(g, KV_CELLS_PAPER) ? kv_trace_check_features(info, paper, e) : 0;
}

static int open_format(struct kv_cells_ground *g, struct kv_error *e) {
    const struct kv_trace_info *info = kv_trace_info(g->traces[0]);
    struct kv_format_setting setting = kv_trace_setting(info);
    int rc = kv_format_open(&g->format, info->cells_format, &setting, e);
    if (rc) return rc;
    const struct kv_format *f = g->format;
    if (f->scope != KV_SCOPE_VECTOR || f->sinks || f->keys_before_rope || f->centre.tokens > 0)
        return kv_fail(e, KV_EFAIL, info->path,
                       "cells of format %s do not code by themselves; those of asym:group=32 do",
                       f->canonical);
    while (g->width_4 < f->n_widths && f->width_bits[g->width_4] != 4) g->width_4++;
    if (g->width_4 == f->n_widths)
        return kv_fail(e, KV_EFAIL, info->path, "format %s has no 4 bits", f->canonical);
    return 0;
}

static int check_traces(struct kv_cells_ground *g, struct kv_error *e) {
    int rc = g->n_traces ? 0 : kv_fail(e, KV_EUSAGE, "train", "a trace is needed");
    for (size_t i = 0; i < g->n_traces && rc == 0; i++)
        rc = check_trace(g, kv_trace_info(g->traces[i]), e);
    if (rc) return rc;
    g->shape = kv_trace_info(g->traces[0])->shape;
    g->split = has(g, KV_CELLS_PAPER) ? PAPER_FEATURES : 0;
    g->of = (struct kv_cells_shape){
        .n_layers = g->shape.n_layers,
        .n_kv_heads = g->shape.n_kv_heads,
        .hidden = has(g, KV_CELLS_PROBE) ? g->shape.hidden : 0,
        .n_attention = has(g, KV_CELLS_ATTENTION) ? KV_N_CELL_FEATURES : 0,
        .n_token = (uint32_t)g->split + (has(g, KV_CELLS_TOKEN) ? TOKEN_FEATURES : 0)};
    // Without features a net would see the place alone, which has its bias.
    g->of.net = kv_cells_features_of(&g->of) ? g->o->net : 0;
    return open_format(g, e);
}

// ---- items ---------------------------------------------------------------------------------

struct drawn {
    double at;
    uint64_t key;
    size_t item;
};

static int by_draw(const void *a, const void *b) {
    const struct drawn *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->item > y->item) - (x->item < y->item);
}

// Holds out whole items, drawn by their key, until they have the share of the tokens. Items of one
// key, which have the same tokens, go together.
static int split_items(struct kv_cells_ground *g, struct kv_error *e) {
    struct drawn *order = kv_alloc(g->n_items, sizeof *order);
    for (size_t i = 0; i < g->n_items; i++) {
        uint64_t key = g->items[i].item->key;
        order[i] = (struct drawn){kv_draw(g->o->fit.seed, key, DRAW_HOLDOUT), key, i};
    }
    qsort(order, g->n_items, sizeof *order, by_draw);
    size_t held = 0;
    for (size_t i = 0; i < g->n_items; i++) {
        bool same = i && order[i].key == order[i - 1].key;
        if ((double)held >= g->o->holdout * (double)g->n_tokens && !same) break;
        g->items[order[i].item].held = true;
        held += g->items[order[i].item].item->n_tokens;
    }
    free(order);
    if (held == 0 || held == g->n_tokens)
        return kv_fail(e, KV_EFAIL, "train", "%zu items cannot be split at a holdout of %g",
                       g->n_items, g->o->holdout);
    return 0;
}

static int list_items(struct kv_cells_ground *g, struct kv_error *e) {
    for (size_t t = 0; t < g->n_traces; t++) g->n_items += kv_trace_info(g->traces[t])->n_items;
    g->items = kv_alloc(g->n_items, sizeof *g->items);
    size_t at = 0;
    for (size_t t = 0; t < g->n_traces; t++)
        for (size_t i = 0; i < kv_trace_info(g->traces[t])->n_items; i++) {
            const struct kv_trace_item *item = kv_trace_item(g->traces[t], i);
            g->items[at++] = (struct kv_cells_item){g->traces[t], item, g->n_tokens, false};
            g->n_tokens += item->n_tokens;
        }
    if (g->n_tokens == 0 || g->n_tokens > UINT32_MAX)
        return kv_fail(e, KV_EFAIL, "train", "%zu tokens cannot be trained on", g->n_tokens);
    int rc = split_items(g, e);
    if (rc) return rc;
    g->item_of = kv_alloc(g->n_tokens, sizeof *g->item_of);
    g->learns = kv_alloc(g->n_tokens, sizeof *g->learns);
    g->held = kv_alloc(g->n_tokens, sizeof *g->held);
    for (size_t i = 0; i < g->n_items; i++)
        for (size_t row = 0; row < g->items[i].item->n_tokens; row++) {
            uint32_t token = (uint32_t)(g->items[i].first + row);
            g->item_of[token] = (uint32_t)i;
            if (g->items[i].held)
                g->held[g->n_held++] = token;
            else
                g->learns[g->n_learns++] = token;
        }
    return 0;
}

// ---- channel weights -----------------------------------------------------------------------

static int sum_channels(struct kv_cells_ground *g, struct kv_error *e) {
    size_t d = g->shape.head_dim, places = kv_cells_places(&g->of), n = places * d;
    double *sum = kv_alloc(n, sizeof *sum);
    g->channel = kv_alloc(n, sizeof *g->channel);
    int rc = 0;
    for (size_t i = 0; i < g->n_items && rc == 0; i++) {
        const struct kv_trace_item *item = g->items[i].item;
        size_t bad = kv_find_not_finite(item->channel_gradient, n);
        if (bad < n)
            rc = kv_fail(e, KV_EFAIL, kv_trace_info(g->items[i].trace)->path,
                         "item %s: channel.gradient of place %zu is not finite", item->id, bad / d);
        for (size_t k = 0; k < n && rc == 0; k++) sum[k] += (double)item->channel_gradient[k];
    }
    for (size_t p = 0; p < places && rc == 0; p++) {
        double all = 0;
        for (size_t k = 0; k < d; k++) all += sum[p * d + k];
        for (size_t k = 0; k < d; k++)
            g->channel[p * d + k] = (float)(all > 0 ? sum[p * d + k] * (double)d / all : 1);
    }
    free(sum);
    return rc;
}

// ---- reading an item -----------------------------------------------------------------------

static int refuse(const struct kv_cells_item *i, const char *column, size_t token,
                  struct kv_error *e) {
    return kv_fail(e, KV_EFAIL, kv_trace_info(i->trace)->path,
                   "item %s: %s of token %zu is not finite", i->item->id, column, token);
}

static void token_features(const struct kv_cells_ground *g, const struct kv_trace_item *item,
                           size_t row, float *x) {
    const float *f = item->features + row * KV_N_FEATURES;
    if (has(g, KV_CELLS_PAPER)) {
        *x++ = f[KV_ENTROPY_NATS];
        *x++ = f[KV_CONFIDENCE];
        *x++ = f[KV_RARITY_NATS];
        // Not fmaxf, which would make a number of a NaN.
        *x++ = logf(f[KV_ATTN_VAR] < least_variance ? least_variance : f[KV_ATTN_VAR]);
    }
    if (has(g, KV_CELLS_TOKEN)) {
        size_t position = kv_trace_position(item, row);
        *x++ = item->surprisal[row];
        *x++ = logf(1 + (float)position);
        *x++ = position == 0;
        *x = position < 4;
    }
}

static int check_item(const struct kv_cells_ground *g, const struct kv_cells_item *i,
                      struct kv_error *e) {
    const struct kv_trace_item *item = i->item;
    size_t n = item->n_tokens, places = kv_cells_places(&g->of);
    size_t values = places * g->shape.head_dim / 2;
    size_t attention = places / 2 * KV_N_CELL_FEATURES;
    size_t hidden = (size_t)g->shape.n_layers * g->shape.hidden;
    size_t bad = kv_find_not_finite(item->cells_numerator, n * places);
    if (bad < n * places) return refuse(i, "cells.numerator", bad / places, e);
    bad = kv_find_not_finite_f16(item->k, n * values);
    if (bad < n * values) return refuse(i, "K", bad / values, e);
    bad = kv_find_not_finite_f16(item->v, n * values);
    if (bad < n * values) return refuse(i, "V", bad / values, e);
    if (has(g, KV_CELLS_ATTENTION)) {
        bad = kv_find_not_finite(item->cells_attention, n * attention);
        if (bad < n * attention) return refuse(i, "cells.attention", bad / attention, e);
    }
    if (has(g, KV_CELLS_PROBE)) {
        bad = kv_find_not_finite_f16(item->cells_input, n * hidden);
        if (bad < n * hidden) return refuse(i, "cells.input", bad / hidden, e);
    }
    return 0;
}

double kv_cells_row_weight(const struct kv_trace_item *item, uint32_t row) {
    double weight = 0;
    for (uint32_t c = 0; c < item->n_choices; c++) {
        bool here = row < item->n_context || (row >= item->first[c] && row < item->first[c + 1]);
        uint32_t length = item->n_context + item->first[c + 1] - item->first[c];
        if (here) weight += 1.0 / item->n_choices / length;
    }
    return item->n_choices ? weight : 1.0 / item->n_tokens;
}

// s of every cell, not yet over its place's mean; -1 where there is no coding error. The gradient
// is that of a sum over all scored positions of a tree, but an item's divergence is their mean, and
// its bits are those of a path, on the average: a token of one choice of four is held by a fourth
// of the paths. So that one lambda weighs every cell's divergence against its bits, s is over both.
static int read_targets(struct kv_cells_ground *g, const struct kv_cells_item *i,
                        struct kv_error *e) {
    size_t places = kv_cells_places(&g->of), n = i->item->n_tokens;
    float *s = g->target + i->first * places;
    double scored = (double)kv_scored_count(i->item, kv_trace_info(i->trace)->adjoint.score),
           in_all = kv_cells_row_weight(i->item, 0); // of a token that all paths hold
    int rc = kv_cells_errors(g, i->item, NULL, n, g->width_4, s, e);
    for (size_t row = 0; row < n && rc == 0; row++) {
        double weight = kv_cells_row_weight(i->item, (uint32_t)row);
        const float *numerator = i->item->cells_numerator + row * places;
        g->weight[i->first + row] = (float)(weight / in_all);
        for (size_t p = 0; p < places && rc == 0; p++, s++) {
            double above = (double)numerator[p] / scored / weight;
            *s = *s > 0 ? (float)(above / (double)*s) : -1;
            if (above < 0 || !isfinite(*s)) rc = refuse(i, "the sensitivity", row, e);
        }
    }
    return rc;
}

// Where a layer's window has passed position 0, its weight is not known, which is the mean.
static void forget_passed(const struct kv_cells_ground *g, const struct kv_cells_item *i,
                          float *attention) {
    const uint32_t *windows = kv_trace_info(i->trace)->windows;
    size_t of_layer = g->shape.n_kv_heads * g->of.n_attention;
    for (size_t row = 0; windows && row < i->item->n_tokens; row++)
        for (size_t l = 0; l < g->shape.n_layers; l++) {
            if (!windows[l] || kv_trace_position(i->item, row) < windows[l]) continue;
            float *x = attention + (row * g->shape.n_layers + l) * of_layer;
            for (size_t h = 0; h < g->shape.n_kv_heads; h++)
                x[h * g->of.n_attention + KV_CELL_FIRST] = NAN;
        }
}

static int read_item(void *self, unsigned worker, size_t at, struct kv_error *e) {
    struct kv_cells_ground *g = self;
    const struct kv_cells_item *i = &g->items[at];
    size_t n = i->item->n_tokens, n_t = g->of.n_token;
    (void)worker;
    int rc = check_item(g, i, e);
    if (rc == 0) rc = read_targets(g, i, e);
    size_t per_token = kv_cells_places(&g->of) / 2 * g->of.n_attention;
    if (rc == 0 && per_token) {
        float *own = g->attention + i->first * per_token;
        memcpy(own, i->item->cells_attention, n * per_token * sizeof *own);
        forget_passed(g, i, own);
    }
    for (size_t row = 0; row < n && rc == 0; row++) {
        float *x = g->token + (i->first + row) * n_t;
        if (n_t) token_features(g, i->item, row, x);
        if (!kv_all_finite(x, n_t)) rc = refuse(i, "a token feature", row, e);
        if (g->of.hidden)
            g->hidden[i->first + row] =
                i->item->cells_input + row * g->shape.n_layers * g->shape.hidden;
    }
    return rc;
}

static int read_items(struct kv_cells_ground *g, struct kv_error *e) {
    size_t places = kv_cells_places(&g->of);
    g->target = kv_alloc(g->n_tokens * places, sizeof *g->target);
    g->weight = kv_alloc(g->n_tokens, sizeof *g->weight);
    g->attention = kv_alloc(g->n_tokens * places / 2 * g->of.n_attention, sizeof *g->attention);
    g->token = kv_alloc(g->n_tokens * g->of.n_token, sizeof *g->token);
    g->hidden = kv_alloc(g->of.hidden ? g->n_tokens : 0, sizeof *g->hidden);
    return kv_parallel(g->n_items, g->o->fit.jobs, read_item, g, e);
}

// ---- standardising -------------------------------------------------------------------------

static float standard(float x, float mean, float deviation) {
    return isnan(x) ? 0 : (x - mean) / deviation;
}

// Column k of rows `stride` apart, over the tokens trained on; all tokens are standardised.
static void standardise(const struct kv_cells_ground *g, float *x, size_t stride, float *mean,
                        float *deviation) {
    double sum = 0, squares = 0;
    size_t n = 0;
    for (size_t i = 0; i < g->n_learns; i++) {
        float v = x[g->learns[i] * stride];
        if (isnan(v)) continue;
        sum += (double)v;
        n++;
    }
    double centre = n ? sum / (double)n : 0;
    for (size_t i = 0; i < g->n_learns; i++) {
        float v = x[g->learns[i] * stride];
        if (isnan(v)) continue;
        squares += ((double)v - centre) * ((double)v - centre);
    }
    *mean = (float)centre;
    *deviation = n ? (float)sqrt(squares / (double)n) : 0;
    if (*deviation < least_deviation) *deviation = least_deviation;
    for (size_t i = 0; i < g->n_tokens; i++)
        x[i * stride] = standard(x[i * stride], *mean, *deviation);
}

static int standardise_attention(void *self, unsigned worker, size_t column, struct kv_error *e) {
    struct kv_cells_ground *g = self;
    (void)worker;
    (void)e;
    size_t stride = kv_cells_places(&g->of) / 2 * g->of.n_attention;
    standardise(g, g->attention + column, stride, g->attention_mean + column,
                g->attention_deviation + column);
    return 0;
}

static int standardise_all(struct kv_cells_ground *g, struct kv_error *e) {
    size_t columns = kv_cells_places(&g->of) / 2 * g->of.n_attention, n_t = g->of.n_token;
    g->attention_mean = kv_alloc(columns, sizeof(float));
    g->attention_deviation = kv_alloc(columns, sizeof(float));
    g->token_mean = kv_alloc(n_t, sizeof(float));
    g->token_deviation = kv_alloc(n_t, sizeof(float));
    for (size_t k = 0; k < n_t; k++)
        standardise(g, g->token + k, n_t, g->token_mean + k, g->token_deviation + k);
    return kv_parallel(columns, g->o->fit.jobs, standardise_attention, g, e);
}

static float *copied(const float *x, size_t n) {
    float *y = kv_alloc(n, sizeof *y);
    if (n) memcpy(y, x, n * sizeof *y);
    return y;
}

static void rescale(float *x, size_t n_rows, size_t columns, const float *mean,
                    const float *deviation) {
    for (size_t r = 0; r < n_rows; r++)
        for (size_t k = 0; k < columns; k++)
            x[r * columns + k] = standard(x[r * columns + k], mean[k], deviation[k]);
}

// As the file that is read again does.
static void standardise_again(struct kv_cells_ground *g) {
    const struct kv_cells_weights *w = g->again;
    size_t columns = kv_cells_places(&g->of) / 2 * g->of.n_attention, n_t = g->of.n_token;
    g->attention_mean = copied(w->attention_mean, columns);
    g->attention_deviation = copied(w->attention_deviation, columns);
    g->token_mean = copied(w->token_mean, n_t);
    g->token_deviation = copied(w->token_deviation, n_t);
    rescale(g->attention, g->n_tokens, columns, g->attention_mean, g->attention_deviation);
    rescale(g->token, g->n_tokens, n_t, g->token_mean, g->token_deviation);
}

// t = s / mean s of the place over the tokens trained on, at most 200. A place that nothing ever
// depended on has no mean to stand by: the least that is told, and no targets. Tokens weigh as
// paths hold them, 1 on the average.
static void scale_targets(struct kv_cells_ground *g) {
    size_t places = kv_cells_places(&g->of);
    double all = 0;
    for (size_t i = 0; i < g->n_learns; i++) all += (double)g->weight[g->learns[i]];
    for (size_t i = 0; i < g->n_tokens; i++)
        g->weight[i] = (float)((double)g->weight[i] * (double)g->n_learns / all);
    g->bias = kv_alloc(places, sizeof *g->bias);
    for (size_t i = 0; i < g->n_tokens * places; i++) g->left_out += g->target[i] < 0;
    for (size_t p = 0; p < places; p++) {
        double sum = 0, n = 0;
        for (size_t i = 0; i < g->n_learns; i++) {
            double s = (double)g->target[g->learns[i] * places + p];
            double weight = (double)g->weight[g->learns[i]];
            if (s >= 0) sum += weight * s, n += weight;
        }
        double mean = n > 0 ? sum / n : 0;
        g->bias[p] = mean > 0 ? (float)fmax(log(mean), -30) : -30;
        for (size_t i = 0; i < g->n_tokens; i++) {
            float *t = &g->target[i * places + p];
            if (*t < 0) continue;
            *t = mean > 0 ? (float)((double)*t / mean) : -1;
            if (*t > target_cap) *t = target_cap;
        }
    }
}

// ---- all of it -----------------------------------------------------------------------------

int kv_cells_width(const struct kv_cells_ground *g, uint32_t bits, size_t *index,
                   struct kv_error *e) {
    for (*index = 0; *index < g->format->n_widths; (*index)++)
        if (g->format->width_bits[*index] == bits) return 0;
    return kv_fail(e, KV_EUSAGE, "widths", "format %s does not offer %u bits",
                   g->format->type->name, bits);
}

int kv_cells_ground_open(struct kv_cells_ground *g, struct kv_error *e) {
    size_t index;
    int rc = check_traces(g, e);
    for (size_t w = 0; w < g->o->n_widths && rc == 0; w++)
        rc = kv_cells_width(g, g->o->widths[w], &index, e);
    if (rc == 0) rc = list_items(g, e);
    if (rc == 0) rc = sum_channels(g, e);
    if (rc == 0 && g->again)
        memcpy(g->channel, g->again->channel,
               kv_cells_places(&g->of) * g->shape.head_dim * sizeof *g->channel);
    if (rc == 0) kv_say("reading %zu items, %zu tokens", g->n_items, g->n_tokens);
    if (rc == 0) rc = read_items(g, e);
    if (rc) return rc;
    scale_targets(g);
    if (!g->again) return standardise_all(g, e);
    standardise_again(g);
    return 0;
}

struct kv_cells_data kv_cells_ground_data(const struct kv_cells_ground *g) {
    return (struct kv_cells_data){.n_tokens = g->n_tokens,
                                  .target = g->target,
                                  .attention = g->attention,
                                  .token = g->token,
                                  .hidden = g->hidden,
                                  .weight = g->weight};
}

void kv_cells_ground_fini(struct kv_cells_ground *g) {
    void *owned[] = {
        g->items,      g->item_of,         g->channel, g->bias,           g->target,
        g->attention,  g->token,           g->hidden,  g->attention_mean, g->attention_deviation,
        g->token_mean, g->token_deviation, g->learns,  g->held,           g->weight};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    kv_format_close(g->format);
}
