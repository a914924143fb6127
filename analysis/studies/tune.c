// SPDX-License-Identifier: Apache-2.0
// Searches policies on predicted divergence and confirms the winners by exact replay on items that
// they were not chosen on.
#include "analysis/studies/tune.h"

#include <stdlib.h>

#include "analysis/studies/greedy.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/replay/recorded_model.h"

const char *const kv_objectives[] = {"kl", "accuracy", NULL};

struct kv_tune_options kv_tune_defaults(void) {
    return (struct kv_tune_options){.struct_bytes = sizeof(struct kv_tune_options),
                                    .plan = kv_planner_defaults(),
                                    .method = KV_SEARCH_SIMPLEX,
                                    .tries = 300,
                                    .evaluations = 200,
                                    .verify = 8};
}

int kv_tune_check(const struct kv_tune_options *o, struct kv_error *e) {
    if (o->struct_bytes != sizeof *o)
        return kv_fail(e, KV_EUSAGE, "struct_bytes", "begin with kv_tune_defaults");
    if (o->n_words == 0) return kv_fail(e, KV_EUSAGE, "words", "there is none");
    if (o->n_widths > KV_MAX_WIDTHS)
        return kv_fail(e, KV_EUSAGE, "widths", "at most %d are expected", KV_MAX_WIDTHS);
    if (o->greedy && o->predict_only)
        return kv_fail(e, KV_EUSAGE, "method",
                       "greedy-exact replays plans exactly, which --no-exact forbids");
    if (o->tries == 0) return kv_fail(e, KV_EUSAGE, "tries", "at least 1 is expected");
    if (o->evaluations == 0) return kv_fail(e, KV_EUSAGE, "evaluations", "at least 1 is expected");
    if (o->verify == 0) return kv_fail(e, KV_EUSAGE, "verify", "at least 1 is expected");
    return kv_planner_check(&o->plan, e);
}

// One policy to confirm.
struct entry {
    struct kv_tuned found;
    struct kv_replay_spec spec;
    double *kl, *weight, *acc, *agree; // by test item; NULL until replayed
};

struct tuning {
    const struct kv_tune_options *o;
    struct kv_planner planner;
    struct kv_format_setting setting;
    struct kv_model *model; // opened when exact replay is first asked for
    bool interrupted;
    struct entry *at;
    size_t n;
};

// Takes text and how; opens the spec and foretells it, unless the user has interrupted.
static int add(struct tuning *u, char *text, char *how, size_t tried, double gap,
               struct kv_error *e) {
    struct kv_planner *p = &u->planner;
    struct entry x = {.found = {.spec = text,
                                .how = how,
                                .tried = tried,
                                .train = {NAN, NAN},
                                .test = {NAN, NAN},
                                .budget = p->limit,
                                .verified = NAN,
                                .gap = gap,
                                .kl = {.mean = NAN, .standard_error = NAN},
                                .acc = NAN,
                                .agree = NAN}};
    int rc = kv_replay_spec_open(&x.spec, text, &u->setting, p->seed, e);
    if (rc == 0) rc = kv_planner_answers(p, &x.spec, e);
    if (rc == 0 && !u->interrupted)
        rc = kv_planner_forecast(p, &x.spec, &p->train, &x.found.train, e);
    if (rc == 0 && !u->interrupted)
        rc = kv_planner_forecast(p, &x.spec, &p->test, &x.found.test, e);
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
static bool family_of(const char *policy, enum kv_plan_family *family) {
    static const struct {
        const char *text;
        enum kv_plan_family family;
    } words[] = {{"static", KV_PLAN_STATIC},
                 {"layerwise", KV_PLAN_LAYER},
                 {"layerwise:by=layer", KV_PLAN_LAYER},
                 {"layerwise:by=head", KV_PLAN_HEAD},
                 {"class", KV_PLAN_CLASS}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i].text, policy) == 0) {
            *family = words[i].family;
            return true;
        }
    return false;
}

static int open_model(struct tuning *u, struct kv_error *e) {
    return u->model ? 0
                    : kv_recorded_model_open(&u->model, kv_trace_info(u->planner.trace),
                                             u->o->model, u->o->compute, e);
}

