// SPDX-License-Identifier: Apache-2.0
// The specs of a sweep: words, expansions and files of them, opened and without repeats, and the
// names that the user gives them.
#ifndef KV_ANALYSIS_STUDIES_SWEEP_SPECS_H
#define KV_ANALYSIS_STUDIES_SWEEP_SPECS_H

#include "sim/replay/spec.h"

struct kv_spec_list {
    struct kv_replay_spec *at;
    char **name; // [n] what tables call each; NULL = its label
    size_t n;
};
// Adds what a word stands for: a spec, an expansion, or a file of them whose name ends in ".sweep",
// one a line, with "as=NAME" behind it or not; '#' begins a comment. In an expansion a width that
// the format does not offer is skipped with one line; alone it is an error. KV_EUSAGE names file
// and line.
KV_MUST_CHECK int kv_spec_list_add(struct kv_spec_list *l, const char *word,
                                   const struct kv_format_setting *setting, uint64_t seed,
                                   struct kv_error *e);
// Adds "NAME=SPEC". KV_EUSAGE: a name that cannot be one or is another spec's, a spec that has
// another name, an expansion into several.
KV_MUST_CHECK int kv_spec_list_add_named(struct kv_spec_list *l, const char *text,
                                         const struct kv_format_setting *setting, uint64_t seed,
                                         struct kv_error *e);
void kv_spec_list_fini(struct kv_spec_list *l);

#endif
