// SPDX-License-Identifier: Apache-2.0
// Asks policies about a recording again and adds up their decisions by token, layer and head.
#include "analysis/results/widths.h"

#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/replay/replay.h"

static int take_path(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                     struct kv_error *e) {
    char **path = self;
    (void)n, (void)names, (void)e;
    free(*path);
    *path = kv_strdup(v[0].kind == KV_SQL_TEXT ? v[0].text : "");
    return 0;
}

struct kv_trace *kv_widths_open(struct kv_store *s, const struct kv_summary *row,
                                const char *list) {
    const struct kv_sql_value id = {.kind = KV_SQL_INT, .n = row->trace};
    struct kv_trace *t = NULL;
    struct kv_error ignored;
    char *path = NULL, *word;
    if (kv_tolerate(kv_store_query(s, "SELECT path FROM trace WHERE id = ?", &id, 1, take_path,
                                   &path, &ignored),
                    &ignored)) {
        free(path);
        path = NULL;
    }
    char *all = kv_format_text("%s%s%s", list ? list : "", list ? "," : "", path ? path : ""),
         *rest = all;
    while (!t && (word = strsep(&rest, ","))) {
        if (!*word || kv_tolerate(kv_trace_open(&t, word, &ignored), &ignored)) {
            if (*word && list && (size_t)(word - all) < strlen(list)) // one that was asked for
                kv_say("warning: %s: %s", ignored.where, ignored.msg);
            t = NULL;
        } else if (strcmp(kv_trace_info(t)->digest, row->trace_digest) != 0) {
            kv_trace_close(t);
            t = NULL;
        }
    }
    free(all);
    free(path);
    return t;
}

// ---- one spec -------------------------------------------------------------------------

static double bits_of(const struct kv_run *run, uint8_t cell) {
    return cell == KV_EVICT ? 0 : cell == KV_FLOAT32 ? 32 : run->width_bits[cell];
}

// What a token is of its item's sequences, each a context and a choice: mean over choices of one
// part in the sequence's length. choice: 0 = of the context, c + 1 = of choice c.
static double share_of_token(const struct kv_trace_item *it, size_t choice) {
    double share = 0, n = it->n_choices;
    if (choice) return 1 / n / (it->n_context + it->first[choice] - it->first[choice - 1]);
    for (uint32_t c = 0; c < it->n_choices; c++)
        share += 1 / n / (it->n_context + it->first[c + 1] - it->first[c]);
    return it->n_choices ? share : 1.0 / it->n_context;
}

// Adds one item's decisions.
static void add_item(struct kv_widths *w, const struct kv_run *run, const struct kv_trace_item *it,
                     const uint8_t *cells, size_t *n_place, bool keep) {
    size_t heads = run->shape.n_kv_heads, n_cells = kv_cells(&run->shape), choice = 0;
    for (size_t row = 0; row < it->n_tokens; row++) {
        const uint8_t *at = cells + row * n_cells;
        double sum = 0;
        while (choice < it->n_choices && row >= it->first[choice]) choice++;
        size_t begin = choice ? it->first[choice - 1] : 0;
        size_t end = choice ? it->first[choice] : it->n_context;
        size_t pos = row - begin + (choice ? it->n_context : 0);
        size_t length = choice ? it->n_context + end - begin
                               : it->n_context + (it->n_tokens - it->n_context) /
                                                     (it->n_choices ? it->n_choices : 1);
        for (size_t c = 0; c < n_cells; c++) {
            double bits = bits_of(run, at[c]);
            sum += bits;
            w->head[c & 1][c / 2] += bits;
            w->by_token = w->by_token || at[c] != cells[c];
            w->by_side = w->by_side || at[c] != at[c ^ 1];
            w->by_head = w->by_head || at[c] != at[c / 2 / heads * heads * 2 + (c & 1)];
            w->by_layer = w->by_layer || at[c] != at[c % (2 * heads)];
        }
        sum /= (double)n_cells;
        size_t place = KV_N_PLACES * pos / length;
        if (place >= KV_N_PLACES) place = KV_N_PLACES - 1;
        w->place[place] += sum;
        n_place[place]++;
        w->share[(size_t)lround(sum)] += share_of_token(it, choice);
        if (keep) w->token[row] = (float)sum;
    }
    w->n_tokens += it->n_tokens;
    w->n_items++;
}

