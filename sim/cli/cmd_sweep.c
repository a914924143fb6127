// SPDX-License-Identifier: Apache-2.0
// kvsim sweep: replays many specs into a store; what is stored already is not run again.
#define KV_REPLAY_DB "kvsim.db"
#include "analysis/studies/sweep.h"
#include "sim/base/talk.h"

static int sweep(struct kv_cli *c, struct kv_error *e) {
    struct kv_replaying r;
    int rc = kv_replaying_open(&r, c, e);
    if (rc) return rc;
    if (r.attention) {
        kv_replaying_close(&r);
        return kv_fail(e, KV_EUSAGE, "--fidelity",
                       "attention rows say nothing of outcomes and are not stored; kvsim replay "
                       "prints them");
    }
    const char *db = kv_opt(c, "db");
    kv_say("sweeping %zu specs over %zu items into %s", r.n_specs, r.n_items, db);
    rc = kv_replaying_run(&r, c, db, NULL, NULL, e);
    if (rc == KV_EINTR)
        kv_fail(e, rc, "sweep",
                "interrupted; what was finished is in %s, and the same command goes on", db);
    kv_replaying_close(&r);
    return rc;
}

static const struct kv_option options[] = {KV_REPLAY_OPTIONS, {0}};

const struct kv_command kv_cmd_sweep = {
    .name = "sweep",
    .summary = "replays many specs into a store, and goes on where it stopped",
    .usage = "TRACE SPEC|FILE.sweep...",
    .example = "kvsim sweep work/samples.trace 'static:bits={2,3,4,8,16}@{sym,asym:group=32}' "
               "--db work/demo.db",
    .options = options,
    .min_args = 2,
    .max_args = 100000,
    .run = sweep};
