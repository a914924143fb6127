// SPDX-License-Identifier: Apache-2.0
// kvsim diff: two specs compared item by item, with every test that the comparison allows.
#include "sim/cli/rows.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    {"db", 0, "FILE", "kvsim.db", "the store"},
    {"fidelity", 0, "NAME", NULL, "which fidelity, where the store holds several"},
    {"mode", 0, "NAME", NULL, "which mode, where the store holds several"},
    {"trace", 0, "DIGEST", NULL, "which trace, where the store holds several (as show prints it)"},
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

// The items that both runs hold, side by side.
struct both {
    size_t n;
    double *a[KV_N_SCORERS], *b[KV_N_SCORERS]; // how right
    double *kl_a, *kl_b, *n_scored;
    uint64_t *context;
    const char **source;
};

static double *numbers(size_t n) {
    return kv_alloc(n + 1, sizeof(double));
}

static void join(struct both *j, const struct kv_item_result *a, size_t n_a,
                 const struct kv_item_result *b, size_t n_b) {
    size_t most = n_a < n_b ? n_a : n_b;
    for (int k = 0; k < KV_N_SCORERS; k++) {
        j->a[k] = numbers(most);
        j->b[k] = numbers(most);
    }
    j->kl_a = numbers(most);
    j->kl_b = numbers(most);
    j->n_scored = numbers(most);
    j->context = kv_alloc(most + 1, sizeof *j->context);
    j->source = kv_alloc(most + 1, sizeof *j->source);
    for (size_t x = 0, y = 0; x < n_a && y < n_b;) {
        if (a[x].item != b[y].item) {
            if (a[x].item < b[y].item)
                x++;
            else
                y++;
            continue;
        }
        for (int k = 0; k < KV_N_SCORERS; k++) {
            j->a[k][j->n] = a[x].right[k];
            j->b[k][j->n] = b[y].right[k];
        }
        j->kl_a[j->n] = a[x].kl_nats;
        j->kl_b[j->n] = b[y].kl_nats;
        j->n_scored[j->n] = a[x].n_scored;
        j->context[j->n] = a[x].context_key;
        j->source[j->n++] = a[x].source;
        x++, y++;
    }
}

static void free_both(struct both *j) {
    for (int k = 0; k < KV_N_SCORERS; k++) {
        free(j->a[k]);
        free(j->b[k]);
    }
    free(j->kl_a);
    free(j->kl_b);
    free(j->n_scored);
    free(j->context);
    free(j->source);
}

static struct kv_interval bootstrap(const struct both *j, const double *a, const double *b,
                                    uint64_t seed, size_t draws) {
    struct kv_resampler *r = kv_resampler_new(j->n, j->context, j->source);
    double *d = numbers(j->n);
    for (size_t i = 0; i < j->n; i++) d[i] = a[i] - b[i];
    struct kv_interval result = kv_bootstrap_mean(r, d, j->n, seed, draws, 0.95);
    free(d);
    kv_resampler_free(r);
    return result;
}

static void add_accuracy(struct kv_table *t, const struct both *j, int k, uint64_t seed,
                         size_t draws) {
    struct kv_paired p = kv_paired_compare(j->a[k], j->b[k], j->n, 0.95);
    if (p.n == 0) return;
    double sum = 0;
    for (size_t i = 0; i < j->n; i++)
        if (!isnan(j->a[k][i] - j->b[k][i])) sum += j->a[k][i];
    struct kv_interval boot = bootstrap(j, j->a[k], j->b[k], seed, draws);
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
}

