// SPDX-License-Identifier: Apache-2.0
// From decisions to stored values: units, windows, branches, order of channels, and the ledger.
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/quant/code.h"
#include "sim/quant/own.h"
#include "sim/quant/pack.h"

#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

enum { HEADS = 3, DIM = 64, ROW = HEADS * DIM, TOKENS = 77 };

static const struct kv_format_setting setting = {
    .shape = {.n_layers = 2, .n_heads = 9, .n_kv_heads = HEADS, .head_dim = DIM},
    .order = KV_ORDER_GGML};

static struct kv_format *open_format(const char *spec) {
    struct kv_format *f;
    struct kv_error e = {0};
    if (kv_format_open(&f, spec, &setting, &e)) fail_msg("%s: %s", spec, e.msg);
    return f;
}

// Uniform in [-2, 2), seeded.
static void fill(float *x, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) x[i] = (float)(4.0 * kv_draw(seed, 7, i) - 2.0);
}

static struct kv_vectors rows_of(const float *x, float *y, const uint8_t *cells, size_t n) {
    return (struct kv_vectors){.layer = 1,
                               .side = KV_KEY,
                               .n = n,
                               .x = x,
                               .x_stride = ROW,
                               .y = y,
                               .y_stride = ROW,
                               .cells = cells,
                               .cell_token_stride = HEADS,
                               .cell_head_stride = 1};
}

static void code(const struct kv_format *f, const struct kv_vectors *r, uint64_t *histogram) {
    struct kv_error e = {0};
    void *scratch = kv_alloc(kv_code_scratch_bytes(f), 1);
    if (kv_code_rows(f, r, scratch, histogram, &e)) fail_msg("%s: %s", e.where, e.msg);
    free(scratch);
}

static float half(float x) {
    return kv_f16_to_f32(kv_f32_to_f16(x));
}

// The rule of sym as the reference states it, written a second time.
static void sym_by_hand(const float *x, float *y, int bits) {
    float largest = 0.0f, top = (float)((1 << (bits - 1)) - 1);
    for (int i = 0; i < DIM; i++) largest = fmaxf(largest, fabsf(x[i]));
    float s = half(largest / top);
    for (int i = 0; i < DIM; i++)
        y[i] = s == 0.0f ? 0.0f : fmaxf(-top, fminf(top, nearbyintf(x[i] / s))) * s + 0.0f;
}

static void test_uniform(void **state) {
    (void)state;
    struct kv_format *f = open_format("sym");
    static float x[TOKENS * ROW], y[TOKENS * ROW], want[DIM];
    static uint8_t cells[TOKENS * HEADS];
    fill(x, TOKENS * ROW, 1);
    for (size_t w = 0; w + 1 < f->n_widths; w++) {
        memset(cells, (int)w, sizeof cells);
        struct kv_vectors r = rows_of(x, y, cells, TOKENS);
        code(f, &r, NULL);
        for (size_t v = 0; v < TOKENS * HEADS; v++) {
            sym_by_hand(x + v * DIM, want, f->width_bits[w]);
            assert_memory_equal(want, y + v * DIM, sizeof want);
        }
    }
    kv_format_close(f);
}

static void test_mixed_equals_uniform(void **state) {
    (void)state;
    static const char *const specs[] = {"sym", "asym:group=32", "ggml", "asym:group=16,order=hf",
                                        "sym:group=layer"};
    static float x[TOKENS * ROW], y[TOKENS * ROW], one[KV_MAX_WIDTHS][TOKENS * ROW];
    static uint8_t cells[TOKENS * HEADS];
    fill(x, TOKENS * ROW, 2);
    for (size_t k = 0; k < sizeof specs / sizeof *specs; k++) {
        struct kv_format *f = open_format(specs[k]);
        for (size_t w = 0; w < f->n_widths; w++) {
            memset(cells, (int)w, sizeof cells);
            struct kv_vectors r = rows_of(x, one[w], cells, TOKENS);
            code(f, &r, NULL);
        }
        for (size_t i = 0; i < TOKENS * HEADS; i++) {
            size_t unit = f->unit_heads > 1 ? i / HEADS : i;
            cells[i] = (uint8_t)(kv_draw(3, k, unit) * (double)f->n_widths);
        }
        struct kv_vectors r = rows_of(x, y, cells, TOKENS);
        code(f, &r, NULL);
        for (size_t i = 0; i < TOKENS * HEADS; i++)
            assert_memory_equal(y + i * DIM, one[cells[i]] + i * DIM, DIM * sizeof(float));
        kv_format_close(f);
    }
}

