// SPDX-License-Identifier: Apache-2.0
// From runs to a device: the fit, runs left out in turn, errors, and what the runs cannot tell.
#include "sim/cost/calibrate.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/cost/design.h"

#include <stdlib.h>
#include <gsl/gsl_cdf.h>
#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics.h>

// ---- checks ---------------------------------------------------------------------------

static bool same_group(const struct kv_device_run *a, const struct kv_device_run *b) {
    return a->threads == b->threads && strcmp(a->weights, b->weights) == 0 &&
           memcmp(&a->shape, &b->shape, sizeof a->shape) == 0;
}

static int check_runs(const struct kv_runs *r, struct kv_error *e) {
    for (size_t i = 1; i < r->n; i++)
        if (!same_group(&r->row[0], &r->row[i]))
            return kv_fail(e, KV_EFAIL, "calibrate",
                           "the runs mix %s weights %s threads %u with %s weights %s threads %u; "
                           "choose one with --shape, --weights and --threads",
                           r->row[0].shape_name, r->row[0].weights, r->row[0].threads,
                           r->row[i].shape_name, r->row[i].weights, r->row[i].threads);
    int rc = kv_runs_check_one_way(r, e);
    if (rc) return rc;
    for (size_t i = 0; i < r->n; i++)
        if (!(isfinite(r->row[i].step_ns) && r->row[i].step_ns > 0 && r->row[i].context > 0))
            return kv_fail(e, KV_EFAIL, "calibrate", "run %zu: a step of %g ns at %u tokens", i + 1,
                           r->row[i].step_ns, r->row[i].context);
    const struct kv_shape *s = &r->row[0].shape;
    if (!s->n_layers || !s->n_kv_heads || !s->head_dim)
        return kv_fail(e, KV_EFAIL, "calibrate",
                       "the runs do not tell the model's shape; name it with --shape");
    return 0;
}

// ---- errors ---------------------------------------------------------------------------

static double median_of(double *x, size_t n) {
    if (n == 0) return NAN;
    gsl_sort(x, 1, n);
    return gsl_stats_median_from_sorted_data(x, 1, n);
}

static bool same_mix(const struct kv_mix *a, const struct kv_mix *b) {
    char x[160], y[160];
    kv_mix_text(a, x, sizeof x);
    kv_mix_text(b, y, sizeof y);
    return strcmp(x, y) == 0;
}

// The run of the same mix at its shortest context, and the 16-bit run at the same context.
static size_t shortest_of(const struct kv_design *d, size_t i) {
    size_t best = i;
    for (size_t k = 0; k < d->n_runs; k++)
        if (same_mix(&d->run[k].mix, &d->run[i].mix) && d->run[k].context < d->run[best].context)
            best = k;
    return best;
}
static size_t sixteen_of(const struct kv_design *d, size_t i) {
    for (size_t k = 0; k < d->n_runs; k++)
        if (d->run[k].context == d->run[i].context && d->share[k][0][16] > 0.999 &&
            d->share[k][1][16] > 0.999)
            return k;
    return i;
}

// start_ns: predictions of the run at T0 by the same fit as predicted_ns.
static struct kv_fit_errors judge(const struct kv_design *d, const double *predicted,
                                  const double *start, const double *sixteen) {
    struct kv_fit_errors r = {0};
    double *step = kv_alloc(d->n_runs, sizeof *step), *share = kv_alloc(d->n_runs, sizeof *share);
    double right = 0, clear_right = 0;
    for (size_t i = 0; i < d->n_runs; i++) {
        const struct kv_device_run *x = &d->run[i];
        if (isnan(predicted[i])) continue;
        step[r.n_step++] = fabs(predicted[i] / x->step_ns - 1);
        const struct kv_device_run *x0 = &d->run[shortest_of(d, i)];
        double measured = x->step_ns - x0->step_ns;
        if (x0 != x && measured > 0.1 * x->step_ns && !isnan(start[i]))
            share[r.n_share++] = fabs((predicted[i] - start[i]) / measured - 1);
        const struct kv_device_run *x16 = &d->run[sixteen_of(d, i)];
        if (x16 == x || x0 == x || isnan(sixteen[i])) continue;
        double gain = x16->step_ns - x->step_ns;
        bool same_sign = gain * (sixteen[i] - predicted[i]) > 0;
        r.n_sign++;
        right += same_sign;
        double noise =
            hypot(kv_run_uncertainty_ns(x, x->step_ns), kv_run_uncertainty_ns(x16, x16->step_ns));
        if (!(fabs(gain) > 2 * noise)) continue;
        r.n_clear_sign++;
        clear_right += same_sign;
    }
    r.step_median = median_of(step, r.n_step);
    r.step_worst = r.n_step ? step[r.n_step - 1] : NAN;
    r.share_median = median_of(share, r.n_share);
    r.share_worst = r.n_share ? share[r.n_share - 1] : NAN;
    r.sign_right = r.n_sign ? right / (double)r.n_sign : NAN;
    r.clear_sign_right = r.n_clear_sign ? clear_right / (double)r.n_clear_sign : NAN;
    free(step);
    free(share);
    return r;
}

