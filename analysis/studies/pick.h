// SPDX-License-Identifier: Apache-2.0
// Picking: of the policies that a store holds exact replays of, the fastest or smallest one that
// surely keeps a bound, what stands next, and what is not known of it.
//
//     struct kv_pick_options o = kv_pick_defaults();
//     struct kv_picks p;
//     o.db = "kvsim.db", o.context = 4096, o.kl_most = 0.05;
//     int rc = kv_pick_run(&p, &o, &e);
//     for (size_t g = 0; rc == 0 && g < p.n; g++) puts(p.at[g].sentence);
//     kv_pick_fini(&p);
#ifndef KV_ANALYSIS_STUDIES_PICK_H
#define KV_ANALYSIS_STUDIES_PICK_H

#include "analysis/results/rows.h"

struct kv_pick_options {
    size_t struct_bytes; // as kv_pick_defaults sets it
    const char *db;      // the store's file
    const char *device;  // name or file; NULL = the default one
    double context;      // tokens at which bytes and time are meant
    // Bounds, NAN = none: mean divergence in nats a scored token, accuracy (0..1), bytes of the
    // whole cache at the context. The first two hold where the interval's end on the wrong side
    // keeps them too.
    double kl_most, acc_least, bytes_most;
    double confidence;   // of those intervals, above 0 and below 1
    bool together;       // for all policies of a group at once (Bonferroni), not for each alone
    bool smallest;       // by bytes, then time; otherwise by time, then bytes
    const char *runtime; // only what this one serves as it is (sim/runtimes); NULL = all
    const char *trace;   // start of the digest of the only recording that counts; NULL = all
    unsigned modes;      // bits 1 << enum kv_mode; 0 = all
};
// No bounds, at 2048 tokens with confidence 0.95, the fastest; db is the caller's to set.
struct kv_pick_options kv_pick_defaults(void);
// Says what is wrong with options before anything is opened: KV_EUSAGE; `where` is the field.
KV_MUST_CHECK int kv_pick_check(const struct kv_pick_options *o, struct kv_error *e);
// Reads "kl=0.05", and a size in bytes: "40000000", "40M", "1.5G" (powers of 1000; k, M, G, T).
// NULL leaves no bound. Errors: KV_EUSAGE.
KV_MUST_CHECK int kv_pick_read_max(struct kv_pick_options *o, const char *text, struct kv_error *e);
KV_MUST_CHECK int kv_pick_read_bytes(struct kv_pick_options *o, const char *text,
                                     struct kv_error *e);

// One policy at the context.
struct kv_pick_row {
    const struct kv_row *row;
    struct kv_mean kl;      // nats a scored token, at the confidence asked for
    size_t positions;       // that kl is of, in the bucket of the context (depths.h); 0: of all
    struct kv_interval acc; // Wilson's, at that confidence
    double bytes, ms;       // of the cache, and a token
    bool keeps;             // every bound
    double worst;           // how far it misses the bound that it misses most, as a factor; 0 = it
                            // keeps all, INFINITY = nothing is known of it
    const char *misses;     // that bound: "kl", "acc" or "bytes"; NULL = none
};

// The policies of one recording and setting (kv_rows_alike), best first: those that keep all bounds
// by what they cost, then the others by how far they miss. Policies that read the future do not
// compete; one that is not finite on some item keeps no bound.
struct kv_pick {
    struct kv_pick_row *row;
    size_t n, n_keeping;
    double bytes16, ms16; // of a 16-bit cache; ms16 NAN where the device has another shape
    char *title;          // the recording and the setting
    char *sentence;       // the answer
};

struct kv_picks {
    struct kv_pick *at;
    size_t n, n_answered; // groups, and those in which some policy keeps all bounds
    struct kv_rows rows;
};

// Runs it. Free with kv_pick_fini, whatever is returned. Errors: those of kv_pick_check, of
// kv_rows_open and kv_runtime_find; a store without exact replays of that recording and mode, or
// that the runtime serves.
KV_MUST_CHECK int kv_pick_run(struct kv_picks *p, const struct kv_pick_options *o,
                              struct kv_error *e);
void kv_pick_fini(struct kv_picks *p);

#endif
