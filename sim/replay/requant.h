// SPDX-License-Identifier: Apache-2.0
// Mode requant: a cache that is coded as a whole, again and again, as Hugging Face's QuantizedCache
// does (transformers, cache_utils.py; KIVI's authors do not).
//
// The prompt attends exactly and is then stored coded, all of it. New tokens gather in a window,
// exact, and are read so, each by its own query too. When `window` of them are there, everything is
// decoded, joined by the window and coded again: old tokens are coded once more from what was
// decoded, and groups of tokens run on over the branch point. As in mode prefill the last context
// token is fed again as the first step. The window is the format's (window=, KIVI's residual=); a
// format without one codes everything again at each token.
#ifndef KV_REPLAY_REQUANT_H
#define KV_REPLAY_REQUANT_H

#include "sim/replay/pass.h"

// Tokens that gather before everything is coded again.
uint32_t kv_requant_window(const struct kv_format *f);

// Final states at the item's scored rows, [n_final][hidden]; prompt: K and V of all context rows
// but the last, [n_layers]. histogram [n_widths][256] counts the codes made.
KV_MUST_CHECK int kv_requant_run(const struct kv_replay *r, struct kv_scratch *s,
                                 const struct kv_trace_item *it, const struct kv_replay_spec *spec,
                                 const uint8_t *cells, const struct kv_layer_kv *prompt,
                                 double disturb, float *scored, uint64_t *histogram,
                                 struct kv_error *e);

#endif
