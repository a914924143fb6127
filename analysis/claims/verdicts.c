// SPDX-License-Identifier: Apache-2.0
// What a store says of published claims: finds the runs a claim speaks of and words the answer.
#include "analysis/claims/verdicts.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include "analysis/claims/measure.h"
#include "analysis/results/builds.h"
#include "analysis/results/find.h"
#include "sim/store/label.h"
#include "analysis/results/pairs.h"
#include "analysis/stats/evidence.h"
#include "sim/base/assets.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/replay/spec.h"

static const double power = 0.8;

// ---- shipped claims -------------------------------------------------------------------

static const char claims_folder[] = "reports/claims/", claims_suffix[] = ".claim";

static bool is_claim(const char *path) {
    return strncmp(path, claims_folder, strlen(claims_folder)) == 0;
}

const char *kv_shipped_claim(size_t i) {
    const struct kv_asset *a;
    for (size_t k = 0; (a = kv_asset_at(k)); k++)
        if (is_claim(a->path) && i-- == 0) return a->path;
    return NULL;
}

int kv_claims_add(const char *name, struct kv_claim **claims, size_t *n, struct kv_error *e) {
    char *short_path = kv_format_text("%s%s%s", claims_folder, name, claims_suffix);
    const struct kv_asset *a = access(name, F_OK) == 0 ? NULL : kv_asset_find(name);
    struct kv_claim *some;
    size_t n_some;
    if (!a && access(name, F_OK) != 0) a = kv_asset_find(short_path);
    free(short_path);
    int rc = a ? kv_claims_parse(a->path, (const char *)a->data, &some, &n_some, e)
               : kv_claims_read(name, &some, &n_some, e);
    if (rc) return rc;
    *claims = kv_grow(*claims, *n + n_some + 1, sizeof **claims);
    memcpy(*claims + *n, some, n_some * sizeof **claims);
    *n += n_some;
    free(some);
    return 0;
}

// ---- finding runs ---------------------------------------------------------------------

struct search {
    struct kv_store *store;
    const struct kv_claim *claim;
    const struct kv_summary *all, *const *rows; // rows[i] = &all[i]
    size_t n_all;
    struct kv_store_setting *settings; // of each trace
    size_t n_settings;
    bool *trace_fits; // [n_all] the row's trace is one of those to look at
};

static bool fits_benchmark(const struct kv_claim *c, const struct kv_summary *s) {
    return strcasecmp(c->benchmark, "any") == 0 || strcasecmp(c->benchmark, s->task) == 0;
}

static bool usable(const struct search *q, const struct kv_summary *s) {
    const struct kv_claim *c = q->claim;
    return s->fidelity == KV_EXACT && (!c->modes || c->modes >> s->mode & 1) &&
           (!c->selves || c->selves >> s->self & 1) && s->feedback == KV_FEEDBACK_OPEN;
}

// Takes the traces nearest to the claim: its model and benchmark, else its benchmark, else all.
static void choose_traces(struct search *q) {
    for (int strictness = 2; strictness >= 0; strictness--) {
        bool found = false;
        for (size_t i = 0; i < q->n_all; i++) {
            const struct kv_summary *s = &q->all[i];
            bool benchmark = fits_benchmark(q->claim, s);
            q->trace_fits[i] = usable(q, s) && (strictness < 1 || benchmark) &&
                               (strictness < 2 || kv_same_model(q->claim->model, s->model));
            found = found || q->trace_fits[i];
        }
        if (found) return;
    }
}

static void mark_pattern(const struct search *q, const char *text, const char *const *labels,
                         bool *marked) {
    for (size_t i = 0; i < q->n_all; i++)
        marked[i] = q->trace_fits[i] &&
                    (fnmatch(text, q->all[i].spec, 0) == 0 || fnmatch(text, labels[i], 0) == 0);
}

