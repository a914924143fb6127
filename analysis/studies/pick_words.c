// SPDX-License-Identifier: Apache-2.0
// One sentence: who keeps the bound, at what cost, what stands next, what is not known.
#include "analysis/studies/pick_words.h"

#include <stdlib.h>

#include "analysis/results/notes.h"
#include "sim/base/memory.h"
#include "sim/replay/spec.h"

static void add_bytes(struct kv_text *t, double bytes) {
    static const char *const unit[] = {"bytes", "kB", "MB", "GB", "TB"};
    size_t i = 0;
    for (; bytes >= 1000 && i + 1 < sizeof unit / sizeof *unit; i++) bytes /= 1000;
    kv_text_addf(t, i ? "%.3g %s" : "%.0f %s", bytes, unit[i]);
}

static void add_bounds(struct kv_text *t, const struct kv_pick_options *o) {
    const char *and = "";
    if (!isnan(o->kl_most)) {
        kv_text_addf(t, "KL up to %g nats a scored token", o->kl_most);
        and = " and ";
    }
    if (!isnan(o->acc_least)) {
        kv_text_addf(t, "%saccuracy of at least %g", and, o->acc_least);
        and = " and ";
    }
    if (!isnan(o->bytes_most)) {
        kv_text_addf(t, "%sa cache of at most ", and);
        add_bytes(t, o->bytes_most);
    }
    if (!isnan(o->kl_most) || !isnan(o->acc_least))
        kv_text_addf(t, " (%g %% confidence%s)", 100 * o->confidence,
                     o->together ? " for all of them together" : "");
}

// What was measured of a row, in the terms of the bounds.
static void add_quality(struct kv_text *t, const struct kv_pick_row *r,
                        const struct kv_pick_options *o) {
    kv_text_addf(t, "KL %.4f [%.4f, %.4f]", r->kl.mean, r->kl.interval.low, r->kl.interval.high);
    if (!isnan(o->acc_least))
        kv_text_addf(t, ", accuracy %.3f [%.3f, %.3f]", r->row->s.acc[KV_ACC], r->acc.low,
                     r->acc.high);
    struct kv_depths d = kv_depths_of(o->context);
    if (r->positions)
        kv_text_addf(t, " at %zu positions that see %u to %u tokens", r->positions, d.above + 1,
                     d.upto);
    else
        kv_text_addf(t, " on %zu items", r->kl.n);
}

static void add_cost(struct kv_text *t, const struct kv_pick_row *r, const struct kv_pick *p,
                     const struct kv_rows *rows, double context) {
    const struct kv_device *d = rows->device;
    kv_text_addf(t, "at %g tokens its cache takes ", context);
    add_bytes(t, r->bytes);
    if (p->bytes16 > 0) {
        kv_text_addf(t, " (16 bit: ");
        add_bytes(t, p->bytes16);
        kv_text_addf(t, ")");
    }
    if (!d || isnan(r->ms)) return;
    kv_text_addf(t, " and a step %.3g ms on %s (%s)", r->ms, d->name, kv_device_error_text(d));
    if (p->ms16 > 0) kv_text_addf(t, ", where 16 bit takes %.3g ms", p->ms16);
}

static void add_next(struct kv_text *t, const struct kv_pick *p, const struct kv_rows *rows,
                     bool smallest) {
    if (p->n_keeping < 2) return;
    const struct kv_pick_row *own = &p->row[0], *next = &p->row[1];
    const struct kv_device *d = rows->device;
    kv_text_addf(t, "; next stands %s, KL %.4f, ", next->row->label, next->kl.mean);
    add_bytes(t, next->bytes);
    if (isnan(next->ms) || isnan(own->ms)) return;
    double slower = next->ms / own->ms - 1;
    kv_text_addf(t, " and %.3g ms", next->ms);
    if (smallest) return;
    if (slower < 0.0005)
        kv_text_addf(t, " (as fast)");
    else
        kv_text_addf(t, " (%.1f %% slower%s)", 100 * slower,
                     d && slower < d->error_median ? ", less than the model errs" : "");
}

// Whether deciding takes a time that no price holds: of policies that tell tokens apart.
static bool decides_by_token(const struct kv_row *row) {
    const struct kv_spec_parts *parts = &row->s.parts;
    const char *name = parts->n_policies ? parts->policies[0].name : "";
    const struct kv_policy *policy;
    for (size_t i = 0; (policy = kv_policy_at(i)); i++)
        if (strcmp(policy->name, name) == 0) return policy->varies & KV_VARIES_TOKEN;
    return true;
}

static bool same_shape(const struct kv_shape *a, const struct kv_shape *b) {
    return a->n_layers == b->n_layers && a->n_kv_heads == b->n_kv_heads &&
           a->head_dim == b->head_dim;
}

