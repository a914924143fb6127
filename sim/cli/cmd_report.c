// SPDX-License-Identifier: Apache-2.0
// kvsim report: figures and one page of a store.
#include "sim/cli/figure.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    KV_ROWS_OPTIONS,
    {"out", 'o', "DIR", "build/report", "folder for figures and page; made when missing"},
    {0}};

// The rows of a trace whose accuracy was measured; others have no place in the figures.
static size_t take_set(const struct kv_rows *all, size_t first, size_t last, struct kv_row *rows) {
    size_t n = 0;
    for (size_t i = first; i < last; i++)
        if (!isnan(all->row[i].s.acc[KV_ACC])) rows[n++] = all->row[i];
    return n;
}

static int draw_all(const struct kv_rows *all, struct kv_store *s, const char *dir,
                    struct kv_error *e) {
    struct kv_row *rows = kv_alloc(all->n + 1, sizeof *rows);
    size_t n_sets = 0;
    int code = 0;
    for (size_t first = 0, last; !code && first < all->n; first = last) {
        char suffix[24] = "";
        for (last = first; last < all->n && all->row[last].s.trace == all->row[first].s.trace;)
            last++;
        struct kv_figure_set set = {.all = all,
                                    .rows = rows,
                                    .suffix = suffix,
                                    .dir = dir,
                                    .n = take_set(all, first, last, rows)};
        if (set.n == 0) continue;
        if (n_sets++) snprintf(suffix, sizeof suffix, "-%zu", n_sets);
        char *names[2] = {NULL, NULL};
        size_t n_names;
        code = kv_figures_draw(&set, s, names, &n_names, e);
        for (size_t i = 0; i < n_names; i++) {
            if (!code) kv_say("%s/%s.svg, %s.png", dir, names[i], names[i]);
            free(names[i]);
        }
    }
    free(rows);
    return code;
}

static int report(struct kv_cli *c, struct kv_error *e) {
    struct kv_rows rows;
    struct kv_store *s;
    const char *dir = kv_opt(c, "out");
    int code = kv_rows_open(&rows, &s, c, e);
    if (code) return code;
    code = kv_rows_sort(&rows, "bits", e);
    if (!code) code = kv_make_dir(dir, e);
    if (!code) code = draw_all(&rows, s, dir, e);
    kv_rows_fini(&rows);
    kv_store_abandon(s);
    return code;
}

const struct kv_command kv_cmd_report = {
    .name = "report",
    .summary = "draws the frontier figures of a store and writes a page about it",
    .usage = "",
    .example = "kvsim report --db build/demo.db -o build/report",
    .options = options,
    .run = report};
