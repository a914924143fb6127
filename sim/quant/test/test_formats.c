// SPDX-License-Identifier: Apache-2.0
// Properties of all formats: sizes, buffers, errors of half a step, falling errors, stable codes.
#include "sim/base/memory.h"
#include "sim/quant/pack.h"
#include "sim/quant/code.h"
#include "sim/quant/test/guard.h"

#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

enum { HEADS = 4, DIM = 64, WIDEST = 256, MOST = 8 * 64 * WIDEST };

static struct kv_format_setting setting = {
    .shape = {.n_layers = 2, .n_heads = 8, .n_kv_heads = HEADS, .head_dim = DIM},
    .order = KV_ORDER_GGML};

// The parameters that change a format's arithmetic, and formats that wrap another; the table's own
// names come after them.
static const char *const settings[] = {
    "sym:group=32",
    "sym:group=layer",
    "sym:levels=max3",
    "sym:scale=fp32",
    "asym:group=16",
    "asym:group=layer",
    "asym:scale=fp32",
    "asym-zp:way=rotatekv",
    "asym-zp:group=32,clip=0.9",
    "kivi:group=16,residual=64",
    "qaq:group=layer",
    "qaq:outliers=0",
    "hqq:group=32,steps=0",
    "rotatekv:heads=4",
    "hadamard(sym)",
    "hadamard(q4_0)",
    "hadamard(kivi):sides=k",
    "center(asym:group=32)",
    "center(hadamard(sym)):side=pre,sides=both,tokens=4",
    "ggml:types=1",
    "ggml:types=nl",
    "nf4:group=32",
    "fp8_e4m3:scale=head",
    "fp8_e5m2:scale=head",
};
enum { N_SETTINGS = sizeof settings / sizeof *settings };

static const char *specs[N_SETTINGS + 64];
static size_t n_specs;

static void list_specs(void) {
    memcpy(specs, settings, sizeof settings);
    n_specs = N_SETTINGS;
    for (size_t i = 0; kv_format_type_at(i); i++)
        if (!kv_format_type_at(i)->wraps && n_specs < sizeof specs / sizeof *specs)
            specs[n_specs++] = kv_format_type_at(i)->name;
}

static struct kv_format *open_format(const char *spec) {
    struct kv_format *f;
    struct kv_error e = {0};
    if (kv_format_open(&f, spec, &setting, &e)) fail_msg("%s: %s", spec, e.msg);
    return f;
}

static void bell(float *x, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) {
        double u = 1.0 - kv_draw(seed, 1, 2 * i), v = kv_draw(seed, 1, 2 * i + 1);
        x[i] = (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
    }
}

// Formats of whole tensors see n units as tokens of HEADS heads, all at one width.
static size_t at_least(const struct kv_format *f) {
    return f->type->whole_encode ? HEADS : 1;
}

static struct kv_whole whole_of(const struct kv_block *b, size_t n_units) {
    static uint8_t width[MOST / DIM];
    assert_true(n_units % HEADS == 0);
    memset(width, (int)b->width, n_units);
    return (struct kv_whole){b->layer, b->side, n_units / HEADS, width};
}

static size_t bytes_of(const struct kv_format *f, const struct kv_block *b, size_t n_units) {
    struct kv_whole t = whole_of(b, f->type->whole_encode ? n_units : 0);
    return f->type->whole_encode ? f->type->whole_size(f, &t).bytes
                                 : n_units * kv_format_size(f, b->side, b->width).bytes;
}

static void encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                   size_t n_units, uint8_t *out) {
    if (f->type->whole_encode) {
        struct kv_whole t = whole_of(b, n_units);
        f->type->whole_encode(f, &t, x, out);
    } else
        kv_format_encode(f, b, x, n_units, out);
}

static void decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                   size_t n_units, float *y) {
    if (f->type->whole_encode) {
        struct kv_whole t = whole_of(b, n_units);
        f->type->whole_decode(f, &t, codes, y);
    } else
        kv_format_decode(f, b, codes, n_units, y);
}

// Units that make about 2,048 floats or more, whole tokens where there are several.
static size_t units_of(const struct kv_format *f, enum kv_side side, uint32_t width) {
    size_t values = kv_format_size(f, side, width).values;
    if (values >= 2048) return 2;
    size_t n = 2048 / values;
    return n > HEADS ? n / HEADS * HEADS : n;
}

