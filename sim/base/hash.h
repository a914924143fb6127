// SPDX-License-Identifier: Apache-2.0
// Checksums, and how they are spelled.
#ifndef KV_BASE_HASH_H
#define KV_BASE_HASH_H

#include "policies/policy.h"

uint64_t kv_hash(const void *data, size_t n, uint64_t seed); // XXH64
void kv_hex64(uint64_t h, char out[17]);

#endif