// A spec that an ordinary model takes, though none of the store's does.
static bool fits_others(const char *text) {
    const struct kv_format_setting ordinary = {.shape = {.n_layers = 32,
                                                         .n_heads = 32,
                                                         .n_kv_heads = 8,
                                                         .head_dim = 128,
                                                         .hidden = 4096,
                                                         .ffn = 14336,
                                                         .vocab = 128256,
                                                         .max_tokens = 131072},
                                               .order = KV_ORDER_HF};
    struct kv_error why;
    char *spelt = NULL;
    bool fits = kv_tolerate(kv_spec_canonical(text, &ordinary, &spelt, &why), &why) == 0;
    free(spelt);
    return fits;
}

// Why nothing was measured, once something is known to stand in the way.
struct obstacle {
    char *text;
    bool misfit; // a spec that the store's models cannot have
};

static int mark_spec(const struct search *q, const char *text, bool *marked, struct obstacle *why,
                     struct kv_error *e) {
    struct kv_error no_spec;
    kv_rows_mark(q->all, q->n_all, q->settings, q->n_settings, text, marked, &no_spec);
    for (size_t i = 0; i < q->n_all; i++) marked[i] = marked[i] && q->trace_fits[i];
    if (no_spec.code != KV_EUSAGE) return 0; // a policy that is not loaded goes by its exact text
    if (fits_others(text)) {
        if (!why->text)
            *why = (struct obstacle){
                kv_format_text("%s does not fit the model (%s)", text, no_spec.msg), true};
        return 0;
    }
    char *where = kv_format_text("%s:%zu", q->claim->file, q->claim->line);
    int code = kv_fail(e, KV_EUSAGE, where, "'%s': %s", text, no_spec.msg);
    free(where);
    return code;
}

// Marks rows that `text` names: a pattern with * over specs and their short forms, or a spec in any
// spelling. None is no error: *why then says what the store lacks.
static int mark(const struct search *q, const char *text, const char *const *labels, bool *marked,
                struct obstacle *why, struct kv_error *e) {
    int code = 0;
    bool any = false;
    if (strchr(text, '*'))
        mark_pattern(q, text, labels, marked);
    else
        code = mark_spec(q, text, marked, why, e);
    for (size_t i = 0; i < q->n_all; i++) any = any || marked[i];
    if (!code && !any && !why->text)
        why->text = kv_format_text("the store holds no exact run of %s to measure it on", text);
    return code;
}

// ---- one verdict ----------------------------------------------------------------------

struct verdict_list {
    struct kv_verdict *rows;
    size_t n;
};

static struct kv_verdict *add_verdict(struct verdict_list *l, const struct kv_claim *c) {
    l->rows = kv_grow(l->rows, l->n + 1, sizeof *l->rows);
    struct kv_verdict *v = &l->rows[l->n++];
    *v = (struct kv_verdict){.claim = c,
                             .answer = KV_CANNOT_TELL,
                             .analogue = KV_CANNOT_TELL,
                             .estimate = NAN,
                             .low = NAN,
                             .high = NAN,
                             .items_needed = NAN};
    return v;
}

// Why the store's figures are not the claim's; NULL when they are. Caller frees.
static char *elsewhere(const struct kv_claim *c, const struct kv_summary *s,
                       const struct kv_device *device) {
    if (!kv_same_model(c->model, s->model))
        return kv_format_text("it speaks of %s; the store holds %s", c->model, s->model);
    if (!fits_benchmark(c, s))
        return kv_format_text("it speaks of %s; the store holds %s", c->benchmark, s->task);
    if (c->quantity->quantity == KV_Q_SAVING && strcasecmp(c->device, "any") != 0 &&
        (!device ||
         (strcasecmp(c->device, device->name) != 0 && !strcasestr(device->machine, c->device))))
        return kv_format_text("it speaks of %s; the device here is %s", c->device,
                              device ? device->name : "none");
    return NULL;
}

static char *reason(const struct kv_verdict *v) {
    if (v->analogue == KV_HOLDS) return kv_strdup("the 95 % interval lies within what is claimed");
    if (v->analogue == KV_FAILS)
        return kv_strdup("the 95 % interval and what is claimed do not meet");
    if (isnan(v->estimate)) return kv_strdup("nothing was measured on items that both specs hold");
    if (isnan(v->low)) return kv_format_text("%zu items are too few for an interval", v->n);
    if (isnan(v->items_needed))
        return kv_strdup("the 95 % interval lies partly within what is claimed; items cannot "
                         "narrow it, more runs on the device can");
    if (!isfinite(v->items_needed))
        return kv_strdup("the estimate lies on the bound of what is claimed, so no number of "
                         "items would tell");
    return kv_format_text("the 95 %% interval lies partly within what is claimed; about %.0f items "
                          "would tell if the estimate is right",
                          v->items_needed);
}

