// SPDX-License-Identifier: Apache-2.0
// Uniform grids on the fastest path of this machine (the bytes of grid_judge.h, sooner), and the
// formats made of one grid a width.
#ifndef KV_QUANT_GRID_H
#define KV_QUANT_GRID_H

#include "sim/quant/grid_judge.h"

// x: n_units times `values` floats; out: n_units times kv_grid_size().bytes. The same bytes on each
// path. Thread-safe.
void kv_grid_encode(const struct kv_grid *g, const float *x, size_t n_units, uint8_t *out);
void kv_grid_decode(const struct kv_grid *g, const uint8_t *in, size_t n_units, float *y);

// ---- formats made of one grid a width -------------------------------------------------

// State of such a format: grids[side][width]; width 16 is fp16 storage.
struct kv_gridded {
    struct kv_grid grid[2][KV_MAX_WIDTHS];
};

// Reads group=head|layer|NUMBER: sets scope and unit_heads, and the group in values. Errors:
// KV_EUSAGE when the number does not divide the head, or the unit is too large.
KV_MUST_CHECK int kv_grid_group(struct kv_format *f, const char *text, uint32_t *group,
                                struct kv_error *e);

// Rows of kv_format_type for formats whose self is a struct kv_gridded.
struct kv_unit_size kv_gridded_size(const struct kv_format *f, enum kv_side side, uint32_t width);
void kv_gridded_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                       size_t n_units, uint8_t *out);
void kv_gridded_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                       size_t n_units, float *y);
void kv_gridded_codes(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                      size_t n_units, uint8_t *q);
void kv_gridded_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                       kv_field_fn *take, void *self);
void kv_gridded_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                      struct kv_plain_width *to);
// Says where the metadata of a grid's groups lies: of values that follow each other.
void kv_grid_take_meta(const struct kv_grid *g, kv_field_fn *take, void *self);

#endif
