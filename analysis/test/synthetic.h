// SPDX-License-Identifier: Apache-2.0
// A made-up recording and made-up outcomes with known statistics, for tests of store and reports.
// Items 0 and 1 share a context.
#ifndef KV_ANALYSIS_TEST_SYNTHETIC_H
#define KV_ANALYSIS_TEST_SYNTHETIC_H

#include <stdlib.h>

#include "sim/store/store.h"
#include "sim/base/memory.h"

enum { SYNTHETIC_CHOICES = 4, SYNTHETIC_CONTEXT = 40, SYNTHETIC_TOKENS = 80 };

struct synthetic {
    struct kv_trace_info info;
    struct kv_trace_item *items;
    char (*ids)[16];
    uint32_t *tokens;
};

static inline const struct kv_trace_item *synthetic_item(const struct kv_trace *t, size_t i) {
    return &((const struct synthetic *)(const void *)t)->items[i];
}

static inline struct synthetic *synthetic_new(size_t n_items) {
    struct synthetic *s = kv_alloc(1, sizeof *s);
    s->info = (struct kv_trace_info){.digest = "00112233445566ff",
                                     .path = "synthetic.trace",
                                     .shape = {.n_layers = 30,
                                               .n_heads = 9,
                                               .n_kv_heads = 3,
                                               .head_dim = 64,
                                               .hidden = 576,
                                               .ffn = 1536,
                                               .vocab = 49152,
                                               .max_tokens = 2048},
                                     .order = KV_ORDER_HF,
                                     .model_name = "made-up 135M",
                                     .task_name = "hellaswag",
                                     .task_prompt = "harness",
                                     .subset = "all",
                                     .n_items = n_items,
                                     .n_tokens = n_items * SYNTHETIC_TOKENS};
    s->items = kv_alloc(n_items + 1, sizeof *s->items);
    s->ids = kv_alloc(n_items + 1, sizeof *s->ids);
    s->tokens = kv_alloc(n_items + SYNTHETIC_TOKENS, sizeof *s->tokens);
    for (size_t i = 0; i < n_items + SYNTHETIC_TOKENS; i++) s->tokens[i] = (uint32_t)i;
    for (size_t i = 0; i < n_items; i++) {
        snprintf(s->ids[i], sizeof s->ids[i], "%zu", 100 + i);
        s->items[i] = (struct kv_trace_item){.index = (uint32_t)i,
                                             .id = s->ids[i],
                                             .source = i % 3 ? "wikihow" : "activitynet",
                                             .key = 0xabc0000 + i,
                                             .gold = (int32_t)(i % SYNTHETIC_CHOICES),
                                             .n_tokens = SYNTHETIC_TOKENS,
                                             .n_context = SYNTHETIC_CONTEXT,
                                             .n_choices = SYNTHETIC_CHOICES,
                                             .ids = s->tokens + (i == 1 ? 0 : i)};
    }
    return s;
}

static inline void synthetic_free(struct synthetic *s) {
    free(s->items);
    free(s->ids);
    free(s->tokens);
    free(s);
}

static inline int synthetic_trace(struct kv_store *store, const struct synthetic *s,
                                  long long *trace, struct kv_error *e) {
    return kv_store_trace(store, &s->info, synthetic_item, (const struct kv_trace *)(const void *)s,
                          trace, e);
}

// A run key of this spec with the usual settings.
static inline struct kv_run_key synthetic_key(long long trace, const char *spec) {
    return (struct kv_run_key){.trace = trace,
                               .spec = spec,
                               .policy = spec,
                               .format = "",
                               .tag = "baseline",
                               .compute = KV_COMPUTE_CPU,
                               .seed = 1,
                               .version = "0.1.0",
                               .commit = "abc"};
}

// An outcome on item i: 16 bit is right on `right16` of the items, the policy loses `damage` of
// these and wins half as many of the others back; KL grows with the damage. K is held at k_bits, V
// at v_bits. choice must hold SYNTHETIC_CHOICES.
static inline struct kv_outcome synthetic_outcome(size_t i, uint64_t policy, double right16,
                                                  double damage, int k_bits, int v_bits,
                                                  struct kv_choice_outcome *choice) {
    int gold = (int)(i % SYNTHETIC_CHOICES);
    bool ref = kv_draw(7, i, 0) < right16;
    bool right = ref ? kv_draw(8, i, policy) >= damage : kv_draw(9, i, policy) < damage / 2;
    int other = (gold + 1) % SYNTHETIC_CHOICES;
    double bits = (k_bits + v_bits) / 2.0;
    struct kv_outcome o = {.n_choices = SYNTHETIC_CHOICES,
                           .choice = choice,
                           .gold = gold,
                           .margin = right ? 1.5 : -0.5,
                           .kl_nats = damage * (0.2 + kv_draw(10, i, policy)) / 2,
                           .n_scored = SYNTHETIC_TOKENS - SYNTHETIC_CONTEXT,
                           .ledger = {.nominal_bits = bits,
                                      .effective_bits = bits + (bits < 16 ? 0.5 : 0),
                                      .allocated_bits = bits + (bits < 16 ? 0.75 : 0),
                                      .bytes_per_token = bits * 1440,
                                      .entropy_bits = NAN}};
    o.ledger.share[KV_KEY][k_bits] = 1;
    o.ledger.share[KV_VALUE][v_bits] = 1;
    for (int k = 0; k < KV_N_SCORERS; k++) {
        o.pick[k] = right ? gold : other;
        o.pick_ref[k] = ref ? gold : other;
    }
    for (int c = 0; c < SYNTHETIC_CHOICES; c++)
        choice[c] = (struct kv_choice_outcome){.logprob = c == o.pick[0] ? -20.25 : -21.75,
                                               .logprob_ref = c == o.pick_ref[0] ? -20 : -21.5,
                                               .kl_nats = o.kl_nats * 10,
                                               .tokens = 10,
                                               .chars = 44,
                                               .bytes = 45,
                                               .logprob_after_prefix = -19,
                                               .tokens_after_prefix = 9};
    return o;
}

#endif
