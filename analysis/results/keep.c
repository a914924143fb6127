// SPDX-License-Identifier: Apache-2.0
// Keeps the rows that are asked for.
#include "analysis/results/find.h"
#include "analysis/results/rows.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"

#include <fnmatch.h>
#include <stdlib.h>

// Whether a text means the row; a pattern is held against its label and its spec.
static bool means(const char *text, const struct kv_row *r, const struct kv_store_setting *settings,
                  size_t n_settings, struct kv_error *no_spec) {
    bool marked = strcmp(text, r->label) == 0;
    if (strchr(text, '*'))
        return fnmatch(text, r->label, 0) == 0 || fnmatch(text, r->s.spec, 0) == 0 ||
               fnmatch(text, r->s.short_label, 0) == 0;
    if (!marked) kv_rows_mark(&r->s, 1, settings, n_settings, text, &marked, no_spec);
    return marked;
}

static int mark(const struct kv_rows *rows, const struct kv_store_setting *settings,
                size_t n_settings, const char *text, bool *kept, struct kv_error *e) {
    struct kv_error no_spec = {0};
    bool any = false;
    for (size_t i = 0; i < rows->n; i++)
        if (means(text, &rows->row[i], settings, n_settings, &no_spec)) any = kept[i] = true;
    if (any) return 0;
    if (no_spec.code) return *e = no_spec, no_spec.code;
    return kv_fail(e, KV_EFAIL, "--rows", "the store holds no row of %s%s%s%s", text,
                   strchr(text, '*') ? "" : "; '", strchr(text, '*') ? "" : text,
                   strchr(text, '*') ? "" : "*' are all that begin so");
}

int kv_rows_keep(struct kv_rows *rows, struct kv_store *s, const char *const *texts, size_t n,
                 struct kv_error *e) {
    KV_GUARD(e);
    struct kv_store_setting *settings = NULL;
    size_t n_settings = 0, n_kept = 0;
    if (n == 0) return 0;
    int code = kv_store_settings(s, &settings, &n_settings, e);
    bool *kept = kv_alloc(rows->n + 1, sizeof *kept);
    for (size_t i = 0; !code && i < n; i++)
        code = mark(rows, settings, n_settings, texts[i], kept, e);
    for (size_t i = 0; !code && i < rows->n; i++) {
        if (kept[i])
            rows->row[n_kept++] = rows->row[i];
        else
            kv_row_fini(&rows->row[i]);
    }
    if (!code) rows->n = n_kept;
    free(kept);
    free(settings);
    return code;
}
