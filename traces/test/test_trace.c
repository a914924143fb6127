// SPDX-License-Identifier: Apache-2.0
// The trace folder: what is written comes back, and what was tampered with is refused.
#include "sim/base/util.h"
#include "traces/layout.h"
#include "traces/writer.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

enum {
    LAYERS = 2,
    HEADS = 4,
    KV_HEADS = 2,
    DIM = 16,
    HIDDEN = 24,
    ROWS = 9,
    N = 3,
    KEPT = KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_Q | KV_KEEP_HIDDEN
};

static struct kv_trace_info info = {
    .shape = {LAYERS, HEADS, KV_HEADS, DIM, HIDDEN, 32, 50, 64},
    .order = KV_ORDER_HF,
    .model_name = "made-up",
    .model_digest = "0011223344556677",
    .model_source = "none",
    .weights_as = "f32",
    .task_name = "hellaswag",
    .task_path = "made-up.jsonl",
    .task_prompt = "harness",
    .task_digest = "8899aabbccddeeff",
    .subset = "all 3",
    .tokenizer_digest = "0123456701234567",
    .keep = KEPT,
    .n_items = N,
    .n_tokens = 3 * ROWS,
    .tool_version = KV_VERSION,
    .blas = "none",
};

// Arrays of one item, filled with numbers that tell item and place.
struct made_up {
    uint32_t first[4], chars[3], bytes[3], ids[ROWS], final_rows[ROWS];
    float features[ROWS * KV_N_FEATURES], next_logprob[ROWS], final[ROWS * HIDDEN];
    double score[3];
    uint8_t kinds[ROWS];
    uint16_t k[ROWS * LAYERS * KV_HEADS * DIM], v[ROWS * LAYERS * KV_HEADS * DIM],
        q[ROWS * LAYERS * HEADS * DIM], hidden[ROWS * LAYERS * HIDDEN];
};
static struct made_up data[N];
static struct kv_trace_item items[N];

#define FILL(array, expression)                                                                    \
    for (size_t j = 0; j < sizeof(array) / sizeof *(array); j++) (array)[j] = (expression)

// Two questions of a context of 4 tokens with choices of 1, 3, 1; and a text of 9 tokens.
static void make_items(void) {
    static const uint32_t edges[] = {4, 5, 8, 9}, scored[] = {3, 5, 6};
    static const char *const names[] = {"17", "a \"quoted\" id", "0"};
    for (uint32_t i = 0; i < N; i++) {
        struct made_up *d = &data[i];
        bool text = i == 2;
        FILL(d->features, (float)(i * 1000 + j));
        FILL(d->next_logprob, -(float)(i * 100 + j));
        FILL(d->final, (float)j * 0.5f + (float)i);
        FILL(d->score, -(double)j - 0.1 * i);
        FILL(d->k, (uint16_t)(i * 4000 + j));
        FILL(d->v, (uint16_t)(i * 4000 + j + 7));
        FILL(d->q, (uint16_t)(i * 4000 + j + 9));
        FILL(d->hidden, (uint16_t)(i * 4000 + j + 11));
        FILL(d->ids, (uint32_t)((i + j) % 50));
        FILL(d->kinds, (uint8_t)(j % KV_N_KINDS));
        FILL(d->chars, (uint32_t)(10 + j));
        FILL(d->bytes, (uint32_t)(20 + j));
        FILL(d->final_rows, (uint32_t)j);
        memcpy(d->first, edges, sizeof edges);
        if (text) d->first[0] = ROWS;
        if (!text) memcpy(d->final_rows, scored, sizeof scored);
        items[i] = (struct kv_trace_item){.index = i,
                                          .id = names[i],
                                          .source = i ? "" : "wikihow",
                                          .key = 0xfedcba9876543210u + i,
                                          .gold = text ? -1 : 1,
                                          .n_tokens = ROWS,
                                          .n_context = text ? ROWS : 4,
                                          .n_choices = text ? 0 : 3,
                                          .first = d->first,
                                          .chars = d->chars,
                                          .bytes = d->bytes,
                                          .ids = d->ids,
                                          .features = d->features,
                                          .kinds = d->kinds,
                                          .next_logprob = d->next_logprob,
                                          .n_final = text ? ROWS - 1 : 3,
                                          .final_rows = d->final_rows,
                                          .final = d->final,
                                          .score = d->score,
                                          .k = d->k,
                                          .v = d->v,
                                          .q = d->q,
                                          .hidden = d->hidden};
    }
}

static char *dir, *shard, *manifest;

static void write_trace(uint32_t keep) {
    struct kv_trace_writer *w;
    struct kv_error e = {0};
    info.keep = keep;
    if (kv_trace_writer_open(&w, dir, &info, items, N, &e)) fail_msg("%s: %s", e.where, e.msg);
    for (size_t i = N; i-- > 0;) // any order
        if (kv_trace_writer_put(w, i, &items[i], &e)) fail_msg("%s: %s", e.where, e.msg);
    if (kv_trace_writer_close(w, true, &e)) fail_msg("%s: %s", e.where, e.msg);
}

