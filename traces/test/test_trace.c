// SPDX-License-Identifier: Apache-2.0
// Trace folders: what is written is read back, and nothing damaged, cut short or lying is believed.
#include <setjmp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/base/files.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/version.h"
#include "sim/base/shape.h"
#include "sim/model/model.h"
#include "sim/model/safetensors.h"
#include "traces/writer.h"

// cmocka wants the headers above before its own
#include <cmocka.h>

#define SHARD "shard-00000.safetensors"

enum { HIDDEN = 16, VOCAB = 32, N_LAYERS = 2, N_HEADS = 4, N_KV = 2, DIM = 8, MOST_TOKENS = 16 };

// ---- a trace made by hand -------------------------------------------------------------

// Everything an item points to.
struct content {
    uint32_t ids[MOST_TOKENS];
    float features[MOST_TOKENS * KV_N_FEATURES], next_logprob[MOST_TOKENS];
    uint8_t kinds[MOST_TOKENS];
    float final[MOST_TOKENS * HIDDEN];
    double score[3];
    uint16_t k[MOST_TOKENS * N_LAYERS * N_KV * DIM], v[MOST_TOKENS * N_LAYERS * N_KV * DIM];
    uint16_t q[MOST_TOKENS * N_LAYERS * N_HEADS * DIM], hidden[MOST_TOKENS * N_LAYERS * HIDDEN];
};

// An item with choices of 3, 1 and 2 tokens; one with a single token each; a window of text.
static const uint32_t first0[] = {4, 7, 8, 10}, rows0[] = {3, 4, 5, 8}, chars0[] = {9, 2, 5},
                      bytes0[] = {10, 2, 5}, first1[] = {2, 3, 4}, rows1[] = {1}, chars1[] = {1, 2},
                      first2[] = {6}, rows2[] = {0, 1, 2, 3, 4};
static const struct kv_trace_item shapes[] = {{.id = "0",
                                               .source = "activitynet",
                                               .key = 11,
                                               .gold = 2,
                                               .n_tokens = 10,
                                               .n_context = 4,
                                               .n_choices = 3,
                                               .first = first0,
                                               .chars = chars0,
                                               .bytes = bytes0,
                                               .n_final = 4,
                                               .final_rows = rows0},
                                              {.id = "x/1",
                                               .source = "",
                                               .key = 12,
                                               .gold = 0,
                                               .n_tokens = 4,
                                               .n_context = 2,
                                               .n_choices = 2,
                                               .first = first1,
                                               .chars = chars1,
                                               .bytes = chars1,
                                               .n_final = 1,
                                               .final_rows = rows1},
                                              {.id = "2",
                                               .source = "",
                                               .key = ~0ull,
                                               .gold = -1,
                                               .n_tokens = 6,
                                               .n_context = 6,
                                               .first = first2,
                                               .n_final = 5,
                                               .final_rows = rows2}};
enum { N_ITEMS = sizeof shapes / sizeof *shapes };

static const struct kv_trace_info info = {
    .shape = {N_LAYERS, N_HEADS, N_KV, DIM, HIDDEN, 24, VOCAB, 64},
    .order = KV_ORDER_HF,
    .model_name = "hand",
    .model_digest = "00112233445566aa",
    .model_source = "nowhere",
    .weights_as = "f32",
    .task_name = "hellaswag",
    .task_path = "some \"file\"",
    .task_prompt = "harness",
    .task_digest = "0000000000000001",
    .subset = "all 3",
    .tokenizer_digest = "0000000000000002",
    .rope_base = 10000,
    .keep = KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_Q | KV_KEEP_HIDDEN,
    .n_items = N_ITEMS,
    .n_tokens = 20,
    .tool_version = KV_VERSION,
    .blas = "none"};

// Without one bit of the exponent, whatever the width: numbers of a recording are finite.
static void fill_bytes(void *p, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) ((uint8_t *)p)[i] = (uint8_t)(256 * kv_draw(seed, 1, i)) & 0xBF;
}

static struct kv_trace_item item_with(struct content *c, size_t i) {
    struct kv_trace_item item = shapes[i];
    fill_bytes(c, sizeof *c, i);
    for (size_t t = 0; t < MOST_TOKENS; t++) c->ids[t] %= VOCAB, c->kinds[t] %= KV_N_KINDS;
    item.index = (uint32_t)i;
    item.ids = c->ids, item.features = c->features, item.kinds = c->kinds;
    item.next_logprob = c->next_logprob, item.final = c->final, item.score = c->score;
    item.k = c->k, item.v = c->v, item.q = c->q, item.hidden = c->hidden;
    return item;
}

