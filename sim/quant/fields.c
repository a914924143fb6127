// SPDX-License-Identifier: Apache-2.0
// Where the numbers of a coded unit lie: what formats say of it has two shapes.
#include "sim/quant/own.h"

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

void kv_format_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                      kv_field_fn *take, void *self) {
    if (f->width_bits[width] == 16 && f->n_widths > 1) // fp16 storage in every format of several
        kv_take_codes(take, self, "fp16", 16, kv_unit_values(f, side), 0);
    else if (f->type->fields)
        f->type->fields(f, side, width, take, self);
}

void kv_wrapped_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                       kv_field_fn *take, void *self) {
    kv_format_fields(f->inner, side, width, take, self);
}
