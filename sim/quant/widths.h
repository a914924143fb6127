// SPDX-License-Identifier: Apache-2.0
// Width tables: small helpers that formats' open calls share.
#ifndef KV_QUANT_WIDTHS_H
#define KV_QUANT_WIDTHS_H

#include "sim/quant/format.h"

static inline void kv_set_widths(struct kv_format *f, const uint8_t *bits, size_t n) {
    memcpy(f->width_bits, bits, n);
    f->n_widths = n;
}

// fp16 storage of a unit: what width 16 is in every format.
static inline struct kv_unit_size kv_half_size(uint32_t values) {
    return (struct kv_unit_size){.values = values, .code_bits = 16 * values, .bytes = 2 * values};
}

#endif
