// SPDX-License-Identifier: Apache-2.0
// Hands a headroom study to headroom.gp.
#include "reports/draw/headroom.h"

#include <stdlib.h>

#include "reports/draw/gnuplot.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"

static char *data_of(const struct kv_headroom *h) {
    struct kv_text t = {0};
    kv_text_addf(&t, "budget\tplace\tkl\tlow\thigh\tpredicted\tnull\tname\n");
    for (size_t i = 0; i < h->n; i++) {
        const struct kv_headroom_entry *x = &h->at[i];
        kv_text_addf(&t, "%zu\t%td\t%g\t%g\t%g\t%g\t%d\t%s\n", x->budget,
                     KV_N_FREEDOMS - (x->freedom - kv_freedoms), x->exact.mean,
                     x->exact.interval.low, x->exact.interval.high, x->predicted, x->freedom->null,
                     x->freedom->name);
    }
    return kv_text_take(&t);
}

static char *settings_of(const struct kv_headroom *h) {
    struct kv_text t = {0};
    kv_text_addf(&t, "budgets = %zu\nfamilies = %d\narray bits[%zu]\n", h->o.n_bits, KV_N_FREEDOMS,
                 h->o.n_bits);
    for (size_t b = 0; b < h->o.n_bits; b++)
        kv_text_addf(&t, "bits[%zu] = \"uniform %u bits\"\n", b + 1, h->o.bits[b]);
    char *subtitle = kv_gnuplot_text(h->subtitle);
    kv_text_addf(&t, "subtitle_text = \"%s\"\n", subtitle);
    free(subtitle);
    return kv_text_take(&t);
}

int kv_headroom_draw(const struct kv_headroom *h, const char *dir, struct kv_error *e) {
    char *settings = settings_of(h), *data = data_of(h);
    struct kv_gnuplot g = {.name = "headroom",
                           .dir = dir,
                           .canvas_x = 1000,
                           .canvas_y = 620,
                           .settings = settings,
                           .data = data};
    int rc = kv_make_dir(dir, e);
    if (rc == 0) rc = kv_gnuplot_draw(&g, e);
    free(settings);
    free(data);
    return rc;
}
