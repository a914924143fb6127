// SPDX-License-Identifier: Apache-2.0
// layerwise: a width for each layer (or each KV head of each layer), keys and values apart, for all
// tokens. The shape of KVTuner's answer (arXiv 2502.04420) and of what llama.cpp's users ask for.
#include "policies/policy.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_layerwise;

static const struct kv_param params[] = {
    {"k", KV_LIST, NULL, 1, 16, NULL, "bits",
     "widths of keys, layer after layer; a shorter list repeats"},
    {"v", KV_LIST, "", 1, 16, NULL, "bits", "widths of values (default: those of keys)"},
    {"by", KV_CHOICE, "layer", 0, 0, "layer/head", NULL,
     "what the lists run over: layers, or the KV heads of all layers"},
    {0}};

struct layout {
    size_t cells;
    uint8_t token[]; // [cells] the same for every token
};

static int layerwise_open(void **self, const struct kv_run *run, const struct kv_args *args,
                          struct kv_error *e) {
    const struct kv_value *k = kv_arg(args, "k"), *v = kv_arg(args, "v");
    size_t cells = kv_cells(&run->shape), heads = run->shape.n_kv_heads;
    bool by_head = kv_number(args, "by") > 0;
    struct layout *l = calloc(1, sizeof *l + cells);
    if (!l) return kv_fail(e, KV_ENOMEM, "layerwise", "out of memory");
    *self = l;
    l->cells = cells;
    if (!v->given) v = k;
    for (size_t c = 0; c < cells; c++) {
        const struct kv_value *list = c & 1 ? v : k;
        size_t at = by_head ? c / 2 : c / 2 / heads;
        double bits = list->list[at % list->n_list];
        int index = kv_width_index(run, bits);
        if (index < 0) return kv_width_refused(run, bits, e);
        l->token[c] = (uint8_t)index;
    }
    return 0;
}

static int layerwise_plan(void *self, const struct kv_item *item, uint8_t *cells,
                          struct kv_error *e) {
    const struct layout *l = self;
    (void)e;
    for (size_t t = 0; t < item->n_tokens; t++) memcpy(cells + t * l->cells, l->token, l->cells);
    return 0;
}

const struct kv_policy kv_policy_layerwise = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "layerwise",
    .summary = "a width for each layer or KV head, keys and values apart, the same for all tokens",
    .citation = "KVTuner, arXiv 2502.04420 (the shape of its plans; its search is `tune`)",
    .tag = "baseline",
    .params = params,
    .varies = KV_VARIES_LAYER | KV_VARIES_HEAD | KV_VARIES_KV,
    .open = layerwise_open,
    .plan = layerwise_plan,
    .close = free,
};