static void test_table(void **state) {
    (void)state;
    for (size_t i = 0; kv_format_type_at(i); i++) {
        const struct kv_format_type *t = kv_format_type_at(i);
        bool tried = false;
        for (size_t k = 0; k < n_specs; k++)
            tried |= strncmp(specs[k], t->name, strlen(t->name)) == 0;
        if (!tried) fail_msg("format %s is tried nowhere", t->name);
        const char *texts[] = {t->summary, t->citation, t->tag,   t->layout,
                               t->formula, t->rounding, t->guards};
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
            if (!texts[k] || !*texts[k]) fail_msg("format %s leaves text %zu empty", t->name, k);
    }
}

static void test_buffers(void **state) {
    (void)state;
    struct guard in, out, back;
    assert_int_equal(guard_open(&in, MOST * 4), 0);
    assert_int_equal(guard_open(&out, MOST * 4), 0);
    assert_int_equal(guard_open(&back, MOST * 4), 0);
    static uint8_t first[MOST * 4];
    for (size_t k = 0; k < n_specs; k++) {
        struct kv_format *f = open_format(specs[k]);
        for (int side = 0; side < 2; side++)
            for (uint32_t w = 0; w < f->n_widths; w++) {
                struct kv_block b = {1, (enum kv_side)side, w};
                struct kv_unit_size size = kv_format_size(f, b.side, w);
                assert_true(8 * size.bytes >= size.code_bits + size.meta_bits);
                assert_int_equal(size.code_bits, size.values * f->width_bits[w]);
                assert_int_equal(size.values,
                                 f->unit_tokens[side] * f->unit_heads * setting.shape.head_dim);
                for (size_t n = at_least(f); n <= 3 * at_least(f); n += at_least(f)) {
                    size_t floats = n * size.values, bytes = bytes_of(f, &b, n);
                    float *x = guard_end(&in, floats * 4), *y = guard_end(&back, floats * 4);
                    uint8_t *codes = guard_end(&out, bytes);
                    bell(x, floats, k + n);
                    memset(codes, 0x00, bytes);
                    encode(f, &b, x, n, codes);
                    memcpy(first, codes, bytes);
                    memset(codes, 0xFF, bytes);
                    encode(f, &b, x, n, codes);
                    assert_memory_equal(first, codes, bytes); // every byte was written
                    decode(f, &b, codes, n, y);
                    for (size_t i = 0; i < floats; i++) assert_true(isfinite(y[i]));
                }
            }
        kv_format_close(f);
    }
    guard_close(&in);
    guard_close(&out);
    guard_close(&back);
}

static double rmse(const struct kv_format *f, enum kv_side side, uint32_t w, const float *x,
                   float *y, uint8_t *codes) {
    size_t n = units_of(f, side, w), floats = n * kv_format_size(f, side, w).values;
    struct kv_block b = {1, side, w};
    double sum = 0.0;
    encode(f, &b, x, n, codes);
    decode(f, &b, codes, n, y);
    for (size_t i = 0; i < floats; i++) sum += pow((double)x[i] - (double)y[i], 2);
    return sqrt(sum / (double)floats);
}

static void test_falling(void **state) {
    (void)state;
    static float x[MOST], y[MOST];
    static uint8_t codes[4 * MOST];
    bell(x, MOST, 5);
    for (size_t k = 0; k < n_specs; k++) {
        struct kv_format *f = open_format(specs[k]);
        for (int side = 0; side < 2; side++) {
            // Everything as 0 gives 1; one bit, the ends of a group alone, which lie further apart
            // in a wider head.
            double one_bit = setting.shape.head_dim == DIM ? 1.6 : 2.2;
            double before = f->width_bits[0] == 1 ? one_bit : 1.1;
            for (uint32_t w = 0; w < f->n_widths; w++) {
                double now = rmse(f, (enum kv_side)side, w, x, y, codes);
                // max/3 with codes -4..3 never uses -4: what is sold as 4 bits is sym's 3.
                bool three = strstr(specs[k], "max3") && f->width_bits[w] == 4;
                if (three ? now != before : !(now < before))
                    fail_msg("%s: %u bits give RMSE %g, not below %g", specs[k], f->width_bits[w],
                             now, before);
                before = now;
            }
        }
        kv_format_close(f);
    }
}

