// SPDX-License-Identifier: Apache-2.0
// Processes, on one machine or many, that share one piece of work: started together by a launcher
// (mpirun, srun), counted from 0, and able to send each other bytes. A shared library does it, so
// that the program needs no MPI; it is loaded at the first need and not linked.
//
//     const struct kv_ranks *ranks;
//     if ((rc = kv_ranks_join(&ranks, &e))) return rc;       libkvsim-mpi.so, as $KVSIM_MPI names
//     it
//     ... ranks->rank of ranks->size ...
//     kv_ranks_leave(ranks);
#ifndef KV_BASE_RANKS_H
#define KV_BASE_RANKS_H

#include "policies/policy.h"

KV_BEGIN_DECLS

#define KV_RANKS_ABI 1

struct kv_ranks {
    uint32_t abi;
    // Set by join.
    unsigned rank, size;
    char library[128]; // "Open MPI 4.1.4"
    char host[128];
    // All fill `why` and return non-zero when they fail. One call at a time, from any thread.
    int (*join)(struct kv_ranks *self, char *why, size_t room);
    int (*send)(const struct kv_ranks *self, unsigned to, const void *data, size_t n, char *why,
                size_t room);
    // Waits for a message of any rank, without holding a core. *data is malloc's, for the caller.
    int (*receive)(const struct kv_ranks *self, unsigned *from, void **data, size_t *n, char *why,
                   size_t room);
    void (*leave)(struct kv_ranks *self);
};
// What the library exports under the name kv_ranks_entry; NULL: not this ABI.
typedef struct kv_ranks *kv_ranks_entry_fn(uint32_t abi);

// Loads the library and joins those who were started together; alone it is one of one. Errors: no
// such library, another ABI, no launcher that it can work with.
KV_MUST_CHECK int kv_ranks_join(const struct kv_ranks **ranks, struct kv_error *e);
void kv_ranks_leave(const struct kv_ranks *ranks); // NULL is fine

KV_END_DECLS

#endif
