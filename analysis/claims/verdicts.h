// SPDX-License-Identifier: Apache-2.0
// What a store says of published claims: the quantity measured on its runs, with an interval, and
// the answer. What `verdict` prints and the report opens with.
#ifndef KV_ANALYSIS_CLAIMS_VERDICTS_H
#define KV_ANALYSIS_CLAIMS_VERDICTS_H

#include "analysis/claims/claim.h"
#include "sim/store/store.h"
#include "sim/cost/cost.h"

struct kv_verdict {
    const struct kv_claim *claim;
    enum kv_answer answer;
    bool here;               // measured on the claim's model, benchmark and device
    bool misfit;             // not measured: a spec of the claim does not fit the store's models
    enum kv_answer analogue; // what this model's figures would answer, whether here or not
    char *first, *second; // specs compared, short, the newest of several builds marked; NULL = the
                          // store holds none
    char *model, *benchmark, *device;
    const char *mode; // how the first was replayed, of kv_mode_names; NULL = no runs
    // Why that is no mode that the first or the second was published in, static text, NULL = it is;
    // published: the first's mode, NULL = not known.
    const char *mode_mismatch, *published;
    size_t n;                   // items in both
    double estimate, low, high; // in the quantity's unit, 95 %; NAN = nothing measured
    double items_needed;        // so many would tell with power 0.8, if the estimate is the truth
    char *because;              // one sentence
};

// Claims shipped with the program, reports/claims/NAME.claim; path of the i-th, NULL past the end.
const char *kv_shipped_claim(size_t i);
// Appends the claims of a file, or by name or path of a shipped one, to (*claims)[*n].
KV_MUST_CHECK int kv_claims_add(const char *name, struct kv_claim **claims, size_t *n,
                                struct kv_error *e);

// Judges claims[n_claims] on exact rows of the store: one verdict a claim and pair of specs, in
// order; a claim whose specs were not run, or do not fit
// the store's models, gets one that says so. device prices tokens (NULL:
// latency claims cannot be told). Of several traces those of the claim's model and benchmark are
// taken, else those of its benchmark, else all. Errors: KV_EUSAGE with file and line for a spec
// that is none.
KV_MUST_CHECK int kv_verdicts_judge(struct kv_store *s, const struct kv_claim *claims,
                                    size_t n_claims, struct kv_device *device, uint64_t seed,
                                    size_t draws, struct kv_verdict **verdicts, size_t *n,
                                    struct kv_error *e);
void kv_verdicts_free(struct kv_verdict *verdicts, size_t n);

#endif
