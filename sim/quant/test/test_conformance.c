// SPDX-License-Identifier: Apache-2.0
// Formats against vectors that independent implementations made (sim/test/conformance).
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/quant/centre.h"
#include "sim/quant/pack.h"

#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>
#include <zlib.h>

#define FOLDER "sim/test/conformance/"

struct set {
    float *x;
    size_t n_floats;
    uint8_t *codes;
    size_t n_codes;
    char *cases;
};

// One line of cases.tsv.
struct line {
    char spec[80], side, by[40];
    unsigned bits, heads, offset, bytes, codes_crc, crc;
};

static int set_open(void **state) {
    static struct set s;
    struct kv_error e;
    char *x, *codes;
    size_t n, n_cases;
    if (kv_read_file(FOLDER "input.f32", &x, &n, &e)) return -1;
    s.x = kv_alloc(n, 1); // aligned
    memcpy(s.x, x, n);
    s.n_floats = n / sizeof(float);
    free(x);
    if (kv_read_file(FOLDER "codes.bin", &codes, &s.n_codes, &e)) return -1;
    s.codes = (uint8_t *)codes;
    *state = &s;
    return kv_read_file(FOLDER "cases.tsv", &s.cases, &n_cases, &e);
}

static int set_close(void **state) {
    struct set *s = *state;
    free(s->x);
    free(s->codes);
    free(s->cases);
    return 0;
}

// The index of a width, or its loss.
static uint32_t width_of(const struct kv_format *f, const struct line *l, unsigned bits) {
    for (uint32_t w = 0; w < f->n_widths; w++)
        if (f->width_bits[w] == bits) return w;
    fail_msg("%s has no width of %u bits", l->spec, bits);
    return 0;
}

static struct kv_format *open_format(const struct line *l) {
    static double angles[32]; // of a RoPE of base 10,000
    for (int i = 0; i < 32; i++) angles[i] = pow(10000, -i / 32.0);
    const struct kv_format_setting setting = {
        .rope = angles,
        .shape = {.n_layers = 1, .n_heads = l->heads, .n_kv_heads = l->heads, .head_dim = 64},
        .order = KV_ORDER_GGML};
    struct kv_format *f;
    struct kv_error e = {0};
    if (kv_format_open(&f, l->spec, &setting, &e)) fail_msg("%s: %s", l->spec, e.msg);
    return f;
}

static void compare(const struct set *s, const struct line *l, const uint8_t *codes,
                    size_t unit_bytes) {
    for (size_t i = 0; i < l->bytes; i++)
        if (codes[i] != s->codes[l->offset + i])
            fail_msg("%s, %c, %u bits: byte %zu of unit %zu is %u, %s says %u", l->spec, l->side,
                     l->bits, i % unit_bytes, i / unit_bytes, codes[i], l->by,
                     s->codes[l->offset + i]);
}

// All of it is one tensor; bits 0: 2 bits where 5 i mod 7 < 3, else 4.
static void check_whole(const struct set *s, const struct line *l, const struct kv_format *f,
                        float *y) {
    size_t cells = s->n_floats / 64;
    uint8_t *width = kv_alloc(cells, 1), *codes = kv_alloc(l->bytes, 1);
    for (size_t i = 0; i < cells; i++)
        width[i] = (uint8_t)width_of(f, l, l->bits ? l->bits : i * 5 % 7 < 3 ? 2 : 4);
    struct kv_whole t = {0, l->side == 'k' ? KV_KEY : KV_VALUE, cells / l->heads, width};
    assert_int_equal(f->type->whole_size(f, &t).bytes, l->bytes);
    f->type->whole_encode(f, &t, s->x, codes);
    compare(s, l, codes, l->bytes);
    f->type->whole_decode(f, &t, s->codes + l->offset, y);
    free(width);
    free(codes);
}

static void check_units(const struct set *s, const struct line *l, const struct kv_format *f,
                        float *y) {
    struct kv_block b = {0, l->side == 'k' ? KV_KEY : KV_VALUE, width_of(f, l, l->bits)};
    struct kv_unit_size size = kv_format_size(f, b.side, b.width);
    size_t n = s->n_floats / size.values;
    assert_int_equal(n * size.bytes, l->bytes);
    uint8_t *codes = kv_alloc(l->bytes, 1);
    kv_format_encode(f, &b, s->x, n, codes);
    compare(s, l, codes, size.bytes);
    kv_format_decode(f, &b, s->codes + l->offset, n, y);
    free(codes);
}

