// SPDX-License-Identifier: Apache-2.0
// kvsim headroom: what each freedom to choose widths is worth, at equal bits. The best plan of
// every family, chosen on training items or by an oracle on each item, is run exactly on other
// items.
#include <stdlib.h>

#include "analysis/stats/stats.h"
#include "analysis/store/store.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "reports/draw/gnuplot.h"
#include "sim/cli/lists.h"
#include "sim/cli/opening.h"
#include "analysis/studies/sweep.h"
#include "analysis/studies/plan.h"

// From one width for all to a width of each cell's own; after an oracle its null.
static const struct family {
    const char *name;
    int plan;                      // kv_family that is planned on the training items, or -1
    const char *grain, *kv, *more; // else an oracle's
    bool null;                     // its widths, on the wrong tokens or cells of the item
    bool again;                    // damage measured again at the allocation, --rounds times in all
} families[] = {{.name = "uniform", .plan = -1},
                {.name = "K and V", .plan = KV_FAMILY_STATIC},
                {.name = "layer, K and V", .plan = KV_FAMILY_LAYER},
                {.name = "head, K and V", .plan = KV_FAMILY_HEAD},
                {"token", -1, "token", "joint", "", false, false},
                {"token, shuffled", -1, "token", "joint", "", true, false},
                {"token, K and V", -1, "token", "apart", "", false, false},
                {"token, K and V, shuffled", -1, "token", "apart", "", true, false},
                {"cell", -1, "cell", "apart", "", false, false},
                {"cell, shuffled", -1, "cell", "apart", "", true, false},
                {"token, K and V, measured again", -1, "token", "apart", "", false, true},
                {"cell, measured again", -1, "cell", "apart", "", false, true},
                {"cell, by coding error", -1, "cell", "apart", ",by=error", false, false}};
enum { N_FAMILIES = sizeof families / sizeof *families, MAX_BUDGETS = 8 };

// One family at one budget.
struct entry {
    size_t family, budget;
    char *text, *canonical;
    size_t n;             // items
    double bits;          // allocated, as run
    struct kv_mean exact; // nats a scored token
    double predicted;     // by fisher replay
    double right, agree;  // accuracy; pick agreement with 16 bit
};

struct headroom {
    struct kv_cli *c;
    const char *format;
    char *widths; // "2/4/8"
    double width[KV_MAX_WIDTHS], budget[MAX_BUDGETS], limit[MAX_BUDGETS];
    size_t n_widths, n_budgets, n;
    struct entry at[N_FAMILIES * MAX_BUDGETS];
    long rounds;
    enum kv_cell_table_kind form; // of predicted damage
    size_t first, n_items;        // judged
    char digest[17], *subtitle;
};

// ---- choosing -------------------------------------------------------------------------

static void add(struct headroom *h, size_t family, size_t budget, char *text) {
    h->at[h->n++] =
        (struct entry){.family = family, .budget = budget, .text = text, .predicted = NAN};
}

// The budget is what uniform storage at this width takes, scales and all.
static int choose(struct headroom *h, struct kv_tuning *t, size_t b, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(t->trace);
    struct kv_format_setting setting = {in->shape, in->order};
    struct kv_replay_spec uniform;
    struct kv_forecast forecast;
    char *text = kv_format_text("static:bits=%g@%s", h->budget[b], h->format);
    add(h, 0, b, text);
    int rc = kv_replay_spec_open(&uniform, text, &setting, h->c->seed, e);
    if (rc) return rc;
    rc = kv_tuning_forecast(t, &uniform, &t->train, &forecast, e);
    kv_replay_spec_close(&uniform);
    t->budget.limit = h->limit[b] = forecast.cost;
    for (size_t f = 1; f < N_FAMILIES && rc == 0; f++) {
        struct kv_plan plan;
        if (families[f].plan >= 0) {
            rc = kv_tuning_plan(t, (enum kv_family)families[f].plan, h->format, h->width,
                                h->n_widths, &plan, e);
            if (rc == 0) add(h, f, b, kv_plan_text(&plan, plan.choice));
            kv_plan_fini(&plan);
        } else if (!families[f].again || h->rounds > 1) {
            const struct family *x = &families[f];
            add(h, f, b,
                kv_format_text("%soracle:bits=%.9g,widths=%s,grain=%s,kv=%s,rounds=%ld%s%s@%s",
                               x->null ? "shuffle(" : "", h->limit[b], h->widths, x->grain, x->kv,
                               x->again ? h->rounds : 1, x->more, x->null ? "):within=item" : "",
                               h->format));
        }
    }
    return rc;
}

