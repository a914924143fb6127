// SPDX-License-Identifier: Apache-2.0
// What readers and writers of the runtimes share.
#ifndef KV_RUNTIMES_OWN_H
#define KV_RUNTIMES_OWN_H

#include "sim/runtimes/runtimes.h"

#include <jansson.h>

// ---- a plan under its reader (read.c) -------------------------------------------------

// Makes room for all layers (and heads) at 16 bit. Errors: the number of layers is not known.
KV_MUST_CHECK int kv_served_spread(struct kv_served *s, uint32_t n_heads, const char *path,
                                   struct kv_error *e);
// One width for all keys, one for all values.
void kv_served_all(struct kv_served *s, unsigned k, unsigned v);
// The runtime's first offer of this name, or NULL for none.
const struct kv_offer *kv_offer_named(const struct kv_runtime *r, const char *name);
// Width of a layer that has no heads of its own.
static inline unsigned kv_served_bits(const struct kv_served *s, uint32_t layer,
                                      enum kv_side side) {
    return s->bits[(size_t)(s->n_layers > 1 ? layer : 0) * s->n_heads * 2 + side];
}
bool kv_served_uniform(const struct kv_served *s); // every layer and head alike
// Whole numbers of a text, alone in it.
KV_MUST_CHECK bool kv_whole_number(const char *text, long min, long max, long *x);
// Whether a runtime's choice of values that share a scale fits; sets s->group.
KV_MUST_CHECK int kv_served_group(struct kv_served *s, long group, const char *path,
                                  const char *name, struct kv_error *e);

// ---- command lines (words.c) ----------------------------------------------------------

// NAME=VALUE before a command, the command's words, as a POSIX shell splits them; no expansions.
struct kv_words {
    char **at;
    size_t n, n_settings; // settings are the first of them
};
KV_MUST_CHECK int kv_words_read(struct kv_words *w, const char *text, const char *path,
                                struct kv_error *e);
void kv_words_fini(struct kv_words *w);
// The value behind an option, whichever of its names ("-ctk" or "--cache-type-k", NULL at the end)
// is the last on the line; "--name=value" too. NULL = not given. Errors: an option without value.
KV_MUST_CHECK int kv_words_option(const struct kv_words *w, const char *const *names,
                                  const char *path, const char **value, struct kv_error *e);
bool kv_words_flag(const struct kv_words *w, const char *name);
const char *kv_words_setting(const struct kv_words *w, const char *name); // NULL = not set
bool kv_words_say(const struct kv_words *w, const char *part);            // some word holds it

// ---- JSON files (json.c) --------------------------------------------------------------

KV_MUST_CHECK int kv_json_object_read(json_t **root, const char *text, const char *path,
                                      struct kv_error *e);
// Whole numbers of a key, as a number or its text; `fallback` where there is none.
KV_MUST_CHECK int kv_json_whole(const json_t *o, const char *key, long min, long max, long fallback,
                                long *x, const char *path, struct kv_error *e);

// ---- the rows' own calls --------------------------------------------------------------

typedef int kv_write_fn(const struct kv_served *, struct kv_text *, struct kv_error *);
typedef int kv_read_fn(struct kv_served *, const char *, const char *, struct kv_error *);
typedef bool kv_is_fn(const char *);
typedef const char *kv_remark_fn(const struct kv_served *);
kv_write_fn kv_write_llama, kv_write_ik, kv_write_vllm, kv_write_modelopt, kv_write_transformers,
    kv_write_kvtuner, kv_write_openvino, kv_write_mlx;
kv_read_fn kv_read_llama, kv_read_ik, kv_read_vllm, kv_read_modelopt, kv_read_transformers,
    kv_read_kvtuner, kv_read_openvino, kv_read_mlx;
kv_is_fn kv_is_llama, kv_is_ik, kv_is_vllm, kv_is_modelopt, kv_is_transformers, kv_is_kvtuner,
    kv_is_openvino, kv_is_mlx;
const struct kv_offer *kv_plain_llama(const struct kv_served *s);
kv_remark_fn kv_remark_llama, kv_remark_mlx, kv_remark_transformers;

#endif
