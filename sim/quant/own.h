// SPDX-License-Identifier: Apache-2.0
// What a format's own file needs beside format.h. (format.c)
#ifndef KV_QUANT_OWN_H
#define KV_QUANT_OWN_H

#include "sim/quant/format.h"

void kv_set_widths(struct kv_format *f, const uint8_t *bits, size_t n); // ascending
struct kv_unit_size kv_half_size(uint32_t values); // fp16 storage: width 16 in every format
void kv_free_self(struct kv_format *f);            // close() when self is one allocation
uint32_t kv_unit_values(const struct kv_format *f, enum kv_side side); // floats of one unit
// Takes over what a wrapper leaves as its inner format has it: widths, units, order, windows.
void kv_wrap(struct kv_format *f);
// size, codes and fields of a wrapper whose units are those of its inner format.
struct kv_unit_size kv_wrapped_size(const struct kv_format *f, enum kv_side side, uint32_t width);
void kv_wrapped_codes(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                      size_t n_units, uint8_t *q);
void kv_wrapped_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                       kv_field_fn *take, void *self);
// For `fields`: one bit stream of the codes of n values; and numbers of n groups of `size` values
// that follow each other, `step` bits apart. (fields.c)
void kv_take_codes(kv_field_fn *take, void *self, const char *type, uint32_t bits, uint32_t n,
                   uint32_t at);
void kv_take_groups(kv_field_fn *take, void *self, const char *what, const char *type,
                    uint32_t bits, uint32_t n, uint32_t at, uint32_t step, uint32_t size);
// For `plain`: a rotation around what stands there already, and what a wrapper's inner format says.
// (plain.c)
void kv_plain_rotation(struct kv_plain_width *to, size_t size);
void kv_plain_inner(const struct kv_format *f, enum kv_side side, uint32_t w,
                    struct kv_plain_width *to);
// Copies a head's channels from one order to the other. d even; y must not be x.
void kv_reorder(const float *x, float *y, size_t d, enum kv_order from, enum kv_order to);

#endif