static void test_in_place_and_strides(void **state) {
    (void)state;
    struct kv_format *f = open_format("asym:group=32,sinks=3");
    static float x[TOKENS * ROW], y[TOKENS * ROW], wide[TOKENS * (ROW + 5)];
    static uint8_t cells[TOKENS * HEADS], spread[TOKENS * HEADS * 4];
    fill(x, TOKENS * ROW, 4);
    for (size_t i = 0; i < TOKENS * HEADS; i++) {
        cells[i] = (uint8_t)(kv_draw(5, 0, i) * (double)f->n_widths);
        spread[i * 4] = cells[i];
    }
    struct kv_vectors r = rows_of(x, y, cells, TOKENS);
    code(f, &r, NULL);
    for (size_t t = 0; t < TOKENS; t++) memcpy(wide + t * (ROW + 5), x + t * ROW, ROW * sizeof *x);
    struct kv_vectors q = rows_of(wide, wide, spread, TOKENS);
    q.x_stride = q.y_stride = ROW + 5;
    q.cell_token_stride = 4 * HEADS;
    q.cell_head_stride = 4;
    code(f, &q, NULL);
    for (size_t t = 0; t < TOKENS; t++)
        assert_memory_equal(y + t * ROW, wide + t * (ROW + 5), ROW * sizeof *y);
    kv_format_close(f);
}

static void test_order(void **state) {
    (void)state;
    // Codes see hf order: a group of 32 is then the even channels, in the model's pairwise order.
    struct kv_format *f = open_format("asym:group=32,order=hf"), *g = open_format("asym:group=32");
    assert_string_equal(f->canonical, "asym:group=32,order=hf,scale=fp16,sinks=0,window=0");
    assert_string_equal(g->canonical, "asym:group=32,order=ggml,scale=fp16,sinks=0,window=0");
    static float x[ROW], y[ROW], turned[ROW], want[ROW];
    static uint8_t cells[HEADS] = {2, 2, 2};
    fill(x, ROW, 6);
    struct kv_vectors r = rows_of(x, y, cells, 1);
    code(f, &r, NULL);
    for (int h = 0; h < HEADS; h++)
        kv_reorder(x + h * DIM, turned + h * DIM, DIM, KV_ORDER_GGML, KV_ORDER_HF);
    struct kv_vectors q = rows_of(turned, turned, cells, 1);
    code(g, &q, NULL);
    for (int h = 0; h < HEADS; h++)
        kv_reorder(turned + h * DIM, want + h * DIM, DIM, KV_ORDER_HF, KV_ORDER_GGML);
    assert_memory_equal(y, want, sizeof y);
    r.side = q.side = KV_VALUE; // values have no RoPE: their channels stay as they are
    q.x = x;
    code(f, &r, NULL);
    code(g, &q, NULL);
    assert_memory_equal(y, turned, sizeof y);
    kv_format_close(f);
    kv_format_close(g);
}

static void test_exact_cells(void **state) {
    (void)state;
    struct kv_format *f = open_format("sym:sinks=2");
    static float x[5 * ROW], y[5 * ROW];
    uint8_t cells[5 * HEADS] = {0};
    fill(x, 5 * ROW, 8);
    cells[0] = KV_FLOAT32; // a sink
    cells[4 * HEADS + 1] = KV_FLOAT32;
    cells[4 * HEADS + 2] = KV_EVICT;
    struct kv_vectors r = rows_of(x, y, cells, 5);
    code(f, &r, NULL);
    assert_memory_equal(x, y, DIM * sizeof *x);
    for (size_t i = DIM; i < 2 * ROW; i++) assert_true(y[i] == half(x[i]));
    assert_memory_equal(x + 4 * ROW + DIM, y + 4 * ROW + DIM, DIM * sizeof *x);
    // Sinks 2 x 3 heads: one of float32, five of fp16. Rows 2..4: seven vectors of 2 bits with a
    // scale, one float32, one evicted.
    struct kv_bits bits = {0};
    kv_count_rows(f, &r, 5, &bits);
    assert_int_equal(bits.code_bits, DIM * (32 + 5 * 16 + 7 * 2 + 32));
    assert_int_equal(bits.meta_bits, 7 * 16);
    assert_int_equal(bits.bytes, DIM * (4 + 5 * 2 + 4) + 7 * (DIM / 4 + 2));
    assert_int_equal(bits.values[17], 2 * DIM);
    assert_int_equal(bits.values[16], 5 * DIM);
    assert_int_equal(bits.values[2], 7 * DIM);
    assert_int_equal(bits.values[0], DIM);
    // Held exact from position 3 on: rows 3 and 4 count 16 bits where they were coded.
    bits = (struct kv_bits){0};
    kv_count_rows(f, &r, 3, &bits);
    assert_int_equal(bits.code_bits, DIM * (32 + 5 * 16 + 3 * 2 + 4 * 16 + 32));
    kv_format_close(f);
}