// Half a step, plus what rounding scale and minimum to fp16 moves a value at the far end of the
// range.
static void test_half_step(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        bool ranged;
    } cases[] = {{"sym", false},  {"sym:group=32", false}, {"asym", true},
                 {"kivi", true},  {"asym:group=16", true}, {"asym:scale=fp32", true},
                 {"q8_0", false}, {"q4_1", true},          {"q5_1", true}};
    static float x[MOST], y[MOST];
    static uint8_t codes[4 * MOST];
    bell(x, MOST, 6);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct kv_format *f = open_format(cases[k].spec);
        const char *key = strstr(cases[k].spec, "group=");
        size_t group = key ? (size_t)atoi(key + 6) : *cases[k].spec == 'q' ? 32 : 64;
        if (strcmp(cases[k].spec, "kivi") == 0) group = 32;
        for (uint32_t w = 0; w + 1 < f->n_widths; w++) {
            enum kv_side side = KV_VALUE; // kivi's keys are grouped along tokens
            size_t floats = units_of(f, side, w) * kv_format_size(f, side, w).values;
            rmse(f, side, w, x, y, codes);
            for (size_t at = 0; at < floats; at += group) {
                float min = x[at], max = x[at];
                for (size_t i = at; i < at + group; i++)
                    min = fminf(min, x[i]), max = fmaxf(max, x[i]);
                float largest = fmaxf(fabsf(min), max), top = (float)((1 << f->width_bits[w]) - 1);
                float half = cases[k].ranged
                                 ? (max - min) / top / 2
                                 : largest / (float)((1 << (f->width_bits[w] - 1)) - 1) / 2;
                for (size_t i = at; i < at + group; i++)
                    assert_true(fabsf(x[i] - y[i]) <= half + 2 * largest * 0x1p-10f);
            }
        }
        kv_format_close(f);
    }
}

static void test_stable(void **state) {
    (void)state;
    static float x[MOST], y[MOST];
    static uint8_t codes[4 * MOST], again[4 * MOST];
    bell(x, MOST, 7);
    for (size_t k = 0; k < n_specs; k++) {
        struct kv_format *f = open_format(specs[k]);
        for (int side = 0; side < 2 && f->type->stable; side++)
            for (uint32_t w = 0; w < f->n_widths; w++) {
                struct kv_block b = {1, (enum kv_side)side, w};
                size_t n = units_of(f, b.side, w);
                encode(f, &b, x, n, codes);
                decode(f, &b, codes, n, y);
                encode(f, &b, y, n, again);
                size_t bytes = bytes_of(f, &b, n);
                for (size_t i = 0; i < bytes; i++)
                    if (codes[i] != again[i])
                        fail_msg("%s, %u bits: byte %zu changes when decoded data is coded again",
                                 specs[k], f->width_bits[w], i);
            }
        kv_format_close(f);
    }
}

static void test_codes(void **state) {
    (void)state;
    static float x[MOST];
    static uint8_t codes[4 * MOST], q[MOST];
    bell(x, MOST, 8);
    for (size_t k = 0; k < n_specs; k++) {
        struct kv_format *f = open_format(specs[k]);
        for (uint32_t w = 0; w < f->n_widths && f->width_bits[w] <= 8; w++) {
            struct kv_block b = {1, KV_VALUE, w};
            size_t n = units_of(f, b.side, w), floats = n * kv_format_size(f, b.side, w).values;
            size_t seen[256] = {0}, distinct = 0;
            encode(f, &b, x, n, codes);
            if (f->type->whole_encode) {
                struct kv_whole t = whole_of(&b, n);
                f->type->whole_codes(f, &t, codes, q);
            } else if (f->type->codes)
                f->type->codes(f, &b, codes, n, q);
            else
                continue; // a format need not tell its codes
            for (size_t i = 0; i < floats; i++) {
                assert_true(q[i] >> f->width_bits[w] == 0 || f->width_bits[w] == 8);
                distinct += seen[q[i]]++ == 0;
            }
            assert_true(distinct > 1);
        }
        kv_format_close(f);
    }
}

// What the fields of a unit take and tell.
struct told {
    const uint8_t *unit;
    uint32_t bits_of[MOST], n_bits; // of the code of each value
    uint8_t code[MOST];
    bool taken[8 * 4 * MOST], whole; // whole: codes are unsigned numbers
};

