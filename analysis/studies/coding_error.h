// SPDX-License-Identifier: Apache-2.0
// Errors of formats on vectors: where the vectors come from and what is measured.
//
//     struct kv_quant_source source = kv_quant_gaussian(1);
//     struct kv_quant_options o = {.specs = specs, .n_specs = 2, .jobs = 4};
//     struct kv_quant_row *rows;
//     if (kv_quant_compare(&rows, &n, &source, &o, &e) == 0) ... rows[0].relative ...
//     kv_quant_rows_free(rows, n);
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
// Vectors of 64, layers and heads enough to see a spread. The trace is borrowed; KV_EFAIL when it
// keeps no keys and values.
struct kv_quant_source kv_quant_gaussian(uint64_t seed);
KV_MUST_CHECK int kv_quant_recorded(struct kv_quant_source *source, const struct kv_trace *trace,
                                    uint64_t seed, struct kv_error *e);

// Sums over the coded values of one layer, K or V.
struct kv_quant_sums {
    double values, error2, power, largest; // count, sum e^2, sum x^2, max |e|
    double cosine, vectors;                // sum over heads' vectors that are not zero, their count
    uint64_t histogram[256];
};

// What a format does to K or V at one width.
struct kv_quant_row {
    char *spec; // of the format, as asked for
    enum kv_side side;
    uint32_t bits;
    double effective_bits, allocated_bits;
    double rmse, relative, largest, cosine, entropy_bits, values;
    uint32_t worst_layer;
    double worst_relative;
    double *layers; // [n_layers] relative error
};

// Measures the format at width index `width`, layer by layer on `jobs` threads. Values that the
// format keeps exact (sinks, an open group) are left out. row->spec stays NULL; row->layers: caller
// frees.
KV_MUST_CHECK int kv_quant_measure(struct kv_quant_row *row, const struct kv_quant_source *source,
                                   const struct kv_format *f, enum kv_side side, uint32_t width,
                                   unsigned jobs, struct kv_error *e);

struct kv_quant_options {
    const char *const *specs; // formats; may be expansions
    size_t n_specs;
    const uint32_t *bits; // widths, of those that a format has; none = all below 16
    size_t n_bits;
    unsigned jobs; // threads
};
// Measures K and V of every format and width. Free with kv_quant_rows_free, also after an error.
// Errors: those of kv_spec_expand and kv_format_open.
KV_MUST_CHECK int kv_quant_compare(struct kv_quant_row **rows, size_t *n,
                                   const struct kv_quant_source *source,
                                   const struct kv_quant_options *o, struct kv_error *e);
void kv_quant_rows_free(struct kv_quant_row *rows, size_t n);

#endif
