// SPDX-License-Identifier: Apache-2.0
// The report's page: figures and tables of a store in one HTML file that needs nothing else.
#ifndef KV_PAGE_H
#define KV_PAGE_H

#include "sim/cli/figure.h"

// What a page says of one trace: its rows and the names of its figures.
struct kv_page_part {
    struct kv_figure_set set;
    char *figures[2];
    size_t n_figures;
};

// Writes DIR/index.html. Figures are read from DIR/NAME.svg and embedded; names from the store are
// escaped. `db` is named in the line that says how to draw it again.
KV_MUST_CHECK int kv_page_write(const struct kv_page_part *parts, size_t n, struct kv_store *s,
                                const char *dir, const char *db, uint64_t seed, struct kv_error *e);

#endif
