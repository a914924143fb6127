// SPDX-License-Identifier: Apache-2.0
// Spec texts: "name(inner):key=value,key=value", their check against a parameter table, and
// expansion.
//
//     struct kv_spec s;   kv_spec_parse(&s, "static:k=8,v=4", &e);       name, inner, pairs
//     struct kv_args *a;  kv_args_new(&a, &s, params, "policy static", &e);
//     char *c = kv_args_canonical(a, "static");                          all keys, sorted
#ifndef KV_ARGS_H
#define KV_ARGS_H

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

// Checks pairs against up to two parameter tables (own keys, then common keys; NULL = none) and
// keeps the values. `what` names the owner in messages ("policy static"). Unknown keys suggest the
// nearest.
KV_MUST_CHECK int kv_args_new(struct kv_args **args, const struct kv_spec *s,
                              const struct kv_param *params, const struct kv_param *common,
                              const char *what, struct kv_error *e);
void kv_args_free(struct kv_args *args);

// "name(inner):key=value,..." with all keys that have a value, sorted. Caller frees; NULL = no
// memory.
char *kv_args_canonical(const struct kv_args *args, const char *name);

// Expands "{a,b}" anywhere and "from..to+step" in values: a list of plain specs, in order, without
// repeats. Caller frees with kv_list_free. Errors: KV_EUSAGE (unbalanced braces, more than 100,000
// specs).
KV_MUST_CHECK int kv_spec_expand(const char *text, char ***list, size_t *n, struct kv_error *e);
void kv_list_free(char **list, size_t n);

// The candidate nearest to `name` by edit distance, or NULL when none is near (distance above a
// third of the length). Candidates end with NULL.
const char *kv_nearest(const char *name, const char *const *candidates);

#endif
