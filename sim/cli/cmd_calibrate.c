// SPDX-License-Identifier: Apache-2.0
// kvsim calibrate: fits a device to measured runs, prints its parameters and what they are worth.
#include "analysis/store/store.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/cli/options.h"
#include "reports/draw/device.h"
#include "sim/cost/calibrate.h"
#include "sim/model/model.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    {"runs", 0, "FILE", NULL, "measured runs: ours, llama-bench's JSON, JSONL or CSV, plain CSV"},
    {"device", 0, "NAME", "device", "name of the device that is made"},
    {"out", 'o', "FILE", NULL, "write the device file"},
    {"shape", 0, "NAME", NULL, "take the runs of this shape, or say it when the file does not"},
    {"weights", 0, "KIND", NULL, "take the runs with these weights"},
    {"threads", 0, "N", NULL, "take the runs with this many threads"},
    {"note", 0, "TEXT", NULL, "add to the device's provenance, say how busy the machine was"},
    {"db", 0, "FILE", NULL, "put the device and its runs into a store"},
    {"figures", 0, "DIR", NULL, "draw residuals, predicted against measured, and ms a token"},
    {0}};

// Keeps the rows that the options choose; --shape also names the shape of rows that lack one.
static int choose_rows(const struct kv_cli *c, struct kv_runs *r, struct kv_error *e) {
    const char *shape = kv_opt(c, "shape"), *weights = kv_opt(c, "weights");
    const struct kv_shape *named = shape ? kv_shape_named(shape) : NULL;
    long threads = -1;
    if (shape && !named)
        return kv_fail(e, KV_EUSAGE, "calibrate", "--shape: '%s' is none of 135m, 360m, 1.7b",
                       shape);
    if (kv_opt_given(c, "threads")) {
        int rc = kv_opt_int(c, "threads", 0, 1 << 20, &threads, e);
        if (rc) return rc;
    }
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        struct kv_device_run *x = &r->row[i];
        if (named && x->shape.n_layers == 0) {
            x->shape = *named;
            snprintf(x->shape_name, sizeof x->shape_name, "%s", shape);
        }
        if (named && memcmp(&x->shape, named, sizeof *named) != 0) continue;
        if (weights && strcmp(weights, x->weights) != 0) continue;
        if (threads >= 0 && x->threads != (uint32_t)threads) continue;
        r->row[n++] = *x;
    }
    r->n = n;
    if (n == 0)
        return kv_fail(e, KV_EFAIL, "calibrate", "no run has the shape, weights and threads asked");
    return 0;
}

// A policy's own cost is no part of the device: it comes off the steps that were measured with it.
static void take_policies_off(struct kv_runs *r) {
    double most = 0;
    for (size_t i = 0; i < r->n; i++) {
        struct kv_device_run *x = &r->row[i];
        double policy = x->part_ns[KV_PART_POLICY];
        if (!(policy > 1000)) continue; // the clock alone
        x->step_ns -= policy;
        x->low_ns -= policy;
        x->high_ns -= policy;
        x->part_ns[KV_PART_POLICY] = NAN;
        most = fmax(most, policy);
    }
    if (most > 0)
        kv_say(
            "the policy measured with these runs, up to %.1f us a token, is left out: give it to "
            "what-if as --policy-us",
            most / 1e3);
}

// Five digits say all that a fit knows.
static void number(struct kv_table *t, double x) {
    char text[32];
    snprintf(text, sizeof text, "%.5g", x);
    kv_table_number(t, strtod(text, NULL), -1);
}

static void row(struct kv_table *t, const char *name, double value, double low, double high,
                const char *unit) {
    kv_table_text(t, name);
    number(t, value);
    number(t, low);
    number(t, high);
    kv_table_text(t, unit);
}

static void interval_of(const struct kv_device *d, const char *name, double *low, double *high) {
    *low = *high = NAN;
    for (size_t i = 0; i < d->n_intervals; i++)
        if (strcmp(d->intervals[i].name, name) == 0) {
            *low = d->intervals[i].low;
            *high = d->intervals[i].high;
        }
}