// ---- leaving out ----------------------------------------------------------------------

static bool left_out(const struct kv_design *d, size_t i, size_t of, bool by_mix) {
    return by_mix ? same_mix(&d->run[i].mix, &d->run[of].mix)
                  : d->run[i].context == d->run[of].context;
}

// Subtracts from x what the n_basis orthonormal vectors span and returns what is left, squared.
static double remainder_of(double *x, const double *basis, size_t n_basis, size_t n) {
    double left = 0;
    for (size_t b = 0; b < n_basis; b++) {
        double along = 0;
        for (size_t j = 0; j < n; j++) along += x[j] * basis[b * n + j];
        for (size_t j = 0; j < n; j++) x[j] -= along * basis[b * n + j];
    }
    for (size_t j = 0; j < n; j++) left += x[j] * x[j];
    return left;
}

// Whether the kept runs fix the price of run i: what its mix multiplies is a combination of theirs.
static bool determined(const struct kv_design *d, const bool *kept, size_t i) {
    size_t at[KV_MAX_TERMS], n = 0, n_basis = 0;
    for (size_t j = 0; j < d->n_terms; j++)
        if (d->term[j].kind == KV_TERM_COST || d->term[j].kind == KV_TERM_CLASS ||
            d->term[j].kind == KV_TERM_MIXED || d->term[j].kind == KV_TERM_CELL_CLASS)
            at[n++] = j;
    double *basis = kv_alloc((n + 1) * n + 1, sizeof *basis), left = 0;
    for (size_t k = 0; k <= d->n_runs; k++) {
        if (k < d->n_runs && (!kept[k] || n_basis == n)) continue;
        double *x = basis + n_basis * n;
        for (size_t j = 0; j < n; j++) x[j] = kv_design_column(d, at[j], k < d->n_runs ? k : i, 0);
        left = remainder_of(x, basis, n_basis, n);
        if (k == d->n_runs || left < 1e-8) continue;
        for (size_t j = 0; j < n; j++) x[j] /= sqrt(left);
        n_basis++;
    }
    free(basis);
    return left < 1e-8;
}

// Fits that leave_out makes.
static size_t count_left_out(const struct kv_design *d, bool by_mix) {
    size_t n = 0;
    for (size_t i = 0; i < d->n_runs; i++) {
        size_t first = 0;
        while (!left_out(d, first, i, by_mix)) first++;
        n += first == i;
    }
    return n;
}

static void leave_out(const struct kv_design *d, bool by_mix, double *predicted, double *start,
                      double *sixteen, struct kv_progress *progress) {
    bool *kept = kv_alloc(d->n_runs, sizeof *kept), *done = kv_alloc(d->n_runs, sizeof *done);
    for (size_t i = 0; i < d->n_runs; i++) predicted[i] = start[i] = sixteen[i] = NAN;
    for (size_t i = 0; i < d->n_runs; i++) {
        if (done[i]) continue;
        for (size_t k = 0; k < d->n_runs; k++) kept[k] = !left_out(d, k, i, by_mix);
        struct kv_design_fit o;
        struct kv_error ignored;
        bool fitted = kv_design_fit(d, kept, &o, &ignored) == 0;
        for (size_t k = 0; k < d->n_runs; k++) {
            if (kept[k]) continue;
            done[k] = true;
            if (!fitted || !determined(d, kept, k)) continue;
            predicted[k] = kv_design_predict_ns(d, &o, k);
            start[k] = kv_design_predict_ns(d, &o, shortest_of(d, k));
            sixteen[k] = kv_design_predict_ns(d, &o, sixteen_of(d, k));
        }
        kv_progress_step(progress, 1);
    }
    free(kept);
    free(done);
}