static void must(int rc, const struct kv_error *e) {
    if (rc) fail_msg("%s: %s", e->where, e->msg);
}

// Items are put in an order of their own: the file does not depend on it.
static void write_trace(const char *dir, const size_t order[N_ITEMS]) {
    struct kv_trace_writer *w;
    struct kv_error e;
    must(kv_trace_writer_open(&w, dir, &info, "", shapes, N_ITEMS, &e), &e);
    for (size_t i = 0; i < N_ITEMS; i++) {
        struct content *c = malloc(sizeof *c);
        struct kv_trace_item item = item_with(c, order[i]);
        must(kv_trace_writer_put(w, order[i], &item, 0, &e), &e);
        free(c);
    }
    must(kv_trace_writer_close(w, true, &e), &e);
}

static char *in(const char *dir, const char *name) {
    return kv_format_text("%s/%s", dir, name);
}

static void read_whole(const char *dir, const char *name, char **text, size_t *n) {
    struct kv_error e;
    char *path = in(dir, name);
    must(kv_read_file(path, text, n, &e), &e);
    free(path);
}

static void write_whole(const char *dir, const char *name, const char *text, size_t n) {
    struct kv_error e;
    char *path = in(dir, name);
    must(kv_write_file(path, text, n, &e), &e);
    free(path);
}

static int set_up(void **state) {
    static char dir[40];
    snprintf(dir, sizeof dir, "/tmp/kvsim-test-XXXXXX");
    *state = dir;
    if (!mkdtemp(dir)) return 1;
    write_trace(dir, (const size_t[]){0, 1, 2});
    return 0;
}

static int tear_down(void **state) {
    char *command = kv_format_text("rm -r '%s'", (char *)*state);
    int rc = system(command);
    free(command);
    return rc;
}

// ---- reading back ---------------------------------------------------------------------

#define SAME(field, n) assert_memory_equal(want.field, got->field, (n) * sizeof *want.field)

static void what_is_written_is_read_back(void **state) {
    struct kv_error e;
    struct kv_trace *t;
    must(kv_trace_open(&t, *state, &e), &e);
    must(kv_trace_verify(t, &e), &e);
    const struct kv_trace_info *back = kv_trace_info(t);
    assert_memory_equal(&info.shape, &back->shape, sizeof info.shape);
    assert_int_equal(KV_ORDER_HF, back->order);
    assert_int_equal(info.keep, back->keep);
    assert_int_equal(N_ITEMS, back->n_items);
    assert_int_equal(20, back->n_tokens);
    assert_string_equal("some \"file\"", back->task_path);
    assert_string_equal("00112233445566aa", back->model_digest);
    assert_string_equal("all 3", back->subset);
    assert_int_equal(0, back->other_features);
    assert_null(kv_trace_item(t, N_ITEMS));
    for (size_t i = 0; i < N_ITEMS; i++) {
        struct content *c = malloc(sizeof *c);
        const struct kv_trace_item want = item_with(c, i), *got = kv_trace_item(t, i);
        size_t n = want.n_tokens, kv = n * N_LAYERS * N_KV * DIM;
        assert_string_equal(want.id, got->id);
        assert_string_equal(want.source, got->source);
        assert_true(want.key == got->key);
        assert_int_equal(want.gold, got->gold);
        assert_int_equal(n, got->n_tokens);
        assert_int_equal(want.n_context, got->n_context);
        assert_int_equal(want.n_choices, got->n_choices);
        SAME(first, want.n_choices + 1);
        if (want.n_choices) {
            SAME(chars, want.n_choices);
            SAME(bytes, want.n_choices);
        }
        SAME(ids, n);
        SAME(features, n * KV_N_FEATURES);
        SAME(kinds, n);
        SAME(next_logprob, n);
        SAME(final_rows, want.n_final);
        SAME(final, want.n_final * HIDDEN);
        SAME(score, want.n_choices ? want.n_choices : 1);
        SAME(k, kv);
        SAME(v, kv);
        SAME(q, n * N_LAYERS * N_HEADS * DIM);
        SAME(hidden, n * N_LAYERS * HIDDEN);
        assert_null(got->sens); // not kept
        free(c);
    }
    kv_trace_close(t);
}

