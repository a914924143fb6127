// SPDX-License-Identifier: Apache-2.0
// Rows of a store with all that is said of them: intervals, comparison with 16 bit, price on a
// device. What `show` prints and `report` draws.
//
//     struct kv_rows rows;
//     struct kv_store *s;
//     struct kv_rows_options how = {.db = "kvsim.db", .n_contexts = 1, .context = {2048}};
//     if (kv_rows_open(&rows, &s, &how, &e)) return e.code;
//     for (size_t i = 0; i < rows.n; i++)
//         printf("%s %g\n", rows.row[i].label, rows.row[i].s.acc[KV_ACC]);
//     kv_rows_fini(&rows);
//     kv_store_abandon(s);
#ifndef KV_ANALYSIS_RESULTS_ROWS_H
#define KV_ANALYSIS_RESULTS_ROWS_H

#include "analysis/stats/evidence.h"
#include "analysis/stats/tokens.h"
#include "sim/store/store.h"
#include "sim/cost/cost.h"

KV_BEGIN_DECLS

enum { KV_MAX_CONTEXTS = 8, KV_IDS_NAMED = 8 }; // ids of items left out that a text names
#define KV_CONFIDENCE 0.95                      // of all intervals that tables and figures show

// A row against others on the same items, whose results are averaged within an item.
struct kv_versus {
    size_t n_runs; // compared with; 0 = the store holds none
    char *label;   // of the first
    struct kv_paired acc;
    struct kv_mean kl; // difference, nats a scored token
};

struct kv_place_result; // places.h

struct kv_row {
    struct kv_summary s;
    char *label; // of s, or what kv_rows_options names it
    // Why the mode is not one that the spec was published in, static text; NULL = it is, or nothing
    // is known of the spec here. published: the mode that it was published in; NULL = unknown.
    const char *mode_mismatch, *published;
    bool newest; // of several builds of one file (kv_spec_digest) the one that was run last
    struct kv_interval interval[KV_N_SCORERS]; // Wilson's, of each accuracy
    double error[KV_N_SCORERS];                // standard error of each, from its spread over items
    struct kv_paired to16[KV_N_SCORERS];       // against the 16-bit run on the same items
    double holm_p;                             // exact, of to16's acc, adjusted over the rows alike
    struct kv_variance_split split, split_kl;  // of right - right16 by acc, and of KL, by redraws
    struct kv_mean kl;                         // nats a scored token
    struct kv_latency at[KV_MAX_CONTEXTS];     // price at each context
    // By item of the trace, NAN = not there: how right by acc, nats a scored token, tokens scored.
    double *right, *item_kl, *item_scored;
    // Stored items whose scores or divergence are not finite: no mean of quality, comparison or
    // frontier counts them. [n of the trace], how many, and their ids ("3, 17 and 2 more").
    bool *left_out;
    size_t n_left_out;
    char *left_out_ids;
    // Of the items that count, redraws that are not finite: their means are of the others. Of how
    // many, and the items' ids.
    size_t n_redraws_out, n_redraws_in_all;
    char *redraws_out_ids;
    // Scored positions of text windows, [n_windows]: together, and in the bucket of each context
    // (depths.h; n = 0: none stands there).
    struct kv_window_tokens *window;
    size_t n_windows;
    struct kv_token_summary tokens, depth[KV_MAX_CONTEXTS];
    // Places of facts at a depth of a context (places.h), [n_places]; 0: its items name none.
    struct kv_place_result *place;
    size_t n_places;
    struct kv_versus static4; // static 4 bit in the same format, where there is one
    struct kv_versus shuffle; // the same widths on the wrong tokens, all seeds there are
};

struct kv_rows {
    size_t n;
    struct kv_row *row; // by trace, spec and run group, or as kv_rows_sort orders them
    size_t n_contexts;
    double context[KV_MAX_CONTEXTS];
    struct kv_device *device; // NULL = none
};

// What to read; zero but for db = everything, without prices.
struct kv_rows_options {
    const char *db;      // the store's file
    const char *device;  // name or file of the device that prices a token; NULL = the default one
    unsigned fidelities; // bits 1 << enum kv_fidelity; 0 = all
    bool all_builds;     // runs of all versions, not the fullest of each spec alone
    size_t n_contexts;   // at which a token is priced; at most KV_MAX_CONTEXTS
    double context[KV_MAX_CONTEXTS]; // in tokens
    // "NAME=SPEC": what rows are called here, whatever the store calls them.
    const char *const *named;
    size_t n_named;
    bool texts_do; // a store that holds generated texts alone is opened, too, and has no rows
};

// Opens the store and the device and reads all rows. Errors: KV_EFAIL when no row is there (but see
// texts_do), or none of a spec that is named; KV_EUSAGE when a name can be none. Free
// with kv_rows_fini; the store stays open in *s for the caller to close. After an error both are
// empty.
KV_MUST_CHECK int kv_rows_open(struct kv_rows *rows, struct kv_store **s,
                               const struct kv_rows_options *options, struct kv_error *e);
void kv_rows_fini(struct kv_rows *rows);
void kv_row_fini(struct kv_row *row); // lets go of what one row holds

// Keeps the rows that any of texts[n] means, in their order; n = 0: all. A text is a spec in any
// spelling, the row's label or name, or a pattern of these with '*'. What was compared and adjusted
// over all rows stays so. KV_EFAIL or KV_EUSAGE when a text means no row; rows are then as they
// were. (keep.c)
KV_MUST_CHECK int kv_rows_keep(struct kv_rows *rows, struct kv_store *s, const char *const *texts,
                               size_t n, struct kv_error *e);

// Orders rows within their trace: "bits" (effective, widest first), "acc", "kl", "ms" (at the
// largest context), "spec". KV_EUSAGE names the keys.
KV_MUST_CHECK int kv_rows_sort(struct kv_rows *rows, const char *key, struct kv_error *e);

// ---- how a spec was published, and builds of one file (builds.c) -----------------------

// Whether a stored run's mode is one that its spec was published in, for a trace's setting:
// kv_mode_mismatch of the spec. NULL also where the spec cannot be opened here.
const char *kv_summary_mismatch(const struct kv_summary *s, const struct kv_format_setting *setting,
                                const char **published);
// Says of all rows how they were published and which build of a file is the newest.
KV_MUST_CHECK int kv_rows_place(struct kv_rows *rows, struct kv_store *s, struct kv_error *e);
// The label with what is to be said of the row: "mine.so#a38e@sym (newest)", "... (oracle)". Caller
// frees.
char *kv_row_name(const struct kv_row *row);
// The mode, with a star where it is another than the spec was published in. Caller frees.
char *kv_row_mode(const struct kv_row *row);
#define KV_MODE_LEGEND "* another read mode than the policy or the format was published in"

// ---- rows together (groups.c) ---------------------------------------------------------

// Of one recording and setting: rows that may be compared and drawn together. An exact run counts
// as one whatever damage an oracle went by.
bool kv_rows_alike(const struct kv_row *a, const struct kv_row *b);
// Numbers rows[n]: each is with the first row that it is alike with and that leads a group. Returns
// how many groups there are.
size_t kv_rows_groups(const struct kv_row *rows, size_t n, size_t *group);
// Marks the rows that no other of the same recording and setting beats in accuracy (without one: in
// divergence) and effective bits. None where memory runs out.
void kv_rows_frontier(const struct kv_row *rows, size_t n, bool *on);

KV_END_DECLS

#endif
