// SPDX-License-Identifier: Apache-2.0
// Runtimes and the cache precision that they can be told: what each serves, how a plan is snapped
// to that, and the text by which it is told.
//
//     struct kv_cache_plan plan;                                     which cell holds how many bits
//     struct kv_served served;                                 what the runtime makes of it
//     kv_cache_plan_of_spec(&plan, "layerwise:k=8/4,v=4@asym", &setting, &e);
//     kv_snap(&served, kv_runtime_named("llama.cpp"), &plan, &e);
//     kv_served_write(&served, &text, &e);                     "llama-server -m MODEL -ctk q8_0
//     ..." kv_served_spec(&served, &setting, &spec, &e);            what kvsim replays it as
//     kv_runtime_read(&served, runtime, text, "file", &shape, &e);              and back
//
// A runtime is a row of runtimes.c: its offers, each a way of coding that it has, with widths and
// how finely they may differ; a writer and a reader.
#ifndef KV_RUNTIMES_RUNTIMES_H
#define KV_RUNTIMES_RUNTIMES_H

#include "sim/base/memory.h"
#include "sim/quant/format.h"

// What may have a width of its own.
enum kv_grain {
    KV_GRAIN_MODEL,   // the whole cache
    KV_GRAIN_RUNS,    // its first layers, its last ones, and those between
    KV_GRAIN_CLASSES, // layers, but there is one width beside 16 bit
    KV_GRAIN_LAYER,
    KV_GRAIN_HEAD
};

// A way of coding that a runtime has.
struct kv_offer {
    const char *name;   // as the runtime calls it, where it has one name
    const char *format; // kvsim's; "{group}" and "{window}" stand for what the user may choose
    const char *like;   // formats that it stands in for, each between blanks: " sym nf4 "
    uint32_t widths;    // bit b: b bits; bit 16: as the model computes
    enum kv_grain grain;
    bool apart;            // keys and values may differ
    uint32_t rotates;      // it exists for heads of a multiple of this; 0 = all
    uint32_t edge;         // so many first and last layers stay at 16 bit whatever is asked
    const uint32_t *group; // values that share a scale, ascending, ends with 0; NULL = no choice
    const char *differs;   // from what kvsim replays; NULL = nowhere
};

struct kv_served;
struct kv_runtime {
    const char *name, *file, *about; // "llama.cpp", "a command line", what it serves at all
    const struct kv_offer *offers;
    size_t n_offers;
    int (*write)(const struct kv_served *s, struct kv_text *t, struct kv_error *e);
    // Fills what text says; names layers beyond shape, or none known: refused.
    int (*read)(struct kv_served *s, const char *text, const char *path, struct kv_error *e);
    bool (*is)(const char *text);                     // whether a text looks like its own
    const char *(*remark)(const struct kv_served *s); // of this plan; NULL = nothing to say
    // Of offers that code these widths alike the one that its reader finds; NULL = they all differ.
    const struct kv_offer *(*plain)(const struct kv_served *s);
    bool scales; // a checkpoint may hold one for the keys and one for the values of a layer of e4m3
};

// ---- plans (cache_plan.c) -------------------------------------------------------------------

// Bits of each cell of a token, the same for all tokens, or their mean over tokens.
struct kv_cache_plan {
    struct kv_format_setting setting; // of the model: layers, KV heads, head size, channel order
    double *bits;                     // [n_layers][n_kv_heads][2] K, V; 16 = as stored
    char *format;                     // canonical; "" = none
    double allocated_bits;            // mean over the cells, a value
};
// Asks a spec whose widths depend on nothing but layer, head and side. Errors: those of
// kv_replay_spec_open; KV_EUSAGE for a policy that tells tokens apart, or evicts them.
KV_MUST_CHECK int kv_cache_plan_of_spec(struct kv_cache_plan *p, const char *spec,
                                        const struct kv_format_setting *s, struct kv_error *e);
// The mean over the tokens of a trace's items [first, first + n) of what any policy answers there,
// prepared as for a replay. Errors: those of kv_replay_open_tables and kv_decide.
struct kv_trace;
KV_MUST_CHECK int kv_cache_plan_of_items(struct kv_cache_plan *p, const char *spec,
                                         const struct kv_trace *t, size_t first, size_t n,
                                         unsigned jobs, struct kv_error *e);
void kv_cache_plan_fini(struct kv_cache_plan *p);

// ---- what a runtime makes of it (snap.c) ----------------------------------------------

struct kv_served {
    const struct kv_runtime *runtime;
    const struct kv_offer *offer; // NULL = nothing is coded: the 16-bit cache
    uint32_t n_layers, n_heads;   // of bits; 1 and 1 where all cells are alike
    uint32_t head_dim;            // 0 = not known
    uint32_t model_layers;        // of the model; 0 = not known
    uint8_t *bits;                // [n_layers][n_heads][2]
    uint32_t group, window;       // group 0 = the head
    size_t n_changed;             // layers that hold other bits than the plan
    bool changed, narrowed;       // anything at all; some cell has fewer bits
};
// The runtime's plan that is nearest: of the same format if it has one with widths as wide as the
// plan's, else of one like it; then of the fewest bits. A grain that is coarser than the plan's
// takes the narrowest width of no fewer bits than the mean of what it covers; runs of layers take,
// within the plan's own bits, the least sum over cells of 4^-bits, as the squared error of a
// uniform grid falls. Errors: KV_EFAIL when no offer fits the model's heads.
KV_MUST_CHECK int kv_snap(struct kv_served *s, const struct kv_runtime *r,
                          const struct kv_cache_plan *p, struct kv_error *e);
void kv_served_fini(struct kv_served *s);
// The spec that replays it; setting NULL leaves it as it is written, else it is canonical. Caller
// frees.
KV_MUST_CHECK int kv_served_spec(const struct kv_served *s, const struct kv_format_setting *setting,
                                 char **spec, struct kv_error *e);
// Whether a runtime serves a spec as it is: nothing is snapped. A spec that is none is not served.
bool kv_runtime_serves(const struct kv_runtime *r, const char *spec,
                       const struct kv_format_setting *s);

// ---- the table (runtimes.c) -----------------------------------------------------------

const struct kv_runtime *kv_runtime_at(size_t i); // NULL past the end
// KV_EUSAGE names the nearest, or all.
KV_MUST_CHECK int kv_runtime_find(const struct kv_runtime **r, const char *name,
                                  struct kv_error *e);
// Reads a plan; runtime NULL = the one that the text looks like. shape: of the model, as far as it
// is known (zeros). Errors: KV_EFAIL with file, place and what was expected.
KV_MUST_CHECK int kv_runtime_read(struct kv_served *s, const struct kv_runtime *r, const char *text,
                                  const char *path, const struct kv_shape *shape,
                                  struct kv_error *e);

#endif
