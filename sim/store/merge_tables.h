// SPDX-License-Identifier: Apache-2.0
// The tables of a store as its schema has them: enough to copy rows from one store to another,
// whatever tables there are.
#ifndef KV_STORE_MERGE_TABLES_H
#define KV_STORE_MERGE_TABLES_H

#include "sim/store/handle.h"

struct kv_merge_column {
    char *name;
    bool key;      // a part of what makes a row the same row in another store
    size_t refers; // the table whose id it holds; SIZE_MAX = none
};

struct kv_merge_table {
    char *name;
    bool has_id; // rows are numbered, each store in its own way; the number is no column here
    size_t n;
    struct kv_merge_column *column;
};

// All of them, each after those that it refers to. Caller frees.
KV_MUST_CHECK int kv_merge_tables_read(struct kv_store *s, struct kv_merge_table **tables,
                                       size_t *n, struct kv_error *e);
void kv_merge_tables_free(struct kv_merge_table *tables, size_t n);

#endif
