// SPDX-License-Identifier: Apache-2.0
// Format hadamard(inner): each head is rotated before another format codes it, and back after.
#include "sim/base/memory.h"
#include "sim/quant/own.h"
#include "sim/quant/rotate.h"
#include "sim/quant/plain.h"

#include <stdlib.h>

static const struct kv_param params[] = {
    {"sides", KV_CHOICE, "both", 0, 0, "both/k/v", NULL, "what is rotated: keys, values or both"},
    {0}};

struct hadamard {
    bool rotates[2];
    size_t size; // of a rotation
};

static int hadamard_open(struct kv_format *f, const struct kv_format_setting *s,
                         const struct kv_args *args, struct kv_error *e) {
    const struct kv_format *in = f->inner;
    double sides = kv_number(args, "sides");
    if (!in->type->encode)
        return kv_fail(e, KV_EUSAGE, "format hadamard",
                       "%s codes whole tensors by itself and cannot be wrapped", in->type->name);
    if (in->centre.tokens > 0)
        return kv_fail(e, KV_EUSAGE, "format hadamard",
                       "a mean is taken off before the rotation: write center(hadamard(...)), not "
                       "hadamard(%s)",
                       in->canonical);
    for (int side = 0; side < 2; side++)
        if (kv_unit_values(in, (enum kv_side)side) > KV_MAX_UNIT)
            return kv_fail(e, KV_EFAIL, "format hadamard",
                           "%s codes %u values together; at most %d can be rotated", in->canonical,
                           kv_unit_values(in, (enum kv_side)side), KV_MAX_UNIT);
    struct hadamard *self = f->self = kv_alloc(1, sizeof *self);
    self->rotates[KV_KEY] = sides != 2;
    self->rotates[KV_VALUE] = sides != 1;
    self->size = kv_rotation_size(s->shape.head_dim);
    kv_wrap(f);
    return 0;
}

// fp16 storage is not rotated, as in llama.cpp: 16 bits then mean the same everywhere.
static bool rotates(const struct kv_format *f, const struct kv_block *b) {
    const struct hadamard *self = f->self;
    return self->rotates[b->side] && f->width_bits[b->width] < 16;
}

static void hadamard_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                            size_t n_units, uint8_t *out) {
    const struct hadamard *self = f->self;
    if (!rotates(f, b)) {
        kv_format_encode(f->inner, b, x, n_units, out);
        return;
    }
    float few[KV_MAX_UNIT], *all = NULL;
    struct kv_unit_size size = kv_format_size(f->inner, b->side, b->width);
    size_t chunk = KV_MAX_UNIT / size.values;
    if (f->scope == KV_SCOPE_TENSOR && n_units > chunk) { // units of a call belong together
        chunk = n_units;
        all = kv_alloc(n_units * size.values, sizeof *all);
    }
    float *turned = all ? all : few;
    for (size_t u = 0; u < n_units; u += chunk, out += chunk * size.bytes) {
        size_t here = n_units - u < chunk ? n_units - u : chunk, n = here * size.values;
        memcpy(turned, x + u * size.values, n * sizeof *turned);
        kv_rotate(turned, n, self->size);
        kv_format_encode(f->inner, b, turned, here, out);
    }
    free(all);
}

static void hadamard_decode(const struct kv_format *f, const struct kv_block *b,
                            const uint8_t *codes, size_t n_units, float *y) {
    const struct hadamard *self = f->self;
    struct kv_unit_size size = kv_format_size(f->inner, b->side, b->width);
    size_t chunk = KV_MAX_UNIT / size.values;
    if (!rotates(f, b)) chunk = n_units ? n_units : 1;
    for (size_t u = 0; u < n_units; u += chunk, codes += chunk * size.bytes) {
        size_t here = n_units - u < chunk ? n_units - u : chunk;
        kv_format_decode(f->inner, b, codes, here, y + u * size.values);
        if (rotates(f, b)) kv_rotate(y + u * size.values, here * size.values, self->size);
    }
}

static void hadamard_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                           struct kv_plain_width *to) {
    const struct hadamard *self = f->self;
    kv_plain_inner(f, side, width, to);
    if (rotates(f, &(struct kv_block){.side = side, .width = width}))
        kv_plain_rotation(to, self->size);
}

const struct kv_format_type kv_format_type_hadamard = {
    .name = "hadamard",
    .summary = "rotates each head by a Walsh-Hadamard matrix before another format: hadamard(q4_0)",
    .citation = "Ashkboos et al. 2024 (QuaRot), arXiv:2404.00456, section 4; in llama.cpp's cache "
                "since 2026 (ggml-org/llama.cpp pull 21038)",
    .tag = "faithful",
    .layout = "as the inner format",
    .formula = "as the inner format",
    .rounding = "float32 butterflies from the widest to the narrowest, then x 1/sqrt(size); size: "
                "largest power of two that divides the head; then the inner format",
    .guards = "NaN and infinities spread over the head before the inner format sees them; width 16 "
              "is not rotated",
    .params = params,
    .wraps = true,
    .open = hadamard_open,
    .size = kv_wrapped_size,
    .encode = hadamard_encode,
    .decode = hadamard_decode,
    .codes = kv_wrapped_codes,
    .fields = kv_wrapped_fields,
    .plain = hadamard_plain,
    .close = kv_free_self,
};
