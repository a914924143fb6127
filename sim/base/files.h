// SPDX-License-Identifier: Apache-2.0
// Files whole or not at all: mapped, read, written, and what the disk has room for.
#ifndef KV_BASE_FILES_H
#define KV_BASE_FILES_H

#include "policies/policy.h"

// A file mapped for reading. Empty files are mapped as n = 0. Errors name the file.
struct kv_map {
    const uint8_t *data;
    size_t n;
};
KV_MUST_CHECK int kv_map_open(struct kv_map *m, const char *path, struct kv_error *e);
void kv_map_close(struct kv_map *m);

// What a file of another kind than expected is, by its first bytes, as the end of a sentence ("this
// is an HTML page, ..."); `unknown` where they tell nothing. Constant text.
const char *kv_file_kind(const void *data, size_t n, const char *unknown);

// Reads a whole file, gunzipping it when it starts with gzip's magic. Caller frees; NUL-terminated.
// A pipe (`<(...)`, a named one) is read to its end. Errors: what unpacks to more than 64 MiB and
// more than 64 times its size, a pipe that nobody writes for 3 s or that brings more than 1 GiB.
KV_MUST_CHECK int kv_read_file(const char *path, char **text, size_t *n, struct kv_error *e);
// The same of a text that is read line by line: a zero byte, which would end it early, is refused
// by its line.
KV_MUST_CHECK int kv_read_lines(const char *path, char **text, size_t *n, struct kv_error *e);
// Writes a whole file through a temporary name and a rename, so that it is there whole or not at
// all.
KV_MUST_CHECK int kv_write_file(const char *path, const void *data, size_t n, struct kv_error *e);
// Whether kv_write_file could: asked before work whose result a wrong path would lose.
KV_MUST_CHECK int kv_check_output(const char *path, struct kv_error *e);
// Makes what was written to `from` last, gives it the name `to`, and makes the folder's entry last:
// after a power cut there is the old file or the whole new one.
KV_MUST_CHECK int kv_rename_file(const char *from, const char *to, struct kv_error *e);
void kv_sync_folder(const char *dir); // its entries; where a file system cannot, nothing happens
KV_MUST_CHECK int kv_make_dir(const char *path, struct kv_error *e); // with parents
bool kv_is_dir(const char *path);
// Free bytes of the file system that holds (or would hold) path; UINT64_MAX when unknown.
uint64_t kv_free_bytes(const char *path);
// Flushes stdout and reports an error if any write to it failed (a full disk). A pipe that nobody
// reads any more (`| head`) is no error, so that files which follow are written all the same: it is
// kept in mind.
KV_MUST_CHECK int kv_flush_stdout(struct kv_error *e);
bool kv_stdout_closed(void);

#endif
