// SPDX-License-Identifier: Apache-2.0
// Opens any file of runs: JSON, JSON lines or CSV, written by this tool, by llama-bench or by hand.
#include "sim/cost/run_json.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/model/model.h"

#include <stdlib.h>

// ---- llama-bench ----------------------------------------------------------------------

// Cache types of llama.cpp and their nominal bits.
static const struct cache_type {
    const char *name;
    unsigned bits;
} cache_types[] = {{"f32", 32}, {"f16", 16}, {"bf16", 16}, {"q8_0", 8},   {"q5_1", 5},
                   {"q5_0", 5}, {"q4_1", 4}, {"q4_0", 4},  {"iq4_nl", 4}, {NULL, 0}};

static unsigned cache_type_bits(const char *name) {
    for (const struct cache_type *t = cache_types; t->name; t++)
        if (strcmp(t->name, name) == 0) return t->bits;
    return 0;
}

// Parameters of a Llama model of this shape with a tied head.
static double parameters_of(const struct kv_shape *s) {
    double attention = (double)s->hidden * s->head_dim * 2 * ((double)s->n_heads + s->n_kv_heads);
    double layer = attention + 3.0 * s->hidden * s->ffn + 2.0 * s->hidden;
    return layer * s->n_layers + (double)s->vocab * s->hidden + s->hidden;
}

static void shape_from_parameters(struct kv_device_run *run, double n_parameters) {
    const char *name;
    for (size_t i = 0; (name = kv_shape_name_at(i)); i++) {
        const struct kv_shape *s = kv_shape_named(name);
        if (fabs(parameters_of(s) / n_parameters - 1) > 0.005) continue;
        run->shape = *s;
        snprintf(run->shape_name, sizeof run->shape_name, "%s", name);
    }
}

static int compare_numbers(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Median of samples_ns / tokens, or the mean when only that is told.
static double llama_step_ns(const json_t *row, double n_gen, struct kv_device_run *run) {
    json_t *samples = json_object_get(row, "samples_ns");
    size_t n = json_array_size(samples);
    if (n == 0) {
        double ns = kv_run_number(row, "avg_ns");
        run->samples = 1;
        return isnan(ns) ? 1e9 / kv_run_number(row, "avg_ts") : ns / n_gen;
    }
    double *x = kv_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = json_number_value(json_array_get(samples, i));
    qsort(x, n, sizeof *x, compare_numbers);
    double median = (x[(n - 1) / 2] + x[n / 2]) / 2;
    run->samples = (uint32_t)n;
    free(x);
    return median / n_gen;
}

// A row of llama-bench: fields as tools/llama-bench prints them (build, model, types, depth,
// speed).
static int read_llama_row(struct kv_device_run *run, const json_t *row, const char *where,
                          struct kv_error *e) {
    double n_gen = kv_run_number(row, "n_gen"), depth = kv_run_number(row, "n_depth");
    unsigned bits[2] = {cache_type_bits(kv_run_text(row, "type_k")),
                        cache_type_bits(kv_run_text(row, "type_v"))};
    if (!bits[0] || !bits[1])
        return kv_fail(e, KV_EFAIL, where, "cache types '%s' and '%s' are not both known",
                       kv_run_text(row, "type_k"), kv_run_text(row, "type_v"));
    run->mix = (struct kv_mix){
        .n = 1, .part = {{.bits = {(uint8_t)bits[0], (uint8_t)bits[1]}, .share = 1}}};
    // n_gen tokens are made from n_depth on; the mean context they attend over, themselves included
    run->context = (uint32_t)((isnan(depth) ? 0 : depth) + (n_gen + 1) / 2);
    double threads = kv_run_number(row, "n_threads");
    run->threads = threads > 0 ? (uint32_t)threads : 0;
    run->step_ns = llama_step_ns(row, n_gen, run);
    if (!(run->step_ns > 0))
        return kv_fail(e, KV_EFAIL, where, "expected positive samples_ns, avg_ns or avg_ts");
    double spread = kv_run_number(row, "stddev_ts") / kv_run_number(row, "avg_ts");
    run->low_ns = run->step_ns * (1 - 0.6745 * spread); // quartiles of a normal distribution
    run->high_ns = run->step_ns * (1 + 0.6745 * spread);
    const char *type = strrchr(kv_run_text(row, "model_type"), ' ');
    snprintf(run->weights, sizeof run->weights, "%s", type ? type + 1 : "");
    shape_from_parameters(run, kv_run_number(row, "model_n_params"));
    return 0;
}

static void llama_meta(struct kv_runs *r, const json_t *row) {
    if (*r->engine) return;
    free(r->engine);
    free(r->machine);
    free(r->date);
    const char *gpu = kv_run_text(row, "gpu_info");
    r->engine = kv_format_text("llama.cpp %s (%s), flash_attn %g", kv_run_text(row, "build_commit"),
                               kv_run_text(row, "backends"), kv_run_number(row, "flash_attn"));
    r->machine = kv_strdup(*gpu ? gpu : kv_run_text(row, "cpu_info"));
    r->date = kv_strdup(kv_run_text(row, "test_time"));
}

static int add_row(struct kv_runs *r, const json_t *row, const char *path, size_t number,
                   struct kv_error *e) {
    char where[256];
    snprintf(where, sizeof where, "%s: row %zu", path, number);
    if (!json_is_object(row)) return kv_fail(e, KV_EFAIL, where, "expected an object");
    if (json_object_get(row, "avg_ts") && json_object_get(row, "type_k")) {
        if (!(kv_run_number(row, "n_gen") > 0) || kv_run_number(row, "n_prompt") > 0)
            return 0; // prompt processing says nothing of a decode step
        llama_meta(r, row);
        return read_llama_row(kv_runs_add(r), row, where, e);
    }
    kv_runs_read_meta(r, row);
    return kv_run_read(kv_runs_add(r), row, where, e);
}

// ---- file kinds -----------------------------------------------------------------------

static int read_json(struct kv_runs *r, const char *text, size_t n, const char *path,
                     struct kv_error *e) {
    json_error_t why;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    if (!root) return kv_fail(e, KV_EFAIL, path, "line %d: %s", why.line, why.text);
    json_t *rows = json_is_array(root) ? root : json_object_get(root, "runs"), *row;
    size_t i;
    int rc = 0;
    if (!json_is_array(rows))
        rc = kv_fail(e, KV_EFAIL, path, "expected an array of runs, or an object with 'runs'");
    if (rc == 0 && json_is_object(root)) kv_runs_read_meta(r, root);
    if (rc == 0) json_array_foreach(rows, i, row) if ((rc = add_row(r, row, path, i + 1, e))) break;
    json_decref(root);
    return rc;
}

static int read_jsonl(struct kv_runs *r, const char *text, const char *path, struct kv_error *e) {
    size_t number = 0;
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        size_t n = strcspn(line, "\n");
        number++;
        if (strspn(line, " \t\r\n") >= n) continue;
        json_error_t why;
        json_t *row = json_loadb(line, n, JSON_REJECT_DUPLICATES, &why);
        if (!row) return kv_fail(e, KV_EFAIL, path, "line %zu: %s", number, why.text);
        int rc = add_row(r, row, path, number, e);
        json_decref(row);
        if (rc) return rc;
    }
    return 0;
}

