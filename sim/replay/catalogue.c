// SPDX-License-Identifier: Apache-2.0
// Words for rows of the tables of formats and policies.
#include "sim/replay/catalogue.h"

#include "sim/base/memory.h"
#include "sim/replay/spec.h"

#include <stdlib.h>

struct kv_format_setting kv_listing_setting(void) {
    return (struct kv_format_setting){
        .shape = {.n_layers = 30, .n_heads = 9, .n_kv_heads = 3, .head_dim = 64},
        .order = KV_ORDER_GGML};
}

static int open_in(struct kv_format **f, const struct kv_format_type *t, enum kv_order order,
                   struct kv_error *e) {
    struct kv_format_setting s = kv_listing_setting();
    s.order = order;
    char *spec = kv_format_text("%s%s", t->name, t->wraps ? "(sym)" : "");
    int rc = kv_format_open(f, spec, &s, e);
    free(spec);
    return rc;
}

int kv_listing_open(struct kv_format **f, const struct kv_format_type *t, struct kv_error *e) {
    return open_in(f, t, KV_ORDER_GGML, e);
}

char *kv_listing_widths(const struct kv_format *f) {
    struct kv_text t = {0};
    for (size_t i = 0; i < f->n_widths; i++)
        kv_text_addf(&t, "%s%u", i ? "/" : "", f->width_bits[i]);
    return kv_text_take(&t);
}

static void add_unit(struct kv_text *t, const struct kv_format *f, enum kv_side side) {
    if (f->unit_tokens[side] > 1)
        kv_text_addf(t, "%u tokens of a head", f->unit_tokens[side]);
    else if (f->unit_heads > 1)
        kv_text_addf(t, "%u heads of a token", f->unit_heads);
    else
        kv_text_addf(t, "a head's vector");
}

char *kv_listing_scope(const struct kv_format *f) {
    struct kv_text t = {0};
    add_unit(&t, f, KV_KEY);
    if (f->unit_tokens[KV_KEY] != f->unit_tokens[KV_VALUE]) {
        kv_text_addf(&t, " (K), ");
        add_unit(&t, f, KV_VALUE);
        kv_text_addf(&t, " (V)");
    }
    if (f->scope == KV_SCOPE_TENSOR) kv_text_addf(&t, ", a prompt's together");
    return kv_text_take(&t);
}

char *kv_listing_keys(const struct kv_param *p) {
    struct kv_text t = {0};
    for (size_t i = 0; p && p[i].name; i++)
        kv_text_addf(&t, "%s%s%s%s", i ? " " : "", p[i].name, p[i].fallback ? "=" : " (needed)",
                     p[i].fallback ? p[i].fallback : "");
    return kv_text_take(&t);
}

char *kv_listing_param(const struct kv_param *p) {
    static const char *const types[] = {"whole number", "number", "", "list", "text"};
    struct kv_text t = {0};
    if (p->type == KV_CHOICE)
        kv_text_addf(&t, "%s", p->choices);
    else
        kv_text_addf(&t, "%s", types[p->type]);
    if (p->type == KV_INT || p->type == KV_FLOAT || p->type == KV_LIST)
        if (p->max > p->min) kv_text_addf(&t, " %g..%g", p->min, p->max);
    if (p->unit) kv_text_addf(&t, " %s", p->unit);
    if (!p->fallback)
        kv_text_addf(&t, ", must be given");
    else if (*p->fallback)
        kv_text_addf(&t, ", default %s", p->fallback);
    kv_text_addf(&t, ": %s", p->help);
    return kv_text_take(&t);
}

char *kv_listing_needs(uint32_t needs) {
    struct kv_text t = {0};
    for (int i = 0; i < 32; i++) {
        const char *name = needs >> i & 1 ? kv_need_name(1u << i) : NULL;
        if (name) kv_text_addf(&t, "%s%s", t.n ? ", " : "", name);
    }
    return kv_text_take(&t);
}

char *kv_listing_varies(uint32_t varies) {
    static const char *const axes[] = {"token", "layer", "head", "K and V", "position"};
    struct kv_text t = {0};
    for (int i = 0; i < 5; i++)
        if (varies & (1u << i)) kv_text_addf(&t, "%s%s", t.n ? ", " : "", axes[i]);
    return kv_text_take(&t);
}

const char *kv_listing_order(const struct kv_format_type *t) {
    struct kv_format *ggml, *hf;
    if (open_in(&ggml, t, KV_ORDER_GGML, NULL)) return "";
    if (open_in(&hf, t, KV_ORDER_HF, NULL)) {
        kv_format_close(ggml);
        return "";
    }
    const char *order = ggml->order != hf->order       ? "the model's"
                        : ggml->order == KV_ORDER_GGML ? "ggml"
                                                       : "hf";
    kv_format_close(ggml);
    kv_format_close(hf);
    return order;
}

const char *kv_listing_rope_side(const struct kv_format *f) {
    return f->keys_before_rope ? "before" : "after";
}
