// SPDX-License-Identifier: Apache-2.0
// sinks: keeps the prompt's first and newest tokens and drops what lies between when it has been
// read.
#include "policies/policy.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_sinks;

static const struct kv_param params[] = {
    {"keep", KV_INT, "4", 0, 1e6, NULL, "tokens", "first tokens kept"},
    {"window", KV_INT, "32", 1, 1e6, NULL, "tokens", "newest tokens of the prompt kept"},
    {"bits", KV_INT, "16", 1, 16, NULL, "bits", "width of what is kept"},
    {0}};

struct sinks {
    uint32_t keep, window;
    uint8_t index;
    size_t cells;
};

static int sinks_open(void **self, const struct kv_run *run, const struct kv_args *args,
                      struct kv_error *e) {
    struct sinks *s = calloc(1, sizeof *s);
    int index = kv_width_index(run, kv_number(args, "bits"));
    if (!s) return kv_fail(e, KV_ENOMEM, "sinks", "out of memory");
    *self = s;
    if (index < 0) return kv_width_refused(run, kv_number(args, "bits"), e);
    s->keep = (uint32_t)kv_number(args, "keep");
    s->window = (uint32_t)kv_number(args, "window");
    s->index = (uint8_t)index;
    s->cells = kv_cells(&run->shape);
    return 0;
}

static int sinks_decide(void *self, const struct kv_item *item, size_t first, size_t n,
                        uint8_t *cells, struct kv_error *e) {
    const struct sinks *s = self;
    (void)e;
    for (size_t t = first; t < first + n; t++, cells += s->cells) {
        uint32_t pos = item->tokens[t].pos;
        bool gone = pos >= s->keep && pos + s->window < item->n_context;
        memset(cells, gone ? KV_EVICT : s->index, s->cells);
    }
    return 0;
}

static uint32_t sinks_options(void *self) {
    (void)self;
    return 1; // where a token lies says whether it was kept: no tags
}

const struct kv_policy kv_policy_sinks = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "sinks",
    .summary = "evicts what lies between the prompt's first and newest tokens; for mode=prefill",
    .citation = "StreamingLLM, arXiv 2309.17453 (here once, at the end of the prompt; kept tokens "
                "hold their positions)",
    .tag = "approximate",
    .params = params,
    .varies = KV_VARIES_TOKEN,
    .delay_tokens = KV_DELAY_PROMPT,
    .open = sinks_open,
    .decide = sinks_decide,
    .options_as_opened = sinks_options,
    .close = free,
    .published_mode = KV_PUBLISHED_PREFILL,
};
