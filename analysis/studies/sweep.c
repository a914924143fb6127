// SPDX-License-Identifier: Apache-2.0
// Opening and running sweeps.
#include "analysis/studies/sweep.h"

#include <stdlib.h>

#include "sim/store/label.h"
#include "sim/store/store.h"
#include "analysis/studies/party.h"
#include "analysis/studies/sweep_files.h"
#include "analysis/studies/tally.h"
#include "sim/base/cpu.h"
#include "analysis/studies/sweep_specs.h"
#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/version.h"
#include "sim/replay/answers.h"
#include "sim/replay/fisher.h"
#include "sim/replay/plugin.h"
#include "sim/replay/published.h"
#include "sim/replay/recorded_model.h"

#ifndef KV_COMMIT
#define KV_COMMIT "unknown"
#endif

struct kv_sweep {
    struct kv_sweep_options o; // items filled in
    struct kv_trace *trace;
    struct kv_model *model;
    struct kv_spec_list specs;
    struct kv_tally *tally; // of the last run
    size_t n_held;          // outcomes that it found in the store
    // Those of the specs that run now: shallow copies, and which they are.
    struct kv_replay_spec *now;
    size_t n_now, *which;
    // While it runs:
    struct kv_store *store;
    long long trace_id, *run; // [n_now]
    bool *done;               // [n_now][n_items of the trace]
    size_t stride;
    enum kv_mode mode;
    enum kv_fidelity fidelity;
    uint32_t redraw;
    struct kv_sweep_files *files; // NULL where none is asked for
    bool matched;                 // budgets over the items judged are met
    struct kv_party *party;       // those who share the work; NULL = nobody
    struct kv_progress *progress; // of all of them
};

// ---- opening --------------------------------------------------------------------------

// Adds a word that is no spec, if the store's tables call one so. Else returns `failed`, whose *e
// says what is wrong with the word. A store that is not there calls nothing anything; one that is
// none is told of when it is opened to be written.
static int add_stored(struct kv_sweep *s, const char *word, const struct kv_format_setting *setting,
                      int failed, struct kv_error *e) {
    struct kv_error ignored;
    struct kv_store *store = NULL;
    char *spec = NULL;
    if (!s->o.db || kv_tolerate(kv_store_open(&store, s->o.db, KV_STORE_READ, &ignored), &ignored))
        return failed;
    if (kv_tolerate(kv_store_spec(store, word, &spec, &ignored), &ignored)) spec = NULL;
    kv_store_abandon(store);
    int rc = spec ? kv_spec_list_add(&s->specs, spec, setting, s->o.seed, e) : failed;
    free(spec);
    return rc;
}

static int add_specs(struct kv_sweep *s, const struct kv_format_setting *setting,
                     struct kv_error *e) {
    const struct kv_sweep_options *o = &s->o;
    int rc = 0;
    for (size_t i = 0; i < o->n_specs && rc == 0; i++) {
        rc = kv_spec_list_add(&s->specs, o->specs[i], setting, o->seed, e);
        if (rc) rc = add_stored(s, o->specs[i], setting, rc, e);
    }
    for (size_t i = 0; i < o->n_named && rc == 0; i++)
        rc = kv_spec_list_add_named(&s->specs, o->named[i], setting, o->seed, e);
    return rc;
}

static int open_all(struct kv_sweep *s, struct kv_error *e) {
    KV_GUARD(e);
    struct kv_sweep_options *o = &s->o;
    int rc = kv_trace_open(&s->trace, o->trace, e);
    if (rc) return rc;
    const struct kv_trace_info *in = kv_trace_info(s->trace);
    s->stride = in->n_items;
    if (o->form == KV_FORM_NONE) {
        bool older = !kv_trace_item(s->trace, 0)->channel_gradient; // stores hold its rows as iso
        enum kv_cell_table_kind best = older ? KV_TABLE_ISO : kv_cell_table_best(s->trace);
        o->form = (enum kv_form)(KV_FORM_ISO + best - KV_TABLE_ISO);
    }
    if (o->items.n == 0) o->items = (struct kv_item_range){0, in->n_items};
    rc = kv_item_range_check(&o->items, in->n_items, "items", e);
    const struct kv_format_setting setting = kv_trace_setting(in);
    if (rc == 0) rc = add_specs(s, &setting, e);
    if (rc == 0 && s->specs.n == 0) rc = kv_fail(e, KV_EUSAGE, "specs", "none is left to replay");
    if (rc == 0 && o->exact) rc = kv_recorded_model_open(&s->model, in, o->model, o->compute, e);
    return rc;
}

