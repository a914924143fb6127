// SPDX-License-Identifier: Apache-2.0
// Judges the benchmark loaders: prompts as the harness makes them, keys and labels, and every kind
// of broken file; with KVSIM_DATA set also the official files' counts.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>

#include "sim/base/assets.h"
#include "sim/base/files.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "traces/tasks.h"

#define FILE_NAME "tasks.jsonl"

// *state is the path of the file under test, in a folder of its own.
static int make_dir(void **state) {
    char *path = kv_alloc(96, 1);
    strcpy(path, "/tmp/kvsim-tasks-XXXXXX");
    if (!mkdtemp(path)) return -1;
    strcat(path, "/" FILE_NAME);
    *state = path;
    return 0;
}

static int remove_dir(void **state) {
    char *path = *state;
    unlink(path);
    path[strlen(path) - strlen("/" FILE_NAME)] = 0;
    int rc = rmdir(path);
    free(path);
    return rc;
}

static int load(void **state, struct kv_tasks **t, const char *before, const char *after,
                const char *text, struct kv_error *e) {
    assert_int_equal(kv_write_file(*state, text, strlen(text), e), 0);
    char *spec = kv_format_text("%s%s%s", before, (const char *)*state, after);
    memset(e, 0, sizeof *e);
    int rc = kv_tasks_load(t, spec, e);
    free(spec);
    return rc;
}

static struct kv_tasks *loaded(void **state, const char *before, const char *after,
                               const char *text) {
    struct kv_tasks *t;
    struct kv_error e;
    int rc = load(state, &t, before, after, text, &e);
    if (rc) fail_msg("%s: %s", e.where, e.msg);
    return t;
}

// where: what follows the path in the error's place.
static void refuses(void **state, const char *before, const char *text, const char *where,
                    const char *message) {
    struct kv_tasks *t;
    struct kv_error e;
    assert_int_equal(load(state, &t, before, "", text, &e), KV_EFAIL);
    assert_null(t);
    assert_string_equal(e.msg, message);
    char *expected = kv_format_text("%s%s", (const char *)*state, where);
    assert_string_equal(e.where, expected);
    free(expected);
}

// ---- HellaSwag ------------------------------------------------------------------------

#define HELLASWAG(label, a, b, e0, e1)                                                             \
    "{\"ind\": 7, \"activity_label\": \"" label "\", \"ctx_a\": \"" a "\", \"ctx_b\": \"" b        \
    "\", \"ctx\": \"" a " " b "\", \"label\": 1, \"endings\": [\"" e0 "\", \"" e1 "\"]}\n"

static void prompt_is(void **state, const char *line, const char *context, const char *second) {
    struct kv_tasks *t = loaded(state, "hellaswag:", "", line);
    assert_string_equal(t->items[0].context, context);
    assert_string_equal(t->items[0].choices[1], second);
    kv_tasks_free(t);
}

// Expected texts are what the harness's preprocess() and Python's capitalize() return.
static void hellaswag_prompts_are_the_harness_s(void **state) {
    prompt_is(state, HELLASWAG("Roof", "A man sits.", "he SLIPS", "a", "b"),
              "Roof: A man sits. He slips", "b");
    prompt_is(state,
              HELLASWAG("Health", "How to rest [title] Lie down. [step] Do it.", "", "a",
                        "[step] Sleep  well [substeps] now."),
              "Health: How to rest. Lie down. Do it.", " Sleep well now.");
    prompt_is(state,
              HELLASWAG("X", "a   b    c [open", "D] d [x\\n", "a", "\\u00a0 [one\\ntwo] x "),
              "X: a  b  c d [x", "[one\ntwo] x");
    prompt_is(state, HELLASWAG("Y", "A.", "\u00e9T\u00c9 \u0416 \u039b", "a", "\u00c9"),
              "Y: A. \u00c9t\u00e9 \u0436 \u03bb", "\u00c9");
    prompt_is(state, HELLASWAG("Y", "A.", "\u0436\u0416\u017d", "a", "b"),
              "Y: A. \u0416\u0436\u017e", "b");
    prompt_is(state, HELLASWAG("Y", "A.", "\u00df\u00f7\u00d7\u00ff", "a", "b"),
              "Y: A. \u00df\u00f7\u00d7\u00ff", "b");
}

