// SPDX-License-Identifier: Apache-2.0
// Prices of many caches on many devices at many contexts, and measured runs beside predictions.
//
//     struct kv_pricing p = {.devices = d, .n_devices = 2, .contexts = t, .n_contexts = 3,
//                            .candidates = x, .n_candidates = 4, .against = sixteen};
//     struct kv_price *rows = kv_prices(&p, &n);          devices, within them contexts, within
//     free(rows);                                         them candidates
#ifndef KV_COST_PRICING_H
#define KV_COST_PRICING_H

#include "sim/cost/cost.h"
#include "sim/cost/runs.h"

// A cache to price: a mix, whose metadata depend on the device's head, or what a replay held.
struct kv_candidate {
    const char *name; // borrowed
    bool is_mix;
    struct kv_mix mix;
    struct kv_ledger ledger; // of a mix its shares alone
};
// A mix by its text, which names it. Errors: those of kv_mix_parse.
KV_MUST_CHECK int kv_candidate_mix(struct kv_candidate *x, const char *text, struct kv_error *e);

struct kv_pricing {
    struct kv_device *const *devices;
    const uint32_t *contexts;
    const struct kv_candidate *candidates;
    size_t n_devices, n_contexts, n_candidates;
    struct kv_candidate against; // what is saved, its ceiling and break-even refer to it
    double policy_ns;            // of every candidate, a token; `against` has none
};

struct kv_price {
    const struct kv_device *device;
    uint32_t context;
    const char *name;
    struct kv_latency at;
    double saved, ceiling; // of the other's step: by this cache, and by one of no bytes
    double break_even;     // context from which this one is faster; INFINITY = never
    size_t rank;           // 1 = the fastest on this device at this context
    size_t rank_first;     // the same on the first device
};

// All of them; caller frees the array.
struct kv_price *kv_prices(const struct kv_pricing *p, size_t *n);

// Whether a candidate, or what they are compared with, holds a width that a device with ports has
// no port for.
bool kv_pricing_lacks_port(const struct kv_pricing *p);

struct kv_prediction {
    const struct kv_device *device;
    const struct kv_device_run *run;
    struct kv_latency at;
    // Beyond what the device was measured at: its contexts and widths, or another machine, model,
    // weights or threads.
    bool extrapolated;
};

// Every run on every device, runs within devices; caller frees the array.
struct kv_prediction *kv_predictions(struct kv_device *const *devices, size_t n_devices,
                                     const struct kv_runs *runs, size_t *n);

#endif
