// SPDX-License-Identifier: Apache-2.0
// Adds up sensitivities and damage tables of a trace by where tokens stand and what they are.
#include "analysis/studies/atlas.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/replay/damage.h"

enum { N_BINS = 14, RARE_WORD = KV_N_KINDS, N_CLASSES };

const char *const kv_atlas_axes[] = {"head", "position", "class", "distance", "segment", NULL};

// ---- bins -----------------------------------------------------------------------------

// Bins of positions and distances, wider as they grow.
static const uint32_t bin_from[N_BINS + 1] = {0,  1,  2,  4,  8,   12,  16,        24,
                                              32, 48, 64, 96, 128, 256, UINT32_MAX};

static size_t bin_of(uint32_t x) {
    size_t b = 0;
    while (x >= bin_from[b + 1]) b++;
    return b;
}

static void range_name(size_t b, char place[KV_ATLAS_PLACE_BYTES]) {
    if (b + 1 == N_BINS)
        snprintf(place, KV_ATLAS_PLACE_BYTES, "%u and more", bin_from[b]);
    else if (bin_from[b + 1] == bin_from[b] + 1)
        snprintf(place, KV_ATLAS_PLACE_BYTES, "%u", bin_from[b]);
    else
        snprintf(place, KV_ATLAS_PLACE_BYTES, "%u-%u", bin_from[b], bin_from[b + 1] - 1);
}

void kv_atlas_place(const struct kv_atlas *a, enum kv_atlas_axis axis, size_t bin,
                    char place[KV_ATLAS_PLACE_BYTES]) {
    static const char *const classes[N_CLASSES] = {
        "word start", "rest of a word", "digit",          "punctuation",
        "space",      "first token",    "rare word start"};
    if (axis == KV_ATLAS_HEAD)
        snprintf(place, KV_ATLAS_PLACE_BYTES, "layer %zu head %zu", bin / a->n_heads,
                 bin % a->n_heads);
    else if (axis == KV_ATLAS_CLASS)
        snprintf(place, KV_ATLAS_PLACE_BYTES, "%s", classes[bin]);
    else if (axis == KV_ATLAS_SEGMENT)
        snprintf(place, KV_ATLAS_PLACE_BYTES, "%s", bin ? "choices" : "context");
    else
        range_name(bin, place);
}

// ---- adding up ------------------------------------------------------------------------

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static bool is_word_start(const struct kv_trace_item *it, size_t row) {
    return it->kinds[row] == KV_WORD_START;
}

static float rarity_of(const struct kv_trace_item *it, size_t row) {
    return it->features[row * KV_N_FEATURES + KV_RARITY_NATS];
}

// Rarity of the rarest tenth of all word starts.
static double rare_from(const struct kv_trace *t) {
    const struct kv_trace_info *in = kv_trace_info(t);
    float *x = kv_alloc(in->n_tokens + 1, sizeof *x);
    size_t n = 0;
    for (size_t i = 0; i < in->n_items; i++) {
        const struct kv_trace_item *it = kv_trace_item(t, i);
        for (size_t row = 0; row < it->n_tokens; row++)
            if (is_word_start(it, row)) x[n++] = rarity_of(it, row);
    }
    qsort(x, n, sizeof *x, ascending);
    double at = n ? (double)x[n - 1 - n / 10] : INFINITY;
    free(x);
    return at;
}

static void add(struct kv_atlas_bin *b, double tokens, const double sensitivity[2],
                const double damage[2]) {
    b->tokens += tokens;
    for (int side = 0; side < 2; side++) {
        b->sensitivity[side] += sensitivity[side];
        b->damage[side] += damage[side];
    }
}

// One token's cells into the bins of their heads, and their sums into all others.
static void add_token(struct kv_atlas *a, const struct kv_trace_item *it, uint32_t row,
                      const float *sensitivity, const float *damage) {
    double s[2] = {0, 0}, d[2] = {0, 0};
    for (size_t c = 0; c < 2 * a->n[KV_ATLAS_HEAD]; c++) {
        struct kv_atlas_bin *h = &a->bin[KV_ATLAS_HEAD][c / 2];
        s[c & 1] += (double)sensitivity[c];
        d[c & 1] += (double)damage[c];
        h->sensitivity[c & 1] += (double)sensitivity[c];
        h->damage[c & 1] += (double)damage[c];
        h->tokens += 0.5;
    }
    bool choice = row >= it->n_context && it->n_choices;
    uint32_t c = 0, position = row;
    while (choice && row >= it->first[c + 1]) c++;
    if (choice) position = it->n_context + row - it->first[c];
    add(&a->all, 1, s, d);
    add(&a->bin[KV_ATLAS_SEGMENT][choice], 1, s, d);
    add(&a->bin[KV_ATLAS_POSITION][bin_of(position)], 1, s, d);
    if (!choice) add(&a->bin[KV_ATLAS_DISTANCE][bin_of(it->n_context - 1 - row)], 1, s, d);
    add(&a->bin[KV_ATLAS_CLASS][it->kinds[row]], 1, s, d);
    if (is_word_start(it, row) && (double)rarity_of(it, row) >= a->rare)
        add(&a->bin[KV_ATLAS_CLASS][RARE_WORD], 1, s, d);
}

