// SPDX-License-Identifier: Apache-2.0
// Opening and running replays for the commands that do so.
#include "analysis/studies/sweep.h"

#include <stdlib.h>

#include "analysis/store/store.h"
#include "sim/base/cpu.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/base/version.h"
#include "sim/cli/opening.h"
#include "analysis/results/rows.h"

#ifndef KV_COMMIT
#define KV_COMMIT "unknown"
#endif

// ---- specs ----------------------------------------------------------------------------

struct spec_list {
    struct kv_replaying *r;
    struct kv_format_setting setting;
    uint64_t seed;
};

static int add_spec(struct spec_list *l, const char *text, bool alone, struct kv_error *e) {
    struct kv_replaying *r = l->r;
    struct kv_replay_spec spec;
    int rc = kv_replay_spec_open(&spec, text, &l->setting, l->seed, e);
    if (rc && !alone && strstr(e->msg, "does not offer")) { // an impossible pair of an expansion
        kv_say("skipped %s: %s", text, e->msg);
        return 0;
    }
    if (rc) return rc;
    for (size_t i = 0; i < r->n_specs; i++)
        if (strcmp(r->specs[i].canonical, spec.canonical) == 0) {
            kv_replay_spec_close(&spec);
            return 0;
        }
    r->specs = kv_grow(r->specs, r->n_specs + 1, sizeof *r->specs);
    r->specs[r->n_specs++] = spec;
    return 0;
}

static int add_expanded(struct spec_list *l, const char *text, struct kv_error *e) {
    char **list;
    size_t n;
    int rc = kv_spec_expand(text, &list, &n, e);
    for (size_t i = 0; i < n && rc == 0; i++) rc = add_spec(l, list[i], n == 1, e);
    kv_list_free(list, n);
    return rc;
}

// A sweep file: a spec or an expansion a line; '#' begins a comment.
static int add_file(struct spec_list *l, const char *path, struct kv_error *e) {
    char *text, *line, *rest;
    size_t n, number = 0;
    int rc = kv_read_file(path, &text, &n, e);
    if (rc) return rc;
    for (rest = text; rc == 0 && (line = strsep(&rest, "\n"));) {
        number++;
        line[strcspn(line, "#\r")] = '\0';
        line += strspn(line, " \t");
        line[strcspn(line, " \t")] = '\0';
        if (*line && (rc = add_expanded(l, line, e))) {
            struct kv_error inner = *e;
            kv_fail(e, rc, path, "line %zu: %s: %s", number, inner.where, inner.msg);
        }
    }
    free(text);
    return rc;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n > m && strcmp(s + n - m, end) == 0;
}

// ---- opening --------------------------------------------------------------------------

static int read_modes(struct kv_replaying *r, const char *list, struct kv_error *e) {
    char *copy = kv_strdup(list), *rest = copy, *word;
    int rc = 0;
    while (rc == 0 && (word = strsep(&rest, ","))) {
        int m = 0;
        while (kv_mode_names[m] && strcmp(kv_mode_names[m], word) != 0) m++;
        if (!kv_mode_names[m])
            rc = kv_fail(e, KV_EUSAGE, "--mode",
                         "no mode is named '%s'; there are inline, prefill, prefill1, requant",
                         word);
        else if (r->n_modes < KV_N_MODES)
            r->modes[r->n_modes++] = (enum kv_mode)m;
    }
    free(copy);
    return rc;
}

// An option that not every command that replays has; then what it stands for.
static const char *said(const struct kv_cli *c, const char *option, const char *otherwise) {
    return kv_opt(c, option) ? kv_opt(c, option) : otherwise;
}

static int read_fidelities(struct kv_replaying *r, struct kv_cli *c, struct kv_error *e) {
    char *copy = kv_strdup(said(c, "fidelity", "exact")), *rest = copy, *word;
    const char *form = said(c, "form", "iso");
    int rc = 0;
    while (rc == 0 && (word = strsep(&rest, ","))) {
        if (strcmp(word, "exact") == 0)
            r->exact = true;
        else if (strcmp(word, "fisher") == 0)
            r->fisher = true;
        else if (strcmp(word, "attention") == 0)
            r->attention = true;
        else
            rc = kv_fail(e, KV_EUSAGE, "--fidelity",
                         "no fidelity is named '%s'; there are exact, fisher, attention", word);
    }
    free(copy);
    for (r->form = KV_TABLE_ISO; rc == 0 && strcmp(kv_cell_table_kinds[r->form], form) != 0;
         r->form++)
        if (r->form == KV_TABLE_VECTOR)
            rc = kv_fail(e, KV_EUSAGE, "--form", "%s: iso, element or vector is expected", form);
    return rc;
}

