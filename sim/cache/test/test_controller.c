// SPDX-License-Identifier: Apache-2.0
// The controller in the decode step: its features, its arithmetic, its choices, what it stores.
#include "sim/base/memory.h"
#include "sim/cache/decode.h"
#include "sim/model/cell_features.h"
#include "sim/model/forward.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

enum { DIM = 64, MOST = 256, X = KV_N_CELL_FEATURES, TOKENS = 150 };

static const struct kv_shape shape = {.n_layers = 2,
                                      .n_heads = 6,
                                      .n_kv_heads = 2,
                                      .head_dim = DIM,
                                      .hidden = 128,
                                      .ffn = 224,
                                      .vocab = 77,
                                      .max_tokens = 256};
enum { HEADS = 4, PLACES = 8, HIDDEN = 128 }; // of all layers

static float tensors[40000];

// Seeded weights of every kind, about unit size over the root of their inputs.
static struct kv_controller_setting setting_of(enum kv_error_rule rule) {
    static const float lambda[2] = {1e-4f, 3e-4f};
    float *at = tensors;
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        tensors[i] = (float)kv_draw(5, 1, i) - 0.5f;
    struct kv_controller_setting s = {.shape = shape,
                                      .rule = rule,
                                      .lambda = lambda,
                                      .third_bias = 0.25f,
                                      .widths = {2, 3, 4, 5, 6, 8},
                                      .n_widths = 6};
    struct {
        const float **to;
        size_t n;
        float low; // added: what must be positive
    } parts[] = {{&s.channel, PLACES * DIM, 1}, {&s.bias, PLACES, 0},
                 {&s.linear, PLACES * X, 0},    {&s.probe, PLACES * HIDDEN, 0},
                 {&s.embedding, PLACES * 8, 0}, {&s.first, 64 * (X + 8), 0},
                 {&s.first_bias, 64, 0},        {&s.second, 64 * 64, 0},
                 {&s.second_bias, 64, 0},       {&s.third, 64, 0},
                 {&s.mean, HEADS * X, 0},       {&s.deviation, HEADS * X, 1}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].to = at;
        for (size_t k = 0; k < parts[i].n; k++) at[k] += parts[i].low;
        at += parts[i].n;
    }
    return s;
}

static struct kv_controller *controller_of(const struct kv_controller_setting *s) {
    struct kv_controller *c;
    struct kv_error e;
    if (kv_controller_new(&c, s, &e)) fail_msg("%s: %s", e.where, e.msg);
    return c;
}

static struct kv_cache *cache_of(const struct kv_shape *m, const char *format) {
    struct kv_cache *c;
    struct kv_error e;
    struct kv_cache_setting s = {
        .shape = *m, .format = format, .varies = KV_VARIES_LAYER | KV_VARIES_HEAD};
    if (kv_cache_new(&c, &s, &e)) fail_msg("%s: %s", e.where, e.msg);
    return c;
}

static void fill(float *x, size_t n, uint64_t seed, uint64_t key) {
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(kv_draw(seed, key, i) + kv_draw(seed, key + 1, i) - 1) * 3;
}