static void hellaswag_text_is_taken_as_it_stands(void **state) {
    struct kv_tasks *t =
        loaded(state, "hellaswag:", ",prompt=text", HELLASWAG("R", "A [x].", "he", "a ", "[b] c"));
    assert_string_equal(t->prompt, "text");
    assert_string_equal(t->items[0].context, "R: A [x]. he");
    assert_string_equal(t->items[0].choices[0], "a ");
    assert_string_equal(t->items[0].choices[1], "[b] c");
    kv_tasks_free(t);
}

static void hellaswag_items_carry_id_gold_and_source(void **state) {
    const char text[] = HELLASWAG("R", "A.", "he", "a", "b") HELLASWAG(
        "R", "A.", "", "a",
        "b") "{\"activity_label\": \"R\", \"ctx_a\": \"A.\", \"ctx_b\": \"he\", \"label\": \"0\", "
             "\"source_id\": \"wikihow~12\", \"endings\": [\"a\", \"b\", \"c\"]}\n\n";
    struct kv_tasks *t = loaded(state, "", "", text);
    assert_int_equal(t->kind, KV_TASK_HELLASWAG);
    assert_string_equal(t->name, "hellaswag");
    assert_string_equal(t->prompt, "harness");
    assert_int_equal(t->n_items, 3);
    assert_string_equal(t->items[0].id, "7");
    assert_string_equal(t->items[2].id, "2"); // line number where there is no ind
    assert_int_equal(t->items[0].gold, 1);
    assert_int_equal(t->items[2].gold, 0);
    assert_int_equal(t->items[2].n_choices, 3);
    assert_string_equal(t->items[0].source, "activitynet");
    assert_string_equal(t->items[1].source, "wikihow");
    assert_string_equal(t->items[2].source, "wikihow");
    char digest[17];
    kv_hex64(kv_hash(text, strlen(text), 0), digest);
    assert_string_equal(t->digest, digest);
    kv_tasks_free(t);
}

static void a_gzipped_file_is_the_same_file(void **state) {
    const char text[] = HELLASWAG("R", "A.", "he", "a", "b");
    struct kv_tasks *plain = loaded(state, "", "", text), *packed;
    struct kv_error e;
    gzFile gz = gzopen(*state, "wb");
    assert_int_equal(gzwrite(gz, text, (unsigned)strlen(text)), strlen(text));
    gzclose(gz);
    assert_int_equal(kv_tasks_load(&packed, *state, &e), 0);
    assert_string_equal(packed->digest, plain->digest);
    assert_string_equal(packed->items[0].context, plain->items[0].context);
    kv_tasks_free(packed);
    kv_tasks_free(plain);
}

// ---- ARC, OpenBookQA, text ------------------------------------------------------------

#define QUESTION(id, key, l0, l1, l2)                                                              \
    "{\"id\": \"" id "\", \"question\": {\"stem\": \"Why?\", \"choices\": [{\"text\": \"x\", "     \
    "\"label\": \"" l0 "\"}, {\"text\": \"y\", \"label\": \"" l1 "\"}, {\"text\": \"z\", "         \
    "\"label\": \"" l2 "\"}]}, \"answerKey\": \"" key "\"}\n"

static void arc_keys_are_looked_up_among_the_item_s_own_labels(void **state) {
    struct kv_tasks *t =
        loaded(state, "", "",
               QUESTION("MCAS_1", "C", "A", "B", "C") QUESTION("MCAS_2", "2", "1", "2", "3"));
    assert_int_equal(t->kind, KV_TASK_ARC);
    assert_string_equal(t->prompt, "");
    assert_int_equal(t->items[0].gold, 2);
    assert_int_equal(t->items[1].gold, 1);
    assert_string_equal(t->items[1].id, "MCAS_2");
    assert_string_equal(t->items[0].context, "Question: Why?\nAnswer:");
    assert_string_equal(t->items[0].choices[2], "z");
    kv_tasks_free(t);
}

static void arcs_two_sets_are_told_by_the_names_of_their_files(void **state) {
    static const struct {
        const char *file, *name;
    } cases[] = {{"ARC-Easy-Test.jsonl", "arc_easy"},
                 {"arc_challenge_test.jsonl", "arc_challenge"},
                 {"questions.jsonl", "arc"}};
    const char *text = QUESTION("MCAS_1", "A", "A", "B", "C");
    char *dir = kv_strdup(*state);
    *strrchr(dir, '/') = '\0';
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = kv_format_text("%s/%s", dir, cases[i].file);
        struct kv_tasks *t;
        struct kv_error e = {0};
        assert_int_equal(kv_write_file(path, text, strlen(text), &e), 0);
        if (kv_tasks_load(&t, path, &e)) fail_msg("%s: %s", e.where, e.msg);
        assert_string_equal(t->name, cases[i].name);
        kv_tasks_free(t);
        unlink(path);
        free(path);
    }
    free(dir);
}