static void tell(void *self, const struct kv_field *x) {
    struct told *t = self;
    bool code = strncmp(x->what, "code", 4) == 0;
    uint32_t shift = strcmp(x->what, "code's bit 4") == 0 ? 4 : 0;
    if (code && strcmp(x->type, "uint") != 0) t->whole = false;
    for (uint32_t i = 0; i < x->n; i++) {
        uint32_t raw = 0, v = x->value + i * x->next;
        for (uint32_t b = 0, at = x->at + i * x->step; b < x->bits; b++, at++) {
            assert_false(t->taken[at]); // a bit is of one number
            t->taken[at] = true;
            t->n_bits++;
            raw |= (uint32_t)(t->unit[at / 8] >> at % 8 & 1u) << b;
        }
        if (!code) continue;
        assert_int_equal(x->covers, 1);
        t->bits_of[v] += x->bits;
        t->code[v] |= (uint8_t)(raw << shift);
    }
}

static void test_fields(void **state) {
    static struct told t;
    static float x[MOST];
    static uint8_t unit[4 * MOST], q[MOST];
    (void)state;
    for (size_t i = 0; i < n_specs; i++) {
        struct kv_format *f = open_format(specs[i]);
        for (uint32_t k = 0; k < 2 * f->n_widths && f->type->encode; k++) {
            struct kv_block b = {0, (enum kv_side)(k & 1), k / 2};
            struct kv_unit_size size = kv_format_size(f, b.side, b.width);
            bell(x, size.values, 3 + i);
            kv_format_encode(f, &b, x, 1, unit);
            memset(&t, 0, sizeof t);
            t.unit = unit, t.whole = true;
            assert_int_equal(kv_format_fields(f, b.side, b.width, tell, &t), size.bytes);
            assert_int_equal(t.n_bits, size.code_bits + size.meta_bits);
            for (uint32_t v = 0; v < size.values; v++)
                assert_int_equal(t.bits_of[v], f->width_bits[b.width]);
            if (!t.whole || !f->type->codes) continue;
            f->type->codes(f, &b, unit, 1, q);
            // kivi's keys: codes come as they lie, channel after channel
            if (f->unit_tokens[b.side] == 1) assert_memory_equal(q, t.code, size.values);
        }
        kv_format_close(f);
    }
}

// A tensor decoded by nothing but its map of fields.
struct read_back {
    const uint8_t *bytes;
    float *code, *scale, *minimum, *height;
    uint32_t *bits_of;
    uint64_t n_bits;
    bool even; // each number says whose it is
};

static void read_field(void *self, const struct kv_field *x) {
    struct read_back *r = self;
    float *to = x->what[0] == 'c'               ? r->code
                : x->what[0] == 'm'             ? r->minimum
                : strcmp(x->what, "scale") == 0 ? r->scale
                                                : r->height;
    r->even = r->even && x->covers > 0;
    for (uint32_t i = 0; i < x->n; i++) {
        uint32_t raw = 0;
        for (uint32_t b = 0, at = x->at + i * x->step; b < x->bits; b++, at++)
            raw |= (uint32_t)(r->bytes[at / 8] >> at % 8 & 1u) << b;
        r->n_bits += x->bits;
        const uint8_t half[] = {(uint8_t)raw, (uint8_t)(raw >> 8)};
        float v = strcmp(x->type, "fp16") == 0 ? kv_get_half(half) : (float)raw;
        for (uint32_t k = 0; k < x->covers; k++) {
            to[x->value + i * x->next + k * x->apart] = v;
            if (to == r->code) r->bits_of[x->value + i * x->next] += x->bits;
        }
    }
}

