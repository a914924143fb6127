// SPDX-License-Identifier: Apache-2.0
// Qwen2.5 and Gemma 3 as people have them, judged by figures of independent programs
// (sim/test/reference/README.md). `make models` fetches them; without them all is skipped.
#include <zlib.h>

#include "sim/model/test/line_scores.h"
#include "sim/replay/test/agreement.h"

enum { TEXT_TOKENS = 1024 };

static const struct rule rules[] = {{"float32", "none", 0, 0},
                                    {"asym4_g32", "static:bits=4@asym:group=32", 0.45, 4}};
enum { N_RULES = sizeof rules / sizeof *rules };

static const struct family {
    const char *file, *name, *samples;
    bool slides;         // has a window that is shorter than the text
    const char *weights; // of policy cells, that travel with kvsim
} families[] = {
    {"qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "qwen2.5-coder-0.5b",
     "sim/test/reference/samples-qwen2.5-coder-0.5b.json", false,
     "weights=shipped/qwen2.5-coder-0.5b-instruct,"},
    {"gemma-3-270m-q4_k_m.gguf", "gemma3-270m", "sim/test/reference/samples-gemma-3-270m.json",
     true, "weights=shipped/gemma-3-270m,"},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

struct fixture {
    const struct family *family;
    struct kv_model *model;
    json_t *facts, *samples;
    char *hellaswag, *wikitext; // NULL where the files are not there
};

// ---- HellaSwag ------------------------------------------------------------------------

// Every choice's whole sequence is of so many tokens and has the CRC-32 that the list says.
static void same_checksums(const struct kv_trace *t, const json_t *items) {
    for (size_t i = 0; i < json_array_size(items); i++) {
        const struct kv_trace_item *it = kv_trace_item(t, i);
        const json_t *one = json_array_get(items, i);
        for (uint32_t c = 0; c < it->n_choices; c++) {
            uint32_t n = it->first[c + 1] - it->first[c];
            uLong crc = crc32(0, (const Bytef *)it->ids, it->n_context * 4);
            crc = crc32(crc, (const Bytef *)(it->ids + it->first[c]), n * 4);
            assert_int_equal(n,
                             json_integer_value(json_array_get(json_object_get(one, "tokens"), c)));
            assert_int_equal(crc,
                             json_integer_value(json_array_get(json_object_get(one, "crc32"), c)));
        }
    }
}

static void
thirty_items_of_hellaswag_have_the_ids_and_log_probs_of_the_other_program(void **state) {
    const struct fixture *f = *state;
    if (!f->model || !f->hellaswag) skip();
    json_t *items = in_file_order(json_object_get(f->facts, "items"), light_testing() ? 10 : 1);
    struct recording r;
    record_listed(&r, f->model, f->hellaswag, items);
    same_checksums(r.trace, items);
    size_t n_rules = light_testing() ? 1 : N_RULES;
    struct outcomes all = replay_rules(&r, f->model, rules, n_rules);
    struct pairs p = {rules, n_rules, json_array_size(items), items, &all};
    print_message("# %s: float32 to %.5f\n", f->family->name, same_float32(&p, 1e-3));
    if (n_rules > 1) same_distribution(&p, 1, 0.20);
    free_outcomes(&all);
    remove_recording(&r);
    json_decref(items);
}

static void the_samples_have_the_ids_and_log_probs_of_transformers(void **state) {
    const struct fixture *f = *state;
    if (!f->model) skip();
    json_t *items = in_file_order(json_object_get(f->samples, "items"), light_testing() ? 6 : 1);
    struct recording r;
    record_listed(&r, f->model, "samples", items);
    same_tokens(r.trace, items);
    struct outcomes all = replay_rules(&r, f->model, rules, 1);
    struct pairs p = {rules, 1, json_array_size(items), items, &all};
    print_message("# %s: float32 to %.5f\n", f->family->name, same_float32(&p, 1e-3));
    free_outcomes(&all);
    remove_recording(&r);
    json_decref(items);
}

// ---- texts ----------------------------------------------------------------------------

// Ids of a file's beginning, BOS before them where the model has one; *n is cut to the most.
static uint32_t *read_ids(const struct kv_model *m, const char *path, size_t most, size_t *n) {
    struct kv_error e;
    uint32_t *ids = NULL;
    char *text;
    size_t n_bytes;
    must(kv_read_file(path, &text, &n_bytes, &e), &e);
    must(kv_tokenizer_encode(m->tokenizer, text, n_bytes, &ids, n, &e), &e);
    free(text);
    assert_true(*n >= most);
    *n = most;
    if (m->add_bos) {
        ids = kv_grow(ids, ++*n, sizeof *ids);
        memmove(ids + 1, ids, most * sizeof *ids);
        ids[0] = m->bos;
    }
    return ids;
}

// Sum of the log-probs of the text's tokens but the first, after what is before each.
static double score_text(const struct kv_model *m, const uint32_t *ids, size_t n, double *each) {
    struct kv_error e;
    double sum = 0;
    must(score_line(m, ids, (uint32_t)n, each, &e), &e);
    for (size_t i = m->add_bos; i + 1 < n; i++) sum += each[i];
    return sum;
}

static void a_text_longer_than_the_window_scores_as_transformers_says(void **state) {
    const struct fixture *f = *state;
    if (!f->model) skip();
    const json_t *text = json_object_get(f->samples, "text");
    const json_t *theirs = json_object_get(text, "logprob");
    size_t most = json_array_size(theirs) + 1, n;
    double *each = kv_alloc(most, sizeof *each), off = 0;
    uint32_t *ids = read_ids(f->model, "traces/samples/text.txt", most, &n);
    check_ids(json_object_get(text, "ids"), ids, n);
    score_text(f->model, ids, n, each);
    for (size_t i = 0; i + 1 < most; i++) {
        double x = json_number_value(json_array_get(theirs, i));
        off = fmax(off, fabs(each[i + f->model->add_bos] - x));
    }
    print_message("# %s: a token to %.6f\n", f->family->name, off);
    assert_true(off <= 5e-4);
    free(each);
    free(ids);
}

static void a_text_of_1024_tokens_scores_as_the_other_program_says(void **state) {
    struct fixture *f = *state;
    if (!f->model || !f->wikitext) skip();
    const json_t *facts = json_object_get(f->facts, "wikitext");
    double theirs = json_number_value(json_object_get(facts, "float32"));
    double *each = kv_alloc(TEXT_TOKENS, sizeof *each);
    size_t n;
    uint32_t *ids = read_ids(f->model, f->wikitext, TEXT_TOKENS, &n);
    assert_int_equal(crc32(0, (const Bytef *)ids, (uInt)(n * sizeof *ids)),
                     json_integer_value(json_object_get(facts, "crc32")));
    double ours = score_text(f->model, ids, n, each);
    print_message("# %s: %.4f, theirs %.4f\n", f->family->name, ours, theirs);
    assert_true(fabs(ours - theirs) <= 2e-2);
    if (f->family->slides) { // and would not without the window
        uint32_t windows[64];
        assert_true(f->model->n_layers <= 64);
        for (size_t i = 0; i < f->model->n_layers; i++) {
            windows[i] = f->model->layers[i].window;
            f->model->layers[i].window = 0;
        }
        double wide = score_text(f->model, ids, n, each);
        print_message("# %s without its window: %.4f\n", f->family->name, wide);
        assert_true(fabs(wide - theirs) > 0.1);
        for (size_t i = 0; i < f->model->n_layers; i++) f->model->layers[i].window = windows[i];
    }
    free(each);
    free(ids);
}

static void weights_of_cells_that_travel_are_of_this_file(void **state) {
    const struct fixture *f = *state;
    if (!f->model) skip();
    struct kv_format_setting setting = {.shape = f->model->shape, .order = f->model->order};
    struct kv_replay_spec spec;
    struct kv_error e;
    must(kv_replay_spec_open(&spec, "cells:bits=5@asym:group=32", &setting, 1, &e), &e);
    assert_non_null(strstr(spec.canonical, f->family->weights));
    struct kv_fitting fit = {.struct_bytes = sizeof fit,
                             .run = &spec.run,
                             .model_name = f->family->name,
                             .model_digest = f->model->digest};
    must(spec.policy->fit(spec.self, &fit, &e), &e);
    kv_replay_spec_close(&spec);
}

// ---- the families ---------------------------------------------------------------------

static const struct family *next_family;

// The models lie beside the one that MODEL names.
static char *path_of(const char *file) {
    const char *model = getenv("MODEL"), *slash = model ? strrchr(model, '/') : NULL;
    return slash ? kv_format_text("%.*s/%s", (int)(slash - model), model, file)
                 : kv_format_text("data/%s", file);
}

static char *there(char *path, const char *prefix, const char *suffix) {
    char *spec = access(path, R_OK) == 0 ? kv_format_text("%s%s%s", prefix, path, suffix) : NULL;
    free(path);
    return spec;
}

static int set_up(void **state) {
    struct fixture *f = kv_alloc(1, sizeof *f);
    const char *data = getenv("KVSIM_DATA");
    struct kv_error e;
    *state = f;
    f->family = next_family;
    kv_set_verbosity(-1);
    json_t *all = load_json("sim/test/reference/families.json");
    f->facts = json_incref(json_object_get(all, f->family->name));
    json_decref(all);
    f->samples = load_json(f->family->samples);
    if (!f->facts || !f->samples) return -1;
    if (data && *data) {
        f->hellaswag = there(kv_format_text("%s/hellaswag_val.jsonl.gz", data), "hellaswag:", "");
        f->wikitext = there(kv_format_text("%s/wikitext2_test.raw.txt", data), "", "");
    }
    char *path = path_of(f->family->file);
    if (access(path, R_OK) != 0)
        print_message("# no %s: `make models` fetches it\n", path);
    else if (kv_model_open(&f->model, path, KV_WEIGHTS_F32, &e))
        print_message("# %s: %s\n", e.where, e.msg);
    bool failed = access(path, R_OK) == 0 && !f->model;
    free(path);
    return failed ? -1 : 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    kv_model_close(f->model);
    json_decref(f->facts);
    json_decref(f->samples);
    free(f->hellaswag);
    free(f->wikitext);
    free(f);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_samples_have_the_ids_and_log_probs_of_transformers),
        cmocka_unit_test(a_text_longer_than_the_window_scores_as_transformers_says),
        cmocka_unit_test(thirty_items_of_hellaswag_have_the_ids_and_log_probs_of_the_other_program),
        cmocka_unit_test(a_text_of_1024_tokens_scores_as_the_other_program_says),
        cmocka_unit_test(weights_of_cells_that_travel_are_of_this_file),
    };
    int failed = 0;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        next_family = &families[i];
        failed += cmocka_run_group_tests_name(next_family->name, tests, set_up, tear_down);
    }
    return failed;
}