// Features from the kernels' statistics, over a cache of mixed widths, against those that a second
// pass over the stored keys gives.
static void compare_features(uint32_t dim) {
    struct kv_shape wide = shape;
    wide.head_dim = dim;
    static const uint8_t widths[] = {2, 3, 4, 5, 6, 8, 16};
    struct kv_cache *c = cache_of(&wide, "asym:group=32");
    static float keys[TOKENS * 2 * MOST], q[6 * MOST], k[2 * MOST], v[2 * MOST], unread[MOST];
    for (uint32_t t = 0; t < TOKENS; t++) {
        uint8_t bits[2 * HEADS];
        for (size_t i = 0; i < sizeof bits; i++) bits[i] = widths[(size_t)(kv_draw(2, t, i) * 7)];
        kv_cache_extend(c, bits);
        for (uint32_t l = 0; l < 2; l++) {
            fill(k, 2 * dim, 3, 10 * t + l);
            fill(v, 2 * dim, 4, 10 * t + l);
            kv_cache_put(c, l, k, v);
        }
        for (uint32_t h = 0; h < 2; h++)
            kv_cache_read(c, 1, h, t, keys + (t * 2 + h) * dim, unread);
    }
    fill(q, 6 * dim, 5, 1);
    fill(k, 2 * dim, 6, 1);
    fill(v, 2 * dim, 7, 1);
    float scores[TOKENS + 1], want[2 * X], got[2 * X];
    struct kv_cell_span earlier = {keys, 2 * dim, TOKENS};
    kv_cell_features(&wide, q, k, v, &earlier, 1, scores, want);
    for (size_t kernel = 0; kv_attend_kernels[kernel]; kernel++)
        for (unsigned n = 1; n <= 3 && kv_cache_force_kernel(c, kv_attend_kernels[kernel]); n++) {
            float number[4][4][6], out[4][6 * MOST];
            struct kv_partial p[4];
            for (unsigned i = 0; i <= n; i++)
                p[i] = (struct kv_partial){.max = number[i][0],
                                           .sum = number[i][1],
                                           .weighted = number[i][2],
                                           .oldest = number[i][3],
                                           .out = out[i]};
            for (unsigned i = 0; i < n; i++) kv_cache_attend_part(c, 1, q, i, n, &p[i]);
            for (uint32_t h = 0; h < 6; h++) { // the token's own part
                p[n].max[h] = 0;
                for (uint32_t i = 0; i < dim; i++)
                    p[n].max[h] += q[h * dim + i] * k[h / 3 * dim + i] / sqrtf((float)dim);
                p[n].sum[h] = 1;
                p[n].weighted[h] = 0;
                p[n].oldest[h] = NAN;
            }
            kv_controller_features(&wide, p, n + 1, k, v, 0, 1, got);
            kv_controller_features(&wide, p, n + 1, k, v, 1, 2, got + X);
            for (size_t i = 0; i < 2 * X; i++)
                if (!(fabsf(got[i] - want[i]) <= 2e-3f))
                    fail_msg("%s, heads of %u, %u parts, feature %zu: %g, expected %g",
                             kv_attend_kernels[kernel], dim, n, i, got[i], want[i]);
        }
    kv_cache_free(c);
}

static void features_equal_those_of_a_second_pass_over_the_stored_keys(void **state) {
    (void)state;
    static const uint32_t dims[] = {32, 64, 96, 128, MOST};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) compare_features(dims[i]);
}

// log s as the header writes it, in double.
static double plain_log_s(const struct kv_controller_setting *s, size_t place, const float *x,
                          const float *h) {
    double z[X + 8], a[64], y = s->bias[place];
    for (size_t i = 0; i < X; i++) {
        size_t at = place / 2 * X + i;
        z[i] = (x[i] - (double)s->mean[at]) / s->deviation[at];
        y += z[i] * s->linear[place * X + i];
    }
    for (size_t i = 0; i < 8; i++) z[X + i] = s->embedding[place * 8 + i];
    for (size_t i = 0; i < HIDDEN; i++) y += (double)s->probe[place * HIDDEN + i] * h[i];
    for (size_t o = 0; o < 64; o++) {
        a[o] = s->first_bias[o];
        for (size_t i = 0; i < X + 8; i++) a[o] += s->first[o * (X + 8) + i] * z[i];
        a[o] /= 1 + exp(-a[o]);
    }
    y += s->third_bias;
    for (size_t o = 0; o < 64; o++) {
        double b = s->second_bias[o];
        for (size_t i = 0; i < 64; i++) b += s->second[o * 64 + i] * a[i];
        y += s->third[o] * b / (1 + exp(-b));
    }
    return y;
}