// ---- the device -----------------------------------------------------------------------

// The line through the widths' slopes at zero bits, between 0 and the cheapest width: what a token
// costs whatever its width. Runs whose tokens all hold K and V cannot tell it from the widths'
// costs, so this is a convention; steps at measured widths do not depend on it.
static double cost_at_zero_bits(const struct kv_design *d, const struct kv_design_fit *o) {
    double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0, least = INFINITY;
    for (size_t w = 1; w < KV_COST_BINS; w++) {
        double both = 0;
        int sides = 0;
        for (size_t j = d->n_plain; j < d->n_terms; j++)
            for (int side = 0; side < 2; side++)
                if (d->term[j].holds[side][w]) {
                    both += o->p[j];
                    sides++;
                    least = fmin(least, 2 * o->p[j]);
                }
        if (sides < 2) continue;
        double bits = kv_bits_of_cost_bin(w);
        n++;
        sx += bits;
        sy += both;
        sxx += bits * bits;
        sxy += bits * both;
    }
    double spread = n * sxx - sx * sx; // 0: all have the same bits, and no line
    if (n < 2 || !(spread > 1e-9)) return 0;
    double slope = (n * sxy - sx * sy) / spread, zero = (sy - slope * sx) / n;
    return fmin(fmax(zero, 0), 0.9 * least);
}

// Of a field of the runs, over those that tell it; NAN: none does.
static double median_over_runs(const struct kv_design *d, size_t field) {
    double *x = kv_alloc(d->n_runs, sizeof *x);
    size_t n = 0;
    for (size_t i = 0; i < d->n_runs; i++) {
        double value = *(const double *)((const char *)&d->run[i] + field);
        if (isfinite(value)) x[n++] = value;
    }
    double m = median_of(x, n);
    free(x);
    return m;
}

static void set_text(char **field, char *text) {
    free(*field);
    *field = text;
}

