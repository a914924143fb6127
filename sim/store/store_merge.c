// SPDX-License-Identifier: Apache-2.0
// Makes one store of several: each table's rows in the order of their keys, store after store.
#include "sim/store/merge.h"

#include <stdlib.h>
#include <unistd.h>

#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/store/merge_tables.h"

// Which number a row of a numbered table has here, by the one that it has there (ascending).
struct numbers {
    struct pair {
        long long there, here;
    } * at;
    size_t n;
};

struct merge {
    struct kv_store *to;
    struct kv_merge_table *table;
    size_t n_tables;
    struct numbers *numbers; // [n_tables] of the store that is read now
    const char *from;        // its file
    size_t n_before;         // stores that were read before it
};

static const char summed[] = "timing"; // durations of one run, kept apart from results, add up

static int by_number(const void *a, const void *b) {
    const struct pair *x = a, *y = b;
    return (x->there > y->there) - (x->there < y->there);
}

// ---- one row --------------------------------------------------------------------------

static void bind_all(const struct merge *m, const struct kv_merge_table *t, sqlite3_stmt *row,
                     sqlite3_stmt *to, bool keys_alone) {
    int at = 0;
    for (size_t c = 0; c < t->n; c++) {
        if (keys_alone && !t->column[c].key) continue;
        at++;
        if (t->column[c].refers == SIZE_MAX) {
            sqlite3_bind_value(to, at, sqlite3_column_value(row, (int)c));
            continue;
        }
        const struct numbers *known = &m->numbers[t->column[c].refers];
        struct pair wanted = {sqlite3_column_int64(row, (int)c), 0};
        const struct pair *found = bsearch(&wanted, known->at, known->n, sizeof wanted, by_number);
        if (found)
            sqlite3_bind_int64(to, at, found->here);
        else
            sqlite3_bind_null(to, at); // refers to nothing: refused by the column
    }
}

static bool equal_values(sqlite3_stmt *a, sqlite3_stmt *b, int c) {
    int type = sqlite3_column_type(a, c);
    if (type != sqlite3_column_type(b, c)) return false;
    switch (type) {
    case SQLITE_INTEGER:
        return sqlite3_column_int64(a, c) == sqlite3_column_int64(b, c);
    case SQLITE_FLOAT: {
        double x = sqlite3_column_double(a, c), y = sqlite3_column_double(b, c);
        return memcmp(&x, &y, sizeof x) == 0;
    }
    case SQLITE_NULL:
        return true;
    default:
        return strcmp((const char *)sqlite3_column_text(a, c),
                      (const char *)sqlite3_column_text(b, c)) == 0;
    }
}

// "run static:..., item 17": the row by its key. Caller frees.
static char *row_name(const struct merge *m, const struct kv_merge_table *t, sqlite3_stmt *row) {
    struct kv_text name = {0};
    for (size_t c = 0; c < t->n; c++) {
        const struct kv_merge_column *x = &t->column[c];
        const char *value = (const char *)sqlite3_column_text(row, (int)c);
        if (!x->key) continue;
        kv_text_addf(&name, "%s%s ", name.n ? ", " : "", x->name);
        char *spec = NULL;
        if (x->refers != SIZE_MAX && strcmp(m->table[x->refers].name, "run") == 0) {
            sqlite3_stmt *st = NULL;
            struct pair wanted = {sqlite3_column_int64(row, (int)c), 0};
            const struct numbers *known = &m->numbers[x->refers];
            const struct pair *found =
                bsearch(&wanted, known->at, known->n, sizeof wanted, by_number);
            if (found && sqlite3_prepare_v2(m->to->db,
                                            "SELECT s.spec FROM run AS r JOIN policy_spec AS s ON "
                                            "s.id = r.spec WHERE r.id = ?",
                                            -1, &st, NULL) == SQLITE_OK) {
                sqlite3_bind_int64(st, 1, found->here);
                if (sqlite3_step(st) == SQLITE_ROW)
                    spec = kv_strdup((const char *)sqlite3_column_text(st, 0));
            }
            sqlite3_finalize(st);
        }
        kv_text_addf(&name, "%s", spec ? spec : value ? value : "");
        free(spec);
    }
    return kv_text_take(&name);
}

