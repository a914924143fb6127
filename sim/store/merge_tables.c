// SPDX-License-Identifier: Apache-2.0
// Reads the tables of a store off its schema.
#include "sim/store/merge_tables.h"

#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"

struct reading {
    struct kv_merge_table *at;
    size_t n;
};

static int take_table(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                      struct kv_error *e) {
    struct reading *r = self;
    (void)n, (void)names, (void)e;
    r->at = kv_grow(r->at, r->n + 1, sizeof *r->at);
    r->at[r->n++] = (struct kv_merge_table){.name = kv_strdup(v[0].text), .has_id = v[1].n != 0};
    return 0;
}

// name, whether it is a part of the key, the table that it refers to by number.
static int take_column(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                       struct kv_error *e) {
    struct reading *r = self;
    struct kv_merge_table *t = &r->at[r->n - 1];
    struct kv_merge_column c = {kv_strdup(v[0].text), v[1].n != 0, SIZE_MAX};
    (void)n, (void)names, (void)e;
    for (size_t i = 0; v[2].text && i + 1 < r->n; i++)
        if (strcmp(r->at[i].name, v[2].text) == 0) c.refers = i;
    t->column = kv_grow(t->column, t->n + 1, sizeof *t->column);
    t->column[t->n++] = c;
    return 0;
}

// Tables are taken in rounds: whose references are all known by then.
static const char next_tables[] =
    "WITH ready AS (SELECT m.name FROM sqlite_master AS m WHERE m.type = 'table' AND "
    "m.name NOT LIKE 'sqlite_%' AND NOT EXISTS (SELECT 1 FROM json_each(?1) WHERE value = m.name) "
    "AND NOT EXISTS (SELECT 1 FROM pragma_foreign_key_list(m.name) AS f WHERE f.\"table\" <> "
    "m.name "
    "AND NOT EXISTS (SELECT 1 FROM json_each(?1) WHERE value = f.\"table\"))) "
    "SELECT name, (SELECT COUNT(*) FROM pragma_table_info(ready.name) AS c WHERE c.name = 'id' AND "
    "c.pk = 1 AND c.type = 'INTEGER') FROM ready ORDER BY name";
// The key of a numbered table is its UNIQUE index; of any other, its primary key.
static const char columns_of[] =
    "SELECT c.name, CASE WHEN ?2 THEN c.name IN (SELECT i.name FROM pragma_index_list(?1) AS l "
    "JOIN "
    "pragma_index_info(l.name) AS i WHERE l.origin = 'u') ELSE c.pk > 0 END, "
    "(SELECT f.\"table\" FROM pragma_foreign_key_list(?1) AS f WHERE f.\"from\" = c.name AND "
    "f.\"to\" = 'id') FROM pragma_table_info(?1) AS c WHERE NOT (?2 AND c.name = 'id') "
    "ORDER BY c.cid";

static char *known(const struct reading *r) {
    struct kv_text t = {0};
    for (size_t i = 0; i < r->n; i++) kv_text_addf(&t, "%s\"%s\"", i ? "," : "[", r->at[i].name);
    kv_text_add(&t, r->n ? "]" : "[]", r->n ? 1 : 2);
    return kv_text_take(&t);
}

int kv_merge_tables_read(struct kv_store *s, struct kv_merge_table **tables, size_t *n,
                         struct kv_error *e) {
    struct reading r = {0};
    int code = 0;
    *tables = NULL;
    *n = 0;
    KV_GUARD(e);
    for (size_t before = SIZE_MAX; !code && before != r.n;) {
        struct reading more = {0};
        char *so_far = known(&r);
        const struct kv_sql_value names = kv_sql_text(so_far);
        before = r.n;
        code = kv_store_query(s, next_tables, &names, 1, take_table, &more, e);
        free(so_far);
        for (size_t i = 0; !code && i < more.n; i++) {
            r.at = kv_grow(r.at, r.n + 1, sizeof *r.at);
            r.at[r.n++] = more.at[i];
            const struct kv_sql_value of[] = {kv_sql_text(more.at[i].name),
                                              kv_sql_int(more.at[i].has_id)};
            code = kv_store_query(s, columns_of, of, 2, take_column, &r, e);
        }
        free(more.at);
    }
    if (code) {
        kv_merge_tables_free(r.at, r.n);
        return code;
    }
    *tables = r.at;
    *n = r.n;
    return 0;
}

void kv_merge_tables_free(struct kv_merge_table *tables, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (size_t c = 0; c < tables[i].n; c++) free(tables[i].column[c].name);
        free(tables[i].column);
        free(tables[i].name);
    }
    free(tables);
}
