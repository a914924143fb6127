// SPDX-License-Identifier: Apache-2.0
// For tests: a trace of the samples recorded from a small random model that is gone once it is
// written.
#ifndef KV_REPLAY_TEST_TINY_TRACE_H
#define KV_REPLAY_TEST_TINY_TRACE_H

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include "sim/model/test/model_files.h"
#include "sim/base/files.h"
#include "sim/base/hash.h"
#include "sim/base/talk.h"
#include "sim/replay/replay.h"
#include "traces/record.h"

// 2 layers, 4 heads sharing 2 KV heads of 32 channels.
static const struct kv_shape tiny_shape = {2, 4, 2, 32, 64, 96, N_TINY_PIECES, 1024};
static const struct kv_adjoint_info tiny_adjoint = {"inline", "coded", "choices", 32, 3};

static inline struct kv_model *tiny_model(void) {
    struct tiny_pieces pieces;
    struct kv_error e;
    struct kv_model *m = kv_model_random(&tiny_shape, KV_ORDER_HF, true, 11);
    make_tiny_pieces(&pieces);
    if (kv_tokenizer_new(&m->tokenizer, pieces.text, N_TINY_PIECES, tiny_merges, N_TINY_MERGES,
                         true, &e))
        exit(1);
    return m;
}

struct tiny_trace {
    char dir[64];
    struct kv_trace *trace;
    struct kv_format_setting setting;
};

// Records n items with what `keep` says. *model (may be NULL) gets the model, to be closed.
static inline int tiny_trace_open(struct tiny_trace *t, uint32_t keep, size_t n,
                                  struct kv_model **model) {
    struct kv_error e = {0};
    struct kv_tasks *tasks;
    struct kv_model *m = tiny_model();
    strcpy(t->dir, "/tmp/kvsim-tiny-XXXXXX");
    kv_set_verbosity(-1);
    struct kv_record_options o = {
        .dir = t->dir, .keep = keep, .n = n, .adjoint = tiny_adjoint, .seed = 1, .jobs = 1};
    int rc = mkdtemp(t->dir) ? kv_tasks_load(&tasks, "samples", &e) : -1;
    if (rc == 0) {
        rc = kv_record(m, tasks, &o, &e);
        kv_tasks_free(tasks);
    }
    if (rc == 0) rc = kv_trace_open(&t->trace, t->dir, &e);
    if (rc) fprintf(stderr, "%s: %s\n", e.where, e.msg);
    if (rc == 0) t->setting = kv_trace_setting(kv_trace_info(t->trace));
    if (model)
        *model = m;
    else
        kv_model_close(m);
    return rc;
}

static inline void tiny_remove(const char *dir) {
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));) {
        if (strcmp(f->d_name, ".") == 0 || strcmp(f->d_name, "..") == 0) continue;
        char *path = kv_format_text("%s/%s", dir, f->d_name);
        if (unlink(path)) tiny_remove(path);
        free(path);
    }
    if (d) closedir(d);
    rmdir(dir);
}

// Makes a closed trace look as one did before squared gradients were summed by channel: the tensor
// gets another name, shard and manifest are sealed anew.
static inline void tiny_forget_channels(const char *dir) {
    struct kv_error e;
    char *path = kv_format_text("%s/shard-00000.safetensors", dir),
         *list = kv_format_text("%s/manifest.json", dir), *shard, *manifest, old[17], new[17];
    size_t n, n_manifest;
    if (kv_read_file(path, &shard, &n, &e) || kv_read_file(list, &manifest, &n_manifest, &e))
        exit(1);
    char *at = (char *)memmem(shard, n, "channel.gradient", 16);
    kv_hex64(kv_hash(shard, n, 0), old);
    at[15] = 'x';
    kv_hex64(kv_hash(shard, n, 0), new);
    memcpy(memmem(manifest, n_manifest, old, 16), new, 16);
    at = (char *)memmem(manifest, n_manifest, "manifest_xxh64\": \"", 18) + 18;
    memset(at, '0', 16);
    kv_hex64(kv_hash(manifest, n_manifest, 0), new);
    memcpy(at, new, 16);
    if (kv_write_file(path, shard, n, &e) || kv_write_file(list, manifest, n_manifest, &e)) exit(1);
    free(shard);
    free(manifest);
    free(path);
    free(list);
}

static inline void tiny_trace_close(struct tiny_trace *t) {
    kv_trace_close(t->trace);
    tiny_remove(t->dir);
}

// What tests compare of an outcome; tiny_keep takes a replay's outcomes of one spec into an array,
// [items of the trace].
struct tiny_result {
    double kl_nats, logprob[8];
    struct kv_ledger ledger;
};

static inline int tiny_keep(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                            struct kv_error *e) {
    struct tiny_result *r = (struct tiny_result *)self + item;
    (void)spec, (void)e;
    if (o->n_choices < 1 || o->n_choices > 8) {
        fprintf(stderr, "item %zu has %u choices\n", item, o->n_choices);
        exit(1);
    }
    r->kl_nats = o->kl_nats;
    r->ledger = o->ledger;
    for (uint32_t c = 0; c < o->n_choices; c++) r->logprob[c] = o->choice[c].logprob;
    return 0;
}

// A spec opened for the trace; ends the program when it cannot be.
static inline struct kv_replay_spec tiny_spec(const struct tiny_trace *t, const char *text) {
    struct kv_replay_spec spec;
    struct kv_error e = {0};
    if (kv_replay_spec_open(&spec, text, &t->setting, 1, &e)) {
        fprintf(stderr, "%s: %s\n", e.where, e.msg);
        exit(1);
    }
    return spec;
}

#endif
