// SPDX-License-Identifier: Apache-2.0
// kvsim calibrate: fits a device to measured runs, prints its parameters and what they are worth.
#include "sim/store/store_device.h"
#include "reports/draw/device.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/cli/lists.h"
#include "sim/cost/findings.h"
#include "sim/model/model.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    {"runs", 0, "FILE", NULL,
     "measured runs: ours, llama-bench's JSON, JSONL, CSV or Markdown, plain CSV"},
    {"device", 0, "NAME", "device", "name of the device that is made"},
    {"out", 'o', "FILE", NULL, "write the device file"},
    {"shape", 0, "NAME", NULL, "take the runs of this shape, or say it when the file does not"},
    {"weights", 0, "KIND", NULL, "take the runs with these weights"},
    {"threads", 0, "N", NULL, "take the runs with this many threads"},
    {"where", 0, "F=V", NULL,
     "take the runs that say this of how they were run: gpu_info='RTX 4090', flash_attn=1; "
     "repeated "
     "or after a comma"},
    {"note", 0, "TEXT", NULL, "add to the device's provenance, say how busy the machine was"},
    {"db", 0, "FILE", NULL, "put the device and its runs into a store"},
    {"figures", 0, "DIR", NULL, "draw residuals, predicted against measured, and ms a token"},
    {0}};

// Five digits say all that a fit knows.
static void number(struct kv_table *t, double x) {
    char text[32];
    snprintf(text, sizeof text, "%.5g", x);
    kv_table_number(t, strtod(text, NULL), -1);
}

KV_CELL(name_cell, struct kv_finding, kv_table_text(t, row->name))
KV_CELL(value_cell, struct kv_finding, number(t, row->value))
KV_CELL(low_cell, struct kv_finding, number(t, row->low))
KV_CELL(high_cell, struct kv_finding, number(t, row->high))
KV_CELL(unit_cell, struct kv_finding, kv_table_text(t, row->unit))

static int print(const struct kv_calibration *c, enum kv_output how, struct kv_error *e) {
    static const struct kv_table_column columns[] = {
        {"parameter", KV_LEFT, name_cell}, {"value", KV_RIGHT, value_cell},
        {"low_95", KV_RIGHT, low_cell},    {"high_95", KV_RIGHT, high_cell},
        {"unit", KV_LEFT, unit_cell},      {0}};
    size_t n;
    struct kv_finding *found = kv_calibration_findings(c, &n);
    int rc = kv_table_print_rows(columns, found, n, sizeof *found, how, e);
    free(found);
    return rc;
}

static int choose_runs(const struct kv_cli *c, struct kv_runs *r, struct kv_error *e) {
    const char *name = kv_opt(c, "shape");
    struct kv_runs_choice choice = {.shape = name ? kv_shape_named(name) : NULL,
                                    .shape_name = name,
                                    .weights = kv_opt(c, "weights"),
                                    .threads = -1};
    if (name && !choice.shape) return kv_shape_unknown("calibrate", name, e);
    int rc =
        kv_opt_given(c, "threads") ? kv_opt_int(c, "threads", 0, 1 << 20, &choice.threads, e) : 0;
    if (rc) return rc;
    char **where;
    rc = kv_opt_conditions(c, "where", &where, &choice.n_where, e);
    if (rc) return rc;
    choice.where = (const char *const *)where;
    rc = kv_runs_choose(r, &choice, e);
    kv_list_free(where, choice.n_where);
    return rc;
}

static void take_policy(struct kv_runs *r) {
    double most = kv_runs_take_policy(r);
    if (most > 0)
        kv_say("the policy measured with these runs, up to %.1f us a token, is left out: give it "
               "to what-if as --policy-us",
               most / 1e3);
}

static void add_note(struct kv_device *d, const char *note) {
    if (!note) return;
    char *noted = kv_format_text("%s; %s", d->provenance, note);
    free(d->provenance);
    d->provenance = noted;
}

static int write_device(const struct kv_device *d, const char *path, struct kv_error *e) {
    char *text = kv_device_text(d);
    int rc = kv_write_file(path, text, strlen(text), e);
    free(text);
    return rc;
}

static int store_device(const struct kv_calibration *c, const char *path, struct kv_error *e) {
    struct kv_store *s;
    int rc = kv_store_open(&s, path, KV_STORE_CREATE, e);
    if (rc) return rc;
    rc = kv_store_put_device(s, c->device, c->by_context_ns, e);
    if (rc == 0) return kv_store_close(s, e);
    kv_store_abandon(s);
    return rc;
}

static int run(struct kv_cli *c, struct kv_error *e) {
    if (!kv_opt(c, "runs"))
        return kv_fail(e, KV_EUSAGE, "calibrate", "--runs FILE is needed: measured runs to fit");
    struct kv_runs *r;
    struct kv_calibration *fit = NULL;
    int rc = kv_runs_open(&r, kv_opt(c, "runs"), e);
    if (rc) return rc;
    rc = choose_runs(c, r, e);
    if (rc == 0) take_policy(r);
    if (rc == 0) rc = kv_calibrate(&fit, r, kv_opt(c, "device"), e);
    if (rc == 0) {
        add_note(fit->device, kv_opt(c, "note"));
        for (size_t i = 0; i < fit->n_warnings; i++) kv_say("warning: %s", fit->warnings[i]);
    }
    // Files first: whoever reads the table may go away before its end.
    if (rc == 0 && kv_opt_given(c, "out")) rc = write_device(fit->device, kv_opt(c, "out"), e);
    if (rc == 0 && kv_opt_given(c, "db")) rc = store_device(fit, kv_opt(c, "db"), e);
    if (rc == 0 && kv_opt_given(c, "figures")) rc = kv_device_draw(fit, kv_opt(c, "figures"), e);
    if (rc == 0) rc = print(fit, c->output, e);
    kv_calibration_free(fit);
    kv_runs_free(r);
    return rc;
}

const struct kv_command kv_cmd_calibrate = {
    .name = "calibrate",
    .summary = "fits a device's latency model to measured runs",
    .usage = "--runs FILE",
    .example = "kvsim calibrate --runs work/runs.csv --device mine -o work/mine.json",
    .options = options,
    .run = run,
};
