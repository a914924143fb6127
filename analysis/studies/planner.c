// SPDX-License-Identifier: Apache-2.0
// Opens a trace for planning; prices and forecasts on aggregated damage tables.
#include "analysis/studies/planner.h"

#include <stdlib.h>

#include "analysis/stats/stats.h"
#include "sim/base/cache_types.h"
#include "sim/base/memory.h"
#include "sim/quant/centre.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/replay/answers.h"

const char *const kv_train_means[] = {"plain", "robust", NULL};

// ---- opening --------------------------------------------------------------------------

struct kv_planner_options kv_planner_defaults(void) {
    return (struct kv_planner_options){.struct_bytes = sizeof(struct kv_planner_options),
                                       .limit = INFINITY,
                                       .context = 2048,
                                       .jobs = 1,
                                       .seed = 1};
}

int kv_planner_check(const struct kv_planner_options *o, struct kv_error *e) {
    if (o->struct_bytes != sizeof *o)
        return kv_fail(e, KV_EUSAGE, "struct_bytes", "begin with kv_planner_defaults");
    if (!o->trace) return kv_fail(e, KV_EUSAGE, "trace", "a trace folder is needed");
    if (o->form > KV_FORM_CHANNEL)
        return kv_fail(e, KV_EUSAGE, "form", "iso, element, vector or channel is expected");
    if (!(o->limit > 0)) return kv_fail(e, KV_EUSAGE, "budget", "a limit above 0 is expected");
    if (o->unit == KV_BUDGET_MS && !o->device)
        return kv_fail(e, KV_EUSAGE, "budget", "a device is needed, to say what takes how long");
    if (o->jobs == 0) return kv_fail(e, KV_EUSAGE, "jobs", "at least 1 is expected");
    return 0;
}

// Where the options name no items: the first half of the trace, and the others.
static int set_items(struct kv_planner *p, const struct kv_planner_options *o, struct kv_error *e) {
    size_t n = kv_trace_info(p->trace)->n_items, half = (n + 1) / 2;
    p->train = o->train.n ? o->train : (struct kv_item_range){0, half};
    p->test = o->items.n ? o->items : (struct kv_item_range){half % n, n > 1 ? n - half : 1};
    int rc = kv_item_range_check(&p->train, n, "train", e);
    if (rc == 0) rc = kv_item_range_check(&p->test, n, "items", e);
    if (rc == 0 && o->train.n && o->items.n && p->train.first < p->test.first + p->test.n &&
        p->test.first < p->train.first + p->train.n)
        kv_say("warning: plans are chosen on items that also judge them (%zu-%zu and %zu-%zu): "
               "what they "
               "gain looks larger than it is",
               p->train.first, p->train.first + p->train.n - 1, p->test.first,
               p->test.first + p->test.n - 1);
    if (rc == 0 && p->mean == KV_MEAN_ROBUST && p->train.n < 2 * KV_MEAN_PARTS)
        rc = kv_fail(e, KV_EUSAGE, "mean", "robust needs %d train items, and there are %zu",
                     2 * KV_MEAN_PARTS, p->train.n);
    return rc;
}

// What the trace's sensitivities were recorded for.
static void set_recorded(struct kv_planner *p, enum kv_form form) {
    const struct kv_trace_info *in = kv_trace_info(p->trace);
    p->mode = kv_adjoint_mode(in);
    p->self = kv_adjoint_self(in);
    p->table_kind = form == KV_FORM_NONE
                        ? kv_cell_table_best(p->trace)
                        : (enum kv_cell_table_kind)(KV_TABLE_ISO + form - KV_FORM_ISO);
    p->form = (enum kv_form)(KV_FORM_ISO + p->table_kind - KV_TABLE_ISO);
}

int kv_planner_open(struct kv_planner *p, const struct kv_planner_options *o, struct kv_error *e) {
    *p = (struct kv_planner){.mean = o->mean,
                             .unit = o->unit,
                             .limit = o->limit,
                             .context = o->context,
                             .jobs = o->jobs,
                             .seed = o->seed};
    int rc = kv_planner_check(o, e);
    if (rc == 0) rc = kv_trace_open(&p->trace, o->trace, e);
    if (rc) return rc;
    set_recorded(p, o->form);
    rc = set_items(p, o, e);
    if (rc == 0 && o->unit == KV_BUDGET_MS) rc = kv_device_open(&p->device, o->device, e);
    if (rc == 0 && p->device)
        kv_say("ms: a step on %s (%s)", p->device->name, kv_device_error_text(p->device));
    if (rc) kv_planner_close(p);
    return rc;
}

