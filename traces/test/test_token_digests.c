// SPDX-License-Identifier: Apache-2.0
// Ids of whole benchmark files against other programs (sim/test/reference/make_token_digests.py):
// the tokenizers library for SmolLM2 and Qwen2.5, sentencepiece for Gemma 3. A model or data set
// that is not there is said and skipped.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>

#include "sim/base/memory.h"
#include "sim/model/gguf.h"
#include "sim/model/model.h"
#include "traces/tasks.h"

#define REFERENCE "sim/test/reference/token_digests.json"

// The ids of text after text, in the reference's form.
struct digest {
    const struct kv_model *m;
    uint32_t *ids;
    uint64_t n_ids;
    uLong crc;
};

static void add_number(struct digest *d, uint32_t x) {
    const uint8_t bytes[4] = {(uint8_t)x, (uint8_t)(x >> 8), (uint8_t)(x >> 16),
                              (uint8_t)(x >> 24)};
    d->crc = crc32(d->crc, bytes, 4);
}

static void add_text(struct digest *d, const char *text, size_t n_text) {
    size_t n;
    struct kv_error e;
    if (kv_tokenizer_encode(d->m->tokenizer, text, n_text, &d->ids, &n, &e)) fail_msg("%s", e.msg);
    add_number(d, (uint32_t)n);
    for (size_t i = 0; i < n; i++) add_number(d, d->ids[i]);
    d->n_ids += n;
}

static void add_tasks(struct digest *d, const char *spec) {
    struct kv_tasks *tasks;
    struct kv_error e;
    if (kv_tasks_load(&tasks, spec, &e)) fail_msg("%s: %s", e.where, e.msg);
    for (size_t i = 0; i < tasks->n_items; i++) {
        const struct kv_task_item *item = &tasks->items[i];
        add_text(d, item->context, strlen(item->context));
        for (size_t c = 0; c < item->n_choices; c++) {
            char *whole = kv_format_text("%s %s", item->context, item->choices[c]);
            add_text(d, whole, strlen(whole));
            free(whole);
        }
    }
    kv_tasks_free(tasks);
}

static void add_odd(struct digest *d, const json_t *texts) {
    size_t i;
    json_t *text;
    assert_true(json_array_size(texts) > 300);
    json_array_foreach(texts, i, text)
        add_text(d, json_string_value(text), json_string_length(text));
}

static void compare(const struct digest *d, const char *model, const char *file,
                    const json_t *expected) {
    uint64_t n = (uint64_t)json_integer_value(json_object_get(expected, "ids"));
    uLong crc = (uLong)json_integer_value(json_object_get(expected, "crc32"));
    if (d->n_ids != n || d->crc != crc)
        fail_msg("%s, %s: %llu ids with CRC %lu, not %llu with %lu", model, file,
                 (unsigned long long)d->n_ids, d->crc, (unsigned long long)n, crc);
}

// The task of a file of the reference; NULL for odd texts.
static char *spec_of(const char *file, const char *data) {
    const char *kind = strncmp(file, "arc", 3) == 0     ? "arc"
                       : strncmp(file, "hella", 5) == 0 ? "hellaswag"
                                                        : "text";
    return strcmp(file, "odd") == 0 ? NULL : kv_format_text("%s:%s/%s", kind, data, file);
}

static void check_model(const char *name, json_t *files, const json_t *odd) {
    char *path = kv_format_text("data/%s", name);
    const char *data = getenv("KVSIM_DATA"), *file;
    struct kv_gguf g = {.path = path};
    struct kv_model m = {.shape.vocab = 262144}; // most of the three; ids of BOS lie below
    struct kv_error e;
    json_t *expected;
    if (kv_gguf_open(&g, &e) || kv_gguf_tokenizer(&m, &g, &e)) fail_msg("%s: %s", e.where, e.msg);
    json_object_foreach(files, file, expected) {
        struct digest d = {.m = &m};
        char *spec = spec_of(file, data ? data : "");
        if (spec && data) add_tasks(&d, spec);
        if (!spec) add_odd(&d, odd);
        if (data || !spec) compare(&d, name, file, expected);
        free(spec);
        free(d.ids);
    }
    kv_tokenizer_free(m.tokenizer);
    kv_gguf_close(&g);
    free(path);
}

static void all_ids_of_benchmarks_and_odd_texts_are_those_of_other_programs(void **state) {
    (void)state;
    json_t *root = json_load_file(REFERENCE, 0, NULL), *files;
    const char *name;
    size_t there = 0;
    if (!getenv("KVSIM_DATA")) print_message("KVSIM_DATA names no data sets: odd texts alone\n");
    assert_int_equal(json_object_size(json_object_get(root, "models")), 3);
    json_object_foreach(json_object_get(root, "models"), name, files) {
        char *path = kv_format_text("data/%s", name);
        if (access(path, R_OK) == 0) {
            check_model(name, files, json_object_get(root, "odd"));
            there++;
        } else {
            print_message("no model at %s: `make models` fetches it\n", path);
        }
        free(path);
    }
    json_decref(root);
    if (!there) skip();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_ids_of_benchmarks_and_odd_texts_are_those_of_other_programs),
    };
    return cmocka_run_group_tests_name("token_digests", tests, NULL, NULL);
}
