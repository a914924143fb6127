// SPDX-License-Identifier: Apache-2.0
// Each architecture written as a GGUF file and as a Hugging Face folder of both generations, read
// back, and run: the same bits as the model that was written.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the headers above before its own
#include <cmocka.h>

#include "sim/model/forward.h"
#include "sim/model/rope.h"
#include "sim/model/test/model_files.h"

#define PLAIN(b)                                                                                   \
    { .base = (b), .factor = 1, .low_factor = 1, .high_factor = 1, .attention_factor = 1 }

// 7 layers, so that Gemma's sixth sees all; windows shorter than the tree below.
static const struct kv_shape wide = {3, 4, 2, 16, 32, 64, N_TINY_PIECES, 64},
                             deep = {7, 2, 1, 32, 48, 64, N_TINY_PIECES, 64};

struct sample {
    const struct kv_shape *shape;
    struct kv_random_model how;
    bool tied;
};

// ---- writing, reading, running --------------------------------------------------------

static int store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                 struct kv_layer_view *view, struct kv_error *e) {
    (void)self, (void)layer, (void)e;
    *view = (struct kv_layer_view){.k_exact = kv->k, .v_exact = kv->v};
    return 0;
}

static float *run(const struct kv_model *m) {
    static const uint32_t ids[] = {3, 17, 5, 40, 2, 9, 33, 12, 7, 21, 30, 1, 18},
                          first[] = {6, 9, 13};
    static const struct kv_tree tree = {13, 6, 2, first, ids};
    struct kv_scratch *s = kv_scratch_new();
    struct kv_error e;
    float *final = kv_alloc((size_t)tree.n_tokens * m->shape.hidden, sizeof *final);
    assert_int_equal(
        0,
        kv_forward(m, &(struct kv_forward){.tree = &tree, .store = store, .final = final}, s, &e));
    kv_scratch_free(s);
    return final;
}

static void same_model(const char *path, const struct kv_model *from) {
    struct kv_model *m;
    struct kv_error e;
    if (kv_model_open(&m, path, KV_WEIGHTS_F32, &e)) fail_msg("%s: %s", e.where, e.msg);
    assert_int_equal(m->order, from->order);
    assert_int_equal(m->n_layers, from->n_layers);
    for (size_t i = 0; i < m->n_layers; i++) {
        const struct kv_rope *a = &m->rope[m->layers[i].rope],
                             *b = &from->rope[from->layers[i].rope];
        size_t n = (size_t)m->shape.max_tokens * (m->shape.head_dim / 2) * sizeof(float);
        assert_int_equal(m->layers[i].window, from->layers[i].window);
        assert_memory_equal(a->cos, b->cos, n);
    }
    float *got = run(m), *want = run(from);
    assert_memory_equal(got, want, 13 * m->shape.hidden * sizeof *got);
    free(got);
    free(want);
    kv_model_close(m);
}

// more: n_more further pairs of metadata, freed.
static void gguf_gives(const struct sample *s, enum kv_order order, struct kv_text *more,
                       uint64_t n_more) {
    char dir[] = "/tmp/kvsim-architecture-XXXXXX";
    struct kv_text file = {0};
    struct kv_model *m = kv_model_random_as(s->shape, order, s->tied, 7, &s->how);
    assert_non_null(m);
    assert_non_null(mkdtemp(dir));
    build_gguf_with(&file, m, &gguf_f32, more, n_more);
    assert_int_equal(write_file_in(dir, "m.gguf", file.s, file.n), 0);
    char *path = file_in(dir, "m.gguf");
    same_model(path, m);
    unlink(path);
    rmdir(dir);
    free(path);
    free(file.s);
    free(more->s);
    *more = (struct kv_text){0};
    kv_model_close(m);
}

// Hugging Face's Gemma files hold norms less 1, which lies exactly between 0.5 and 2.
static void shift_norms(struct kv_model *m, float by) {
    for (size_t i = 0; i < m->shape.hidden; i++) m->final_norm[i] += by;
    for (size_t l = 0; l < m->n_layers; l++) {
        struct kv_layer_weights *w = &m->layers[l];
        float *norms[] = {w->attn_norm, w->attn_post_norm, w->ffn_norm, w->ffn_post_norm};
        for (size_t k = 0; k < 4; k++)
            for (size_t i = 0; i < m->shape.hidden; i++) norms[k][i] += by;
        for (size_t i = 0; i < m->shape.head_dim; i++) w->q_norm[i] += by, w->k_norm[i] += by;
    }
}

