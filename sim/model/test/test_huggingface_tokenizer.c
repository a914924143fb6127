// SPDX-License-Identifier: Apache-2.0
// tokenizer.json of the families, in small: what Qwen's, Llama 3's, Llama 2's and Gemma's files say
// around the model, on vocabularies of bytes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sim/model/test/has_ids.h"

#include "sim/model/huggingface.h"
#include "sim/model/test/model_files.h"
#include "sim/model/tokenizer.h"

// Steps as the files have them.
#define SPLIT(regex)                                                                               \
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" regex                                      \
    "\"}, \"behavior\": \"Isolated\", \"invert\": false}"
#define REST "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define WORD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
#define BYTES "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}"
#define SEQUENCE(key, steps) "{\"type\": \"Sequence\", \"" key "\": [" steps "]}"
#define REPLACE "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\u2581\"}"
#define PREPEND "{\"type\": \"Prepend\", \"prepend\": \"\u2581\"}"
#define BOS_BEFORE                                                                                 \
    "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, "      \
    "{\"Sequence\": {\"id\": \"A\"}}], \"special_tokens\": {\"<s>\": {\"ids\": [7]}}}"

static const char qwen2[] = "{\"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": " SEQUENCE(
    "pretokenizers", SPLIT(WORD "\\\\p{N}" REST) ", " BYTES) ", \"post_processor\": "
                                                             "{\"type\": \"ByteLevel\"}}";
static const char llama3[] = "{\"normalizer\": null, \"pre_tokenizer\": " SEQUENCE(
    "pretokenizers",
    SPLIT(
        WORD
        "\\\\p{N}{1,3}" REST) ", " BYTES) ", \"post_processor\": " SEQUENCE("processors",
                                                                            "{\"type\": "
                                                                            "\"ByteLevel\"},"
                                                                            " " BOS_BEFORE) ", "
                                                                                            "\"mode"
                                                                                            "l\": "
                                                                                            "{\"ign"
                                                                                            "ore_"
                                                                                            "merges"
                                                                                            "\": "
                                                                                            "true}"
                                                                                            "}";
static const char llama2[] = "{\"normalizer\": " SEQUENCE(
    "normalizers", PREPEND ", " REPLACE) ", \"pre_tokenizer\": null, "
                                         "\"post_processor\": " BOS_BEFORE
                                         ", \"model\": {\"byte_fallback\": true}}";
static const char gemma[] =
    "{\"normalizer\": " REPLACE ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": "
    "{\"String\": \" \"}, \"behavior\": \"MergedWithPrevious\", \"invert\": false}, "
    "\"post_processor\": " BOS_BEFORE ", \"model\": {\"byte_fallback\": true}}";

// Pieces 256 and on of the vocabulary of characters; bytes are "<0x00>" to "<0xFF>".
enum { SP = 256, A, B, SP_A, AB, N_PIECES };
static const char *const characters[] = {"\u2581", "a", "b", "\u2581a", "ab"};
static const char *const character_merges[][2] = {{"a", "b"}, {"\u2581", "a"}};

static void add_bytes_and_characters(json_t *model) {
    json_t *vocab = json_object(), *merges = json_array();
    char name[8];
    for (unsigned b = 0; b < 256; b++) {
        snprintf(name, sizeof name, "<0x%02X>", b);
        json_object_set_new(vocab, name, json_integer(b));
    }
    for (int i = SP; i < N_PIECES; i++)
        json_object_set_new(vocab, characters[i - SP], json_integer(i));
    for (size_t i = 0; i < 2; i++)
        json_array_append_new(merges,
                              json_pack("[s, s]", character_merges[i][0], character_merges[i][1]));
    json_object_set_new(model, "vocab", vocab);
    json_object_set_new(model, "merges", merges);
}

static void add_tiny(json_t *model) {
    struct tiny_pieces p;
    make_tiny_pieces(&p);
    json_t *vocab = json_object(), *merges = json_array();
    for (int i = 0; i < N_TINY_PIECES; i++) json_object_set_new(vocab, p.text[i], json_integer(i));
    for (int i = 0; i < N_TINY_MERGES - 1; i++) // without that of "12", which stays a piece
        json_array_append_new(merges, json_string(tiny_merges[i]));
    json_object_set_new(model, "vocab", vocab);
    json_object_set_new(model, "merges", merges);
}

// The tokenizer of a folder with this file, its model filled in, and added tokens.
static struct kv_model open_tokenizer(const char *text, const char *added) {
    char dir[] = "/tmp/kvsim-hf-tokenizer-XXXXXX";
    json_error_t bad;
    struct kv_error e;
    json_t *root = json_loads(text, 0, &bad);
    if (!root) fail_msg("%s at %d", bad.text, bad.position);
    if (!json_object_get(root, "model")) json_object_set_new(root, "model", json_object());
    json_t *model = json_object_get(root, "model");
    bool by_character = json_is_true(json_object_get(model, "byte_fallback"));
    json_object_set_new(model, "type", json_string("BPE"));
    (by_character ? add_bytes_and_characters : add_tiny)(model);
    json_object_set_new(root, "added_tokens", json_loads(added, 0, NULL));
    char *file = json_dumps(root, 0);
    assert_non_null(mkdtemp(dir));
    assert_int_equal(write_file_in(dir, "tokenizer.json", file, strlen(file)), 0);
    struct kv_model m = {.shape.vocab = N_PIECES};
    assert_int_equal((int)N_PIECES, N_TINY_PIECES);
    if (kv_huggingface_tokenizer(&m, dir, &e)) fail_msg("%s: %s", e.where, e.msg);
    remove_file_in(dir, "tokenizer.json");
    rmdir(dir);
    free(file);
    json_decref(root);
    return m;
}

