// SPDX-License-Identifier: Apache-2.0
// What a row is compared with besides 16 bit: static 4 bit, and its own widths on the wrong tokens.
#include "analysis/stats/pareto.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "analysis/results/rows.h"

#include <stdlib.h>

// An exact run is an exact run whatever damage an oracle went by.
static bool same_variant(const struct kv_summary *a, const struct kv_summary *b) {
    bool formed = strncmp(a->variant, "form=", 5) == 0 || strncmp(b->variant, "form=", 5) == 0;
    return strcmp(a->variant, b->variant) == 0 || (formed && strcmp(a->fidelity, "exact") == 0);
}

bool kv_rows_alike(const struct kv_row *a, const struct kv_row *b) {
    return a->s.trace == b->s.trace && strcmp(a->s.fidelity, b->s.fidelity) == 0 &&
           strcmp(a->s.mode, b->s.mode) == 0 && strcmp(a->s.self, b->s.self) == 0 &&
           strcmp(a->s.compute, b->s.compute) == 0 && same_variant(&a->s, &b->s);
}

// A row's spec, taken apart.
struct parts {
    char *policy, *format;   // canonical; format "" where there is none
    char *shuffled, *within; // of a shuffle, else NULL
};

static void take_apart(const struct kv_row *row, struct parts *p) {
    struct kv_spec s;
    struct kv_error ignored;
    char *format = NULL;
    *p = (struct parts){0};
    if (kv_spec_split(row->s.spec, &p->policy, &format, &ignored))
        p->policy = kv_strdup(row->s.spec);
    p->format = format ? format : kv_strdup("");
    if (strncmp(p->policy, "shuffle(", 8) != 0 || kv_spec_parse(&s, p->policy, &ignored)) return;
    if (s.inner) p->shuffled = kv_strdup(s.inner);
    for (size_t i = 0; i < s.n_pairs; i++)
        if (strcmp(s.keys[i], "within") == 0) p->within = kv_strdup(s.values[i]);
    kv_spec_fini(&s);
}

// Compares a row with the mean of others, item by item.
static void compare(struct kv_versus *v, const struct kv_row *row,
                    const struct kv_row *const *others, size_t n) {
    size_t n_items = row->s.n_trace_items;
    double *right = kv_alloc(n_items + 1, sizeof *right), *kl = kv_alloc(n_items + 1, sizeof *kl);
    for (size_t i = 0; i < n_items; i++) {
        double r = 0, d = 0;
        for (size_t k = 0; k < n; k++) {
            r += others[k]->right[i] / (double)n;
            d += others[k]->item_kl[i] / (double)n;
        }
        right[i] = r;
        kl[i] = row->item_kl[i] - d;
    }
    v->n_runs = n;
    v->label = kv_strdup(others[0]->label);
    v->acc = kv_paired_compare(row->right, right, n_items, KV_CONFIDENCE);
    v->kl = kv_ratio_interval(kl, row->item_scored, n_items, KV_CONFIDENCE);
    free(right);
    free(kl);
}

static bool same_items(const struct kv_row *a, const struct kv_row *b) {
    return a != b && kv_rows_alike(a, b) && a->s.n_trace_items == b->s.n_trace_items;
}

// Static 4 bit: in the row's own format, else in sym, which the paper used, else in any.
static void find_static4(struct kv_rows *rows, size_t own, const struct parts *part) {
    const struct kv_row *found = NULL;
    int best = 0;
    if (strcmp(part[own].policy, "static:k=4,v=4") == 0) return;
    for (size_t i = 0; i < rows->n; i++) {
        if (!same_items(&rows->row[own], &rows->row[i]) ||
            strcmp(part[i].policy, "static:k=4,v=4") != 0)
            continue;
        int rank = strcmp(part[i].format, part[own].format) == 0 ? 3
                   : strncmp(part[i].format, "sym:", 4) == 0     ? 2
                                                                 : 1;
        if (rank > best) {
            best = rank;
            found = &rows->row[i];
        }
    }
    if (found) compare(&rows->row[own].static4, &rows->row[own], &found, 1);
}

static bool shuffles(const struct parts *p, const struct parts *of) {
    return p->shuffled && p->within && strcmp(p->shuffled, of->policy) == 0 &&
           strcmp(p->format, of->format) == 0;
}

// All seeds of the shuffle that keeps the most: within items, else the first that is there.
static void find_shuffle(struct kv_rows *rows, size_t own, const struct parts *part) {
    const struct kv_row **found = kv_alloc(rows->n + 1, sizeof *found);
    const char *within = NULL;
    size_t n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < rows->n; i++) {
            if (!same_items(&rows->row[own], &rows->row[i]) || !shuffles(&part[i], &part[own]))
                continue;
            if (pass == 0 && (!within || strcmp(part[i].within, "item") == 0))
                within = part[i].within;
            if (pass == 1 && strcmp(part[i].within, within) == 0) found[n++] = &rows->row[i];
        }
    if (n) compare(&rows->row[own].shuffle, &rows->row[own], found, n);
    free(found);
}

void kv_rows_versus(struct kv_rows *rows) {
    struct parts *part = kv_alloc(rows->n + 1, sizeof *part);
    for (size_t i = 0; i < rows->n; i++) take_apart(&rows->row[i], &part[i]);
    for (size_t i = 0; i < rows->n; i++) {
        find_static4(rows, i, part);
        find_shuffle(rows, i, part);
    }
    for (size_t i = 0; i < rows->n; i++) {
        free(part[i].policy);
        free(part[i].format);
        free(part[i].shuffled);
        free(part[i].within);
    }
    free(part);
}

// ---- frontier -------------------------------------------------------------------------

void kv_rows_frontier(const struct kv_row *rows, size_t n, bool *on) {
    double *bits = kv_alloc(n + 1, sizeof *bits), *value = kv_alloc(n + 1, sizeof *value);
    size_t *of = kv_alloc(n + 1, sizeof *of);
    bool *taken = kv_alloc(n + 1, sizeof *taken), *best = kv_alloc(n + 1, sizeof *best);
    for (size_t i = 0; i < n; i++) {
        size_t m = 0;
        for (size_t k = i; k < n; k++) {
            if (taken[k] || !kv_rows_alike(&rows[i], &rows[k])) continue;
            double acc = rows[k].s.acc[KV_ACC];
            taken[k] = true;
            of[m] = k;
            bits[m] = rows[k].s.effective_bits;
            value[m++] = isnan(acc) ? -rows[k].kl.mean : acc;
        }
        kv_pareto(bits, value, m, best);
        for (size_t k = 0; k < m; k++) on[of[k]] = best[k];
    }
    free(bits);
    free(value);
    free(of);
    free(taken);
    free(best);
}