// The plan that exact replay finds from an additive one, whose entry was added last.
static int add_greedy(struct tuning *u, const char *word, const struct kv_plan *plan,
                      struct kv_error *e) {
    struct kv_greedy g = {.planner = &u->planner,
                          .plan = plan,
                          .items = u->planner.train,
                          .evaluations = u->o->evaluations};
    double start = kv_now_s();
    int rc = open_model(u, e);
    if (rc) return rc;
    g.model = u->model;
    if (g.items.n > u->o->verify) g.items.n = u->o->verify;
    rc = kv_greedy_run(&g, e);
    if (rc == 0) {
        kv_say("%s: %zu plans on %zu items in %.0f s, %zu swaps kept%s; KL there %.6f, now %.6f",
               word, g.evaluated, g.items.n, kv_now_s() - start, g.kept,
               g.interrupted ? " until interrupted" : "", g.kl_first, g.kl_nats);
        u->at[u->n - 1].found.verified = g.kl_first;
        u->interrupted = g.interrupted;
        rc = add(u, kv_plan_text(plan, g.choice), kv_format_text("greedy-exact, %zu swaps", g.kept),
                 g.evaluated, NAN, e);
    }
    if (rc == 0) u->at[u->n - 1].found.verified = g.kl_nats;
    free(g.choice);
    return rc;
}

static int add_plan(struct tuning *u, const char *word, enum kv_plan_family family,
                    const char *format, struct kv_error *e) {
    struct kv_plan plan;
    double start = kv_now_s();
    int rc = kv_plan_find(&plan, &u->planner, family, format, u->o->widths, u->o->n_widths, e);
    if (rc) return rc;
    kv_say("%s: best widths of %zu groups in %.2f s, %s", word, plan.n_groups, kv_now_s() - start,
           plan.result.exact ? "proven" : "not proven");
    double gap = plan.result.exact ? 0 : 1 - plan.result.bound / plan.result.loss;
    rc = add(u, kv_plan_text(&plan, plan.choice),
             kv_format_text("knapsack, %zu groups", plan.n_groups), 0, gap, e);
    if (rc == 0 && u->o->greedy) rc = add_greedy(u, word, &plan, e);
    kv_plan_fini(&plan);
    return rc;
}

static int add_kvtuner(struct tuning *u, const char *format, struct kv_error *e) {
    char *plan, *how;
    int rc = kv_plan_kvtuner(&u->planner, format, &plan, &how, e);
    return rc ? rc : add(u, plan, how, 0, NAN, e);
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
    struct tuning *u;
    const struct template *template;
    struct kv_error last;
    size_t answered;
    struct kv_progress *progress;
};

// Logarithm of predicted divergence, with a wall beyond the budget.
static double seek(void *self, const double *x) {
    struct seeking *s = self;
    struct kv_planner *p = &s->u->planner;
    struct kv_replay_spec spec;
    struct kv_forecast f;
    char *text = fill_template(s->template, x);
    double value = INFINITY;
    if (kv_replay_spec_open(&spec, text, &s->u->setting, p->seed, &s->last) == 0) {
        if (kv_planner_forecast(p, &spec, &p->train, &f, &s->last) == 0) {
            value = log(fmax(f.kl_nats, 1e-12)) + 100 * fmax(0, f.cost / p->limit - 1);
            s->answered++;
        }
        kv_replay_spec_close(&spec);
    }
    free(text);
    kv_progress_step(s->progress, 1);
    return value;
}

static int add_found(struct tuning *u, const struct template *t, struct kv_error *e) {
    const char *method = kv_search_methods[u->o->method];
    struct seeking s = {.u = u, .template = t};
    struct kv_search search = {.n = t->n,
                               .low = t->low,
                               .high = t->high,
                               .value = seek,
                               .self = &s,
                               .method = u->o->method,
                               .tries = u->o->tries,
                               .seed = u->planner.seed};
    double best[KV_SEARCH_MAX], value, start = kv_now_s(), cpu = kv_cpu_time_s();
    s.progress = kv_progress_start("searching", u->o->tries, "specs");
    int rc = kv_search_run(&search, best, &value, e);
    kv_progress_end(s.progress);
    if (rc) return rc;
    if (s.answered == 0) {
        *e = s.last;
        return e->code;
    }
    kv_say("%s: %zu policies on %zu items in %.1f s (%.1f s of CPU)", method, search.tried,
           u->planner.train.n, kv_now_s() - start, kv_cpu_time_s() - cpu);
    return add(u, fill_template(t, best), kv_strdup(method), search.tried, NAN, e);
}

// ---- words ----------------------------------------------------------------------------

static int add_given(struct tuning *u, const char *word, struct kv_error *e) {
    char **list;
    size_t n;
    int rc = kv_spec_expand(word, &list, &n, e);
    struct kv_progress *progress = rc ? NULL : kv_progress_start("predicting", n, "specs");
    for (size_t i = 0; i < n && rc == 0; i++, kv_progress_step(progress, 1))
        rc = add(u, kv_strdup(list[i]), kv_strdup("as given"), 0, NAN, e);
    kv_progress_end(progress);
    kv_list_free(list, n);
    return rc;
}

