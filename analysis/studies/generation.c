// SPDX-License-Identifier: Apache-2.0
// Survival, agreement and ratios of divergences of what was generated.
#include "analysis/studies/generation.h"

#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"

const unsigned kv_generation_marks[KV_GENERATION_MARKS] = {16, 32, 64, 128};

enum { DRAWS = 2000 };

// Sums of an item over some of its positions.
struct sums {
    double own, forced, equal;
    size_t n;
};

static uint32_t shorter(const struct kv_generated_row *x) {
    return x->n_own < x->n_reference ? x->n_own : x->n_reference;
}

// Positions [from, to) that both sequences have and at which both divergences are known.
static struct sums sum_of(const struct kv_generated_row *x, uint32_t from, uint32_t to) {
    struct sums s = {0};
    if (to > shorter(x)) to = shorter(x);
    for (uint32_t t = from; t < to; t++) {
        if (!isfinite(x->own_kl[t]) || !isfinite(x->forced_kl[t])) continue;
        s.own += x->own_kl[t];
        s.forced += x->forced_kl[t];
        s.equal += x->own[t] == x->reference[t];
        s.n++;
    }
    return s;
}

struct resampled {
    const struct kv_resampler *r;
    uint32_t *times;
    double *drawn; // [DRAWS]
    uint64_t seed;
};

// value(sums of a draw) over prompts, its percentile interval.
static struct kv_interval bootstrap(struct resampled *b, const struct sums *item, size_t n,
                                    double (*value)(const struct sums *s)) {
    size_t known = 0;
    for (uint64_t d = 0; d < DRAWS; d++) {
        struct sums s = {0};
        kv_resampler_draw(b->r, b->seed, d, b->times);
        for (size_t i = 0; i < n; i++) {
            s.own += b->times[i] * item[i].own;
            s.forced += b->times[i] * item[i].forced;
            s.equal += b->times[i] * item[i].equal;
            s.n += b->times[i] * item[i].n;
        }
        double x = value(&s);
        if (isfinite(x)) b->drawn[known++] = x;
    }
    // A ratio whose draws often have nothing below the line has no interval.
    if (n < 2 || known < DRAWS * 9 / 10) return (struct kv_interval){NAN, NAN};
    return kv_percentile_interval(b->drawn, known, kv_expanded_confidence((double)n, 0.95));
}

static double ratio_of(const struct sums *s) {
    return s->forced > 0 ? s->own / s->forced : NAN;
}

static double agreement_of(const struct sums *s) {
    return s->n ? s->equal / (double)s->n : NAN;
}

static struct sums total(const struct sums *item, size_t n) {
    struct sums s = {0};
    for (size_t i = 0; i < n; i++) {
        s.own += item[i].own;
        s.forced += item[i].forced;
        s.equal += item[i].equal;
        s.n += item[i].n;
    }
    return s;
}

static struct kv_generation_ratio compare(struct resampled *b, const struct sums *item, size_t n) {
    struct sums s = total(item, n);
    double per = s.n ? 1.0 / (double)s.n : NAN;
    return (struct kv_generation_ratio){.own = s.own * per,
                                        .forced = s.forced * per,
                                        .ratio = ratio_of(&s),
                                        .interval = bootstrap(b, item, n, ratio_of),
                                        .tokens = s.n};
}

