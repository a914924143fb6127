// SPDX-License-Identifier: Apache-2.0
// Solving a multiple-choice knapsack: hull, greedy fill, dynamic programming with a core.
#include "policies/knapsack.h"

#include <stdlib.h>

// A step along a group's hull: from one option to the next dearer one.
struct step {
    double slope; // loss saved a unit of cost
    uint32_t group, hull_place;
    uint8_t to;
};

// Steepest first; a group's own steps in their order, and equal ones by group, so that the answer
// does not depend on the sort.
static int steepest(const void *a, const void *b) {
    const struct step *x = a, *y = b;
    if (x->slope != y->slope) return x->slope < y->slope ? 1 : -1;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    return (x->hull_place > y->hull_place) - (x->hull_place < y->hull_place);
}

// The group's options on its lower convex hull, by rising cost: each saves loss, each step less a
// unit than the one before. Returns their number.
static size_t lower_hull(const double *cost, const double *loss, size_t n, uint8_t *hull) {
    uint8_t order[255];
    size_t m = 0, on = 0;
    for (size_t o = 0; o < n; o++) { // insertion by cost, then loss
        if (isinf(loss[o])) continue;
        size_t at = m++;
        while (at > 0 && (cost[order[at - 1]] > cost[o] ||
                          (cost[order[at - 1]] == cost[o] && loss[order[at - 1]] > loss[o]))) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = (uint8_t)o;
    }
    for (size_t i = 0; i < m; i++) {
        uint8_t o = order[i];
        if (on && loss[o] >= loss[hull[on - 1]]) continue; // dearer and no better
        while (on >= 2) {
            uint8_t a = hull[on - 2], b = hull[on - 1];
            double before = (loss[a] - loss[b]) * (cost[o] - cost[b]),
                   after = (loss[b] - loss[o]) * (cost[b] - cost[a]);
            if (before > after) break;
            on--;
        }
        hull[on++] = o;
    }
    return on;
}

static double sum_of(const struct kv_knapsack *k, const double *table, const uint8_t *choice) {
    double sum = 0;
    for (size_t g = 0; g < k->n_groups; g++) sum += table[g * k->n_options + choice[g]];
    return sum;
}

// Steps by steepness while they fit: the relaxation's answer up to its one broken step, whose slope
// is the multiplier; then every later step that still fits.
static void follow_hulls(const struct kv_knapsack *k, const struct step *steps, size_t n_steps,
                         uint8_t *choice, double *multiplier, double *bound) {
    double cost = sum_of(k, k->cost, choice), loss = sum_of(k, k->loss, choice);
    bool broken = false;
    uint8_t *stopped = calloc(k->n_groups, 1); // a group that skipped a step takes no later one
    *multiplier = 0;
    for (size_t i = 0; i < n_steps; i++) {
        const struct step *s = &steps[i];
        if (stopped && stopped[s->group]) continue;
        const double *c = k->cost + s->group * k->n_options, *l = k->loss + s->group * k->n_options;
        uint8_t from = choice[s->group];
        double dearer = c[s->to] - c[from];
        if (cost + dearer > k->budget) {
            if (!broken) {
                *bound = loss - s->slope * (k->budget - cost);
                *multiplier = s->slope;
            }
            broken = true;
            if (!stopped) return;
            stopped[s->group] = 1;
            continue;
        }
        cost += dearer;
        loss += l[s->to] - l[from];
        choice[s->group] = s->to;
    }
    if (!broken) *bound = loss; // everything fits: each group has its least loss
    free(stopped);
}

// What is left of the budget goes to options off the hull too: the largest saving that fits, group
// after group, until a round changes nothing.
static void fill(const struct kv_knapsack *k, uint8_t *choice) {
    double left = k->budget - sum_of(k, k->cost, choice);
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t g = 0; g < k->n_groups; g++) {
            const double *c = k->cost + g * k->n_options, *l = k->loss + g * k->n_options;
            uint8_t best = choice[g];
            for (size_t o = 0; o < k->n_options; o++)
                if (l[o] < l[best] && c[o] - c[choice[g]] <= left) best = (uint8_t)o;
            if (best == choice[g]) continue;
            left -= c[best] - c[choice[g]];
            choice[g] = best;
            changed = true;
        }
    }
}