// What is wrong with a column that two stores hold differently; of numbered rows the first store's
// description stays (where a recording lay, which BLAS), but an empty name is filled.
static int differ(const struct merge *m, const struct kv_merge_table *t, size_t c,
                  sqlite3_stmt *row, sqlite3_stmt *here, struct kv_error *e) {
    const char *a = (const char *)sqlite3_column_text(row, (int)c),
               *b = (const char *)sqlite3_column_text(here, (int)c);
    char *name = row_name(m, t, row);
    int code = kv_fail(e, KV_EFAIL, m->from,
                       "conflict in %s, %s: %s is %s here and %s in a store before it", t->name,
                       name, t->column[c].name, a ? a : "unknown", b ? b : "unknown");
    free(name);
    return code;
}

static int fill_name(const struct merge *m, const struct kv_merge_table *t, size_t c,
                     sqlite3_stmt *row, long long id, struct kv_error *e) {
    char *sql = kv_format_text("UPDATE %s SET %s = ? WHERE id = ?", t->name, t->column[c].name);
    const struct kv_sql_value values[] = {
        kv_sql_text((const char *)sqlite3_column_text(row, (int)c)), kv_sql_int(id)};
    int code = kv_store_query(m->to, sql, values, 2, NULL, NULL, e);
    free(sql);
    return code;
}

// Compares a row with the one of the same key that is there already.
static int compare(const struct merge *m, const struct kv_merge_table *t, sqlite3_stmt *row,
                   sqlite3_stmt *here, struct kv_error *e) {
    int code = 0;
    for (size_t c = 0; c < t->n && !code; c++) {
        if (t->column[c].key || equal_values(row, here, (int)c)) continue;
        if (!t->has_id) return differ(m, t, c, row, here, e);
        if (strcmp(t->column[c].name, "name") != 0) continue;
        const char *a = (const char *)sqlite3_column_text(row, (int)c),
                   *b = (const char *)sqlite3_column_text(here, (int)c);
        if (b && !*b)
            code = fill_name(m, t, c, row, sqlite3_column_int64(here, (int)t->n), e);
        else if (a && *a)
            code = differ(m, t, c, row, here, e);
    }
    return code;
}

// ---- one table ------------------------------------------------------------------------

struct statements {
    sqlite3_stmt *read, *insert, *find, *add;
};

static int prepare(struct kv_store *s, struct kv_text *sql, sqlite3_stmt **st, struct kv_error *e) {
    char *text = kv_text_take(sql);
    int code = sqlite3_prepare_v2(s->db, text, -1, st, NULL) == SQLITE_OK
                   ? 0
                   : kv_store_fail(s, "read or write a table", e);
    free(text);
    return code;
}

static void list_columns(struct kv_text *t, const struct kv_merge_table *of, const char *each,
                         const char *between, bool keys, bool others) {
    bool first = true;
    for (size_t c = 0; c < of->n; c++) {
        if (!(of->column[c].key ? keys : others)) continue;
        if (!first) kv_text_addf(t, "%s", between);
        for (const char *p = each; *p; p++)
            if (*p == '#')
                kv_text_addf(t, "\"%s\"", of->column[c].name);
            else
                kv_text_add(t, p, 1);
        first = false;
    }
}

static int prepare_all(const struct merge *m, const struct kv_merge_table *t, struct kv_store *from,
                       struct statements *st, struct kv_error *e) {
    struct kv_text read = {0}, insert = {0}, find = {0}, add = {0};
    kv_text_addf(&read, "SELECT ");
    list_columns(&read, t, "#", ", ", true, true);
    kv_text_addf(&read, "%s FROM \"%s\" ORDER BY ", t->has_id ? ", id" : "", t->name);
    if (t->has_id)
        kv_text_addf(&read, "id");
    else
        list_columns(&read, t, "#", ", ", true, false);
    kv_text_addf(&insert, "INSERT INTO \"%s\" (", t->name);
    list_columns(&insert, t, "#", ", ", true, true);
    kv_text_addf(&insert, ") VALUES (");
    for (size_t c = 0; c < t->n; c++) kv_text_addf(&insert, "%s?", c ? ", " : "");
    kv_text_addf(&insert, ") ON CONFLICT DO NOTHING");
    kv_text_addf(&find, "SELECT ");
    list_columns(&find, t, "#", ", ", true, true);
    kv_text_addf(&find, "%s FROM \"%s\" WHERE ", t->has_id ? ", id" : "", t->name);
    list_columns(&find, t, "# IS ?", " AND ", true, false);
    int code = prepare(from, &read, &st->read, e);
    if (!code) code = prepare(m->to, &insert, &st->insert, e);
    if (!code) code = prepare(m->to, &find, &st->find, e);
    if (code || strcmp(t->name, summed) != 0) return code;
    kv_text_addf(&add, "INSERT INTO \"%s\" (", t->name);
    list_columns(&add, t, "#", ", ", true, true);
    kv_text_addf(&add, ") VALUES (");
    for (size_t c = 0; c < t->n; c++) kv_text_addf(&add, "%s?", c ? ", " : "");
    kv_text_addf(&add, ") ON CONFLICT DO UPDATE SET ");
    list_columns(&add, t, "# = # + excluded.#", ", ", false, true);
    return prepare(m->to, &add, &st->add, e);
}

