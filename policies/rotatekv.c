// SPDX-License-Identifier: Apache-2.0
// rotatekv: tokens that own a layer's largest hidden activations stay wide in that layer's K and V.
// The pivot rule alone; the rotation that gives the method its name is a matter of the format.
#include "policies/policy.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_rotatekv;

enum { MAX_PIVOTS = 1024 };

static const struct kv_param params[] = {
    {"bits", KV_INT, "2", 1, 16, NULL, "bits", "width of all other tokens"},
    {"wide", KV_INT, "16", 1, 16, NULL, "bits", "width of pivot tokens"},
    {"pivots", KV_INT, "20", 0, MAX_PIVOTS, NULL, NULL,
     "largest entries of |hidden state| over the prompt's tokens and channels, for each layer"},
    {0}};

struct pivots {
    size_t n;
    uint8_t narrow, wide;
};

static int rotatekv_open(void **self, const struct kv_run *run, const struct kv_args *args,
                         struct kv_error *e) {
    struct pivots *p = calloc(1, sizeof *p);
    int narrow = kv_width_index(run, kv_number(args, "bits")),
        wide = kv_width_index(run, kv_number(args, "wide"));
    if (!p) return kv_fail(e, KV_ENOMEM, "rotatekv", "out of memory");
    *self = p;
    if (narrow < 0) return kv_width_refused(run, kv_number(args, "bits"), e);
    if (wide < 0) return kv_width_refused(run, kv_number(args, "wide"), e);
    p->narrow = (uint8_t)narrow;
    p->wide = (uint8_t)wide;
    p->n = (size_t)kv_number(args, "pivots");
    return 0;
}

struct entry {
    uint16_t size; // fp16 bits without the sign: they order as the values do
    uint32_t token;
};

// Keeps the `room` largest entries, the earlier one where they tie, in falling order.
static void keep_largest(struct entry *list, size_t *n, size_t room, struct entry x) {
    if (room == 0 || (*n == room && x.size <= list[*n - 1].size)) return;
    size_t at = *n < room ? (*n)++ : *n - 1;
    while (at > 0 && list[at - 1].size < x.size) {
        list[at] = list[at - 1];
        at--;
    }
    list[at] = x;
}

static int rotatekv_plan(void *self, const struct kv_item *item, uint8_t *cells,
                         struct kv_error *e) {
    const struct pivots *p = self;
    const struct kv_shape *s = &item->run->shape;
    size_t n_cells = kv_cells(s), per_layer = n_cells / s->n_layers;
    (void)e;
    memset(cells, p->narrow, item->n_tokens * n_cells);
    for (size_t l = 0; l < s->n_layers; l++) {
        struct entry list[MAX_PIVOTS];
        size_t n = 0;
        for (uint32_t t = 0; t < item->n_context; t++) {
            const uint16_t *h = item->hidden + ((size_t)t * s->n_layers + l) * s->hidden;
            for (size_t i = 0; i < s->hidden; i++)
                keep_largest(list, &n, p->n, (struct entry){h[i] & 0x7FFFu, t});
        }
        for (size_t i = 0; i < n; i++)
            memset(cells + list[i].token * n_cells + l * per_layer, p->wide, per_layer);
    }
    return 0;
}

static uint32_t rotatekv_options(void *self) {
    (void)self;
    return 2;
}

const struct kv_policy kv_policy_rotatekv = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "rotatekv",
    .summary = "tokens with a layer's largest hidden activations stay wide there",
    .citation = "RotateKV, arXiv 2501.16383 (its pivot tokens)",
    .tag = "approximate",
    .params = params,
    .varies = KV_VARIES_TOKEN | KV_VARIES_LAYER,
    .needs = KV_NEED_HIDDEN,
    .delay_tokens = KV_DELAY_PROMPT,
    .open = rotatekv_open,
    .plan = rotatekv_plan,
    .options_as_opened = rotatekv_options,
    .close = free,
    .published_mode = KV_PUBLISHED_INLINE,
};
