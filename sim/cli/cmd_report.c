// SPDX-License-Identifier: Apache-2.0
// kvsim report: figures, one page and result files of a store.
#include "reports/report.h"
#include "sim/cli/opening.h"
#include "sim/cli/row_options.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    KV_ROWS_OPTIONS,
    {"out", 'o', "DIR", "work/report", "folder for figures and page; made when missing"},
    {"claims", 0, "LIST", NULL,
     "claim files to judge (default: those that are shipped; \"\" = none)"},
    {"format", 0, "LIST", "svg,png", "of the figures: svg (which the page needs), png, pdf"},
    {"trace", 0, "LIST", NULL,
     "recordings to ask for decisions (default: where the store says they were)"},
    {"model", 'm', "MODEL", NULL,
     "model whose tokenizer spells tokens (default: $KVSIM_MODEL, then data/*.gguf)"},
    {0}};

static int report(struct kv_cli *c, struct kv_error *e) {
    struct kv_rows_options how;
    struct kv_rows rows;
    struct kv_store *s;
    int code = kv_opt_rows(c, &how, e);
    if (!code) code = kv_opt_blame(c, kv_rows_open(&rows, &s, &how, e), e);
    if (code) return code;
    char *model = kv_model_path(kv_opt(c, "model"));
    const struct kv_report r = {.dir = kv_opt(c, "out"),
                                .db = kv_opt(c, "db"),
                                .formats = kv_opt(c, "format"),
                                .claims = kv_opt(c, "claims"),
                                .traces = kv_opt(c, "trace"),
                                .model = model,
                                .seed = c->seed,
                                .jobs = c->jobs};
    code = kv_rows_sort(&rows, "bits", e);
    if (!code) code = kv_report_write(&r, &rows, s, e);
    free(model);
    kv_rows_fini(&rows);
    kv_store_abandon(s);
    return code;
}

const struct kv_command kv_cmd_report = {
    .name = "report",
    .summary = "draws the frontier figures of a store and writes a page about it",
    .usage = "",
    .example = "kvsim report --db work/demo.db -o work/report",
    .options = options,
    .run = report};
