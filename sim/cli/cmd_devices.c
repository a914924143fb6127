// SPDX-License-Identifier: Apache-2.0
// kvsim devices: lists devices with where they were measured, over which range, and their error.
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/cli/lists.h"
#include "sim/cost/calibrate.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    {"device", 'd', "LIST", NULL, "names or files (default: the shipped devices)"}, {0}};

// The device's own 16-bit step at a context, in ms.
static double step16_ms(const struct kv_device *d, uint32_t context) {
    struct kv_device_run run = {
        .mix = {.n = 1, .part = {{{16, 16}, 1}}}, .context = context, .cache_bytes = NAN};
    return kv_run_price(d, &run).step_ns / 1e6;
}

struct shown {
    const struct kv_device *device;
    bool chosen; // the default
};

KV_CELL(name_cell, struct shown, kv_table_text(t, row->device->name))
KV_CELL(weights_cell, struct shown, kv_table_text(t, row->device->weights))
KV_CELL(threads_cell, struct shown, kv_table_count(t, row->device->threads))
KV_CELL(empty_cell, struct shown,
        kv_table_number(t, (row->device->base_ns + row->device->append_ns) / 1e6, 3))
KV_CELL(longest_cell, struct shown,
        kv_table_number(t, step16_ms(row->device, row->device->context_max), 3))
KV_CELL(least_cell, struct shown, kv_table_count(t, row->device->context_min))
KV_CELL(most_cell, struct shown, kv_table_count(t, row->device->context_max))
KV_CELL(read_cell, struct shown, kv_table_number(t, row->device->bandwidth_bytes_per_ns, 1))
KV_CELL(error_cell, struct shown, kv_table_number(t, 100 * row->device->error_median, 2))
KV_CELL(worst_cell, struct shown, kv_table_number(t, 100 * row->device->error_worst, 2))
KV_CELL(share_cell, struct shown, kv_table_number(t, 100 * row->device->share_error_median, 2))
KV_CELL(runs_cell, struct shown, kv_table_count(t, (long long)row->device->n_runs))
KV_CELL(date_cell, struct shown, kv_table_text(t, row->device->date))
KV_CELL(machine_cell, struct shown, kv_table_text(t, row->device->machine))
KV_CELL(engine_cell, struct shown, kv_table_text(t, row->device->engine))
KV_CELL(mix_cell, struct shown, kv_table_number(t, 100 * row->device->share_error_mix_median, 2))
KV_CELL(sign_cell, struct shown, kv_table_number(t, 100 * row->device->sign_right, 1))

static void ports_cell(struct kv_table *t, const void *row) {
    const struct kv_device *d = ((const struct shown *)row)->device;
    char ports[64] = "";
    for (size_t i = 0, n = 0; i < d->n_ports && n < sizeof ports; i++)
        n += (size_t)snprintf(ports + n, sizeof ports - n, "%s%u", i ? "," : "", d->ports[i]);
    kv_table_text(t, *ports ? ports : NULL);
}

KV_CELL(default_cell, struct shown, kv_table_text(t, row->chosen ? "yes" : NULL))

static const struct kv_table_column columns[] = {{"device", KV_LEFT, name_cell},
                                                 {"weights", KV_LEFT, weights_cell},
                                                 {"threads", KV_RIGHT, threads_cell},
                                                 {"empty_ms", KV_RIGHT, empty_cell},
                                                 {"longest16_ms", KV_RIGHT, longest_cell},
                                                 {"context_min", KV_RIGHT, least_cell},
                                                 {"context_max", KV_RIGHT, most_cell},
                                                 {"read_gb_per_s", KV_RIGHT, read_cell},
                                                 {"error_pct", KV_RIGHT, error_cell},
                                                 {"worst_pct", KV_RIGHT, worst_cell},
                                                 {"cache_error_pct", KV_RIGHT, share_cell},
                                                 {"runs", KV_RIGHT, runs_cell},
                                                 {"ports", KV_LEFT, ports_cell},
                                                 {"date", KV_LEFT, date_cell},
                                                 {"machine", KV_LEFT, machine_cell},
                                                 {"engine", KV_LEFT, engine_cell},
                                                 {"mix_error_pct", KV_RIGHT, mix_cell},
                                                 {"sign_right_pct", KV_RIGHT, sign_cell},
                                                 {"default", KV_LEFT, default_cell},
                                                 {0}};

static int run(struct kv_cli *c, struct kv_error *e) {
    struct kv_device **devices;
    size_t n;
    int rc = kv_opt_devices(c, "device", &devices, &n, e);
    if (rc) return rc;
    const char *chosen = kv_device_default_name();
    struct shown *rows = kv_alloc(n + 1, sizeof *rows);
    for (size_t i = 0; i < n; i++)
        rows[i] = (struct shown){devices[i], chosen && strcmp(chosen, devices[i]->name) == 0};
    rc = kv_table_print_rows(columns, rows, n, sizeof *rows, c->output, e);
    kv_devices_free(devices, n);
    free(rows);
    if (rc == 0 && chosen && !kv_opt(c, "device"))
        kv_say("default: %s, of the CPU devices of the smallest model the one whose error of the "
               "cache's share (cache_error_pct) is least",
               chosen);
    return rc;
}

const struct kv_command kv_cmd_devices = {
    .name = "devices",
    .summary = "lists devices with their measured range and error",
    .usage = "",
    .example = "kvsim devices",
    .options = options,
    .run = run,
};
