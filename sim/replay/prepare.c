// SPDX-License-Identifier: Apache-2.0
// Before the first decision: what policies declared is looked for in the recording, tables are
// opened, policies fit themselves.
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/replay/damage.h"
#include "sim/replay/relinear.h"

// What a policy may declare that a recording need not keep.
static const struct {
    uint32_t need, keep;
    const char *what, *word;
} kept[] = {{KV_NEED_KV, KV_KEEP_KV, "keys and values", "kv"},
            {KV_NEED_Q, KV_KEEP_Q, "queries", "q"},
            {KV_NEED_HIDDEN, KV_KEEP_HIDDEN, "hidden states", "hidden"},
            {KV_NEED_SURPRISAL, KV_KEEP_CELLS, "surprisal", "cells"}};

static int check_kept(const struct kv_trace_info *in, const struct kv_replay_spec *spec,
                      struct kv_error *e) {
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (spec->needs & kept[i].need && !(in->keep & kept[i].keep))
            return kv_fail(e, KV_EFAIL, in->path,
                           "keeps no %s, which policy %s reads; record with --keep %s",
                           kept[i].what, spec->policy_name, kept[i].word);
    if (spec->needs & KV_NEED_NORMS && !in->kv_norms)
        return kv_fail(e, KV_EFAIL, in->path,
                       "holds no norms of the projections, which policy %s reads; record it again",
                       spec->policy_name);
    return kv_trace_check_features(in, spec->needs, e);
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

// Quantiles of n values, which are sorted in place; values that are not numbers are left out.
static void fill_quantiles(float *x, size_t n, float *quantile) {
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(x[i])) x[m++] = x[i];
    qsort(x, m, sizeof *x, ascending);
    for (size_t i = 0; i < KV_N_QUANTILES; i++)
        quantile[i] = m ? x[i * (m - 1) / (KV_N_QUANTILES - 1)] : NAN;
}

static struct kv_quantiles *quantiles_of(const struct kv_trace *t) {
    const struct kv_trace_info *in = kv_trace_info(t);
    struct kv_quantiles *q = kv_alloc(1, sizeof *q);
    float *x = kv_alloc(in->n_tokens, sizeof *x);
    q->struct_bytes = sizeof *q;
    for (size_t f = 0; f <= KV_MEAN_OF_FOUR; f++) {
        size_t n = 0;
        for (size_t i = 0; i < in->n_items; i++) {
            const struct kv_trace_item *it = kv_trace_item(t, i);
            for (size_t row = 0; row < it->n_tokens; row++) {
                const float *feature = it->features + row * KV_N_FEATURES;
                struct kv_token token = {0};
                memcpy(token.feature, feature, sizeof token.feature);
                x[n++] = f == KV_MEAN_OF_FOUR ? kv_mean_of_four(q, &token) : feature[f];
            }
        }
        fill_quantiles(x, n, q->quantile[f]);
    }
    free(x);
    return q;
}

int kv_replay_open_tables(struct kv_replay *r, enum kv_cell_table_kind form, unsigned jobs,
                          struct kv_error *e) {
    KV_GUARD(e);
    int rc = 0;
    bool quantiles = false;
    r->form = form;
    for (size_t j = 0; j < r->n_specs && rc == 0; j++) {
        rc = check_kept(kv_trace_info(r->trace), &r->specs[j], e);
        if (rc == 0) rc = kv_relinear_answers(r, &r->specs[j], e);
        quantiles = quantiles || r->specs[j].needs & KV_NEED_QUANTILES;
    }
    if (rc) return rc;
    if (quantiles) r->quantiles = quantiles_of(r->trace);
    rc = kv_cell_tables_open(&r->damage, r, KV_NEED_DAMAGE, form, jobs, e);
    if (rc == 0) rc = kv_cell_tables_open(&r->error, r, KV_NEED_ERROR, KV_TABLE_ERROR, jobs, e);
    return rc ? rc : kv_replay_fit(r, jobs, e);
}

void kv_replay_close_tables(struct kv_replay *r) {
    kv_cell_tables_close(r->damage, r->n_specs);
    kv_cell_tables_close(r->error, r->n_specs);
    free(r->quantiles);
    r->damage = r->error = NULL;
    r->quantiles = NULL;
}