static void note_number(struct merge *m, const struct kv_merge_table *t, long long there,
                        long long here) {
    struct numbers *n = &m->numbers[t - m->table];
    if ((n->n & (n->n - 1)) == 0) n->at = kv_grow(n->at, n->n ? 2 * n->n : 1, sizeof *n->at);
    n->at[n->n++] = (struct pair){there, here};
}

static int merge_row(struct merge *m, const struct kv_merge_table *t, const struct statements *st,
                     struct kv_error *e) {
    sqlite3_stmt *write = st->add ? st->add : st->insert;
    bind_all(m, t, st->read, write, false);
    int code = kv_store_step(m->to, write, "merge a row", e);
    bool there = !code && sqlite3_changes(m->to->db) == 0;
    if (code || (!t->has_id && !there)) return code;
    long long id = sqlite3_last_insert_rowid(m->to->db);
    if (there) {
        bind_all(m, t, st->read, st->find, true);
        if (sqlite3_step(st->find) != SQLITE_ROW)
            code = kv_store_fail(m->to, "find a row", e);
        else
            code = compare(m, t, st->read, st->find, e);
        if (!code && t->has_id) id = sqlite3_column_int64(st->find, (int)t->n);
        sqlite3_reset(st->find);
    }
    if (!code && t->has_id) note_number(m, t, sqlite3_column_int64(st->read, (int)t->n), id);
    return code;
}

static int merge_table(struct merge *m, const struct kv_merge_table *t, struct kv_store *from,
                       struct kv_error *e) {
    struct statements st = {0};
    int step = SQLITE_DONE, code = prepare_all(m, t, from, &st, e);
    while (!code && (step = sqlite3_step(st.read)) == SQLITE_ROW) code = merge_row(m, t, &st, e);
    if (!code && step != SQLITE_DONE) code = kv_store_fail(from, "read it", e);
    sqlite3_stmt *all[] = {st.read, st.insert, st.find, st.add};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) sqlite3_finalize(all[i]);
    return code;
}

// ---- what stores have of different kinds ----------------------------------------------

static int take_text(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                     struct kv_error *e) {
    struct kv_text *t = self;
    (void)n, (void)names, (void)e;
    if (v[0].text) kv_text_addf(t, "\n%s\n", v[0].text);
    return 0;
}

// The texts that `sql` gives in the one and not in the other, as "a; b"; NULL where there is none.
// Caller frees.
static int only_in(struct kv_store *one, struct kv_store *other, const char *sql, char **list,
                   struct kv_error *e) {
    struct kv_text a = {0}, b = {0}, more = {0};
    *list = NULL;
    int code = kv_store_query(one, sql, NULL, 0, take_text, &a, e);
    if (!code) code = kv_store_query(other, sql, NULL, 0, take_text, &b, e);
    for (char *line = a.s; !code && line && *line;) {
        char *end = strchr(line + 1, '\n');
        char *whole = kv_format_text("%.*s", (int)(end + 1 - line), line);
        if (!b.s || !strstr(b.s, whole))
            kv_text_addf(&more, "%s%.*s", more.n ? "; " : "", (int)(end - line - 1), line + 1);
        free(whole);
        line = end + 1;
    }
    free(a.s);
    free(b.s);
    if (more.n) *list = kv_text_take(&more);
    return code;
}

