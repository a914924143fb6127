// SPDX-License-Identifier: Apache-2.0
// kvsim sql: read-only queries on a store, and what there is to query.
#include "sim/store/sound.h"
#include "sim/store/store.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/cli/options.h"
#include "sim/cli/terminal.h"

#include <stdlib.h>

static const struct kv_option options[] = {
    {"db", 0, "FILE", "kvsim.db", "the store"},
    {"views", 0, NULL, NULL, "explain the views and tables of a store; needs none"},
    {0}};

// ---- a query --------------------------------------------------------------------------

struct result {
    size_t n;
    char **names;
    struct kv_table *table; // made at the first row, whose values say how columns are aligned
};

static int take_head(void *self, size_t n, const char *const *names, struct kv_error *e) {
    struct result *r = self;
    (void)e;
    r->n = n;
    r->names = kv_alloc(n, sizeof *r->names);
    for (size_t i = 0; i < n; i++) r->names[i] = kv_strdup(names[i]);
    return 0;
}

static void begin_table(struct result *r, const struct kv_sql_value *values) {
    struct kv_column *head = kv_alloc(r->n, sizeof *head);
    for (size_t i = 0; i < r->n; i++) {
        bool number = values && (values[i].kind == KV_SQL_INT || values[i].kind == KV_SQL_REAL);
        head[i] = (struct kv_column){r->names[i], number ? KV_RIGHT : KV_LEFT};
    }
    r->table = kv_table_new(head, r->n);
    free(head);
}

static int take_row(void *self, size_t n, const char *const *names,
                    const struct kv_sql_value *values, struct kv_error *e) {
    struct result *r = self;
    (void)names;
    if (kv_interrupted()) return kv_fail(e, KV_EINTR, "sql", "interrupted");
    if (!r->table) begin_table(r, values);
    for (size_t i = 0; i < n; i++) switch (values[i].kind) {
        case KV_SQL_INT:
            kv_table_count(r->table, values[i].n);
            break;
        case KV_SQL_REAL:
            kv_table_number(r->table, values[i].x, -1);
            break;
        default:
            kv_table_text(r->table, values[i].text);
        }
    return 0;
}

// A query may look for what is wrong, so that numbers that are not finite are no error here.
static void warn_of_numbers(struct kv_store *s) {
    struct kv_error e;
    if (kv_tolerate(kv_store_check_numbers(s, KV_STORE_ALL, &e), &e))
        kv_say("%s: %s", e.where, e.msg);
}

static int query(const struct kv_cli *c, struct kv_error *e) {
    struct kv_store *s;
    struct result r = {0};
    int code = kv_store_open(&s, kv_opt(c, "db"), KV_STORE_READ, e);
    if (code) return code;
    warn_of_numbers(s);
    code = kv_store_select(s, c->args[0], take_head, take_row, &r, e);
    if (!code && !r.table) begin_table(&r, NULL);
    if (!code) {
        code = kv_table_print(r.table, c->output, e);
        r.table = NULL;
    }
    kv_table_free(r.table);
    for (size_t i = 0; i < r.n; i++) free(r.names[i]);
    free(r.names);
    kv_store_abandon(s);
    return code;
}

// ---- what there is --------------------------------------------------------------------

#define CELL(name, value) KV_CELL(name, struct kv_store_part, kv_table_text(t, value))
CELL(part_name, row->name)
CELL(part_kind, row->kind)
CELL(part_about, row->about)
CELL(part_columns, row->columns)
static const struct kv_table_column parts[] = {{"name", KV_LEFT, part_name},
                                               {"kind", KV_LEFT, part_kind},
                                               {"about", KV_LEFT, part_about},
                                               {"columns", KV_LEFT, part_columns},
                                               {0}};

static int add_part(void *self, const struct kv_store_part *p, struct kv_error *e) {
    (void)e;
    kv_table_add_rows(self, parts, p, 1, sizeof *p);
    return 0;
}

static int print_part(void *self, const struct kv_store_part *p, struct kv_error *e) {
    size_t width = *(const size_t *)self;
    (void)e;
    kv_print("%s %s\n", p->kind, p->name);
    if (*p->about) {
        printf("    ");
        kv_print_wrapped(p->about, 4, width);
    }
    char *columns = kv_format_text("columns: %s", p->columns);
    printf("    ");
    kv_print_wrapped(columns, 4, width);
    free(columns);
    return 0;
}

static int explain(const struct kv_cli *c, struct kv_error *e) {
    size_t width = kv_terminal_width() ? kv_terminal_width() : 100;
    if (c->output == KV_OUT_TEXT) {
        int code = kv_store_describe(print_part, &width, e);
        return code ? code : kv_flush_stdout(e);
    }
    struct kv_table *t = kv_table_begin(parts);
    int code = kv_store_describe(add_part, t, e);
    if (!code) return kv_table_print(t, c->output, e);
    kv_table_free(t);
    return code;
}

static int sql(struct kv_cli *c, struct kv_error *e) {
    if (kv_opt_given(c, "views")) return explain(c, e);
    if (c->n_args != 1)
        return kv_fail(e, KV_EUSAGE, "sql", "one query is expected, in quotes, or --views");
    return query(c, e);
}

const struct kv_command kv_cmd_sql = {
    .name = "sql",
    .summary = "runs a read-only query on a store, and explains its views",
    .usage = "\"SELECT ...\"",
    .example = "kvsim sql \"SELECT label, n, acc, kl_nats FROM summary ORDER BY kl_nats\" "
               "--db work/demo.db",
    .options = options,
    .max_args = 1,
    .run = sql};