// What must be the same on all ranks, for their rows to be those of one process.
static int agree(struct kv_sweep *s, int rc, struct kv_error *e) {
    char about[400] = "";
    if (rc == 0) {
        uint64_t specs = 0;
        for (size_t i = 0; i < s->specs.n; i++)
            specs = kv_hash(s->specs.at[i].canonical, strlen(s->specs.at[i].canonical), specs);
        snprintf(about, sizeof about,
                 "kvsim %s %s with %s kernels, products by %.80s, on recording %.40s with specs "
                 "%016llx",
                 KV_VERSION, KV_COMMIT, kv_cpu_level_name(kv_cpu_level()),
                 kv_compute_blas(s->model), kv_trace_info(s->trace)->digest,
                 (unsigned long long)specs);
    }
    return kv_party_agree(s->party, rc, about, e);
}

int kv_sweep_open(struct kv_sweep **out, const struct kv_sweep_options *o, struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    int rc = kv_sweep_check(o, e);
    if (rc) return rc;
    struct kv_sweep *s = kv_alloc(1, sizeof *s);
    s->o = *o;
    if (o->published)
        for (s->o.n_modes = 0; s->o.n_modes < KV_N_MODES; s->o.n_modes++)
            s->o.modes[s->o.n_modes] = (enum kv_mode)s->o.n_modes;
    if (o->ranks) s->party = kv_party_new(o->ranks);
    rc = open_all(s, e);
    if (s->party) rc = agree(s, rc, e);
    if (rc)
        kv_sweep_close(s);
    else
        *out = s;
    return rc;
}

void kv_sweep_close(struct kv_sweep *s) {
    if (!s) return;
    kv_tally_free(s->tally);
    kv_sweep_files_close(s->files);
    kv_store_abandon(s->store);
    kv_party_free(s->party);
    free(s->run);
    free(s->done);
    free(s->now);
    free(s->which);
    kv_spec_list_fini(&s->specs);
    kv_model_close(s->model);
    kv_trace_close(s->trace);
    free(s);
}

const struct kv_trace *kv_sweep_trace(const struct kv_sweep *s) {
    return s->trace;
}

struct kv_item_range kv_sweep_items(const struct kv_sweep *s) {
    return s->o.items;
}

const struct kv_replay_spec *kv_sweep_specs(const struct kv_sweep *s, size_t *n) {
    *n = s->specs.n;
    return s->specs.at;
}

const char *const *kv_sweep_names(const struct kv_sweep *s) {
    return (const char *const *)s->specs.name;
}

size_t kv_sweep_held(const struct kv_sweep *s) {
    return s->n_held;
}

// ---- running --------------------------------------------------------------------------

static bool wanted(void *self, size_t item, size_t spec) {
    const struct kv_sweep *s = self;
    return kv_shard_holds(&s->o.shard, item - s->o.items.first) &&
           (!s->done || !s->done[spec * s->stride + item]);
}

static bool claim(void *self, size_t item) {
    return kv_party_claim(((struct kv_sweep *)self)->party, item);
}

static int take(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    const struct kv_sweep *s = self;
    size_t which = s->which[spec];
    kv_progress_step(s->progress, 1);
    kv_tally_add(s->tally, which, item, s->fidelity, s->mode, o);
    if (s->files) kv_sweep_files_take(s->files, item, o);
    if (s->o.take) s->o.take(s->o.listener, which, item, s->fidelity, s->mode, o);
    return s->store ? kv_store_put(s->store, s->run[spec], (uint32_t)item, o, e) : 0;
}

// From this rank's replay.
static int take_shared(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                       struct kv_error *e) {
    return kv_party_take(((struct kv_sweep *)self)->party, item, spec, o, e);
}

static void decided(void *self, size_t item, size_t spec, const uint8_t *cells) {
    const struct kv_sweep *s = self;
    (void)spec; // files are of one
    kv_sweep_files_decided(s->files, item, cells);
}

static void scored(void *self, size_t item, size_t spec, const struct kv_targets *t,
                   const double *kl_nats) {
    const struct kv_sweep *s = self;
    (void)spec;
    kv_sweep_files_scored(s->files, item, t, kl_nats);
}