static int say_differences(const struct merge *m, struct kv_store *from, struct kv_error *e) {
    static const struct {
        const char *sql, *what;
    } kinds[] = {
        {"SELECT task_name || ' by ' || model_name || ', ' || digest FROM trace ORDER BY id",
         "another recording"},
        {"SELECT DISTINCT 'kvsim ' || version || ' ' || git_commit || ', ' || cpu || ' kernels, ' "
         "|| blas FROM run ORDER BY 1",
         "runs of another build, or on another processor"}};
    int code = 0;
    for (size_t i = 0; m->n_before && i < sizeof kinds / sizeof *kinds && !code; i++) {
        char *list;
        code = only_in(from, m->to, kinds[i].sql, &list, e);
        if (list) kv_say("%s holds %s than the stores before it: %s", m->from, kinds[i].what, list);
        free(list);
    }
    return code;
}

static int check_names(const struct merge *m, struct kv_error *e) {
    struct kv_text twice = {0};
    int code = kv_store_query(m->to,
                              "SELECT name || ' is ' || group_concat(spec, ' and ') FROM "
                              "policy_spec WHERE name <> '' GROUP BY name HAVING COUNT(*) > 1",
                              NULL, 0, take_text, &twice, e);
    if (!code && twice.n)
        code = kv_fail(e, KV_EFAIL, m->from, "one name of two specs: %.*s", (int)twice.n - 2,
                       twice.s + 1);
    free(twice.s);
    return code;
}

// ---- shards ---------------------------------------------------------------------------

int kv_shard_read(const char *text, const char *where, struct kv_shard *shard, struct kv_error *e) {
    char left;
    if (sscanf(text, "%u/%u%c", &shard->part, &shard->parts, &left) == 2 && shard->part >= 1 &&
        shard->part <= shard->parts && shard->parts <= 1000000)
        return 0;
    return kv_fail(e, KV_EUSAGE, where,
                   "'%s' is no shard; I/N is expected, 1/4 for the first of four", text);
}

bool kv_shard_holds(const struct kv_shard *shard, size_t place) {
    return shard->parts == 0 || place % shard->parts == shard->part - 1;
}

int kv_store_put_shard(struct kv_store *s, long long run, const struct kv_shard *shard,
                       size_t first, size_t n, struct kv_error *e) {
    KV_GUARD(e);
    const struct kv_sql_value row[] = {kv_sql_int(run), kv_sql_int(shard->parts),
                                       kv_sql_int((long long)first), kv_sql_int((long long)n),
                                       kv_sql_int(shard->part)};
    return kv_store_query(s,
                          "INSERT OR IGNORE INTO shard (run, parts, first, n, part) "
                          "VALUES (?, ?, ?, ?, ?)",
                          row, sizeof row / sizeof *row, NULL, NULL, e);
}

// Every part that some run of the store was to have and does not hold whole.
static const char lacking_parts[] =
    "CREATE TEMP TABLE lacking AS "
    "WITH RECURSIVE split AS (SELECT DISTINCT run, parts, first, n FROM shard), "
    "place AS (SELECT run, parts, first, n, 1 AS part FROM split UNION ALL "
    "SELECT run, parts, first, n, part + 1 FROM place WHERE part < parts), "
    "held AS (SELECT s.run, s.parts, s.first, s.n, (o.item - s.first) % s.parts + 1 AS part, "
    "COUNT(*) AS items FROM split AS s JOIN outcome_item AS o ON o.run = s.run AND "
    "o.item >= s.first AND o.item < s.first + s.n GROUP BY 1, 2, 3, 4, 5) "
    "SELECT p.run, p.parts, p.first, p.n, p.part, (p.n - p.part + p.parts) / p.parts AS wanted, "
    "COALESCE(h.items, 0) AS items, EXISTS (SELECT 1 FROM shard AS s WHERE s.run = p.run AND "
    "s.parts = p.parts AND s.first = p.first AND s.n = p.n AND s.part = p.part) AS begun "
    "FROM place AS p LEFT JOIN held AS h USING (run, parts, first, n, part) "
    "WHERE COALESCE(h.items, 0) < (p.n - p.part + p.parts) / p.parts";

