// SPDX-License-Identifier: Apache-2.0
// Judges the Hugging Face loader: folders of random weights, shards, true shapes, and what it must
// refuse; and that GGUF's channel order is a permutation of its rows.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>

#include "sim/model/test/model_files.h"
#include "sim/model/weight_types.h"

// 2 layers, 4 heads sharing 2 KV heads of 8 channels.
static const struct kv_shape tiny = {2, 4, 2, 8, 32, 64, N_TINY_PIECES, 16};

static const char *const files[] = {"config.json",
                                    "tokenizer.json",
                                    "model.safetensors",
                                    "model.safetensors.index.json",
                                    "model-00001-of-00002.safetensors",
                                    "model-00002-of-00002.safetensors",
                                    "m.gguf"};

struct fixture {
    char dir[64];
    struct kv_model *model;
};

static int set_up(void **state) {
    struct fixture *f = kv_alloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/kvsim-hf-XXXXXX");
    if (!mkdtemp(f->dir)) return -1;
    f->model = kv_model_random(&tiny, KV_ORDER_HF, true, 11);
    *state = f;
    return write_folder(f->dir, f->model, "F32");
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) remove_file_in(f->dir, files[i]);
    int rc = rmdir(f->dir);
    kv_model_close(f->model);
    free(f);
    return rc;
}

static void refuses(struct fixture *f, const char *file, const char *message) {
    struct kv_model *m;
    struct kv_error e = {0};
    assert_int_equal(kv_model_open(&m, f->dir, KV_WEIGHTS_F32, &e), KV_EFAIL);
    assert_string_equal(e.msg, message);
    char *path = *file ? file_in(f->dir, file) : kv_strdup(f->dir);
    assert_string_equal(e.where, path);
    free(path);
}

// ---- what loads -----------------------------------------------------------------------

static void a_folder_loads_unchanged_with_all_it_states(void **state) {
    struct fixture *f = *state;
    struct kv_model *m;
    struct kv_error e;
    assert_int_equal(kv_model_open(&m, f->dir, KV_WEIGHTS_F32, &e), 0);
    assert_memory_equal(&m->shape, &tiny, sizeof tiny);
    assert_int_equal(m->order, KV_ORDER_HF);
    assert_true(m->tied && m->head.f32 == m->embed.f32);
    assert_string_equal(m->name, strrchr(f->dir, '/') + 1);
    assert_string_equal(m->source, "safetensors (F32)");
    for (int i = 0; i < 2; i++) {
        const struct kv_layer_weights *a = &m->layers[i], *b = &f->model->layers[i];
        assert_memory_equal(a->qkv.f32, b->qkv.f32, (32 + 2 * 16) * 32 * 4);
        assert_memory_equal(a->out.f32, b->out.f32, 32 * 32 * 4);
        assert_memory_equal(a->gateup.f32, b->gateup.f32, 2 * 64 * 32 * 4);
        assert_memory_equal(a->down.f32, b->down.f32, 32 * 64 * 4);
        assert_memory_equal(a->attn_norm, b->attn_norm, 32 * 4);
    }
    uint32_t *ids = NULL;
    size_t n;
    assert_int_equal(kv_tokenizer_encode(m->tokenizer, "in the 12", 9, &ids, &n, &e), 0);
    // "in", " the", " ", then digits apart, though a merge of them exists.
    assert_int_equal(n, 5);
    assert_int_equal(ids[0], 256 + 3);
    assert_int_equal(ids[1], 256 + 2);
    assert_int_equal(ids[2], ' ');
    assert_int_equal(ids[3], '1');
    assert_int_equal(ids[4], '2');
    free(ids);
    kv_model_close(m);
}

