// SPDX-License-Identifier: Apache-2.0
// Sums of damage tables over tokens, and over layers and heads.
#include "sim/replay/damage.h"
#include "sim/replay/sums.h"

#include <stdlib.h>

#include "sim/base/memory.h"

struct kv_cell_table_sums {
    const struct kv_trace *trace;
    const struct kv_cell_table *table;
    size_t n_widths, n_cells;
    size_t *first_token; // [n_items]
    double *items;       // [n_items][n_widths][n_cells]
    float *tokens;       // [n_tokens][n_widths][2]
};

struct kv_cell_table_sums *kv_cell_table_sums_new(const struct kv_trace *trace,
                                                  const struct kv_cell_table *table,
                                                  size_t n_widths) {
    const struct kv_trace_info *in = kv_trace_info(trace);
    struct kv_cell_table_sums *s = kv_alloc(1, sizeof *s);
    size_t cells = kv_cells(&in->shape), first = 0;
    *s = (struct kv_cell_table_sums){
        .trace = trace,
        .table = table,
        .n_widths = n_widths,
        .n_cells = cells,
        .first_token = kv_alloc(in->n_items, sizeof(size_t)),
        .items = kv_alloc(in->n_items * n_widths * cells, sizeof(double)),
        .tokens = kv_alloc(in->n_tokens * n_widths * 2, sizeof(float))};
    for (size_t i = 0; i < in->n_items; i++) {
        const float *entry = kv_cell_table_item(table, i);
        double *item = s->items + i * n_widths * cells;
        size_t n = kv_trace_item(trace, i)->n_tokens;
        s->first_token[i] = first;
        for (size_t row = 0; row < n * n_widths; row++, entry += cells) {
            double side[2] = {0, 0}, *to = item + row % n_widths * cells;
            for (size_t c = 0; c < cells; c += 2) {
                side[0] += (double)entry[c];
                side[1] += (double)entry[c + 1];
                to[c] += (double)entry[c];
                to[c + 1] += (double)entry[c + 1];
            }
            s->tokens[2 * (first * n_widths + row)] = (float)side[0];
            s->tokens[2 * (first * n_widths + row) + 1] = (float)side[1];
        }
        first += n;
    }
    return s;
}

void kv_cell_table_sums_free(struct kv_cell_table_sums *s) {
    if (!s) return;
    free(s->first_token);
    free(s->items);
    free(s->tokens);
    free(s);
}

const double *kv_sums_item(const struct kv_cell_table_sums *s, size_t item) {
    return s->items + item * s->n_widths * s->n_cells;
}

const float *kv_sums_tokens(const struct kv_cell_table_sums *s, size_t item) {
    return s->tokens + s->first_token[item] * s->n_widths * 2;
}

double kv_sums_damage(const struct kv_cell_table_sums *s, size_t item, uint32_t varies,
                      const uint8_t *cells) {
    const struct kv_trace_item *it = kv_trace_item(s->trace, item);
    size_t n_cells = s->n_cells, n_widths = s->n_widths;
    double sum = 0;
    bool whole = true; // no evicted or float32 cell was met
    if (!(varies & KV_VARIES_TOKEN)) {
        const double *entry = kv_sums_item(s, item);
        for (size_t c = 0; c < n_cells && (whole = cells[c] < n_widths); c++)
            sum += entry[cells[c] * n_cells + c];
        if (whole) return sum;
    } else if (!(varies & (KV_VARIES_LAYER | KV_VARIES_HEAD))) {
        const float *entry = kv_sums_tokens(s, item);
        for (size_t t = 0; t < it->n_tokens && whole; t++, entry += 2 * n_widths) {
            const uint8_t *own = cells + t * n_cells;
            whole = own[0] < n_widths && own[1] < n_widths;
            if (whole) sum += (double)(entry[2 * own[0]] + entry[2 * own[1] + 1]);
        }
        if (whole) return sum;
    }
    return kv_fisher_kl(s->trace, item, s->table, n_widths, cells, NULL) *
           kv_fisher_scored(kv_trace_info(s->trace), it);
}
