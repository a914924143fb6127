// SPDX-License-Identifier: Apache-2.0
// The options that `replay` and `sweep` share, and the sweep that they ask for.
#ifndef KV_CLI_REPLAY_OPTIONS_H
#define KV_CLI_REPLAY_OPTIONS_H

#include "analysis/studies/sweep.h"
#include "sim/cli/opening.h"

// Rows of option tables; db: the default of --db.
#define KV_REPLAY_OPTIONS(db_default)                                                              \
    {"model", 'm', "MODEL", NULL,                                                                  \
     "the model the trace was recorded from (default: $KVSIM_MODEL, then data/*.gguf)"},           \
        {"fidelity", 0, "LIST", "exact",                                                           \
         "how outcomes are obtained: exact, fisher; replay alone: attention"},                     \
        {"form", 0, "FORM", NULL,                                                                  \
         "of fisher's damage: iso; channel, in recordings with sums by channel; element and "      \
         "vector, which need --keep grad (default: element, channel or iso, the finest that the "  \
         "trace can give; iso in recordings without sums by channel)"},                            \
        {"mode", 0, "LIST", "inline",                                                              \
         "when coded values are read: inline, prefill, prefill1, requant; or published: each "     \
         "spec as its source reads"},                                                              \
        {"self", 0, "HOW", "coded", "a token's own query reads its K and V coded or exact"},       \
        {"feedback", 0, "HOW", "open",                                                             \
         "policies read the recording's features (open) or those of the run they steer (closed)"}, \
        {"redraws", 0, "R", "1",                                                                   \
         "repeat under a seeded relative disturbance of 1e-6, to see rounding noise"},             \
        KV_COMPUTE_OPTION, KV_PRECISION_OPTION,                                                    \
        {"items", 0, "A-B", NULL, "only items A to B of the trace, counted from 0"},               \
        {"as", 0, "NAME=SPEC", NULL,                                                               \
         "replay this spec too, and call it NAME in tables, figures and pages; may be repeated"},  \
        {"audit", 0, NULL, NULL,                                                                   \
         "ask each policy about each item again, with the future scrambled and all shown; "        \
         "without "                                                                                \
         "it about the first item alone"},                                                         \
    {                                                                                              \
        "db", 0, "FILE", db_default, "store of results"                                            \
    }

// Reads the command line TRACE SPEC... and its options into *o, which borrows from it; *model is
// the path that o->model names, for the caller to free.
KV_MUST_CHECK int kv_opt_sweep(const struct kv_cli *c, struct kv_sweep_options *o, char **model,
                               struct kv_error *e);

// Says on stderr what an audit that was asked for has found, which is nothing: s has run.
void kv_say_audit(const struct kv_sweep *s, const struct kv_sweep_options *o);

#endif
