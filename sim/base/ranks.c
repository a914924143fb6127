// SPDX-License-Identifier: Apache-2.0
// Loads the library by which processes share work.
#include "sim/base/ranks.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"

static char *library_path(void) {
    const char *named = getenv("KVSIM_MPI");
    char self[4096];
    ssize_t n = named ? 0 : readlink("/proc/self/exe", self, sizeof self - 1);
    if (named) return kv_strdup(named);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    return kv_format_text("%.*s/libkvsim-mpi.so", slash ? (int)(slash - self) : 1,
                          slash ? self : ".");
}

static int join(const char *path, const struct kv_ranks **ranks, struct kv_error *e) {
    char why[256] = "";
    if (access(path, F_OK) != 0)
        return kv_fail(e, KV_EFAIL, path,
                       "is not there: `make mpi` builds it where mpicc is, and $KVSIM_MPI may name "
                       "it");
    // Global, since an MPI's own plug-ins look for its symbols there.
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!library) return kv_fail(e, KV_EFAIL, path, "cannot be loaded: %s", dlerror());
    void *symbol = dlsym(library, "kv_ranks_entry");
    kv_ranks_entry_fn *entry;
    memcpy(&entry, &symbol, sizeof entry); // ISO C has no cast from object to function pointers
    if (!symbol) return kv_fail(e, KV_EFAIL, path, "exports no kv_ranks_entry");
    struct kv_ranks *r = entry(KV_RANKS_ABI);
    if (!r || r->abi != KV_RANKS_ABI)
        return kv_fail(e, KV_EFAIL, path, "was not built for ranks ABI %d", KV_RANKS_ABI);
    if (r->join(r, why, sizeof why)) return kv_fail(e, KV_EFAIL, path, "cannot start: %s", why);
    *ranks = r;
    return 0;
}

int kv_ranks_join(const struct kv_ranks **ranks, struct kv_error *e) {
    *ranks = NULL;
    KV_GUARD(e);
    char *path = library_path();
    int rc = join(path, ranks, e);
    free(path);
    return rc;
}

void kv_ranks_leave(const struct kv_ranks *ranks) {
    if (ranks) ranks->leave((struct kv_ranks *)(uintptr_t)ranks);
}
