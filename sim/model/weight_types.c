// SPDX-License-Identifier: Apache-2.0
// Decoders of ggml's blocks and of plain floats, and the table that names them.
//
// Blocks as ggml lays them out (ggml/src/ggml-common.h and the dequantize_row functions of
// ggml-quants.c in https://github.com/ggml-org/llama.cpp): 32 values, fp16 scale d, for the _1
// types fp16 minimum m, for 5 bits a word of fifth bits, then nibbles: value j in the low half of
// byte j, value j + 16 in its high half.
//
// Super-blocks (_K and IQ4_XS) hold 256 values in sub-blocks of 16 or 32, whose scales, and minima
// where a type has them, are whole numbers of 4 to 8 bits times d and dmin.
//
// d has 11 significant bits, a scale at most 7 and a code at most 8, never more than the 24 of a
// float together: each product is exact, in any order of its factors, and only what takes a
// minimum away rounds, once. So a fused multiply-add changes nothing, and all decoders give the
// bits of the gguf package's dequantize.

#include "sim/model/weight_types.h"

#include "sim/base/half.h"
#include "sim/quant/ggml_judge.h"

enum { BLOCK = 32, SUPER = 256 };

static float half_at(const uint8_t *p) {
    return kv_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static void decode_f32(const uint8_t *in, size_t n, float *out) {
    memcpy(out, in, n * 4);
}

// A small integral part of a row at a time, since a file may hold halves at odd addresses.
static void decode_f16(const uint8_t *in, size_t n, float *out) {
    uint16_t half[256];
    for (size_t i = 0; i < n; i += 256) {
        size_t k = n - i < 256 ? n - i : 256;
        memcpy(half, in + 2 * i, 2 * k);
        kv_f16_to_f32_n(half, out + i, k);
    }
}

static void decode_bf16(const uint8_t *in, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)in[2 * i] << 16 | (uint32_t)in[2 * i + 1] << 24;
        memcpy(out + i, &bits, 4);
    }
}

static void decode_q4_0(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 18, out += BLOCK) {
        float d = half_at(in);
        for (int j = 0; j < BLOCK / 2; j++) {
            out[j] = (float)((in[2 + j] & 15) - 8) * d;
            out[j + BLOCK / 2] = (float)((in[2 + j] >> 4) - 8) * d;
        }
    }
}

static void decode_q4_1(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 20, out += BLOCK) {
        float d = half_at(in), m = half_at(in + 2);
        for (int j = 0; j < BLOCK / 2; j++) {
            out[j] = (float)(in[4 + j] & 15) * d + m;
            out[j + BLOCK / 2] = (float)(in[4 + j] >> 4) * d + m;
        }
    }
}

// The code of value j: its nibble and its fifth bit.
static int five_bits(const uint8_t *fifth, const uint8_t *nibbles, int j) {
    int nibble = j < BLOCK / 2 ? nibbles[j] & 15 : nibbles[j - BLOCK / 2] >> 4;
    return nibble | ((fifth[j / 8] >> (j % 8)) & 1) << 4;
}

static void decode_q5_0(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 22, out += BLOCK) {
        float d = half_at(in);
        for (int j = 0; j < BLOCK; j++) out[j] = (float)(five_bits(in + 2, in + 6, j) - 16) * d;
    }
}

static void decode_q5_1(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 24, out += BLOCK) {
        float d = half_at(in), m = half_at(in + 2);
        for (int j = 0; j < BLOCK; j++) out[j] = (float)five_bits(in + 4, in + 8, j) * d + m;
    }
}

static void decode_q8_0(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 34, out += BLOCK) {
        float d = half_at(in);
        for (int j = 0; j < BLOCK; j++) out[j] = (float)(int8_t)in[2 + j] * d;
    }
}

static void decode_iq4_nl(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 18, out += BLOCK) {
        float d = half_at(in);
        for (int j = 0; j < BLOCK / 2; j++) {
            out[j] = d * (float)kv_iq4_nl_values[in[2 + j] & 15];
            out[j + BLOCK / 2] = d * (float)kv_iq4_nl_values[in[2 + j] >> 4];
        }
    }
}

// ---- super-blocks ---------------------------------------------------------------------

// Codes of 2 bits: a half of the super-block, 128 values, is 32 bytes, and a sub-block of 16 is one
// of their four pairs of bits in 16 of them. k: which of the 16 sub-blocks.
static int two_bits(const uint8_t *codes, int k, int j) {
    return codes[k / 8 * 32 + k % 2 * 16 + j] >> (k % 8 / 2 * 2) & 3;
}

