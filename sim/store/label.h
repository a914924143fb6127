// SPDX-License-Identifier: Apache-2.0
// Short names of specs for tables and figures: what is at its default is not said.
//
//     char *label[2];
//     kv_spec_labels(specs, NULL, 2, label);          "static:bits=4@sym", not "static:k=4,v=4@..."
//
// Defaults are left out, and the channel order where it is the one that the format takes by itself;
// two that would read alike keep all keys. A store keeps each run's label (column `label`), made
// from its spec and trace alone, and tables print that one. What comes from a file, a plug-in or a
// controller's weights, has the first digits of its digest behind the name: "mine.so#a38e".
#ifndef KV_STORE_LABEL_H
#define KV_STORE_LABEL_H

#include "sim/store/store.h"

// settings[n]: of each spec's trace; NULL entries, or NULL for all = unknown. labels[n] are the
// caller's to free.
void kv_spec_labels(const char *const *specs, const struct kv_format_setting *const *settings,
                    size_t n, char **labels);

// The name of one spec over one trace of the store: what column `label` holds. It depends on
// nothing else that the store holds. Caller frees.
KV_MUST_CHECK int kv_store_label(struct kv_store *s, long long trace, const char *spec,
                                 char **label, struct kv_error *e);
// Names the runs that have no name yet: those of stores from before there was the column.
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
