// SPDX-License-Identifier: Apache-2.0
// The table of formats and what all of them share: opening from a spec, common keys.
#include "sim/quant/format.h"
#include "sim/base/args.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"

#include <stdlib.h>

#define KV_FORMAT(name) extern const struct kv_format_type kv_format_type_##name;
#include "sim/quant/formats.def"
#undef KV_FORMAT

static const struct kv_format_type *const types[] = {
#define KV_FORMAT(name) &kv_format_type_##name,
#include "sim/quant/formats.def"
#undef KV_FORMAT
};

#define N_TYPES (sizeof types / sizeof *types)

const struct kv_param kv_format_common_params[] = {
    {"order", KV_CHOICE, "auto", 0, 0, "auto/ggml/hf", NULL,
     "order of key channels inside a head that codes see: pairwise RoPE (ggml), half-split (hf), "
     "or "
     "the format's own, else the model's (auto)"},
    {"sinks", KV_INT, "0", 0, 65536, NULL, "tokens", "first tokens kept exact (fp16)"},
    {"window", KV_INT, "0", 0, 65536, NULL, "tokens", "newest tokens kept exact (fp16)"},
    {0}};

const struct kv_format_type *kv_format_type_at(size_t i) {
    return i < N_TYPES ? types[i] : NULL;
}

static const struct kv_format_type *find(const char *name, struct kv_error *e) {
    const char *names[N_TYPES + 1] = {NULL};
    for (size_t i = 0; i < N_TYPES; i++) {
        names[i] = types[i]->name;
        if (strcmp(name, names[i]) == 0) return types[i];
    }
    const char *near = kv_nearest(name, names);
    if (near)
        kv_fail(e, KV_EUSAGE, "format", "no format is named '%s'; did you mean '%s'?", name, near);
    else
        kv_fail(e, KV_EUSAGE, "format", "no format is named '%s'; `kvsim list formats` shows them",
                name);
    return NULL;
}

// The order that "auto" stands for is written out, so that equal canonical forms mean equal codes.
static char *canonical_of(const struct kv_format *f, const struct kv_args *args) {
    struct kv_args spelled = *args;
    if (f->inner) spelled.inner = f->inner->canonical;
    char *text = kv_args_canonical(&spelled, f->type->name);
    char *at = strstr(text, "order=auto");
    while (at && strstr(at + 1, "order=auto")) at = strstr(at + 1, "order=auto");
    if (!at) return text;
    char *out = kv_format_text("%.*sorder=%s%s", (int)(at - text), text,
                               f->order == KV_ORDER_HF ? "hf" : "ggml", at + strlen("order=auto"));
    free(text);
    return out;
}

// What holds unless a format's open says otherwise: one head's vector, coded as it comes.
static void defaults(struct kv_format *f, const struct kv_format_type *type,
                     const struct kv_format_setting *s) {
    *f = (struct kv_format){.type = type,
                            .setting = *s,
                            .scope = KV_SCOPE_VECTOR,
                            .unit_tokens = {1, 1},
                            .unit_heads = 1,
                            .order = s->order,
                            .flush = {1, 1},
                            .gathers = 1};
}

static int open_parsed(struct kv_format *f, const struct kv_spec *spec, struct kv_error *e) {
    struct kv_args *args;
    char what[96];
    snprintf(what, sizeof what, "format %s", f->type->name);
    if (spec->inner && !f->type->wraps)
        return kv_fail(e, KV_EUSAGE, what, "'%s(...)': this format wraps no other", spec->name);
    if (!spec->inner && f->type->wraps)
        return kv_fail(e, KV_EUSAGE, what, "it wraps another format: %s(sym)", spec->name);
    int rc = kv_args_new(&args, spec, f->type->params, kv_format_common_params, what, e);
    if (rc) return rc;
    if (spec->inner) rc = kv_format_open(&f->inner, spec->inner, &f->setting, e);
    if (rc == 0) rc = f->type->open(f, &f->setting, args, e);
    if (rc == 0) {
        double order = kv_number(args, "order");
        uint32_t sinks = (uint32_t)kv_number(args, "sinks");
        uint32_t window = (uint32_t)kv_number(args, "window");
        if (order > 0) f->order = order == 1 ? KV_ORDER_GGML : KV_ORDER_HF;
        if (sinks > f->sinks) f->sinks = sinks;
        for (int side = 0; side < 2; side++)
            if (window > f->window[side]) f->window[side] = window;
        f->canonical = canonical_of(f, args);
    }
    kv_args_free(args);
    return rc;
}

int kv_format_open(struct kv_format **out, const char *text, const struct kv_format_setting *s,
                   struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    struct kv_spec spec;
    int rc = kv_spec_parse(&spec, text, e);
    if (rc) return rc;
    const struct kv_format_type *type = find(spec.name, e);
    rc = type ? 0 : KV_EUSAGE;
    if (type && (s->shape.head_dim == 0 || s->shape.head_dim > 1024 || s->shape.n_kv_heads == 0))
        rc = kv_fail(e, KV_EFAIL, text, "a head of %u values in %u KV heads cannot be coded",
                     s->shape.head_dim, s->shape.n_kv_heads);
    if (rc == 0) {
        struct kv_format *f = kv_alloc(1, sizeof *f);
        defaults(f, type, s);
        rc = open_parsed(f, &spec, e);
        if (rc)
            kv_format_close(f);
        else
            *out = f;
    }
    kv_spec_fini(&spec);
    return rc;
}

void kv_format_close(struct kv_format *f) {
    if (!f) return;
    if (f->type->close) f->type->close(f);
    kv_format_close(f->inner);
    free(f->canonical);
    free(f);
}
