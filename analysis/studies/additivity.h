// SPDX-License-Identifier: Apache-2.0
// Is the damage of many coarse parts the sum of each part's own? Exact replay of single parts and
// of random joint ones, beside their sums and predictions.
//
//     struct kv_additivity a;
//     if (kv_additivity_run(&a, trace, model, &options, &e) == 0)
//         ... a.at[i].exact beside a.at[i].singles ...
//     kv_additivity_fini(&a);
#ifndef KV_ANALYSIS_STUDIES_ADDITIVITY_H
#define KV_ANALYSIS_STUDIES_ADDITIVITY_H

#include "sim/model/model.h"
#include "traces/range.h"
#include "traces/trace.h"

// The parts into which the cache is cut: those flipped are stored coarsely, the others at 16 bits.
// A range of positions is an equal share of the prompt, the last one the choices.
enum kv_flip_unit {
    KV_FLIP_LAYER,
    KV_FLIP_KEYS,
    KV_FLIP_VALUES,
    KV_FLIP_POSITION,
    KV_N_FLIP_UNITS
};
extern const char *const kv_flip_units[]; // "layer", "keys", "values", "position", NULL

enum { KV_FLIP_MAX_PARTS = 64 };

// A set of parts flipped together.
struct kv_flip {
    enum kv_flip_unit unit;
    unsigned bits;
    size_t n_flipped, n_parts;
    bool part[KV_FLIP_MAX_PARTS];
    double exact, predicted; // nats, summed over items
    double singles;          // exact nats of its parts, each flipped alone, summed
    double scored;           // positions
};

struct kv_additivity_options {
    const char *format; // of flipped parts
    const enum kv_flip_unit *units;
    size_t n_units;
    const uint32_t *bits; // widths that parts are flipped to
    size_t n_bits;
    size_t sets;                // random ones of each size
    struct kv_item_range items; // that are replayed; none = all
    unsigned jobs;              // threads
    uint64_t seed;
};

struct kv_additivity {
    char *format;
    size_t n_items;
    struct kv_flip *at; // by unit, width and size
    size_t n;
};

// Flips every single part, then random sets of 2, 4, 8, ... parts, then all. Errors: KV_EFAIL for a
// model of more than KV_FLIP_MAX_PARTS layers; those of specs, of kv_replay_fisher and
// kv_replay_exact.
KV_MUST_CHECK int kv_additivity_run(struct kv_additivity *a, const struct kv_trace *trace,
                                    const struct kv_model *model,
                                    const struct kv_additivity_options *o, struct kv_error *e);
void kv_additivity_fini(struct kv_additivity *a);

// Sets of one unit, width and size: means over sets, nats a scored token.
struct kv_flip_row {
    enum kv_flip_unit unit;
    unsigned bits;
    size_t n_flipped, n_parts, n_sets;
    double exact, singles, predicted;
    double exact_to_sum, predicted_to_exact; // ratios of these means
    double ratio_low, ratio_high;            // least and greatest exact / singles of a set
};
struct kv_flip_row *kv_flip_rows(const struct kv_additivity *a, size_t *n); // caller frees

#endif
