// SPDX-License-Identifier: Apache-2.0
// The results store: one SQLite file (schema.sql) that sweeps fill, resume and share, and reports
// read.
//
//     struct kv_store *s;
//     if (kv_store_open(&s, "kvsim.db", KV_STORE_CREATE, &e)) return e.code;
//     kv_store_trace(s, kv_trace_info(t), kv_trace_item, t, &trace, &e);
//     struct kv_run_key key = {.trace = trace, .spec = ..., .fidelity = KV_EXACT, ...};
//     kv_store_run(s, &key, &run, &e);
//     kv_store_done(s, run, done, n_items, &n_done, &e);            what an earlier sweep finished
//     kv_store_put(s, run, item, &outcome, &e);                     any worker, any order
//     kv_store_close(s, &e);                                        writes what is buffered
//
// Outcomes are buffered and written in batches, each in one short transaction: a killed run loses
// at most the last 64 outcomes or two seconds, and two sweeps may write one store at once. Rows are
// keyed by run and item, so the same results make the same tables whatever the order of work. A
// store handle may be shared by threads; every call takes its lock.
#ifndef KV_STORE_STORE_H
#define KV_STORE_STORE_H

#include "sim/base/outcome.h"
#include "sim/base/spec.h"
#include "traces/trace.h"

KV_BEGIN_DECLS

struct kv_store;

enum kv_store_access {
    KV_STORE_READ,   // must exist; works on read-only files and folders
    KV_STORE_WRITE,  // must exist; brought up to the newest schema, after a copy FILE.bak-vN
    KV_STORE_CREATE, // made when missing
};

// Errors name the file: missing, not a store, read-only, made by a newer kvsim.
KV_MUST_CHECK int kv_store_open(struct kv_store **s, const char *path, enum kv_store_access access,
                                struct kv_error *e);
// Writes what is buffered and closes; s is gone in any case. NULL is fine.
KV_MUST_CHECK int kv_store_close(struct kv_store *s, struct kv_error *e);
// Closes without writing what is buffered, for the way out of a failure. NULL is fine.
void kv_store_abandon(struct kv_store *s);
// The file that it was opened by; lives as long as the store.
const char *kv_store_path(const struct kv_store *s);
// Writes what is buffered now.
KV_MUST_CHECK int kv_store_flush(struct kv_store *s, struct kv_error *e);

// ---- writing --------------------------------------------------------------------------

typedef const struct kv_trace_item *kv_trace_item_fn(const struct kv_trace *t, size_t i);

// Finds the trace by its digest or adds it with its items, read through `item` (kv_trace_item).
KV_MUST_CHECK int kv_store_trace(struct kv_store *s, const struct kv_trace_info *info,
                                 kv_trace_item_fn *item, const struct kv_trace *t,
                                 long long *trace_id, struct kv_error *e);

// What makes a run: equal keys are one run and resume. Texts are borrowed for the call; NULL reads
// as "". blas, tag and oracle describe and do not distinguish; cpu, the level of the kernels, is
// part of the build.
struct kv_run_key {
    long long trace;
    const char *spec;            // canonical "policy@format"
    const char *policy, *format; // name of the policy, whole format; "" when there is none
    const char *tag;             // of the policy: exact, faithful, ...
    bool oracle;                 // the policy reads the future
    enum kv_fidelity fidelity;
    enum kv_mode mode;
    enum kv_self self;
    enum kv_form form;
    enum kv_feedback feedback;
    const char *compute; // what did the products: KV_COMPUTE_CPU, or an accelerator's name
    uint64_t seed;
    uint32_t redraw;
    const char *version, *commit, *cpu, *blas;
};
KV_MUST_CHECK int kv_store_run(struct kv_store *s, const struct kv_run_key *key, long long *run_id,
                               struct kv_error *e);

// Sets done[i] for every item of [0, n_items) that the run holds (buffered ones included); leaves
// the others as they are. *n_done counts them; may be NULL.
KV_MUST_CHECK int kv_store_done(struct kv_store *s, long long run, bool *done, size_t n_items,
                                size_t *n_done, struct kv_error *e);

// Keeps an outcome (copied). An item that is already there is replaced by the equal one.
KV_MUST_CHECK int kv_store_put(struct kv_store *s, long long run, uint32_t item,
                               const struct kv_outcome *o, struct kv_error *e);

// Adds to the run's durations, which live apart from results.
KV_MUST_CHECK int kv_store_put_timing(struct kv_store *s, long long run, double wall_s,
                                      double cpu_s, size_t items, struct kv_error *e);

// ---- reading --------------------------------------------------------------------------

// Runs that differ in the redraw alone are one group, named by the id of its first run; redraws are
// averaged within an item before anything else. (The store's views call it a family.)
//
// Where a group of runs comes from, and its means over items. NAN where nothing is known. Strings
// are owned by the row.
struct kv_summary {
    long long run_group, trace;
    char *label;       // the name that the user gave the spec, else short_label
    char *short_label; // the spec without keys that say nothing
    char *spec, *policy, *format, *tag;
    struct kv_spec_parts parts; // of the spec, parsed once
    enum kv_fidelity fidelity;
    enum kv_mode mode;
    enum kv_self self;
    enum kv_form form;
    enum kv_feedback feedback;
    char *compute;
    char *task, *prompt, *subset, *model, *trace_digest, *version, *commit, *cpu;
    bool oracle;
    uint64_t seed;
    size_t n_redraws;
    size_t n_items, n_trace_items, n_judged; // stored; of the trace; with a gold choice and a pick
    double chance;                           // of a guess
    double acc[KV_N_SCORERS], acc_ref[KV_N_SCORERS];
    double agree, margin, kl_nats; // pick agreement with 16 bit; kl a scored token
    double nominal_bits, effective_bits, allocated_bits, entropy_bits, bytes_per_token;
    double context_tokens;   // mean length of the sequences that were judged
    struct kv_ledger ledger; // the same means with the widths' shares, for the latency model
};

