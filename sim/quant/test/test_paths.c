// SPDX-License-Identifier: Apache-2.0
// Every CPU level gives the judge's bytes: random data, odd values, every width, guarded buffers.
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/quant/ggml_blocks.h"
#include "sim/quant/grid_isa.h"
#include "sim/quant/test/guard.h"

#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

// A level that this machine lacks is left out; the base level always runs.
static const struct level {
    enum kv_cpu level;
    kv_grid_encode_fn *grid_encode;
    kv_grid_decode_fn *grid_decode;
    kv_ggml_encode_fn *ggml_encode;
    kv_ggml_decode_fn *ggml_decode;
} levels[] = {
    {KV_CPU_BASE, kv_grid_encode_base, kv_grid_decode_base, kv_ggml_encode_base,
     kv_ggml_decode_base},
#if defined(__x86_64__)
    {KV_CPU_AVX2, kv_grid_encode_avx2, kv_grid_decode_avx2, kv_ggml_encode_avx2,
     kv_ggml_decode_avx2},
    {KV_CPU_AVX512, kv_grid_encode_avx512, kv_grid_decode_avx512, kv_ggml_encode_avx512,
     kv_ggml_decode_avx512},
#endif
};

enum { N_LEVELS = sizeof levels / sizeof *levels, MOST_FLOATS = 8192 };

// Kinds of data, from the usual to the hostile.
enum kind { BELL, TINY, HUGE_VALUES, SMALL_WHOLE, TIES, CONSTANT, ZEROS, MIXED, OUTLIER, N_KINDS };

static const float odd[] = {NAN,     INFINITY, -INFINITY, 0.0f,  -0.0f, 1e-45f, -1e-40f, 3e38f,
                            -65504., 65520.0f, 1e-7f,     -1.0f, 6e-8f, 127.5f, 1e-15f,  -3e38f};

static float draw(enum kind kind, uint64_t seed, size_t i) {
    double u = kv_draw(seed, kind, 2 * i), v = kv_draw(seed, kind, 2 * i + 1);
    double bell = sqrt(-2.0 * log(1.0 - u)) * cos(6.283185307179586 * v);
    switch (kind) {
    case BELL:
        return (float)bell;
    case TINY:
        return (float)ldexp(bell, -20 - (int)(seed % 130));
    case HUGE_VALUES:
        return (float)ldexp(bell, 10 + (int)(seed % 110));
    case SMALL_WHOLE: // quotients fall on halves
        return (float)((int)(u * 15.0) - 7);
    case TIES:
        return (float)((int)(u * 511.0) - 255) * 0.5f;
    case CONSTANT:
        return (float)(kv_draw(seed, 1, 0) - 0.5) * 100.0f;
    case ZEROS:
        return u < 0.5 ? -0.0f : 0.0f;
    case MIXED:
        return u < 0.2 ? odd[(size_t)(v * 16.0)] : (float)bell;
    default:
        return (float)bell * (u < 0.02 ? 300.0f : 1.0f);
    }
}

static void fill(float *x, size_t n, enum kind kind, uint64_t seed) {
    for (size_t i = 0; i < n; i++) x[i] = draw(kind, seed, i);
}

// Buffers that end at an unreadable page: x, y, bytes written, bytes wanted.
struct buffers {
    float *x, *y, *want;
    uint8_t *out, *judged;
};

static struct buffers take(const struct guard *g, size_t floats, size_t bytes) {
    struct buffers b = {guard_end(&g[0], floats * 4), guard_end(&g[1], floats * 4),
                        guard_end(&g[2], floats * 4), guard_end(&g[3], bytes),
                        guard_end(&g[4], bytes)};
    return b;
}

static void grid_case(const struct kv_grid *g, const struct guard *guards, uint64_t seed) {
    size_t n = 1 + (size_t)(kv_draw(seed, 2, 0) * 40.0);
    if (n * g->values > MOST_FLOATS) n = MOST_FLOATS / g->values;
    size_t floats = n * g->values, bytes = n * kv_grid_size(g).bytes;
    struct buffers b = take(guards, floats, bytes);
    fill(b.x, floats, (enum kind)(seed % N_KINDS), seed);
    kv_grid_encode_judge(g, b.x, n, b.judged);
    kv_grid_decode_judge(g, b.judged, n, b.want);
    for (size_t l = 0; l < N_LEVELS && levels[l].level <= kv_cpu_level(); l++) {
        memset(b.out, 0xA5, bytes);
        levels[l].grid_encode(g, b.x, n, b.out);
        for (size_t i = 0; i < bytes; i++)
            if (b.out[i] != b.judged[i])
                fail_msg(
                    "level %s, rule %d, %u bits, group %u of %u, data %d, seed %u: byte %zu of "
                    "unit %zu is %u, not %u",
                    kv_cpu_level_name(levels[l].level), (int)g->rule, g->bits, g->group, g->values,
                    (int)(seed % N_KINDS), (unsigned)seed, i % kv_grid_size(g).bytes,
                    i / kv_grid_size(g).bytes, b.out[i], b.judged[i]);
        levels[l].grid_decode(g, b.judged, n, b.y);
        assert_memory_equal(b.y, b.want, floats * 4);
    }
}

