// SPDX-License-Identifier: Apache-2.0
// XXH64 and its spelling.
#include "sim/base/hash.h"

#include <stdio.h>
#include <xxhash.h>

uint64_t kv_hash(const void *data, size_t n, uint64_t seed) {
    return XXH64(data, n, seed);
}

void kv_hex64(uint64_t h, char out[17]) {
    snprintf(out, 17, "%016llx", (unsigned long long)h);
}