static void test_refusals(void **state) {
    (void)state;
    struct kv_format *f = open_format("asym:group=layer");
    static float x[2 * ROW], y[2 * ROW];
    uint8_t cells[2 * HEADS] = {1, 1, 1, 1, 2, 1};
    struct kv_error e;
    struct kv_vectors r = rows_of(x, y, cells, 2);
    void *scratch = kv_alloc(kv_code_scratch_bytes(f), 1);
    assert_int_equal(kv_code_rows(f, &r, scratch, NULL, &e), KV_EFAIL);
    assert_non_null(
        strstr(e.msg, "token 1, layer 1, KV head 1: keys of format asym share a scale"));
    cells[4] = 99;
    assert_int_equal(kv_code_rows(f, &r, scratch, NULL, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "token 1, layer 1, KV head 1: 99 is no width of format asym"));
    cells[4] = KV_EVICT; // goes with its unit
    assert_int_equal(kv_code_rows(f, &r, scratch, NULL, &e), 0);
    free(scratch);
    kv_format_close(f);
}

static void test_reading_bounds(void **state) {
    (void)state;
    struct kv_format *f = open_format("sym");
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 9, false), 10);
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 9, true), 9);
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 0, true), 0);
    assert_int_equal(kv_coded_upto(f, KV_KEY, 5, 9, true), 9);
    kv_format_close(f);
    f = open_format("sym:window=4,sinks=2");
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 9, false), 6);
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 9, true), 6);
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 3, true), 0);
    assert_int_equal(kv_coded_upto(f, KV_VALUE, 8, 9, true), 6);
    assert_int_equal(kv_coded_upto(f, KV_VALUE, 8, 13, true), 10);
    kv_format_close(f);
}

// KIVI with groups of 8: a context of 13 tokens and a choice of 10 that branches off it.
static void test_branches(void **state) {
    (void)state;
    struct kv_format *f = open_format("kivi:group=8,residual=8");
    static float x[23 * ROW], y[23 * ROW];
    static uint8_t cells[23 * HEADS]; // index 0: 2 bits
    fill(x, 23 * ROW, 9);
    struct kv_vectors context = rows_of(x, y, cells, 13),
                      choice = rows_of(x + 13 * ROW, y + 13 * ROW, cells + 13 * HEADS, 10);
    choice.start = choice.first = 13;
    code(f, &context, NULL);
    code(f, &choice, NULL);
    for (size_t t = 0; t < 23; t++) { // open blocks, 8..12 and 21..22, are exact
        bool open = (t >= 8 && t < 13) || t >= 21;
        size_t same = 0;
        for (size_t i = t * ROW; i < (t + 1) * ROW; i++) same += y[i] == half(x[i]);
        if (open)
            assert_int_equal(same, ROW);
        else
            assert_true(same < ROW / 4);
    }
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 6, false), 0);
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 7, false), 8);
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 7, true), 0);
    assert_int_equal(kv_coded_upto(f, KV_KEY, 13, 19, false), 8);  // the choice's block is open
    assert_int_equal(kv_coded_upto(f, KV_KEY, 13, 20, false), 21); // and now whole
    assert_int_equal(kv_coded_upto(f, KV_VALUE, 13, 22, false), 15);
    struct kv_bits bits = {0};
    kv_count_rows(f, &context, 21, &bits);
    kv_count_rows(f, &choice, 21, &bits);
    // Two groups of 8 tokens a head: 64 channels x (8 codes of 2 bits, fp16 scale and minimum).
    assert_int_equal(bits.meta_bits, 2 * HEADS * 64 * 32);
    assert_int_equal(bits.code_bits, 2 * HEADS * 64 * 16 + 7 * ROW * 16);
    assert_int_equal(bits.bytes, 2 * HEADS * 64 * (2 + 4) + 7 * ROW * 2);
    assert_int_equal(bits.values[2], 16 * ROW);
    assert_int_equal(bits.values[16], 7 * ROW);
    cells[3 * HEADS + 1] = 1; // one token of a group at another width
    struct kv_error e;
    void *scratch = kv_alloc(kv_code_scratch_bytes(f), 1);
    assert_int_equal(kv_code_rows(f, &context, scratch, NULL, &e), KV_EFAIL);
    assert_non_null(
        strstr(e.msg, "token 3, layer 1, KV head 1: keys of format kivi share a scale"));
    cells[3 * HEADS + 1] = 0;
    context.first = 3; // rows must begin with a block
    assert_int_equal(kv_code_rows(f, &context, scratch, NULL, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "a multiple of 8 tokens after it, not at 3"));
    free(scratch);
    kv_format_close(f);
}

