// SPDX-License-Identifier: Apache-2.0
// What might be done about a format's damage: specs of each remedy, what fisher replay expects them
// to leave, what they take, and the first of them run exactly.
#include <stdlib.h>

#include "analysis/studies/anatomy_inside.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/replay/answers.h"
#include "sim/replay/damage.h"
#include "sim/replay/ledger.h"

enum { MOST_LAYERS = 256 };

// A remedy as it is tried.
struct trial {
    struct kv_anatomy_remedy r;
    struct kv_replay_spec spec;
    double *place; // [n_layers][2][n_widths] nats a scored position, every cell at one width
};

struct work {
    struct kv_anatomy *a;
    const struct kv_item_range *items;
    enum kv_cell_table_kind kind;
    struct trial *trials;
    size_t n;
    double scored;
    double *kl; // of the exact run: [n][2] sum over items, nats and scored positions
};

// ---- one remedy -----------------------------------------------------------------------

static void add_places(struct work *w, const struct trial *t, const struct kv_cell_table *table,
                       size_t item) {
    size_t heads = w->a->n_heads, n_widths = t->spec.format->n_widths,
           cells = kv_cells(&t->spec.run.shape);
    const float *entry = kv_cell_table_item(table, item);
    uint32_t n = kv_trace_item(w->a->options.trace, item)->n_tokens;
    for (size_t row = 0; row < n; row++)
        for (size_t k = 0; k < n_widths; k++, entry += cells)
            for (size_t c = 0; c < cells; c++)
                t->place[(c / 2 / heads * 2 + c % 2) * n_widths + k] +=
                    (double)entry[c] / w->scored;
}

// Expected divergence and bits over the items.
static int forecast(struct work *w, struct trial *t, struct kv_error *e) {
    struct kv_anatomy *a = w->a;
    const struct kv_trace *trace = a->options.trace;
    const struct kv_trace_info *in = kv_trace_info(trace);
    const struct kv_replay r = {
        .trace = trace, .specs = &t->spec, .n_specs = 1, .seed = a->options.seed};
    struct kv_cell_table *table = NULL;
    const struct kv_format *f = t->spec.format;
    double nats = 0, bits = 0;
    int rc = kv_cell_table_open(&table, trace, f, w->kind, a->options.jobs, e);
    t->place = kv_alloc(2 * a->n_layers * f->n_widths, sizeof *t->place);
    for (size_t i = w->items->first; i < w->items->first + w->items->n && rc == 0; i++) {
        const struct kv_trace_item *it = kv_trace_item(trace, i);
        uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(&in->shape), 1);
        struct kv_ledger ledger;
        rc = kv_decide(&r, 0, i, cells, e);
        if (rc == 0) {
            nats +=
                kv_fisher_kl(trace, i, table, f->n_widths, cells, NULL) * kv_fisher_scored(in, it);
            kv_ledger_count(&t->spec, it, cells, &ledger);
            bits += ledger.allocated_bits;
            add_places(w, t, table, i);
        }
        free(cells);
    }
    t->r.kl_fisher = nats / w->scored;
    t->r.allocated_bits = bits / (double)w->items->n;
    kv_cell_table_close(table);
    return rc;
}

