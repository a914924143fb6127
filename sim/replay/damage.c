// SPDX-License-Identifier: Apache-2.0
// Damage of decisions: sums of table entries, and tables that specs of one format share.
#include "sim/replay/damage.h"

#include <stdlib.h>

#include "sim/base/cpu.h"
#include "sim/base/isa.h"
#include "sim/base/memory.h"

double kv_table_sum_base(const float *, const uint8_t *, size_t, size_t, size_t);
double kv_table_sum_avx2(const float *, const uint8_t *, size_t, size_t, size_t);
double kv_table_sum_avx512(const float *, const uint8_t *, size_t, size_t, size_t);
typedef double table_sum_fn(const float *, const uint8_t *, size_t, size_t, size_t);
KV_ISA_TABLE(table_sum_fn *, table_sum_at, kv_table_sum)

double kv_table_sum(const float *table, const uint8_t *cells, size_t n_tokens, size_t n_widths,
                    size_t n_cells) {
    return table_sum_at[kv_cpu_level()](table, cells, n_tokens, n_widths, n_cells);
}

double kv_fisher_scored(const struct kv_trace_info *in, const struct kv_trace_item *it) {
    double n = it->n_final + (it->n_choices ? it->n_choices - 1.0 : 0);
    return strcmp(in->adjoint.score, "all") == 0 && it->n_choices ? n + it->n_context - 1 : n;
}

double kv_fisher_kl(const struct kv_trace *t, size_t item, const struct kv_cell_table *table,
                    size_t n_widths, const uint8_t *cells, double *error) {
    const struct kv_trace_info *in = kv_trace_info(t);
    const struct kv_trace_item *it = kv_trace_item(t, item);
    const float *entry = kv_cell_table_item(table, item);
    size_t n_cells = kv_cells(&in->shape);
    double sum = kv_table_sum(entry, cells, it->n_tokens, n_widths, n_cells),
           n = kv_fisher_scored(in, it);
    if (memchr(cells, KV_EVICT, it->n_tokens * n_cells)) // K and V go together: once for both
        for (size_t i = 0; i < it->n_tokens * n_cells; i += 2)
            if (cells[i] == KV_EVICT) sum += 0.5 * (double)it->evict[i / 2];
    if (error) {
        double spread = 0;
        for (size_t row = 0; row < it->n_tokens; row++)
            for (size_t c = 0; c < n_cells; c++) {
                size_t i = row * n_cells + c;
                if (cells[i] < n_widths && it->sens[i] > 0)
                    spread += (double)(entry[(row * n_widths + cells[i]) * n_cells + c] *
                                       it->sens_spread[i] / it->sens[i]);
            }
        *error = spread / sqrt((double)in->adjoint.draws) / n;
    }
    return sum / n;
}

// ---- tables ---------------------------------------------------------------------------

int kv_cell_tables_open(struct kv_cell_table ***out, const struct kv_replay *r, uint32_t need,
                        enum kv_cell_table_kind kind, unsigned jobs, struct kv_error *e) {
    struct kv_cell_table **tables = *out = kv_alloc(r->n_specs, sizeof(struct kv_cell_table *));
    int rc = 0;
    for (size_t j = 0; j < r->n_specs && rc == 0; j++) {
        if ((r->specs[j].needs & need) != need) continue;
        for (size_t k = 0; k < j && !tables[j]; k++)
            if (tables[k] &&
                strcmp(r->specs[k].format->canonical, r->specs[j].format->canonical) == 0)
                tables[j] = tables[k];
        if (!tables[j])
            rc = kv_cell_table_open(&tables[j], r->trace, r->specs[j].format, kind, jobs, e);
    }
    return rc;
}

void kv_cell_tables_close(struct kv_cell_table **tables, size_t n) {
    for (size_t j = 0; tables && j < n; j++) {
        bool shared = false;
        for (size_t k = 0; k < j; k++) shared |= tables[k] == tables[j];
        if (!shared) kv_cell_table_close(tables[j]);
    }
    free(tables);
}