static void halves_load_as_the_floats_they_stand_for(void **state) {
    struct fixture *f = *state;
    for (int half = 0; half < 2; half++) {
        struct kv_model *m;
        struct kv_error e;
        assert_int_equal(write_folder(f->dir, f->model, half ? "F16" : "BF16"), 0);
        assert_int_equal(kv_model_open(&m, f->dir, KV_WEIGHTS_F32, &e), 0);
        assert_string_equal(m->source, half ? "safetensors (F16)" : "safetensors (BF16)");
        const float *from = f->model->layers[1].down.f32;
        for (size_t i = 0; i < 32 * 64; i++) {
            float expected = half ? kv_f16_to_f32(kv_f32_to_f16(from[i]))
                                  : kv_bf16_to_f32(kv_f32_to_bf16(from[i]));
            assert_true(m->layers[1].down.f32[i] == expected);
        }
        kv_model_close(m);
    }
    assert_int_equal(write_folder(f->dir, f->model, "F32"), 0);
}

// llama.cpp's converter turns row s * d/2 + i of a head (half s, pair i) into row 2 i + s.
static size_t gguf_row(size_t hf_row, size_t d) {
    size_t in_head = hf_row % d, half = in_head / (d / 2), i = in_head % (d / 2);
    return hf_row - in_head + 2 * i + half;
}

static void gguf_holds_the_same_rows_of_q_and_k_in_pairwise_order(void **state) {
    struct fixture *f = *state;
    struct kv_model *pairwise = kv_model_random(&tiny, KV_ORDER_GGML, true, 11), *hf, *gguf;
    struct kv_error e;
    for (int i = 0; i < 2; i++)
        for (size_t row = 0; row < 32 + 16; row++)
            memcpy(pairwise->layers[i].qkv.f32 + gguf_row(row, 8) * 32,
                   f->model->layers[i].qkv.f32 + row * 32, 32 * sizeof(float));
    struct kv_text t = {0};
    build_gguf(&t, pairwise, &gguf_f32);
    assert_int_equal(write_file_in(f->dir, "m.gguf", t.s, t.n), 0);
    char *path = file_in(f->dir, "m.gguf");
    assert_int_equal(kv_model_open(&gguf, path, KV_WEIGHTS_F32, &e), 0);
    assert_int_equal(kv_model_open(&hf, f->dir, KV_WEIGHTS_F32, &e), 0);
    assert_int_equal(gguf->order, KV_ORDER_GGML);
    assert_int_equal(hf->order, KV_ORDER_HF);
    for (int i = 0; i < 2; i++) {
        const float *a = hf->layers[i].qkv.f32, *b = gguf->layers[i].qkv.f32;
        for (size_t row = 0; row < 32 + 16; row++)
            assert_memory_equal(a + row * 32, b + gguf_row(row, 8) * 32, 32 * sizeof(float));
        assert_memory_equal(a + 48 * 32, b + 48 * 32, 16 * 32 * sizeof(float)); // V
    }
    assert_memory_equal(hf->embed.f32, gguf->embed.f32, N_TINY_PIECES * 32 * sizeof(float));
    assert_int_equal(kv_tokenizer_digest(hf->tokenizer), kv_tokenizer_digest(gguf->tokenizer));
    kv_model_close(gguf);
    kv_model_close(hf);
    kv_model_close(pairwise);
    free(path);
    free(t.s);
}

