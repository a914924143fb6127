// SPDX-License-Identifier: Apache-2.0
// Rows of a store with intervals, comparison with 16 bit and price on a device; finding a spec.
#include "analysis/results/rows.h"
#include "sim/base/args.h"
#include "sim/base/memory.h"
#include "sim/replay/spec.h"

#include <stdlib.h>

static int read_contexts(struct kv_rows *rows, const char *text, struct kv_error *e) {
    for (const char *p = text; *p;) {
        char *end;
        double context = strtod(p, &end);
        if (end == p || (*end && *end != ',') || !(context >= 1 && context <= 1e9))
            return kv_fail(e, KV_EUSAGE, "--context",
                           "'%s' is not a list of tokens such as 128,2048", text);
        if (rows->n_contexts == KV_MAX_CONTEXTS)
            return kv_fail(e, KV_EUSAGE, "--context", "at most %d contexts at once",
                           KV_MAX_CONTEXTS);
        rows->context[rows->n_contexts++] = context;
        p = *end ? end + 1 : end;
    }
    return 0;
}

// ---- one row --------------------------------------------------------------------------

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
static int split_row(struct kv_row *row, struct kv_store *s, struct kv_error *e) {
    struct kv_redraw_result *draws = NULL;
    size_t n = 0;
    int code = kv_store_redraws(s, row->s.family, &draws, &n, e);
    uint32_t *item = kv_alloc(n + 1, sizeof *item);
    double *change = kv_alloc(n + 1, sizeof *change), *kl = kv_alloc(n + 1, sizeof *kl);
    for (size_t i = 0; i < n; i++) {
        item[i] = draws[i].item;
        change[i] = draws[i].right[KV_ACC] - draws[i].right_ref[KV_ACC];
        kl[i] = draws[i].kl_nats;
    }
    row->split = kv_split_variance(item, change, n);
    row->split_kl = kv_split_variance(item, kl, n);
    free(item);
    free(change);
    free(kl);
    free(draws);
    return code;
}

