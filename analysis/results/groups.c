// SPDX-License-Identifier: Apache-2.0
// Rows that may be compared with each other, and which of them no other beats.
#include "analysis/results/rows.h"

#include <stdlib.h>

#include "analysis/stats/pareto.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"

// As the store's view of the frontier has it.
static bool same_form(const struct kv_summary *a, const struct kv_summary *b) {
    return a->feedback == b->feedback && (a->fidelity == KV_EXACT || a->form == b->form);
}

bool kv_rows_alike(const struct kv_row *a, const struct kv_row *b) {
    const struct kv_summary *x = &a->s, *y = &b->s;
    return x->trace == y->trace && x->fidelity == y->fidelity && x->mode == y->mode &&
           x->self == y->self && strcmp(x->compute, y->compute) == 0 && same_form(x, y);
}

size_t kv_rows_groups(const struct kv_row *rows, size_t n, size_t *group) {
    size_t n_groups = 0;
    for (size_t i = 0; i < n; i++) group[i] = n; // in none
    for (size_t i = 0; i < n; i++) {
        if (group[i] < n) continue;
        for (size_t k = i; k < n; k++)
            if (group[k] == n && kv_rows_alike(&rows[i], &rows[k])) group[k] = n_groups;
        n_groups++;
    }
    return n_groups;
}

// Accuracy (without one: divergence, the less the better) on the items that no row of the group
// leaves out; NAN where nothing is known.
static double value_of(const struct kv_row *r, const bool *left_out) {
    double right = 0, judged = 0, kl = 0, scored = 0;
    bool any = false, by_acc = !isnan(r->s.acc[KV_ACC]);
    for (size_t i = 0; i < r->s.n_trace_items; i++) {
        any = any || left_out[i];
        if (left_out[i] || isnan(r->item_kl[i])) continue;
        kl += r->item_kl[i] * r->item_scored[i];
        scored += r->item_scored[i];
        if (isnan(r->right[i])) continue;
        right += r->right[i];
        judged++;
    }
    if (!any) return by_acc ? r->s.acc[KV_ACC] : -r->kl.mean;
    return by_acc ? right / judged : -kl / scored;
}

// Items of the trace that some row of a group leaves out, though not all of its own are.
static bool *group_left_out(const struct kv_row *rows, size_t n, const size_t *group, size_t g) {
    size_t most = 0;
    for (size_t i = 0; i < n; i++)
        if (rows[i].s.n_trace_items > most) most = rows[i].s.n_trace_items;
    bool *out = kv_alloc(most + 1, sizeof *out);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; group[i] == g && rows[i].n_left_out < rows[i].s.n_items &&
                           rows[i].left_out && k < rows[i].s.n_trace_items;
             k++)
            out[k] = out[k] || rows[i].left_out[k];
    return out;
}

void kv_rows_frontier(const struct kv_row *rows, size_t n, bool *on) {
    memset(on, 0, n);
    KV_GUARD_ELSE(return );
    double *bits = kv_alloc(n + 1, sizeof *bits), *value = kv_alloc(n + 1, sizeof *value);
    size_t *group = kv_alloc(n + 1, sizeof *group), *of = kv_alloc(n + 1, sizeof *of);
    bool *best = kv_alloc(n + 1, sizeof *best);
    for (size_t g = 0, n_groups = kv_rows_groups(rows, n, group); g < n_groups; g++) {
        size_t m = 0;
        bool *left_out = group_left_out(rows, n, group, g);
        for (size_t i = 0; i < n; i++) {
            double its = group[i] == g ? value_of(&rows[i], left_out) : NAN;
            if (isnan(its)) continue;
            of[m] = i;
            bits[m] = rows[i].s.effective_bits;
            value[m++] = its;
        }
        free(left_out);
        kv_pareto(bits, value, m, best);
        for (size_t k = 0; k < m; k++) on[of[k]] = best[k];
    }
    free(bits);
    free(value);
    free(group);
    free(of);
    free(best);
}
