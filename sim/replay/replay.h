// SPDX-License-Identifier: Apache-2.0
// Replaying specs against a trace: decisions in, outcomes out.
//
//     struct kv_replay r = {.trace = t, .model = m, .specs = specs, .n_specs = n, .mode =
//     KV_INLINE, ...}; kv_replay_exact(&r, jobs, &e);            calls r.take once for each item
//     and spec, from any worker
#ifndef KV_REPLAY_REPLAY_H
#define KV_REPLAY_REPLAY_H

#include "sim/model/model.h"
#include "sim/base/outcome.h"
#include "sim/replay/spec.h"
#include "traces/tables.h"

KV_BEGIN_DECLS

// What closed feedback changed of a spec's decisions, summed over items.
struct kv_closed_count {
    uint64_t items, tokens, changed; // tokens some of whose cells have another width
    uint64_t passes;                 // of the model, until decisions and features agreed
};

struct kv_targets;

struct kv_replay {
    const struct kv_trace *trace;
    const struct kv_model *model;
    const struct kv_replay_spec *specs;
    size_t n_specs;
    enum kv_mode mode;
    bool self_exact;
    uint32_t redraw; // 0 = the run itself; others disturb the embeddings by 1e-6, seeded
    uint64_t seed;
    // Tables for policies that declare KV_NEED_DAMAGE or KV_NEED_ERROR, one a spec
    // (kv_replay_open_tables).
    struct kv_cell_table **damage, **error;
    enum kv_cell_table_kind form;   // of the damage, as opened
    struct kv_quantiles *quantiles; // for those that declare KV_NEED_QUANTILES
    bool audit;                     // each item, not the first alone: kv_audit_needs, kv_audit
    bool closed;                    // policies read the run they steer: closed.h; exact replay only
    struct kv_closed_count *counts; // [n_specs] what closed feedback changed, or NULL
    bool quiet;                     // no progress is drawn
    bool decisions_only;            // exact replay runs and counts bits, and compares nothing
    size_t first_item, n_items;     // the part of the trace to replay
    // Says which pairs are wanted (NULL = all); called before an item is run, from any worker.
    bool (*wanted)(void *self, size_t item, size_t spec);
    // Says whether an item some of which is wanted is this process's to run, where several share a
    // trace (NULL = every one is); asked once an item, from any worker, just before it is run.
    bool (*claim)(void *self, size_t item);
    // Takes an outcome (which it may keep parts of by copying); from any worker, one at a time.
    int (*take)(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e);
    // Takes the decisions that an item's outcome came of, cells[n_tokens][...], before the outcome;
    // from any worker, one at a time. NULL = nobody asks. Exact and fisher replay alone.
    void (*decided)(void *self, size_t item, size_t spec, const uint8_t *cells);
    // Takes what the outcome adds up, scored token by scored token (compare.h), before the outcome;
    // from any worker, one at a time. NULL = nobody asks. Exact replay alone.
    void (*scored)(void *self, size_t item, size_t spec, const struct kv_targets *targets,
                   const double *kl_nats);
    void *self;
};

// Runs the model again with each spec's cache. An item's outcome does not depend on what else runs.
// Errors: a trace of another model, a trace without final states, text windows in a prefill mode.
KV_MUST_CHECK int kv_replay_exact(const struct kv_replay *r, unsigned jobs, struct kv_error *e);

// ---- before the first decision (prepare.c) --------------------------------------------

// Opens the tables that the specs' policies need (an iso table may serve for damage), sharing them
// among specs of one format, and closes them.
KV_MUST_CHECK int kv_replay_open_tables(struct kv_replay *r, enum kv_cell_table_kind form,
                                        unsigned jobs, struct kv_error *e);
void kv_replay_close_tables(struct kv_replay *r);
// Lets the policies that want it fit themselves to the trace's first items (kv_replay_open_tables
// does so too). Errors: a trace that does not keep what they measure. (fitting.c)
KV_MUST_CHECK int kv_replay_fit(const struct kv_replay *r, unsigned jobs, struct kv_error *e);

// Runs policies whose widths must meet a budget over all items of r (a `settle` of their own) until
// they do, and gives their specs the canonical text of the setting found. r: model, trace, items,
// mode; its specs are not looked at. Errors: those of kv_replay_exact. (match.c)
KV_MUST_CHECK int kv_replay_match(const struct kv_replay *r, struct kv_replay_spec *specs, size_t n,
                                  unsigned jobs, struct kv_error *e);

// ---- decisions (decide.c) -------------------------------------------------------------

// Asks a spec's policy about item i, with the tables r holds for it, and audits what it answers
// about the first item, or with r->audit about each:
// cells[n_tokens][n_layers][n_kv_heads][2]. Features that the policy did not declare read NAN.
// Errors: whatever the policy says; a width not offered, naming the token.
KV_MUST_CHECK int kv_decide(const struct kv_replay *r, size_t spec, size_t item, uint8_t *cells,
                            struct kv_error *e);

// The same with other features than the recorded ones: [n_tokens][KV_N_FEATURES].
KV_MUST_CHECK int kv_decide_by(const struct kv_replay *r, size_t spec, size_t item,
                               const float *features, uint8_t *cells, struct kv_error *e);

// The same where a pass has run the policy that decides by layers: decided[n_tokens][...] are its
// answers, which a wrapper goes by.
KV_MUST_CHECK int kv_decide_given(const struct kv_replay *r, size_t spec, size_t item,
                                  const uint8_t *decided, uint8_t *cells, struct kv_error *e);

// Asks a spec's policy about an item again, the same and with what it did not declare shown, as it
// was recorded and as extremes; compares with its answer so far. view: what kv_show_item showed.
// Errors: an answer that changed, naming what it reads. (audit.c)
KV_MUST_CHECK int kv_audit_needs(const struct kv_replay_spec *spec, const struct kv_trace_item *it,
                                 const float *features, const struct kv_item *view,
                                 const uint8_t *cells, struct kv_error *e);

// Asks a policy about an item again, at several points with everything scrambled that it cannot
// know by then, and compares with its answer so far: cells[n_tokens][...]. Policies that declare
// the future are not asked. Errors: an answer that changed, naming the token. (audit.c)
KV_MUST_CHECK int kv_audit(const struct kv_replay_spec *spec, const struct kv_item *item,
                           const uint8_t *cells, struct kv_error *e);

KV_END_DECLS

#endif
