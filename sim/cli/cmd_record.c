// SPDX-License-Identifier: Apache-2.0
// kvsim record: runs a model once over a benchmark and writes the trace folder.
#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/cli/opening.h"
#include "traces/record.h"
#include "traces/sensitivity.h"

// "final,kv" or "final,tables:asym:group=32+sym": what stands behind "tables:" is formats, '+'
// between them.
static int read_keep(const char *list, struct kv_record_options *o, char **formats,
                     struct kv_error *e) {
    char *copy = kv_strdup(list), *tables = strstr(copy, "tables:"), *rest = copy, *word;
    int rc = 0;
    if (tables) { // formats hold commas, so they come last
        *formats = kv_strdup(tables + 7);
        if (tables > copy)
            tables[-1] = '\0';
        else
            rest = NULL;
    }
    while (rc == 0 && (word = strsep(&rest, ","))) {
        size_t k = 0;
        while (kv_keep_names[k] && strcmp(kv_keep_names[k], word) != 0) k++;
        if (strcmp(word, "all") == 0)
            o->keep |= KV_KEEP_ALL;
        else if (kv_keep_names[k])
            o->keep |= 1u << k;
        else if (strcmp(word, "none") != 0)
            rc = kv_fail(e, KV_EUSAGE, "record",
                         "--keep %s: parts are final, kv, q, hidden, sens, grad, cells, all, none "
                         "and, last, tables:FORMATS",
                         word);
    }
    free(copy);
    return rc;
}

// One of a list of names, copied.
static int read_name(const struct kv_cli *c, const char *option, const char *const *names, char *to,
                     size_t room, struct kv_error *e) {
    const char *text = kv_opt(c, option);
    struct kv_text all = {0};
    for (size_t i = 0; names[i]; i++) {
        kv_text_addf(&all, "%s%s", i ? ", " : "", names[i]);
        if (strcmp(names[i], text) != 0) continue;
        snprintf(to, room, "%s", text);
        free(all.s);
        return 0;
    }
    kv_fail(e, KV_EUSAGE, "record", "--%s %s: one of %s is expected", option, text, all.s);
    free(all.s);
    return KV_EUSAGE;
}

static int read_adjoint(const struct kv_cli *c, struct kv_adjoint_info *a, struct kv_error *e) {
    static const char *const selves[] = {"coded", "exact", NULL};
    long draws;
    int rc = kv_opt_int(c, "draws", 1, 1024, &draws, e);
    if (rc == 0) rc = read_name(c, "score", kv_adjoint_scores, a->score, sizeof a->score, e);
    if (rc == 0) rc = read_name(c, "adjoint-mode", kv_adjoint_modes, a->mode, sizeof a->mode, e);
    if (rc == 0) rc = read_name(c, "adjoint-self", selves, a->self, sizeof a->self, e);
    if (rc) return rc;
    a->draws = (uint32_t)draws;
    a->seed = c->seed;
    return 0;
}

