// SPDX-License-Identifier: Apache-2.0
// Judges the GGUF loader: every block type against values worked out by hand, whole files of random
// weights, and files that are cut, lie or hold what is not computed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sim/model/test/model_files.h"
#include "sim/base/hash.h"
#include "sim/model/weights.h"

// 2 layers, 4 heads sharing 2 KV heads of 8 channels; hidden 32 so that a row is one block.
static const struct kv_shape tiny = {2, 4, 2, 8, 32, 64, N_TINY_PIECES, 16};

struct fixture {
    char dir[64], path[96];
    struct kv_model *model; // what is written
    struct kv_text good;    // as a GGUF file of F32
};

static int set_up(void **state) {
    struct fixture *f = kv_alloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/kvsim-gguf-XXXXXX");
    if (!mkdtemp(f->dir)) return -1;
    snprintf(f->path, sizeof f->path, "%s/m.gguf", f->dir);
    f->model = kv_model_random(&tiny, KV_ORDER_GGML, true, 7);
    build_gguf(&f->good, f->model, &gguf_f32);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    unlink(f->path);
    int rc = rmdir(f->dir);
    kv_model_close(f->model);
    free(f->good.s);
    free(f);
    return rc;
}

static int open_bytes(struct fixture *f, struct kv_model **m, const void *bytes, size_t n,
                      struct kv_error *e) {
    assert_int_equal(kv_write_file(f->path, bytes, n, e), 0);
    memset(e, 0, sizeof *e);
    return kv_model_open(m, f->path, KV_WEIGHTS_F32, e);
}

// ---- decoding -------------------------------------------------------------------------

// Blocks: d = 0.5 (0x3800), m = -1.5 (0xBE00); nibble bytes hold j in the low and 15 - j in the
// high half, so that value j has code j and value 16 + j code 15 - j; fifth bits: value 0 and
// value 31.
static void each_block_type_decodes_as_worked_out_by_hand(void **state) {
    (void)state;
    uint8_t nibbles[16], block[40];
    float x[32];
    for (int j = 0; j < 16; j++) nibbles[j] = (uint8_t)(j | (15 - j) << 4);
    const uint8_t d[2] = {0x00, 0x38}, m[2] = {0x00, 0xBE}, fifth[4] = {0x01, 0, 0, 0x80};

    memcpy(block, d, 2);
    memcpy(block + 2, nibbles, 16);
    kv_weight_type_named("Q4_0")->decode(block, 1, x);
    for (int j = 0; j < 16; j++) {
        assert_true(x[j] == 0.5f * (float)(j - 8));
        assert_true(x[16 + j] == 0.5f * (float)(7 - j));
    }

    memcpy(block + 2, m, 2);
    memcpy(block + 4, nibbles, 16);
    kv_weight_type_named("Q4_1")->decode(block, 1, x);
    for (int j = 0; j < 16; j++) {
        assert_true(x[j] == 0.5f * (float)j - 1.5f);
        assert_true(x[16 + j] == 0.5f * (float)(15 - j) - 1.5f);
    }

    memcpy(block + 2, fifth, 4);
    memcpy(block + 6, nibbles, 16);
    kv_weight_type_named("Q5_0")->decode(block, 1, x);
    for (int j = 0; j < 16; j++) {
        assert_true(x[j] == 0.5f * (float)(j - 16 + (j == 0 ? 16 : 0)));
        assert_true(x[16 + j] == 0.5f * (float)(15 - j - 16 + (j == 15 ? 16 : 0)));
    }

    memcpy(block + 2, m, 2);
    memcpy(block + 4, fifth, 4);
    memcpy(block + 8, nibbles, 16);
    kv_weight_type_named("Q5_1")->decode(block, 1, x);
    for (int j = 0; j < 16; j++) {
        assert_true(x[j] == 0.5f * (float)(j + (j == 0 ? 16 : 0)) - 1.5f);
        assert_true(x[16 + j] == 0.5f * (float)(15 - j + (j == 15 ? 16 : 0)) - 1.5f);
    }

    for (int j = 0; j < 32; j++) block[2 + j] = (uint8_t)(int8_t)(j * 8 - 128);
    kv_weight_type_named("Q8_0")->decode(block, 1, x);
    for (int j = 0; j < 32; j++) assert_true(x[j] == 0.5f * (float)(j * 8 - 128));

    // 1.0, -2.0 and the smallest subnormal half, 2^-24; the same numbers as bfloat16.
    const uint8_t halves[6] = {0x00, 0x3C, 0x00, 0xC0, 0x01, 0x00};
    kv_weight_type_named("F16")->decode(halves, 3, x);
    assert_true(x[0] == 1.0f && x[1] == -2.0f && x[2] == 0x1p-24f);
    const uint8_t brains[6] = {0x80, 0x3F, 0x00, 0xC0, 0x80, 0x33};
    kv_weight_type_named("BF16")->decode(brains, 3, x);
    assert_true(x[0] == 1.0f && x[1] == -2.0f && x[2] == 0x1p-24f);
    assert_null(kv_weight_type_named("Q8_K"));
}

