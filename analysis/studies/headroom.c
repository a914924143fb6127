// SPDX-License-Identifier: Apache-2.0
// Chooses a plan under every freedom, sweeps them all, and reads back what they lose.
#include "analysis/studies/headroom.h"

#include <stdlib.h>

#include "sim/store/store.h"
#include "analysis/studies/plan.h"
#include "analysis/studies/sweep.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"

const struct kv_freedom kv_freedoms[KV_N_FREEDOMS] = {
    {.name = "uniform", .plan = -1},
    {.name = "K and V", .plan = KV_PLAN_STATIC},
    {.name = "layer, K and V", .plan = KV_PLAN_LAYER},
    {.name = "head, K and V", .plan = KV_PLAN_HEAD},
    {"token", -1, "token", "joint", "", false, false},
    {"token, shuffled", -1, "token", "joint", "", true, false},
    {"token, K and V", -1, "token", "apart", "", false, false},
    {"token, K and V, shuffled", -1, "token", "apart", "", true, false},
    {"cell", -1, "cell", "apart", "", false, false},
    {"cell, shuffled", -1, "cell", "apart", "", true, false},
    {"token, K and V, measured again", -1, "token", "apart", "", false, true},
    {"cell, measured again", -1, "cell", "apart", "", false, true},
    {"cell, by coding error", -1, "cell", "apart", ",by=error", false, false}};

struct kv_headroom_options kv_headroom_defaults(void) {
    return (struct kv_headroom_options){.struct_bytes = sizeof(struct kv_headroom_options),
                                        .plan = kv_planner_defaults(),
                                        .format = "asym:group=32",
                                        .bits = {3, 4, 5},
                                        .n_bits = 3,
                                        .widths = {2, 3, 4, 5, 6, 8},
                                        .n_widths = 6,
                                        .rounds = 1,
                                        .db = "kvsim.db"};
}

int kv_headroom_check(const struct kv_headroom_options *o, struct kv_error *e) {
    if (o->struct_bytes != sizeof *o)
        return kv_fail(e, KV_EUSAGE, "struct_bytes", "begin with kv_headroom_defaults");
    if (!o->model)
        return kv_fail(e, KV_EUSAGE, "model",
                       "a model is needed: plans are judged by exact replay");
    if (!o->format) return kv_fail(e, KV_EUSAGE, "format", "a format is needed");
    if (o->n_bits == 0 || o->n_bits > KV_HEADROOM_BUDGETS)
        return kv_fail(e, KV_EUSAGE, "bits", "1 to %d budgets are expected", KV_HEADROOM_BUDGETS);
    if (o->n_widths == 0 || o->n_widths > KV_MAX_WIDTHS)
        return kv_fail(e, KV_EUSAGE, "widths", "1 to %d widths are expected", KV_MAX_WIDTHS);
    if (o->rounds == 0) return kv_fail(e, KV_EUSAGE, "rounds", "at least 1 is expected");
    if (!o->db)
        return kv_fail(e, KV_EUSAGE, "db", "a store is needed, for what is run is read back");
    return kv_planner_check(&o->plan, e);
}

// ---- choosing -------------------------------------------------------------------------

static void add(struct kv_headroom *h, size_t freedom, size_t budget, char *text) {
    h->at[h->n++] = (struct kv_headroom_entry){.freedom = &kv_freedoms[freedom],
                                               .budget = budget,
                                               .uniform_bits = h->o.bits[budget],
                                               .spec = text,
                                               .predicted = NAN};
}

