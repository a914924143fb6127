// SPDX-License-Identifier: Apache-2.0
// Readers of the store: summaries of runs, results by item and by choice.
#include "sim/store/store.h"
#include "sim/base/cache_types.h"

#include <jansson.h>
#include <stdlib.h>

#include "sim/base/args.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/shape.h"
#include "sim/replay/spec.h"
#include "sim/store/sound.h"

// A list that a query's rows are appended to.
struct list {
    void *rows;
    size_t n, room, size;
    const char *store; // its file, for messages
};

static void *append(struct list *l) {
    if (l->n == l->room) {
        l->room = l->room ? 2 * l->room : 256;
        l->rows = kv_grow(l->rows, l->room, l->size);
    }
    char *row = (char *)l->rows + l->n++ * l->size;
    memset(row, 0, l->size);
    return row;
}

static char *text_of(const struct kv_sql_value *v) {
    return kv_strdup(v->text ? v->text : "");
}

// ---- summaries ------------------------------------------------------------------------

#define FIELD(f) offsetof(struct kv_summary, f)
static const struct column {
    const char *name;
    enum { C_TEXT, C_REAL, C_SIZE, C_ID } kind;
    size_t offset;
} columns[] = {
    {"family", C_ID, FIELD(run_group)},
    {"trace", C_ID, FIELD(trace)},
    {"label", C_TEXT, FIELD(label)},
    {"short_label", C_TEXT, FIELD(short_label)},
    {"spec", C_TEXT, FIELD(spec)},
    {"policy", C_TEXT, FIELD(policy)},
    {"format", C_TEXT, FIELD(format)},
    {"tag", C_TEXT, FIELD(tag)},
    {"compute", C_TEXT, FIELD(compute)},
    {"task", C_TEXT, FIELD(task)},
    {"task_prompt", C_TEXT, FIELD(prompt)},
    {"subset", C_TEXT, FIELD(subset)},
    {"model_name", C_TEXT, FIELD(model)},
    {"trace_digest", C_TEXT, FIELD(trace_digest)},
    {"version", C_TEXT, FIELD(version)},
    {"git_commit", C_TEXT, FIELD(commit)},
    {"cpu", C_TEXT, FIELD(cpu)},
    {"redraws", C_SIZE, FIELD(n_redraws)},
    {"n", C_SIZE, FIELD(n_items)},
    {"n_trace", C_SIZE, FIELD(n_trace_items)},
    {"n_judged", C_SIZE, FIELD(n_judged)},
    {"chance", C_REAL, FIELD(chance)},
    {"acc", C_REAL, FIELD(acc[KV_ACC])},
    {"acc_norm", C_REAL, FIELD(acc[KV_ACC_NORM])},
    {"acc_bytes", C_REAL, FIELD(acc[KV_ACC_BYTES])},
    {"acc_token", C_REAL, FIELD(acc[KV_ACC_TOKEN])},
    {"ref_acc", C_REAL, FIELD(acc_ref[KV_ACC])},
    {"ref_acc_norm", C_REAL, FIELD(acc_ref[KV_ACC_NORM])},
    {"ref_acc_bytes", C_REAL, FIELD(acc_ref[KV_ACC_BYTES])},
    {"ref_acc_token", C_REAL, FIELD(acc_ref[KV_ACC_TOKEN])},
    {"agree", C_REAL, FIELD(agree)},
    {"margin", C_REAL, FIELD(margin)},
    {"kl_nats", C_REAL, FIELD(kl_nats)},
    {"nominal_bits", C_REAL, FIELD(nominal_bits)},
    {"effective_bits", C_REAL, FIELD(effective_bits)},
    {"allocated_bits", C_REAL, FIELD(allocated_bits)},
    {"entropy_bits", C_REAL, FIELD(entropy_bits)},
    {"bytes_per_token", C_REAL, FIELD(bytes_per_token)},
    {"context_tokens", C_REAL, FIELD(context_tokens)},
};