// The label, and whether it is the newest of several builds of one file, as in other tables.
static char *name_of(const struct search *q, size_t i, const char *const *labels) {
    return kv_format_text("%s%s", labels[i],
                          kv_build_newest(q->rows, q->n_all, i) ? " (newest)" : "");
}

static int judge_pair(const struct search *q, size_t a, size_t b, const char *const *labels,
                      const struct kv_measuring *how, struct verdict_list *l, struct kv_error *e) {
    const struct kv_claim *c = q->claim;
    const struct kv_summary *s = &q->all[a];
    struct kv_measured m;
    int code = kv_measure(q->store, c, s, &q->all[b], how, &m, e);
    if (code) return code;
    struct kv_verdict *v = add_verdict(l, c);
    v->first = name_of(q, a, labels);
    v->second = a == b ? NULL : name_of(q, b, labels);
    v->model = kv_strdup(s->model);
    v->benchmark = kv_strdup(s->task);
    v->mode = kv_mode_names[s->mode];
    const char *other, *why = kv_run_mismatch(&q->all[b], q->settings, q->n_settings, &other);
    v->mode_mismatch = kv_run_mismatch(s, q->settings, q->n_settings, &v->published);
    if (!v->mode_mismatch) v->mode_mismatch = why;
    v->n = m.n;
    v->estimate = m.estimate;
    v->low = m.low;
    v->high = m.high;
    bool priced = c->quantity->quantity == KV_Q_SAVING;
    if (priced && how->device) v->device = kv_strdup(how->device->name);
    v->analogue = kv_claim_answer(c, m.low, m.high);
    if (v->analogue == KV_CANNOT_TELL && !priced)
        v->items_needed = kv_items_to_clear((double)m.n, m.standard_error,
                                            kv_measured_distance(&m, c), 0.05, power);
    char *far = elsewhere(c, s, how->device);
    v->here = !far;
    v->answer = far ? KV_CANNOT_TELL : v->analogue;
    v->because = far ? far : reason(v);
    return 0;
}

// ---- one claim ------------------------------------------------------------------------

// End of the rows that have row i's spec and trace; rows of one lie together.
static size_t end_of_spec(const struct search *q, size_t i) {
    size_t end = i + 1;
    while (end < q->n_all && q->all[end].trace == q->all[i].trace &&
           strcmp(q->all[end].spec, q->all[i].spec) == 0)
        end++;
    return end;
}

// The marked rows of two specs that are most alike; false when there are none of one trace.
static bool most_alike(const struct search *q, const bool *first, const bool *second, size_t i,
                       size_t k, size_t *a, size_t *b) {
    int best = -1;
    for (size_t x = i; x < end_of_spec(q, i); x++)
        for (size_t y = k; y < end_of_spec(q, k); y++) {
            int likeness = kv_pairs_likeness(&q->all[x], &q->all[y]);
            if (!first[x] || !second[y] || likeness <= best) continue;
            best = likeness;
            *a = x;
            *b = y;
        }
    return best >= 0;
}

// Each marked spec with each other marked one of its trace, in the two runs most alike; without
// `second`, each marked spec in its first run.
static int judge_marked(const struct search *q, const bool *first, const bool *second,
                        const char *const *labels, const struct kv_measuring *how,
                        struct verdict_list *l, struct kv_error *e) {
    int code = 0;
    size_t a, b;
    for (size_t i = 0; !code && i < q->n_all; i = end_of_spec(q, i)) {
        for (size_t x = i; !second && x < end_of_spec(q, i); x++)
            if (first[x]) {
                code = judge_pair(q, x, x, labels, how, l, e);
                break;
            }
        for (size_t k = 0; second && !code && k < q->n_all; k = end_of_spec(q, k))
            if (k != i && most_alike(q, first, second, i, k, &a, &b))
                code = judge_pair(q, a, b, labels, how, l, e);
    }
    return code;
}

