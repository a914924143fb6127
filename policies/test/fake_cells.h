// SPDX-License-Identifier: Apache-2.0
// Weight files of policy cells with made-up numbers, for tests.
#ifndef KV_POLICIES_TEST_FAKE_CELLS_H
#define KV_POLICIES_TEST_FAKE_CELLS_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "policies/cells_weights.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/model/safetensors.h"

enum { FAKE_HIDDEN = 16, FAKE_BUDGETS = 9 };

// What a file says of itself; sizes of its tensors follow.
struct fake_cells {
    struct kv_shape shape;
    const char *inputs, *digest;
    size_t n_token;
    bool attention, probe, net, spread;
    uint64_t seed;
};

struct fake_file {
    struct kv_tensor t[32];
    size_t n;
};

static inline void fake_tensor(struct fake_file *f, const char *name, size_t rows, size_t columns) {
    struct kv_tensor *t = &f->t[f->n++];
    *t = (struct kv_tensor){.dtype = "F32", .n_dims = columns ? 2 : 1, .dims = {rows, columns}};
    snprintf(t->name, sizeof t->name, "%s", name);
}

// The number at place i of a tensor: budgets and deviations have a form of their own.
static inline float fake_number(const struct fake_cells *c, const char *name, size_t i) {
    double u =
        2 * kv_draw(c->seed, strlen(name) * 131 + (size_t)name[0] + (size_t)name[strlen(name) - 1],
                    i) -
        1;
    if (strcmp(name, "budget.lambda") == 0) return (float)pow(4, (double)i - 8);
    if (strcmp(name, "budget.bits") == 0) return (float)(9 - 0.7 * (double)i);
    if (strcmp(name, "budget.step_bits") == 0)
        return (float)(9 - 0.7 * (double)(i / (4 * c->shape.n_layers)) + 0.2 * u);
    if (strcmp(name, "spread") == 0) // of each layer and step, log losses from -1 to 10
        return (float)(i % KV_CELLS_QUANTILES) - 1;
    if (strcmp(name, "spread.ratio") == 0) { // halving a step quarters a loss
        static const double width[] = {2, 3, 4, 5, 6, 8};
        return (float)((4 - width[i % 6]) * log(4));
    }
    if (strcmp(name, "table") == 0) // what comes first loses more
        return (float)(4 * u - 2 * (double)(i / (2 * c->shape.n_layers * c->shape.n_kv_heads)));
    if (strstr(name, "deviation") || strcmp(name, "channel") == 0) return (float)(1 + 0.5 * u);
    return (float)(strcmp(name, "probe") == 0 ? 0.1 * u : u);
}

// Writes the file at `path`.
static inline void write_cells(const char *path, const struct fake_cells *c) {
    const struct kv_shape *s = &c->shape;
    size_t heads = (size_t)s->n_layers * s->n_kv_heads, places = 2 * heads,
           n_x = c->n_token + (c->attention ? KV_N_CELL_FEATURES : 0);
    struct fake_file f = {.n = 0};
    fake_tensor(&f, "channel", places, s->head_dim);
    fake_tensor(&f, "bias", places, 0);
    if (n_x) fake_tensor(&f, "linear", places, n_x);
    if (c->probe) fake_tensor(&f, "probe", places, s->hidden);
    if (c->net) {
        fake_tensor(&f, "embedding", places, 8);
        fake_tensor(&f, "net.0.weight", FAKE_HIDDEN, n_x + 8);
        fake_tensor(&f, "net.0.bias", FAKE_HIDDEN, 0);
        fake_tensor(&f, "net.2.weight", FAKE_HIDDEN, FAKE_HIDDEN);
        fake_tensor(&f, "net.2.bias", FAKE_HIDDEN, 0);
        fake_tensor(&f, "net.4.weight", 1, FAKE_HIDDEN);
        fake_tensor(&f, "net.4.bias", 1, 0);
    }
    if (c->attention) {
        fake_tensor(&f, "attention.mean", heads, KV_N_CELL_FEATURES);
        fake_tensor(&f, "attention.deviation", heads, KV_N_CELL_FEATURES);
    }
    if (c->n_token) {
        fake_tensor(&f, "token.mean", c->n_token, 0);
        fake_tensor(&f, "token.deviation", c->n_token, 0);
    }
    fake_tensor(&f, "budget.lambda", FAKE_BUDGETS, 0);
    fake_tensor(&f, "budget.bits", FAKE_BUDGETS, 0);
    fake_tensor(&f, "budget.step_bits", FAKE_BUDGETS, 4 * s->n_layers);
    if (c->spread) {
        fake_tensor(&f, "spread", 12, KV_CELLS_QUANTILES * s->n_layers);
        fake_tensor(&f, "spread.ratio", 3, 6);
        fake_tensor(&f, "table", KV_CELLS_CLASSES, places);
    }
    const char *const meta[] = {"format",        "kvsim-cells 1",  "inputs",        c->inputs,
                                "grain",         "cell",           "widths",        "2/3/4/5/6/8",
                                "cache_formats", "asym:group=32",  "overhead_bits", "1",
                                "model_name",    "made by a test", "model_digest",  c->digest};
    char *header;
    size_t n_header;
    uint64_t total;
    struct kv_error e;
    assert_int_equal(kv_safetensors_layout(f.t, f.n, meta, sizeof meta / sizeof *meta / 2, &header,
                                           &n_header, &total, &e),
                     0);
    uint8_t *file = kv_alloc(total, 1);
    memcpy(file, header, n_header);
    for (size_t i = 0; i < f.n; i++) {
        size_t n = f.t[i].dims[0] * (f.t[i].n_dims == 2 ? f.t[i].dims[1] : 1);
        for (size_t k = 0; k < n; k++) {
            float x = fake_number(c, f.t[i].name, k);
            memcpy(file + f.t[i].offset + 4 * k, &x, sizeof x);
        }
    }
    assert_int_equal(kv_write_file(path, file, total, &e), 0);
    free(file);
    free(header);
}

static inline void cells_path(char *path, size_t room) {
    snprintf(path, room, "/tmp/kvsim-cells-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

#endif
