// SPDX-License-Identifier: Apache-2.0
// ggml's block types in plain C: the judge of the faster paths, and the table that all read.
#include "sim/quant/ggml_judge.h"
#include "sim/quant/pack.h"

const int8_t kv_iq4_nl_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};

const struct kv_ggml_trait kv_ggml_traits[KV_N_GGML] = {
    [KV_Q8_0] = {"q8_0", 8, 256, 16, sizeof(struct kv_block_q8_0)},
    [KV_Q4_0] = {"q4_0", 4, 128, 16, sizeof(struct kv_block_q4_0)},
    [KV_Q4_1] = {"q4_1", 4, 128, 32, sizeof(struct kv_block_q4_1)},
    [KV_Q5_0] = {"q5_0", 5, 160, 16, sizeof(struct kv_block_q5_0)},
    [KV_Q5_1] = {"q5_1", 5, 160, 32, sizeof(struct kv_block_q5_1)},
    [KV_IQ4_NL] = {"iq4_nl", 4, 128, 16, sizeof(struct kv_block_iq4_nl)},
};

enum { N = KV_GGML_BLOCK };

static float inverse(float d) {
    return d != 0.0f ? 1.0f / d : 0.0f;
}

// The first of the largest magnitudes, with its sign. NaN is passed over.
static float signed_max(const float *x) {
    float largest = 0.0f, with_sign = 0.0f;
    for (int i = 0; i < N; i++)
        if (fabsf(x[i]) > largest) largest = fabsf(x[i]), with_sign = x[i];
    return with_sign;
}

static void range_of(const float *x, float *min, float *max) {
    *min = INFINITY, *max = -INFINITY;
    for (int i = 0; i < N; i++) {
        if (x[i] < *min) *min = x[i];
        if (x[i] > *max) *max = x[i];
    }
    if (*min > *max) *min = *max = 0.0f;
}

// Truncates to a code in [0, top]. ggml leaves NaN and negative sums to the hardware; here both
// are 0.
static uint8_t truncated(float x, float top) {
    return (uint8_t)(x > 0.0f ? (x < top ? x : top) : 0.0f);
}

static void halves_of(const uint8_t *code, uint8_t *q) { // low and high half bytes
    for (int i = 0; i < N / 2; i++) q[i] = (uint8_t)((code[i] & 15) | (code[i + 16] & 15) << 4);
}

static void high_of(const uint8_t *code, uint8_t *high) {
    uint32_t bits = 0;
    for (int i = 0; i < N; i++) bits |= (uint32_t)(code[i] >> 4 & 1) << i;
    kv_put32(high, bits);
}

static void encode_q8_0(const float *x, struct kv_block_q8_0 *b) {
    float d = fabsf(signed_max(x)) / 127.0f, id = inverse(d);
    kv_put_half(b->d, d);
    for (int i = 0; i < N; i++) {
        float q = roundf(x[i] * id); // half away from zero
        b->q[i] = (int8_t)(isnan(q) ? 0.0f : q < -127.0f ? -127.0f : q > 127.0f ? 127.0f : q);
    }
}

// q4_0 and q5_0: the element of largest magnitude becomes exactly -levels/2 steps.
static float encode_signed(const float *x, float half, uint8_t *code) {
    float d = signed_max(x) / -half, id = inverse(d);
    for (int i = 0; i < N; i++) code[i] = truncated(x[i] * id + (half + 0.5f), 2.0f * half - 1.0f);
    return d;
}

// q4_1 and q5_1.
static float encode_ranged(const float *x, float top, uint8_t *code, float *min) {
    float max;
    range_of(x, min, &max);
    float d = (max - *min) / top, id = inverse(d);
    for (int i = 0; i < N; i++) code[i] = truncated((x[i] - *min) * id + 0.5f, top);
    return d;
}

static uint8_t nearest_nl(float x) {
    const int8_t *v = kv_iq4_nl_values;
    if (!(x > v[0])) return 0;
    if (x >= v[15]) return 15;
    int low = 0, high = 15;
    while (high - low > 1) {
        int mid = (low + high) / 2;
        if (x < v[mid])
            high = mid;
        else
            low = mid;
    }
    return (uint8_t)(x - v[high - 1] < v[high] - x ? high - 1 : high);
}

// The scale is refitted by least squares with weights x^2, as quantize_row_iq4_nl_ref does.
static float encode_nl(const float *x, uint8_t *code) {
    float largest = signed_max(x);
    memset(code, 0, N);
    if (fabsf(largest) < 1e-15f) { // ggml leaves the codes of such a block at index 0, scale 0
        return 0.0f;
    }
    float id = inverse(largest / kv_iq4_nl_values[0]), sum_qx = 0.0f, sum_q2 = 0.0f;
    for (int i = 0; i < N; i++) {
        code[i] = nearest_nl(id * x[i]);
        float q = kv_iq4_nl_values[code[i]], w = x[i] * x[i];
        sum_qx += w * q * x[i];
        sum_q2 += w * q * q;
    }
    return sum_q2 > 0.0f ? sum_qx / sum_q2 : 0.0f;
}

