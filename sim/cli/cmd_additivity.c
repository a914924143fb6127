// SPDX-License-Identifier: Apache-2.0
// kvsim additivity: is the damage of many coarse parts the sum of each part's own? Exact replay of
// single parts and of random joint ones, beside their sums and predictions.
#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/cli/options.h"
#include "reports/draw/gnuplot.h"
#include "sim/cli/lists.h"
#include "sim/cli/opening.h"
#include "sim/replay/fisher.h"

enum { MAX_PARTS = 64, POSITIONS = 6 }; // ranges of positions: as many as policy context can hold

// The parts into which the cache is cut; the others stay at 16 bits.
enum unit { UNIT_LAYER, UNIT_KEYS, UNIT_VALUES, UNIT_POSITION, N_UNITS };
static const char *const unit_names[] = {"layer", "keys", "values", "position", NULL};

struct flip {
    enum unit unit;
    unsigned bits;
    size_t n_flipped, n_parts;
    bool part[MAX_PARTS];
    struct kv_replay_spec spec;
    double exact, predicted, scored; // nats summed; scored positions
};

struct work {
    struct kv_trace *trace;
    struct flip *at;
    size_t n;
    double *exact, *predicted, *scored; // [n][n_items]
    size_t first, n_items;
    bool exactly;
};

// ---- specs ----------------------------------------------------------------------------

static char *flip_text(const struct flip *f, const char *format) {
    struct kv_text t = {0};
    if (f->unit == UNIT_POSITION) { // widths between cuts at equal shares of the prompt
        kv_text_addf(&t, "context:unit=share,bits=");
        for (size_t i = 0; i < f->n_parts; i++)
            kv_text_addf(&t, "%s%u", i ? "/" : "", f->part[i] ? f->bits : 16);
        kv_text_addf(&t, ",cuts=");
        for (size_t i = 1; i < f->n_parts; i++) // the last part: the choices
            kv_text_addf(&t, "%s%g", i > 1 ? "/" : "", (double)i / (double)(f->n_parts - 1));
    } else {
        kv_text_addf(&t, "layerwise:");
        for (int side = 0; side < 2; side++) {
            bool own = f->unit == UNIT_LAYER || (f->unit == UNIT_KEYS) == (side == 0);
            kv_text_addf(&t, "%s=", side ? ",v" : "k");
            for (size_t i = 0; i < f->n_parts; i++)
                kv_text_addf(&t, "%s%u", i ? "/" : "", own && f->part[i] ? f->bits : 16);
        }
    }
    kv_text_addf(&t, "@%s", format);
    return kv_text_take(&t);
}

static int add_flip(struct work *w, struct flip f, const char *format, uint64_t seed,
                    struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(w->trace);
    struct kv_format_setting setting = {in->shape, in->order};
    char *text = flip_text(&f, format);
    int rc = kv_replay_spec_open(&f.spec, text, &setting, seed, e);
    free(text);
    if (rc) return rc;
    w->at = kv_grow(w->at, w->n + 1, sizeof *w->at);
    w->at[w->n++] = f;
    return 0;
}

// Every single part, then `draws` random sets of each size that doubles, and all parts.
static int add_unit(struct work *w, enum unit unit, unsigned bits, size_t draws, const char *format,
                    uint64_t seed, struct kv_error *e) {
    size_t n = unit == UNIT_POSITION ? POSITIONS : kv_trace_info(w->trace)->shape.n_layers;
    if (n > MAX_PARTS)
        return kv_fail(e, KV_EFAIL, "additivity", "%zu layers: at most %d are taken", n, MAX_PARTS);
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct flip f = {.unit = unit, .bits = bits, .n_flipped = 1, .n_parts = n};
        f.part[i] = true;
        rc = add_flip(w, f, format, seed, e);
    }
    for (size_t size = 2; rc == 0; size = 2 * size < n ? 2 * size : n) {
        for (size_t d = 0; d < (size == n ? 1 : draws) && rc == 0; d++) {
            struct flip f = {.unit = unit, .bits = bits, .n_flipped = size, .n_parts = n};
            for (size_t k = 0, tried = 0; k < size; tried++) {
                size_t part =
                    (size_t)(kv_draw(seed, 1000 * unit + bits, 64 * (8 * d + size) + tried) *
                             (double)n);
                k += !f.part[part];
                f.part[part] = true;
            }
            rc = add_flip(w, f, format, seed, e);
        }
        if (size == n) break;
    }
    return rc;
}

// ---- running --------------------------------------------------------------------------

static int take(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    struct work *w = self;
    size_t at = spec * w->n_items + item - w->first;
    (void)e;
    (w->exactly ? w->exact : w->predicted)[at] = o->kl_nats * o->n_scored;
    w->scored[at] = o->n_scored;
    return 0;
}

