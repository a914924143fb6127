// SPDX-License-Identifier: Apache-2.0
// kvsim diff: two specs compared item by item, with every test that the comparison allows.
#include "analysis/stats/evidence.h"
#include "sim/base/memory.h"
#include "analysis/results/pairs.h"
#include "analysis/results/rows.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    {"db", 0, "FILE", "kvsim.db", "the store"},
    {"fidelity", 0, "NAME", NULL, "which fidelity, where the store holds several"},
    {"mode", 0, "A[,B]", NULL, "which mode, where the store holds several; B: of the second spec"},
    {"feedback", 0, "A[,B]", "open", "runs with open or closed feedback; B: of the second spec"},
    {"digest", 0, "DIGEST", NULL, "which trace, where the store holds several (as show prints it)"},
    {"margin", 0, "M", "0.01", "difference that still counts as lossless, for TOST"},
    {"power", 0, "P", "0.8", "with which a difference is to be seen, for the items needed"},
    {"draws", 0, "N", "2000", "bootstrap draws that check the interval; 0 = none"},
    {0}};

static const struct kv_column columns[] = {{"quantity", KV_LEFT},
                                           {"a", KV_RIGHT},
                                           {"b", KV_RIGHT},
                                           {"n", KV_RIGHT},
                                           {"only_a", KV_RIGHT},
                                           {"only_b", KV_RIGHT},
                                           {"difference", KV_RIGHT},
                                           {"low", KV_RIGHT},
                                           {"high", KV_RIGHT},
                                           {"bootstrap_low", KV_RIGHT},
                                           {"bootstrap_high", KV_RIGHT},
                                           {"exact_p", KV_RIGHT},
                                           {"mid_p", KV_RIGHT}};
// For programs; in text they are sentences below the table.
static const struct kv_column evidence_columns[] = {{"margin", KV_RIGHT},
                                                    {"tost_p", KV_RIGHT},
                                                    {"not_worse_p", KV_RIGHT},
                                                    {"items_needed", KV_RIGHT},
                                                    {"smallest_seen", KV_RIGHT}};
enum { N_COLUMNS = sizeof columns / sizeof *columns };
enum { N_EVIDENCE = sizeof evidence_columns / sizeof *evidence_columns };

// What the options ask for.
struct asked {
    double margin, power;
    size_t draws;
    uint64_t seed;
    bool text;
};

static struct kv_interval bootstrap(const struct kv_pairs *j, const double *a, const double *b,
                                    uint64_t seed, size_t draws) {
    struct kv_resampler *r = kv_pairs_resampler(j);
    double *d = kv_alloc(j->n + 1, sizeof *d);
    for (size_t i = 0; i < j->n; i++) d[i] = a[i] - b[i];
    struct kv_interval result = kv_bootstrap_mean(r, d, j->n, seed, draws, 0.95);
    free(d);
    kv_resampler_free(r);
    return result;
}

static void add_evidence(struct kv_table *t, const struct kv_paired *p, const double *a,
                         const double *b, size_t n, const struct asked *asked) {
    struct kv_tost tost = kv_tost_items(a, b, n, asked->margin);
    double items = (double)p->n, discordant = (p->won + p->lost) / items;
    bool counted = !isnan(p->exact_p); // else redraws make fractions, whose spread is known
    kv_table_number(t, tost.p, 4);
    kv_table_number(t, tost.worse_p, 4);
    kv_table_number(t,
                    counted ? kv_items_for_difference(p->difference, discordant, 0.05, asked->power)
                            : kv_items_to_clear(items, p->standard_error, fabs(p->difference), 0.05,
                                                asked->power),
                    0);
    kv_table_number(t, counted ? kv_difference_seen(items, discordant, 0.05, asked->power) : NAN,
                    4);
}

