// SPDX-License-Identifier: Apache-2.0
// The lines of a calibration's table.
#include "sim/cost/findings.h"
#include "sim/base/memory.h"

struct list {
    const struct kv_device *device;
    struct kv_finding *at;
    size_t n;
};

static void add_range(struct list *l, const char *name, double value, double low, double high,
                      const char *unit) {
    l->at = kv_grow(l->at, l->n + 1, sizeof *l->at);
    struct kv_finding *f = &l->at[l->n++];
    *f = (struct kv_finding){.value = value, .low = low, .high = high, .unit = unit};
    snprintf(f->name, sizeof f->name, "%s", name);
}

static void add(struct list *l, const char *name, double value, const char *unit) {
    add_range(l, name, value, NAN, NAN, unit);
}

static const struct kv_device_interval *interval_of(const struct kv_device *d, const char *name) {
    static const struct kv_device_interval none = {.low = NAN, .high = NAN};
    for (size_t i = 0; i < d->n_intervals; i++)
        if (strcmp(d->intervals[i].name, name) == 0) return &d->intervals[i];
    return &none;
}

// A parameter that was fitted under its own name.
static void add_fitted(struct list *l, const char *name, double value, const char *unit) {
    const struct kv_device_interval *i = interval_of(l->device, name);
    add_range(l, name, value, i->low, i->high, unit);
}

// The interval of a width's cost: its own, or that of keys and values where they share one.
static const struct kv_device_interval *cost_interval(const struct kv_device *d, const char *name,
                                                      const char *width) {
    char both[40];
    const struct kv_device_interval *own = interval_of(d, name);
    snprintf(both, sizeof both, "key_and_value_ns %s", width);
    return isnan(own->low) ? interval_of(d, both) : own;
}

static void add_costs(struct list *l) {
    const struct kv_device *d = l->device;
    double heads =
        d->attend_ns / ((double)d->shape.n_layers * d->shape.n_kv_heads * d->shape.head_dim) / 2;
    for (size_t w = 1; w < KV_COST_BINS; w++)
        for (int side = 0; side < 2; side++) {
            double c = d->c_ns[side][w] + heads;
            if (isnan(c)) continue;
            unsigned bits = kv_bits_of_cost_bin(w);
            const char *width = kv_cost_bin_name(w);
            char name[40];
            snprintf(name, sizeof name, "%s %s", side ? "value_ns" : "key_ns", width);
            const struct kv_device_interval *i = cost_interval(d, name, width);
            add_range(l, name, c, i->low, i->high, "ns a value, its part of attend_ns included");
            snprintf(name, sizeof name, "%s %s", side ? "value_rate" : "key_rate", width);
            add_range(l, name, bits / 8.0 / c, bits / 8.0 / i->high, bits / 8.0 / i->low,
                      "GB/s of codes");
        }
}

static void add_errors(struct list *l, const char *what, const struct kv_fit_errors *x) {
    const struct {
        const char *name;
        double value;
        const char *unit;
    } lines[] = {
        {"step_median", x->step_median, "of the step"},
        {"step_worst", x->step_worst, "of the step"},
        {"share_median", x->share_median, "of t(T) - t(T0), where above 10 % of the step"},
        {"share_worst", x->share_worst, "of t(T) - t(T0), where above 10 % of the step"},
        {"share_cells", (double)x->n_share, "cells"},
        {"sign_right", x->sign_right, "of cells: speed-up over 16 bit"},
        {"sign_cells", (double)x->n_sign, "cells"},
        {"clear_sign_right", x->clear_sign_right,
         "of cells whose difference exceeds twice its uncertainty"},
        {"clear_sign_cells", (double)x->n_clear_sign, "cells"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.%s", what, lines[i].name);
        add(l, name, lines[i].value, lines[i].unit);
    }
}

struct kv_finding *kv_calibration_findings(const struct kv_calibration *c, size_t *n) {
    const struct kv_device *d = c->device;
    struct list l = {.device = d};
    add_fitted(&l, "base_ns", d->base_ns, "a step at empty cache, without append_ns");
    add(&l, "append_ns", d->append_ns, "coding and storing the new token");
    add(&l, "attend_ns", d->attend_ns, "a context token, whatever the width");
    if (!isnan(d->mixed_ns))
        add_fitted(&l, "mixed_ns", d->mixed_ns, "a value where tokens differ in width, besides");
    if (d->class_ns > 0)
        add_fitted(&l, "class_ns", d->class_ns, "each width in use beyond the first");
    if (!isnan(d->cell_class_ns))
        add_fitted(&l, "cell_class_ns", d->cell_class_ns, "the same where widths are by cell");
    if (!isnan(d->controller_ns))
        add(&l, "controller_ns", d->controller_ns, "deciding by cell, a step: measured apart");
    if (d->round_tokens > 0) {
        add_fitted(&l, "round_ns", d->round_ns, "a round of attention");
        add(&l, "round_tokens", d->round_tokens, "tokens of a round, told by the runs");
        add_fitted(&l, "switch_ns", d->switch_ns, "each further width a processor meets");
    }
    add_costs(&l);
    add(&l, "bandwidth", d->bandwidth_bytes_per_ns, "GB/s, streaming read measured apart");
    if (isfinite(d->knee_bytes)) {
        add(&l, "knee_bytes", d->knee_bytes, "bytes of cache");
        add(&l, "knee_factor", d->knee_factor, "cost of what lies beyond");
    }
    if (d->hidden_bytes > 0)
        add(&l, "hidden_bytes", d->hidden_bytes, "bytes of cache that cost nothing");
    add(&l, "residual_scale", c->sigma, "times the runs' own uncertainty");
    add_errors(&l, "fitted", &c->fitted);
    add_errors(&l, "left_out_context", &c->by_context);
    add_errors(&l, "left_out_mix", &c->by_mix);
    *n = l.n;
    return l.at;
}
