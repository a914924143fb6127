// SPDX-License-Identifier: Apache-2.0
// Draws outcomes of a store, runs them again from their recordings, compares.
#include "analysis/studies/recheck.h"

#include <stdlib.h>

#include "sim/base/args.h"
#include "sim/base/cpu.h"
#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/model/compute.h"
#include "sim/replay/fisher.h"
#include "sim/replay/recorded_model.h"
#include "sim/replay/replay.h"

enum { MOST_CHOICES = 64 };

// An outcome as it is stored, and how it was run.
struct drawn {
    long long run, trace;
    size_t item;
    char *label, *spec, *digest, *path, *cpu, *blas, *compute, *variant;
    int fidelity, mode, self;
    uint64_t seed;
    uint32_t redraw;
    double kl_nats, effective_bits, pick;
    size_t n_choices;
    double logprob[MOST_CHOICES];
};

struct checker {
    const struct kv_recheck_options *o;
    struct kv_recheck *r;
    struct kv_store *store;
    struct kv_trace *trace; // the one that is open, and the model for it
    char digest[17];
    struct kv_model *model;
    const struct drawn *d;
};

static void drawn_fini(struct drawn *d) {
    char *texts[] = {d->label, d->spec, d->digest,  d->path,
                     d->cpu,   d->blas, d->compute, d->variant};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) free(texts[i]);
}

static double number(const struct kv_sql_value *v) {
    return v->kind == KV_SQL_INT ? (double)v->n : v->kind == KV_SQL_REAL ? v->x : NAN;
}

static int take_count(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                      struct kv_error *e) {
    (void)n, (void)names, (void)e;
    *(size_t *)self = (size_t)v[0].n;
    return 0;
}

static int take_drawn(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                      struct kv_error *e) {
    struct drawn *d = self;
    char **texts[] = {&d->label, &d->spec, &d->digest,  &d->path,
                      &d->cpu,   &d->blas, &d->compute, &d->variant};
    (void)n, (void)names, (void)e;
    d->run = v[0].n;
    d->item = (size_t)v[1].n;
    for (size_t i = 0; i < 8; i++) *texts[i] = kv_strdup(v[2 + i].text ? v[2 + i].text : "");
    d->fidelity = kv_index_of(v[10].text, kv_fidelity_names);
    d->mode = kv_index_of(v[11].text, kv_mode_names);
    d->self = kv_index_of(v[12].text, kv_self_names);
    d->seed = (uint64_t)v[13].n;
    d->redraw = (uint32_t)v[14].n;
    d->kl_nats = number(&v[15]);
    d->effective_bits = number(&v[16]);
    d->pick = number(&v[17]);
    return 0;
}

static int take_choice(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                       struct kv_error *e) {
    struct drawn *d = self;
    (void)n, (void)names, (void)e;
    if (d->n_choices < MOST_CHOICES) d->logprob[d->n_choices++] = number(&v[0]);
    return 0;
}

static int draw(struct checker *c, size_t at, struct drawn *d, struct kv_error *e) {
    const struct kv_sql_value offset = kv_sql_int((long long)at);
    int rc = kv_store_query(
        c->store,
        "SELECT o.run, o.item, r.label, s.spec, t.digest, t.path, r.cpu, r.blas, r.compute, "
        "r.variant, r.fidelity, r.mode, r.self, r.seed, r.redraw, o.kl_nats, o.effective_bits, "
        "o.pick_acc FROM (SELECT * FROM outcome_item ORDER BY run, item LIMIT 1 OFFSET ?) AS o "
        "JOIN run AS r ON r.id = o.run JOIN policy_spec AS s ON s.id = r.spec "
        "JOIN trace AS t ON t.id = r.trace",
        &offset, 1, take_drawn, d, e);
    if (rc) return rc;
    const struct kv_sql_value key[] = {kv_sql_int(d->run), kv_sql_int((long long)d->item)};
    return kv_store_query(c->store,
                          "SELECT logprob FROM outcome_choice WHERE run = ? AND item = ? "
                          "ORDER BY choice",
                          key, 2, take_choice, d, e);
}

// ---- what it runs on ------------------------------------------------------------------

static bool open_if_it_is(struct checker *c, const char *dir, const char *digest) {
    struct kv_error e;
    struct kv_trace *t;
    if (kv_tolerate(kv_trace_open(&t, dir, &e), &e)) return false;
    if (strcmp(kv_trace_info(t)->digest, digest) != 0) {
        kv_trace_close(t);
        return false;
    }
    c->trace = t;
    snprintf(c->digest, sizeof c->digest, "%s", digest);
    return true;
}

static bool find_trace(struct checker *c, const struct drawn *d) {
    if (c->trace && strcmp(c->digest, d->digest) == 0) return true;
    kv_model_close(c->model);
    kv_trace_close(c->trace);
    c->model = NULL;
    c->trace = NULL;
    for (size_t i = 0; i < c->o->n_traces; i++)
        if (open_if_it_is(c, c->o->traces[i], d->digest)) return true;
    return open_if_it_is(c, d->path, d->digest);
}

static bool find_model(struct checker *c) {
    struct kv_error e;
    const struct kv_trace_info *in = kv_trace_info(c->trace);
    if (c->model) return true;
    int rc =
        kv_tolerate(kv_recorded_model_open(&c->model, in, c->o->model, KV_COMPUTE_HOST, &e), &e);
    if (rc == 0 && (rc = kv_trace_check_model(in, c->model, &e))) {
        kv_model_close(c->model);
        c->model = NULL;
    }
    if (rc && !*c->r->model) snprintf(c->r->model, sizeof c->r->model, "%s", e.msg);
    return rc == 0;
}

