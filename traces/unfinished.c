// SPDX-License-Identifier: Apache-2.0
// A recording that is under way: the folder's lock, the plan, the sums of its items.
#include "traces/unfinished.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"

static char *plan_path(const struct kv_unfinished *u) {
    return kv_format_text("%s/recording.json", u->dir);
}
static char *sums_path(const struct kv_unfinished *u) {
    return kv_format_text("%s/recording.sums", u->dir);
}

static int lock_folder(struct kv_unfinished *u, struct kv_error *e) {
    u->lock = open(u->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (u->lock < 0) return kv_fail(e, KV_EFAIL, u->dir, "cannot be opened: %s", strerror(errno));
    if (flock(u->lock, LOCK_EX | LOCK_NB) == 0) return 0;
    if (errno == EWOULDBLOCK)
        return kv_fail(e, KV_EFAIL, u->dir,
                       "is being recorded into by another kvsim; wait for it or choose another "
                       "folder");
    kv_say("%s cannot be locked (%s): let no other kvsim record into it", u->dir, strerror(errno));
    return 0;
}

// The first place where two plans differ, as "model.digest"; NULL = nowhere. Caller frees.
static char *difference(const json_t *a, const json_t *b) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)a, key, value) {
        const json_t *other = json_object_get(b, key);
        if (json_equal(value, other)) continue;
        char *below =
            json_is_object(value) && json_is_object(other) ? difference(value, other) : NULL;
        char *all = below ? kv_format_text("%s.%s", key, below) : kv_strdup(key);
        free(below);
        return all;
    }
    json_object_foreach((json_t *)b, key,
                        value) if (!json_object_get(a, key)) return kv_strdup(key);
    return NULL;
}

// What stands at "model.digest" in a plan, cut to what a sentence bears. Caller frees.
static char *value_at(const json_t *j, const char *path) {
    char *copy = kv_strdup(path), *rest = copy, *key;
    while ((key = strsep(&rest, "."))) j = json_object_get(j, key);
    free(copy);
    char *text = j ? json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    char *brief =
        kv_format_text("%.60s%s", text ? text : "nothing", text && strlen(text) > 60 ? "..." : "");
    free(text);
    return brief;
}

static int check_plan(const struct kv_unfinished *u, const json_t *found, const json_t *plan,
                      struct kv_error *e) {
    char *where = difference(found, plan);
    if (!where) return 0;
    char *there = value_at(found, where), *here = value_at(plan, where);
    int rc = kv_fail(e, KV_EFAIL, u->dir,
                     "holds the beginning of another recording: %s is %s there and %s here; give "
                     "the command that began it, remove the folder, or choose another",
                     where, there, here);
    free(where);
    free(there);
    free(here);
    return rc;
}

// Reads the sums of an earlier run; none when there is no such file.
static void read_sums(struct kv_unfinished *u) {
    char *path = sums_path(u);
    struct kv_map map;
    if (kv_map_open(&map, path, NULL) == 0) {
        size_t bytes = u->n * sizeof *u->sums;
        if (map.n) memcpy(u->sums, map.data, map.n < bytes ? map.n : bytes);
        kv_map_close(&map);
    }
    free(path);
}

static int take_over(struct kv_unfinished *u, const json_t *plan, struct kv_error *e) {
    char *path = plan_path(u);
    json_t *found = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    bool there = access(path, F_OK) == 0;
    free(path);
    int rc = 0;
    if (there) read_sums(u);
    if (kv_unfinished_count(u) > 0) {
        rc = found ? check_plan(u, found, plan, e)
                   : kv_fail(e, KV_EFAIL, u->dir,
                             "holds the beginning of a recording whose recording.json cannot be "
                             "read; remove the folder or choose another");
        u->resumed = rc == 0;
    }
    json_decref(found);
    return rc;
}

static int write_plan(const struct kv_unfinished *u, const json_t *plan, struct kv_error *e) {
    char *text = json_dumps(plan, JSON_INDENT(1)), *path = plan_path(u);
    int rc = text ? kv_write_file(path, text, strlen(text), e)
                  : kv_fail(e, KV_EFAIL, path, "cannot be made");
    free(path);
    free(text);
    return rc;
}

int kv_unfinished_open(struct kv_unfinished *u, const char *dir, const json_t *plan, size_t n,
                       struct kv_error *e) {
    *u = (struct kv_unfinished){.dir = kv_strdup(dir), .lock = -1, .sums_fd = -1, .n = n};
    u->sums = kv_alloc(n, sizeof *u->sums);
    int rc = lock_folder(u, e);
    if (rc == 0) rc = take_over(u, plan, e);
    char *path = sums_path(u);
    if (rc == 0 && !u->resumed) {
        unlink(path); // sums without items, before there is a plan that they could be taken for
        rc = write_plan(u, plan, e);
    }
    if (rc == 0) {
        u->sums_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (u->sums_fd < 0 || ftruncate(u->sums_fd, (off_t)(n * sizeof *u->sums)))
            rc = kv_fail(e, KV_EFAIL, path, "cannot be made: %s", strerror(errno));
    }
    free(path);
    if (rc) kv_unfinished_close(u, false);
    return rc;
}

int kv_unfinished_mark(struct kv_unfinished *u, size_t i, uint64_t sum, struct kv_error *e) {
    if (pwrite(u->sums_fd, &sum, sizeof sum, (off_t)(i * sizeof sum)) != sizeof sum)
        return kv_fail(e, KV_EFAIL, u->dir, "recording.sums cannot be written: %s",
                       strerror(errno));
    u->sums[i] = sum;
    return 0;
}

size_t kv_unfinished_count(const struct kv_unfinished *u) {
    size_t n = 0;
    for (size_t i = 0; i < u->n; i++) n += u->sums[i] != 0;
    return n;
}

void kv_unfinished_close(struct kv_unfinished *u, bool remove_files) {
    if (u->sums_fd >= 0) close(u->sums_fd);
    if (remove_files) { // the plan last: sums without one count for nothing
        char *paths[] = {sums_path(u), plan_path(u)};
        for (size_t i = 0; i < 2; i++) {
            unlink(paths[i]);
            free(paths[i]);
        }
    }
    if (u->lock >= 0) close(u->lock);
    free(u->sums);
    free(u->dir);
    *u = (struct kv_unfinished){.lock = -1, .sums_fd = -1};
}
