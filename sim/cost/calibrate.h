// SPDX-License-Identifier: Apache-2.0
// Fits a device to measured runs and says how far to trust it.
//
//     struct kv_calibration *c;
//     if (kv_calibrate(&c, runs, "epyc", &e)) ...      runs of one model, weights and threads
//     printf("%g\n", c->by_context.share_median);      on contexts left out in turn
//     char *text = kv_device_text(c->device);
//     kv_calibration_free(c);
//
// Parameters are positive: the fit moves their logarithms (GSL's trust-region least squares),
// residuals are relative to each run's own uncertainty, and Huber weights (1964) bound what a bad
// run can do. Where runs time attention apart, that time is fitted beside the step.
#ifndef KV_COST_CALIBRATE_H
#define KV_COST_CALIBRATE_H

#include "sim/cost/cost.h"
#include "sim/cost/runs.h"

KV_BEGIN_DECLS

// Relative errors of predictions against the measured runs.
struct kv_fit_errors {
    double step_median, step_worst; // of the whole step
    // Of the cache's share t(T) - t(T0), T0 the mix's shortest context, where the measured share
    // exceeds 10 % of the step.
    double share_median, share_worst;
    size_t n_step, n_share;
    // Cells whose speed-up over 16 bit has the right sign: among all, and among those whose
    // measured difference exceeds twice its uncertainty (of the two medians, half a percent each at
    // least).
    double sign_right, clear_sign_right;
    size_t n_sign, n_clear_sign;
};

struct kv_calibration {
    struct kv_device *device; // with intervals and runs, its errors those of by_context
    size_t n_runs;
    double *fitted_ns, *by_context_ns, *by_mix_ns; // [n_runs] predicted steps; NAN = not predicted
    struct kv_fit_errors fitted, by_context, by_mix;
    double sigma; // of the residuals, in units of the runs' own uncertainty
    size_t n_parameters, n_residuals;
    size_t n_warnings;
    char **warnings; // terms that the grid cannot separate, mixes that no other covers, ...
};

// Errors: KV_EFAIL when the runs hold several models, weights or thread counts (the message lists
// them), no shape, or fewer contexts than the fit needs.
KV_MUST_CHECK int kv_calibrate(struct kv_calibration **c, const struct kv_runs *runs,
                               const char *name, struct kv_error *e);
void kv_calibration_free(struct kv_calibration *c); // NULL is fine

// Price of a run's cell on a device; its bytes are the run's own, or those of its mix coded with an
// fp16 scale a head vector.
struct kv_latency kv_run_price(const struct kv_device *d, const struct kv_device_run *run);

KV_END_DECLS

#endif
