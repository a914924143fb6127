// SPDX-License-Identifier: Apache-2.0
// Adds up outcomes by spec, fidelity and mode.
#include "analysis/studies/tally.h"

#include <stdlib.h>

#include "sim/base/memory.h"

struct sums {
    size_t n, left_out, scored, judged, right[KV_N_SCORERS], right_ref, agree;
    double kl_nats, nominal_bits, effective_bits, allocated_bits;
};

struct kv_tally {
    size_t n_specs, n_modes;
    const enum kv_mode *modes;
    struct kv_item_range items;
    struct sums *sums;                    // [exact, fisher][n_modes][n_specs]
    struct kv_attention_layer *attention; // [n_specs][items.n], when any was added
    bool *left_out; // [exact, fisher, attention][n_modes][n_specs][items.n] not finite
    struct kv_sweep_line *lines;
};

struct kv_tally *kv_tally_new(size_t n_specs, const enum kv_mode *modes, size_t n_modes,
                              const struct kv_item_range *items) {
    struct kv_tally *t = kv_alloc(1, sizeof *t);
    *t = (struct kv_tally){.n_specs = n_specs, .n_modes = n_modes, .modes = modes, .items = *items};
    t->sums = kv_alloc(2 * n_modes * n_specs, sizeof *t->sums);
    t->left_out = kv_alloc(3 * n_modes * n_specs * items->n, sizeof *t->left_out);
    t->lines = kv_alloc((2 * n_modes + 1) * n_specs, sizeof *t->lines);
    return t;
}

void kv_tally_free(struct kv_tally *t) {
    if (!t) return;
    free(t->sums);
    free(t->attention);
    free(t->left_out);
    free(t->lines);
    free(t);
}

// ---- adding ---------------------------------------------------------------------------

// Sums of fixed point numbers do not depend on their order.
static void add_exactly(double *sum, double x) {
    *sum += nearbyint(x * 0x1p40) * 0x1p-40;
}

void kv_tally_add(struct kv_tally *t, size_t spec, size_t item, enum kv_fidelity fidelity,
                  enum kv_mode mode, const struct kv_outcome *o) {
    size_t m = 0;
    while (m + 1 < t->n_modes && t->modes[m] != mode) m++;
    size_t line = ((size_t)(fidelity == KV_FISHER) * t->n_modes + m) * t->n_specs + spec;
    struct sums *at = &t->sums[line];
    at->n++;
    add_exactly(&at->nominal_bits, o->ledger.nominal_bits);
    add_exactly(&at->effective_bits, o->ledger.effective_bits);
    add_exactly(&at->allocated_bits, o->ledger.allocated_bits);
    if (!isfinite(o->kl_nats)) { // its bits are known, its quality is not
        at->left_out++;
        t->left_out[line * t->items.n + item - t->items.first] = true;
        return;
    }
    at->scored += o->n_scored; // KL is a scored token's, as in `show`
    add_exactly(&at->kl_nats, o->kl_nats * o->n_scored);
    if (o->gold < 0 || o->pick[KV_ACC] < 0) return;
    at->judged++;
    for (int s = 0; s < KV_N_SCORERS; s++) at->right[s] += o->pick[s] == o->gold;
    at->right_ref += o->pick_ref[KV_ACC] == o->gold;
    at->agree += o->pick[KV_ACC] == o->pick_ref[KV_ACC];
}

void kv_tally_add_attention(struct kv_tally *t, size_t spec, size_t item,
                            const struct kv_attention_layer *mean) {
    if (!t->attention) t->attention = kv_alloc(t->n_specs * t->items.n, sizeof *t->attention);
    t->attention[spec * t->items.n + item - t->items.first] = *mean;
    t->left_out[(2 * t->n_modes * t->n_specs + spec) * t->items.n + item - t->items.first] =
        !isfinite(mean->output + mean->kl_nats + mean->key + mean->value);
}

// ---- lines ----------------------------------------------------------------------------

static const struct kv_attention_layer unknown = {NAN, NAN, NAN, NAN, NAN};

static struct kv_sweep_line line_of(const struct sums *x) {
    double n = (double)x->n, judged = x->judged ? (double)x->judged : NAN;
    double acc = (double)x->right[KV_ACC] / judged;
    return (struct kv_sweep_line){.n = x->n,
                                  .n_left_out = x->left_out,
                                  .acc = acc,
                                  .acc_norm = (double)x->right[KV_ACC_NORM] / judged,
                                  .acc_ref = (double)x->right_ref / judged,
                                  .agree = (double)x->agree / judged,
                                  .acc_interval = x->judged ? kv_wilson(acc, judged, 0.95)
                                                            : (struct kv_interval){NAN, NAN},
                                  .kl_nats = x->kl_nats / (double)x->scored,
                                  .nominal_bits = x->nominal_bits / n,
                                  .effective_bits = x->effective_bits / n,
                                  .allocated_bits = x->allocated_bits / n,
                                  .attention = unknown};
}

// Of the items that are not left out; 0 / 0 = NAN where all are.
static struct kv_attention_layer mean_of(const struct kv_attention_layer *x, const bool *left_out,
                                         size_t n) {
    struct kv_attention_layer sum = {0};
    double by = 0;
    for (size_t i = 0; i < n; i++) {
        if (left_out[i]) continue;
        by++;
        sum.output += x[i].output;
        sum.kl_nats += x[i].kl_nats;
        sum.stretch += x[i].stretch;
        sum.key += x[i].key;
        sum.value += x[i].value;
    }
    return (struct kv_attention_layer){sum.output / by, sum.kl_nats / by, sum.stretch / by,
                                       sum.key / by, sum.value / by};
}

const struct kv_sweep_line *kv_tally_lines(struct kv_tally *t, size_t *n) {
    static const struct sums none = {0};
    size_t n_lines = t->n_modes * t->n_specs;
    *n = 0;
    for (size_t k = 0; k < 2 * n_lines; k++) {
        if (t->sums[k].n == 0) continue;
        struct kv_sweep_line *x = &t->lines[(*n)++];
        *x = line_of(&t->sums[k]);
        x->spec = k % t->n_specs;
        x->left_out = t->left_out + k * t->items.n;
        x->fidelity = k < n_lines ? KV_EXACT : KV_FISHER;
        x->mode = t->modes[k % n_lines / t->n_specs];
    }
    for (size_t i = 0; t->attention && i < t->n_specs; i++) {
        struct kv_sweep_line *x = &t->lines[(*n)++];
        *x = line_of(&none);
        x->spec = i;
        x->fidelity = KV_ATTENTION;
        x->mode = KV_INLINE;
        x->n = t->items.n;
        x->left_out = t->left_out + (2 * n_lines + i) * t->items.n;
        for (size_t k = 0; k < t->items.n; k++) x->n_left_out += x->left_out[k];
        x->attention = mean_of(t->attention + i * t->items.n, x->left_out, t->items.n);
    }
    return t->lines;
}
