// SPDX-License-Identifier: Apache-2.0
// SentencePiece's BPE on a vocabulary of a few pieces, worked out by hand, and GGUF files that hold
// such a tokenizer, sound and broken.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sim/model/test/has_ids.h"
#include <math.h>

#include "sim/model/gguf.h"
#include "sim/model/test/model_files.h"
#include "sim/model/tokenizer.h"

// Bytes are tokens 0 to 255; then pieces by number, "\u2581" a space.
enum { UNK = 256, BOS, SP, A, B, C, AB, BC, SP_A, E_ACUTE, TWO_SPACES, TAG, ABC, N_PIECES };
static const struct {
    const char *text;
    float score;
    int32_t type;
} own[] = {
    {"<unk>", 0, KV_PIECE_UNKNOWN},       {"<s>", 0, KV_PIECE_CONTROL},
    {"\u2581", -10, KV_PIECE_NORMAL},     {"a", -11, KV_PIECE_NORMAL},
    {"b", -12, KV_PIECE_NORMAL},          {"c", -13, KV_PIECE_NORMAL},
    {"ab", -2, KV_PIECE_NORMAL},          {"bc", -1, KV_PIECE_NORMAL},
    {"\u2581a", -3, KV_PIECE_NORMAL},     {"\u00E9", -14, KV_PIECE_NORMAL},
    {"  ", -1000, KV_PIECE_USER_DEFINED}, {"<b>", -1000, KV_PIECE_USER_DEFINED},
    {"abc", -4, KV_PIECE_NORMAL},
};

struct vocabulary {
    const char *text[N_PIECES];
    char bytes[256][8];
    float scores[N_PIECES];
    int32_t types[N_PIECES];
};

static void make_vocabulary(struct vocabulary *v) {
    for (int b = 0; b < 256; b++) {
        snprintf(v->bytes[b], sizeof v->bytes[b], "<0x%02X>", (unsigned)b);
        v->text[b] = v->bytes[b];
        v->scores[b] = 0;
        v->types[b] = KV_PIECE_BYTE;
    }
    for (int i = 256; i < N_PIECES; i++) {
        v->text[i] = own[i - 256].text;
        v->scores[i] = own[i - 256].score;
        v->types[i] = own[i - 256].type;
    }
}

// ---- a GGUF file of nothing but the tokenizer -----------------------------------------

struct file {
    struct vocabulary v;
    struct kv_text data;
    size_t n_scores, n_types, n_tokens;
    const char *bos_key; // spoiled to leave the key out
    uint32_t bos;
    bool more; // remove_extra_whitespaces
};

static void put_array(struct kv_text *t, const char *key, uint32_t type, size_t n) {
    put_string(t, key);
    put_number(t, 9, 4);
    put_number(t, type, 4);
    put_number(t, n, 8);
}

static void put_bool_pair(struct kv_text *t, const char *key, bool x) {
    put_string(t, key);
    put_number(t, 7, 4);
    put_number(t, x, 1);
}

static void write_gguf(struct file *f, const char *path, bool space_prefix) {
    struct kv_text *t = &f->data;
    struct kv_error e;
    kv_text_add(t, "GGUF", 4);
    put_number(t, 3, 4);
    put_number(t, 0, 8);
    put_number(t, 7 + (f->n_scores > 0) + f->more, 8);
    put_text_pair(t, "general.architecture", "llama");
    put_text_pair(t, "tokenizer.ggml.model", "llama");
    put_list_pair(t, "tokenizer.ggml.tokens", f->v.text, f->n_tokens);
    if (f->n_scores) {
        put_array(t, "tokenizer.ggml.scores", 6, f->n_scores);
        for (size_t i = 0; i < f->n_scores; i++) {
            uint32_t bits;
            memcpy(&bits, &f->v.scores[i], 4);
            put_number(t, bits, 4);
        }
    }
    put_array(t, "tokenizer.ggml.token_type", 5, f->n_types);
    for (size_t i = 0; i < f->n_types; i++) put_number(t, (uint32_t)f->v.types[i], 4);
    put_u32_pair(t, f->bos_key, f->bos);
    put_bool_pair(t, "tokenizer.ggml.add_space_prefix", space_prefix);
    put_bool_pair(t, "tokenizer.ggml.add_eos_token", false);
    if (f->more) put_bool_pair(t, "tokenizer.ggml.remove_extra_whitespaces", true);
    while (t->n % 32) kv_text_add(t, "", 1);
    assert_int_equal(kv_write_file(path, t->s, t->n, &e), 0);
    free(t->s);
    *t = (struct kv_text){0};
}