static int take_attention(void *self, size_t item, size_t spec, const struct kv_attention_error *x,
                          struct kv_error *e) {
    const struct kv_sweep *s = self;
    (void)e;
    kv_tally_add_attention(s->tally, spec, item, &x->mean);
    return 0;
}

static enum kv_cell_table_kind table_kind(const struct kv_sweep *s) {
    return (enum kv_cell_table_kind)(KV_TABLE_ISO + s->o.form - KV_FORM_ISO);
}

static int open_runs(struct kv_sweep *s, struct kv_error *e) {
    for (size_t i = 0; i < s->n_now; i++) {
        const struct kv_replay_spec *spec = &s->now[i];
        // Damage that fisher replay adds up, or that the policy went by, has a form; what has one
        // is said to have read the recording.
        bool formed = s->fidelity == KV_FISHER || spec->needs & KV_NEED_DAMAGE;
        struct kv_run_key key = {.trace = s->trace_id,
                                 .spec = spec->canonical,
                                 .policy = spec->policy_name,
                                 .format = spec->format_text,
                                 .tag = spec->policy->tag,
                                 .oracle = (spec->needs & KV_NEEDS_FUTURE) != 0,
                                 .fidelity = s->fidelity,
                                 .form = formed ? s->o.form : KV_FORM_NONE,
                                 .feedback = formed ? KV_FEEDBACK_OPEN : s->o.feedback,
                                 .mode = s->mode,
                                 .self = s->o.self,
                                 .compute =
                                     kv_compute_name(s->fidelity == KV_EXACT ? s->model : NULL),
                                 .seed = s->o.seed,
                                 .redraw = s->redraw,
                                 .version = KV_VERSION,
                                 .commit = KV_COMMIT,
                                 .cpu = kv_cpu_level_name(kv_cpu_level()),
                                 .blas = kv_compute_blas(s->model)};
        const char *name = s->specs.name[s->which[i]];
        bool *done = s->done + i * s->stride;
        int rc = kv_store_run(s->store, &key, &s->run[i], e);
        if (rc == 0 && name) rc = kv_store_name(s->store, spec->canonical, name, e);
        if (rc == 0 && s->o.shard.parts)
            rc = kv_store_put_shard(s->store, s->run[i], &s->o.shard, s->o.items.first,
                                    s->o.items.n, e);
        if (rc == 0) rc = kv_store_done(s->store, s->run[i], done, s->stride, NULL, e);
        if (rc) return rc;
        for (size_t k = 0; k < s->o.items.n; k++) s->n_held += done[s->o.items.first + k];
    }
    return 0;
}

static struct kv_replay job_of(struct kv_sweep *s) {
    return (struct kv_replay){.trace = s->trace,
                              .model = s->model,
                              .specs = s->now,
                              .n_specs = s->n_now,
                              .mode = s->mode,
                              .self_exact = s->o.self == KV_SELF_EXACT,
                              .closed = s->o.feedback == KV_FEEDBACK_CLOSED,
                              .redraw = s->redraw,
                              .seed = s->o.seed,
                              .first_item = s->o.items.first,
                              .n_items = s->o.items.n,
                              .audit = s->o.audit,
                              .quiet = s->party != NULL,
                              .wanted = wanted,
                              .claim = s->party ? claim : NULL,
                              .take = s->party ? take_shared : take,
                              .decided = s->files ? decided : NULL,
                              .scored = s->files ? scored : NULL,
                              .self = s};
}

// The label that a spec has in tables. Caller frees.
static char *name_of(const struct kv_sweep *s, const struct kv_replay_spec *spec) {
    const struct kv_trace_info *in = kv_trace_info(s->trace);
    const struct kv_format_setting setting = kv_trace_setting(in), *of = &setting;
    const char *canonical = spec->canonical;
    char *label;
    kv_spec_labels(&canonical, &of, 1, &label);
    return label;
}

// What closed feedback changed, and what the policy itself has to say.
static void remark(const struct kv_sweep *s, size_t i, const struct kv_closed_count *n) {
    const struct kv_replay_spec *spec = &s->now[i];
    if (n->items)
        kv_say("%s: closed feedback gave %.2f %% of %llu tokens other widths, in %.1f passes an "
               "item",
               spec->canonical, 100.0 * (double)n->changed / (double)n->tokens,
               (unsigned long long)n->tokens, (double)n->passes / (double)n->items);
    char text[1024] = "";
    const char *before = kv_plugin_enter(kv_spec_plugin(spec));
    if (spec->policy->remark) spec->policy->remark(spec->self, text, sizeof text);
    kv_plugin_leave(before);
    if (!*text) return;
    char *name = name_of(s, spec);
    kv_say("%s: %s", name, text);
    free(name);
}