static void average(struct kv_widths *w, const struct kv_shape *shape, const size_t *n_place) {
    size_t heads = shape->n_kv_heads, layers = shape->n_layers;
    double n = (double)w->n_tokens;
    for (int side = 0; side < 2; side++)
        for (size_t i = 0; i < layers * heads; i++) {
            w->head[side][i] /= n;
            w->layer[side][i / heads] += w->head[side][i] / (double)heads;
            w->mean[side] += w->head[side][i] / (double)(heads * layers);
        }
    for (size_t p = 0; p < KV_N_PLACES; p++)
        w->place[p] = n_place[p] ? w->place[p] / (double)n_place[p] : NAN;
    for (size_t b = 0; b < sizeof w->share / sizeof *w->share; b++)
        w->share[b] /= (double)w->n_items;
}

// The items that a policy is asked about.
struct asked {
    size_t n_items, drawn; // drawn: index into items, of the one that is kept token by token
    size_t *items;
};

// The specs that could be opened.
struct asking {
    struct kv_replay job;
    struct kv_replay_spec *specs;
};

static int ask(const struct asking *a, size_t which, const struct asked *about, struct kv_widths *w,
               struct kv_error *e) {
    const struct kv_shape *shape = &kv_trace_info(a->job.trace)->shape;
    size_t n_place[KV_N_PLACES] = {0};
    int rc = 0;
    for (int side = 0; side < 2; side++) {
        w->layer[side] = kv_alloc(shape->n_layers, sizeof(double));
        w->head[side] = kv_alloc((size_t)shape->n_layers * shape->n_kv_heads, sizeof(double));
    }
    w->item = about->items[about->drawn];
    w->token = kv_alloc(kv_trace_item(a->job.trace, w->item)->n_tokens + 1, sizeof *w->token);
    for (size_t i = 0; i < about->n_items && rc == 0; i++) {
        const struct kv_trace_item *it = kv_trace_item(a->job.trace, about->items[i]);
        uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(shape), 1);
        rc = kv_decide(&a->job, which, about->items[i], cells, e);
        if (rc == 0) add_item(w, &a->specs[which].run, it, cells, n_place, i == about->drawn);
        free(cells);
    }
    if (rc == 0) average(w, shape, n_place);
    w->known = rc == 0;
    return rc;
}

// ---- all of them ----------------------------------------------------------------------

// Of the items asked about, the one of median length.
static size_t middle(const struct kv_trace *trace, const size_t *items, size_t n) {
    size_t best = 0;
    for (size_t i = 0; i < n; i++) {
        size_t shorter = 0, equal = 0, length = kv_trace_item(trace, items[i])->n_tokens;
        for (size_t k = 0; k < n; k++) {
            size_t other = kv_trace_item(trace, items[k])->n_tokens;
            shorter += other < length;
            equal += other == length;
        }
        if (shorter <= n / 2 && shorter + equal > n / 2) return i;
    }
    return best;
}

static void say_why(struct kv_widths *w, const struct kv_error *e) {
    snprintf(w->why, sizeof w->why, "%s%s%s", e->where, *e->where ? ": " : "", e->msg);
}

// Asks the specs named by of[n], which share their tables: those of the form that their runs went
// by.
static int ask_all(struct asking *a, const size_t *of, size_t n, const struct asked *about,
                   enum kv_form form, unsigned jobs, struct kv_widths *w, struct kv_error *e) {
    enum kv_cell_table_kind kind =
        (enum kv_cell_table_kind)(KV_TABLE_ISO + (form ? form - KV_FORM_ISO : 0));
    a->job.specs = a->specs;
    a->job.n_specs = n;
    int rc = kv_replay_open_tables(&a->job, kind, jobs, e);
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct kv_error why = {0};
        if (ask(a, i, &about[of[i]], &w[of[i]], &why)) say_why(&w[of[i]], &why);
    }
    kv_replay_close_tables(&a->job);
    return rc;
}

// At most `most` of the items that a row's results come from.
static void choose_items(struct asked *to, const struct kv_trace *trace, const struct kv_row *row,
                         size_t most) {
    size_t n_trace = kv_trace_info(trace)->n_items, n = 0;
    size_t *held = kv_alloc(n_trace + 1, sizeof *held);
    for (size_t i = 0; i < n_trace && i < row->s.n_trace_items; i++)
        if (!isnan(row->item_kl[i])) held[n++] = i;
    to->n_items = n < most ? n : most;
    to->items = kv_alloc(to->n_items + 1, sizeof *to->items);
    for (size_t i = 0; i < to->n_items; i++) to->items[i] = held[i * n / to->n_items];
    free(held);
    to->drawn = middle(trace, to->items, to->n_items);
}

