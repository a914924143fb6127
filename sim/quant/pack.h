// SPDX-License-Identifier: Apache-2.0
// Bytes of a code block: little-endian bit streams of any width, and halves at any address.
//
//     kv_pack(codes, n, 3, out);      value i takes bits [3 i, 3 i + 3) of the stream, lowest first
//     kv_unpack(out, n, 3, codes);
#ifndef KV_QUANT_PACK_H
#define KV_QUANT_PACK_H

#include "sim/base/half.h"

// Bytes that n codes of `bits` (1..8) take; the last byte's spare bits are zero.
static inline size_t kv_packed_bytes(size_t n, unsigned bits) {
    return (n * bits + 7) / 8;
}

// Packs n codes below 2^bits, writing exactly kv_packed_bytes(n, bits) bytes. Thread-safe.
void kv_pack(const uint8_t *codes, size_t n, unsigned bits, uint8_t *out);
// The other way; reads exactly kv_packed_bytes(n, bits) bytes.
void kv_unpack(const uint8_t *in, size_t n, unsigned bits, uint8_t *codes);

// 16- and 32-bit numbers of the layout, little-endian whatever the machine and the address.
static inline void kv_put16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}
static inline uint16_t kv_get16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}
static inline void kv_put32(uint8_t *p, uint32_t v) {
    kv_put16(p, (uint16_t)v);
    kv_put16(p + 2, (uint16_t)(v >> 16));
}
static inline uint32_t kv_get32(const uint8_t *p) {
    return kv_get16(p) | (uint32_t)kv_get16(p + 2) << 16;
}
static inline void kv_put_half(uint8_t *p, float x) {
    kv_put16(p, kv_f32_to_f16(x));
}
static inline float kv_get_half(const uint8_t *p) {
    return kv_f16_to_f32(kv_get16(p));
}

// Vectors of halves: what "16 bits" means in every format.
void kv_put_halves(const float *x, size_t n, uint8_t *out);
void kv_get_halves(const uint8_t *in, size_t n, float *y);

#endif
