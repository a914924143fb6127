// SPDX-License-Identifier: Apache-2.0
// For tests: all that two stores hold of results, to the last bit.
#ifndef KV_STORE_TEST_STORE_ROWS_H
#define KV_STORE_TEST_STORE_ROWS_H

#include "sim/base/memory.h"
#include "sim/store/store.h"

static inline int store_rows_add(void *self, size_t n, const char *const *names,
                                 const struct kv_sql_value *v, struct kv_error *e) {
    struct kv_text *t = self;
    (void)names, (void)e;
    for (size_t i = 0; i < n; i++) {
        kv_text_addf(t, "%d ", v[i].kind);
        if (v[i].kind == KV_SQL_TEXT) kv_text_addf(t, "%s|", v[i].text);
        if (v[i].kind == KV_SQL_INT) kv_text_addf(t, "%lld|", v[i].n);
        if (v[i].kind == KV_SQL_REAL) kv_text_addf(t, "%a|", v[i].x);
    }
    kv_text_addf(t, "\n");
    return 0;
}

// Every table of results whole, in key order.
static inline char *store_rows_of(const char *file) {
    static const char *const tables[] = {
        "trace ORDER BY id",        "item ORDER BY trace, item",
        "policy_spec ORDER BY id",  "run ORDER BY id",
        "shard ORDER BY run, part", "outcome_item ORDER BY run, item",
        "outcome_choice",           "outcome_share"};
    struct kv_text t = {0};
    struct kv_store *s;
    struct kv_error e = {0};
    if (kv_store_open(&s, file, KV_STORE_READ, &e)) fail_msg("%s: %s", e.where, e.msg);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        char *sql = kv_format_text("SELECT * FROM %s", tables[i]);
        if (kv_store_query(s, sql, NULL, 0, store_rows_add, &t, &e)) fail_msg("%s", e.msg);
        free(sql);
    }
    kv_store_abandon(s);
    return kv_text_take(&t);
}

static inline void assert_same_rows(const char *a, const char *b) {
    char *x = store_rows_of(a), *y = store_rows_of(b);
    assert_string_equal(x, y);
    free(x);
    free(y);
}

#endif