static void same_files(const char *one, const char *other) {
    static const char *const files[] = {SHARD, "manifest.json"};
    char *a, *b;
    size_t n_a, n_b;
    for (int i = 0; i < 2; i++) {
        read_whole(one, files[i], &a, &n_a);
        read_whole(other, files[i], &b, &n_b);
        assert_int_equal(n_a, n_b);
        assert_memory_equal(a, b, n_a);
        free(a);
        free(b);
    }
}

static void the_order_of_writing_does_not_show(void **state) {
    char *again = in(*state, "again");
    write_trace(again, (const size_t[]){2, 0, 1});
    same_files(*state, again);
    free(again);
}

static void an_abandoned_trace_leaves_nothing(void **state) {
    struct kv_trace_writer *w;
    struct kv_trace *t;
    struct kv_error e;
    char *dir = in(*state, "abandoned"), *shard = in(dir, SHARD);
    must(kv_trace_writer_open(&w, dir, &info, "", shapes, N_ITEMS, &e), &e);
    assert_int_equal(0, access(shard, F_OK));
    must(kv_trace_writer_close(w, false, &e), &e);
    assert_int_equal(-1, access(shard, F_OK));
    assert_int_equal(KV_EFAIL, kv_trace_open(&t, dir, &e));
    assert_string_equal("is not a finished trace: it has no readable manifest.json", e.msg);
    assert_int_equal(0, rmdir(dir));
    assert_int_equal(KV_EFAIL, kv_trace_writer_open(&w, *state, &info, "", shapes, N_ITEMS, &e));
    assert_string_equal("holds a trace already; remove it or choose another folder", e.msg);
    free(shard);
    free(dir);
}

static void put(struct kv_trace_writer *w, size_t i) {
    struct kv_error e;
    struct content *c = malloc(sizeof *c);
    struct kv_trace_item item = item_with(c, i);
    must(kv_trace_writer_put(w, i, &item, 0, &e), &e);
    free(c);
}

// Issue 13 C3: what an unfinished recording holds is told by its bytes; an equal one goes on.
static void issue_13_c3_an_unfinished_recording_goes_on_to_the_same_bytes(void **state) {
    struct kv_trace_writer *w;
    struct kv_error e;
    char *dir = in(*state, "half"), *shard;
    size_t n;
    must(kv_trace_writer_open(&w, dir, &info, "here", shapes, N_ITEMS, &e), &e);
    put(w, 2);
    put(w, 0);
    must(kv_trace_writer_close(w, false, &e), &e);
    assert_int_equal(KV_EFAIL, kv_trace_writer_open(&w, dir, &info, "there", shapes, N_ITEMS, &e));
    assert_non_null(strstr(e.msg, "how is \"here\" there and \"there\" here"));
    struct kv_trace_info other = info;
    other.model_digest = "00112233445566bb";
    assert_int_equal(KV_EFAIL, kv_trace_writer_open(&w, dir, &other, "here", shapes, N_ITEMS, &e));
    assert_non_null(strstr(e.msg, "model.digest is \"00112233445566aa\" there"));
    read_whole(dir, SHARD, &shard, &n); // the last bytes are the kinds of item 2
    shard[n - 1] ^= 1;
    write_whole(dir, SHARD, shard, n);
    free(shard);
    must(kv_trace_writer_open(&w, dir, &info, "here", shapes, N_ITEMS, &e), &e);
    assert_int_equal(2, kv_trace_writer_done(w));
    assert_true(kv_trace_writer_holds(w, 0, 0));
    assert_false(kv_trace_writer_holds(w, 0, 7));
    assert_false(kv_trace_writer_holds(w, 1, 0));
    assert_false(kv_trace_writer_holds(w, 2, 0));
    put(w, 1);
    put(w, 2);
    must(kv_trace_writer_close(w, true, &e), &e);
    same_files(*state, dir);
    char *left = in(dir, "recording.json");
    assert_int_equal(-1, access(left, F_OK));
    free(left);
    free(dir);
}

static void issue_13_c2_a_second_writer_is_refused_at_once(void **state) {
    struct kv_trace_writer *w, *second;
    struct kv_error e;
    char *dir = in(*state, "both");
    must(kv_trace_writer_open(&w, dir, &info, "", shapes, N_ITEMS, &e), &e);
    assert_int_equal(KV_EFAIL, kv_trace_writer_open(&second, dir, &info, "", shapes, N_ITEMS, &e));
    assert_string_equal(
        "is being recorded into by another kvsim; wait for it or choose another folder", e.msg);
    for (size_t i = 0; i < N_ITEMS; i++) put(w, i);
    must(kv_trace_writer_close(w, true, &e), &e);
    same_files(*state, dir);
    free(dir);
}

