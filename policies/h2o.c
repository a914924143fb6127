// SPDX-License-Identifier: Apache-2.0
// h2o: keeps the tokens that received most attention and the newest ones, and drops the rest of the
// prompt when it has been read.
#include "policies/attention.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_h2o;

static const struct kv_param params[] = {
    {"heavy", KV_FLOAT, "0.25", 0, 1, NULL, NULL,
     "share of the prompt kept for the attention it received"},
    {"recent", KV_FLOAT, "0.25", 0, 1, NULL, NULL, "share of the prompt kept for being newest"},
    {"bits", KV_INT, "16", 1, 16, NULL, "bits", "width of what is kept"},
    {"by", KV_CHOICE, "head", 0, 0, "head/token", NULL,
     "who chooses: each KV head of each layer, or the mean over all"},
    {0}};

struct h2o {
    double heavy, recent;
    uint8_t index;
    bool by_token;
};

static int h2o_open(void **self, const struct kv_run *run, const struct kv_args *args,
                    struct kv_error *e) {
    struct h2o *h = calloc(1, sizeof *h);
    int index = kv_width_index(run, kv_number(args, "bits"));
    if (!h) return kv_fail(e, KV_ENOMEM, "h2o", "out of memory");
    *self = h;
    if (index < 0) return kv_width_refused(run, kv_number(args, "bits"), e);
    h->index = (uint8_t)index;
    h->heavy = kv_number(args, "heavy");
    h->recent = kv_number(args, "recent");
    h->by_token = kv_number(args, "by") > 0;
    return 0;
}

// Marks which of the first n tokens stay: the newest, then the heaviest of the others (the earlier
// one where they tie). Budgets round down, as the authors' int() does; of a prompt shorter than
// 1 / share nothing stays.
static void choose(const struct h2o *h, const float *received, size_t n, bool *stays) {
    size_t recent = (size_t)(h->recent * (double)n), heavy = (size_t)(h->heavy * (double)n),
           old = n - recent;
    for (size_t t = 0; t < n; t++) stays[t] = t >= old;
    for (size_t k = 0; k < heavy && k < old; k++) {
        size_t best = n;
        for (size_t t = 0; t < old; t++)
            if (!stays[t] && (best == n || received[t] > received[best])) best = t;
        stays[best] = true;
    }
}

// Attention that each prompt token received from the prompt, summed over the KV head's query heads.
static void receive(const struct kv_item *item, size_t layer, size_t kv_head, float *keys, float *p,
                    float *received) {
    size_t per = item->run->shape.n_heads / item->run->shape.n_kv_heads;
    kv_attention_keys(item, layer, kv_head, keys);
    for (size_t t = 0; t < item->n_context; t++) received[t] = 0;
    for (size_t h = kv_head * per; h < (kv_head + 1) * per; h++)
        for (size_t row = 0; row < item->n_context; row++) {
            kv_attention_row(item, layer, h, row, keys, p);
            for (size_t t = 0; t <= row; t++) received[t] += p[t];
        }
}

static int h2o_plan(void *self, const struct kv_item *item, uint8_t *cells, struct kv_error *e) {
    const struct h2o *h = self;
    const struct kv_shape *s = &item->run->shape;
    size_t n = item->n_context, n_cells = kv_cells(s);
    float *keys = malloc((kv_attention_floats(item) + 2 * n) * sizeof *keys);
    bool *stays = malloc(n);
    memset(cells, h->index, item->n_tokens * n_cells);
    if (!keys || !stays) {
        free(keys);
        free(stays);
        return kv_fail(e, KV_ENOMEM, "h2o", "out of memory");
    }
    float *p = keys + kv_attention_floats(item), *received = p + n;
    for (size_t head = 0; head < n_cells / 2; head++) {
        if (!h->by_token)
            receive(item, head / s->n_kv_heads, head % s->n_kv_heads, keys, p, received);
        else
            for (size_t t = 0; t < n; t++) received[t] = item->tokens[t].feature[KV_ATTN_SO_FAR];
        choose(h, received, n, stays);
        for (size_t t = 0; t < n; t++)
            if (!stays[t]) memset(cells + t * n_cells + 2 * head, KV_EVICT, 2);
    }
    free(keys);
    free(stays);
    return 0;
}

static uint32_t h2o_needs(void *self) {
    return ((const struct h2o *)self)->by_token ? KV_NEED(KV_ATTN_SO_FAR) : KV_NEED_KV | KV_NEED_Q;
}

static uint32_t h2o_varies(void *self) {
    return KV_VARIES_TOKEN |
           (((const struct h2o *)self)->by_token ? 0 : KV_VARIES_LAYER | KV_VARIES_HEAD);
}

static uint32_t h2o_options(void *self) {
    (void)self;
    return 2; // kept or not
}

const struct kv_policy kv_policy_h2o = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "h2o",
    .summary = "evicts prompt tokens that received little attention; for mode=prefill",
    .citation = "H2O, arXiv 2306.14048 (here once, at the end of the prompt)",
    .tag = "approximate",
    .params = params,
    .varies = KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_HEAD,
    .needs = KV_NEED_KV | KV_NEED_Q | KV_NEED(KV_ATTN_SO_FAR),
    .delay_tokens = KV_DELAY_PROMPT,
    .open = h2o_open,
    .plan = h2o_plan,
    .varies_as_opened = h2o_varies,
    .options_as_opened = h2o_options,
    .needs_as_opened = h2o_needs,
    .close = free,
    .published_mode = KV_PUBLISHED_PREFILL,
};