// ---- one outcome ----------------------------------------------------------------------

static bool same(double a, double b, double within) {
    return (isnan(a) && isnan(b)) || a == b || fabs(a - b) <= within;
}

static int compare(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                   struct kv_error *e) {
    struct checker *c = self;
    const struct drawn *d = c->d;
    (void)spec;
    bool here = strcmp(d->cpu, kv_cpu_level_name(kv_cpu_level())) == 0 &&
                strcmp(d->blas, kv_compute_blas(c->model)) == 0;
    double within = here ? 0 : KV_RECHECK_NATS;
    const char *what = NULL;
    double was = NAN, is = NAN;
#define DIFFERS(name, a, b, w)                                                                     \
    if (!what && !same(a, b, w)) what = name, was = (a), is = (b)
    DIFFERS("KL", d->kl_nats, o->kl_nats, within);
    DIFFERS("effective bits", d->effective_bits, o->ledger.effective_bits, here ? 0 : 0.1);
    if (here) DIFFERS("the pick", d->pick, o->pick[KV_ACC] < 0 ? (double)NAN : o->pick[KV_ACC], 0);
    for (size_t i = 0; o->choice && i < d->n_choices; i++)
        DIFFERS("a choice's log-prob", d->logprob[i], o->choice[i].logprob,
                within * fmax(1, o->choice[i].tokens));
    if (what)
        return kv_fail(e, KV_EFAIL, kv_store_path(c->store),
                       "%s, item %zu, run again: %s is %.9g, stored is %.9g", d->label, item, what,
                       is, was);
    if (here)
        c->r->n_equal++;
    else
        c->r->n_near++;
    return 0;
}

static int run_again(struct checker *c, const struct drawn *d, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(c->trace);
    const struct kv_format_setting setting = kv_trace_setting(in);
    struct kv_replay_spec spec;
    enum kv_form form;
    enum kv_feedback feedback;
    if (!kv_variant_read(d->variant, &form, &feedback) || d->mode < 0 || d->self < 0)
        return kv_fail(e, KV_EFAIL, kv_store_path(c->store),
                       "run %lld has a setting that this "
                       "kvsim does not know",
                       d->run);
    int rc = kv_replay_spec_open(&spec, d->spec, &setting, d->seed, e);
    if (rc) return rc;
    enum kv_cell_table_kind kind =
        (enum kv_cell_table_kind)(KV_TABLE_ISO + (form ? form - KV_FORM_ISO : 0));
    struct kv_replay job = {.trace = c->trace,
                            .model = c->model,
                            .specs = &spec,
                            .n_specs = 1,
                            .mode = (enum kv_mode)d->mode,
                            .self_exact = d->self == KV_SELF_EXACT,
                            .closed = feedback == KV_FEEDBACK_CLOSED,
                            .redraw = d->redraw,
                            .seed = d->seed,
                            .quiet = true,
                            .first_item = d->item,
                            .n_items = 1,
                            .take = compare,
                            .self = c};
    c->d = d;
    rc = kv_replay_open_tables(&job, kind, c->o->jobs, e);
    if (rc == 0)
        rc = d->fidelity == KV_FISHER ? kv_replay_fisher(&job, kind, c->o->jobs, e)
                                      : kv_replay_exact(&job, c->o->jobs, e);
    kv_replay_close_tables(&job);
    kv_replay_spec_close(&spec);
    return rc;
}

static int check_one(struct checker *c, size_t at, struct kv_error *e) {
    struct drawn d = {0};
    int rc = draw(c, at, &d, e);
    if (rc == 0 && !find_trace(c, &d)) {
        if (!c->r->n_no_trace++) snprintf(c->r->trace, sizeof c->r->trace, "%s", d.path);
    } else if (rc == 0 && d.fidelity == KV_EXACT && strcmp(d.compute, KV_COMPUTE_CPU) != 0)
        c->r->n_not_here++;
    else if (rc == 0 && d.fidelity == KV_EXACT && !find_model(c))
        c->r->n_no_model++;
    else if (rc == 0)
        rc = run_again(c, &d, e);
    drawn_fini(&d);
    return rc;
}

// Guarded, so that trace and model are closed whatever happens.
static int check_all(struct checker *c, struct kv_error *e) {
    KV_GUARD(e);
    struct kv_recheck *r = c->r;
    int rc = kv_store_query(c->store, "SELECT COUNT(*) FROM outcome_item", NULL, 0, take_count,
                            &r->n_stored, e);
    r->n_drawn = r->n_stored < c->o->n ? r->n_stored : c->o->n;
    // One of each of n equal parts: none twice, and in the order of runs, so that each trace and
    // model is opened once.
    for (size_t i = 0; i < r->n_drawn && rc == 0; i++) {
        size_t first = r->n_stored * i / r->n_drawn, end = r->n_stored * (i + 1) / r->n_drawn;
        rc = check_one(c, first + (size_t)(kv_draw(c->o->seed, 0, i) * (double)(end - first)), e);
    }
    return rc;
}

int kv_recheck(struct kv_recheck *r, struct kv_store *s, const struct kv_recheck_options *o,
               struct kv_error *e) {
    *r = (struct kv_recheck){0};
    struct checker c = {.o = o, .r = r, .store = s};
    int rc = check_all(&c, e);
    kv_model_close(c.model);
    kv_trace_close(c.trace);
    return rc;
}
