// SPDX-License-Identifier: Apache-2.0
// The Walsh-Hadamard rotation, written so that compilers vectorize every stage alike.
#include "sim/quant/rotate.h"
#include "sim/base/isa.h"

#include <math.h>

// Combines the index's highest bit and makes it the lowest: after log2(n) stages all bits have been
// combined, from the highest down, and stand where they stood.
static void stage(const float *restrict x, float *restrict y, size_t half, float scale) {
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        y[2 * i] = (a + b) * scale;
        y[2 * i + 1] = (a - b) * scale;
    }
}

void KV_ISA_NAME(kv_rotate)(float *x, size_t n, size_t size) {
    float buffer[KV_MAX_ROTATION];
    const float scale = 1.0f / sqrtf((float)size);
    if (size < 2) return;
    for (size_t at = 0; at < n; at += size) {
        float *from = x + at, *to = buffer;
        for (size_t rest = size; rest > 1; rest /= 2) {
            stage(from, to, size / 2, rest == 2 ? scale : 1.0f);
            float *swap = from;
            from = to, to = swap;
        }
        for (size_t i = 0; from == buffer && i < size; i++) x[at + i] = buffer[i];
    }
}
