// SPDX-License-Identifier: Apache-2.0
// none: the cache stays in float32, not even rounded to fp16. What rounding itself costs is
// measured from here.
#include "policies/policy.h"

extern const struct kv_policy kv_policy_none;

static int none_open(void **self, const struct kv_run *run, const struct kv_args *args,
                     struct kv_error *e) {
    (void)self, (void)run, (void)args, (void)e;
    return 0;
}

static int none_plan(void *self, const struct kv_item *item, uint8_t *cells, struct kv_error *e) {
    const struct kv_run *run = item->run;
    (void)self, (void)e;
    memset(cells, KV_FLOAT32, item->n_tokens * kv_cells(&run->shape));
    return 0;
}

const struct kv_policy kv_policy_none = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "none",
    .summary = "keeps K and V in float32: no rounding at all",
    .tag = "baseline",
    .open = none_open,
    .plan = none_plan,
};
