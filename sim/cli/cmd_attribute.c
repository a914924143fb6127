// SPDX-License-Identifier: Apache-2.0
// kvsim attribute: what explains the results of a sweep, factor by factor.
#include "analysis/results/attribution.h"
#include "sim/base/memory.h"
#include "analysis/results/rows.h"

#include <fnmatch.h>
#include <stdlib.h>

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

static const struct kv_column columns[] = {
    {"factor", KV_LEFT},    {"level", KV_LEFT},       {"factor_2", KV_LEFT},
    {"level_2", KV_LEFT},   {"runs", KV_RIGHT},       {"acc_points", KV_RIGHT},
    {"acc_low", KV_RIGHT},  {"acc_high", KV_RIGHT},   {"acc_share", KV_RIGHT},
    {"log_kl", KV_RIGHT},   {"log_kl_low", KV_RIGHT}, {"log_kl_high", KV_RIGHT},
    {"kl_share", KV_RIGHT}, {"n", KV_RIGHT}};

// ---- for programs ---------------------------------------------------------------------

static int print_all(const struct kv_attribution *t, enum kv_output how, struct kv_error *e) {
    struct kv_table *table = kv_table_new(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < t->n; i++) {
        const struct kv_effect *x = &t->effects[i];
        bool pair = x->b < KV_MAX_FACTORS;
        kv_table_text(table, kv_attribution_factor(t, x->a));
        kv_table_text(table, kv_attribution_level(t, x->a, x->level_a));
        kv_table_text(table, pair ? kv_attribution_factor(t, x->b) : NULL);
        kv_table_text(table, pair ? kv_attribution_level(t, x->b, x->level_b) : NULL);
        kv_table_count(table, (long long)x->n_runs);
        const double numbers[] = {x->acc.estimate,    x->acc.low,    x->acc.high,    x->acc_share,
                                  x->log_kl.estimate, x->log_kl.low, x->log_kl.high, x->kl_share};
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            kv_table_number(table, numbers[k], 4);
        kv_table_count(table, (long long)t->n_items);
    }
    return kv_table_print(table, how, e);
}

// ---- in text --------------------------------------------------------------------------

// Without the interval where there is none, empty where nothing is known.
static void add_acc(struct kv_table *table, const struct kv_effect_size *x) {
    char *s = NULL;
    if (!isnan(x->low))
        s = kv_format_text("%+.1f [%+.1f %+.1f]", x->estimate, x->low, x->high);
    else if (!isnan(x->estimate))
        s = kv_format_text("%+.1f", x->estimate);
    kv_table_text(table, s);
    free(s);
}

static void add_kl(struct kv_table *table, const struct kv_effect_size *x) {
    char *s = NULL;
    if (!isnan(x->low))
        s = kv_format_text("%.2f [%.2f %.2f]", exp(x->estimate), exp(x->low), exp(x->high));
    else if (!isnan(x->estimate))
        s = kv_format_text("%.2f", exp(x->estimate));
    kv_table_text(table, s);
    free(s);
}

static int print_main(const struct kv_attribution *t, struct kv_error *e) {
    static const struct kv_column head[] = {{"factor", KV_LEFT},   {"level", KV_LEFT},
                                            {"runs", KV_RIGHT},    {"acc, points [95 %]", KV_RIGHT},
                                            {"share %", KV_RIGHT}, {"KL, times [95 %]", KV_RIGHT},
                                            {"share %", KV_RIGHT}};
    struct kv_table *table = kv_table_new(head, sizeof head / sizeof *head);
    for (size_t i = 0; i < t->n && t->effects[i].b == KV_MAX_FACTORS; i++) {
        const struct kv_effect *x = &t->effects[i];
        bool first = x->level_a == 0;
        kv_table_text(table, first ? kv_attribution_factor(t, x->a) : NULL);
        kv_table_text(table, kv_attribution_level(t, x->a, x->level_a));
        kv_table_count(table, (long long)x->n_runs);
        add_acc(table, &x->acc);
        kv_table_number(table, first ? 100 * x->acc_share : NAN, 1);
        add_kl(table, &x->log_kl);
        kv_table_number(table, first ? 100 * x->kl_share : NAN, 1);
    }
    return kv_table_print(table, KV_OUT_TEXT, e);
}

struct pair {
    const struct kv_effect *largest; // cell, by the logarithm of KL, else by accuracy
    double size;
};

static double weight(const struct kv_effect *x) {
    return fmax(x->acc_share, isnan(x->kl_share) ? 0 : x->kl_share);
}

static int by_weight(const void *a, const void *b) {
    double x = weight(((const struct pair *)a)->largest);
    double y = weight(((const struct pair *)b)->largest);
    return (x < y) - (x > y);
}