void kv_planner_close(struct kv_planner *p) {
    for (size_t i = 0; i < p->n_ground; i++) {
        kv_cell_table_sums_free(p->ground[i].sums);
        kv_cell_table_close(p->ground[i].table);
        kv_format_close(p->ground[i].format);
    }
    free(p->ground);
    free(p->quantiles);
    kv_device_free(p->device);
    kv_trace_close(p->trace);
    *p = (struct kv_planner){0};
}

// ---- prices ---------------------------------------------------------------------------

static double values_per_token(const struct kv_shape *s) {
    return (double)kv_cells(s) * s->head_dim;
}

// A step when all keys are held at one width and all values at another.
static double step_ms(const struct kv_planner *p, const struct kv_format *f, size_t k, size_t v) {
    struct kv_ledger l = {.entropy_bits = NAN};
    kv_ledger_name_types(&l, f->canonical);
    size_t width[2] = {k, v};
    double bits = 0;
    for (int side = 0; side < 2; side++) {
        struct kv_unit_size u = kv_format_size(f, (enum kv_side)side, (uint32_t)width[side]);
        l.share[side][f->width_bits[width[side]]] = 1;
        bits += 0.5 * 8 * (double)u.bytes / (double)u.values;
    }
    l.nominal_bits = l.effective_bits = l.allocated_bits = bits;
    l.bytes_per_token = bits * values_per_token(&f->setting.shape) / 8;
    return kv_device_step(p->device, &l, p->context, 0).step_ns * 1e-6;
}

// Tokens of a sequence (context + choice) of the trace: the harmonic mean over items, which is what
// bits that a sequence holds once are spread over.
static double tokens_of_sequences(const struct kv_trace *trace) {
    size_t n = kv_trace_info(trace)->n_items;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const struct kv_trace_item *it = kv_trace_item(trace, i);
        double choices = it->n_tokens - it->n_context;
        sum += 1 / (it->n_context + choices / (it->n_choices ? it->n_choices : 1));
    }
    return (double)n / sum;
}

static void set_prices(const struct kv_planner *p, struct kv_ground *g) {
    const struct kv_format *f = g->format;
    double values = values_per_token(&f->setting.shape), least[2] = {0, 0};
    bool ms = p->unit == KV_BUDGET_MS;
    double scale = p->unit == KV_BUDGET_BYTES ? values / 8 : 1;
    for (size_t w = 0; w < f->n_widths; w++)
        for (int side = 0; side < 2; side++) {
            struct kv_unit_size u = kv_format_size(f, (enum kv_side)side, (uint32_t)w);
            double bits = 8 * (double)u.bytes / (double)u.values;
            g->price[side][w] = ms ? step_ms(p, f, side ? 0 : w, side ? w : 0) : 0.5 * bits * scale;
            if (ms) g->price[side][w] -= step_ms(p, f, 0, 0);
            least[side] = fmin(least[side], g->price[side][w]);
        }
    // A dearer width may cost less time than the cheapest: prices stay positive for the knapsack.
    g->fixed = ms ? step_ms(p, f, 0, 0) + least[0] + least[1] : 0;
    for (size_t w = 0; w < f->n_widths; w++)
        for (int side = 0; side < 2; side++) g->price[side][w] -= least[side];
    g->per_tag_bit = ms ? 0 : p->unit == KV_BUDGET_BYTES ? 1.0 / 8 : 1 / values;
    g->fixed += g->per_tag_bit * kv_centre_bits(f) / tokens_of_sequences(p->trace);
}

