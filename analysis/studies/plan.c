// SPDX-License-Identifier: Apache-2.0
// The best plans of separable families, by a knapsack over groups; and KVTuner's.
#include "analysis/studies/plan.h"

#include <stdlib.h>

#include "analysis/stats/stats.h"
#include "sim/base/memory.h"

// ---- groups ---------------------------------------------------------------------------

static size_t count_groups(const struct kv_shape *s, enum kv_plan_family family) {
    const size_t n[] = {2, 2 * (size_t)s->n_layers, kv_cells(s), 2 * KV_N_KINDS};
    return n[family];
}

static size_t group_of(const struct kv_shape *s, enum kv_plan_family family, uint32_t kind,
                       size_t c) {
    size_t side = c & 1;
    const size_t at[] = {side, c / (2 * (size_t)s->n_kv_heads) * 2 + side, c, 2 * kind + side};
    return at[family];
}

// Adds an item's damage of each group at each width, and the group's share of its side. Returns how
// many tokens are scored.
static double add_item(const struct kv_planner *p, const struct kv_ground *g,
                       enum kv_plan_family family, size_t i, double *loss, double *share) {
    const struct kv_shape *s = &g->format->setting.shape;
    const struct kv_trace_item *it = kv_trace_item(p->trace, i);
    size_t n_cells = kv_cells(s), n_widths = g->format->n_widths;
    if (family == KV_PLAN_CLASS) {
        const float *entry = kv_sums_tokens(g->sums, i);
        double tokens = 0, choice = it->n_choices ? 1.0 / it->n_choices : 1;
        for (size_t row = 0; row < it->n_tokens; row++)
            tokens += row < it->n_context || !it->n_choices ? 1 : choice;
        for (size_t row = 0; row < it->n_tokens; row++)
            for (size_t side = 0; side < 2; side++) {
                size_t at = group_of(s, family, it->kinds[row], side);
                share[at] += (row < it->n_context || !it->n_choices ? 1 : choice) / tokens /
                             (double)p->train.n;
                for (size_t w = 0; w < n_widths; w++)
                    loss[at * n_widths + w] += (double)entry[2 * (row * n_widths + w) + side];
            }
    } else {
        const double *entry = kv_sums_item(g->sums, i);
        for (size_t c = 0; c < n_cells; c++) {
            size_t at = group_of(s, family, 0, c);
            share[at] += 2.0 / (double)n_cells / (double)p->train.n;
            for (size_t w = 0; w < n_widths; w++) loss[at * n_widths + w] += entry[w * n_cells + c];
        }
    }
    return kv_fisher_scored(kv_trace_info(p->trace), it);
}

// Damage of each group at each width over the train items, nats a scored token.
static void aggregate(const struct kv_planner *p, const struct kv_ground *g,
                      enum kv_plan_family family, double *loss, double *share) {
    size_t n = count_groups(&g->format->setting.shape, family) * g->format->n_widths,
           parts = p->mean == KV_MEAN_ROBUST ? KV_MEAN_PARTS : 1;
    double *part = kv_alloc(parts * n, sizeof *part), scored[KV_MEAN_PARTS] = {0};
    for (size_t i = 0; i < p->train.n; i++)
        scored[i % parts] +=
            add_item(p, g, family, p->train.first + i, part + i % parts * n, share);
    for (size_t k = 0; k < n; k++) loss[k] = kv_median_of_means(part + k, n, scored, parts);
    free(part);
}

static void add_list(struct kv_text *t, const char *key, const uint8_t *bits, size_t n,
                     size_t stride) {
    kv_text_addf(t, "%s=", key);
    for (size_t i = 0; i < n; i++) kv_text_addf(t, "%s%u", i ? "/" : "", bits[i * stride]);
}

char *kv_plan_text(const struct kv_plan *p, const uint8_t *choice) {
    static const char *const kinds[KV_N_KINDS] = {"word",        "rest",  "digit",
                                                  "punctuation", "space", "first"};
    static const char *const heads[] = {"static", "layerwise", "layerwise:by=head,", "class"};
    struct kv_text t = {0};
    uint8_t *bits = kv_alloc(p->n_groups, 1);
    for (size_t i = 0; i < p->n_groups; i++) bits[i] = p->width_bits[choice[i]];
    kv_text_addf(&t, "%s%s", heads[p->family], p->family == KV_PLAN_HEAD ? "" : ":");
    if (p->family == KV_PLAN_CLASS)
        for (size_t k = 0; k < KV_N_KINDS; k++) {
            if (k) kv_text_add(&t, ",", 1);
            add_list(&t, kinds[k], bits + 2 * k, 2, 1);
        }
    else {
        add_list(&t, "k", bits, p->n_groups / 2, 2);
        kv_text_add(&t, ",", 1);
        add_list(&t, "v", bits + 1, p->n_groups / 2, 2);
    }
    kv_text_addf(&t, "@%s", p->format);
    free(bits);
    return kv_text_take(&t);
}