// Each pair once, by the cell that deviates most.
static int print_pairs(const struct kv_attribution *t, size_t top, struct kv_error *e) {
    static const struct kv_column head[] = {
        {"together", KV_LEFT}, {"most at", KV_LEFT},           {"acc, points [95 %]", KV_RIGHT},
        {"share %", KV_RIGHT}, {"KL, times [95 %]", KV_RIGHT}, {"share %", KV_RIGHT}};
    struct pair *pairs = kv_alloc(t->n + 1, sizeof *pairs);
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        const struct kv_effect *x = &t->effects[i];
        if (x->b == KV_MAX_FACTORS) continue;
        double size = fabs(isnan(x->log_kl.estimate) ? x->acc.estimate : x->log_kl.estimate);
        if (x->level_a == 0 && x->level_b == 0) pairs[n++] = (struct pair){x, size};
        if (size > pairs[n - 1].size) pairs[n - 1] = (struct pair){x, size};
    }
    if (n) qsort(pairs, n, sizeof *pairs, by_weight);
    struct kv_table *table = kv_table_new(head, sizeof head / sizeof *head);
    for (size_t i = 0; i < n && (top == 0 || i < top); i++) {
        const struct kv_effect *x = pairs[i].largest;
        char *names = kv_format_text("%s x %s", kv_attribution_factor(t, x->a),
                                     kv_attribution_factor(t, x->b));
        char *levels = kv_format_text("%s, %s", kv_attribution_level(t, x->a, x->level_a),
                                      kv_attribution_level(t, x->b, x->level_b));
        kv_table_text(table, names);
        kv_table_text(table, levels);
        add_acc(table, &x->acc);
        kv_table_number(table, 100 * x->acc_share, 1);
        add_kl(table, &x->log_kl);
        kv_table_number(table, 100 * x->kl_share, 1);
        free(names);
        free(levels);
    }
    free(pairs);
    puts("\nbeyond both apart, largest first:");
    return kv_table_print(table, KV_OUT_TEXT, e);
}

static int print_text(const struct kv_attribution *t, const struct kv_summary *s, size_t top,
                      struct kv_error *e) {
    printf("%s, %s: %s; %zu runs on %zu items%s\n", s->task, s->subset, s->model, t->factors.n_rows,
           t->n_items, t->n_left_out ? " that all runs hold" : "");
    puts("acc: points of accuracy against 16 bit, a level against the mean of its factor's levels; "
         "KL: the same as a factor");
    for (size_t k = 0; k < t->factors.n; k++)
        if (!kv_attribution_has(t, k))
            printf("%s is left out: other factors determine it\n", kv_attribution_factor(t, k));
    int code = print_main(t, e);
    if (code) return code;
    printf("main effects together: %.0f %% of the variance of acc among runs and scorers, %.0f %% "
           "of log KL's\n",
           100 * t->acc_main, 100 * t->kl_main);
    return print_pairs(t, top, e);
}

// ---- choosing runs --------------------------------------------------------------------

static bool wanted(const struct kv_cli *c, const struct kv_summary *s, long least) {
    const char *only = kv_opt(c, "only"), *trace = kv_opt(c, "digest");
    const char *mode = kv_opt(c, "mode"), *own = kv_opt(c, "self");
    if (strcmp(s->fidelity, "exact") != 0 || s->oracle || !(s->nominal_bits < 16)) return false;
    if (s->n_items < (size_t)least) return false;
    if (only && fnmatch(only, s->spec, 0) != 0) return false;
    if (mode && strcmp(mode, s->mode) != 0) return false;
    if (own && strcmp(own, s->self) != 0) return false;
    return !trace || strncmp(trace, s->trace_digest, strlen(trace)) == 0;
}

static int attribute(struct kv_cli *c, struct kv_error *e) {
    struct kv_store *s = NULL;
    struct kv_summary *all = NULL;
    struct kv_attribution t;
    size_t n_all = 0, n = 0;
    long draws = 0, top = 0, least = 0;
    int code = kv_opt_int(c, "draws", 1, 100000, &draws, e);
    if (!code) code = kv_opt_int(c, "top", 0, 100000, &top, e);
    if (!code) code = kv_opt_int(c, "least", 1, 1000000000, &least, e);
    if (code) return code;
    code = kv_store_open(&s, kv_opt(c, "db"), KV_STORE_READ, e);
    if (!code) code = kv_store_summaries(s, NULL, &all, &n_all, e);
    const struct kv_summary **rows = kv_alloc(n_all + 1, sizeof *rows);
    for (size_t i = 0; i < n_all; i++)
        if (wanted(c, &all[i], least)) rows[n++] = &all[i];
    for (size_t i = 1; !code && i < n; i++)
        if (rows[i]->trace != rows[0]->trace)
            code = kv_fail(e, KV_EUSAGE, kv_opt(c, "db"),
                           "the store holds runs of several traces; choose with --digest");
    if (!code && n < 2)
        code = kv_fail(e, KV_EFAIL, kv_opt(c, "db"),
                       "at least two exact runs below 16 bits are needed; the store holds %zu such",
                       n);
    if (!code) code = kv_attribute(&t, s, rows, n, c->seed, (size_t)draws, e);
    if (!code) {
        code = c->output == KV_OUT_TEXT ? print_text(&t, rows[0], (size_t)top, e)
                                        : print_all(&t, c->output, e);
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