static void shards_and_merges_as_pairs_load_as_one_file_does(void **state) {
    struct fixture *f = *state;
    struct kv_model *m;
    struct kv_error e;
    size_t n = count_file_tensors(f->model), half = n / 2;
    struct file_tensors *tensors = kv_alloc(1, sizeof *tensors);
    list_file_tensors(tensors, f->model, false);
    json_t *map = json_object();
    for (size_t i = 0; i < n; i++)
        json_object_set_new(map, tensors->list[i].name, json_string(files[i < half ? 4 : 5]));
    json_t *root = json_pack("{s:o}", "weight_map", map);
    char *index = json_dumps(root, 0);
    json_decref(root);
    remove_file_in(f->dir, "model.safetensors");
    assert_int_equal(write_file_in(f->dir, files[3], index, strlen(index)), 0);
    assert_int_equal(write_safetensors(f->dir, files[4], f->model, "F32", 0, half), 0);
    assert_int_equal(write_tokenizer(f->dir, true), 0);
    refuses(f, files[5], "cannot be opened: No such file or directory");
    assert_int_equal(write_safetensors(f->dir, files[5], f->model, "F32", half, n - half), 0);
    assert_int_equal(kv_model_open(&m, f->dir, KV_WEIGHTS_F32, &e), 0);
    assert_memory_equal(m->layers[1].down.f32, f->model->layers[1].down.f32, 32 * 64 * 4);
    assert_memory_equal(m->embed.f32, f->model->embed.f32, N_TINY_PIECES * 32 * 4);
    kv_model_close(m);

    const char outside[] = "{\"weight_map\": {\"model.norm.weight\": \"../x.safetensors\"}}";
    assert_int_equal(write_file_in(f->dir, files[3], outside, strlen(outside)), 0);
    refuses(f, files[3], "tensor model.norm.weight is mapped to no file of the folder");
    for (int i = 3; i < 6; i++) remove_file_in(f->dir, files[i]);
    refuses(f, "", "the folder holds neither model.safetensors nor model.safetensors.index.json");
    assert_int_equal(write_folder(f->dir, f->model, "F32"), 0);
    free(tensors);
    free(index);
}

// Writes a folder of the true shape of each tensor but few layers: the file is sparse, zeros but
// for one number at the end of each tensor. Then checks that this number lands at the end.
static void check_true_shape(struct fixture *f, const char *name, uint32_t n_layers) {
    struct kv_model m = {.shape = *kv_shape_named(name),
                         .tied = true,
                         .rms_eps = 1e-5f,
                         .n_ropes = 1,
                         .rope = {{.base = 10000}}};
    m.shape.n_layers = n_layers;
    m.n_layers = n_layers;
    m.layers = kv_alloc(n_layers, sizeof *m.layers);
    struct file_tensors *from = kv_alloc(1, sizeof *from);
    list_file_tensors(from, &m, false);
    struct kv_tensor *to = kv_alloc(from->n, sizeof *to);
    for (size_t i = 0; i < from->n; i++) {
        memcpy(to[i].name, from->list[i].name, sizeof from->list[i].name);
        strcpy(to[i].dtype, "BF16");
        if (from->list[i].rows) to[i].dims[to[i].n_dims++] = from->list[i].rows;
        to[i].dims[to[i].n_dims++] = from->list[i].cols;
    }
    char *header, *path = file_in(f->dir, "model.safetensors");
    size_t header_bytes;
    uint64_t total;
    struct kv_error e = {0};
    assert_int_equal(
        kv_safetensors_layout(to, from->n, NULL, 0, &header, &header_bytes, &total, &e), 0);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, header, header_bytes, 0), header_bytes);
    assert_int_equal(ftruncate(fd, (off_t)total), 0);
    for (size_t i = 0; i < from->n; i++) {
        uint16_t x = kv_f32_to_bf16((float)i + 1);
        assert_int_equal(pwrite(fd, &x, 2, (off_t)(to[i].offset + to[i].n_bytes - 2)), 2);
    }
    close(fd);
    assert_int_equal(write_config(f->dir, &m, ""), 0);

    struct kv_model *got;
    assert_int_equal(kv_model_open(&got, f->dir, KV_WEIGHTS_BF16, &e), 0);
    const struct kv_shape *s = &got->shape;
    assert_int_equal(s->vocab, 49152);
    assert_true(kv_bf16_to_f32(got->embed.bf16[(size_t)s->vocab * s->hidden - 1]) == 1);
    for (uint32_t i = 0; i < n_layers; i++) {
        const struct kv_layer_weights *l = &got->layers[i];
        const struct kv_matrix *matrices[] = {&l->qkv, &l->out, &l->gateup, &l->down};
        // The last tensor of each fused matrix: V, o, up, down, by their place in the list.
        const unsigned last[] = {3, 4, 7, 8};
        for (int k = 0; k < 4; k++) {
            const struct kv_matrix *w = matrices[k];
            float x = kv_bf16_to_f32(w->bf16[w->rows * w->cols - 1]);
            assert_true(x == (float)(2 + 9 * i + last[k] + 1));
        }
        assert_true(l->ffn_norm[s->hidden - 1] == (float)(2 + 9 * i + 5 + 1));
        assert_int_equal(l->qkv.rows, (s->n_heads + 2 * s->n_kv_heads) * s->head_dim);
    }
    kv_model_close(got);
    free(m.layers);
    free(header);
    free(path);
    free(from);
    free(to);
}

