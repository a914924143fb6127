// SPDX-License-Identifier: Apache-2.0
// Ranges of items.
#include "traces/range.h"

int kv_item_range_check(const struct kv_item_range *r, size_t n_items, const char *name,
                        struct kv_error *e) {
    if (r->first <= n_items && r->n <= n_items - r->first) return 0;
    return kv_fail(e, KV_EUSAGE, name, "%zu-%zu: A-B with A <= B <= %zu is expected", r->first,
                   r->first + r->n - 1, n_items - 1);
}
