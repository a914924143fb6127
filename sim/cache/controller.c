// SPDX-License-Identifier: Apache-2.0
// The controller of widths: features from softmax statistics, sensitivity, errors, the choice.
#include "sim/cache/controller.h"
#include "sim/base/cpu.h"
#include "sim/base/isa.h"
#include "sim/base/memory.h"
#include "sim/cache/controller_isa.h"
#include "sim/cache/insides.h"

#include <stdlib.h>

KV_ISA_TABLE(kv_net_fn *, net_at, kv_net)
KV_ISA_TABLE(kv_dot_fn *, dot_at, kv_dot)
KV_ISA_TABLE(kv_error_fn *, error_at, kv_error)
KV_ISA_TABLE(kv_range_fn *, range_at, kv_range)

enum { X = KV_N_CELL_FEATURES };

struct kv_controller {
    struct kv_controller_setting s;
    float *channel, *bias, *linear, *mean, *deviation, *lambda; // copies
    float *constant;                                            // [P][KV_NET_WIDTH]
    struct kv_width_net net;
    uint32_t ports[KV_PORT_WIDTHS];
};

static float *copy(const float *x, size_t n) {
    float *y = kv_alloc(n, sizeof *y);
    memcpy(y, x, n * sizeof *y);
    return y;
}

// Lays the net's weights by input, and a place's embedding into what the first layer adds anyway.
static void fold_net(struct kv_controller *c, size_t places) {
    enum { N = KV_NET_WIDTH, COLUMNS = X + KV_NET_EMBEDDING };
    const struct kv_controller_setting *s = &c->s;
    c->constant = kv_alloc(places * N, sizeof *c->constant);
    for (size_t o = 0; o < N; o++) {
        for (size_t i = 0; i < X; i++) c->net.first[i][o] = s->first[o * COLUMNS + i];
        for (size_t i = 0; i < N; i++) c->net.second[i][o] = s->second[o * N + i];
        for (size_t p = 0; p < places; p++) {
            float sum = s->first_bias[o];
            for (size_t i = 0; i < KV_NET_EMBEDDING; i++)
                sum += s->first[o * COLUMNS + X + i] * s->embedding[p * KV_NET_EMBEDDING + i];
            c->constant[p * N + o] = sum;
        }
    }
    memcpy(c->net.second_bias, s->second_bias, sizeof c->net.second_bias);
    memcpy(c->net.third, s->third, sizeof c->net.third);
    c->net.third_bias = s->third_bias;
}

int kv_controller_new(struct kv_controller **out, const struct kv_controller_setting *s,
                      struct kv_error *e) {
    *out = NULL;
    struct kv_controller *c = kv_alloc(1, sizeof *c);
    c->s = *s;
    for (size_t i = 0; i < s->n_widths; i++) {
        uint32_t port = 0;
        while (port < KV_PORT_WIDTHS && kv_port_bits[port] != s->widths[i]) port++;
        if (port == KV_PORT_WIDTHS) {
            free(c);
            return kv_fail(e, KV_EUSAGE, "controller", "the packed cache has no width of %u bits",
                           s->widths[i]);
        }
        c->ports[i] = port;
    }
    size_t heads = (size_t)s->shape.n_layers * s->shape.n_kv_heads, places = heads * 2;
    c->channel = copy(s->channel, places * s->shape.head_dim);
    c->bias = copy(s->bias, places);
    c->linear = copy(s->linear, places * X);
    c->mean = copy(s->mean, heads * X);
    c->deviation = copy(s->deviation, heads * X);
    c->lambda = copy(s->lambda, s->shape.n_layers);
    if (s->embedding) fold_net(c, places);
    *out = c;
    return 0;
}

void kv_controller_free(struct kv_controller *c) {
    if (!c) return;
    free(c->channel);
    free(c->bias);
    free(c->linear);
    free(c->mean);
    free(c->deviation);
    free(c->lambda);
    free(c->constant);
    free(c);
}

// ---- features -------------------------------------------------------------------------

// Adds a query head's share to the sums of the row's weights: self, first, largest, entropy.
static void add_head(const struct kv_partial *p, unsigned n_parts, uint32_t h, float share,
                     float *x) {
    float own = p[n_parts - 1].max[h], top = -INFINITY, sum = 0, weighted = 0, oldest = own;
    for (unsigned i = 0; i < n_parts; i++) top = fmaxf(top, p[i].max[h]);
    for (unsigned i = 0; i < n_parts; i++) {
        if (p[i].sum[h] <= 0) continue;
        float down = p[i].max[h] - top, keep = expf(down);
        sum += keep * p[i].sum[h];
        weighted += keep * (p[i].weighted[h] + down * p[i].sum[h]);
        if (!isnan(p[i].oldest[h])) oldest = p[i].oldest[h];
    }
    x[KV_CELL_SELF] += share * expf(own - top) / sum;
    x[KV_CELL_FIRST] += share * expf(oldest - top) / sum;
    x[KV_CELL_LARGEST] += share / sum;
    x[KV_CELL_ENTROPY_NATS] += share * (logf(sum) - weighted / sum);
}

