// SPDX-License-Identifier: Apache-2.0
// Matrix kernels against plain sums, and whole decode steps against the model's forward pass.
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/cache/decode.h"
#include "sim/cache/gemv_isa.h"
#include "sim/cost/bench.h"
#include "sim/model/architecture.h"
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
    struct kv_bench_model as;
    kv_bench_of(&as, model);
    as.decoder.weights = kind;
    as.decoder.n_threads = threads;
    struct kv_cache_setting cs = {
        .shape = model->shape, .format = "sym", .windows = as.decoder.windows};
    assert_int_equal(kv_decoder_new(&d, &as.decoder, &e), 0);
    assert_int_equal(kv_cache_new(&c, &cs, &e), 0);
    float *x = kv_alloc(model->shape.hidden, sizeof *x);
    for (size_t t = 0; t < TOKENS; t++) {
        struct kv_step_time time;
        for (size_t i = 0; i < model->shape.hidden; i++)
            x[i] = model->embed_scale * model->embed.f32[ids[t] * model->shape.hidden + i];
        kv_decoder_steps(d, c, (uint8_t[]){bits, bits}, 1, x, &time, true, logits);
        assert_true(time.step_ns > 0);
    }
    // Steps that are not kept leave the context and the outcome as they were.
    float *again = kv_alloc(model->shape.vocab, sizeof *again);
    kv_cache_truncate(c, TOKENS - 1);
    kv_decoder_steps(d, c, (uint8_t[]){bits, bits}, 3, x, NULL, false, again);
    assert_memory_equal(again, logits, model->shape.vocab * sizeof *again);
    assert_int_equal(kv_cache_tokens(c), TOKENS - 1);
    free(again);
    free(x);
    kv_cache_free(c);
    kv_decoder_free(d);
    kv_bench_close(&as);
}

static void compare_with_forward(const struct kv_model *m, enum kv_weight_kind kind, uint8_t bits,
                                 double tolerance) {
    size_t vocab = m->shape.vocab, hidden = m->shape.hidden;
    uint32_t ids[TOKENS];
    for (uint32_t t = 0; t < TOKENS; t++) ids[t] = (t * 31 + 7) % (uint32_t)vocab;
    struct kv_scratch *scratch = kv_scratch_new();
    float *final = kv_alloc(TOKENS * hidden, sizeof *final),
          *logits = kv_alloc(vocab, sizeof *logits);
    struct kv_tree tree = {.n_tokens = TOKENS, .n_context = TOKENS, .ids = ids};
    struct kv_forward job = {.tree = &tree, .store = exact_store, .final = final};
    struct kv_reference r;
    struct kv_error e;
    assert_int_equal(kv_forward(m, &job, scratch, &e), 0);
    kv_head_reference(m, final + (TOKENS - 1) * hidden, 1, scratch, &r);
    double largest = 0;
    for (size_t i = 0; i < vocab; i++) largest = fmax(largest, fabs(r.logit[i]));
    for (unsigned threads = 1; threads <= 3; threads++) {
        decode_all(m, kind, threads, bits, ids, logits);
        for (size_t i = 0; i < vocab; i++)
            if (!(fabs(logits[i] - r.logit[i]) <= tolerance * largest))
                fail_msg("%s, %s, %u threads, order %d: logit %zu is %g, expected %g",
                         m->architecture->title, kv_weight_kind_names[kind], threads, m->order, i,
                         logits[i], r.logit[i]);
    }
    free(final);
    free(logits);
    kv_scratch_free(scratch);
}

static void decode_steps_agree_with_the_forward_pass(void **state) {
    (void)state;
    static const struct kv_shape shape = {3, 6, 2, 64, 128, 224, 77, 128};
    static const struct {
        enum kv_weight_kind kind;
        uint8_t bits;
        double tolerance; // of the largest logit
    } cases[] = {
        {KV_W_F32, 16, 2e-3}, {KV_W_BF16, 16, 3e-2}, {KV_W_Q8, 8, 5e-2}, {KV_W_Q4, 16, 0.5}};
    for (int order = 0; order < 2; order++) {
        struct kv_model *m = kv_model_random(&shape, (enum kv_order)order, true, 11);
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
            compare_with_forward(m, cases[k].kind, cases[k].bits, cases[k].tolerance);
        kv_model_close(m);
    }
}

// Biases, norms of heads and after parts, GeGLU, stretched RoPE, layers that see 33 of 90 tokens,
// heads of up to 256 channels.
static void so_do_those_of_other_families(void **state) {
    (void)state;
    static const struct {
        struct kv_shape shape;
        struct kv_random_model how;
    } families[] = {
        {{3, 6, 2, 64, 128, 224, 77, 128}, {.architecture = "qwen2", .biases = true}},
        {{3, 4, 2, 128, 96, 224, 77, 128}, {.architecture = "qwen3", .attn_scale = 0.05f}},
        {{2, 4, 2, 80, 128, 224, 77, 128},
         {.architecture = "llama",
          .biases = true,
          .rope = {{.base = 1e4f,
                    .scaling = KV_ROPE_LLAMA3,
                    .factor = 8,
                    .low_factor = 1,
                    .high_factor = 4,
                    .attention_factor = 1,
                    .original_tokens = 32}}}},
        {{3, 4, 1, 256, 128, 224, 77, 128},
         {.architecture = "gemma3",
          .window = 33,
          .window_pattern = 2,
          .rope = {{.base = 1e6f, .factor = 1, .attention_factor = 1},
                   {.base = 1e4f, .factor = 1, .attention_factor = 1}}}},
    };
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        struct kv_model *m =
            kv_model_random_as(&families[i].shape, KV_ORDER_HF, false, 11, &families[i].how);
        assert_non_null(m);
        compare_with_forward(m, KV_W_F32, 16, 2e-3);
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
        cmocka_unit_test(so_do_those_of_other_families),
        cmocka_unit_test(parts_add_up_to_the_step),
        cmocka_unit_test(shapes_that_cannot_be_packed_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