// Of the price alone: what the device was not measured at.
static void add_unpriced(struct kv_text *t, const struct kv_pick_row *r, const struct kv_device *d,
                         double context, const struct kv_shape *shape) {
    const struct kv_latency *at = &r->row->at[0];
    if (context < d->context_min || context > d->context_max)
        kv_text_addf(t, "; the time there, since the device was measured at %u to %u tokens",
                     d->context_min, d->context_max);
    else if (at->by_width)
        kv_text_addf(t, "; the time of this cache type, which was priced by its width");
    else if (at->extrapolated)
        kv_text_addf(t, "; the time of a width that was not measured on the device and was priced "
                        "as the next one");
    if (shape->n_layers && !same_shape(&d->shape, shape))
        kv_text_addf(t,
                     "; the time of this model: the device's has %u layers of %u x %u, not %u "
                     "of %u x %u",
                     d->shape.n_layers, d->shape.n_kv_heads, d->shape.head_dim, shape->n_layers,
                     shape->n_kv_heads, shape->head_dim);
    if (decides_by_token(r->row))
        kv_text_addf(t, "; the policy's own time, which the step does not hold");
}

// What the answer does not know, as a sentence of its own.
static void add_unknown(struct kv_text *t, const struct kv_pick_row *r, const struct kv_pick *p,
                        const struct kv_rows *rows, const struct kv_pick_options *o,
                        const struct kv_shape *shape) {
    struct kv_text all = {0};
    if (!r->positions && !kv_measured_at(r->row, o->context))
        kv_text_addf(&all, "; the quality at %g tokens, since it was measured at %.0f (mean)",
                     o->context, r->row->s.context_tokens);
    if (rows->device && !isnan(r->ms)) add_unpriced(&all, r, rows->device, o->context, shape);
    if (r->kl.n < r->row->s.n_trace_items)
        kv_text_addf(&all, "; the other %zu items of the recording",
                     r->row->s.n_trace_items - r->kl.n);
    if (!o->together && p->n > 1 && (!isnan(o->kl_most) || !isnan(o->acc_least)))
        kv_text_addf(&all, "; whether the confidence survives the choice, since it is each "
                           "policy's own (--together)");
    if (all.n) kv_text_addf(t, ". Not known: %s", all.s + 2);
    free(all.s);
}

static void add_answer(struct kv_text *t, const struct kv_pick *p, const struct kv_rows *rows,
                       const struct kv_pick_options *o, const struct kv_shape *shape) {
    const struct kv_pick_row *r = &p->row[0];
    if (p->n_keeping > 1)
        kv_text_addf(t, "%s is the %s of %zu that keep ", r->row->label,
                     o->smallest ? "smallest" : "fastest", p->n_keeping);
    else
        kv_text_addf(t, "%s alone keeps ", r->row->label);
    add_bounds(t, o);
    kv_text_addf(t, ", among %zu exactly replayed", p->n);
    if (o->runtime) kv_text_addf(t, " that %s serves", o->runtime);
    kv_text_addf(t, ": ");
    add_quality(t, r, o);
    kv_text_addf(t, "; ");
    add_cost(t, r, p, rows, o->context);
    add_next(t, p, rows, o->smallest);
    add_unknown(t, r, p, rows, o, shape);
}

static void add_nearest(struct kv_text *t, const struct kv_pick *p,
                        const struct kv_pick_options *o) {
    const struct kv_pick_row *r = &p->row[0];
    kv_text_addf(t, "none of %zu exactly replayed policies ", p->n);
    if (o->runtime) kv_text_addf(t, "that %s serves ", o->runtime);
    kv_text_addf(t, "keeps ");
    add_bounds(t, o);
    if (isinf(r->worst)) {
        kv_text_addf(t, ", and too little is known of each: %s has %zu finite items", r->row->label,
                     r->kl.n);
        return;
    }
    kv_text_addf(t, "; the nearest is %s: ", r->row->label);
    if (strcmp(r->misses, "bytes") == 0) {
        add_bytes(t, r->bytes);
        kv_text_addf(t, " at %g tokens", o->context);
    } else {
        add_quality(t, r, o);
        if (strcmp(r->misses, "kl") == 0 && r->kl.mean <= o->kl_most)
            kv_text_addf(t, ", whose mean keeps it: more items may show it");
    }
}

void kv_pick_put_words(struct kv_pick *p, const struct kv_rows *rows,
                       const struct kv_pick_options *o, const struct kv_shape *shape) {
    const struct kv_summary *s = &p->row[0].row->s;
    struct kv_text t = {0};
    p->title =
        kv_format_text("%s, %s: %s; %s", s->task, s->subset, s->model, kv_mode_names[s->mode]);
    if (p->n_keeping)
        add_answer(&t, p, rows, o, shape);
    else
        add_nearest(&t, p, o);
    p->sentence = kv_text_take(&t);
}