// Sub-blocks of 16: a byte each of scale (low) and minimum (high), codes, d, dmin.
static void decode_q2_k(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 84) {
        float d = half_at(in + 80), dmin = half_at(in + 82);
        for (int k = 0; k < SUPER / 16; k++, out += 16) {
            float scale = d * (float)(in[k] & 15), min = dmin * (float)(in[k] >> 4);
            for (int j = 0; j < 16; j++) out[j] = scale * (float)two_bits(in + 16, k, j) - min;
        }
    }
}

// Sub-blocks of 16: 32 bytes of third bits (of value i: bit i / 32 of byte i % 32), codes, 12 bytes
// of scales (four low bits as nibbles in 8, two high ones in 4), d. Codes and scales are signed.
static void decode_q3_k(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 110) {
        float d = half_at(in + 108);
        const uint8_t *scales = in + 96;
        for (int k = 0; k < SUPER / 16; k++, out += 16) {
            int low = scales[k % 8] >> (k / 8 * 4) & 15,
                high = scales[8 + k % 4] >> (k / 4 * 2) & 3;
            float scale = d * (float)((low | high << 4) - 32);
            const uint8_t *third = in + k % 2 * 16;
            for (int j = 0; j < 16; j++) {
                int code = two_bits(in + 32, k, j) | (third[j] >> (k / 2) & 1) << 2;
                out[j] = scale * (float)(code - 4);
            }
        }
    }
}

// Scale and minimum of sub-block k, 6 bits each, of the 12 bytes that Q4_K and Q5_K keep them in:
// those of the first four whole in 8 bytes, of the others nibbles in 4 and the rest above the
// first.
static void six_bits(const uint8_t *packed, int k, int *scale, int *min) {
    if (k < 4) {
        *scale = packed[k] & 63;
        *min = packed[4 + k] & 63;
    } else {
        *scale = (packed[4 + k] & 15) | packed[k - 4] >> 6 << 4;
        *min = packed[4 + k] >> 4 | packed[k] >> 6 << 4;
    }
}

// Sub-blocks of 32: d, dmin, 12 bytes of scales and minima, nibbles: two sub-blocks, low and high,
// in 32 bytes.
static void decode_q4_k(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 144) {
        float d = half_at(in), dmin = half_at(in + 2);
        for (int k = 0, s, m; k < SUPER / 32; k++, out += 32) {
            six_bits(in + 4, k, &s, &m);
            float scale = d * (float)s, min = dmin * (float)m;
            const uint8_t *nibbles = in + 16 + k / 2 * 32;
            int shift = k % 2 * 4;
            for (int j = 0; j < 32; j++) out[j] = scale * (float)(nibbles[j] >> shift & 15) - min;
        }
    }
}

// As Q4_K, with 32 bytes of fifth bits before the nibbles: of sub-block k the bits k.
static void decode_q5_k(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 176) {
        float d = half_at(in), dmin = half_at(in + 2);
        const uint8_t *fifth = in + 16;
        for (int k = 0, s, m; k < SUPER / 32; k++, out += 32) {
            six_bits(in + 4, k, &s, &m);
            float scale = d * (float)s, min = dmin * (float)m;
            const uint8_t *nibbles = in + 48 + k / 2 * 32;
            int shift = k % 2 * 4;
            for (int j = 0; j < 32; j++) {
                int code = (nibbles[j] >> shift & 15) | (fifth[j] >> k & 1) << 4;
                out[j] = scale * (float)code - min;
            }
        }
    }
}

// Sub-blocks of 16: nibbles (a half of the super-block is 64 bytes, low halves first), 64 bytes of
// the two high bits laid out as codes of 2 bits, 16 signed scales, d.
static void decode_q6_k(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 210) {
        float d = half_at(in + 208);
        for (int k = 0; k < SUPER / 16; k++, out += 16) {
            float scale = d * (float)(int8_t)in[192 + k];
            const uint8_t *nibbles = in + k / 8 * 64 + k % 4 * 16;
            int shift = k % 8 / 4 * 4;
            for (int j = 0; j < 16; j++) {
                int code = (nibbles[j] >> shift & 15) | two_bits(in + 128, k, j) << 4;
                out[j] = scale * (float)(code - 32);
            }
        }
    }
}