// ---- whole tensors ----------------------------------------------------------------------

// hqq's zeros are refined together: the prompt's cells of each width as one call of the format, the
// tokens after it one by one.
static void test_hqq_tensors(void **state) {
    (void)state;
    struct kv_format *f = open_format("hqq:steps=20,order=ggml");
    enum { PROMPT = 20, N = 24 };
    static float x[N * ROW], y[N * ROW], units[N * ROW], want[N * ROW];
    static uint8_t cells[N * HEADS], codes[N * HEADS * 2 * DIM];
    fill(x, N * ROW, 11);
    for (size_t i = 0; i < N * HEADS; i++) {
        cells[i] = kv_draw(12, 0, i) < 0.4 ? 1 : 3; // 2 and 4 bits
        for (size_t c = 0; c < DIM; c++) x[i * DIM + c] *= (float)(0.1 + 5 * kv_draw(12, 1, i));
    }
    struct kv_vectors prompt = rows_of(x, y, cells, PROMPT),
                      choice = rows_of(x + PROMPT * ROW, y + PROMPT * ROW, cells + PROMPT * HEADS,
                                       N - PROMPT);
    choice.start = choice.first = PROMPT;
    code(f, &prompt, NULL);
    code(f, &choice, NULL);
    for (size_t first = 0, end = PROMPT; first < N; first = end, end++)
        for (uint32_t w = 1; w <= 3; w += 2) {
            struct kv_block b = {1, KV_KEY, w};
            size_t m = 0;
            for (size_t i = first * HEADS; i < end * HEADS; i++)
                if (cells[i] == w) memcpy(units + m++ * DIM, x + i * DIM, DIM * sizeof *x);
            kv_format_encode(f, &b, units, m, codes);
            kv_format_decode(f, &b, codes, m, units);
            m = 0;
            for (size_t i = first * HEADS; i < end * HEADS; i++)
                if (cells[i] == w) memcpy(want + i * DIM, units + m++ * DIM, DIM * sizeof *x);
        }
    assert_memory_equal(y, want, sizeof y);
    // A vector coded alone stops at its own error: not what the prompt's are.
    size_t other = 0;
    for (size_t i = 0; i < PROMPT * HEADS; i++) {
        struct kv_block b = {1, KV_KEY, cells[i]};
        kv_format_encode(f, &b, x + i * DIM, 1, codes);
        kv_format_decode(f, &b, codes, 1, units);
        other += memcmp(units, y + i * DIM, DIM * sizeof *y) != 0;
    }
    assert_true(other > 0);
    kv_format_close(f);
}

// Two heads of two channels' worth of numbers that matter, the rest zeros; tokens 0 to 3. Cells of
// 2 bits: head 0 tokens 0 and 2, head 1 tokens 1 and 2, head 2 tokens 0 and 3; the others have 4.
static const uint8_t zip_cells[4 * HEADS] = {0, 1, 0, 1, 0, 1, 0, 0, 1, 1, 1, 0};

