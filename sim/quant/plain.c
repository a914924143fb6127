// SPDX-License-Identifier: Apache-2.0
// Writes an open format down as plain numbers; each format's own are written by its file.
#include "sim/quant/plain.h"
#include "sim/quant/own.h"

static int width_of(const struct kv_format *f, enum kv_side side, uint32_t w,
                    struct kv_plain_width *to, struct kv_error *e) {
    const struct kv_unit_size size = kv_format_size(f, side, w);
    to->bits = f->width_bits[w];
    to->values = to->group = size.values;
    to->bytes = size.bytes;
    to->meta_bytes = size.meta_bits / 8;
    if (to->bits == 16 && f->n_widths > 1) // fp16 storage in every format of several
        to->rule = KV_PLAIN_HALF;
    else if (f->type->plain)
        f->type->plain(f, side, w, to);
    if (to->rule == KV_PLAIN_NONE)
        return kv_fail(e, KV_EFAIL, f->canonical,
                       "the format does not say in plain numbers how it codes, and is coded where "
                       "its own code runs alone");
    return 0;
}

int kv_format_plain(const struct kv_format *f, struct kv_plain_format *to, struct kv_error *e) {
    const struct kv_shape *s = &f->setting.shape;
    const struct kv_format *innermost = f;
    while (innermost->inner) innermost = innermost->inner;
    *to = (struct kv_plain_format){
        .n_layers = s->n_layers,
        .n_kv_heads = s->n_kv_heads,
        .head_dim = s->head_dim,
        .n_widths = (uint32_t)f->n_widths,
        .tensor = f->scope == KV_SCOPE_TENSOR,
        .unit_tokens = {f->unit_tokens[0], f->unit_tokens[1]},
        .unit_heads = f->unit_heads,
        .order = f->order,
        .model_order = f->setting.order,
        .sinks = f->sinks,
        .flush = {f->flush[0], f->flush[1]},
        .gathers = f->gathers,
        .centre_turns = f->centre.before_rope && !f->keys_before_rope,
        .centre_tokens = f->centre.tokens,
        .has_codes = innermost->type->codes || innermost->type->whole_codes,
    };
    memcpy(to->width_bits, f->width_bits, f->n_widths);
    for (int side = 0; side < 2; side++) {
        to->centred[side] = f->centre.tokens > 0 && f->centre.sides[side];
        for (uint32_t w = 0; w < f->n_widths; w++) {
            int rc = width_of(f, (enum kv_side)side, w, &to->at[side][w], e);
            if (rc) return rc;
        }
    }
    return 0;
}

void kv_plain_rotation(struct kv_plain_width *to, size_t size) {
    if (size < 2) return;
    if (to->n_rotations == KV_PLAIN_ROTATIONS) { // more of them than anybody nests
        to->rule = KV_PLAIN_NONE;
        return;
    }
    for (uint32_t i = to->n_rotations; i > 0; i--) {
        to->rotation[i] = to->rotation[i - 1];
        to->rotation_scale[i] = to->rotation_scale[i - 1];
    }
    to->rotation[0] = (uint32_t)size;
    to->rotation_scale[0] = 1.0f / sqrtf((float)size);
    to->n_rotations++;
}

void kv_plain_inner(const struct kv_format *f, enum kv_side side, uint32_t w,
                    struct kv_plain_width *to) {
    if (f->inner->type->plain) f->inner->type->plain(f->inner, side, w, to);
}

void kv_plain_turns(const double *angle, uint32_t head_dim, uint32_t n, float *to) {
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t i = 0; i < head_dim / 2; i++) {
            double by = (double)t * angle[i];
            *to++ = (float)cos(by);
            *to++ = (float)sin(by);
        }
}
