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
#include "sim/replay/layered.h"

// What a layer's projections read and the queries that came of it: [rows][hidden], [rows][n_heads *
// head_dim].
struct kv_pass_rows {
    float *input, *q;
};

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
    // A policy that decides by layers: answers go to layered_cells, which `cells` reads. Needs
    // kv_pass_observe as the pass's observer.
    struct kv_layered *layered;
    uint8_t *layered_cells;
    size_t aged;                       // revisions of the layer at hand that are stored already
    uint32_t first_row;                // rows below are not computed by this pass
    const struct kv_pass_rows *before; // [n_layers] what was observed of them, or NULL
    struct kv_pass_rows *seen;         // [n_layers] where what was observed goes; NULL = not kept
    struct kv_pass_rows now;           // of the layer at hand, all rows
};

void kv_pass_init(struct kv_pass *p, const struct kv_model *m, const struct kv_tree *t);
void kv_pass_fini(struct kv_pass *p);
// Lets the pass decide as it goes: answers go to cells, those of the end where the policy revises
// (then kv_pass_age is the pass's hook of ageing). before: [n_layers] of the rows below
// first_row, which the pass does not compute; NULL where there are none.
void kv_pass_layered(struct kv_pass *p, struct kv_layered *y, uint8_t *cells, uint32_t first_row,
                     const struct kv_pass_rows *before);

// kv_forward's observer: keeps what deciding by layers needs.
void kv_pass_observe(void *self, uint32_t layer, const float *x, const float *norm, const float *q,
                     const struct kv_layer_kv *kv);

// kv_forward's hook: rounds what is read exact, codes what is read coded, marks what is evicted.
int kv_pass_store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                  struct kv_layer_view *view, struct kv_error *e);
// kv_forward's hook of ageing: codes again, in place, what was lowered before the query at
// `position`.
int kv_pass_age(void *self, uint32_t layer, uint32_t position, struct kv_error *e);

#endif
