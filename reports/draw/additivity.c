// SPDX-License-Identifier: Apache-2.0
// Draws exact divergence of joint flips against the sum of their parts.
#include "reports/draw/additivity.h"

#include <stdlib.h>

#include "reports/draw/gnuplot.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"

static char *data_of(const struct kv_additivity *a) {
    struct kv_text t = {0};
    kv_text_addf(&t, "unit\tbits\tflipped\tshare\tsum_of_singles\texact\tpredicted\n");
    for (size_t i = 0; i < a->n; i++) {
        const struct kv_flip *f = &a->at[i];
        if (f->n_flipped > 1)
            kv_text_addf(&t, "%s\t%u\t%zu\t%g\t%g\t%g\t%g\n", kv_flip_units[f->unit], f->bits,
                         f->n_flipped, (double)f->n_flipped / (double)f->n_parts,
                         f->singles / f->scored, f->exact / f->scored, f->predicted / f->scored);
    }
    return kv_text_take(&t);
}

// Widths in the order in which they were flipped to, without repeats; a format has no more.
static size_t widths_of(const struct kv_additivity *a, unsigned widths[KV_MAX_WIDTHS]) {
    size_t n = 0;
    for (size_t i = 0; i < a->n; i++) {
        size_t k = 0;
        while (k < n && widths[k] != a->at[i].bits) k++;
        if (k == n) widths[n++] = a->at[i].bits;
    }
    return n;
}

static char *settings_of(const struct kv_additivity *a) {
    struct kv_text t = {0};
    unsigned widths[KV_MAX_WIDTHS];
    size_t n_widths = widths_of(a, widths);
    kv_text_addf(&t, "widths = %zu\narray width[%zu]\n", n_widths, n_widths);
    for (size_t k = 0; k < n_widths; k++) kv_text_addf(&t, "width[%zu] = %u\n", k + 1, widths[k]);
    kv_text_addf(&t,
                 "title_text = \"Is damage a sum? Joint exact divergence against its parts, "
                 "%s\"\nsubtitle_text = \"%zu items; circles: sets of layers, diamonds: ranges of "
                 "positions\"\n",
                 a->format, a->n_items);
    return kv_text_take(&t);
}

int kv_additivity_draw(const struct kv_additivity *a, const char *dir, struct kv_error *e) {
    char *settings = settings_of(a), *tsv = data_of(a);
    struct kv_gnuplot g = {.name = "additivity",
                           .dir = dir,
                           .canvas_x = 1000,
                           .canvas_y = 440,
                           .settings = settings,
                           .data = tsv};
    int rc = kv_make_dir(dir, e);
    if (rc == 0) rc = kv_gnuplot_draw(&g, e);
    if (rc == 0) kv_say("drawn: %s/additivity.svg", dir);
    free(settings);
    free(tsv);
    return rc;
}
