// SPDX-License-Identifier: Apache-2.0
// Recording: tokenizes a benchmark, runs the model once over each item's tree, writes the trace.
#ifndef KV_TRACES_RECORD_H
#define KV_TRACES_RECORD_H

#include "sim/model/model.h"
#include "traces/tasks.h"
#include "traces/trace.h"

KV_BEGIN_DECLS

struct kv_record_options {
    const char *dir;
    uint32_t keep;                  // enum kv_keep bits
    size_t n;                       // draw n items with the seed; 0 = all
    size_t stride;                  // or every stride-th; 0 = all
    const char *ids_file;           // or those whose id stands alone on a line; NULL = all
    struct kv_adjoint_info adjoint; // used when keep asks for what gradients tell
    // Most bytes of activations that a worker remembers for the backward pass; beyond it they are
    // computed again, to the same bits. 0 = KV_TAPE_BYTES.
    size_t tape_bytes;
    // Formats whose damage tables (iso) are made while recording, so that neither K, V nor
    // sensitivities need be kept.
    const char *const *table_formats;
    size_t n_tables;
    // Format of the coding errors that KV_KEEP_CELLS records; NULL = asym:group=32.
    const char *cells_format;
    uint64_t seed;
    unsigned jobs;
};

// Writes a trace folder. Errors: no items left, a sequence longer than the model's context, text
// that is not UTF-8, disk full, interrupted, another process recording into the folder. Items that
// were finished stay: an equal call goes on with them, to the bytes of a call that was never
// stopped; a call that differs in anything that the bytes depend on is refused.
KV_MUST_CHECK int kv_record(const struct kv_model *m, const struct kv_tasks *tasks,
                            const struct kv_record_options *o, struct kv_error *e);

KV_END_DECLS

#endif
