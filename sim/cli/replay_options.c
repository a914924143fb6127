// SPDX-License-Identifier: Apache-2.0
// Reads a replay from the command line.
#include "sim/cli/replay_options.h"

#include <stdlib.h>

#include "sim/base/args.h"
#include "sim/base/talk.h"
#include "sim/cli/lists.h"

static bool mode_listed(const struct kv_sweep_options *o, enum kv_mode mode) {
    for (size_t i = 0; i < o->n_modes; i++)
        if (o->modes[i] == mode) return true;
    return false;
}

static int read_modes(const struct kv_cli *c, struct kv_sweep_options *o, struct kv_error *e) {
    char **list;
    size_t n = kv_opt_list(c, "mode", &list);
    int rc = 0;
    o->published = n == 1 && strcmp(list[0], "published") == 0;
    o->n_modes = 0;
    for (size_t i = 0; i < n && rc == 0 && !o->published; i++) {
        int m = kv_index_of(list[i], kv_mode_names);
        if (m < 0)
            rc = kv_fail(e, KV_EUSAGE, "--mode",
                         "no mode is named '%s'; there are inline, prefill, prefill1, requant, "
                         "or published alone",
                         list[i]);
        else if (mode_listed(o, (enum kv_mode)m)) // its items would count twice
            rc = kv_fail(e, KV_EUSAGE, "--mode", "mode %s is named twice", list[i]);
        else
            o->modes[o->n_modes++] = (enum kv_mode)m;
    }
    kv_list_free(list, n);
    if (o->published) o->n_modes = 1; // of whatever specs there are
    return rc;
}

static int read_fidelities(const struct kv_cli *c, struct kv_sweep_options *o, struct kv_error *e) {
    bool *asked[] = {&o->exact, &o->fisher, &o->attention}; // as in kv_fidelity_names
    char **list;
    size_t n = kv_opt_list(c, "fidelity", &list);
    int rc = 0;
    o->exact = false;
    for (size_t i = 0; i < n && rc == 0; i++) {
        int f = kv_index_of(list[i], kv_fidelity_names);
        if (f < 0)
            rc = kv_fail(e, KV_EUSAGE, "--fidelity",
                         "no fidelity is named '%s'; there are exact, fisher, attention", list[i]);
        else
            *asked[f] = true;
    }
    kv_list_free(list, n);
    return rc;
}

int kv_opt_sweep(const struct kv_cli *c, struct kv_sweep_options *o, char **model,
                 struct kv_error *e) {
    int self = KV_SELF_CODED, feedback = KV_FEEDBACK_OPEN;
    long redraws;
    *o = kv_sweep_defaults();
    *model = NULL;
    int rc = kv_opt_named(c, "self", kv_self_names, &self, e);
    if (rc == 0) rc = kv_opt_named(c, "feedback", kv_feedback_names, &feedback, e);
    if (rc == 0) rc = kv_opt_int(c, "redraws", 1, 1000, &redraws, e);
    if (rc == 0) rc = read_modes(c, o, e);
    if (rc == 0) rc = read_fidelities(c, o, e);
    if (rc == 0) rc = kv_opt_form(c, &o->form, e);
    if (rc == 0) rc = kv_opt_range(c, "items", &o->items, e);
    if (rc == 0) rc = kv_opt_compute(c, &o->compute, e);
    o->named = kv_opt_all(c, "as", &o->n_named);
    if (rc == 0 && c->n_args < 2 && o->n_named == 0)
        rc = kv_fail(e, KV_EUSAGE, c->command->name, "usage: kvsim %s %s", c->command->name,
                     c->command->usage);
    if (rc) return rc;
    o->trace = c->args[0];
    o->specs = (const char *const *)c->args + 1;
    o->n_specs = c->n_args - 1;
    o->model = *model = kv_model_path(kv_opt(c, "model"));
    o->self = (enum kv_self)self;
    o->feedback = (enum kv_feedback)feedback;
    o->redraws = (uint32_t)redraws;
    o->audit = kv_opt(c, "audit") != NULL;
    o->db = kv_opt(c, "db");
    o->jobs = c->jobs;
    o->seed = c->seed;
    return 0;
}

void kv_say_audit(const struct kv_sweep *s, const struct kv_sweep_options *o) {
    size_t n, n_specs, asked = 0;
    const struct kv_sweep_line *lines = kv_sweep_lines(s, &n);
    kv_sweep_specs(s, &n_specs);
    if (!o->audit) return;
    for (size_t i = 0; i < n; i++)
        if (lines[i].fidelity != KV_ATTENTION) asked += lines[i].n;
    if (asked)
        kv_say("audit passed: %zu specs, asked again in %zu replays of items with the future "
               "scrambled and all else shown, answered as before",
               n_specs, asked);
    else
        kv_say("audit: nothing was replayed, so that no policy was asked again");
}