// Asks specs [from, to). Where one of them lacks what it reads, each answers for itself.
static void ask_together(struct asking *a, struct kv_replay_spec *opened, const size_t *of,
                         size_t from, size_t to, const struct asked *about, enum kv_form form,
                         unsigned jobs, struct kv_widths *w) {
    struct kv_error e = {0};
    a->specs = opened + from;
    if (from == to || ask_all(a, of + from, to - from, about, form, jobs, w, &e) == 0) return;
    for (size_t i = from; i < to; i++) {
        a->specs = &opened[i];
        if (ask_all(a, &of[i], 1, about, form, jobs, w, &e)) say_why(&w[of[i]], &e);
    }
}

void kv_widths_read(const struct kv_trace *trace, const struct kv_row *const *rows, size_t n,
                    size_t most_items, unsigned jobs, struct kv_widths *w) {
    const struct kv_trace_info *in = kv_trace_info(trace);
    const struct kv_format_setting setting = kv_trace_setting(in);
    struct asking a = {.job = {.trace = trace}};
    struct kv_replay_spec *opened = kv_alloc(n + 1, sizeof *opened);
    size_t *of = kv_alloc(n + 1, sizeof *of), n_opened = 0;
    struct kv_error e = {0};
    struct asked *about = kv_alloc(n + 1, sizeof *about);
    for (size_t i = 0; i < n; i++) {
        w[i] = (struct kv_widths){0};
        choose_items(&about[i], trace, rows[i], most_items);
    }
    for (enum kv_form form = KV_FORM_NONE; form <= KV_FORM_CHANNEL; form++) {
        size_t from = n_opened;
        for (size_t i = 0; i < n; i++) {
            if (rows[i]->s.form != form) continue;
            if (about[i].n_items == 0)
                snprintf(w[i].why, sizeof w[i].why, "no item of its results is finite");
            else if (kv_replay_spec_open(&opened[n_opened], rows[i]->s.spec, &setting,
                                         rows[i]->s.seed, &e))
                say_why(&w[i], &e);
            else
                of[n_opened++] = i;
        }
        ask_together(&a, opened, of, from, n_opened, about, form, jobs, w);
    }
    for (size_t i = 0; i < n_opened; i++) kv_replay_spec_close(&opened[i]);
    free(opened);
    free(of);
    for (size_t i = 0; i < n; i++) free(about[i].items);
    free(about);
}

void kv_widths_free(struct kv_widths *w, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (int side = 0; side < 2; side++) {
            free(w[i].layer[side]);
            free(w[i].head[side]);
        }
        free(w[i].token);
    }
}

// ---- as text --------------------------------------------------------------------------

static char *sparkline(const struct kv_widths *w, size_t layers) {
    static const double most[] = {0.5, 2, 3, 4, 5, 6.5, 8, 15.9};
    static const char *const bars[] = {" ",      "\u2581", "\u2582", "\u2583", "\u2584",
                                       "\u2585", "\u2586", "\u2587", "\u2588"};
    struct kv_text t = {0};
    for (size_t l = 0; w->known && l < layers; l++) {
        double bits = (w->layer[0][l] + w->layer[1][l]) / 2;
        size_t k = 0;
        while (k < sizeof most / sizeof *most && bits > most[k]) k++;
        kv_text_addf(&t, "%s", bars[k]);
    }
    return kv_text_take(&t);
}

char **kv_widths_sparklines(const struct kv_trace *trace, const struct kv_row *rows, size_t n,
                            size_t most_items, unsigned jobs) {
    char **lines = kv_alloc(n + 1, sizeof *lines);
    const struct kv_row **asked = kv_alloc(n + 1, sizeof *asked);
    struct kv_widths *w = kv_alloc(n + 1, sizeof *w);
    for (size_t i = 0; i < n; i++) asked[i] = &rows[i];
    kv_widths_read(trace, asked, n, most_items, jobs, w);
    for (size_t i = 0; i < n; i++)
        lines[i] = sparkline(&w[i], kv_trace_info(trace)->shape.n_layers);
    kv_widths_free(w, n);
    free(w);
    free(asked);
    return lines;
}
