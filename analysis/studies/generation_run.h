// SPDX-License-Identifier: Apache-2.0
// Generating from a benchmark's prompts into a store, items beside each other; what the store holds
// is not generated again.
#ifndef KV_ANALYSIS_STUDIES_GENERATION_RUN_H
#define KV_ANALYSIS_STUDIES_GENERATION_RUN_H

#include "sim/base/outcome.h"
#include "sim/model/compute.h"
#include "sim/store/store.h"

KV_BEGIN_DECLS

struct kv_generation_options {
    const char *model, *tasks; // as kv_model_open and kv_tasks_load take them
    const char *const *specs;
    size_t n_specs;
    size_t n; // prompts drawn with the seed; 0 = all
    uint32_t tokens;
    double temperature;
    bool ends;        // the model's own end of text ends a sequence
    const char *stop; // text that ends one; NULL: where the task's harness stops, if it says so
    enum kv_mode mode;
    enum kv_self self;
    enum kv_compute compute; // what does the products; rows stand apart by it
    uint64_t seed;
    unsigned jobs;
    const char *db;
};

struct kv_generation_done {
    size_t n_prompts, n_specs;
    size_t generated, held; // sequences of a spec: made now, and there before
};

// A prompt is an item's context, or a window of text. Where tasks have answers these are
// judged: GSM8K's by the harness's filters (traces/gsm8k.h), a needle's or a pair's by its number.
// Errors: KV_EUSAGE for a spec that reads what only a recording has; prompts and tokens longer than
// the model's context; those of kv_model_compute; interrupted (what was finished is stored).
KV_MUST_CHECK int kv_generation_run(const struct kv_generation_options *o,
                                    struct kv_generation_done *done, struct kv_error *e);

KV_END_DECLS

#endif
