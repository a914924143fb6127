// SPDX-License-Identifier: Apache-2.0
// Rows of a store with intervals, comparison with 16 bit and price on a device.
#include "analysis/results/rows.h"

#include <stdlib.h>

#include "analysis/results/depths.h"
#include "analysis/results/find.h"
#include "analysis/results/places.h"
#include "analysis/results/versus.h"
#include "sim/base/guard.h"
#include "sim/store/generated.h"
#include "sim/base/memory.h"
#include "sim/store/label.h"

// ---- one row --------------------------------------------------------------------------

// Adds the id of the n-th item that a list names, which ends after KV_IDS_NAMED.
static void add_id(struct kv_text *ids, size_t n, const char *id) {
    if (n <= KV_IDS_NAMED) kv_text_addf(ids, "%s%s", ids->n ? ", " : "", id);
}

static char *take_ids(struct kv_text *ids, size_t n) {
    if (n > KV_IDS_NAMED) kv_text_addf(ids, " and %zu more", n - KV_IDS_NAMED);
    return kv_text_take(ids);
}

static void note_left_out(struct kv_row *row, const struct kv_item_result *items, size_t n) {
    struct kv_text ids = {0};
    row->left_out = kv_alloc(row->s.n_trace_items + 1, sizeof *row->left_out);
    for (size_t i = 0; i < n; i++) {
        if (isfinite(items[i].kl_nats)) continue;
        add_id(&ids, ++row->n_left_out, items[i].id);
        if (items[i].item < row->s.n_trace_items) row->left_out[items[i].item] = true;
    }
    row->left_out_ids = take_ids(&ids, row->n_left_out);
}

// Redraws that are not finite beside others of their item that are; both lists are by item.
static void note_redraws(struct kv_row *row, const struct kv_item_result *items, size_t n,
                         const struct kv_redraw_result *draws, size_t n_draws) {
    struct kv_text ids = {0};
    size_t named = 0, k = 0;
    for (size_t i = 0; i < n; i++) {
        size_t out = 0, all = 0;
        while (k < n_draws && draws[k].item < items[i].item) k++;
        for (; k < n_draws && draws[k].item == items[i].item; k++, all++)
            out += !isfinite(draws[k].kl_nats);
        if (!isfinite(items[i].kl_nats)) continue; // left out as a whole
        row->n_redraws_out += out;
        row->n_redraws_in_all += all;
        if (out) add_id(&ids, ++named, items[i].id);
    }
    row->redraws_out_ids = take_ids(&ids, named);
}

static void judge(struct kv_row *row, const struct kv_item_result *items, size_t n) {
    double *a = kv_alloc(n + 1, sizeof *a), *b = kv_alloc(n + 1, sizeof *b);
    for (int k = 0; k < KV_N_SCORERS; k++) {
        for (size_t i = 0; i < n; i++) {
            a[i] = items[i].right[k];
            b[i] = items[i].right_ref[k];
        }
        row->interval[k] = kv_wilson(row->s.acc[k], (double)row->s.n_judged, KV_CONFIDENCE);
        row->to16[k] = kv_paired_compare(a, b, n, KV_CONFIDENCE);
        row->error[k] = kv_mean_interval(a, n, KV_CONFIDENCE).standard_error;
    }
    for (size_t i = 0; i < n; i++) {
        a[i] = items[i].kl_nats;
        b[i] = items[i].n_scored;
    }
    row->kl = kv_ratio_interval(a, b, n, KV_CONFIDENCE);
    free(a);
    free(b);
    note_left_out(row, items, n);
    double **arrays[] = {&row->right, &row->item_kl, &row->item_scored};
    for (size_t k = 0; k < 3; k++) {
        *arrays[k] = kv_alloc(row->s.n_trace_items + 1, sizeof(double));
        for (size_t i = 0; i < row->s.n_trace_items; i++) (*arrays[k])[i] = NAN;
    }
    for (size_t i = 0; i < n; i++) {
        if (items[i].item >= row->s.n_trace_items) continue;
        row->right[items[i].item] = items[i].right[KV_ACC];
        row->item_kl[items[i].item] = items[i].kl_nats;
        row->item_scored[items[i].item] = items[i].n_scored;
    }
}

// What an item's redraws say of rounding.
static int split_row(struct kv_row *row, const struct kv_item_result *items, size_t n_items,
                     struct kv_store *s, struct kv_error *e) {
    struct kv_redraw_result *draws = NULL;
    size_t n = 0;
    int code = kv_store_redraws(s, row->s.run_group, &draws, &n, e);
    uint32_t *item = kv_alloc(n + 1, sizeof *item);
    double *change = kv_alloc(n + 1, sizeof *change), *kl = kv_alloc(n + 1, sizeof *kl);
    for (size_t i = 0; i < n; i++) {
        item[i] = draws[i].item;
        change[i] = draws[i].right[KV_ACC] - draws[i].right_ref[KV_ACC];
        kl[i] = draws[i].kl_nats;
    }
    note_redraws(row, items, n_items, draws, n);
    row->split = kv_split_variance(item, change, n);
    row->split_kl = kv_split_variance(item, kl, n);
    free(item);
    free(change);
    free(kl);
    free(draws);
    return code;
}