static const struct {
    const char *column, *const *names;
    size_t offset; // of an enum
} settings[] = {{"fidelity", kv_fidelity_names, FIELD(fidelity)},
                {"mode", kv_mode_names, FIELD(mode)},
                {"self", kv_self_names, FIELD(self)}};

// Columns that name a setting; others are left alone.
static int take_setting(struct kv_summary *s, const char *column, const char *text,
                        const char *store, struct kv_error *e) {
    bool known = true;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        if (strcmp(column, settings[i].column) != 0) continue;
        int at = kv_index_of(text, settings[i].names);
        memcpy((char *)s + settings[i].offset, &at, sizeof at);
        known = at >= 0;
    }
    if (strcmp(column, "variant") == 0) known = kv_variant_read(text, &s->form, &s->feedback);
    return known ? 0
                 : kv_fail(e, KV_EFAIL, store,
                           "holds a run of %s '%s', which this kvsim does not know", column, text);
}

static int take_summary(void *self, size_t n, const char *const *names,
                        const struct kv_sql_value *values, struct kv_error *e) {
    struct list *l = self;
    char *row = append(self);
    struct kv_summary *s = (struct kv_summary *)(void *)row;
    for (size_t i = 0; i < n; i++) {
        const struct kv_sql_value *v = &values[i];
        if (strcmp(names[i], "oracle") == 0) s->oracle = v->n != 0;
        if (strcmp(names[i], "seed") == 0) s->seed = (uint64_t)v->n;
        for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
            char *at = row + columns[c].offset;
            if (strcmp(names[i], columns[c].name) != 0) continue;
            if (columns[c].kind == C_TEXT) memcpy(at, &(char *){text_of(v)}, sizeof(char *));
            if (columns[c].kind == C_REAL && isinf(v->x)) // a sum of finite ones that overflowed
                return kv_fail(e, KV_EFAIL, l->store, "the mean %s of a run is not finite",
                               names[i]);
            if (columns[c].kind == C_REAL) memcpy(at, &v->x, sizeof v->x);
            if (columns[c].kind == C_SIZE) memcpy(at, &(size_t){(size_t)v->n}, sizeof(size_t));
            if (columns[c].kind == C_ID) memcpy(at, &v->n, sizeof v->n);
            break;
        }
        int code = take_setting(s, names[i], v->text ? v->text : "", l->store, e);
        if (code) return code;
    }
    kv_spec_take_apart(&s->parts, s->spec);
    s->ledger = (struct kv_ledger){.nominal_bits = s->nominal_bits,
                                   .effective_bits = s->effective_bits,
                                   .allocated_bits = s->allocated_bits,
                                   .bytes_per_token = s->bytes_per_token,
                                   .entropy_bits = s->entropy_bits};
    kv_ledger_name_types(&s->ledger, s->parts.format_text);
    kv_ledger_name_grain(&s->ledger, &s->parts);
    return 0;
}
_Static_assert(sizeof(enum kv_mode) == sizeof(int), "an enum is stored as an int");

static int take_share(void *self, size_t n, const char *const *names,
                      const struct kv_sql_value *values, struct kv_error *e) {
    struct list *l = self;
    struct kv_summary *rows = l->rows;
    (void)n, (void)names, (void)e;
    for (size_t i = 0; i < l->n; i++)
        if (rows[i].run_group == values[0].n && values[1].n >= 0 && values[1].n < 2 &&
            values[2].n >= 0 && values[2].n < KV_WIDTH_BINS)
            rows[i].ledger.share[values[1].n][values[2].n] = values[3].x;
    return 0;
}

void kv_summary_fini(struct kv_summary *s) {
    kv_spec_parts_fini(&s->parts);
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++)
        if (columns[c].kind == C_TEXT) {
            char *text;
            memcpy(&text, (char *)s + columns[c].offset, sizeof text);
            free(text);
        }
}

