// SPDX-License-Identifier: Apache-2.0
// Trains policy cells and says what each group of features is worth.
#include "analysis/studies/cells.h"

#include <stdlib.h>

#include "analysis/studies/cells_again.h"
#include "analysis/studies/cells_file.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"

enum { DRAW_PERMUTATION = 8002 };

void kv_cells_training_defaults(struct kv_cells_training *o) {
    *o = (struct kv_cells_training){.groups = 1u << KV_CELLS_ATTENTION | 1u << KV_CELLS_PROBE,
                                    .net = 64,
                                    .widths = {2, 3, 4, 5, 6, 8},
                                    .n_widths = 6,
                                    .holdout = 0.1};
    kv_cells_defaults(&o->fit);
}

static int check(const struct kv_cells_training *o, struct kv_error *e) {
    if (!(o->holdout > 0 && o->holdout <= 0.5))
        return kv_fail(e, KV_EUSAGE, "holdout", "a share above 0, up to 0.5, is expected");
    if (o->n_widths < 2 || o->n_widths > KV_MAX_WIDTHS)
        return kv_fail(e, KV_EUSAGE, "widths", "from 2 to %d widths are taken", KV_MAX_WIDTHS);
    for (size_t w = 1; w < o->n_widths; w++)
        if (o->widths[w] <= o->widths[w - 1])
            return kv_fail(e, KV_EUSAGE, "widths", "widths must rise");
    if (o->groups == 0 || o->groups >> KV_CELLS_N_GROUPS)
        return kv_fail(e, KV_EUSAGE, "features", "a group of features is needed");
    int rc = kv_check_output(o->out, e);
    return rc || !o->items_out ? rc : kv_check_output(o->items_out, e);
}

// ---- what a group of features is worth -----------------------------------------------------

// Held-out tokens with one group's features taken from other held-out tokens: every place sees the
// values that it knows, for the wrong tokens.
static void permute(const struct kv_cells_ground *g, uint32_t *from) {
    memcpy(from, g->held, g->n_held * sizeof *from);
    for (size_t i = g->n_held; i-- > 1;) {
        size_t j = (size_t)(kv_draw(g->o->fit.seed, DRAW_PERMUTATION, i) * (double)(i + 1));
        uint32_t swap = from[i];
        from[i] = from[j];
        from[j] = swap;
    }
}

static int ask(const struct kv_cells_ground *g, const struct kv_cells_model *m, uint32_t permuted,
               const uint32_t *from, double *deviance, struct kv_error *e) {
    const struct kv_cells_data d = kv_cells_ground_data(g);
    const struct kv_cells_rows rows = {.n = g->n_held,
                                       .token = g->held,
                                       .split = g->split,
                                       .low = permuted >> KV_CELLS_PAPER & 1 ? from : NULL,
                                       .high = permuted >> KV_CELLS_TOKEN & 1 ? from : NULL,
                                       .attention =
                                           permuted >> KV_CELLS_ATTENTION & 1 ? from : NULL,
                                       .probe = permuted >> KV_CELLS_PROBE & 1 ? from : NULL};
    float *f = kv_alloc(g->n_held * kv_cells_places(&g->of), sizeof *f);
    int rc = kv_cells_predict(m, &d, &rows, g->o->fit.jobs, f, e);
    if (rc == 0) *deviance = kv_cells_deviance(m, &d, &rows, f);
    free(f);
    return rc;
}

static void note(struct kv_cells_trained *r, const char *without, double deviance) {
    struct kv_cells_worth *w = &r->worth[r->n_worth++];
    snprintf(w->asked, sizeof w->asked, "%s", without);
    w->deviance = deviance;
    w->gain = (r->static_deviance - deviance) / (r->static_deviance - r->deviance);
}

static int measure_worth(const struct kv_cells_ground *g, const struct kv_cells_model *m,
                         struct kv_cells_trained *r, struct kv_error *e) {
    const struct kv_cells_data d = kv_cells_ground_data(g);
    const struct kv_cells_rows held = {.n = g->n_held, .token = g->held},
                               learns = {.n = g->n_learns, .token = g->learns};
    r->static_deviance = kv_cells_deviance(m, &d, &held, NULL);
    r->learned_static_deviance = kv_cells_deviance(m, &d, &learns, NULL);
    uint32_t *from = kv_alloc(g->n_held, sizeof *from);
    permute(g, from);
    int rc = ask(g, m, 0, NULL, &r->deviance, e);
    if (rc == 0) note(r, "all", r->deviance);
    for (uint32_t k = KV_CELLS_PLACE + 1; k < KV_CELLS_N_GROUPS && rc == 0; k++) {
        char without[32];
        double deviance;
        if (!(g->o->groups >> k & 1)) continue;
        snprintf(without, sizeof without, "without %s", kv_cells_groups[k]);
        rc = ask(g, m, 1u << k, from, &deviance, e);
        if (rc == 0) note(r, without, deviance);
    }
    if (rc == 0) note(r, "place alone", r->static_deviance);
    free(from);
    return rc;
}