static void test_whole_fields(void **state) {
    enum { TOKENS = 12, VALUES = TOKENS * HEADS * DIM };
    static float x[VALUES], y[VALUES], part[4][VALUES];
    static uint32_t bits_of[VALUES];
    static uint8_t bytes[4 * VALUES];
    uint8_t width[TOKENS * HEADS];
    (void)state;
    struct kv_format *f = open_format("zipcache");
    uint32_t d = f->setting.shape.head_dim;
    // all at one width, tokens in turn at two, and cells as they come with some not stored
    for (int mix = 0; mix < 5; mix++)
        for (int side = 0; side < 2; side++) {
            for (uint32_t i = 0; i < TOKENS * HEADS; i++)
                width[i] = mix < 3              ? (uint8_t)mix
                           : mix == 3           ? (uint8_t)(i / HEADS % 2)
                           : i * i / 3 % 5 == 4 ? KV_EVICT
                                                : (uint8_t)(i * i / 3 % 5);
            struct kv_whole t = {0, (enum kv_side)side, TOKENS, width};
            struct kv_whole_size size = f->type->whole_size(f, &t);
            bell(x, TOKENS * HEADS * d, 11);
            f->type->whole_encode(f, &t, x, bytes);
            memset(y, 0, sizeof y);
            f->type->whole_decode(f, &t, bytes, y);
            memset(bits_of, 0, sizeof bits_of);
            for (uint32_t i = 0; i < VALUES; i++) part[3][i] = 1;
            struct read_back r = {bytes, part[0], part[1], part[2], part[3], bits_of, 0, true};
            f->type->whole_fields(f, &t, read_field, &r);
            assert_int_equal(r.n_bits, size.code_bits + size.meta_bits);
            for (uint32_t i = 0; i < TOKENS * HEADS * d; i++)
                assert_int_equal(bits_of[i],
                                 width[i / d] == KV_EVICT ? 0 : f->width_bits[width[i / d]]);
            assert_int_equal(r.even, mix < 4);
            for (uint32_t i = 0; r.even && i < TOKENS * HEADS * d; i++) {
                float v = part[0][i] * part[1][i] + part[2][i];
                assert_true(y[i] == v * part[3][i]);
            }
        }
    kv_format_close(f);
}

static void test_extremes(void **state) {
    (void)state;
    static float x[MOST], y[MOST];
    static uint8_t codes[4 * MOST];
    static const float values[] = {0.0f,  -0.0f,   1e-45f,   1e-30f,    6e-8f, 65504.0f,
                                   1e30f, 3.4e38f, INFINITY, -INFINITY, NAN};
    for (size_t k = 0; k < n_specs; k++) {
        struct kv_format *f = open_format(specs[k]);
        for (uint32_t w = 0; w < f->n_widths; w++)
            for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
                struct kv_block b = {1, KV_KEY, w};
                size_t n = units_of(f, b.side, w), floats = n * kv_format_size(f, b.side, w).values;
                bell(x, floats, 9);
                for (size_t i = 0; i < floats; i += 3) x[i] = values[v]; // among usual ones
                encode(f, &b, x, n, codes);
                decode(f, &b, codes, n, y);
                for (size_t i = 0; i < floats; i++) x[i] = values[v]; // and alone
                encode(f, &b, x, n, codes);
                decode(f, &b, codes, n, y);
                if (values[v] == 0.0f)
                    for (size_t i = 0; i < floats; i++) assert_true(y[i] == 0.0f);
            }
        kv_format_close(f);
    }
}

// T = 100, R = 32 at 2 bits: 96 keys in whole groups, 68 values behind the window.
static void test_kivi_ledger(void **state) {
    (void)state;
    struct kv_format *f = open_format("kivi");
    static float x[100 * HEADS * DIM];
    static uint8_t cells[100 * HEADS];
    for (int side = 0; side < 2; side++) {
        struct kv_bits bits = {0};
        struct kv_vectors r = {.side = (enum kv_side)side,
                               .n = 100,
                               .x = x,
                               .cells = cells,
                               .cell_token_stride = HEADS,
                               .cell_head_stride = 1};
        kv_count_rows(f, &r, kv_coded_upto(f, r.side, 0, 99, false), &bits);
        uint64_t want = 100 * HEADS * DIM * (side ? 716 : 352) / 100;
        assert_int_equal(bits.code_bits + bits.meta_bits, want);
        assert_int_equal(8 * bits.bytes, want);
    }
    kv_format_close(f);
}