static void issue_13_c1_names_that_are_no_utf_8_are_spelled_out(void **state) {
    struct kv_trace_info odd = info;
    struct kv_trace_writer *w;
    struct kv_trace *t;
    struct kv_error e;
    char *dir = in(*state, "odd");
    odd.task_path = "caf\xE9/\xFF.jsonl";
    odd.model_name = "\xC3";
    must(kv_trace_writer_open(&w, dir, &odd, "", shapes, N_ITEMS, &e), &e);
    for (size_t i = 0; i < N_ITEMS; i++) put(w, i);
    must(kv_trace_writer_close(w, true, &e), &e);
    must(kv_trace_open(&t, dir, &e), &e);
    assert_string_equal("caf\\xE9/\\xFF.jsonl", kv_trace_info(t)->task_path);
    assert_string_equal("\\xC3", kv_trace_info(t)->model_name);
    kv_trace_close(t);
    free(dir);
}

static void sizes_are_told_beforehand(void **state) {
    struct kv_trace_size size = kv_trace_size(&info, shapes, N_ITEMS);
    char *path = in(*state, SHARD);
    struct stat st;
    assert_int_equal(0, stat(path, &st));
    // All but the header, which is a few kilobytes.
    assert_true(size.total_bytes < (uint64_t)st.st_size);
    assert_true((uint64_t)st.st_size - size.total_bytes < 4096);
    assert_true(fabs(size.bytes_per_token * 20 - (double)size.total_bytes) < 1e-6);
    free(path);
}

// ---- damage ---------------------------------------------------------------------------

// Opens and frees; the message of the refusal, "" when there is none.
static const char *refusal(const char *dir, struct kv_error *e) {
    struct kv_trace *t;
    e->msg[0] = '\0';
    if (kv_trace_open(&t, dir, e) == 0) kv_trace_close(t);
    return e->msg;
}

static void refused_with(const char *dir, const char *message) {
    struct kv_error e;
    if (!strstr(refusal(dir, &e), message)) fail_msg("'%s' is wanted, not '%s'", message, e.msg);
}

static void a_flipped_bit_anywhere_is_found(void **state) {
    char *shard;
    size_t n;
    read_whole(*state, SHARD, &shard, &n);
    for (size_t k = 0; k < 64; k++) {
        size_t at = (size_t)(kv_draw(1, 2, k) * (double)n);
        struct kv_error e;
        shard[at] ^= (char)(1 << k % 8);
        write_whole(*state, SHARD, shard, n);
        if (!*refusal(*state, &e)) fail_msg("a flip in byte %zu was not seen", at);
        assert_non_null(strstr(e.where, SHARD));
        shard[at] ^= (char)(1 << k % 8);
    }
    write_whole(*state, SHARD, shard, n);
    refused_with(*state, "");
    free(shard);
}

static void a_shard_cut_anywhere_is_refused(void **state) {
    char *shard;
    size_t n;
    read_whole(*state, SHARD, &shard, &n);
    for (size_t keep = 0; keep < n; keep += 1 + keep / 3) {
        struct kv_error e;
        write_whole(*state, SHARD, shard, keep);
        if (!*refusal(*state, &e)) fail_msg("%zu of %zu bytes were believed", keep, n);
    }
    free(shard);
}

static void a_manifest_cut_anywhere_is_refused(void **state) {
    char *text;
    size_t n;
    read_whole(*state, "manifest.json", &text, &n);
    for (size_t keep = 0; keep < n; keep += 1 + keep / 9) {
        struct kv_error e;
        write_whole(*state, "manifest.json", text, keep);
        if (!*refusal(*state, &e)) fail_msg("%zu of %zu bytes were believed", keep, n);
    }
    free(text);
}

// Makes the manifest's checksum fit its text, as a forger would.
static void seal_again(char *text, size_t n) {
    char *at = strstr(text, "\"manifest_xxh64\": \""), hex[17];
    if (!at) return;
    at = strchr(at, ':') + 3;
    memset(at, '0', 16);
    kv_hex64(kv_hash(text, n, 0), hex);
    memcpy(at, hex, 16);
}