// Holm over the rows that one would choose among: alike, and not 16 bit throughout. It keeps its
// promise for p-values that never reject equal policies too often: McNemar's exact ones, not mid-p.
static void adjust(struct kv_rows *rows) {
    double *p = kv_alloc(rows->n + 1, sizeof *p), *adjusted = kv_alloc(rows->n + 1, sizeof *p);
    for (size_t i = 0; i < rows->n; i++) {
        for (size_t k = 0; k < rows->n; k++) {
            const struct kv_row *r = &rows->row[k];
            const struct kv_paired *d = &r->to16[KV_ACC];
            bool counts = kv_rows_alike(&rows->row[i], r) && r->s.nominal_bits < 16;
            p[k] = !counts ? NAN : isnan(d->exact_p) ? d->t_p : d->exact_p;
        }
        kv_holm(p, rows->n, adjusted);
        rows->row[i].holm_p = adjusted[i];
    }
    free(p);
    free(adjusted);
}

static int fill_row(struct kv_rows *rows, struct kv_row *row, struct kv_store *s,
                    struct kv_error *e) {
    struct kv_item_result *items;
    size_t n;
    int code = kv_store_items(s, row->s.run_group, &items, &n, e);
    if (code) return code;
    judge(row, items, n);
    row->split = row->split_kl = kv_split_variance(NULL, NULL, 0);
    if (row->s.n_redraws > 1) code = split_row(row, items, n, s, e);
    if (!code) code = kv_row_read_places(row, items, n, s, e);
    kv_item_results_free(items, n);
    if (!code) code = kv_row_read_tokens(row, rows, s, e);
    if (code) return code;
    for (size_t i = 0; rows->device && i < rows->n_contexts; i++)
        row->at[i] = kv_device_step(rows->device, &row->s.ledger, rows->context[i], 0);
    return 0;
}

static int no_rows(const struct kv_rows_options *o, struct kv_store *s, struct kv_error *e) {
    struct kv_text names = {0};
    for (int f = 0; kv_fidelity_names[f]; f++)
        if (o->fidelities >> f & 1)
            kv_text_addf(&names, "%s%s", names.n ? " or " : "", kv_fidelity_names[f]);
    size_t texts = 0;
    int code = kv_store_generated_count(s, &texts, e);
    if (code == 0 && names.n)
        code = kv_fail(e, KV_EFAIL, o->db, "the store holds no outcomes of fidelity %s", names.s);
    else if (code == 0 && texts == 0)
        code =
            kv_fail(e, KV_EFAIL, o->db, "the store holds no outcomes yet; kvsim sweep writes them");
    else if (code == 0 && !o->texts_do)
        code = kv_fail(e, KV_EFAIL, o->db,
                       "the store holds %zu generated texts and no outcomes of a recording; kvsim "
                       "report makes a page of them, and the kvsim generate that wrote them prints "
                       "their table",
                       texts);
    free(names.s);
    return code;
}

static int name_row(const struct kv_store_setting *settings, size_t n_settings,
                    struct kv_summary *all, size_t n, const char *text, const char *db,
                    struct kv_error *e) {
    const char *equal = strchr(text, '=');
    struct kv_error no_spec;
    bool *marked = kv_alloc(n + 1, sizeof *marked), any = false;
    if (!equal || !equal[1]) {
        free(marked);
        return kv_fail(e, KV_EUSAGE, "as", "'%s': NAME=SPEC is expected", text);
    }
    char *name = kv_format_text("%.*s", (int)(equal - text), text);
    int code = kv_name_check(name, e);
    kv_rows_mark(all, n, settings, n_settings, equal + 1, marked, &no_spec);
    for (size_t i = 0; !code && i < n; i++) {
        if (!marked[i]) continue;
        any = true;
        free(all[i].label);
        all[i].label = NULL;
        all[i].label = kv_strdup(name);
    }
    free(name);
    free(marked);
    if (code || any) return code;
    if (no_spec.code) return *e = no_spec, no_spec.code;
    return kv_fail(e, KV_EFAIL, db, "holds no row of %s, to be named", equal + 1);
}

// Gives rows the names that the options say.
static int name_rows(struct kv_store *s, struct kv_summary *all, size_t n,
                     const struct kv_rows_options *o, struct kv_error *e) {
    struct kv_store_setting *settings = NULL;
    size_t n_settings = 0;
    int code = o->n_named ? kv_store_settings(s, &settings, &n_settings, e) : 0;
    for (size_t i = 0; !code && i < o->n_named; i++)
        code = name_row(settings, n_settings, all, n, o->named[i], o->db, e);
    free(settings);
    return code;
}