// What uniform storage at a budget's width takes becomes the planner's limit.
static int choose_uniform(struct kv_headroom *h, struct kv_planner *p, size_t budget,
                          struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(p->trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    struct kv_replay_spec uniform;
    struct kv_forecast forecast;
    char *text = kv_format_text("static:bits=%u@%s", h->o.bits[budget], h->o.format);
    add(h, 0, budget, text);
    int rc = kv_replay_spec_open(&uniform, text, &setting, p->seed, e);
    if (rc) return rc;
    rc = kv_planner_forecast(p, &uniform, &p->train, &forecast, e);
    kv_replay_spec_close(&uniform);
    p->limit = forecast.cost;
    return rc;
}

static int choose_plan(struct kv_headroom *h, struct kv_planner *p, size_t freedom, size_t budget,
                       struct kv_error *e) {
    struct kv_plan plan;
    int rc = kv_plan_find(&plan, p, (enum kv_plan_family)kv_freedoms[freedom].plan, h->o.format,
                          h->o.widths, h->o.n_widths, e);
    if (rc == 0) add(h, freedom, budget, kv_plan_text(&plan, plan.choice));
    kv_plan_fini(&plan);
    return rc;
}

static char *oracle_text(const struct kv_headroom *h, const struct kv_freedom *x, double limit) {
    struct kv_text widths = {0};
    for (size_t i = 0; i < h->o.n_widths; i++)
        kv_text_addf(&widths, "%s%u", i ? "/" : "", h->o.widths[i]);
    char *list = kv_text_take(&widths);
    char *text = kv_format_text("%soracle:bits=%.9g,widths=%s,grain=%s,kv=%s,rounds=%u%s%s@%s",
                                x->null ? "shuffle(" : "", limit, list, x->grain, x->kv,
                                x->again ? h->o.rounds : 1, x->more, x->null ? "):within=item" : "",
                                h->o.format);
    free(list);
    return text;
}

static int choose(struct kv_headroom *h, struct kv_planner *p, size_t budget, struct kv_error *e) {
    int rc = choose_uniform(h, p, budget, e);
    for (size_t f = 1; f < KV_N_FREEDOMS && rc == 0; f++) {
        const struct kv_freedom *x = &kv_freedoms[f];
        if (x->plan >= 0)
            rc = choose_plan(h, p, f, budget, e);
        else if (!x->again || h->o.rounds > 1)
            add(h, f, budget, oracle_text(h, x, p->limit));
    }
    return rc;
}

// Judged, unless told: the longer run of items on one side of those that plans are chosen on.
static int set_items(struct kv_headroom *h, const struct kv_planner *p, struct kv_error *e) {
    size_t n = kv_trace_info(p->trace)->n_items, first = p->train.first, end = first + p->train.n;
    h->items =
        n - end >= first ? (struct kv_item_range){end, n - end} : (struct kv_item_range){0, first};
    if (h->o.plan.items.n) h->items = h->o.plan.items;
    int rc = kv_item_range_check(&h->items, n, "items", e);
    if (rc) return rc;
    if (h->items.n == 0)
        return kv_fail(e, KV_EUSAGE, "train", "no items are left to judge plans on");
    size_t last = h->items.first + h->items.n - 1;
    if (first <= last && h->items.first < end)
        return kv_fail(e, KV_EUSAGE, "train",
                       "items %zu-%zu, which plans are chosen on, overlap items %zu-%zu, which "
                       "they are judged on; --items sets those",
                       first, end - 1, h->items.first, last);
    return 0;
}

// Fills what says how the study was run, and canonical specs, by which they are found again.
static int name_all(struct kv_headroom *h, const struct kv_planner *p, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(p->trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    int rc = 0;
    h->form = p->form;
    snprintf(h->digest, sizeof h->digest, "%s", in->digest);
    h->subtitle = kv_format_text("%s, %s, %s, %zu items not chosen on", h->o.format, in->model_name,
                                 in->task_name, h->items.n);
    for (size_t i = 0; i < h->n && rc == 0; i++)
        rc = kv_spec_canonical(h->at[i].spec, &setting, &h->at[i].canonical, e);
    return rc;
}

static int choose_all(struct kv_headroom *h, struct kv_error *e) {
    struct kv_planner p;
    int rc = kv_planner_open(&p, &h->o.plan, e);
    if (rc) return rc;
    rc = set_items(h, &p, e);
    struct kv_progress *progress = kv_progress_start("planning", h->o.n_bits, "budgets");
    for (size_t b = 0; b < h->o.n_bits && rc == 0; b++) {
        rc = choose(h, &p, b, e);
        kv_progress_step(progress, 1);
        if (rc == 0 && kv_interrupted()) rc = kv_fail(e, KV_EINTR, "headroom", "interrupted");
    }
    kv_progress_end(progress);
    if (rc == 0) rc = name_all(h, &p, e);
    kv_planner_close(&p);
    return rc;
}

// ---- running --------------------------------------------------------------------------

// One fidelity of all that it answers for, into the store.
static int run(const struct kv_headroom *h, enum kv_fidelity fidelity, struct kv_error *e) {
    const char *specs[KV_N_FREEDOMS * KV_HEADROOM_BUDGETS];
    struct kv_sweep_options o = kv_sweep_defaults();
    struct kv_sweep *s;
    size_t n;
    o.trace = h->o.plan.trace;
    o.model = h->o.model;
    o.compute = h->o.compute;
    o.specs = specs;
    for (size_t i = 0; i < h->n; i++)
        if (fidelity == KV_EXACT || !h->at[i].freedom->again) specs[o.n_specs++] = h->at[i].spec;
    o.exact = fidelity == KV_EXACT;
    o.fisher = fidelity == KV_FISHER;
    o.form = h->form;
    o.items = h->items;
    o.db = h->o.db;
    o.jobs = h->o.plan.jobs;
    o.seed = h->o.plan.seed;
    int rc = kv_sweep_open(&s, &o, e);
    if (rc) return rc;
    kv_sweep_specs(s, &n);
    kv_say("%s %zu specs over %zu items into %s", o.exact ? "running" : "predicting", n, o.items.n,
           o.db);
    rc = kv_sweep_run(s, e);
    kv_sweep_close(s);
    return rc;
}

// ---- reading back ---------------------------------------------------------------------

// Marks what is not finite of a row's items.
static int mark_left_out(struct kv_headroom *h, struct kv_headroom_entry *x, struct kv_store *s,
                         const struct kv_summary *row, struct kv_error *e) {
    struct kv_item_result *items;
    size_t n;
    int rc = kv_store_items(s, row->run_group, &items, &n, e);
    if (rc) return rc;
    size_t n_own = 0, n_odd = 0;
    for (int pass = 0; pass < 2; pass++) // a run that is finite nowhere takes no item from others
        for (size_t i = 0; i < n && (pass == 0 || n_odd < n_own); i++) {
            size_t at = items[i].item - h->items.first;
            bool own = items[i].item >= h->items.first && at < h->items.n;
            bool odd = own && !isfinite(items[i].kl_nats);
            n_own += pass == 0 && own;
            n_odd += pass == 0 && odd;
            if (pass == 1 && odd) h->left_out[at] = true;
        }
    if (row->fidelity == KV_EXACT) x->n_left_out = n_odd;
    kv_item_results_free(items, n);
    return 0;
}

static int read_entry(const struct kv_headroom *h, struct kv_headroom_entry *x, struct kv_store *s,
                      const struct kv_summary *row, struct kv_error *e) {
    struct kv_item_result *items;
    size_t n, kept = 0;
    int rc = kv_store_items(s, row->run_group, &items, &n, e);
    if (rc) return rc;
    double *kl = kv_alloc(n + 1, sizeof *kl), *weight = kv_alloc(n + 1, sizeof *weight), right = 0,
           agree = 0;
    for (size_t i = 0; i < n; i++) {
        if (items[i].item < h->items.first || items[i].item >= h->items.first + h->items.n)
            continue;
        if (h->left_out[items[i].item - h->items.first] || !isfinite(items[i].kl_nats)) continue;
        kl[kept] = items[i].kl_nats;
        weight[kept++] = items[i].n_scored;
        right += items[i].right[KV_ACC];
        agree += items[i].agree;
    }
    struct kv_mean mean = kv_ratio_interval(kl, weight, kept, 0.95);
    if (row->fidelity == KV_EXACT) {
        x->exact = mean;
        x->n = kept;
        x->right = right / (double)kept;
        x->agree = agree / (double)kept;
        x->bits = row->allocated_bits;
    } else
        x->predicted = mean.mean;
    free(kl);
    free(weight);
    kv_item_results_free(items, n);
    return 0;
}

// Whether a row of the store is what the study ran.
static bool is_ours(const struct kv_headroom *h, const struct kv_summary *row) {
    enum kv_compute compute = row->fidelity == KV_EXACT ? h->o.compute : KV_COMPUTE_HOST;
    return strcmp(row->trace_digest, h->digest) == 0 && row->seed == h->o.plan.seed &&
           row->mode == KV_INLINE && row->self == KV_SELF_CODED &&
           strcmp(row->compute, kv_compute_names[compute]) == 0 &&
           row->feedback == KV_FEEDBACK_OPEN && (row->form == KV_FORM_NONE || row->form == h->form);
}

static int read_back(struct kv_headroom *h, struct kv_error *e) {
    struct kv_store *s;
    struct kv_summary *rows = NULL;
    size_t n = 0;
    double uniform = NAN;
    int rc = kv_store_open(&s, h->o.db, KV_STORE_READ, e);
    if (rc == 0) rc = kv_store_summaries(s, &(struct kv_store_filter){0}, &rows, &n, e);
    h->left_out = kv_alloc(h->items.n + 1, sizeof *h->left_out);
    for (size_t i = 0; i < h->n; i++)
        for (size_t k = 0; k < n && rc == 0; k++)
            if (strcmp(rows[k].spec, h->at[i].canonical) == 0 && is_ours(h, &rows[k]))
                rc = mark_left_out(h, &h->at[i], s, &rows[k], e);
    for (size_t i = 0; i < h->n && rc == 0; i++) {
        struct kv_headroom_entry *x = &h->at[i];
        for (size_t k = 0; k < n && rc == 0; k++)
            if (strcmp(rows[k].spec, x->canonical) == 0 && is_ours(h, &rows[k]))
                rc = read_entry(h, x, s, &rows[k], e);
        if (x->freedom == kv_freedoms) uniform = x->exact.mean;
        x->of_uniform = x->exact.mean / uniform;
    }
    kv_summaries_free(rows, n);
    kv_store_abandon(s);
    return rc;
}

// ---- the study ------------------------------------------------------------------------

int kv_headroom_run(struct kv_headroom *h, const struct kv_headroom_options *o,
                    struct kv_error *e) {
    *h = (struct kv_headroom){.o = *o};
    int rc = kv_headroom_check(o, e);
    if (rc == 0) rc = choose_all(h, e);
    if (rc == 0) rc = run(h, KV_FISHER, e); // the cheap one first
    if (rc == 0) rc = run(h, KV_EXACT, e);
    if (rc == 0) rc = read_back(h, e);
    return rc;
}

void kv_headroom_fini(struct kv_headroom *h) {
    for (size_t i = 0; i < h->n; i++) {
        free(h->at[i].spec);
        free(h->at[i].canonical);
    }
    free(h->subtitle);
    free(h->left_out);
    *h = (struct kv_headroom){0};
}
