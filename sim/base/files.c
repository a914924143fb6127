// SPDX-License-Identifier: Apache-2.0
// Files: mapped, read whole (gunzipped when compressed), written whole or not at all.
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

// What comes through a pipe is read to its end before it is looked at. One that nobody writes would
// be waited for without an end.
enum { WAIT_FOR_WRITER_MS = 3000, LOOK_MS = 50 };
#define MOST_PIPED ((size_t)1 << 30)

// Whether there is more to read: 1 = it is in chunk[*got], 0 = the end. `met`: somebody writes.
static int read_pipe(int fd, const char *path, char *chunk, size_t room, size_t *got, bool *met,
                     struct kv_error *e) {
    for (int waited_ms = 0;;) {
        if (kv_interrupted()) return kv_fail(e, KV_EINTR, path, "interrupted");
        ssize_t n = read(fd, chunk, room);
        *got = n > 0 ? (size_t)n : 0;
        if (n > 0) return *met = true, 1;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return kv_fail(e, KV_EFAIL, path, "cannot be read: %s", strerror(errno));
        if (n < 0) *met = true; // a writer that has nothing yet
        if (*met && n == 0) return 0;
        if (!*met && (waited_ms += LOOK_MS) > WAIT_FOR_WRITER_MS)
            return kv_fail(e, KV_EFAIL, path, "is a pipe that nobody writes");
        struct pollfd in = {.fd = fd, .events = POLLIN};
        poll(*met ? &in : NULL, *met, *met ? 1000 : LOOK_MS);
    }
}

// Copies a pipe into a file without a name, whose descriptor it returns; closes the pipe's.
static int drain(int fd, const char *path, size_t *n, struct kv_error *e) {
    char chunk[1 << 16];
    FILE *f = tmpfile();
    bool met = false;
    size_t got = 0;
    int rc = f ? 1 : kv_fail(e, KV_EFAIL, path, "cannot be copied: %s", strerror(errno));
    for (*n = 0; rc == 1 && (rc = read_pipe(fd, path, chunk, sizeof chunk, &got, &met, e)) == 1;
         *n += got)
        if (*n + got > MOST_PIPED)
            rc = kv_fail(e, KV_EFAIL, path, "brings more than %zu MB: give a file instead",
                         MOST_PIPED >> 20);
        else if (fwrite(chunk, 1, got, f) != got)
            rc = kv_fail(e, KV_EFAIL, path, "cannot be copied: %s", strerror(errno));
    close(fd);
    if (rc == 0 && fflush(f))
        rc = kv_fail(e, KV_EFAIL, path, "cannot be copied: %s", strerror(errno));
    int copy = rc ? -1 : fcntl(fileno(f), F_DUPFD_CLOEXEC, 0);
    if (f) fclose(f);
    if (rc) return rc;
    if (copy < 0) return kv_fail(e, KV_EFAIL, path, "cannot be copied: %s", strerror(errno));
    lseek(copy, 0, SEEK_SET);
    return copy;
}

// Opens for reading and tells the size; refuses what is no plain file, nor, where they are taken, a
// pipe. Not blocking: opening a pipe waits for its writer.
static int open_plain(const char *path, bool pipes, size_t *n, struct kv_error *e) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0) return kv_fail(e, KV_EFAIL, path, "cannot be opened: %s", strerror(errno));
    bool known = fstat(fd, &st) == 0;
    if (known && pipes && S_ISFIFO(st.st_mode)) return drain(fd, path, n, e);
    if (!known || !S_ISREG(st.st_mode)) {
        close(fd);
        return kv_fail(e, KV_EFAIL, path, "is %s",
                       known && S_ISFIFO(st.st_mode) ? "a pipe, and a plain file is needed here"
                                                     : "not a plain file");
    }
    *n = (size_t)st.st_size;
    return fd;
}

