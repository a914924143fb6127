// SPDX-License-Identifier: Apache-2.0
// A file of a test program's own, which each of its tests writes anew.
#ifndef KV_COST_TEST_OWN_FILE_H
#define KV_COST_TEST_OWN_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char path[] = "/tmp/kvsim-cost-XXXXXX";

static int make_file(void **state) {
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state) {
    (void)state;
    return remove(path);
}

#endif
