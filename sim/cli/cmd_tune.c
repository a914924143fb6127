// SPDX-License-Identifier: Apache-2.0
// kvsim tune: searches policies on predicted divergence and confirms the winners by exact replay on
// items they were not chosen on.
#include <stdlib.h>

#include "analysis/search/search.h"
#include "analysis/stats/stats.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "analysis/studies/greedy.h"
#include "sim/cli/lists.h"
#include "sim/cli/opening.h"

// One policy to confirm.
struct entry {
    char *text, *how;
    size_t tried;
    struct kv_replay_spec spec;
    struct kv_forecast train, test;
    double verified;                   // exact KL on the items that greedy-exact replays; NAN
    double gap;                        // of the plan's predicted damage to the best possible; NAN
    double *kl, *weight, *acc, *agree; // by test item; NULL until replayed
    double allocated_bits;
};

struct tune {
    struct kv_tuning t;
    struct kv_cli *c;
    struct kv_model *model; // opened when exact replay is first asked for
    bool greedy, interrupted;
    long evaluations, verify; // of greedy-exact
    struct entry *at;
    size_t n;
    double widths[KV_MAX_WIDTHS];
    size_t n_widths;
};

// Takes text and how; opens the spec and foretells it, unless the user has interrupted.
static int add(struct tune *u, char *text, char *how, size_t tried, double gap,
               struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(u->t.trace);
    struct kv_format_setting setting = {in->shape, in->order};
    struct entry x = {.text = text,
                      .how = how,
                      .tried = tried,
                      .verified = NAN,
                      .gap = gap,
                      .allocated_bits = NAN};
    int rc = kv_replay_spec_open(&x.spec, text, &setting, u->c->seed, e);
    if (rc == 0)
        rc = kv_fisher_answers(in, &x.spec, kv_tuning_mode(&u->t),
                               strcmp(in->adjoint.self, "exact") == 0, e);
    x.train = x.test = (struct kv_forecast){NAN, NAN};
    if (rc == 0 && !u->interrupted)
        rc = kv_tuning_forecast(&u->t, &x.spec, &u->t.train, &x.train, e);
    if (rc == 0 && !u->interrupted) rc = kv_tuning_forecast(&u->t, &x.spec, &u->t.test, &x.test, e);
    if (rc) {
        kv_replay_spec_close(&x.spec);
        free(text);
        free(how);
        return rc;
    }
    u->at = kv_grow(u->at, u->n + 1, sizeof *u->at);
    u->at[u->n++] = x;
    return 0;
}

// ---- separable families ---------------------------------------------------------------

// The family that a word without widths names: "static@F", "layerwise:by=head@F", "class@F".
// "kvtuner@F" is not one: its plan is found by its own rule.
static int family_of(const char *policy, enum kv_family *family) {
    static const struct {
        const char *text;
        enum kv_family family;
    } words[] = {{"static", KV_FAMILY_STATIC},
                 {"layerwise", KV_FAMILY_LAYER},
                 {"layerwise:by=layer", KV_FAMILY_LAYER},
                 {"layerwise:by=head", KV_FAMILY_HEAD},
                 {"class", KV_FAMILY_CLASS}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i].text, policy) == 0) {
            *family = words[i].family;
            return 1;
        }
    return 0;
}

static int open_model(struct tune *u, struct kv_error *e) {
    return u->model ? 0 : kv_opt_model(u->c, kv_trace_info(u->t.trace), &u->model, e);
}

