// SPDX-License-Identifier: Apache-2.0
// Prices, forecasts and exact plans on aggregated damage tables.
#include "analysis/studies/plan.h"

#include <stdlib.h>

#include "analysis/stats/stats.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/cli/opening.h"

// ---- prices ---------------------------------------------------------------------------

static double values_per_token(const struct kv_shape *s) {
    return (double)kv_cells(s) * s->head_dim;
}

// A step when all keys are held at one width and all values at another.
static double step_ms(const struct kv_tuning *t, const struct kv_format *f, size_t k, size_t v) {
    struct kv_ledger l = {.entropy_bits = NAN};
    size_t width[2] = {k, v};
    double bits = 0;
    for (int side = 0; side < 2; side++) {
        struct kv_unit_size u = kv_format_size(f, (enum kv_side)side, (uint32_t)width[side]);
        l.share[side][f->width_bits[width[side]]] = 1;
        bits += 0.5 * 8 * (double)u.bytes / (double)u.values;
    }
    l.nominal_bits = l.effective_bits = l.allocated_bits = bits;
    l.bytes_per_token = bits * values_per_token(&f->setting.shape) / 8;
    return kv_device_step(t->budget.device, &l, t->budget.context, 0).step_ns * 1e-6;
}

static void set_prices(const struct kv_tuning *t, struct kv_ground *g) {
    const struct kv_format *f = g->format;
    double values = values_per_token(&f->setting.shape), least[2] = {0, 0};
    bool ms = t->budget.unit == KV_BUDGET_MS;
    double scale = t->budget.unit == KV_BUDGET_BYTES ? values / 8 : 1;
    for (size_t w = 0; w < f->n_widths; w++)
        for (int side = 0; side < 2; side++) {
            struct kv_unit_size u = kv_format_size(f, (enum kv_side)side, (uint32_t)w);
            double bits = 8 * (double)u.bytes / (double)u.values;
            g->price[side][w] = ms     ? step_ms(t, f, side ? 0 : w, side ? w : 0)
                                : side ? 0.5 * bits * scale
                                       : 0.5 * bits * scale;
            if (ms) g->price[side][w] -= step_ms(t, f, 0, 0);
            least[side] = fmin(least[side], g->price[side][w]);
        }
    // A dearer width may cost less time than the cheapest: prices stay positive for the knapsack.
    g->fixed = ms ? step_ms(t, f, 0, 0) + least[0] + least[1] : 0;
    for (size_t w = 0; w < f->n_widths; w++)
        for (int side = 0; side < 2; side++) g->price[side][w] -= least[side];
    g->per_tag_bit = ms ? 0 : t->budget.unit == KV_BUDGET_BYTES ? 1.0 / 8 : 1 / values;
}

int kv_tuning_ground(struct kv_tuning *t, const char *format, struct kv_ground **out,
                     struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(t->trace);
    struct kv_format_setting setting = {in->shape, in->order};
    struct kv_ground g = {0};
    int rc = kv_format_open(&g.format, format, &setting, e);
    if (rc) return rc;
    for (size_t i = 0; i < t->n_ground; i++)
        if (strcmp(t->ground[i].format->canonical, g.format->canonical) == 0) {
            kv_format_close(g.format);
            *out = &t->ground[i];
            return 0;
        }
    rc = kv_cell_table_open(&g.table, t->trace, g.format, t->form, t->jobs, e);
    if (rc) {
        kv_format_close(g.format);
        return rc;
    }
    g.format_text = kv_strdup(format);
    g.sums = kv_cell_table_sums_new(t->trace, g.table, g.format->n_widths);
    set_prices(t, &g);
    t->ground = kv_grow(t->ground, t->n_ground + 1, sizeof *t->ground);
    t->ground[t->n_ground] = g;
    *out = &t->ground[t->n_ground++];
    return 0;
}

// ---- forecasts ------------------------------------------------------------------------

struct forecasting {
    struct kv_tuning *t;
    const struct kv_replay_spec *spec;
    const struct kv_ground *ground;
    struct kv_replay job;
    size_t first;
    double *damage, *scored, *cost; // by item
};