// ---- which specs ----------------------------------------------------------------------

static bool runs_in(const struct kv_sweep *s, const struct kv_replay_spec *spec,
                    enum kv_mode mode) {
    return !s->o.published || kv_published_mode(spec) == mode;
}

// Takes the specs that run in this mode and fidelity. One that cannot be predicted is skipped with
// a line; none that can, where nothing else is asked for, is an error.
static int choose_specs(struct kv_sweep *s, struct kv_error *e) {
    int rc = 0;
    s->n_now = 0;
    for (size_t i = 0; i < s->specs.n; i++) {
        const struct kv_replay_spec *spec = &s->specs.at[i];
        if (!runs_in(s, spec, s->mode)) continue;
        int answers = s->fidelity != KV_FISHER
                          ? 0
                          : kv_fisher_answers(kv_trace_info(s->trace), spec, s->mode,
                                              s->o.self == KV_SELF_EXACT, e);
        if (answers) {
            rc = answers;
            if (s->specs.n > 1 || s->o.exact) kv_say("skipped %s: %s", spec->canonical, e->msg);
            continue;
        }
        s->which[s->n_now] = i;
        s->now[s->n_now++] = *spec;
    }
    return s->n_now || s->o.exact || s->o.published ? 0 : rc;
}

// Another mode than a spec was published in may be asked for, and is said.
static void say_mismatches(const struct kv_sweep *s) {
    for (size_t i = 0; i < s->specs.n; i++) {
        const struct kv_replay_spec *spec = &s->specs.at[i];
        const char *why = runs_in(s, spec, s->mode) ? kv_mode_mismatch(spec, s->mode) : NULL;
        if (!why) continue;
        char *name = name_of(s, spec);
        kv_say("%s, mode %s: %s", name, kv_mode_names[s->mode], why);
        free(name);
    }
}

// ---- one after the other --------------------------------------------------------------

static int replay(struct kv_sweep *s, struct kv_replay *job, struct kv_error *e) {
    return s->fidelity == KV_FISHER ? kv_replay_fisher(job, table_kind(s), s->o.jobs, e)
                                    : kv_replay_exact(job, s->o.jobs, e);
}

// The same by all ranks. Rank 0 makes tables that are missing before the others look for them.
static int replay_together(struct kv_sweep *s, struct kv_replay *job, struct kv_error *e) {
    const struct kv_party_work work = {s->o.items.first, s->o.items.n, take, s};
    const bool leads = kv_party_leads(s->party);
    size_t left = 0;
    int rc = leads ? kv_replay_open_tables(job, table_kind(s), s->o.jobs, e) : 0;
    rc = kv_party_share(s->party, s->done, s->n_now * s->stride, rc, e);
    if (rc == 0) rc = kv_party_begin(s->party, &work, e);
    if (rc) return rc;
    for (size_t i = 0; i < s->o.items.n; i++)
        for (size_t k = 0; k < s->n_now; k++) left += wanted(s, s->o.items.first + i, k);
    if (leads) s->progress = kv_progress_start("replaying", left, "item-specs");
    if (!leads) rc = kv_replay_open_tables(job, table_kind(s), s->o.jobs, e);
    if (rc == 0) rc = replay(s, job, e);
    rc = kv_party_end(s->party, rc, job->counts, s->n_now, e);
    kv_progress_end(s->progress);
    s->progress = NULL;
    return rc;
}

// One fidelity, mode and redraw.
static int run_once(struct kv_sweep *s, struct kv_error *e) {
    int rc = choose_specs(s, e);
    if (rc || s->n_now == 0) return rc;
    if (s->store || s->party) {
        free(s->done);
        s->done = NULL;
        s->done = kv_alloc(s->n_now * s->stride, sizeof *s->done);
    }
    if (s->store) rc = open_runs(s, e);
    if (s->party) rc = kv_party_agree(s->party, rc, NULL, e);
    if (rc) return rc;
    struct kv_replay job = job_of(s);
    job.counts = kv_alloc(s->n_now, sizeof *job.counts);
    if (s->party)
        rc = replay_together(s, &job, e);
    else if ((rc = kv_replay_open_tables(&job, table_kind(s), s->o.jobs, e)) == 0)
        rc = replay(s, &job, e);
    kv_replay_close_tables(&job);
    for (size_t i = 0; i < s->n_now && rc == 0; i++) remark(s, i, &job.counts[i]);
    free(job.counts);
    return rc;
}

