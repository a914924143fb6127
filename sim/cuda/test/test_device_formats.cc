// SPDX-License-Identifier: Apache-2.0
// The formats that a GPU runs against those of sim/quant, byte for byte: the same source, by one
// thread, so that no GPU is needed.
#include "sim/cuda/formats/rows.cuh"

extern "C" {
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/quant/code.h"
#include "sim/quant/pack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
}
#include <stdlib.h>
#include <vector>

static const char *const specs[] = {
    "sym",
    "sym:group=16",
    "sym:group=layer",
    "sym:scale=fp32",
    "sym:levels=max3",
    "asym",
    "asym:group=32,sinks=2",
    "asym:group=layer",
    "asym:scale=fp32,window=5",
    "asym:order=hf",
    "asym-zp",
    "asym-zp:way=rotatekv,clip=0.9",
    "asym-zp:group=layer",
    "asym-zp:order=ggml",
    "kivi:group=8,residual=8",
    "kivi:group=4,residual=16,sinks=3",
    "qaq",
    "qaq:outliers=0",
    "qaq:group=layer",
    "qaq:outliers=0.2",
    "rotatekv",
    "rotatekv:heads=2,clip=0.7",
    "turbo",
    "nf4",
    "nf4:group=16",
    "nf4:group=layer",
    "fp8_e4m3",
    "fp8_e4m3:scale=head",
    "fp8_e5m2",
    "fp8_e5m2:scale=head",
    "fp16",
    "bf16",
    "ggml",
    "ggml:types=1",
    "ggml:types=nl",
    "q8_0",
    "q5_0",
    "q5_1",
    "q4_0",
    "q4_1",
    "iq4_nl",
    "hadamard(q4_0)",
    "hadamard(asym:group=16)",
    "hadamard(kivi:group=4,residual=4)",
    "hadamard(hadamard(sym:group=layer))",
    "hadamard(rotatekv:heads=2)",
    "hadamard(turbo)",
    "hadamard(sym):sides=k",
    "center(asym)",
    "center(q4_0):tokens=5,sides=both",
    "center(sym:sinks=1):side=pre,tokens=7",
    "center(hadamard(q8_0)):sides=v",
    "center(asym:group=layer):tokens=100",
    "center(asym-zp):side=pre",
    "center(rotatekv):side=pre",
    "hqq",
    "hqq:group=16,steps=3",
    "hqq:order=ggml,group=2",
    "hqq:steps=0,sinks=3",
    "hadamard(hqq)",
    "zipcache",
    "zipcache:gap=3",
    "zipcache:gap=2,sinks=2",
};

enum { HEADS = 4, LAYERS = 2, ROWS = 37, POSITIONS = 64 };

static uint64_t random_state = 1;
static uint32_t random_bits() {
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 32);
}
static float uniform() {
    return (float)(random_bits() >> 8) * 0x1p-24f - 0.5f;
}

// What values look like: usual, on rounding boundaries, constant, one outlier, subnormal, huge,
// zeros of both signs, any bits that are a number.
enum { KINDS = 9 };
static float value_of(uint32_t kind, size_t i) {
    switch (kind) {
    case 0:
        return uniform() + uniform() + uniform();
    case 1:
        return (float)(int)(random_bits() % 64) * 0.5f - 16.0f;
    case 2:
        return 3.25f;
    case 3:
        return i % 61 == 7 ? 300.0f * uniform() : uniform();
    case 4:
        return uniform() * 1e-39f;
    case 5:
        return uniform() * 1e7f;
    case 6:
        return random_bits() & 1 ? 0.0f : -0.0f;
    case 7:
        return uniform() * 4e-5f;
    default: {
        float x = kv_float(random_bits());
        return x == x && fabsf(x) < 3e38f ? x : 1.0f;
    }
    }
}

