// SPDX-License-Identifier: Apache-2.0
// Benchmark files as items: HellaSwag, ARC, OpenBookQA in their official JSONL (plain or .gz),
// plain text.
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

enum kv_task_kind { KV_TASK_HELLASWAG, KV_TASK_ARC, KV_TASK_OPENBOOKQA, KV_TASK_TEXT };

struct kv_task_item {
    char *id;     // `ind` or `id` of the file; for text "0", "1", ... by window, set when tokenized
    char *source; // stratum where a benchmark mixes sources ("activitynet", "wikihow"), else ""
    char *context; // prompt as scored; for KV_TASK_TEXT the whole text (one item; windows are cut
                   // later)
    size_t n_choices;
    char **choices; // without the leading space
    int gold;       // -1 for text
};

struct kv_tasks {
    enum kv_task_kind kind;
    char *name; // "hellaswag", "arc_easy", "arc_challenge", "arc", "openbookqa", "text"
    char *path;
    char *prompt;           // "harness", "text"; "" where there is no choice
    uint32_t window_tokens; // for text
    uint32_t score_one_in;  // for text: of so many positions in a row one is scored
    char digest[17];        // XXH64 of the unpacked bytes
    size_t n_items;
    struct kv_task_item *items;
};

// Opens "samples", a bare path (the kind is recognized from its fields; .txt is text) or
// "kind:PATH[,key=value]". "samples" is the set shipped with kvsim (embedded in the program).
// Errors name file and line: no items, a line that is not JSON, a missing field, a key that is none
// of the labels, an empty stem or choice, invalid UTF-8.
KV_MUST_CHECK int kv_tasks_load(struct kv_tasks **t, const char *spec, struct kv_error *e);
void kv_tasks_free(struct kv_tasks *t);

KV_END_DECLS

#endif
