// SPDX-License-Identifier: Apache-2.0
// What `replay` and `sweep` share: options, opening trace, model and specs, running, adding up.
#ifndef KV_ANALYSIS_STUDIES_SWEEP_H
#define KV_ANALYSIS_STUDIES_SWEEP_H

#include "sim/cli/opening.h"
#include "sim/replay/fisher.h"

// Rows of option tables that both commands show.
#define KV_REPLAY_OPTIONS                                                                          \
    {"model", 'm', "MODEL", NULL,                                                                  \
     "the model the trace was recorded from (default: $KVSIM_MODEL, then data/*.gguf)"},           \
        {"fidelity", 0, "LIST", "exact",                                                           \
         "how outcomes are obtained: exact, fisher; replay alone: attention"},                     \
        {"form", 0, "FORM", "iso",                                                                 \
         "of fisher's damage: iso; element and vector need --keep grad"},                          \
        {"mode", 0, "LIST", "inline",                                                              \
         "when coded values are read: inline, prefill, prefill1, requant"},                        \
        {"self", 0, "HOW", "coded", "a token's own query reads its K and V coded or exact"},       \
        {"feedback", 0, "HOW", "open",                                                             \
         "policies read the recording's features (open) or those of the run they steer (closed)"}, \
        {"redraws", 0, "R", "1",                                                                   \
         "repeat under a seeded relative disturbance of 1e-6, to see rounding noise"},             \
        KV_COMPUTE_OPTION,                                                                         \
        {"items", 0, "A-B", NULL, "only items A to B of the trace, counted from 0"},               \
        {"audit", 0, NULL, NULL,                                                                   \
         "ask each policy again with the future scrambled: none may answer otherwise"},            \
    {                                                                                              \
        "db", 0, "FILE", KV_REPLAY_DB, "store of results"                                          \
    }

// A replay as the command line asks for it.
struct kv_replaying {
    struct kv_trace *trace;
    struct kv_model *model;
    struct kv_replay_spec *specs;
    size_t n_specs;
    bool exact, fisher, attention; // attention: kv_replay_attention, for the caller to run
    enum kv_cell_table_kind form;
    enum kv_mode modes[KV_N_MODES];
    size_t n_modes;
    bool self_exact, closed;
    long redraws;
    size_t first_item, n_items;
};

// Opens everything; options that the command does not have stand at their defaults. Specs are
// expanded; words ending in ".sweep" are files of specs. In an
// expansion a pair that cannot be (static:bits=2@q4_0) is skipped with one line; alone it is an
// error.
KV_MUST_CHECK int kv_replaying_open(struct kv_replaying *r, struct kv_cli *c, struct kv_error *e);
void kv_replaying_close(struct kv_replaying *r);

// Runs every mode and redraw into the store (NULL = nowhere) and hands each outcome to `also` (or
// NULL).
KV_MUST_CHECK int kv_replaying_run(struct kv_replaying *r, struct kv_cli *c, const char *db,
                                   void (*also)(void *self, size_t spec, enum kv_fidelity fidelity,
                                                enum kv_mode mode, const struct kv_outcome *o),
                                   void *self, struct kv_error *e);

#endif