static void widths_are_those_of_the_rule_written_out(void **state) {
    (void)state;
    static const char *const formats[] = {"sym", "asym:group=32"};
    struct kv_controller_setting s = setting_of(KV_ERROR_TRIAL);
    struct kv_controller *c = controller_of(&s);
    for (size_t f = 0; f < 2; f++) {
        struct kv_cache *cache = cache_of(&shape, formats[f]);
        struct kv_format *format;
        struct kv_format_setting fs = {.shape = shape};
        struct kv_error e;
        size_t seen[17] = {0};
        assert_int_equal(kv_format_open(&format, formats[f], &fs, &e), 0);
        for (uint32_t t = 0; t < 40; t++) {
            float x[2 * X], h[HIDDEN], k[2 * DIM], v[2 * DIM];
            uint8_t bits[4], codes[256];
            uint32_t layer = t % 2;
            fill(x, 2 * X, 11, t * 2);
            fill(h, HIDDEN, 12, t * 2);
            fill(k, 2 * DIM, 13, t * 2);
            fill(v, 2 * DIM, 14, t * 2);
            kv_controller_decide(c, cache, layer, 0, 3, x, h, k, v, bits);
            kv_controller_decide(c, cache, layer, 3, 4, x + X, h, k, v, bits + 3);
            for (size_t i = 0; i < 4; i++) { // head, side
                size_t place = layer * 4 + i;
                const float *vector = (i % 2 ? v : k) + i / 2 * DIM;
                double log_s = plain_log_s(&s, place, x + i / 2 * X, h), cost[6], least = INFINITY;
                for (size_t w = 0; w < 6; w++) {
                    uint32_t index = 0;
                    float y[DIM];
                    while (format->width_bits[index] != s.widths[w]) index++;
                    struct kv_block b = {layer, (enum kv_side)(i % 2), index};
                    struct kv_unit_size size = format->type->size(format, b.side, index);
                    kv_format_encode(format, &b, vector, 1, codes);
                    kv_format_decode(format, &b, codes, 1, y);
                    double error = 0;
                    for (size_t d = 0; d < DIM; d++)
                        error += s.channel[place * DIM + d] * pow((double)vector[d] - y[d], 2);
                    cost[w] = 0.5 * exp(log_s) * error +
                              (double)s.lambda[layer] * (size.code_bits + size.meta_bits);
                    least = fmin(least, cost[w]);
                }
                size_t w = 0;
                while (s.widths[w] != bits[i]) w++;
                seen[bits[i]]++;
                if (!(cost[w] <= least * (1 + 1e-4)))
                    fail_msg("token %u cell %zu: %u bits at %g, least %g", t, i, bits[i], cost[w],
                             least);
            }
        }
        size_t kinds = 0;
        for (size_t b = 0; b < 17; b++) kinds += seen[b] > 0;
        assert_true(kinds >= 4); // the rule had something to choose
        kv_format_close(format);
        kv_cache_free(cache);
    }
    kv_controller_free(c);
}

static void errors_from_ranges_choose_as_trial_coding_does_or_next_to_it(void **state) {
    (void)state;
    static const char *const formats[] = {"sym", "asym:group=32"};
    struct kv_controller_setting s = setting_of(KV_ERROR_TRIAL);
    struct kv_controller *trial = controller_of(&s);
    s.rule = KV_ERROR_RANGE;
    struct kv_controller *range = controller_of(&s);
    for (size_t f = 0; f < 2; f++) {
        struct kv_cache *cache = cache_of(&shape, formats[f]);
        size_t same = 0, n = 0;
        for (uint32_t t = 0; t < 200; t++) {
            float x[2 * X], h[HIDDEN], k[2 * DIM], v[2 * DIM];
            uint8_t a[4], b[4];
            fill(x, 2 * X, 21, t * 2);
            fill(h, HIDDEN, 22, t * 2);
            fill(k, 2 * DIM, 23, t * 2);
            fill(v, 2 * DIM, 24, t * 2);
            kv_controller_decide(trial, cache, t % 2, 0, 4, x, h, k, v, a);
            kv_controller_decide(range, cache, t % 2, 0, 4, x, h, k, v, b);
            for (size_t i = 0; i < 4; i++, n++) {
                same += a[i] == b[i];
                assert_true(abs(a[i] - b[i]) <= 2); // 6 and 8 are neighbours
            }
        }
        assert_true(same > n * 4 / 5);
        kv_cache_free(cache);
    }
    kv_controller_free(trial);
    kv_controller_free(range);
}

// ---- in the step ----------------------------------------------------------------------

static void model_rows(void *self, enum kv_decoder_matrix m, uint32_t layer, size_t first, size_t n,
                       float *out) {
    const struct kv_model *model = self;
    const struct kv_layer_weights *l = &model->layers[layer];
    const float *source[KV_N_MATRICES] = {l->attn_norm,      l->qkv.f32,     l->out.f32,
                                          l->ffn_norm,       l->gateup.f32,  l->down.f32,
                                          model->final_norm, model->head.f32};
    size_t cols = m == KV_M_OUT ? l->out.cols : m == KV_M_DOWN ? l->down.cols : model->shape.hidden;
    memcpy(out, source[m] + first * cols, n * cols * sizeof *out);
}

