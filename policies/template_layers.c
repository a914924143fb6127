// SPDX-License-Identifier: Apache-2.0
// template_layers: a policy to copy that decides inside the running pass. Each cell gets the
// narrowest width whose coding error is at most `error` of its vector's energy; once a token is
// `keep` tokens old, its cells are lowered to `old` bits.
//
// It is built and named as template.c says:
//
//     cc -std=c17 -O2 -fPIC -shared -I. -o work/mine.so policies/template_layers.c
//     build/kvsim replay work/samples.trace work/mine.so:keep=64@asym:group=32
#include "policies/policy.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_template_layers;

static const struct kv_param params[] = {
    {"error", KV_FLOAT, "0.01", 0, 1, NULL, NULL, "coding error allowed, of the vector's energy"},
    {"keep", KV_INT, "256", 0, 1e6, NULL, "tokens", "age from which cells are lowered"},
    {"old", KV_INT, "3", 1, 16, NULL, "bits", "width that they are lowered to"},
    {0}};

// What open learns. Workers decide at once, so it is read-only from then on; what must be
// remembered along a sequence is `state` (layer_state_bytes), of which this policy needs none.
struct mine {
    double error;
    size_t keep, n_heads, dim, n_widths;
    uint8_t old; // an index into run->width_bits, as all answers
};

static int mine_open(void **self, const struct kv_run *run, const struct kv_args *args,
                     struct kv_error *e) {
    int old = kv_width_index(run, kv_number(args, "old"));
    struct mine *m = calloc(1, sizeof *m);
    if (!m) return kv_fail(e, KV_ENOMEM, "template_layers", "out of memory");
    *self = m; // freed by close, also when open fails below
    if (old < 0) return kv_width_refused(run, kv_number(args, "old"), e);
    *m = (struct mine){.error = kv_number(args, "error"),
                       .keep = (size_t)kv_number(args, "keep"),
                       .n_heads = run->shape.n_kv_heads,
                       .dim = run->shape.head_dim,
                       .n_widths = run->n_widths,
                       .old = (uint8_t)old};
    return 0;
}

// Rows of one layer, when it codes them: cells[rows->n][n_kv_heads][2].
static int mine_decide_layer(void *self, const struct kv_layer_rows *rows, void *state,
                             uint8_t *cells, struct kv_error *e) {
    const struct mine *m = self;
    (void)state, (void)e;
    for (size_t i = 0; i < rows->n * m->n_heads * 2; i++) {
        const float *x = (i % 2 == KV_KEY ? rows->k : rows->v) + i / 2 * m->dim;
        const float *error = rows->error + i * m->n_widths;
        double energy = 0;
        for (size_t c = 0; c < m->dim; c++) energy += (double)x[c] * (double)x[c];
        uint8_t w = 0;
        while (w + 1u < m->n_widths && (double)error[w] > m->error * energy) w++;
        cells[i] = w;
    }
    return 0;
}

// Every KV_REVISE_TOKENS tokens: cells[ages->n][n_kv_heads][2] as they are stored, to be lowered.
static int mine_revise(void *self, const struct kv_layer_ages *ages, void *state, uint8_t *cells,
                       struct kv_error *e) {
    const struct mine *m = self;
    size_t old_tokens = ages->n > m->keep ? ages->n - m->keep : 0;
    (void)state, (void)e;
    for (size_t i = 0; i < old_tokens * m->n_heads * 2; i++)
        if (cells[i] > m->old) cells[i] = m->old; // never wider than it is
    return 0;
}

const struct kv_policy kv_policy_template_layers = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "template_layers",
    .summary = "bounds each cell's coding error and lowers old tokens",
    .citation = NULL,
    .tag = "baseline",
    .params = params,
    .varies = KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_HEAD | KV_VARIES_KV,
    .open = mine_open,
    .close = free,
    .decide_layer = mine_decide_layer,
    .revise = mine_revise,
};

const struct kv_policy *kv_policy_entry(uint32_t host_abi) {
    return host_abi == KV_POLICY_ABI ? &kv_policy_template_layers : NULL;
}
