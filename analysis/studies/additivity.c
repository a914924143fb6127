// SPDX-License-Identifier: Apache-2.0
// Flips parts of the cache alone and together, runs them exactly and compares sums.
#include "analysis/studies/additivity.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/replay/fisher.h"

enum { POSITIONS = 6 }; // ranges of positions: as many as policy context can hold

const char *const kv_flip_units[] = {"layer", "keys", "values", "position", NULL};

struct work {
    struct kv_additivity *study;
    const struct kv_trace *trace;
    const struct kv_additivity_options *o;
    size_t first;
    struct kv_replay_spec *specs;       // of each flip
    double *exact, *predicted, *scored; // [n][n_items]
    bool exactly;
};

// ---- specs ----------------------------------------------------------------------------

static char *flip_text(const struct kv_flip *f, const char *format) {
    struct kv_text t = {0};
    if (f->unit == KV_FLIP_POSITION) { // widths between cuts at equal shares of the prompt
        kv_text_addf(&t, "context:unit=share,bits=");
        for (size_t i = 0; i < f->n_parts; i++)
            kv_text_addf(&t, "%s%u", i ? "/" : "", f->part[i] ? f->bits : 16);
        kv_text_addf(&t, ",cuts=");
        for (size_t i = 1; i < f->n_parts; i++) // the last part: the choices
            kv_text_addf(&t, "%s%g", i > 1 ? "/" : "", (double)i / (double)(f->n_parts - 1));
    } else {
        kv_text_addf(&t, "layerwise:");
        for (int side = 0; side < 2; side++) {
            bool own = f->unit == KV_FLIP_LAYER || (f->unit == KV_FLIP_KEYS) == (side == 0);
            kv_text_addf(&t, "%s=", side ? ",v" : "k");
            for (size_t i = 0; i < f->n_parts; i++)
                kv_text_addf(&t, "%s%u", i ? "/" : "", own && f->part[i] ? f->bits : 16);
        }
    }
    kv_text_addf(&t, "@%s", format);
    return kv_text_take(&t);
}

static int add_flip(struct work *w, struct kv_flip f, struct kv_error *e) {
    struct kv_additivity *a = w->study;
    const struct kv_trace_info *in = kv_trace_info(w->trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    struct kv_replay_spec spec;
    char *text = flip_text(&f, a->format);
    int rc = kv_replay_spec_open(&spec, text, &setting, w->o->seed, e);
    free(text);
    if (rc) return rc;
    a->at = kv_grow(a->at, a->n + 1, sizeof *a->at);
    w->specs = kv_grow(w->specs, a->n + 1, sizeof *w->specs);
    w->specs[a->n] = spec;
    a->at[a->n++] = f;
    return 0;
}

// Flips f->n_flipped parts of a set that the seed draws.
static void draw_parts(struct kv_flip *f, size_t set, uint64_t seed) {
    for (size_t k = 0, tried = 0; k < f->n_flipped; tried++) {
        size_t part = (size_t)(kv_draw(seed, 1000 * f->unit + f->bits,
                                       64 * (8 * set + f->n_flipped) + tried) *
                               (double)f->n_parts);
        k += !f->part[part];
        f->part[part] = true;
    }
}

// Every single part, then random sets of each size that doubles, and all parts.
static int add_unit(struct work *w, enum kv_flip_unit unit, unsigned bits, struct kv_error *e) {
    size_t n = unit == KV_FLIP_POSITION ? POSITIONS : kv_trace_info(w->trace)->shape.n_layers;
    int rc = 0;
    if (n > KV_FLIP_MAX_PARTS)
        return kv_fail(e, KV_EFAIL, "additivity", "%zu layers: at most %d are taken", n,
                       KV_FLIP_MAX_PARTS);
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct kv_flip f = {.unit = unit, .bits = bits, .n_flipped = 1, .n_parts = n};
        f.part[i] = true;
        rc = add_flip(w, f, e);
    }
    for (size_t size = 2; rc == 0; size = 2 * size < n ? 2 * size : n) {
        for (size_t set = 0; set < (size == n ? 1 : w->o->sets) && rc == 0; set++) {
            struct kv_flip f = {.unit = unit, .bits = bits, .n_flipped = size, .n_parts = n};
            draw_parts(&f, set, w->o->seed);
            rc = add_flip(w, f, e);
        }
        if (size == n) break;
    }
    return rc;
}

// ---- running --------------------------------------------------------------------------

static int take(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    struct work *w = self;
    size_t at = spec * w->study->n_items + item - w->first;
    (void)e;
    (w->exactly ? w->exact : w->predicted)[at] = o->kl_nats * o->n_scored;
    w->scored[at] = o->n_scored;
    return 0;
}

