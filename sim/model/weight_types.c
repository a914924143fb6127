// SPDX-License-Identifier: Apache-2.0
// Decoders of ggml's blocks and of plain floats, and the table that names them.
//
// Blocks as ggml lays them out (ggml/src/ggml-common.h and the dequantize_row functions of
// ggml-quants.c in https://github.com/ggml-org/llama.cpp): 32 values, fp16 scale d, for the _1
// types fp16 minimum m, for 5 bits a word of fifth bits, then nibbles: value j in the low half of
// byte j, value j + 16 in its high half. d has 11 significant bits and a code at most 8, so d *
// code is exact and a fused multiply-add changes nothing.

#include "sim/model/weight_types.h"

#include "sim/base/half.h"

#define BLOCK 32

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
    {"Q8_1", 9, 0, 0, NULL},
    {"Q2_K", 10, 0, 0, NULL},
    {"Q3_K", 11, 0, 0, NULL},
    {"Q4_K", 12, 0, 0, NULL},
    {"Q5_K", 13, 0, 0, NULL},
    {"Q6_K", 14, 0, 0, NULL},
    {"Q8_K", 15, 0, 0, NULL},
    {"IQ2_XXS", 16, 0, 0, NULL},
    {"IQ2_XS", 17, 0, 0, NULL},
    {"IQ3_XXS", 18, 0, 0, NULL},
    {"IQ1_S", 19, 0, 0, NULL},
    {"IQ4_NL", 20, 0, 0, NULL},
    {"IQ3_S", 21, 0, 0, NULL},
    {"IQ2_S", 22, 0, 0, NULL},
    {"IQ4_XS", 23, 0, 0, NULL},
    {"I8", 24, 0, 0, NULL},
    {"I16", 25, 0, 0, NULL},
    {"I32", 26, 0, 0, NULL},
    {"I64", 27, 0, 0, NULL},
    {"F64", 28, 0, 0, NULL},
    {"IQ1_M", 29, 0, 0, NULL},
    {"TQ1_0", 34, 0, 0, NULL},
    {"TQ2_0", 35, 0, 0, NULL},
    {"MXFP4", 39, 0, 0, NULL},
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
