// SPDX-License-Identifier: Apache-2.0
// The places of made tasks: lengths or pairs, and depths, from a spec's lists.
#include <stdlib.h>

#include "sim/base/args.h"
#include "sim/base/memory.h"
#include "traces/made.h"

#define DEPTHS                                                                                     \
    {                                                                                              \
        "depths", KV_LIST, "0/25/50/75/100", 0, 100, NULL, "%",                                    \
            "how much of the context stands before the fact"                                       \
    }
#define N                                                                                          \
    { "n", KV_INT, "12", 1, 100000, NULL, "items", "of each length and depth" }
#define SEED                                                                                       \
    { "seed", KV_INT, "1", 0, 1e15, NULL, NULL, "of facts and passages" }

const struct kv_param kv_needle_params[] = {
    {"lengths", KV_LIST, "512/1024/2048", 16, 1e6, NULL, "tokens", "of the contexts, at most"},
    DEPTHS,
    N,
    SEED,
    {0}};
const struct kv_param kv_recall_params[] = {
    {"pairs", KV_LIST, "8/32/64", 2, 100000, NULL, "pairs", "of a context"},
    {"lengths", KV_LIST, "", 16, 1e6, NULL, "tokens",
     "of the contexts, with as many pairs as they hold; instead of pairs"},
    DEPTHS,
    N,
    SEED,
    {0}};

static int check_list(const struct kv_value *v, const char *name, bool whole, const char *what,
                      struct kv_error *e) {
    if (v->n_list > KV_MOST_PLACES)
        return kv_fail(e, KV_EUSAGE, what, "%s has %zu numbers; at most %d are taken", name,
                       v->n_list, KV_MOST_PLACES);
    for (size_t i = 0; i < v->n_list; i++) {
        if (whole && v->list[i] != floor(v->list[i]))
            return kv_fail(e, KV_EUSAGE, what, "%s=%g is no whole number", name, v->list[i]);
        for (size_t k = 0; k < i; k++)
            if (v->list[k] == v->list[i])
                return kv_fail(e, KV_EUSAGE, what, "%s holds %g twice", name, v->list[i]);
    }
    return 0;
}

static int take_counts(const struct kv_value *v, const char *name, uint32_t *to, size_t *n,
                       const char *what, struct kv_error *e) {
    int rc = check_list(v, name, true, what, e);
    if (rc) return rc;
    for (*n = 0; *n < v->n_list; ++*n) to[*n] = (uint32_t)v->list[*n];
    return 0;
}

int kv_places_take(struct kv_tasks *t, const struct kv_args *args, const char *what,
                   struct kv_error *e) {
    struct kv_task_places *p = t->places = kv_alloc(1, sizeof *p);
    const struct kv_value *pairs = kv_arg(args, "pairs"), *lengths = kv_arg(args, "lengths"),
                          *depths = kv_arg(args, "depths");
    int rc = 0;
    if (pairs && pairs->given && lengths->given)
        rc = kv_fail(e, KV_EUSAGE, what, "lengths say how many pairs a context holds, or pairs do");
    if (rc == 0 && (!pairs || lengths->given))
        rc = take_counts(lengths, "lengths", p->lengths, &p->n_lengths, what, e);
    else if (rc == 0)
        rc = take_counts(pairs, "pairs", p->pairs, &p->n_pairs, what, e);
    if (rc == 0) rc = check_list(depths, "depths", false, what, e);
    if (rc) return rc;
    for (; p->n_depths < depths->n_list; p->n_depths++)
        p->depths[p->n_depths] = depths->list[p->n_depths];
    p->n = (uint32_t)kv_number(args, "n");
    p->seed = (uint64_t)kv_number(args, "seed");

    struct kv_text said = {0};
    for (size_t i = 0; i < p->n_lengths; i++)
        kv_text_addf(&said, "%s%u", i ? "/" : "lengths=", p->lengths[i]);
    for (size_t i = 0; i < p->n_pairs; i++)
        kv_text_addf(&said, "%s%u", i ? "/" : "pairs=", p->pairs[i]);
    for (size_t i = 0; i < p->n_depths; i++)
        kv_text_addf(&said, "%s%g", i ? "/" : ",depths=", p->depths[i]);
    kv_text_addf(&said, ",n=%u,seed=%llu", p->n, (unsigned long long)p->seed);
    free(t->prompt);
    t->prompt = kv_text_take(&said);
    return 0;
}

size_t kv_tasks_count(const struct kv_tasks *t) {
    const struct kv_task_places *p = t->places;
    return p ? (p->n_lengths + p->n_pairs) * p->n_depths * p->n : t->n_items;
}
