// SPDX-License-Identifier: Apache-2.0
// The packed cache against decoded vectors and plain attention, on every kernel this machine runs.
#include "sim/base/memory.h"
#include "sim/cache/cache.h"
#include "sim/quant/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

// SmolLM's head shapes with few layers: heads, KV heads.
static const struct kv_shape shapes[] = {
    {.n_layers = 2, .n_heads = 9, .n_kv_heads = 3, .head_dim = 64},   // 135M
    {.n_layers = 2, .n_heads = 15, .n_kv_heads = 5, .head_dim = 64},  // 360M
    {.n_layers = 1, .n_heads = 32, .n_kv_heads = 32, .head_dim = 64}, // 1.7B
    {.n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .head_dim = 32},
    {.n_layers = 1, .n_heads = 14, .n_kv_heads = 2, .head_dim = 64},  // Qwen2.5-0.5B
    {.n_layers = 1, .n_heads = 12, .n_kv_heads = 2, .head_dim = 128}, // Qwen2.5-1.5B
    {.n_layers = 1, .n_heads = 4, .n_kv_heads = 1, .head_dim = 256},  // Gemma-3-270m
    {.n_layers = 1,
     .n_heads = 10,
     .n_kv_heads = 1,
     .head_dim = 96}, // more than read a page at once
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, WIDE = 32 * 64 };

static float gauss(uint64_t seed, uint64_t i) { // sum of uniforms, variance 1
    double x = 0;
    for (uint64_t k = 0; k < 12; k++) x += kv_draw(seed, i, k);
    return (float)(x - 6);
}

static void fill(float *x, size_t n, uint64_t seed, uint64_t key) {
    for (size_t i = 0; i < n; i++) x[i] = gauss(seed, key * 65536 + i);
}

static struct kv_cache *cache_of(const struct kv_shape *s, const char *format, uint32_t varies) {
    struct kv_cache *c;
    struct kv_error e;
    struct kv_cache_setting setting = {.shape = *s, .format = format, .varies = varies};
    if (kv_cache_new(&c, &setting, &e)) fail_msg("%s: %s", e.where, e.msg);
    return c;
}

// Appends n tokens with seeded vectors, at widths drawn for each stream.
static void append(struct kv_cache *c, const struct kv_shape *s, uint32_t n, uint64_t seed,
                   const uint8_t *offered, size_t n_offered) {
    float k[WIDE], v[WIDE];
    uint8_t *bits = kv_alloc(kv_cache_streams(c) * 2, 1);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t t = kv_cache_tokens(c);
        for (size_t b = 0; b < kv_cache_streams(c) * 2; b++)
            bits[b] = offered[(size_t)(kv_draw(seed, t, b) * (double)n_offered)];
        kv_cache_extend(c, bits);
        for (uint32_t l = 0; l < s->n_layers; l++) {
            fill(k, (size_t)s->n_kv_heads * s->head_dim, seed, (t * 2 + 0) * 64 + l);
            fill(v, (size_t)s->n_kv_heads * s->head_dim, seed, (t * 2 + 1) * 64 + l);
            kv_cache_put(c, l, k, v);
        }
    }
    free(bits);
}

// softmax(q K / sqrt(d)) V in double over what the cache decodes to. Returns the largest |V|.
static double plain_attention(const struct kv_cache *c, const struct kv_shape *s, uint32_t layer,
                              uint32_t head, const float *q, double *out) {
    uint32_t n = kv_cache_tokens(c), d = s->head_dim, kv = head / (s->n_heads / s->n_kv_heads);
    float *k = kv_alloc((size_t)n * d, sizeof *k), *v = kv_alloc((size_t)n * d, sizeof *v);
    double *p = kv_alloc(n, sizeof *p), top = -INFINITY, sum = 0, largest = 0;
    for (uint32_t t = 0; t < n; t++) {
        kv_cache_read(c, layer, kv, t, k + (size_t)t * d, v + (size_t)t * d);
        for (uint32_t i = 0; i < d; i++) p[t] += (double)q[head * d + i] * k[(size_t)t * d + i];
        p[t] /= sqrt(d);
        top = fmax(top, p[t]);
    }
    for (uint32_t t = 0; t < n; t++) sum += p[t] = exp(p[t] - top);
    for (uint32_t i = 0; i < d; i++) {
        out[i] = 0;
        for (uint32_t t = 0; t < n; t++) {
            out[i] += p[t] / sum * v[(size_t)t * d + i];
            largest = fmax(largest, fabs(v[(size_t)t * d + i]));
        }
    }
    free(k);
    free(v);
    free(p);
    return largest;
}

