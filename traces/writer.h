// SPDX-License-Identifier: Apache-2.0
// Writing a trace folder: shards laid out before the model runs, filled by workers, sealed by a
// manifest.
//
//     kv_trace_writer_open(&w, dir, &info, how, items, n, &e);    sizes, free disk, shard files
//     if (!kv_trace_writer_holds(w, i, 0))                        an earlier run's work
//         kv_trace_writer_put(w, i, &item, 0, &e);                any worker, any order
//     kv_trace_writer_close(w, true, &e);                         checksums, then manifest.json
//
// Without its manifest a folder is no trace, so a killed run never looks like a finished one. What
// it wrote stays: opened again for the same recording, the writer tells which items are there
// (unfinished.h), and the finished folder has the same bytes as one that was written in one go.
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

// items give id, source, gold, boundaries and n_final; the rest comes with put. `how`: in words,
// what the bytes depend on besides info (processor, formats of tables); it must be equal for a
// recording to go on. Refuses a folder that holds a trace already, that another process records
// into or that holds another recording's beginning, and a disk without room.
KV_MUST_CHECK int kv_trace_writer_open(struct kv_trace_writer **w, const char *dir,
                                       const struct kv_trace_info *info, const char *how,
                                       const struct kv_trace_item *items, size_t n,
                                       struct kv_error *e);
// Items that are there: written by an earlier run or by this one.
size_t kv_trace_writer_done(const struct kv_trace_writer *w);
// Items that are there count for nothing any more: closing without finishing removes the files.
void kv_trace_writer_forget(struct kv_trace_writer *w);
// Whether item i is there whole: its bytes are read and compared. `beside`: a checksum of what the
// caller keeps of it beside the trace; 0 = nothing. Thread-safe.
bool kv_trace_writer_holds(const struct kv_trace_writer *w, size_t i, uint64_t beside);
// Writes everything kept of one item. Thread-safe.
KV_MUST_CHECK int kv_trace_writer_put(struct kv_trace_writer *w, size_t i,
                                      const struct kv_trace_item *item, uint64_t beside,
                                      struct kv_error *e);
// Ends the shards and tells the digest that the trace will have; close does so too.
KV_MUST_CHECK int kv_trace_writer_seal(struct kv_trace_writer *w, char digest[17],
                                       struct kv_error *e);
// Makes it a trace (finish), or leaves it for an equal run to go on with: a folder without one
// finished item is emptied. Frees the writer in any case.
KV_MUST_CHECK int kv_trace_writer_close(struct kv_trace_writer *w, bool finish, struct kv_error *e);

#endif