bool kv_same_setting(const struct kv_summary *a, const struct kv_summary *b) {
    return a->fidelity == b->fidelity && a->mode == b->mode && a->self == b->self &&
           a->form == b->form && a->feedback == b->feedback && strcmp(a->compute, b->compute) == 0;
}

static bool same_but_build(const struct kv_summary *a, const struct kv_summary *b) {
    return a->trace == b->trace && a->seed == b->seed && strcmp(a->spec, b->spec) == 0 &&
           kv_same_setting(a, b);
}

static bool wanted(const struct list *l, size_t i, const struct kv_store_filter *f) {
    const struct kv_summary *rows = l->rows, *r = &rows[i];
    if (f->spec && strcmp(r->spec, f->spec) != 0) return false;
    if (f->fidelities && !(f->fidelities >> r->fidelity & 1)) return false;
    for (size_t j = 0; j < l->n && !f->all_builds; j++)
        if (j != i && same_but_build(r, &rows[j]) &&
            (rows[j].n_items > r->n_items ||
             (rows[j].n_items == r->n_items && rows[j].run_group > r->run_group)))
            return false;
    return true;
}

int kv_store_summaries(struct kv_store *s, const struct kv_store_filter *filter,
                       struct kv_summary **rows, size_t *n, struct kv_error *e) {
    *rows = NULL;
    *n = 0;
    KV_GUARD(e);
    const struct kv_store_filter all_rows = {0};
    struct list l = {.size = sizeof **rows, .store = kv_store_path(s)};
    int code = kv_store_check_numbers(s, KV_STORE_ITEMS, e);
    if (code) return code;
    // The samples have the form of a benchmark and are none: they go by their own name.
    code = kv_store_query(
        s,
        "SELECT s.*, CASE t.task_path WHEN 'samples' THEN 'samples' ELSE s.task_name END AS task "
        "FROM summary AS s JOIN trace AS t ON t.id = s.trace ORDER BY s.trace, s.spec, s.family",
        NULL, 0, take_summary, &l, e);
    if (!code)
        code = kv_store_query(s, "SELECT family, side, bits, share FROM share", NULL, 0, take_share,
                              &l, e);
    bool *keep = kv_alloc(l.n + 1, sizeof *keep);
    struct kv_summary *all = l.rows;
    for (size_t i = 0; i < l.n; i++) keep[i] = !code && wanted(&l, i, filter ? filter : &all_rows);
    for (size_t i = 0; i < l.n; i++)
        if (keep[i])
            all[(*n)++] = all[i];
        else
            kv_summary_fini(&all[i]);
    free(keep);
    if (*n)
        *rows = all;
    else
        free(all);
    return code;
}

void kv_summaries_free(struct kv_summary *rows, size_t n) {
    for (size_t i = 0; i < n; i++) kv_summary_fini(&rows[i]);
    free(rows);
}

// ---- rows of one run group ------------------------------------------------------------

// Appends what `sql`, whose one parameter is the group, brings. After an error the caller lets go
// of what was read so far.
static int read_group(struct kv_store *s, long long run_group, const char *sql,
                      int (*take)(void *, size_t, const char *const *, const struct kv_sql_value *,
                                  struct kv_error *),
                      struct list *l, struct kv_error *e) {
    KV_GUARD(e);
    const struct kv_sql_value group = kv_sql_int(run_group);
    l->store = kv_store_path(s);
    return kv_store_query(s, sql, &group, 1, take, l, e);
}

// ---- items ----------------------------------------------------------------------------