// Block fillers for whole files: a scale that depends on the block, then codes that depend on the
// place; what they decode to is what the loader must put into the matrix.
static void fill_blocks(uint8_t *out, size_t n, size_t block_bytes, size_t n_halves) {
    for (size_t b = 0; b < n; b++, out += block_bytes)
        for (size_t i = 0; i < block_bytes; i++) {
            bool scale = i < 2 * n_halves;
            out[i] = scale ? (i % 2 ? 0x2C : (uint8_t)b) : (uint8_t)(b * 37 + i * 11);
        }
}
static void fill_q4_0(const float *x, size_t n, uint8_t *out) {
    (void)x, fill_blocks(out, n, 18, 1);
}
static void fill_q4_1(const float *x, size_t n, uint8_t *out) {
    (void)x, fill_blocks(out, n, 20, 2);
}
static void fill_q5_0(const float *x, size_t n, uint8_t *out) {
    (void)x, fill_blocks(out, n, 22, 1);
}
static void fill_q5_1(const float *x, size_t n, uint8_t *out) {
    (void)x, fill_blocks(out, n, 24, 2);
}
static void fill_q8_0(const float *x, size_t n, uint8_t *out) {
    (void)x, fill_blocks(out, n, 34, 1);
}

static void check_matrix(const float *got, const struct gguf_type *type, const char *name,
                         const float *written, size_t n_values) {
    size_t n = n_values / type->block_values;
    uint8_t *blocks = kv_alloc(n, type->block_bytes);
    float *expected = kv_alloc(n_values, sizeof *expected);
    type->encode(written, n, blocks);
    kv_weight_type_named(name)->decode(blocks, n, expected);
    assert_memory_equal(got, expected, n_values * sizeof *expected);
    free(blocks);
    free(expected);
}

static void whole_files_of_each_type_land_in_the_right_rows(void **state) {
    struct fixture *f = *state;
    const struct {
        const char *name;
        struct gguf_type type;
    } types[] = {{"F16", {1, 1, 2, encode_f16}},   {"BF16", {30, 1, 2, encode_bf16}},
                 {"Q4_0", {2, 32, 18, fill_q4_0}}, {"Q4_1", {3, 32, 20, fill_q4_1}},
                 {"Q5_0", {6, 32, 22, fill_q5_0}}, {"Q5_1", {7, 32, 24, fill_q5_1}},
                 {"Q8_0", {8, 32, 34, fill_q8_0}}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct kv_text t = {0};
        struct kv_model *m;
        struct kv_error e;
        char source[64];
        build_gguf(&t, f->model, &types[i].type);
        assert_int_equal(open_bytes(f, &m, t.s, t.n, &e), 0);
        snprintf(source, sizeof source, "GGUF v3 (%s)", types[i].name);
        assert_string_equal(m->source, source);
        const struct kv_layer_weights *got = &m->layers[1], *from = &f->model->layers[1];
        check_matrix(m->embed.f32, &types[i].type, types[i].name, f->model->embed.f32,
                     (size_t)N_TINY_PIECES * 32);
        // K: the 16 rows after Q's 32; up: the 64 rows after gate's.
        check_matrix(got->qkv.f32 + 32 * 32, &types[i].type, types[i].name, from->qkv.f32 + 32 * 32,
                     16 * 32);
        check_matrix(got->gateup.f32 + 64 * 32, &types[i].type, types[i].name,
                     from->gateup.f32 + 64 * 32, 64 * 32);
        check_matrix(got->down.f32, &types[i].type, types[i].name, from->down.f32, 32 * 64);
        assert_memory_equal(got->ffn_norm, from->ffn_norm, 32 * sizeof(float));
        kv_model_close(m);
        free(t.s);
    }
}