// Replaces the first `from` of the manifest.
static void edit_manifest(const char *dir, const char *from, const char *to) {
    char *text, *at;
    size_t n;
    struct kv_text edited = {0};
    read_whole(dir, "manifest.json", &text, &n);
    at = strstr(text, from);
    assert_non_null(at);
    kv_text_add(&edited, text, (size_t)(at - text));
    kv_text_addf(&edited, "%s%s", to, at + strlen(from));
    seal_again(edited.s, edited.n);
    write_whole(dir, "manifest.json", edited.s, edited.n);
    free(edited.s);
    free(text);
}

static void a_manifest_that_lies_is_refused(void **state) {
    static const struct {
        const char *from, *to, *message;
    } lies[] = {
        {"\"version\": 1", "\"version\": 2", "has format version 2; this kvsim reads 1"},
        {"kvsim-trace", "other-trace", "is not the manifest of a kvsim trace"},
        {"\"n_items\": 3", "\"n_items\": 4", "'ids, sources' is missing"},
        {"\"n_items\": 3", "\"n_items\": -3", "'n_items' is missing or not a count"},
        {"\"n_tokens\": 20", "\"n_tokens\": 2", "says 2 tokens, its items hold 20"},
        {"\"items\": 3", "\"items\": 2", "rows; its items need another number"},
        {"\"items\": 3", "\"items\": 0", "rows; its items need another number"},
        {"\"items\": 3", "\"items\": 9", "'items' is missing or not a count"},
        {"\"vocab\": 32", "\"vocab\": 31", "impossible boundaries, scored rows or token ids"},
        {"\"head_dim\": 8", "\"head_dim\": 16", "has another type or shape than the model's"},
        {"\"head_dim\": 8", "\"head_dim\": 0", "'head_dim' is missing or not above zero"},
        {"\"q\"", "\"sens\"", "tensor sensitivity is missing"},
        {"\"shard-00000", "\"../shard-00000", "'shards.file' is missing or not a plain file name"},
        {"\"shard-00000", "\"shard-00001", "cannot be opened"},
        {"\"channel_order\": \"hf\"", "\"channel_order\": \"fh\"", "'channel_order' is missing"},
        {"\"x/1\"", "1", "'ids, sources' is missing or not texts"},
        {"\"x/1\"", "\"0\"", "items 0 and 1 have one id, '0', and results go by ids"},
        {"\"rope_base\": ", "\"rope_base\": -", "'rope_base' is missing or not a finite number"},
        {"\"rope_base\": ", "\"rope_base\": 0, \"was\": ", "'rope_base' is missing or not"},
        {"\"rope_base\": ", "\"rope_base\": 1e39, \"was\": ", "'rope_base' is missing or not"},
        {"\"rope_base\"", "\"base\"", "'rope_base' is missing or not a finite number above zero"},
        {"\"n_kv_heads\": 2", "\"n_kv_heads\": 16", "n_heads 4 is no multiple of n_kv_heads 16"},
        {"\"n_layers\": 2", "\"n_layers\": 16777216", "says a token has more than"},
        {"\"max_tokens\": 64", "\"max_tokens\": 6", "impossible boundaries"},
    };
    char *text;
    size_t n;
    read_whole(*state, "manifest.json", &text, &n);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        edit_manifest(*state, lies[i].from, lies[i].to);
        refused_with(*state, lies[i].message);
        write_whole(*state, "manifest.json", text, n);
    }
    refused_with(*state, "");
    free(text);
}

// Both ways an older recording looks: another rule in words, and none. The file opens; what reads
// that feature is refused, what reads others is not.
static void features_by_an_older_rule_are_told_from_today_s(void **state) {
    static const struct {
        const char *from, *to;
        enum kv_feature feature;
        const char *message;
    } older[] = {
        {"\"rarity\": \"-log((c + 1) / (N + V + 1)), running counts over the file's contexts, V "
         "the distinct tokens seen\"",
         "\"rarity\": \"running counts over the file's contexts\"", KV_RARITY_NATS,
         "holds rarity by another rule than today's (-log((c + 1) / (N + V + 1)), running "
         "counts over the file's contexts, V the distinct tokens seen); record it again"},
        {"\"attn_future\"", "\"unknown\"", KV_ATTN_FUTURE,
         "holds attn_future by another rule than today's"}};
    char *text;
    size_t n;
    read_whole(*state, "manifest.json", &text, &n);
    for (size_t i = 0; i < sizeof older / sizeof *older; i++) {
        struct kv_error e = {0};
        struct kv_trace *t;
        edit_manifest(*state, older[i].from, older[i].to);
        must(kv_trace_open(&t, *state, &e), &e);
        uint32_t all = (1u << KV_N_FEATURES) - 1, that = KV_NEED(older[i].feature);
        assert_int_equal(kv_trace_info(t)->other_features, that);
        must(kv_trace_check_features(kv_trace_info(t), all & ~that, &e), &e);
        assert_int_equal(kv_trace_check_features(kv_trace_info(t), that, &e), KV_EFAIL);
        if (!strstr(e.msg, older[i].message)) fail_msg("%s", e.msg);
        kv_trace_close(t);
        write_whole(*state, "manifest.json", text, n);
    }
    free(text);
}