// The plan that exact replay finds from an additive one, whose entry was added last.
static int add_greedy(struct tune *u, const char *word, const struct kv_plan *plan,
                      struct kv_error *e) {
    struct kv_greedy g = {
        .tuning = &u->t, .plan = plan, .items = u->t.train, .evaluations = (size_t)u->evaluations};
    double start = kv_now_s();
    int rc = open_model(u, e);
    if (rc) return rc;
    g.model = u->model;
    if (g.items.n > (size_t)u->verify) g.items.n = (size_t)u->verify;
    rc = kv_greedy_run(&g, e);
    if (rc == 0) {
        kv_say("%s: %zu plans on %zu items in %.0f s, %zu swaps kept%s; KL there %.6f, now %.6f",
               word, g.evaluated, g.items.n, kv_now_s() - start, g.kept,
               g.interrupted ? " until interrupted" : "", g.kl_first, g.kl_nats);
        u->at[u->n - 1].verified = g.kl_first;
        u->interrupted = g.interrupted;
        rc = add(u, kv_plan_text(plan, g.choice), kv_format_text("greedy-exact, %zu swaps", g.kept),
                 g.evaluated, NAN, e);
    }
    if (rc == 0) u->at[u->n - 1].verified = g.kl_nats;
    free(g.choice);
    return rc;
}

static int add_plan(struct tune *u, const char *word, enum kv_family family, const char *format,
                    struct kv_error *e) {
    struct kv_plan plan;
    double start = kv_now_s();
    int rc = kv_tuning_plan(&u->t, family, format, u->widths, u->n_widths, &plan, e);
    if (rc) return rc;
    kv_say("%s: best widths of %zu groups in %.2f s, %s", word, plan.n_groups, kv_now_s() - start,
           plan.result.exact ? "proven" : "not proven");
    double gap = plan.result.exact ? 0 : 1 - plan.result.bound / plan.result.loss;
    rc = add(u, kv_plan_text(&plan, plan.choice),
             kv_format_text("knapsack, %zu groups", plan.n_groups), 0, gap, e);
    if (rc == 0 && u->greedy) rc = add_greedy(u, word, &plan, e);
    kv_plan_fini(&plan);
    return rc;
}

// ---- parameters to be found -----------------------------------------------------------

// A word cut at its free ranges: piece[0] value piece[1] value ... piece[n].
struct template {
    char *text; // the word, cut by NULs
    size_t n;
    const char *piece[KV_SEARCH_MAX + 1];
    double low[KV_SEARCH_MAX], high[KV_SEARCH_MAX];
};

static const char *number_start(const char *from, const char *dots) {
    const char *at = dots;
    while (at > from && strchr("0123456789.-eE", at[-1])) at--;
    return at;
}

// Reads "a..b" without a step as a range to search; returns whether there is any.
static bool cut_template(const char *word, struct template *t) {
    *t = (struct template){.text = kv_strdup(word)};
    t->piece[0] = t->text;
    char *from = t->text;
    for (char *dots = strstr(from, ".."); dots && t->n < KV_SEARCH_MAX;
         dots = strstr(dots + 2, "..")) {
        char *low = t->text + (number_start(from, dots) - t->text), *end, *high;
        *dots = '\0';
        t->low[t->n] = strtod(low, &end);
        bool good = end == dots && end != low;
        t->high[t->n] = strtod(dots + 2, &high);
        if (!good || high == dots + 2 || *high == '+') {
            *dots = '.';
            continue;
        }
        *low = '\0';
        t->piece[++t->n] = high;
        from = high;
        dots = high - 2;
    }
    return t->n > 0;
}

static char *fill_template(const struct template *t, const double *x) {
    struct kv_text s = {0};
    for (size_t i = 0; i <= t->n; i++) {
        kv_text_addf(&s, "%s", t->piece[i]);
        if (i < t->n) kv_text_addf(&s, "%.4g", x[i]);
    }
    return kv_text_take(&s);
}

struct seeking {
    struct tune *u;
    const struct template *template;
    struct kv_error last;
    size_t answered;
};

