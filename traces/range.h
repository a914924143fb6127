// SPDX-License-Identifier: Apache-2.0
// A part of a trace's items, as studies take it.
#ifndef KV_TRACES_RANGE_H
#define KV_TRACES_RANGE_H

#include "policies/policy.h"

KV_BEGIN_DECLS

struct kv_item_range {
    size_t first, n; // counted from 0; no items: as the study says, mostly all
};

// Checks that the range lies within n_items; `name` is what KV_EUSAGE speaks of ("items").
KV_MUST_CHECK int kv_item_range_check(const struct kv_item_range *r, size_t n_items,
                                      const char *name, struct kv_error *e);

KV_END_DECLS

#endif