// Logits after TOKENS tokens, and the cache they leave.
static struct kv_cache *decode_all(const struct kv_model *m, const struct kv_controller *c,
                                   unsigned threads, float *logits) {
    struct kv_decoder *d;
    struct kv_error e;
    struct kv_cache *cache = cache_of(&shape, "asym:group=32");
    struct kv_decoder_setting s = {.shape = shape,
                                   .order = m->order,
                                   .rms_eps = m->rms_eps,
                                   .rope_base = m->rope[0].base,
                                   .weights = KV_W_F32,
                                   .n_threads = threads,
                                   .controller = c,
                                   .source = {(void *)m, model_rows}};
    uint8_t half[2 * HEADS];
    memset(half, 16, sizeof half);
    assert_int_equal(kv_decoder_new(&d, &s, &e), 0);
    for (uint32_t t = 0; t < TOKENS; t++) {
        struct kv_step_time time[2];
        kv_decoder_steps(d, cache, c ? NULL : half, 2,
                         m->embed.f32 + (t * 31 + 7) % shape.vocab * shape.hidden, time, true,
                         logits);
        assert_true(!c || time[1].part_ns[KV_PART_POLICY] > 0);
        assert_int_equal(kv_cache_tokens(cache), t + 1);
    }
    kv_decoder_free(d);
    return cache;
}

static void a_controller_of_one_width_decodes_as_that_width_does(void **state) {
    (void)state;
    struct kv_model *m = kv_model_random(&shape, KV_ORDER_GGML, true, 11);
    struct kv_controller_setting s = setting_of(KV_ERROR_RANGE);
    s.widths[0] = 16;
    s.n_widths = 1;
    struct kv_controller *c = controller_of(&s);
    float want[77], got[77], largest = 0;
    kv_cache_free(decode_all(m, NULL, 1, want));
    for (size_t i = 0; i < 77; i++) largest = fmaxf(largest, fabsf(want[i]));
    for (unsigned threads = 1; threads <= 3; threads++) {
        kv_cache_free(decode_all(m, c, threads, got));
        for (size_t i = 0; i < 77; i++) assert_true(fabsf(got[i] - want[i]) <= 2e-3f * largest);
    }
    kv_controller_free(c);
    kv_model_close(m);
}

static void a_step_stores_the_widths_that_were_decided_whatever_the_threads(void **state) {
    (void)state;
    struct kv_model *m = kv_model_random(&shape, KV_ORDER_GGML, true, 11);
    struct kv_controller_setting s = setting_of(KV_ERROR_TRIAL);
    static const float lambda[2] = {1e-7f, 1e-6f};
    s.lambda = lambda;
    struct kv_controller *c = controller_of(&s);
    float logits[77];
    struct kv_cache *one = decode_all(m, c, 1, logits), *two = decode_all(m, c, 2, logits);
    size_t seen[17] = {0}, same = 0, n = 0;
    for (size_t stream = 0; stream < HEADS; stream++)
        for (uint32_t t = 0; t < TOKENS; t++) {
            uint8_t a[2], b[2];
            kv_cache_widths(one, stream, t, a);
            kv_cache_widths(two, stream, t, b);
            for (int side = 0; side < 2; side++, n++) {
                seen[a[side]]++;
                same += a[side] == b[side];
            }
        }
    // Sums of parts differ in their last bits, and choices on an edge with them.
    assert_true(same >= n * 98 / 100);
    size_t kinds = 0;
    for (size_t b = 0; b < 17; b++) kinds += seen[b] > 0;
    assert_true(kinds >= 3);
    kv_cache_free(one);
    kv_cache_free(two);
    kv_controller_free(c);
    kv_model_close(m);
}

static void a_width_without_a_port_is_refused(void **state) {
    (void)state;
    struct kv_controller_setting s = setting_of(KV_ERROR_RANGE);
    struct kv_controller *c;
    struct kv_error e;
    s.widths[1] = 7;
    assert_int_equal(kv_controller_new(&c, &s, &e), KV_EUSAGE);
    assert_null(c);
    assert_non_null(strstr(e.msg, "7 bits"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_equal_those_of_a_second_pass_over_the_stored_keys),
        cmocka_unit_test(widths_are_those_of_the_rule_written_out),
        cmocka_unit_test(errors_from_ranges_choose_as_trial_coding_does_or_next_to_it),
        cmocka_unit_test(a_controller_of_one_width_decodes_as_that_width_does),
        cmocka_unit_test(a_step_stores_the_widths_that_were_decided_whatever_the_threads),
        cmocka_unit_test(a_width_without_a_port_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
