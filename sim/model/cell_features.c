// SPDX-License-Identifier: Apache-2.0
// Six numbers of a token's own attention row, by KV head.
#include "sim/model/cell_features.h"

#include "policies/dot.h"

static float log_norm(const float *x, size_t n) {
    return logf(fmaxf(sqrtf(kv_dot(x, x, n)), 1e-6f));
}

// Weights of one query head's row, over all that it sees; the last is its own. Returns how many.
static size_t weigh(const float *q, const float *k, size_t d, size_t at,
                    const struct kv_cell_span *earlier, size_t n_spans, float *w) {
    float scale = 1.0f / sqrtf((float)d), most = -INFINITY, sum = 0;
    size_t n = 0;
    for (size_t s = 0; s < n_spans; s++)
        for (size_t i = 0; i < earlier[s].n; i++)
            w[n++] = scale * kv_dot(q, earlier[s].k + i * earlier[s].stride + at, d);
    w[n++] = scale * kv_dot(q, k + at, d);
    for (size_t i = 0; i < n; i++) most = fmaxf(most, w[i]);
    for (size_t i = 0; i < n; i++) sum += w[i] = expf(w[i] - most);
    for (size_t i = 0; i < n; i++) w[i] /= sum;
    return n;
}

void kv_cell_spans_skip(struct kv_cell_span *spans, size_t n_spans, size_t n) {
    for (size_t s = 0; s < n_spans && n > 0; s++) {
        size_t gone = n < spans[s].n ? n : spans[s].n;
        spans[s].k += gone * spans[s].stride;
        spans[s].n -= gone;
        n -= gone;
    }
}

void kv_cell_features(const struct kv_shape *s, const float *q, const float *k, const float *v,
                      const struct kv_cell_span *earlier, size_t n_spans, float *scores,
                      float *out) {
    size_t d = s->head_dim, group = s->n_heads / s->n_kv_heads;
    float share = 1.0f / (float)group;
    for (size_t h = 0; h < s->n_kv_heads; h++, out += KV_N_CELL_FEATURES) {
        float self = 0, first = 0, largest = 0, entropy = 0;
        for (size_t g = 0; g < group; g++) {
            size_t n = weigh(q + (h * group + g) * d, k, d, h * d, earlier, n_spans, scores);
            float most = 0, nats = 0;
            for (size_t i = 0; i < n; i++) {
                most = fmaxf(most, scores[i]);
                if (scores[i] > 0) nats -= scores[i] * logf(scores[i]);
            }
            self += share * scores[n - 1];
            first += share * scores[0];
            largest += share * most;
            entropy += share * nats;
        }
        out[KV_CELL_SELF] = logf(fmaxf(self, expf(-12)));
        out[KV_CELL_FIRST] = logf(fmaxf(first, 1e-6f));
        out[KV_CELL_LARGEST] = logf(fmaxf(largest, 1e-6f));
        out[KV_CELL_ENTROPY_NATS] = entropy;
        out[KV_CELL_KEY_NORM] = log_norm(k + h * d, d);
        out[KV_CELL_VALUE_NORM] = log_norm(v + h * d, d);
    }
}
