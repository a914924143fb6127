// SPDX-License-Identifier: Apache-2.0
// Shards of a sweep, and the one store that they come to.
//
//     kv_store_put_shard(s, run, &(struct kv_shard){1, 4}, first, n, &e);      each of four sweeps
//     kv_store_merge(paths, 4, "all.db", &count, &e);                          afterwards
#ifndef KV_STORE_MERGE_H
#define KV_STORE_MERGE_H

#include "sim/store/store.h"

KV_BEGIN_DECLS

// The part-th of `parts` equal shares, counted from 1: every parts-th item, so that each share has
// short and long ones. parts 0: everything.
struct kv_shard {
    uint32_t part, parts;
};
// Reads "2/4". Error: KV_EUSAGE under `where`.
KV_MUST_CHECK int kv_shard_read(const char *text, const char *where, struct kv_shard *shard,
                                struct kv_error *e);
// Whether the shard holds the item at this place among those that are shared.
bool kv_shard_holds(const struct kv_shard *shard, size_t place);

// Keeps that a run's items [first, first + n) are shared, and which part this store was to fill.
KV_MUST_CHECK int kv_store_put_shard(struct kv_store *s, long long run,
                                     const struct kv_shard *shard, size_t first, size_t n,
                                     struct kv_error *e);

// What a merged store holds, and how many shards of how many sweeps it lacks.
struct kv_merge_count {
    size_t runs, outcomes, missing;
};
// Makes the store `out` of others, which are only read; in the order given, so that stores of one
// sweep's shards give the rows, byte for byte, of the sweep that was not split. Said: recordings
// and builds that not all of them hold, shards that are missing or unfinished. Errors: a row that
// two stores hold with other values, named with its run, item and column; a spec of two names, a
// name of two specs; `out` is there already; those of kv_store_open. After an error there is no
// `out`.
KV_MUST_CHECK int kv_store_merge(const char *const *paths, size_t n_paths, const char *out,
                                 struct kv_merge_count *count, struct kv_error *e);

KV_END_DECLS

#endif