static void openbookqa_is_told_by_its_ids_and_asked_bare(void **state) {
    struct kv_tasks *t = loaded(state, "", "", QUESTION("8-343", "A", "A", "B", "C"));
    assert_int_equal(t->kind, KV_TASK_OPENBOOKQA);
    assert_string_equal(t->items[0].context, "Why?");
    kv_tasks_free(t);
    t = loaded(state, "arc:", "", QUESTION("8-343", "A", "A", "B", "C"));
    assert_int_equal(t->kind, KV_TASK_ARC);
    kv_tasks_free(t);
}

static void text_is_one_item_with_a_window(void **state) {
    struct kv_tasks *t = loaded(state, "text:", "", " = Caf\u00e9 = \n\nOne: two.\n");
    assert_int_equal(t->kind, KV_TASK_TEXT);
    assert_int_equal(t->n_items, 1);
    assert_int_equal(t->window_tokens, 512);
    assert_int_equal(t->items[0].gold, -1);
    assert_int_equal(t->items[0].n_choices, 0);
    assert_string_equal(t->items[0].context, " = Caf\u00e9 = \n\nOne: two.\n");
    kv_tasks_free(t);
    t = loaded(state, "text:", ",window=2048", "x");
    assert_int_equal(t->window_tokens, 2048);
    kv_tasks_free(t);
}

static void the_samples_travel_in_the_program(void **state) {
    (void)state;
    if (!kv_asset_find("traces/samples/sentences.jsonl")) skip();
    struct kv_tasks *t;
    struct kv_error e;
    assert_int_equal(kv_tasks_load(&t, "samples", &e), 0);
    assert_int_equal(t->kind, KV_TASK_HELLASWAG);
    assert_string_equal(t->path, "samples");
    assert_true(t->n_items >= 120);
    kv_tasks_free(t);
    assert_int_equal(kv_tasks_load(&t, "samples,prompt=text", &e), 0);
    assert_string_equal(t->prompt, "text");
    kv_tasks_free(t);
    assert_int_equal(kv_tasks_load(&t, "samples-text,window=64", &e), 0);
    assert_int_equal(t->kind, KV_TASK_TEXT);
    assert_int_equal(t->window_tokens, 64);
    kv_tasks_free(t);
}

// ---- refusals -------------------------------------------------------------------------

static void broken_files_are_refused_with_their_line(void **state) {
    refuses(state, "", "", "", "there are no items: it is empty");
    refuses(state, "hellaswag:", "\n \n", "", "there are no items");
    refuses(state, "text:", " \n\n", "", "there are no items: it is empty");
    refuses(state, "text:", "one\ntwo\xFF\n", ": line 2", "byte 7 of the text (0xff) is not UTF-8");
    refuses(state, "", "hello\n", ": line 1",
            "this is not JSON: '[' or '{' expected near 'hello' at byte 5");
    refuses(state, "", "\n{\"a\": 1}\n", "",
            "this is not recognized: its first line has neither \"endings\" nor \"question\" or "
            "\"question_stem\" with \"choices\"; say hellaswag:, arc:, openbookqa:, gsm8k: or "
            "text: before "
            "the path");
    refuses(state, "hellaswag:", HELLASWAG("R", "A.", "he", "a", "b") "\n{\"ind\": \n", ": line 3",
            "this is not JSON: unexpected token near end of file at byte 8");
    refuses(state, "hellaswag:", "[1]\n", ": item 1", "a JSON object was expected");
    refuses(state, "hellaswag:", "{\"activity_label\": \"\xFF\"}\n", ": line 1",
            "this is not JSON: unable to decode byte 0xff near '\"' at byte 20");
    refuses(state, "hellaswag:", "{\"activity_label\": \"R\", \"ctx_a\": 3}", ": line 1",
            "the field \"ctx_a\" is not a text");
    refuses(state, "hellaswag:", "{\"activity_label\": \"R\", \"ctx_a\": \"A.\"}", ": line 1",
            "the field \"ctx_b\" is missing");
    refuses(state, "hellaswag:",
            "{\"activity_label\": \"R\", \"ctx_a\": \"A.\", \"ctx_b\": \"\", \"endings\": [\"a\"]}",
            ": line 1", "\"endings\" has 1 entries; 2 to 16 are read");
    refuses(state, "hellaswag:",
            "{\"activity_label\": \"R\", \"ctx_a\": \"A.\", \"ctx_b\": \"\", \"endings\": "
            "[\"a\", \"b\"], \"label\": 2}",
            ": line 1", "\"label\" is none of the endings 0 to 1");
    refuses(state, "hellaswag:",
            "{\"activity_label\": \"R\", \"ctx_a\": \"A.\", \"ctx_b\": \"\", \"endings\": "
            "[\"a\", \"b\"]}",
            ": line 1", "the field \"label\" is missing");
    refuses(state, "hellaswag:", HELLASWAG("R", "A.", "he", "a", "[step] "), ": line 1",
            "choice 1 is empty");
}