// The judge sums hundreds of floats in turn; the SIMD kernels round queries and weights to 15 bits,
// 2^-16 of the largest each: about 1e-4 of a score of 10 and of the largest value.
static void assert_attention(struct kv_cache *c, const struct kv_shape *s, uint64_t seed) {
    float q[WIDE], out[WIDE];
    double want[256];
    fill(q, (size_t)s->n_heads * s->head_dim, seed + 99, 1);
    for (size_t kernel = 0; kv_attend_kernels[kernel]; kernel++) {
        if (!kv_cache_force_kernel(c, kv_attend_kernels[kernel])) continue;
        double tolerance = kernel == 0 ? 1e-5 : 2e-4;
        for (uint32_t l = 0; l < s->n_layers; l++) {
            kv_cache_attend(c, l, q, out);
            for (uint32_t h = 0; h < s->n_heads; h++) {
                double largest = plain_attention(c, s, l, h, q, want);
                for (uint32_t i = 0; i < s->head_dim; i++)
                    if (!(fabs(out[h * s->head_dim + i] - want[i]) <= tolerance * largest))
                        fail_msg("%s: %u heads of %u, %u tokens, layer %u head %u channel %u: "
                                 "%.9g, expected %.9g",
                                 kv_attend_kernels[kernel], s->n_heads, s->head_dim,
                                 kv_cache_tokens(c), l, h, i, out[h * s->head_dim + i], want[i]);
            }
        }
    }
    assert_true(kv_cache_force_kernel(c, NULL));
}

static const uint8_t all_widths[] = {2, 3, 4, 5, 6, 8, 16};
enum { N_WIDTHS = sizeof all_widths };

static void attention_over_each_pair_of_widths_equals_that_over_decoded_vectors(void **state) {
    (void)state;
    for (size_t kb = 0; kb < N_WIDTHS; kb++)
        for (size_t vb = 0; vb < N_WIDTHS; vb++)
            for (size_t i = 0; i < 3; i += 2) {
                const struct kv_shape *s = &shapes[i];
                struct kv_cache *c = cache_of(s, i == 0 ? "sym" : "asym:group=32", 0);
                float k[WIDE], v[WIDE];
                for (uint32_t t = 0; t < 131; t++) {
                    kv_cache_extend(c, (uint8_t[]){all_widths[kb], all_widths[vb]});
                    for (uint32_t l = 0; l < s->n_layers; l++) {
                        fill(k, (size_t)s->n_kv_heads * 64, 7, t * 4 + l);
                        fill(v, (size_t)s->n_kv_heads * 64, 8, t * 4 + l);
                        kv_cache_put(c, l, k, v);
                    }
                }
                assert_attention(c, s, kb * N_WIDTHS + vb);
                kv_cache_free(c);
            }
}

static void attention_over_any_mix_equals_that_over_decoded_vectors(void **state) {
    (void)state;
    static const char *const formats[] = {"sym", "asym", "asym:group=32", "sym:group=16"};
    static const uint32_t varies[] = {0, KV_VARIES_LAYER, KV_VARIES_LAYER | KV_VARIES_HEAD};
    static const uint32_t lengths[] = {1, 63, 64, 65, 200};
    for (size_t i = 0; i < N_SHAPES; i++)
        for (size_t f = 0; f < 4; f++) {
            struct kv_cache *c = cache_of(&shapes[i], formats[f], varies[(i + f) % 3]);
            for (size_t n = 0; n < 5; n++) {
                append(c, &shapes[i], lengths[n] - kv_cache_tokens(c), 10 * i + f, all_widths,
                       N_WIDTHS);
                if (n < 3 && i == 2) continue; // 32 heads: the long ones say enough
                assert_attention(c, &shapes[i], n);
            }
            kv_cache_free(c);
        }
}

// Words of a token that fill a vector, part of one, one and a part, and several; groups that end
// within a word of the high plane; and those that no kernel but the judge can take (of 8, of 24).
static void attention_serves_every_dimension_and_grouping_of_a_head(void **state) {
    (void)state;
    static const char *const formats[] = {"sym",          "asym",          "asym:group=16",
                                          "sym:group=16", "asym:group=32", "sym:group=8",
                                          "asym:group=24"};
    for (uint32_t dim = 16; dim <= 256; dim += 16)
        for (size_t f = 0; f < 7; f++) {
            const uint32_t group = f < 2 ? dim : f < 4 ? 16 : f == 4 ? 32 : f == 5 ? 8 : 24;
            if (dim % group) continue;
            const uint32_t heads = dim / 16 % 5 + 1; // 1..5
            struct kv_shape s = {.n_layers = 1, .n_heads = heads, .n_kv_heads = 1, .head_dim = dim};
            struct kv_cache *c = cache_of(&s, formats[f], 0);
            append(c, &s, 150, dim + f, all_widths, N_WIDTHS);
            assert_attention(c, &s, dim);
            kv_cache_age(c, 40, 3, 2); // out of order
            assert_attention(c, &s, dim + 1);
            kv_cache_free(c);
        }
}