struct open_spec {
    kv_format *f;
    kv_plain_format plain;
    std::vector<double> angles;
    std::vector<float> turns;
    explicit open_spec(const char *text, uint32_t d, kv_order order) {
        kv_error e = {};
        for (uint32_t l = 0; l < LAYERS; l++)
            for (uint32_t i = 0; i < d / 2; i++)
                angles.push_back(pow(10000.0 + 5000.0 * l, -2.0 * i / d));
        turns.resize((size_t)LAYERS * POSITIONS * d);
        for (uint32_t l = 0; l < LAYERS; l++)
            kv_plain_turns(&angles[l * (d / 2)], d, POSITIONS, &turns[(size_t)l * POSITIONS * d]);
        kv_format_setting s = {};
        s.shape.n_layers = LAYERS;
        s.shape.n_heads = s.shape.n_kv_heads = HEADS;
        s.shape.head_dim = d;
        s.order = order;
        s.rope = angles.data();
        if (kv_format_open(&f, text, &s, &e)) fail_msg("%s: %s", text, e.msg);
        if (kv_format_plain(f, &plain, &e)) fail_msg("%s: %s", text, e.msg);
    }
    ~open_spec() { kv_format_close(f); }
};

static void same_bits(const char *spec, const char *what, uint32_t kind, const float *a,
                      const float *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (kv_bits(a[i]) != kv_bits(b[i]))
            fail_msg("%s, %s, kind %u: value %zu is %a, not %a", spec, what, kind, i, (double)b[i],
                     (double)a[i]);
}

static void check_units(const char *text, const open_spec &s, kv_side side, uint32_t w,
                        uint32_t kind) {
    const kv_plain_width &width = s.plain.at[side][w];
    const kv_block block = {1, side, w};
    enum { N = 5 };
    std::vector<float> x(N * width.values), y(x.size());
    std::vector<uint8_t> bytes(N * width.bytes), own(width.bytes), code(width.values),
        codes(N * width.values);
    for (size_t i = 0; i < x.size(); i++) x[i] = value_of(kind, i);
    kv_format_encode(s.f, &block, x.data(), N, bytes.data());
    kv_format_decode(s.f, &block, bytes.data(), N, y.data());
    if (width.bits <= 8 && s.f->type->codes)
        s.f->type->codes(s.f, &block, bytes.data(), N, codes.data());
    for (uint32_t u = 0; u < N; u++) {
        float *xu = &x[u * width.values];
        kv_code_unit(KvAlone(), width, xu, code.data(), own.data());
        for (uint32_t i = 0; i < width.bytes; i++)
            if (own[i] != bytes[u * width.bytes + i])
                fail_msg("%s, side %d, %u bits, kind %u: byte %u of unit %u is %u, not %u", text,
                         side, width.bits, kind, i, u, own[i], bytes[u * width.bytes + i]);
        same_bits(text, "read back", kind, &y[u * width.values], xu, width.values);
        for (uint32_t i = 0; width.bits <= 8 && s.f->type->codes && i < width.values; i++)
            assert_int_equal(code[i], codes[u * width.values + i]);
    }
}

static void test_units(void **) {
    for (const char *text : specs)
        for (uint32_t d : {32u, 64u, 128u, 96u}) {
            if (d == 96 && strstr(text, "turbo")) continue;
            open_spec s(text, d, KV_ORDER_GGML);
            if (s.plain.tensor) continue;
            for (int side = 0; side < 2; side++)
                for (uint32_t w = 0; w < s.f->n_widths; w++)
                    for (uint32_t kind = 0; kind < KINDS; kind++)
                        check_units(text, s, (kv_side)side, w, kind);
        }
}

// Decisions of a run: units agree, some cells are float32 and some evicted.
static std::vector<uint8_t> decide(const kv_plain_format &f, uint32_t n, uint32_t start, bool one) {
    std::vector<uint8_t> cells((size_t)n * LAYERS * HEADS * 2);
    auto at = [&](uint32_t row, uint32_t l, uint32_t h, uint32_t side) -> uint8_t & {
        return cells[(((size_t)row * LAYERS + l) * HEADS + h) * 2 + side];
    };
    for (uint32_t side = 0; side < 2; side++) {
        uint32_t tokens = f.unit_tokens[side], base = start > f.sinks ? start : f.sinks;
        for (uint32_t row = 0; row < n; row++)
            for (uint32_t l = 0; l < LAYERS; l++)
                for (uint32_t h = 0; h < HEADS; h++) {
                    uint32_t k = (start + row - base) % tokens; // row of its unit
                    bool first = start + row < base || (k == 0 && h % f.unit_heads == 0);
                    uint32_t c = random_bits() % (f.n_widths + 1);
                    if (one) c = f.n_widths / 2;
                    at(row, l, h, side) = (uint8_t)(c == f.n_widths ? KV_FLOAT32 : c);
                    if (!first)
                        at(row, l, h, side) = at(row - k, l, h / f.unit_heads * f.unit_heads, side);
                }
        for (size_t i = side; !one && i < cells.size(); i += 2)
            if (random_bits() % 16 == 0) cells[i] = KV_EVICT;
    }
    return cells;
}

