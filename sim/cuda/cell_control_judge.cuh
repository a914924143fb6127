// SPDX-License-Identifier: Apache-2.0
// The judge of the controller and of the coding of a token, in plain loops on the CPU.
#ifndef KV_CELL_CONTROL_JUDGE_CUH
#define KV_CELL_CONTROL_JUDGE_CUH

#include "cell_step.cuh"

struct control_judged {
    double context, features, cost; // worst errors; of a chosen width's cost over the least
    bool coded;                     // the cells' bytes are those that the grid gives
    int chosen[PORTS];
};

// log s of a cell by the formula of sim/cache/controller.h. w: the weights of batch_model, fetched.
static double judge_log_s(float *const w[10], const controller &c, int place, int hidden,
                          const double *x, const float *h) {
    double z[FEATURES], a[NET], y = w[1][place] + c.third_bias;
    for (int i = 0; i < FEATURES; i++) {
        const double m = w[9][place / 2 * FEATURES + i];
        z[i] = (x[i] - m) / m;
        y += w[2][place * FEATURES + i] * z[i];
    }
    for (int o = 0; o < NET; o++) {
        double sum = w[4][place * NET + o];
        for (int i = 0; i < FEATURES; i++) sum += w[5][i * NET + o] * z[i];
        a[o] = sum / (1 + exp(-sum));
    }
    for (int o = 0; o < NET; o++) {
        double sum = w[7][o];
        for (int i = 0; i < NET; i++) sum += w[6][i * NET + o] * a[i];
        y += w[8][o] * sum / (1 + exp(-sum));
    }
    for (int i = 0; i < hidden; i++) y += (double)w[3][(size_t)place * hidden + i] * h[i];
    return fmin(fmax(y, -30), 30);
}

// A vector's codes, scales and minima at a width, as sim/quant has them (asym, groups of 32).
static void judge_codes(const float *x, int port, uint8_t *code, __half *scale, __half *low) {
    const float levels = (float)((1 << port_bits(port)) - 1);
    for (int g = 0; g < GROUPS; g++, x += 32, code += 32) {
        float min = x[0], max = x[0];
        for (int i = 1; i < 32; i++) {
            min = fminf(min, x[i]);
            max = fmaxf(max, x[i]);
        }
        low[g] = __float2half_rn(min);
        const float from = __half2float(low[g]);
        scale[g] = __float2half_rn((max - from) / levels);
        const float step = __half2float(scale[g]);
        for (int i = 0; i < 32; i++)
            code[i] = step > 0 ? (uint8_t)fminf(fmaxf(rintf((x[i] - from) / step), 0), levels) : 0;
    }
}

static bool judge_cell(const cells &h, int stream, int side, int port, int slot, const float *x) {
    uint8_t code[DIM];
    __half scale[GROUPS], low[GROUPS];
    double got[DIM];
    bool right = true;
    judge_codes(x, port, code, scale, low);
    read_cell(h, stream, side, port, slot, got);
    for (int i = 0; i < DIM; i++)
        right &= got[i] == code[i] * (double)__half2float(scale[i / 32]) +
                               (double)__half2float(low[i / 32]);
    return right;
}

static void judge_features(const judged_row *rows, const double *own, int group, const float *k,
                           const float *v, double *x) {
    double self = 0, first = 0, largest = 0, entropy = 0, norm[SIDES] = {0, 0};
    for (int g = 0; g < group; g++) {
        const double top = fmax(rows[g].max, own[g]), down = rows[g].max - top;
        const double keep = exp(down), o = own[g] - top;
        const double sum = keep * rows[g].sum + exp(o);
        self += exp(o) / sum / group;
        first += exp(rows[g].oldest - top) / sum / group;
        largest += 1 / sum / group;
        entropy += (log(sum) -
                    (keep * (rows[g].weighted + down * rows[g].sum) + exp(o) * o) / sum) /
                   group;
    }
    for (int i = 0; i < DIM; i++) {
        norm[KEY] += (double)k[i] * k[i];
        norm[VALUE] += (double)v[i] * v[i];
    }
    x[SELF] = log(fmax(self, exp(-12)));
    x[FIRST] = log(fmax(first, 1e-6));
    x[LARGEST] = log(fmax(largest, 1e-6));
    x[ENTROPY] = entropy;
    x[KEY_NORM] = 0.5 * log(fmax(norm[KEY], 1e-12));
    x[VALUE_NORM] = 0.5 * log(fmax(norm[VALUE], 1e-12));
}

