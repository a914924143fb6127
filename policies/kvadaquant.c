// SPDX-License-Identifier: Apache-2.0
// kvadaquant: a width for each layer's keys and values, bits spent greedily where the norm of the
// projection says that they save most error. Looks at weights alone.
#include "policies/policy.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_kvadaquant;

static const struct kv_param params[] = {
    {"bits", KV_FLOAT, NULL, 1, 16, NULL, "bits", "mean width over all layers' keys and values"},
    {"widths", KV_LIST, "", 1, 16, NULL, "bits",
     "widths to choose from, rising (default: all offered up to 8)"},
    {0}};

struct greedy {
    double bits;
    size_t n;
    double width[KV_MAX_WIDTHS];
    uint8_t index[KV_MAX_WIDTHS];
};

static int kvadaquant_open(void **self, const struct kv_run *run, const struct kv_args *args,
                           struct kv_error *e) {
    const struct kv_value *widths = kv_arg(args, "widths");
    struct greedy *g = calloc(1, sizeof *g);
    size_t n = widths->given ? widths->n_list : run->n_widths;
    if (!g) return kv_fail(e, KV_ENOMEM, "kvadaquant", "out of memory");
    *self = g;
    g->bits = kv_number(args, "bits");
    if (n > KV_MAX_WIDTHS)
        return kv_fail(e, KV_EUSAGE, "policy kvadaquant", "widths: at most %d", KV_MAX_WIDTHS);
    for (size_t i = 0; i < n; i++) {
        double bits = widths->given ? widths->list[i] : run->width_bits[i];
        int index = kv_width_index(run, bits);
        if (index < 0) return kv_width_refused(run, bits, e);
        if (!widths->given && bits > 8) continue;
        if (g->n && bits <= g->width[g->n - 1])
            return kv_fail(e, KV_EUSAGE, "policy kvadaquant", "widths=%s: they must rise",
                           widths->text);
        g->width[g->n] = bits;
        g->index[g->n++] = (uint8_t)index;
    }
    if (g->n == 0 || g->bits < g->width[0])
        return kv_fail(e, KV_EUSAGE, "policy kvadaquant",
                       "bits=%g: no width to choose from is that narrow", g->bits);
    return 0;
}

// Tensors in the order K0, V0, K1, V1, ...; each begins at the narrowest width. The step to the
// next width that saves most of norm^2 4^-bits a bit is taken while it fits, the earlier one where
// two save alike.
static void spend(const struct greedy *g, const float *norms, size_t n_tensors, uint8_t *at) {
    double left = (double)n_tensors * (g->bits - g->width[0]);
    memset(at, 0, n_tensors);
    for (;;) {
        size_t best = n_tensors;
        double most = 0;
        for (size_t i = 0; i < n_tensors; i++) {
            if (at[i] + 1u >= g->n) continue;
            double from = g->width[at[i]], to = g->width[at[i] + 1], c = pow((double)norms[i], 2),
                   gain = c * (pow(4, -from) - pow(4, -to)) / (to - from);
            if (to - from > left + 1e-9 || !(gain > most)) continue;
            most = gain;
            best = i;
        }
        if (best == n_tensors) return;
        left -= g->width[at[best] + 1] - g->width[at[best]];
        at[best]++;
    }
}

static int kvadaquant_plan(void *self, const struct kv_item *item, uint8_t *cells,
                           struct kv_error *e) {
    const struct greedy *g = self;
    const struct kv_shape *s = &item->run->shape;
    size_t n = 2 * (size_t)s->n_layers, n_cells = kv_cells(s);
    uint8_t *at = malloc(n);
    if (!at) return kv_fail(e, KV_ENOMEM, "kvadaquant", "out of memory");
    spend(g, item->norms, n, at);
    for (size_t t = 0; t < item->n_tokens; t++)
        for (size_t c = 0; c < n_cells; c++)
            cells[t * n_cells + c] = g->index[at[c / (2 * s->n_kv_heads) * 2 + (c & 1)]];
    free(at);
    return 0;
}

const struct kv_policy kv_policy_kvadaquant = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "kvadaquant",
    .summary = "widths of layers' keys and values by the norms of their projections",
    .citation = "KV-AdaQuant, arXiv 2502.15075 (greedy over Frobenius norms; its HQQ is a format)",
    .tag = "faithful",
    .params = params,
    .varies = KV_VARIES_LAYER | KV_VARIES_KV,
    .needs = KV_NEED_NORMS,
    .open = kvadaquant_open,
    .plan = kvadaquant_plan,
    .close = free,
    .published_mode = KV_PUBLISHED_REQUANT,
};