static void cost_rows(struct kv_table *t, const struct kv_device *d) {
    double heads =
        d->attend_ns / ((double)d->shape.n_layers * d->shape.n_kv_heads * d->shape.head_dim) / 2;
    for (int w = 1; w < KV_DEVICE_WIDTHS; w++)
        for (int side = 0; side < 2; side++) {
            double c = d->c_ns[side][w] + heads, low, high;
            if (isnan(c)) continue;
            int bits = w == KV_DEVICE_WIDTHS - 1 ? 32 : w;
            char name[40];
            snprintf(name, sizeof name, "%s %d", side ? "value_ns" : "key_ns", bits);
            interval_of(d, name, &low, &high);
            if (isnan(low)) {
                char both[40];
                snprintf(both, sizeof both, "key_and_value_ns %d", bits);
                interval_of(d, both, &low, &high);
            }
            row(t, name, c, low, high, "ns a value, its part of attend_ns included");
            snprintf(name, sizeof name, "%s %d", side ? "value_rate" : "key_rate", bits);
            row(t, name, bits / 8.0 / c, bits / 8.0 / high, bits / 8.0 / low, "GB/s of codes");
        }
}

static void error_rows(struct kv_table *t, const char *what, const struct kv_fit_errors *x) {
    const struct {
        const char *name;
        double value;
        const char *unit;
    } rows[] = {
        {"step_median", x->step_median, "of the step"},
        {"step_worst", x->step_worst, "of the step"},
        {"share_median", x->share_median, "of t(T) - t(T0), where above 10 % of the step"},
        {"share_worst", x->share_worst, "of t(T) - t(T0), where above 10 % of the step"},
        {"share_cells", (double)x->n_share, "cells"},
        {"sign_right", x->sign_right, "of cells: speed-up over 16 bit"},
        {"sign_cells", (double)x->n_sign, "cells"},
        {"clear_sign_right", x->clear_sign_right,
         "of cells whose difference exceeds twice its uncertainty"},
        {"clear_sign_cells", (double)x->n_clear_sign, "cells"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.%s", what, rows[i].name);
        row(t, name, rows[i].value, NAN, NAN, rows[i].unit);
    }
}

static int print(const struct kv_calibration *c, enum kv_output how, struct kv_error *e) {
    static const struct kv_column columns[] = {{"parameter", KV_LEFT},
                                               {"value", KV_RIGHT},
                                               {"low_95", KV_RIGHT},
                                               {"high_95", KV_RIGHT},
                                               {"unit", KV_LEFT}};
    const struct kv_device *d = c->device;
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    double low, high;
    interval_of(d, "base_ns", &low, &high);
    row(t, "base_ns", d->base_ns, low, high, "a step at empty cache, without append_ns");
    row(t, "append_ns", d->append_ns, NAN, NAN, "coding and storing the new token");
    row(t, "attend_ns", d->attend_ns, NAN, NAN, "a context token, whatever the width");
    if (d->class_ns > 0) {
        interval_of(d, "class_ns", &low, &high);
        row(t, "class_ns", d->class_ns, low, high, "each width in use beyond the first");
    }
    if (d->round_tokens > 0) {
        interval_of(d, "round_ns", &low, &high);
        row(t, "round_ns", d->round_ns, low, high, "a round of attention");
        row(t, "round_tokens", d->round_tokens, NAN, NAN, "tokens of a round, told by the runs");
        interval_of(d, "switch_ns", &low, &high);
        row(t, "switch_ns", d->switch_ns, low, high, "each further width a processor meets");
    }
    cost_rows(t, d);
    row(t, "bandwidth", d->bandwidth_bytes_per_ns, NAN, NAN, "GB/s, streaming read measured apart");
    if (isfinite(d->knee_bytes)) {
        row(t, "knee_bytes", d->knee_bytes, NAN, NAN, "bytes of cache");
        row(t, "knee_factor", d->knee_factor, NAN, NAN, "cost of what lies beyond");
    }
    if (d->hidden_bytes > 0)
        row(t, "hidden_bytes", d->hidden_bytes, NAN, NAN, "bytes of cache that cost nothing");
    row(t, "residual_scale", c->sigma, NAN, NAN, "times the runs' own uncertainty");
    error_rows(t, "fitted", &c->fitted);
    error_rows(t, "left_out_context", &c->by_context);
    error_rows(t, "left_out_mix", &c->by_mix);
    return kv_table_print(t, how, e);
}

static struct kv_sql_value text_value(const char *s) {
    return (struct kv_sql_value){.kind = KV_SQL_TEXT, .text = s};
}
static struct kv_sql_value count_value(double x) {
    if (!isfinite(x)) return (struct kv_sql_value){.kind = KV_SQL_NULL};
    return (struct kv_sql_value){.kind = KV_SQL_INT, .n = llround(x)};
}

// The device and each run beside what the fit without its context predicts.
static int insert_device(struct kv_store *s, const struct kv_calibration *c, struct kv_error *e) {
    const struct kv_device *d = c->device;
    char *text = kv_device_text(d);
    const struct kv_sql_value device[] = {text_value(d->name), text_value(d->summary),
                                          text_value(d->provenance), text_value(text)};
    int rc = kv_store_query(s, "BEGIN", NULL, 0, NULL, NULL, e);
    if (rc == 0)
        rc = kv_store_query(s, "DELETE FROM device_run WHERE device = ?", device, 1, NULL, NULL, e);
    if (rc == 0)
        rc = kv_store_query(s, "INSERT OR REPLACE INTO device VALUES (?, ?, ?, ?)", device, 4, NULL,
                            NULL, e);
    for (size_t i = 0; rc == 0 && i < d->n_runs; i++) {
        char mix[160];
        kv_mix_text(&d->runs[i].mix, mix, sizeof mix);
        const struct kv_sql_value run[] = {
            text_value(d->name), count_value((double)i),          count_value(d->runs[i].context),
            text_value(mix),     count_value(d->runs[i].step_ns), count_value(c->by_context_ns[i]),
            count_value(1)};
        rc = kv_store_query(s, "INSERT INTO device_run VALUES (?, ?, ?, ?, ?, ?, ?)", run, 7, NULL,
                            NULL, e);
    }
    free(text);
    return rc ? rc : kv_store_query(s, "COMMIT", NULL, 0, NULL, NULL, e);
}

static int store_device(const struct kv_calibration *c, const char *path, struct kv_error *e) {
    struct kv_store *s;
    int rc = kv_store_open(&s, path, KV_STORE_CREATE, e);
    if (rc) return rc;
    rc = insert_device(s, c, e);
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
    rc = choose_rows(c, r, e);
    if (rc == 0) take_policies_off(r);
    if (rc == 0) rc = kv_calibrate(&fit, r, kv_opt(c, "device"), e);
    if (rc == 0) {
        struct kv_device *d = fit->device;
        if (kv_opt(c, "note")) {
            char *noted = kv_format_text("%s; %s", d->provenance, kv_opt(c, "note"));
            free(d->provenance);
            d->provenance = noted;
        }
        for (size_t i = 0; i < fit->n_warnings; i++) kv_say("warning: %s", fit->warnings[i]);
        rc = print(fit, c->output, e);
    }
    if (rc == 0 && kv_opt_given(c, "out")) {
        char *text = kv_device_text(fit->device);
        rc = kv_write_file(kv_opt(c, "out"), text, strlen(text), e);
        free(text);
    }
    if (rc == 0 && kv_opt_given(c, "db")) rc = store_device(fit, kv_opt(c, "db"), e);
    if (rc == 0 && kv_opt_given(c, "figures"))
        rc = kv_draw_calibration(fit, r, kv_opt(c, "figures"), e);
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
