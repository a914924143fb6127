// SPDX-License-Identifier: Apache-2.0
// threshold: a token's width by which of several cuts its feature has passed, the same for all
// layers and heads. The rule-based baseline of Don't Waste Bits.
#include "policies/policy.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_threshold;

enum { MAX_WIDTHS = KV_MAX_WIDTHS };

static const struct kv_param params[] = {
    {"feature", KV_CHOICE, "mean", 0, 0,
     "mean/entropy/confidence/rarity/attn-var/key-range/value-range", NULL,
     "what is compared; mean: of entropy, confidence, rarity and attention variance, each scaled "
     "to 0..1 between the recording's extremes"},
    {"bits", KV_LIST, "2/4/8/16", 1, 16, NULL, "bits",
     "widths below the first cut, between cuts, above the last: any order"},
    {"cuts", KV_LIST, "", 0, 0, NULL, NULL, "cuts in the feature's own unit, rising"},
    {"quantiles", KV_LIST, "", 0, 1, NULL, NULL,
     "cuts as shares of the recording's tokens, rising (default: equal shares)"},
    {0}};

// In the order of the choices above.
static const uint32_t features[] = {KV_MEAN_OF_FOUR, KV_ENTROPY_NATS, KV_CONFIDENCE, KV_RARITY_NATS,
                                    KV_ATTN_VAR,     KV_KEY_RANGE,    KV_VALUE_RANGE};

struct rule {
    uint32_t feature;
    bool absolute;
    size_t n;
    double cut[MAX_WIDTHS];
    uint8_t index[MAX_WIDTHS];
    size_t cells;
};

static int read_cuts(struct rule *r, const struct kv_value *cuts, const char *name,
                     struct kv_error *e) {
    if (cuts->n_list + 1 != r->n)
        return kv_fail(e, KV_EUSAGE, "policy threshold", "%zu widths need %zu %s, not %zu", r->n,
                       r->n - 1, name, cuts->n_list);
    for (size_t i = 0; i + 1 < r->n; i++) {
        r->cut[i] = cuts->list[i];
        if (i && r->cut[i] < r->cut[i - 1])
            return kv_fail(e, KV_EUSAGE, "policy threshold", "%s=%s: they must rise", name,
                           cuts->text);
    }
    return 0;
}

static int threshold_open(void **self, const struct kv_run *run, const struct kv_args *args,
                          struct kv_error *e) {
    const struct kv_value *bits = kv_arg(args, "bits"), *cuts = kv_arg(args, "cuts"),
                          *quantiles = kv_arg(args, "quantiles");
    struct rule *r = calloc(1, sizeof *r);
    if (!r) return kv_fail(e, KV_ENOMEM, "threshold", "out of memory");
    *self = r;
    r->feature = features[(size_t)kv_number(args, "feature")];
    r->absolute = cuts->given;
    r->n = bits->n_list;
    r->cells = kv_cells(&run->shape);
    if (r->n > MAX_WIDTHS)
        return kv_fail(e, KV_EUSAGE, "policy threshold", "bits: at most %d widths", MAX_WIDTHS);
    if (cuts->given && quantiles->given)
        return kv_fail(e, KV_EUSAGE, "policy threshold", "cuts and quantiles exclude each other");
    for (size_t i = 0; i < r->n; i++) {
        int index = kv_width_index(run, bits->list[i]);
        if (index < 0) return kv_width_refused(run, bits->list[i], e);
        r->index[i] = (uint8_t)index;
        r->cut[i] = (double)(i + 1) / (double)r->n;
    }
    if (cuts->given) return read_cuts(r, cuts, "cuts", e);
    return quantiles->given ? read_cuts(r, quantiles, "quantiles", e) : 0;
}

static int threshold_decide(void *self, const struct kv_item *item, size_t first, size_t n,
                            uint8_t *cells, struct kv_error *e) {
    const struct rule *r = self;
    double cut[MAX_WIDTHS];
    (void)e;
    for (size_t i = 0; i + 1 < r->n; i++)
        cut[i] = r->absolute ? r->cut[i]
                             : (double)kv_quantile_of(item->quantiles, r->feature, r->cut[i]);
    for (size_t t = first; t < first + n; t++, cells += r->cells) {
        const struct kv_token *token = &item->tokens[t];
        double x = r->feature == KV_MEAN_OF_FOUR ? (double)kv_mean_of_four(item->quantiles, token)
                                                 : (double)token->feature[r->feature];
        size_t i = 0;
        while (i + 1 < r->n && x >= cut[i]) i++;
        memset(cells, r->index[i], r->cells);
    }
    return 0;
}

static uint32_t threshold_needs(void *self) {
    const struct rule *r = self;
    if (r->feature == KV_MEAN_OF_FOUR)
        return KV_NEED_QUANTILES | KV_NEED(KV_ENTROPY_NATS) | KV_NEED(KV_CONFIDENCE) |
               KV_NEED(KV_RARITY_NATS) | KV_NEED(KV_ATTN_VAR);
    return KV_NEED(r->feature) | (r->absolute ? 0 : KV_NEED_QUANTILES);
}

static uint32_t threshold_options(void *self) {
    return (uint32_t)((const struct rule *)self)->n;
}

const struct kv_policy kv_policy_threshold = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "threshold",
    .summary = "a token's width by cuts on one feature, or on the mean of the four of the paper",
    .citation = "Don't Waste Bits, arXiv 2604.04722 (rule-based baseline; its cuts are not given, "
                "quartiles of the mean are those of its independent reproduction)",
    .tag = "approximate",
    .params = params,
    .varies = KV_VARIES_TOKEN,
    .needs = KV_NEED_QUANTILES | KV_NEED(KV_ENTROPY_NATS) | KV_NEED(KV_CONFIDENCE) |
             KV_NEED(KV_RARITY_NATS) | KV_NEED(KV_ATTN_VAR) | KV_NEED(KV_KEY_RANGE) |
             KV_NEED(KV_VALUE_RANGE),
    .open = threshold_open,
    .decide = threshold_decide,
    .options_as_opened = threshold_options,
    .needs_as_opened = threshold_needs,
    .close = free,
};
