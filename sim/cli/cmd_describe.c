// SPDX-License-Identifier: Apache-2.0
// kvsim describe: all that the table says about one format or policy, or a plug-in about itself.
#include "sim/base/args.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/replay/catalogue.h"
#include "sim/cli/options.h"
#include "sim/cli/terminal.h"
#include "sim/replay/plugin.h"
#include "sim/replay/published.h"
#include "sim/replay/spec.h"

#include <stdlib.h>

// What is said: pairs, printed as a table for programs and as wrapped text for people.
struct line {
    char *what, *value;
};
struct sheet {
    size_t n;
    struct line *line;
};

static void add(struct sheet *t, const char *what, const char *value) {
    if (!value || !*value) return;
    t->line = kv_grow(t->line, t->n + 1, sizeof *t->line);
    t->line[t->n++] = (struct line){kv_strdup(what), kv_strdup(value)};
}

static void take(struct sheet *t, const char *what, char *value) {
    add(t, what, value);
    free(value);
}

static void add_params(struct sheet *t, const struct kv_param *p) {
    for (; p && p->name; p++) {
        char *name = kv_format_text("key %s", p->name);
        take(t, name, kv_listing_param(p));
        free(name);
    }
}

static void add_widths(struct sheet *t, const struct kv_format *f) {
    for (uint32_t w = 0; w < f->n_widths; w++) {
        struct kv_unit_size k = kv_format_size(f, KV_KEY, w), v = kv_format_size(f, KV_VALUE, w);
        char name[24], text[160];
        double bits[2] = {8.0 * k.bytes / k.values, 8.0 * v.bytes / v.values};
        snprintf(name, sizeof name, "width %u", f->width_bits[w]);
        if (bits[0] == bits[1] && k.bytes == v.bytes)
            snprintf(text, sizeof text, "%g bits a value: %u bytes for %u values", bits[0], k.bytes,
                     k.values);
        else
            snprintf(text, sizeof text,
                     "K %g bits a value: %u bytes for %u values; V %g: %u bytes for %u", bits[0],
                     k.bytes, k.values, bits[1], v.bytes, v.values);
        add(t, name, text);
    }
}

static void describe_format(struct sheet *t, const struct kv_format *f) {
    const struct kv_format_type *type = f->type;
    add(t, "kind", "format");
    add(t, "name", type->name);
    take(t, "in a spec",
         kv_format_text("static:bits=%u@%s%s", f->width_bits[0], type->name,
                        type->wraps ? "(sym)" : ""));
    add(t, "summary", type->summary);
    add(t, "source", type->citation);
    add(t, "tag", type->tag);
    add(t, "effective bits", type->formula);
    take(t, "unit", kv_listing_scope(f));
    add(t, "layout", type->layout);
    add(t, "rounding", type->rounding);
    add(t, "odd values", type->guards);
    add(t, "stable", type->stable ? "decoded data codes to the same bytes again" : "");
    add(t, "channel order", kv_listing_order(type));
    add(t, "keys coded", f->keys_before_rope ? "before RoPE" : "after RoPE");
    if (f->flush[KV_KEY] > 1 || f->window[KV_VALUE] > 0) {
        char text[120];
        snprintf(text, sizeof text, "K %u newest, leaving %u at a time; V %u newest, leaving %u",
                 f->window[KV_KEY], f->flush[KV_KEY], f->window[KV_VALUE], f->flush[KV_VALUE]);
        add(t, "window", text);
    }
    add(t, "published in", kv_published_name(type->published_mode));
    add_widths(t, f);
    add_params(t, type->params);
    add_params(t, kv_format_common_params);
    add(t, "canonical", f->canonical);
}

static void describe_policy(struct sheet *t, const struct kv_policy *p) {
    add(t, "kind",
        p->needs & KV_NEEDS_FUTURE ? "policy (an oracle: it reads the future)" : "policy");
    add(t, "name", p->name);
    add(t, "summary", p->summary);
    add(t, "source", p->citation);
    add(t, "tag", p->tag);
    take(t, "varies by", kv_listing_varies(p->varies));
    take(t, "reads", kv_listing_needs(p->needs));
    add(t, "decides",
        p->plan ? "a whole item at once"
        : p->decide_layer
            ? p->revise ? "inside the running pass: in each layer token by token, as it codes "
                          "them, and again as they age"
                        : "inside the running pass: in each layer token by token, as it codes them"
        : p->decide ? "token by token"
                    : "");
    if (!p->decide_layer)
        add(t, "fitted", p->fit ? "to the first items of the recording, before it decides" : "");
    if (p->delay_tokens) {
        char text[64];
        if (p->delay_tokens == KV_DELAY_PROMPT)
            snprintf(text, sizeof text, "at the end of the prompt");
        else
            snprintf(text, sizeof text, "%u tokens late", p->delay_tokens);
        add(t, "delay", text);
    }
    add(t, "published in", kv_published_name(p->published_mode));
    add_params(t, p->params);
}

KV_CELL(what_cell, struct line, kv_table_text(t, row->what))
KV_CELL(value_cell, struct line, kv_table_text(t, row->value))

static void print_text(const struct sheet *t) {
    size_t margin = 0;
    for (size_t i = 0; i < t->n; i++)
        if (strlen(t->line[i].what) + 2 > margin) margin = strlen(t->line[i].what) + 2;
    for (size_t i = 0; i < t->n; i++) {
        printf("%-*s", (int)margin, t->line[i].what);
        kv_print_wrapped(t->line[i].value, margin, kv_terminal_width());
    }
}

