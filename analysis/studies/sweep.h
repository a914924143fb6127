// SPDX-License-Identifier: Apache-2.0
// Sweeps: many specs replayed against a trace, in several modes and redraws, into a store of
// results and to whoever listens.
//
//     struct kv_sweep_options o = kv_sweep_defaults();
//     const char *specs[] = {"static:bits={2,4,8}@sym", "more.sweep"};
//     struct kv_sweep *s;
//     size_t n;
//     o.trace = "samples.trace", o.model = "model.gguf", o.db = "kvsim.db";
//     o.specs = specs, o.n_specs = 2;
//     int rc = kv_sweep_open(&s, &o, &e);
//     if (rc == 0) rc = kv_sweep_run(s, &e);
//     if (rc == 0) {
//         const struct kv_replay_spec *spec = kv_sweep_specs(s, &n);
//         const struct kv_sweep_line *line = kv_sweep_lines(s, &n);
//         for (size_t i = 0; i < n; i++)
//             printf("%s %g\n", spec[line[i].spec].canonical, line[i].kl_nats);
//     }
//     kv_sweep_close(s);
//
// What a store holds already is not run again, so a sweep that was stopped goes on where it
// stopped. Equal options give equal results whatever `jobs` is. Nothing is printed but progress and
// remarks on stderr (kv_set_verbosity(-1) in sim/base/talk.h silences both).
#ifndef KV_ANALYSIS_STUDIES_SWEEP_H
#define KV_ANALYSIS_STUDIES_SWEEP_H

#include "analysis/stats/stats.h"
#include "sim/base/ranks.h"
#include "sim/model/compute.h"
#include "sim/replay/attention.h"
#include "sim/replay/replay.h"
#include "sim/store/merge.h"
#include "traces/range.h"

KV_BEGIN_DECLS

struct kv_sweep_options {
    size_t struct_bytes; // as kv_sweep_defaults sets it
    const char *trace;   // folder
    const char *model;   // GGUF file or Hugging Face folder; exact replay alone runs it
    enum kv_compute compute;
    // Specs and expansions ("static:bits={2,4}@sym"), and files of them: words that end in
    // ".sweep", each line a spec, with "as=NAME" behind it or not. In an expansion a width that the
    // format does not offer is skipped with one line; alone it is an error. A word that is no
    // spec may be what the store's tables call one: a name or a label.
    const char *const *specs;
    size_t n_specs;
    bool exact, fisher; // how outcomes are obtained; the default is exact alone
    bool attention;     // errors of attention too; they are never stored
    enum kv_form form;  // of damage; none = the finest that the trace can give (element, channel);
                        // iso in recordings that lack sums by channel
    enum kv_mode modes[KV_N_MODES];
    size_t n_modes; // the default is inline alone
    bool published; // each spec in the mode that it was published in (published.h); modes: all
    enum kv_self self;
    enum kv_feedback feedback;  // closed: exact replay alone
    uint32_t redraws;           // 1 = the run itself; more: also under seeded disturbances of 1e-6
    struct kv_item_range items; // none = all
    bool audit;                 // ask each policy again with the future scrambled
    const char *db;             // store of results, made when missing; NULL = nowhere
    // Files of one spec in one mode and fidelity, once, without a store; NULL = none. Decisions as
    // policy `plan` reads them (policies/README.md); scores of items, choices and tokens as arrays
    // (analysis/results/result_file.h), of exact replay.
    const char *plan_out, *scores_out;
    unsigned jobs; // threads
    uint64_t seed; // of policies that draw, and of redraws
    // Takes each outcome as it comes, in any order of items; `spec` counts those of kv_sweep_specs.
    // One at a time, from any thread; NULL = nobody listens.
    void (*take)(void *listener, size_t spec, size_t item, enum kv_fidelity fidelity,
                 enum kv_mode mode, const struct kv_outcome *o);
    void *listener;
    // "NAME=SPEC": more specs, which the store and its tables call by these names from now on.
    const char *const *named;
    size_t n_named;
    // A part of the items, for sweeps whose stores kv_store_merge joins; parts 0 = all of them.
    struct kv_shard shard;
    // Processes that share the sweep, each of which asks for it by the same options; NULL = this
    // one is alone. Rank 0 alone writes the store and has lines; needs a store.
    const struct kv_ranks *ranks;
};

// Exact replay, inline, once, of all items, on one thread with seed 1; trace, model and specs are
// the caller's to set.
struct kv_sweep_options kv_sweep_defaults(void);
// Says what is wrong with options before anything is opened: KV_EUSAGE; `where` is the field.
KV_MUST_CHECK int kv_sweep_check(const struct kv_sweep_options *o, struct kv_error *e);

// Checks the options and opens trace, specs and model; texts in them are borrowed until
// kv_sweep_close. Errors: those of kv_sweep_check, a trace, spec or model that cannot be opened,
// items that the trace does not hold, exact replay without a model.
struct kv_sweep;
KV_MUST_CHECK int kv_sweep_open(struct kv_sweep **s, const struct kv_sweep_options *o,
                                struct kv_error *e);
void kv_sweep_close(struct kv_sweep *s); // NULL is fine

// What was opened, borrowed until kv_sweep_close: the trace, the items that will be run, and the
// specs, expanded and without repeats, in the order given.
const struct kv_trace *kv_sweep_trace(const struct kv_sweep *s);
struct kv_item_range kv_sweep_items(const struct kv_sweep *s);
const struct kv_replay_spec *kv_sweep_specs(const struct kv_sweep *s, size_t *n);
// What each of the specs was named, [n]; NULL = it has no name but its label.
const char *const *kv_sweep_names(const struct kv_sweep *s);

// Runs it: for each mode fisher, then each exact redraw; then attention. Errors: those of
// kv_replay_exact, kv_replay_fisher, kv_replay_attention and of the store; KV_EINTR when
// interrupted. Whatever was finished by then is stored. A spec that fisher replay does not answer
// for is skipped with one line where another is left, and where the mode is not the one that a spec
// was published in, one line says so.
KV_MUST_CHECK int kv_sweep_run(struct kv_sweep *s, struct kv_error *e);

// How many outcomes that the last kv_sweep_run was asked for the store held already.
size_t kv_sweep_held(const struct kv_sweep *s);

// What one spec came to in one mode, over the outcomes that the last kv_sweep_run replayed: what
// the store held already is not in it.
struct kv_sweep_line {
    size_t spec; // index into kv_sweep_specs
    enum kv_fidelity fidelity;
    enum kv_mode mode;
    size_t n; // outcomes: items by redraws
    // Outcomes whose scores or divergence are not finite, which no mean of quality counts, and
    // which items of kv_sweep_items they are of.
    size_t n_left_out;
    const bool *left_out; // [n of kv_sweep_items]
    // Accuracy and its 95 % interval (Wilson's), accuracy of the 16-bit run, and how often both
    // pick alike, of the items that have a gold choice and a pick; NAN where none has.
    double acc, acc_norm, acc_ref, agree;
    struct kv_interval acc_interval;
    double kl_nats;                                      // a scored token
    double nominal_bits, effective_bits, allocated_bits; // a cached value, mean over items
    struct kv_attention_layer attention;                 // means of KV_ATTENTION; else NAN
};
// Exact lines come first, then fisher's, then attention's, each by mode and spec. Borrowed until
// the next call of a function of this sweep; s = NULL has none.
const struct kv_sweep_line *kv_sweep_lines(const struct kv_sweep *s, size_t *n);

KV_END_DECLS

#endif
