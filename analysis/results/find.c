// SPDX-License-Identifier: Apache-2.0
// Finds the runs of a spec in a store, in whatever spelling it is asked for.
#include "analysis/results/find.h"

#include <stdlib.h>

#include "sim/store/label.h"
#include "sim/base/args.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/replay/spec.h"

void kv_rows_mark(const struct kv_summary *rows, size_t n, const struct kv_store_setting *settings,
                  size_t n_settings, const char *text, bool *marked, struct kv_error *no_spec) {
    struct kv_error why = {0};
    size_t failed = 0;
    for (size_t k = 0; k < n_settings; k++) {
        char *spec = NULL;
        if (kv_spec_canonical(text, &settings[k].setting, &spec, &why)) {
            failed++;
            continue;
        }
        for (size_t i = 0; i < n; i++)
            if (rows[i].trace == settings[k].trace && strcmp(rows[i].spec, spec) == 0)
                marked[i] = true;
        free(spec);
    }
    for (size_t i = 0; i < n; i++)
        marked[i] = marked[i] || strcmp(rows[i].spec, text) == 0 ||
                    strcmp(rows[i].label, text) == 0 || strcmp(rows[i].short_label, text) == 0;
    *no_spec = failed && failed == n_settings ? why : (struct kv_error){0};
}

static bool chosen(const struct kv_summary *s, const struct kv_row_choice *c) {
    if (c->fidelities && !(c->fidelities >> s->fidelity & 1)) return false;
    if (c->modes && !(c->modes >> s->mode & 1)) return false;
    if (c->trace && strncmp(c->trace, s->trace_digest, strlen(c->trace)) != 0) return false;
    return c->feedback == s->feedback;
}

// Names the nearest spec that is there, in its short form.
static int not_found(const struct kv_summary *all, size_t n,
                     const struct kv_store_setting *settings, size_t n_settings, const char *text,
                     struct kv_error *e) {
    const char **specs = kv_alloc(n + 2, sizeof *specs);
    char **labels = kv_alloc(n + 2, sizeof *labels), *spelt = NULL;
    struct kv_error ignored;
    for (size_t k = n_settings; k-- > 0 && !spelt;)
        if (kv_tolerate(kv_spec_canonical(text, &settings[k].setting, &spelt, &ignored), &ignored))
            spelt = NULL;
    specs[0] = spelt ? spelt : text;
    for (size_t i = 0; i < n; i++) specs[i + 1] = all[i].spec;
    kv_spec_labels(specs, NULL, 1, labels);
    for (size_t i = 0; i < n; i++) labels[i + 1] = kv_strdup(all[i].label);
    const char *near = kv_nearest(labels[0], (const char *const *)labels + 1);
    int code = near ? kv_fail(e, KV_EFAIL, text, "the store holds no such run; it holds '%s'", near)
                    : kv_fail(e, KV_EFAIL, text,
                              "the store holds no such run; kvsim show lists what it holds");
    for (size_t i = 0; i <= n; i++) free(labels[i]);
    free(labels);
    free(specs);
    free(spelt);
    return code;
}

// Moves the marked rows to the front and frees the others; returns how many are left.
static size_t keep_marked(struct kv_summary **rows, size_t n, const bool *marked) {
    struct kv_summary *kept = kv_alloc(n + 1, sizeof *kept), *rest = kv_alloc(n + 1, sizeof *rest);
    size_t n_kept = 0, n_rest = 0;
    for (size_t i = 0; i < n; i++)
        if (marked[i])
            kept[n_kept++] = (*rows)[i];
        else
            rest[n_rest++] = (*rows)[i];
    free(*rows);
    kv_summaries_free(rest, n_rest);
    if (n_kept == 0) {
        free(kept);
        kept = NULL;
    }
    *rows = kept;
    return n_kept;
}

int kv_rows_find(struct kv_store *s, const char *text, const struct kv_row_choice *choice,
                 struct kv_summary **rows, size_t *n, struct kv_error *e) {
    struct kv_store_setting *settings = NULL;
    struct kv_error no_spec = {0};
    size_t n_settings = 0;
    bool any = false;
    *rows = NULL;
    *n = 0;
    int code = kv_store_summaries(s, NULL, rows, n, e);
    if (!code) code = kv_store_settings(s, &settings, &n_settings, e);
    bool *marked = kv_alloc(*n + 1, sizeof *marked);
    if (!code) kv_rows_mark(*rows, *n, settings, n_settings, text, marked, &no_spec);
    for (size_t i = 0; i < *n; i++) {
        marked[i] = marked[i] && chosen(&(*rows)[i], choice);
        any = any || marked[i];
    }
    if (!code && !any && no_spec.code) {
        if (e) *e = no_spec;
        code = no_spec.code;
    } else if (!code && !any) {
        code = not_found(*rows, *n, settings, n_settings, text, e);
    }
    *n = keep_marked(rows, *n, marked); // none after an error
    free(marked);
    free(settings);
    return code;
}

int kv_rows_only(const struct kv_summary *rows, size_t n, const char *text, struct kv_error *e) {
    bool traces = false, fidelities = false, modes = false;
    if (n == 1) return 0;
    for (size_t i = 1; i < n; i++) {
        traces = traces || rows[i].trace != rows[0].trace;
        fidelities = fidelities || rows[i].fidelity != rows[0].fidelity;
        modes = modes || rows[i].mode != rows[0].mode;
    }
    const char *by = traces ? "--digest" : fidelities ? "--fidelity" : modes ? "--mode" : NULL;
    if (by)
        return kv_fail(e, KV_EUSAGE, text, "the store holds %zu runs of this spec; choose with %s",
                       n, by);
    return kv_fail(e, KV_EUSAGE, text,
                   "the store holds %zu runs of this spec that differ in seed or settings", n);
}
