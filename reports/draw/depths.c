// SPDX-License-Identifier: Apache-2.0
// Hands divergence by depth to depths.gp.
#include "reports/draw/depths.h"

#include <stdlib.h>

#include "analysis/results/depths.h"
#include "reports/draw/gnuplot.h"
#include "sim/base/memory.h"

enum { MOST_ROWS = 15, NARROW = 420, BROAD = 1000 };

// Rows of the data, and whether some row has two of them. names: gnuplot's array of them.
static char *data_of(const struct kv_depth_row *d, size_t n, struct kv_text *names, size_t *rows,
                     bool *any_line) {
    struct kv_text t = {0};
    size_t row = 0;
    kv_text_addf(&t, "row\tcontext\tkl\tlow\thigh\n");
    for (size_t i = 0; i < n && row <= MOST_ROWS; i++) {
        const struct kv_token_estimate *kl = &d[i].s.at[KV_TOKEN_KL_MEAN];
        if (i == 0 || d[i].row != d[i - 1].row) {
            if (row++ == MOST_ROWS) break;
            char *own = kv_row_name(d[i].row), *name = kv_gnuplot_text(own);
            kv_text_addf(names, "name_of[%zu] = \"%s\"\n", row, name);
            free(name);
            free(own);
        } else {
            *any_line = true;
        }
        *rows = row;
        if (!(kl->value > 0)) continue; // no place on a logarithmic axis
        bool known = kl->interval.low > 0;
        kv_text_addf(&t, "%zu\t%g\t%g\t%g\t%g\n", row, d[i].middle, kl->value,
                     known ? kl->interval.low : kl->value, known ? kl->interval.high : kl->value);
    }
    return kv_text_take(&t);
}

static int draw(const struct kv_frontier_set *set, const char *file, bool narrow, double canvas_y,
                const char *names, size_t rows, const char *data, struct kv_error *e) {
    const struct kv_summary *s = &set->rows[0].s;
    char *subtitle = kv_format_text("%s: %s", s->task, s->model), *safe = kv_gnuplot_text(subtitle),
         *settings = kv_format_text("rows = %zu\narray name_of[%zu]\n%ssubtitle_text = \"%.*s\"\n"
                                    "key_below = %d\n",
                                    rows, rows, names, narrow ? 50 : 120, safe, narrow);
    const struct kv_gnuplot g = {.name = "depths",
                                 .file = file,
                                 .dir = set->dir,
                                 .canvas_x = narrow ? NARROW : BROAD,
                                 .canvas_y = canvas_y,
                                 .settings = settings,
                                 .data = data,
                                 .formats = narrow ? "svg" : set->formats};
    int code = kv_gnuplot_draw(&g, e);
    free(settings);
    free(safe);
    free(subtitle);
    return code;
}

int kv_depths_draw(const struct kv_frontier_set *set, struct kv_drawn *drawn, size_t *n_drawn,
                   struct kv_error *e) {
    size_t n, rows = 0;
    bool any_line = false;
    struct kv_depth_row *d = kv_rows_by_depth(set->rows, set->n, &n);
    struct kv_text names = {0};
    char *data = data_of(d, n, &names, &rows, &any_line), *list = kv_text_take(&names);
    int code = 0;
    if (any_line) {
        *drawn = (struct kv_drawn){.name = kv_format_text("depths%s", set->suffix),
                                   .narrow = kv_format_text("depths_narrow%s", set->suffix),
                                   .plot_y = 520,
                                   .narrow_y = 400 + 20.0 * (double)rows,
                                   .depths = true};
        ++*n_drawn;
        code = draw(set, drawn->name, false, drawn->plot_y, list, rows, data, e);
        if (!code) code = draw(set, drawn->narrow, true, drawn->narrow_y, list, rows, data, e);
    }
    free(list);
    free(data);
    free(d);
    return code;
}