void kv_controller_features(const struct kv_shape *s, const struct kv_partial *p, unsigned n_parts,
                            const float *k, const float *v, uint32_t first, uint32_t end,
                            float *x) {
    uint32_t group = s->n_heads / s->n_kv_heads, d = s->head_dim;
    kv_dot_fn *dot = dot_at[kv_cpu_level()];
    for (uint32_t h = first; h < end; h++, x += X) {
        memset(x, 0, X * sizeof *x);
        for (uint32_t g = 0; g < group; g++)
            add_head(p, n_parts, h * group + g, 1.0f / (float)group, x);
        x[KV_CELL_SELF] = logf(fmaxf(x[KV_CELL_SELF], expf(-12)));
        x[KV_CELL_FIRST] = logf(fmaxf(x[KV_CELL_FIRST], 1e-6f));
        x[KV_CELL_LARGEST] = logf(fmaxf(x[KV_CELL_LARGEST], 1e-6f));
        x[KV_CELL_KEY_NORM] = logf(fmaxf(sqrtf(dot(k + h * d, k + h * d, d)), 1e-6f));
        x[KV_CELL_VALUE_NORM] = logf(fmaxf(sqrtf(dot(v + h * d, v + h * d, d)), 1e-6f));
    }
}

// ---- the choice -----------------------------------------------------------------------

static float log_sensitivity(const struct kv_controller *c, size_t place, const float *x,
                             const float *h) {
    kv_dot_fn *dot = dot_at[kv_cpu_level()];
    float y = c->bias[place] + dot(c->linear + place * X, x, X);
    if (c->constant) y += net_at[kv_cpu_level()](&c->net, c->constant + place * KV_NET_WIDTH, x);
    if (c->s.probe) {
        size_t hidden = c->s.shape.hidden;
        y += dot(c->s.probe + place * hidden, h, hidden);
    }
    return fminf(fmaxf(y, -30.0f), 30.0f);
}

// The weighted squared error of a vector at each offered width, coded and decoded.
static void trial_errors(const struct kv_controller *c, const struct kv_cache *cache,
                         uint32_t layer, int side, const float *m, const float *x, float *error) {
    uint8_t unit[KV_MAX_UNIT_BYTES];
    float y[KV_MAX_CACHED_DIM];
    for (size_t i = 0; i < c->s.n_widths; i++) {
        kv_cell_encode(cache, layer, side, c->ports[i], x, unit);
        kv_cell_decode(cache, layer, side, c->ports[i], unit, y);
        error[i] = error_at[kv_cpu_level()](m, x, y, c->s.shape.head_dim);
    }
}

// The same from ranges: a grid of step d rounds with a mean square of d^2 / 12 (uniform within a
// step). asym has 2^w levels from least to largest; sym 2^w - 1 from -|x| to |x|.
static void range_errors(const struct kv_controller *c, const struct kv_cache *cache, int side,
                         const float *m, const float *x, float *error) {
    const struct kv_side_layout *l = &cache->layouts[side][0];
    size_t dim = c->s.shape.head_dim, group = dim / l->n_groups;
    float spread = 0; // sum of m times squared range
    for (size_t at = 0; at < dim; at += group) {
        float range[2], weight = 0, width;
        range_at[kv_cpu_level()](x + at, group, range);
        width = l->has_min ? range[1] - range[0] : 2 * fmaxf(-range[0], range[1]);
        for (size_t i = 0; i < group; i++) weight += m[at + i];
        spread += weight * width * width;
    }
    for (size_t i = 0; i < c->s.n_widths; i++) {
        float steps = (float)((1u << c->s.widths[i]) - (l->has_min ? 1 : 2));
        error[i] = c->s.widths[i] == 16 ? 0 : spread / (12 * steps * steps);
    }
}

static uint8_t choose(const struct kv_controller *c, const struct kv_cache *cache, uint32_t layer,
                      int side, float log_s, const float *error) {
    float least = INFINITY, s = 0.5f * expf(log_s);
    uint8_t bits = c->s.widths[0];
    for (size_t i = 0; i < c->s.n_widths; i++) {
        float stored = (float)cache->layouts[side][c->ports[i]].unit_bytes * 8;
        float cost = s * error[i] + c->lambda[layer] * stored;
        if (cost < least) {
            least = cost;
            bits = c->s.widths[i];
        }
    }
    return bits;
}

void kv_controller_decide(const struct kv_controller *c, const struct kv_cache *cache,
                          uint32_t layer, uint32_t first, uint32_t end, const float *x,
                          const float *h, const float *k, const float *v, uint8_t *bits) {
    uint32_t d = c->s.shape.head_dim;
    for (uint32_t cell = first; cell < end; cell++) {
        uint32_t head = cell / 2, side = cell % 2;
        size_t at = (size_t)layer * c->s.shape.n_kv_heads + head, place = at * 2 + side;
        const float *raw = x + (head - first / 2) * X;
        float z[X], error[KV_PORT_WIDTHS];
        for (size_t i = 0; i < X; i++)
            z[i] = (raw[i] - c->mean[at * X + i]) / c->deviation[at * X + i];
        const float *vector = (side == KV_KEY ? k : v) + (size_t)head * d;
        const float *m = c->channel + place * d;
        if (c->s.rule == KV_ERROR_TRIAL)
            trial_errors(c, cache, layer, (int)side, m, vector, error);
        else
            range_errors(c, cache, (int)side, m, vector, error);
        *bits++ = choose(c, cache, layer, (int)side, log_sensitivity(c, place, z, h), error);
    }
}
