// SPDX-License-Identifier: Apache-2.0
// kvsim report: figures and one page of a store.
#include "sim/cli/page.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    KV_ROWS_OPTIONS,
    {"out", 'o', "DIR", "build/report", "folder for figures and page; made when missing"},
    {0}};

// The rows of a trace that have a quality to draw.
static size_t take_rows(const struct kv_rows *all, size_t first, size_t last, struct kv_row *rows) {
    size_t n = 0;
    for (size_t i = first; i < last; i++)
        if (!isnan(all->row[i].s.acc[KV_ACC]) || !isnan(all->row[i].kl.mean))
            rows[n++] = all->row[i];
    return n;
}

// Splits rows (sorted by trace) into a part for each trace. rows[all->n] holds them.
static size_t make_parts(const struct kv_rows *all, const char *dir, struct kv_row *rows,
                         struct kv_page_part *parts) {
    size_t n = 0;
    for (size_t first = 0, last; first < all->n; first = last) {
        for (last = first; last < all->n && all->row[last].s.trace == all->row[first].s.trace;)
            last++;
        size_t count = take_rows(all, first, last, rows);
        if (count == 0) continue;
        parts[n] = (struct kv_page_part){.set = {.all = all, .rows = rows, .n = count, .dir = dir}};
        if (n) snprintf(parts[n].set.suffix, sizeof parts[n].set.suffix, "-%zu", n + 1);
        n++;
        rows += count;
    }
    return n;
}

static int write_report(const struct kv_rows *all, struct kv_store *s, const struct kv_cli *c,
                        struct kv_error *e) {
    const char *dir = kv_opt(c, "out");
    struct kv_row *rows = kv_alloc(all->n + 1, sizeof *rows);
    struct kv_page_part *parts = kv_alloc(all->n + 1, sizeof *parts);
    size_t n = make_parts(all, dir, rows, parts);
    int code = n ? kv_make_dir(dir, e)
                 : kv_fail(e, KV_EFAIL, kv_opt(c, "db"),
                           "no row has an accuracy or a divergence, so there is nothing to draw");
    for (size_t i = 0; !code && i < n; i++)
        code = kv_figures_draw(&parts[i].set, s, parts[i].figures, &parts[i].n_figures, e);
    if (!code) code = kv_page_write(parts, n, s, dir, kv_opt(c, "db"), c->seed, e);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < parts[i].n_figures; k++) {
            if (!code) kv_say("%s/%s.svg and .png", dir, parts[i].figures[k]);
            free(parts[i].figures[k]);
        }
    if (!code) kv_say("%s/index.html", dir);
    free(parts);
    free(rows);
    return code;
}

static int report(struct kv_cli *c, struct kv_error *e) {
    struct kv_rows rows;
    struct kv_store *s;
    int code = kv_rows_open(&rows, &s, c, e);
    if (code) return code;
    code = kv_rows_sort(&rows, "bits", e);
    if (!code) code = write_report(&rows, s, c, e);
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
