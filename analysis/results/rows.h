// SPDX-License-Identifier: Apache-2.0
// Rows of a store with all that is said of them: intervals, comparison with 16 bit, price on a
// device. What `show` prints and `report` draws.
#ifndef KV_ANALYSIS_RESULTS_ROWS_H
#define KV_ANALYSIS_RESULTS_ROWS_H

#include "analysis/stats/evidence.h"
#include "analysis/store/store.h"
#include "sim/cli/options.h"
#include "sim/cost/cost.h"

enum { KV_MAX_CONTEXTS = 8 };
#define KV_CONFIDENCE 0.95 // of all intervals that tables and figures show

// A row against others on the same items, whose results are averaged within an item.
struct kv_versus {
    size_t n_runs; // compared with; 0 = the store holds none
    char *label;   // of the first
    struct kv_paired acc;
    struct kv_mean kl; // difference, nats a scored token
};

struct kv_row {
    struct kv_summary s;
    char *label;                               // the spec without keys that say nothing
    struct kv_interval interval[KV_N_SCORERS]; // Wilson's, of each accuracy
    double error[KV_N_SCORERS];                // standard error of each, from its spread over items
    struct kv_paired to16[KV_N_SCORERS];       // against the 16-bit run on the same items
    double holm_p;                             // of to16's acc, adjusted over the rows alike
    struct kv_variance_split split, split_kl;  // of right - right16 by acc, and of KL, by redraws
    struct kv_mean kl;                         // nats a scored token
    struct kv_latency at[KV_MAX_CONTEXTS];     // price at each context
    // By item of the trace, NAN = not there: how right by acc, nats a scored token, tokens scored.
    double *right, *item_kl, *item_scored;
    struct kv_versus static4; // static 4 bit in the same format, where there is one
    struct kv_versus shuffle; // the same widths on the wrong tokens, all seeds there are
};

struct kv_rows {
    size_t n;
    struct kv_row *row; // by trace, then in the order asked for
    size_t n_contexts;
    double context[KV_MAX_CONTEXTS];
    struct kv_device *device; // NULL = none
};

// Options that show and report share: --db, --device, --context, --fidelity, --builds.
#define KV_ROWS_OPTIONS                                                                            \
    {"db", 0, "FILE", "kvsim.db", "the store"},                                                    \
        {"device", 'd', "NAME", NULL, "device that prices a token (default: the first shipped)"},  \
        {"context", 'c', "LIST", "128,2048", "contexts in tokens at which a token is priced"},     \
        {"fidelity", 0, "NAME", NULL, "only rows of this fidelity"}, {                             \
        "builds", 0, NULL, NULL, "runs of all versions, not the fullest of each spec alone"        \
    }

// Opens the store and the device named by the options and reads all rows. Free with kv_rows_fini;
// the store stays open in *s for the caller to close, unless an error is returned.
KV_MUST_CHECK int kv_rows_open(struct kv_rows *rows, struct kv_store **s, const struct kv_cli *c,
                               struct kv_error *e);
void kv_rows_fini(struct kv_rows *rows);

// Orders rows within their trace: "bits" (effective, widest first), "acc", "kl", "ms" (at the
// largest context), "spec". KV_EUSAGE names the keys.
KV_MUST_CHECK int kv_rows_sort(struct kv_rows *rows, const char *key, struct kv_error *e);

// Same recording, fidelity, mode and settings: rows that may be compared and drawn together.
bool kv_rows_alike(const struct kv_row *a, const struct kv_row *b);
// Fills static4 and shuffle of every row; kv_rows_open does. (versus.c)
void kv_rows_versus(struct kv_rows *rows);

// Marks the rows that no other of the same recording and setting beats in accuracy (without one: in
// divergence) and effective bits.
void kv_rows_frontier(const struct kv_row *rows, size_t n, bool *on);

// Short names of specs for tables and figures: defaults are left out, and the channel order where
// it is the one that the format takes by itself; two that would read alike keep all keys.
// settings[n]: of each spec's trace, NULL entries or no array = unknown. labels[n] are the
// caller's.
void kv_spec_labels(const char *const *specs, const struct kv_format_setting *const *settings,
                    size_t n, char **labels);

// The same for rows of a store, whose traces say what the formats take by themselves. labels[n] are
// the caller's; none on error.
KV_MUST_CHECK int kv_summary_labels(struct kv_store *s, const struct kv_summary *const *rows,
                                    size_t n, char **labels, struct kv_error *e);

// Which of a spec's runs are meant; NULL = any.
struct kv_row_choice {
    const char *fidelity, *mode, *trace; // trace: start of its digest
    const char *feedback;                // "open", "closed"; NULL = open
};

// Whether a row's policy read the run that it steered (--feedback closed).
bool kv_row_is_closed(const struct kv_summary *s);

// Finds the rows whose spec is `text` in any spelling, of the choice. KV_EUSAGE when the spec is
// none; KV_EFAIL when the store holds no such row, naming a spec that is near. Free with
// kv_summaries_free.
KV_MUST_CHECK int kv_rows_find(struct kv_store *s, const char *text,
                               const struct kv_row_choice *choice, struct kv_summary **rows,
                               size_t *n, struct kv_error *e);
// Refuses more than one row in one sentence that says how they differ.
KV_MUST_CHECK int kv_rows_only(const struct kv_summary *rows, size_t n, const char *text,
                               struct kv_error *e);

#endif
