// SPDX-License-Identifier: Apache-2.0
// kvsim atlas: where bits matter: sensitivities and damage by layer and head, by position, by class
// of token, by distance to the end of the prompt.
#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/cli/options.h"
#include "reports/draw/gnuplot.h"
#include "sim/replay/damage.h"
#include "sim/replay/fisher.h"

enum { N_BINS = 14, N_CLASSES = KV_N_KINDS + 1 };

// What adds up in one bin, K and V apart.
struct bin {
    double tokens;         // (token, choice) weights: a choice's tokens count as they are
    double sensitivity[2]; // sum of |g|^2 over tokens, layers and heads
    double damage[2];      // nats, at the width asked for
};

struct atlas {
    struct kv_trace *trace;
    struct kv_format *format;
    struct kv_cell_table *table;
    size_t width, n_heads, n_layers;
    double scored, rare; // scored positions; rarity above which a word is rare
    struct bin *head;    // [n_layers][n_heads]
    struct bin position[N_BINS], distance[N_BINS], kind[N_CLASSES], segment[2];
    struct bin all;
};

// Bins of positions and distances, wider as they grow.
static const uint32_t bin_from[N_BINS + 1] = {0,  1,  2,  4,  8,   12,  16,        24,
                                              32, 48, 64, 96, 128, 256, UINT32_MAX};

static size_t bin_of(uint32_t x) {
    size_t b = 0;
    while (x >= bin_from[b + 1]) b++;
    return b;
}

