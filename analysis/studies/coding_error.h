// SPDX-License-Identifier: Apache-2.0
// Errors of formats on vectors: where the vectors come from, what is measured, how it is drawn.
#ifndef KV_ANALYSIS_STUDIES_CODING_ERROR_H
#define KV_ANALYSIS_STUDIES_CODING_ERROR_H

#include "traces/trace.h"

// Recorded K and V, or seeded Gaussian vectors where trace is NULL.
struct kv_quant_source {
    const struct kv_trace *trace;
    struct kv_format_setting setting;
    uint64_t seed;
    size_t n_items;
    char title[200]; // for figures: what the vectors are
};

// Sums over the coded values of one layer, K or V.
struct kv_quant_sums {
    double values, error2, power, largest; // count, sum e^2, sum x^2, max |e|
    double cosine, vectors;                // sum over heads' vectors that are not zero, their count
    uint64_t histogram[256];
};

// What a format does to K or V at one width.
struct kv_quant_row {
    const char *spec; // borrowed
    enum kv_side side;
    uint32_t bits;
    double effective_bits, allocated_bits;
    double rmse, relative, largest, cosine, entropy_bits, values;
    uint32_t worst_layer;
    double worst_relative;
    double *layers; // [n_layers] relative error
};

// Measures the format at width index `width`, layer by layer on `jobs` threads. Values that the
// format keeps exact (sinks, an open group) are left out. row->layers: caller frees.
KV_MUST_CHECK int kv_quant_measure(struct kv_quant_row *row, const struct kv_quant_source *source,
                                   const struct kv_format *f, enum kv_side side, uint32_t width,
                                   unsigned jobs, struct kv_error *e);

// DIR/quant_error.{tsv,gp,svg,png}: relative error against effective bits, K above V.
KV_MUST_CHECK int kv_quant_draw(const struct kv_quant_row *rows, size_t n,
                                const struct kv_quant_source *source, const char *dir,
                                struct kv_error *e);

#endif