static int run(struct work *w, struct kv_cli *c, struct kv_model *m, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(w->trace);
    size_t pairs = w->n * w->n_items;
    struct kv_replay_spec *specs = kv_alloc(w->n, sizeof *specs);
    for (size_t i = 0; i < w->n; i++) specs[i] = w->at[i].spec;
    w->exact = kv_alloc(3 * pairs, sizeof(double));
    w->predicted = w->exact + pairs;
    w->scored = w->predicted + pairs;
    struct kv_replay job = {.trace = w->trace,
                            .model = m,
                            .specs = specs,
                            .n_specs = w->n,
                            .seed = c->seed,
                            .first_item = w->first,
                            .n_items = w->n_items,
                            .take = take,
                            .self = w};
    int rc = kv_replay_fisher(&job, in->keep & KV_KEEP_GRAD ? KV_TABLE_ELEMENT : KV_TABLE_ISO,
                              c->jobs, e);
    w->exactly = true;
    if (rc == 0) rc = kv_replay_exact(&job, c->jobs, e);
    for (size_t i = 0; i < pairs && rc == 0; i++) { // items in order, whatever order they came in
        struct flip *f = &w->at[i / w->n_items];
        f->exact += w->exact[i];
        f->predicted += w->predicted[i];
        f->scored += w->scored[i];
    }
    free(specs);
    free(w->exact);
    return rc;
}

// Exact divergence of a flip's parts, each flipped alone, added up.
static double sum_of_singles(const struct work *w, const struct flip *f) {
    double sum = 0;
    for (size_t i = 0; i < w->n; i++) {
        const struct flip *one = &w->at[i];
        if (one->n_flipped != 1 || one->unit != f->unit || one->bits != f->bits) continue;
        for (size_t p = 0; p < f->n_parts; p++)
            if (one->part[p] && f->part[p]) sum += one->exact;
    }
    return sum;
}

// ---- output ---------------------------------------------------------------------------

static int print(const struct work *w, enum kv_output how, struct kv_error *e) {
    static const struct kv_column columns[] = {{"unit", KV_LEFT},
                                               {"bits", KV_RIGHT},
                                               {"flipped", KV_RIGHT},
                                               {"of", KV_RIGHT},
                                               {"sets", KV_RIGHT},
                                               {"kl_exact", KV_RIGHT},
                                               {"sum_of_singles", KV_RIGHT},
                                               {"exact_to_sum", KV_RIGHT},
                                               {"ratio_low", KV_RIGHT},
                                               {"ratio_high", KV_RIGHT},
                                               {"predicted", KV_RIGHT},
                                               {"predicted_to_exact", KV_RIGHT}};
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < w->n;) { // flips of one unit, width and size stand together
        const struct flip *f = &w->at[i];
        double exact = 0, singles = 0, predicted = 0, low = INFINITY, high = 0;
        size_t n = 0;
        for (; i < w->n && w->at[i].unit == f->unit && w->at[i].bits == f->bits &&
               w->at[i].n_flipped == f->n_flipped;
             i++, n++) {
            const struct flip *x = &w->at[i];
            double sum = sum_of_singles(w, x);
            exact += x->exact / x->scored;
            singles += sum / x->scored;
            predicted += x->predicted / x->scored;
            low = fmin(low, x->exact / sum);
            high = fmax(high, x->exact / sum);
        }
        kv_table_text(t, unit_names[f->unit]);
        kv_table_count(t, f->bits);
        kv_table_count(t, (long long)f->n_flipped);
        kv_table_count(t, (long long)f->n_parts);
        kv_table_count(t, (long long)n);
        kv_table_number(t, exact / (double)n, 6);
        kv_table_number(t, singles / (double)n, 6);
        kv_table_number(t, exact / singles, 3);
        kv_table_number(t, low, 3);
        kv_table_number(t, high, 3);
        kv_table_number(t, predicted / (double)n, 6);
        kv_table_number(t, predicted / exact, 3);
    }
    return kv_table_print(t, how, e);
}

