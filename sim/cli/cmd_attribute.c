// SPDX-License-Identifier: Apache-2.0
// kvsim attribute: what explains the results of a sweep, factor by factor.
#include <fnmatch.h>
#include <stdlib.h>

#include "analysis/results/attribution.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "sim/cli/row_options.h"

static const struct kv_option options[] = {
    {"db", 0, "FILE", "kvsim.db", "the store"},
    {"digest", 0, "DIGEST", NULL, "which trace, where the store holds several (as show prints it)"},
    {"only", 0, "PATTERN", NULL, "only specs like this, with * for anything: 'static:*'"},
    {"mode", 0, "NAME", NULL, "only runs of this mode"},
    {"self", 0, "HOW", NULL, "only runs of this own step: coded, exact"},
    {"least", 0, "N", "1",
     "only runs of at least so many items: effects are of items that all hold"},
    {"top", 0, "N", "12", "so many interactions, the largest first; 0 = all"},
    {"draws", 0, "N", "1000", "bootstrap draws over items"},
    {0}};

// One effect with all others of its attribution.
struct line {
    const struct kv_attribution *t;
    const struct kv_effect *x;
};

static bool is_pair(const struct line *l) {
    return l->x->b < KV_MAX_FACTORS;
}
// The share of a whole factor stands in the line of its first level.
static double percent(const struct line *l, double share) {
    return is_pair(l) || l->x->level_a == 0 ? 100 * share : NAN;
}
// Without the interval where there is none, empty where nothing is known.
static char *points_text(const struct kv_effect_size *x) {
    return isnan(x->estimate) ? NULL
           : isnan(x->low)    ? kv_format_text("%+.1f", x->estimate)
                              : kv_format_text("%+.1f [%+.1f %+.1f]", x->estimate, x->low, x->high);
}
static char *times_text(const struct kv_effect_size *x) {
    return isnan(x->estimate) ? NULL
           : isnan(x->low)
               ? kv_format_text("%.2f", exp(x->estimate))
               : kv_format_text("%.2f [%.2f %.2f]", exp(x->estimate), exp(x->low), exp(x->high));
}

#define CELL(name, add) KV_CELL(name, struct line, add)
#define TEXT(name, value) CELL(name, kv_table_text(t, value))
CELL(runs, kv_table_count(t, (long long)row->x->n_runs))
CELL(items, kv_table_count(t, (long long)row->t->n_items))
TEXT(factor, kv_attribution_factor(row->t, row->x->a))
TEXT(level, kv_attribution_level(row->t, row->x->a, row->x->level_a))
TEXT(factor_2, is_pair(row) ? kv_attribution_factor(row->t, row->x->b) : NULL)
TEXT(level_2, is_pair(row) ? kv_attribution_level(row->t, row->x->b, row->x->level_b) : NULL)
static void sizes(struct kv_table *t, const void *row) {
    const struct kv_effect *x = ((const struct line *)row)->x;
    const double cells[] = {x->acc.estimate,    x->acc.low,    x->acc.high,    x->acc_share,
                            x->log_kl.estimate, x->log_kl.low, x->log_kl.high, x->kl_share};
    for (size_t k = 0; k < sizeof cells / sizeof *cells; k++) kv_table_number(t, cells[k], 4);
}
static const struct kv_table_column columns[] = {
    {"factor", KV_LEFT, factor},   {"level", KV_LEFT, level},      {"factor_2", KV_LEFT, factor_2},
    {"level_2", KV_LEFT, level_2}, {"runs", KV_RIGHT, runs},       {"acc_points", KV_RIGHT, sizes},
    {"acc_low", KV_RIGHT, NULL},   {"acc_high", KV_RIGHT, NULL},   {"acc_share", KV_RIGHT, NULL},
    {"log_kl", KV_RIGHT, NULL},    {"log_kl_low", KV_RIGHT, NULL}, {"log_kl_high", KV_RIGHT, NULL},
    {"kl_share", KV_RIGHT, NULL},  {"n", KV_RIGHT, items},         {0}};

// ---- in text --------------------------------------------------------------------------

TEXT(factor_once, row->x->level_a == 0 ? kv_attribution_factor(row->t, row->x->a) : NULL)
CELL(acc, kv_table_take(t, points_text(&row->x->acc)))
CELL(acc_share, kv_table_number(t, percent(row, row->x->acc_share), 1))
CELL(kl, kv_table_take(t, times_text(&row->x->log_kl)))
CELL(kl_share, kv_table_number(t, percent(row, row->x->kl_share), 1))
CELL(together, kv_table_take(t, kv_format_text("%s x %s", kv_attribution_factor(row->t, row->x->a),
                                               kv_attribution_factor(row->t, row->x->b))))
CELL(most_at,
     kv_table_take(t, kv_format_text("%s, %s",
                                     kv_attribution_level(row->t, row->x->a, row->x->level_a),
                                     kv_attribution_level(row->t, row->x->b, row->x->level_b))))

static int print_main(const struct line *lines, size_t n, enum kv_output how, struct kv_error *e) {
    static const struct kv_table_column main_columns[] = {
        {"factor", KV_LEFT, factor_once}, {"level", KV_LEFT, level},
        {"runs", KV_RIGHT, runs},         {"acc, points [95 %]", KV_RIGHT, acc},
        {"share %", KV_RIGHT, acc_share}, {"KL, times [95 %]", KV_RIGHT, kl},
        {"share %", KV_RIGHT, kl_share},  {0}};
    size_t n_main = 0;
    while (n_main < n && !is_pair(&lines[n_main])) n_main++;
    return kv_table_print_rows(main_columns, lines, n_main, sizeof *lines, how, e);
}