// Overwrites a 32-bit number of a tensor and seals the shard anew, as a forger would.
static void forge(const char *dir, const char *tensor, size_t index, uint32_t value) {
    char *shard, *path = in(dir, SHARD), old[17], new[17];
    size_t n;
    struct kv_safetensors file;
    struct kv_error e;
    must(kv_safetensors_open(&file, path, &e), &e);
    size_t at = kv_safetensors_find(&file, tensor)->offset + 4 * index;
    kv_safetensors_close(&file);
    read_whole(dir, SHARD, &shard, &n);
    kv_hex64(kv_hash(shard, n, 0), old);
    memcpy(shard + at, &value, 4);
    kv_hex64(kv_hash(shard, n, 0), new);
    write_whole(dir, SHARD, shard, n);
    edit_manifest(dir, old, new);
    free(shard);
    free(path);
}

static void boundaries_that_cannot_be_are_refused_though_sums_fit(void **state) {
    static const struct {
        const char *tensor;
        size_t index;
        uint32_t value;
    } forgeries[] = {
        {"item.n_tokens", 0, 11}, {"item.n_tokens", 0, 0xFFFFFFFF},
        {"item.n_tokens", 2, 0},  {"item.n_context", 0, 5},
        {"item.n_context", 0, 0}, {"item.n_context", 2, 7},
        {"item.n_choices", 0, 2}, {"item.n_choices", 0, 0xFFFFFFFF},
        {"item.n_final", 0, 3},   {"item.n_final", 1, 0},
        {"item.gold", 0, 3},      {"item.gold", 2, (uint32_t)-2},
        {"item.gold", 2, 0},      {"choice.first", 1, 4},
        {"choice.first", 1, 8},   {"choice.first", 1, 0x80000000},
        {"choice.first", 3, 11},  {"final.row", 0, 2},
        {"final.row", 1, 3},      {"final.row", 3, 7},
        {"final.row", 9, 5},      {"final.row", 4, 0xFFFFFFFF},
        {"token.id", 19, VOCAB},  {"token.kind", 0, 0xFF},
    };
    char *shard, *manifest;
    size_t n, n_manifest;
    read_whole(*state, SHARD, &shard, &n);
    read_whole(*state, "manifest.json", &manifest, &n_manifest);
    for (size_t i = 0; i < sizeof forgeries / sizeof *forgeries; i++) {
        struct kv_error e;
        forge(*state, forgeries[i].tensor, forgeries[i].index, forgeries[i].value);
        if (!strstr(refusal(*state, &e), "impossible boundaries") &&
            !strstr(e.msg, "its items need another number"))
            fail_msg("%s[%zu] = %u: '%s'", forgeries[i].tensor, forgeries[i].index,
                     forgeries[i].value, e.msg);
        write_whole(*state, SHARD, shard, n);
        write_whole(*state, "manifest.json", manifest, n_manifest);
    }
    refused_with(*state, "");
    free(shard);
    free(manifest);
}

// Whatever the bytes, the reader ends with a sentence: sealed noise in header and data.
static void noise_is_refused_or_read_but_never_followed(void **state) {
    char *shard, *manifest;
    size_t n, n_manifest;
    read_whole(*state, SHARD, &shard, &n);
    read_whole(*state, "manifest.json", &manifest, &n_manifest);
    char *path = in(*state, SHARD), *noisy = malloc(n);
    for (uint64_t round = 0; round < 300; round++) {
        char old[17], new[17];
        struct kv_error e;
        memcpy(noisy, shard, n);
        for (uint64_t k = 0; k < 1 + round % 4; k++)
            noisy[(size_t)(kv_draw(round, 3, k) * (double)n)] = (char)(256 * kv_draw(round, 4, k));
        kv_hex64(kv_hash(shard, n, 0), old);
        kv_hex64(kv_hash(noisy, n, 0), new);
        write_whole(*state, SHARD, noisy, n);
        edit_manifest(*state, old, new);
        if (*refusal(*state, &e)) assert_true(*e.where);
        write_whole(*state, "manifest.json", manifest, n_manifest);
    }
    free(path);
    free(noisy);
    free(shard);
    free(manifest);
}

