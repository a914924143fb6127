// SPDX-License-Identifier: Apache-2.0
// From bit planes to operands of the tensor cores (mma m16n8k16: rows x 16 by 16 x 8).
//
// A code needs no conversion: the low eleven bits of an fp16 number, the rest zero, are an integer
// times 2^-24, subnormal below 1024 and normal above with the same step. So a mask takes a code
// from its place in a half word, two codes at a time, and the place (a factor of 2^place) goes into
// the other operand or into the result. A high plane is a set of narrow codes of its own, whose
// sums are added. A lane is r = lane / 4 and c = lane mod 4. Channels g of 32 share a scale.
#ifndef KV_CELL_PLANES_CUH
#define KV_CELL_PLANES_CUH

#include "cells.cuh"

// Operand sets: the planes of the ports, and 16 bits.
enum { LOW_2, LOW_4, LOW_8, HIGH_3, HIGH_5, HIGH_6, HALVES, SETS };
__host__ __device__ static inline constexpr int bits_of_set(int set) {
    return set == LOW_2 || set == HIGH_6 ? 2
           : set == LOW_4                ? 4
           : set == LOW_8                ? 8
           : set == HALVES               ? 16
                                         : 1;
}
// By what power of two a plane's codes count.
__host__ __device__ static inline constexpr int weight_of_set(int set) {
    return set == HIGH_3 ? 2 : set == HIGH_5 || set == HIGH_6 ? 4 : 0;
}

// Sets of a port's planes; SETS: it has no high one.
__host__ __device__ static inline constexpr int low_set(int port) {
    return port < 2 ? LOW_2 : port < 5 ? LOW_4 : port == 5 ? LOW_8 : HALVES;
}
__host__ __device__ static inline constexpr int high_set(int port) {
    return port == 1 ? HIGH_3 : port == 3 ? HIGH_5 : port == 4 ? HIGH_6 : SETS;
}

// Bytes of a and b (4..7) by the nibbles of `which`.
__host__ __device__ static inline uint32_t pick_bytes(uint32_t a, uint32_t b, uint32_t which) {
#ifdef __CUDA_ARCH__
    return __byte_perm(a, b, which);
#else
    const uint64_t both = (uint64_t)b << 32 | a;
    uint32_t x = 0;
    for (int i = 0; i < 4; i++) x |= (uint32_t)(both >> 8 * (which >> 4 * i & 7) & 255) << 8 * i;
    return x;
#endif
}
__host__ __device__ static inline uint32_t pair_mask(int bits, int place) {
    return (((1u << bits) - 1) << place) * 0x10001u;
}

// ---- keys: rows r and r + 8 are tokens 2 r and 2 r + 1 of a tile ---------------------------

// Four pairs of channels of group g for each of the two tokens: those of lane (r, c), pair i.
// plane: of a tile.
template <int SET>
__host__ __device__ static inline void key_pairs(const uint32_t *plane, int g, int r, int c,
                                                 uint32_t x[2][4]) {
    constexpr int bits = bits_of_set(SET);
    if (SET == HALVES) {
        for (int i = 0; i < 4; i++) {
            const int channel = 32 * g + 8 * c + 2 * i; // two tokens a word here
            const uint32_t a = plane[channel * (TILE / 2) + r];
            const uint32_t b = plane[(channel + 1) * (TILE / 2) + r];
            x[0][i] = pick_bytes(a, b, 0x5410);
            x[1][i] = pick_bytes(a, b, 0x7632);
        }
        return;
    }
    const int w = bits == 1 ? g : bits == 2 ? 2 * g + c / 2 : bits == 4 ? 4 * g + c : 8 * g + c;
    const uint2 low = *(const uint2 *)(plane + w * TILE + 2 * r);
    const uint2 more = bits == 8 ? *(const uint2 *)(plane + (w + 4) * TILE + 2 * r) : low;
    const int down = bits == 1 ? 4 * c : bits == 2 ? 8 * (c % 2) : 0;
    for (int row = 0; row < 2; row++) {
        const uint32_t word = (row ? low.y : low.x) >> down, next = row ? more.y : more.x;
        for (int i = 0; i < 4; i++) {
            if (bits <= 2)
                x[row][i] = word & pair_mask(bits, bits * i);
            else if (bits == 4)
                x[row][i] = (i < 2 ? word : word >> 8) & pair_mask(4, 4 * (i % 2));
            else
                x[row][i] = (i < 2 ? word : next) >> 8 * (i % 2) & pair_mask(8, 0);
        }
    }
}
// The place of the codes of pair i.
__host__ __device__ static inline int key_place(int set, int i) {
    const int bits = bits_of_set(set);
    return bits <= 2 ? bits * i : bits == 4 ? 4 * (i % 2) : 0;
}
// Channel of a pair's low half; *apart: how far that of its high half lies.
__host__ __device__ static inline int key_channel(int set, int g, int c, int i, int *apart) {
    const int p = 4 * c + i;
    switch (set) {
    case LOW_2:
        *apart = 8;
        return 16 * (2 * g + c / 2) + 4 * (c % 2) + i;
    case LOW_8:
        *apart = 2;
        return 4 * (8 * g + c + 4 * (i / 2)) + i % 2;
    case HIGH_3:
        *apart = 8;
        return 16 * (2 * g + p / 8) + p % 8;
    case HALVES:
        *apart = 1;
        return 32 * g + 8 * c + 2 * i;
    default:
        *apart = 4;
        return 8 * (4 * g + c) + i;
    }
}

