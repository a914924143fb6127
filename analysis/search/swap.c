// SPDX-License-Identifier: Apache-2.0
// Probing single steps and keeping the swaps that measurement confirms.
#include "analysis/search/swap.h"

#include <stdlib.h>

#include "sim/base/memory.h"

enum { BATCH = 16 }; // plans measured in one call: an interruption loses no more
enum { PAYERS = 4 }; // cheaper steps that one dearer step may need

// A group's step to its next cheaper or dearer option.
struct step {
    size_t group;
    uint8_t to;
    double cost, change; // cost is negative for a cheaper option; change of the value: foretold,
                         // then measured
    bool probed, used;
};

struct state {
    struct kv_swap *s;
    uint8_t *choice;     // [n_groups], the plan that stands
    double *item, spent; // its value by item, its cost
    struct step *steps;  // [2 n_groups], cheaper ones first
    size_t n_down, n_steps;
};

static size_t at(const struct kv_swap *s, size_t group, size_t option) {
    return group * s->n_options + option;
}

static double sum(const double *x, size_t n) {
    double all = 0;
    for (size_t i = 0; i < n; i++) all += x[i];
    return all;
}

static size_t left(const struct state *st) {
    return st->s->evaluations - st->s->evaluated;
}

// The offered option nearest in cost on one side of the present one; false when there is none.
static bool next_option(const struct state *st, size_t group, bool dearer, struct step *step) {
    const struct kv_swap *s = st->s;
    size_t now = at(s, group, st->choice[group]);
    bool found = false;
    for (size_t o = 0; o < s->n_options; o++) {
        size_t there = at(s, group, o);
        double cost = s->cost[there] - s->cost[now];
        if (!isfinite(s->loss[there]) || (dearer ? cost <= 0 : cost >= 0)) continue;
        if (found && fabs(cost) >= fabs(step->cost)) continue;
        *step = (struct step){group, (uint8_t)o, cost, s->loss[there] - s->loss[now], false, false};
        found = true;
    }
    return found;
}

// By change for each unit of cost that is saved or spent: what helps most, or harms least, first.
static int by_worth(const void *a, const void *b) {
    const struct step *x = a, *y = b;
    double dx = x->change / fabs(x->cost), dy = y->change / fabs(y->cost);
    if (dx != dy) return dx < dy ? -1 : 1;
    return (x->group > y->group) - (x->group < y->group);
}

static void list_steps(struct state *st) {
    st->n_steps = 0;
    for (int dearer = 0; dearer < 2; dearer++) {
        size_t from = st->n_steps;
        for (size_t g = 0; g < st->s->n_groups; g++)
            st->n_steps += next_option(st, g, dearer, &st->steps[st->n_steps]);
        if (!dearer) st->n_down = st->n_steps;
        qsort(st->steps + from, st->n_steps - from, sizeof *st->steps, by_worth);
    }
}

static int measure(struct state *st, const uint8_t *plans, size_t n, double *value,
                   struct kv_error *e) {
    int rc = st->s->measure(st->s->self, plans, n, value, e);
    if (rc == KV_EINTR) st->s->interrupted = true;
    if (rc == 0) st->s->evaluated += n;
    return rc;
}

// Measures up to `most` single steps, cheaper and dearer in turn, the most promising first.
static int probe(struct state *st, size_t most, struct kv_error *e) {
    size_t n_up = st->n_steps - st->n_down, n_groups = st->s->n_groups, n_items = st->s->n_items,
           n = 0;
    struct step **list = kv_alloc(st->n_steps, sizeof(struct step *));
    for (size_t i = 0; i < st->n_down || i < n_up; i++) {
        if (i < st->n_down && n < most) list[n++] = &st->steps[i];
        if (i < n_up && n < most) list[n++] = &st->steps[st->n_down + i];
    }
    uint8_t *plans = kv_alloc(BATCH * n_groups, 1);
    double *value = kv_alloc(BATCH * n_items, sizeof *value), now = sum(st->item, n_items);
    int rc = 0;
    for (size_t from = 0, some; from < n && rc == 0; from += some) {
        some = n - from < BATCH ? n - from : BATCH;
        for (size_t i = 0; i < some; i++) {
            memcpy(plans + i * n_groups, st->choice, n_groups);
            plans[i * n_groups + list[from + i]->group] = list[from + i]->to;
        }
        rc = measure(st, plans, some, value, e);
        for (size_t i = 0; i < some && rc == 0; i++) {
            list[from + i]->change = sum(value + i * n_items, n_items) - now;
            list[from + i]->probed = true;
        }
    }
    free(list);
    free(plans);
    free(value);
    return rc;
}

