// SPDX-License-Identifier: Apache-2.0
// The best three runs of layers, by trying all.
#include "sim/runtimes/layer_runs.h"
#include "sim/base/memory.h"

#include <stdlib.h>

// lost[w][l]: of the first l layers at width w.
struct search {
    size_t n;
    double most;
    const double *lost[17];
    double damage, bits; // of the best
    struct kv_runs_of_layers best;
};

static double lost_in(const struct search *s, unsigned w, size_t from, size_t to) {
    return s->lost[w][to] - s->lost[w][from];
}

static void try_runs(struct search *s, struct kv_runs_of_layers r) {
    size_t between = s->n - r.first - r.last;
    double bits = (double)(r.first * r.a + between * r.b + r.last * r.c);
    if (bits > s->most * (double)s->n + 1e-9) return;
    double damage = lost_in(s, r.a, 0, r.first) + lost_in(s, r.b, r.first, s->n - r.last) +
                    lost_in(s, r.c, s->n - r.last, s->n);
    double least = s->damage * (1 - 1e-12) - 1e-300;
    bool same = damage >= least && damage <= s->damage * (1 + 1e-12) + 1e-300;
    if (damage < least || (same && bits < s->bits)) {
        s->damage = damage;
        s->bits = bits;
        s->best = r;
    }
}

struct kv_runs_of_layers kv_runs_best(const double *wanted, size_t n, uint32_t widths,
                                      double most) {
    struct search s = {.n = n, .most = most, .damage = INFINITY, .bits = INFINITY};
    unsigned w[17];
    size_t n_widths = 0;
    double *lost = kv_alloc(17 * (n + 1), sizeof *lost);
    for (unsigned b = 1; b <= 16; b++) {
        if (!(widths >> b & 1)) continue;
        double *own = lost + b * (n + 1);
        for (size_t l = 0; l < n; l++)
            own[l + 1] = own[l] + fmax(0, pow(4, -(double)b) - pow(4, -wanted[l]));
        s.lost[b] = own;
        w[n_widths++] = b;
    }
    // Ends of no layers have the width of those between: each plan is tried once, short ends first.
    for (size_t ends = 0; ends <= n; ends++)
        for (size_t first = 0; first <= ends; first++)
            for (size_t j = 0; j < n_widths; j++)
                for (size_t i = 0; i < n_widths; i++)
                    for (size_t k = 0; k < n_widths; k++) {
                        struct kv_runs_of_layers r = {first, ends - first, w[i], w[j], w[k]};
                        if ((r.a == r.b) == (r.first > 0) || (r.c == r.b) == (r.last > 0)) continue;
                        try_runs(&s, r);
                    }
    free(lost);
    return s.best;
}
