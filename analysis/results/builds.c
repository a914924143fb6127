// SPDX-License-Identifier: Apache-2.0
// What is said beside a row's name: how its spec was published, and which build of a file it is.
#include "analysis/results/rows.h"

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

// Runs are numbered as they were begun.
static void find_newest(struct kv_rows *rows) {
    for (size_t i = 0; i < rows->n; i++) {
        const char *file = NULL, *other = NULL;
        const char *digest = kv_spec_digest(&rows->row[i].s.parts, &file), *last = digest;
        long long latest = rows->row[i].s.run_group;
        bool several = false;
        for (size_t k = 0; digest && k < rows->n; k++) {
            const char *its = kv_spec_digest(&rows->row[k].s.parts, &other);
            if (!its || strcmp(file, other) != 0) continue;
            several = several || strcmp(its, digest) != 0;
            if (rows->row[k].s.run_group > latest) {
                latest = rows->row[k].s.run_group;
                last = its;
            }
        }
        rows->row[i].newest = several && strcmp(last, digest) == 0;
    }
}

int kv_rows_place(struct kv_rows *rows, struct kv_store *s, struct kv_error *e) {
    struct kv_store_setting *settings;
    size_t n;
    KV_GUARD(e);
    int code = kv_store_settings(s, &settings, &n, e);
    for (size_t i = 0; !code && i < rows->n; i++)
        for (size_t k = 0; k < n; k++) {
            struct kv_row *row = &rows->row[i];
            if (settings[k].trace == row->s.trace)
                row->mode_mismatch =
                    kv_summary_mismatch(&row->s, &settings[k].setting, &row->published);
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