static int take_item(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                     struct kv_error *e) {
    struct kv_item_result *r = append(self);
    (void)n, (void)names, (void)e;
    r->item = (uint32_t)v[0].n;
    r->id = text_of(&v[1]);
    r->source = text_of(&v[2]);
    r->gold = (int32_t)v[3].n;
    r->context_key = v[4].text ? strtoull(v[4].text, NULL, 16) : 0;
    for (int i = 0; i < KV_N_SCORERS; i++) {
        r->right[i] = v[5 + i].x;
        r->right_ref[i] = v[5 + KV_N_SCORERS + i].x;
    }
    r->agree = v[13].x;
    r->margin = v[14].x;
    r->kl_nats = v[15].x;
    r->n_scored = v[16].x;
    r->effective_bits = v[17].x;
    r->chance = v[18].x;
    return 0;
}

int kv_store_items(struct kv_store *s, long long run_group, struct kv_item_result **rows, size_t *n,
                   struct kv_error *e) {
    KV_GUARD(e);
    struct list l = {.size = sizeof **rows};
    int code = read_group(
        s, run_group,
        "SELECT item, id, source, gold, context_key, right_acc, right_acc_norm, right_acc_bytes, "
        "right_acc_token, ref_acc, ref_acc_norm, ref_acc_bytes, ref_acc_token, agree, margin, "
        "kl_nats, n_scored, effective_bits, chance FROM item_result WHERE family = ? ORDER BY item",
        take_item, &l, e);
    if (code) kv_item_results_free(l.rows, l.n);
    *rows = code ? NULL : l.rows;
    *n = code ? 0 : l.n;
    return code;
}

void kv_item_results_free(struct kv_item_result *rows, size_t n) {
    for (size_t i = 0; i < n; i++) {
        free(rows[i].id);
        free(rows[i].source);
    }
    free(rows);
}

// ---- redraws --------------------------------------------------------------------------

static int take_redraw(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                       struct kv_error *e) {
    struct kv_redraw_result *r = append(self);
    (void)n, (void)names, (void)e;
    r->item = (uint32_t)v[0].n;
    r->redraw = (uint32_t)v[1].n;
    r->kl_nats = v[2].x;
    for (int i = 0; i < KV_N_SCORERS; i++) {
        r->right[i] = v[3 + i].x;
        r->right_ref[i] = v[3 + KV_N_SCORERS + i].x;
    }
    return 0;
}

int kv_store_redraws(struct kv_store *s, long long run_group, struct kv_redraw_result **rows,
                     size_t *n, struct kv_error *e) {
    KV_GUARD(e);
    // Where there is no gold choice nothing equals it: NULLIF makes that unknown.
    struct list l = {.size = sizeof **rows};
    int code = read_group(
        s, run_group,
        "SELECT o.item, r.redraw, o.kl_nats, o.pick_acc = NULLIF(i.gold, -1), "
        "o.pick_acc_norm = NULLIF(i.gold, -1), o.pick_acc_bytes = NULLIF(i.gold, -1), "
        "o.pick_acc_token = NULLIF(i.gold, -1), o.pick_ref_acc = NULLIF(i.gold, -1), "
        "o.pick_ref_acc_norm = NULLIF(i.gold, -1), o.pick_ref_acc_bytes = NULLIF(i.gold, -1), "
        "o.pick_ref_acc_token = NULLIF(i.gold, -1) "
        "FROM family AS f JOIN run AS r ON r.id = f.run JOIN outcome_item AS o ON o.run = f.run "
        "JOIN item AS i ON i.trace = r.trace AND i.item = o.item "
        "WHERE f.family = ? ORDER BY o.item, r.redraw",
        take_redraw, &l, e);
    if (code) free(l.rows);
    *rows = code ? NULL : l.rows;
    *n = code ? 0 : l.n;
    return code;
}

// ---- choices --------------------------------------------------------------------------

static enum kv_exact_match greedy_of(const struct kv_sql_value *v) {
    return v->kind == KV_SQL_NULL ? KV_MATCH_UNKNOWN : v->n ? KV_MATCH_YES : KV_MATCH_NO;
}

