// SPDX-License-Identifier: Apache-2.0
// Where bits matter: recorded sensitivities and predicted damage by layer and head, position, class
// of token, distance to the prompt's end, and segment.
//
//     struct kv_atlas a;
//     if (kv_atlas_open(&a, trace, &(struct kv_atlas_options){"asym:group=32", 4, jobs}, &e) == 0)
//         ... a.bin[KV_ATLAS_CLASS][KV_DIGIT].damage[KV_KEY] / a.scored ...
//     kv_atlas_close(&a);
#ifndef KV_ANALYSIS_STUDIES_ATLAS_H
#define KV_ANALYSIS_STUDIES_ATLAS_H

#include "traces/trace.h"

// Axes along which tokens, or cells for the first, fall into bins.
enum kv_atlas_axis {
    KV_ATLAS_HEAD,     // [n_layers][n_kv_heads]
    KV_ATLAS_POSITION, // in the sequence, bins wider as they grow
    KV_ATLAS_CLASS,    // enum kv_token_kind, then the rarest tenth of word starts once more
    KV_ATLAS_DISTANCE, // of context tokens to the context's last
    KV_ATLAS_SEGMENT,  // context, choices
    KV_N_ATLAS_AXES
};
extern const char *const kv_atlas_axes[]; // "head", "position", ..., NULL

// What adds up in one bin, K and V apart.
struct kv_atlas_bin {
    double tokens;         // a choice's tokens count as they are; a head's cells half a token
    double sensitivity[2]; // sum of |g|^2 over tokens, layers and heads
    double damage[2];      // nats, form iso
};

struct kv_atlas_options {
    const char *format; // whose damage is told
    uint32_t bits;      // at this width of it
    unsigned jobs;      // threads
};

struct kv_atlas {
    const struct kv_trace *trace; // borrowed
    struct kv_atlas_options options;
    size_t n_layers, n_heads;
    double scored; // scored positions
    double rare;   // rarity above which a word is rare
    size_t n[KV_N_ATLAS_AXES];
    struct kv_atlas_bin *bin[KV_N_ATLAS_AXES];
    struct kv_atlas_bin all;
};

// Adds up the whole trace. Errors: KV_EFAIL for a trace without sensitivities, KV_EUSAGE for a
// width that the format does not offer; those of kv_format_open and kv_cell_table_open.
KV_MUST_CHECK int kv_atlas_open(struct kv_atlas *a, const struct kv_trace *trace,
                                const struct kv_atlas_options *o, struct kv_error *e);
void kv_atlas_close(struct kv_atlas *a);

// What a bin holds: "layer 3 head 0", "24-31", "digit", "choices".
enum { KV_ATLAS_PLACE_BYTES = 64 };
void kv_atlas_place(const struct kv_atlas *a, enum kv_atlas_axis axis, size_t bin,
                    char place[KV_ATLAS_PLACE_BYTES]);

// A bin that holds tokens, in the units of tables.
struct kv_atlas_row {
    const char *axis;
    char place[KV_ATLAS_PLACE_BYTES];
    double tokens;
    double sensitivity[2]; // mean over the bin's cells
    double damage[2];      // nats a scored position
    double damage_pct;     // of all damage
    double damage_a_token; // 1 = the mean of all tokens
};
// Rows of one axis, or of all (KV_N_ATLAS_AXES), in the order of axes. Caller frees.
struct kv_atlas_row *kv_atlas_rows(const struct kv_atlas *a, enum kv_atlas_axis axis, size_t *n);

#endif