static int print_sheet(struct sheet *t, enum kv_output how, struct kv_error *e) {
    static const struct kv_table_column columns[] = {
        {"what", KV_LEFT, what_cell}, {"value", KV_PROSE, value_cell}, {0}};
    if (how == KV_OUT_TEXT) print_text(t);
    int rc = how == KV_OUT_TEXT
                 ? kv_flush_stdout(e)
                 : kv_table_print_rows(columns, t->line, t->n, sizeof *t->line, how, e);
    for (size_t i = 0; i < t->n; i++) {
        free(t->line[i].what);
        free(t->line[i].value);
    }
    free(t->line);
    return rc;
}

// ---- where the numbers of a unit lie --------------------------------------------------

struct field {
    enum kv_side side;
    uint32_t width_bits, unit_bytes;
    struct kv_field of;
};
#define FIELDS(X, T)                                                                               \
    X(T, side, KV_TEXT(row->side == KV_KEY ? "K" : "V"))                                           \
    X(T, width_bits, KV_COUNT(row->width_bits))                                                    \
    X(T, unit_bytes, KV_COUNT(row->unit_bytes))                                                    \
    X(T, what, KV_TEXT(row->of.what))                                                              \
    X(T, type, KV_TEXT(row->of.type))                                                              \
    X(T, bits, KV_COUNT(row->of.bits))                                                             \
    X(T, n, KV_COUNT(row->of.n))                                                                   \
    X(T, at_bits, KV_COUNT(row->of.at))                                                            \
    X(T, step_bits, KV_COUNT(row->of.step))                                                        \
    X(T, value, KV_COUNT(row->of.value))                                                           \
    X(T, next, KV_COUNT(row->of.next))                                                             \
    X(T, covers, KV_COUNT(row->of.covers))                                                         \
    X(T, apart, KV_COUNT(row->of.apart))
KV_TABLE_COLUMNS(fields, field, FIELDS)

struct fields {
    struct field now, *at;
    size_t n;
};

static void take_field(void *self, const struct kv_field *of) {
    struct fields *all = self;
    all->at = kv_grow(all->at, all->n + 1, sizeof *all->at);
    all->now.of = *of;
    all->at[all->n++] = all->now;
}

static int print_fields(const struct kv_format *f, enum kv_output how, struct kv_error *e) {
    struct fields all = {0};
    for (int side = 0; side < 2; side++)
        for (uint32_t w = 0; w < f->n_widths; w++) {
            all.now.side = (enum kv_side)side;
            all.now.width_bits = f->width_bits[w];
            size_t from = all.n;
            uint32_t bytes = kv_format_fields(f, (enum kv_side)side, w, take_field, &all);
            for (; from < all.n; from++) all.at[from].unit_bytes = bytes;
        }
    int rc = kv_table_print_rows(fields, all.at, all.n, sizeof *all.at, how, e);
    free(all.at);
    return rc;
}

static int unknown(const char *name, struct kv_error *e) {
    const char **names = NULL;
    size_t n = 0;
    for (size_t i = 0; kv_format_type_at(i); i++) {
        names = kv_grow(names, n + 2, sizeof *names);
        names[n++] = kv_format_type_at(i)->name;
    }
    for (size_t i = 0; kv_policy_at(i); i++) {
        names = kv_grow(names, n + 2, sizeof *names);
        names[n++] = kv_policy_at(i)->name;
    }
    names[n] = NULL;
    const char *near = kv_nearest(name, names);
    free(names);
    return kv_fail(e, KV_EUSAGE, "describe", "no format or policy is named '%s'%s%s%s", name,
                   near ? "; did you mean '" : "; kvsim list shows them", near ? near : "",
                   near ? "'?" : "");
}

// A policy that is a shared object, by its path.
static int describe_plugin(struct sheet *t, const char *path, struct kv_error *e) {
    struct kv_plugin *plugin;
    int rc = kv_plugin_open(&plugin, path, e);
    if (rc) return rc;
    describe_policy(t, &plugin->policy);
    add(t, "file", path);
    add(t, "digest", plugin->digest);
    kv_plugin_close(plugin);
    return 0;
}

static int describe(struct kv_cli *c, struct kv_error *e) {
    const char *name = c->args[0];
    const struct kv_format_type *type = NULL;
    const struct kv_policy *p = NULL;
    struct kv_format *f = NULL;
    struct sheet t = {0};
    if (kv_is_plugin(name)) {
        int rc = describe_plugin(&t, name, e);
        return rc ? rc : print_sheet(&t, c->output, e);
    }
    for (size_t i = 0; (type = kv_format_type_at(i)); i++)
        if (strcmp(type->name, name) == 0) break;
    for (size_t i = 0; (p = kv_policy_at(i)); i++)
        if (strcmp(p->name, name) == 0) break;
    if (!type && !p) return unknown(name, e);
    int rc = type ? kv_listing_open(&f, type, e) : 0;
    if (rc) return rc;
    if (kv_opt_given(c, "fields")) {
        rc = f ? print_fields(f, c->output, e)
               : kv_fail(e, KV_EUSAGE, "describe", "%s is a policy; --fields is of formats", name);
        kv_format_close(f);
        return rc;
    }
    if (p) describe_policy(&t, p); // some systems are both, a rule and the format it was made for
    if (f) describe_format(&t, f);
    kv_format_close(f);
    return print_sheet(&t, c->output, e);
}

static const struct kv_option options[] = {
    {"fields", 0, NULL, NULL, "of a format: where each number of a unit lies, bit by bit"}, {0}};

const struct kv_command kv_cmd_describe = {
    .name = "describe",
    .summary = "says what a format or policy is, with its keys and source",
    .usage = "NAME|PLUGIN.so",
    .example = "kvsim describe kivi",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = describe,
};