// Shares of an item's cached values at each width, K and V apart: context tokens once, choices
// averaged.
static double item_cost(const struct forecasting *f, const struct kv_trace_item *it,
                        const uint8_t *cells) {
    size_t n_cells = kv_cells(&f->spec->run.shape), n_widths = f->spec->run.n_widths;
    bool by_token = f->spec->varies & KV_VARIES_TOKEN,
         by_cell = f->spec->varies & (KV_VARIES_LAYER | KV_VARIES_HEAD);
    double cost = 0, tokens = 0, weight_choice = it->n_choices ? 1.0 / it->n_choices : 1;
    size_t rows = by_token ? it->n_tokens : 1, step = by_cell ? n_cells : 2;
    for (size_t row = 0; row < rows; row++) {
        double weight = row < it->n_context || !it->n_choices ? 1 : weight_choice, sum = 0;
        const uint8_t *own = cells + row * n_cells;
        for (size_t c = 0; c < step; c++)
            if (own[c] < n_widths) sum += f->ground->price[c & 1][own[c]];
        cost += weight * sum * 2 / (double)step;
        tokens += weight;
    }
    return f->ground->fixed + cost / tokens +
           f->ground->per_tag_bit *
               kv_tag_bits(&f->spec->run.shape, f->spec->varies, f->spec->options);
}

static int forecast_item(void *self, unsigned worker, size_t index, struct kv_error *e) {
    struct forecasting *f = self;
    size_t i = f->first + index;
    const struct kv_trace_item *it = kv_trace_item(f->t->trace, i);
    uint8_t *cells = malloc(it->n_tokens * kv_cells(&f->spec->run.shape));
    (void)worker;
    if (!cells) return kv_fail(e, KV_ENOMEM, "tune", "out of memory");
    int rc = kv_decide(&f->job, 0, i, cells, e);
    if (rc == 0) {
        f->damage[index] = kv_sums_damage(f->ground->sums, i, f->spec->varies, cells);
        f->scored[index] = kv_fisher_scored(kv_trace_info(f->t->trace), it);
        f->cost[index] = item_cost(f, it, cells);
    }
    free(cells);
    return rc;
}

int kv_tuning_forecast(struct kv_tuning *t, const struct kv_replay_spec *spec,
                       const struct kv_item_range *items, struct kv_forecast *out,
                       struct kv_error *e) {
    struct forecasting f = {.t = t, .spec = spec, .first = items->first};
    struct kv_ground *g;
    int rc = kv_tuning_ground(t, spec->format_text, &g, e);
    if (rc) return rc;
    f.ground = g;
    f.job = (struct kv_replay){.trace = t->trace, .specs = spec, .n_specs = 1, .seed = t->seed};
    if (spec->needs & KV_NEED_QUANTILES && !t->quantiles) {
        rc = kv_replay_open_tables(&f.job, t->form, t->jobs, e);
        t->quantiles = f.job.quantiles;
        f.job.quantiles = NULL;
        kv_replay_close_tables(&f.job);
    }
    if (rc == 0) rc = kv_replay_fit(&f.job, t->jobs, e);
    struct kv_cell_table *damage[1] = {g->table};
    f.job.quantiles = t->quantiles;
    f.job.damage = damage;
    f.damage = kv_alloc(3 * items->n, sizeof(double));
    f.scored = f.damage + items->n;
    f.cost = f.scored + items->n;
    if (rc == 0) rc = kv_parallel(items->n, t->jobs, forecast_item, &f, e);
    double sum = 0, scored = 0;
    out->cost = 0;
    for (size_t i = 0; i < items->n && rc == 0; i++) {
        sum += f.damage[i];
        scored += f.scored[i];
        out->cost += f.cost[i] / (double)items->n;
    }
    out->kl_nats = sum / scored;
    free(f.damage);
    return rc;
}

// ---- separable families ---------------------------------------------------------------