static void test_grids(void **state) {
    const struct guard *guards = *state;
    static const uint32_t shapes[][2] = {{64, 64},   {32, 64},   {16, 64}, {8, 64},
                                         {4, 64},    {64, 192},  {80, 80}, {192, 192},
                                         {128, 128}, {32, 2048}, {12, 36}, {48, 48}};
    uint64_t seed = 1;
    for (int rule = KV_GRID_SYM; rule <= KV_GRID_ZP_AFTER; rule++)
        for (uint32_t bits = 2; bits <= 8; bits++)
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
                for (int k = 0; k < 2 * N_KINDS; k++) {
                    struct kv_grid g =
                        kv_grid_of((enum kv_grid_rule)rule, bits, shapes[s][1], shapes[s][0]);
                    if (rule == KV_GRID_SYM && bits == 4 && k % 2) // levels=max3
                        g.levels = 3.0f, g.lo = -4.0f, g.hi = 3.0f;
                    if (rule >= KV_GRID_ZP) g.scale_min = 1e-5f, g.clip = k % 2 ? 0.8f : 1.0f;
                    g.wide = k % 5 == 4;
                    grid_case(&g, guards, seed++);
                }
}

static void test_ggml(void **state) {
    const struct guard *guards = *state;
    for (uint64_t seed = 1; seed <= 60 * N_KINDS; seed++)
        for (int type = 0; type < KV_N_GGML; type++) {
            size_t n = 1 + (size_t)(kv_draw(seed, 3, 0) * 70.0), floats = n * KV_GGML_BLOCK;
            size_t bytes = n * kv_ggml_traits[type].bytes;
            struct buffers b = take(guards, floats, bytes);
            fill(b.x, floats, (enum kind)(seed % N_KINDS), seed);
            kv_ggml_encode_judge((enum kv_ggml_type)type, b.x, n, b.judged);
            kv_ggml_decode_judge((enum kv_ggml_type)type, b.judged, n, b.want);
            for (size_t l = 0; l < N_LEVELS && levels[l].level <= kv_cpu_level(); l++) {
                memset(b.out, 0xA5, bytes);
                levels[l].ggml_encode((enum kv_ggml_type)type, b.x, n, b.out);
                for (size_t i = 0; i < bytes; i++)
                    if (b.out[i] != b.judged[i])
                        fail_msg("level %s, %s, data %d, seed %u: byte %zu of block %zu is %u, not "
                                 "%u",
                                 kv_cpu_level_name(levels[l].level), kv_ggml_traits[type].name,
                                 (int)(seed % N_KINDS), (unsigned)seed,
                                 i % kv_ggml_traits[type].bytes, i / kv_ggml_traits[type].bytes,
                                 b.out[i], b.judged[i]);
                levels[l].ggml_decode((enum kv_ggml_type)type, b.judged, n, b.y);
                for (size_t i = 0; i < floats; i++) // NaN of an infinite scale has no sign to keep
                    if (!(isnan(b.y[i]) && isnan(b.want[i])))
                        assert_memory_equal(&b.y[i], &b.want[i], 4);
            }
        }
}

static int guards_open(void **state) {
    struct guard *g = kv_alloc(5, sizeof *g);
    for (int i = 0; i < 5; i++)
        if (guard_open(&g[i], 8 * MOST_FLOATS)) return -1;
    *state = g;
    return 0;
}

static int guards_close(void **state) {
    struct guard *g = *state;
    for (int i = 0; i < 5; i++) guard_close(&g[i]);
    free(g);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"each CPU level codes and decodes uniform grids to the judge's bytes", test_grids,
         guards_open, guards_close, 0},
        {"each CPU level codes and decodes ggml's blocks to the judge's bytes", test_ggml,
         guards_open, guards_close, 0},
    };
    return cmocka_run_group_tests_name("paths", tests, NULL, NULL);
}
