// SPDX-License-Identifier: Apache-2.0
// What a calibration found, as lines of numbers with their intervals: parameters, rates, errors.
#ifndef KV_COST_FINDINGS_H
#define KV_COST_FINDINGS_H

#include "sim/cost/calibrate.h"

struct kv_finding {
    char name[64];           // "base_ns", "key_ns 4", "left_out_mix.step_median"
    double value, low, high; // the 95 % interval; NAN = none
    const char *unit;        // in words
};

// All that there is to say, in reading order. Caller frees the array.
struct kv_finding *kv_calibration_findings(const struct kv_calibration *c, size_t *n);

#endif
