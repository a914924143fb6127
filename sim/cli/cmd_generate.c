// SPDX-License-Identifier: Apache-2.0
// kvsim generate: decodes from prompts over coded caches, each beside its 16-bit companion.
#include <stdlib.h>

#include "analysis/studies/generation.h"
#include "analysis/studies/generation_run.h"
#include "reports/draw/generation.h"
#include "sim/base/print.h"
#include "sim/base/talk.h"
#include "sim/cli/opening.h"

#define FOR_ALL(X, T)                                                                              \
    X(T, spec, KV_TEXT(row->g->spec))                                                              \
    X(T, task, KV_TEXT(row->g->task))                                                              \
    X(T, mode, KV_TEXT(row->g->mode))                                                              \
    X(T, prompts, KV_COUNT(row->n))                                                                \
    X(T, first_other, KV_NUMBER(isfinite(row->median) ? row->median : NAN, 0))                     \
    X(T, equal_64, KV_NUMBER(row->at[2].share, 3))                                                 \
    X(T, kl_own, KV_NUMBER(row->all.own, 5))                                                       \
    X(T, kl_forced, KV_NUMBER(row->all.forced, 5))                                                 \
    X(T, ratio, KV_NUMBER(row->all.ratio, 3))                                                      \
    X(T, ratio_low, KV_NUMBER(row->all.interval.low, 3))                                           \
    X(T, ratio_high, KV_NUMBER(row->all.interval.high, 3))
#define READ(X, T) FOR_ALL(X, T) X(T, label, KV_TEXT(row->g->label))
#define MORE(X, T)                                                                                 \
    FOR_ALL(X, T)                                                                                  \
    X(T, temperature, KV_NUMBER(row->g->temperature, 2))                                           \
    X(T, tokens, KV_COUNT(row->tokens))                                                            \
    X(T, parted, KV_COUNT(row->n_parted))                                                          \
    X(T, equal_16, KV_NUMBER(row->at[0].share, 3))                                                 \
    X(T, equal_32, KV_NUMBER(row->at[1].share, 3))                                                 \
    X(T, equal_64_low, KV_NUMBER(row->at[2].interval.low, 3))                                      \
    X(T, equal_64_high, KV_NUMBER(row->at[2].interval.high, 3))                                    \
    X(T, equal_128, KV_NUMBER(row->at[3].share, 3))                                                \
    X(T, agreement, KV_NUMBER(row->agreement, 3))                                                  \
    X(T, ratio_parted, KV_NUMBER(row->parted.ratio, 3))                                            \
    X(T, ratio_parted_low, KV_NUMBER(row->parted.interval.low, 3))                                 \
    X(T, ratio_parted_high, KV_NUMBER(row->parted.interval.high, 3))                               \
    X(T, ratio_q1, KV_NUMBER(row->quarter[0].ratio, 3))                                            \
    X(T, ratio_q2, KV_NUMBER(row->quarter[1].ratio, 3))                                            \
    X(T, ratio_q3, KV_NUMBER(row->quarter[2].ratio, 3))                                            \
    X(T, ratio_q4, KV_NUMBER(row->quarter[3].ratio, 3))                                            \
    X(T, broken, KV_COUNT(row->n_broken))                                                          \
    X(T, compute, KV_TEXT(row->g->compute))                                                        \
    X(T, label, KV_TEXT(row->g->label))
#define ANSWERS(X, T)                                                                              \
    X(T, spec, KV_TEXT(row->g->spec))                                                              \
    X(T, task, KV_TEXT(row->g->task))                                                              \
    X(T, filter, KV_TEXT(row->filter))                                                             \
    X(T, judged, KV_COUNT(row->n))                                                                 \
    X(T, right, KV_NUMBER(row->right, 3))                                                          \
    X(T, low, KV_NUMBER(row->interval.low, 3))                                                     \
    X(T, high, KV_NUMBER(row->interval.high, 3))                                                   \
    X(T, right16, KV_NUMBER(row->right16, 3))                                                      \
    X(T, difference, KV_NUMBER(row->to16.difference, 3))                                           \
    X(T, difference_low, KV_NUMBER(row->to16.interval.low, 3))                                     \
    X(T, difference_high, KV_NUMBER(row->to16.interval.high, 3))                                   \
    X(T, mcnemar_p, KV_NUMBER(row->to16.exact_p, 4))                                               \
    X(T, floor, KV_NUMBER(row->g->floor, 3))                                                       \
    X(T, compute, KV_TEXT(row->g->compute))                                                        \
    X(T, label, KV_TEXT(row->g->label))
KV_TABLE_COLUMNS(read, kv_generation_row, READ)
KV_TABLE_COLUMNS(columns, kv_generation_row, MORE)
KV_TABLE_COLUMNS(answers, kv_generation_answers, ANSWERS)

static const struct kv_note notes[] = {
    {"first_other", "median number of the first other token (Kaplan-Meier)"},
    {"equal_64", "share of prompts whose first 64 tokens are the 16-bit run's (Kaplan-Meier)"},
    {"kl_own", "KL(16 bit || policy), nats a token, along the policy's own tokens"},
    {"kl_forced", "the same along the 16-bit run's tokens, at the same positions"},
    {"ratio", "kl_own / kl_forced, with a bootstrap interval over prompts: above 1, errors add up"},
    {"ratio_parted", "the same behind the first other token alone; ratio_q1..q4: by quarters"},
    {"right",
     "share right, Wilson: gsm8k by the harness's filters, else a number first or anywhere"},
    {"floor", "share that always giving the commonest answer gets right"},
    {0}};