// Issue 13 A15: whatever byte of the manifest changes, the reader sees it; one from before there
// was a checksum opens.
static void issue_13_a15_the_manifest_is_covered(void **state) {
    char *text;
    size_t n;
    read_whole(*state, "manifest.json", &text, &n);
    for (size_t at = 0; at < n; at++) {
        struct kv_error e;
        text[at] ^= 1;
        write_whole(*state, "manifest.json", text, n);
        struct kv_trace *t;
        if (kv_trace_open(&t, *state, &e) == 0) {
            // the name of the checksum itself: then it has none, and is told so
            if (*kv_trace_info(t)->seal) fail_msg("a flip in byte %zu was not seen", at);
            kv_trace_close(t);
        }
        text[at] ^= 1;
    }
    write_whole(*state, "manifest.json", text, n);
    edit_manifest(*state, "\"manifest_xxh64\"", "\"other\"");
    struct kv_trace *t;
    struct kv_error e;
    must(kv_trace_open(&t, *state, &e), &e);
    assert_string_equal(kv_trace_info(t)->seal, "");
    kv_trace_close(t);
    free(text);
}

// Issue 13 A15: dimensions that no tensor of the trace shows, since little is kept.
static void issue_13_a15_every_dimension_is_compared_with_the_model(void **state) {
    struct kv_model m = {.shape = info.shape,
                         .order = info.order,
                         .n_ropes = 1,
                         .rope = {{.base = info.rope_base}},
                         .name = "hand",
                         .weights_as = "f32"};
    struct kv_error e;
    (void)state;
    snprintf(m.digest, sizeof m.digest, "%s", info.model_digest);
    must(kv_trace_check_model(&info, &m, &e), &e);
    for (size_t i = 0; i < KV_N_SHAPE_FIELDS; i++) {
        struct kv_trace_info lie = info;
        kv_shape_set(&lie.shape, i, 3 * kv_shape_get(&info.shape, i));
        lie.path = "t";
        assert_int_equal(KV_EFAIL, kv_trace_check_model(&lie, &m, &e));
        assert_non_null(strstr(e.msg, kv_shape_fields[i].name));
    }
}

static void folders_that_are_no_traces_are_refused(void **state) {
    char *nothing = in(*state, "nothing"), *file = in(*state, "manifest.json");
    refused_with(nothing, "is not a trace folder (kvsim record makes one)");
    refused_with(file, "is not a trace folder (kvsim record makes one)");
    unlink(file);
    refused_with(*state, "is not a finished trace: it has no readable manifest.json");
    free(nothing);
    free(file);
}

int main(void) {
    kv_set_verbosity(-1);
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_written_is_read_back),
        TEST(the_order_of_writing_does_not_show),
        TEST(an_abandoned_trace_leaves_nothing),
        TEST(issue_13_c3_an_unfinished_recording_goes_on_to_the_same_bytes),
        TEST(issue_13_c2_a_second_writer_is_refused_at_once),
        TEST(issue_13_c1_names_that_are_no_utf_8_are_spelled_out),
        TEST(issue_13_a15_the_manifest_is_covered),
        TEST(issue_13_a15_every_dimension_is_compared_with_the_model),
        TEST(sizes_are_told_beforehand),
        TEST(a_flipped_bit_anywhere_is_found),
        TEST(a_shard_cut_anywhere_is_refused),
        TEST(a_manifest_cut_anywhere_is_refused),
        TEST(a_manifest_that_lies_is_refused),
        TEST(features_by_an_older_rule_are_told_from_today_s),
        TEST(boundaries_that_cannot_be_are_refused_though_sums_fit),
        TEST(noise_is_refused_or_read_but_never_followed),
        TEST(folders_that_are_no_traces_are_refused),
    };
    return cmocka_run_group_tests_name("trace folders", tests, NULL, NULL);
}