static void float_weights_load_unchanged_with_all_metadata(void **state) {
    struct fixture *f = *state;
    struct kv_model *m;
    struct kv_error e;
    assert_int_equal(open_bytes(f, &m, f->good.s, f->good.n, &e), 0);
    assert_memory_equal(&m->shape, &tiny, sizeof tiny);
    assert_int_equal(m->order, KV_ORDER_GGML);
    assert_true(m->tied && m->head.f32 == m->embed.f32);
    assert_true(m->rms_eps == f->model->rms_eps && m->rope[0].base == f->model->rope[0].base);
    assert_string_equal(m->name, "tiny");
    assert_string_equal(m->source, "GGUF v3 (F32)");
    assert_string_equal(m->weights_as, "f32");
    char digest[17];
    kv_hex64(kv_hash(f->good.s, f->good.n, 0), digest);
    assert_string_equal(m->digest, digest);
    for (int i = 0; i < 2; i++) {
        const struct kv_layer_weights *a = &m->layers[i], *b = &f->model->layers[i];
        assert_memory_equal(a->qkv.f32, b->qkv.f32, (32 + 2 * 16) * 32 * 4);
        assert_memory_equal(a->out.f32, b->out.f32, 32 * 32 * 4);
        assert_memory_equal(a->gateup.f32, b->gateup.f32, 2 * 64 * 32 * 4);
        assert_int_equal((uintptr_t)a->gateup.f32 % 64, 0);
    }
    // Position 3, pair 1 of 4: angle 3 * 10000^(-2/8) = 0.3.
    assert_true(fabsf(m->rope[0].cos[3 * 4 + 1] - cosf(0.3f)) < 1e-6f);
    assert_true(fabsf(m->rope[0].sin[3 * 4 + 1] - sinf(0.3f)) < 1e-6f);
    kv_model_close(m);
}

static void bf16_weights_are_rounded_to_nearest_even(void **state) {
    struct fixture *f = *state;
    struct kv_model *m;
    struct kv_error e;
    assert_int_equal(kv_write_file(f->path, f->good.s, f->good.n, &e), 0);
    assert_int_equal(kv_model_open(&m, f->path, KV_WEIGHTS_BF16, &e), 0);
    assert_null(m->embed.f32);
    assert_string_equal(m->weights_as, "bf16");
    for (size_t i = 0; i < (size_t)N_TINY_PIECES * 32; i++)
        assert_int_equal(m->embed.bf16[i], kv_f32_to_bf16(f->model->embed.f32[i]));
    kv_model_close(m);
}

static void an_output_tensor_unties_the_head(void **state) {
    struct fixture *f = *state;
    struct kv_model *from = kv_model_random(&tiny, KV_ORDER_GGML, false, 8), *m;
    struct kv_text t = {0};
    struct kv_error e;
    build_gguf(&t, from, &gguf_f32);
    assert_int_equal(open_bytes(f, &m, t.s, t.n, &e), 0);
    assert_false(m->tied);
    assert_memory_equal(m->head.f32, from->head.f32, N_TINY_PIECES * 32 * 4);
    assert_memory_equal(m->embed.f32, from->embed.f32, N_TINY_PIECES * 32 * 4);
    kv_model_close(m);
    kv_model_close(from);
    free(t.s);
}

// ---- refusals -------------------------------------------------------------------------

// Where `needle` begins in the file.
static size_t find(const struct kv_text *t, const char *needle) {
    const char *at = memmem(t->s, t->n, needle, strlen(needle));
    assert_non_null(at);
    return (size_t)(at - t->s);
}

// Opens the good file with n bytes at `at` replaced, and compares message and place.
static void refuses(struct fixture *f, size_t at, const void *bytes, size_t n, const char *where,
                    const char *message) {
    struct kv_model *m;
    struct kv_error e;
    char *copy = kv_alloc(f->good.n, 1), expected[192];
    memcpy(copy, f->good.s, f->good.n);
    memcpy(copy + at, bytes, n);
    assert_int_equal(open_bytes(f, &m, copy, f->good.n, &e), KV_EFAIL);
    assert_null(m);
    assert_string_equal(e.msg, message);
    snprintf(expected, sizeof expected, "%s%s", f->path, where);
    assert_string_equal(e.where, expected);
    free(copy);
}