static int read_options(const struct kv_cli *c, struct kv_generation_options *o, char **model,
                        struct kv_error *e) {
    long n, tokens;
    int mode = KV_INLINE, self = KV_SELF_CODED;
    *o = (struct kv_generation_options){.tasks = kv_opt(c, "tasks"),
                                        .specs = (const char *const *)c->args,
                                        .n_specs = c->n_args,
                                        .ends = !kv_opt_given(c, "past-end"),
                                        .stop = kv_opt(c, "stop"),
                                        .seed = c->seed,
                                        .jobs = c->jobs,
                                        .db = kv_opt(c, "db")};
    int rc = kv_opt_int(c, "draw", 0, 100000000, &n, e);
    if (rc == 0) rc = kv_opt_int(c, "tokens", 1, 1000000, &tokens, e);
    if (rc == 0) rc = kv_opt_float(c, "temperature", 0, 100, &o->temperature, e);
    if (rc == 0) rc = kv_opt_named(c, "mode", kv_mode_names, &mode, e);
    if (rc == 0) rc = kv_opt_named(c, "self", kv_self_names, &self, e);
    if (rc == 0) rc = kv_opt_compute(c, &o->compute, e);
    if (rc) return rc;
    o->n = (size_t)n;
    o->tokens = (uint32_t)tokens;
    o->mode = (enum kv_mode)mode;
    o->self = (enum kv_self)self;
    o->model = *model = kv_model_path(kv_opt(c, "model"));
    return 0;
}

enum { ALL, SEQUENCES, ANSWERED };
static const char *const tables[] = {"all", "sequences", "answers", NULL};

// All that the store holds by now.
static int print(const struct kv_cli *c, const char *db, int table, struct kv_error *e) {
    struct kv_generation_table t = {0};
    struct kv_store *s = NULL;
    const char *dir = kv_opt(c, "out");
    int rc = kv_store_open(&s, db, KV_STORE_READ, e);
    if (rc == 0) rc = kv_generation_table(s, c->seed, &t, e);
    if (rc == 0 && dir) rc = kv_generation_draw(&t, dir, "svg", e);
    if (rc == 0 && dir) kv_say("drawn: %s/generation.svg", dir);
    bool readers = kv_for_readers(c->output),
         judged = table == ANSWERED || (table == ALL && readers && t.n_answers);
    if (rc == 0 && table != ANSWERED)
        rc = kv_table_print_rows(readers ? read : columns, t.row, t.n, sizeof *t.row, c->output, e);
    if (rc == 0 && judged && table == ALL) kv_print("\n");
    if (rc == 0 && judged)
        rc = kv_table_print_rows(answers, t.answers, t.n_answers, sizeof *t.answers, c->output, e);
    kv_generation_table_fini(&t);
    kv_store_abandon(s);
    return rc;
}

static int generate(struct kv_cli *c, struct kv_error *e) {
    struct kv_generation_options o;
    struct kv_generation_done done;
    char *model = NULL;
    int table = ALL, rc = kv_opt_named(c, "table", tables, &table, e);
    if (rc == 0) rc = read_options(c, &o, &model, e);
    if (rc == 0) rc = kv_opt_blame(c, kv_generation_run(&o, &done, e), e);
    if (rc == 0)
        kv_say("done: %zu sequences generated, %zu were there; all are in %s", done.generated,
               done.held, o.db);
    if (rc == 0) rc = print(c, o.db, table, e);
    free(model);
    return rc;
}

static const struct kv_option options[] = {
    {"model", 'm', "MODEL", NULL, "GGUF file or Hugging Face folder"},
    {"tasks", 't', "TASKS", "samples",
     "prompts, as record reads them: a context, a window of text"},
    {"draw", 'n', "N", "0", "draw so many prompts with the seed; 0 = all"},
    {"tokens", 0, "N", "128", "tokens to generate, unless a sequence ends before"},
    {"temperature", 0, "X", "0", "0: the likeliest token; else draws, a prompt's all by one noise"},
    {"stop", 0, "TEXT", NULL, "text that ends a sequence (gsm8k: where the harness stops)"},
    {"past-end", 0, NULL, NULL, "goes on behind the model's own end of text"},
    {"mode", 0, "NAME", "inline", "codes are read inline; prefill, prefill1: not by the prompt"},
    {"self", 0, "HOW", "coded", "a token's own query reads its K and V coded or exact"},
    KV_COMPUTE_OPTION,
    {"db", 0, "FILE", "kvsim.db", "store of results: what it holds is not generated again"},
    {"table", 0, "WHICH", "all", "sequences, answers, or all (as TSV and JSON: sequences)"},
    {"out", 'o', "DIR", NULL, "also draws the survival curves there"},
    {0}};

const struct kv_command kv_cmd_generate = {
    .name = "generate",
    .summary = "decodes over coded caches, each beside its 16-bit companion",
    .usage = "SPEC|FILE.sweep...",
    .example = "kvsim generate -n 2 --tokens 8 'static:bits={3,16}@sym' --db work/generated.db",
    .options = options,
    .columns = notes,
    .min_args = 1,
    .max_args = 100000,
    .run = generate};