static int choose_all(struct headroom *h, struct kv_error *e) {
    struct kv_tuning t;
    int rc = kv_tuning_open(&t, h->c, e);
    if (rc) return rc;
    size_t n = kv_trace_info(t.trace)->n_items, end = t.train.first + t.train.n;
    h->form = t.form;
    // Judged, unless told: the longer run of items on one side of those that plans are chosen on.
    h->first = n - end >= t.train.first ? end : 0;
    h->n_items = h->first ? n - end : t.train.first;
    rc = kv_opt_items(h->c, "items", n, &h->first, &h->n_items, e);
    if (rc == 0 && h->n_items == 0)
        rc = kv_fail(e, KV_EUSAGE, "--train", "no items are left to judge plans on");
    if (rc == 0 && t.train.first < h->first + h->n_items && h->first < end)
        rc = kv_fail(e, KV_EUSAGE, "--train",
                     "items %zu-%zu, which plans are chosen on, overlap items %zu-%zu, which they "
                     "are judged on; --items sets those",
                     t.train.first, end - 1, h->first, h->first + h->n_items - 1);
    for (size_t b = 0; b < h->n_budgets && rc == 0; b++) rc = choose(h, &t, b, e);
    kv_tuning_close(&t);
    return rc;
}

// ---- running --------------------------------------------------------------------------

// One fidelity of all that it answers for, into the store; what that holds is not run again.
static int run(struct headroom *h, bool exact, struct kv_error *e) {
    struct kv_cli own = *h->c;
    struct kv_replaying r;
    own.n_args = 1;
    own.args = kv_alloc(h->n + 1, sizeof *own.args);
    own.args[0] = h->c->args[0];
    for (size_t i = 0; i < h->n; i++)
        if (exact || !families[h->at[i].family].again) own.args[own.n_args++] = h->at[i].text;
    int rc = kv_replaying_open(&r, &own, e);
    free(own.args);
    if (rc) return rc;
    r.form = h->form;
    r.exact = exact;
    r.fisher = !exact;
    r.first_item = h->first;
    r.n_items = h->n_items;
    kv_say("%s %zu specs over %zu items into %s", exact ? "running" : "predicting", r.n_specs,
           r.n_items, kv_opt(h->c, "db"));
    rc = kv_replaying_run(&r, h->c, kv_opt(h->c, "db"), NULL, NULL, e);
    const struct kv_trace_info *in = kv_trace_info(r.trace);
    struct kv_format_setting setting = {in->shape, in->order};
    for (size_t i = 0; i < h->n && rc == 0 && exact; i++)
        rc = kv_spec_canonical(h->at[i].text, &setting, &h->at[i].canonical, e);
    if (exact) {
        snprintf(h->digest, sizeof h->digest, "%s", in->digest);
        h->subtitle = kv_format_text("%s, %s, %s, %zu items not chosen on", h->format,
                                     in->model_name, in->task_name, r.n_items);
    }
    kv_replaying_close(&r);
    return rc;
}

// ---- reading back ---------------------------------------------------------------------