static int check_options(struct kv_replaying *r, struct kv_cli *c, struct kv_error *e) {
    const char *self = said(c, "self", "coded"), *feedback = said(c, "feedback", "open");
    if (strcmp(self, "coded") != 0 && strcmp(self, "exact") != 0)
        return kv_fail(e, KV_EUSAGE, "--self", "%s: coded or exact is expected", self);
    if (strcmp(feedback, "open") != 0 && strcmp(feedback, "closed") != 0)
        return kv_fail(e, KV_EUSAGE, "--feedback", "%s: open or closed is expected", feedback);
    r->self_exact = strcmp(self, "exact") == 0;
    r->closed = strcmp(feedback, "closed") == 0;
    r->redraws = 1;
    int rc = kv_opt(c, "redraws") ? kv_opt_int(c, "redraws", 1, 1000, &r->redraws, e) : 0;
    if (rc == 0) rc = read_modes(r, said(c, "mode", "inline"), e);
    if (rc == 0) rc = read_fidelities(r, c, e);
    if (rc == 0 && r->closed && r->fisher)
        rc = kv_fail(e, KV_EUSAGE, "--feedback",
                     "closed feedback reads a run, and fisher replay has none; use --fidelity "
                     "exact");
    return rc;
}

int kv_replaying_open(struct kv_replaying *r, struct kv_cli *c, struct kv_error *e) {
    *r = (struct kv_replaying){0};
    int rc = check_options(r, c, e);
    if (rc == 0) rc = kv_trace_open(&r->trace, c->args[0], e);
    if (rc == 0) {
        r->n_items = kv_trace_info(r->trace)->n_items;
        rc = kv_opt_items(c, "items", r->n_items, &r->first_item, &r->n_items, e);
    }
    if (rc == 0) {
        const struct kv_trace_info *info = kv_trace_info(r->trace);
        struct spec_list l = {r, {info->shape, info->order}, c->seed};
        for (size_t i = 1; i < c->n_args && rc == 0; i++)
            rc = ends_with(c->args[i], ".sweep") ? add_file(&l, c->args[i], e)
                                                 : add_expanded(&l, c->args[i], e);
    }
    if (rc == 0 && r->n_specs == 0)
        rc = kv_fail(e, KV_EUSAGE, c->command->name, "no spec is left to replay");
    if (rc == 0 && r->exact) rc = kv_opt_model(c, kv_trace_info(r->trace), &r->model, e);
    if (rc) kv_replaying_close(r);
    return rc;
}

void kv_replaying_close(struct kv_replaying *r) {
    for (size_t i = 0; i < r->n_specs; i++) kv_replay_spec_close(&r->specs[i]);
    free(r->specs);
    kv_model_close(r->model);
    kv_trace_close(r->trace);
    *r = (struct kv_replaying){0};
}

// ---- running --------------------------------------------------------------------------

struct sink {
    struct kv_store *store;
    long long *run; // [n_specs]
    bool *done;     // [n_specs][n_items of the trace]
    size_t stride;
    enum kv_mode mode;
    enum kv_fidelity fidelity;
    void (*also)(void *, size_t, enum kv_fidelity, enum kv_mode, const struct kv_outcome *);
    void *also_self;
};

static bool wanted(void *self, size_t item, size_t spec) {
    const struct sink *s = self;
    return !s->done || !s->done[spec * s->stride + item];
}

static int take(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    const struct sink *s = self;
    if (s->also) s->also(s->also_self, spec, s->fidelity, s->mode, o);
    return s->store ? kv_store_put(s->store, s->run[spec], (uint32_t)item, o, e) : 0;
}

static int open_runs(struct sink *s, const struct kv_replaying *r, const struct kv_cli *c,
                     long long trace, long redraw, struct kv_error *e) {
    for (size_t i = 0; i < r->n_specs; i++) {
        const struct kv_replay_spec *spec = &r->specs[i];
        bool formed = s->fidelity == KV_FISHER || spec->needs & KV_NEED_DAMAGE;
        struct kv_run_key key = {
            .trace = trace,
            .spec = spec->canonical,
            .policy = spec->policy_name,
            .format = spec->format_text,
            .tag = spec->policy->tag,
            .oracle = (spec->needs & KV_NEEDS_FUTURE) != 0,
            .fidelity = s->fidelity,
            .mode = s->mode,
            .self = r->self_exact ? KV_SELF_EXACT : KV_SELF_CODED,
            .form = formed ? (enum kv_form)(KV_FORM_ISO + r->form) : KV_FORM_NONE,
            .feedback = r->closed && !formed ? KV_FEEDBACK_CLOSED : KV_FEEDBACK_OPEN,
            .compute = kv_compute_name(s->fidelity == KV_EXACT ? r->model : NULL),
            .seed = c->seed,
            .redraw = (uint32_t)redraw,
            .version = KV_VERSION,
            .commit = KV_COMMIT,
            .cpu = kv_cpu_level_name(kv_cpu_level()),
            .blas = kv_compute_blas(r->model)};
        int rc = kv_store_run(s->store, &key, &s->run[i], e);
        if (rc == 0)
            rc = kv_store_done(s->store, s->run[i], s->done + i * s->stride, s->stride, NULL, e);
        if (rc) return rc;
    }
    return 0;
}

