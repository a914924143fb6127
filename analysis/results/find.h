// SPDX-License-Identifier: Apache-2.0
// Finds the runs of a spec in a store, in whatever spelling it is asked for: any that makes the
// spec, the label that tables print, or the name that it was given.
//
//     struct kv_row_choice exact = {.fidelities = 1u << KV_EXACT};
//     if (kv_rows_find(s, "static:bits=4@sym", &exact, &rows, &n, &e)) return e.code;
//     if (kv_rows_only(rows, n, "static:bits=4@sym", &e)) ...        several: says how they differ
//     kv_summaries_free(rows, n);
#ifndef KV_ANALYSIS_RESULTS_FIND_H
#define KV_ANALYSIS_RESULTS_FIND_H

#include "sim/store/store.h"

// Which of a spec's runs are meant; zero: any with open feedback.
struct kv_row_choice {
    unsigned fidelities, modes; // bits 1 << enum kv_fidelity, 1 << enum kv_mode; 0 = any
    const char *trace;          // start of its digest; NULL = any
    enum kv_feedback feedback;
};

// Finds the rows whose spec is `text` in any spelling, of the choice. KV_EUSAGE when the spec is
// none; KV_EFAIL when the store holds no such row, naming a spec that is near. Free with
// kv_summaries_free.
KV_MUST_CHECK int kv_rows_find(struct kv_store *s, const char *text,
                               const struct kv_row_choice *choice, struct kv_summary **rows,
                               size_t *n, struct kv_error *e);
// Refuses more than one row in one sentence that says how they differ.
KV_MUST_CHECK int kv_rows_only(const struct kv_summary *rows, size_t n, const char *text,
                               struct kv_error *e);

// Marks the rows whose spec is `text`, as the model of each row's trace spells it, or to the letter
// (of a policy that is not loaded), and those whose label or short label it is; others stay as they
// are. settings: of the store's traces. The
// error is filled when the text is no spec for any of them; its code is 0 otherwise.
void kv_rows_mark(const struct kv_summary *rows, size_t n, const struct kv_store_setting *settings,
                  size_t n_settings, const char *text, bool *marked, struct kv_error *no_spec);

#endif
