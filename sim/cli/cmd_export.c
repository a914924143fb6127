// SPDX-License-Identifier: Apache-2.0
// kvsim export: a plan as a runtime takes it, snapped where it must be, with the loss beside it.
#include "analysis/studies/export.h"

#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/print.h"
#include "sim/base/talk.h"
#include "sim/cli/opening.h"

static const struct kv_option options[] = {
    {"to", 0, "RUNTIME", NULL,
     "llama.cpp, ik_llama.cpp, vllm, modelopt, transformers, kvtuner, openvino, mlx-lm"},
    {"out", 'o', "FILE", NULL, "where the plan goes (default: standard output)"},
    {"trace", 't', "DIR", NULL, "replays both plans on it, exactly"},
    {"model", 'm', "MODEL", NULL, "the trace's model (default: as in replay)"},
    {"shape", 0, "SHAPE", NULL,
     "of the model, where no trace tells it: 135m, 360m, 1.7b, or layers x KV heads x head: "
     "30x3x64"},
    {"items", 0, "A-B", NULL, "only items A to B of the trace, counted from 0"},
    {"scales", 0, "FILE", NULL,
     "of an FP8 cache: its scales by layer, of the trace's items, as safetensors"},
    {"no-exact", 0, NULL, NULL, "compare bits alone"},
    {"strict", 0, NULL, NULL, "refuse a plan that the runtime does not serve as it is"},
    {0}};

struct row {
    const char *plan;
    const struct kv_export_side *side;
    const struct kv_export *x;
};
#define PLANS(X, T)                                                                                \
    X(T, plan, KV_TEXT(row->plan))                                                                 \
    X(T, spec, KV_TEXT(row->side->spec))                                                           \
    X(T, allocated_bits, KV_NUMBER(row->side->allocated_bits, 4))                                  \
    X(T, bytes_per_token, KV_NUMBER(row->side->bytes_per_token, 1))                                \
    X(T, kl_nats, KV_NUMBER(row->side->kl.mean, 6))                                                \
    X(T, kl_low, KV_NUMBER(row->side->kl.interval.low, 6))                                         \
    X(T, kl_high, KV_NUMBER(row->side->kl.interval.high, 6))                                       \
    X(T, n, KV_COUNT(row->x->n_items))                                                             \
    X(T, runtime, KV_TEXT(row->x->plan.runtime->name))                                             \
    X(T, layers_changed, KV_COUNT(row->x->plan.n_changed))
KV_TABLE_COLUMNS(columns, row, PLANS)

static int print(const struct kv_export *x, const char *out, enum kv_output how,
                 struct kv_error *e) {
    const struct row rows[] = {{"asked", &x->asked, x}, {"exported", &x->served, x}};
    int rc = out ? kv_write_file(out, x->text, strlen(x->text), e) : 0;
    if (rc) return rc;
    if (how != KV_OUT_TEXT) return kv_table_print_rows(columns, rows, 2, sizeof *rows, how, e);
    if (!out) kv_say("%s", x->sentence);
    kv_print("%s%s", out ? x->sentence : x->text, out ? "\n" : "");
    return kv_flush_stdout(e);
}

static int export(struct kv_cli *c, struct kv_error *e) {
    struct kv_export_options o = kv_export_defaults();
    struct kv_export x = {0};
    const char *out = kv_opt(c, "out");
    char *model = kv_opt(c, "trace") ? kv_model_path(kv_opt(c, "model")) : NULL;
    o.spec = c->args[0];
    o.runtime = kv_opt(c, "to");
    o.trace = kv_opt(c, "trace");
    o.model = model ? model : kv_opt(c, "model");
    o.shape = kv_opt(c, "shape");
    o.scales = kv_opt(c, "scales");
    o.replay = !kv_opt_given(c, "no-exact");
    o.strict = kv_opt_given(c, "strict");
    o.jobs = c->jobs;
    int rc = o.runtime ? kv_opt_range(c, "items", &o.items, e)
                       : kv_fail(e, KV_EUSAGE, "export", "--to RUNTIME is needed");
    if (rc == 0 && out) rc = kv_check_output(out, e);
    if (rc == 0 && o.scales) rc = kv_check_output(o.scales, e);
    if (rc == 0) rc = kv_opt_blame(c, kv_export_run(&x, &o, e), e);
    if (rc == 0) rc = print(&x, out, c->output, e);
    kv_export_fini(&x);
    free(model);
    return rc;
}

const struct kv_command kv_cmd_export = {
    .name = "export",
    .summary = "writes a plan as a runtime takes it, and says what that changes and costs",
    .usage = "SPEC",
    .example =
        "kvsim export layerwise:k=8/5/4,v=4@asym --to llama.cpp --shape 135m -o work/plan.sh",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = export};