static void check_rows(const char *text, const open_spec &s, uint32_t side, uint32_t kind,
                       bool one) {
    const uint32_t d = s.plain.head_dim, dim = HEADS * d, layer = 1, n_context = 21;
    uint32_t first[] = {n_context, 29, 30, ROWS}; // choices of 8, 1 and 7 tokens
    kv_error e = {};
    std::vector<float> x((size_t)ROWS * dim), y(x.size()), own(x.size());
    std::vector<uint8_t> cells = decide(s.plain, n_context, 0, one);
    for (int c = 0; c < 3; c++) {
        std::vector<uint8_t> more = decide(s.plain, first[c + 1] - first[c], n_context, one);
        cells.insert(cells.end(), more.begin(), more.end());
    }
    for (size_t i = 0; i < x.size(); i++) x[i] = value_of(kind, i);
    std::vector<uint64_t> histogram(256 * KV_MAX_WIDTHS);
    std::vector<unsigned long long> tally(2 * 256 * KV_MAX_WIDTHS);
    void *scratch = kv_alloc(kv_code_scratch_bytes(s.f), 1);
    uint32_t values = kv_team_floats(&s.plain), bad = 0;
    std::vector<float> zeros((size_t)ROWS * HEADS * kv_zero_floats(&s.plain));
    std::vector<float> memory(kv_rows_room(dim, values, 1, true, true) / 4 + 1);
    KvCode job = {};
    job.layer = layer, job.side = (int)side, job.x = x.data(), job.y = own.data();
    job.cells = cells.data(), job.tally = tally.data(), job.bad = &bad, job.zeros = zeros.data();
    for (uint32_t hop = 0; hop < 2; hop++) {
        for (uint32_t b = 0; b < 4; b++) {
            kv_vectors r = kv_branch_rows(&s.f->setting.shape, layer, (kv_side)side, n_context,
                                          first, b, cells.data(), x.data(), y.data());
            if (hop) r.x = r.y;
            if (kv_code_rows(s.f, &r, scratch, histogram.data(), &e))
                fail_msg("%s: %s", text, e.msg);
            KvBranch branch = {
                b ? first[b - 1] : 0, (uint32_t)r.n, (uint32_t)r.start, 0, 0, n_context, 1};
            kv_code_branch(KvLoneBlock(), job, &s.plain, &s.turns[(size_t)layer * POSITIONS * d],
                           branch, values, true, memory.data());
        }
        assert_int_equal(bad, 0);
        same_bits(text, side ? "rows of values" : "rows of keys", kind, y.data(), own.data(),
                  y.size());
        job.x = own.data(), job.opening = x.data(); // coded again from what was read
    }
    for (uint32_t i = 0; i < 256 * s.plain.n_widths; i++)
        if (histogram[i] != tally[256 * KV_MAX_WIDTHS + i])
            fail_msg("%s: code %u of width %u is counted %llu times, not %llu", text, i % 256,
                     i / 256, tally[256 * KV_MAX_WIDTHS + i], (unsigned long long)histogram[i]);
    free(scratch);
}

static void test_rows(void **) {
    for (const char *text : specs)
        for (kv_order order : {KV_ORDER_GGML, KV_ORDER_HF}) {
            open_spec s(text, 64, order);
            for (uint32_t side = 0; side < 2; side++)
                for (uint32_t kind : {0u, 3u, 6u})
                    for (bool one : {true, false}) check_rows(text, s, side, kind, one);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_rows),
    };
    return cmocka_run_group_tests_name("device formats", tests, NULL, NULL);
}
