// SPDX-License-Identifier: Apache-2.0
// Writing a trace folder: shards laid out before the model runs, filled by workers, sealed by a
// manifest.
//
//     kv_trace_writer_open(&w, dir, &info, items, n, &e);      sizes, free disk, shard files
//     kv_trace_writer_put(w, i, &item, &e);                    any worker, any order
//     kv_trace_writer_close(w, &e);                            checksums, then manifest.json
//
// Without its manifest a folder is no trace, so a killed run never looks like a finished one.
#ifndef KV_TRACES_WRITER_H
#define KV_TRACES_WRITER_H

#include "traces/trace.h"

struct kv_trace_writer;

// Bytes a token and bytes in all that the items will take under info->keep.
struct kv_trace_size {
    uint64_t total_bytes;
    double bytes_per_token;
};
struct kv_trace_size kv_trace_size(const struct kv_trace_info *info,
                                   const struct kv_trace_item *items, size_t n);

// items give id, source, gold, boundaries and n_final; the rest comes with put. Refuses a folder
// that holds a trace already, and a disk without room.
KV_MUST_CHECK int kv_trace_writer_open(struct kv_trace_writer **w, const char *dir,
                                       const struct kv_trace_info *info,
                                       const struct kv_trace_item *items, size_t n,
                                       struct kv_error *e);
// Writes everything kept of one item. Thread-safe.
KV_MUST_CHECK int kv_trace_writer_put(struct kv_trace_writer *w, size_t i,
                                      const struct kv_trace_item *item, struct kv_error *e);
// Seals the trace (finish = true) or removes what was written. Frees the writer in any case.
KV_MUST_CHECK int kv_trace_writer_close(struct kv_trace_writer *w, bool finish, struct kv_error *e);

#endif
