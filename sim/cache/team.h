// SPDX-License-Identifier: Apache-2.0
// Threads that walk through a decode step together: a barrier costs tens of ns, not a system call.
//
//     struct kv_team *t = kv_team_new(2);
//     kv_team_run(t, job, self);      job(self, worker) on each, the caller is worker 0
//     kv_team_barrier(t);             inside a job: all meet
//     kv_team_free(t);
#ifndef KV_CACHE_TEAM_H
#define KV_CACHE_TEAM_H

struct kv_team;

struct kv_team *kv_team_new(unsigned n_threads); // at least 1
void kv_team_free(struct kv_team *t);
unsigned kv_team_size(const struct kv_team *t);
void kv_team_run(struct kv_team *t, void (*job)(void *self, unsigned worker), void *self);
void kv_team_barrier(struct kv_team *t);

#endif
