// SPDX-License-Identifier: Apache-2.0
// Spec texts: "name(inner):key=value,key=value", and their expansion.
//
//     struct kv_spec s;   kv_spec_parse(&s, "static:k=8,v=4", &e);       name, inner, pairs
//     struct kv_spec_parts p;   kv_spec_take_apart(&p, "static:k=8,v=4@sym");       all of a spec
#ifndef KV_BASE_SPEC_H
#define KV_BASE_SPEC_H

#include "policies/policy.h"

KV_BEGIN_DECLS

// The syntax of one policy or format. Strings are owned by the spec.
struct kv_spec {
    char *name;
    char *inner; // text between the brackets of a wrapper, or NULL
    size_t n_pairs;
    char **keys, **values;
};

// Reads "name", "name:k=v,..." or "name(inner):k=v,...". Errors: KV_EUSAGE with the text and place,
// also for brackets that nest more than 32 deep.
KV_MUST_CHECK int kv_spec_parse(struct kv_spec *s, const char *text, struct kv_error *e);
void kv_spec_fini(struct kv_spec *s);

// The value of a key; NULL where the spec does not say it.
const char *kv_spec_value(const struct kv_spec *s, const char *key);

// Splits "policy@format" at the '@' outside brackets. *format is NULL when there is none. Caller
// frees both.
KV_MUST_CHECK int kv_spec_split(const char *text, char **policy, char **format, struct kv_error *e);

// A whole spec taken apart, wrappers before what they wrap: "shuffle(static:k=4,v=4)@hadamard(sym)"
// has the policies shuffle and static, and the formats hadamard and sym.
struct kv_spec_parts {
    char *policy_text, *format_text; // the two halves; "" = no format
    struct kv_spec *policies, *formats;
    size_t n_policies, n_formats; // what cannot be parsed ends its list: 0 = nothing could
};
// Takes any text, since a store may hold a spec of a policy that is not here: one that no '@' can
// be found in is all policy. Nothing at all where memory runs out. Free with kv_spec_parts_fini.
void kv_spec_take_apart(struct kv_spec_parts *p, const char *text);
void kv_spec_parts_fini(struct kv_spec_parts *p);

// Expands "{a,b}" anywhere and "from..to+step" in values: a list of plain specs, in order, without
// repeats. Caller frees with kv_list_free. Errors: KV_EUSAGE (unbalanced braces, more than 65,536
// characters, 100,000 specs, a million replacements or 64 MiB of text on the way).
KV_MUST_CHECK int kv_spec_expand(const char *text, char ***list, size_t *n, struct kv_error *e);
void kv_list_free(char **list, size_t n);

KV_END_DECLS

#endif
