// SPDX-License-Identifier: Apache-2.0
// Each architecture, and each way to write its config.json, judged by `transformers` on small
// models of random weights: sim/test/reference/make_small_models.py says what they are.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sim/model/test/line_scores.h"
#include "sim/model/test/model_files.h"

// Both sides compute in float32; the largest difference of a token seen is 1.4e-5.
static const double tolerance = 1e-4;

enum { MAX_TENSORS = 128, MAX_IDS = 64, MAX_FILES = 3 };

struct folder {
    char dir[40];
    const json_t *model; // borrowed from the list
    struct kv_tensor tensors[MAX_TENSORS];
    double mean[MAX_TENSORS], half_width[MAX_TENSORS];
    size_t n;
};

static const json_t *member(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!value) fail_msg("a model of small-models.json has no %s", key);
    return value;
}

static long long integer(const json_t *object, const char *key) {
    return json_integer_value(member(object, key));
}

// A row: [name, [dims], mean, half-width of the uniform draw].
static void add_tensor(struct folder *f, const char *prefix, const json_t *row) {
    struct kv_tensor *t = &f->tensors[f->n];
    const json_t *dims = json_array_get(row, 1);
    assert_true(f->n < MAX_TENSORS);
    snprintf(t->name, sizeof t->name, "%s%s", prefix, json_string_value(json_array_get(row, 0)));
    snprintf(t->dtype, sizeof t->dtype, "%s", json_string_value(member(f->model, "dtype")));
    for (t->n_dims = 0; t->n_dims < json_array_size(dims); t->n_dims++)
        t->dims[t->n_dims] = (uint64_t)json_integer_value(json_array_get(dims, t->n_dims));
    f->mean[f->n] = json_number_value(json_array_get(row, 2));
    f->half_width[f->n++] = json_number_value(json_array_get(row, 3));
}

static void list_tensors(struct folder *f) {
    const json_t *of_model = member(f->model, "tensors"),
                 *of_layer = member(f->model, "layer_tensors"), *row;
    size_t i;
    json_array_foreach(of_model, i, row) add_tensor(f, "", row);
    for (long long layer = 0; layer < integer(member(f->model, "config"), "num_hidden_layers");
         layer++) {
        char prefix[40];
        snprintf(prefix, sizeof prefix, "model.layers.%lld.", layer);
        json_array_foreach(of_layer, i, row) add_tensor(f, prefix, row);
    }
}

static void draw_tensor(const struct folder *f, size_t number, uint8_t *to) {
    const struct kv_tensor *t = &f->tensors[number];
    uint64_t seed = (uint64_t)integer(f->model, "seed");
    size_t n = t->n_bytes / kv_dtype_bytes(t->dtype);
    float *x = kv_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] =
            (float)(f->mean[number] + f->half_width[number] * (2 * kv_draw(seed, number, i) - 1));
    if (strcmp(t->dtype, "BF16") == 0)
        encode_bf16(x, n, to);
    else
        memcpy(to, x, n * sizeof *x);
    free(x);
}

static void write_shard(struct folder *f, const char *name, size_t begin, size_t end) {
    struct kv_error e;
    char *header;
    size_t header_bytes;
    uint64_t total;
    assert_int_equal(0, kv_safetensors_layout(f->tensors + begin, end - begin, NULL, 0, &header,
                                              &header_bytes, &total, &e));
    uint8_t *file = kv_alloc(total, 1);
    memcpy(file, header, header_bytes);
    for (size_t i = begin; i < end; i++) draw_tensor(f, i, file + f->tensors[i].offset);
    assert_int_equal(0, write_file_in(f->dir, name, file, total));
    free(file);
    free(header);
}

static void write_json(const struct folder *f, const char *name, const json_t *root) {
    char *text = json_dumps(root, JSON_REAL_PRECISION(17));
    assert_int_equal(0, write_file_in(f->dir, name, text, strlen(text)));
    free(text);
}

static void name_shard(char *name, size_t size, size_t i, size_t n) {
    if (n == 1)
        snprintf(name, size, "model.safetensors");
    else
        snprintf(name, size, "model-%05zu-of-%05zu.safetensors", i + 1, n);
}

static void write_weights(struct folder *f) {
    size_t n_files = (size_t)integer(f->model, "files");
    json_t *where = json_object();
    for (size_t i = 0; i < n_files; i++) {
        char name[64];
        size_t begin = i * f->n / n_files, end = (i + 1) * f->n / n_files;
        name_shard(name, sizeof name, i, n_files);
        write_shard(f, name, begin, end);
        for (size_t k = begin; k < end; k++)
            json_object_set_new(where, f->tensors[k].name, json_string(name));
    }
    json_t *index = json_pack("{s:{}, s:o}", "metadata", "weight_map", where);
    if (n_files > 1) write_json(f, "model.safetensors.index.json", index);
    json_decref(index);
}

