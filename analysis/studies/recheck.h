// SPDX-License-Identifier: Apache-2.0
// Some outcomes of a store run again and compared with what is stored. What `verify STORE` does.
#ifndef KV_ANALYSIS_STUDIES_RECHECK_H
#define KV_ANALYSIS_STUDIES_RECHECK_H

#include "sim/store/store.h"

KV_BEGIN_DECLS

// Stored on another processor level or BLAS core, or by other products, an outcome counts as the
// same within this: of a choice's log-prob and of KL, in nats. (Rounding apart moves log-probs of
// 135M-parameter models by some 1e-4; a code that flips moves more, so the bound is wide.)
#define KV_RECHECK_NATS 0.05

struct kv_recheck_options {
    const char *model;         // that exact outcomes run; NULL = none
    const char *const *traces; // folders besides those that the store names
    size_t n_traces;
    size_t n; // outcomes to draw
    uint64_t seed;
    unsigned jobs;
};

struct kv_recheck {
    size_t n_stored, n_drawn;
    size_t n_equal;                            // bit for bit, same processor level and BLAS core
    size_t n_near;                             // within KV_RECHECK_NATS, stored on others
    size_t n_no_trace, n_no_model, n_not_here; // not run: no recording, no model, an accelerator's
    char trace[512];                           // the first recording that was not found
    char model[448];                           // why the first exact outcome had no model
};

// Errors: KV_EFAIL with label, item and both values where an outcome differs; those of replay.
KV_MUST_CHECK int kv_recheck(struct kv_recheck *r, struct kv_store *s,
                             const struct kv_recheck_options *o, struct kv_error *e);

KV_END_DECLS

#endif