// Keys, channel 5 of head 0: tokens 0 and 2 hold 0 and 3, so their scale is 1 and both are met;
// tokens 1 and 3 hold 0 and 30 at 4 bits, scale 2. Together (0 to 30) 3 would have become 0.
static void test_zipcache_keys(void **state) {
    (void)state;
    struct kv_format *f = open_format("zipcache");
    static float x[4 * ROW], y[4 * ROW];
    static const float told[4] = {0, 0, 3, 30};
    for (size_t t = 0; t < 4; t++) x[t * ROW + 5] = told[t];
    x[1 * ROW + DIM + 7] = -1; // head 1, tokens 1 and 2 at 2 bits: -1, 0.6 -> scale 1.6 / 3
    x[2 * ROW + DIM + 7] = 0.6f;
    struct kv_vectors r = rows_of(x, y, zip_cells, 4);
    code(f, &r, NULL);
    for (size_t t = 0; t < 4; t++) assert_true(y[t * ROW + 5] == told[t]);
    assert_true(y[1 * ROW + DIM + 7] == -1);
    float s = half(1.6f / 3);
    assert_true(y[2 * ROW + DIM + 7] == 3 * s - 1);
    for (size_t t = 0; t < 4; t++) assert_true(y[t * ROW + 6] == 0); // a constant channel
    // Two widths x 3 heads x 64 channels of two halves; six cells of 2 bits, six of 4.
    struct kv_bits bits = {0};
    kv_count_rows(f, &r, 4, &bits);
    assert_int_equal(bits.meta_bits, 2 * HEADS * DIM * 32);
    assert_int_equal(bits.code_bits, 6 * DIM * 2 + 6 * DIM * 4);
    assert_int_equal(8 * bits.bytes, bits.meta_bits + bits.code_bits);
    assert_int_equal(bits.values[2], 6 * DIM);
    assert_int_equal(bits.values[4], 6 * DIM);
    kv_format_close(f);
}

// Values. Channel 5 of head 0 peaks at 16, its scale is 4; channel 6 of head 0 at 4, scale 2; every
// other channel is 0 or 1, scale 1 where it is not zero. The first row of 2 bits joins the first
// cell of each head: head 0 token 0, head 1 token 1, head 2 token 0. It holds 12 / 4 = 3, 4 / 2 = 2
// and 0 and 1 elsewhere: scale 1, all met. The second joins head 0 token 2, head 1 token 2, head 2
// token 3: 16 / 4 = 4 and 0 to 1: scale 4/3, to which 1 is 0.75 -> 1 step.
static void test_zipcache_values(void **state) {
    (void)state;
    struct kv_format *f = open_format("zipcache");
    static float x[4 * ROW], y[4 * ROW];
    x[0 * ROW + 5] = 12, x[0 * ROW + 6] = 4;
    x[1 * ROW + DIM + 9] = 1; // head 1, token 1: first row
    x[2 * ROW + 5] = 16;
    x[2 * ROW + DIM + 9] = 1; // head 1, token 2: second row
    struct kv_vectors r = rows_of(x, y, zip_cells, 4);
    r.side = KV_VALUE;
    code(f, &r, NULL);
    float s = half(4 / 3.0f);
    assert_true(y[0 * ROW + 5] == 12 && y[0 * ROW + 6] == 4);
    assert_true(y[1 * ROW + DIM + 9] == 1);
    assert_true(y[2 * ROW + 5] == 3 * s * 4);
    assert_true(y[2 * ROW + DIM + 9] == s);
    for (size_t i = 0; i < 4 * ROW; i++) // zeros stay zeros
        if (x[i] == 0) assert_true(y[i] == 0);
    // 3 x 64 channels of a half; two rows of 2 bits and two of 4, two halves each.
    struct kv_bits bits = {0};
    kv_count_rows(f, &r, 4, &bits);
    assert_int_equal(bits.meta_bits, HEADS * DIM * 16 + 4 * 32);
    assert_int_equal(bits.code_bits, 6 * DIM * 2 + 6 * DIM * 4);
    kv_format_close(f);
}