// ---- all of it -----------------------------------------------------------------------------

static void count(const struct kv_cells_ground *g, struct kv_cells_trained *r) {
    r->n_items = g->n_items;
    for (size_t i = 0; i < g->n_items; i++) r->n_held_items += g->items[i].held;
    r->n_learns = g->n_learns;
    r->n_held = g->n_held;
    r->left_out = g->left_out;
}

// Formats whose budgets a file tells beside those of the format that was recorded: sensitivities
// serve any, errors do not.
static const char *const other_formats[] = {"sym", "hadamard(sym)"};
enum { N_OTHERS = sizeof other_formats / sizeof *other_formats };

// Curves of the recorded format and of those others that offer its widths; fills *n.
static int measure_budgets(const struct kv_cells_ground *g, const struct kv_cells_model *m,
                           struct kv_cells_budget *budget, size_t *n, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(g->traces[0]);
    struct kv_format_setting setting = kv_trace_setting(in);
    int rc = kv_cells_budget_measure(g, m, &budget[(*n)++], e);
    for (size_t i = 0; i < N_OTHERS && rc == 0; i++) {
        struct kv_cells_ground other = *g;
        bool offered = kv_format_open(&other.format, other_formats[i], &setting, NULL) == 0;
        for (size_t w = 0; offered && w < g->o->n_widths; w++)
            offered = kv_cells_width(&other, g->o->widths[w], &(size_t){0}, NULL) == 0;
        if (offered && strcmp(other.format->canonical, g->format->canonical) != 0)
            rc = kv_cells_budget_measure(&other, m, &budget[(*n)++], e);
        kv_format_close(other.format);
    }
    return rc;
}

static int train(struct kv_cells_ground *g, struct kv_cells_trained *r, struct kv_error *e) {
    struct kv_cells_budget *budget = kv_alloc(1 + N_OTHERS, sizeof *budget);
    size_t n = 0;
    struct kv_cells_model *m = kv_cells_new(&g->of, g->o->fit.seed);
    const struct kv_cells_data d = kv_cells_ground_data(g);
    int rc = g->again ? kv_cells_again_model(g, m, e)
                      : kv_cells_fit(m, &d, g->learns, g->n_learns, &g->o->fit, e);
    if (rc == 0) rc = measure_worth(g, m, r, e);
    if (rc == 0) rc = measure_budgets(g, m, budget, &n, e);
    if (rc == 0 && g->again) rc = kv_cells_again_budgets(g, budget, n, e);
    if (rc == 0) rc = kv_cells_write(g, m, budget, n, r, e);
    if (rc == 0 && g->o->items_out) rc = kv_cells_write_items(g, g->o->items_out, e);
    while (n) kv_cells_budget_fini(&budget[--n]);
    free(budget);
    kv_cells_free(m);
    return rc;
}

int kv_cells_train(const struct kv_trace *const *traces, size_t n_traces,
                   const struct kv_cells_training *o, struct kv_cells_trained *r,
                   struct kv_error *e) {
    *r = (struct kv_cells_trained){0};
    KV_GUARD(e);
    struct kv_cells_training own = *o;
    struct kv_cells_weights weights = {0};
    struct kv_cells_ground g = {.o = &own, .traces = traces, .n_traces = n_traces};
    int rc = check(o, e);
    if (rc == 0 && o->again && n_traces) {
        rc = kv_cells_again_open(&weights, traces[0], &own, e);
        g.again = &weights;
    }
    if (rc == 0) rc = kv_cells_ground_open(&g, e);
    r->path = kv_strdup(o->out);
    if (rc == 0) count(&g, r);
    if (rc == 0) rc = train(&g, r, e);
    kv_cells_ground_fini(&g);
    kv_cells_weights_close(&weights);
    if (rc) kv_cells_trained_fini(r);
    return rc;
}

void kv_cells_trained_fini(struct kv_cells_trained *r) {
    free(r->path);
    free(r->spec);
    *r = (struct kv_cells_trained){0};
}
