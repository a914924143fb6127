// SPDX-License-Identifier: Apache-2.0
// What every room needs and none owns: memory, text, files, hashes, half floats, workers, progress.
#ifndef KV_UTIL_H
#define KV_UTIL_H

#include "policies/policy.h"

#define KV_VERSION "0.1.0"

// ---- memory and text ------------------------------------------------------------------

// malloc, realloc and strdup that end the program with one sentence when memory runs out: no result
// is half-written then, since stores and shards are written whole. kv_alloc zeroes and is 64-byte
// aligned.
void *kv_alloc(size_t count, size_t size);
void *kv_grow(void *p, size_t count, size_t size);
char *kv_strdup(const char *s);
KV_PRINTF(1, 2) char *kv_format_text(const char *format, ...); // caller frees

// A growing text buffer. Init with {0}; kv_text_take hands out the string and empties the buffer.
struct kv_text {
    char *s;
    size_t n, room;
};
void kv_text_add(struct kv_text *t, const char *s, size_t n);
KV_PRINTF(2, 3) void kv_text_addf(struct kv_text *t, const char *format, ...);
char *kv_text_take(struct kv_text *t); // never NULL; caller frees

// ---- files ----------------------------------------------------------------------------

// A file mapped for reading. Empty files are mapped as n = 0. Errors name the file.
struct kv_map {
    const uint8_t *data;
    size_t n;
};
KV_MUST_CHECK int kv_map_open(struct kv_map *m, const char *path, struct kv_error *e);
void kv_map_close(struct kv_map *m);

// Reads a whole file, gunzipping it when it starts with gzip's magic. Caller frees; NUL-terminated.
KV_MUST_CHECK int kv_read_file(const char *path, char **text, size_t *n, struct kv_error *e);
// Writes a whole file through a temporary name and a rename, so that it is there whole or not at
// all.
KV_MUST_CHECK int kv_write_file(const char *path, const void *data, size_t n, struct kv_error *e);
KV_MUST_CHECK int kv_make_dir(const char *path, struct kv_error *e); // with parents
bool kv_is_dir(const char *path);
// Free bytes of the file system that holds (or would hold) path; UINT64_MAX when unknown.
uint64_t kv_free_bytes(const char *path);
// Flushes stdout and reports an error if any write to it failed (a full disk, a closed pipe).
KV_MUST_CHECK int kv_flush_stdout(struct kv_error *e);

// ---- hashes and half floats -----------------------------------------------------------

uint64_t kv_hash(const void *data, size_t n, uint64_t seed); // XXH64
void kv_hex64(uint64_t h, char out[17]);

// IEEE binary16 and bfloat16, round to nearest even; NaN stays NaN, overflow becomes infinity.
uint16_t kv_f32_to_f16(float x);
float kv_f16_to_f32(uint16_t h);
uint16_t kv_f32_to_bf16(float x);
float kv_bf16_to_f32(uint16_t h);
void kv_f32_to_f16_n(const float *x, uint16_t *h, size_t n);
void kv_f16_to_f32_n(const uint16_t *h, float *x, size_t n);

// ---- CPU level ------------------------------------------------------------------------

// Sources named *.isa.c are compiled once per level (KV_ISA is the suffix); each dispatches through
// a const table indexed by kv_cpu_level(), fixed at the first call. KVSIM_CPU=base|avx2|avx512
// forces one.
enum kv_cpu { KV_CPU_BASE, KV_CPU_AVX2, KV_CPU_AVX512, KV_N_CPU };
enum kv_cpu kv_cpu_level(void);
const char *kv_cpu_level_name(enum kv_cpu level);
const char *kv_cpu_model(void); // "AMD EPYC", from /proc/cpuinfo; "unknown" elsewhere

// ---- workers and progress -------------------------------------------------------------

// Runs job(self, worker, i) for i in [0, n) on `n_workers` threads; each worker takes the next i
// when free. A job that returns non-zero stops the rest; the first error in order of i is returned.
// kv_interrupted() is checked between jobs: KV_EINTR.
KV_MUST_CHECK int kv_parallel(size_t n, unsigned n_workers,
                              int (*job)(void *self, unsigned worker, size_t i, struct kv_error *e),
                              void *self, struct kv_error *e);
unsigned kv_cpu_count(void);

void kv_catch_interrupts(void); // SIGINT and SIGTERM set a flag; a second SIGINT ends the program
bool kv_interrupted(void);

double kv_now_s(void);      // monotonic
double kv_cpu_time_s(void); // of this process, all threads

// Talk on stderr. Level: -1 quiet, 0 normal, 1 verbose. kv_say prints one line unless quiet.
void kv_set_verbosity(int level);
int kv_verbosity(void);
KV_PRINTF(1, 2) void kv_say(const char *format, ...);

// A progress bar on a terminal ("recording  57/120  3.1 items/s  0:20 left"), a line every tenth
// otherwise. Thread-safe: kv_progress_step may be called by any worker. NULL shows nothing.
struct kv_progress;
struct kv_progress *kv_progress_start(const char *what, size_t total, const char *unit);
void kv_progress_step(struct kv_progress *p, size_t n);
void kv_progress_end(struct kv_progress *p);

#endif
