// SPDX-License-Identifier: Apache-2.0
// Six numbers of a token's own attention row, by KV head.
#include "sim/model/cell_features.h"

#include "policies/dot.h"
#include "sim/model/kernels.h"

static float log_norm(const float *x, size_t n) {
    return logf(fmaxf(sqrtf(kv_dot(x, x, n)), 1e-6f));
}

// Scores of one query head's row, over all that it sees; the last is its own. Returns how many.
static size_t score(const float *q, const float *k, size_t d, size_t at,
                    const struct kv_cell_span *earlier, size_t n_spans, float *w) {
    float scale = 1.0f / sqrtf((float)d);
    size_t n = 0;
    for (size_t s = 0; s < n_spans; s++)
        for (size_t i = 0; i < earlier[s].n; i++)
            w[n++] = scale * kv_dot(q, earlier[s].k + i * earlier[s].stride + at, d);
    w[n++] = scale * kv_dot(q, k + at, d);
    return n;
}

// What a row of weights tells.
struct row {
    float self, first, largest, entropy;
};

static struct row row_of(float *w, size_t n) {
    struct row r = {0};
    float most = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++) most = fmaxf(most, w[i]);
    for (size_t i = 0; i < n; i++) sum += w[i] = expf(w[i] - most);
    for (size_t i = 0; i < n; i++) w[i] /= sum;
    for (size_t i = 0; i < n; i++) {
        r.largest = fmaxf(r.largest, w[i]);
        if (w[i] > 0) r.entropy -= w[i] * logf(w[i]);
    }
    r.self = w[n - 1];
    r.first = w[0];
    return r;
}

// The same of scores by the model's kernels, of rows so long that their sums in one float lose
// what is small: H = log Z - sum p s.
enum { LONG_ROW = 2049, PART = 1024 };
static struct row long_row_of(const float *s, size_t n) {
    float max, sum, p[PART];
    double mean = 0, part;
    kv_kernels()->max_sum_exp(s, n, &max, &sum);
    float log_z = max + logf(sum);
    for (size_t from = 0; from < n; from += PART) {
        size_t some = n - from < PART ? n - from : PART;
        kv_kernels()->exp_shifted(p, s + from, some, log_z);
        kv_kernels()->dot(p, s + from, some, &part);
        mean += part;
    }
    return (struct row){expf(s[n - 1] - log_z), expf(s[0] - log_z), 1 / sum,
                        fmaxf(0, log_z - (float)mean)};
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
            size_t n = score(q + (h * group + g) * d, k, d, h * d, earlier, n_spans, scores);
            struct row r = n > LONG_ROW ? long_row_of(scores, n) : row_of(scores, n);
            self += share * r.self;
            first += share * r.first;
            largest += share * r.largest;
            entropy += share * r.entropy;
        }
        out[KV_CELL_SELF] = logf(fmaxf(self, expf(-12)));
        out[KV_CELL_FIRST] = logf(fmaxf(first, 1e-6f));
        out[KV_CELL_LARGEST] = logf(fmaxf(largest, 1e-6f));
        out[KV_CELL_ENTROPY_NATS] = entropy;
        out[KV_CELL_KEY_NORM] = log_norm(k + h * d, d);
        out[KV_CELL_VALUE_NORM] = log_norm(v + h * d, d);
    }
}