static void refuses_number(struct fixture *f, size_t at, uint64_t x, size_t n, const char *where,
                           const char *message) {
    refuses(f, at, &x, n, where, message);
}

static void what_is_no_model_is_refused(void **state) {
    struct fixture *f = *state;
    struct kv_model *m;
    struct kv_error e;
    assert_int_equal(kv_model_open(&m, "no/such/model.gguf", KV_WEIGHTS_F32, &e), KV_EFAIL);
    assert_string_equal(e.where, "no/such/model.gguf");
    assert_string_equal(e.msg,
                        "there is no such file or folder; a model is a GGUF file or a Hugging "
                        "Face folder");
    assert_int_equal(kv_model_open(&m, "/dev/null", KV_WEIGHTS_F32, &e), KV_EFAIL);
    assert_string_equal(e.msg, "this is neither a GGUF file nor a Hugging Face folder");
    assert_int_equal(open_bytes(f, &m, "", 0, &e), KV_EFAIL);
    assert_string_equal(e.msg, "this is no GGUF file: it does not begin with \"GGUF\"");
    refuses_number(f, 4, 1, 4, ": byte 4", "GGUF version 1 is not read; 2 and 3 are");
    refuses_number(f, 4, 0x03000000, 4, ": byte 4",
                   "GGUF version 50331648 is that of a big-endian file, which is not read");
}

static void a_cut_file_is_refused_at_any_length(void **state) {
    struct fixture *f = *state;
    struct kv_model *m;
    struct kv_error e;
    char message[200];
    assert_int_equal(open_bytes(f, &m, f->good.s, f->good.n - 1, &e), KV_EFAIL);
    snprintf(message, sizeof message,
             "tensor blk.1.ffn_down.weight (32 rows of 64, F32) ends after the file's %zu bytes: "
             "the file is truncated or its header lies",
             f->good.n - 1);
    assert_string_equal(e.msg, message);
    assert_int_equal(open_bytes(f, &m, f->good.s, 40, &e), KV_EFAIL);
    assert_string_equal(e.msg, "the header claims 20 tensors, more than the file's 40 bytes can "
                               "describe");
    for (size_t n = 1; n < f->good.n; n += n < 8000 ? 61 : 4999) {
        assert_int_equal(open_bytes(f, &m, f->good.s, n, &e), KV_EFAIL);
        assert_true(e.msg[0] != 0);
    }
}

static void counts_that_lie_are_refused_before_they_are_believed(void **state) {
    struct fixture *f = *state;
    char message[240];
    snprintf(message, sizeof message,
             "the header claims %llu tensors, more than the file's %zu "
             "bytes can describe",
             1ull << 60, f->good.n);
    refuses_number(f, 8, 1ull << 60, 8, ": byte 8", message);
    snprintf(message, sizeof message,
             "the header claims %llu metadata pairs, more than the file's "
             "%zu bytes can hold",
             1ull << 60, f->good.n);
    refuses_number(f, 16, 1ull << 60, 8, ": byte 16", message);
    // The first key's length.
    snprintf(message, sizeof message,
             "a metadata key needs 18446744073709551615 bytes, but the "
             "file ends after %zu: it is truncated or its header lies",
             f->good.n - 32);
    refuses_number(f, 24, UINT64_MAX, 8, ": byte 32", message);
    // The number of tokens, after key, value type and element type.
    size_t at = find(&f->good, "tokenizer.ggml.tokens") + strlen("tokenizer.ggml.tokens") + 8;
    char where[64];
    snprintf(where, sizeof where, ": byte %zu", at + 8);
    const char *sentence =
        "the value of tokenizer.ggml.tokens is a list of %llu values, more than the "
        "%zu bytes that are left in the file can hold: it is truncated or its "
        "header lies";
    snprintf(message, sizeof message, sentence, 1ull << 62, f->good.n - at - 8);
    refuses_number(f, at, 1ull << 62, 8, where, message);
    // Cut in the list, as an interrupted download is.
    struct kv_model *m;
    struct kv_error e;
    assert_int_equal(open_bytes(f, &m, f->good.s, at + 8 + 20, &e), KV_EFAIL);
    snprintf(message, sizeof message, sentence, (unsigned long long)N_TINY_PIECES, (size_t)20);
    assert_string_equal(e.msg, message);
    assert_non_null(strstr(e.where, where));
    at = find(&f->good, "llama.block_count") + strlen("llama.block_count") + 4;
    refuses_number(f, at, 0xFFFFFFFF, 4, "",
                   "the model claims 4294967295 layers; 1 to 1024 are read");
    refuses_number(f, at, 3, 4, "", "tensor blk.2.attn_norm.weight is missing");
    refuses_number(f, at, 1, 4, "",
                   "tensor blk.1.attn_k.weight is not part of the Llama "
                   "architecture as computed here");
    at = find(&f->good, "llama.context_length") + strlen("llama.context_length") + 4;
    refuses_number(f, at, 0xFFFFFFFF, 4, "",
                   "the model claims 4294967295 tokens of context; 1 to 1048576 are read");
    at = find(&f->good, "head_count_kv") + strlen("head_count_kv") + 4;
    refuses_number(f, at, 3, 4, "", "4 attention heads do not share 3 KV heads evenly");
    refuses_number(f, at, 4, 4, "",
                   "tensor blk.0.attn_k.weight has 16 rows of 32, but the model's "
                   "shape asks for 32 of 32");
}