static int print_pairs(const struct kv_attribution *t, size_t top, enum kv_output how,
                       struct kv_error *e) {
    static const struct kv_table_column pair_columns[] = {{"together", KV_LEFT, together},
                                                          {"most at", KV_LEFT, most_at},
                                                          {"acc, points [95 %]", KV_RIGHT, acc},
                                                          {"share %", KV_RIGHT, acc_share},
                                                          {"KL, times [95 %]", KV_RIGHT, kl},
                                                          {"share %", KV_RIGHT, kl_share},
                                                          {0}};
    const struct kv_effect **pairs = kv_alloc(t->n + 1, sizeof *pairs);
    size_t n = kv_attribution_pairs(t, pairs);
    struct kv_table *table = kv_table_begin(pair_columns);
    for (size_t i = 0; i < n && (top == 0 || i < top); i++) {
        const struct line line = {t, pairs[i]};
        kv_table_add_rows(table, pair_columns, &line, 1, sizeof line);
    }
    free(pairs);
    putchar('\n');
    kv_table_note(how, "beyond both apart, largest first:");
    return kv_table_print(table, how, e);
}

static int print(const struct kv_attribution *t, const struct kv_summary *s, size_t top,
                 enum kv_output how, struct kv_error *e) {
    struct line *lines = kv_alloc(t->n + 1, sizeof *lines);
    for (size_t i = 0; i < t->n; i++) lines[i] = (struct line){t, &t->effects[i]};
    int code = 0;
    if (!kv_for_readers(how)) {
        code = kv_table_print_rows(columns, lines, t->n, sizeof *lines, how, e);
        free(lines);
        return code;
    }
    kv_table_note(how, "%s, %s: %s; %zu runs on %zu items%s", s->task, s->subset, s->model,
                  t->factors.n_rows, t->n_items, t->n_left_out ? " that all runs hold" : "");
    kv_table_note(how, "acc: points of accuracy against 16 bit, a level against the mean of its "
                       "factor's levels; KL: the same as a factor");
    for (size_t k = 0; k < t->factors.n; k++)
        if (!kv_attribution_has(t, k))
            kv_table_note(how, "%s is left out: other factors determine it",
                          kv_attribution_factor(t, k));
    code = print_main(lines, t->n, how, e);
    free(lines);
    if (code) return code;
    kv_table_note(how,
                  "main effects together: %.0f %% of the variance of acc among runs and scorers, "
                  "%.0f %% of log KL's",
                  100 * t->acc_main, 100 * t->kl_main);
    return print_pairs(t, top, how, e);
}

// ---- choosing runs --------------------------------------------------------------------

struct choice {
    const char *only, *trace;
    unsigned modes, selves;
    size_t least;
};

static bool wanted(const struct choice *x, const struct kv_summary *s) {
    if (s->fidelity != KV_EXACT || s->oracle || !(s->nominal_bits < 16)) return false;
    if (s->n_items < x->least) return false;
    if (x->only && fnmatch(x->only, s->spec, 0) != 0 && fnmatch(x->only, s->label, 0) != 0)
        return false;
    if (x->modes && !(x->modes >> s->mode & 1)) return false;
    if (x->selves && !(x->selves >> s->self & 1)) return false;
    return !x->trace || strncmp(x->trace, s->trace_digest, strlen(x->trace)) == 0;
}

static int attribute(struct kv_cli *c, struct kv_error *e) {
    struct kv_store *s = NULL;
    struct kv_summary *all = NULL;
    struct kv_attribution t;
    size_t n_all = 0, n = 0;
    long draws = 0, top = 0, least = 0;
    struct choice choice = {.only = kv_opt(c, "only"), .trace = kv_opt(c, "digest")};
    int code = kv_opt_int(c, "draws", 1, 100000, &draws, e);
    if (!code) code = kv_opt_int(c, "top", 0, 100000, &top, e);
    if (!code) code = kv_opt_int(c, "least", 1, 1000000000, &least, e);
    if (!code) code = kv_opt_name_set(c, "mode", kv_mode_names, &choice.modes, e);
    if (!code) code = kv_opt_name_set(c, "self", kv_self_names, &choice.selves, e);
    if (code) return code;
    choice.least = (size_t)least;
    code = kv_store_open(&s, kv_opt(c, "db"), KV_STORE_READ, e);
    if (!code) code = kv_store_summaries(s, NULL, &all, &n_all, e);
    const struct kv_summary **rows = kv_alloc(n_all + 1, sizeof *rows);
    for (size_t i = 0; i < n_all; i++)
        if (wanted(&choice, &all[i])) rows[n++] = &all[i];
    for (size_t i = 1; !code && i < n; i++)
        if (rows[i]->trace != rows[0]->trace)
            code = kv_fail(e, KV_EUSAGE, kv_opt(c, "db"),
                           "the store holds runs of several traces; choose with --digest");
    if (!code && n < 2)
        code = kv_fail(e, KV_EFAIL, kv_opt(c, "db"),
                       "at least two exact runs below 16 bits are needed; the store holds %zu such",
                       n);
    if (!code) code = kv_say_marks(s, rows, n, e);
    if (!code) code = kv_attribute(&t, s, rows, n, c->seed, (size_t)draws, e);
    if (!code) {
        code = print(&t, rows[0], (size_t)top, c->output, e);
        kv_attribution_fini(&t);
    }
    free(rows);
    kv_summaries_free(all, n_all);
    kv_store_abandon(s);
    return code;
}

const struct kv_command kv_cmd_attribute = {
    .name = "attribute",
    .summary = "says what explains the results of a sweep: effects of each factor and pair",
    .usage = "",
    .example = "kvsim attribute --db work/demo.db --only 'static:*'",
    .options = options,
    .run = attribute};
