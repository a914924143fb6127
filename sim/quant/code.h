// SPDX-License-Identifier: Apache-2.0
// From decisions to stored values: what every fidelity does with the K or V of one layer.
//
//     void *scratch = kv_alloc(kv_code_scratch_bytes(f), 1);
//     struct kv_vectors ctx = {.layer = l, .side = KV_KEY, .n = n_context, .x = k, .x_stride =
//     kv_dim,
//                           .y = y, .y_stride = kv_dim, .cells = cells + 2 * head_0 + side,
//                           .cell_token_stride = kv_cells(&shape), .cell_head_stride = 2};
//     kv_code_rows(f, &ctx, scratch, NULL, &e);              y = what a coded read returns
//     ... for each choice: rows with start = first = n_context, n = its tokens
//     upto = kv_coded_upto(f, side, n_context, pos, false);  the query at pos reads y below upto,
//                                                            and x rounded to fp16 from there on
//     kv_count_rows(f, &ctx, upto_at_end, &bits);            the ledger at a sequence's end
//
// A branch is a run of positions that stores its own groups of tokens: the context, or one choice.
// Groups start at the branch's start (after the sinks); a block of tokens that is still open at the
// branch's end stays exact, as do sinks. Exact means rounded to fp16, 16 bits a value.
#ifndef KV_QUANT_CODE_H
#define KV_QUANT_CODE_H

#include "sim/base/width_bins.h"
#include "sim/quant/format.h"

// Tokens [first, first + n) of a branch, one layer, K or V.
struct kv_vectors {
    uint32_t layer;
    enum kv_side side;
    size_t start; // path position where the branch starts: 0, or the branch point of a choice
    size_t first; // path position of row 0: start, or start plus whole blocks (kv_block_tokens)
    size_t n;
    const float *x;  // [n][n_kv_heads][head_dim], x_stride floats from token to token
    size_t x_stride; //
    float *y;        // what a coded read returns, in the model's channel order; may be x itself
    size_t y_stride;
    // Decisions: the cell of row t and head h is cells[t * cell_token_stride + h *
    // cell_head_stride]: an index into the format's widths, KV_FLOAT32 (y = x) or KV_EVICT (y is
    // exact and never read; an evicted cell goes with the width of the unit it shares).
    const uint8_t *cells;
    size_t cell_token_stride, cell_head_stride;
    // The prompt's rows from position 0 on, x_stride floats from token to token, for formats that
    // take a mean of them. NULL: x, which then begins at position 0.
    const float *opening;
    size_t n_opening;
};

// The rows of one branch of a token tree, in arrays [n_tokens][n_kv_heads * head_dim] and decisions
// [n_tokens][n_layers][n_kv_heads][2]: the context, tokens [0, n_context), for branch 0; choice
// branch - 1, tokens [first[branch - 1], first[branch]), which starts at the branch point.
struct kv_vectors kv_branch_rows(const struct kv_shape *s, uint32_t layer, enum kv_side side,
                                 uint32_t n_context, const uint32_t *first, uint32_t branch,
                                 const uint8_t *cells, const float *x, float *y);

// What kept rows cost. Sums over calls; start from {0}.
struct kv_bits {
    uint64_t code_bits, meta_bits, bytes; // exact: 16 code bits a value; float32: 32
    uint64_t values[KV_WIDTH_BINS];       // values held at each width
};

size_t kv_code_scratch_bytes(const struct kv_format *f); // of one thread's kv_code_rows

// How many tokens of a branch that starts there become coded at a time.
size_t kv_block_tokens(const struct kv_format *f, enum kv_side side, size_t start);

// Codes and decodes rows: fills r->y. `histogram` [n_widths][256] (may be NULL) counts the codes
// made, for kv_entropy_bits. Thread-safe; allocates nothing but for tensors. Errors: KV_EFAIL
// naming token, layer and head, when a cell holds no width of the format or cells that share a unit
// differ in width.
KV_MUST_CHECK int kv_code_rows(const struct kv_format *f, const struct kv_vectors *r, void *scratch,
                               uint64_t *histogram, struct kv_error *e);

// Which rows of a call hold coded units when positions from `upto` on are held exact: [*from, *to),
// whole units; the others are exact.
void kv_held_rows(const struct kv_format *f, const struct kv_vectors *r, size_t upto, size_t *from,
                  size_t *to);

// Adds what the rows take when positions from `upto` on are held exact: r->x and r->y are not read.
// A unit counts once, whole, unless all its cells are evicted. Decisions must have passed
// kv_code_rows.
void kv_count_rows(const struct kv_format *f, const struct kv_vectors *r, size_t upto,
                   struct kv_bits *bits);

// How many leading positions of a path the query at `query_pos` reads coded. Positions from there
// on are read exact. `branch`: the branch point when the query stands in a choice, else 0.
// newest_exact: tokens that stay exact whatever the window says: 1 (or true) where a token's own
// query reads its own K and V exact. Where y is exact anyhow (sinks, open blocks) positions below
// the result are still right to read from y.
size_t kv_coded_upto(const struct kv_format *f, enum kv_side side, size_t branch, size_t query_pos,
                     size_t newest_exact);

// Order-0 entropy in bits a code of one width's counts [256]; NAN when there are none.
double kv_entropy_bits(const uint64_t *histogram);

#endif
