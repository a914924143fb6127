// SPDX-License-Identifier: Apache-2.0
// What one sequence has stored while it grows: the policy decides about each token as it arrives,
// the format codes what is due, queries read what is left of it.
//
//     struct kv_prompt p;     kv_prompt_run(model, scratch, &ask, &p, &e);
//     struct kv_held *h = kv_held_new(model, spec, &p, &ask, n_prompt, room, false);
//     for each token: kv_held_feed(h, id, &e), then a kv_step whose row has .store = kv_held_store
//     kv_held_free(h);
//
// The sequence is one branch from its first token on: groups of tokens run on over the end of the
// prompt, windows move, a policy that revises is asked at each KV_REVISE_TOKENS, as on a device.
// (Replay stores a choice's groups apart from its context's.) Formats that look at whole tensors,
// and prompts that are coded several times, are the exception: what is generated is a branch then.
#ifndef KV_GENERATE_HELD_H
#define KV_GENERATE_HELD_H

#include "sim/model/step.h"
#include "sim/replay/pass.h"

struct kv_held;

// Features of a token that are known when its own pass is done. A policy that reads them decides
// about a token with the next one, so its own query reads the token as it was computed
// (self_exact). The prompt's are those of the 16-bit pass over it.
#define KV_HELD_FEATURES                                                                           \
    (KV_NEED(KV_ENTROPY_NATS) | KV_NEED(KV_CONFIDENCE) | KV_NEED(KV_RARITY_NATS) |                 \
     KV_NEED(KV_ATTN_VAR) | KV_NEED(KV_KEY_RANGE) | KV_NEED(KV_VALUE_RANGE))

// Whether a spec can decide as tokens arrive, without a recording. Errors: KV_EUSAGE naming what it
// reads that only a recording has, or that is known too late for its own query; a wrapper around a
// policy that decides by layers; mode requant.
KV_MUST_CHECK int kv_held_answers(const struct kv_replay_spec *spec, enum kv_mode mode,
                                  bool self_exact, struct kv_error *e);

// Lets the policies that want it fit themselves, to the model alone: what a recording would tell is
// refused, naming the policy that asks for it.
KV_MUST_CHECK int kv_held_fit(const struct kv_model *m, const struct kv_replay_spec *spec,
                              struct kv_error *e);

// The prompt's K and V as they were computed, and the state that predicts what comes next where the
// last token is among the rows.
struct kv_prompt {
    uint32_t rows;
    struct kv_layer_kv *layers;        // [n_layers], arrays of [rows][n_kv_heads * head_dim]
    struct kv_pass_rows *seen;         // [n_layers], or NULL where nobody asked
    float *block, *seen_block, *final; // final: [hidden] of the last row
    float *features;                   // [rows][KV_N_FEATURES], or NULL where nobody asked
    bool not_finite;
};
struct kv_prompt_ask {
    const uint32_t *ids;
    uint32_t rows;                        // of the prompt's n, all or all but the last
    uint64_t key;                         // of the item
    const struct kv_replay_spec *spec;    // whose stored values the prompt reads; NULL: fp16
    const struct kv_tokenizer *tokenizer; // for policies that read the kinds of tokens
    bool self_exact;
    const float *rarity;    // of the prompt's tokens, nats, and of those behind it, [vocab]; NULL
    const float *rarity_of; // where nobody reads it
    const float *known;     // the prompt's features, [rows][KV_N_FEATURES]; NULL: none is read
    bool features;          // the pass, of 16 bit, is to say what they are
    bool seen;              // a policy that decides by layers goes on from here
};
KV_MUST_CHECK int kv_prompt_run(const struct kv_model *m, struct kv_scratch *s,
                                const struct kv_prompt_ask *ask, struct kv_prompt *out,
                                struct kv_error *e);
void kv_prompt_fini(struct kv_prompt *p);

// A sequence that holds a prompt's rows and has room for `room` tokens. spec NULL: the 16-bit run,
// K and V rounded to fp16. exact_prompt: the prompt's own queries read exact values.
struct kv_held *kv_held_new(const struct kv_model *m, const struct kv_replay_spec *spec,
                            const struct kv_prompt *p, const struct kv_prompt_ask *ask,
                            uint32_t n_prompt, uint32_t room, bool exact_prompt);
struct kv_held *kv_held_copy(const struct kv_held *h);
void kv_held_free(struct kv_held *h); // NULL is fine
// Bytes of one, for those who hold many.
size_t kv_held_bytes(const struct kv_model *m, const struct kv_replay_spec *spec, uint32_t room);

// The next token, which the policy is asked about. Errors: the policy's own.
KV_MUST_CHECK int kv_held_feed(struct kv_held *h, uint32_t id, struct kv_error *e);
// The step's row for the token that was fed last.
struct kv_step_row kv_held_row(struct kv_held *h);
// kv_step's hook; self is a kv_held.
int kv_held_store(void *self, uint32_t layer, const struct kv_step_kv *kv,
                  struct kv_step_view *view, struct kv_error *e);
// Whether something that a query read was not finite: the states then say nothing.
bool kv_held_not_finite(const struct kv_held *h);
// Tells what the step made known of the token that was fed last. Wanted: whether that is read.
bool kv_held_wants(const struct kv_held *h);
void kv_held_tell(struct kv_held *h, float entropy_nats, float confidence, float attn_var);
// The tokens with what the policy sees of them: [n]. (For tests.)
const struct kv_token *kv_held_tokens(const struct kv_held *h);
// The widths at which rows are stored now: [n][n_layers][n_kv_heads][2], and n. (For tests.)
const uint8_t *kv_held_cells(const struct kv_held *h, uint32_t *n);

#endif