static struct file *new_file(void) {
    struct file *f = kv_alloc(1, sizeof *f);
    make_vocabulary(&f->v);
    f->n_scores = f->n_types = f->n_tokens = N_PIECES;
    f->bos_key = "tokenizer.ggml.bos_token_id";
    f->bos = BOS;
    return f;
}

// The tokenizer of the file, freed with it; the error's sentence where it is refused.
static struct kv_model open_tokenizer(struct file *f, bool space_prefix, char *message) {
    char path[] = "/tmp/kvsim-scored-XXXXXX";
    close(mkstemp(path));
    write_gguf(f, path, space_prefix);
    struct kv_gguf g = {.path = path};
    struct kv_model m = {.shape.vocab = N_PIECES};
    struct kv_error e = {0};
    int rc = kv_gguf_open(&g, &e);
    if (!rc) rc = kv_gguf_tokenizer(&m, &g, &e);
    if (message)
        snprintf(message, 400, "%.399s", rc ? e.msg : "");
    else if (rc)
        fail_msg("%s: %s", e.where, e.msg);
    kv_gguf_close(&g);
    unlink(path);
    return m;
}

static void the_highest_score_is_merged_first(void **state) {
    (void)state;
    struct file *f = new_file();
    struct kv_model m = open_tokenizer(f, false, NULL);
    assert_true(m.add_bos); // the default of this kind
    assert_int_equal(m.bos, BOS);
    HAS("ab", AB);
    HAS("abc", ABC); // bc (-1) before ab (-2), then a + bc make abc
    HAS("abb", AB, B);
    HAS("bcc", BC, C);
    HAS(" a", SP_A);
    HAS(" ab", SP, AB); // ab (-2) before a space and a (-3)
    HAS("a b", A, SP, B);
    HAS("aab", A, AB);
    kv_tokenizer_free(m.tokenizer);
    free(f);
}

// "aaa" is "aa" + "a" and "a" + "aa": of equal scores the leftmost pair is merged.
static void equal_scores_are_merged_from_the_left(void **state) {
    (void)state;
    struct file *f = new_file();
    f->v.text[AB] = "aa";
    f->v.text[ABC] = "aaaa";
    struct kv_model m = open_tokenizer(f, false, NULL);
    HAS("aaa", AB, A);
    HAS("aaaa", ABC);
    HAS("aaaaa", ABC, A);
    kv_tokenizer_free(m.tokenizer);
    free(f);
}

static void what_is_no_piece_becomes_bytes(void **state) {
    (void)state;
    struct file *f = new_file();
    struct kv_model m = open_tokenizer(f, false, NULL);
    size_t n;
    HAS("\u00E9", E_ACUTE);
    HAS("\u00EA", 0xC3, 0xAA);
    HAS("az\n", A, 'z', '\n');
    HAS("<0x41>", '<', '0', 'x', '4', '1', '>'); // the name of a byte is a text like any other
    assert_memory_equal(kv_tokenizer_bytes(m.tokenizer, 0xC3, &n), "\xC3", 1);
    assert_int_equal(n, 1);
    assert_memory_equal(kv_tokenizer_bytes(m.tokenizer, SP_A, &n), " a", 2);
    assert_int_equal(n, 2);
    assert_int_equal(kv_tokenizer_kind(m.tokenizer, SP_A), KV_WORD_START);
    assert_int_equal(kv_tokenizer_kind(m.tokenizer, ABC), KV_WORD_REST);
    kv_tokenizer_free(m.tokenizer);
    free(f);
}

static void tokens_of_users_come_before_merges_and_control_tokens_before_all(void **state) {
    (void)state;
    struct file *f = new_file();
    struct kv_model m = open_tokenizer(f, false, NULL);
    HAS("a  a", A, TWO_SPACES, A); // not the second space and a
    HAS("   a", TWO_SPACES, SP_A);
    HAS("a\u2581 a", A, TWO_SPACES, A); // the sign of a space is one
    HAS("a<b>c", A, TAG, C);
    HAS("a<s>a", A, BOS, A);
    HAS("<unk>", '<', 'u', 'n', 'k', '>');
    kv_tokenizer_free(m.tokenizer);
    free(f);
}

