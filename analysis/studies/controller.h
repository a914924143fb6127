// SPDX-License-Identifier: Apache-2.0
// Controllers of policy mlp, trained on a recording and written to files that the policy reads.
//
//     struct kv_controller c = {.labels = KV_TRAIN_LABELS_QUARTILE, .alpha = 1, .beta = 0.1, .gamma
//     = 0.1}; struct kv_controller_options o = {.format = "sym", .bits = bits, .n_bits = 4, ...};
//     kv_train_defaults(&o.train);
//     if (kv_controllers_train(&c, 1, trace, &o, &e) == 0)
//         ... replay c.spec, "mlp:bits=2/4/8/16,weights=FILE@sym" ...
//     kv_controllers_fini(&c, 1);
#ifndef KV_ANALYSIS_STUDIES_CONTROLLER_H
#define KV_ANALYSIS_STUDIES_CONTROLLER_H

#include "analysis/search/train.h"
#include "analysis/studies/worth.h"
#include "policies/weights.h"
#include "traces/trace.h"

// What a token should get: by quartile of the mean of its features, or the narrowest width whose
// expected damage stays under a bound.
enum kv_train_labels { KV_TRAIN_LABELS_QUARTILE, KV_TRAIN_LABELS_ORACLE };
extern const char *const kv_train_labels_names[]; // "quartile", "oracle", NULL

struct kv_controller_options {
    const char *format; // whose damage counts
    const double *bits; // [n_bits] widths to choose from, rising
    size_t n_bits;      // from 2 to KV_TRAIN_MAX_CLASSES
    // [n_bits] 0..1, or NULL for the latency on a device with everything at each width, as a share
    // of the widest's; and exp(-KL) of storing everything at it, as the sensitivities foretell.
    const double *latency, *quality;
    const char *device;            // NULL = the first that is shipped
    double context;                // tokens at which its latency counts
    double bound;                  // nats, of oracle labels: damage a token may do, its units alike
    struct kv_train_options train; // all but the weights of the loss
    const char *out;               // file of the weights; a folder when several are trained
    unsigned jobs;                 // threads
    enum kv_net_grain grain;       // what shares a class; other than a token's: oracle labels
};

struct kv_controller {
    enum kv_train_labels labels; // in
    double alpha, beta, gamma;   // in: weights of the loss, at least 0
    char *path, *spec;           // out: the file written; the policy that reads it
    struct kv_train_result result;
    double share[KV_TRAIN_MAX_CLASSES], mean_bits; // of the widths that it picks on all tokens
    struct kv_worth worth; // on the reported items; n 0: the trace holds no sensitivities, or
                           // a token has several widths, which the threshold rule has not
};

// "better than the threshold rule", "no better than ...", or that it cannot be told.
const char *kv_controller_verdict(const struct kv_controller *c);

// Trains n networks one after the other and writes each; of several, OUT/mlp.sweep lists the specs.
// Free what came of it with kv_controllers_fini, also after an error. Errors: KV_EUSAGE for widths
// that the format does not offer or that do not rise; a trace without what damage needs; KV_EINTR
// between networks.
KV_MUST_CHECK int kv_controllers_train(struct kv_controller *c, size_t n,
                                       const struct kv_trace *trace,
                                       const struct kv_controller_options *o, struct kv_error *e);
void kv_controllers_fini(struct kv_controller *c, size_t n);

#endif