static void a_token_reads_back_as_its_format_decodes_it(void **state) {
    (void)state;
    static const char *const formats[] = {"sym", "asym:group=32"};
    const struct kv_shape *s = &shapes[0];
    for (size_t i = 0; i < 2; i++) {
        struct kv_cache *c = cache_of(s, formats[i], KV_VARIES_LAYER | KV_VARIES_HEAD);
        struct kv_format *f;
        struct kv_error e;
        struct kv_format_setting setting = {.shape = *s};
        assert_int_equal(kv_format_open(&f, formats[i], &setting, &e), 0);
        append(c, s, 150, 5, all_widths, N_WIDTHS);
        for (uint32_t t = 0; t < 150; t++)
            for (uint32_t l = 0; l < s->n_layers; l++)
                for (uint32_t h = 0; h < s->n_kv_heads; h++) {
                    float x[192], want[64], got[2][64];
                    uint8_t bits[2], codes[256];
                    kv_cache_read(c, l, h, t, got[0], got[1]);
                    kv_cache_widths(c, l * s->n_kv_heads + h, t, bits);
                    for (int side = 0; side < 2; side++) {
                        fill(x, 192, 5, (t * 2 + (uint32_t)side) * 64 + l);
                        uint32_t w = 0;
                        while (f->width_bits[w] != bits[side]) w++;
                        struct kv_block b = {l, (enum kv_side)side, w};
                        kv_format_encode(f, &b, x + h * 64, 1, codes);
                        kv_format_decode(f, &b, codes, 1, want);
                        assert_memory_equal(got[side], want, sizeof want);
                    }
                }
        kv_format_close(f);
        kv_cache_free(c);
    }
}

static void widths_that_are_no_port_go_to_the_next_one(void **state) {
    (void)state;
    struct kv_cache *c = cache_of(&shapes[0], "sym", 0);
    static const uint8_t asked[] = {1, 2, 3, 5, 7, 9}, stored[] = {2, 2, 3, 5, 8, 16};
    for (uint32_t t = 0; t < 6; t++) {
        uint8_t bits[2];
        kv_cache_extend(c, (uint8_t[]){asked[t], 16});
        kv_cache_widths(c, 0, t, bits);
        assert_int_equal(bits[0], stored[t]);
        assert_int_equal(bits[1], 16);
    }
    kv_cache_free(c);
}

static void old_tokens_go_down_and_young_ones_stay(void **state) {
    (void)state;
    const struct kv_shape *s = &shapes[0];
    struct kv_cache *c = cache_of(s, "sym", KV_VARIES_LAYER);
    static const uint8_t high[] = {8, 16};
    append(c, s, 200, 3, high, 2);
    float before[64], v[64], after[64];
    kv_cache_read(c, 1, 2, 199, before, v);
    assert_true(kv_cache_age(c, 50, 4, 2) > 0);
    assert_int_equal(kv_cache_age(c, 50, 4, 2), 0);
    for (uint32_t t = 0; t < 200; t++) {
        uint8_t bits[2];
        kv_cache_widths(c, 1, t, bits);
        if (t < 150) {
            assert_int_equal(bits[0], 4);
            assert_int_equal(bits[1], 2);
        } else {
            assert_true(bits[0] >= 8 && bits[1] >= 8);
        }
    }
    kv_cache_read(c, 1, 2, 199, after, v);
    assert_memory_equal(before, after, sizeof before);
    assert_attention(c, s, 1);
    append(c, s, 20, 4, all_widths, N_WIDTHS);
    assert_attention(c, s, 2);
    kv_cache_free(c);
}

