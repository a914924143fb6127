// SPDX-License-Identifier: Apache-2.0
// Figures of the latency model: tables out, one embedded gnuplot script each.
#include "reports/draw/device.h"
#include "sim/base/assets.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "reports/draw/gnuplot.h"

#include <stdlib.h>

enum { LINE_POINTS = 400 }; // rounds are steps: lines need many

// Runs gnuplot on an embedded script, once for SVG and once for PNG. blocks: what the script may
// want to know of its data.
static int draw(const char *script, const char *title, const char *stem, size_t blocks,
                struct kv_error *e) {
    const struct kv_asset *a = kv_asset_find(script),
                          *style = kv_asset_find("reports/draw/style.gp");
    if (!a || !style) return kv_fail(e, KV_EFAIL, script, "the script is not in this program");
    char *safe_title = kv_gnuplot_text(title), *safe_stem = kv_gnuplot_text(stem);
    FILE *f = popen("gnuplot 2>/dev/null", "w");
    for (int png = 0; f && png < 2; png++)
        fprintf(f,
                "reset\nformat = '%s'\nname = '%s'\ncanvas_x = 760\ncanvas_y = 560\n"
                "data = '%s.tsv'\nblocks = %zu\ntitle_text = '%s'\n%s%s\n",
                png ? "png" : "svg", safe_stem, safe_stem, blocks, safe_title,
                (const char *)style->data, (const char *)a->data);
    int status = f ? pclose(f) : -1;
    free(safe_title);
    free(safe_stem);
    return status == 0 ? 0 : kv_fail(e, KV_EFAIL, script, "gnuplot is missing or failed");
}

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
    if (m->n == 1) return m->part[0].bits[0] == m->part[0].bits[1];
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

int kv_draw_calibration(const struct kv_calibration *c, const struct kv_runs *runs, const char *dir,
                        struct kv_error *e) {
    (void)runs;
    static const struct {
        const char *name, *script;
        bool lines;
    } figures[] = {{"fit", "reports/draw/device_fit.gp", false},
                   {"residual", "reports/draw/device_residual.gp", false},
                   {"lines", "reports/draw/device_lines.gp", true}};
    int rc = kv_make_dir(dir, e);
    for (size_t i = 0; rc == 0 && i < sizeof figures / sizeof *figures; i++) {
        size_t blocks = 0;
        char *text = figures[i].lines ? line_table(c->device, &blocks) : fit_table(c);
        char *stem = kv_format_text("%s/%s_%s", dir, c->device->name, figures[i].name);
        char *data = kv_format_text("%s.tsv", stem);
        rc = kv_write_file(data, text, strlen(text), e);
        if (rc == 0) rc = draw(figures[i].script, c->device->summary, stem, blocks, e);
        free(text);
        free(stem);
        free(data);
    }
    return rc;
}