static void bad_questions_are_refused_with_their_line(void **state) {
    refuses(state, "arc:", QUESTION("MCAS_1", "A", "A", "B", "C") QUESTION("a", "D", "A", "B", "C"),
            ": line 2", "answerKey \"D\" is none of the labels A, B, C");
    refuses(state, "arc:", "{\"id\": \"a\"}", ": line 1", "the field \"question\" is missing");
    refuses(state, "arc:", "{\"question\": {\"stem\": \" \"}}", ": line 1", "the stem is empty");
    refuses(state, "arc:", "{\"question\": {\"stem\": \"Why?\"}}", ": line 1",
            "the field \"choices\" is missing or no list");
    refuses(state, "openbookqa:",
            "{\"question\": {\"stem\": \"Why?\", \"choices\": [{\"text\": \"x\", \"label\": \"A\"},"
            " {\"text\": \"\", \"label\": \"B\"}]}, \"answerKey\": \"A\"}",
            ": line 1", "choice 1 is empty");
    refuses(state, "openbookqa:",
            "{\"question\": {\"stem\": \"Why?\", \"choices\": [{\"text\": \"x\", \"label\": \"A\"},"
            " {\"text\": \"y\"}]}, \"answerKey\": \"A\"}",
            ": line 1", "the field \"label\" is missing");
}

static void wrong_specs_are_wrong_usage(void **state) {
    struct kv_tasks *t;
    struct kv_error e;
    const struct {
        const char *before, *after, *message;
    } cases[] = {
        {"hellaswag:", ",promt=text", "unknown key 'promt'; did you mean 'prompt'?"},
        {"hellaswag:", ",prompt=raw", "prompt=raw: prompt must be one of harness/text"},
        {"text:", ",window=63", "window=63: window must be a whole number from 64 to 999999"},
        {"text:", ",score=1/0", "score=1/0: 1 or 1/N with N from 1 to 9999 is expected"},
        {"text:", ",score=0.5", "score=0.5: 1 or 1/N with N from 1 to 9999 is expected"},
        {"text:", ",window", "'window' is no key=value; a path may not hold a comma"},
        {"arc:", ",prompt=text", "unknown key 'prompt'; it has none"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(load(state, &t, cases[i].before, cases[i].after, "x", &e), KV_EUSAGE);
        assert_string_equal(e.msg, cases[i].message);
    }
    assert_int_equal(kv_tasks_load(&t, "helaswag:x.jsonl", &e), KV_EUSAGE);
    assert_string_equal(e.msg, "unknown kind 'helaswag'; did you mean 'hellaswag'?");
    assert_int_equal(kv_tasks_load(&t, "no/such.jsonl", &e), KV_EFAIL);
    assert_string_equal(e.where, "no/such.jsonl");
}

// ---- official files -------------------------------------------------------------------

// ---- issue 13 -------------------------------------------------------------------------

static void same_items(const struct kv_tasks *a, const struct kv_tasks *b) {
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->n_items, b->n_items);
    for (size_t i = 0; i < a->n_items; i++) {
        const struct kv_task_item *x = &a->items[i], *y = &b->items[i];
        assert_string_equal(x->id, y->id);
        assert_string_equal(x->context, y->context);
        assert_int_equal(x->gold, y->gold);
        assert_int_equal(x->n_choices, y->n_choices);
        for (size_t k = 0; k < x->n_choices; k++) assert_string_equal(x->choices[k], y->choices[k]);
    }
}

#define OFFICIAL(id, stem, key)                                                                    \
    "{\"id\": \"" id "\", \"question\": {\"stem\": \"" stem "\", \"choices\": ["                   \
    "{\"text\": \"red\", \"label\": \"1\"}, {\"text\": \"blue\", \"label\": \"2\"}]}, "            \
    "\"answerKey\": \"" key "\"}\n"