static void true_360m_and_1_7b_shapes_load(void **state) {
    struct fixture *f = *state;
    check_true_shape(f, "360m", 2);
    check_true_shape(f, "1.7b", 1);
    assert_int_equal(write_folder(f->dir, f->model, "F32"), 0);
}

static void published_shapes_have_their_names(void **state) {
    (void)state;
    assert_int_equal(kv_shape_named("135m")->n_layers, 30);
    assert_int_equal(kv_shape_named("360m")->n_kv_heads, 5);
    assert_int_equal(kv_shape_named("1.7b")->ffn, 8192);
    assert_null(kv_shape_named("7b"));
    // 16-bit cache bytes a token: 23040, 40960, 196608.
    const char *const names[] = {"135m", "360m", "1.7b"};
    const size_t bytes[] = {23040, 40960, 196608};
    for (int i = 0; i < 3; i++) {
        const struct kv_shape *s = kv_shape_named(names[i]);
        assert_int_equal(kv_cells(s) * s->head_dim * 2, bytes[i]);
    }
}

static void a_random_model_depends_on_its_seed_alone(void **state) {
    struct fixture *f = *state;
    struct kv_model *same = kv_model_random(&tiny, KV_ORDER_HF, true, 11);
    struct kv_model *other = kv_model_random(&tiny, KV_ORDER_HF, true, 12);
    size_t bytes = 32 * 64 * sizeof(float);
    assert_memory_equal(same->layers[1].down.f32, f->model->layers[1].down.f32, bytes);
    assert_memory_not_equal(other->layers[1].down.f32, f->model->layers[1].down.f32, bytes);
    assert_memory_not_equal(same->layers[0].down.f32, same->layers[1].down.f32, bytes);
    double sum = 0;
    for (size_t i = 0; i < 32 * 64; i++)
        sum += (double)same->layers[0].down.f32[i] * (double)same->layers[0].down.f32[i];
    assert_true(fabs(sum / (32 * 64) * 64 - 1) < 0.1); // variance 1/64
    kv_model_close(same);
    kv_model_close(other);
}

// ---- refusals -------------------------------------------------------------------------

