// SPDX-License-Identifier: Apache-2.0
// kvsim list: the formats, policies and devices there are, and the CPU paths chosen here.
#include "sim/replay/catalogue.h"
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/cli/lists.h"
#include "sim/replay/published.h"

#include <stdlib.h>

// The first n columns.
static int print_columns(const struct kv_table_column *columns, size_t n, const void *rows,
                         size_t n_rows, size_t stride, const struct kv_cli *c, struct kv_error *e) {
    struct kv_table_column *some = kv_alloc(n + 1, sizeof *some);
    memcpy(some, columns, n * sizeof *some);
    int rc = kv_table_print_rows(some, rows, n_rows, stride, c->output, e);
    free(some);
    return rc;
}

// ---- formats --------------------------------------------------------------------------

struct format_row {
    const struct kv_format_type *type;
    struct kv_format *open; // with its defaults
};

// Allocated bits a value of K at each width: "2.25/4.25/16".
static char *bits_of(const struct kv_format *f, enum kv_side side) {
    struct kv_text t = {0};
    for (uint32_t w = 0; w < f->n_widths; w++) {
        struct kv_unit_size u = kv_format_size(f, side, w);
        kv_text_addf(&t, "%s%g", w ? "/" : "", 8.0 * u.bytes / u.values);
    }
    return kv_text_take(&t);
}

KV_CELL(format_name, struct format_row, kv_table_text(t, row->type->name))
KV_CELL(format_summary, struct format_row, kv_table_text(t, row->type->summary))
KV_CELL(format_widths, struct format_row, kv_table_take(t, kv_listing_widths(row->open)))
KV_CELL(format_formula, struct format_row, kv_table_text(t, row->type->formula))
KV_CELL(format_bits, struct format_row, kv_table_take(t, bits_of(row->open, KV_KEY)))
KV_CELL(format_tag, struct format_row, kv_table_text(t, row->type->tag))
KV_CELL(format_keys, struct format_row, kv_table_take(t, kv_listing_keys(row->type->params)))
KV_CELL(format_unit, struct format_row, kv_table_take(t, kv_listing_scope(row->open)))
KV_CELL(format_order, struct format_row, kv_table_text(t, kv_listing_order(row->type)))
KV_CELL(format_rope, struct format_row, kv_table_text(t, kv_listing_rope_side(row->open)))
KV_CELL(format_layout, struct format_row, kv_table_text(t, row->type->layout))
KV_CELL(format_rounding, struct format_row, kv_table_text(t, row->type->rounding))
KV_CELL(format_guards, struct format_row, kv_table_text(t, row->type->guards))
KV_CELL(format_stable, struct format_row, kv_table_text(t, row->type->stable ? "yes" : "no"))
KV_CELL(format_published, struct format_row,
        kv_table_text(t, kv_published_name(row->type->published_mode)))
KV_CELL(format_citation, struct format_row, kv_table_text(t, row->type->citation))

static const struct kv_table_column format_columns[] = {{"format", KV_LEFT, format_name},
                                                        {"summary", KV_PROSE, format_summary},
                                                        {"widths_bits", KV_LEFT, format_widths},
                                                        {"formula", KV_PROSE, format_formula},
                                                        {"allocated_bits", KV_LEFT, format_bits},
                                                        {"tag", KV_PROSE, format_tag},
                                                        {"published_in", KV_LEFT, format_published},
                                                        {"keys", KV_PROSE, format_keys},
                                                        {"unit", KV_PROSE, format_unit},
                                                        {"order", KV_LEFT, format_order},
                                                        {"rope", KV_LEFT, format_rope},
                                                        {"layout", KV_PROSE, format_layout},
                                                        {"rounding", KV_PROSE, format_rounding},
                                                        {"guards", KV_PROSE, format_guards},
                                                        {"stable", KV_LEFT, format_stable},
                                                        {"citation", KV_PROSE, format_citation}};
enum { FORMAT_COLUMNS = sizeof format_columns / sizeof *format_columns, SHORT_FORMAT_COLUMNS = 7 };

static int list_formats(struct kv_cli *c, struct kv_error *e) {
    struct format_row *rows = NULL;
    const struct kv_format_type *type;
    size_t n = 0;
    int rc = 0;
    while (rc == 0 && (type = kv_format_type_at(n))) {
        rows = kv_grow(rows, n + 1, sizeof *rows);
        rows[n].type = type;
        rc = kv_listing_open(&rows[n].open, type, e);
        n += rc == 0;
    }
    if (rc == 0)
        rc = print_columns(format_columns,
                           kv_opt_given(c, "long") ? FORMAT_COLUMNS : SHORT_FORMAT_COLUMNS, rows, n,
                           sizeof *rows, c, e);
    for (size_t i = 0; i < n; i++) kv_format_close(rows[i].open);
    free(rows);
    return rc;
}

// ---- policies -------------------------------------------------------------------------