// One fidelity, mode and redraw.
static int run_once(struct kv_replaying *r, struct kv_cli *c, struct sink *s, long long trace,
                    long redraw, struct kv_error *e) {
    if (s->store) {
        free(s->done);
        s->done = kv_alloc(r->n_specs * s->stride, sizeof *s->done);
        int rc = open_runs(s, r, c, trace, redraw, e);
        if (rc) return rc;
    }
    struct kv_replay job = {.trace = r->trace,
                            .model = r->model,
                            .specs = r->specs,
                            .n_specs = r->n_specs,
                            .mode = s->mode,
                            .self_exact = r->self_exact,
                            .closed = r->closed,
                            .counts = kv_alloc(r->n_specs, sizeof *job.counts),
                            .redraw = (uint32_t)redraw,
                            .seed = c->seed,
                            .first_item = r->first_item,
                            .n_items = r->n_items,
                            .audit = kv_opt(c, "audit") != NULL,
                            .wanted = wanted,
                            .take = take,
                            .self = s};
    int rc = kv_replay_open_tables(&job, r->form, c->jobs, e);
    if (rc == 0)
        rc = s->fidelity == KV_FISHER ? kv_replay_fisher(&job, r->form, c->jobs, e)
                                      : kv_replay_exact(&job, c->jobs, e);
    kv_replay_close_tables(&job);
    for (size_t i = 0; i < r->n_specs && rc == 0; i++) {
        const struct kv_closed_count *n = &job.counts[i];
        if (n->items)
            kv_say("%s: closed feedback gave %.2f %% of %llu tokens other widths, in %.1f passes "
                   "an item",
                   r->specs[i].canonical, 100.0 * (double)n->changed / (double)n->tokens,
                   (unsigned long long)n->tokens, (double)n->passes / (double)n->items);
        char text[1024] = "";
        if (r->specs[i].policy->remark)
            r->specs[i].policy->remark(r->specs[i].self, text, sizeof text);
        if (*text) {
            const struct kv_trace_info *in = kv_trace_info(r->trace);
            const struct kv_format_setting setting = {in->shape, in->order}, *of = &setting;
            const char *spec = r->specs[i].canonical;
            char *label;
            kv_spec_labels(&spec, &of, 1, &label);
            kv_say("%s: %s", label, text);
            free(label);
        }
    }
    free(job.counts);
    return rc;
}

int kv_replaying_run(struct kv_replaying *r, struct kv_cli *c, const char *db,
                     void (*also)(void *, size_t, enum kv_fidelity, enum kv_mode,
                                  const struct kv_outcome *),
                     void *self, struct kv_error *e) {
    struct sink s = {.stride = kv_trace_info(r->trace)->n_items, .also = also, .also_self = self};
    long long trace = 0;
    int rc = db ? kv_store_open(&s.store, db, KV_STORE_CREATE, e) : 0;
    if (rc == 0 && db)
        rc = kv_store_trace(s.store, kv_trace_info(r->trace), kv_trace_item, r->trace, &trace, e);
    s.run = kv_alloc(r->n_specs, sizeof *s.run);
    for (size_t m = 0; m < r->n_modes && rc == 0; m++) {
        s.mode = r->modes[m];
        s.fidelity = KV_FISHER; // the cheap one first
        if (r->fisher) rc = run_once(r, c, &s, trace, 0, e);
        s.fidelity = KV_EXACT;
        for (long redraw = 0; r->exact && redraw < r->redraws && rc == 0; redraw++)
            rc = run_once(r, c, &s, trace, redraw, e);
    }
    if (s.store) { // what was finished is kept, also when something failed or the user interrupted
        int closed = kv_store_close(s.store, rc ? NULL : e);
        if (rc == 0) rc = closed;
    }
    free(s.run);
    free(s.done);
    return rc;
}