// ---- dynamic programming -----------------------------------------------------------------

// A partial answer over the first groups that still have a choice.
struct state {
    double cost, loss;
    uint32_t parent;
    uint8_t option;
};

struct core {
    const struct kv_knapsack *k;
    double multiplier, gap;
    uint32_t *group; // groups in which more than one option fits the gap
    size_t n;
    double fixed_cost;     // of the others
    double *cheapest;      // [n + 1] cost that groups i.. need at least
    double *reduced_least; // [n] least loss + multiplier cost of each
};

// The loss by which an option is worse than its group's best under the multiplier.
static double reduced(const struct core *c, size_t g, size_t o, double least) {
    const struct kv_knapsack *k = c->k;
    return k->loss[g * k->n_options + o] + c->multiplier * k->cost[g * k->n_options + o] - least;
}

static double least_reduced(const struct core *c, size_t g) {
    double least = INFINITY;
    for (size_t o = 0; o < c->k->n_options; o++) least = fmin(least, reduced(c, g, o, 0));
    return least;
}

// Sets aside the groups whose best option alone can be part of a better answer.
static void find_core(struct core *c, uint8_t *choice) {
    const struct kv_knapsack *k = c->k;
    for (size_t g = 0; g < k->n_groups; g++) {
        double least = least_reduced(c, g);
        size_t fits = 0, only = 0;
        for (size_t o = 0; o < k->n_options; o++)
            if (reduced(c, g, o, least) <= c->gap) {
                fits++;
                only = o;
            }
        if (fits == 1) {
            choice[g] = (uint8_t)only;
            c->fixed_cost += k->cost[g * k->n_options + only];
        } else {
            c->reduced_least[c->n] = least;
            c->group[c->n++] = (uint32_t)g;
        }
    }
    c->cheapest[c->n] = 0;
    for (size_t i = c->n; i-- > 0;) {
        double cheap = INFINITY;
        for (size_t o = 0; o < k->n_options; o++)
            if (reduced(c, c->group[i], o, c->reduced_least[i]) <= c->gap)
                cheap = fmin(cheap, k->cost[c->group[i] * k->n_options + o]);
        c->cheapest[i] = c->cheapest[i + 1] + cheap;
    }
}

static int cheaper(const void *a, const void *b) {
    const struct state *x = a, *y = b;
    if (x->cost != y->cost) return x->cost < y->cost ? -1 : 1;
    if (x->loss != y->loss) return x->loss < y->loss ? -1 : 1;
    if (x->parent != y->parent) return x->parent < y->parent ? -1 : 1;
    return (x->option > y->option) - (x->option < y->option);
}

// Extends each of n states by group i's options into `next`, keeping those that can still lead to a
// better answer and that no cheaper one beats; least_so_far: least reduced losses up to group i.
// Returns their number, or SIZE_MAX when there is no room.
static size_t extend(const struct core *c, size_t i, const struct state *states, size_t n,
                     double slack, double least_so_far, struct state *next, size_t room) {
    const struct kv_knapsack *k = c->k;
    size_t g = c->group[i], m = 0;
    for (size_t s = 0; s < n; s++)
        for (size_t o = 0; o < k->n_options; o++) {
            struct state t = {states[s].cost + k->cost[g * k->n_options + o],
                              states[s].loss + k->loss[g * k->n_options + o], (uint32_t)s,
                              (uint8_t)o};
            if (t.loss + c->multiplier * t.cost - least_so_far > c->gap) continue;
            if (t.cost + c->cheapest[i + 1] > slack) continue;
            if (m == room) return SIZE_MAX;
            next[m++] = t;
        }
    qsort(next, m, sizeof *next, cheaper);
    size_t kept = 0;
    for (size_t s = 0; s < m; s++)
        if (kept == 0 || next[s].loss < next[kept - 1].loss) next[kept++] = next[s];
    return kept;
}

