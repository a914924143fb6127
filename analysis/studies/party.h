// SPDX-License-Identifier: Apache-2.0
// A sweep that several ranks share (sim/base/ranks.h): rank 0 owns the store, says which items are
// whose as they are asked for, takes everybody's outcomes, and computes too.
//
//     kv_party_agree(p, rc, about, &e)                     everybody: did all come as far as here?
//     kv_party_share(p, done, n, rc, &e)                   rank 0's bytes and state to everybody
//     kv_party_begin(p, &work, &e)                         from here on outcomes may come in
//     ... kv_party_claim(p, item), kv_party_send(p, ...)   while a replay runs
//     kv_party_end(p, rc, counts, n, &e)                   everybody is through, or has failed
//
// Whatever fails on one rank is everybody's error, named with the rank and its host.
#ifndef KV_ANALYSIS_STUDIES_PARTY_H
#define KV_ANALYSIS_STUDIES_PARTY_H

#include "sim/base/ranks.h"
#include "sim/replay/replay.h"

struct kv_party;
struct kv_party *kv_party_new(const struct kv_ranks *ranks);
void kv_party_free(struct kv_party *p); // NULL is fine
bool kv_party_leads(const struct kv_party *p);

// The first error of any rank, or 0. about: what must be the same on all of them, in words; NULL is
// not compared.
KV_MUST_CHECK int kv_party_agree(struct kv_party *p, int rc, const char *about, struct kv_error *e);
// Copies rank 0's n bytes to everybody, if its rc is 0; else everybody gets its error.
KV_MUST_CHECK int kv_party_share(struct kv_party *p, void *data, size_t n, int rc,
                                 struct kv_error *e);

// The items of one replay, and who takes outcomes on rank 0: one at a time, from any thread.
struct kv_party_work {
    size_t first_item, n_items;
    int (*take)(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e);
    void *self;
};
KV_MUST_CHECK int kv_party_begin(struct kv_party *p, const struct kv_party_work *work,
                                 struct kv_error *e);
// Whether an item is this rank's to run. Items that are asked for before it are decided with it.
bool kv_party_claim(struct kv_party *p, size_t item);
// Hands over an outcome: to work.take on rank 0, on others by a message to it.
KV_MUST_CHECK int kv_party_take(struct kv_party *p, size_t item, size_t spec,
                                const struct kv_outcome *o, struct kv_error *e);
// counts[n]: of this rank; on rank 0 those of all are added up.
KV_MUST_CHECK int kv_party_end(struct kv_party *p, int rc, struct kv_closed_count *counts, size_t n,
                               struct kv_error *e);

#endif