#define HUB(id, name, stem, labels, key)                                                           \
    "{\"id\": \"" id "\", \"" name "\": \"" stem                                                   \
    "\", \"choices\": {\"text\": [\"red\", \"blue\"], "                                            \
    "\"label\": " labels "}, \"answerKey\": " key "}\n"

static void issue_13_d1_the_hub_s_exports_are_the_official_items(void **state) {
    const char *const labels[] = {"[\"1\", \"2\"]", "[1, 2]"};
    struct kv_tasks *arc = loaded(state, "", "", OFFICIAL("Q_9", "Which?", "2"));
    struct kv_tasks *book = loaded(state, "openbookqa:", "", OFFICIAL("77", "Which?", "2"));
    for (int i = 0; i < 2; i++) {
        char *text = kv_format_text(HUB("Q_9", "question", "Which?", "%s", "%s"), labels[i],
                                    i ? "2" : "\"2\"");
        struct kv_tasks *t = loaded(state, "", "", text);
        same_items(arc, t);
        kv_tasks_free(t);
        free(text);
        text =
            kv_format_text("[" HUB("77", "question_stem", "Which?", "%s", "\"2\"") "]", labels[i]);
        t = loaded(state, "", "", text);
        same_items(book, t);
        kv_tasks_free(t);
        free(text);
    }
    kv_tasks_free(arc);
    kv_tasks_free(book);
    refuses(state, "", HUB("Q_9", "question", "Which?", "[\"A\"]", "\"A\""), ": line 1",
            "\"choices.label\" has 1 entries; 2 to 16 are read");
    refuses(state, "", HUB("Q_9", "question", "Which?", "[\"A\", \"B\"]", "\"\""), ": line 1",
            "answerKey is empty: this set's answers are not published");
}

// The hub's form of an official line; OpenBookQA's question is called question_stem there.
static void add_as_hub(struct kv_text *out, const char *line, size_t n, const char *name) {
    json_t *root = json_loadb(line, n, 0, NULL), *texts = json_array(), *labels = json_array(),
           *one;
    json_t *question = json_object_get(root, "question");
    size_t i;
    json_array_foreach(json_object_get(question, "choices"), i, one) {
        json_array_append(texts, json_object_get(one, "text"));
        json_array_append(labels, json_object_get(one, "label"));
    }
    json_t *hub = json_pack("{s:O, s:O, s:{s:o, s:o}, s:O}", "id", json_object_get(root, "id"),
                            name, json_object_get(question, "stem"), "choices", "text", texts,
                            "label", labels, "answerKey", json_object_get(root, "answerKey"));
    char *text = json_dumps(hub, 0);
    kv_text_addf(out, "%s\n", text);
    free(text);
    json_decref(hub);
    json_decref(root);
}

static void issue_13_d1_official_files_in_the_hub_s_form_are_the_same_items(void **state) {
    const char *dir = getenv("KVSIM_DATA");
    if (!dir || !*dir) skip();
    const char *const files[][2] = {{"openbookqa_test.jsonl", "question_stem"},
                                    {"arc_easy_test.jsonl", "question"},
                                    {"arc_challenge_dev.jsonl", "question"}};
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        char *path = kv_format_text("%s/%s", dir, files[f][0]), *text;
        struct kv_tasks *official;
        struct kv_text hub = {0};
        struct kv_error e;
        size_t n;
        assert_int_equal(kv_tasks_load(&official, path, &e), 0);
        assert_int_equal(kv_read_file(path, &text, &n, &e), 0);
        for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
            add_as_hub(&hub, line, strlen(line), files[f][1]);
        struct kv_tasks *t = loaded(state, "", "", hub.s);
        same_items(official, t);
        kv_tasks_free(t);
        kv_tasks_free(official);
        free(hub.s);
        free(text);
        free(path);
    }
}

