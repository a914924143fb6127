// SPDX-License-Identifier: Apache-2.0
// What was generated: sequences of each spec beside the 16-bit run's, by prompt.
//
//     kv_store_generation(s, &key, &id, &e);                  equal keys are one and resume
//     kv_store_generated_has(s, id, item_key, &there, &e);
//     kv_store_put_generated(s, id, &item, &e);               any worker, any order
//     kv_store_generations(s, &list, &n, &e);                 with all their items
#ifndef KV_STORE_GENERATED_H
#define KV_STORE_GENERATED_H

#include "sim/store/store.h"

KV_BEGIN_DECLS

// What makes a generation. Texts are borrowed for the call.
struct kv_generation_key {
    const char *spec, *policy, *format, *tag, *label;
    const char *model_name, *model_digest, *weights_as;
    const char *task_name, *task_prompt, *task_digest;
    uint32_t window_tokens;
    enum kv_mode mode;
    enum kv_self self;
    uint32_t tokens;
    double temperature;
    bool ends;
    const char *stop;
    double floor; // of answers that are right: what always giving one has; NAN: the task has none
    uint64_t seed;
    const char *version, *commit, *cpu;
    const char *compute, *blas; // as kv_run_key's: blas describes and does not distinguish
};
KV_MUST_CHECK int kv_store_generation(struct kv_store *s, const struct kv_generation_key *key,
                                      long long *id, struct kv_error *e);

// Whether what a filter finds in a text is the task's answer; unknown where the task has none. Of a
// needle or a pair: the number that the text begins with (strict), or that stands in it.
enum { KV_ANSWER_STRICT, KV_ANSWER_FLEXIBLE, KV_N_ANSWER_FILTERS };
extern const char *const kv_answer_filter_names[]; // "strict", "flexible", NULL
struct kv_answered {
    enum kv_exact_match right[KV_N_ANSWER_FILTERS];
};

// One prompt's sequences. KLs are nats; NAN where a state was not finite.
struct kv_generated_row {
    uint64_t key;
    char *id;
    uint32_t n_prompt, n_reference, n_own;
    uint32_t *reference, *own;  // tokens
    double *own_kl, *forced_kl; // [n_own], [n_reference]
    uint32_t equal;             // tokens before they part
    bool parted, broken;
    struct kv_answered own_answer, reference_answer;
};
KV_MUST_CHECK int kv_store_generated_has(struct kv_store *s, long long generation, uint64_t key,
                                         bool *there, struct kv_error *e);
KV_MUST_CHECK int kv_store_put_generated(struct kv_store *s, long long generation,
                                         const struct kv_generated_row *row, struct kv_error *e);

// How many sequences the store holds, all specs and builds.
KV_MUST_CHECK int kv_store_generated_count(struct kv_store *s, size_t *n, struct kv_error *e);

// A generation with its items, ascending by key.
struct kv_generation {
    long long id;
    char *spec, *label, *model, *task, *mode, *self, *compute, *stop, *version, *commit;
    char *task_prompt, *task_digest, *model_digest;
    uint32_t window_tokens, tokens;
    double temperature, floor;
    bool ends; // at the model's own end of text
    uint64_t seed;
    size_t n;
    struct kv_generated_row *item;
};
// All of a store by model, task, mode and spec; of equal ones that differ in the build the newest
// alone. Caller frees. Errors: rows that another program damaged, naming the generation.
KV_MUST_CHECK int kv_store_generations(struct kv_store *s, struct kv_generation **list, size_t *n,
                                       struct kv_error *e);
void kv_generations_free(struct kv_generation *list, size_t n);

KV_END_DECLS

#endif
