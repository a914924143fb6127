// SPDX-License-Identifier: Apache-2.0
// Loads the library by which processes share work.
#include "sim/base/ranks.h"

#include <stdlib.h>
#include <unistd.h>

#include "sim/base/guard.h"
#include "sim/base/library.h"
#include "sim/base/memory.h"

static int join(const char *path, const struct kv_ranks **ranks, struct kv_error *e) {
    char why[256] = "";
    if (access(path, F_OK) != 0)
        return kv_fail(e, KV_EFAIL, path,
                       "is not there: `make mpi` builds it where mpicc is, and $KVSIM_MPI may name "
                       "it");
    // Global, since an MPI's own plug-ins look for its symbols there.
    void (*entry)(void);
    int rc = kv_library_load(path, true, "kv_ranks_entry", NULL, &entry, e);
    if (rc) return rc;
    struct kv_ranks *r = ((kv_ranks_entry_fn *)entry)(KV_RANKS_ABI);
    if (!r || r->abi != KV_RANKS_ABI)
        return kv_fail(e, KV_EFAIL, path, "was not built for ranks ABI %d", KV_RANKS_ABI);
    if (r->join(r, why, sizeof why)) return kv_fail(e, KV_EFAIL, path, "cannot start: %s", why);
    *ranks = r;
    return 0;
}

int kv_ranks_join(const struct kv_ranks **ranks, struct kv_error *e) {
    *ranks = NULL;
    KV_GUARD(e);
    char *path = kv_library_path("KVSIM_MPI", "libkvsim-mpi.so");
    int rc = join(path, ranks, e);
    free(path);
    return rc;
}

void kv_ranks_leave(const struct kv_ranks *ranks) {
    if (ranks) ranks->leave((struct kv_ranks *)(uintptr_t)ranks);
}
