// SPDX-License-Identifier: Apache-2.0
// qkvshare(SPEC): another policy's widths on a prompt whose cache is handed from agent to agent and
// coded again each time. Its own rule for widths is not published, so its experiment stands here
// and not its rule.
#include "policies/policy.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_qkvshare;

static const struct kv_param params[] = {
    {"hops", KV_INT, "2", 1, 64, NULL, NULL,
     "times the prompt is coded: 1 = by its first owner alone"},
    {0}};

struct share {
    const struct kv_inner *inner;
    uint32_t hops;
};

static int qkvshare_open(void **self, const struct kv_run *run, const struct kv_args *args,
                         struct kv_error *e) {
    struct share *s = calloc(1, sizeof *s);
    if (!s) return kv_fail(e, KV_ENOMEM, "qkvshare", "out of memory");
    *self = s;
    s->inner = run->inner;
    s->hops = (uint32_t)kv_number(args, "hops");
    return 0;
}

static int qkvshare_plan(void *self, const struct kv_item *item, uint8_t *cells,
                         struct kv_error *e) {
    const struct share *s = self;
    return kv_ask(s->inner->policy, s->inner->self, item, cells, e);
}

static uint32_t qkvshare_hops(void *self) {
    return ((const struct share *)self)->hops;
}

static uint32_t qkvshare_varies(void *self) {
    return ((const struct share *)self)->inner->varies;
}

static uint32_t qkvshare_options(void *self) {
    return ((const struct share *)self)->inner->options;
}

const struct kv_policy kv_policy_qkvshare = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "qkvshare",
    .summary = "another policy's widths, the prompt's cache handed on and coded again each time",
    .citation = "QKVShare, arXiv 2605.03884 (its handoffs; its controller is not published)",
    .tag = "not published",
    .params = params,
    .wraps = true,
    .open = qkvshare_open,
    .plan = qkvshare_plan,
    .varies_as_opened = qkvshare_varies,
    .options_as_opened = qkvshare_options,
    .hops_as_opened = qkvshare_hops,
    .close = free,
};