static void add_accuracy(struct kv_table *t, const struct kv_pairs *j, int k,
                         const struct asked *asked) {
    struct kv_paired p = kv_paired_compare(j->a[k], j->b[k], j->n, 0.95);
    if (p.n == 0) return;
    double sum = 0;
    for (size_t i = 0; i < j->n; i++)
        if (!isnan(j->a[k][i] - j->b[k][i])) sum += j->a[k][i];
    struct kv_interval boot = bootstrap(j, j->a[k], j->b[k], asked->seed, asked->draws);
    kv_table_text(t, kv_scorer_names[k]);
    kv_table_number(t, sum / (double)p.n, 4);
    kv_table_number(t, sum / (double)p.n - p.difference, 4);
    kv_table_count(t, (long long)p.n);
    kv_table_number(t, p.won, -1);
    kv_table_number(t, p.lost, -1);
    kv_table_number(t, p.difference, 4);
    kv_table_number(t, p.interval.low, 4);
    kv_table_number(t, p.interval.high, 4);
    kv_table_number(t, boot.low, 4);
    kv_table_number(t, boot.high, 4);
    kv_table_number(t, p.exact_p, 4);
    kv_table_number(t, isnan(p.mid_p) ? p.t_p : p.mid_p, 4);
    if (asked->text) return;
    kv_table_number(t, asked->margin, -1);
    add_evidence(t, &p, j->a[k], j->b[k], j->n, asked);
}

static void add_divergence(struct kv_table *t, const struct kv_pairs *j,
                           const struct asked *asked) {
    double *d = kv_alloc(j->n + 1, sizeof *d), *share_a = kv_alloc(j->n + 1, sizeof *d);
    double *share_b = kv_alloc(j->n + 1, sizeof *d);
    for (size_t i = 0; i < j->n; i++) d[i] = j->kl_a[i] - j->kl_b[i];
    struct kv_mean m = kv_ratio_interval(d, j->n_scored, j->n, 0.95);
    struct kv_mean a = kv_ratio_interval(j->kl_a, j->n_scored, j->n, 0.95);
    struct kv_mean tokens = kv_mean_interval(j->n_scored, j->n, 0.95);
    for (size_t i = 0; i < j->n; i++) { // items weigh by their tokens
        share_a[i] = j->kl_a[i] * j->n_scored[i] / tokens.mean;
        share_b[i] = j->kl_b[i] * j->n_scored[i] / tokens.mean;
    }
    struct kv_interval boot = bootstrap(j, share_a, share_b, asked->seed, asked->draws);
    free(d);
    free(share_a);
    free(share_b);
    if (m.n == 0) return;
    kv_table_text(t, "kl_nats");
    kv_table_number(t, a.mean, 5);
    kv_table_number(t, a.mean - m.mean, 5);
    kv_table_count(t, (long long)m.n);
    kv_table_text(t, NULL);
    kv_table_text(t, NULL);
    kv_table_number(t, m.mean, 5);
    kv_table_number(t, m.interval.low, 5);
    kv_table_number(t, m.interval.high, 5);
    kv_table_number(t, boot.low, 5);
    kv_table_number(t, boot.high, 5);
    for (size_t i = 0; i < 2 + (asked->text ? 0 : N_EVIDENCE); i++) kv_table_text(t, NULL);
}

// In text: what the items can tell, and how many would.
static int print_evidence(const struct kv_pairs *j, const struct asked *asked, struct kv_error *e) {
    struct kv_column head[N_EVIDENCE] = {{"quantity", KV_LEFT}};
    for (size_t i = 1; i < N_EVIDENCE; i++) head[i] = evidence_columns[i];
    struct kv_table *t = kv_table_new(head, N_EVIDENCE);
    for (int k = 0; k < KV_N_SCORERS; k++) {
        struct kv_paired p = kv_paired_compare(j->a[k], j->b[k], j->n, 0.95);
        if (p.n == 0) continue;
        kv_table_text(t, kv_scorer_names[k]);
        add_evidence(t, &p, j->a[k], j->b[k], j->n, asked);
    }
    printf("\nWithin %g of each other (tost_p) and a no worse than b by %g (not_worse_p) are shown "
           "where p < 0.05.\nitems_needed: to see the difference, were it the true one, with power "
           "%g; smallest_seen: what these items would show.\n",
           asked->margin, asked->margin, asked->power);
    return kv_table_print(t, KV_OUT_TEXT, e);
}