// Improves `choice` to the best answer and returns true, or gives up.
static bool solve_core(struct core *c, uint8_t *choice) {
    const struct kv_knapsack *k = c->k;
    struct state *all = malloc(k->max_states * sizeof *all);
    size_t *from = calloc(c->n + 2, sizeof *from);
    bool solved = all && from && k->max_states > 1;
    double slack = k->budget - c->fixed_cost, least_so_far = 0;
    if (solved) {
        all[0] = (struct state){0};
        from[1] = 1; // states of level i lie in [from[i], from[i + 1])
    }
    for (size_t i = 0; i < c->n && solved; i++) {
        least_so_far += c->reduced_least[i];
        size_t kept = extend(c, i, all + from[i], from[i + 1] - from[i], slack, least_so_far,
                             all + from[i + 1], k->max_states - from[i + 1]);
        solved = kept != SIZE_MAX && kept > 0;
        if (solved) from[i + 2] = from[i + 1] + kept;
    }
    if (solved) { // the dearest state of the last level has the least loss
        size_t at = from[c->n + 1] - 1;
        for (size_t i = c->n; i-- > 0;) {
            choice[c->group[i]] = all[at].option;
            at = from[i] + all[at].parent;
        }
    }
    free(all);
    free(from);
    return solved;
}

static void improve(const struct kv_knapsack *k, double multiplier, uint8_t *choice,
                    struct kv_knapsack_result *r) {
    size_t n = k->n_groups;
    struct core c = {.k = k, .multiplier = multiplier};
    // A hair more than the gap, so that the answer at hand survives its own rounding.
    c.gap = (r->loss - r->bound) * (1 + 1e-9) + 1e-12 * fabs(r->bound);
    c.group = malloc(n * sizeof *c.group);
    c.cheapest = malloc((n + 1) * sizeof *c.cheapest);
    c.reduced_least = malloc(n * sizeof *c.reduced_least);
    uint8_t *better = malloc(n);
    if (c.group && c.cheapest && c.reduced_least && better) {
        memcpy(better, choice, n);
        find_core(&c, better);
        if (solve_core(&c, better)) {
            double loss = sum_of(k, k->loss, better), cost = sum_of(k, k->cost, better);
            r->exact = true;
            if (loss < r->loss && cost <= k->budget) {
                memcpy(choice, better, n);
                r->loss = loss;
                r->cost = cost;
            }
        }
    }
    free(c.group);
    free(c.cheapest);
    free(c.reduced_least);
    free(better);
}

bool kv_knapsack_solve(const struct kv_knapsack *k, uint8_t *choice, struct kv_knapsack_result *r) {
    struct step *steps = malloc(k->n_groups * k->n_options * sizeof *steps);
    size_t n_steps = 0;
    if (!steps) return false;
    for (size_t g = 0; g < k->n_groups; g++) {
        const double *c = k->cost + g * k->n_options, *l = k->loss + g * k->n_options;
        uint8_t hull[255] = {0};
        size_t n = lower_hull(c, l, k->n_options, hull);
        choice[g] = hull[0];
        for (size_t i = 1; i < n; i++)
            steps[n_steps++] =
                (struct step){(l[hull[i - 1]] - l[hull[i]]) / (c[hull[i]] - c[hull[i - 1]]),
                              (uint32_t)g, (uint32_t)i, hull[i]};
    }
    *r = (struct kv_knapsack_result){.bound = INFINITY};
    bool fits = sum_of(k, k->cost, choice) <= k->budget;
    if (fits) {
        double multiplier;
        qsort(steps, n_steps, sizeof *steps, steepest);
        follow_hulls(k, steps, n_steps, choice, &multiplier, &r->bound);
        fill(k, choice);
        r->loss = sum_of(k, k->loss, choice);
        r->cost = sum_of(k, k->cost, choice);
        r->exact = r->loss <= r->bound;
        if (!r->exact && k->max_states) improve(k, multiplier, choice, r);
    } else {
        r->loss = sum_of(k, k->loss, choice);
        r->cost = sum_of(k, k->cost, choice);
    }
    free(steps);
    return fits;
}
