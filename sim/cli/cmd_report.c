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
    {"rows", 0, "SPEC", NULL,
     "only the rows of this spec, name or pattern ('cells*'); may be repeated"},
    {"panel", 0, "NAME", NULL,
     "draw one panel besides, for a paper: kl-bits (default), acc-bits, kl-ms, acc-ms"},
    {"size", 0, "WIDTH", NULL, "of that panel: 84mm (default), 84x60mm, 3.3in"},
    {"format", 0, "LIST", "svg,png", "of the figures: svg (which the page needs), png, pdf"},
    {"trace", 0, "LIST", NULL,
     "recordings to ask for decisions (default: where the store says they were)"},
    {"model", 'm', "MODEL", NULL,
     "model whose tokenizer spells tokens (default: $KVSIM_MODEL, then data/*.gguf)"},
    {0}};

// --panel and --size; *wanted when either is given.
static int read_paper(const struct kv_cli *c, struct kv_paper *paper, bool *wanted,
                      struct kv_error *e) {
    const char *size = kv_opt(c, "size");
    unsigned panels = 0;
    int code = kv_opt_name_set(c, "panel", kv_paper_panels, &panels, e);
    if (!code) code = kv_paper_size(size ? size : "84mm", paper, e);
    paper->panel = KV_PANEL_KL_BITS;
    for (unsigned k = 0; kv_paper_panels[k]; k++)
        if (panels >> k & 1) paper->panel = (enum kv_paper_panel)k;
    *wanted = size || panels;
    return code;
}

static int report(struct kv_cli *c, struct kv_error *e) {
    struct kv_rows_options how;
    struct kv_rows rows;
    struct kv_store *s;
    struct kv_paper paper = {0};
    bool printed;
    size_t n_kept;
    const char *const *kept = kv_opt_all(c, "rows", &n_kept);
    int code = kv_opt_rows(c, &how, e);
    how.texts_do = true;
    if (!code) code = read_paper(c, &paper, &printed, e);
    if (!code) code = kv_opt_blame(c, kv_rows_open(&rows, &s, &how, e), e);
    if (code) return code;
    char *model = kv_model_path(kv_opt(c, "model"));
    const struct kv_report r = {.dir = kv_opt(c, "out"),
                                .db = kv_opt(c, "db"),
                                .formats = kv_opt(c, "format"),
                                .paper = printed ? &paper : NULL,
                                .claims = kv_opt(c, "claims"),
                                .traces = kv_opt(c, "trace"),
                                .model = model,
                                .seed = c->seed,
                                .jobs = c->jobs};
    code = kv_rows_keep(&rows, s, kept, n_kept, e);
    if (!code) code = kv_rows_sort(&rows, "bits", e);
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