static void what_is_not_computed_is_refused_by_name(void **state) {
    struct fixture *f = *state;
    size_t at = find(&f->good, "general.architecture") + strlen("general.architecture") + 12;
    refuses(f, at, "gemma", 5, "",
            "general.architecture is gemma; only llama, qwen2, qwen3, gemma3 models are computed");
    at = find(&f->good, "blk.0.ffn_up.weight") + strlen("blk.0.ffn_up.weight") + 4 + 16;
    char message[400], supported[256];
    const char *sentence =
        "tensor blk.0.ffn_up.weight has type %s, which is not read; supported: %s";
    kv_weight_types_text(supported, sizeof supported);
    snprintf(message, sizeof message, sentence, "Q8_K", supported);
    refuses_number(f, at, 15, 4, "", message);
    snprintf(message, sizeof message, sentence, "number 99", supported);
    refuses_number(f, at, 99, 4, "", message);
    at = find(&f->good, "blk.0.ffn_up.weight");
    refuses(f, at, "blk.0.ffn_up.biases", 19, "", "tensor blk.0.ffn_up.weight is missing");
    at = find(&f->good, "tokenizer.ggml.pre") + strlen("tokenizer.ggml.pre") + 12;
    refuses(f, at, "qwen22", 6, "",
            "tokenizer.ggml.pre is qwen22, whose pattern is not known; supported: smollm starcoder "
            "refact command-r codeshell exaone minerva-7b gpt-2 gpt2 mpt olmo phi-2 qwen2 "
            "deepseek-r1-qwen stablelm2 megrez llama-bpe llama3 llama-v3 falcon3 smaug-bpe dbrx "
            "tekken deepseek-coder");
    at = find(&f->good, "tokenizer.ggml.model") + strlen("tokenizer.ggml.model") + 12;
    refuses(f, at, "bert", 4, "",
            "tokenizer.ggml.model is bert; only gpt2 (byte-level BPE) and llama (SentencePiece's "
            "BPE) are read");
    at = find(&f->good, "llama.feed_forward_length");
    refuses(f, at, "llama.feed_forward_depths", 25, "",
            "the metadata lack llama.feed_forward_length");
    at = find(&f->good, "Ġt he");
    refuses(f, at, "Ġt hi", 6, "",
            "merge 2, \"Ġt hi\", names a piece that is not in the vocabulary");
}

static void a_weight_that_is_no_number_is_refused_with_its_place(void **state) {
    struct fixture *f = *state;
    // attn_k of layer 1, row 2, column 5: found by the value written there.
    float x = f->model->layers[1].qkv.f32[(32 + 2) * 32 + 5];
    const char *at = memmem(f->good.s, f->good.n, &x, sizeof x);
    assert_non_null(at);
    refuses(f, (size_t)(at - f->good.s), &(float){NAN}, 4, "",
            "tensor blk.1.attn_k.weight holds NaN at row 2, column 5");
    refuses(f, (size_t)(at - f->good.s), &(float){-INFINITY}, 4, "",
            "tensor blk.1.attn_k.weight holds infinity at row 2, column 5");
}

