// SPDX-License-Identifier: Apache-2.0
// Loading a policy from a shared object and checking what it promises.
#include "sim/replay/plugin.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/hash.h"
#include "sim/base/library.h"
#include "sim/base/memory.h"

bool kv_is_plugin(const char *name) {
    size_t n = strlen(name);
    return strchr(name, '/') || (n > 3 && strcmp(name + n - 3, ".so") == 0);
}

static _Thread_local const char *running;

// Where a handler can run after a recursion without an end has used the thread's stack up. A thread
// that has such a place already keeps it.
static void make_room_for_handlers(void) {
    static _Thread_local bool made;
    static _Thread_local char room[1 << 15];
    stack_t there;
    if (made || sigaltstack(NULL, &there)) return;
    if (there.ss_flags & SS_DISABLE)
        (void)!sigaltstack(&(stack_t){.ss_sp = room, .ss_size = sizeof room}, NULL);
    made = true;
}

const char *kv_plugin_enter(const char *path) {
    const char *before = running;
    if (path) {
        running = path;
        make_room_for_handlers();
    }
    return before;
}

void kv_plugin_leave(const char *before) {
    running = before;
}

const char *kv_plugin_running(void) {
    return running;
}

static int check_policy(const struct kv_policy *p, const char *path, struct kv_error *e) {
    // Everything up to `close` has been there since ABI 1; what is newer may be missing.
    const size_t least = offsetof(struct kv_policy, wraps);
    if (p->abi != KV_POLICY_ABI)
        return kv_fail(e, KV_EFAIL, path, "was built for policy ABI %u; this kvsim has %u", p->abi,
                       KV_POLICY_ABI);
    if (p->struct_bytes < least)
        return kv_fail(e, KV_EFAIL, path,
                       "its struct kv_policy has %zu bytes where at least %zu are expected",
                       p->struct_bytes, least);
    return 0;
}

static int check_contents(const struct kv_policy *p, const char *path, struct kv_error *e) {
    const uint32_t known = (KV_NEED(KV_N_FEATURES) - 1) | KV_NEED_CLASS | KV_NEED_DAMAGE |
                           KV_NEED_ERROR | KV_NEED_QUANTILES | KV_NEED_KV | KV_NEED_Q |
                           KV_NEED_HIDDEN | KV_NEED_NORMS | KV_NEED_SURPRISAL;
    const char *missing = !p->name || !*p->name                        ? "name"
                          : !p->open                                   ? "open"
                          : !p->plan && !p->decide && !p->decide_layer ? "plan or decide"
                                                                       : NULL;
    if (missing) return kv_fail(e, KV_EFAIL, path, "its policy has no %s", missing);
    if (p->revise && !p->decide_layer)
        return kv_fail(e, KV_EFAIL, path,
                       "policy %s revises widths (revise) but does not decide them by layers "
                       "(decide_layer)",
                       p->name);
    if (p->needs & ~known)
        return kv_fail(e, KV_EFAIL, path, "policy %s needs what this kvsim cannot give (bits 0x%x)",
                       p->name, p->needs & ~known);
    return 0;
}

static int load(struct kv_plugin *p, const char *path, struct kv_error *e) {
    struct kv_map map;
    int rc = kv_map_open(&map, path, e);
    if (rc) return rc;
    kv_hex64(kv_hash(map.data, map.n, 0), p->digest);
    kv_map_close(&map);
    void (*entry)(void);
    rc = kv_library_load(path, false, "kv_policy_entry", &p->library, &entry, e);
    if (rc) return rc;
    const struct kv_policy *theirs = ((const struct kv_policy *(*)(uint32_t))entry)(KV_POLICY_ABI);
    if (!theirs)
        return kv_fail(e, KV_EFAIL, path, "cannot serve policy ABI %u, which this kvsim has",
                       KV_POLICY_ABI);
    rc = check_policy(theirs, path, e);
    if (rc) return rc;
    size_t n = theirs->struct_bytes;
    memcpy(&p->policy, theirs, n < sizeof p->policy ? n : sizeof p->policy);
    return check_contents(&p->policy, path, e);
}

int kv_plugin_open(struct kv_plugin **out, const char *path, struct kv_error *e) {
    struct kv_plugin *p = kv_alloc(1, sizeof *p);
    p->path = kv_strdup(path);
    const char *before = kv_plugin_enter(p->path);
    int rc = load(p, path, e);
    kv_plugin_leave(before);
    if (rc) kv_plugin_close(p);
    *out = rc ? NULL : p;
    return rc;
}

void kv_plugin_close(struct kv_plugin *p) {
    if (!p) return;
    const char *before = kv_plugin_enter(p->path);
    if (p->library) dlclose(p->library);
    kv_plugin_leave(before);
    free(p->path);
    free(p);
}
