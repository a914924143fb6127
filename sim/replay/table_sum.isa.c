// SPDX-License-Identifier: Apache-2.0
// The inner loop of fisher replay: a token's decided entries, width by width, in fixed lanes.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sim/base/isa.h"

double KV_ISA_NAME(kv_table_sum)(const float *table, const uint8_t *cells, size_t n_tokens,
                                 size_t n_widths, size_t n_cells);

enum { LANES = 16 }; // whatever the level: the sum's order, and so its bits, are the same on each
typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));

double KV_ISA_NAME(kv_table_sum)(const float *table, const uint8_t *cells, size_t n_tokens,
                                 size_t n_widths, size_t n_cells) {
    double total = 0;
    for (size_t t = 0; t < n_tokens; t++, cells += n_cells, table += n_widths * n_cells) {
        vec sum = {0};
        float rest = 0;
        size_t c = 0;
        uint8_t first = cells[0];
        uint32_t used = 0; // widths that occur; a token of one width, the usual case, is read once
        for (size_t i = 0; i < n_cells; i++) used |= cells[i] < 32 ? 1u << cells[i] : 0;
        if (first < n_widths && used == 1u << first && memchr(cells, 0xFF, n_cells) == NULL &&
            memchr(cells, 0xFE, n_cells) == NULL) {
            const float *row = table + first * n_cells;
            for (; c + LANES <= n_cells; c += LANES) {
                vec x;
                memcpy(&x, row + c, sizeof x);
                sum += x;
            }
            for (; c < n_cells; c++) rest += row[c];
        } else {
            for (; c + LANES <= n_cells; c += LANES) {
                bytes b;
                memcpy(&b, cells + c, sizeof b);
                ivec width = __builtin_convertvector(b, ivec);
                for (size_t w = 0; w < n_widths; w++) {
                    if (!(used >> w & 1)) continue;
                    vec x;
                    memcpy(&x, table + w * n_cells + c, sizeof x);
                    sum += (vec)((ivec)x & (width == (int32_t)w));
                }
            }
            for (; c < n_cells; c++)
                if (cells[c] < n_widths) rest += table[cells[c] * n_cells + c];
        }
        for (int i = 0; i < LANES; i++) total += (double)sum[i];
        total += (double)rest;
    }
    return total;
}