static size_t count_groups(const struct kv_shape *s, enum kv_family family) {
    const size_t n[] = {2, 2 * (size_t)s->n_layers, kv_cells(s), 2 * KV_N_KINDS};
    return n[family];
}

static size_t group_of(const struct kv_shape *s, enum kv_family family, uint32_t kind, size_t c) {
    size_t side = c & 1;
    const size_t at[] = {side, c / (2 * (size_t)s->n_kv_heads) * 2 + side, c, 2 * kind + side};
    return at[family];
}

// Adds an item's damage of each group at each width, and the group's share of its side. Returns how
// many tokens are scored.
static double add_item(const struct kv_tuning *t, const struct kv_ground *g, enum kv_family family,
                       size_t i, double *loss, double *share) {
    const struct kv_shape *s = &g->format->setting.shape;
    const struct kv_trace_item *it = kv_trace_item(t->trace, i);
    size_t n_cells = kv_cells(s), n_widths = g->format->n_widths;
    if (family == KV_FAMILY_CLASS) {
        const float *entry = kv_sums_tokens(g->sums, i);
        double tokens = 0, choice = it->n_choices ? 1.0 / it->n_choices : 1;
        for (size_t row = 0; row < it->n_tokens; row++)
            tokens += row < it->n_context || !it->n_choices ? 1 : choice;
        for (size_t row = 0; row < it->n_tokens; row++)
            for (size_t side = 0; side < 2; side++) {
                size_t at = group_of(s, family, it->kinds[row], side);
                share[at] += (row < it->n_context || !it->n_choices ? 1 : choice) / tokens /
                             (double)t->train.n;
                for (size_t w = 0; w < n_widths; w++)
                    loss[at * n_widths + w] += (double)entry[2 * (row * n_widths + w) + side];
            }
    } else {
        const double *entry = kv_sums_item(g->sums, i);
        for (size_t c = 0; c < n_cells; c++) {
            size_t at = group_of(s, family, 0, c);
            share[at] += 2.0 / (double)n_cells / (double)t->train.n;
            for (size_t w = 0; w < n_widths; w++) loss[at * n_widths + w] += entry[w * n_cells + c];
        }
    }
    return kv_fisher_scored(kv_trace_info(t->trace), it);
}