static int say_lacking(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                       struct kv_error *e) {
    (void)n, (void)names, (void)e;
    ++*(size_t *)self;
    kv_say("shard %lld/%lld of items %lld-%lld is %s: %lld outcomes of %lld run%s", v[0].n, v[1].n,
           v[2].n, v[2].n + v[3].n - 1, v[4].n ? "unfinished, it lacks" : "missing", v[5].n, v[6].n,
           v[6].n == 1 ? "" : "s");
    return 0;
}

static int close_shards(struct kv_store *s, size_t *missing, struct kv_error *e) {
    int code = kv_store_exec(s, lacking_parts, "look for shards", e);
    if (!code)
        code = kv_store_query(s,
                              "SELECT part, parts, first, n, MAX(begun), SUM(wanted - items), "
                              "COUNT(*) FROM lacking GROUP BY part, parts, first, n "
                              "ORDER BY first, parts, part",
                              NULL, 0, say_lacking, missing, e);
    if (!code)
        code =
            kv_store_exec(s,
                          "DELETE FROM shard WHERE NOT EXISTS (SELECT 1 FROM lacking AS l WHERE "
                          "l.run = shard.run AND l.parts = shard.parts AND l.first = shard.first "
                          "AND l.n = shard.n); DROP TABLE lacking",
                          "close shards", e);
    return code;
}

// ---- all of it ------------------------------------------------------------------------

static int merge_store(struct merge *m, const char *path, struct kv_error *e) {
    struct kv_store *from;
    m->from = path;
    int code = kv_store_open(&from, path, KV_STORE_READ, e);
    if (code) return code;
    code = say_differences(m, from, e);
    for (size_t i = 0; i < m->n_tables; i++) m->numbers[i].n = 0;
    for (size_t i = 0; i < m->n_tables && !code; i++) code = merge_table(m, &m->table[i], from, e);
    if (!code) code = check_names(m, e);
    m->n_before++;
    kv_store_abandon(from);
    return code;
}

// Guarded, so that the file goes whatever happens.
static int merge_all(struct merge *m, const char *const *paths, size_t n,
                     struct kv_merge_count *count, struct kv_error *e) {
    KV_GUARD(e);
    long long runs = 0, outcomes = 0;
    int code = kv_merge_tables_read(m->to, &m->table, &m->n_tables, e);
    if (code) return code;
    m->numbers = kv_alloc(m->n_tables, sizeof *m->numbers);
    code = kv_store_statement(m->to, KV_DO_BEGIN, "lock the store", e);
    for (size_t i = 0; i < n && !code; i++) code = merge_store(m, paths[i], e);
    if (!code) code = close_shards(m->to, &count->missing, e);
    if (!code) code = kv_store_number(m->to, "SELECT COUNT(*) FROM run", &runs, e);
    if (!code) code = kv_store_number(m->to, "SELECT COUNT(*) FROM outcome_item", &outcomes, e);
    if (!code) code = kv_store_statement(m->to, KV_DO_COMMIT, "merge the stores", e);
    if (code) kv_store_rollback(m->to);
    count->runs = (size_t)runs;
    count->outcomes = (size_t)outcomes;
    return code;
}

// A store that is being made, with its log.
static void remove_partial(const char *path) {
    static const char *const ends[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        char *file = kv_format_text("%s%s", path, ends[i]);
        unlink(file);
        free(file);
    }
}

int kv_store_merge(const char *const *paths, size_t n_paths, const char *out,
                   struct kv_merge_count *count, struct kv_error *e) {
    *count = (struct kv_merge_count){0};
    KV_GUARD(e);
    if (access(out, F_OK) == 0)
        return kv_fail(e, KV_EFAIL, out, "is there already, and merge makes a store of its own");
    struct merge m = {0};
    char *partial = kv_format_text("%s.partial", out);
    remove_partial(partial);
    int code = kv_store_open(&m.to, partial, KV_STORE_CREATE, e);
    if (!code) code = merge_all(&m, paths, n_paths, count, e);
    kv_store_abandon(m.to);
    if (!code) code = kv_rename_file(partial, out, e);
    if (code) remove_partial(partial);
    for (size_t i = 0; m.numbers && i < m.n_tables; i++) free(m.numbers[i].at);
    free(m.numbers);
    kv_merge_tables_free(m.table, m.n_tables);
    free(partial);
    return code;
}
