// SPDX-License-Identifier: Apache-2.0
// context: a token's width by its position, the same for all layers and heads.
#include "policies/policy.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_context;

enum { MAX_WIDTHS = KV_MAX_WIDTHS };

static const struct kv_param params[] = {
    {"bits", KV_LIST, "16/4", 1, 16, NULL, "bits",
     "widths before the first cut, between cuts, from the last cut on"},
    {"cuts", KV_LIST, "4", 0, 1e6, NULL, NULL, "positions, rising; the first token is at 0"},
    {"unit", KV_CHOICE, "tokens", 0, 0, "tokens/share", NULL,
     "what cuts count: tokens, or shares of the prompt's length (1: where choices begin)"},
    {0}};

struct places {
    bool share;
    size_t n, cells;
    double cut[MAX_WIDTHS];
    uint8_t index[MAX_WIDTHS];
};

static int context_open(void **self, const struct kv_run *run, const struct kv_args *args,
                        struct kv_error *e) {
    const struct kv_value *bits = kv_arg(args, "bits"), *cuts = kv_arg(args, "cuts");
    struct places *p = calloc(1, sizeof *p);
    if (!p) return kv_fail(e, KV_ENOMEM, "context", "out of memory");
    *self = p;
    p->share = kv_number(args, "unit") > 0;
    p->n = bits->n_list;
    p->cells = kv_cells(&run->shape);
    if (p->n > MAX_WIDTHS || cuts->n_list + 1 != p->n)
        return kv_fail(e, KV_EUSAGE, "policy context",
                       "%zu widths (at most %d) need %zu cuts, not %zu", p->n, MAX_WIDTHS, p->n - 1,
                       cuts->n_list);
    for (size_t i = 0; i < p->n; i++) {
        int index = kv_width_index(run, bits->list[i]);
        if (index < 0) return kv_width_refused(run, bits->list[i], e);
        p->index[i] = (uint8_t)index;
        p->cut[i] = i + 1 < p->n ? cuts->list[i] : INFINITY;
        if (i && p->cut[i] < p->cut[i - 1])
            return kv_fail(e, KV_EUSAGE, "policy context", "cuts=%s: they must rise", cuts->text);
    }
    return 0;
}

static int context_decide(void *self, const struct kv_item *item, size_t first, size_t n,
                          uint8_t *cells, struct kv_error *e) {
    const struct places *p = self;
    (void)e;
    for (size_t t = first; t < first + n; t++, cells += p->cells) {
        double at = item->tokens[t].pos / (p->share ? (double)item->n_context : 1.0);
        size_t i = 0;
        while (at >= p->cut[i]) i++;
        memset(cells, p->index[i], p->cells);
    }
    return 0;
}

static uint32_t context_options(void *self) {
    (void)self;
    return 1; // where a token lies says its width: no tags
}

const struct kv_policy kv_policy_context = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "context",
    .summary = "a token's width by its position",
    .citation = "Don't Waste Bits, arXiv 2604.04722 (named there as future work)",
    .tag = "baseline",
    .params = params,
    .varies = KV_VARIES_TOKEN,
    .open = context_open,
    .decide = context_decide,
    .options_as_opened = context_options,
    .close = free,
};
