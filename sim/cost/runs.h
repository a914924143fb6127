// SPDX-License-Identifier: Apache-2.0
// Measured decode steps: what a device really took, at which context and mix of widths.
//
//     struct kv_runs *r;
//     if (kv_runs_open(&r, "runs.csv", &e)) ...      ours, llama-bench's JSON/JSONL/CSV, plain CSV
//     for (size_t i = 0; i < r->n; i++) printf("%u %s %.0f\n", r->row[i].context, ...);
//     kv_runs_free(r);
#ifndef KV_COST_RUNS_H
#define KV_COST_RUNS_H

#include "policies/policy.h"
#include "sim/cache/decode.h" // enum kv_part

#define KV_MIX_PARTS 16
#define KV_RUN_WIDTHS 18 // index = bits, 17 = float32, as in struct kv_ledger

// Which share of the tokens holds its keys and values at which widths.
struct kv_mix {
    size_t n;
    struct kv_mix_part {
        uint8_t bits[2]; // K, V
        double share;    // of the tokens; shares add up to 1
    } part[KV_MIX_PARTS];
};

// Reads "16", "k8v4" or "k4v2=0.5/8=0.25/16=0.25"; parts without a share divide what is left
// evenly. Widths 1..16 and 32 (float32). Errors: KV_EUSAGE with the text.
KV_MUST_CHECK int kv_mix_parse(struct kv_mix *mix, const char *text, struct kv_error *e);
void kv_mix_text(const struct kv_mix *mix, char *out, size_t room); // the spelling that parses back
// Shares of the cached values by width, K and V apart, as a ledger holds them.
void kv_mix_shares(const struct kv_mix *mix, double share[2][KV_RUN_WIDTHS]);
// Nominal bits a cached value, K and V averaged.
double kv_mix_bits(const struct kv_mix *mix);
// Allocated bits a cached value when every vector of head_dim below 16 bits has an fp16 scale.
double kv_mix_allocated_bits(const struct kv_mix *mix, uint32_t head_dim);

extern const char *const kv_part_names[]; // "weights", "attend", ..., NULL

struct kv_device_run {
    struct kv_mix mix;
    uint32_t context, threads;
    char weights[16];                // "f32", "bf16", "q8", "q4", ...
    char shape_name[16];             // "135m" or ""
    struct kv_shape shape;           // zeros when the file does not tell
    bool synthetic;                  // weights of the true shape with seeded values
    double step_ns, low_ns, high_ns; // median and quartiles over the steps
    double part_ns[KV_N_PARTS];      // medians; NAN = not measured
    double cache_bytes;              // allocated at this context; NAN = not told
    double round_tokens;             // that the device attends to at once; NAN = not told
    uint32_t samples;
    uint32_t disturbed; // samples during which the system took a core away; dropped when enough
                        // others are left
};

struct kv_runs {
    char *machine, *engine, *compiler, *date, *command; // never NULL; "" = unknown
    double clock_mhz;                                   // while measuring; NAN = unknown
    double bandwidth_bytes_per_ns; // streaming read with the rows' threads; NAN = not measured
    double launch_ns;              // an empty kernel or parallel region; NAN = not measured
    size_t n;
    struct kv_device_run *row;
};

// Reads a file of runs, whatever its kind: this tool's JSON or CSV, llama-bench's JSON, JSONL or
// CSV (generation rows; n_depth is the context), or a plain CSV with the columns sim/cost/README.md
// names. Errors name the file, the row and the column.
KV_MUST_CHECK int kv_runs_open(struct kv_runs **runs, const char *path, struct kv_error *e);
void kv_runs_free(struct kv_runs *runs);
struct kv_runs *kv_runs_new(void);
struct kv_device_run *
kv_runs_add(struct kv_runs *runs); // zeroed, parts NAN; borrowed until next add

// The whole file as text; the caller frees.
char *kv_runs_csv(const struct kv_runs *runs);
char *kv_runs_json(const struct kv_runs *runs);

#endif
