// SPDX-License-Identifier: Apache-2.0
// Measures what formats do to recorded or Gaussian keys and values.
#include "analysis/studies/coding_error.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/quant/code.h"
#include "traces/recorded.h"

#include <stdlib.h>

enum { GAUSSIAN_TOKENS = 1024 };

// One layer's vectors of an item: branches are coded apart, as a device would.
struct vectors {
    size_t n; // tokens
    float *x, *y;
    uint8_t *cells;
};

struct job {
    const struct kv_quant_source *source;
    const struct kv_format *f;
    enum kv_side side;
    uint32_t width;
    struct kv_quant_sums *layers; // [n_layers]
};

// ---- where vectors come from ----------------------------------------------------------

struct kv_quant_source kv_quant_gaussian(uint64_t seed) {
    return (struct kv_quant_source){
        .setting = {.shape = {.n_layers = 4, .n_heads = 9, .n_kv_heads = 3, .head_dim = 64},
                    .order = KV_ORDER_GGML},
        .seed = seed,
        .n_items = 1,
        .title = "Gaussian vectors of 64"};
}

int kv_quant_recorded(struct kv_quant_source *s, const struct kv_trace *trace, uint64_t seed,
                      struct kv_error *e) {
    const struct kv_trace_info *info = kv_trace_info(trace);
    if (!(info->keep & KV_KEEP_KV))
        return kv_fail(e, KV_EFAIL, info->path,
                       "holds no keys and values; kvsim record --keep kv does");
    *s = (struct kv_quant_source){
        .trace = trace, .setting = kv_trace_setting(info), .seed = seed, .n_items = info->n_items};
    snprintf(s->title, sizeof s->title, "%s, %zu items (%s); %s", info->task_name, info->n_items,
             info->subset, info->model_name);
    return 0;
}

static size_t row_values(const struct kv_quant_source *s) {
    return (size_t)s->setting.shape.n_kv_heads * s->setting.shape.head_dim;
}