static void fill_device(struct kv_device *dev, const struct kv_design *d,
                        const struct kv_design_fit *o, const struct kv_runs *runs,
                        const char *name) {
    const struct kv_device_run *r = &d->run[0];
    double zero = cost_at_zero_bits(d, o),
           t = gsl_cdf_tdist_Pinv(0.975, fmax(1, (double)o->n_rows - (double)d->n_terms));
    set_text(&dev->name, kv_strdup(name));
    set_text(&dev->machine, kv_strdup(runs->machine));
    set_text(&dev->date, kv_strdup(runs->date));
    set_text(&dev->engine, kv_strdup(runs->engine));
    set_text(&dev->weights, kv_strdup(r->weights));
    char threads[32] = ""; // a GPU has none
    if (r->threads)
        snprintf(threads, sizeof threads, ", %u thread%s", r->threads, r->threads > 1 ? "s" : "");
    set_text(&dev->summary,
             kv_format_text("%s, %s weights%s%s%s", *r->shape_name ? r->shape_name : "model",
                            r->weights, threads, *runs->machine ? ", " : "", runs->machine));
    set_text(&dev->provenance,
             kv_format_text("%s%skvsim calibrate", runs->command, *runs->command ? "; " : ""));
    set_text(&dev->runs_meta, kv_format_text("%s; %s; %.0f MHz", runs->engine, runs->compiler,
                                             isfinite(runs->clock_mhz) ? runs->clock_mhz : 0));
    dev->threads = r->threads;
    dev->shape = r->shape;
    double append = median_over_runs(d, offsetof(struct kv_device_run, part_ns[KV_PART_APPEND]));
    dev->append_ns = isnan(append) ? 0 : fmin(append, o->p[0] / 2);
    dev->base_ns = o->p[0] - dev->append_ns;
    for (size_t j = 0; j < d->n_terms; j++) {
        if (d->term[j].kind == KV_TERM_CLASS) dev->class_ns = o->p[j];
        if (d->term[j].kind == KV_TERM_CELL_CLASS) dev->cell_class_ns = o->p[j];
        if (d->term[j].kind == KV_TERM_MIXED) dev->mixed_ns = o->p[j];
        if (d->term[j].kind == KV_TERM_SWITCH) dev->switch_ns = o->p[j];
        if (d->term[j].kind != KV_TERM_ROUND) continue;
        dev->round_ns = o->p[j];
        dev->round_tokens = d->round_tokens;
    }
    dev->controller_ns = median_over_runs(d, offsetof(struct kv_device_run, controller_ns));
    dev->attend_ns = zero * d->values;
    dev->bandwidth_bytes_per_ns = runs->bandwidth_bytes_per_ns;
    dev->knee_bytes = d->knee_bytes;
    dev->hidden_bytes = d->hidden_bytes;
    dev->knee_factor = o->knee_factor;
    dev->sliding = d->run[0].sliding;
    dev->context_min = UINT32_MAX;
    for (size_t i = 0; i < d->n_runs; i++) {
        if (d->run[i].context < dev->context_min) dev->context_min = d->run[i].context;
        if (d->run[i].context > dev->context_max) dev->context_max = d->run[i].context;
    }
    dev->intervals = kv_alloc(d->n_terms, sizeof *dev->intervals);
    for (size_t j = 0; j < d->n_terms; j++) {
        double wide = o->log_error[j] * t;
        for (int side = 0; side < 2; side++)
            for (int w = 1; w < KV_COST_BINS; w++)
                if (d->term[j].holds[side][w]) dev->c_ns[side][w] = fmax(0, o->p[j] - zero / 2);
        if (!isfinite(wide) || wide > 30) continue;
        struct kv_device_interval *v = &dev->intervals[dev->n_intervals++];
        snprintf(v->name, sizeof v->name, "%s", d->term[j].name);
        // Of the whole slope of a width, its part of attend_ns included.
        v->low = o->p[j] * exp(-wide);
        v->high = o->p[j] * exp(wide);
        if (d->term[j].kind != KV_TERM_BASE) continue;
        v->low -= dev->append_ns; // fitted as one with base_ns, measured apart
        v->high -= dev->append_ns;
    }
    dev->n_runs = d->n_runs;
    dev->runs = kv_alloc(d->n_runs, sizeof *dev->runs);
    memcpy(dev->runs, d->run, d->n_runs * sizeof *dev->runs);
    for (size_t i = 0; i < d->n_runs; i++) dev->runs[i].setting = 0; // a number of the file's alone
}

struct kv_latency kv_run_price(const struct kv_device *d, const struct kv_device_run *run) {
    struct kv_ledger l = {0};
    kv_mix_shares(&run->mix, &l);
    l.controlled = run->mix.by_cell && run->part_ns[KV_PART_POLICY] > 0; // else it was taken off
    double values = 2.0 * d->shape.n_layers * d->shape.n_kv_heads * d->shape.head_dim;
    l.allocated_bits = isfinite(run->cache_bytes)
                           ? run->cache_bytes * 8 / values /
                                 kv_tokens_read(&d->sliding, d->shape.n_layers, run->context)
                           : kv_mix_allocated_bits(&run->mix, d->shape.head_dim);
    return kv_device_step(d, &l, run->context, 0);
}

// ---- warnings and the whole -----------------------------------------------------------

