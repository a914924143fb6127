// SPDX-License-Identifier: Apache-2.0
// Files: mapped, read whole (gunzipped when compressed), written whole or not at all.
#include "sim/base/files.h"
#include "sim/base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

// Opens for reading and tells the size; refuses what is not a plain file.
static int open_plain(const char *path, size_t *n, struct kv_error *e) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0) return kv_fail(e, KV_EFAIL, path, "cannot be opened: %s", strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return kv_fail(e, KV_EFAIL, path, "is not a plain file");
    }
    *n = (size_t)st.st_size;
    return fd;
}

int kv_map_open(struct kv_map *m, const char *path, struct kv_error *e) {
    *m = (struct kv_map){0};
    size_t n;
    int fd = open_plain(path, &n, e);
    if (fd < 0) return fd;
    if (n > 0) {
        void *p = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            close(fd);
            return kv_fail(e, KV_EFAIL, path, "cannot be mapped: %s", strerror(errno));
        }
        *m = (struct kv_map){p, n};
    }
    close(fd);
    return 0;
}

void kv_map_close(struct kv_map *m) {
    if (m->data) munmap((void *)m->data, m->n);
    *m = (struct kv_map){0};
}

int kv_read_file(const char *path, char **text, size_t *n, struct kv_error *e) {
    size_t size;
    *text = NULL;
    int fd = open_plain(path, &size, e);
    if (fd < 0) return fd;
    gzFile gz = gzdopen(fd, "rb"); // reads what is not compressed as it stands
    if (!gz) {
        close(fd);
        return kv_fail(e, KV_ENOMEM, path, "cannot be read: no memory");
    }
    gzbuffer(gz, 1 << 18);
    struct kv_text t = {0};
    char *chunk = kv_alloc(1 << 20, 1);
    int got;
    while ((got = gzread(gz, chunk, 1 << 20)) > 0) kv_text_add(&t, chunk, (size_t)got);
    free(chunk);
    int status;
    const char *why = gzerror(gz, &status);
    const char *after = why ? strchr(why, ':') : NULL; // "<fd:3>: what is wrong"
    if (after && *why == '<' && after[1]) after = strchr(after + 1, ':');
    if (after && *why == '<') why = after + 2;
    if (got < 0 || (status != Z_OK && status != Z_STREAM_END)) {
        kv_fail(e, KV_EFAIL, path, "cannot be read: %s", status == Z_ERRNO ? strerror(errno) : why);
        gzclose(gz);
        free(t.s);
        return KV_EFAIL;
    }
    gzclose(gz);
    *n = t.n;
    *text = kv_text_take(&t);
    return 0;
}

int kv_read_lines(const char *path, char **text, size_t *n, struct kv_error *e) {
    int rc = kv_read_file(path, text, n, e);
    const char *zero = rc ? NULL : memchr(*text, '\0', *n);
    if (!zero) return rc;
    size_t line = 1;
    for (const char *p = *text; p < zero; p++) line += *p == '\n';
    free(*text);
    *text = NULL;
    return kv_fail(e, KV_EFAIL, path, "line %zu: a zero byte, where text is expected", line);
}

int kv_write_file(const char *path, const void *data, size_t n, struct kv_error *e) {
    struct stat st;
    bool special =
        stat(path, &st) == 0 && !S_ISREG(st.st_mode); // /dev/stdout, /dev/full: no rename
    char *temporary = special ? kv_strdup(path) : kv_format_text("%s.partial", path);
    FILE *f = fopen(temporary, "wb");
    if (!f) {
        kv_fail(e, KV_EFAIL, path, "cannot be written: %s", strerror(errno));
        free(temporary);
        return KV_EFAIL;
    }
    bool bad = fwrite(data, 1, n, f) != n;
    int why = errno;
    if (fflush(f)) bad = true, why = errno;
    if (fclose(f)) bad = true, why = errno;
    if (!bad && !special && rename(temporary, path)) bad = true, why = errno;
    if (bad) {
        if (!special) unlink(temporary);
        kv_fail(e, KV_EFAIL, path, "cannot be written: %s", strerror(why));
    }
    free(temporary);
    return bad ? KV_EFAIL : 0;
}

int kv_check_output(const char *path, struct kv_error *e) {
    struct stat st;
    const char *slash = strrchr(path, '/');
    char *dir = slash ? kv_format_text("%.*s", (int)(slash - path) + 1, path) : kv_strdup(".");
    int why = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? EISDIR : access(dir, W_OK) ? errno : 0;
    free(dir);
    return why ? kv_fail(e, KV_EFAIL, path, "cannot be written: %s", strerror(why)) : 0;
}

int kv_make_dir(const char *path, struct kv_error *e) {
    char *p = kv_strdup(path);
    for (char *c = p + (*p != '\0');; c++) {
        if (*c != '/' && *c != '\0') continue;
        char keep = *c;
        *c = '\0';
        if (mkdir(p, 0777) && errno != EEXIST) {
            int why = errno;
            free(p);
            return kv_fail(e, KV_EFAIL, path, "folder cannot be made: %s", strerror(why));
        }
        *c = keep;
        if (keep == '\0') break;
    }
    free(p);
    if (!kv_is_dir(path)) return kv_fail(e, KV_EFAIL, path, "is not a folder");
    return 0;
}

bool kv_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

uint64_t kv_free_bytes(const char *path) {
    char *p = kv_strdup(path);
    struct statvfs v;
    uint64_t bytes = UINT64_MAX;
    for (;;) {
        if (statvfs(*p ? p : ".", &v) == 0) {
            bytes = (uint64_t)v.f_bavail * v.f_frsize;
            break;
        }
        char *slash = strrchr(p, '/');
        if (!*p) break;
        if (slash == p && p[1])
            p[1] = '\0';
        else if (slash && slash != p)
            *slash = '\0';
        else
            *p = '\0';
    }
    free(p);
    return bytes;
}

static atomic_bool closed;

bool kv_stdout_closed(void) {
    return atomic_load(&closed);
}

// An earlier write may have met the closed pipe, whose errno is gone: the pipe itself tells.
static bool nobody_reads(int error) {
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return error == EPIPE || (poll(&out, 1, 0) == 1 && (out.revents & POLLERR));
}

int kv_flush_stdout(struct kv_error *e) {
    errno = 0;
    bool failed = fflush(stdout) || ferror(stdout);
    if (failed && nobody_reads(errno)) {
        atomic_store(&closed, true);
        return 0;
    }
    if (failed)
        return kv_fail(e, KV_EFAIL, "standard output", "cannot be written: %s",
                       errno ? strerror(errno) : "a write failed");
    return 0;
}