// Logarithm of predicted divergence, with a wall beyond the budget.
static double seek(void *self, const double *x) {
    struct seeking *s = self;
    const struct kv_trace_info *in = kv_trace_info(s->u->t.trace);
    struct kv_format_setting setting = {in->shape, in->order};
    struct kv_replay_spec spec;
    struct kv_forecast f;
    char *text = fill_template(s->template, x);
    double value = INFINITY;
    if (kv_replay_spec_open(&spec, text, &setting, s->u->c->seed, &s->last) == 0) {
        if (kv_tuning_forecast(&s->u->t, &spec, &s->u->t.train, &f, &s->last) == 0) {
            value = log(fmax(f.kl_nats, 1e-12)) + 100 * fmax(0, f.cost / s->u->t.budget.limit - 1);
            s->answered++;
        }
        kv_replay_spec_close(&spec);
    }
    free(text);
    return value;
}

static int add_found(struct tune *u, const struct template *t, struct kv_error *e) {
    const char *method = kv_opt(u->c, "method");
    struct seeking s = {.u = u, .template = t};
    struct kv_search search = {
        .n = t->n, .low = t->low, .high = t->high, .value = seek, .self = &s, .seed = u->c->seed};
    double best[KV_SEARCH_MAX], value, start = kv_now_s(), cpu = kv_cpu_time_s();
    long tries;
    int rc = kv_opt_int(u->c, "tries", 1, 100000000, &tries, e), m = 0;
    if (rc) return rc;
    while (kv_search_methods[m] && strcmp(kv_search_methods[m], method) != 0) m++;
    if (!kv_search_methods[m])
        return kv_fail(e, KV_EUSAGE, "--method",
                       "%s: grid, random, simplex or anneal is expected, or greedy-exact for "
                       "families",
                       method);
    search.method = (enum kv_search_method)m;
    search.tries = (size_t)tries;
    rc = kv_search_run(&search, best, &value, e);
    if (rc) return rc;
    if (s.answered == 0) {
        *e = s.last;
        return e->code;
    }
    kv_say("%s: %zu policies on %zu items in %.1f s (%.1f s of CPU)", method, search.tried,
           u->t.train.n, kv_now_s() - start, kv_cpu_time_s() - cpu);
    return add(u, fill_template(t, best), kv_strdup(method), search.tried, NAN, e);
}

// ---- words ----------------------------------------------------------------------------

static int add_word(struct tune *u, const char *word, struct kv_error *e) {
    char *policy, *format, **list;
    enum kv_family family;
    struct template t;
    size_t n;
    int rc = kv_spec_split(word, &policy, &format, e);
    if (rc) return rc;
    bool ranges = cut_template(word, &t);
    char *plan, *how;
    if (strcmp(policy, "kvtuner") == 0) {
        rc = kv_tuning_kvtuner(&u->t, format ? format : "sym", &plan, &how, e);
        if (rc == 0) rc = add(u, plan, how, 0, NAN, e);
    } else if (family_of(policy, &family))
        rc = add_plan(u, word, family, format ? format : "sym", e);
    else if (ranges)
        rc = add_found(u, &t, e);
    else if ((rc = kv_spec_expand(word, &list, &n, e)) == 0) {
        for (size_t i = 0; i < n && rc == 0; i++)
            rc = add(u, kv_strdup(list[i]), kv_strdup("as given"), 0, NAN, e);
        kv_list_free(list, n);
    }
    free(t.text);
    free(policy);
    free(format);
    return rc;
}

// ---- confirming -----------------------------------------------------------------------

static int take(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    struct tune *u = self;
    struct entry *x = &u->at[spec];
    size_t i = item - u->t.test.first;
    (void)e;
    x->kl[i] = o->kl_nats;
    x->weight[i] = o->n_scored;
    bool judged = o->gold >= 0 && o->pick[KV_ACC] >= 0;
    x->acc[i] = judged ? o->pick[KV_ACC] == o->gold : NAN;
    x->agree[i] = judged ? o->pick[KV_ACC] == o->pick_ref[KV_ACC] : NAN;
    return 0;
}

