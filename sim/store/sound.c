// SPDX-License-Identifier: Apache-2.0
// Searches a store's tables for numbers that are not finite.
#include "sim/store/sound.h"

#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"

// False of infinities and, by SQLite's order of types, of texts and blobs; unknown of NULL.
#define FINITE "BETWEEN -1.7976931348623157e308 AND 1.7976931348623157e308"

static const struct {
    const char *name, *place; // place: where a row stands, in SQL
    enum kv_store_extent extent;
} tables[] = {
    {"outcome_item", "'run ' || run || ', item ' || item", KV_STORE_ITEMS},
    {"outcome_share", "'run ' || run || ', item ' || item", KV_STORE_ITEMS},
    {"outcome_choice", "'run ' || run || ', item ' || item", KV_STORE_ALL},
    {"latency", "'run ' || run || ' on ' || device", KV_STORE_ALL},
    {"device_run", "'run ' || run || ' of ' || device", KV_STORE_ALL},
    {"timing", "'run ' || run", KV_STORE_ALL},
};

struct search {
    struct kv_text where, which; // conditions and the columns they speak of
    const char *path, *table;
};

static int take_column(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                       struct kv_error *e) {
    struct search *x = self;
    (void)n, (void)names, (void)e;
    kv_text_addf(&x->where, "%s\"%s\" NOT " FINITE, x->where.n ? " OR " : "", v[0].text);
    kv_text_addf(&x->which, " WHEN \"%s\" NOT " FINITE " THEN '%s'", v[0].text, v[0].text);
    return 0;
}

static int refuse(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                  struct kv_error *e) {
    const struct search *x = self;
    (void)n, (void)names;
    return kv_fail(e, KV_EFAIL, x->path,
                   "another program wrote numbers into it that are not finite: %lld row%s of %s, "
                   "the first %s of %s; nothing is computed from them",
                   v[0].n, v[0].n == 1 ? "" : "s", x->table, v[1].text ? v[1].text : "?",
                   v[2].text ? v[2].text : "?");
}

static int check_table(struct kv_store *s, size_t at, struct kv_error *e) {
    struct search x = {.path = kv_store_path(s), .table = tables[at].name};
    const struct kv_sql_value name = kv_sql_text(x.table);
    int rc =
        kv_store_query(s, "SELECT name FROM pragma_table_info(?) WHERE type IN ('REAL', 'INTEGER')",
                       &name, 1, take_column, &x, e);
    char *where = kv_text_take(&x.where), *which = kv_text_take(&x.which);
    char *sql = kv_format_text("SELECT COUNT(*) OVER (), CASE%s END, %s FROM %s WHERE %s LIMIT 1",
                               which, tables[at].place, x.table, where);
    if (!rc) rc = kv_store_query(s, sql, NULL, 0, refuse, &x, e);
    free(sql);
    free(where);
    free(which);
    return rc;
}

int kv_store_check_numbers(struct kv_store *s, enum kv_store_extent extent, struct kv_error *e) {
    KV_GUARD(e);
    int rc = 0;
    for (size_t i = 0; i < sizeof tables / sizeof *tables && !rc; i++)
        if (tables[i].extent <= extent) rc = check_table(s, i, e);
    return rc;
}
