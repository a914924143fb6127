// SPDX-License-Identifier: Apache-2.0
// Which token comes next, and where a sequence ends.
#ifndef KV_GENERATE_SAMPLE_H
#define KV_GENERATE_SAMPLE_H

#include "sim/model/model.h"

// Noise [vocab] of a step of an item: Gumbel variables, so that the largest of logit / temperature
// + noise is a draw of the softmax at that temperature (Gumbel 1954; Maddison, Tarlow and Minka
// 2014, arXiv 1411.0030). It depends on (seed, item, step) alone: all sequences of an item share
// it, so that two that agree in their distributions draw the same token.
void kv_sample_noise(uint64_t seed, uint64_t item_key, uint32_t step, size_t vocab, float *noise);

// The first of the largest of logits / temperature + noise; temperature 0: of the logits.
uint32_t kv_sample_pick(const float *logits, size_t vocab, double temperature, const float *noise);

// ---- stop rules -----------------------------------------------------------------------

// Tokens that end a sequence: those of the model's tokenizer among the names that chat and text
// models give theirs. Caller frees *ids.
KV_MUST_CHECK int kv_sample_ends(const struct kv_tokenizer *t, uint32_t **ids, size_t *n,
                                 struct kv_error *e);

// Whether the text of n tokens holds one of `stops` (which NULL ends; or NULL) by its last token.
bool kv_sample_stops(const struct kv_tokenizer *t, const uint32_t *ids, size_t n,
                     const char *const *stops);
// The text of n tokens up to the first of `stops`. Caller frees.
char *kv_sample_text(const struct kv_tokenizer *t, const uint32_t *ids, size_t n,
                     const char *const *stops);

#endif
