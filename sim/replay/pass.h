// SPDX-License-Identifier: Apache-2.0
// One forward pass with a decided cache: what the model's attention reads where a policy has chosen
// (private to sim/replay).
//
//     struct kv_pass p;
//     kv_pass_init(&p, m, &tree);              then set spec, cells, code_scratch and what is
//     wanted kv_forward(m, &(struct kv_forward){.tree = &tree, .store = kv_pass_store, .self = &p,
//     ...}); kv_pass_fini(&p);
#ifndef KV_REPLAY_PASS_H
#define KV_REPLAY_PASS_H

#include "sim/model/forward.h"
#include "sim/replay/spec.h"

struct kv_pass {
    const struct kv_model *m;
    const struct kv_replay_spec *spec; // NULL: fp16 everywhere (the prompt of the prefill modes)
    const struct kv_tree *tree;
    const uint8_t *cells;
    bool reads_exact;           // some query reads exact values
    float *exact[2], *coded[2]; // [n_tokens][n_kv] K, V
    uint16_t *half;
    uint8_t *evicted; // [n_kv_heads][n_tokens]
    void *code_scratch;
    uint64_t *histogram; // [n_widths][256] codes made, for the ledger's entropy
    uint32_t *positions;
    struct kv_layer_kv *kept; // [n_layers] where the prompt's K and V go; NULL = not kept
};

// Buffers for a tree, which is borrowed as the model is; all else zero. kv_pass_fini frees
// code_scratch and histogram too.
void kv_pass_init(struct kv_pass *p, const struct kv_model *m, const struct kv_tree *t);
void kv_pass_fini(struct kv_pass *p);
// kv_forward's store hook. Errors: kv_code_rows'.
KV_MUST_CHECK int kv_pass_store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                                struct kv_layer_view *view, struct kv_error *e);

#endif
