// SPDX-License-Identifier: Apache-2.0
// Files of the repository that travel inside the program, by their path
// ("sim/store/schema.sql").
#ifndef KV_BASE_ASSETS_H
#define KV_BASE_ASSETS_H

#include <stddef.h>

struct kv_asset {
    const char *path;
    const unsigned char *data; // NUL-terminated; n does not count the NUL
    size_t n;
};

// NULL when no such file was embedded.
const struct kv_asset *kv_asset_find(const char *path);
// All of them in order of their paths, for listings; NULL past the end.
const struct kv_asset *kv_asset_at(size_t i);

#endif
