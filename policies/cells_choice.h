// SPDX-License-Identifier: Apache-2.0
// The choice of policy cells: for each cell of a row the width that costs least, damage and bits
// together.
#ifndef KV_POLICIES_CELLS_CHOICE_H
#define KV_POLICIES_CELLS_CHOICE_H

#include "policies/policy.h"

enum kv_cells_shares { KV_CHOICE_CELL, KV_CHOICE_KV, KV_CHOICE_LAYER };
enum kv_cells_error {
    KV_CELLS_TRIAL,  // coded at each width
    KV_CELLS_SCALED, // coded at one width near 4 bits; others by the square of their step
    KV_CELLS_RANGE   // not coded: a twelfth of the squared step that a group's range takes
};
enum { KV_CELLS_ROW = 256 }; // cells of a row: K and V of up to 128 KV heads

struct kv_cells_choice {
    enum kv_cells_shares grain;
    enum kv_cells_error error;
    size_t head_dim, offered;           // widths of the format
    size_t n_widths;                    // to choose from
    uint8_t width[KV_MAX_WIDTHS];       // [n_widths] index among the format's
    double cell_bits[2][KV_MAX_WIDTHS]; // [n_widths] allocated bits of a key's and a value's cell
    uint8_t tried;                      // KV_CELLS_SCALED: index of the width that is coded
    double ratio[KV_MAX_WIDTHS];        // [n_widths] of the error to what was measured
    size_t group;                       // values that share a scale
    bool symmetric;                     // their grid lies around 0
};

// One row of one layer, cells in the order of decisions.
struct kv_cells_row {
    size_t n;
    float half_s[KV_CELLS_ROW]; // 0.5 s
    const float *error;         // [n][offered] as struct kv_layer_rows has it
    double step2[KV_CELLS_ROW]; // KV_CELLS_RANGE: over 12, sum over groups of range^2 sum m
    uint8_t pick[KV_CELLS_ROW]; // by n_widths
};

// Adds a width of the run's format; refuses one that is not offered or does not rise.
KV_MUST_CHECK int kv_cells_choice_add(struct kv_cells_choice *c, const struct kv_run *run,
                                      double bits, struct kv_error *e);
// Sets what errors that are not tried at each width follow from. Errors: KV_CELLS_RANGE with a
// format whose steps it does not know (asym, sym).
KV_MUST_CHECK int kv_cells_choice_scale(struct kv_cells_choice *c, const struct kv_run *run,
                                        struct kv_error *e);
// The width next to 4 bits, by n_widths; and bits a value of a width, K and V alike in weight.
size_t kv_cells_choice_middle(const struct kv_cells_choice *c, const struct kv_run *run);
double kv_cells_choice_bits(const struct kv_cells_choice *c, size_t width);

// Ranges of a row's cells; channel: [n][head_dim] m of the layer.
void kv_cells_choice_ranges(const struct kv_cells_choice *c, const float *k, const float *v,
                            const float *channel, struct kv_cells_row *r);
// Picks at a lambda; returns the bits a value that they take. Ties go to the narrower.
double kv_cells_choose(const struct kv_cells_choice *c, struct kv_cells_row *r, double lambda);
// The same at the least lambda, from this one up, at which the row takes at most so many.
double kv_cells_choose_at_most(const struct kv_cells_choice *c, struct kv_cells_row *r,
                               double lambda, double most);

#endif