static int take_choice(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                       struct kv_error *e) {
    struct list *l = self;
    struct kv_choice_result *r = append(l);
    for (size_t i = 0; i < n; i++)
        if (isinf(v[i].x))
            return kv_fail(e, KV_EFAIL, l->store, "%s of choice %lld of item %lld is not finite",
                           names[i], v[2].n, v[0].n);
    r->item = (uint32_t)v[0].n;
    r->redraw = (uint32_t)v[1].n;
    r->choice = (uint32_t)v[2].n;
    r->id = text_of(&v[3]);
    r->gold = (int32_t)v[4].n;
    r->outcome = (struct kv_choice_outcome){.logprob = v[5].x,
                                            .logprob_ref = v[6].x,
                                            .kl_nats = v[7].x,
                                            .tokens = (uint32_t)v[8].n,
                                            .chars = (uint32_t)v[9].n,
                                            .bytes = (uint32_t)v[10].n,
                                            .logprob_after_prefix = v[11].x,
                                            .tokens_after_prefix = (uint32_t)v[12].n,
                                            .match = greedy_of(&v[13]),
                                            .match_ref = greedy_of(&v[14])};
    return 0;
}

int kv_store_choices(struct kv_store *s, long long run_group, struct kv_choice_result **rows,
                     size_t *n, struct kv_error *e) {
    KV_GUARD(e);
    struct list l = {.size = sizeof **rows};
    int code = read_group(
        s, run_group,
        "SELECT o.item, r.redraw, o.choice, i.id, i.gold, o.logprob, o.logprob_ref, o.kl_nats, "
        "o.tokens, o.chars, o.bytes, o.logprob_after_prefix, o.tokens_after_prefix, o.greedy, "
        "o.greedy_ref "
        "FROM family AS f JOIN run AS r ON r.id = f.run JOIN outcome_choice AS o ON o.run = f.run "
        "JOIN item AS i ON i.trace = r.trace AND i.item = o.item "
        "WHERE f.family = ? ORDER BY o.item, r.redraw, o.choice",
        take_choice, &l, e);
    if (code) kv_choice_results_free(l.rows, l.n);
    *rows = code ? NULL : l.rows;
    *n = code ? 0 : l.n;
    return code;
}

void kv_choice_results_free(struct kv_choice_result *rows, size_t n) {
    for (size_t i = 0; i < n; i++) free(rows[i].id);
    free(rows);
}

// ---- what specs were made for -----------------------------------------------------------

struct shapes {
    struct kv_store_setting *rows;
    size_t n;
};

static int take_shape(void *self, size_t n, const char *const *names,
                      const struct kv_sql_value *values, struct kv_error *e) {
    struct shapes *all = self;
    (void)n, (void)names;
    json_t *j = json_loads(values[1].text ? values[1].text : "", 0, NULL);
    if (!j) return kv_fail(e, KV_EFAIL, "store", "trace %lld has no readable shape", values[0].n);
    struct kv_store_setting x = {.trace = values[0].n};
    for (size_t i = 0; i < KV_N_SHAPE_FIELDS; i++)
        kv_shape_set(&x.setting.shape, i,
                     (uint32_t)json_integer_value(json_object_get(j, kv_shape_fields[i].name)));
    const char *order = json_string_value(json_object_get(j, "order"));
    x.setting.order = order && strcmp(order, "hf") == 0 ? KV_ORDER_HF : KV_ORDER_GGML;
    json_decref(j);
    all->rows = kv_grow(all->rows, all->n + 1, sizeof *all->rows);
    all->rows[all->n++] = x;
    return 0;
}

int kv_store_settings(struct kv_store *s, struct kv_store_setting **found, size_t *n,
                      struct kv_error *e) {
    *found = NULL;
    *n = 0;
    KV_GUARD(e);
    struct shapes all = {0};
    int code =
        kv_store_query(s, "SELECT id, shape FROM trace ORDER BY id", NULL, 0, take_shape, &all, e);
    if (code) free(all.rows);
    *found = code ? NULL : all.rows;
    *n = code ? 0 : all.n;
    return code;
}