KV_CELL(policy_name, struct kv_policy, kv_table_text(t, row->name))
KV_CELL(policy_summary, struct kv_policy, kv_table_text(t, row->summary))
KV_CELL(policy_tag, struct kv_policy, kv_table_text(t, row->tag))
KV_CELL(policy_varies, struct kv_policy, kv_table_take(t, kv_listing_varies(row->varies)))
KV_CELL(policy_reads, struct kv_policy, kv_table_take(t, kv_listing_needs(row->needs)))
KV_CELL(policy_keys, struct kv_policy, kv_table_take(t, kv_listing_keys(row->params)))
KV_CELL(policy_published, struct kv_policy,
        kv_table_text(t, kv_published_name(row->published_mode)))
KV_CELL(policy_citation, struct kv_policy, kv_table_text(t, row->citation))

static const struct kv_table_column policy_columns[] = {
    {"policy", KV_LEFT, policy_name},  {"summary", KV_PROSE, policy_summary},
    {"tag", KV_LEFT, policy_tag},      {"varies_by", KV_PROSE, policy_varies},
    {"reads", KV_PROSE, policy_reads}, {"published_in", KV_LEFT, policy_published},
    {"keys", KV_PROSE, policy_keys},   {"citation", KV_PROSE, policy_citation}};
enum { POLICY_COLUMNS = sizeof policy_columns / sizeof *policy_columns, SHORT_POLICY_COLUMNS = 6 };

static int list_policies(struct kv_cli *c, struct kv_error *e) {
    struct kv_policy *rows = NULL;
    const struct kv_policy *p;
    size_t n = 0;
    for (; (p = kv_policy_at(n)); n++) {
        rows = kv_grow(rows, n + 1, sizeof *rows);
        rows[n] = *p;
    }
    int rc = print_columns(policy_columns,
                           kv_opt_given(c, "long") ? POLICY_COLUMNS : SHORT_POLICY_COLUMNS, rows, n,
                           sizeof *rows, c, e);
    free(rows);
    return rc;
}

// ---- devices and CPU paths ------------------------------------------------------------

KV_CELL(device_name, struct kv_device *const, kv_table_text(t, (*row)->name))
KV_CELL(device_summary, struct kv_device *const, kv_table_text(t, (*row)->summary))

static int list_devices(struct kv_cli *c, struct kv_error *e) {
    static const struct kv_table_column columns[] = {
        {"device", KV_LEFT, device_name}, {"summary", KV_PROSE, device_summary}, {0}};
    struct kv_device **devices;
    size_t n;
    int rc = kv_opt_devices(c, "device", &devices, &n, e);
    if (rc) return rc;
    rc = kv_table_print_rows(columns, devices, n, sizeof *devices, c->output, e);
    kv_devices_free(devices, n);
    return rc;
}

KV_CELL(cpu_name, enum kv_cpu, kv_table_text(t, kv_cpu_level_name(*row)))
KV_CELL(cpu_chosen, enum kv_cpu, kv_table_text(t, *row == kv_cpu_level() ? "yes" : ""))

static int list_cpu(struct kv_cli *c, struct kv_error *e) {
    static const struct kv_table_column columns[] = {
        {"level", KV_LEFT, cpu_name}, {"chosen", KV_LEFT, cpu_chosen}, {0}};
    enum kv_cpu levels[KV_N_CPU];
    for (int level = 0; level < KV_N_CPU; level++) levels[level] = (enum kv_cpu)level;
    kv_say("%s; KVSIM_CPU=base|avx2|avx512 forces a level", kv_cpu_model());
    return kv_table_print_rows(columns, levels, KV_N_CPU, sizeof *levels, c->output, e);
}

// ---- command --------------------------------------------------------------------------

static int list(struct kv_cli *c, struct kv_error *e) {
    static const struct {
        const char *what;
        int (*run)(struct kv_cli *, struct kv_error *);
    } lists[] = {{"formats", list_formats}, {"policies", list_policies}, {"devices", list_devices}};
    if (kv_opt_given(c, "cpu")) return list_cpu(c, e);
    for (size_t i = 0; c->n_args && i < sizeof lists / sizeof *lists; i++)
        if (strcmp(c->args[0], lists[i].what) == 0) return lists[i].run(c, e);
    return kv_fail(e, KV_EUSAGE, "list", "say what: formats, policies, devices or --cpu");
}

static const struct kv_option options[] = {
    {"long", 'l', NULL, NULL, "all that the table says, for TSV and JSON above all"},
    {"cpu", 0, NULL, NULL, "the CPU paths and which one is chosen here"},
    {0}};

const struct kv_command kv_cmd_list = {
    .name = "list",
    .summary = "lists formats, policies, devices, CPU paths",
    .usage = "formats|policies|devices",
    .example = "kvsim list formats",
    .options = options,
    .max_args = 1,
    .run = list,
};
