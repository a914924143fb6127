// SPDX-License-Identifier: Apache-2.0
// Weight matrices: memory, coding, and the choice of the product kernel.
#include "sim/cache/gemv.h"
#include "sim/base/isa.h"
#include "sim/base/cpu.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/cache/gemv_isa.h"

#include <stdlib.h>
#include <sys/mman.h>

const char *const kv_weight_kind_names[] = {"f32", "bf16", "q8", "q4", NULL};

static unsigned bits_of(enum kv_weight_kind kind) {
    return kind == KV_W_Q8 ? 8 : kind == KV_W_Q4 ? 4 : 0;
}

void kv_weights_init(struct kv_weights *w, enum kv_weight_kind kind, size_t rows, size_t cols) {
    size_t padded = (rows + KV_ROW_TILE - 1) / KV_ROW_TILE * KV_ROW_TILE;
    unsigned bits = bits_of(kind);
    *w = (struct kv_weights){.kind = kind, .rows = rows, .cols = cols};
    w->bytes = bits ? padded / KV_ROW_TILE * (cols / KV_WEIGHT_GROUP) * kv_group_bytes(bits)
                    : padded * cols * (kind == KV_W_F32 ? 4 : 2);
    w->data = kv_alloc(w->bytes, 1);
#if defined(MADV_HUGEPAGE)
    uintptr_t at = ((uintptr_t)w->data + 4095) & ~(uintptr_t)4095;
    madvise((void *)at, w->bytes - (at - (uintptr_t)w->data), MADV_HUGEPAGE);
#endif
}

void kv_weights_fini(struct kv_weights *w) {
    free(w->data);
    *w = (struct kv_weights){0};
}

// One group of one row: scale max|x| / (2^(b-1) - 1), codes to nearest, stored with 2^(b-1) added.
static void put_group(uint8_t *group, unsigned bits, size_t lane, const float *x) {
    float largest = 0, levels = (float)((1 << (bits - 1)) - 1);
    for (size_t i = 0; i < KV_WEIGHT_GROUP; i++) largest = fmaxf(largest, fabsf(x[i]));
    uint16_t half = kv_f32_to_f16(largest / levels);
    float scale = kv_f16_to_f32(half), inverse = scale > 0 ? 1 / scale : 0;
    ((uint16_t *)(group + bits * KV_ROW_TILE * 4))[lane] = half;
    size_t per_word = 32 / bits;
    for (size_t word = 0; word < bits; word++) {
        uint32_t v = 0;
        for (size_t i = 0; i < per_word; i++) {
            float q = fminf(fmaxf(rintf(x[word * per_word + i] * inverse), -levels), levels);
            v |= (uint32_t)((int)q + (1 << (bits - 1))) << bits * i;
        }
        ((uint32_t *)group)[word * KV_ROW_TILE + lane] = v;
    }
}

void kv_weights_put(struct kv_weights *w, size_t first, size_t n, const float *x) {
    unsigned bits = bits_of(w->kind);
    size_t groups = w->cols / KV_WEIGHT_GROUP;
    for (size_t r = first; r < first + n; r++, x += w->cols) {
        if (w->kind == KV_W_F32) memcpy((float *)w->data + r * w->cols, x, w->cols * sizeof *x);
        if (w->kind == KV_W_BF16)
            for (size_t i = 0; i < w->cols; i++)
                ((uint16_t *)w->data)[r * w->cols + i] = kv_f32_to_bf16(x[i]);
        for (size_t g = 0; bits && g < groups; g++)
            put_group((uint8_t *)w->data + (r / KV_ROW_TILE * groups + g) * kv_group_bytes(bits),
                      bits, r % KV_ROW_TILE, x + g * KV_WEIGHT_GROUP);
    }
}

KV_ISA_TABLE(kv_integers_fn *, integers_at, kv_integers)

void kv_activation_set(struct kv_activation *a, enum kv_weight_kind kind, const float *x,
                       size_t cols) {
    unsigned bits = bits_of(kind);
    a->x = x;
    if (!bits) return;
    size_t half = 16 / bits;
    for (size_t g = 0; g < cols; g += KV_INTEGERS) {
        if (g == 0) a->scale = integers_at[kv_cpu_level()](NULL, x, cols, 0);
        int32_t code[KV_INTEGERS];
        size_t n = cols - g < KV_INTEGERS ? cols - g : KV_INTEGERS;
        integers_at[kv_cpu_level()](code, x + g, n, a->scale);
        for (size_t i = 0; i < n; i += KV_WEIGHT_GROUP) {
            const int32_t *c = code + i;
            int32_t sum = 0, *pair = a->pair + (g + i) / 2;
            for (size_t k = 0; k < KV_WEIGHT_GROUP; k++) sum += c[k];
            a->sum[(g + i) / KV_WEIGHT_GROUP] = sum;
            for (size_t k = 0; k < KV_WEIGHT_GROUP; k += 2 * half)
                for (size_t p = 0; p < half; p++)
                    *pair++ = (int32_t)((uint32_t)c[k + p] & 0xFFFF) |
                              (int32_t)((uint32_t)c[k + p + half] << 16);
        }
    }
}

KV_ISA_TABLE(kv_gemv_fn *, f32_at, kv_gemv_f32)
KV_ISA_TABLE(kv_gemv_fn *, bf16_at, kv_gemv_bf16)
KV_ISA_TABLE(kv_gemv_fn *, q8_at, kv_gemv_q8)
KV_ISA_TABLE(kv_gemv_fn *, q4_at, kv_gemv_q4)

void kv_gemv(const struct kv_weights *w, const struct kv_activation *a, size_t first, size_t end,
             float *y) {
    static kv_gemv_fn *const *const tables[] = {f32_at, bf16_at, q8_at, q4_at};
    tables[w->kind][kv_cpu_level()](w, a, first, end, y);
}

KV_ISA_TABLE(kv_read_fn *, read_at, kv_read)

uint64_t kv_stream_read(const void *p, size_t n_bytes) {
    return read_at[kv_cpu_level()](p, n_bytes);
}
