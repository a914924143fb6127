// SPDX-License-Identifier: Apache-2.0
// The options by which verbs say which rows of a store they mean.
#ifndef KV_CLI_ROW_OPTIONS_H
#define KV_CLI_ROW_OPTIONS_H

#include "analysis/results/find.h"
#include "analysis/results/rows.h"
#include "sim/cli/options.h"

// Of verbs that read all rows.
#define KV_ROWS_OPTIONS                                                                            \
    {"db", 0, "FILE", "kvsim.db", "the store"},                                                    \
        {"device", 'd', "NAME", NULL, "device that prices a token (default: the first shipped)"},  \
        {"context", 'c', "LIST", "128,2048", "contexts in tokens at which a token is priced"},     \
        {"fidelity", 0, "NAME", NULL, "only rows of this fidelity"},                               \
        {"as", 0, "NAME=SPEC", NULL, "call the rows of a spec so; may be repeated"}, {             \
        "builds", 0, NULL, NULL, "runs of all versions, not the fullest of each spec alone"        \
    }
// Reads them. KV_EUSAGE names the option and what it takes.
KV_MUST_CHECK int kv_opt_rows(const struct kv_cli *c, struct kv_rows_options *rows,
                              struct kv_error *e);

// One of a list of names, as a set of one bit, 1 << its index; *set stays 0 without the option.
// KV_EUSAGE lists the names.
KV_MUST_CHECK int kv_opt_name_set(const struct kv_cli *c, const char *option,
                                  const char *const *names, unsigned *set, struct kv_error *e);

// Reads --fidelity, --digest, and the --mode and --feedback of the spec that stands at this place:
// "A,B" are those of the first and the second, one alone holds for both. KV_EUSAGE as above.
KV_MUST_CHECK int kv_opt_choice(const struct kv_cli *c, size_t place, struct kv_row_choice *choice,
                                struct kv_error *e);

// Says on stderr what show marks of rows[n] of a store: those of a read mode that they were not
// published in, and of several builds of one file those that are not of the newest.
KV_MUST_CHECK int kv_say_marks(struct kv_store *s, const struct kv_summary *const *rows, size_t n,
                               struct kv_error *e);

#endif
