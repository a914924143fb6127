// SPDX-License-Identifier: Apache-2.0
// What there is to read in a store: its views and tables, as the schema speaks of them.
#include "sim/store/handle.h"

#include <stdlib.h>

#include "sim/base/assets.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"

// The comment above "CREATE KIND NAME" in the schema as one line; the last definition counts.
// Caller frees.
static char *about_of(const char *kind, const char *name) {
    const struct kv_asset *schema = kv_asset_find("sim/store/schema.sql");
    struct kv_text t = {0};
    char *create = kv_format_text("\nCREATE %s %s ", kind, name);
    const char *from = (const char *)schema->data, *at = NULL, *line;
    for (const char *p = from; (p = strstr(p, create)); p++) at = p;
    free(create);
    for (line = at; line && line > from;) { // back to the first line of the comment
        const char *before = line - 1;
        while (before > from && *before != '\n') before--;
        if (strncmp(before, "\n-- ", 4) != 0 || strncmp(before, "\n-- version", 11) == 0) break;
        line = before;
    }
    for (; line && line < at; line += strcspn(line + 1, "\n") + 1)
        kv_text_addf(&t, "%s%.*s", t.n ? " " : "", (int)strcspn(line + 4, "\n"), line + 4);
    return kv_text_take(&t);
}

struct describing {
    int (*take)(void *self, const struct kv_store_part *part, struct kv_error *e);
    void *self;
};

static int take_part(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                     struct kv_error *e) {
    const struct describing *d = self;
    bool view = strcmp(v[0].text, "view") == 0;
    (void)n, (void)names;
    char *about = about_of(view ? "VIEW" : "TABLE", v[1].text);
    int code = d->take(d->self, &(struct kv_store_part){v[0].text, v[1].text, v[2].text, about}, e);
    free(about);
    return code;
}

int kv_store_describe(int (*take)(void *self, const struct kv_store_part *part, struct kv_error *e),
                      void *self, struct kv_error *e) {
    KV_GUARD(e);
    struct describing d = {take, self};
    struct kv_store *s;
    int code = kv_store_open_memory(&s, e);
    if (!code)
        code = kv_store_query(s,
                              "SELECT type, name, (SELECT group_concat(name, ', ') FROM "
                              "pragma_table_info(m.name)) FROM sqlite_master AS m WHERE type IN "
                              "('view', 'table') ORDER BY type = 'table', rowid",
                              NULL, 0, take_part, &d, e);
    kv_store_abandon(s);
    return code;
}
