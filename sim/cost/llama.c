// SPDX-License-Identifier: Apache-2.0
// Rows of llama-bench as runs: cache and weight types, times, and its Markdown tables.
#include "sim/base/shape.h"
#include "sim/cost/run_json.h"
#include "sim/model/model.h"

#include <ctype.h>
#include <stdlib.h>

// ---- the model ------------------------------------------------------------------------

static void shape_from_parameters(struct kv_device_run *run) {
    const char *name;
    for (size_t i = 0; (name = kv_shape_name_at(i)); i++) {
        const struct kv_shape *s = kv_shape_named(name);
        if (!(fabs(kv_shape_parameters(s) / run->n_parameters - 1) <= 0.005)) continue;
        run->shape = *s;
        snprintf(run->shape_name, sizeof run->shape_name, "%s", name);
    }
}

static bool begins_with(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

// "llama 256M Q4_K - Medium" has weights Q4_K_M: behind architecture and size stands what llama.cpp
// calls the file's type (llama_model_ftype_name), a name and after " - " its size or its bits.
static void read_weights(struct kv_device_run *run, const char *model_type) {
    const char *type = model_type;
    for (int word = 0; word < 2; word++) {
        const char *space = strchr(type, ' ');
        if (space) type = space + 1;
    }
    if (begins_with(type, "mostly ")) type += strlen("mostly ");
    if (begins_with(type, "all ")) type += strlen("all ");
    size_t n = strcspn(type, " ");
    const char *rest = type + n, *size = strstr(rest, " - ");
    if (begins_with(rest, " - ")) {
        // What llama.cpp calls "Q2_K - Medium" is its file type Q2_K: there is no Q2_K_M.
        bool named = strncmp(type, "Q2_K -", 6) == 0
                         ? begins_with(size + 3, "Small")
                         : begins_with(size + 3, "Small") || begins_with(size + 3, "Medium") ||
                               begins_with(size + 3, "Large");
        snprintf(run->weights, sizeof run->weights, named ? "%.*s_%c" : "%.*s", (int)n, type,
                 size[3]);
    } else if (begins_with(rest, " mix")) {
        // "IQ3_S mix" is the file type IQ3_M
        snprintf(run->weights, sizeof run->weights, "%.*sM", (int)n - (n > 0), type);
    } else {
        size_t whole = begins_with(rest, " (guessed)") ? n : strlen(type);
        snprintf(run->weights, sizeof run->weights, "%.*s", (int)whole, type);
        for (char *c = run->weights; *c; c++)
            *c = *c == ' ' ? '_' : (char)toupper((unsigned char)*c); // MXFP4 MoE: MXFP4_MOE
    }
}

// ---- numbers --------------------------------------------------------------------------

// A field that may be absent (NAN) but is no nonsense.
static int read_number(const json_t *row, const char *key, double least, double most, double *x,
                       const char *where, struct kv_error *e) {
    const json_t *v = json_object_get(row, key);
    const char *s = json_string_value(v);
    *x = kv_run_number(row, key);
    if (!v || json_is_null(v) || (s && !*s)) return 0;
    if (!(*x >= least && *x <= most)) {
        char *text = json_dumps(v, JSON_ENCODE_ANY);
        int rc = kv_fail(e, KV_EFAIL, where, "field '%s': %.60s is no number from %g to %g", key,
                         text ? text : "it", least, most);
        free(text);
        return rc;
    }
    return 0;
}

static int compare_numbers(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Median of samples_ns, or what the row tells instead; ns of the whole generation.
static int read_time(struct kv_device_run *run, const json_t *row, double n_gen, const char *where,
                     struct kv_error *e) {
    double avg_ns, avg_ts;
    int rc = read_number(row, "avg_ns", 1e-3, KV_MOST_NS, &avg_ns, where, e);
    if (rc == 0) rc = read_number(row, "avg_ts", 1e-6, 1e12, &avg_ts, where, e);
    if (rc) return rc;
    const json_t *samples = json_object_get(row, "samples_ns");
    size_t n = json_array_size(samples);
    run->samples = n ? (uint32_t)n : 1;
    run->step_ns = isnan(avg_ns) ? 1e9 / avg_ts : avg_ns / n_gen;
    double *x = kv_alloc(n + 1, sizeof *x);
    for (size_t i = 0; i < n; i++) {
        x[i] = json_number_value(json_array_get(samples, i));
        if (!(x[i] > 0 && x[i] <= KV_MOST_NS))
            rc = kv_fail(e, KV_EFAIL, where, "field 'samples_ns': sample %zu is no time", i + 1);
    }
    qsort(x, n, sizeof *x, compare_numbers);
    if (n) run->step_ns = (x[(n - 1) / 2] + x[n / 2]) / 2 / n_gen;
    free(x);
    if (rc == 0 && !(run->step_ns > 0))
        rc = kv_fail(e, KV_EFAIL, where, "expected positive samples_ns, avg_ns or avg_ts");
    double spread;
    if (rc == 0) rc = read_number(row, "stddev_ts", 0, 1e12, &spread, where, e);
    if (rc) return rc;
    spread *= 0.6745 / avg_ts; // quartiles of a normal distribution
    run->low_ns = run->step_ns * fmax(0, 1 - spread);
    run->high_ns = run->step_ns * (1 + spread);
    if (isnan(spread)) run->low_ns = run->high_ns = NAN;
    return 0;
}

// ---- the cache ------------------------------------------------------------------------

// Of files before 2024 one switch: f16_kv, else float32.
static const char *cache_type(const json_t *row, const char *key) {
    const json_t *older = json_object_get(row, "f16_kv");
    if (json_object_get(row, key) || !older) return kv_run_text(row, key);
    const char *s = json_string_value(older);
    bool half =
        s ? strcmp(s, "true") == 0 || strcmp(s, "1") == 0 : kv_run_number(row, "f16_kv") == 1;
    return half ? "f16" : "f32";
}

static int read_types(struct kv_device_run *run, const json_t *row, const char *where,
                      struct kv_error *e) {
    const char *name[2] = {cache_type(row, "type_k"), cache_type(row, "type_v")};
    struct kv_mix_part *p = &run->mix.part[0];
    run->mix = (struct kv_mix){.n = 1, .part = {{.share = 1}}};
    if (!*name[0] || !*name[1])
        return kv_fail(e, KV_EFAIL, where, "tells no cache types: type_k and type_v, or f16_kv");
    for (int side = 0; side < 2; side++) {
        unsigned bits, type;
        size_t n = kv_cache_type_read(name[side], &bits, &type);
        if (!n || name[side][n])
            return kv_fail(e, KV_EFAIL, where, "cache types '%.30s' and '%.30s' are not both known",
                           name[0], name[1]);
        p->bits[side] = (uint8_t)bits;
        p->type[side] = (uint8_t)type;
    }
    return 0;
}

int kv_llama_run_read(struct kv_device_run *run, const json_t *row, const char *where,
                      struct kv_error *e) {
    double n_gen, depth, threads;
    int rc = read_types(run, row, where, e);
    if (rc == 0) rc = read_number(row, "n_gen", 1, 1 << 30, &n_gen, where, e);
    if (rc == 0) rc = read_number(row, "n_depth", 0, 1 << 30, &depth, where, e);
    if (rc == 0) rc = read_number(row, "n_threads", 0, 1 << 20, &threads, where, e);
    if (rc == 0) rc = read_number(row, "model_n_params", 1, 1e18, &run->n_parameters, where, e);
    if (rc == 0) rc = read_time(run, row, n_gen, where, e);
    if (rc) return rc;
    // n_gen tokens are made from n_depth on; the mean context they attend over, themselves included
    run->context = (uint32_t)((isnan(depth) ? 0 : depth) + (n_gen + 1) / 2);
    run->threads = threads > 0 ? (uint32_t)threads : 0;
    const char *model = kv_run_text(row, "model_type");
    snprintf(run->model, sizeof run->model, "%s", model);
    read_weights(run, model);
    shape_from_parameters(run);
    return 0;
}

// ---- Markdown -------------------------------------------------------------------------

// What its columns are called in JSON; others keep their names.
static const struct {
    const char *column, *field;
} fields[] = {{"model", "model_type"},   {"size", "model_size"},
              {"backend", "backends"},   {"ngl", "n_gpu_layers"},
              {"threads", "n_threads"},  {"fa", "flash_attn"},
              {"mmap", "use_mmap"},      {"sm", "split_mode"},
              {"mg", "main_gpu"},        {"ts", "tensor_split"},
              {"nkvo", "no_kv_offload"}, {"dev", "devices"},
              {"embd", "embeddings"},    {"ot", "tensor_buft_overrides"},
              {"nopo", "no_op_offload"}, {"dio", "use_direct_io"},
              {"ncmoe", "n_cpu_moe"},    {"n_cpu_moe", "n_cpu_moe"}};

static void set_text(json_t *row, const char *key, const char *text) {
    json_object_set_new(row, key, json_string(text));
}

// "134.52 M"
static void set_parameters(json_t *row, const char *text) {
    char *unit;
    double x = strtod(text, &unit);
    unit += strspn(unit, " ");
    double scale = *unit == 'B' ? 1e9 : *unit == 'M' ? 1e6 : *unit == 'K' ? 1e3 : 1;
    if (x > 0) json_object_set_new(row, "model_n_params", json_real(x * scale));
}

// "tg128 @ d4096", "pp512", "pp512+tg128", and of 2023 "tg 128"
static void set_test(json_t *row, const char *text) {
    static const char *const part[] = {"pp", "tg", " @ d"}, *const key[] = {"n_prompt", "n_gen",
                                                                            "n_depth"};
    for (size_t i = 0; i < 3; i++) {
        const char *at = strstr(text, part[i]);
        json_object_set_new(row, key[i],
                            json_integer(at ? strtol(at + strlen(part[i]), NULL, 10) : 0));
    }
}

// "310.33 ± 1.10"
static void set_speed(json_t *row, const char *text) {
    char *end;
    double x = strtod(text, &end);
    json_object_set_new(row, "avg_ts",
                        end > text && isfinite(x) ? json_real(x) : json_string(text));
    while (*end && !isdigit((unsigned char)*end)) end++;
    if (*end) json_object_set_new(row, "stddev_ts", json_real(strtod(end, NULL)));
}

static void set_cell(json_t *row, const char *column, const char *text) {
    if (strcmp(column, "params") == 0) {
        set_parameters(row, text);
    } else if (strcmp(column, "test") == 0) {
        set_test(row, text);
    } else if (strcmp(column, "t/s") == 0) {
        set_speed(row, text);
    } else {
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
            if (strcmp(column, fields[i].column) == 0) column = fields[i].field;
        set_text(row, column, text);
    }
}

// The cells of "| a | b |" as texts without the blanks around them.
static json_t *cells_of(const char *line, size_t n) {
    json_t *cells = json_array();
    const char *end = line + n;
    for (const char *at = line + 1; at < end;) {
        const char *bar = memchr(at, '|', (size_t)(end - at));
        if (!bar) break;
        const char *first = at, *last = bar;
        while (first < last && isspace((unsigned char)*first)) first++;
        while (last > first && isspace((unsigned char)last[-1])) last--;
        json_array_append_new(cells, json_stringn(first, (size_t)(last - first)));
        at = bar + 1;
    }
    return cells;
}

static const char *cell_at(const json_t *cells, size_t i) {
    const char *s = json_string_value(json_array_get(cells, i));
    return s ? s : "";
}

static bool has_cell(const json_t *cells, const char *name) {
    for (size_t i = 0; i < json_array_size(cells); i++)
        if (strcmp(cell_at(cells, i), name) == 0) return true;
    return false;
}

struct markdown {
    json_t *rows, *names, *gpus; // names NULL: no header yet
    size_t told;                 // rows whose build is known
};

static void take_row(struct markdown *m, json_t *cells) {
    if (has_cell(cells, "model") && has_cell(cells, "test") && has_cell(cells, "t/s")) {
        json_decref(m->names);
        m->names = json_incref(cells);
        return;
    }
    if (!m->names || cell_at(cells, 0)[strspn(cell_at(cells, 0), "-: ")] == 0) return;
    json_t *row = json_object();
    set_text(row, "type_k", "f16"); // what a table leaves out is as by default
    set_text(row, "type_v", "f16");
    for (size_t i = 0; i < json_array_size(m->names); i++)
        set_cell(row, cell_at(m->names, i), cell_at(cells, i));
    if (json_array_size(m->gpus)) {
        struct kv_text t = {0};
        for (size_t i = 0; i < json_array_size(m->gpus); i++)
            kv_text_addf(&t, "%s%s", i ? ", " : "", cell_at(m->gpus, i));
        char *gpus = kv_text_take(&t);
        set_text(row, "gpu_info", gpus);
        free(gpus);
    }
    json_array_append_new(m->rows, row);
}

// "build: 5143fa89 (6371)" stands under its table.
static void take_build(struct markdown *m, const char *line, size_t n) {
    char commit[48], number[24];
    char *text = kv_format_text("%.*s", (int)n, line);
    int found = sscanf(text, "build: %47s (%23[0-9])", commit, number);
    for (; found >= 1 && m->told < json_array_size(m->rows); m->told++) {
        set_text(json_array_get(m->rows, m->told), "build_commit", commit);
        if (found == 2) set_text(json_array_get(m->rows, m->told), "build_number", number);
    }
    free(text);
}

// "  Device 0: NVIDIA GeForce RTX 4090, compute capability 8.9, VMM: yes"; a first one begins anew.
static void take_gpu(struct markdown *m, const char *line, size_t n) {
    char *text = kv_format_text("%.*s", (int)n, line);
    int number, at = 0;
    if (sscanf(text, " Device %d: %n", &number, &at) == 1 && at > 0) {
        if (number == 0) json_array_clear(m->gpus);
        json_array_append_new(m->gpus, json_stringn(text + at, strcspn(text + at, ",")));
    }
    free(text);
}

json_t *kv_markdown_runs(const char *text) {
    struct markdown m = {.rows = json_array(), .gpus = json_array()};
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        size_t n = strcspn(line, "\r\n");
        if (*line == '|') {
            json_t *cells = cells_of(line, n);
            take_row(&m, cells);
            json_decref(cells);
        } else {
            take_build(&m, line, n);
            take_gpu(&m, line, n);
        }
    }
    json_t *rows = m.names ? m.rows : NULL;
    if (!rows) json_decref(m.rows);
    json_decref(m.names);
    json_decref(m.gpus);
    return rows;
}