// Exact divergence of a flip's parts, each flipped alone, added up.
static double sum_of_singles(const struct kv_additivity *a, const struct kv_flip *f) {
    double sum = 0;
    for (size_t i = 0; i < a->n; i++) {
        const struct kv_flip *one = &a->at[i];
        if (one->n_flipped != 1 || one->unit != f->unit || one->bits != f->bits) continue;
        for (size_t p = 0; p < f->n_parts; p++)
            if (one->part[p] && f->part[p]) sum += one->exact;
    }
    return sum;
}

static int replay(struct work *w, const struct kv_model *m, struct kv_error *e) {
    struct kv_additivity *a = w->study;
    size_t pairs = a->n * a->n_items;
    w->exact = kv_alloc(3 * pairs, sizeof(double));
    w->predicted = w->exact + pairs;
    w->scored = w->predicted + pairs;
    struct kv_replay job = {.trace = w->trace,
                            .model = m,
                            .specs = w->specs,
                            .n_specs = a->n,
                            .seed = w->o->seed,
                            .first_item = w->first,
                            .n_items = a->n_items,
                            .take = take,
                            .self = w};
    int rc = kv_replay_fisher(&job, kv_cell_table_best(w->trace), w->o->jobs, e);
    w->exactly = true;
    if (rc == 0) rc = kv_replay_exact(&job, w->o->jobs, e);
    for (size_t i = 0; i < pairs && rc == 0; i++) { // items in order, whatever order they came in
        struct kv_flip *f = &a->at[i / a->n_items];
        f->exact += w->exact[i];
        f->predicted += w->predicted[i];
        f->scored += w->scored[i];
    }
    for (size_t i = 0; i < a->n; i++) a->at[i].singles = sum_of_singles(a, &a->at[i]);
    free(w->exact);
    return rc;
}

int kv_additivity_run(struct kv_additivity *a, const struct kv_trace *trace,
                      const struct kv_model *model, const struct kv_additivity_options *o,
                      struct kv_error *e) {
    size_t n_items = kv_trace_info(trace)->n_items;
    struct work w = {.study = a, .trace = trace, .o = o, .first = o->items.n ? o->items.first : 0};
    *a = (struct kv_additivity){0};
    int rc = kv_item_range_check(&o->items, n_items, "items", e);
    if (rc) return rc;
    a->n_items = o->items.n ? o->items.n : n_items;
    a->format = kv_strdup(o->format);
    for (size_t u = 0; u < o->n_units && rc == 0; u++)
        for (size_t b = 0; b < o->n_bits && rc == 0; b++)
            rc = add_unit(&w, o->units[u], o->bits[b], e);
    if (rc == 0) rc = replay(&w, model, e);
    for (size_t i = 0; i < a->n; i++) kv_replay_spec_close(&w.specs[i]);
    free(w.specs);
    if (rc) kv_additivity_fini(a);
    return rc;
}

void kv_additivity_fini(struct kv_additivity *a) {
    free(a->format);
    free(a->at);
    *a = (struct kv_additivity){0};
}

// ---- rows -----------------------------------------------------------------------------

static bool alike(const struct kv_flip *a, const struct kv_flip *b) {
    return a->unit == b->unit && a->bits == b->bits && a->n_flipped == b->n_flipped;
}

// NAN, which is printed as a blank, where the whole is nothing.
static double share(double part, double whole) {
    return whole > 0 ? part / whole : NAN;
}

// The row of the flips from *i on that are alike; *i moves behind them.
static struct kv_flip_row row_of(const struct kv_additivity *a, size_t *i) {
    const struct kv_flip *f = &a->at[*i];
    struct kv_flip_row r = {.unit = f->unit,
                            .bits = f->bits,
                            .n_flipped = f->n_flipped,
                            .n_parts = f->n_parts,
                            .ratio_low = NAN,
                            .ratio_high = NAN};
    for (; *i < a->n && alike(&a->at[*i], f); (*i)++, r.n_sets++) {
        const struct kv_flip *x = &a->at[*i];
        r.exact += x->exact / x->scored;
        r.singles += x->singles / x->scored;
        r.predicted += x->predicted / x->scored;
        r.ratio_low = fmin(r.ratio_low, share(x->exact, x->singles));
        r.ratio_high = fmax(r.ratio_high, share(x->exact, x->singles));
    }
    r.exact_to_sum = share(r.exact, r.singles);
    r.predicted_to_exact = share(r.predicted, r.exact);
    r.exact /= (double)r.n_sets;
    r.singles /= (double)r.n_sets;
    r.predicted /= (double)r.n_sets;
    return r;
}

struct kv_flip_row *kv_flip_rows(const struct kv_additivity *a, size_t *n) {
    struct kv_flip_row *rows = kv_alloc(a->n + 1, sizeof *rows);
    *n = 0;
    for (size_t i = 0; i < a->n;) rows[(*n)++] = row_of(a, &i);
    return rows;
}