// Which rows to read; zero = all.
struct kv_store_filter {
    const char *spec;    // canonical
    unsigned fidelities; // one bit each, 1 << enum kv_fidelity
    bool all_builds;     // also runs of other versions and commits when a spec was run by several;
                         // else the one with most items, then the newest
};

// Rows ordered by trace, spec and run group. Errors: KV_EFAIL, also for a setting that this kvsim
// does not know. Caller frees with kv_summaries_free.
KV_MUST_CHECK int kv_store_summaries(struct kv_store *s, const struct kv_store_filter *filter,
                                     struct kv_summary **rows, size_t *n, struct kv_error *e);
void kv_summaries_free(struct kv_summary *rows, size_t n);
void kv_summary_fini(struct kv_summary *s); // one that was copied out of its list
// Equal in fidelity, mode, own step, form, feedback and compute.
bool kv_same_setting(const struct kv_summary *a, const struct kv_summary *b);

// A group's results on its items, ascending by item; redraws averaged.
struct kv_item_result {
    uint32_t item;
    char *id, *source;
    int32_t gold;
    uint64_t context_key;                                // equal for items sharing a context
    double right[KV_N_SCORERS], right_ref[KV_N_SCORERS]; // 0..1; NAN where not judged
    double agree, margin, kl_nats, n_scored, effective_bits, chance;
};
KV_MUST_CHECK int kv_store_items(struct kv_store *s, long long run_group,
                                 struct kv_item_result **rows, size_t *n, struct kv_error *e);
void kv_item_results_free(struct kv_item_result *rows, size_t n);

// A group's results redraw by redraw, ascending by item and redraw: what rounding alone changes.
struct kv_redraw_result {
    uint32_t item, redraw;
    double right[KV_N_SCORERS], right_ref[KV_N_SCORERS]; // 0 or 1; NAN where not judged
    double kl_nats;
};
// Caller frees the array.
KV_MUST_CHECK int kv_store_redraws(struct kv_store *s, long long run_group,
                                   struct kv_redraw_result **rows, size_t *n, struct kv_error *e);

// A group's results on each choice, ascending by item, redraw and choice.
struct kv_choice_result {
    uint32_t item, redraw, choice;
    char *id;
    int32_t gold;
    struct kv_choice_outcome outcome;
};
KV_MUST_CHECK int kv_store_choices(struct kv_store *s, long long run_group,
                                   struct kv_choice_result **rows, size_t *n, struct kv_error *e);
void kv_choice_results_free(struct kv_choice_result *rows, size_t n);

// A group's scored positions of each text window, ascending by item, of the run itself (redraw 0).
// Windows stored by a kvsim that kept none are not there.
struct kv_window_tokens {
    uint32_t item, n;
    char *id;
    struct kv_token_outcome *token; // [n] by row
};
KV_MUST_CHECK int kv_store_tokens(struct kv_store *s, long long run_group,
                                  struct kv_window_tokens **rows, size_t *n, struct kv_error *e);
void kv_window_tokens_free(struct kv_window_tokens *rows, size_t n);

// The setting that the specs of each trace were made for, to find a spec by any spelling. Caller
// frees the array.
struct kv_store_setting {
    long long trace;
    struct kv_format_setting setting;
};
KV_MUST_CHECK int kv_store_settings(struct kv_store *s, struct kv_store_setting **settings,
                                    size_t *n, struct kv_error *e);

// ---- SQL ------------------------------------------------------------------------------

// A value bound to a "?" of a statement or read from a row.
enum kv_sql_kind { KV_SQL_NULL, KV_SQL_INT, KV_SQL_REAL, KV_SQL_TEXT };
struct kv_sql_value {
    enum kv_sql_kind kind;
    long long n;
    double x;
    const char *text; // borrowed for the call
};
struct kv_sql_value kv_sql_text(const char *s); // NULL is ""
struct kv_sql_value kv_sql_int(long long n);
struct kv_sql_value kv_sql_real(double x); // NAN is NULL

// Runs one statement with values bound in order. Each row is handed to `row` (may be NULL), which
// stops the query by returning non-zero after filling *e. On a handle opened with KV_STORE_READ
// nothing can be changed.
KV_MUST_CHECK int kv_store_query(struct kv_store *s, const char *sql,
                                 const struct kv_sql_value *values, size_t n_values,
                                 int (*row)(void *self, size_t n, const char *const *names,
                                            const struct kv_sql_value *values, struct kv_error *e),
                                 void *self, struct kv_error *e);

// Runs one statement that only reads, for users: `head` gets its columns (also when no row comes),
// then each row goes to `row`. KV_EUSAGE: SQL that is none, several statements, or one that would
// change anything or read another file.
KV_MUST_CHECK int kv_store_select(struct kv_store *s, const char *sql,
                                  int (*head)(void *self, size_t n, const char *const *names,
                                              struct kv_error *e),
                                  int (*row)(void *self, size_t n, const char *const *names,
                                             const struct kv_sql_value *values, struct kv_error *e),
                                  void *self, struct kv_error *e);

// What a store is made of: each view, then each table, with its columns ("a, b, c") and what
// schema.sql says above it. Needs no file.
struct kv_store_part {
    const char *kind, *name, *columns, *about; // borrowed for the call
};
KV_MUST_CHECK int kv_store_describe(int (*take)(void *self, const struct kv_store_part *part,
                                                struct kv_error *e),
                                    void *self, struct kv_error *e);

KV_END_DECLS

#endif