// One CSV cell (RFC 4180: quotes double inside quotes). Returns what ended it: ',', '\n' or 0.
static int read_cell(const char **at, struct kv_text *cell) {
    const char *s = *at;
    bool quoted = *s == '"';
    if (quoted) s++;
    for (; *s; s++) {
        if (quoted && *s == '"') {
            if (s[1] != '"') {
                quoted = false;
                continue;
            }
            s++;
        } else if (!quoted && (*s == ',' || *s == '\n')) {
            break;
        }
        if (*s != '\r') kv_text_add(cell, s, 1);
    }
    int end = *s;
    *at = *s ? s + 1 : s;
    return end;
}

static int read_csv(struct kv_runs *r, const char *text, const char *path, struct kv_error *e) {
    json_t *names = json_array();
    const char *at = text;
    for (int end = ','; end == ',';) {
        struct kv_text cell = {0};
        end = read_cell(&at, &cell);
        char *s = kv_text_take(&cell);
        json_array_append_new(names, json_string(s));
        free(s);
    }
    int rc = 0;
    for (size_t number = 1; rc == 0 && *at; number++) {
        json_t *row = json_object();
        size_t i = 0;
        for (int end = ','; end == ','; i++) {
            struct kv_text cell = {0};
            end = read_cell(&at, &cell);
            char *s = kv_text_take(&cell);
            json_t *value = json_string(s);
            if (value && i < json_array_size(names))
                json_object_set(row, json_string_value(json_array_get(names, i)), value);
            json_decref(value);
            free(s);
        }
        if (i == json_array_size(names))
            rc = add_row(r, row, path, number, e);
        else if (i > 1)
            rc = kv_fail(e, KV_EFAIL, path, "row %zu holds %zu cells; the header names %zu", number,
                         i, json_array_size(names));
        json_decref(row);
    }
    json_decref(names);
    return rc;
}

int kv_runs_open(struct kv_runs **runs, const char *path, struct kv_error *e) {
    *runs = NULL;
    KV_GUARD(e);
    char *text;
    size_t n;
    int rc = kv_read_file(path, &text, &n, e);
    if (rc) return rc;
    struct kv_runs *r = kv_runs_new();
    const char *first = text + strspn(text, " \t\r\n");
    const char *second = strchr(first, '\n');
    bool lines = *first == '{' && second && second[strspn(second, " \t\r\n")] == '{';
    lines |= *first == '{' && second && second[strspn(second, " \t\r\n")] == 0;
    rc = lines                              ? read_jsonl(r, text, path, e)
         : (*first == '{' || *first == '[') ? read_json(r, text, n, path, e)
                                            : read_csv(r, text, path, e);
    free(text);
    if (rc == 0 && r->n == 0) rc = kv_fail(e, KV_EFAIL, path, "holds no decode runs");
    if (rc)
        kv_runs_free(r);
    else
        *runs = r;
    return rc;
}
