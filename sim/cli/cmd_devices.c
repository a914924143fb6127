// SPDX-License-Identifier: Apache-2.0
// kvsim devices: lists devices with where they were measured, over which range, and their error.
#include "sim/cli/lists.h"
#include "sim/base/talk.h"
#include "sim/cost/calibrate.h"

static const struct kv_option options[] = {
    {"device", 'd', "LIST", NULL, "names or files (default: the shipped devices)"}, {0}};

// The device's own 16-bit step at a context, in ms.
static double step16_ms(const struct kv_device *d, uint32_t context) {
    struct kv_device_run run = {
        .mix = {.n = 1, .part = {{{16, 16}, 1}}}, .context = context, .cache_bytes = NAN};
    return kv_run_price(d, &run).step_ns / 1e6;
}

static void add_device(struct kv_table *t, const struct kv_device *d, const char *chosen) {
    char ports[64] = "";
    for (size_t i = 0, n = 0; i < d->n_ports && n < sizeof ports; i++)
        n += (size_t)snprintf(ports + n, sizeof ports - n, "%s%u", i ? "," : "", d->ports[i]);
    kv_table_text(t, d->name);
    kv_table_text(t, d->weights);
    kv_table_count(t, d->threads);
    kv_table_number(t, (d->base_ns + d->append_ns) / 1e6, 3);
    kv_table_number(t, step16_ms(d, d->context_max), 3);
    kv_table_count(t, d->context_min);
    kv_table_count(t, d->context_max);
    kv_table_number(t, d->bandwidth_bytes_per_ns, 1);
    kv_table_number(t, 100 * d->error_median, 2);
    kv_table_number(t, 100 * d->error_worst, 2);
    kv_table_number(t, 100 * d->share_error_median, 2);
    kv_table_count(t, (long long)d->n_runs);
    kv_table_text(t, *ports ? ports : NULL);
    kv_table_text(t, d->date);
    kv_table_text(t, d->machine);
    kv_table_text(t, d->engine);
    kv_table_number(t, 100 * d->share_error_mix_median, 2);
    kv_table_number(t, 100 * d->sign_right, 1);
    kv_table_text(t, chosen && strcmp(chosen, d->name) == 0 ? "yes" : NULL);
}

static int run(struct kv_cli *c, struct kv_error *e) {
    static const struct kv_column columns[] = {{"device", KV_LEFT},
                                               {"weights", KV_LEFT},
                                               {"threads", KV_RIGHT},
                                               {"empty_ms", KV_RIGHT},
                                               {"longest16_ms", KV_RIGHT},
                                               {"context_min", KV_RIGHT},
                                               {"context_max", KV_RIGHT},
                                               {"read_gb_per_s", KV_RIGHT},
                                               {"error_pct", KV_RIGHT},
                                               {"worst_pct", KV_RIGHT},
                                               {"cache_error_pct", KV_RIGHT},
                                               {"runs", KV_RIGHT},
                                               {"ports", KV_LEFT},
                                               {"date", KV_LEFT},
                                               {"machine", KV_LEFT},
                                               {"engine", KV_LEFT},
                                               {"mix_error_pct", KV_RIGHT},
                                               {"sign_right_pct", KV_RIGHT},
                                               {"default", KV_LEFT}};
    struct kv_device **devices;
    size_t n;
    int rc = kv_opt_devices(c, "device", &devices, &n, e);
    if (rc) return rc;
    struct kv_table *t = kv_table_new(columns, sizeof columns / sizeof *columns);
    const char *chosen = kv_device_default_name();
    for (size_t i = 0; i < n; i++) add_device(t, devices[i], chosen);
    kv_devices_free(devices, n);
    rc = kv_table_print(t, c->output, e);
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