// without: NULL, keys of the config that have another value, or a part of the names of tensors
// whose values are all the same.
static struct folder *make_folder(const json_t *model, const json_t *without) {
    struct folder *f = kv_alloc(1, sizeof *f);
    json_t *config = json_deep_copy(member(model, "config"));
    f->model = model;
    strcpy(f->dir, "/tmp/kvsim-small-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    list_tensors(f);
    if (json_is_object(without)) json_object_update(config, (json_t *)without);
    for (size_t i = 0; json_is_string(without) && i < f->n; i++)
        if (strstr(f->tensors[i].name, json_string_value(without))) f->half_width[i] = 0;
    write_weights(f);
    write_json(f, "config.json", config);
    assert_int_equal(0, write_tokenizer(f->dir, false));
    json_decref(config);
    return f;
}

static void remove_folder(struct folder *f) {
    char *command = kv_format_text("rm -r '%s'", f->dir);
    assert_int_equal(0, system(command));
    free(command);
    free(f);
}

// ---- what they say --------------------------------------------------------------------

static size_t read_ids(const json_t *model, uint32_t *ids) {
    const json_t *list = member(model, "ids");
    size_t n = json_array_size(list);
    assert_true(n > 1 && n <= MAX_IDS);
    for (size_t i = 0; i < n; i++) ids[i] = (uint32_t)json_integer_value(json_array_get(list, i));
    return n;
}

// The largest difference of a token's log-prob from what the list says; a NaN is the largest.
static double largest_difference(const struct kv_model *m, const json_t *model) {
    struct kv_error e;
    uint32_t ids[MAX_IDS];
    double logprob[MAX_IDS], most = 0;
    size_t n = read_ids(model, ids);
    const json_t *theirs = member(model, "logprob");
    assert_int_equal(n - 1, json_array_size(theirs));
    if (score_line(m, ids, (uint32_t)n, logprob, &e)) fail_msg("%s: %s", e.where, e.msg);
    for (size_t i = 0; i + 1 < n; i++) {
        double off = fabs(logprob[i] - json_number_value(json_array_get(theirs, i)));
        if (!(off <= most)) most = off;
    }
    return most;
}

// The same of the model in a folder of its own; NaN where it does not open.
static double difference_of(const json_t *model, const json_t *without) {
    struct folder *f = make_folder(model, without);
    struct kv_model *m;
    struct kv_error e;
    double most = NAN;
    if (kv_model_open(&m, f->dir, KV_WEIGHTS_F32, &e)) {
        print_message("# %s: %s\n", e.where, e.msg);
    } else {
        most = largest_difference(m, model);
        kv_model_close(m);
    }
    remove_folder(f);
    return most;
}

static void log_probs_of_each_architecture_are_those_of_transformers(void **state) {
    const json_t *models = *state, *one;
    size_t i, bad = 0;
    assert_true(json_array_size(models) >= 10);
    json_array_foreach(models, i, one) {
        double most = difference_of(one, NULL);
        print_message("# %s: %.1e\n", json_string_value(member(one, "name")), most);
        bad += !(most <= tolerance);
    }
    assert_int_equal(bad, 0);
}

static void and_would_not_be_if_something_of_the_architecture_were_left_out(void **state) {
    const json_t *models = *state, *one, *without;
    size_t i, k, bad = 0;
    json_array_foreach(models, i, one) json_array_foreach(member(one, "without"), k, without) {
        double most = difference_of(one, without);
        if (most > 0.05) continue;
        char *what = json_dumps(without, JSON_ENCODE_ANY);
        print_message("# %s: %s moves nothing by more than %.1e\n",
                      json_string_value(member(one, "name")), what, most);
        free(what);
        bad++;
    }
    assert_int_equal(bad, 0);
}

static int set_up(void **state) {
    json_error_t e;
    *state = json_load_file("sim/test/reference/small-models.json", 0, &e);
    if (!*state) print_message("# %s: %s\n", e.source, e.text);
    return *state ? 0 : -1;
}

static int tear_down(void **state) {
    json_decref(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_probs_of_each_architecture_are_those_of_transformers),
        cmocka_unit_test(and_would_not_be_if_something_of_the_architecture_were_left_out),
    };
    return cmocka_run_group_tests_name("small models of each architecture", tests, set_up,
                                       tear_down);
}
