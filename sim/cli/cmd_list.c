// SPDX-License-Identifier: Apache-2.0
// kvsim list: the formats, policies and devices there are, and the CPU paths chosen here.
#include "sim/cli/catalogue.h"
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/cli/options.h"
#include "sim/cost/cost.h"
#include "sim/replay/spec.h"

#include <stdlib.h>

static void take(struct kv_table *t, char *text) {
    kv_table_text(t, text);
    free(text);
}

// Allocated bits a value of K at each width: "2.25/4.25/16".
static char *bits_of(const struct kv_format *f, enum kv_side side) {
    struct kv_text t = {0};
    for (uint32_t w = 0; w < f->n_widths; w++) {
        struct kv_unit_size u = kv_format_size(f, side, w);
        kv_text_addf(&t, "%s%g", w ? "/" : "", 8.0 * u.bytes / u.values);
    }
    return kv_text_take(&t);
}

static void add_long(struct kv_table *t, const struct kv_format_type *type,
                     const struct kv_format *f) {
    take(t, kv_listing_keys(type->params));
    take(t, kv_listing_scope(f));
    kv_table_text(t, kv_listing_order(type));
    kv_table_text(t, kv_listing_rope_side(f));
    kv_table_text(t, type->layout);
    kv_table_text(t, type->rounding);
    kv_table_text(t, type->guards);
    kv_table_text(t, type->stable ? "yes" : "no");
    kv_table_text(t, type->citation);
}

static int list_formats(struct kv_cli *c, struct kv_error *e) {
    static const struct kv_column columns[] = {
        {"format", KV_LEFT},  {"summary", KV_LEFT},        {"widths_bits", KV_LEFT},
        {"formula", KV_LEFT}, {"allocated_bits", KV_LEFT}, {"tag", KV_LEFT},
        {"keys", KV_LEFT},    {"unit", KV_LEFT},           {"order", KV_LEFT},
        {"rope", KV_LEFT},    {"layout", KV_LEFT},         {"rounding", KV_LEFT},
        {"guards", KV_LEFT},  {"stable", KV_LEFT},         {"citation", KV_LEFT}};
    bool all = kv_opt_given(c, "long");
    struct kv_table *t = kv_table_new(columns, all ? sizeof columns / sizeof *columns : 6);
    const struct kv_format_type *type;
    int rc = 0;
    for (size_t i = 0; (type = kv_format_type_at(i)) && rc == 0; i++) {
        struct kv_format *f;
        rc = kv_listing_open(&f, type, e);
        if (rc) break;
        kv_table_text(t, type->name);
        kv_table_text(t, type->summary);
        take(t, kv_listing_widths(f));
        kv_table_text(t, type->formula);
        take(t, bits_of(f, KV_KEY));
        kv_table_text(t, type->tag);
        if (all) add_long(t, type, f);
        kv_format_close(f);
    }
    int printed = kv_table_print(t, c->output, rc ? NULL : e);
    return rc ? rc : printed;
}

static int list_policies(struct kv_cli *c, struct kv_error *e) {
    static const struct kv_column columns[] = {
        {"policy", KV_LEFT}, {"summary", KV_LEFT}, {"tag", KV_LEFT},     {"varies_by", KV_LEFT},
        {"reads", KV_LEFT},  {"keys", KV_LEFT},    {"citation", KV_LEFT}};
    struct kv_table *t = kv_table_new(columns, kv_opt_given(c, "long") ? 7 : 5);
    const struct kv_policy *p;
    for (size_t i = 0; (p = kv_policy_at(i)); i++) {
        kv_table_text(t, p->name);
        kv_table_text(t, p->summary);
        kv_table_text(t, p->tag);
        take(t, kv_listing_varies(p->varies));
        take(t, kv_listing_needs(p->needs));
        if (!kv_opt_given(c, "long")) continue;
        take(t, kv_listing_keys(p->params));
        kv_table_text(t, p->citation);
    }
    return kv_table_print(t, c->output, e);
}

static int list_devices(struct kv_cli *c, struct kv_error *e) {
    static const struct kv_column columns[] = {{"device", KV_LEFT}, {"summary", KV_LEFT}};
    struct kv_table *t = kv_table_new(columns, 2);
    const char *name;
    int rc = 0;
    for (size_t i = 0; (name = kv_device_name_at(i)) && rc == 0; i++) {
        struct kv_device *d;
        rc = kv_device_open(&d, name, e);
        if (rc) break;
        kv_table_text(t, name);
        kv_table_text(t, d->summary);
        kv_device_free(d);
    }
    int printed = kv_table_print(t, c->output, rc ? NULL : e);
    return rc ? rc : printed;
}

static int list_cpu(struct kv_cli *c, struct kv_error *e) {
    static const struct kv_column columns[] = {{"level", KV_LEFT}, {"chosen", KV_LEFT}};
    struct kv_table *t = kv_table_new(columns, 2);
    for (int level = 0; level < KV_N_CPU; level++) {
        kv_table_text(t, kv_cpu_level_name((enum kv_cpu)level));
        kv_table_text(t, level == (int)kv_cpu_level() ? "yes" : "");
    }
    kv_say("%s; KVSIM_CPU=base|avx2|avx512 forces a level", kv_cpu_model());
    return kv_table_print(t, c->output, e);
}

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
