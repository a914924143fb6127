// SPDX-License-Identifier: Apache-2.0
// Four ways to look for the least value of a function over a box.
#include "analysis/search/search.h"

#include <gsl/gsl_multimin.h>
#include <gsl/gsl_rng.h>
#include <gsl/gsl_siman.h>
#include <stdlib.h>

#include "policies/policy.h"

const char *const kv_search_methods[] = {"grid", "random", "simplex", "anneal", NULL};

// The best point so far, whoever asks.
struct state {
    struct kv_search *s;
    double best[KV_SEARCH_MAX], value;
};

static double ask(struct state *st, const double *x) {
    struct kv_search *s = st->s;
    double inside[KV_SEARCH_MAX];
    if (s->tried >= s->tries) return INFINITY;
    for (size_t i = 0; i < s->n; i++) inside[i] = fmin(fmax(x[i], s->low[i]), s->high[i]);
    double y = s->value(s->self, inside);
    if (s->tried++ == 0 || y < st->value) {
        st->value = y;
        memcpy(st->best, inside, s->n * sizeof *inside);
    }
    return y;
}

static void draw(const struct kv_search *s, uint64_t which, double *x) {
    for (size_t i = 0; i < s->n; i++)
        x[i] = s->low[i] + (s->high[i] - s->low[i]) * kv_draw(s->seed, which, i);
}

static void search_grid(struct state *st) {
    struct kv_search *s = st->s;
    size_t steps = (size_t)floor(pow((double)s->tries, 1 / (double)s->n) + 1e-9), total = 1;
    double x[KV_SEARCH_MAX];
    for (size_t i = 0; i < s->n; i++) total *= steps;
    for (size_t k = 0; k < total; k++) {
        for (size_t i = 0, rest = k; i < s->n; i++, rest /= steps) {
            double at = steps > 1 ? (double)(rest % steps) / (double)(steps - 1) : 0.5;
            x[i] = s->low[i] + (s->high[i] - s->low[i]) * at;
        }
        ask(st, x);
    }
}

static void search_random(struct state *st) {
    double x[KV_SEARCH_MAX];
    for (size_t k = 0; st->s->tried < st->s->tries; k++) {
        draw(st->s, k, x);
        ask(st, x);
    }
}

// ---- simplex --------------------------------------------------------------------------

// Outside the box the value rises with the distance, so that the simplex comes back.
static double walled(const gsl_vector *v, void *self) {
    struct state *st = self;
    struct kv_search *s = st->s;
    double x[KV_SEARCH_MAX], out = 0;
    for (size_t i = 0; i < s->n; i++) {
        x[i] = gsl_vector_get(v, i);
        out += (fmax(0, s->low[i] - x[i]) + fmax(0, x[i] - s->high[i])) / (s->high[i] - s->low[i]);
    }
    double y = ask(st, x);
    return isfinite(y) ? y + 10 * out : 1e6 + 10 * out;
}

static void search_simplex(struct state *st) {
    struct kv_search *s = st->s;
    gsl_multimin_fminimizer *m =
        gsl_multimin_fminimizer_alloc(gsl_multimin_fminimizer_nmsimplex2, s->n);
    gsl_vector *from = gsl_vector_alloc(s->n), *step = gsl_vector_alloc(s->n);
    gsl_multimin_function f = {walled, s->n, st};
    double x[KV_SEARCH_MAX];
    for (uint64_t start = 0; s->tried < s->tries; start++) {
        draw(s, start, x);
        for (size_t i = 0; i < s->n; i++) {
            gsl_vector_set(from, i, x[i]);
            gsl_vector_set(step, i, 0.25 * (s->high[i] - s->low[i]));
        }
        size_t before = s->tried;
        if (gsl_multimin_fminimizer_set(m, &f, from, step)) break;
        for (int round = 0; round < 60 * (int)s->n && s->tried < s->tries; round++)
            if (gsl_multimin_fminimizer_iterate(m) || gsl_multimin_fminimizer_size(m) < 1e-3) break;
        if (s->tried == before) break;
    }
    gsl_multimin_fminimizer_free(m);
    gsl_vector_free(from);
    gsl_vector_free(step);
}

// ---- annealing ------------------------------------------------------------------------

struct place {
    struct state *st;
    double x[KV_SEARCH_MAX];
};

static double energy(void *p) {
    struct place *at = p;
    double y = ask(at->st, at->x);
    return isfinite(y) ? y : 1e6;
}

static void step(const gsl_rng *r, void *p, double size) {
    struct place *at = p;
    const struct kv_search *s = at->st->s;
    for (size_t i = 0; i < s->n; i++) {
        double wide = s->high[i] - s->low[i],
               x = at->x[i] + size * wide * (2 * gsl_rng_uniform(r) - 1);
        while (x < s->low[i] || x > s->high[i])
            x = x < s->low[i] ? 2 * s->low[i] - x : 2 * s->high[i] - x;
        at->x[i] = x;
    }
}

static double distance(void *a, void *b) {
    const struct place *p = a, *q = b;
    double sum = 0;
    for (size_t i = 0; i < p->st->s->n; i++) sum += fabs(p->x[i] - q->x[i]);
    return sum;
}

// Temperatures suit values that are logarithms: a tenth is a tenth of the divergence.
static void search_anneal(struct state *st) {
    struct kv_search *s = st->s;
    gsl_rng *r = gsl_rng_alloc(gsl_rng_mt19937);
    double cooling = pow(0.5 / 0.005, 1.0 / fmax(1, (double)s->tries));
    gsl_siman_params_t how = {.n_tries = 1,
                              .iters_fixed_T = 1,
                              .step_size = 0.2,
                              .k = 1,
                              .t_initial = 0.5,
                              .mu_t = cooling,
                              .t_min = 0.005};
    struct place at = {.st = st};
    gsl_rng_set(r, (unsigned long)s->seed);
    draw(s, 0, at.x);
    gsl_siman_solve(r, &at, energy, step, distance, NULL, NULL, NULL, NULL, sizeof at, how);
    gsl_rng_free(r);
}

// ---- running --------------------------------------------------------------------------

int kv_search_run(struct kv_search *s, double *best, double *value, struct kv_error *e) {
    static void (*const methods[])(struct state *) = {search_grid, search_random, search_simplex,
                                                      search_anneal};
    struct state st = {.s = s, .value = INFINITY};
    if (s->n == 0 || s->n > KV_SEARCH_MAX)
        return kv_fail(e, KV_EUSAGE, "search", "%zu parameters: 1 to %d are expected", s->n,
                       KV_SEARCH_MAX);
    for (size_t i = 0; i < s->n; i++)
        if (!(s->low[i] < s->high[i]))
            return kv_fail(e, KV_EUSAGE, "search", "parameter %zu runs from %g to %g", i + 1,
                           s->low[i], s->high[i]);
    s->tried = 0;
    gsl_error_handler_t *handler = gsl_set_error_handler_off();
    methods[s->method](&st);
    gsl_set_error_handler(handler);
    memcpy(best, st.best, s->n * sizeof *best);
    *value = st.value;
    return 0;
}
