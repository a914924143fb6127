// SPDX-License-Identifier: Apache-2.0
// GB/s of formats on the float32 side, beside memcpy and the scalar judge, in one run.
//
// Usage: bench_formats [SPEC [BITS]]. Rates count the floats read (encode) or written (decode), so
// that memcpy of the same floats is the bound; each is the best of several passes. One thread.
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/quant/ggml_blocks.h"
#include "sim/quant/grid.h"
#include "sim/test/figure.h"

#include <stdlib.h>

static const struct {
    const char *spec;
    double bits;
} cases[] = {{"sym", 2},     {"sym", 4},      {"sym", 8},           {"asym", 2},
             {"asym", 4},    {"asym", 8},     {"asym:group=32", 4}, {"sym", 3},
             {"q8_0", 8},    {"q5_0", 5},     {"q5_1", 5},          {"q4_0", 4},
             {"q4_1", 4},    {"iq4_nl", 4},   {"fp16", 16},         {"bf16", 16},
             {"asym-zp", 4}, {"kivi", 2},     {"hadamard(sym)", 4}, {"rotatekv", 4},
             {"qaq", 4},     {"fp8_e4m3", 8}, {"fp8_e5m2", 8},      {"nf4", 4},
             {"hqq", 4},     {"nuq", 4},      {"turbo", 4},         {"ternary", 2}};

enum { DIM = 64 };

struct work {
    struct kv_format *f;
    struct kv_block block;
    size_t n_units, n_floats;
    float *x, *y;
    uint8_t *codes;
};

typedef void work_fn(const struct work *);

static void copy(const struct work *w) {
    memcpy(w->y, w->x, w->n_floats * sizeof(float));
    __asm__ volatile("" : : "r"(w->y) : "memory");
}
static void encode(const struct work *w) {
    kv_format_encode(w->f, &w->block, w->x, w->n_units, w->codes);
}
static void decode(const struct work *w) {
    kv_format_decode(w->f, &w->block, w->codes, w->n_units, w->y);
}

static int ggml_type(const struct kv_format *f) {
    for (int t = 0; t < KV_N_GGML; t++)
        if (strcmp(f->type->name, kv_ggml_traits[t].name) == 0) return t;
    return -1;
}
static bool has_judge(const struct kv_format *f, uint32_t width) {
    return f->width_bits[width] < 16 && (f->type->encode == kv_gridded_encode || ggml_type(f) >= 0);
}
static void encode_judge(const struct work *w) {
    const struct kv_gridded *s = w->f->self;
    if (ggml_type(w->f) >= 0)
        kv_ggml_encode_judge((enum kv_ggml_type)ggml_type(w->f), w->x, w->n_floats / KV_GGML_BLOCK,
                             w->codes);
    else
        kv_grid_encode_judge(&s->grid[w->block.side][w->block.width], w->x, w->n_units, w->codes);
}
static void decode_judge(const struct work *w) {
    const struct kv_gridded *s = w->f->self;
    if (ggml_type(w->f) >= 0)
        kv_ggml_decode_judge((enum kv_ggml_type)ggml_type(w->f), w->codes,
                             w->n_floats / KV_GGML_BLOCK, w->y);
    else
        kv_grid_decode_judge(&s->grid[w->block.side][w->block.width], w->codes, w->n_units, w->y);
}

// Best of passes within about `budget_s`, at least two (the first one warms).
static double rate(work_fn *fn, const struct work *w, double budget_s) {
    double start = kv_now_s(), best = INFINITY;
    size_t repeat = w->n_floats < (1u << 20) ? 16 : 1;
    for (int pass = 0; pass < 2 || kv_now_s() - start < budget_s; pass++) {
        double t = kv_now_s();
        for (size_t i = 0; i < repeat; i++) fn(w);
        t = (kv_now_s() - t) / (double)repeat;
        if (t < best) best = t;
    }
    return (double)(w->n_floats * sizeof(float)) / best * 1e-9;
}

static void bench(const char *spec, double bits, struct work *w, bool judge) {
    const struct kv_format_setting setting = {
        .shape = {.n_layers = 1, .n_heads = 9, .n_kv_heads = 3, .head_dim = DIM},
        .order = KV_ORDER_GGML};
    struct kv_error e;
    if (kv_format_open(&w->f, spec, &setting, &e)) return; // not in this build's table
    for (uint32_t i = 0; i < w->f->n_widths; i++)
        if (w->f->width_bits[i] == bits) w->block = (struct kv_block){0, KV_KEY, i};
    size_t unit = kv_format_size(w->f, KV_KEY, w->block.width).values;
    w->n_units = w->n_floats / unit;
    double m = rate(copy, w, 0.1), c = rate(encode, w, 0.1), d = rate(decode, w, 0.1);
    printf("%-15s %2g  %7.1f  %7.2f %5.0f%%  %7.2f %5.0f%%", spec, bits, m, c, 100.0 * c / m, d,
           100.0 * d / m);
    if (w->n_floats > (1u << 20)) { // beyond the caches
        bench_figure(c, "GB/s", "memcpy", m, "%s %g bits, encode", spec, bits);
        bench_figure(d, "GB/s", "memcpy", m, "%s %g bits, decode", spec, bits);
    }
    if (judge && has_judge(w->f, w->block.width))
        printf("  %6.2f  %6.2f", rate(encode_judge, w, 0.05), rate(decode_judge, w, 0.05));
    putchar('\n');
    fflush(stdout);
    kv_format_close(w->f);
}

int main(int argc, char **argv) {
    static const size_t sizes[] = {256u << 10, 256u << 20};
    printf("cpu %s, level %s\n", kv_cpu_model(), kv_cpu_level_name(kv_cpu_level()));
    for (size_t s = 0; s < 2; s++) {
        struct work w = {.n_floats = sizes[s] / sizeof(float)};
        w.x = kv_alloc(w.n_floats, sizeof(float));
        w.y = kv_alloc(w.n_floats, sizeof(float));
        w.codes = kv_alloc(w.n_floats + w.n_floats / 2 + 4096, 2);
        for (size_t i = 0; i < w.n_floats; i++) { // sum of three uniforms: near enough to a bell
            uint32_t z = (uint32_t)i * 0x9E3779B9u;
            z = (z ^ z >> 16) * 0x85EBCA6Bu;
            z = (z ^ z >> 13) * 0xC2B2AE35u;
            w.x[i] = (float)((z & 1023) + (z >> 10 & 1023) + (z >> 20 & 1023)) / 512.0f - 3.0f;
        }
        printf("\n%zu KB of float32, GB/s\nformat        bits   memcpy   encode   of    decode   of"
               "   judge: encode decode\n",
               sizes[s] >> 10);
        if (argc > 1)
            bench(argv[1], argc > 2 ? atof(argv[2]) : 4, &w, true);
        else
            for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
                bench(cases[i].spec, cases[i].bits, &w, true);
        free(w.x);
        free(w.y);
        free(w.codes);
    }
    return 0;
}