static void no_flipped_bit_breaks_the_loader(void **state) {
    struct fixture *f = *state;
    size_t header = find(&f->good, "blk.1.ffn_down.weight") + 60;
    char *copy = kv_alloc(f->good.n, 1);
    for (size_t i = 0; i < 400; i++) {
        struct kv_model *m;
        struct kv_error e;
        memcpy(copy, f->good.s, f->good.n);
        size_t at = (size_t)(kv_draw(1, 2, i) * (double)header);
        copy[at] = (char)(copy[at] ^ 1 << (i % 8));
        if (open_bytes(f, &m, copy, f->good.n, &e))
            assert_true(e.msg[0] != 0);
        else
            kv_model_close(m);
    }
    free(copy);
}

// ---- issue 13 -------------------------------------------------------------------------

// The good file with metadata pairs put in front of the others, the data where their offsets lie.
static void with_pairs(struct kv_text *to, const struct fixture *f, const struct kv_text *pairs,
                       uint64_t n_pairs) {
    const struct kv_text *good = &f->good;
    size_t data = find(good, "blk.1.ffn_down.weight") + 21 + 4 + 16 + 4 + 8;
    uint64_t n;
    memcpy(&n, good->s + 16, 8);
    kv_text_add(to, good->s, 16);
    put_number(to, n + n_pairs, 8);
    kv_text_add(to, pairs->s, pairs->n);
    kv_text_add(to, good->s + 24, data - 24);
    while (to->n % 32) kv_text_add(to, "", 1);
    size_t padded = (data + 31) / 32 * 32;
    kv_text_add(to, good->s + padded, good->n - padded);
}

// Opens the good file with one pair more; *message is NULL where that must change nothing.
static void pair_does(struct fixture *f, struct kv_text *pair, const char *message) {
    struct kv_text t = {0};
    struct kv_model *m;
    struct kv_error e;
    with_pairs(&t, f, pair, 1);
    int rc = open_bytes(f, &m, t.s, t.n, &e);
    if (message) {
        assert_int_equal(rc, KV_EFAIL);
        assert_string_equal(e.msg, message);
    } else {
        if (rc) fail_msg("%s", e.msg);
        assert_memory_equal(m->embed.f32, f->model->embed.f32, 32 * N_TINY_PIECES * 4);
        kv_model_close(m);
    }
    free(t.s);
    free(pair->s);
    *pair = (struct kv_text){0};
}