static void settings_that_are_not_computed_are_refused_by_name(void **state) {
    struct fixture *f = *state;
    const struct {
        const char *more, *message;
    } cases[] = {
        {", \"rope_scaling\": {\"type\": \"linear\"}",
         "rope_scaling is of type linear, but lacks factor"},
        // issue 13 A6: either key, either spelling of the type, and a factor without any.
        {", \"rope_parameters\": {\"type\": \"dynamic\", \"factor\": 2}",
         "rope_parameters.type is dynamic; only default, linear, llama3 and yarn are computed"},
        {", \"rope_scaling\": {\"rope_type\": \"longrope\", \"factor\": 2}",
         "rope_scaling.rope_type is longrope; only default, linear, llama3 and yarn are computed"},
        {", \"rope_parameters\": {\"rope_type\": \"llama3\", \"factor\": 8, "
         "\"low_freq_factor\": 1}",
         "rope_parameters is of type llama3, but lacks high_freq_factor"},
        {", \"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 8, \"truncate\": false}",
         "rope_parameters.truncate is set, which is not computed"},
        {", \"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 0.5}",
         "RoPE's scaling factor is 0.5, not at least 1"},
        {", \"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 2}, "
         "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 4}",
         "rope_scaling and rope_parameters are both set; one of them counts"},
        {", \"rope_scaling\": {\"factor\": 4.0}",
         "rope_scaling.factor is set, which is not computed"},
        {", \"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}",
         "rope_parameters.full_attention is set, which is not computed"},
        {", \"partial_rotary_factor\": 0.5", "partial_rotary_factor is set, which is not computed"},
        {", \"rope_local_base_freq\": 10000", "rope_local_base_freq is set, which is not computed"},
        {", \"sliding_window\": 4", "sliding_window is set, which is not computed"},
        {", \"attn_logit_softcapping\": 50.0",
         "attn_logit_softcapping is set, which is not computed"},
        {", \"num_local_experts\": 8", "num_local_experts is set, which is not computed"},
        {", \"layer_types\": [\"full_attention\"]",
         "layer_types lists 1 layers, but the model has 2"},
        {", \"layer_types\": [\"full_attention\", \"linear_attention\"]",
         "layer_types has linear_attention at 1; only full_attention and sliding_attention are "
         "computed"},
        {", \"layer_types\": [\"full_attention\", \"sliding_attention\"]",
         "layer_types has sliding_attention at 1, which is not computed for Llama"},
        {", \"architectures\": [\"GptOssForCausalLM\"]",
         "the architecture is GptOssForCausalLM, which needs attention sinks: not computed; only "
         "LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, Gemma3ForCausalLM models are"},
        {", \"architectures\": [\"DeepseekV3ForCausalLM\"]",
         "the architecture is DeepseekV3ForCausalLM, which needs multi-head latent attention "
         "(MLA): "
         "not computed; only LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, "
         "Gemma3ForCausalLM models are"},
        {", \"architectures\": [\"MistralForCausalLM\"]",
         "the architecture is MistralForCausalLM; only LlamaForCausalLM, Qwen2ForCausalLM, "
         "Qwen3ForCausalLM, Gemma3ForCausalLM models are computed"},
        {", \"hidden_act\": \"gelu\"", "hidden_act is gelu; only silu is computed"},
        {", \"num_key_value_heads\": 3", "4 attention heads do not share 3 KV heads evenly"},
        {", \"head_dim\": 7", "7 channels a head is odd, but RoPE rotates pairs"},
        {", \"num_hidden_layers\": -1",
         "num_hidden_layers should be a whole number that fits 32 bits"},
        {", \"num_hidden_layers\": 4000000000",
         "the model claims 4000000000 layers; 1 to 1024 are read"},
        {", \"rms_norm_eps\": \"small\"", "rms_norm_eps should be a positive number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(write_config(f->dir, f->model, cases[i].more), 0);
        refuses(f, "config.json", cases[i].message);
    }
    assert_int_equal(write_config(f->dir, f->model, ", \"attention_bias\": true"), 0);
    refuses(f, "", "tensor model.layers.0.self_attn.q_proj.bias is missing");
    assert_int_equal(write_config(f->dir, f->model, ", \"vocab_size\": 300"), 0);
    refuses(f, "model.safetensors",
            "tensor model.embed_tokens.weight has 261 rows of 32, but the "
            "model's shape asks for 300 of 32");
    assert_int_equal(write_config(f->dir, f->model, ", \"num_hidden_layers\": 1"), 0);
    refuses(f, "model.safetensors",
            "tensor model.layers.1.input_layernorm.weight is not part of "
            "the Llama architecture as computed here");
    assert_int_equal(write_config(f->dir, f->model, ", \"num_hidden_layers\": 3"), 0);
    refuses(f, "", "tensor model.layers.2.input_layernorm.weight is missing");
    assert_int_equal(write_file_in(f->dir, "config.json", "{\"a\": ", 6), 0);
    refuses(f, "config.json",
            "this is not JSON: unexpected token near end of file at line 1, "
            "byte 6");
    remove_file_in(f->dir, "config.json");
    refuses(f, "config.json", "cannot be opened: No such file or directory");
    assert_int_equal(write_config(f->dir, f->model, ""), 0);
}

static void tokenizers_of_another_kind_are_refused_by_name(void **state) {
    struct fixture *f = *state;
    const struct {
        const char *text, *message;
    } cases[] = {
        {"{\"model\": {\"type\": \"Unigram\"}}",
         "the tokenizer's model is Unigram; only BPE is read"},
        {"{\"model\": {\"type\": \"BPE\", \"end_of_word_suffix\": \"</w>\"}}",
         "model.end_of_word_suffix is set, which is not computed"},
        {"{\"model\": {\"type\": \"BPE\", \"byte_fallback\": true}}",
         "model.byte_fallback is set, but nothing replaces spaces by \u2581"},
        {"{\"normalizer\": {\"type\": \"NFKC\"}}",
         "the normalizer NFKC is not computed as it stands here; supported: NFC before byte-level "
         "BPE, Prepend and Replace of spaces by \u2581 with model.byte_fallback"},
        {"{\"model\": {\"byte_fallback\": true}, \"normalizer\": {\"type\": \"Sequence\", "
         "\"normalizers\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "
         "\"content\": \"\u2581\"}]}, \"pre_tokenizer\": {\"type\": \"Metaspace\"}}",
         "the pre_tokenizer's step Metaspace is not computed as it stands here with "
         "model.byte_fallback; supported: Metaspace without split"},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"post_processor\": {\"type\": "
         "\"RobertaProcessing\"}}",
         "the post_processor RobertaProcessing is not computed"},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"post_processor\": {\"type\": "
         "\"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"A\"}}, "
         "{\"SpecialToken\": {\"id\": \"</s>\"}}]}}",
         "the post_processor adds </s>; only one token before a text is computed"},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"post_processor\": {\"type\": "
         "\"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, "
         "{\"Sequence\": {\"id\": \"A\"}}], \"special_tokens\": {\"<s>\": {\"ids\": [261]}}}}",
         "the post_processor's <s> has no id below the model's 261"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"a+b\"}}}",
         "the pre_tokenizer splits by \"a+b\", a pattern that is not known"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\p{N}\"}, "
         "\"behavior\": \"Removed\"}}",
         "the pre_tokenizer's Split does not isolate its matches, or is inverted"},
        {"{\"pre_tokenizer\": {\"type\": \"Whitespace\"}}",
         "the pre_tokenizer's step Whitespace is not computed as it stands here; supported: Split "
         "by a known pattern, Digits, and last ByteLevel without an added space"},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"model\": {\"vocab\": {\"a\": 261}}}",
         "piece \"a\" has no id of its own below the model's 261"},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"model\": {\"vocab\": {\"a\": 0}, "
         "\"merges\": [\"a b\"]}}",
         "merge 0, \"a b\", names a piece that is not in the vocabulary"},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"model\": {\"vocab\": {\"a\": 0}, "
         "\"merges\": [[\"a\"]]}}",
         "merge 0 is neither a text nor a pair of texts"},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}}",
         "no piece of the vocabulary is a single byte"},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"added_tokens\": [{\"content\": "
         "\"<s>\"}]}",
         "added token 0 has no text or no id"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(
            write_file_in(f->dir, "tokenizer.json", cases[i].text, strlen(cases[i].text)), 0);
        refuses(f, "tokenizer.json", cases[i].message);
    }
    assert_int_equal(write_tokenizer(f->dir, false), 0);
}

