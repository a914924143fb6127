// SPDX-License-Identifier: Apache-2.0
// Whether the numbers that a store holds are finite. kvsim stores none that is not; another program
// may have written or edited the file.
#ifndef KV_STORE_SOUND_H
#define KV_STORE_SOUND_H

#include "sim/store/store.h"

enum kv_store_extent {
    KV_STORE_ITEMS, // what means are taken of: outcomes of items and their shares of widths
    KV_STORE_ALL    // and choices, prices and measured runs
};

// Reads every number of these tables. Errors: KV_EFAIL with table, column, run and item of the
// first that is infinite or no number, and how many rows hold such (NaN cannot be stored: SQLite
// makes it NULL, which is "not known").
KV_MUST_CHECK int kv_store_check_numbers(struct kv_store *s, enum kv_store_extent extent,
                                         struct kv_error *e);

#endif
