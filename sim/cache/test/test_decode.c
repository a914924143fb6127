// SPDX-License-Identifier: Apache-2.0
// Matrix kernels against plain sums, and whole decode steps against the model's forward pass.
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/cache/decode.h"
#include "sim/cache/gemv_isa.h"
#include "sim/model/forward.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

// ---- products -------------------------------------------------------------------------

enum { ROWS = 50, COLS = 352, TILED = 64 };

static void each_product_kernel_agrees_with_plain_sums(void **state) {
    (void)state;
    static kv_gemv_fn *const kernels[KV_N_WEIGHT_KINDS][KV_N_CPU] = {
        {kv_gemv_f32_base, kv_gemv_f32_avx2, kv_gemv_f32_avx512},
        {kv_gemv_bf16_base, kv_gemv_bf16_avx2, kv_gemv_bf16_avx512},
        {kv_gemv_q8_base, kv_gemv_q8_avx2, kv_gemv_q8_avx512},
        {kv_gemv_q4_base, kv_gemv_q4_avx2, kv_gemv_q4_avx512}};
    // Of sum |w x|: float sums; bf16 keeps 8 bits; 8 and 4 bits half a step of 1/127 and 1/7.
    static const double tolerance[KV_N_WEIGHT_KINDS] = {2e-6, 4e-3, 1e-2, 0.15};
    float *w = kv_alloc(ROWS * COLS, sizeof *w), x[COLS], y[TILED], first[TILED];
    for (size_t i = 0; i < ROWS * COLS; i++) w[i] = (float)kv_draw(1, 2, i) - 0.5f;
    for (size_t i = 0; i < COLS; i++) x[i] = (float)kv_draw(3, 4, i) - 0.5f;
    for (enum kv_weight_kind kind = 0; kind < KV_N_WEIGHT_KINDS; kind++) {
        struct kv_weights m;
        struct kv_activation a = {.pair = kv_alloc(COLS, 4), .sum = kv_alloc(COLS, 4)};
        kv_weights_init(&m, kind, ROWS, COLS);
        kv_weights_put(&m, 0, 48, w);
        kv_weights_put(&m, 48, ROWS - 48, w + 48 * COLS);
        kv_activation_set(&a, kind, x, COLS);
        for (enum kv_cpu level = 0; level <= kv_cpu_level(); level++) {
            kernels[kind][level](&m, &a, 0, 16, y);
            kernels[kind][level](&m, &a, 16, ROWS, y);
            for (size_t r = 0; r < ROWS; r++) {
                double want = 0, size = 0;
                for (size_t i = 0; i < COLS; i++) {
                    want += (double)w[r * COLS + i] * x[i];
                    size += fabs((double)w[r * COLS + i] * x[i]);
                }
                if (!(fabs(y[r] - want) <= tolerance[kind] * size))
                    fail_msg("%s level %d row %zu: %g, expected %g", kv_weight_kind_names[kind],
                             (int)level, r, y[r], want);
                if (level == 0) first[r] = y[r];
                assert_true(fabs(y[r] - first[r]) <= 1e-5 * size);
            }
        }
        kv_weights_fini(&m);
        free(a.pair);
        free(a.sum);
    }
    free(w);
}

// ---- steps ----------------------------------------------------------------------------

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

static int exact_store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                       struct kv_layer_view *view, struct kv_error *e) {
    (void)self, (void)layer, (void)e;
    *view = (struct kv_layer_view){.k_exact = kv->k, .v_exact = kv->v};
    return 0;
}

enum { TOKENS = 90 };

// Feeds the ids one by one through the decoder and returns the logits after the last.
static void decode_all(const struct kv_model *model, enum kv_weight_kind kind, unsigned threads,
                       uint8_t bits, const uint32_t *ids, float *logits) {
    struct kv_decoder *d;
    struct kv_cache *c;
    struct kv_error e;
    struct kv_decoder_setting s = {.shape = model->shape,
                                   .order = model->order,
                                   .rms_eps = model->rms_eps,
                                   .rope_base = model->rope[0].base,
                                   .weights = kind,
                                   .n_threads = threads,
                                   .source = {(void *)model, model_rows}};
    struct kv_cache_setting cs = {.shape = model->shape, .format = "sym"};
    assert_int_equal(kv_decoder_new(&d, &s, &e), 0);
    assert_int_equal(kv_cache_new(&c, &cs, &e), 0);
    for (size_t t = 0; t < TOKENS; t++) {
        const float *x = model->embed.f32 + ids[t] * model->shape.hidden;
        struct kv_step_time time;
        kv_decoder_steps(d, c, (uint8_t[]){bits, bits}, 1, x, &time, true, logits);
        assert_true(time.step_ns > 0);
    }
    // Steps that are not kept leave the context and the outcome as they were.
    float *again = kv_alloc(model->shape.vocab, sizeof *again);
    kv_cache_truncate(c, TOKENS - 1);
    kv_decoder_steps(d, c, (uint8_t[]){bits, bits}, 3,
                     model->embed.f32 + ids[TOKENS - 1] * model->shape.hidden, NULL, false, again);
    assert_memory_equal(again, logits, model->shape.vocab * sizeof *again);
    assert_int_equal(kv_cache_tokens(c), TOKENS - 1);
    free(again);
    kv_cache_free(c);
    kv_decoder_free(d);
}

