// SPDX-License-Identifier: Apache-2.0
// The options by which verbs say which rows of a store they mean.
#include "analysis/results/builds.h"
#include "sim/cli/row_options.h"

#include <stdlib.h>

#include "sim/base/args.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/store/label.h"

static int find_name(const char *option, const char *text, const char *const *names, unsigned *at,
                     struct kv_error *e) {
    int found = kv_index_of(text, names);
    if (found >= 0) {
        *at = (unsigned)found;
        return 0;
    }
    struct kv_text all = {0};
    for (size_t i = 0; names[i]; i++) kv_text_addf(&all, "%s%s", i ? ", " : "", names[i]);
    char *where = kv_format_text("--%s", option);
    int code = kv_fail(e, KV_EUSAGE, where, "'%s' is not one of %s", text, all.s);
    free(where);
    free(all.s);
    return code;
}

int kv_opt_name_set(const struct kv_cli *c, const char *option, const char *const *names,
                    unsigned *set, struct kv_error *e) {
    const char *text = kv_opt(c, option);
    unsigned at = 0;
    int code = text ? find_name(option, text, names, &at, e) : 0;
    if (text && !code) *set = 1u << at;
    return code;
}

static int read_contexts(struct kv_rows_options *o, const char *text, struct kv_error *e) {
    for (const char *p = text; *p;) {
        char *end;
        double context = strtod(p, &end);
        if (end == p || (*end && *end != ',') || !(context >= 1 && context <= 1e9))
            return kv_fail(e, KV_EUSAGE, "--context",
                           "'%s' is not a list of tokens such as 128,2048", text);
        if (o->n_contexts == KV_MAX_CONTEXTS)
            return kv_fail(e, KV_EUSAGE, "--context", "at most %d contexts at once",
                           KV_MAX_CONTEXTS);
        o->context[o->n_contexts++] = context;
        p = *end ? end + 1 : end;
    }
    return 0;
}

int kv_opt_rows(const struct kv_cli *c, struct kv_rows_options *rows, struct kv_error *e) {
    *rows = (struct kv_rows_options){.db = kv_opt(c, "db"),
                                     .device = kv_opt(c, "device"),
                                     .all_builds = kv_opt_given(c, "builds")};
    rows->named = kv_opt_all(c, "as", &rows->n_named);
    int code = read_contexts(rows, kv_opt(c, "context"), e);
    return code ? code : kv_opt_name_set(c, "fidelity", kv_fidelity_names, &rows->fidelities, e);
}

// The part of "A,B" that is meant for a place. Caller frees; NULL without the option.
static char *part_of(const struct kv_cli *c, const char *option, size_t place) {
    const char *text = kv_opt(c, option), *comma = text ? strchr(text, ',') : NULL;
    if (!text) return NULL;
    if (comma && place > 0) return kv_strdup(comma + 1);
    return kv_format_text("%.*s", (int)(comma ? (size_t)(comma - text) : strlen(text)), text);
}

int kv_opt_choice(const struct kv_cli *c, size_t place, struct kv_row_choice *choice,
                  struct kv_error *e) {
    char *mode = part_of(c, "mode", place), *feedback = part_of(c, "feedback", place);
    unsigned at = 0;
    *choice = (struct kv_row_choice){.trace = kv_opt(c, "digest")};
    int code = kv_opt_name_set(c, "fidelity", kv_fidelity_names, &choice->fidelities, e);
    if (!code && mode && !(code = find_name("mode", mode, kv_mode_names, &at, e)))
        choice->modes = 1u << at;
    if (!code && feedback && !(code = find_name("feedback", feedback, kv_feedback_names, &at, e)))
        choice->feedback = (enum kv_feedback)at;
    free(mode);
    free(feedback);
    return code;
}

// All runs of the store are asked, since the newest build may not be among rows[n].
static int say_builds(struct kv_store *s, const struct kv_summary *const *rows, size_t n,
                      struct kv_error *e) {
    struct kv_summary *all;
    size_t n_all;
    int code = kv_store_summaries(s, NULL, &all, &n_all, e);
    if (code) return code;
    const struct kv_summary **at = kv_alloc(n_all + 1, sizeof *at);
    for (size_t i = 0; i < n_all; i++) at[i] = &all[i];
    for (size_t i = 0; i < n_all; i++)
        for (size_t k = 0; k < n; k++)
            if (rows[k]->run_group == all[i].run_group && kv_build_several(at, n_all, i))
                kv_say("%s is %sthe newest build of its file that the store holds", all[i].label,
                       kv_build_newest(at, n_all, i) ? "" : "not ");
    free(at);
    kv_summaries_free(all, n_all);
    return 0;
}

int kv_say_marks(struct kv_store *s, const struct kv_summary *const *rows, size_t n,
                 struct kv_error *e) {
    struct kv_store_setting *settings;
    const char *published, *file;
    size_t n_settings, starred = 0;
    enum { NAMED = 5 };
    bool built = false;
    int code = kv_store_settings(s, &settings, &n_settings, e);
    if (code) return code;
    for (size_t i = 0; i < n; i++) {
        const char *why = kv_run_mismatch(rows[i], settings, n_settings, &published);
        if (why && ++starred <= NAMED)
            kv_say("%s, mode %s: %s", rows[i]->label, kv_mode_names[rows[i]->mode], why);
        built = built || kv_spec_digest(&rows[i]->parts, &file);
    }
    if (starred > NAMED)
        kv_say("and %zu more runs in a mode that they were not published in", starred - NAMED);
    free(settings);
    return built ? say_builds(s, rows, n, e) : 0;
}
