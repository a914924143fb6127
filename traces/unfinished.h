// SPDX-License-Identifier: Apache-2.0
// A recording that is under way: who writes the folder, what was asked for, which items are there.
//
//     kv_unfinished_open(&u, dir, plan, n_items, &e)     takes the folder; finds what is there
//     kv_unfinished_mark(&u, i, sum, &e)                 any worker: item i is written, with this
//     sum kv_unfinished_close(&u, remove)                    lets go of the folder
//
// Two files lie beside the shards until the manifest seals them: recording.json, what was asked
// for, and recording.sums, a 64-bit checksum for each item's bytes (0 = not there). An item counts
// when its bytes have the sum that is written down, so the order in which a disk keeps things does
// not matter. The folder itself is locked (flock), which ends with the process that did it.
#ifndef KV_TRACES_UNFINISHED_H
#define KV_TRACES_UNFINISHED_H

#include <jansson.h>

#include "policies/policy.h"

struct kv_unfinished {
    char *dir;
    int lock, sums_fd;
    size_t n;
    uint64_t *sums; // [n]
    bool resumed;
};

// Errors: another process records into the folder; it holds another recording's beginning (the
// message names what differs); files that cannot be made.
KV_MUST_CHECK int kv_unfinished_open(struct kv_unfinished *u, const char *dir, const json_t *plan,
                                     size_t n, struct kv_error *e);
KV_MUST_CHECK int kv_unfinished_mark(struct kv_unfinished *u, size_t i, uint64_t sum,
                                     struct kv_error *e);
size_t kv_unfinished_count(const struct kv_unfinished *u); // items that are there
void kv_unfinished_close(struct kv_unfinished *u, bool remove);

#endif
