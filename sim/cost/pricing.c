// SPDX-License-Identifier: Apache-2.0
// Prices candidates and runs, ranks them, and compares them with another cache.
#include "sim/cost/pricing.h"
#include "sim/base/memory.h"
#include "sim/base/shape.h"
#include "sim/cost/calibrate.h"

// ---- candidates -----------------------------------------------------------------------

int kv_candidate_mix(struct kv_candidate *x, const char *text, struct kv_error *e) {
    *x = (struct kv_candidate){.name = text, .is_mix = true};
    int rc = kv_mix_parse(&x->mix, text, e);
    if (rc == 0) kv_mix_shares(&x->mix, &x->ledger);
    return rc;
}

static struct kv_ledger ledger_on(const struct kv_candidate *x, const struct kv_device *d) {
    struct kv_ledger l = x->ledger;
    if (x->is_mix) l.allocated_bits = kv_mix_allocated_bits(&x->mix, d->shape.head_dim);
    return l;
}

static struct kv_latency price(const struct kv_pricing *p, size_t device, size_t i,
                               double context) {
    struct kv_ledger l = ledger_on(&p->candidates[i], p->devices[device]);
    return kv_device_step(p->devices[device], &l, context, p->policy_ns);
}

static size_t rank_of(const struct kv_pricing *p, size_t device, size_t i, double context) {
    double own = price(p, device, i, context).step_ns;
    size_t rank = 1;
    for (size_t k = 0; k < p->n_candidates; k++) rank += price(p, device, k, context).step_ns < own;
    return rank;
}

static struct kv_price price_of(const struct kv_pricing *p, size_t device, size_t i,
                                uint32_t context) {
    const struct kv_device *d = p->devices[device];
    struct kv_ledger own = ledger_on(&p->candidates[i], d), other = ledger_on(&p->against, d);
    struct kv_latency at = price(p, device, i, context);
    struct kv_latency from = kv_device_step(d, &other, context, 0);
    return (struct kv_price){.device = d,
                             .context = context,
                             .name = p->candidates[i].name,
                             .at = at,
                             .saved = 1 - at.step_ns / from.step_ns,
                             .ceiling = 1 - from.ceiling_ns / from.step_ns,
                             .break_even = kv_device_break_even(d, &own, &other, p->policy_ns),
                             .rank = rank_of(p, device, i, context),
                             .rank_first = rank_of(p, 0, i, context)};
}

struct kv_price *kv_prices(const struct kv_pricing *p, size_t *n) {
    struct kv_price *rows =
        kv_alloc(p->n_devices * p->n_contexts * p->n_candidates + 1, sizeof *rows);
    *n = 0;
    for (size_t d = 0; d < p->n_devices; d++)
        for (size_t k = 0; k < p->n_contexts; k++)
            for (size_t i = 0; i < p->n_candidates; i++)
                rows[(*n)++] = price_of(p, d, i, p->contexts[k]);
    return rows;
}

static bool lacks_port(const struct kv_device *d, const struct kv_ledger *l) {
    for (int side = 0; side < 2 && d->n_ports; side++)
        for (size_t w = d->ports[d->n_ports - 1] + 1u; w < KV_WIDTH_BINS; w++)
            if (l->share[side][w] > 0) return true;
    return false;
}

bool kv_pricing_lacks_port(const struct kv_pricing *p) {
    for (size_t d = 0; d < p->n_devices; d++) {
        if (lacks_port(p->devices[d], &p->against.ledger)) return true;
        for (size_t i = 0; i < p->n_candidates; i++)
            if (lacks_port(p->devices[d], &p->candidates[i].ledger)) return true;
    }
    return false;
}

// ---- measured runs --------------------------------------------------------------------

// Whether a run is of another model than the device, or of one that cannot be told to be the same.
static bool is_other_model(const struct kv_device *d, const struct kv_device_run *r) {
    if (r->shape.n_layers) return memcmp(&r->shape, &d->shape, sizeof r->shape) != 0;
    double own = kv_shape_parameters(&d->shape);
    return !isnan(r->n_parameters) && !(own > 0 && fabs(own / r->n_parameters - 1) <= 0.005);
}

// Nothing is known of a machine that a run or a device does not name.
static bool is_other_machine(const struct kv_device *d, const char *machine) {
    return *d->machine && *machine && strcmp(d->machine, machine) != 0;
}

static bool is_elsewhere(const struct kv_device *d, const struct kv_runs *runs,
                         const struct kv_device_run *r) {
    return is_other_model(d, r) || is_other_machine(d, kv_run_machine(runs, r)) ||
           r->threads != d->threads || strcmp(r->weights, d->weights) != 0;
}

struct kv_prediction *kv_predictions(struct kv_device *const *devices, size_t n_devices,
                                     const struct kv_runs *runs, size_t *n) {
    struct kv_prediction *rows = kv_alloc(n_devices * runs->n + 1, sizeof *rows);
    *n = 0;
    for (size_t d = 0; d < n_devices; d++)
        for (size_t i = 0; i < runs->n; i++) {
            const struct kv_device_run *r = &runs->row[i];
            struct kv_latency at = kv_run_price(devices[d], r);
            rows[(*n)++] = (struct kv_prediction){
                devices[d], r, at, at.extrapolated || is_elsewhere(devices[d], runs, r)};
        }
    return rows;
}
