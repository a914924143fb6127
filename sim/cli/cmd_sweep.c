// SPDX-License-Identifier: Apache-2.0
// kvsim sweep: replays many specs into a store; what is stored already is not run again.
#include <stdlib.h>
#include <unistd.h>

#include "sim/base/ranks.h"
#include "sim/base/talk.h"
#include "sim/cli/replay_options.h"

// All that was asked for is in the store: what was done, and what to type to see it.
static void say_done(const struct kv_sweep *s, const char *db) {
    size_t n, replayed = 0, held = kv_sweep_held(s);
    const struct kv_sweep_line *lines = kv_sweep_lines(s, &n);
    for (size_t i = 0; i < n; i++) replayed += lines[i].n;
    if (!held && !replayed) {
        kv_say("done: this shard holds no item; %s says so when it is merged", db);
        return;
    }
    if (held)
        kv_say("done: %zu outcomes were replayed and %zu were there; all are in %s", replayed, held,
               db);
    else
        kv_say("done: all %zu outcomes are in %s", replayed, db);
    kv_say("next: kvsim show --db %s", db);
}

static int run(struct kv_sweep *s, const struct kv_sweep_options *o, struct kv_error *e) {
    size_t n;
    kv_sweep_specs(s, &n);
    kv_say("sweeping %zu spec%s over %zu items into %s", n, n == 1 ? "" : "s", kv_sweep_items(s).n,
           o->db);
    int rc = kv_sweep_run(s, e);
    if (rc == KV_EINTR)
        kv_fail(e, rc, "sweep",
                "interrupted; what was finished is in %s, and the same command goes on", o->db);
    if (rc) return rc;
    kv_say_audit(s, o);
    say_done(s, o->db);
    return 0;
}

// One rank speaks for all: what goes wrong on another comes to it.
static int join(const struct kv_ranks **ranks, struct kv_error *e) {
    int rc = kv_ranks_join(ranks, e);
    if (rc) return rc;
    if ((*ranks)->rank && !freopen("/dev/null", "w", stderr)) kv_set_verbosity(-1);
    kv_say("%u ranks by %s, the first on %s", (*ranks)->size, (*ranks)->library, (*ranks)->host);
    return 0;
}

static int sweep(struct kv_cli *c, struct kv_error *e) {
    struct kv_sweep_options o;
    struct kv_sweep *s = NULL;
    char *model;
    int rc = kv_opt_sweep(c, &o, &model, e);
    if (rc == 0 && kv_opt(c, "shard"))
        rc = kv_shard_read(kv_opt(c, "shard"), "--shard", &o.shard, e);
    if (rc == 0 && o.attention)
        rc = kv_fail(e, KV_EUSAGE, "--fidelity",
                     "attention rows say nothing of outcomes and are not stored; kvsim replay "
                     "prints them");
    if (rc == 0 && kv_opt_given(c, "mpi")) rc = join(&o.ranks, e);
    if (rc == 0) rc = kv_opt_blame(c, kv_sweep_open(&s, &o, e), e);
    if (rc == 0) rc = run(s, &o, e);
    kv_sweep_close(s);
    if (rc == 0) kv_ranks_leave(o.ranks);
    // A rank that ends in an error has the launcher end all: the one that speaks is let speak
    // first.
    if (rc && o.ranks && o.ranks->rank) sleep(2);
    free(model);
    return rc;
}

static const struct kv_option options[] = {
    KV_REPLAY_OPTIONS("kvsim.db"),
    {"shard", 0, "I/N", NULL,
     "only the I-th of N parts of the items, for kvsim merge to join their stores"},
    {"mpi", 0, NULL, NULL,
     "share the sweep with the ranks that mpirun or srun started beside this one (make mpi)"},
    {0}};

const struct kv_command kv_cmd_sweep = {
    .name = "sweep",
    .summary = "replays many specs into a store, and goes on where it stopped",
    .usage = "TRACE SPEC|FILE.sweep...",
    .example = "kvsim sweep work/samples.trace 'static:bits={2,3,4,8,16}@{sym,asym:group=32}' "
               "--db work/demo.db",
    .options = options,
    .min_args = 1,
    .max_args = 100000,
    .run = sweep};