KV_PRINTF(2, 3) static void warn(struct kv_calibration *c, const char *format, ...) {
    char text[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    c->warnings = kv_grow(c->warnings, c->n_warnings + 1, sizeof *c->warnings);
    c->warnings[c->n_warnings++] = kv_strdup(text);
}

static void find_warnings(struct kv_calibration *c, const struct kv_design *d,
                          const struct kv_design_fit *o) {
    for (size_t j = d->n_plain; j < d->n_terms; j++) {
        const char *bits = strchr(d->term[j].name, ' ');
        if (strncmp(d->term[j].name, "key_and", 7) == 0)
            warn(c,
                 "keys and values at%s%s always come together: their costs cannot be "
                 "separated and share one parameter (add a mix like k8v4)",
                 bits, kv_cache_type_read(bits + 1, &(unsigned){0}, &(unsigned){0}) ? "" : " bits");
    }
    size_t conventional = 0;
    for (size_t j = 0; j < d->n_terms; j++) {
        if (!isfinite(o->log_error[j]))
            warn(c,
                 "%s is not determined by these runs: its share of every step is below what "
                 "they resolve",
                 d->term[j].name);
        else if (o->log_error[j] > 3)
            conventional++;
        else if (o->log_error[j] > 0.5)
            warn(c, "%s is known to a factor of %.1f only", d->term[j].name,
                 exp(1.96 * o->log_error[j]));
    }
    if (conventional)
        warn(
            c,
            "%zu costs are fixed by the conventions below rather than by the runs: these tell sums "
            "of a key's and a value's cost, not each",
            conventional);
    warn(c, "every token of these runs holds keys and values, so what a token costs whatever its "
            "width (attend_ns) is set by the line through the widths at zero bits");
    if (d->split_by_convention)
        warn(c, "a constant could move from the cost of every key to that of every value without "
                "changing any of these runs: both sides are taken to cost the same on average");
    size_t alone = 0;
    for (size_t i = 0; i < d->n_runs; i++) alone += isnan(c->by_mix_ns[i]);
    if (alone)
        warn(
            c,
            "%zu runs are not judged with their mix left out: the other mixes do not fix its price",
            alone);
}

int kv_calibrate(struct kv_calibration **out, const struct kv_runs *runs, const char *name,
                 struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    int rc = check_runs(runs, e);
    if (rc) return rc;
    struct kv_design d;
    struct kv_design_fit o;
    size_t n = runs->n;
    bool *all = kv_alloc(n, sizeof *all);
    for (size_t i = 0; i < n; i++) all[i] = true;
    kv_design_init(&d, runs);
    rc = kv_design_fit(&d, all, &o, e);
    if (rc) {
        kv_design_fini(&d);
        free(all);
        return rc;
    }
    struct kv_progress *progress = kv_progress_start(
        "fitting", KV_KNEE_FITS + count_left_out(&d, false) + count_left_out(&d, true), "fits");
    kv_design_choose_knee(&d, all, &o, progress);
    struct kv_calibration *c = kv_alloc(1, sizeof *c);
    c->device = kv_device_new();
    c->n_runs = n;
    c->sigma = o.scale;
    c->n_parameters = d.n_terms;
    c->n_residuals = o.n_rows;
    double *start = kv_alloc(n, sizeof *start), *sixteen = kv_alloc(n, sizeof *sixteen);
    c->fitted_ns = kv_alloc(n, sizeof *c->fitted_ns);
    c->by_context_ns = kv_alloc(n, sizeof *c->by_context_ns);
    c->by_mix_ns = kv_alloc(n, sizeof *c->by_mix_ns);
    for (size_t i = 0; i < n; i++) {
        c->fitted_ns[i] = kv_design_predict_ns(&d, &o, i);
        start[i] = kv_design_predict_ns(&d, &o, shortest_of(&d, i));
        sixteen[i] = kv_design_predict_ns(&d, &o, sixteen_of(&d, i));
    }
    c->fitted = judge(&d, c->fitted_ns, start, sixteen);
    leave_out(&d, false, c->by_context_ns, start, sixteen, progress);
    c->by_context = judge(&d, c->by_context_ns, start, sixteen);
    leave_out(&d, true, c->by_mix_ns, start, sixteen, progress);
    kv_progress_end(progress);
    c->by_mix = judge(&d, c->by_mix_ns, start, sixteen);
    fill_device(c->device, &d, &o, runs, name);
    c->device->error_median = c->by_context.step_median;
    c->device->error_worst = c->by_context.step_worst;
    c->device->share_error_median = c->by_context.share_median;
    c->device->share_error_mix_median = c->by_mix.share_median;
    c->device->sign_right = c->by_context.clear_sign_right;
    find_warnings(c, &d, &o);
    free(start);
    free(sixteen);
    kv_design_fini(&d);
    free(all);
    *out = c;
    return 0;
}

void kv_calibration_free(struct kv_calibration *c) {
    if (!c) return;
    for (size_t i = 0; i < c->n_warnings; i++) free(c->warnings[i]);
    free(c->warnings);
    free(c->fitted_ns);
    free(c->by_context_ns);
    free(c->by_mix_ns);
    kv_device_free(c->device);
    free(c);
}