static void a_truncated_cache_is_the_shorter_one(void **state) {
    (void)state;
    const struct kv_shape *s = &shapes[1];
    struct kv_cache *a = cache_of(s, "asym", 0), *b = cache_of(s, "asym", 0);
    float q[WIDE], x[WIDE], y[WIDE];
    append(a, s, 90, 6, all_widths, N_WIDTHS);
    append(b, s, 170, 6, all_widths, N_WIDTHS);
    kv_cache_truncate(b, 90);
    fill(q, 15 * 64, 1, 1);
    kv_cache_attend(a, 1, q, x);
    kv_cache_attend(b, 1, q, y);
    assert_memory_equal(x, y, 15 * 64 * sizeof *x);
    assert_int_equal(kv_cache_bytes_held(a), kv_cache_bytes_held(b));
    kv_cache_free(a);
    kv_cache_free(b);
}

static void parts_join_to_the_whole(void **state) {
    (void)state;
    const struct kv_shape *s = &shapes[0];
    struct kv_cache *c = cache_of(s, "sym", 0);
    append(c, s, 300, 2, all_widths, N_WIDTHS);
    float q[9 * 64], whole[9 * 64], joined[9 * 64], max[5][9], sum[5][9], out[5][9 * 64];
    fill(q, 9 * 64, 12, 0);
    kv_cache_attend(c, 0, q, whole);
    for (unsigned n = 1; n <= 5; n++) {
        struct kv_partial p[5];
        for (unsigned i = 0; i < n; i++) {
            p[i] = (struct kv_partial){.max = max[i], .sum = sum[i], .out = out[i]};
            kv_cache_attend_part(c, 0, q, i, n, &p[i]);
        }
        kv_cache_attend_merge(c, p, n, joined);
        for (size_t i = 0; i < 9 * 64; i++) assert_float_equal(joined[i], whole[i], 1e-4);
    }
    kv_cache_free(c);
}

static void repeated_tokens_hold_the_last_ones_codes(void **state) {
    (void)state;
    const struct kv_shape *s = &shapes[0];
    struct kv_cache *c = cache_of(s, "sym", 0);
    append(c, s, 1, 9, (uint8_t[]){16}, 1);
    kv_cache_repeat(c, (uint8_t[]){4, 8}, 300);
    kv_cache_repeat(c, (uint8_t[]){2, 2}, 1);
    assert_int_equal(kv_cache_tokens(c), 302);
    assert_attention(c, s, 3);
    kv_cache_free(c);
}

static void bytes_are_counted_as_laid_out(void **state) {
    (void)state;
    const struct kv_shape *s = &shapes[0];
    struct kv_cache *c = cache_of(s, "sym", 0);
    append(c, s, 64, 9, (uint8_t[]){4}, 1);
    // 2 layers x 3 heads x (K and V): 32 bytes of codes and 2 of scale a token
    assert_int_equal(kv_cache_bytes_held(c), 64 * 6 * 2 * 34);
    assert_int_equal(kv_cache_bytes_tags(c), 64 * 2 * 3 / 8); // one decision a token, K and V
    // one page a side: 64 x 34 bytes are 2176 = 34 cache lines, no padding
    assert_true(kv_cache_bytes_allocated(c) >= 64 * 6 * 2 * 34);
    assert_true(kv_cache_bytes_allocated(c) < 64 * 6 * 2 * 34 + 1024);
    kv_cache_free(c);
}

static void formats_that_cannot_be_packed_are_refused(void **state) {
    (void)state;
    static const char *const refused[] = {"q8_0", "sym:group=layer", "sym:scale=fp32", "nonesuch"};
    for (size_t i = 0; i < 4; i++) {
        struct kv_cache *c;
        struct kv_error e = {0};
        struct kv_cache_setting setting = {.shape = shapes[0], .format = refused[i]};
        assert_int_equal(kv_cache_new(&c, &setting, &e), KV_EUSAGE);
        assert_true(*e.msg != 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_over_each_pair_of_widths_equals_that_over_decoded_vectors),
        cmocka_unit_test(attention_over_any_mix_equals_that_over_decoded_vectors),
        cmocka_unit_test(attention_serves_every_dimension_and_grouping_of_a_head),
        cmocka_unit_test(a_token_reads_back_as_its_format_decodes_it),
        cmocka_unit_test(widths_that_are_no_port_go_to_the_next_one),
        cmocka_unit_test(old_tokens_go_down_and_young_ones_stay),
        cmocka_unit_test(a_truncated_cache_is_the_shorter_one),
        cmocka_unit_test(parts_join_to_the_whole),
        cmocka_unit_test(repeated_tokens_hold_the_last_ones_codes),
        cmocka_unit_test(bytes_are_counted_as_laid_out),
        cmocka_unit_test(formats_that_cannot_be_packed_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