static int record(struct kv_cli *c, struct kv_error *e) {
    const char *model_path = kv_opt(c, "model"), *weights = kv_opt(c, "weights");
    struct kv_record_options o = {.dir = kv_opt(c, "out"),
                                  .ids_file = kv_opt(c, "ids"),
                                  .cells_format = kv_opt(c, "cells-format"),
                                  .seed = c->seed,
                                  .jobs = c->jobs};
    char *formats = NULL, *one;
    const char *table_formats[64];
    enum kv_compute compute = KV_COMPUTE_HOST;
    long n, stride, tape_mb;
    if (!model_path)
        return kv_fail(e, KV_EUSAGE, "record",
                       "-m MODEL is needed: a GGUF file or a Hugging Face folder");
    if (!o.dir)
        return kv_fail(e, KV_EUSAGE, "record", "-o DIR is needed: the trace folder to write");
    int rc = kv_opt_int(c, "draw", 0, 100000000, &n, e);
    if (rc == 0) rc = kv_opt_int(c, "stride", 0, 100000000, &stride, e);
    if (rc == 0) rc = kv_opt_int(c, "tape", 1, 1000000, &tape_mb, e);
    if (rc == 0) rc = read_keep(kv_opt(c, "keep"), &o, &formats, e);
    if (rc == 0 && strcmp(weights, "f32") != 0 && strcmp(weights, "bf16") != 0)
        rc = kv_fail(e, KV_EUSAGE, "record", "--weights %s: f32 or bf16 is expected", weights);
    if (rc == 0) rc = read_adjoint(c, &o.adjoint, e);
    if (rc == 0) rc = kv_opt_compute(c, &compute, e);
    for (char *rest = formats; rc == 0 && (one = strsep(&rest, "+"));) {
        if (o.n_tables == 64)
            rc = kv_fail(e, KV_EUSAGE, "record", "--keep tables: at most 64 formats");
        else
            table_formats[o.n_tables++] = one;
    }
    o.table_formats = table_formats;
    if (rc) {
        free(formats);
        return rc;
    }
    o.n = (size_t)n;
    o.tape_bytes = (size_t)tape_mb << 20;
    o.stride = (size_t)stride;
    struct kv_tasks *tasks = NULL;
    struct kv_model *m = NULL;
    rc = kv_tasks_load(&tasks, kv_opt(c, "tasks"), e);
    if (rc == 0)
        rc = kv_model_open(&m, model_path,
                           strcmp(weights, "bf16") == 0 ? KV_WEIGHTS_BF16 : KV_WEIGHTS_F32, e);
    if (rc == 0) rc = kv_model_compute(m, compute, e);
    if (rc == 0) rc = kv_record(m, tasks, &o, e);
    if (rc == 0) kv_say("recorded: %s", o.dir);
    kv_model_close(m);
    kv_tasks_free(tasks);
    free(formats);
    return rc;
}

static const struct kv_option options[] = {
    {"model", 'm', "MODEL", NULL, "GGUF file or Hugging Face folder"},
    {"tasks", 't', "TASKS", "samples",
     "samples, a file, or kind:FILE[,prompt=harness|text][,window=512][,score=1/16] with kind "
     "hellaswag, arc, "
     "openbookqa, text, gsm8k[,shots=5,from=FILE], needle[,lengths=,depths=,n=,seed=]; or "
     "recall[,pairs=...]"},
    {"out", 'o', "DIR", NULL, "trace folder to write"},
    {"draw", 'n', "N", "0", "draw so many items with the seed; 0 = all"},
    {"stride", 0, "K", "0", "take every K-th item instead"},
    {"ids", 0, "FILE", NULL, "take the items whose ids the file lists, one a line"},
    {"keep", 0, "LIST", "all",
     "what is kept of each token: final, kv, q, hidden, sens, grad, cells (what a policy by cells "
     "learns from, with kv); all (but grad and cells), none; or tables:FORMAT+FORMAT, damage "
     "tables (iso) alone"},
    {"cells-format", 0, "SPEC", "asym:group=32",
     "format whose coding errors at 4 bits weigh the squared gradients of cells"},
    {"draws", 0, "R", "4", "label draws for sens, grad and cells: backward passes an item"},
    {"score", 0, "WHAT", "choices", "positions whose divergence sens predicts: choices or all"},
    {"adjoint-mode", 0, "MODE", "inline", "whose reads count in sens: inline, prefill, prefill1"},
    {"adjoint-self", 0, "HOW", "coded", "whether a token's own read counts: coded or exact"},
    {"tape", 0, "MB", "512",
     "memory of a worker for activations that sens goes back over; beyond it they are computed "
     "again, to the same bits"},
    {"weights", 0, "TYPE", "f32", "how weights are held in memory: f32 or bf16"},
    KV_COMPUTE_OPTION,
    {0}};

const struct kv_command kv_cmd_record = {
    .name = "record",
    .summary = "runs the model once over a benchmark and writes a trace",
    .usage = "-m MODEL -t TASKS -o DIR",
    .example =
        "kvsim record -m data/SmolLM2-135M-Instruct.Q4_1.gguf -t samples --keep final,kv,sens -o "
        "work/samples.trace",
    .options = options,
    .run = record};