// One layer's token: attention, features, choice, codes.
template <int GROUP>
static void judge_finish(const shape &s, int sequences, int n, control_judged *worst) {
    const double pct[PORTS] = {14, 26, 27, 20, 11, 1, 1};
    const int pairs = sequences * s.kv_heads, layer = s.layers - 1;
    batch_model m;
    cells c;
    batch_init(&m, s, sequences, 20);
    cells_init(&c, s.layers * pairs, n + 1, s.layers * pairs * most_stream_bytes(n + 1));
    cells_fill(&c, n, shares_of(pct));
    cells before = fetched_cells(c);
    CHECK(cudaFree(m.rows));
    CHECK(cudaFree(m.input));
    m.rows = noise_on_device((size_t)sequences * qkv_rows(s), 60 + n, 2, 0);
    m.input = noise_on_device((size_t)sequences * s.hidden, 61 + n, 1, 0);
    const step_kind kind = {&c, -1, shares_of(pct)};
    launch_layer_attention<GROUP>(&m, kind, layer);
    CHECK(cudaDeviceSynchronize());
    cells after = fetched_cells(c);
    float *w[10], *q = (float *)from_device(m.query, (size_t)pairs * GROUP * DIM * 4);
    const size_t heads = (size_t)s.layers * s.kv_heads, places = 2 * heads;
    const size_t sizes[] = {places * DIM, places, places * FEATURES, places * s.hidden,
                            places * NET, FEATURES * NET, NET * NET, NET, NET, heads * FEATURES};
    for (int i = 0; i < 10; i++) w[i] = (float *)from_device(m.weights[i], sizes[i] * 4);
    float *key = (float *)from_device(m.key, pairs * DIM * 4);
    float *value = (float *)from_device(m.value, pairs * DIM * 4);
    float *input = (float *)from_device(m.input, (size_t)sequences * s.hidden * 4);
    float *features = (float *)from_device(m.features, pairs * FEATURES * 4);
    __nv_bfloat16 *context =
        (__nv_bfloat16 *)from_device(m.context, (size_t)pairs * GROUP * DIM * 2);
    double *k = (double *)malloc((size_t)n * DIM * 8), *v = (double *)malloc((size_t)n * DIM * 8);
    for (int p = 0; p < pairs; p++) {
        const int stream = layer * pairs + p, head = p % s.kv_heads;
        const float *vectors[SIDES] = {key + p * DIM, value + p * DIM};
        read_stream(before, stream, KEY, n, k);
        read_stream(before, stream, VALUE, n, v);
        judged_row rows[GROUP];
        double own[GROUP], x[FEATURES];
        for (int g = 0; g < GROUP; g++) {
            double out[DIM];
            const float *of = q + ((size_t)p * GROUP + g) * DIM;
            rows[g] = judge_row(of, k, v, n, out);
            own[g] = 0;
            for (int i = 0; i < DIM; i++) own[g] += of[i] * (double)vectors[KEY][i] / 8;
            const double top = fmax(rows[g].max, own[g]), keep = exp(rows[g].max - top),
                         with = exp(own[g] - top);
            for (int i = 0; i < DIM; i++) {
                const double exact = (keep * out[i] + with * vectors[VALUE][i]) /
                                     (keep * rows[g].sum + with);
                const double got = (double)__bfloat162float(
                    context[((size_t)p * GROUP + g) * DIM + i]);
                const double wrong = fabs(got - exact) - fabs(exact) * 0x1p-8;
                worst->context = wrong == wrong ? fmax(worst->context, wrong) : INFINITY;
            }
        }
        judge_features(rows, own, GROUP, vectors[KEY], vectors[VALUE], x);
        for (int i = 0; i < FEATURES; i++) {
            const double wrong = fabs(features[p * FEATURES + i] - x[i]);
            worst->features = wrong == wrong ? fmax(worst->features, wrong) : INFINITY;
        }
        for (int side = 0; side < SIDES; side++) {
            const int place = 2 * (layer * s.kv_heads + head) + side;
            const double log_s = judge_log_s(w, m.control, place, s.hidden, x,
                                             input + (size_t)(p / s.kv_heads) * s.hidden);
            const int port = after.tag[(size_t)stream * c.room + n] >> 4 * side & 15;
            double spread = 0, least = INFINITY, taken = INFINITY;
            for (int g = 0; g < GROUPS; g++) {
                double low = INFINITY, high = -INFINITY, weight = 0;
                for (int i = g * 32; i < g * 32 + 32; i++) {
                    low = fmin(low, vectors[side][i]);
                    high = fmax(high, vectors[side][i]);
                    weight += w[0][(size_t)place * DIM + i];
                }
                spread += weight * (high - low) * (high - low);
            }
            for (int i = 0; i < OFFERED; i++) {
                const double steps = (1 << port_bits(i)) - 1;
                const double cost = 0.5 * exp(log_s) * spread / (12 * steps * steps) +
                                    m.control.lambda * cell_bits(i);
                least = fmin(least, cost);
                if (i == port) taken = cost;
            }
            worst->cost = fmax(worst->cost, taken / least - 1);
            const uint32_t slot = before.count[(stream * SIDES + side) * 8 + port];
            worst->coded &= port < OFFERED &&
                            after.count[(stream * SIDES + side) * 8 + port] == slot + 1 &&
                            judge_cell(after, stream, side, port, (int)slot, vectors[side]);
            if (port < PORTS) worst->chosen[port]++;
        }
    }
    void *owned[] = {q, key, value, input, features, context, k, v};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    for (int i = 0; i < 10; i++) free(w[i]);
    fetched_fini(&before);
    fetched_fini(&after);
    cells_fini(&c);
    batch_fini(&m);
}

static bool check_control() {
    control_judged worst = {0, 0, 0, true, {0}};
    static const int lengths[] = {5, 127, 128, 900};
    for (int i = 0; i < 4; i++) {
        judge_finish<3>(small_group, 5, lengths[i], &worst);
        judge_finish<1>(small_single, 3, lengths[i], &worst);
    }
    int widths = 0;
    for (int p = 0; p < PORTS; p++) widths += worst.chosen[p] > 0;
    const bool right = worst.context < 1e-3 && worst.features < 5e-3 && worst.cost < 1e-2 &&
                       worst.coded && widths > 2;
    fprintf(stderr,
            "controller and coding, against plain loops on the CPU: context within %.1e beyond "
            "bf16, features within %.1e, chosen widths cost at most %.1e over the least, %d widths "
            "chosen, %s: %s\n",
            worst.context, worst.features, worst.cost, widths,
            worst.coded ? "cells have the grid's bytes" : "CELLS DIFFER", right ? "right" : "WRONG");
    return right;
}

#endif
