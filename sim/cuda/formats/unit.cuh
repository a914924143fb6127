// SPDX-License-Identifier: Apache-2.0
// A unit coded and read back in place by a team, whatever its format, and its bytes where wanted.
#ifndef KV_CUDA_FORMATS_UNIT_CUH
#define KV_CUDA_FORMATS_UNIT_CUH

#include "sim/cuda/formats/blocks.cuh"
#include "sim/cuda/formats/levels.cuh"

// One bit stream of n codes (kv_pack): a lane makes every so many-th byte.
template <class T>
KV_BOTH void kv_pack_codes(const T &t, const uint8_t *code, uint32_t n, uint32_t bits,
                           uint8_t *out) {
    for (uint32_t k = t.lane(); k < (n * bits + 7) / 8; k += t.size()) {
        uint32_t byte = 0;
        for (uint32_t b = 0; b < 8; b++) {
            uint32_t bit = 8 * k + b, i = bit / bits;
            if (i < n) byte |= (uint32_t)(code[i] >> (bit - i * bits) & 1) << b;
        }
        out[k] = (uint8_t)byte;
    }
}

template <class T>
KV_BOTH void kv_sixteen_unit(const T &t, const kv_plain_width &w, float *x, uint8_t *out) {
    for (uint32_t i = t.lane(); i < w.values; i += t.size()) {
        uint32_t h, u = kv_bits(x[i]);
        if (w.rule == KV_PLAIN_BF16) {
            bool nan = (u & 0x7FFFFFFFu) > 0x7F800000u;
            h = nan ? (u >> 16) | 0x40u : (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
            x[i] = kv_float(h << 16);
            if (out) kv_put_16(out + 2 * i, h);
        } else {
            if (out) kv_put_16(out + 2 * i, kv_to_half(x[i]));
            x[i] = kv_halved(x[i]);
        }
    }
}

// x[values] becomes what is read back, code[values] one code a value (below 16 bits). out: NULL, or
// room for the unit's bytes. What a lane reads of x afterwards, another may have written: sync.
template <class T>
KV_BOTH void kv_code_unit(const T &t, const kv_plain_width &w, float *x, uint8_t *code,
                          uint8_t *out) {
    if (w.rule == KV_PLAIN_HALF || w.rule == KV_PLAIN_BF16) {
        kv_sixteen_unit(t, w, x, out);
        return;
    }
    for (uint32_t r = 0; r < w.n_rotations; r++)
        kv_turn_about(t, x, w.values, w.rotation[r], w.rotation_scale[r]);
    switch (w.rule) {
    case KV_PLAIN_GRID:
        kv_grid_unit(t, w, x, code, out);
        break;
    case KV_PLAIN_OUTLIERS:
        kv_outliers_unit(t, w, x, code, out);
        break;
    case KV_PLAIN_LEVELS:
        kv_levels_unit(t, w, x, code, out);
        break;
    case KV_PLAIN_NORM:
        kv_norm_unit(t, w, x, code, out);
        break;
    case KV_PLAIN_SMALL:
        kv_small_unit(t, w, x, code, out);
        break;
    case KV_PLAIN_BLOCKS:
        kv_blocks_unit(t, w, x, code, out);
        break;
    default:
        break;
    }
    t.sync();
    if (out && w.rule != KV_PLAIN_BLOCKS)
        kv_pack_codes(t, code, w.values, w.bits, out + w.meta_bytes);
    for (uint32_t r = w.n_rotations; r > 0; r--)
        kv_turn_about(t, x, w.values, w.rotation[r - 1], w.rotation_scale[r - 1]);
}

#endif