static void issue_13_d4_files_of_another_kind_are_named(void **state) {
    struct fixture *f = *state;
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\n";
    const struct {
        const char *file, *message;
    } cases[] = {
        {"model.safetensors", "this is no safetensors file: it is a Git LFS pointer, which stands "
                              "for the file itself; `git lfs pull` fetches that"},
        {"config.json", "this is not JSON: it is a Git LFS pointer, which stands for the file "
                        "itself; `git lfs pull` fetches that"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(write_file_in(f->dir, cases[i].file, lfs, sizeof lfs - 1), 0);
        refuses(f, cases[i].file, cases[i].message);
        assert_int_equal(write_folder(f->dir, f->model, "F32"), 0);
    }
    remove_file_in(f->dir, "config.json");
    assert_int_equal(write_file_in(f->dir, "adapter_config.json", "{}", 2), 0);
    refuses(f, "",
            "this is an adapter (LoRA) for a model, not a model: merge it into its base first");
    remove_file_in(f->dir, "adapter_config.json");
    assert_int_equal(write_folder(f->dir, f->model, "F32"), 0);
}

static void weights_that_are_no_numbers_or_unknown_types_are_refused(void **state) {
    struct fixture *f = *state;
    float *x = &f->model->layers[0].down.f32[3 * 64 + 9], keep = *x;
    *x = INFINITY;
    assert_int_equal(write_folder(f->dir, f->model, "F32"), 0);
    refuses(f, "model.safetensors",
            "tensor model.layers.0.mlp.down_proj.weight holds infinity at row 3, column 9");
    *x = NAN;
    assert_int_equal(write_folder(f->dir, f->model, "BF16"), 0);
    refuses(f, "model.safetensors",
            "tensor model.layers.0.mlp.down_proj.weight holds NaN at row 3, column 9");
    *x = keep;
    assert_int_equal(write_folder(f->dir, f->model, "F32"), 0);

    char *path = file_in(f->dir, "model.safetensors"), *bytes;
    size_t n;
    struct kv_error e;
    assert_int_equal(kv_read_file(path, &bytes, &n, &e), 0);
    for (char *at = bytes; (at = memmem(at, n - (size_t)(at - bytes), "\"F32\"", 5));)
        memcpy(at, "\"I32\"", 5);
    assert_int_equal(kv_write_file(path, bytes, n, &e), 0);
    char *message = kv_format_text(
        "tensor model.embed_tokens.weight has type I32, which is not read; supported: %s",
        kv_weight_types_text((char[256]){""}, 256));
    refuses(f, "model.safetensors", message);
    free(message);
    assert_int_equal(kv_write_file(path, bytes, n / 2, &e), 0);
    struct kv_model *m;
    assert_int_equal(kv_model_open(&m, f->dir, KV_WEIGHTS_F32, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "it is truncated or its header lies"));
    assert_int_equal(write_folder(f->dir, f->model, "F32"), 0);
    free(bytes);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_loads_unchanged_with_all_it_states),
        cmocka_unit_test(halves_load_as_the_floats_they_stand_for),
        cmocka_unit_test(gguf_holds_the_same_rows_of_q_and_k_in_pairwise_order),
        cmocka_unit_test(shards_and_merges_as_pairs_load_as_one_file_does),
        cmocka_unit_test(true_360m_and_1_7b_shapes_load),
        cmocka_unit_test(published_shapes_have_their_names),
        cmocka_unit_test(a_random_model_depends_on_its_seed_alone),
        cmocka_unit_test(settings_that_are_not_computed_are_refused_by_name),
        cmocka_unit_test(tokenizers_of_another_kind_are_refused_by_name),
        cmocka_unit_test(weights_that_are_no_numbers_or_unknown_types_are_refused),
        cmocka_unit_test(issue_13_d4_files_of_another_kind_are_named),
    };
    return cmocka_run_group_tests_name("huggingface", tests, set_up, tear_down);
}