static void decode_steps_agree_with_the_forward_pass(void **state) {
    (void)state;
    static const struct kv_shape shape = {.n_layers = 3,
                                          .n_heads = 6,
                                          .n_kv_heads = 2,
                                          .head_dim = 64,
                                          .hidden = 128,
                                          .ffn = 224,
                                          .vocab = 77,
                                          .max_tokens = 128};
    static const struct {
        enum kv_weight_kind kind;
        uint8_t bits;
        double tolerance; // of the largest logit
    } cases[] = {
        {KV_W_F32, 16, 2e-3}, {KV_W_BF16, 16, 3e-2}, {KV_W_Q8, 8, 5e-2}, {KV_W_Q4, 16, 0.5}};
    for (int order = 0; order < 2; order++) {
        struct kv_model *m = kv_model_random(&shape, (enum kv_order)order, true, 11);
        uint32_t ids[TOKENS];
        for (uint32_t t = 0; t < TOKENS; t++) ids[t] = (t * 31 + 7) % shape.vocab;
        struct kv_scratch *scratch = kv_scratch_new();
        float *final = kv_alloc((size_t)TOKENS * shape.hidden, sizeof *final), logits[77];
        struct kv_tree tree = {.n_tokens = TOKENS, .n_context = TOKENS, .ids = ids};
        struct kv_forward job = {.tree = &tree, .store = exact_store, .final = final};
        struct kv_reference r;
        struct kv_error e;
        assert_int_equal(kv_forward(m, &job, scratch, &e), 0);
        kv_head_reference(m, final + (TOKENS - 1) * shape.hidden, 1, scratch, &r);
        double largest = 0;
        for (size_t i = 0; i < 77; i++) largest = fmax(largest, fabs(r.logit[i]));
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
            for (unsigned threads = 1; threads <= 3; threads++) {
                decode_all(m, cases[k].kind, threads, cases[k].bits, ids, logits);
                for (size_t i = 0; i < 77; i++)
                    if (!(fabs(logits[i] - r.logit[i]) <= cases[k].tolerance * largest))
                        fail_msg("%s, %u threads, order %d: logit %zu is %g, expected %g",
                                 kv_weight_kind_names[cases[k].kind], threads, order, i, logits[i],
                                 r.logit[i]);
            }
        free(final);
        kv_scratch_free(scratch);
        kv_model_close(m);
    }
}

static void parts_add_up_to_the_step(void **state) {
    (void)state;
    struct kv_decoder_setting s = {.shape = {.n_layers = 4,
                                             .n_heads = 3,
                                             .n_kv_heads = 1,
                                             .head_dim = 64,
                                             .hidden = 192,
                                             .ffn = 512,
                                             .vocab = 1000,
                                             .max_tokens = 64},
                                   .rms_eps = 1e-5f,
                                   .rope_base = 10000,
                                   .weights = KV_W_Q8,
                                   .n_threads = 2,
                                   .features = true};
    struct kv_cache_setting cs = {.shape = s.shape, .format = "sym"};
    struct kv_decoder *d;
    struct kv_cache *c;
    struct kv_error e;
    struct kv_step_time time[5];
    float x[192] = {1};
    assert_int_equal(kv_decoder_new(&d, &s, &e), 0);
    assert_int_equal(kv_cache_new(&c, &cs, &e), 0);
    kv_decoder_steps(d, c, (uint8_t[]){4, 4}, 5, x, time, false, NULL);
    for (int i = 0; i < 5; i++) {
        double sum = 0;
        for (int p = 0; p < KV_N_PARTS; p++) {
            assert_true(time[i].part_ns[p] > 0);
            sum += time[i].part_ns[p];
        }
        assert_true(fabs(sum / time[i].step_ns - 1) < 1e-6);
    }
    kv_cache_free(c);
    kv_decoder_free(d);
}

static void shapes_that_cannot_be_packed_are_refused(void **state) {
    (void)state;
    struct kv_decoder_setting s = {.shape = {.n_layers = 1,
                                             .n_heads = 1,
                                             .n_kv_heads = 1,
                                             .head_dim = 64,
                                             .hidden = 72,
                                             .ffn = 64,
                                             .vocab = 10},
                                   .n_threads = 1};
    struct kv_decoder *d;
    struct kv_error e;
    assert_int_equal(kv_decoder_new(&d, &s, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "hidden 72"));
    s.shape.hidden = s.shape.ffn = 1 << 20;
    s.shape.n_layers = 10000;
    assert_int_equal(kv_decoder_new(&d, &s, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "GB of memory are free"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_product_kernel_agrees_with_plain_sums),
        cmocka_unit_test(decode_steps_agree_with_the_forward_pass),
        cmocka_unit_test(parts_add_up_to_the_step),
        cmocka_unit_test(shapes_that_cannot_be_packed_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
