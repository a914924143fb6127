// SPDX-License-Identifier: Apache-2.0
// Budgets that must be met over a whole set: the policy is run on all items, told the mean, run
// again.
#include <pthread.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/replay/replay.h"

#include <stdlib.h>

// Bits of each item, so that their mean does not follow the order of work.
static int take(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    double *bits = self;
    (void)spec, (void)e;
    bits[item] = o->ledger.allocated_bits;
    return 0;
}

static int settle(const struct kv_replay *r, struct kv_replay_spec *spec, unsigned jobs,
                  double *bits, struct kv_error *e) {
    struct kv_replay job = *r;
    job.specs = spec;
    job.n_specs = 1;
    job.damage = job.error = NULL;
    job.counts = NULL;
    job.wanted = NULL;
    job.decisions_only = true;
    job.take = take;
    job.decided = NULL; // those of r take what the setting found gives
    job.scored = NULL;
    job.self = bits;
    int more = 1, rc = kv_replay_open_tables(&job, KV_TABLE_ISO, jobs, e);
    while (more == 1 && rc == 0) {
        double sum = 0;
        rc = kv_replay_exact(&job, jobs, e);
        for (size_t i = r->first_item; i < r->first_item + r->n_items; i++) sum += bits[i];
        if (rc == 0) more = spec->policy->settle(spec->self, sum / (double)r->n_items);
    }
    kv_replay_close_tables(&job);
    return rc;
}

int kv_replay_match(const struct kv_replay *r, struct kv_replay_spec *specs, size_t n,
                    unsigned jobs, struct kv_error *e) {
    KV_GUARD(e);
    double *bits = kv_alloc(r->first_item + r->n_items, sizeof *bits);
    int rc = 0;
    for (size_t j = 0; j < n && rc == 0; j++) {
        struct kv_replay_spec *spec = &specs[j];
        if (!spec->policy->settle || spec->policy->settle(spec->self, NAN) != 1) continue;
        rc = settle(r, spec, jobs, bits, e);
        if (rc == 0) rc = kv_spec_rename(spec, e);
    }
    free(bits);
    return rc;
}