// ---- values: rows r and r + 8 are channels 32 g + 4 r + j, j = 2 m and 2 m + 1 of product m -----

// Four channels of group g for tokens t and u (low and high halves). plane: of the page.
template <int SET> struct value_lane {
    int word, shift;
    uint32_t bytes;
    __host__ __device__ inline value_lane(int r) {
        constexpr int bits = bits_of_set(SET);
        word = bits == 1 ? 0 : bits == 2 ? r / 4 : bits == 4 ? r / 2 : bits == 8 ? r : 2 * r;
        const int byte = SET == LOW_2    ? r % 4
                         : SET == HIGH_3 ? 2 * (r % 4 / 2) + r / 4
                         : SET == HIGH_5 ? 2 * (r % 2) + r / 4
                         : SET == HIGH_6 ? 2 * (r % 2) + r / 2 % 2
                         : SET == LOW_4  ? 2 * (r % 2)
                                         : 0;
        const uint32_t two = (uint32_t)(byte | (bits > 2 ? byte + 1 : byte) << 4);
        bytes = two | (two + 0x44) << 8;
        shift = SET == HIGH_3 ? 4 * (r % 2) : SET == HIGH_5 ? 4 * (r / 2 % 2) : 0;
    }
    __host__ __device__ inline void pairs(const uint32_t *plane, int g, int t, int u,
                                          uint32_t x[4]) const {
        constexpr int bits = bits_of_set(SET), words = DIM * bits / 32;
        const uint32_t *a = plane + t * words + g * (words / 2) + word;
        const uint32_t *b = plane + u * words + g * (words / 2) + word;
        if (SET == HALVES) {
            const uint2 at = *(const uint2 *)a, bt = *(const uint2 *)b;
            x[0] = pick_bytes(at.x, bt.x, 0x5410);
            x[1] = pick_bytes(at.x, bt.x, 0x7632);
            x[2] = pick_bytes(at.y, bt.y, 0x5410);
            x[3] = pick_bytes(at.y, bt.y, 0x7632);
            return;
        }
        const uint32_t both = pick_bytes(*a, *b, bytes) >> (bits == 1 ? shift : 0);
        const uint32_t more = bits == 8 ? pick_bytes(*a, *b, 0x7632) : both;
        for (int j = 0; j < 4; j++) {
            if (bits <= 2)
                x[j] = both & pair_mask(bits, bits * j);
            else if (bits == 4)
                x[j] = (j < 2 ? both : both >> 8) & pair_mask(4, 4 * (j % 2));
            else
                x[j] = (j < 2 ? both : more) >> 8 * (j % 2) & pair_mask(8, 0);
        }
    }
};
__host__ __device__ static inline int value_place(int set, int j) {
    return key_place(set, j);
}

#endif