// Sub-blocks of 32, coded as IQ4_NL: d, signed scales of 6 bits (two high ones in 2 bytes, four low
// ones as nibbles in 4), nibbles.
static void decode_iq4_xs(const uint8_t *in, size_t n, float *out) {
    for (size_t b = 0; b < n; b++, in += 136) {
        float d = half_at(in);
        unsigned high = in[2] | (unsigned)in[3] << 8;
        for (int k = 0; k < SUPER / 32; k++, out += 32) {
            int code = (in[4 + k / 2] >> (k % 2 * 4) & 15) | (int)(high >> (2 * k) & 3) << 4;
            float scale = d * (float)(code - 32);
            const uint8_t *nibbles = in + 8 + k * 16;
            for (int j = 0; j < 16; j++) {
                out[j] = scale * (float)kv_iq4_nl_values[nibbles[j] & 15];
                out[j + 16] = scale * (float)kv_iq4_nl_values[nibbles[j] >> 4];
            }
        }
    }
}

// ---- the table ------------------------------------------------------------------------

// Those that can be decoded first, in the order in which messages list them.
static const struct kv_weight_type types[] = {
    {"F32", 0, 1, 4, decode_f32},
    {"F16", 1, 1, 2, decode_f16},
    {"BF16", 30, 1, 2, decode_bf16},
    {"Q4_0", 2, BLOCK, 18, decode_q4_0},
    {"Q4_1", 3, BLOCK, 20, decode_q4_1},
    {"Q5_0", 6, BLOCK, 22, decode_q5_0},
    {"Q5_1", 7, BLOCK, 24, decode_q5_1},
    {"Q8_0", 8, BLOCK, 34, decode_q8_0},
    {"Q2_K", 10, SUPER, 84, decode_q2_k},
    {"Q3_K", 11, SUPER, 110, decode_q3_k},
    {"Q4_K", 12, SUPER, 144, decode_q4_k},
    {"Q5_K", 13, SUPER, 176, decode_q5_k},
    {"Q6_K", 14, SUPER, 210, decode_q6_k},
    {"IQ4_NL", 20, BLOCK, 18, decode_iq4_nl},
    {"IQ4_XS", 23, SUPER, 136, decode_iq4_xs},
    {"Q8_1", 9, 0, 0, NULL},
    {"Q4_2", 4, 0, 0, NULL},
    {"Q4_3", 5, 0, 0, NULL},
    {"Q8_K", 15, 0, 0, NULL},
    {"IQ2_XXS", 16, 0, 0, NULL},
    {"IQ2_XS", 17, 0, 0, NULL},
    {"IQ3_XXS", 18, 0, 0, NULL},
    {"IQ1_S", 19, 0, 0, NULL},
    {"IQ3_S", 21, 0, 0, NULL},
    {"IQ2_S", 22, 0, 0, NULL},
    {"I8", 24, 0, 0, NULL},
    {"I16", 25, 0, 0, NULL},
    {"I32", 26, 0, 0, NULL},
    {"I64", 27, 0, 0, NULL},
    {"F64", 28, 0, 0, NULL},
    {"IQ1_M", 29, 0, 0, NULL},
    {"Q4_0_4_4", 31, 0, 0, NULL},
    {"Q4_0_4_8", 32, 0, 0, NULL},
    {"Q4_0_8_8", 33, 0, 0, NULL},
    {"TQ1_0", 34, 0, 0, NULL},
    {"TQ2_0", 35, 0, 0, NULL},
    {"IQ4_NL_4_4", 36, 0, 0, NULL},
    {"IQ4_NL_4_8", 37, 0, 0, NULL},
    {"IQ4_NL_8_8", 38, 0, 0, NULL},
    {"MXFP4", 39, 0, 0, NULL},
    {"NVFP4", 40, 0, 0, NULL},
    {"Q1_0", 41, 0, 0, NULL},
};
#define N_TYPES (sizeof types / sizeof *types)

const struct kv_weight_type *kv_weight_type_named(const char *name) {
    for (size_t i = 0; i < N_TYPES; i++)
        if (types[i].decode && strcmp(types[i].name, name) == 0) return &types[i];
    return NULL;
}

const char *kv_weight_type_name(uint32_t number) {
    for (size_t i = 0; i < N_TYPES; i++)
        if (types[i].number == number) return types[i].name;
    return NULL;
}

const char *kv_weight_types_text(char *text, size_t room) {
    size_t n = 0;
    for (size_t i = 0; i < N_TYPES && n < room; i++)
        if (types[i].decode)
            n += (size_t)snprintf(text + n, room - n, "%s%s", n ? ", " : "", types[i].name);
    return text;
}
