// SPDX-License-Identifier: Apache-2.0
// Results of many rows on the items that all of them hold.
#include "analysis/results/shared.h"

#include <stdlib.h>

#include "sim/base/memory.h"

static void take_items(struct kv_shared *g, size_t row, size_t n_trace, size_t *holders,
                       const struct kv_item_result *items, size_t n, kv_shared_number *value,
                       kv_shared_number *weight, int which, size_t n_values) {
    for (size_t i = 0; i < n; i++) {
        size_t at = items[i].item;
        bool known = at < n_trace;
        for (size_t k = 0; known && k < n_values; k++)
            known = !isnan(value(which + (int)k, &items[i]));
        if (!known) continue;
        for (size_t k = 0; k < n_values; k++) {
            g->x[(row * n_values + k) * n_trace + at] = value(which + (int)k, &items[i]);
            g->w[(row * n_values + k) * n_trace + at] = weight(which + (int)k, &items[i]);
        }
        g->context[at] = items[i].context_key;
        if (!g->texts[at]) g->texts[at] = kv_strdup(items[i].source);
        holders[at]++;
    }
}

// Keeps the items that all rows hold.
static void close_up(struct kv_shared *g, size_t n_trace, const size_t *holders, size_t n_series) {
    size_t kept = 0, held = 0;
    for (size_t i = 0; i < n_trace; i++) {
        held += holders[i] > 0;
        if (holders[i] != g->n_rows) continue;
        g->source[kept] = g->texts[i];
        g->context[kept++] = g->context[i];
    }
    for (size_t p = 0, to = 0; p < n_series; p++)
        for (size_t i = 0; i < n_trace; i++) {
            if (holders[i] != g->n_rows) continue;
            g->x[to] = g->x[p * n_trace + i];
            g->w[to++] = g->w[p * n_trace + i];
        }
    g->n = kept;
    g->n_left_out = held - kept;
}

int kv_shared_read(struct kv_shared *g, struct kv_store *s, const struct kv_summary *const *rows,
                   size_t n_rows, kv_shared_number *value, kv_shared_number *weight, int which,
                   size_t n_values, struct kv_error *e) {
    size_t n_trace = 0, n_series = n_rows * n_values;
    int code = 0;
    *g = (struct kv_shared){.n_rows = n_rows};
    for (size_t p = 0; p < n_rows; p++)
        if (rows[p]->n_trace_items > n_trace) n_trace = rows[p]->n_trace_items;
    size_t *holders = kv_alloc(n_trace + 1, sizeof *holders);
    g->x = kv_alloc(n_series * n_trace + 1, sizeof *g->x);
    g->w = kv_alloc(n_series * n_trace + 1, sizeof *g->w);
    g->context = kv_alloc(n_trace + 1, sizeof *g->context);
    g->source = kv_alloc(n_trace + 1, sizeof *g->source);
    g->texts = kv_alloc(n_trace + 1, sizeof *g->texts);
    g->n_texts = n_trace;
    for (size_t p = 0; !code && p < n_rows; p++) {
        struct kv_item_result *items;
        size_t n;
        code = kv_store_items(s, rows[p]->run_group, &items, &n, e);
        if (!code) take_items(g, p, n_trace, holders, items, n, value, weight, which, n_values);
        kv_item_results_free(items, n);
    }
    if (!code) close_up(g, n_trace, holders, n_series);
    free(holders);
    return code;
}

void kv_shared_fini(struct kv_shared *g) {
    for (size_t i = 0; i < g->n_texts; i++) free(g->texts[i]);
    free(g->texts);
    free(g->source);
    free(g->context);
    free(g->x);
    free(g->w);
    *g = (struct kv_shared){0};
}

struct kv_resampler *kv_shared_resampler(const struct kv_shared *g) {
    return kv_resampler_new(g->n, g->context, g->source);
}