// The prompt is coded at once, read coded by every later query; new tokens stay exact until 100
// have gathered. Cells of no width are left out of the sets.
static void test_zipcache_reads(void **state) {
    (void)state;
    struct kv_format *f = open_format("zipcache");
    enum { N = 30 };
    static float x[N * ROW], y[N * ROW], z[N * ROW];
    static uint8_t cells[N * HEADS];
    uint64_t histogram[KV_MAX_WIDTHS * 256] = {0}, codes = 0;
    fill(x, N * ROW, 13);
    assert_int_equal(kv_coded_upto(f, KV_KEY, 0, 9, false), 10);
    assert_int_equal(kv_coded_upto(f, KV_KEY, 30, 128, false), 30);
    assert_int_equal(kv_coded_upto(f, KV_VALUE, 30, 129, false), 130);
    struct kv_vectors choice = rows_of(x, y, cells, N);
    choice.start = choice.first = 30;
    code(f, &choice, histogram);
    for (size_t i = 0; i < N * ROW; i++) assert_true(y[i] == half(x[i]));
    for (int i = 0; i < 256; i++) codes += histogram[i];
    assert_int_equal(codes, 0);
    struct kv_vectors prompt = rows_of(x, y, cells, N);
    for (size_t t = 0; t < N; t++) cells[t * HEADS + 1] = t % 2 ? KV_EVICT : KV_FLOAT32;
    x[3 * ROW + DIM] = 1e4f; // evicted: widens nothing
    code(f, &prompt, histogram);
    for (int i = 0; i < 256; i++) codes += histogram[i];
    assert_int_equal(codes, N * 2 * DIM);
    assert_memory_equal(y + DIM, x + DIM, DIM * sizeof *y);
    memcpy(z, x, sizeof z); // in place and counted
    prompt.x = z, prompt.y = z;
    code(f, &prompt, NULL);
    assert_memory_equal(z, y, sizeof z);
    struct kv_bits bits = {0};
    kv_count_rows(f, &prompt, N, &bits);
    assert_int_equal(bits.code_bits, N * 2 * DIM * 2 + N / 2 * DIM * 32);
    assert_int_equal(bits.meta_bits, 2 * DIM * 32);
    assert_int_equal(bits.values[0], N / 2 * DIM);
    kv_format_close(f);
}

static void test_entropy(void **state) {
    (void)state;
    struct kv_format *f = open_format("sym");
    static float x[TOKENS * ROW], y[TOKENS * ROW];
    static uint8_t cells[TOKENS * HEADS];
    uint64_t histogram[KV_MAX_WIDTHS * 256] = {0}, n = 0;
    for (size_t i = 0; i < TOKENS * ROW; i++) x[i] = (float)(i % 3) - 1.0f; // -1, 0, 1 alike
    struct kv_vectors r = rows_of(x, y, cells, TOKENS);
    code(f, &r, histogram);
    for (int i = 0; i < 256; i++) n += histogram[i];
    assert_int_equal(n, TOKENS * ROW);
    assert_float_equal(kv_entropy_bits(histogram), log2(3.0), 1e-9);
    assert_true(isnan(kv_entropy_bits(histogram + 256)));
    kv_format_close(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"sym decodes to the reference rule at every width", test_uniform, 0, 0, 0},
        {"a mix of widths decodes each cell as its width alone does", test_mixed_equals_uniform, 0,
         0, 0},
        {"rows may be coded in place and with strides", test_in_place_and_strides, 0, 0, 0},
        {"order=hf groups a pairwise key's even channels, and leaves values alone", test_order, 0,
         0, 0},
        {"float32, evicted and sink cells are kept and counted by hand", test_exact_cells, 0, 0, 0},
        {"cells that share a scale must share a width", test_refusals, 0, 0, 0},
        {"queries read coded what has left the window", test_reading_bounds, 0, 0, 0},
        {"groups of tokens start at a branch, and open ones stay exact", test_branches, 0, 0, 0},
        {"hqq refines a prompt's zeros together and a later token's by themselves",
         test_hqq_tensors, 0, 0, 0},
        {"zipcache's keys share a channel's scale among tokens of one width", test_zipcache_keys, 0,
         0, 0},
        {"zipcache's values are evened out by channel and share a row's scale",
         test_zipcache_values, 0, 0, 0},
        {"zipcache keeps new tokens exact until a hundred have gathered", test_zipcache_reads, 0, 0,
         0},
        {"entropy of three equal codes is log2 3 bits", test_entropy, 0, 0, 0},
    };
    return cmocka_run_group_tests_name("code", tests, NULL, NULL);
}
