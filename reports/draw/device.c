// SPDX-License-Identifier: Apache-2.0
// Draws a device's fit: predicted against measured, what the model misses, and ms a token.
#include "reports/draw/device.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "reports/draw/gnuplot.h"

#include <stdlib.h>

enum { LINE_POINTS = 400 }; // rounds are steps: lines need many

// One row a run: what was measured and what each fit says.
static char *fit_table(const struct kv_calibration *c) {
    struct kv_text t = {0};
    kv_text_addf(&t, "mix\tcontext\tmeasured_ms\tfitted_ms\twithout_context_ms\twithout_mix_ms\n");
    for (size_t i = 0; i < c->n_runs; i++) {
        const struct kv_device_run *r = &c->device->runs[i];
        char mix[160];
        kv_mix_text(&r->mix, mix, sizeof mix);
        kv_text_addf(&t, "%s\t%u\t%.6f\t%.6f\t%.6f\t%.6f\n", mix, r->context, r->step_ns / 1e6,
                     c->fitted_ns[i] / 1e6, c->by_context_ns[i] / 1e6, c->by_mix_ns[i] / 1e6);
    }
    return kv_text_take(&t);
}

// Whether a figure of lines shows run i's mix: a uniform width, or the first mix of most widths.
static bool has_line(const struct kv_device *d, size_t i) {
    const struct kv_mix *m = &d->runs[i].mix;
    size_t most = 1, first = i;
    if (m->n == 1)
        return m->part[0].bits[0] == m->part[0].bits[1] && m->part[0].type[0] == m->part[0].type[1];
    for (size_t k = d->n_runs; k-- > 0;)
        if (d->runs[k].mix.n >= most) {
            most = d->runs[k].mix.n;
            first = k;
        }
    char one[160], other[160];
    kv_mix_text(m, one, sizeof one);
    kv_mix_text(&d->runs[first].mix, other, sizeof other);
    return strcmp(one, other) == 0;
}

// Blocks of two blank lines' distance: for each mix the measured points, then the model's line.
static char *line_table(const struct kv_device *d, size_t *blocks) {
    struct kv_text t = {0};
    for (size_t i = 0; i < d->n_runs; i++) {
        char mix[160], other[160];
        kv_mix_text(&d->runs[i].mix, mix, sizeof mix);
        bool seen = false;
        for (size_t k = 0; k < i && !seen; k++) {
            kv_mix_text(&d->runs[k].mix, other, sizeof other);
            seen = strcmp(mix, other) == 0;
        }
        if (seen || !has_line(d, i)) continue;
        ++*blocks;
        kv_text_addf(&t, "\"%s\"\n", mix);
        for (size_t k = 0; k < d->n_runs; k++) {
            kv_mix_text(&d->runs[k].mix, other, sizeof other);
            if (strcmp(mix, other) == 0)
                kv_text_addf(&t, "%u\t%.6f\n", d->runs[k].context, d->runs[k].step_ns / 1e6);
        }
        kv_text_addf(&t, "\n\n\"%s\"\n", mix);
        for (int p = 0; p <= LINE_POINTS; p++) {
            struct kv_device_run at = d->runs[i];
            double low = d->context_min, high = d->context_max;
            at.context = (uint32_t)lround(low + (high - low) * p / LINE_POINTS);
            at.cache_bytes = NAN;
            kv_text_addf(&t, "%u\t%.6f\n", at.context, kv_run_price(d, &at).step_ns / 1e6);
        }
        kv_text_addf(&t, "\n\n");
    }
    return kv_text_take(&t);
}

int kv_device_draw(const struct kv_calibration *c, const char *dir, struct kv_error *e) {
    static const struct {
        const char *script, *what;
        bool lines;
    } figures[] = {{"device_fit", "fit", false},
                   {"device_residual", "residual", false},
                   {"device_lines", "lines", true}};
    int rc = kv_make_dir(dir, e);
    char *title = kv_gnuplot_text(c->device->summary);
    for (size_t i = 0; rc == 0 && i < sizeof figures / sizeof *figures; i++) {
        size_t blocks = 0;
        char *data = figures[i].lines ? line_table(c->device, &blocks) : fit_table(c);
        char *file = kv_format_text("%s_%s", c->device->name, figures[i].what);
        char *settings = kv_format_text("title_text = '%s'\nblocks = %zu\n", title, blocks);
        rc = kv_gnuplot_draw(&(struct kv_gnuplot){.name = figures[i].script,
                                                  .file = file,
                                                  .dir = dir,
                                                  .command = "kvsim calibrate",
                                                  .canvas_x = 760,
                                                  .canvas_y = 560,
                                                  .settings = settings,
                                                  .data = data},
                             e);
        free(data);
        free(file);
        free(settings);
    }
    free(title);
    return rc;
}