static int print(const struct kv_cli *c, const struct kv_summary *a, const struct kv_summary *b,
                 const struct kv_pairs *j, const struct asked *asked, struct kv_error *e) {
    struct kv_column head[N_COLUMNS + N_EVIDENCE];
    if (c->output == KV_OUT_TEXT) {
        for (int i = 0; i < 2; i++) {
            const struct kv_summary *x = i ? b : a;
            printf("%c  %s (%s, %s%s%s)\n", 'a' + i, x->spec, x->fidelity, x->mode,
                   *x->variant ? ", " : "", x->variant);
        }
        printf("%s, %s: %s; %zu items in both; bits a value %.2f and %.2f\n", a->task, a->subset,
               a->model, j->n, a->effective_bits, b->effective_bits);
    }
    for (size_t i = 0; i < N_COLUMNS + N_EVIDENCE; i++)
        head[i] = i < N_COLUMNS ? columns[i] : evidence_columns[i - N_COLUMNS];
    struct kv_table *t = kv_table_new(head, N_COLUMNS + (asked->text ? 0 : N_EVIDENCE));
    for (int k = 0; k < KV_N_SCORERS; k++) add_accuracy(t, j, k, asked);
    add_divergence(t, j, asked);
    int code = kv_table_print(t, c->output, e);
    return code || !asked->text ? code : print_evidence(j, asked, e);
}

// "A,B" as A and B; a text without a comma, or NULL, as both. Caller frees.
static void part_in_two(const char *text, char **a, char **b) {
    const char *comma = text ? strchr(text, ',') : NULL;
    if (!text) return;
    *a = kv_format_text("%.*s", (int)(comma ? comma - text : (ptrdiff_t)strlen(text)), text);
    *b = kv_strdup(comma ? comma + 1 : text);
}

static int diff(struct kv_cli *c, struct kv_error *e) {
    struct kv_store *s;
    struct kv_summary *runs[2] = {NULL, NULL};
    struct kv_item_result *items[2] = {NULL, NULL};
    size_t n[2] = {0, 0}, n_items[2] = {0, 0}, at[2] = {0, 0};
    char *part[4] = {NULL}; // mode and feedback of the first spec, and of the second
    struct kv_pairs joined = {0};
    struct asked asked = {.seed = c->seed, .text = c->output == KV_OUT_TEXT};
    long draws = 0;
    int code = kv_opt_int(c, "draws", 0, 1000000, &draws, e);
    if (!code) code = kv_opt_float(c, "margin", 1e-9, 0.5, &asked.margin, e);
    if (!code) code = kv_opt_float(c, "power", 0.5, 0.999999, &asked.power, e);
    asked.draws = (size_t)draws;
    if (code) return code;
    code = kv_store_open(&s, kv_opt(c, "db"), KV_STORE_READ, e);
    if (code) return code;
    part_in_two(kv_opt(c, "mode"), &part[0], &part[2]);
    part_in_two(kv_opt(c, "feedback"), &part[1], &part[3]);
    for (int i = 0; !code && i < 2; i++) {
        const struct kv_row_choice choice = {kv_opt(c, "fidelity"), part[2 * i],
                                             kv_opt(c, "digest"), part[2 * i + 1]};
        code = kv_rows_find(s, c->args[i], &choice, &runs[i], &n[i], e);
    }
    if (!code && !kv_pairs_choose(runs[0], n[0], runs[1], n[1], &at[0], &at[1]))
        code = kv_fail(e, KV_EFAIL, "diff",
                       "the two specs were not run on one trace, so there is nothing to pair");
    for (int i = 0; !code && i < 2; i++)
        code = kv_store_items(s, runs[i][at[i]].family, &items[i], &n_items[i], e);
    if (!code) {
        kv_pairs_join(&joined, items[0], n_items[0], items[1], n_items[1]);
        code = joined.n ? print(c, &runs[0][at[0]], &runs[1][at[1]], &joined, &asked, e)
                        : kv_fail(e, KV_EFAIL, "diff", "the two runs have no item in common");
    }
    kv_pairs_fini(&joined);
    for (int i = 0; i < 4; i++) free(part[i]);
    for (int i = 0; i < 2; i++) {
        kv_item_results_free(items[i], n_items[i]);
        kv_summaries_free(runs[i], n[i]);
    }
    kv_store_abandon(s);
    return code;
}

const struct kv_command kv_cmd_diff = {
    .name = "diff",
    .summary = "compares two stored specs item by item",
    .usage = "SPEC SPEC",
    .example = "kvsim diff static:bits=4@sym static:bits=4@asym:group=32 --db work/demo.db",
    .options = options,
    .min_args = 2,
    .max_args = 2,
    .run = diff};