static int draw(const struct work *w, const char *dir, const char *format, struct kv_error *e) {
    struct kv_text t = {0}, set = {0};
    unsigned widths[KV_MAX_WIDTHS];
    size_t n_widths = 0;
    kv_text_addf(&t, "unit\tbits\tflipped\tshare\tsum_of_singles\texact\tpredicted\n");
    for (size_t i = 0; i < w->n; i++) {
        const struct flip *f = &w->at[i];
        size_t k = 0;
        while (k < n_widths && widths[k] != f->bits) k++;
        if (k == n_widths) widths[n_widths++] = f->bits;
        if (f->n_flipped > 1)
            kv_text_addf(&t, "%s\t%u\t%zu\t%g\t%g\t%g\t%g\n", unit_names[f->unit], f->bits,
                         f->n_flipped, (double)f->n_flipped / (double)f->n_parts,
                         sum_of_singles(w, f) / f->scored, f->exact / f->scored,
                         f->predicted / f->scored);
    }
    kv_text_addf(&set,
                 "name = \"additivity\"\ncanvas_x = 1000\ncanvas_y = 440\ndata = "
                 "\"additivity.tsv\"\nwidths = %zu\narray width[%zu]\n",
                 n_widths, n_widths);
    for (size_t k = 0; k < n_widths; k++) kv_text_addf(&set, "width[%zu] = %u\n", k + 1, widths[k]);
    kv_text_addf(&set,
                 "title_text = \"Is damage a sum? Joint exact divergence against its parts, "
                 "%s\"\nsubtitle_text = \"%zu items; circles: sets of layers, diamonds: ranges of "
                 "positions\"\n",
                 format, w->n_items);
    char *settings = kv_text_take(&set), *tsv = kv_text_take(&t);
    struct kv_gnuplot g = {
        .name = "additivity", .file = "additivity", .dir = dir, .settings = settings, .data = tsv};
    int rc = kv_make_dir(dir, e);
    if (rc == 0) rc = kv_gnuplot_draw(&g, e);
    if (rc == 0) kv_say("drawn: %s/additivity.svg", dir);
    free(settings);
    free(tsv);
    return rc;
}

// ---- command --------------------------------------------------------------------------

static int add_all(struct work *w, struct kv_cli *c, struct kv_error *e) {
    long draws;
    uint32_t bits[16];
    size_t n_bits = 0;
    int rc = kv_opt_int(c, "sets", 1, 8, &draws, e);
    if (rc == 0) rc = kv_opt_counts(c, "bits", 1, 16, bits, 16, &n_bits, e);
    char *units = kv_strdup(kv_opt(c, "units")), *rest = units, *word;
    while (rc == 0 && (word = strsep(&rest, ","))) {
        size_t unit = 0;
        while (unit < N_UNITS && strcmp(unit_names[unit], word) != 0) unit++;
        if (unit == N_UNITS)
            rc = kv_fail(e, KV_EUSAGE, "--units", "%s: layer, keys, values or position is expected",
                         word);
        for (size_t i = 0; rc == 0 && i < n_bits; i++)
            rc = add_unit(w, (enum unit)unit, bits[i], (size_t)draws, kv_opt(c, "format"), c->seed,
                          e);
    }
    free(units);
    return rc;
}

static int additivity(struct kv_cli *c, struct kv_error *e) {
    struct work w = {0};
    struct kv_model *m = NULL;
    int rc = kv_trace_open(&w.trace, c->args[0], e);
    if (rc) return rc;
    const struct kv_trace_info *in = kv_trace_info(w.trace);
    w.n_items = in->n_items;
    rc = kv_opt_items(c, "items", in->n_items, &w.first, &w.n_items, e);
    if (rc == 0) rc = add_all(&w, c, e);
    if (rc == 0) rc = kv_opt_model(c, in, &m, e);
    if (rc == 0) rc = run(&w, c, m, e);
    if (rc == 0) rc = print(&w, c->output, e);
    if (rc == 0 && kv_opt(c, "out")) rc = draw(&w, kv_opt(c, "out"), kv_opt(c, "format"), e);
    for (size_t i = 0; i < w.n; i++) kv_replay_spec_close(&w.at[i].spec);
    free(w.at);
    kv_model_close(m);
    kv_trace_close(w.trace);
    return rc;
}

static const struct kv_option options[] = {
    {"model", 'm', "MODEL", NULL, "the model the trace was recorded from (default: as in replay)"},
    KV_COMPUTE_OPTION,
    {"format", 'f', "FORMAT", "asym:group=32", "the format of flipped parts"},
    {"bits", 'b', "LIST", "2,3,4", "widths that parts are flipped to, from 16"},
    {"units", 0, "LIST", "layer,position", "what is flipped: layer, keys, values, position"},
    {"sets", 0, "N", "3", "random sets of each size"},
    {"items", 0, "A-B", NULL, "only items A to B of the trace, counted from 0"},
    {"out", 'o', "DIR", NULL, "also draws joint damage against the sum there"},
    {0}};

const struct kv_command kv_cmd_additivity = {
    .name = "additivity",
    .summary = "compares joint damage with the sum of its parts, both run exactly",
    .usage = "TRACE",
    .example = "kvsim additivity work/samples.trace --items 0-1 --bits 4 --units position",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = additivity};
