// SPDX-License-Identifier: Apache-2.0
// Weight files of made-up networks for tests of policy mlp.
#ifndef KV_POLICIES_TEST_FAKE_NET_H
#define KV_POLICIES_TEST_FAKE_NET_H

#include "policies/test/fake_item.h"
#include "sim/model/safetensors.h"

#include <unistd.h>

static const char *const tensor_names[] = {"0.weight", "0.bias",   "2.weight",
                                           "2.bias",   "4.weight", "4.bias"};

// Writes a network of the given widths whose numbers `at(layer, bias, row, column)` gives, and
// which says that it reads `inputs` (NULL: says nothing).
static inline void write_net_for(const char *path, const size_t width[4],
                                 float (*at)(size_t, bool, size_t, size_t), const char *inputs) {
    struct kv_tensor t[6];
    const char *const meta[] = {"note", "made by a test: {\"a\": [1, 2]}", "inputs", inputs};
    char *header;
    size_t n_header;
    uint64_t total;
    struct kv_error e;
    for (size_t i = 0; i < 6; i++) {
        t[i] = (struct kv_tensor){.dtype = "F32",
                                  .n_dims = i % 2 ? 1 : 2,
                                  .dims = {width[i / 2 + 1], i % 2 ? 0 : width[i / 2]}};
        snprintf(t[i].name, sizeof t[i].name, "%s", tensor_names[i]);
    }
    assert_int_equal(
        kv_safetensors_layout(t, 6, meta, inputs ? 2 : 1, &header, &n_header, &total, &e), 0);
    uint8_t *file = kv_alloc(total, 1);
    memcpy(file, header, n_header);
    for (size_t i = 0; i < 6; i++) {
        float *to = (float *)(void *)(file + t[i].offset);
        size_t columns = i % 2 ? 1 : width[i / 2];
        for (size_t r = 0; r < width[i / 2 + 1]; r++)
            for (size_t c = 0; c < columns; c++) to[r * columns + c] = at(i / 2, i % 2, r, c);
    }
    assert_int_equal(kv_write_file(path, file, total, &e), 0);
    free(file);
    free(header);
}

static inline void write_net(const char *path, const size_t width[4],
                             float (*at)(size_t, bool, size_t, size_t)) {
    write_net_for(path, width, at, NULL);
}

static inline float noise(size_t layer, bool bias, size_t r, size_t c) {
    return (float)(2 * kv_draw(9, layer * 2 + bias, r * 1000 + c) - 1);
}

static inline void make_path(char *path, size_t room) {
    snprintf(path, room, "/tmp/kvsim-mlp-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

#endif