static void gaussian(const struct kv_quant_source *s, uint32_t layer, enum kv_side side, float *x,
                     size_t n) {
    for (size_t i = 0; i < n; i++) { // Box and Muller 1958
        uint64_t at = 2 * (i + n * (2 * (uint64_t)layer + side));
        double u = 1.0 - kv_draw(s->seed, 11, at), v = kv_draw(s->seed, 11, at + 1);
        x[i] = (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
    }
}

static void load(const struct job *j, uint32_t layer, const struct kv_trace_item *item,
                 struct vectors *v) {
    if (!item) {
        gaussian(j->source, layer, j->side, v->x, v->n * row_values(j->source));
        return;
    }
    kv_recorded_rows(kv_trace_info(j->source->trace), item, layer, j->side, j->f->keys_before_rope,
                     v->x);
}

// ---- coding ---------------------------------------------------------------------------

static void add_errors(const struct job *j, const float *x, const float *y, size_t n_vectors,
                       struct kv_quant_sums *sums) {
    size_t d = j->source->setting.shape.head_dim;
    for (size_t v = 0; v < n_vectors; v++, x += d, y += d) {
        double error2 = 0, xx = 0, yy = 0, xy = 0;
        for (size_t i = 0; i < d; i++) {
            double a = (double)x[i], b = (double)y[i], error = fabs(a - b);
            error2 += error * error;
            xx += a * a;
            yy += b * b;
            xy += a * b;
            if (error > sums->largest) sums->largest = error;
        }
        sums->values += (double)d;
        sums->error2 += error2;
        sums->power += xx;
        if (xx > 0) {
            sums->cosine += yy > 0 ? xy / sqrt(xx * yy) : 0;
            sums->vectors++;
        }
    }
}

// One branch: rows [row, row + n) that begin at position `start` of their path.
static int code_branch(const struct job *j, uint32_t layer, const struct vectors *v, size_t row,
                       size_t n, size_t start, size_t context, void *scratch, uint64_t *histogram,
                       struct kv_quant_sums *sums, struct kv_error *e) {
    size_t width = row_values(j->source), heads = j->source->setting.shape.n_kv_heads;
    size_t flush = kv_block_tokens(j->f, j->side, start),
           skip = start < j->f->sinks ? j->f->sinks - start : 0;
    struct kv_vectors rows = {.layer = layer,
                              .side = j->side,
                              .start = start,
                              .first = start,
                              .n = n,
                              .x = v->x + row * width,
                              .x_stride = width,
                              .y = v->y + row * width,
                              .y_stride = width,
                              .cells = v->cells,
                              .cell_token_stride = 0,
                              .cell_head_stride = 0,
                              .opening = v->x,
                              .n_opening = context};
    int rc = kv_code_rows(j->f, &rows, scratch, histogram, e);
    size_t coded = n > skip ? (n - skip) / flush * flush : 0;
    if (rc == 0) add_errors(j, rows.x + skip * width, rows.y + skip * width, coded * heads, sums);
    return rc;
}

static int code_item(const struct job *j, uint32_t layer, const struct kv_trace_item *item,
                     void *scratch, uint64_t *histogram, struct kv_quant_sums *sums,
                     struct kv_error *e) {
    size_t width = row_values(j->source), context;
    struct vectors v = {.n = item ? item->n_tokens : GAUSSIAN_TOKENS};
    uint8_t cell = (uint8_t)j->width;
    context = item ? item->n_context : v.n;
    v.x = kv_alloc(v.n * width + 1, sizeof(float));
    v.y = kv_alloc(v.n * width + 1, sizeof(float));
    v.cells = &cell;
    load(j, layer, item, &v);
    int rc = code_branch(j, layer, &v, 0, context, 0, context, scratch, histogram, sums, e);
    for (uint32_t c = 0; item && c < item->n_choices && rc == 0; c++)
        rc = code_branch(j, layer, &v, item->first[c], item->first[c + 1] - item->first[c],
                         item->n_context, context, scratch, histogram, sums, e);
    free(v.x);
    free(v.y);
    return rc;
}

static int measure_layer(void *self, unsigned worker, size_t layer, struct kv_error *e) {
    const struct job *j = self;
    struct kv_quant_sums *sums = &j->layers[layer];
    void *scratch = kv_alloc(kv_code_scratch_bytes(j->f), 1);
    uint64_t *histogram = kv_alloc(256 * KV_MAX_WIDTHS, sizeof *histogram);
    int rc = 0;
    (void)worker;
    for (size_t i = 0; i < j->source->n_items && rc == 0; i++)
        rc = code_item(j, (uint32_t)layer,
                       j->source->trace ? kv_trace_item(j->source->trace, i) : NULL, scratch,
                       histogram, sums, e);
    memcpy(sums->histogram, histogram + 256 * (size_t)j->width, sizeof sums->histogram);
    free(histogram);
    free(scratch);
    return rc;
}

static double ratio(double error2, double power) {
    return power > 0 ? sqrt(error2 / power) : NAN;
}

static void summarize(struct kv_quant_row *row, const struct kv_quant_sums *layers, size_t n) {
    struct kv_quant_sums all = {0};
    row->layers = kv_alloc(n, sizeof *row->layers);
    for (size_t l = 0; l < n; l++) {
        const struct kv_quant_sums *s = &layers[l];
        row->layers[l] = ratio(s->error2, s->power);
        if (l == 0 || row->layers[l] > row->worst_relative) {
            row->worst_relative = row->layers[l];
            row->worst_layer = (uint32_t)l;
        }
        all.values += s->values;
        all.error2 += s->error2;
        all.power += s->power;
        all.cosine += s->cosine;
        all.vectors += s->vectors;
        if (s->largest > all.largest) all.largest = s->largest;
        for (int i = 0; i < 256; i++) all.histogram[i] += s->histogram[i];
    }
    row->values = all.values;
    row->rmse = all.values > 0 ? sqrt(all.error2 / all.values) : NAN;
    row->relative = ratio(all.error2, all.power);
    row->largest = all.values > 0 ? all.largest : NAN;
    row->cosine = all.vectors > 0 ? all.cosine / all.vectors : NAN;
    row->entropy_bits = kv_entropy_bits(all.histogram);
}

int kv_quant_measure(struct kv_quant_row *row, const struct kv_quant_source *source,
                     const struct kv_format *f, enum kv_side side, uint32_t width, unsigned jobs,
                     struct kv_error *e) {
    size_t n = source->setting.shape.n_layers;
    struct job j = {source, f, side, width, kv_alloc(n, sizeof *j.layers)};
    struct kv_unit_size size = kv_format_size(f, side, width);
    *row = (struct kv_quant_row){.side = side,
                                 .bits = f->width_bits[width],
                                 .effective_bits =
                                     (double)(size.code_bits + size.meta_bits) / size.values,
                                 .allocated_bits = 8.0 * size.bytes / size.values};
    int rc = kv_parallel(n, jobs, measure_layer, &j, e);
    if (rc == 0) summarize(row, j.layers, n);
    free(j.layers);
    return rc;
}

// ---- formats --------------------------------------------------------------------------

struct rows {
    struct kv_quant_row *row;
    size_t n;
};

// Widths asked for that the format has; unless asked, all but fp16 storage.
static bool wanted(const struct kv_format *f, uint32_t width, const struct kv_quant_options *o) {
    for (size_t i = 0; i < o->n_bits; i++)
        if (o->bits[i] == f->width_bits[width]) return true;
    return o->n_bits == 0 && (f->width_bits[width] < 16 || f->n_widths == 1);
}

static int measure_format(struct rows *rows, const struct kv_quant_source *s, const char *spec,
                          const struct kv_quant_options *o, struct kv_error *e) {
    struct kv_format *f;
    int rc = kv_format_open(&f, spec, &s->setting, e);
    if (rc) return rc;
    size_t before = rows->n;
    for (uint32_t w = 0; w < f->n_widths; w++)
        for (int side = 0; side < 2 && rc == 0 && wanted(f, w, o); side++) {
            struct kv_quant_row row;
            rc = kv_quant_measure(&row, s, f, (enum kv_side)side, w, o->jobs, e);
            if (rc) break;
            row.spec = kv_strdup(spec);
            rows->row = kv_grow(rows->row, rows->n + 1, sizeof *rows->row);
            rows->row[rows->n++] = row;
        }
    if (rc == 0 && rows->n == before) kv_say("%s has none of the widths asked for", spec);
    kv_format_close(f);
    return rc;
}

int kv_quant_compare(struct kv_quant_row **out, size_t *n, const struct kv_quant_source *s,
                     const struct kv_quant_options *o, struct kv_error *e) {
    struct rows rows = {0};
    int rc = 0;
    for (size_t i = 0; i < o->n_specs && rc == 0; i++) {
        char **list;
        size_t n_list;
        rc = kv_spec_expand(o->specs[i], &list, &n_list, e);
        if (rc) break;
        for (size_t k = 0; k < n_list && rc == 0; k++) rc = measure_format(&rows, s, list[k], o, e);
        kv_list_free(list, n_list);
    }
    *out = rows.row;
    *n = rows.n;
    return rc;
}

void kv_quant_rows_free(struct kv_quant_row *rows, size_t n) {
    for (size_t i = 0; i < n; i++) {
        free(rows[i].spec);
        free(rows[i].layers);
    }
    free(rows);
}