static void test_kivi_channels(void **state) {
    (void)state;
    struct kv_format *f = open_format("kivi"), *g = open_format("asym:group=32,order=hf");
    static float x[64 * HEADS * DIM], y[64 * HEADS * DIM], column[64], want[64];
    static uint8_t cells[64 * HEADS], codes[64];
    bell(x, 64 * HEADS * DIM, 10);
    struct kv_vectors r = {.n = 64,
                           .x = x,
                           .x_stride = HEADS * DIM,
                           .y = y,
                           .y_stride = HEADS * DIM,
                           .cells = cells,
                           .cell_token_stride = HEADS,
                           .cell_head_stride = 1};
    struct kv_error e;
    void *scratch = kv_alloc(kv_code_scratch_bytes(f), 1);
    assert_int_equal(kv_code_rows(f, &r, scratch, NULL, &e), 0);
    for (size_t c = 0; c < HEADS * DIM; c++) { // a channel over 64 tokens is two groups of 32
        struct kv_block b = {0, KV_KEY, 0};
        for (size_t t = 0; t < 64; t++) column[t] = x[t * HEADS * DIM + c];
        kv_format_encode(g, &b, column, 1, codes);
        kv_format_decode(g, &b, codes, 1, want);
        for (size_t t = 0; t < 64; t++) assert_true(y[t * HEADS * DIM + c] == want[t]);
    }
    free(scratch);
    kv_format_close(f);
    kv_format_close(g);
}

// The same over the heads of other families; a format that cannot cut such a head says so.
static void test_other_heads(void **state) {
    static const uint32_t dims[] = {80, 96, 128, WIDEST};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        size_t n = 0;
        setting.shape.head_dim = dims[i];
        list_specs();
        for (size_t k = 0; k < n_specs; k++) {
            struct kv_format *f;
            struct kv_error e = {0};
            int rc = kv_format_open(&f, specs[k], &setting, &e);
            if (rc == 0) {
                kv_format_close(f);
                specs[n++] = specs[k];
            } else if (dims[i] % 128 == 0 || !strstr(e.msg, "head"))
                fail_msg("%s, heads of %u: %s", specs[k], dims[i], e.msg);
        }
        n_specs = n;
        test_buffers(state);
        test_falling(state);
        test_stable(state);
        test_codes(state);
        test_fields(state);
    }
    setting.shape.head_dim = DIM;
    list_specs();
}

static void test_refusals(void **state) {
    (void)state;
    static const char *const bad[][2] = {
        {"kivi:group=24", "group must divide the head"},
        {"kivi:residual=33", "multiple of the group"},
        {"rotatekv:heads=3", "power of two"},
        {"hadamard", "it wraps another format"},
        {"sym(asym)", "wraps no other"},
        {"asym-zq", "did you mean 'asym-zp'"},
        {"qaq:outliers=0.5", "outliers"},
        {"center", "it wraps another format"},
        {"center(hqq)", "finds its own middle"},
        {"center(center(sym))", "is centred already"},
        {"hadamard(center(sym))", "write center(hadamard(...))"},
        {"center(rotatekv)", "only side=pre is at hand"},
        {"center(sym):tokens=0", "tokens"},
        {"hadamard(zipcache)", "codes whole tensors by itself and cannot be wrapped"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kv_format *f;
        struct kv_error e = {0};
        assert_int_equal(kv_format_open(&f, bad[i][0], &setting, &e), KV_EUSAGE);
        if (!strstr(e.msg, bad[i][1])) fail_msg("%s: %s", bad[i][0], e.msg);
    }
}

int main(void) {
    list_specs();
    const struct CMUnitTest tests[] = {
        {"every format of the table says all about itself and is tried here", test_table, 0, 0, 0},
        {"every format reads and writes its units exactly, up to guard pages", test_buffers, 0, 0,
         0},
        {"errors on seeded Gaussian vectors fall as bits rise", test_falling, 0, 0, 0},
        {"errors are at most half a step inside the range", test_half_step, 0, 0, 0},
        {"codes of decoded data do not change where the format promises it", test_stable, 0, 0, 0},
        {"codes for entropies fit their width", test_codes, 0, 0, 0},
        {"fields are all bits of a unit, each once, and its codes", test_fields, 0, 0, 0},
        {"a tensor decodes by nothing but its map of fields", test_whole_fields, 0, 0, 0},
        {"zeros decode to zero and odd values break nothing", test_extremes, 0, 0, 0},
        {"kivi stores 3.52 bits a key and 7.16 a value at 100 tokens", test_kivi_ledger, 0, 0, 0},
        {"kivi codes a key channel over 32 tokens as asym codes 32 values", test_kivi_channels, 0,
         0, 0},
        {"all that holds for heads of 80, 96, 128 and 256 too", test_other_heads, 0, 0, 0},
        {"impossible parameters are refused in one sentence", test_refusals, 0, 0, 0},
    };
    return cmocka_run_group_tests_name("formats", tests, NULL, NULL);
}
