// SPDX-License-Identifier: Apache-2.0
// The values of a spec, checked against a parameter table.
//
//     struct kv_args *a;  kv_args_new(&a, &s, params, NULL, "policy static", &e);
//     char *c = kv_args_canonical(a, "static");                          all keys, sorted
#ifndef KV_BASE_ARGS_H
#define KV_BASE_ARGS_H

#include "sim/base/spec.h"

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

// The candidate nearest to `name` by edit distance, or NULL when none is near (distance above a
// third of the length). Candidates end with NULL.
const char *kv_nearest(const char *name, const char *const *candidates);

// Index of `name` in a list that ends with NULL; -1 = it is not there.
int kv_index_of(const char *name, const char *const *names);

#endif