static int set_up(void **state) {
    const char *build = getenv("BUILD");
    (void)state;
    make_items();
    dir = kv_format_text("%s/trace-XXXXXX", build ? build : "build");
    if (!mkdtemp(dir)) return 1;
    shard = kv_format_text("%s/shard-00000.safetensors", dir);
    manifest = kv_format_text("%s/manifest.json", dir);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(shard);
    unlink(manifest);
    rmdir(dir);
    free(shard);
    free(manifest);
    free(dir);
    return 0;
}

static void assert_refused(const char *where, const char *msg) {
    struct kv_trace *t;
    struct kv_error e = {0};
    assert_int_equal(kv_trace_open(&t, dir, &e), KV_EFAIL);
    assert_null(t);
    assert_string_equal(e.where, where);
    if (!strstr(e.msg, msg)) fail_msg("said: %s, not: %s", e.msg, msg);
}

static void read_all(const char *path, char **bytes, size_t *n) {
    struct kv_error e = {0};
    if (kv_read_file(path, bytes, n, &e)) fail_msg("%s: %s", path, e.msg);
}

static void write_all(const char *path, const void *bytes, size_t n) {
    struct kv_error e = {0};
    if (kv_write_file(path, bytes, n, &e)) fail_msg("%s: %s", path, e.msg);
}