// All of it is one sequence's prompt, coded by code.c; its centre stands before its codes.
static void check_centred(const struct set *s, const struct line *l, const struct kv_format *f,
                          float *y) {
    size_t row = (size_t)l->heads * 64, n = s->n_floats / row;
    const uint8_t width = (uint8_t)width_of(f, l, l->bits);
    struct kv_block b = {0, l->side == 'k' ? KV_KEY : KV_VALUE, width};
    struct kv_vectors r = {.side = b.side,
                           .n = n,
                           .x = s->x,
                           .x_stride = row,
                           .y = y,
                           .y_stride = row,
                           .cells = &width};
    float centre[4 * 64], at[64], *less = kv_alloc(s->n_floats, sizeof *less);
    uint8_t *codes = kv_alloc(l->bytes, 1), *scratch = kv_alloc(kv_code_scratch_bytes(f), 1);
    struct kv_error e = {0};
    struct kv_unit_size size = kv_format_size(f, b.side, width);
    assert_int_equal(s->n_floats / size.values * size.bytes + 2 * row, l->bytes);
    if (kv_centre_find(f, &r, centre, &e) || kv_code_rows(f, &r, scratch, NULL, &e))
        fail_msg("%s: %s", l->spec, e.msg);
    for (size_t i = 0; i < s->n_floats; i++) {
        if (i % 64 == 0) kv_centre_at(f, 0, centre, i / 64 % l->heads, i / row, at);
        less[i] = s->x[i] - at[i % 64];
    }
    kv_put_halves(centre, row, codes);
    kv_format_encode(f, &b, less, s->n_floats / size.values, codes + 2 * row);
    compare(s, l, codes, l->bytes);
    free(less);
    free(codes);
    free(scratch);
}

static void check(const struct set *s, const struct line *l) {
    struct kv_format *f = open_format(l);
    float *y = kv_alloc(s->n_floats, sizeof *y);
    assert_true((size_t)l->offset + l->bytes <= s->n_codes);
    assert_int_equal(crc32(0, s->codes + l->offset, l->bytes), l->codes_crc);
    if (f->type->whole_encode)
        check_whole(s, l, f, y);
    else if (f->centre.tokens > 0)
        check_centred(s, l, f, y);
    else
        check_units(s, l, f, y);
    if (crc32(0, (const Bytef *)y, (uInt)(s->n_floats * sizeof *y)) != l->crc)
        fail_msg("%s, %c, %u bits: decoded values differ from what %s says", l->spec, l->side,
                 l->bits, l->by);
    free(y);
    kv_format_close(f);
}

static void test_all(void **state) {
    const struct set *s = *state;
    size_t n = 0;
    const char *at = strchr(s->cases, '\n');
    for (struct line l;
         at && sscanf(at + 1, "%79[^\t]\t%c\t%u\t%u\t%u\t%u\t%u\t%u\t%39[^\n]", l.spec, &l.side,
                      &l.bits, &l.heads, &l.offset, &l.bytes, &l.codes_crc, &l.crc, l.by) == 9;
         at = strchr(at + 1, '\n')) {
        check(s, &l);
        n++;
    }
    assert_true(n > 50);
}

static void test_covers(void **state) {
    const struct set *s = *state;
    for (size_t i = 0; kv_format_type_at(i); i++) {
        const char *name = kv_format_type_at(i)->name;
        char start[48];
        snprintf(start, sizeof start, "\n%s", name);
        if (strcmp(name, "ggml") != 0 && !strstr(s->cases, start)) // a mix of types judged alone
            fail_msg("no conformance vector judges format %s", name);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"codes and decoded values equal those of independent implementations", test_all, set_open,
         set_close, 0},
        {"every format is judged by a conformance vector", test_covers, set_open, set_close, 0},
    };
    return cmocka_run_group_tests_name("conformance", tests, NULL, NULL);
}
