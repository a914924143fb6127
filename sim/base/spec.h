// SPDX-License-Identifier: Apache-2.0
// Spec texts: "name(inner):key=value,key=value", and their expansion.
//
//     struct kv_spec s;   kv_spec_parse(&s, "static:k=8,v=4", &e);       name, inner, pairs
#ifndef KV_BASE_SPEC_H
#define KV_BASE_SPEC_H

#include "policies/policy.h"

// The syntax of one policy or format. Strings are owned by the spec.
struct kv_spec {
    char *name;
    char *inner; // text between the brackets of a wrapper, or NULL
    size_t n_pairs;
    char **keys, **values;
};

// Reads "name", "name:k=v,..." or "name(inner):k=v,...". Errors: KV_EUSAGE with the text and place.
KV_MUST_CHECK int kv_spec_parse(struct kv_spec *s, const char *text, struct kv_error *e);
void kv_spec_fini(struct kv_spec *s);

// Splits "policy@format" at the '@' outside brackets. *format is NULL when there is none. Caller
// frees both.
KV_MUST_CHECK int kv_spec_split(const char *text, char **policy, char **format, struct kv_error *e);

// Expands "{a,b}" anywhere and "from..to+step" in values: a list of plain specs, in order, without
// repeats. Caller frees with kv_list_free. Errors: KV_EUSAGE (unbalanced braces, more than 100,000
// specs).
KV_MUST_CHECK int kv_spec_expand(const char *text, char ***list, size_t *n, struct kv_error *e);
void kv_list_free(char **list, size_t n);

#endif
