// SPDX-License-Identifier: Apache-2.0
// Two runs of a store side by side on the items that both hold.
#include "analysis/results/pairs.h"

#include <stdlib.h>

#include "sim/base/memory.h"

static double *numbers(size_t n) {
    return kv_alloc(n + 1, sizeof(double));
}

void kv_pairs_join(struct kv_pairs *j, const struct kv_item_result *a, size_t n_a,
                   const struct kv_item_result *b, size_t n_b) {
    size_t most = n_a < n_b ? n_a : n_b;
    *j = (struct kv_pairs){0};
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
        if (!isfinite(a[x].kl_nats) || !isfinite(b[y].kl_nats)) {
            j->n_left_out++;
            x++, y++;
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

void kv_pairs_fini(struct kv_pairs *j) {
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

struct kv_resampler *kv_pairs_resampler(const struct kv_pairs *j) {
    return kv_resampler_new(j->n, j->context, j->source);
}

int kv_pairs_likeness(const struct kv_summary *a, const struct kv_summary *b) {
    if (a->trace != b->trace) return -1;
    return (a->fidelity == b->fidelity) * 8 + (a->mode == b->mode) * 4 + (a->self == b->self) * 2 +
           (a->seed == b->seed);
}

bool kv_pairs_choose(const struct kv_summary *a, size_t n_a, const struct kv_summary *b, size_t n_b,
                     size_t *at_a, size_t *at_b) {
    int best = -1;
    for (size_t x = 0; x < n_a; x++)
        for (size_t y = 0; y < n_b; y++) {
            int likeness = kv_pairs_likeness(&a[x], &b[y]);
            if (likeness <= best) continue;
            best = likeness;
            *at_a = x;
            *at_b = y;
        }
    return best >= 0;
}