int kv_planner_ground(struct kv_planner *p, const char *format, struct kv_ground **out,
                      struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(p->trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    struct kv_ground g = {0};
    int rc = kv_format_open(&g.format, format, &setting, e);
    if (rc) return rc;
    for (size_t i = 0; i < p->n_ground; i++)
        if (strcmp(p->ground[i].format->canonical, g.format->canonical) == 0) {
            kv_format_close(g.format);
            *out = &p->ground[i];
            return 0;
        }
    rc = kv_cell_table_open(&g.table, p->trace, g.format, p->table_kind, p->jobs, e);
    if (rc) {
        kv_format_close(g.format);
        return rc;
    }
    g.sums = kv_cell_table_sums_new(p->trace, g.table, g.format->n_widths);
    set_prices(p, &g);
    p->ground = kv_grow(p->ground, p->n_ground + 1, sizeof *p->ground);
    p->ground[p->n_ground] = g;
    *out = &p->ground[p->n_ground++];
    return 0;
}

// ---- forecasts ------------------------------------------------------------------------

struct forecasting {
    struct kv_planner *planner;
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
    const struct kv_trace_item *it = kv_trace_item(f->planner->trace, i);
    uint8_t *cells = malloc(it->n_tokens * kv_cells(&f->spec->run.shape));
    (void)worker;
    if (!cells) return kv_fail(e, KV_ENOMEM, "forecast", "out of memory");
    int rc = kv_decide(&f->job, 0, i, cells, e);
    if (rc == 0) {
        f->damage[index] = kv_sums_damage(f->ground->sums, i, f->spec->varies, cells);
        f->scored[index] = kv_fisher_scored(kv_trace_info(f->planner->trace), it);
        f->cost[index] = item_cost(f, it, cells);
    }
    free(cells);
    return rc;
}

int kv_planner_forecast(struct kv_planner *p, const struct kv_replay_spec *spec,
                        const struct kv_item_range *items, struct kv_forecast *out,
                        struct kv_error *e) {
    struct forecasting f = {.planner = p, .spec = spec, .first = items->first};
    struct kv_ground *g;
    int rc = kv_planner_ground(p, spec->format_text, &g, e);
    if (rc) return rc;
    f.ground = g;
    f.job = (struct kv_replay){.trace = p->trace, .specs = spec, .n_specs = 1, .seed = p->seed};
    if (spec->needs & KV_NEED_QUANTILES && !p->quantiles) {
        rc = kv_replay_open_tables(&f.job, p->table_kind, p->jobs, e);
        p->quantiles = f.job.quantiles;
        f.job.quantiles = NULL;
        kv_replay_close_tables(&f.job);
    }
    if (rc == 0) rc = kv_replay_fit(&f.job, p->jobs, e);
    struct kv_cell_table *damage[1] = {g->table};
    f.job.quantiles = p->quantiles;
    f.job.damage = damage;
    f.damage = kv_alloc(3 * items->n, sizeof(double));
    f.scored = f.damage + items->n;
    f.cost = f.scored + items->n;
    if (rc == 0) rc = kv_parallel(items->n, p->jobs, forecast_item, &f, e);
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

int kv_planner_answers(const struct kv_planner *p, const struct kv_replay_spec *spec,
                       struct kv_error *e) {
    return kv_fisher_answers(kv_trace_info(p->trace), spec, p->mode, p->self == KV_SELF_EXACT, e);
}

// ---- exact replay ---------------------------------------------------------------------

int kv_planner_replay(const struct kv_planner *p, const struct kv_model *m,
                      const struct kv_replay_spec *specs, size_t n_specs,
                      const struct kv_item_range *items, bool quiet,
                      int (*take)(void *, size_t, size_t, const struct kv_outcome *,
                                  struct kv_error *),
                      void *self, struct kv_error *e) {
    struct kv_replay job = {.trace = p->trace,
                            .model = m,
                            .specs = specs,
                            .n_specs = n_specs,
                            .mode = p->mode,
                            .quiet = quiet,
                            .self_exact = p->self == KV_SELF_EXACT,
                            .seed = p->seed,
                            .first_item = items->first,
                            .n_items = items->n,
                            .take = take,
                            .self = self};
    int rc = kv_replay_open_tables(&job, p->table_kind, p->jobs, e);
    if (rc == 0) rc = kv_replay_exact(&job, p->jobs, e);
    kv_replay_close_tables(&job);
    return rc;
}