int kv_map_open(struct kv_map *m, const char *path, struct kv_error *e) {
    *m = (struct kv_map){0};
    size_t n = 0;
    int fd = open_plain(path, false, &n, e);
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

// First bytes of files that people have in place of the one they mean.
static const struct {
    const char *magic;
    size_t n;
    const char *kind;
} magics[] = {
#define MAGIC(bytes, kind)                                                                         \
    { bytes, sizeof bytes - 1, kind }
    MAGIC("version https://git-lfs", "it is a Git LFS pointer, which stands for the file itself; "
                                     "`git lfs pull` fetches that"),
    MAGIC("GGUF", "it is a GGUF file"),
    MAGIC("lmgg", "it is a GGML file of before GGUF"),
    MAGIC("tjgg", "it is a GGML (ggjt) file of before GGUF"),
    MAGIC("fmgg", "it is a GGML (ggmf) file of before GGUF"),
    MAGIC("algg", "it is a LoRA adapter of before GGUF"),
    MAGIC("PK\3\4", "it is a zip archive, as PyTorch's checkpoints are"),
    MAGIC("\x80\2", "it is a Python pickle, as PyTorch's checkpoints were"),
    MAGIC("\x1f\x8b", "it is a gzip file; unpack it first"),
    MAGIC("SQLite format 3", "it is an SQLite database"),
    MAGIC("PAR1", "it is a Parquet file"),
    MAGIC("\x89HDF", "it is an HDF5 file"),
#undef MAGIC
};

const char *kv_file_kind(const void *data, size_t n, const char *unknown) {
    const unsigned char *p = data;
    size_t i = n >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    if (n == 0) return unknown;
    for (size_t k = 0; k < sizeof magics / sizeof *magics; k++)
        if (n >= magics[k].n && memcmp(p, magics[k].magic, magics[k].n) == 0) return magics[k].kind;
    while (i < n && (p[i] == ' ' || (p[i] >= '\t' && p[i] <= '\r'))) i++;
    const char *html[] = {"<!doctype", "<html", "<?xml"};
    for (size_t k = 0; k < 3; k++)
        if (n - i >= strlen(html[k]) &&
            strncasecmp((const char *)p + i, html[k], strlen(html[k])) == 0)
            return "it is an HTML page, as a download leaves that asked for a login or failed";
    uint64_t header = 0;
    for (size_t k = 8; k-- > 0 && n > 8;) header = header << 8 | p[k];
    if (n > 8 && p[8] == '{' && header >= 2 && header <= 100000000)
        return "it is a safetensors file; a model of safetensors is opened by its folder";
    if (i < n && (p[i] == '{' || p[i] == '[')) return "it is a JSON text";
    return unknown;
}

// A file packed tighter than real ones are is a bomb, meant or not.
#define MOST_UNPACKED ((size_t)64 << 20)
#define MOST_RATIO 64

int kv_read_file(const char *path, char **text, size_t *n, struct kv_error *e) {
    size_t size = 0;
    *text = NULL;
    int fd = open_plain(path, true, &size, e);
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
    bool bomb = false;
    while (!bomb && (got = gzread(gz, chunk, 1 << 20)) > 0) {
        bomb = !gzdirect(gz) && t.n + (size_t)got > MOST_UNPACKED && t.n / MOST_RATIO > size;
        if (!bomb) kv_text_add(&t, chunk, (size_t)got);
    }
    free(chunk);
    if (bomb) {
        gzclose(gz);
        free(t.s);
        return kv_fail(e, KV_EFAIL, path,
                       "%zu packed bytes unpack to more than %zu MB, more than %d times as much: "
                       "unpack it yourself if that is meant",
                       size, MOST_UNPACKED >> 20, MOST_RATIO);
    }
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

void kv_sync_folder(const char *dir) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    (void)!fsync(fd);
    close(fd);
}

// Some file systems cannot, which is no fault of the file.
static int sync_file(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    int why = fsync(fd) ? errno : 0;
    close(fd);
    return why == EINVAL || why == ENOSYS || why == EROFS ? 0 : why;
}

int kv_rename_file(const char *from, const char *to, struct kv_error *e) {
    int why = sync_file(from);
    if (!why && rename(from, to)) why = errno;
    if (why) return kv_fail(e, KV_EFAIL, to, "cannot be written: %s", strerror(why));
    const char *slash = strrchr(to, '/');
    char *dir = !slash        ? kv_strdup(".")
                : slash == to ? kv_strdup("/")
                              : kv_format_text("%.*s", (int)(slash - to), to);
    kv_sync_folder(dir);
    free(dir);
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
    int why = errno, rc = 0;
    if (fflush(f)) bad = true, why = errno;
    if (fclose(f)) bad = true, why = errno;
    if (bad)
        rc = kv_fail(e, KV_EFAIL, path, "cannot be written: %s", strerror(why));
    else if (!special)
        rc = kv_rename_file(temporary, path, e);
    if (rc && !special) unlink(temporary);
    free(temporary);
    return rc;
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
    if (!ferror(stdout)) errno = 0; // else it says why the last write failed
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
