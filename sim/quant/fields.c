// SPDX-License-Identifier: Apache-2.0
// Where the numbers of a coded unit lie: what formats say of it has two shapes.
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/quant/own.h"

#include <stdlib.h>

void kv_take_codes(kv_field_fn *take, void *self, const char *type, uint32_t bits, uint32_t n,
                   uint32_t at) {
    take(self, &(struct kv_field){.what = "code",
                                  .type = type,
                                  .bits = bits,
                                  .n = n,
                                  .at = at,
                                  .step = bits,
                                  .next = 1,
                                  .covers = 1,
                                  .apart = 1});
}

void kv_take_groups(kv_field_fn *take, void *self, const char *what, const char *type,
                    uint32_t bits, uint32_t n, uint32_t at, uint32_t step, uint32_t size) {
    take(self, &(struct kv_field){.what = what,
                                  .type = type,
                                  .bits = bits,
                                  .n = n,
                                  .at = at,
                                  .step = step,
                                  .next = size,
                                  .covers = size,
                                  .apart = 1});
}

static uint32_t whole_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                             kv_field_fn *take, void *self) {
    size_t cells = (size_t)KV_NOMINAL_TOKENS * f->setting.shape.n_kv_heads;
    uint8_t *widths = kv_alloc(cells, 1);
    memset(widths, (int)width, cells);
    struct kv_whole t = {.side = side, .n = KV_NOMINAL_TOKENS, .width = widths};
    uint32_t bytes = (uint32_t)f->type->whole_size(f, &t).bytes;
    f->type->whole_fields(f, &t, take, self);
    free(widths);
    return bytes;
}

uint32_t kv_format_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                          kv_field_fn *take, void *self) {
    KV_GUARD_ELSE(return 0);
    if (f->type->whole_fields) return whole_fields(f, side, width, take, self);
    if (f->width_bits[width] == 16 && f->n_widths > 1) // fp16 storage in every format of several
        kv_take_codes(take, self, "fp16", 16, kv_unit_values(f, side), 0);
    else if (f->type->fields)
        f->type->fields(f, side, width, take, self);
    return kv_format_size(f, side, width).bytes;
}

void kv_wrapped_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                       kv_field_fn *take, void *self) {
    (void)kv_format_fields(f->inner, side, width, take, self);
}