static int read_entry(const struct headroom *h, struct entry *x, struct kv_store *s,
                      const struct kv_summary *row, struct kv_error *e) {
    struct kv_item_result *items;
    size_t n, kept = 0;
    int rc = kv_store_items(s, row->family, &items, &n, e);
    if (rc) return rc;
    bool exact = strcmp(row->fidelity, "exact") == 0;
    double *kl = kv_alloc(n + 1, sizeof *kl), *weight = kv_alloc(n + 1, sizeof *weight), right = 0,
           agree = 0;
    for (size_t i = 0; i < n; i++) {
        if (items[i].item < h->first || items[i].item >= h->first + h->n_items) continue;
        kl[kept] = items[i].kl_nats;
        weight[kept++] = items[i].n_scored;
        right += items[i].right[KV_ACC];
        agree += items[i].agree;
    }
    struct kv_mean mean = kv_ratio_interval(kl, weight, kept, 0.95);
    if (exact) {
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

static int read_back(struct headroom *h, struct kv_error *e) {
    struct kv_store *s;
    struct kv_summary *rows = NULL;
    size_t n = 0;
    char *variant = kv_format_text("form=%s", kv_cell_table_kinds[h->form]);
    int rc = kv_store_open(&s, kv_opt(h->c, "db"), KV_STORE_READ, e);
    if (rc == 0) rc = kv_store_summaries(s, &(struct kv_store_filter){0}, &rows, &n, e);
    for (size_t i = 0; i < h->n * n && rc == 0; i++) {
        struct entry *x = &h->at[i / n];
        const struct kv_summary *row = &rows[i % n];
        if (strcmp(row->spec, x->canonical) == 0 && strcmp(row->trace_digest, h->digest) == 0 &&
            strcmp(row->mode, "inline") == 0 && row->seed == h->c->seed &&
            (!*row->variant || strcmp(row->variant, variant) == 0))
            rc = read_entry(h, x, s, row, e);
    }
    free(variant);
    kv_summaries_free(rows, n);
    kv_store_abandon(s);
    return rc;
}

// ---- saying it ------------------------------------------------------------------------

static int print(const struct headroom *h, struct kv_error *e) {
    static const struct kv_column columns[] = {
        {"bits_of_uniform", KV_RIGHT}, {"widths_by", KV_LEFT},     {"n", KV_RIGHT},
        {"allocated_bits", KV_RIGHT},  {"kl_nats", KV_RIGHT},      {"kl_error", KV_RIGHT},
        {"of_uniform", KV_RIGHT},      {"kl_predicted", KV_RIGHT}, {"acc", KV_RIGHT},
        {"agree16", KV_RIGHT},         {"spec", KV_LEFT}};
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    double uniform = NAN;
    for (size_t i = 0; i < h->n; i++) {
        const struct entry *x = &h->at[i];
        if (x->family == 0) uniform = x->exact.mean;
        kv_table_number(t, h->budget[x->budget], -1);
        kv_table_text(t, families[x->family].name);
        kv_table_count(t, (long long)x->n);
        kv_table_number(t, x->bits, 3);
        kv_table_number(t, x->exact.mean, 5);
        kv_table_number(t, x->exact.standard_error, 5);
        kv_table_number(t, x->exact.mean / uniform, 3);
        kv_table_number(t, x->predicted, 5);
        kv_table_number(t, x->right, 4);
        kv_table_number(t, x->agree, 4);
        kv_table_text(t, x->text);
    }
    return kv_table_print(t, h->c->output, e);
}

static int draw(const struct headroom *h, const char *dir, struct kv_error *e) {
    struct kv_text t = {0}, set = {0};
    kv_text_addf(&t, "budget\tplace\tkl\tlow\thigh\tpredicted\tnull\tname\n");
    for (size_t i = 0; i < h->n; i++) {
        const struct entry *x = &h->at[i];
        kv_text_addf(&t, "%zu\t%zu\t%g\t%g\t%g\t%g\t%d\t%s\n", x->budget, N_FAMILIES - x->family,
                     x->exact.mean, x->exact.interval.low, x->exact.interval.high, x->predicted,
                     families[x->family].null, families[x->family].name);
    }
    kv_text_addf(&set,
                 "name = \"headroom\"\ncanvas_x = 1000\ncanvas_y = 620\ndata = "
                 "\"headroom.tsv\"\nbudgets = %zu\nfamilies = %d\narray bits[%zu]\n",
                 h->n_budgets, N_FAMILIES, h->n_budgets);
    for (size_t b = 0; b < h->n_budgets; b++)
        kv_text_addf(&set, "bits[%zu] = \"uniform %g bits\"\n", b + 1, h->budget[b]);
    char *subtitle = kv_gnuplot_text(h->subtitle);
    kv_text_addf(&set, "subtitle_text = \"%s\"\n", subtitle);
    free(subtitle);
    char *settings = kv_text_take(&set), *tsv = kv_text_take(&t);
    struct kv_gnuplot g = {
        .name = "headroom", .file = "headroom", .dir = dir, .settings = settings, .data = tsv};
    int rc = kv_make_dir(dir, e);
    if (rc == 0) rc = kv_gnuplot_draw(&g, NULL, e);
    if (rc == 0) kv_say("drawn: %s/headroom.svg", dir);
    free(settings);
    free(tsv);
    return rc;
}

// ---- command --------------------------------------------------------------------------

static int headroom(struct kv_cli *c, struct kv_error *e) {
    struct headroom h = {.c = c, .format = kv_opt(c, "format")};
    int rc = kv_opt_numbers(c, "widths", 1, 16, h.width, KV_MAX_WIDTHS, &h.n_widths, e);
    if (rc == 0) rc = kv_opt_numbers(c, "bits", 1, 16, h.budget, MAX_BUDGETS, &h.n_budgets, e);
    h.widths = kv_numbers_in_spec(h.width, h.n_widths);
    if (rc == 0) rc = kv_opt_int(c, "rounds", 1, 16, &h.rounds, e);
    if (rc == 0) rc = choose_all(&h, e);
    if (rc == 0) rc = run(&h, false, e);
    if (rc == 0) rc = run(&h, true, e);
    if (rc == 0) rc = read_back(&h, e);
    if (rc == 0) rc = print(&h, e);
    if (rc == 0 && kv_opt(c, "out")) rc = draw(&h, kv_opt(c, "out"), e);
    for (size_t i = 0; i < h.n; i++) {
        free(h.at[i].text);
        free(h.at[i].canonical);
    }
    free(h.widths);
    free(h.subtitle);
    return rc;
}

static const struct kv_option options[] = {
    {"model", 'm', "MODEL", NULL, "the trace's model (default: as in replay)"},
    KV_COMPUTE_OPTION,
    {"format", 'f', "FORMAT", "asym:group=32", "the format of all plans"},
    {"bits", 'b', "LIST", "3,4,5",
     "budgets: the allocated bits of uniform storage at these widths"},
    {"widths", 0, "LIST", "2,3,4,5,6,8", "widths that plans may use"},
    {"rounds", 0, "R", "1",
     "above 1, oracles also measure damage again at their own allocation, so often"},
    {"form", 0, "FORM", NULL, "of damage: iso, element, vector (default: element, else iso)"},
    {"train", 0, "A-B", NULL, "items that plans are chosen on (default: the first half)"},
    {"items", 0, "A-B", NULL, "items that all is run on (default: the others)"},
    {"db", 0, "FILE", "kvsim.db", "store of results: what it holds is not run again"},
    {"out", 'o', "DIR", NULL, "also draws the figure there"},
    {0}};

const struct kv_command kv_cmd_headroom = {
    .name = "headroom",
    .summary = "shows what each freedom to choose widths is worth at equal bits",
    .usage = "TRACE",
    .example = "kvsim headroom work/samples.trace --bits 4 --train 0-11 --items 12-23 --db "
               "work/headroom.db",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = headroom};