// Adds a remedy; one whose spec this model or format does not allow is left out. Takes the text.
static int add(struct work *w, const char *name, char *text, struct kv_error *e) {
    struct kv_anatomy *a = w->a;
    const struct kv_trace_info *in = kv_trace_info(a->options.trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    struct kv_error why = {0};
    struct trial t = {.r = {.name = name, .spec = text, .kl_exact = NAN, .exact_left_pct = NAN}};
    int rc = kv_replay_spec_open(&t.spec, text, &setting, a->options.seed, &why);
    if (rc) {
        free(text);
        if (kv_tolerate(rc, &why) && w->n > 0) return 0;
        if (e) *e = why;
        return rc;
    }
    t.r.rough = kv_adjoint_answers(in, &t.spec, kv_adjoint_mode(in),
                                   kv_adjoint_self(in) == KV_SELF_EXACT, NULL) != 0;
    rc = forecast(w, &t, e);
    w->trials = kv_grow(w->trials, w->n + 1, sizeof *w->trials);
    w->trials[w->n++] = t;
    return rc;
}

// ---- wider layers ---------------------------------------------------------------------

// Widths of layers' keys and values that lower the damage most within `bits` more a value: step by
// step the widening that saves most for what it takes (Dantzig 1957, for knapsacks).
static void widen(const struct kv_anatomy *a, const struct trial *t, double bits, uint8_t *width) {
    const struct kv_format *f = t->spec.format;
    size_t n = 2 * a->n_layers;
    for (;;) {
        double best = 0, paid = 0;
        size_t at = n;
        uint8_t to = 0;
        for (size_t p = 0; p < n; p++)
            for (uint8_t k = (uint8_t)(width[p] + 1); k < f->n_widths; k++) {
                const float *price = t->spec.run.cell_bits[p % 2];
                const double *damage = t->place + p * f->n_widths;
                double cost = ((double)price[k] - (double)price[width[p]]) / (double)n,
                       saved = damage[width[p]] - damage[k];
                if (cost <= bits && saved > best * cost)
                    best = saved / cost, paid = cost, at = p, to = k;
            }
        if (at == n) return;
        width[at] = to;
        bits -= paid;
    }
}

static char *widened_text(const struct kv_anatomy *a, const struct trial *t, const uint8_t *width,
                          const char *format) {
    struct kv_text text = {0};
    kv_text_addf(&text, "layerwise:");
    for (size_t side = 0; side < 2; side++) {
        size_t n = a->n_layers; // a list that repeats may be short
        while (n > 1 && width[2 * (n - 1) + side] == width[side]) n--;
        if (n > 1) n = a->n_layers;
        kv_text_addf(&text, "%s", side ? ",v=" : "k=");
        for (size_t l = 0; l < n; l++)
            kv_text_addf(&text, "%s%u", l ? "/" : "",
                         t->spec.format->width_bits[width[2 * l + side]]);
    }
    kv_text_addf(&text, "@%s", format);
    return kv_text_take(&text);
}

// Widens what a trial codes by one width, with what is left of the budget.
static int add_widened(struct work *w, size_t from, const char *name, const char *format,
                       struct kv_error *e) {
    struct kv_anatomy *a = w->a;
    const struct trial *t = &w->trials[from];
    uint8_t width[2 * MOST_LAYERS], first = 0;
    while (t->spec.format->width_bits[first] != a->options.bits) first++;
    memset(width, first, 2 * a->n_layers);
    double more = t->r.allocated_bits - w->trials[0].r.allocated_bits;
    widen(a, t, a->options.budget_bits - more, width);
    size_t wider = 0;
    for (size_t p = 0; p < 2 * a->n_layers; p++) wider += width[p] != first;
    return wider ? add(w, name, widened_text(a, t, width, format), e) : 0;
}

// ---- all remedies ---------------------------------------------------------------------

// "asym:group=32" with groups of 16; NULL where the text names no group that can be halved.
static char *smaller_groups(const char *format) {
    const char *at = strstr(format, "group=");
    char *end;
    long group = at ? strtol(at + strlen("group="), &end, 10) : 0;
    if (group < 2 || group % 2) return NULL;
    return kv_format_text("%.*s%ld%s", (int)(at - format) + 6, format, group / 2, end);
}

static int add_all(struct work *w, struct kv_error *e) {
    const struct kv_anatomy_options *o = &w->a->options;
    char *before = kv_format_text("center(%s):side=pre", o->format);
    char *groups = smaller_groups(o->format);
    int rc = add(w, "as it is", kv_format_text("static:bits=%u@%s", o->bits, o->format), e);
    if (rc == 0)
        rc = add(w, "keys less their mean before RoPE",
                 kv_format_text("static:bits=%u@%s", o->bits, before), e);
    size_t centred = w->n - 1; // 0: it cannot be
    if (rc == 0)
        rc = add(w, "keys less their mean after RoPE",
                 kv_format_text("static:bits=%u@center(%s)", o->bits, o->format), e);
    if (rc == 0) rc = add(w, "keys by channel", kv_format_text("static:bits=%u@kivi", o->bits), e);
    if (rc == 0)
        rc = add(w, "a rotation", kv_format_text("static:bits=%u@hadamard(%s)", o->bits, o->format),
                 e);
    if (rc == 0 && groups)
        rc = add(w, "smaller groups", kv_format_text("static:bits=%u@%s", o->bits, groups), e);
    if (rc == 0) rc = add_widened(w, 0, "wider layers", o->format, e);
    if (rc == 0 && centred)
        rc = add_widened(w, centred, "keys less their mean before RoPE, and wider layers", before,
                         e);
    free(before);
    free(groups);
    return rc;
}

// Of those within the budget, the first is the cheapest that is expected to do about as well as the
// best: to leave no more than twice what that leaves, or a twentieth.
static void put_first(struct work *w) {
    size_t first = 1;
    double limit = fmax(2 * w->trials[1].r.kl_fisher, 0.05 * w->trials[0].r.kl_fisher);
    for (size_t i = 2; i < w->n && w->trials[i].r.within; i++)
        if (w->trials[i].r.kl_fisher <= limit &&
            w->trials[i].r.more_bits < w->trials[first].r.more_bits)
            first = i;
    struct trial t = w->trials[first];
    memmove(w->trials + 2, w->trials + 1, (first - 1) * sizeof t);
    w->trials[1] = t;
}

static int by_promise(const void *x, const void *y) {
    const struct trial *a = x, *b = y;
    if (a->r.within != b->r.within) return a->r.within ? -1 : 1;
    return (a->r.kl_fisher > b->r.kl_fisher) - (a->r.kl_fisher < b->r.kl_fisher);
}

static void rank(struct work *w) {
    const struct kv_anatomy_remedy as_it_is = w->trials[0].r;
    for (size_t i = 0; i < w->n; i++) {
        struct kv_anatomy_remedy *r = &w->trials[i].r;
        r->more_bits = r->allocated_bits - as_it_is.allocated_bits;
        r->within = r->more_bits <= w->a->options.budget_bits + 1e-9;
        r->left_pct = 100 * r->kl_fisher / as_it_is.kl_fisher;
    }
    qsort(w->trials + 1, w->n - 1, sizeof *w->trials, by_promise);
    if (w->n > 1 && w->trials[1].r.within) put_first(w);
}

// ---- exactly --------------------------------------------------------------------------

static int take(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    struct work *w = self;
    double *at = w->kl + 2 * (spec * w->items->n + item - w->items->first);
    (void)e;
    at[0] = o->kl_nats * o->n_scored;
    at[1] = o->n_scored;
    return 0;
}

static int check(struct work *w, struct kv_error *e) {
    const struct kv_anatomy_options *o = &w->a->options;
    const struct kv_trace_info *in = kv_trace_info(o->trace);
    size_t n = o->check + 1 < w->n ? o->check + 1 : w->n;
    struct kv_replay_spec *specs = kv_alloc(n, sizeof *specs);
    for (size_t i = 0; i < n; i++) specs[i] = w->trials[i].spec;
    w->kl = kv_alloc(2 * n * w->items->n, sizeof *w->kl);
    const struct kv_replay r = {.trace = o->trace,
                                .model = o->model,
                                .specs = specs,
                                .n_specs = n,
                                .mode = kv_adjoint_mode(in),
                                .self_exact = kv_adjoint_self(in) == KV_SELF_EXACT,
                                .seed = o->seed,
                                .first_item = w->items->first,
                                .n_items = w->items->n,
                                .take = take,
                                .self = w};
    int rc = kv_replay_exact(&r, o->jobs, e);
    for (size_t i = 0; i < n && rc == 0; i++) {
        double nats = 0, scored = 0; // items in order, whatever order they came in
        for (size_t k = 0; k < w->items->n; k++) {
            nats += w->kl[2 * (i * w->items->n + k)];
            scored += w->kl[2 * (i * w->items->n + k) + 1];
        }
        w->trials[i].r.kl_exact = nats / scored;
        w->trials[i].r.exact_left_pct = 100 * nats / scored / w->trials[0].r.kl_exact;
    }
    free(specs);
    free(w->kl);
    return rc;
}

int kv_anatomy_try_remedies(struct kv_anatomy *a, const struct kv_item_range *items,
                            struct kv_error *e) {
    const struct kv_trace *trace = a->options.trace;
    struct work w = {
        .a = a, .items = items, .kind = kv_trace_channels(trace) ? KV_TABLE_CHANNEL : KV_TABLE_ISO};
    if (a->n_layers > MOST_LAYERS)
        return kv_fail(e, KV_EFAIL, "anatomy", "%zu layers: at most %d are taken", a->n_layers,
                       MOST_LAYERS);
    for (size_t i = items->first; i < items->first + items->n; i++)
        w.scored += kv_fisher_scored(kv_trace_info(trace), kv_trace_item(trace, i));
    int rc = add_all(&w, e);
    if (rc == 0) rank(&w);
    if (rc == 0 && a->options.check) rc = check(&w, e);
    a->remedies = kv_alloc(w.n + 1, sizeof *a->remedies);
    for (size_t i = 0; i < w.n; i++) {
        a->remedies[a->n_remedies++] = w.trials[i].r;
        kv_replay_spec_close(&w.trials[i].spec);
        free(w.trials[i].place);
    }
    free(w.trials);
    return rc;
}