static void add_divergence(struct kv_table *t, const struct both *j, uint64_t seed, size_t draws) {
    double *d = numbers(j->n), *share_a = numbers(j->n), *share_b = numbers(j->n);
    for (size_t i = 0; i < j->n; i++) d[i] = j->kl_a[i] - j->kl_b[i];
    struct kv_mean m = kv_ratio_interval(d, j->n_scored, j->n, 0.95);
    struct kv_mean a = kv_ratio_interval(j->kl_a, j->n_scored, j->n, 0.95);
    struct kv_mean tokens = kv_mean_interval(j->n_scored, j->n, 0.95);
    for (size_t i = 0; i < j->n; i++) { // items weigh by their tokens
        share_a[i] = j->kl_a[i] * j->n_scored[i] / tokens.mean;
        share_b[i] = j->kl_b[i] * j->n_scored[i] / tokens.mean;
    }
    struct kv_interval boot = bootstrap(j, share_a, share_b, seed, draws);
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
    kv_table_text(t, NULL);
    kv_table_text(t, NULL);
}

static int print(const struct kv_cli *c, const struct kv_summary *a, const struct kv_summary *b,
                 const struct both *j, size_t draws, struct kv_error *e) {
    if (c->output == KV_OUT_TEXT) {
        printf("a  %s (%s, %s)\nb  %s (%s, %s)\n", a->spec, a->fidelity, a->mode, b->spec,
               b->fidelity, b->mode);
        printf("%s, %s: %s; %zu items in both; bits a value %.2f and %.2f\n", a->task, a->subset,
               a->model, j->n, a->effective_bits, b->effective_bits);
    }
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    for (int k = 0; k < KV_N_SCORERS; k++) add_accuracy(t, j, k, c->seed, draws);
    add_divergence(t, j, c->seed, draws);
    return kv_table_print(t, c->output, e);
}

// The pair of runs to compare: of one trace, and alike in fidelity and mode where that is possible.
static int choose(const struct kv_summary *a, size_t n_a, const struct kv_summary *b, size_t n_b,
                  size_t *at_a, size_t *at_b, struct kv_error *e) {
    int best = -1;
    for (size_t x = 0; x < n_a; x++)
        for (size_t y = 0; y < n_b; y++) {
            if (a[x].trace != b[y].trace) continue;
            int likeness = (strcmp(a[x].fidelity, b[y].fidelity) == 0) * 4 +
                           (strcmp(a[x].mode, b[y].mode) == 0) * 2 + (a[x].seed == b[y].seed);
            if (likeness <= best) continue;
            best = likeness;
            *at_a = x;
            *at_b = y;
        }
    return best >= 0 ? 0
                     : kv_fail(e, KV_EFAIL, "diff",
                               "the two specs were not run on one trace, so "
                               "there is nothing to pair");
}

static int diff(struct kv_cli *c, struct kv_error *e) {
    struct kv_store *s;
    struct kv_summary *runs[2] = {NULL, NULL};
    struct kv_item_result *items[2] = {NULL, NULL};
    size_t n[2] = {0, 0}, n_items[2] = {0, 0}, at[2] = {0, 0};
    const struct kv_row_choice choice = {kv_opt(c, "fidelity"), kv_opt(c, "mode"),
                                         kv_opt(c, "trace")};
    struct both joined = {0};
    long draws;
    int code = kv_opt_int(c, "draws", 0, 1000000, &draws, e);
    if (code) return code;
    code = kv_store_open(&s, kv_opt(c, "db"), KV_STORE_READ, e);
    if (code) return code;
    for (int i = 0; !code && i < 2; i++)
        code = kv_rows_find(s, c->args[i], &choice, &runs[i], &n[i], e);
    if (!code) code = choose(runs[0], n[0], runs[1], n[1], &at[0], &at[1], e);
    for (int i = 0; !code && i < 2; i++)
        code = kv_store_items(s, runs[i][at[i]].family, &items[i], &n_items[i], e);
    if (!code) {
        join(&joined, items[0], n_items[0], items[1], n_items[1]);
        code = joined.n ? print(c, &runs[0][at[0]], &runs[1][at[1]], &joined, (size_t)draws, e)
                        : kv_fail(e, KV_EFAIL, "diff", "the two runs have no item in common");
    }
    free_both(&joined);
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
    .example = "kvsim diff static:bits=4@sym static:bits=4@asym:group=32 --db build/demo.db",
    .options = options,
    .min_args = 2,
    .max_args = 2,
    .run = diff};
