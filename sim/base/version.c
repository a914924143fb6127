// SPDX-License-Identifier: Apache-2.0
// Which kvsim was linked.
#include "sim/base/version.h"

const char *kv_version(void) {
    return KV_VERSION;
}
