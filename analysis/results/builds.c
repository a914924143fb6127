// SPDX-License-Identifier: Apache-2.0
// What is said beside a row's name: how its spec was published, and which build of a file it is.
#include "analysis/results/builds.h"

#include <stdlib.h>

#include "sim/store/label.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/replay/published.h"

const char *kv_summary_mismatch(const struct kv_summary *s, const struct kv_format_setting *setting,
                                const char **published) {
    struct kv_replay_spec spec;
    struct kv_error ignored;
    *published = NULL;
    KV_GUARD_ELSE(return NULL);
    if (kv_tolerate(kv_replay_spec_open(&spec, s->spec, setting, s->seed, &ignored), &ignored))
        return NULL;
    *published = kv_mode_names[kv_published_mode(&spec)];
    const char *why = kv_mode_mismatch(&spec, s->mode);
    kv_replay_spec_close(&spec);
    return why;
}

const char *kv_run_mismatch(const struct kv_summary *s, const struct kv_store_setting *settings,
                            size_t n_settings, const char **published) {
    *published = NULL;
    for (size_t k = 0; k < n_settings; k++)
        if (settings[k].trace == s->trace)
            return kv_summary_mismatch(s, &settings[k].setting, published);
    return NULL;
}

bool kv_build_several(const struct kv_summary *const *rows, size_t n, size_t i) {
    const char *file = NULL, *other = NULL, *digest = kv_spec_digest(&rows[i]->parts, &file);
    for (size_t k = 0; digest && k < n; k++) {
        const char *its = kv_spec_digest(&rows[k]->parts, &other);
        if (its && strcmp(file, other) == 0 && strcmp(its, digest) != 0) return true;
    }
    return false;
}

// Runs are numbered as they were begun.
bool kv_build_newest(const struct kv_summary *const *rows, size_t n, size_t i) {
    const char *file = NULL, *other = NULL, *digest = kv_spec_digest(&rows[i]->parts, &file);
    const char *last = digest;
    long long latest = rows[i]->run_group;
    if (!kv_build_several(rows, n, i)) return false;
    for (size_t k = 0; k < n; k++) {
        const char *its = kv_spec_digest(&rows[k]->parts, &other);
        if (!its || strcmp(file, other) != 0 || rows[k]->run_group <= latest) continue;
        latest = rows[k]->run_group;
        last = its;
    }
    return strcmp(last, digest) == 0;
}

static void find_newest(struct kv_rows *rows) {
    const struct kv_summary **all = kv_alloc(rows->n + 1, sizeof *all);
    for (size_t i = 0; i < rows->n; i++) all[i] = &rows->row[i].s;
    for (size_t i = 0; i < rows->n; i++) rows->row[i].newest = kv_build_newest(all, rows->n, i);
    free(all);
}

int kv_rows_place(struct kv_rows *rows, struct kv_store *s, struct kv_error *e) {
    struct kv_store_setting *settings;
    size_t n;
    KV_GUARD(e);
    int code = kv_store_settings(s, &settings, &n, e);
    for (size_t i = 0; !code && i < rows->n; i++) {
        struct kv_row *row = &rows->row[i];
        row->mode_mismatch = kv_run_mismatch(&row->s, settings, n, &row->published);
    }
    free(settings);
    find_newest(rows);
    return code;
}

char *kv_row_name(const struct kv_row *row) {
    KV_GUARD_ELSE(return NULL);
    return kv_format_text("%s%s%s", row->label, row->newest ? " (newest)" : "",
                          row->s.oracle ? " (oracle)" : "");
}

char *kv_row_mode(const struct kv_row *row) {
    KV_GUARD_ELSE(return NULL);
    return kv_format_text("%s%s", kv_mode_names[row->s.mode], row->mode_mismatch ? "*" : "");
}