// ---- finding --------------------------------------------------------------------------

void kv_plan_fini(struct kv_plan *p) {
    void *blocks[] = {p->format, p->loss, p->cost, p->choice};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
    *p = (struct kv_plan){0};
}

static bool offered(const uint32_t *widths, size_t n, uint8_t bits) {
    for (size_t i = 0; i < n; i++)
        if (widths[i] == bits) return true;
    return n == 0;
}

enum { MAX_STATES = 1 << 20 };

int kv_plan_find(struct kv_plan *out, struct kv_planner *p, enum kv_plan_family family,
                 const char *format, const uint32_t *widths, size_t n_offered, struct kv_error *e) {
    struct kv_ground *g;
    *out = (struct kv_plan){0};
    int rc = kv_planner_ground(p, format, &g, e);
    if (rc) return rc;
    size_t n = count_groups(&g->format->setting.shape, family), w = g->format->n_widths;
    double *share = kv_alloc(n, sizeof *share);
    *out = (struct kv_plan){.family = family,
                            .format = kv_strdup(format),
                            .n_groups = n,
                            .n_options = w,
                            .loss = kv_alloc(n * w, sizeof *out->loss),
                            .cost = kv_alloc(n * w, sizeof *out->cost),
                            .budget = (p->limit - g->fixed) * (1 + 1e-9),
                            .choice = kv_alloc(n, 1)};
    memcpy(out->width_bits, g->format->width_bits, w);
    aggregate(p, g, family, out->loss, share);
    for (size_t i = 0; i < n * w; i++) {
        out->cost[i] = share[i / w] * g->price[i / w & 1][i % w];
        if (!offered(widths, n_offered, g->format->width_bits[i % w])) out->loss[i] = INFINITY;
    }
    struct kv_knapsack k = {.n_groups = n,
                            .n_options = w,
                            .cost = out->cost,
                            .loss = out->loss,
                            .budget = out->budget,
                            .max_states = MAX_STATES};
    free(share);
    if (kv_knapsack_solve(&k, out->choice, &out->result)) return 0;
    rc = kv_fail(e, KV_EFAIL, "budget", "%g is below the cheapest plan of %s, which takes %g",
                 p->limit, format, out->result.cost + g->fixed);
    kv_plan_fini(out);
    return rc;
}

// ---- KVTuner --------------------------------------------------------------------------

int kv_plan_kvtuner(struct kv_planner *p, const char *format, char **out, char **how,
                    struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(p->trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    struct kv_replay_spec spec = {0};
    size_t n_cells = kv_cells(&in->shape), n_layers = in->shape.n_layers;
    if (p->unit != KV_BUDGET_BITS)
        return kv_fail(e, KV_EUSAGE, "budget", "kvtuner takes a budget of bits");
    if (p->train.first != 0)
        return kv_fail(e, KV_EUSAGE, "train",
                       "kvtuner calibrates on the trace's first items, so A-B must begin at 0");
    char *text = kv_format_text("kvtuner:bits=%.9g,items=%zu@%s", p->limit, p->train.n, format);
    uint8_t *cells = kv_alloc(kv_trace_item(p->trace, 0)->n_tokens, n_cells),
            *choice = kv_alloc(2 * n_layers, 1);
    struct kv_replay job = {.trace = p->trace, .specs = &spec, .n_specs = 1, .seed = p->seed};
    int rc = kv_replay_spec_open(&spec, text, &setting, p->seed, e);
    if (rc == 0) rc = kv_replay_fit(&job, p->jobs, e);
    if (rc == 0) rc = kv_decide(&job, 0, 0, cells, e);
    for (size_t i = 0; i < 2 * n_layers && rc == 0; i++)
        choice[i] = cells[i / 2 * (n_cells / n_layers) + (i & 1)];
    if (rc == 0) {
        struct kv_plan plan = {
            .family = KV_PLAN_LAYER, .format = (char *)format, .n_groups = 2 * n_layers};
        memcpy(plan.width_bits, spec.run.width_bits, sizeof plan.width_bits);
        *out = kv_plan_text(&plan, choice);
        *how = kv_format_text("kvtuner on %zu items", p->train.n);
    }
    kv_replay_spec_close(&spec);
    free(cells);
    free(choice);
    free(text);
    return rc;
}