struct swap {
    struct step *part[1 + PAYERS];
    size_t n;
    double change, cost;
};

// A dearer step with the cheaper ones that pay for it at the least harm.
static bool pay_for(const struct state *st, struct step *up, struct swap *w) {
    double room = st->s->budget - st->spent;
    *w = (struct swap){.part = {up}, .n = 1, .change = up->change, .cost = up->cost};
    while (w->cost > room) {
        struct step *best = NULL;
        for (size_t i = 0; i < st->n_down; i++) {
            struct step *d = &st->steps[i];
            bool taken = d->used || !d->probed || d->group == up->group;
            for (size_t k = 1; k < w->n; k++) taken |= w->part[k] == d;
            if (!taken && (!best || by_worth(d, best) < 0)) best = d;
        }
        if (!best || w->n == 1 + PAYERS) return false;
        w->part[w->n++] = best;
        w->change += best->change;
        w->cost += best->cost;
    }
    return true;
}

// Whether a plan is better than the one that stands by more than chance among items explains.
static bool better(const double *value, const double *item, size_t n) {
    double mean = 0, square = 0;
    for (size_t i = 0; i < n; i++) mean += (value[i] - item[i]) / (double)n;
    for (size_t i = 0; i < n; i++) square += pow(value[i] - item[i] - mean, 2);
    double error = n > 1 ? sqrt(square / (double)(n - 1) / (double)n) : 0;
    return mean < -2 * error;
}

// Tries the swap that the probes say is best; *more is false when none promises anything.
static int try_best(struct state *st, bool *more, struct kv_error *e) {
    struct kv_swap *s = st->s;
    struct swap best = {.change = 0}, w;
    for (size_t i = st->n_down; i < st->n_steps; i++) {
        struct step *up = &st->steps[i];
        if (up->probed && !up->used && pay_for(st, up, &w) && w.change < best.change) best = w;
    }
    *more = best.n > 0;
    if (!*more) return 0;
    uint8_t *plan = kv_alloc(s->n_groups, 1);
    double *value = kv_alloc(s->n_items, sizeof *value);
    memcpy(plan, st->choice, s->n_groups);
    for (size_t k = 0; k < best.n; k++) plan[best.part[k]->group] = best.part[k]->to;
    int rc = measure(st, plan, 1, value, e);
    best.part[0]->used = true;
    if (rc == 0 && better(value, st->item, s->n_items)) {
        memcpy(st->choice, plan, s->n_groups);
        memcpy(st->item, value, s->n_items * sizeof *value);
        st->spent += best.cost;
        s->kept++;
        for (size_t i = 0; i < st->n_steps; i++) // a group that moved was probed from elsewhere
            for (size_t k = 0; k < best.n; k++)
                if (st->steps[i].group == best.part[k]->group) st->steps[i].used = true;
    }
    free(plan);
    free(value);
    return rc;
}

int kv_swap_run(struct kv_swap *s, uint8_t *choice, struct kv_error *e) {
    struct state st = {.s = s, .choice = choice};
    s->evaluated = s->kept = 0;
    s->first_value = s->value = NAN;
    s->interrupted = false;
    st.item = kv_alloc(s->n_items, sizeof *st.item);
    st.steps = kv_alloc(2 * s->n_groups, sizeof *st.steps);
    for (size_t g = 0; g < s->n_groups; g++) st.spent += s->cost[at(s, g, choice[g])];
    int rc = measure(&st, choice, 1, st.item, e);
    if (rc == 0) s->first_value = sum(st.item, s->n_items);
    for (size_t kept = SIZE_MAX; rc == 0 && left(&st) > 1 && kept != s->kept;) {
        kept = s->kept;
        list_steps(&st);
        rc = probe(&st, (left(&st) + 1) / 2, e);
        for (bool more = true; rc == 0 && more && left(&st) > 0;) rc = try_best(&st, &more, e);
    }
    if (isfinite(s->first_value)) s->value = sum(st.item, s->n_items);
    free(st.item);
    free(st.steps);
    return rc == KV_EINTR ? 0 : rc;
}
