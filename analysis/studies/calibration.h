// SPDX-License-Identifier: Apache-2.0
// What predictions of divergence are worth by the exact rows beside them: each predictor calibrated
// without the policy's own family, its errors, and what accuracy follows from divergence.
//
//     struct kv_kl_calibration c;
//     if (kv_kl_calibrate(&c, &study, KV_N_PREDICTORS, &e) == 0)
//         ... c.left_out[c.headline][i] beside study.at[i].kl ...
//     kv_kl_calibration_fini(&c);
//
// Functions of the study alone; arrays handed out are the caller's to free.
#ifndef KV_ANALYSIS_STUDIES_CALIBRATION_H
#define KV_ANALYSIS_STUDIES_CALIBRATION_H

#include "analysis/stats/agreement.h"
#include "analysis/studies/fidelity.h"

// Columns have the length n_exact of the study, logarithms are natural.
struct kv_kl_calibration {
    const struct kv_fidelity_study *study; // borrowed
    enum kv_predictor headline;            // the form that accuracy and agreement are told from
    int *family, *alone;                   // of each policy; a family of its own
    double *kl, *by[KV_N_PREDICTORS];      // exact; predicted
    double *left_out[KV_N_PREDICTORS];     // KL, calibrated without the policy's family
    // 5 % and 95 % quantile of exact / left_out; NAN below 20 policies, which cannot show them.
    double band[KV_N_PREDICTORS][2];
    struct kv_monotone *curve[KV_N_PREDICTORS]; // log exact of log predicted; NULL: too few
    struct kv_decline acc, agree;               // against the headline's left-out KL
    bool acc_known, agree_known;
};

// headline: a form that the study has, or KV_N_PREDICTORS for the best that it has: mended, else
// element, channel, else iso. Errors: KV_EFAIL for a form that the trace does not keep the makings
// of.
KV_MUST_CHECK int kv_kl_calibrate(struct kv_kl_calibration *c, const struct kv_fidelity_study *s,
                                  enum kv_predictor headline, struct kv_error *e);
void kv_kl_calibration_fini(struct kv_kl_calibration *c);

// ---- what follows, row by row ---------------------------------------------------------

// A policy that was run, in the study's order (n_exact), by the headline; acc and agree as told
// from its left-out KL.
struct kv_policy_told {
    const struct kv_fidelity_policy *policy;
    const char *family;
    double by, left_out, acc, agree;
};
struct kv_policy_told *kv_kl_policies_told(const struct kv_kl_calibration *c);

enum { KV_NEAR_3, KV_NEAR_4, KV_NEAR_5, KV_N_NEAR }; // bits whose neighbourhoods are ranked apart

// How a predictor agrees with exact divergence, among all policies or those inside validity.
struct kv_predictor_told {
    enum kv_predictor predictor;
    bool inside;                         // inside validity alone
    struct kv_agreement all;             // ratios NAN for rivals, which have units of their own
    struct kv_agreement near[KV_N_NEAR]; // within 0.15 bits of each; not told of inside
    double off_median, off_95;           // of |left_out / exact - 1|
};
struct kv_predictor_told *kv_kl_predictors_told(const struct kv_kl_calibration *c, size_t *n);

// How a form agrees from its first draws alone.
struct kv_draws_told {
    const char *form;
    size_t draws;
    struct kv_agreement all;
    double off_median;
};
struct kv_draws_told *kv_kl_draws_told(const struct kv_kl_calibration *c, size_t *n);

// How accuracy, or agreement with the 16-bit run, declines with exact KL or the left-out one.
struct kv_decline_told {
    const char *measure, *from;
    struct kv_decline decline;
    double off_median_points, off_95_points; // of |value - the fit without the policy|
};
struct kv_decline_told *kv_kl_declines_told(const struct kv_kl_calibration *c, size_t *n);

// What the calibration says of a policy that was not run; intervals of accuracy and agreement hold
// nine of ten policies.
struct kv_policy_foretold {
    const struct kv_fidelity_policy *policy;
    double by, kl, kl_low, kl_high;
    double acc, agree;
    struct kv_interval acc_in, agree_in;
};
struct kv_policy_foretold *kv_kl_policies_foretold(const struct kv_kl_calibration *c, size_t *n);

#endif
