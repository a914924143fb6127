// SPDX-License-Identifier: Apache-2.0
#include "sim/replay/reads.h"

#include "sim/quant/code.h"
#include "sim/replay/closed.h"

bool kv_lay_out_reads(const struct kv_replay *r, const struct kv_replay_spec *spec,
                      const struct kv_tree *t, uint32_t *upto) {
    bool exact = false, closed = r->closed && kv_reads_run(spec);
    size_t newest = closed ? (size_t)spec->delay_tokens + 1 : r->self_exact;
    for (uint32_t row = 0; row < t->n_tokens; row++) {
        uint32_t position = kv_tree_position(t, row);
        for (int side = 0; side < 2; side++) {
            upto[2 * row + (uint32_t)side] =
                (uint32_t)kv_coded_upto(spec->format, (enum kv_side)side,
                                        row < t->n_context ? 0 : t->n_context, position, newest);
            exact |= upto[2 * row + (uint32_t)side] <= position;
        }
    }
    return exact;
}

double kv_codes_entropy_bits(const uint64_t *histogram, size_t n_widths) {
    double codes = 0, bits = 0;
    for (size_t w = 0; w < n_widths; w++) {
        double n = 0;
        for (int i = 0; i < 256; i++) n += (double)histogram[256 * w + (size_t)i];
        if (n > 0) bits += n * kv_entropy_bits(histogram + 256 * w);
        codes += n;
    }
    return codes > 0 ? bits / codes : NAN;
}

uint32_t kv_prompt_rows(enum kv_mode mode, const struct kv_trace_item *it) {
    return mode == KV_INLINE ? 0 : mode == KV_PREFILL1 ? it->n_context : it->n_context - 1;
}