// Damage of each group at each width over the train items, nats a scored token.
static void aggregate(const struct kv_tuning *t, const struct kv_ground *g, enum kv_family family,
                      double *loss, double *share) {
    size_t n = count_groups(&g->format->setting.shape, family) * g->format->n_widths,
           parts = t->robust ? KV_MEAN_PARTS : 1;
    double *part = kv_alloc(parts * n, sizeof *part), scored[KV_MEAN_PARTS] = {0};
    for (size_t i = 0; i < t->train.n; i++)
        scored[i % parts] +=
            add_item(t, g, family, t->train.first + i, part + i % parts * n, share);
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
    kv_text_addf(&t, "%s%s", heads[p->family], p->family == KV_FAMILY_HEAD ? "" : ":");
    if (p->family == KV_FAMILY_CLASS)
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

void kv_plan_fini(struct kv_plan *p) {
    void *blocks[] = {p->format, p->loss, p->cost, p->choice};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
    *p = (struct kv_plan){0};
}

static bool offered(const double *widths, size_t n, double bits) {
    for (size_t i = 0; i < n; i++)
        if (widths[i] == bits) return true;
    return n == 0;
}

enum { MAX_STATES = 1 << 20 };

int kv_tuning_plan(struct kv_tuning *t, enum kv_family family, const char *format,
                   const double *widths, size_t n_offered, struct kv_plan *out,
                   struct kv_error *e) {
    struct kv_ground *g;
    *out = (struct kv_plan){0};
    int rc = kv_tuning_ground(t, format, &g, e);
    if (rc) return rc;
    size_t n = count_groups(&g->format->setting.shape, family), w = g->format->n_widths;
    double *share = kv_alloc(n, sizeof *share);
    *out = (struct kv_plan){.family = family,
                            .format = kv_strdup(format),
                            .n_groups = n,
                            .n_options = w,
                            .loss = kv_alloc(n * w, sizeof *out->loss),
                            .cost = kv_alloc(n * w, sizeof *out->cost),
                            .budget = (t->budget.limit - g->fixed) * (1 + 1e-9),
                            .choice = kv_alloc(n, 1)};
    memcpy(out->width_bits, g->format->width_bits, w);
    aggregate(t, g, family, out->loss, share);
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
    rc = kv_fail(e, KV_EFAIL, "--budget", "%g is below the cheapest plan of %s, which takes %g",
                 t->budget.limit, format, out->result.cost + g->fixed);
    kv_plan_fini(out);
    return rc;
}

// ---- exact replay ---------------------------------------------------------------------

enum kv_mode kv_tuning_mode(const struct kv_tuning *t) {
    const char *recorded = kv_trace_info(t->trace)->adjoint.mode;
    enum kv_mode mode = KV_INLINE;
    while (mode < KV_PREFILL1 && strcmp(kv_mode_names[mode], recorded) != 0) mode++;
    return mode;
}

int kv_tuning_replay(const struct kv_tuning *t, const struct kv_model *m,
                     const struct kv_replay_spec *specs, size_t n_specs,
                     const struct kv_item_range *items, bool quiet,
                     int (*take)(void *, size_t, size_t, const struct kv_outcome *,
                                 struct kv_error *),
                     void *self, struct kv_error *e) {
    struct kv_replay job = {.trace = t->trace,
                            .model = m,
                            .specs = specs,
                            .n_specs = n_specs,
                            .mode = kv_tuning_mode(t),
                            .quiet = quiet,
                            .self_exact =
                                strcmp(kv_trace_info(t->trace)->adjoint.self, "exact") == 0,
                            .seed = t->seed,
                            .first_item = items->first,
                            .n_items = items->n,
                            .take = take,
                            .self = self};
    int rc = kv_replay_open_tables(&job, t->form, t->jobs, e);
    if (rc == 0) rc = kv_replay_exact(&job, t->jobs, e);
    kv_replay_close_tables(&job);
    return rc;
}

int kv_tuning_kvtuner(struct kv_tuning *t, const char *format, char **out, char **how,
                      struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(t->trace);
    struct kv_format_setting setting = {in->shape, in->order};
    struct kv_replay_spec spec = {0};
    size_t n_cells = kv_cells(&in->shape), n_layers = in->shape.n_layers;
    if (t->budget.unit != KV_BUDGET_BITS)
        return kv_fail(e, KV_EUSAGE, "--budget", "kvtuner takes a budget of bits");
    if (t->train.first != 0)
        return kv_fail(e, KV_EUSAGE, "--train",
                       "kvtuner calibrates on the trace's first items, so A-B must begin at 0");
    char *text =
        kv_format_text("kvtuner:bits=%.9g,items=%zu@%s", t->budget.limit, t->train.n, format);
    uint8_t *cells = kv_alloc(kv_trace_item(t->trace, 0)->n_tokens, n_cells),
            *choice = kv_alloc(2 * n_layers, 1);
    struct kv_replay job = {.trace = t->trace, .specs = &spec, .n_specs = 1, .seed = t->seed};
    int rc = kv_replay_spec_open(&spec, text, &setting, t->seed, e);
    if (rc == 0) rc = kv_replay_fit(&job, t->jobs, e);
    if (rc == 0) rc = kv_decide(&job, 0, 0, cells, e);
    for (size_t i = 0; i < 2 * n_layers && rc == 0; i++)
        choice[i] = cells[i / 2 * (n_cells / n_layers) + (i & 1)];
    if (rc == 0) {
        struct kv_plan plan = {
            .family = KV_FAMILY_LAYER, .format = (char *)format, .n_groups = 2 * n_layers};
        memcpy(plan.width_bits, spec.run.width_bits, sizeof plan.width_bits);
        *out = kv_plan_text(&plan, choice);
        *how = kv_format_text("kvtuner on %zu items", t->train.n);
    }
    kv_replay_spec_close(&spec);
    free(cells);
    free(choice);
    free(text);
    return rc;
}

// ---- opening --------------------------------------------------------------------------

int kv_tuning_budget(struct kv_tuning *t, struct kv_cli *c, struct kv_error *e) {
    static const struct {
        const char *key;
        int unit;
    } units[] = {{"bits=", KV_BUDGET_BITS}, {"bytes=", KV_BUDGET_BYTES}, {"ms=", KV_BUDGET_MS}};
    const char *text = kv_opt(c, "budget");
    char *end = NULL;
    t->budget.limit = NAN;
    for (size_t i = 0; i < 3; i++)
        if (strncmp(text, units[i].key, strlen(units[i].key)) == 0) {
            t->budget.unit = units[i].unit;
            t->budget.limit = strtod(text + strlen(units[i].key), &end);
        }
    bool device = end && *end == '@' && end[1] && t->budget.unit == KV_BUDGET_MS;
    if (!(t->budget.limit > 0) || (device ? 0 : !end || *end || t->budget.unit == KV_BUDGET_MS))
        return kv_fail(e, KV_EUSAGE, "--budget",
                       "%s: bits=N (allocated, a value), bytes=N (a token) or ms=X@DEVICE is "
                       "expected",
                       text);
    int rc = kv_opt_float(c, "context", 1, 1e9, &t->budget.context, e);
    if (rc == 0 && device) rc = kv_device_open(&t->budget.device, end + 1, e);
    return rc;
}

int kv_tuning_open(struct kv_tuning *t, struct kv_cli *c, struct kv_error *e) {
    *t = (struct kv_tuning){.jobs = c->jobs, .seed = c->seed};
    int rc = kv_trace_open(&t->trace, c->args[0], e);
    if (rc) return rc;
    const struct kv_trace_info *in = kv_trace_info(t->trace);
    const char *form = kv_opt(c, "form");
    t->form = in->keep & KV_KEEP_GRAD ? KV_TABLE_ELEMENT : KV_TABLE_ISO;
    for (int k = KV_TABLE_ISO; form && k <= KV_TABLE_VECTOR + 1; k++) {
        if (k > KV_TABLE_VECTOR)
            rc = kv_fail(e, KV_EUSAGE, "--form", "%s: iso, element or vector is expected", form);
        else if (strcmp(kv_cell_table_kinds[k], form) == 0) {
            t->form = (enum kv_cell_table_kind)k;
            break;
        }
    }
    const char *mean = kv_opt(c, "mean");
    t->robust = mean && strcmp(mean, "robust") == 0;
    if (rc == 0 && mean && !t->robust && strcmp(mean, "plain") != 0)
        rc = kv_fail(e, KV_EUSAGE, "--mean", "%s: plain or robust is expected", mean);
    t->train = (struct kv_item_range){0, (in->n_items + 1) / 2};
    t->test = (struct kv_item_range){t->train.n % in->n_items,
                                     in->n_items > 1 ? in->n_items - t->train.n : 1};
    if (rc == 0) rc = kv_opt_items(c, "train", in->n_items, &t->train.first, &t->train.n, e);
    if (rc == 0) rc = kv_opt_items(c, "items", in->n_items, &t->test.first, &t->test.n, e);
    if (rc == 0 && t->robust && t->train.n < 2 * KV_MEAN_PARTS)
        rc = kv_fail(e, KV_EUSAGE, "--mean", "robust needs %d train items, and there are %zu",
                     2 * KV_MEAN_PARTS, t->train.n);
    if (rc) kv_tuning_close(t);
    return rc;
}

void kv_tuning_close(struct kv_tuning *t) {
    for (size_t i = 0; i < t->n_ground; i++) {
        kv_cell_table_sums_free(t->ground[i].sums);
        kv_cell_table_close(t->ground[i].table);
        kv_format_close(t->ground[i].format);
        free(t->ground[i].format_text);
    }
    free(t->ground);
    free(t->quantiles);
    kv_device_free(t->budget.device);
    kv_trace_close(t->trace);
    *t = (struct kv_tuning){0};
}
