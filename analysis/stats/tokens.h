// SPDX-License-Identifier: Apache-2.0
// What the scored positions of text windows say together: divergence and its quantiles, by depth,
// with intervals that know that the tokens of a window are not independent.
//
//     struct kv_token_summary s =
//         kv_token_summary(windows, n, (struct kv_depths){2048, 4096}, 1, 2000, 0.95);
//     printf("%g [%g, %g]\n", s.at[KV_TOKEN_KL_MEDIAN].value, ...interval.low, ...interval.high);
//
// Names and definitions are those of llama-perplexity --kl-divergence, but nothing is left out of
// the divergence's sum over the vocabulary, and which positions are scored is the recording's
// choice. Pure functions, as in stats.h.
#ifndef KV_ANALYSIS_STATS_TOKENS_H
#define KV_ANALYSIS_STATS_TOKENS_H

#include "analysis/stats/stats.h"
#include "sim/base/outcome.h"

KV_BEGIN_DECLS

enum kv_token_measure {
    KV_TOKEN_KL_MEAN,   // nats
    KV_TOKEN_KL_MEDIAN, // of sorted values, linear between neighbours at f (n - 1)
    KV_TOKEN_KL_99,
    KV_TOKEN_KL_999,
    KV_TOKEN_SAME_TOP, // share of positions whose likeliest token is the 16-bit run's
    KV_TOKEN_RMS_DP,   // root of the mean squared change of the next token's probability
    KV_N_TOKEN_MEASURES
};
// "kl_mean", "kl_median", "kl_99", "kl_999", "same_top", "rms_dp", NULL
extern const char *const kv_token_measure_names[];

// Contexts in (above, upto] tokens: a position's context is what its query sees, itself included.
struct kv_depths {
    uint32_t above, upto;
};
extern const struct kv_depths kv_all_depths;
// The bucket of a context: (0, 256], then (256 2^i, 256 2^(i + 1)].
struct kv_depths kv_depths_of(double context);

struct kv_token_window {
    const struct kv_token_outcome *token; // [n] by row
    size_t n;
};

struct kv_token_estimate {
    double value; // NAN without positions, and where there are too few for the quantile
    // From a bootstrap over blocks. Where there are too few positions for the quantile: bounds by
    // order statistics, either NAN where these give none.
    struct kv_interval interval;
    bool bound; // the latter
};

struct kv_token_summary {
    size_t n, n_blocks;
    struct kv_token_estimate at[KV_N_TOKEN_MEASURES];
};

// Scored positions below which a quantile is not estimated: 1,000 for 99 %, 10,000 for 99.9 %.
size_t kv_token_least(enum kv_token_measure m);

// Blocks are whole windows; where fewer than 20 hold positions of these depths, runs of equal
// length that their positions are cut into, 20 in all or a few more, none shorter than 8 positions.
// Fewer than 10 blocks give no interval.
// Resamples are drawn with the seed. Where memory runs out: all NAN.
struct kv_token_summary kv_token_summary(const struct kv_token_window *windows, size_t n,
                                         struct kv_depths depths, uint64_t seed, size_t draws,
                                         double confidence);

// The same of the difference a - b of two runs on the same positions, which are resampled together:
// windows[i] of both hold the same rows. Without bounds.
struct kv_token_summary kv_token_difference(const struct kv_token_window *a,
                                            const struct kv_token_window *b, size_t n,
                                            struct kv_depths depths, uint64_t seed, size_t draws,
                                            double confidence);

KV_END_DECLS

#endif
