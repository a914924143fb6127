// SPDX-License-Identifier: Apache-2.0
// Measured decode steps: what a device really took, at which context and mix of widths.
//
//     struct kv_runs *r;
//     if (kv_runs_open(&r, "runs.csv", &e)) ...      ours, llama-bench's JSON/JSONL/CSV, plain CSV
//     for (size_t i = 0; i < r->n; i++) printf("%u %s %.0f\n", r->row[i].context, ...);
//     kv_runs_free(r);
#ifndef KV_COST_RUNS_H
#define KV_COST_RUNS_H

#include "sim/cache/part.h"
#include "sim/cost/mix.h"
#include "sim/cost/sliding.h"

KV_BEGIN_DECLS

extern const char *const kv_part_names[]; // "weights", "attend", ..., NULL

struct kv_device_run {
    struct kv_mix mix;
    uint32_t context, threads;
    char weights[32];      // "f32", "bf16", "q4", "Q4_K_M", ...
    char shape_name[16];   // "135m" or ""
    struct kv_shape shape; // zeros when the file does not tell
    struct kv_sliding sliding;
    char model[48];      // as the file calls it, "" = it does not
    double n_parameters; // of the model; NAN = not told
    unsigned setting;    // number of what the file says of how it was run (settings.c); 0 = nothing
    bool synthetic;      // weights of the true shape with seeded values
    double step_ns, low_ns, high_ns; // median and quartiles over the steps
    double part_ns[KV_N_PARTS];      // medians; NAN = not measured
    double controller_ns; // of a mix by cell: what the controller took, which step_ns is without;
                          // NAN = not told apart
    double cache_bytes;   // allocated at this context; NAN = not told
    double round_tokens;  // that the device attends to at once; NAN = not told
    uint32_t samples;
    uint32_t disturbed; // samples during which the system took a core away; dropped when enough
                        // others are left
};

struct json_t; // jansson's

struct kv_runs {
    char *machine, *engine, *compiler, *date, *command; // never NULL; "" = unknown
    double clock_mhz;                                   // while measuring; NAN = unknown
    double bandwidth_bytes_per_ns; // streaming read with the rows' threads; NAN = not measured
    double launch_ns;              // an empty kernel or parallel region; NAN = not measured
    size_t n_settings;
    struct json_t **setting; // what each number of a setting means: fields and texts
    size_t n;
    struct kv_device_run *row;
};

// Reads a file of runs, whatever its kind: this tool's JSON or CSV, llama-bench's JSON, JSONL, CSV
// or Markdown (generation rows; n_depth is the context), talk before and after it included, or a
// plain CSV with the columns sim/cost/README.md names. Errors name the file, the row and the
// column.
KV_MUST_CHECK int kv_runs_open(struct kv_runs **runs, const char *path, struct kv_error *e);
void kv_runs_free(struct kv_runs *runs);
struct kv_runs *kv_runs_new(void);
struct kv_device_run *
kv_runs_add(struct kv_runs *runs); // zeroed, parts NAN; borrowed until next add

// The whole file as text; the caller frees.
char *kv_runs_csv(const struct kv_runs *runs);
char *kv_runs_json(const struct kv_runs *runs);
// Writes both: NAME, NAME.json or NAME.csv names NAME.json and NAME.csv.
KV_MUST_CHECK int kv_runs_write(const struct kv_runs *runs, const char *name, struct kv_error *e);

// Which runs are meant.
struct kv_runs_choice {
    const struct kv_shape *shape; // NULL = any
    const char *shape_name;       // given with the shape to runs that tell none
    const char *weights;          // NULL = any
    long threads;                 // negative = any
    const char *const *where;     // "field=value" texts that must hold of how it was run
    size_t n_where;
};
// Keeps those of a choice, in their order. Errors: KV_EFAIL when none is, when no run tells a field
// that is asked for, or when the shape given is not that of the runs' own number of parameters.
KV_MUST_CHECK int kv_runs_choose(struct kv_runs *runs, const struct kv_runs_choice *choice,
                                 struct kv_error *e);

// Runs of one fit were run in one way: KV_EFAIL names the fields that differ, their values, and the
// option that chooses.
KV_MUST_CHECK int kv_runs_check_one_way(const struct kv_runs *runs, struct kv_error *e);

// The machine that a run was measured on, as its row names it or else its file; "" = unknown.
const char *kv_run_machine(const struct kv_runs *runs, const struct kv_device_run *run);

// A policy's own cost is no part of a step. Adds it to the steps of runs [first, n), but for
// those of a mix by cell, which their own controller decides.
void kv_runs_add_policy(struct kv_runs *runs, size_t first, double ns);
// Takes what was measured of a policy off all steps; of a mix by cell it is noted as
// controller_ns. Returns the most that came off another, in ns.
double kv_runs_take_policy(struct kv_runs *runs);

KV_END_DECLS

#endif
