// SPDX-License-Identifier: Apache-2.0
// Attention replay: what coding does to each layer's attention, from recorded Q, K and V alone.
//
//     kv_replay_attention(&r, jobs, take, self, &e);      calls take once for each item and spec
//
// Recorded K and V (fp16) are the reference; every layer reads its own recorded queries, so errors
// do not travel from layer to layer. Attention's relative output error is KVTuner's objective
// (arXiv 2502.04420, section 4) and with the divergence of attention rows a diagnosis of where a
// policy hurts; as predictors of the model's divergence they are the rivals of fisher replay
// (sim/replay/fisher.h).
#ifndef KV_REPLAY_ATTENTION_H
#define KV_REPLAY_ATTENTION_H

#include "sim/replay/replay.h"

KV_BEGIN_DECLS

// One layer's means over the item's query rows and query heads, or the means of these over layers.
// Squares, so that they grow as divergence does: with the square of the coding error.
struct kv_attention_layer {
    double output; // |o' - o|^2 / |o|^2, o a head's attention output
    double
        kl_nats; // KL(a || a'), a the head's softmax weights; evicted positions count as in output
    // Sum over rows and heads of |o' - o|^2 over the same sum to first order in the errors of keys
    // and values; 1 where both are 0. Far from 1, scores err beyond the softmax's linear range: a
    // few coarse keys among fine ones draw attention to themselves, since exp is convex. Fisher
    // replay is first order and does not see that; a layer's damage times its stretch does.
    double stretch;
    double key, value; // |e|^2 / |x|^2 of the layer's keys and values, mean over rows and KV heads
};

struct kv_attention_error {
    struct kv_attention_layer mean;
    size_t n_layers;
    const struct kv_attention_layer *layer; // [n_layers], borrowed for the call
};

// Replays r->specs over r's items; r->mode and r->model are not read: every query reads coded
// values (own step as r->self_exact says), windows and open groups of tokens exact. The callback
// comes from any worker, one at a time. Errors: a trace that keeps no K, V or Q; a policy's own.
KV_MUST_CHECK int kv_replay_attention(const struct kv_replay *r, unsigned jobs,
                                      int (*take)(void *self, size_t item, size_t spec,
                                                  const struct kv_attention_error *x,
                                                  struct kv_error *e),
                                      void *self, struct kv_error *e);

// Whether a trace keeps what attention replay needs; the same error.
KV_MUST_CHECK int kv_attention_answers(const struct kv_trace_info *info, struct kv_error *e);

KV_END_DECLS

#endif
