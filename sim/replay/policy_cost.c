// SPDX-License-Identifier: Apache-2.0
// Times single decisions of a policy over seeded features.
#include "sim/replay/policy_cost.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/replay/replay.h"

#include <stdlib.h>
#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics.h>

enum { TOKENS = 512, REPEATS = 25 };

static void draw_features(struct kv_token *tokens, struct kv_quantiles *quantiles) {
    for (size_t t = 0; t < TOKENS; t++) {
        tokens[t].pos = (uint32_t)t;
        for (size_t f = 0; f < KV_N_FEATURES; f++) tokens[t].feature[f] = (float)kv_draw(1, f, t);
    }
    for (size_t f = 0; f <= KV_MEAN_OF_FOUR; f++)
        for (size_t q = 0; q < KV_N_QUANTILES; q++)
            quantiles->quantile[f][q] = (float)q / (KV_N_QUANTILES - 1);
}

// Rounds over all tokens, one call a token; *ns: the median round's time a token.
static int time_decisions(const struct kv_replay_spec *spec, const struct kv_item *item,
                          uint8_t *cells, double *ns, struct kv_error *e) {
    double round_ns[REPEATS];
    size_t n_cells = kv_cells(&spec->run.shape);
    for (int r = -1; r < REPEATS; r++) { // round -1 warms up
        double begin = kv_now_s();
        for (size_t t = 0; t < TOKENS; t++) {
            int rc = spec->policy->decide(spec->self, item, t, 1, cells + t * n_cells, e);
            if (rc) return rc;
        }
        if (r >= 0) round_ns[r] = (kv_now_s() - begin) * 1e9 / TOKENS;
    }
    gsl_sort(round_ns, 1, REPEATS);
    *ns = gsl_stats_median_from_sorted_data(round_ns, 1, REPEATS);
    return 0;
}

int kv_policy_cost_ns(const char *text, const struct kv_shape *shape, double *ns,
                      struct kv_error *e) {
    const struct kv_format_setting setting = {.shape = *shape, .order = KV_ORDER_HF};
    const uint32_t told = (1u << KV_N_FEATURES) - 1;
    struct kv_replay_spec spec;
    int rc = kv_replay_spec_open(&spec, text, &setting, 1, e);
    if (rc) return rc;
    if (!spec.policy->decide || (spec.policy->needs & ~(told | KV_NEED_QUANTILES)))
        rc = kv_fail(e, KV_EFAIL, "bench",
                     "--policy: '%s' does not decide from a token's features, so its cost in a "
                     "decode step cannot be timed",
                     text);
    struct kv_token *tokens = kv_alloc(TOKENS, sizeof *tokens);
    struct kv_quantiles *quantiles = kv_alloc(1, sizeof *quantiles);
    uint8_t *cells = kv_alloc(TOKENS * kv_cells(shape), 1);
    const struct kv_item item = {.struct_bytes = sizeof item,
                                 .key = 1,
                                 .n_tokens = TOKENS,
                                 .n_context = TOKENS,
                                 .tokens = tokens,
                                 .quantiles = quantiles,
                                 .run = &spec.run};
    draw_features(tokens, quantiles);
    if (rc == 0) rc = time_decisions(&spec, &item, cells, ns, e);
    kv_replay_spec_close(&spec);
    free(tokens);
    free(quantiles);
    free(cells);
    return rc;
}
