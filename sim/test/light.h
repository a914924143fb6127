// SPDX-License-Identifier: Apache-2.0
// For tests that do less where a sanitizer makes each step ten times as dear (`make sanitize`).
#ifndef KV_TEST_LIGHT_H
#define KV_TEST_LIGHT_H

#include <stdbool.h>
#include <stdlib.h>

static inline bool light_testing(void) {
    return getenv("KVSIM_TEST_LIGHT") != NULL;
}

#endif
