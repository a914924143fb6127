// SPDX-License-Identifier: Apache-2.0
// The recording's pass over one item: the hooks of kv_forward, and what is read off the final
// states.
//
//     struct kv_item_pass *p = kv_item_pass_new(m, &item, keep);
//     kv_forward with .store = kv_item_pass_store, .observe = kv_item_pass_observe, .self = p
//     kv_item_pass_judge(p, scratch, final, rows, n_rows, next_logprob, score);
//     ... p->features, p->k ...;  kv_item_pass_free(p)
#ifndef KV_TRACES_ITEM_PASS_H
#define KV_TRACES_ITEM_PASS_H

#include "sim/model/forward.h"
#include "traces/trace.h"

// What a pass keeps of an item, arrays as in struct kv_trace_item; NULL = not asked for.
struct kv_item_pass {
    const struct kv_model *m;
    const struct kv_trace_item *item;
    float *exact_k, *exact_v; // [n_tokens][n_kv] rounded to fp16, of the layer at hand
    uint16_t *k, *v, *q, *hidden, *input;
    float *features;
    float *attention, *surprisal;  // of KV_KEEP_CELLS
    const float *norm_now, *q_now; // of the layer at hand
    bool refused;                  // store found what fp16 cannot hold
};

// keep: enum kv_keep bits. The model and the item are borrowed.
struct kv_item_pass *kv_item_pass_new(const struct kv_model *m, const struct kv_trace_item *item,
                                      uint32_t keep);
void kv_item_pass_free(struct kv_item_pass *p); // NULL is fine

// Hooks (forward.h); self is the pass. store rounds K and V to fp16 and refuses what fp16 cannot
// hold (KV_EFAIL naming item, layer, token and value).
void kv_item_pass_observe(void *self, uint32_t layer, const float *x, const float *norm,
                          const float *q, const struct kv_layer_kv *kv);
int kv_item_pass_store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                       struct kv_layer_view *view, struct kv_error *e);

// Features, next-token log-probs and surprisals of some rows of the final states
// [n_tokens][hidden], kv_head_rows at a time; scores too where they are not NULL. Scored rows go in
// one call and the rest in another, so that a replay meets products of the same shapes (forward.h).
void kv_item_pass_judge(const struct kv_item_pass *p, struct kv_scratch *s, const float *final,
                        const uint32_t *rows, size_t n_rows, float *next_logprob, double *score);

#endif
