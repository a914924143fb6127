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

// An object inside another, made when missing.
static json_t *inside(json_t *o, const char *key) {
    json_t *own = json_object_get(o, key);
    if (own) return own;
    own = json_object();
    json_object_set_new(o, key, own);
    return own;
}

// The object of `key` in a part of the file.
static json_t *part_of(json_t *file, const char *part, const char *key) {
    return inside(inside(file, part), key);
}

// ---- names: the harness has a key a task, and here each task has many rows --------------

// The task, and what tells its recording from another of that task.
static char *group_name(const struct kv_rows *rows, const struct kv_summary *s) {
    for (size_t i = 0; i < rows->n; i++) {
        const struct kv_summary *x = &rows->row[i].s;
        if (x->trace != s->trace && strcmp(x->task, s->task) == 0)
            return kv_format_text("%s (%s, %s, %.8s)", s->task, s->model, s->subset,
                                  s->trace_digest);
    }
    return kv_strdup(s->task);
}

// The label, and what tells the row from another of that label in its recording.
static char *row_name(const struct kv_rows *rows, const struct kv_row *r) {
    const struct kv_summary *s = &r->s;
    bool alike = false, alike_in_setting = false;
    for (size_t i = 0; i < rows->n; i++) {
        const struct kv_row *x = &rows->row[i];
        if (x == r || x->s.trace != s->trace || strcmp(x->label, r->label) != 0) continue;
        alike = true;
        alike_in_setting = alike_in_setting || kv_same_setting(&x->s, s);
    }
    const char *variant = kv_variant_name(s->form, s->feedback);
    if (!alike) return kv_strdup(r->label);
    char *name = kv_format_text("%s (%s, %s, own step %s, %s%s%s", r->label,
                                kv_fidelity_names[s->fidelity], kv_mode_names[s->mode],
                                kv_self_names[s->self], s->compute, *variant ? ", " : "", variant),
         *whole = alike_in_setting ? kv_format_text("%s; run %lld)", name, s->run_group)
                                   : kv_format_text("%s)", name);
    free(name);
    return whole;
}

// ---- parts ----------------------------------------------------------------------------

static void set_metrics(json_t *file, const char *key, const struct metric *m, size_t n) {
    json_t *results = part_of(file, "results", key),
           *better = part_of(file, "higher_is_better", key);
    for (size_t k = 0; k < n; k++) {
        set_number(results, m[k].name, "", m[k].value);
        set_number(results, m[k].name, "_stderr", m[k].error);
        if (isfinite(m[k].value)) json_object_set_new(better, m[k].name, json_boolean(m[k].higher));
    }
}

// What stands beside the results of every key.
static void set_rest(json_t *file, const char *key, const char *alias, const struct kv_row *r) {
    json_t *config = part_of(file, "configs", key), *samples = part_of(file, "n-samples", key),
           *results = part_of(file, "results", key);
    const json_int_t n = (json_int_t)(r->s.n_items - r->n_left_out);
    set_text(results, "name", key);
    set_text(results, "alias", alias);
    json_object_set_new(results, "sample_len", json_integer(n));
    set_text(config, "task", r->s.task);
    set_text(config, "model_name", r->s.model);
    set_text(config, "subset", r->s.subset);
    set_text(config, "trace_digest", r->s.trace_digest);
    json_object_set_new(samples, "original", json_integer((json_int_t)r->s.n_trace_items));
    json_object_set_new(samples, "effective", json_integer(n));
    json_object_set_new(inside(file, "n-shot"), key, json_integer(0));
    set_text(inside(file, "versions"), key, r->s.version);
}

// The 16-bit run, which leads its task as a group's mean does in the harness.
static void add_group(json_t *file, const char *key, const struct kv_row *r) {
    struct metric m[KV_N_SCORERS + 1];
    char *alias = kv_format_text("%s, 16 bit", key);
    for (int k = 0; k < KV_N_SCORERS; k++)
        m[k] = (struct metric){kv_scorer_names[k], r->s.acc_ref[k], NAN, true};
    m[KV_N_SCORERS] = (struct metric){"kl_nats", 0, NAN, false};
    set_metrics(file, key, m, KV_N_SCORERS + 1);
    set_rest(file, key, alias, r);
    free(alias);
}

static void add_row(json_t *file, const char *key, const char *alias, const struct kv_row *r) {
    struct metric m[N_METRICS];
    const struct {
        const char *key, *value;
    } texts[] = {{"spec", r->s.spec},
                 {"label", r->label},
                 {"fidelity", kv_fidelity_names[r->s.fidelity]},
                 {"mode", kv_mode_names[r->s.mode]},
                 {"self", kv_self_names[r->s.self]},
                 {"compute", r->s.compute},
                 {"variant", kv_variant_name(r->s.form, r->s.feedback)},
                 {"git_hash", r->s.commit}};
    take(r, m);
    set_metrics(file, key, m, N_METRICS);
    set_rest(file, key, alias, r);
    json_t *config = part_of(file, "configs", key);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        set_text(config, texts[i].key, texts[i].value);
    char *seed = kv_format_text("%llu", (unsigned long long)r->s.seed); // configs hold no numbers
    set_text(config, "seed", seed);
    free(seed);
}

static char *as_json(const struct kv_rows *rows) {
    json_t *file = json_object(), *groups = json_object();
    json_object_set_new(file, "results", json_object());
    json_object_set_new(file, "group_subtasks", groups);
    for (size_t i = 0; i < rows->n; i++) {
        const struct kv_row *r = &rows->row[i];
        char *group = group_name(rows, &r->s), *alias = row_name(rows, r),
             *key = kv_format_text("%s: %s", group, alias);
        json_t *members = json_object_get(groups, group), *name = json_string(key);
        if (!members) {
            members = json_array();
            json_object_set_new(groups, group, members);
            add_group(file, group, r);
        }
        if (name) {
            json_array_append_new(members, name);
            add_row(file, key, alias, r);
        }
        free(group);
        free(alias);
        free(key);
    }
    json_t *config = json_object();
    set_text(config, "model", "kvsim");
    json_object_set_new(file, "config", config);
    char *text = json_dumps(file, JSON_INDENT(1));
    json_decref(file);
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
    kv_text_addf(&t, "task\tspec\tlabel\tfidelity\tmode\tn");
    for (size_t i = 0; i < rows->n; i++) {
        const struct kv_row *r = &rows->row[i];
        take(r, m);
        for (size_t k = 0; i == 0 && k < N_METRICS; k++)
            kv_text_addf(&t, "\t%s,none\t%s_stderr,none", m[k].name, m[k].name);
        kv_text_add(&t, "\n", 1);
        add_word(&t, r->s.task);
        add_word(&t, r->s.spec);
        add_word(&t, r->label);
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