static void folder_gives(const struct sample *s, const char *config) {
    char dir[] = "/tmp/kvsim-architecture-XXXXXX";
    static const char *const files[] = {"config.json", "tokenizer.json", "model.safetensors"};
    struct kv_model *m = kv_model_random_as(s->shape, KV_ORDER_HF, s->tied, 7, &s->how);
    assert_non_null(m);
    assert_non_null(mkdtemp(dir));
    bool shifted = strcmp(s->how.architecture, "gemma3") == 0;
    if (shifted) shift_norms(m, -1);
    assert_int_equal(write_folder(dir, m, "F32"), 0);
    if (shifted) shift_norms(m, 1);
    assert_int_equal(write_config(dir, m, config), 0);
    same_model(dir, m);
    for (size_t i = 0; i < 3; i++) remove_file_in(dir, files[i]);
    rmdir(dir);
    kv_model_close(m);
}

// ---- Qwen -----------------------------------------------------------------------------

static void qwen2_is_read_from_both(void **state) {
    const struct sample s = {&wide, {.architecture = "qwen2", .rope = {PLAIN(1e6f)}}, false};
    struct kv_text none = {0};
    (void)state;
    gguf_gives(&s, KV_ORDER_HF, &none, 0);
    // As transformers 4 writes it: a window that is not used.
    folder_gives(&s, ", \"architectures\": [\"Qwen2ForCausalLM\"], \"torch_dtype\": \"bfloat16\", "
                     "\"use_sliding_window\": false, \"sliding_window\": 4, "
                     "\"max_window_layers\": 1");
    // As transformers 5 does.
    folder_gives(&s, ", \"architectures\": [\"Qwen2ForCausalLM\"], \"dtype\": \"bfloat16\", "
                     "\"layer_types\": [\"full_attention\", \"full_attention\", "
                     "\"full_attention\"], \"rope_theta\": null, \"rope_parameters\": "
                     "{\"rope_type\": \"default\", \"rope_theta\": 1000000.0}");
    // One that slides from its second layer on.
    struct sample slides = s;
    slides.how.window = 4;
    slides.how.window_pattern = 3; // all but the third: listed
    folder_gives(&slides, ", \"architectures\": [\"Qwen2ForCausalLM\"], \"use_sliding_window\": "
                          "true, \"sliding_window\": 4, \"layer_types\": [\"sliding_attention\", "
                          "\"sliding_attention\", \"full_attention\"]");
}

static void qwen2_slides_from_max_window_layers_on(void **state) {
    char dir[] = "/tmp/kvsim-architecture-XXXXXX";
    static const char *const files[] = {"config.json", "tokenizer.json", "model.safetensors"};
    struct kv_model *from = kv_model_random_as(&wide, KV_ORDER_HF, true, 7,
                                               &(struct kv_random_model){.architecture = "qwen2"}),
                    *m;
    struct kv_error e;
    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(write_folder(dir, from, "F32"), 0);
    assert_int_equal(write_config(dir, from,
                                  ", \"architectures\": [\"Qwen2ForCausalLM\"], "
                                  "\"use_sliding_window\": true, \"sliding_window\": 4, "
                                  "\"max_window_layers\": 1"),
                     0);
    assert_int_equal(0, kv_model_open(&m, dir, KV_WEIGHTS_F32, &e));
    const uint32_t windows[] = {0, 4, 4};
    for (size_t i = 0; i < 3; i++) assert_int_equal(m->layers[i].window, windows[i]);
    kv_model_close(m);
    kv_model_close(from);
    for (size_t i = 0; i < 3; i++) remove_file_in(dir, files[i]);
    rmdir(dir);
}

static void qwen3_is_read_from_both(void **state) {
    struct sample s = {&wide, {.architecture = "qwen3", .rope = {PLAIN(1e6f)}}, true};
    struct kv_text none = {0};
    (void)state;
    gguf_gives(&s, KV_ORDER_HF, &none, 0);
    folder_gives(&s, ", \"architectures\": [\"Qwen3ForCausalLM\"], \"attention_bias\": false");
    s.how.biases = true;
    gguf_gives(&s, KV_ORDER_HF, &none, 0);
    folder_gives(&s, ", \"architectures\": [\"Qwen3ForCausalLM\"], \"attention_bias\": true");
}

// ---- Gemma ----------------------------------------------------------------------------

static const struct kv_rope global = PLAIN(1e6f), local = PLAIN(10000);