static int add_word(struct tuning *u, const char *word, struct kv_error *e) {
    char *policy, *format;
    enum kv_plan_family family;
    struct template t;
    int rc = kv_spec_split(word, &policy, &format, e);
    if (rc) return rc;
    bool ranges = cut_template(word, &t);
    const char *in = format ? format : "sym";
    if (strcmp(policy, "kvtuner") == 0)
        rc = add_kvtuner(u, in, e);
    else if (family_of(policy, &family))
        rc = add_plan(u, word, family, in, e);
    else
        rc = ranges ? add_found(u, &t, e) : add_given(u, word, e);
    free(t.text);
    free(policy);
    free(format);
    return rc;
}

// ---- confirming -----------------------------------------------------------------------

static int take(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    struct tuning *u = self;
    struct entry *x = &u->at[spec];
    size_t i = item - u->planner.test.first;
    (void)e;
    x->kl[i] = o->kl_nats;
    x->weight[i] = o->n_scored;
    bool judged = o->gold >= 0 && o->pick[KV_ACC] >= 0;
    x->acc[i] = judged ? o->pick[KV_ACC] == o->gold : NAN;
    x->agree[i] = judged ? o->pick[KV_ACC] == o->pick_ref[KV_ACC] : NAN;
    return 0;
}

static int confirm(struct tuning *u, struct kv_error *e) {
    size_t n_items = u->planner.test.n;
    int rc = open_model(u, e);
    if (rc) return rc;
    struct kv_replay_spec *specs = kv_alloc(u->n, sizeof *specs);
    for (size_t i = 0; i < u->n; i++) {
        double **arrays[] = {&u->at[i].kl, &u->at[i].weight, &u->at[i].acc, &u->at[i].agree};
        for (size_t k = 0; k < 4; k++) *arrays[k] = kv_alloc(n_items, sizeof(double));
        specs[i] = u->at[i].spec;
    }
    rc = kv_planner_replay(&u->planner, u->model, specs, u->n, &u->planner.test, false, take, u, e);
    for (size_t i = 0; i < u->n && rc == 0; i++) {
        struct entry *x = &u->at[i];
        x->found.kl = kv_ratio_interval(x->kl, x->weight, n_items, 0.95);
        x->found.acc = kv_mean_interval(x->acc, n_items, 0.95).mean;
        x->found.agree = kv_mean_interval(x->agree, n_items, 0.95).mean;
    }
    free(specs);
    return rc;
}

// ---- result ---------------------------------------------------------------------------

// Smaller is better: exact divergence, or where it is not known the predicted one; or accuracy.
static double rank(const struct kv_tuned *x, enum kv_objective objective) {
    if (objective == KV_OBJECTIVE_ACCURACY) return -x->acc;
    return isnan(x->kl.mean) ? x->test.kl_nats : x->kl.mean;
}

// Hands the policies over, sorted; those that rank alike stay as they were asked for.
static void hand_over(struct tuning *u, struct kv_tune *out) {
    out->interrupted = u->interrupted;
    out->at = kv_alloc(u->n + 1, sizeof *out->at);
    for (; out->n < u->n; out->n++) {
        size_t at = out->n;
        double key = rank(&u->at[out->n].found, u->o->objective);
        for (; at > 0 && rank(&out->at[at - 1], u->o->objective) > key; at--)
            out->at[at] = out->at[at - 1];
        out->at[at] = u->at[out->n].found;
        u->at[out->n].found = (struct kv_tuned){0};
    }
}

static void close_tuning(struct tuning *u) {
    for (size_t i = 0; i < u->n; i++) {
        struct entry *x = &u->at[i];
        void *blocks[] = {x->found.spec, x->found.how, x->kl, x->weight, x->acc, x->agree};
        for (size_t k = 0; k < sizeof blocks / sizeof *blocks; k++) free(blocks[k]);
        kv_replay_spec_close(&x->spec);
    }
    free(u->at);
    kv_model_close(u->model);
    kv_planner_close(&u->planner);
}

int kv_tune_run(struct kv_tune *t, const struct kv_tune_options *o, struct kv_error *e) {
    struct tuning u = {.o = o};
    *t = (struct kv_tune){0};
    int rc = kv_tune_check(o, e);
    if (rc == 0) rc = kv_planner_open(&u.planner, &o->plan, e);
    if (rc) return rc;
    const struct kv_trace_info *in = kv_trace_info(u.planner.trace);
    u.setting = kv_trace_setting(in);
    for (size_t i = 0; i < o->n_words && rc == 0 && !u.interrupted; i++)
        rc = add_word(&u, o->words[i], e);
    if (rc == 0 && !o->predict_only && !u.interrupted) rc = confirm(&u, e);
    if (rc == 0) hand_over(&u, t);
    close_tuning(&u);
    return rc;
}

void kv_tune_fini(struct kv_tune *t) {
    for (size_t i = 0; i < t->n; i++) {
        free(t->at[i].spec);
        free(t->at[i].how);
    }
    free(t->at);
    *t = (struct kv_tune){0};
}