// Holm over the rows that one would choose among: alike, and not 16 bit throughout.
static void adjust(struct kv_rows *rows) {
    double *p = kv_alloc(rows->n + 1, sizeof *p), *adjusted = kv_alloc(rows->n + 1, sizeof *p);
    for (size_t i = 0; i < rows->n; i++) {
        for (size_t k = 0; k < rows->n; k++) {
            const struct kv_row *r = &rows->row[k];
            const struct kv_paired *d = &r->to16[KV_ACC];
            bool counts = kv_rows_alike(&rows->row[i], r) && r->s.nominal_bits < 16;
            p[k] = !counts ? NAN : isnan(d->mid_p) ? d->t_p : d->mid_p;
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
    int code = kv_store_items(s, row->s.family, &items, &n, e);
    if (code) return code;
    judge(row, items, n);
    kv_item_results_free(items, n);
    row->split = row->split_kl = kv_split_variance(NULL, NULL, 0);
    if (row->s.n_redraws > 1 && (code = split_row(row, s, e))) return code;
    for (size_t i = 0; rows->device && i < rows->n_contexts; i++)
        row->at[i] = kv_device_step(rows->device, &row->s.ledger, rows->context[i], 0);
    return 0;
}

int kv_summary_labels(struct kv_store *s, const struct kv_summary *const *rows, size_t n,
                      char **labels, struct kv_error *e) {
    struct kv_store_setting *settings;
    size_t n_settings;
    int code = kv_store_settings(s, &settings, &n_settings, e);
    if (code) return code;
    const char **specs = kv_alloc(n + 1, sizeof *specs);
    const struct kv_format_setting **of = kv_alloc(n + 1, sizeof *of);
    for (size_t i = 0; i < n; i++) {
        specs[i] = rows[i]->spec;
        for (size_t k = 0; k < n_settings; k++)
            if (settings[k].trace == rows[i]->trace) of[i] = &settings[k].setting;
    }
    kv_spec_labels(specs, of, n, labels);
    free(of);
    free(specs);
    free(settings);
    return 0;
}

static int label_rows(struct kv_rows *rows, struct kv_store *s, struct kv_error *e) {
    const struct kv_summary **summaries = kv_alloc(rows->n + 1, sizeof *summaries);
    char **labels = kv_alloc(rows->n + 1, sizeof *labels);
    for (size_t i = 0; i < rows->n; i++) summaries[i] = &rows->row[i].s;
    int code = kv_summary_labels(s, summaries, rows->n, labels, e);
    for (size_t i = 0; i < rows->n; i++) rows->row[i].label = labels[i];
    free(labels);
    free(summaries);
    return code;
}

int kv_rows_open(struct kv_rows *rows, struct kv_store **s, const struct kv_cli *c,
                 struct kv_error *e) {
    struct kv_summary *summaries = NULL;
    size_t n = 0;
    const char *device = kv_opt(c, "device") ? kv_opt(c, "device") : kv_device_default_name();
    const struct kv_store_filter filter = {.fidelity = kv_opt(c, "fidelity"),
                                           .all_builds = kv_opt_given(c, "builds")};
    *rows = (struct kv_rows){0};
    *s = NULL;
    int code = read_contexts(rows, kv_opt(c, "context"), e);
    if (!code && device) code = kv_device_open(&rows->device, device, e);
    if (!code) code = kv_store_open(s, kv_opt(c, "db"), KV_STORE_READ, e);
    if (!code) code = kv_store_summaries(*s, &filter, &summaries, &n, e);
    if (!code && n == 0)
        code = kv_fail(e, KV_EFAIL, kv_opt(c, "db"), "the store holds no outcomes%s%s",
                       filter.fidelity ? " of fidelity " : " yet; kvsim sweep writes them",
                       filter.fidelity ? filter.fidelity : "");
    if (code) goto fail;
    rows->n = n;
    rows->row = kv_alloc(n, sizeof *rows->row);
    for (size_t i = 0; i < n; i++) rows->row[i].s = summaries[i];
    free(summaries);
    code = label_rows(rows, *s, e);
    for (size_t i = 0; !code && i < n; i++) code = fill_row(rows, &rows->row[i], *s, e);
    if (!code) {
        kv_rows_versus(rows);
        adjust(rows);
        return 0;
    }
fail:
    kv_rows_fini(rows);
    kv_store_abandon(*s);
    *s = NULL;
    return code;
}

void kv_rows_fini(struct kv_rows *rows) {
    for (size_t i = 0; i < rows->n; i++) {
        struct kv_summary *s = kv_alloc(1, sizeof *s); // the list's free takes heap rows
        *s = rows->row[i].s;
        kv_summaries_free(s, 1);
        free(rows->row[i].label);
        free(rows->row[i].right);
        free(rows->row[i].item_kl);
        free(rows->row[i].item_scored);
        free(rows->row[i].static4.label);
        free(rows->row[i].shuffle.label);
    }
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
    return s ? s : (x->row.s.family > y->row.s.family) - (x->row.s.family < y->row.s.family);
}

int kv_rows_sort(struct kv_rows *rows, const char *key, struct kv_error *e) {
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

// ---- finding a spec -------------------------------------------------------------------

// The spec's spelling for the model of each trace.
struct spellings {
    size_t n;
    char **text;      // [0] as the user wrote it, for policies that are not loaded; NULL = none
    long long *trace; // 0 = any
};

bool kv_row_is_closed(const struct kv_summary *s) {
    return strcmp(s->variant, "feedback=closed") == 0;
}

static bool matches(const struct kv_summary *s, const struct spellings *spelt,
                    const struct kv_row_choice *c) {
    if (c->fidelity && strcmp(c->fidelity, s->fidelity) != 0) return false;
    if (c->mode && strcmp(c->mode, s->mode) != 0) return false;
    if (kv_row_is_closed(s) != (c->feedback && strcmp(c->feedback, "closed") == 0)) return false;
    if (c->trace && strncmp(c->trace, s->trace_digest, strlen(c->trace)) != 0) return false;
    for (size_t i = 0; i < spelt->n; i++)
        if (spelt->text[i] && strcmp(spelt->text[i], s->spec) == 0 &&
            (spelt->trace[i] == 0 || spelt->trace[i] == s->trace))
            return true;
    return false;
}

// Names the nearest spec that is there, in its short form.
static int not_found(const struct kv_summary *all, size_t n, const struct spellings *spelt,
                     struct kv_error *e) {
    const char **specs = kv_alloc(n + 2, sizeof *specs);
    char **labels = kv_alloc(n + 2, sizeof *labels);
    specs[0] = spelt->text[0];
    for (size_t i = 1; i < spelt->n; i++)
        if (spelt->text[i]) specs[0] = spelt->text[i];
    for (size_t i = 0; i < n; i++) specs[i + 1] = all[i].spec;
    kv_spec_labels(specs, NULL, n + 1, labels);
    const char *near = kv_nearest(labels[0], (const char *const *)labels + 1);
    int code = near ? kv_fail(e, KV_EFAIL, spelt->text[0],
                              "the store holds no such run; it holds '%s'", near)
                    : kv_fail(e, KV_EFAIL, spelt->text[0],
                              "the store holds no such run; kvsim show lists what it holds");
    for (size_t i = 0; i <= n; i++) free(labels[i]);
    free(labels);
    free(specs);
    return code;
}

// Spells the text for each trace. *spelling_error is set when it is no spec for any of them.
static void spell(struct spellings *spelt, const char *text,
                  const struct kv_store_setting *settings, size_t n,
                  struct kv_error *spelling_error) {
    size_t failed = 0;
    struct kv_error e = {0};
    spelt->n = n + 1;
    spelt->text = kv_alloc(n + 1, sizeof *spelt->text);
    spelt->trace = kv_alloc(n + 1, sizeof *spelt->trace);
    spelt->text[0] = kv_strdup(text);
    for (size_t i = 0; i < n; i++) {
        spelt->trace[i + 1] = settings[i].trace;
        if (kv_spec_canonical(text, &settings[i].setting, &spelt->text[i + 1], &e)) {
            spelt->text[i + 1] = NULL;
            failed++;
        }
    }
    if (failed == n) *spelling_error = e;
}

int kv_rows_find(struct kv_store *s, const char *text, const struct kv_row_choice *choice,
                 struct kv_summary **rows, size_t *n, struct kv_error *e) {
    struct kv_store_setting *settings = NULL;
    struct kv_summary *all = NULL;
    struct spellings spelt = {0};
    size_t n_settings = 0, n_all = 0, kept = 0;
    struct kv_error spelling_error = {0};
    *rows = NULL;
    *n = 0;
    int code = kv_store_summaries(s, NULL, &all, &n_all, e);
    if (!code) code = kv_store_settings(s, &settings, &n_settings, e);
    if (code) goto done;
    spell(&spelt, text, settings, n_settings, &spelling_error);
    for (size_t i = 0; i < n_all; i++) kept += matches(&all[i], &spelt, choice);
    if (kept == 0 && spelling_error.code) {
        if (e) *e = spelling_error;
        code = spelling_error.code;
    } else if (kept == 0) {
        code = not_found(all, n_all, &spelt, e);
    } else {
        struct kv_summary *chosen = kv_alloc(kept, sizeof *chosen);
        struct kv_summary *rest = kv_alloc(n_all - kept + 1, sizeof *rest);
        size_t n_rest = 0;
        for (size_t i = 0; i < n_all; i++)
            if (matches(&all[i], &spelt, choice))
                chosen[(*n)++] = all[i];
            else
                rest[n_rest++] = all[i];
        free(all);
        all = rest;
        n_all = n_rest;
        *rows = chosen;
    }
done:
    for (size_t i = 0; i < spelt.n; i++) free(spelt.text[i]);
    free(spelt.text);
    free(spelt.trace);
    free(settings);
    kv_summaries_free(all, n_all);
    return code;
}

int kv_rows_only(const struct kv_summary *rows, size_t n, const char *text, struct kv_error *e) {
    bool traces = false, fidelities = false, modes = false;
    if (n == 1) return 0;
    for (size_t i = 1; i < n; i++) {
        traces = traces || rows[i].trace != rows[0].trace;
        fidelities = fidelities || strcmp(rows[i].fidelity, rows[0].fidelity) != 0;
        modes = modes || strcmp(rows[i].mode, rows[0].mode) != 0;
    }
    const char *by = traces ? "--digest" : fidelities ? "--fidelity" : modes ? "--mode" : NULL;
    if (by)
        return kv_fail(e, KV_EUSAGE, text, "the store holds %zu runs of this spec; choose with %s",
                       n, by);
    return kv_fail(e, KV_EUSAGE, text,
                   "the store holds %zu runs of this spec that differ in seed or settings", n);
}