static int confirm(struct tune *u, struct kv_error *e) {
    int rc = open_model(u, e);
    if (rc) return rc;
    struct kv_replay_spec *specs = kv_alloc(u->n, sizeof *specs);
    for (size_t i = 0; i < u->n; i++) {
        double **arrays[] = {&u->at[i].kl, &u->at[i].weight, &u->at[i].acc, &u->at[i].agree};
        for (size_t k = 0; k < 4; k++) *arrays[k] = kv_alloc(u->t.test.n, sizeof(double));
        specs[i] = u->at[i].spec;
    }
    rc = kv_tuning_replay(&u->t, u->model, specs, u->n, &u->t.test, false, take, u, e);
    free(specs);
    return rc;
}

// ---- table ----------------------------------------------------------------------------

static double exact_kl(const struct entry *x, const struct tune *u) {
    return x->kl ? kv_ratio_interval(x->kl, x->weight, u->t.test.n, 0.95).mean : x->test.kl_nats;
}

static double mean_of(const double *x, const struct tune *u) {
    return x ? kv_mean_interval(x, u->t.test.n, 0.95).mean : NAN;
}

static int print(struct tune *u, struct kv_error *e) {
    static const char *const units[] = {"bits", "bytes_per_token", "ms"};
    bool accuracy = strcmp(kv_opt(u->c, "objective"), "accuracy") == 0;
    const struct kv_column columns[] = {{"spec", KV_LEFT},
                                        {"chosen_by", KV_LEFT},
                                        {"tried", KV_RIGHT},
                                        {units[u->t.budget.unit], KV_RIGHT},
                                        {"kl_train_predicted", KV_RIGHT},
                                        {"kl_test_predicted", KV_RIGHT},
                                        {"kl_test_exact", KV_RIGHT},
                                        {"kl_test_error", KV_RIGHT},
                                        {"acc", KV_RIGHT},
                                        {"agree16", KV_RIGHT},
                                        {"gap_pct", KV_RIGHT},
                                        {"in_budget", KV_LEFT},
                                        {"kl_verified", KV_RIGHT}};
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    size_t *order = kv_alloc(u->n + 1, sizeof *order);
    for (size_t i = 0; i < u->n; i++) {
        size_t at = i;
        double key = accuracy ? -mean_of(u->at[i].acc, u) : exact_kl(&u->at[i], u);
        for (; at > 0; at--) {
            const struct entry *y = &u->at[order[at - 1]];
            if (!((accuracy ? -mean_of(y->acc, u) : exact_kl(y, u)) > key)) break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    for (size_t k = 0; k < u->n; k++) {
        const struct entry *x = &u->at[order[k]];
        struct kv_mean kl = {.mean = NAN, .standard_error = NAN};
        if (x->kl) kl = kv_ratio_interval(x->kl, x->weight, u->t.test.n, 0.95);
        kv_table_text(t, x->text);
        kv_table_text(t, x->how);
        kv_table_count(t, (long long)x->tried);
        kv_table_number(t, x->test.cost, 3);
        kv_table_number(t, x->train.kl_nats, 6);
        kv_table_number(t, x->test.kl_nats, 6);
        kv_table_number(t, kl.mean, 6);
        kv_table_number(t, kl.standard_error, 6);
        kv_table_number(t, mean_of(x->acc, u), 4);
        kv_table_number(t, mean_of(x->agree, u), 4);
        kv_table_number(t, 100 * x->gap, 3);
        kv_table_text(t, isnan(x->test.cost)                        ? ""
                         : x->test.cost <= u->t.budget.limit * 1.02 ? "yes"
                                                                    : "no");
        kv_table_number(t, x->verified, 6);
    }
    free(order);
    return kv_table_print(t, u->c->output, e);
}

// ---- command --------------------------------------------------------------------------

static int tune(struct kv_cli *c, struct kv_error *e) {
    struct tune u = {.c = c};
    const char *objective = kv_opt(c, "objective");
    if (strcmp(objective, "kl") != 0 && strcmp(objective, "accuracy") != 0)
        return kv_fail(e, KV_EUSAGE, "--objective", "%s: kl or accuracy is expected", objective);
    u.greedy = strcmp(kv_opt(c, "method"), "greedy-exact") == 0;
    if (u.greedy && kv_opt(c, "no-exact"))
        return kv_fail(e, KV_EUSAGE, "--method",
                       "greedy-exact replays plans exactly, which --no-exact forbids");
    int rc = 0;
    if (kv_opt(c, "widths"))
        rc = kv_opt_numbers(c, "widths", 0, 16, u.widths, KV_MAX_WIDTHS, &u.n_widths, e);
    if (rc == 0) rc = kv_opt_int(c, "evaluations", 1, 1000000, &u.evaluations, e);
    if (rc == 0) rc = kv_opt_int(c, "verify", 1, 1000000, &u.verify, e);
    if (rc == 0) rc = kv_tuning_open(&u.t, c, e);
    if (rc) return rc;
    rc = kv_tuning_budget(&u.t, c, e);
    for (size_t i = 1; i < c->n_args && rc == 0 && !u.interrupted; i++)
        rc = add_word(&u, c->args[i], e);
    if (rc == 0 && !kv_opt(c, "no-exact") && !u.interrupted) rc = confirm(&u, e);
    if (rc == 0) rc = print(&u, e);
    if (rc == 0 && u.interrupted)
        rc = kv_fail(e, KV_EINTR, "tune",
                     "interrupted: the plans found until then are printed, and not confirmed");
    for (size_t i = 0; i < u.n; i++) {
        struct entry *x = &u.at[i];
        void *blocks[] = {x->text, x->how, x->kl, x->weight, x->acc, x->agree};
        for (size_t k = 0; k < sizeof blocks / sizeof *blocks; k++) free(blocks[k]);
        kv_replay_spec_close(&x->spec);
    }
    free(u.at);
    kv_model_close(u.model);
    kv_tuning_close(&u.t);
    return rc;
}

static const struct kv_option options[] = {
    {"budget", 'b', "B", "bits=4",
     "bits=N (allocated, a value), bytes=N (a token) or ms=X@DEVICE (a step)"},
    {"objective", 0, "NAME", "kl",
     "kl, or accuracy: it falls with kl, so the same plans are chosen and rows are ranked by it"},
    {"method", 0, "NAME", "simplex",
     "for parameters given as ranges: grid, random, simplex, anneal; for families: greedy-exact, "
     "swaps from the best plan that exact replay verifies"},
    {"tries", 0, "N", "300", "policies tried in such a search"},
    {"evaluations", 0, "N", "200", "plans that greedy-exact replays"},
    {"verify", 0, "N", "8", "items that it replays them on, the first of --train"},
    {"widths", 0, "LIST", NULL, "widths a plan may use (default: all that the format offers)"},
    {"train", 0, "A-B", NULL, "items that plans are chosen on (default: the first half)"},
    {"items", 0, "A-B", NULL, "items that they are judged on (default: the others)"},
    {"mean", 0, "NAME", "plain",
     "of damage over the train items: plain, or robust (median of the means of eight parts)"},
    {"form", 0, "FORM", NULL, "of damage: iso, element, vector (default: element, else iso)"},
    {"context", 'c', "N", "2048", "context in tokens at which a budget in ms is meant"},
    {"model", 'm', "MODEL", NULL, "the trace's model, for exact replay (default: as in replay)"},
    KV_COMPUTE_OPTION,
    {"no-exact", 0, NULL, NULL, "print predictions without confirming them"},
    {0}};

const struct kv_command kv_cmd_tune = {
    .name = "tune",
    .summary = "finds policies of least divergence within a budget, and confirms them",
    .usage = "TRACE FAMILY|SPEC...",
    .example = "kvsim tune work/samples.trace --budget bits=5 static@asym:group=32 "
               "layerwise:by=head@asym:group=32 "
               "'threshold:feature=rarity,quantiles=0..1,bits=3/5@asym:group=32'",
    .options = options,
    .min_args = 2,
    .max_args = 100000,
    .run = tune};
