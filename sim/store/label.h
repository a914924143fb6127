// SPDX-License-Identifier: Apache-2.0
// Short names of specs for tables and figures: what is at its default is not said.
//
//     char *label[2];
//     kv_spec_labels(specs, NULL, 2, label);          "static:bits=4@sym", not "static:k=4,v=4@..."
//
// Defaults are left out, and the channel order where it is the one that the format takes by itself;
// two that would read alike keep all keys. A store keeps each run's label (column `label`), made
// from its spec and trace alone. Where the user has given the spec a name (kv_store_name), that is
// what tables print (column `label` of the view `summary`). What comes from a file, a plug-in or a
// controller's weights, has the first digits of its digest behind the name: "mine.so#a38e". Lists
// of more than eight numbers are given by their mean, and the last by the first digits of the
// digest of all: "layerwise:by=head,k~3.41,v~2.59#1c0f".
#ifndef KV_STORE_LABEL_H
#define KV_STORE_LABEL_H

#include "sim/store/store.h"

// settings[n]: of each spec's trace; NULL entries, or NULL for all = unknown. labels[n] are the
// caller's to free.
void kv_spec_labels(const char *const *specs, const struct kv_format_setting *const *settings,
                    size_t n, char **labels);

// Of one spec whose trace is unknown. Caller frees.
char *kv_spec_label(const char *spec);

// The name of one spec over one trace of the store: what column `label` holds. It depends on
// nothing else that the store holds. Caller frees.
KV_MUST_CHECK int kv_store_label(struct kv_store *s, long long trace, const char *spec,
                                 char **label, struct kv_error *e);
// The name that the user gives to a spec of the store, which its tables then print; an empty one is
// refused, another replaces it. KV_EUSAGE also when another spec has it already.
KV_MUST_CHECK int kv_store_name(struct kv_store *s, const char *spec, const char *name,
                                struct kv_error *e);
// The spec that a store calls so, by a name or a label of its tables; NULL where none is, or
// several. Caller frees.
KV_MUST_CHECK int kv_store_spec(struct kv_store *s, const char *called, char **spec,
                                struct kv_error *e);
// Whether a text can be such a name: 1 to 48 characters, none of them '@', '=', '#' or one that
// steers a terminal, no blank at either end. KV_EUSAGE.
enum { KV_NAME_CHARACTERS = 48 };
KV_MUST_CHECK int kv_name_check(const char *name, struct kv_error *e);
// Labels the runs that have no label yet: those of stores from before there was the column, or from
// before labels were made as now.
KV_MUST_CHECK int kv_store_label_runs(struct kv_store *s, struct kv_error *e);

// The width that a policy gives to keys and values alike: "4" of "static:k=4,v=4"; NULL for any
// other policy.
const char *kv_uniform_width(const struct kv_spec *policy);
// The digest of the file that a spec's policy comes from, and the file; NULL when it comes from
// none.
const char *kv_spec_digest(const struct kv_spec_parts *parts, const char **file);
// Whether a spec is the shuffle of another: the same widths on the wrong tokens, in one format.
bool kv_spec_shuffles(const struct kv_spec_parts *shuffle, const struct kv_spec_parts *of);

#endif
