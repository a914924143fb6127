// SPDX-License-Identifier: Apache-2.0
// The formats that a GPU runs, by one thread of this machine: the same source, so that no GPU is
// needed to hold it against sim/quant, byte for byte.
#include "sim/cuda/formats/judge.cuh"

extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
}

struct one_thread {
    void units(const kv_plain_format &f, uint32_t side, uint32_t width, size_t n, const float *x,
               float *y, uint8_t *code, uint8_t *bytes) {
        const kv_plain_width &w = f.at[side][width];
        memcpy(y, x, n * w.values * sizeof *y);
        for (size_t u = 0; u < n; u++)
            kv_code_unit(KvAlone(), w, y + u * w.values, code + u * w.values, bytes + u * w.bytes);
    }
    void rows(const std::vector<kv_plain_format> &f, const std::vector<float> &turns,
              uint32_t positions, KvCode &job, const std::vector<KvBranch> &branches) {
        const uint32_t d = f[0].head_dim, dim = f[0].n_kv_heads * d;
        uint32_t floats = 0, zero_floats = 0;
        for (const kv_plain_format &p : f) {
            floats = kv_team_floats(&p) > floats ? kv_team_floats(&p) : floats;
            zero_floats = kv_zero_floats(&p) > zero_floats ? kv_zero_floats(&p) : zero_floats;
        }
        std::vector<float> zeros((size_t)job.rows * f[0].n_kv_heads * zero_floats);
        std::vector<double> memory(kv_rows_room(dim, floats, 1, true, true) / 8 + 1);
        job.zeros = zeros.data();
        for (const KvBranch &b : branches)
            kv_code_branch(KvLoneBlock(), job, &f[b.format],
                           &turns[(size_t)job.layer * positions * d], b, floats, true,
                           memory.data());
    }
};

static void test_units(void **) {
    one_thread device;
    const uint32_t dims[] = {32, 64, 128, 96};
    std::string why = kv_judge_all_units(device, 5, 4, dims);
    if (!why.empty()) fail_msg("%s", why.c_str());
}

static void test_rows(void **) {
    one_thread device;
    std::string why = kv_judge_all_rows(device);
    if (!why.empty()) fail_msg("%s", why.c_str());
}

static void test_vectors(void **) {
    one_thread device;
    size_t n;
    std::string why = kv_judge_vectors(device, "sim/test/conformance", &n);
    if (!why.empty()) fail_msg("%s", why.c_str());
    assert_true(n > 50);
}

static void test_every_format(void **) {
    for (size_t i = 0; kv_format_type_at(i); i++) {
        if (!kv_format_type_at(i)->plain) continue; // no device is offered it
        bool judged = false;
        const char *name = kv_format_type_at(i)->name;
        for (const char *text : kv_judged_specs)
            judged |= strncmp(text, name, strlen(name)) == 0 &&
                      !strchr("_0123456789abcdefghijklmnopqrstuvwxyz-",
                              text[strlen(name)] ? text[strlen(name)] : ':');
        if (!judged) fail_msg("no test codes format %s as a device does", name);
    }
}

static void test_refused(void **) {
    one_thread device;
    KvOpened s("sym:group=layer", 1, 2, 64, KV_ORDER_GGML, 1e4, 8);
    std::vector<float> x(3 * 128, 1.5f), y(x.size());
    std::vector<uint8_t> cells = {0, 0, 0, 0, 1, 0,
                                  1, 0, 1, 0, 2, 0}; // keys of the last row differ
    uint32_t bad = 0;
    KvCode job = {};
    job.x = x.data(), job.y = y.data(), job.cells = cells.data(), job.bad = &bad, job.rows = 3;
    device.rows({s.plain}, s.turns, 8, job, {KvBranch{0, 3, 0, 0, 0, 3, 0}});
    assert_int_equal(bad, 3);
    cells = {0, 0, 0, 0, 77, 0, 77, 0, 1, 0, 1, 0}; // no width of the format
    bad = 0;
    job.cells = cells.data();
    device.rows({s.plain}, s.turns, 8, job, {KvBranch{0, 3, 0, 0, 0, 3, 0}});
    assert_int_equal(bad, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"units of every format have the bytes and values of sim/quant", test_units, 0, 0, 0},
        {"rows of branches of several formats in one batch are those of kv_code_rows, twice",
         test_rows, 0, 0, 0},
        {"the conformance vectors hold", test_vectors, 0, 0, 0},
        {"every format that a device is offered is among those judged", test_every_format, 0, 0, 0},
        {"a decision that cannot be coded is refused by its row", test_refused, 0, 0, 0},
    };
    return cmocka_run_group_tests_name("device formats", tests, NULL, NULL);
}
