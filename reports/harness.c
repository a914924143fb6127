// SPDX-License-Identifier: Apache-2.0
// Results under the key names of EleutherAI's lm-evaluation-harness, for tools that read its files.
#include "reports/harness.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"

#include <jansson.h>
#include <stdlib.h>

struct metric {
    const char *name;
    double value, error; // error NAN = none
    bool higher;
};
enum { N_METRICS = KV_N_SCORERS + 5 };

// Those that a row knows are not NAN.
static void take(const struct kv_row *r, struct metric m[N_METRICS]) {
    for (int k = 0; k < KV_N_SCORERS; k++)
        m[k] = (struct metric){kv_scorer_names[k], r->s.acc[k], r->error[k], true};
    m[KV_N_SCORERS] = (struct metric){"agree", r->s.agree, NAN, true};
    m[KV_N_SCORERS + 1] = (struct metric){"kl_nats", r->kl.mean, r->kl.standard_error, false};
    m[KV_N_SCORERS + 2] = (struct metric){"nominal_bits", r->s.nominal_bits, NAN, false};
    m[KV_N_SCORERS + 3] = (struct metric){"effective_bits", r->s.effective_bits, NAN, false};
    m[KV_N_SCORERS + 4] = (struct metric){"allocated_bits", r->s.allocated_bits, NAN, false};
}

// ---- JSON -----------------------------------------------------------------------------

static void set_number(json_t *o, const char *name, const char *ending, double x) {
    char *key = kv_format_text("%s%s,none", name, ending);
    if (isfinite(x)) json_object_set_new(o, key, json_real(x));
    free(key);
}

static void set_text(json_t *o, const char *key, const char *s) {
    json_t *text = json_string(s);
    json_object_set_new(o, key, text ? text : json_string("?"));
}

static json_t *new_part(json_t *file, const char *part, const char *task) {
    json_t *all = json_object_get(file, part), *own = json_object();
    if (!all) {
        all = json_object();
        json_object_set_new(file, part, all);
    }
    json_object_set_new(all, task, own);
    return own;
}

static void add_task(json_t *file, const struct kv_row *r) {
    struct metric m[N_METRICS];
    json_t *results = new_part(file, "results", r->s.task);
    json_t *better = new_part(file, "higher_is_better", r->s.task);
    json_t *samples = new_part(file, "n-samples", r->s.task);
    take(r, m);
    set_text(results, "alias", r->s.task);
    for (size_t k = 0; k < N_METRICS; k++) {
        set_number(results, m[k].name, "", m[k].value);
        set_number(results, m[k].name, "_stderr", m[k].error);
        if (isfinite(m[k].value)) json_object_set_new(better, m[k].name, json_boolean(m[k].higher));
    }
    json_object_set_new(samples, "original", json_integer((json_int_t)r->s.n_trace_items));
    json_object_set_new(samples, "effective",
                        json_integer((json_int_t)(r->s.n_items - r->n_left_out)));
}

static json_t *new_file(const struct kv_row *r) {
    json_t *file = json_object(), *config = json_object();
    const struct {
        const char *key, *value;
    } texts[] = {{"spec", r->s.spec},
                 {"fidelity", kv_fidelity_names[r->s.fidelity]},
                 {"mode", kv_mode_names[r->s.mode]},
                 {"self", kv_self_names[r->s.self]},
                 {"compute", r->s.compute},
                 {"variant", kv_variant_name(r->s.form, r->s.feedback)},
                 {"version", r->s.version}};
    set_text(config, "model", "kvsim");
    set_text(config, "model_name", r->s.model);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        set_text(config, texts[i].key, texts[i].value);
    json_object_set_new(config, "seed", json_integer((json_int_t)r->s.seed));
    json_object_set_new(file, "config", config);
    set_text(file, "git_hash", r->s.commit);
    return file;
}

static bool same_setting(const struct kv_row *a, const struct kv_row *b) {
    return strcmp(a->s.spec, b->s.spec) == 0 && kv_same_setting(&a->s, &b->s) &&
           strcmp(a->s.model, b->s.model) == 0 && strcmp(a->s.commit, b->s.commit) == 0 &&
           a->s.seed == b->s.seed;
}

// The first object of the row's spec and setting that lacks its task, else a new one.
static json_t *file_for(const struct kv_rows *rows, size_t row, json_t *files, size_t *first_row) {
    for (size_t i = 0; i < json_array_size(files); i++) {
        json_t *file = json_array_get(files, i);
        if (same_setting(&rows->row[first_row[i]], &rows->row[row]) &&
            !json_object_get(json_object_get(file, "results"), rows->row[row].s.task))
            return file;
    }
    first_row[json_array_size(files)] = row;
    json_array_append_new(files, new_file(&rows->row[row]));
    return json_array_get(files, json_array_size(files) - 1);
}

static char *as_json(const struct kv_rows *rows) {
    json_t *files = json_array();
    size_t *first_row = kv_alloc(rows->n + 1, sizeof *first_row);
    for (size_t i = 0; i < rows->n; i++)
        add_task(file_for(rows, i, files, first_row), &rows->row[i]);
    char *text = json_dumps(files, JSON_INDENT(1));
    json_decref(files);
    free(first_row);
    return text;
}

// ---- TSV ------------------------------------------------------------------------------

static void add_cell(struct kv_text *t, double x) {
    if (isfinite(x))
        kv_text_addf(t, "\t%.17g", x);
    else
        kv_text_add(t, "\t", 1);
}

static void add_word(struct kv_text *t, const char *s) {
    for (; *s; s++) kv_text_add(t, (unsigned char)*s < 0x20 ? " " : s, 1);
    kv_text_add(t, "\t", 1);
}

static char *as_tsv(const struct kv_rows *rows) {
    struct kv_text t = {0};
    struct metric m[N_METRICS];
    kv_text_addf(&t, "task\tspec\tfidelity\tmode\tn");
    for (size_t i = 0; i < rows->n; i++) {
        const struct kv_row *r = &rows->row[i];
        take(r, m);
        for (size_t k = 0; i == 0 && k < N_METRICS; k++)
            kv_text_addf(&t, "\t%s,none\t%s_stderr,none", m[k].name, m[k].name);
        kv_text_add(&t, "\n", 1);
        add_word(&t, r->s.task);
        add_word(&t, r->s.spec);
        add_word(&t, kv_fidelity_names[r->s.fidelity]);
        add_word(&t, kv_mode_names[r->s.mode]);
        kv_text_addf(&t, "%zu", r->s.n_items - r->n_left_out);
        for (size_t k = 0; k < N_METRICS; k++) {
            add_cell(&t, m[k].value);
            add_cell(&t, m[k].error);
        }
    }
    kv_text_add(&t, "\n", 1);
    return kv_text_take(&t);
}

// ---- files ----------------------------------------------------------------------------

int kv_harness_write(const struct kv_rows *rows, const char *dir, struct kv_error *e) {
    static const char *const names[] = {"results.json", "results.tsv"};
    char *texts[] = {as_json(rows), as_tsv(rows)};
    int code = 0;
    for (size_t i = 0; i < 2; i++) {
        char *path = kv_format_text("%s/%s", dir, names[i]);
        if (!code && texts[i]) code = kv_write_file(path, texts[i], strlen(texts[i]), e);
        free(path);
        free(texts[i]);
    }
    return code;
}