static void issue_13_a6_a_key_that_is_not_understood_is_refused(void **state) {
    struct fixture *f = *state;
    struct kv_text p = {0};
    const struct {
        const char *key;
        float x;
        const char *message;
    } cases[] = {
        {"llama.rope.scaling.factor", 0.5f, "RoPE's scaling factor is 0.5, not at least 1"},
        {"llama.rope.scaling.attn_factor", 0.5f,
         "llama.rope.scaling.attn_factor is 0.5, which only YaRN computes"},
        {"llama.rope.scaling.yarn_ext_factor", 0.5f,
         "llama.rope.scaling.yarn_ext_factor is not understood, and might change what is computed"},
        {"llama.rope.scaling.yarn_beta_fast", 16, NULL}, // without YaRN it says nothing
        {"llama.attn_logit_softcapping", 30,
         "llama.attn_logit_softcapping is not understood, and might change what is computed"},
        {"llama.rope.scaling.factor", 1, NULL},
        {"llama.rope.scaling.factor", 0, NULL},
        {"llama.rope.scaling.factor", 4, NULL},
        {"llama.rope.scale_linear", 2, NULL},
        {"other.rope.scaling.factor", 4, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_float_pair(&p, cases[i].key, cases[i].x);
        pair_does(f, &p, cases[i].message);
    }
    put_text_pair(&p, "llama.rope.scaling.type", "longrope");
    pair_does(f, &p,
              "llama.rope.scaling.type is longrope; only none, linear and yarn are computed");
    put_u32_pair(&p, "llama.attention.sliding_window", 4);
    pair_does(f, &p, "llama.attention.sliding_window is 4, which is not computed");
    put_u32_pair(&p, "llama.attention.sliding_window", 0);
    pair_does(f, &p, NULL);
    put_u32_pair(&p, "llama.rope.scaling.original_context_length", 16);
    pair_does(f, &p, NULL);
    put_text_pair(&p, "llama.rope.scaling.type", "none");
    pair_does(f, &p, NULL);
}

static void issue_13_a7_an_alignment_of_another_type_is_refused(void **state) {
    struct fixture *f = *state;
    struct kv_text p = {0};
    put_string(&p, "general.alignment");
    put_number(&p, 10, 4);
    put_number(&p, 64, 8);
    pair_does(f, &p, "general.alignment has type 10; the format demands an unsigned 32-bit number");
    put_u32_pair(&p, "general.alignment", 24);
    pair_does(f, &p, "general.alignment is 24, no power of two up to 2^20");
    put_u32_pair(&p, "general.alignment", 32);
    pair_does(f, &p, NULL);
}

static void issue_13_a8_what_stands_twice_or_overlaps_is_refused(void **state) {
    struct fixture *f = *state;
    struct kv_text p = {0};
    put_u32_pair(&p, "llama.block_count", 1);
    pair_does(f, &p, "the key llama.block_count stands twice");
    // The offset of a tensor follows name, dimensions and type: made that of the one before.
    size_t at = find(&f->good, "blk.0.ffn_up.weight") + 19 + 4 + 16 + 4;
    uint64_t offset, less;
    memcpy(&offset, f->good.s + at, 8);
    less = offset - 32;
    char message[200], *copy = kv_alloc(f->good.n, 1);
    snprintf(message, sizeof message,
             "tensor blk.0.ffn_up.weight lies at offset %llu, but the one before it ends at %llu: "
             "their data overlap, leave a hole or are out of order",
             (unsigned long long)less, (unsigned long long)offset);
    memcpy(copy, f->good.s, f->good.n);
    memcpy(copy + at, &less, 8);
    struct kv_model *m;
    struct kv_error e;
    assert_int_equal(open_bytes(f, &m, copy, f->good.n, &e), KV_EFAIL);
    assert_string_equal(e.msg, message);
    free(copy);
}

static void issue_13_d4_what_is_no_model_is_said(void **state) {
    struct fixture *f = *state;
    struct kv_text p = {0};
    static const char safetensors[] = "\x02\0\0\0\0\0\0\0{}";
    const struct {
        const char *bytes;
        size_t n;
        const char *message;
    } cases[] = {
        {"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", 56,
         "this is no GGUF file: it is a Git LFS pointer, which stands for the file itself; `git "
         "lfs "
         "pull` fetches that"},
        {"\n<html><body>", 13,
         "this is no GGUF file: it is an HTML page, as a download leaves that asked for a login or "
         "failed"},
        {safetensors, sizeof safetensors - 1,
         "this is no GGUF file: it is a safetensors file; a model of safetensors is opened by its "
         "folder"},
        {"PK\3\4abcd", 8,
         "this is no GGUF file: it is a zip archive, as PyTorch's checkpoints are"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_model *m;
        struct kv_error e;
        assert_int_equal(open_bytes(f, &m, cases[i].bytes, cases[i].n, &e), KV_EFAIL);
        assert_string_equal(e.msg, cases[i].message);
    }
    put_text_pair(&p, "general.type", "adapter");
    pair_does(f, &p,
              "this is an adapter (LoRA) for a model, not a model: merge it into its base first");
    put_text_pair(&p, "general.type", "mmproj");
    pair_does(f, &p, "this file holds no model: its general.type is mmproj");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_block_type_decodes_as_worked_out_by_hand),
        cmocka_unit_test(whole_files_of_each_type_land_in_the_right_rows),
        cmocka_unit_test(float_weights_load_unchanged_with_all_metadata),
        cmocka_unit_test(bf16_weights_are_rounded_to_nearest_even),
        cmocka_unit_test(an_output_tensor_unties_the_head),
        cmocka_unit_test(what_is_no_model_is_refused),
        cmocka_unit_test(a_cut_file_is_refused_at_any_length),
        cmocka_unit_test(counts_that_lie_are_refused_before_they_are_believed),
        cmocka_unit_test(what_is_not_computed_is_refused_by_name),
        cmocka_unit_test(a_weight_that_is_no_number_is_refused_with_its_place),
        cmocka_unit_test(no_flipped_bit_breaks_the_loader),
        cmocka_unit_test(issue_13_a6_a_key_that_is_not_understood_is_refused),
        cmocka_unit_test(issue_13_a7_an_alignment_of_another_type_is_refused),
        cmocka_unit_test(issue_13_a8_what_stands_twice_or_overlaps_is_refused),
        cmocka_unit_test(issue_13_d4_what_is_no_model_is_said),
    };
    return cmocka_run_group_tests_name("gguf", tests, set_up, tear_down);
}