static void a_text_begins_with_a_space_where_the_model_wants_one(void **state) {
    (void)state;
    struct file *f = new_file();
    struct kv_model m = open_tokenizer(f, true, NULL);
    HAS("a", SP_A);
    HAS(" a", TWO_SPACES, A);
    HAS("a<s>a", SP_A, BOS, SP_A);
    uint32_t *ids = NULL;
    size_t n;
    struct kv_error e;
    assert_int_equal(kv_tokenizer_encode(m.tokenizer, "", 0, &ids, &n, &e), 0);
    assert_int_equal(n, 0);
    free(ids);
    kv_tokenizer_free(m.tokenizer);
    free(f);
}

static void refused(struct file *f, const char *message) {
    char got[400];
    struct kv_model m = open_tokenizer(f, false, got);
    assert_string_equal(got, message);
    assert_null(m.tokenizer);
    free(f);
}

static void files_that_lie_get_a_sentence(void **state) {
    (void)state;
    struct file *f = new_file();
    f->n_scores = 0;
    refused(f, "the metadata lack tokenizer.ggml.scores: 269 tokens merge by them");
    f = new_file();
    f->n_scores--;
    refused(f, "tokenizer.ggml.scores is no list of 269 floats, one a token");
    f = new_file();
    f->n_types--;
    refused(f, "tokenizer.ggml.token_type is no list of 269 whole numbers, one a token");
    f = new_file();
    f->v.scores[B] = NAN;
    refused(f, "the score of piece 260 is no finite number");
    f = new_file();
    f->v.text[B] = "b\xFF";
    refused(f, "piece 260 is not UTF-8 at its byte 1");
    f = new_file();
    f->v.types[0x41] = KV_PIECE_NORMAL;
    refused(f, "no piece stands for the byte <0x41>");
    f = new_file();
    f->bos = N_PIECES;
    refused(f, "tokenizer.ggml.bos_token_id is 269, but there are 269 pieces");
    f = new_file();
    f->more = true;
    refused(f, "tokenizer.ggml.remove_extra_whitespaces is true, which is not computed");
    f = new_file();
    char *long_piece = kv_alloc(2000, 1);
    memset(long_piece, 'a', 1999);
    f->v.text[AB] = long_piece;
    refused(f, "piece 262 has 1999 bytes; at most 1024 are merged");
    free(long_piece);
    f = new_file();
    f->n_tokens = f->n_types = f->n_scores = 0;
    refused(f, "the metadata lack tokenizer.ggml.scores: 0 tokens merge by them");
    f = new_file();
    f->bos_key =
        "tokenizer.ggml.cls_token_id"; // without the key BOS is token 1, as llama.cpp has it
    struct kv_model m = open_tokenizer(f, false, NULL);
    assert_int_equal(m.bos, 1);
    kv_tokenizer_free(m.tokenizer);
    free(f);
}

static void a_text_of_a_million_letters_takes_no_quadratic_time(void **state) {
    (void)state;
    struct file *f = new_file();
    struct kv_model m = open_tokenizer(f, false, NULL);
    const size_t n_text = 1u << 20;
    char *text = kv_alloc(n_text, 1);
    for (size_t i = 0; i < n_text; i += 2) memcpy(text + i, "ab", 2);
    uint32_t *ids = NULL;
    size_t n;
    struct kv_error e;
    assert_int_equal(kv_tokenizer_encode(m.tokenizer, text, n_text, &ids, &n, &e), 0);
    assert_int_equal(n, n_text / 2);
    for (size_t i = 0; i < n; i++) assert_int_equal(ids[i], AB);
    free(ids);
    free(text);
    kv_tokenizer_free(m.tokenizer);
    free(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_highest_score_is_merged_first),
        cmocka_unit_test(equal_scores_are_merged_from_the_left),
        cmocka_unit_test(what_is_no_piece_becomes_bytes),
        cmocka_unit_test(tokens_of_users_come_before_merges_and_control_tokens_before_all),
        cmocka_unit_test(a_text_begins_with_a_space_where_the_model_wants_one),
        cmocka_unit_test(files_that_lie_get_a_sentence),
        cmocka_unit_test(a_text_of_a_million_letters_takes_no_quadratic_time),
    };
    return cmocka_run_group_tests_name("scored_tokenizer", tests, NULL, NULL);
}