static void gemma3_is_read_from_gguf(void **state) {
    struct sample s = {
        &deep,
        {.architecture = "gemma3", .window = 4, .window_pattern = 6, .rope = {global, local}},
        true};
    struct kv_text more = {0};
    (void)state;
    put_u32_pair(&more, "gemma3.attention.sliding_window", 4);
    gguf_gives(&s, KV_ORDER_HF, &more, 1);
    // What newer files say, and the scaling of larger models, which only layers that see all have.
    s.how.rope[0].scaling = KV_ROPE_LINEAR;
    s.how.rope[0].factor = 8;
    s.how.rope[1].base = 5000;
    s.how.window_pattern = 3;
    put_u32_pair(&more, "gemma3.attention.sliding_window", 4);
    put_u32_pair(&more, "gemma3.attention.sliding_window_pattern", 3);
    put_float_pair(&more, "gemma3.rope.freq_base_swa", 5000);
    put_text_pair(&more, "gemma3.rope.scaling.type", "linear");
    put_float_pair(&more, "gemma3.rope.scaling.factor", 8);
    put_float_pair(&more, "gemma3.final_logit_softcapping", 0);
    gguf_gives(&s, KV_ORDER_HF, &more, 6);
}

#define GEMMA3                                                                                     \
    ", \"architectures\": [\"Gemma3ForCausalLM\"], \"hidden_activation\": "                        \
    "\"gelu_pytorch_tanh\", \"sliding_window\": 4, \"final_logit_softcapping\": null, "            \
    "\"query_pre_attn_scalar\": "

static void gemma3_is_read_from_folders_of_both_generations(void **state) {
    struct sample s = {
        &deep,
        {.architecture = "gemma3", .window = 4, .window_pattern = 6, .rope = {global, local}},
        true};
    (void)state;
    folder_gives(&s, GEMMA3 "32, \"rope_theta\": 1000000.0, \"rope_local_base_freq\": 10000.0");
    folder_gives(&s,
                 GEMMA3 "32, \"rope_theta\": null, \"_sliding_window_pattern\": 6, "
                        "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\", "
                        "\"rope_theta\": 1000000.0}, \"sliding_attention\": {\"rope_type\": "
                        "\"default\", \"rope_theta\": 10000.0}}");
    s.how.attn_scale = 1 / sqrtf(48);
    s.how.biases = true;
    s.how.rope[0].scaling = KV_ROPE_LINEAR;
    s.how.rope[0].factor = 8;
    s.how.rope[1].base = 5000;
    s.how.window_pattern = 2;
    folder_gives(&s, GEMMA3 "48, \"attention_bias\": true, \"sliding_window_pattern\": 2, "
                            "\"rope_local_base_freq\": 5000, \"rope_scaling\": {\"rope_type\": "
                            "\"linear\", \"factor\": 8.0}");
    folder_gives(
        &s,
        GEMMA3 "48, \"attention_bias\": true, \"layer_types\": [\"sliding_attention\", "
               "\"full_attention\", \"sliding_attention\", \"full_attention\", "
               "\"sliding_attention\", \"full_attention\", \"sliding_attention\"], "
               "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"linear\", \"factor\": "
               "8.0}, \"sliding_attention\": {\"rope_theta\": 5000}}");
}

// ---- Llama ----------------------------------------------------------------------------

static void llama_with_biases_is_read_from_both(void **state) {
    const struct sample s = {&wide, {.architecture = "llama", .biases = true}, false};
    struct kv_text none = {0};
    (void)state;
    gguf_gives(&s, KV_ORDER_GGML, &none, 0);
    folder_gives(&s, ", \"attention_bias\": true, \"mlp_bias\": true");
}

static void llama_with_scaled_rope_is_read_from_both(void **state) {
    struct sample s = {&wide, {.architecture = "llama", .rope = {PLAIN(10000)}}, true};
    struct kv_rope *r = &s.how.rope[0];
    struct kv_text more = {0};
    (void)state;
    r->scaling = KV_ROPE_LINEAR;
    r->factor = 2.5f;
    put_float_pair(&more, "llama.rope.scaling.factor", 2.5f);
    gguf_gives(&s, KV_ORDER_GGML, &more, 1);
    folder_gives(&s, ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5}");
    r->scaling = KV_ROPE_YARN;
    r->factor = 4;
    r->low_factor = 1;
    r->high_factor = 32;
    r->original_tokens = 16;
    r->attention_factor = kv_rope_yarn_attention(4);
    put_text_pair(&more, "llama.rope.scaling.type", "yarn");
    put_float_pair(&more, "llama.rope.scaling.factor", 4);
    put_u32_pair(&more, "llama.rope.scaling.original_context_length", 16);
    gguf_gives(&s, KV_ORDER_GGML, &more, 3);
    folder_gives(&s, ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, "
                     "\"original_max_position_embeddings\": 16}");
    r->low_factor = 2;
    r->high_factor = 8;
    r->attention_factor = 1.5f;
    folder_gives(&s, ", \"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 4.0, "
                     "\"beta_fast\": 8, \"beta_slow\": 2, \"attention_factor\": 1.5, "
                     "\"rope_theta\": 10000.0, \"original_max_position_embeddings\": 16}");
    r->scaling = KV_ROPE_LLAMA3;
    r->factor = 8;
    r->low_factor = 1;
    r->high_factor = 4;
    r->attention_factor = 1;
    folder_gives(&s, ", \"rope_parameters\": {\"rope_type\": \"llama3\", \"factor\": 8.0, "
                     "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
                     "\"original_max_position_embeddings\": 16, \"rope_theta\": 10000.0}");
}

