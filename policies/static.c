// SPDX-License-Identifier: Apache-2.0
// static: one width for all keys and one for all values, for every token, layer and head.
#include "policies/policy.h"

extern const struct kv_policy kv_policy_static;

#include <stdlib.h>

static const struct kv_param params[] = {
    {"bits", KV_INT, "", 1, 16, NULL, "bits",
     "width of keys and values (default: 4, or the format's only width)"},
    {"k", KV_INT, "", 1, 16, NULL, "bits", "width of keys, where it differs from bits"},
    {"v", KV_INT, "", 1, 16, NULL, "bits", "width of values, where it differs from bits"},
    {0}};

struct fixed {
    uint8_t index[2]; // keys, values
};

static int static_open(void **self, const struct kv_run *run, const struct kv_args *args,
                       struct kv_error *e) {
    const struct kv_value *bits = kv_arg(args, "bits"),
                          *side[2] = {kv_arg(args, "k"), kv_arg(args, "v")};
    double fallback = kv_width_index(run, 4) >= 0 ? 4 : run->width_bits[0];
    struct fixed *f = calloc(1, sizeof *f);
    if (!f) return kv_fail(e, KV_ENOMEM, "static", "out of memory");
    *self = f;
    if (bits->given && side[KV_KEY]->given && side[KV_VALUE]->given)
        return kv_fail(e, KV_EUSAGE, "policy static", "bits says nothing beside both k and v");
    for (int s = 0; s < 2; s++) {
        double want = side[s]->given ? side[s]->number : bits->given ? bits->number : fallback;
        int index = kv_width_index(run, want);
        if (index < 0) return kv_width_refused(run, want, e);
        f->index[s] = (uint8_t)index;
    }
    return 0;
}

static int static_plan(void *self, const struct kv_item *item, uint8_t *cells, struct kv_error *e) {
    const struct fixed *f = self;
    size_t n = item->n_tokens * kv_cells(&item->run->shape);
    (void)e;
    for (size_t i = 0; i < n; i++) cells[i] = f->index[i & 1];
    return 0;
}

// Equal spellings are one policy: bits=4, k=4 with bits=4, and k=4,v=4.
static void static_canonical(void *self, const struct kv_run *run, char *text, size_t room) {
    const struct fixed *f = self;
    snprintf(text, room, "static:k=%u,v=%u", run->width_bits[f->index[KV_KEY]],
             run->width_bits[f->index[KV_VALUE]]);
}

const struct kv_policy kv_policy_static = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "static",
    .summary = "one width for keys and one for values, the same everywhere",
    .tag = "baseline",
    .params = params,
    .varies = KV_VARIES_KV,
    .open = static_open,
    .plan = static_plan,
    .canonical = static_canonical,
    .close = free,
};