// Replaces a text of the manifest by another.
static void edit_manifest(const char *from, const char *to) {
    char *text;
    size_t n;
    read_all(manifest, &text, &n);
    char *at = strstr(text, from);
    if (!at) fail_msg("the manifest holds no %s", from);
    char *edited = kv_format_text("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    write_all(manifest, edited, strlen(edited));
    free(edited);
    free(text);
}

// Makes the manifest agree with the shard as it now is.
static void seal_again(void) {
    char *bytes, *text, hex[17];
    size_t n, n_text;
    read_all(shard, &bytes, &n);
    kv_hex64(kv_hash(bytes, n, 0), hex);
    read_all(manifest, &text, &n_text);
    memcpy(strstr(text, "\"xxh64\": \"") + 10, hex, 16);
    write_all(manifest, text, n_text);
    free(bytes);
    free(text);
}

static void test_round_trip(void **state) {
    (void)state;
    static const uint32_t keeps[] = {KEPT, KV_KEEP_FINAL, 0, KV_KEEP_KV | KV_KEEP_HIDDEN};
    for (size_t pass = 0; pass < sizeof keeps / sizeof *keeps; pass++) {
        struct kv_trace *t;
        struct kv_error e = {0};
        write_trace(keeps[pass]);
        if (kv_trace_open(&t, dir, &e)) fail_msg("%s: %s", e.where, e.msg);
        assert_int_equal(kv_trace_verify(t, &e), 0);
        const struct kv_trace_info *in = kv_trace_info(t);
        assert_memory_equal(&in->shape, &info.shape, sizeof info.shape);
        assert_int_equal(in->order, info.order);
        assert_int_equal(in->keep, keeps[pass]);
        assert_int_equal(in->n_items, N);
        assert_string_equal(in->task_digest, info.task_digest);
        assert_string_equal(in->subset, info.subset);
        assert_null(kv_trace_item(t, N));
        for (size_t i = 0; i < N; i++) {
            const struct kv_trace_item *got = kv_trace_item(t, i);
            assert_string_equal(got->id, items[i].id);
            assert_string_equal(got->source, items[i].source);
            for (const struct kv_column_spec *c = kv_trace_columns; c->name; c++) {
                const void *a = (const char *)got + c->field,
                           *b = (const char *)&items[i] + c->field;
                size_t bytes = kv_axis_rows(&items[i], c->axis) * kv_column_row_bytes(c, &info);
                if (c->axis != KV_AXIS_ITEM) {
                    memcpy(&a, a, sizeof a);
                    memcpy(&b, b, sizeof b);
                }
                if (c->keep && !(c->keep & keeps[pass]))
                    assert_null(a);
                else
                    assert_memory_equal(a, b, bytes);
            }
        }
        kv_trace_close(t);
        unlink(manifest);
    }
}

static void test_finished_only(void **state) {
    (void)state;
    struct kv_trace_writer *w;
    struct kv_error e = {0};
    unlink(shard);
    info.keep = KV_KEEP_FINAL;
    assert_int_equal(kv_trace_writer_open(&w, dir, &info, items, N, &e), 0);
    assert_refused(dir, "is not a finished trace: it has no readable manifest.json");
    assert_int_equal(kv_trace_writer_close(w, false, &e), 0);
    assert_int_equal(access(shard, F_OK), -1); // nothing is left behind
    write_trace(KV_KEEP_FINAL);
    assert_int_equal(kv_trace_writer_open(&w, dir, &info, items, N, &e), KV_EFAIL);
    assert_string_equal(e.msg, "holds a trace already; remove it or choose another folder");
    unlink(manifest);
}

static void test_damage(void **state) {
    (void)state;
    char *bytes;
    size_t n;
    write_trace(KEPT);
    read_all(shard, &bytes, &n);
    for (size_t at = 8; at < n; at += n / 40) { // a bit anywhere, header or data
        bytes[at] ^= 0x10;
        write_all(shard, bytes, n);
        struct kv_trace *t;
        struct kv_error e = {0};
        assert_int_equal(kv_trace_open(&t, dir, &e), KV_EFAIL);
        assert_string_equal(e.where, shard);
        bytes[at] ^= 0x10;
    }
    bytes[n - 1] ^= 1;
    write_all(shard, bytes, n);
    assert_refused(shard, "is damaged: its XXH64 is ");
    bytes[n - 1] ^= 1;
    for (size_t keep = 0; keep < n; keep += 1 + n / 30) { // truncated anywhere
        write_all(shard, bytes, keep);
        struct kv_trace *t;
        struct kv_error e = {0};
        assert_int_equal(kv_trace_open(&t, dir, &e), KV_EFAIL);
    }
    unlink(shard);
    assert_refused(shard, "cannot be opened: No such file or directory");
    free(bytes);
    unlink(manifest);
}

static void test_lying_manifest(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *msg;
    } lies[] = {
        {"\"n_items\": 3", "\"n_items\": 4", "'ids, sources' is missing or not one a item"},
        {"\"n_items\": 3", "\"n_items\": -3", "'n_items' is missing or not a count"},
        {"\"items\": 3", "\"items\": 2",
         "tensor item.key has 3 rows; its items need another number"},
        {"\"items\": 3", "\"items\": 4", "'items' is missing or not a count"},
        {"\"items\": 3", "\"items\": 0", "tensor item.key has 3 rows"},
        {"\"n_layers\": 2", "\"n_layers\": 3", "has another type or shape than the model's"},
        {"\"n_layers\": 2", "\"n_layers\": 0", "'n_layers' is missing or not above zero"},
        {"\"head_dim\": 16", "\"head_dim\": 32", "has another type or shape than the model's"},
        {"\"version\": 1", "\"version\": 9", "has format version 9; this kvsim reads 1"},
        {"\"kvsim-trace\"", "\"other\"", "is not the manifest of a kvsim trace"},
        {"\"hf\"", "\"upside-down\"", "'channel_order' is missing or not ggml or hf"},
        {"\"file\": \"", "\"file\": \"../", "'shards.file' is missing or not a plain file name"},
        {"\"bytes\": ", "\"bytes\": 1", "the manifest says "},
        {"{", "{{", "is not JSON"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct kv_trace *t;
        struct kv_error e = {0};
        write_trace(KEPT);
        edit_manifest(lies[i].from, lies[i].to);
        assert_int_equal(kv_trace_open(&t, dir, &e), KV_EFAIL);
        if (!strstr(e.msg, lies[i].msg)) fail_msg("%s: said %s", lies[i].to, e.msg);
        unlink(manifest);
    }
}

// Boundaries, ids and rows that would lead later code out of its arrays, with right checksums.
static void test_hostile_items(void **state) {
    (void)state;
    for (int lie = 0; lie < 10; lie++) {
        make_items();
        switch (lie) {
        case 0:
            data[0].first[1] = 4;
            break; // an empty choice
        case 1:
            data[0].first[0] = 3;
            break; // choices that overlap the context
        case 2:
            data[0].first[3] = 12;
            break; // or end beyond the item
        case 3:
            data[1].ids[8] = 50;
            break; // an id beyond the vocabulary
        case 4:
            data[1].final_rows[2] = 9;
            break; // a row beyond the item
        case 5:
            data[1].final_rows[1] = 4;
            break; // a row that is not scored
        case 6:
            items[0].gold = 3;
            break; // the right choice is none
        case 7:
            items[1].n_context = 0;
            break; // no context
        case 8:
            items[2].n_final = ROWS;
            break; // the last row of a text predicts nothing
        default:
            items[0].n_final = 2;
            break; // a scored row is missing
        }
        write_trace(KV_KEEP_FINAL);
        seal_again();
        assert_refused(shard, "has impossible boundaries or token ids");
        unlink(manifest);
    }
    make_items();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"every column comes back as written, whatever is kept", test_round_trip, NULL, NULL, NULL},
        {"a folder without manifest is no trace, and a trace is not overwritten",
         test_finished_only, NULL, NULL, NULL},
        {"a flipped bit or a missing end anywhere in a shard is noticed", test_damage, NULL, NULL,
         NULL},
        {"a manifest whose counts lie is refused", test_lying_manifest, NULL, NULL, NULL},
        {"items with impossible boundaries are refused though their checksum is right",
         test_hostile_items, NULL, NULL, NULL},
    };
    return cmocka_run_group_tests_name("traces", tests, set_up, tear_down);
}
