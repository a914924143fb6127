// SPDX-License-Identifier: Apache-2.0
// What a row is compared with besides 16 bit: static 4 bit, and its own widths on the wrong tokens.
#include "sim/store/label.h"
#include "analysis/results/versus.h"

#include <stdlib.h>

#include "sim/base/memory.h"

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

static bool is_static4(const struct kv_row *r) {
    const struct kv_spec_parts *p = &r->s.parts;
    const char *width = p->n_policies ? kv_uniform_width(p->policies) : NULL;
    return width && strcmp(width, "4") == 0;
}

// Static 4 bit: in the row's own format, else in sym, which the paper used, else in any.
static void find_static4(struct kv_rows *rows, size_t own) {
    const struct kv_spec_parts *mine = &rows->row[own].s.parts;
    const struct kv_row *found = NULL;
    int best = 0;
    if (is_static4(&rows->row[own])) return;
    for (size_t i = 0; i < rows->n; i++) {
        const struct kv_spec_parts *other = &rows->row[i].s.parts;
        if (!same_items(&rows->row[own], &rows->row[i]) || !is_static4(&rows->row[i])) continue;
        bool same = strcmp(other->format_text, mine->format_text) == 0;
        bool sym = other->n_formats && strcmp(other->formats[0].name, "sym") == 0;
        int rank = same ? 3 : sym ? 2 : 1;
        if (rank > best) {
            best = rank;
            found = &rows->row[i];
        }
    }
    if (found) compare(&rows->row[own].static4, &rows->row[own], &found, 1);
}

// What a shuffle of this row shuffles within; NULL: the row is none.
static const char *shuffled_within(const struct kv_row *r, const struct kv_row *of) {
    return kv_spec_shuffles(&r->s.parts, &of->s.parts)
               ? kv_spec_value(&r->s.parts.policies[0], "within")
               : NULL;
}

// All seeds of the shuffle that keeps the most: within items, else the first that is there.
static void find_shuffle(struct kv_rows *rows, size_t own) {
    const struct kv_row **found = kv_alloc(rows->n + 1, sizeof *found), *me = &rows->row[own];
    const char *within = NULL;
    size_t n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < rows->n; i++) {
            const char *its = shuffled_within(&rows->row[i], me);
            if (!its || !same_items(me, &rows->row[i])) continue;
            if (pass == 0 && (!within || strcmp(its, "item") == 0)) within = its;
            if (pass == 1 && strcmp(its, within) == 0) found[n++] = &rows->row[i];
        }
    if (n) compare(&rows->row[own].shuffle, me, found, n);
    free(found);
}

void kv_rows_versus(struct kv_rows *rows) {
    for (size_t i = 0; i < rows->n; i++) {
        find_static4(rows, i);
        find_shuffle(rows, i);
    }
}
