// SPDX-License-Identifier: Apache-2.0
// Bit packing in plain C: eight codes of b bits are b bytes, so the stream is cut there.
#include "sim/quant/pack.h"

void kv_pack(const uint8_t *codes, size_t n, unsigned bits, uint8_t *out) {
    if (bits == 8) {
        memcpy(out, codes, n);
        return;
    }
    for (size_t i = 0; i < n; i += 8, out += bits) {
        size_t here = n - i < 8 ? n - i : 8, bytes = kv_packed_bytes(here, bits);
        uint64_t word = 0;
        for (size_t k = 0; k < here; k++) word |= (uint64_t)codes[i + k] << (k * bits);
        for (size_t k = 0; k < bytes; k++) out[k] = (uint8_t)(word >> (8 * k));
    }
}

void kv_unpack(const uint8_t *in, size_t n, unsigned bits, uint8_t *codes) {
    if (bits == 8) {
        memcpy(codes, in, n);
        return;
    }
    uint64_t mask = (1u << bits) - 1u;
    for (size_t i = 0; i < n; i += 8, in += bits) {
        size_t here = n - i < 8 ? n - i : 8, bytes = kv_packed_bytes(here, bits);
        uint64_t word = 0;
        for (size_t k = 0; k < bytes; k++) word |= (uint64_t)in[k] << (8 * k);
        for (size_t k = 0; k < here; k++) codes[i + k] = (uint8_t)(word >> (k * bits) & mask);
    }
}

// Halves go through a small aligned buffer when the address is odd, so that no store is misaligned.
enum { HALVES = 128 };

void kv_put_halves(const float *x, size_t n, uint8_t *out) {
    uint16_t h[HALVES];
    for (size_t i = 0; i < n; i += HALVES) {
        size_t here = n - i < HALVES ? n - i : HALVES;
        kv_f32_to_f16_n(x + i, h, here);
        memcpy(out + 2 * i, h, 2 * here);
    }
}

void kv_get_halves(const uint8_t *in, size_t n, float *y) {
    uint16_t h[HALVES];
    for (size_t i = 0; i < n; i += HALVES) {
        size_t here = n - i < HALVES ? n - i : HALVES;
        memcpy(h, in + 2 * i, 2 * here);
        kv_f16_to_f32_n(h, y + i, here);
    }
}
