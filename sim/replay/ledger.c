// SPDX-License-Identifier: Apache-2.0
// The ledger: every bit that a device would hold at the end of each context + choice.
#include <stdlib.h>

#include "sim/base/cache_types.h"
#include "sim/base/memory.h"
#include "sim/quant/code.h"
#include "sim/replay/ledger.h"
#include "sim/replay/requant.h"

// Rows of one branch, layer and side, as code.h wants them: for counting, x and y are not read.
static struct kv_vectors branch(const struct kv_replay_spec *spec, const uint8_t *cells,
                                uint32_t layer, enum kv_side side, size_t start, size_t row,
                                size_t n) {
    size_t per_token = kv_cells(&spec->run.shape), per_layer = per_token / spec->run.shape.n_layers;
    return (struct kv_vectors){.layer = layer,
                               .side = side,
                               .start = start,
                               .first = start,
                               .n = n,
                               .cells = cells + row * per_token + layer * per_layer + side,
                               .cell_token_stride = per_token,
                               .cell_head_stride = 2};
}

// The first position of a branch that starts at `start` which a layer still holds when a path is
// `tokens` long: what its window has passed is gone, by whole blocks.
static size_t oldest_held(const struct kv_replay_spec *spec, uint32_t layer, enum kv_side side,
                          size_t start, size_t tokens) {
    size_t window = spec->windows ? spec->windows[layer] : 0,
           from = window && tokens > window ? tokens - window : 0,
           base = start > spec->format->sinks ? start : spec->format->sinks,
           block = kv_block_tokens(spec->format, side, start);
    if (from <= start) return start;
    return from > base ? base + (from - base) / block * block : from;
}

// Leaves out the rows before `from` of those of a branch. Returns how many are left.
static size_t forget(struct kv_vectors *rows, size_t from) {
    size_t gone = from - rows->first < rows->n ? from - rows->first : rows->n;
    rows->cells += gone * rows->cell_token_stride;
    rows->first += gone;
    rows->n -= gone;
    return rows->n;
}

// Adds what the rows of a branch take at the end of a path. Returns how many of them are held.
static size_t count_held(const struct kv_replay_spec *spec, struct kv_vectors rows, size_t tokens,
                         size_t upto, struct kv_bits *bits) {
    size_t held = forget(&rows, oldest_held(spec, rows.layer, rows.side, rows.start, tokens));
    if (held > 0) kv_count_rows(spec->format, &rows, upto, bits);
    return held;
}

static size_t count_sequence(const struct kv_replay_spec *spec, const struct kv_trace_item *item,
                             const uint8_t *cells, size_t first, size_t n_choice,
                             struct kv_bits bits[2]) {
    size_t n = item->n_context, held = 0;
    for (uint32_t layer = 0; layer < spec->run.shape.n_layers; layer++)
        for (int side = 0; side < 2; side++) {
            size_t end = n + n_choice - 1;
            size_t upto =
                kv_coded_upto(spec->format, (enum kv_side)side, n_choice ? n : 0, end, false);
            struct kv_vectors context = branch(spec, cells, layer, (enum kv_side)side, 0, 0, n);
            held += count_held(spec, context, n + n_choice, upto, &bits[side]);
            if (n_choice == 0) continue;
            struct kv_vectors choice =
                branch(spec, cells, layer, (enum kv_side)side, n, first, n_choice);
            held += count_held(spec, choice, n + n_choice, upto, &bits[side]);
        }
    return held;
}

// The same in mode requant: context and choice are one run of rows, coded up to the last flush.
static size_t count_requant(const struct kv_replay_spec *spec, const struct kv_trace_item *item,
                            const uint8_t *cells, size_t first, size_t n_choice,
                            struct kv_bits bits[2]) {
    const struct kv_format *f = spec->format;
    size_t n = item->n_context, window = kv_requant_window(f), held = 0,
           per_token = kv_cells(&spec->run.shape);
    uint8_t *path = kv_alloc((n + n_choice) * per_token, 1);
    memcpy(path, cells, n * per_token);
    memcpy(path + n * per_token, cells + first * per_token, n_choice * per_token);
    for (uint32_t layer = 0; layer < spec->run.shape.n_layers; layer++)
        for (int side = 0; side < 2; side++) {
            size_t coded = n + n_choice / window * window, flush = f->flush[side];
            if (coded > f->sinks) coded = f->sinks + (coded - f->sinks) / flush * flush;
            struct kv_vectors rows =
                branch(spec, path, layer, (enum kv_side)side, 0, 0, n + n_choice);
            held += count_held(spec, rows, n + n_choice, coded, &bits[side]);
        }
    free(path);
    return held;
}

// Adds what one context and choice take, of keys and of values. Returns the rows held, summed over
// layers, keys and values apart.
typedef size_t count_fn(const struct kv_replay_spec *, const struct kv_trace_item *,
                        const uint8_t *, size_t first, size_t n_choice, struct kv_bits bits[2]);

static void count(const struct kv_replay_spec *spec, const struct kv_trace_item *item,
                  const uint8_t *cells, count_fn *sequence, struct kv_ledger *ledger) {
    const struct kv_shape *s = &spec->run.shape;
    size_t sequences = item->n_choices ? item->n_choices : 1;
    // Tags let a reader find a token's widths.
    double tags = kv_tag_bits(s, spec->varies, spec->options);
    double values_per_row = (double)s->n_kv_heads * s->head_dim, rows_per_token = 2.0 * s->n_layers;
    *ledger = (struct kv_ledger){.entropy_bits = NAN};
    kv_ledger_name_types(ledger, spec->format->canonical);
    ledger->by_place = !(spec->varies & (KV_VARIES_TOKEN | KV_VARIES_POSITION));
    ledger->by_cell = spec->varies & KV_VARIES_TOKEN && spec->varies & KV_VARIES_HEAD;
    ledger->controlled = ledger->by_cell && kv_by_layers(spec);
    for (size_t c = 0; c < sequences; c++) {
        struct kv_bits bits[2] = {{0}};
        size_t n_choice = item->n_choices ? item->first[c + 1] - item->first[c] : 0;
        size_t tokens = item->n_context + n_choice;
        double rows = (double)sequence(spec, item, cells, item->n_choices ? item->first[c] : 0,
                                       n_choice, bits);
        double values = rows * values_per_row, weight = 1.0 / (double)sequences;
        double code = (double)(bits[0].code_bits + bits[1].code_bits);
        double meta = (double)(bits[0].meta_bits + bits[1].meta_bits);
        double bytes =
            (double)(bits[0].bytes + bits[1].bytes) + ceil(rows / rows_per_token * tags / 8);
        ledger->nominal_bits += weight * code / values;
        ledger->effective_bits += weight * (code + meta) / values;
        ledger->allocated_bits += weight * 8 * bytes / values;
        ledger->bytes_per_token += weight * bytes / (double)tokens;
        for (int side = 0; side < 2; side++)
            for (int w = 0; w < KV_WIDTH_BINS; w++)
                ledger->share[side][w] += weight * 2 * (double)bits[side].values[w] / values;
    }
}

void kv_ledger_count(const struct kv_replay_spec *spec, const struct kv_trace_item *item,
                     const uint8_t *cells, struct kv_ledger *ledger) {
    count(spec, item, cells, count_sequence, ledger);
}

void kv_ledger_count_requant(const struct kv_replay_spec *spec, const struct kv_trace_item *item,
                             const uint8_t *cells, struct kv_ledger *ledger) {
    count(spec, item, cells, count_requant, ledger);
}
