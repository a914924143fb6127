// SPDX-License-Identifier: Apache-2.0
// Buffers that end where memory ends: a read or write past them stops the test.
#ifndef KV_QUANT_TEST_GUARD_H
#define KV_QUANT_TEST_GUARD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

struct guard {
    uint8_t *base;
    size_t room, page;
};

static inline int guard_open(struct guard *g, size_t bytes) {
    g->page = (size_t)sysconf(_SC_PAGESIZE);
    g->room = (bytes + g->page - 1) / g->page * g->page;
    g->base =
        mmap(NULL, g->room + g->page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g->base == MAP_FAILED) return -1;
    return mprotect(g->base + g->room, g->page, PROT_NONE);
}

static inline void guard_close(struct guard *g) {
    munmap(g->base, g->room + g->page);
}

// The last `bytes` before the unreadable page.
static inline void *guard_end(const struct guard *g, size_t bytes) {
    return g->base + g->room - bytes;
}

#endif