static void add_up(struct kv_atlas *a, const struct kv_cell_table *table, size_t n_widths,
                   size_t width) {
    const struct kv_trace_info *in = kv_trace_info(a->trace);
    size_t cells = 2 * a->n[KV_ATLAS_HEAD];
    a->rare = rare_from(a->trace);
    for (size_t i = 0; i < in->n_items; i++) {
        const struct kv_trace_item *it = kv_trace_item(a->trace, i);
        const float *damage = kv_cell_table_item(table, i);
        a->scored += kv_fisher_scored(in, it);
        for (uint32_t row = 0; row < it->n_tokens; row++)
            add_token(a, it, row, it->sens + row * cells,
                      damage + (row * n_widths + width) * cells);
    }
}

// ---- opening --------------------------------------------------------------------------

static int read_trace(struct kv_atlas *a, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(a->trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    struct kv_format *f;
    struct kv_cell_table *table = NULL;
    size_t width = 0;
    int rc = kv_format_open(&f, a->options.format, &setting, e);
    if (rc) return rc;
    while (width < f->n_widths && f->width_bits[width] != a->options.bits) width++;
    if (width == f->n_widths)
        rc = kv_fail(e, KV_EUSAGE, "bits", "format %s does not offer %u bits", a->options.format,
                     a->options.bits);
    if (rc == 0) rc = kv_cell_table_open(&table, a->trace, f, KV_TABLE_ISO, a->options.jobs, e);
    if (rc == 0) add_up(a, table, f->n_widths, width);
    kv_cell_table_close(table);
    kv_format_close(f);
    return rc;
}

int kv_atlas_open(struct kv_atlas *a, const struct kv_trace *trace,
                  const struct kv_atlas_options *o, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(trace);
    *a =
        (struct kv_atlas){.trace = trace,
                          .options = *o,
                          .n_layers = in->shape.n_layers,
                          .n_heads = in->shape.n_kv_heads,
                          .n = {[KV_ATLAS_HEAD] = (size_t)in->shape.n_layers * in->shape.n_kv_heads,
                                [KV_ATLAS_POSITION] = N_BINS,
                                [KV_ATLAS_CLASS] = N_CLASSES,
                                [KV_ATLAS_DISTANCE] = N_BINS,
                                [KV_ATLAS_SEGMENT] = 2}};
    if (!(in->keep & KV_KEEP_SENS))
        return kv_fail(e, KV_EFAIL, in->path, "keeps no sensitivities; record with --keep kv,sens");
    int rc = kv_trace_check_features(in, KV_NEED(KV_RARITY_NATS), e);
    if (rc) return rc;
    for (int axis = 0; axis < KV_N_ATLAS_AXES; axis++)
        a->bin[axis] = kv_alloc(a->n[axis], sizeof *a->bin[axis]);
    rc = read_trace(a, e);
    if (rc) kv_atlas_close(a);
    return rc;
}

void kv_atlas_close(struct kv_atlas *a) {
    for (int axis = 0; axis < KV_N_ATLAS_AXES; axis++) free(a->bin[axis]);
    *a = (struct kv_atlas){0};
}

// ---- rows -----------------------------------------------------------------------------

static struct kv_atlas_row row_of(const struct kv_atlas *a, enum kv_atlas_axis axis, size_t i) {
    const struct kv_atlas_bin *b = &a->bin[axis][i];
    double heads = (double)a->n[KV_ATLAS_HEAD], cells = axis == KV_ATLAS_HEAD ? 1 : heads;
    double all = a->all.damage[0] + a->all.damage[1], own = b->damage[0] + b->damage[1];
    struct kv_atlas_row r = {.axis = kv_atlas_axes[axis],
                             .tokens = b->tokens,
                             .damage_pct = 100 * own / all,
                             .damage_a_token =
                                 own / b->tokens / (all / a->all.tokens) * (cells > 1 ? 1 : heads)};
    for (int side = 0; side < 2; side++) {
        r.sensitivity[side] = b->sensitivity[side] / (b->tokens * cells);
        r.damage[side] = b->damage[side] / a->scored;
    }
    kv_atlas_place(a, axis, i, r.place);
    return r;
}

struct kv_atlas_row *kv_atlas_rows(const struct kv_atlas *a, enum kv_atlas_axis axis, size_t *n) {
    size_t room = 0;
    for (int x = 0; x < KV_N_ATLAS_AXES; x++) room += a->n[x];
    struct kv_atlas_row *rows = kv_alloc(room, sizeof *rows);
    *n = 0;
    for (enum kv_atlas_axis x = KV_ATLAS_HEAD; x < KV_N_ATLAS_AXES; x++)
        for (size_t i = 0; (axis == KV_N_ATLAS_AXES || axis == x) && i < a->n[x]; i++)
            if (a->bin[x][i].tokens != 0) rows[(*n)++] = row_of(a, x, i);
    return rows;
}
