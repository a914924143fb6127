// SPDX-License-Identifier: Apache-2.0
// Whether what a recording holds of an item is finite.
#ifndef KV_TRACES_NUMBERS_H
#define KV_TRACES_NUMBERS_H

#include "traces/trace.h"

// Tests every number of an item's columns of floats that are kept always or named in `keep` (enum
// kv_keep bits) and that the item points to. A next log-prob where nothing follows, and the spread
// of a single draw, are NaN by definition. Errors: KV_EFAIL naming item, column, token, layer and
// value; `where` stands before it.
KV_MUST_CHECK int kv_item_check_numbers(const struct kv_trace_info *info,
                                        const struct kv_trace_item *item, uint32_t keep,
                                        const char *where, struct kv_error *e);

#endif