void kv_ggml_encode_judge(enum kv_ggml_type type, const float *x, size_t n_blocks, uint8_t *out) {
    uint8_t code[N];
    float min;
    for (size_t k = 0; k < n_blocks; k++, x += N, out += kv_ggml_traits[type].bytes) {
        switch (type) {
        case KV_Q8_0:
            encode_q8_0(x, (struct kv_block_q8_0 *)out);
            break;
        case KV_Q4_0: {
            struct kv_block_q4_0 *b = (struct kv_block_q4_0 *)out;
            kv_put_half(b->d, encode_signed(x, 8.0f, code));
            halves_of(code, b->q);
            break;
        }
        case KV_Q4_1: {
            struct kv_block_q4_1 *b = (struct kv_block_q4_1 *)out;
            kv_put_half(b->d, encode_ranged(x, 15.0f, code, &min));
            kv_put_half(b->m, min);
            halves_of(code, b->q);
            break;
        }
        case KV_Q5_0: {
            struct kv_block_q5_0 *b = (struct kv_block_q5_0 *)out;
            kv_put_half(b->d, encode_signed(x, 16.0f, code));
            halves_of(code, b->q);
            high_of(code, b->high);
            break;
        }
        case KV_Q5_1: {
            struct kv_block_q5_1 *b = (struct kv_block_q5_1 *)out;
            kv_put_half(b->d, encode_ranged(x, 31.0f, code, &min));
            kv_put_half(b->m, min);
            halves_of(code, b->q);
            high_of(code, b->high);
            break;
        }
        case KV_IQ4_NL: {
            struct kv_block_iq4_nl *b = (struct kv_block_iq4_nl *)out;
            kv_put_half(b->d, encode_nl(x, code));
            halves_of(code, b->q);
            break;
        }
        case KV_N_GGML:
            break;
        }
    }
}

static void codes_of_halves(const uint8_t *q, uint8_t *code) {
    for (int i = 0; i < N / 2; i++) code[i] = q[i] & 15, code[i + 16] = q[i] >> 4;
}

static void add_high(const uint8_t *high, uint8_t *code) {
    uint32_t bits = kv_get32(high);
    for (int i = 0; i < N; i++) code[i] = (uint8_t)(code[i] | (bits >> i & 1) << 4);
}

static void block_codes(enum kv_ggml_type type, const uint8_t *in, uint8_t *code) {
    switch (type) {
    case KV_Q8_0:
        for (int i = 0; i < N; i++)
            code[i] = (uint8_t)(((const struct kv_block_q8_0 *)in)->q[i] + 128);
        break;
    case KV_Q4_0:
        codes_of_halves(((const struct kv_block_q4_0 *)in)->q, code);
        break;
    case KV_Q4_1:
        codes_of_halves(((const struct kv_block_q4_1 *)in)->q, code);
        break;
    case KV_Q5_0:
        codes_of_halves(((const struct kv_block_q5_0 *)in)->q, code);
        add_high(((const struct kv_block_q5_0 *)in)->high, code);
        break;
    case KV_Q5_1:
        codes_of_halves(((const struct kv_block_q5_1 *)in)->q, code);
        add_high(((const struct kv_block_q5_1 *)in)->high, code);
        break;
    case KV_IQ4_NL:
        codes_of_halves(((const struct kv_block_iq4_nl *)in)->q, code);
        break;
    case KV_N_GGML:
        break;
    }
}

void kv_ggml_codes(enum kv_ggml_type type, const uint8_t *in, size_t n_blocks, uint8_t *q) {
    for (size_t k = 0; k < n_blocks; k++)
        block_codes(type, in + k * kv_ggml_traits[type].bytes, q + k * N);
}

void kv_ggml_decode_judge(enum kv_ggml_type type, const uint8_t *in, size_t n_blocks, float *y) {
    static const int middle[KV_N_GGML] = {[KV_Q8_0] = 128, [KV_Q4_0] = 8, [KV_Q5_0] = 16};
    bool ranged = type == KV_Q4_1 || type == KV_Q5_1;
    uint8_t code[N];
    for (size_t k = 0; k < n_blocks; k++, in += kv_ggml_traits[type].bytes, y += N) {
        float d = kv_get_half(in), m = ranged ? kv_get_half(in + 2) : 0.0f;
        block_codes(type, in, code);
        for (int i = 0; i < N; i++) {
            int q = type == KV_IQ4_NL ? kv_iq4_nl_values[code[i]] : code[i] - middle[type];
            y[i] = ranged ? d * (float)q + m : d * (float)q;
        }
    }
}