static struct kv_generation_row row_of(const struct kv_generation *g, uint64_t seed) {
    struct kv_generation_row row = {.g = g, .n = g->n};
    struct sums *item = kv_alloc(g->n + 1, sizeof *item);
    double *time = kv_alloc(g->n + 1, sizeof *time);
    bool *parted = kv_alloc(g->n + 1, sizeof *parted);
    struct kv_resampler *r = kv_resampler_new(g->n, NULL, NULL);
    struct resampled b = {.r = r,
                          .times = kv_alloc(g->n + 1, sizeof(uint32_t)),
                          .drawn = kv_alloc(DRAWS, sizeof(double)),
                          .seed = seed};
    for (size_t i = 0; i < g->n; i++) {
        const struct kv_generated_row *x = &g->item[i];
        parted[i] = x->parted;
        time[i] = x->equal + (x->parted ? 1.0 : 0.0);
        row.n_parted += x->parted;
        row.n_broken += x->broken;
        row.tokens += x->n_own;
        item[i] = sum_of(x, 0, UINT32_MAX);
    }
    row.curve = kv_survival_new(time, parted, g->n, 0.95);
    row.median = kv_survival_quantile(row.curve, 0.5);
    for (size_t m = 0; m < KV_GENERATION_MARKS; m++)
        row.at[m] = kv_survival_at(row.curve, kv_generation_marks[m]);
    struct sums all = total(item, g->n);
    row.agreement = agreement_of(&all);
    row.agreement_interval = bootstrap(&b, item, g->n, agreement_of);
    row.all = compare(&b, item, g->n);
    for (size_t i = 0; i < g->n; i++)
        item[i] = g->item[i].parted ? sum_of(&g->item[i], g->item[i].equal + 1, UINT32_MAX)
                                    : (struct sums){0};
    row.parted = compare(&b, item, g->n);
    for (uint32_t q = 0; q < KV_GENERATION_QUARTERS; q++) {
        uint32_t from = q * g->tokens / KV_GENERATION_QUARTERS,
                 to = (q + 1) * g->tokens / KV_GENERATION_QUARTERS;
        for (size_t i = 0; i < g->n; i++) item[i] = sum_of(&g->item[i], from, to);
        row.quarter[q] = compare(&b, item, g->n);
    }
    kv_resampler_free(r);
    free(b.times);
    free(b.drawn);
    free(item);
    free(time);
    free(parted);
    return row;
}

static void add_answers(struct kv_generation_table *t, const struct kv_generation *g, int filter) {
    double *own = kv_alloc(g->n + 1, sizeof *own), *reference = kv_alloc(g->n + 1, sizeof *own);
    struct kv_generation_answers a = {.g = g, .filter = kv_answer_filter_names[filter]};
    for (size_t i = 0; i < g->n; i++) {
        own[a.n] = kv_match_share(g->item[i].own_answer.right[filter]);
        reference[a.n] = kv_match_share(g->item[i].reference_answer.right[filter]);
        if (isnan(own[a.n]) || isnan(reference[a.n])) continue;
        a.right += own[a.n];
        a.right16 += reference[a.n++];
    }
    if (a.n) {
        a.right /= (double)a.n;
        a.right16 /= (double)a.n;
        a.interval = kv_wilson(a.right, (double)a.n, 0.95);
        a.to16 = kv_paired_compare(own, reference, a.n, 0.95);
        t->answers = kv_grow(t->answers, t->n_answers + 1, sizeof *t->answers);
        t->answers[t->n_answers++] = a;
    }
    free(own);
    free(reference);
}

int kv_generation_table(struct kv_store *s, uint64_t seed, struct kv_generation_table *t,
                        struct kv_error *e) {
    *t = (struct kv_generation_table){0};
    KV_GUARD(e);
    int rc = kv_store_generations(s, &t->list, &t->n, e);
    if (rc) return rc;
    t->row = kv_alloc(t->n + 1, sizeof *t->row);
    for (size_t i = 0; i < t->n; i++) {
        t->row[i] = row_of(&t->list[i], seed);
        for (int f = 0; f < KV_N_ANSWER_FILTERS; f++) add_answers(t, &t->list[i], f);
    }
    return 0;
}

void kv_generation_table_fini(struct kv_generation_table *t) {
    for (size_t i = 0; t->row && i < t->n; i++) kv_survival_free(t->row[i].curve);
    kv_generations_free(t->list, t->n);
    free(t->row);
    free(t->answers);
    *t = (struct kv_generation_table){0};
}

bool kv_generation_alike(const struct kv_generation *a, const struct kv_generation *b) {
    return strcmp(a->model_digest, b->model_digest) == 0 &&
           strcmp(a->task_digest, b->task_digest) == 0 &&
           strcmp(a->task_prompt, b->task_prompt) == 0 && a->window_tokens == b->window_tokens &&
           strcmp(a->mode, b->mode) == 0 && strcmp(a->self, b->self) == 0 &&
           strcmp(a->compute, b->compute) == 0 && strcmp(a->stop, b->stop) == 0 &&
           a->tokens == b->tokens && a->ends == b->ends && a->seed == b->seed &&
           !(a->temperature < b->temperature) && !(a->temperature > b->temperature);
}