static void add(struct bin *b, double tokens, const double sens[2], const double damage[2]) {
    b->tokens += tokens;
    for (int side = 0; side < 2; side++) {
        b->sensitivity[side] += sens[side];
        b->damage[side] += damage[side];
    }
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

// Rarity of the rarest tenth of all word starts.
static double rare_from(const struct kv_trace *t) {
    const struct kv_trace_info *in = kv_trace_info(t);
    float *x = kv_alloc(in->n_tokens + 1, sizeof *x);
    size_t n = 0;
    for (size_t i = 0; i < in->n_items; i++) {
        const struct kv_trace_item *it = kv_trace_item(t, i);
        for (size_t row = 0; row < it->n_tokens; row++)
            if (it->kinds[row] == KV_WORD_START)
                x[n++] = it->features[row * KV_N_FEATURES + KV_RARITY_NATS];
    }
    qsort(x, n, sizeof *x, ascending);
    double at = n ? (double)x[n - 1 - n / 10] : INFINITY;
    free(x);
    return at;
}

static void add_token(struct atlas *a, const struct kv_trace_item *it, size_t item, uint32_t row) {
    size_t cells = 2 * a->n_layers * a->n_heads;
    const float *sens = it->sens + row * cells,
                *damage = kv_cell_table_item(a->table, item) +
                          (row * a->format->n_widths + a->width) * cells;
    double s[2] = {0, 0}, d[2] = {0, 0};
    for (size_t c = 0; c < cells; c++) {
        s[c & 1] += (double)sens[c];
        d[c & 1] += (double)damage[c];
        struct bin *h = &a->head[c / 2];
        h->sensitivity[c & 1] += (double)sens[c];
        h->damage[c & 1] += (double)damage[c];
        h->tokens += 0.5;
    }
    bool choice = row >= it->n_context && it->n_choices;
    uint32_t c = 0, position = row;
    while (choice && row >= it->first[c + 1]) c++;
    if (choice) position = it->n_context + row - it->first[c];
    add(&a->all, 1, s, d);
    add(&a->segment[choice], 1, s, d);
    add(&a->position[bin_of(position)], 1, s, d);
    if (!choice) add(&a->distance[bin_of(it->n_context - 1 - row)], 1, s, d);
    add(&a->kind[it->kinds[row]], 1, s, d);
    if (it->kinds[row] == KV_WORD_START &&
        (double)it->features[row * KV_N_FEATURES + KV_RARITY_NATS] >= a->rare)
        add(&a->kind[KV_N_KINDS], 1, s, d);
}

// ---- tables ---------------------------------------------------------------------------

static const struct kv_column columns[] = {{"axis", KV_LEFT},
                                           {"place", KV_LEFT},
                                           {"tokens", KV_RIGHT},
                                           {"key_sensitivity", KV_RIGHT},
                                           {"value_sensitivity", KV_RIGHT},
                                           {"key_damage", KV_RIGHT},
                                           {"value_damage", KV_RIGHT},
                                           {"damage_pct", KV_RIGHT},
                                           {"damage_a_token", KV_RIGHT}};

// Sensitivities are means over a bin's cells; damages are nats a scored token; damage_a_token is
// relative to the mean of all tokens.
static void print_bin(struct kv_table *t, const struct atlas *a, const char *axis,
                      const char *place, const struct bin *b, double cells) {
    double all = a->all.damage[0] + a->all.damage[1], own = b->damage[0] + b->damage[1];
    if (b->tokens == 0) return;
    kv_table_text(t, axis);
    kv_table_text(t, place);
    kv_table_number(t, b->tokens, 0);
    for (int side = 0; side < 2; side++)
        kv_table_number(t, b->sensitivity[side] / (b->tokens * cells), 8);
    for (int side = 0; side < 2; side++) kv_table_number(t, b->damage[side] / a->scored, 8);
    kv_table_number(t, 100 * own / all, 2);
    kv_table_number(t,
                    own / b->tokens / (all / a->all.tokens) *
                        (cells > 1 ? 1 : (double)(a->n_layers * a->n_heads)),
                    3);
}

static const char *const kind_names[N_CLASSES] = {"word start",     "rest of a word", "digit",
                                                  "punctuation",    "space",          "first token",
                                                  "rare word start"};

static void bin_name(size_t b, char name[64]) {
    if (b + 1 == N_BINS)
        snprintf(name, 64, "%u and more", bin_from[b]);
    else if (bin_from[b + 1] == bin_from[b] + 1)
        snprintf(name, 64, "%u", bin_from[b]);
    else
        snprintf(name, 64, "%u-%u", bin_from[b], bin_from[b + 1] - 1);
}

static int print(const struct atlas *a, const char *by, enum kv_output how, struct kv_error *e) {
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    double cells = (double)(a->n_layers * a->n_heads);
    bool all = strcmp(by, "all") == 0;
    char name[64];
    for (size_t h = 0; (all || strcmp(by, "head") == 0) && h < a->n_layers * a->n_heads; h++) {
        snprintf(name, sizeof name, "layer %zu head %zu", h / a->n_heads, h % a->n_heads);
        print_bin(t, a, "head", name, &a->head[h], 1);
    }
    for (size_t b = 0; (all || strcmp(by, "position") == 0) && b < N_BINS; b++) {
        bin_name(b, name);
        print_bin(t, a, "position", name, &a->position[b], cells);
    }
    for (size_t b = 0; (all || strcmp(by, "class") == 0) && b < N_CLASSES; b++)
        print_bin(t, a, "class", kind_names[b], &a->kind[b], cells);
    for (size_t b = 0; (all || strcmp(by, "distance") == 0) && b < N_BINS; b++) {
        bin_name(b, name);
        print_bin(t, a, "distance", name, &a->distance[b], cells);
    }
    for (size_t b = 0; (all || strcmp(by, "segment") == 0) && b < 2; b++)
        print_bin(t, a, "segment", b ? "choices" : "context", &a->segment[b], cells);
    return kv_table_print(t, how, e);
}

// ---- figure ---------------------------------------------------------------------------

static void name_bars(struct kv_text *t, const struct bin *b, size_t n, bool classes) {
    char name[64];
    for (size_t i = 0; i < n; i++) {
        if (b[i].tokens == 0) continue;
        bin_name(i < N_BINS ? i : 0, name);
        kv_text_addf(t, "'%s' %zu, ", classes ? kind_names[i] : name, i);
    }
    kv_text_addf(t, "'' -1\"\n");
}

static void bars(struct kv_text *t, const struct atlas *a, const char *panel, const char *name,
                 size_t at, const struct bin *b) {
    double mean = (a->all.damage[0] + a->all.damage[1]) / a->all.tokens;
    if (b->tokens > 0)
        kv_text_addf(t, "%s\t%zu\t0\t%s\t%g\t%g\n", panel, at, name,
                     b->damage[0] / b->tokens / mean, b->damage[1] / b->tokens / mean);
}

static int draw(const struct atlas *a, const char *dir, const char *format, struct kv_error *e) {
    struct kv_text t = {0};
    char name[64];
    double mean = (a->all.damage[0] + a->all.damage[1]) / (double)(2 * a->n_layers * a->n_heads);
    kv_text_addf(&t, "panel\tx\ty\tplace\tkey\tvalue\n");
    for (size_t h = 0; h < a->n_layers * a->n_heads; h++)
        kv_text_addf(&t, "head\t%zu\t%zu\t\t%g\t%g\n", h / a->n_heads, h % a->n_heads,
                     a->head[h].damage[0] / mean, a->head[h].damage[1] / mean);
    for (size_t b = 0; b < N_BINS; b++) {
        bin_name(b, name);
        bars(&t, a, "position", name, b, &a->position[b]);
        bars(&t, a, "distance", name, b, &a->distance[b]);
    }
    for (size_t b = 0; b < N_CLASSES; b++) bars(&t, a, "class", kind_names[b], b, &a->kind[b]);
    const struct kv_trace_info *in = kv_trace_info(a->trace);
    char *task = kv_gnuplot_text(in->task_name), *model = kv_gnuplot_text(in->model_name),
         *tsv = kv_text_take(&t);
    struct kv_text tics = {0};
    kv_text_addf(&tics, "array tics[3]\ntics[1] = \"");
    name_bars(&tics, a->position, N_BINS, false);
    kv_text_addf(&tics, "tics[2] = \"");
    name_bars(&tics, a->kind, N_CLASSES, true);
    kv_text_addf(&tics, "tics[3] = \"");
    name_bars(&tics, a->distance, N_BINS, false);
    char *places = kv_text_take(&tics);
    char *settings = kv_format_text(
        "%sname = \"atlas\"\ncanvas_x = 1000\ncanvas_y = 760\ndata = \"atlas.tsv\"\nlayers = %zu\n"
        "heads = %zu\ntitle_text = \"Where bits matter: predicted damage of %u bits, %s\"\n"
        "subtitle_text = \"%s, %s, %zu items; 1 = the mean over cells or tokens; keys blue, values "
        "orange\"\n",
        places, a->n_layers, a->n_heads, a->format->width_bits[a->width], format, model, task,
        in->n_items);
    struct kv_gnuplot g = {
        .name = "atlas", .file = "atlas", .dir = dir, .settings = settings, .data = tsv};
    int rc = kv_make_dir(dir, e);
    if (rc == 0) rc = kv_gnuplot_draw(&g, e);
    if (rc == 0) kv_say("drawn: %s/atlas.svg", dir);
    free(places);
    free(task);
    free(model);
    free(tsv);
    free(settings);
    return rc;
}

// ---- command --------------------------------------------------------------------------

static int open_ground(struct atlas *a, struct kv_cli *c, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(a->trace);
    struct kv_format_setting setting = {in->shape, in->order};
    long bits;
    if (!(in->keep & KV_KEEP_SENS))
        return kv_fail(e, KV_EFAIL, in->path, "keeps no sensitivities; record with --keep kv,sens");
    int rc = kv_format_open(&a->format, kv_opt(c, "format"), &setting, e);
    if (rc == 0) rc = kv_opt_int(c, "bits", 1, 16, &bits, e);
    if (rc) return rc;
    while (a->width < a->format->n_widths && a->format->width_bits[a->width] != bits) a->width++;
    if (a->width == a->format->n_widths)
        return kv_fail(e, KV_EUSAGE, "--bits", "format %s does not offer %ld bits",
                       kv_opt(c, "format"), bits);
    return kv_cell_table_open(&a->table, a->trace, a->format, KV_TABLE_ISO, c->jobs, e);
}

static int atlas(struct kv_cli *c, struct kv_error *e) {
    static const char *const axes[] = {"all",      "head",    "position", "class",
                                       "distance", "segment", NULL};
    struct atlas a = {0};
    const char *by = kv_opt(c, "by");
    size_t axis = 0;
    while (axes[axis] && strcmp(axes[axis], by) != 0) axis++;
    if (!axes[axis])
        return kv_fail(e, KV_EUSAGE, "--by",
                       "%s: all, head, position, class, distance or segment is expected", by);
    int rc = kv_trace_open(&a.trace, c->args[0], e);
    if (rc) return rc;
    const struct kv_trace_info *in = kv_trace_info(a.trace);
    rc = open_ground(&a, c, e);
    a.n_layers = in->shape.n_layers;
    a.n_heads = in->shape.n_kv_heads;
    a.head = kv_alloc(a.n_layers * a.n_heads, sizeof *a.head);
    if (rc == 0) a.rare = rare_from(a.trace);
    for (size_t i = 0; i < in->n_items && rc == 0; i++) {
        const struct kv_trace_item *it = kv_trace_item(a.trace, i);
        a.scored += kv_fisher_scored(in, it);
        for (uint32_t row = 0; row < it->n_tokens; row++) add_token(&a, it, i, row);
    }
    if (rc == 0) rc = print(&a, by, c->output, e);
    if (rc == 0 && kv_opt(c, "out")) rc = draw(&a, kv_opt(c, "out"), kv_opt(c, "format"), e);
    free(a.head);
    kv_cell_table_close(a.table);
    kv_format_close(a.format);
    kv_trace_close(a.trace);
    return rc;
}

static const struct kv_option options[] = {
    {"format", 'f', "FORMAT", "asym:group=32", "the format whose damage is shown"},
    {"bits", 'b', "N", "4", "at this width"},
    {"by", 0, "AXIS", "all",
     "head, position, class, distance (to the prompt's end), segment, or all"},
    {"out", 'o', "DIR", NULL, "also draws the maps there"},
    {0}};

const struct kv_command kv_cmd_atlas = {
    .name = "atlas",
    .summary = "shows where bits matter: by layer and head, position, class, distance to the end",
    .usage = "TRACE",
    .example = "kvsim atlas work/samples.trace --by class",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = atlas};
