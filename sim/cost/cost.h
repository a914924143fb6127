// SPDX-License-Identifier: Apache-2.0
// The latency model: what a decode step costs on a device, given the context and the mix of widths.
//
//   ns/token = base + T (a_heads + sum over widths w of n_Kw cK_w + n_Vw cV_w) + append + policy
//            + (widths - 1) class + ceil(T / R) round + (min(ceil(T / R), widths) - 1) switch
//
// A value of a cache whose tokens differ in width costs mixed_ns more. Where each cell has a width
// for itself, a further width costs cell_class instead of class, and what decides them
// controller_ns a step.
//
// T: context in tokens; n_Kw, n_Vw: K and V values a token stores at width w; c: ns a value. The
// part of the cache beyond knee_bytes costs knee_factor times that; its first hidden_bytes cost
// nothing. A device that attends to R tokens at once takes whole rounds, and each of its processors
// meets at most one more width a round. Widths that a device cannot
// address round up to its next port. Every device carries the runs it was fitted to and where it
// was measured.
#ifndef KV_COST_COST_H
#define KV_COST_COST_H

#include "policies/policy.h"
#include "sim/base/cache_types.h"
#include "sim/base/outcome.h"
#include "sim/cost/sliding.h"

KV_BEGIN_DECLS

struct kv_device_run; // runs.h

struct kv_device {
    char *name, *summary;
    char *machine, *date, *engine, *provenance; // where, when, with what it was measured
    char *weights;                              // "f32", "q4_1", ...
    uint32_t threads;
    struct kv_shape shape;     // of the model it was measured with
    struct kv_sliding sliding; // of its layers
    double base_ns;            // a step at empty cache
    double attend_ns;          // a_heads: per context token, whatever the width (all layers)
    double c_ns[2]
               [KV_COST_BINS]; // K, V: ns a value, by width and by cache type; NAN = not measured
    double append_ns;          // coding and storing the new token
    double class_ns;           // each width in use beyond the first, whatever its tokens
    double mixed_ns;           // a value of a cache whose tokens differ in width, beyond its
                               // width's cost; NAN = not measured
    double cell_class_ns; // where widths are by cell, each in use beyond the first; NAN = class_ns
    double controller_ns; // what deciding by cell takes a step; NAN = not measured
    double round_ns, round_tokens;     // a round, and the tokens it takes; 0 tokens = no rounds
    double switch_ns;                  // each width beyond the first that a processor meets
    double bandwidth_bytes_per_ns;     // memory bandwidth measured apart
    double knee_bytes, knee_factor;    // INFINITY, 1 = none
    double hidden_bytes;               // of the cache, read while something else is waited for
    uint32_t context_min, context_max; // measured range: beyond it a prediction is extrapolated
    double error_median,
        error_worst;           // relative, of the step, on contexts left out; NAN = not judged
    double share_error_median; // relative, of the cache's share of a step, where it exceeds 10 %
    double share_error_mix_median; // the same on mixes left out
    double sign_right; // of clear speed-ups over 16 bit, the share predicted as such; as above
    size_t n_ports;
    uint8_t ports[KV_WIDTH_BINS]; // widths the hardware can address, ascending; 0 entries = all
    size_t n_intervals;           // 95 % intervals of the fitted parameters
    struct kv_device_interval {
        char name[40]; // "base_ns", "key_ns 4", ...
        double low, high;
    } * intervals;
    char *runs_meta; // of the runs below: engine, compiler, command, as one line
    size_t n_runs;
    struct kv_device_run *runs;
};

struct kv_latency {
    double step_ns;     // a token at this context
    double cache_ns;    // the part that grows with the context
    double ceiling_ns;  // the same step with a cache of zero bits and a policy that costs nothing
    double cache_bytes; // allocated bytes of the whole cache at this context
    bool extrapolated;  // outside the measured contexts, a width without a measured cost, by_width,
                        // or widths by cell on a device where those were not measured
    bool by_width;      // some of it is priced by its width because its own type was not measured
};

// Reads a device file (JSON; sim/cost/README.md is its specification) or, by name, a shipped one.
KV_MUST_CHECK int kv_device_open(struct kv_device **d, const char *name_or_path,
                                 struct kv_error *e);
void kv_device_free(struct kv_device *d);
// Names of the shipped devices; NULL past the end.
const char *kv_device_name_at(size_t i);
// The one that commands take when none is named: of the CPU devices (threads above 0) of the
// smallest model, the one with the least error of the cache's share; NULL when none is shipped.
const char *kv_device_default_name(void);

// The file's text, which kv_device_open reads back; the caller frees.
char *kv_device_text(const struct kv_device *d);
// A device without costs, all texts "", no knee, nothing measured (NAN).
struct kv_device *kv_device_new(void);

// Cost of the values that term NAME ("key_ns 4", "value_ns q4_0") stands for; NULL = no such cost.
double *kv_device_cost(struct kv_device *d, const char *name);

// Price of a decode step at `context` tokens for a cache with this ledger's shares and bytes.
// `policy_ns` is the policy's own cost a token (0 when unknown).
struct kv_latency kv_device_step(const struct kv_device *d, const struct kv_ledger *ledger,
                                 double context, double policy_ns);

// How far the device's predictions were off on contexts left out, for beside its milliseconds:
// "the latency model errs by 1.6 %, at worst 6.2 %", or that it was not judged. The same buffer
// each call of a thread.
const char *kv_device_error_text(const struct kv_device *d);

// Context from which `ledger` with its policy_ns is faster than `reference` without: 0 = at once,
// INFINITY = never.
double kv_device_break_even(const struct kv_device *d, const struct kv_ledger *ledger,
                            const struct kv_ledger *reference, double policy_ns);

KV_END_DECLS

#endif
