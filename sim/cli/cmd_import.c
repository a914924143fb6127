// SPDX-License-Identifier: Apache-2.0
// kvsim import: the spec that replays a runtime's plan.
#include "analysis/studies/export.h"

#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/print.h"
#include "sim/base/talk.h"
#include "sim/cli/opening.h"

static const struct kv_option options[] = {
    {"from", 0, "RUNTIME", NULL, "whose file it is (default: as it looks); names as in export"},
    {"shape", 0, "SHAPE", NULL, "of the model, as in export: where a file names layers"},
    {"trace", 't', "DIR", NULL, "the same, as it was recorded"},
    {"model", 'm', "MODEL", NULL, "the same, of a model file"},
    {0}};

static int import(struct kv_cli *c, struct kv_error *e) {
    struct kv_export_options o = kv_export_defaults();
    struct kv_served plan;
    char *spec;
    o.runtime = kv_opt(c, "from");
    o.shape = kv_opt(c, "shape");
    o.trace = kv_opt(c, "trace");
    o.model = kv_opt(c, "model");
    int rc = kv_opt_blame(c, kv_import_run(c->args[0], &o, &spec, &plan, e), e);
    if (rc) return rc;
    kv_say("%s: %s", plan.runtime->name, plan.offer ? plan.offer->name : "a 16-bit cache");
    if (plan.offer && plan.offer->differs) kv_say("there %s", plan.offer->differs);
    kv_print("%s\n", spec);
    free(spec);
    kv_served_fini(&plan);
    return kv_flush_stdout(e);
}

const struct kv_command kv_cmd_import = {
    .name = "import",
    .summary = "prints the spec that replays a runtime's plan",
    .usage = "FILE",
    .example = "kvsim import work/plan.sh --from llama.cpp --shape 135m",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = import};
