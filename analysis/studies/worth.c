// SPDX-License-Identifier: Apache-2.0
// Predicted divergence of picks, of their shuffle and of the threshold rule at equal bits.
#include "analysis/studies/worth.h"

#include <stdlib.h>

#include "sim/base/memory.h"

enum { SHUFFLES = 8 };

// One item with a class a token, all cells of a token stored alike.
static double item_kl(const struct kv_worth_items *in, size_t item, const uint8_t *class) {
    size_t n = kv_trace_item(in->trace, item)->n_tokens,
           cells = kv_cells(&kv_trace_info(in->trace)->shape);
    uint8_t *all = kv_alloc(n * cells, 1);
    for (size_t t = 0; t < n; t++) memset(all + t * cells, (int)in->width[class[t]], cells);
    double kl = kv_fisher_kl(in->trace, item, in->table, in->n_widths, all, NULL);
    free(all);
    return kl;
}

static double shuffled_kl(const struct kv_worth_items *in, size_t item, const uint8_t *class,
                          uint64_t seed) {
    size_t n = kv_trace_item(in->trace, item)->n_tokens;
    uint8_t *mixed = kv_alloc(n, 1);
    double sum = 0;
    for (size_t s = 0; s < SHUFFLES; s++) {
        memcpy(mixed, class, n);
        for (size_t t = n; t-- > 1;) {
            size_t j = (size_t)(kv_draw(seed, 9000 + item * SHUFFLES + s, t) * (double)(t + 1));
            uint8_t swap = mixed[t];
            mixed[t] = mixed[j];
            mixed[j] = swap;
        }
        sum += item_kl(in, item, mixed) / SHUFFLES;
    }
    free(mixed);
    return sum;
}

struct ranked {
    double rank;
    size_t token;
};

static int by_rank(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

// The tokens that count, lowest rank first, get the classes in order, each as often as it was
// picked.
static void follow_rule(const struct kv_worth_items *in, const uint8_t *picked, uint8_t *rule) {
    const struct kv_trace_info *info = kv_trace_info(in->trace);
    struct ranked *order = kv_alloc(info->n_tokens + 1, sizeof *order);
    size_t n = 0, count[KV_MAX_WIDTHS] = {0}, first = 0, next = 0;
    for (size_t i = 0; i < info->n_items; first += kv_trace_item(in->trace, i++)->n_tokens)
        for (size_t t = 0; in->part[i] == in->counted && t < kv_trace_item(in->trace, i)->n_tokens;
             t++) {
            order[n++] = (struct ranked){in->rank[first + t], first + t};
            count[picked[first + t]]++;
        }
    qsort(order, n, sizeof *order, by_rank);
    for (size_t k = 0; k < in->n_classes; k++)
        while (count[k]--) rule[order[next++].token] = (uint8_t)k;
    free(order);
}

void kv_worth_measure(struct kv_worth *w, const struct kv_worth_items *in, const uint8_t *picked,
                      uint64_t seed) {
    const struct kv_trace_info *info = kv_trace_info(in->trace);
    uint8_t *rule = kv_alloc(info->n_tokens + 1, 1);
    double squares = 0;
    size_t first = 0, tokens = 0;
    *w = (struct kv_worth){0};
    follow_rule(in, picked, rule);
    for (size_t i = 0; i < info->n_items; first += kv_trace_item(in->trace, i++)->n_tokens) {
        size_t n = kv_trace_item(in->trace, i)->n_tokens;
        if (in->part[i] != in->counted || n == 0) continue;
        double kl = item_kl(in, i, picked + first), by_rule = item_kl(in, i, rule + first);
        for (size_t t = 0; t < n; t++) w->bits += in->bits[picked[first + t]];
        tokens += n;
        w->n++;
        w->kl += kl;
        w->rule_kl += by_rule;
        w->shuffle_kl += shuffled_kl(in, i, picked + first, seed);
        w->gain += by_rule - kl;
        squares += (by_rule - kl) * (by_rule - kl);
    }
    free(rule);
    double n = (double)w->n;
    double *means[] = {&w->kl, &w->rule_kl, &w->shuffle_kl, &w->gain};
    for (size_t i = 0; i < 4; i++) *means[i] /= n;
    w->bits /= (double)tokens;
    w->gain_error = w->n > 1 ? sqrt(fmax(squares / n - w->gain * w->gain, 0) / (n - 1)) : NAN;
}

bool kv_worth_better(const struct kv_worth *w) {
    return w->n > 1 && w->gain > 2 * w->gain_error;
}