// Guarded, so that the store is closed and what was read is let go of.
static int open_rows(struct kv_rows *rows, struct kv_store **s, const struct kv_rows_options *o,
                     struct kv_error *e) {
    KV_GUARD(e);
    struct kv_summary *summaries = NULL;
    size_t n = 0;
    const char *device = o->device ? o->device : kv_device_default_name();
    const struct kv_store_filter filter = {.fidelities = o->fidelities,
                                           .all_builds = o->all_builds};
    int code = device ? kv_device_open(&rows->device, device, e) : 0;
    if (!code) code = kv_store_open(s, o->db, KV_STORE_READ, e);
    if (!code) code = kv_store_summaries(*s, &filter, &summaries, &n, e);
    if (!code && n == 0) code = no_rows(o, *s, e);
    if (!code) code = name_rows(*s, summaries, n, o, e);
    if (code) {
        kv_summaries_free(summaries, n);
        return code;
    }
    rows->row = kv_alloc(n + 1, sizeof *rows->row);
    rows->n = n;
    for (size_t i = 0; i < n; i++) rows->row[i].s = summaries[i];
    free(summaries);
    for (size_t i = 0; i < rows->n; i++) rows->row[i].label = kv_strdup(rows->row[i].s.label);
    if (!code) code = kv_rows_place(rows, *s, e);
    for (size_t i = 0; !code && i < n; i++) code = fill_row(rows, &rows->row[i], *s, e);
    if (code) return code;
    kv_rows_versus(rows);
    adjust(rows);
    return 0;
}

int kv_rows_open(struct kv_rows *rows, struct kv_store **s, const struct kv_rows_options *o,
                 struct kv_error *e) {
    *rows = (struct kv_rows){.n_contexts = o->n_contexts};
    memcpy(rows->context, o->context, sizeof rows->context);
    *s = NULL;
    if (o->n_contexts > KV_MAX_CONTEXTS)
        return kv_fail(e, KV_EUSAGE, "contexts", "at most %d contexts at once", KV_MAX_CONTEXTS);
    int code = open_rows(rows, s, o, e);
    if (code) {
        kv_rows_fini(rows);
        kv_store_abandon(*s);
        *s = NULL;
    }
    return code;
}

void kv_row_fini(struct kv_row *row) {
    kv_summary_fini(&row->s);
    free(row->label);
    free(row->right);
    free(row->item_kl);
    free(row->item_scored);
    free(row->left_out);
    free(row->left_out_ids);
    free(row->redraws_out_ids);
    kv_row_free_tokens(row);
    free(row->place);
    free(row->static4.label);
    free(row->shuffle.label);
}

void kv_rows_fini(struct kv_rows *rows) {
    for (size_t i = 0; i < rows->n; i++) kv_row_fini(&rows->row[i]);
    free(rows->row);
    kv_device_free(rows->device);
    *rows = (struct kv_rows){0};
}

// ---- order ----------------------------------------------------------------------------

static double bits_of(const struct kv_row *r) {
    return -r->s.effective_bits;
}
static double acc_of(const struct kv_row *r) {
    return -r->s.acc[KV_ACC];
}
static double kl_of(const struct kv_row *r) {
    return r->s.kl_nats;
}
static double ms_of(const struct kv_row *r) {
    double largest = NAN;
    for (int i = 0; i < KV_MAX_CONTEXTS; i++)
        if (r->at[i].step_ns > 0) largest = r->at[i].step_ns;
    return largest;
}
static double spec_of(const struct kv_row *r) {
    (void)r;
    return 0;
}

static const struct sort_key {
    const char *name;
    double (*value)(const struct kv_row *r); // ascending, NAN last
} sort_keys[] = {
    {"bits", bits_of}, {"acc", acc_of}, {"kl", kl_of}, {"ms", ms_of}, {"spec", spec_of}};

struct ranked {
    struct kv_row row;
    double value;
};

static int by_rank(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    if (x->row.s.trace != y->row.s.trace) return x->row.s.trace < y->row.s.trace ? -1 : 1;
    if (isnan(x->value) != isnan(y->value)) return isnan(x->value) ? 1 : -1;
    if (x->value != y->value && !isnan(x->value)) return x->value < y->value ? -1 : 1;
    int s = strcmp(x->row.s.spec, y->row.s.spec);
    return s ? s
             : (x->row.s.run_group > y->row.s.run_group) -
                   (x->row.s.run_group < y->row.s.run_group);
}

int kv_rows_sort(struct kv_rows *rows, const char *key, struct kv_error *e) {
    KV_GUARD(e);
    const struct sort_key *k = NULL;
    for (size_t i = 0; i < sizeof sort_keys / sizeof *sort_keys; i++)
        if (strcmp(sort_keys[i].name, key) == 0) k = &sort_keys[i];
    if (!k)
        return kv_fail(e, KV_EUSAGE, "--sort", "'%s' is not one of bits, acc, kl, ms, spec", key);
    struct ranked *r = kv_alloc(rows->n + 1, sizeof *r);
    for (size_t i = 0; i < rows->n; i++)
        r[i] = (struct ranked){rows->row[i], k->value(&rows->row[i])};
    qsort(r, rows->n, sizeof *r, by_rank);
    for (size_t i = 0; i < rows->n; i++) rows->row[i] = r[i].row;
    free(r);
    return 0;
}
