// SPDX-License-Identifier: Apache-2.0
// pmkvq: a layer begins at 16 bits and halves the width of all its tokens whenever its budget is
// full.
#include "policies/policy.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_pmkvq;

static const struct kv_param params[] = {
    {"tokens", KV_LIST, NULL, 1, 1e9, NULL, "tokens",
     "budget of each layer, as how many tokens it holds at 16 bits; a shorter list repeats"},
    {"least", KV_INT, "2", 1, 16, NULL, "bits", "width below which none is halved"},
    {0}};

struct halving {
    size_t n_layers, per_layer;
    double least;
    double *tokens; // [n_layers]
};

static int pmkvq_open(void **self, const struct kv_run *run, const struct kv_args *args,
                      struct kv_error *e) {
    const struct kv_value *tokens = kv_arg(args, "tokens");
    struct halving *h = calloc(1, sizeof *h);
    if (!h) return kv_fail(e, KV_ENOMEM, "pmkvq", "out of memory");
    *self = h;
    h->n_layers = run->shape.n_layers;
    h->per_layer = kv_cells(&run->shape) / h->n_layers;
    h->least = kv_number(args, "least");
    for (double bits = 16; bits >= h->least; bits /= 2)
        if (kv_width_index(run, bits) < 0) return kv_width_refused(run, bits, e);
    h->tokens = calloc(h->n_layers, sizeof *h->tokens);
    if (!h->tokens) return kv_fail(e, KV_ENOMEM, "pmkvq", "out of memory");
    for (size_t l = 0; l < h->n_layers; l++) h->tokens[l] = tokens->list[l % tokens->n_list];
    return 0;
}

// The width at which a layer's budget holds n tokens.
static double width_for(const struct halving *h, size_t layer, double n) {
    double bits = 16;
    while (n * bits > 16 * h->tokens[layer] && bits / 2 >= h->least) bits /= 2;
    return bits;
}

static int pmkvq_decide(void *self, const struct kv_item *item, size_t first, size_t n,
                        uint8_t *cells, struct kv_error *e) {
    const struct halving *h = self;
    (void)e;
    for (size_t t = first; t < first + n; t++)
        for (size_t l = 0; l < h->n_layers; l++, cells += h->per_layer) {
            // A prompt token is read when the whole prompt is there; a choice's token when it is.
            uint32_t there = item->tokens[t].segment ? item->tokens[t].pos + 1 : item->n_context;
            memset(cells, kv_width_index(item->run, width_for(h, l, there)), h->per_layer);
        }
    return 0;
}

static void pmkvq_close(void *self) {
    struct halving *h = self;
    if (h) free(h->tokens);
    free(h);
}

const struct kv_policy kv_policy_pmkvq = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "pmkvq",
    .summary = "a layer's width halves whenever its budget is full",
    .citation = "PM-KVQ, arXiv 2505.18610 (its schedule, budgets given; halved from the exact "
                "values, not from the codes; prompt tokens stay as they were at the branch)",
    .tag = "approximate",
    .params = params,
    .varies =
        KV_VARIES_LAYER | KV_VARIES_POSITION, // a width follows from position and length: no tags
    .delay_tokens = KV_DELAY_PROMPT,
    .open = pmkvq_open,
    .decide = pmkvq_decide,
    .close = pmkvq_close,
};