// In GGUF Llama 3.1's frequencies are a tensor of what each is divided by.
static void llama_with_divisors_is_read_from_gguf(void **state) {
    struct sample s = {&wide, {.architecture = "llama", .rope = {PLAIN(5e5f)}}, true};
    struct kv_text none = {0};
    static const float divisors[] = {1, 1, 1, 1.5f, 2.25f, 8, 8, 8};
    (void)state;
    float *mine = kv_alloc(8, sizeof *mine); // the model frees it
    memcpy(mine, divisors, sizeof divisors);
    s.how.rope[0].scaling = KV_ROPE_DIVISORS;
    s.how.rope[0].divisors = mine;
    gguf_gives(&s, KV_ORDER_GGML, &none, 0);
}

static void divisors_that_cannot_divide_are_refused(void **state) {
    static const struct {
        float x;
        const char *message;
    } cases[] = {{0, "tensor rope_freqs.weight holds 0 at 3, by which no frequency can be divided"},
                 {NAN, "tensor rope_freqs.weight holds nan at 3, by which no frequency can be "
                       "divided"}};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char dir[] = "/tmp/kvsim-architecture-XXXXXX";
        struct kv_text file = {0};
        struct kv_error e;
        struct kv_model *m = kv_model_random(&wide, KV_ORDER_GGML, true, 7), *none;
        m->rope[0].divisors = kv_alloc(8, sizeof(float));
        for (size_t p = 0; p < 8; p++) m->rope[0].divisors[p] = p == 3 ? cases[i].x : 1;
        assert_non_null(mkdtemp(dir));
        build_gguf(&file, m, &gguf_f32);
        assert_int_equal(write_file_in(dir, "m.gguf", file.s, file.n), 0);
        char *path = file_in(dir, "m.gguf");
        assert_int_equal(KV_EFAIL, kv_model_open(&none, path, KV_WEIGHTS_F32, &e));
        assert_string_equal(e.msg, cases[i].message);
        unlink(path);
        rmdir(dir);
        free(path);
        free(file.s);
        kv_model_close(m);
    }
}

// ---- a window makes a difference ------------------------------------------------------

static void what_lies_before_a_window_is_not_seen(void **state) {
    struct kv_random_model how = {.architecture = "gemma3",
                                  .window = 4,
                                  .window_pattern = 8, // none of the 7 layers sees all
                                  .rope = {global, local}};
    (void)state;
    struct kv_model *m = kv_model_random_as(&deep, KV_ORDER_HF, true, 7, &how);
    float *slides = run(m);
    for (size_t i = 0; i < m->n_layers; i++) m->layers[i].window = 0;
    float *sees_all = run(m);
    size_t h = m->shape.hidden;
    assert_memory_equal(slides, sees_all, 4 * h * sizeof *slides); // positions 0 to 3
    assert_memory_not_equal(slides + 4 * h, sees_all + 4 * h, h * sizeof *slides);
    free(slides);
    free(sees_all);
    kv_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen2_is_read_from_both),
        cmocka_unit_test(qwen2_slides_from_max_window_layers_on),
        cmocka_unit_test(qwen3_is_read_from_both),
        cmocka_unit_test(gemma3_is_read_from_gguf),
        cmocka_unit_test(gemma3_is_read_from_folders_of_both_generations),
        cmocka_unit_test(llama_with_biases_is_read_from_both),
        cmocka_unit_test(llama_with_scaled_rope_is_read_from_both),
        cmocka_unit_test(llama_with_divisors_is_read_from_gguf),
        cmocka_unit_test(divisors_that_cannot_divide_are_refused),
        cmocka_unit_test(what_lies_before_a_window_is_not_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