static void qwen_s_file_is_nfc_and_its_pattern_and_no_bos(void **state) {
    (void)state;
    struct kv_model m = open_tokenizer(qwen2, "[]");
    assert_false(m.add_bos);
    HAS("12", '1', '2');
    HAS("e\u0301", 0xC3, 0xA9);
    // What a GGUF of the same model would make is the same tokenizer.
    struct tiny_pieces p;
    struct kv_tokenizer *same;
    struct kv_error e;
    const struct kv_pretokenizer *row;
    make_tiny_pieces(&p);
    assert_int_equal(kv_pretokenizer_find(&row, "qwen2", "", &e), 0);
    struct kv_tokenizer_parts parts = {.pieces = p.text,
                                       .n_pieces = N_TINY_PIECES,
                                       .merges = tiny_merges,
                                       .n_merges = N_TINY_MERGES - 1,
                                       .nfc = true,
                                       .steps = {row->steps[0]}};
    assert_int_equal(kv_tokenizer_make(&same, &parts, &e), 0);
    assert_int_equal(kv_tokenizer_digest(same), kv_tokenizer_digest(m.tokenizer));
    kv_tokenizer_free(same);
    kv_tokenizer_free(m.tokenizer);
}

static void llama_3_s_file_ignores_merges_and_puts_bos_first(void **state) {
    (void)state;
    struct kv_model m = open_tokenizer(llama3, "[]");
    assert_true(m.add_bos);
    assert_int_equal(m.bos, 7);
    HAS("12", 260);
    HAS("123", '1', '2', '3');
    HAS("e\u0301", 'e', 0xCC, 0x81);
    kv_tokenizer_free(m.tokenizer);
}

static void llama_2_s_file_has_characters_behind_a_space(void **state) {
    (void)state;
    struct kv_model m =
        open_tokenizer(llama2, "[{\"id\": 7, \"content\": \"<s>\", \"normalized\": false}]");
    assert_true(m.add_bos);
    HAS("a", SP_A);
    HAS("ab", SP, AB); // a and b have the lower rank
    HAS("a<s>a", SP_A, 7, SP_A);
    HAS("\u00E9", SP, 0xC3, 0xA9);
    kv_tokenizer_free(m.tokenizer);
}

// Metaspace, as newer Llama files have it: no second space, and with "first" none behind a token.
static void a_metaspace_puts_a_space_where_there_is_none(void **state) {
    (void)state;
    static const char added[] = "[{\"id\": 7, \"content\": \"<s>\", \"normalized\": false}]";
    static const char *const schemes[] = {"always", "first", "never"};
    for (size_t i = 0; i < 3; i++) {
        char *file = kv_format_text(
            "{\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\u2581\", "
            "\"prepend_scheme\": \"%s\", \"split\": false}, "
            "\"model\": {\"byte_fallback\": true}}",
            schemes[i]);
        struct kv_model m = open_tokenizer(file, added);
        HAS(" a", SP_A);
        if (i == 0) HAS("a<s>a", SP_A, 7, SP_A);
        if (i == 1) HAS("a<s>a", SP_A, 7, A);
        if (i == 2) HAS("a<s>a", A, 7, A);
        HAS("<s> a", 7, SP_A);
        if (i == 1) HAS("<s>a", 7, A);
        kv_tokenizer_free(m.tokenizer);
        free(file);
    }
}

// Gemma 3's file has an image token, for which a model of text has no row.
static void gemma_s_file_has_characters_and_tokens_without_a_row(void **state) {
    (void)state;
    struct kv_model m = open_tokenizer(
        gemma, "[{\"id\": 261, \"content\": \"<image>\"}, {\"id\": 10, \"content\": \"<p>\"}]");
    assert_true(m.add_bos);
    HAS("a", A);
    HAS(" ab", SP, AB);
    HAS("b<p>a", B, 10, A);
    HAS("<image>", '<', 'i', 'm', A, 'g', 'e', '>');
    kv_tokenizer_free(m.tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen_s_file_is_nfc_and_its_pattern_and_no_bos),
        cmocka_unit_test(llama_3_s_file_ignores_merges_and_puts_bos_first),
        cmocka_unit_test(llama_2_s_file_has_characters_behind_a_space),
        cmocka_unit_test(a_metaspace_puts_a_space_where_there_is_none),
        cmocka_unit_test(gemma_s_file_has_characters_and_tokens_without_a_row),
    };
    return cmocka_run_group_tests_name("huggingface_tokenizer", tests, NULL, NULL);
}
