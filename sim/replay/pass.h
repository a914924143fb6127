// SPDX-License-Identifier: Apache-2.0
// One forward pass that reads a decided cache: what exact replay's modes share.
//
//     struct kv_pass p;
//     kv_pass_init(&p, model, &tree);
//     p.spec = spec, p.cells = cells, ...
//     kv_forward(model, &(struct kv_forward){.store = kv_pass_store, .self = &p, ...}, s, &e);
//     kv_pass_fini(&p);
#ifndef KV_REPLAY_PASS_H
#define KV_REPLAY_PASS_H

#include "sim/model/forward.h"
#include "sim/replay/replay.h"

// One forward pass with a decided cache; the store hook's state.
struct kv_pass {
    const struct kv_model *m;
    const struct kv_replay_spec *spec; // NULL: fp16 everywhere (the prompt of the prefill modes)
    const struct kv_tree *tree;
    const uint8_t *cells;
    bool reads_exact;           // some query reads exact values
    uint32_t held_rows;         // leading rows that come as they are held and are read so
    uint32_t coded_segments;    // segments to code, context first; all of them unless set
    float *exact[2], *coded[2]; // [n_tokens][n_kv] K, V
    uint16_t *half;
    uint8_t *evicted; // [n_kv_heads][n_tokens]
    void *code_scratch;
    uint64_t *histogram; // [n_widths][256] codes made, for the ledger's entropy
    uint32_t *positions;
    float *features;     // [n_tokens][KV_N_FEATURES] gets ranges of exact K and V, or NULL
    uint32_t first_live; // the rows that do
    bool not_finite;     // set: something that attention read was not, so the states say nothing
    struct kv_layer_kv *kept; // [n_layers] where all rows' K and V go; NULL = not kept
};

void kv_pass_init(struct kv_pass *p, const struct kv_model *m, const struct kv_tree *t);
void kv_pass_fini(struct kv_pass *p);

// kv_forward's hook: rounds what is read exact, codes what is read coded, marks what is evicted.
int kv_pass_store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                  struct kv_layer_view *view, struct kv_error *e);

#endif