static void issue_13_d2_marks_and_arrays_are_read_and_other_encodings_named(void **state) {
    const char one[] = HELLASWAG("R", "A.", "he", "a", "b"), mark[] = "\xEF\xBB\xBF";
    char marked[1024], array[1024];
    snprintf(marked, sizeof marked, "%s%s%s%s", mark, one, mark, one);
    snprintf(array, sizeof array, "%s[%s,\n%s]", mark, one, one);
    struct kv_tasks *t = loaded(state, "", "", marked), *u = loaded(state, "", "", array);
    assert_int_equal(t->n_items, 2);
    same_items(t, u);
    kv_tasks_free(t);
    kv_tasks_free(u);
    refuses(
        state, "", "\xFF\xFE{", "",
        "the text is UTF-16 or UTF-32, not UTF-8: convert it, for instance with `iconv -f UTF-16 "
        "-t UTF-8`");
    refuses(state, "", "[]", "", "there are no items: the array is empty");
    refuses(state, "", "[{\"endings\": []}, 3]", ": item 1",
            "the field \"activity_label\" is missing");
    refuses(state, "", "{\"endings\": \"\\ud83d\"}", ": line 1",
            "this is not JSON: invalid Unicode '\\uD83D' near '\"\\ud83d\"' at byte 20");
    refuses(state, "", "version https://git-lfs.github.com/spec/v1\n", "",
            "this is no benchmark file: it is a Git LFS pointer, which stands for the file itself; "
            "`git lfs pull` fetches that");
    refuses(state, "", "<!DOCTYPE html><p>", "",
            "this is no benchmark file: it is an HTML page, as a download leaves that asked for a "
            "login or failed");
}

static void issue_13_c9_a_file_that_unpacks_without_end_is_refused(void **state) {
    struct kv_tasks *t;
    struct kv_error e;
    char *blank = kv_alloc(1 << 20, 1);
    memset(blank, '\n', 1 << 20);
    gzFile gz = gzopen(*state, "wb9");
    for (int i = 0; i < 80; i++) assert_int_equal(gzwrite(gz, blank, 1 << 20), 1 << 20);
    gzclose(gz);
    free(blank);
    assert_int_equal(kv_tasks_load(&t, *state, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "unpack to more than 64 MB, more than 64 times as much"));
}

static void official_files_have_the_published_counts(void **state) {
    (void)state;
    const char *dir = getenv("KVSIM_DATA");
    if (!dir || !*dir) { // make sets it to nothing where no files were found
        print_message("# KVSIM_DATA is not set: the official files are not read\n");
        skip();
    }
    const struct {
        const char *file;
        size_t n, gold[5];
    } cases[] = {
        {"hellaswag_val.jsonl.gz", 10042, {2515, 2485, 2584, 2458, 0}},
        {"openbookqa_test.jsonl", 500, {138, 126, 132, 104, 0}},
        {"openbookqa_train.jsonl", 4957, {1378, 1212, 1146, 1221, 0}},
        {"arc_challenge_test.jsonl", 1172, {266, 311, 310, 285, 0}},
        {"arc_challenge_dev.jsonl", 299, {64, 73, 78, 83, 1}},
        {"arc_easy_test.jsonl", 2376, {596, 585, 633, 561, 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = kv_format_text("%s/%s", dir, cases[i].file);
        struct kv_tasks *t;
        struct kv_error e;
        size_t gold[5] = {0};
        assert_int_equal(kv_tasks_load(&t, path, &e), 0);
        assert_int_equal(t->n_items, cases[i].n);
        for (size_t k = 0; k < t->n_items; k++) gold[t->items[k].gold]++;
        assert_memory_equal(gold, cases[i].gold, sizeof gold);
        kv_tasks_free(t);
        free(path);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hellaswag_prompts_are_the_harness_s),
        cmocka_unit_test(hellaswag_text_is_taken_as_it_stands),
        cmocka_unit_test(hellaswag_items_carry_id_gold_and_source),
        cmocka_unit_test(a_gzipped_file_is_the_same_file),
        cmocka_unit_test(arc_keys_are_looked_up_among_the_item_s_own_labels),
        cmocka_unit_test(arcs_two_sets_are_told_by_the_names_of_their_files),
        cmocka_unit_test(openbookqa_is_told_by_its_ids_and_asked_bare),
        cmocka_unit_test(text_is_one_item_with_a_window),
        cmocka_unit_test(the_samples_travel_in_the_program),
        cmocka_unit_test(broken_files_are_refused_with_their_line),
        cmocka_unit_test(bad_questions_are_refused_with_their_line),
        cmocka_unit_test(wrong_specs_are_wrong_usage),
        cmocka_unit_test(official_files_have_the_published_counts),
        cmocka_unit_test(issue_13_d1_the_hub_s_exports_are_the_official_items),
        cmocka_unit_test(issue_13_d1_official_files_in_the_hub_s_form_are_the_same_items),
        cmocka_unit_test(issue_13_d2_marks_and_arrays_are_read_and_other_encodings_named),
        cmocka_unit_test(issue_13_c9_a_file_that_unpacks_without_end_is_refused),
    };
    return cmocka_run_group_tests_name("tasks", tests, make_dir, remove_dir);
}