static int judge_shuffles(const struct search *q, const bool *first, const char *const *labels,
                          const struct kv_measuring *how, struct verdict_list *l,
                          struct kv_error *e) {
    const int alike = kv_pairs_likeness(q->all, q->all); // in every respect
    int code = 0;
    for (size_t b = 0; !code && b < q->n_all; b++)
        for (size_t a = 0; q->trace_fits[b] && !code && a < q->n_all; a++)
            if (first[a] && kv_pairs_likeness(&q->all[a], &q->all[b]) == alike &&
                kv_spec_shuffles(&q->all[b].parts, &q->all[a].parts))
                code = judge_pair(q, a, b, labels, how, l, e);
    return code;
}

static int judge_claim(struct search *q, const char *const *labels, const struct kv_measuring *how,
                       struct verdict_list *l, struct kv_error *e) {
    const struct kv_claim *c = q->claim;
    bool *first = kv_alloc(q->n_all + 1, sizeof *first);
    bool *second = kv_alloc(q->n_all + 1, sizeof *second);
    bool own_shuffle = c->quantity->pair && strcmp(c->second, "shuffle(first)") == 0;
    size_t before = l->n;
    struct obstacle why = {0};
    choose_traces(q);
    int code = mark(q, c->first, labels, first, &why, e);
    if (!code && c->quantity->pair && !own_shuffle)
        code = mark(q, c->second, labels, second, &why, e);
    if (!code && own_shuffle && q->n_all) code = judge_shuffles(q, first, labels, how, l, e);
    if (!code && !own_shuffle)
        code = judge_marked(q, first, c->quantity->pair ? second : NULL, labels, how, l, e);
    if (!code && l->n == before) {
        struct kv_verdict *v = add_verdict(l, c);
        v->misfit = why.misfit;
        v->because = why.text
                         ? why.text
                         : kv_strdup(own_shuffle ? "the store holds no policy together with its "
                                                   "shuffle"
                                                 : "the two specs were not run on one trace");
        why.text = NULL;
    }
    free(why.text);
    free(first);
    free(second);
    return code;
}

int kv_verdicts_judge(struct kv_store *s, const struct kv_claim *claims, size_t n_claims,
                      struct kv_device *device, uint64_t seed, size_t draws,
                      struct kv_verdict **verdicts, size_t *n, struct kv_error *e) {
    struct kv_summary *all = NULL;
    struct verdict_list l = {0};
    size_t n_all = 0;
    int code = kv_store_summaries(s, NULL, &all, &n_all, e);
    const struct kv_summary **rows = kv_alloc(n_all + 1, sizeof *rows);
    char **labels = kv_alloc(n_all + 1, sizeof *labels);
    struct search q = {.store = s, .all = all, .rows = rows, .n_all = n_all};
    const struct kv_measuring how = {.device = device, .seed = seed, .draws = draws};
    q.trace_fits = kv_alloc(n_all + 1, sizeof *q.trace_fits);
    for (size_t i = 0; i < n_all; i++) rows[i] = &all[i];
    for (size_t i = 0; !code && i < n_all; i++) labels[i] = kv_strdup(rows[i]->label);
    if (!code) code = kv_store_settings(s, &q.settings, &q.n_settings, e);
    for (size_t i = 0; !code && i < n_claims; i++) {
        q.claim = &claims[i];
        code = judge_claim(&q, (const char *const *)labels, &how, &l, e);
    }
    for (size_t i = 0; i < n_all; i++) free(labels[i]);
    free(labels);
    free(rows);
    free(q.trace_fits);
    free(q.settings);
    kv_summaries_free(all, n_all);
    if (code) kv_verdicts_free(l.rows, l.n);
    *verdicts = code ? NULL : l.rows;
    *n = code ? 0 : l.n;
    return code;
}

void kv_verdicts_free(struct kv_verdict *verdicts, size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct kv_verdict *v = &verdicts[i];
        char *texts[] = {v->first, v->second, v->model, v->benchmark, v->device, v->because};
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) free(texts[k]);
    }
    free(verdicts);
}
