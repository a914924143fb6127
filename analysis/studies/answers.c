// SPDX-License-Identifier: Apache-2.0
// Generated sequences as text, and whether they hold the answer.
#include "analysis/studies/answers.h"

#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "traces/gsm8k.h"

static char *spell(const struct kv_tokenizer *t, const uint32_t *ids, uint32_t n) {
    struct kv_text text = {0};
    for (uint32_t i = 0; i < n; i++) {
        size_t bytes;
        const char *s = kv_tokenizer_bytes(t, ids[i], &bytes);
        kv_text_add(&text, s, bytes);
    }
    return kv_text_take(&text);
}

// GSM8K ends where the harness stops generating, whatever stopped the run.
static void right_problem(char *said, const char *answer, double *strict, double *flexible) {
    for (size_t i = 0; kv_gsm8k_stops[i]; i++) {
        char *stop = strstr(said, kv_gsm8k_stops[i]);
        if (stop) *stop = 0;
    }
    char *found = kv_gsm8k_strict(said);
    *strict = kv_gsm8k_right(found, answer);
    free(found);
    found = kv_gsm8k_flexible(said);
    *flexible = kv_gsm8k_right(found, answer);
    free(found);
}

static void judge(enum kv_task_kind kind, const struct kv_tokenizer *t, const uint32_t *ids,
                  uint32_t n, const char *answer, double *strict, double *flexible) {
    char *said = spell(t, ids, n);
    if (kind == KV_TASK_GSM8K)
        right_problem(said, answer, strict, flexible);
    else {
        *strict = strncmp(said + strspn(said, " "), answer, strlen(answer)) == 0;
        *flexible = strstr(said, answer) != NULL;
    }
    free(said);
}

static const char *answer_of(const struct kv_tasks *t, const char *id) {
    for (size_t i = 0; i < t->n_items; i++)
        if (strcmp(t->items[i].id, id) == 0) return t->items[i].answer;
    return NULL;
}

struct kv_answers kv_answers_of(const struct kv_generation *g, const struct kv_tasks *tasks,
                                const struct kv_tokenizer *t) {
    struct kv_answers a = {0};
    double *column = kv_alloc(4 * g->n + 1, sizeof *column), *strict16 = column + g->n,
           *flexible = strict16 + g->n, *flexible16 = flexible + g->n;
    for (size_t i = 0; i < g->n; i++) {
        const struct kv_generated_row *x = &g->item[i];
        const char *answer = answer_of(tasks, x->id);
        if (!answer) continue;
        judge(tasks->kind, t, x->own, x->n_own, answer, &column[a.n], &flexible[a.n]);
        judge(tasks->kind, t, x->reference, x->n_reference, answer, &strict16[a.n],
              &flexible16[a.n]);
        if (x->broken) column[a.n] = flexible[a.n] = 0; // it stopped before it could answer
        a.n++;
    }
    a.strict = kv_mean_interval(column, a.n, 0.95).mean;
    a.strict16 = kv_mean_interval(strict16, a.n, 0.95).mean;
    a.flexible = kv_mean_interval(flexible, a.n, 0.95).mean;
    a.flexible16 = kv_mean_interval(flexible16, a.n, 0.95).mean;
    a.strict_to16 = kv_paired_compare(column, strict16, a.n, 0.95);
    a.flexible_to16 = kv_paired_compare(flexible, flexible16, a.n, 0.95);
    free(column);
    return a;
}

static void add_line(struct kv_text *text, const char *label, const struct kv_answers *a) {
    kv_text_addf(text,
                 "%s: %zu answers; strict %.3f, 16 bit %.3f, difference %+.3f [%+.3f, %+.3f], p "
                 "%.2g; flexible %.3f, 16 bit %.3f, difference %+.3f [%+.3f, %+.3f], p %.2g\n",
                 label, a->n, a->strict, a->strict16, a->strict_to16.difference,
                 a->strict_to16.interval.low, a->strict_to16.interval.high, a->strict_to16.exact_p,
                 a->flexible, a->flexible16, a->flexible_to16.difference,
                 a->flexible_to16.interval.low, a->flexible_to16.interval.high,
                 a->flexible_to16.exact_p);
}

// What the store holds of these tasks, those of one prompt and model.
static int add_lines(struct kv_store *s, const struct kv_model *m, const struct kv_tasks *tasks,
                     struct kv_text *text, struct kv_error *e) {
    struct kv_generation *list = NULL;
    size_t n = 0;
    int rc = kv_store_generations(s, &list, &n, e);
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (strcmp(list[i].model_digest, m->digest) != 0 ||
            strcmp(list[i].task_digest, tasks->digest) != 0 ||
            strcmp(list[i].task_prompt, tasks->prompt) != 0)
            continue;
        struct kv_answers a = kv_answers_of(&list[i], tasks, m->tokenizer);
        if (a.n) add_line(text, list[i].label, &a);
    }
    kv_generations_free(list, n);
    if (rc == 0 && text->n && tasks->kind == KV_TASK_GSM8K) {
        char *common;
        double floor = kv_gsm8k_floor(tasks, &common);
        kv_text_addf(text, "always saying %s scores %.3f on all %zu problems\n", common, floor,
                     tasks->n_items);
        free(common);
    }
    return rc;
}

int kv_answers_text(struct kv_store *s, const char *model, const char *tasks, char **out,
                    struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    struct kv_tasks *t = NULL, *made = NULL;
    struct kv_model *m = NULL;
    struct kv_text text = {0};
    int rc = kv_tasks_load(&t, tasks, e);
    bool answers = rc == 0 && (t->places || t->kind == KV_TASK_GSM8K);
    if (answers) rc = kv_model_open(&m, model, KV_WEIGHTS_BF16, e);
    if (rc == 0 && answers && t->places) rc = kv_tasks_make(&made, t, m, e);
    if (rc == 0 && answers) rc = add_lines(s, m, made ? made : t, &text, e);
    kv_model_close(m);
    kv_tasks_free(made);
    kv_tasks_free(t);
    *out = kv_text_take(&text);
    return rc;
}