static int run_modes(struct kv_sweep *s, struct kv_error *e) {
    int rc = 0;
    for (size_t m = 0; m < s->o.n_modes && rc == 0; m++) {
        s->mode = s->o.modes[m];
        s->redraw = 0;
        say_mismatches(s);
        s->fidelity = KV_FISHER; // the cheap one first
        if (s->o.fisher) rc = run_once(s, e);
        s->fidelity = KV_EXACT;
        for (; s->o.exact && s->redraw < s->o.redraws && rc == 0; s->redraw++) rc = run_once(s, e);
    }
    return rc;
}

// Attention reads what was recorded: neither a mode nor redraws nor feedback are its matter.
static int run_attention(struct kv_sweep *s, struct kv_error *e) {
    s->mode = KV_INLINE;
    s->redraw = 0;
    struct kv_replay job = job_of(s);
    job.specs = s->specs.at;
    job.n_specs = s->specs.n;
    job.model = NULL;
    job.closed = job.audit = false;
    int rc = kv_replay_open_tables(&job, table_kind(s), s->o.jobs, e);
    if (rc == 0) rc = kv_replay_attention(&job, s->o.jobs, take_attention, s, e);
    kv_replay_close_tables(&job);
    return rc;
}

// Policies that must meet a budget over the items judged are led there first: their specs then say
// by which setting, so that a store never mixes two.
static int match(struct kv_sweep *s, struct kv_error *e) {
    if (!s->o.exact || s->matched) return 0;
    s->mode = s->o.modes[0];
    s->redraw = 0;
    struct kv_replay job = job_of(s);
    int rc = kv_replay_match(&job, s->specs.at, s->specs.n, s->o.jobs, e);
    s->matched = rc == 0;
    return rc;
}

// Guarded, so that the store is closed whatever happens.
static int run_outcomes(struct kv_sweep *s, struct kv_error *e) {
    KV_GUARD(e);
    s->run = kv_alloc(s->specs.n, sizeof *s->run);
    if (!s->now) s->now = kv_alloc(s->specs.n, sizeof *s->now);
    if (!s->which) s->which = kv_alloc(s->specs.n, sizeof *s->which);
    int rc = match(s, e);
    if (s->party) rc = kv_party_agree(s->party, rc, NULL, e);
    return rc ? rc : run_modes(s, e);
}

int kv_sweep_run(struct kv_sweep *s, struct kv_error *e) {
    KV_GUARD(e);
    const char *db = s->party && !kv_party_leads(s->party) ? NULL : s->o.db;
    kv_tally_free(s->tally);
    s->tally = NULL;
    s->n_held = 0;
    s->tally = kv_tally_new(s->specs.n, s->o.modes, s->o.n_modes, &s->o.items);
    int rc = db ? kv_store_open(&s->store, db, KV_STORE_CREATE, e) : 0;
    if (rc == 0 && db)
        rc = kv_store_trace(s->store, kv_trace_info(s->trace), kv_trace_item, s->trace,
                            &s->trace_id, e);
    if (s->party) rc = kv_party_agree(s->party, rc, NULL, e);
    if (rc == 0) rc = kv_sweep_files_open(&s->files, &s->o, s->trace, s->specs.at, s->specs.n, e);
    if (rc == 0) rc = run_outcomes(s, e);
    if (rc == 0 && s->files) rc = kv_sweep_files_write(s->files, e);
    if (s->store) { // what was finished is kept, also when something failed or the user interrupted
        int closed = kv_store_close(s->store, rc ? NULL : e);
        if (rc == 0) rc = closed;
    }
    s->store = NULL;
    kv_sweep_files_close(s->files);
    s->files = NULL;
    free(s->run);
    free(s->done);
    s->run = NULL;
    s->done = NULL;
    if (rc == 0 && s->o.attention) rc = run_attention(s, e);
    return rc;
}

const struct kv_sweep_line *kv_sweep_lines(const struct kv_sweep *s, size_t *n) {
    *n = 0;
    return s && s->tally ? kv_tally_lines(s->tally, n) : NULL;
}
