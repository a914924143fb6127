// SPDX-License-Identifier: Apache-2.0
// Generation over stored caches: each policy's sequence beside the 16-bit run of the same prompt.
//
//     struct kv_generate g = {.model = m, .specs = specs, .n_specs = n, .mode = KV_PREFILL,
//                             .tokens = 128, ...};
//     kv_generate_items(&g, scratch, items, n, &failed, &e);
//
// Of an item run, in steps of one token each:
//   the reference     16 bit, its own tokens
//   a policy's own    the policy, its own tokens
//   its companion     16 bit along the policy's tokens, so that each step has its KL there
//   forced            the policy along the reference's tokens
// Until policy and reference part, companion is the reference and forced is the policy's own, so
// they begin to run at that token. All rows of a step go through the weights together;
// bits of none depend on the others (sim/model/step.h), so a spec gives the same tokens in any
// company, and static:bits=16 those of the reference.
#ifndef KV_GENERATE_GENERATE_H
#define KV_GENERATE_GENERATE_H

#include "sim/generate/held.h"

struct kv_generate {
    const struct kv_model *model;
    const struct kv_replay_spec *specs;
    size_t n_specs;
    enum kv_mode mode; // KV_INLINE, KV_PREFILL, KV_PREFILL1
    bool self_exact;
    uint32_t tokens;    // most that are generated
    double temperature; // 0: the likeliest token
    uint64_t seed;
    const uint32_t *ends; // tokens that end a sequence (they are its last)
    size_t n_ends;
    const char *const *stops; // texts that end one, up to a NULL; NULL = none
};

// What a policy gave on an item. KL(16 bit || policy) in nats, NAN where a state was not finite.
struct kv_generated {
    uint32_t n_reference, n_own; // tokens
    uint32_t *reference, *own;
    double *own_kl;    // [n_own] on the own path, before each token
    double *forced_kl; // [n_reference] along the reference's tokens
    uint32_t equal;    // leading tokens in which both agree
    bool parted;       // they differ behind those; else one is as long as the other
    bool broken;       // the policy's run met something that is not finite, and ended there
};
void kv_generated_fini(struct kv_generated *g);

// What is generated from.
struct kv_generate_item {
    uint64_t key; // of the item: seeds draws
    const uint32_t *ids;
    uint32_t n; // >= 2
    // Nats, where policies read it, else NULL: of the prompt's tokens, [n], and of those behind it,
    // [vocab].
    const float *rarity, *rarity_of;
    const size_t *which; // [n_which] the specs that are wanted
    size_t n_which;
    struct kv_generated *out; // [n_which] what they give
};

// How many specs can run at once beside each other in the memory that a worker may take.
size_t kv_generate_at_once(const struct kv_generate *g, uint32_t n_prompt);
// How many items with all specs: one, where a GPU does not make many rows cheap.
size_t kv_generate_items_at_once(const struct kv_generate *g, uint32_t n_prompt);

// Generates from items side by side (no more than the two above allow) and fills their `out`.
// Errors: a prompt of less than 2 tokens; prompt and tokens longer than the model's context; the
// policies' own. failed: the item that an error is of, or n.
KV_MUST_CHECK int kv_generate_items(const struct kv_generate *g, struct kv_scratch *s,
                                    const struct kv_generate_item *items, size_t n, size_t *failed,
                                    struct kv_error *e);

#endif
