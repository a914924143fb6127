// SPDX-License-Identifier: Apache-2.0
// Benchmark files as items: HellaSwag, ARC, OpenBookQA, GSM8K in their official JSONL (plain or
// .gz), plain text; and tasks that kvsim makes itself: a needle in a text, recall of pairs.
//
//     struct kv_tasks *t;
//     if (kv_tasks_load(&t, "hellaswag:hellaswag_val.jsonl.gz,prompt=harness", &e)) ...
//
// Prompts are lm-evaluation-harness's (hellaswag.utils.process_docs; arc's "Question:
// ...\nAnswer:"; openbookqa's bare stem); the text scored is context + " " + choice.
#ifndef KV_TRACES_TASKS_H
#define KV_TRACES_TASKS_H

#include "policies/policy.h"

KV_BEGIN_DECLS

enum kv_task_kind {
    KV_TASK_HELLASWAG,
    KV_TASK_ARC,
    KV_TASK_OPENBOOKQA,
    KV_TASK_TEXT,
    KV_TASK_GSM8K,
    KV_TASK_NEEDLE,
    KV_TASK_RECALL
};

struct kv_task_item {
    char *id; // `ind` or `id` of the file; for text "0", "1", ... by window, set when tokenized
    // Stratum where a benchmark mixes sources ("activitynet", "wikihow"), or the place of an item
    // that was made ("length=512,depth=25"), else "".
    char *source;
    char *context; // prompt as scored; for KV_TASK_TEXT the whole text (one item; windows are cut
                   // later)
    size_t n_choices;
    char **choices; // without the leading space
    int gold;       // -1 for text and for GSM8K, where there is nothing to pick
    // What is to be generated after the context: GSM8K's whole answer (gsm8k.h judges), the number
    // of a needle or a pair; NULL for others.
    char *answer;
};

// Where facts stand in the items of KV_TASK_NEEDLE and KV_TASK_RECALL, n of them a place: a context
// of each length (or number of pairs) at each depth.
enum { KV_MOST_PLACES = 32 }; // of each list
struct kv_task_places {
    size_t n_lengths, n_pairs, n_depths; // either lengths or pairs
    uint32_t lengths[KV_MOST_PLACES];    // tokens
    uint32_t pairs[KV_MOST_PLACES];
    double depths[KV_MOST_PLACES]; // % of the text, or of the pairs, that stands before the fact
    uint32_t n;
    uint64_t seed;
};

struct kv_tasks {
    enum kv_task_kind kind;
    // "hellaswag", "arc_easy", "arc_challenge", "arc", "openbookqa", "text", "gsm8k", "needle",
    // "recall"
    char *name;
    char *path;
    char *prompt; // "harness", "text", "shots=5"; of made items all their settings; "" for others
    uint32_t window_tokens; // for text
    uint32_t score_one_in;  // for text: of so many positions in a row one is scored
    char digest[17];        // XXH64 of the unpacked bytes
    size_t n_items;
    struct kv_task_item *items;
    // Of items that are made once a tokenizer is known (kv_tasks_make): until then items is the
    // text alone, if there is one. NULL for others.
    struct kv_task_places *places;
};

// Opens "samples", a bare path (the kind is recognized from its fields; .txt is text) or
// "kind:PATH[,key=value]". "samples" is the set shipped with kvsim (embedded in the program).
// Errors name file and line: no items, a line that is not JSON, a missing field, a key that is none
// of the labels, an empty stem or choice, invalid UTF-8.
KV_MUST_CHECK int kv_tasks_load(struct kv_tasks **t, const char *spec, struct kv_error *e);
void kv_tasks_free(struct kv_tasks *t);

// How many items there are, or will be once they are made.
size_t kv_tasks_count(const struct kv_tasks *t);

// The items of t's places, for a model's tokenizer: equal for equal seeds; t stays as it is.
// Choice 0 is the answer, the others are numbers of its kind: with a needle some that stand
// nowhere, with recall those of other pairs. Errors: a length that the question and its fact alone
// exceed or that the text does not fill, more pairs than it has words.
struct kv_model;
KV_MUST_CHECK int kv_tasks_make(struct kv_tasks **made, const struct kv_tasks *t,
                                const struct kv_model *m, struct kv_error *e);

// Puts the made items in the place of tasks that have places; others stay as they are.
KV_MUST_CHECK int kv_tasks_settle(struct kv_tasks **t, const struct kv_model *m,
                                  struct kv_error *e);

KV_END_DECLS

#endif
