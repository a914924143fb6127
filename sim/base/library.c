// SPDX-License-Identifier: Apache-2.0
#include "sim/base/library.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/memory.h"

char *kv_library_path(const char *variable, const char *name) {
    const char *named = getenv(variable);
    char self[4096];
    ssize_t n = named ? 0 : readlink("/proc/self/exe", self, sizeof self - 1);
    if (named) return kv_strdup(named);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    return kv_format_text("%.*s/%s", slash ? (int)(slash - self) : 1, slash ? self : ".", name);
}

int kv_library_load(const char *path, bool global, const char *symbol, void **library,
                    void (**function)(void), struct kv_error *e) {
    // A bare name would be searched for in the system's library folders.
    char *file = kv_format_text("%s%s", strchr(path, '/') ? "" : "./", path);
    void *loaded = dlopen(file, RTLD_NOW | (global ? RTLD_GLOBAL : RTLD_LOCAL));
    free(file);
    if (library) *library = loaded;
    if (!loaded) return kv_fail(e, KV_EFAIL, path, "cannot be loaded: %s", dlerror());
    void *found = dlsym(loaded, symbol);
    if (!found) return kv_fail(e, KV_EFAIL, path, "exports no %s", symbol);
    memcpy(function, &found, sizeof found); // ISO C has no cast from object to function pointers
    return 0;
}
