// SPDX-License-Identifier: Apache-2.0
// Stands in for a GPU: a library of matrix products in plain loops, to be built by accelerator.sh.
// As a GPU's library does, it chooses the order of its sums by the shape of a product.
#include "sim/model/accelerator.h"

#include <stdio.h>

#ifndef ABI
#define ABI KV_ACCELERATOR_ABI
#endif

static size_t held;

static int start(char *why, size_t room) {
#ifdef NO_DEVICE
    snprintf(why, room, "no CUDA-capable device is detected");
    return 1;
#else
    (void)why, (void)room;
    return 0;
#endif
}

static int hold(const float *w, size_t n) {
    (void)w;
    held += n;
    return 0;
}

static int multiply(bool transposed, size_t rows, size_t n, size_t k, const float *x,
                    const float *w, float *y, char *why, size_t room) {
    (void)why, (void)room;
    size_t apart = 1 + rows % 7;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i++) {
            float sum = 0;
            for (size_t first = 0; first < apart; first++)
                for (size_t j = first; j < k; j += apart)
                    sum += x[r * k + j] * (transposed ? w[i * k + j] : w[j * n + i]);
            y[r * n + i] = sum;
        }
    return 0;
}

static void stop(void) {
    fprintf(stderr, "held %zu values\n", held);
}

const struct kv_accelerator *kv_accelerator_entry(uint32_t abi);
const struct kv_accelerator *kv_accelerator_entry(uint32_t abi) {
    static const struct kv_accelerator loops = {ABI,   "loops", "plain loops", 4096,
                                                start, hold,    multiply,      stop};
    return abi == ABI ? &loops : NULL;
}
