// SPDX-License-Identifier: Apache-2.0
// Runs as this tool reads and writes them: the columns of CSV and JSON.
#include "sim/cost/run_json.h"
#include "sim/base/files.h"
#include "sim/base/shape.h"

#include <stdlib.h>
#include "sim/base/guard.h"

const char *const kv_part_names[] = {"weights", "attend", "append", "policy",
                                     "head",    "other",  NULL};

// ---- a row and its columns ------------------------------------------------------------

enum column_type { COLUMN_TEXT, COLUMN_COUNT, COLUMN_REAL, COLUMN_BOOL };

static const struct column {
    const char *name;
    enum column_type type;
    size_t at, room;
} columns[] = {
#define TEXT(name, field)                                                                          \
    {                                                                                              \
        name, COLUMN_TEXT, offsetof(struct kv_device_run, field),                                  \
            sizeof(((struct kv_device_run *)0)->field)                                             \
    }
#define COUNT(name, field)                                                                         \
    { name, COLUMN_COUNT, offsetof(struct kv_device_run, field), 0 }
#define REAL(name, field)                                                                          \
    { name, COLUMN_REAL, offsetof(struct kv_device_run, field), 0 }
    TEXT("shape", shape_name),
    TEXT("weights", weights),
    {"synthetic", COLUMN_BOOL, offsetof(struct kv_device_run, synthetic), 0},
    COUNT("threads", threads),
    COUNT("sliding_layers", sliding.layers),
    COUNT("sliding_tokens", sliding.tokens),
    COUNT("context", context),
    REAL("step_ns", step_ns),
    REAL("low_ns", low_ns),
    REAL("high_ns", high_ns),
    COUNT("samples", samples),
    COUNT("disturbed", disturbed),
    REAL("weights_ns", part_ns[KV_PART_WEIGHTS]),
    REAL("attend_ns", part_ns[KV_PART_ATTEND]),
    REAL("append_ns", part_ns[KV_PART_APPEND]),
    REAL("policy_ns", part_ns[KV_PART_POLICY]),
    REAL("head_ns", part_ns[KV_PART_HEAD]),
    REAL("other_ns", part_ns[KV_PART_OTHER]),
    REAL("controller_ns", controller_ns),
    REAL("cache_bytes", cache_bytes),
    REAL("round_tokens", round_tokens),
#undef TEXT
#undef COUNT
#undef REAL
};
// Behind the shape's name come its numbers, all but max_tokens, which a step does not depend on.
enum {
    N_SIZES = KV_N_SHAPE_FIELDS - 1,
    N_COLUMNS = sizeof columns / sizeof *columns + N_SIZES,
};

static struct column column_at(size_t i) {
    if (i == 0 || i > N_SIZES) return columns[i ? i - N_SIZES : 0];
    const struct kv_shape_field *f = &kv_shape_fields[i - 1];
    return (struct column){f->word, COLUMN_COUNT, offsetof(struct kv_device_run, shape) + f->at, 0};
}

static const struct meta {
    const char *name;
    size_t at;
    bool is_text;
} metas[] = {
    {"machine", offsetof(struct kv_runs, machine), true},
    {"engine", offsetof(struct kv_runs, engine), true},
    {"compiler", offsetof(struct kv_runs, compiler), true},
    {"date", offsetof(struct kv_runs, date), true},
    {"command", offsetof(struct kv_runs, command), true},
    {"clock_mhz", offsetof(struct kv_runs, clock_mhz), false},
    {"bandwidth_bytes_per_ns", offsetof(struct kv_runs, bandwidth_bytes_per_ns), false},
    {"launch_ns", offsetof(struct kv_runs, launch_ns), false},
};
static const size_t n_metas = sizeof metas / sizeof *metas;

struct kv_runs *kv_runs_new(void) {
    KV_GUARD_ELSE(return NULL);
    struct kv_runs *r = kv_alloc(1, sizeof *r);
    for (size_t i = 0; i < n_metas; i++)
        if (metas[i].is_text)
            *(char **)((char *)r + metas[i].at) = kv_strdup("");
        else
            *(double *)((char *)r + metas[i].at) = NAN;
    return r;
}

void kv_runs_free(struct kv_runs *r) {
    if (!r) return;
    for (size_t i = 0; i < n_metas; i++)
        if (metas[i].is_text) free(*(char **)((char *)r + metas[i].at));
    for (size_t i = 0; i < r->n_settings; i++) json_decref(r->setting[i]);
    free(r->setting);
    free(r->row);
    free(r);
}

struct kv_device_run *kv_runs_add(struct kv_runs *r) {
    KV_GUARD_ELSE(return NULL);
    r->row = kv_grow(r->row, r->n + 1, sizeof *r->row);
    struct kv_device_run *run = &r->row[r->n++];
    *run = (struct kv_device_run){.step_ns = NAN,
                                  .low_ns = NAN,
                                  .high_ns = NAN,
                                  .controller_ns = NAN,
                                  .cache_bytes = NAN,
                                  .round_tokens = NAN,
                                  .n_parameters = NAN};
    for (int p = 0; p < KV_N_PARTS; p++) run->part_ns[p] = NAN;
    return run;
}

// ---- reading rows ---------------------------------------------------------------------

double kv_run_number(const json_t *row, const char *key) {
    const json_t *v = json_object_get(row, key);
    if (json_is_number(v)) return json_number_value(v);
    if (json_is_true(v)) return 1;
    if (json_is_false(v)) return 0;
    const char *s = json_string_value(v);
    if (!s || !*s) return NAN;
    char *end;
    double x = strtod(s, &end);
    return *end ? NAN : x;
}

const char *kv_run_text(const json_t *row, const char *key) {
    const char *s = json_string_value(json_object_get(row, key));
    return s ? s : "";
}

static int read_column(const struct column *c, struct kv_device_run *run, const json_t *row,
                       const char *where, struct kv_error *e) {
    void *field = (char *)run + c->at;
    if (c->type == COLUMN_TEXT) {
        snprintf(field, c->room, "%s", kv_run_text(row, c->name));
        return 0;
    }
    double x = kv_run_number(row, c->name);
    const char *s = json_string_value(json_object_get(row, c->name));
    if (isnan(x) && s && *s)
        return kv_fail(e, KV_EFAIL, where, "column '%s': '%.40s' is no number", c->name, s);
    *(c->type == COLUMN_REAL ? (double *)field : &(double){0}) = x;
    if (isnan(x)) return 0;
    if (!(x >= 0 && x <= (c->type == COLUMN_REAL ? KV_MOST_NS : 1u << 31)))
        return kv_fail(e, KV_EFAIL, where, "column '%s': %g is out of range", c->name, x);
    if (c->type == COLUMN_REAL) return 0;
    if (c->type == COLUMN_BOOL)
        *(bool *)field = x != 0;
    else
        *(uint32_t *)field = (uint32_t)x;
    return 0;
}

// Foreign rows may tell the step in other units.
static double step_of(const json_t *row) {
    double ns = kv_run_number(row, "step_ns"), ms = kv_run_number(row, "step_ms"),
           rate = kv_run_number(row, "tokens_per_s");
    return !isnan(ns) ? ns : !isnan(ms) ? ms * 1e6 : 1e9 / rate;
}

int kv_run_read(struct kv_device_run *run, const json_t *row, const char *where,
                struct kv_error *e) {
    for (size_t i = 0; i < N_COLUMNS; i++) {
        struct column c = column_at(i);
        int rc = read_column(&c, run, row, where, e);
        if (rc) return rc;
    }
    run->step_ns = step_of(row);
    if (!(run->step_ns > 0 && run->step_ns <= KV_MOST_NS))
        return kv_fail(e, KV_EFAIL, where,
                       "expected a positive step_ns, step_ms or tokens_per_s of at most %g ns",
                       KV_MOST_NS);
    if (isnan(kv_run_number(row, "context")))
        return kv_fail(e, KV_EFAIL, where, "expected a context in tokens");
    if (run->context == 0)
        return kv_fail(e, KV_EFAIL, where, "column 'context': 0 is out of range");
    const json_t *mix = json_object_get(row, "mix");
    char number[32];
    const char *text = json_string_value(mix);
    if (json_is_integer(mix)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(mix));
        text = number;
    }
    if (!text) return kv_fail(e, KV_EFAIL, where, "expected a mix of widths, like 8 or k8v4");
    struct kv_error why;
    if (kv_mix_parse(&run->mix, text, &why)) return kv_fail(e, KV_EFAIL, where, "%s", why.msg);
    return 0;
}

void kv_runs_read_meta(struct kv_runs *r, const json_t *row) {
    for (size_t i = 0; i < n_metas; i++) {
        void *field = (char *)r + metas[i].at;
        if (metas[i].is_text) {
            const char *s = kv_run_text(row, metas[i].name);
            if (!*s || **(char **)field) continue;
            free(*(char **)field);
            *(char **)field = kv_strdup(s);
        } else if (isnan(*(double *)field)) {
            *(double *)field = kv_run_number(row, metas[i].name);
        }
    }
}

int kv_runs_from_json(const json_t *root, struct kv_device_run **run, size_t *n, const char *path,
                      struct kv_error *e) {
    json_t *rows = json_object_get(root, "runs"), *row;
    struct kv_runs *r = kv_runs_new();
    size_t i;
    int rc = !rows || json_is_array(rows) ? 0 : kv_fail(e, KV_EFAIL, path, "runs must be a list");
    json_array_foreach(rows, i, row) {
        char where[256];
        snprintf(where, sizeof where, "%s: run %zu", path, i + 1);
        rc = kv_run_read(kv_runs_add(r), row, where, e);
        if (rc) break;
    }
    if (rc == 0) {
        *run = r->row;
        *n = r->n;
        r->row = NULL;
    }
    kv_runs_free(r);
    return rc;
}

// ---- writing --------------------------------------------------------------------------

void kv_json_add_string(struct kv_text *t, const char *s) {
    json_t *v = json_string(s);
    char *text = v ? json_dumps(v, JSON_ENCODE_ANY) : NULL;
    kv_text_addf(t, "%s", text ? text : "\"\"");
    free(text);
    json_decref(v);
}

static void add_csv_text(struct kv_text *t, const char *s) {
    if (!strpbrk(s, ",\"\n")) {
        kv_text_addf(t, "%s", s);
        return;
    }
    kv_text_addf(t, "\"");
    for (; *s; s++) kv_text_addf(t, *s == '"' ? "\"%c" : "%c", *s == '\n' ? ' ' : *s);
    kv_text_addf(t, "\"");
}

// A number of a row as text; empty when unknown.
static void column_text(const struct column *c, const struct kv_device_run *run, char *out,
                        size_t room) {
    const void *field = (const char *)run + c->at;
    *out = 0;
    if (c->type == COLUMN_BOOL) snprintf(out, room, "%d", *(const bool *)field);
    if (c->type == COLUMN_COUNT) snprintf(out, room, "%u", *(const uint32_t *)field);
    if (c->type == COLUMN_REAL && isfinite(*(const double *)field))
        snprintf(out, room, "%.0f", *(const double *)field);
}

void kv_runs_add_json(struct kv_text *t, const struct kv_device_run *run, size_t n) {
    kv_text_addf(t, "[");
    for (size_t i = 0; i < n; i++, run++) {
        char mix[160], value[32];
        kv_mix_text(&run->mix, mix, sizeof mix);
        kv_text_addf(t, "%s\n    {\"mix\": \"%s\"", i ? "," : "", mix);
        for (size_t k = 0; k < N_COLUMNS; k++) {
            const struct column at = column_at(k), *c = &at;
            if (c->type == COLUMN_TEXT) {
                kv_text_addf(t, ", \"%s\": ", c->name);
                kv_json_add_string(t, (const char *)run + c->at);
                continue;
            }
            column_text(c, run, value, sizeof value);
            if (*value) kv_text_addf(t, ", \"%s\": %s", c->name, value);
        }
        kv_text_addf(t, "}");
    }
    kv_text_addf(t, "\n  ]");
}

char *kv_runs_json(const struct kv_runs *r) {
    KV_GUARD_ELSE(return NULL);
    struct kv_text t = {0};
    kv_text_addf(&t, "{\n");
    for (size_t i = 0; i < n_metas; i++) {
        const void *field = (const char *)r + metas[i].at;
        if (!metas[i].is_text && !isfinite(*(const double *)field)) continue;
        kv_text_addf(&t, "  \"%s\": ", metas[i].name);
        if (metas[i].is_text)
            kv_json_add_string(&t, *(char *const *)field);
        else
            kv_text_addf(&t, "%.6g", *(const double *)field);
        kv_text_addf(&t, ",\n");
    }
    kv_text_addf(&t, "  \"runs\": ");
    kv_runs_add_json(&t, r->row, r->n);
    kv_text_addf(&t, "\n}\n");
    return kv_text_take(&t);
}

char *kv_runs_csv(const struct kv_runs *r) {
    KV_GUARD_ELSE(return NULL);
    struct kv_text t = {0};
    kv_text_addf(&t, "mix");
    for (size_t i = 0; i < N_COLUMNS; i++) kv_text_addf(&t, ",%s", column_at(i).name);
    for (size_t i = 0; i < n_metas; i++) kv_text_addf(&t, ",%s", metas[i].name);
    kv_text_addf(&t, "\n");
    for (size_t k = 0; k < r->n; k++) {
        const struct kv_device_run *run = &r->row[k];
        char mix[160], value[32];
        kv_mix_text(&run->mix, mix, sizeof mix);
        add_csv_text(&t, mix);
        for (size_t i = 0; i < N_COLUMNS; i++) {
            const struct column c = column_at(i);
            kv_text_addf(&t, ",");
            if (c.type == COLUMN_TEXT) {
                add_csv_text(&t, (const char *)run + c.at);
                continue;
            }
            column_text(&c, run, value, sizeof value);
            kv_text_addf(&t, "%s", value);
        }
        for (size_t i = 0; i < n_metas; i++) {
            const void *field = (const char *)r + metas[i].at;
            kv_text_addf(&t, ",");
            if (metas[i].is_text)
                add_csv_text(&t, *(char *const *)field);
            else if (isfinite(*(const double *)field))
                kv_text_addf(&t, "%.6g", *(const double *)field);
        }
        kv_text_addf(&t, "\n");
    }
    return kv_text_take(&t);
}

int kv_runs_write(const struct kv_runs *r, const char *name, struct kv_error *e) {
    const char *end = strrchr(name, '.');
    bool known = end && (strcmp(end, ".json") == 0 || strcmp(end, ".csv") == 0);
    int stem = (int)(known ? (size_t)(end - name) : strlen(name)), rc = 0;
    for (int csv = 0; rc == 0 && csv < 2; csv++) {
        char *text = csv ? kv_runs_csv(r) : kv_runs_json(r);
        char *path = kv_format_text("%.*s%s", stem, name, csv ? ".csv" : ".json");
        rc = kv_write_file(path, text, strlen(text), e);
        free(text);
        free(path);
    }
    return rc;
}

// ---- choosing and a policy's part -----------------------------------------------------

// Whether runs of so many parameters may be of a shape; true when either does not tell.
static bool may_be_of(const struct kv_device_run *x, const struct kv_shape *s) {
    double own = kv_shape_parameters(s);
    return isnan(x->n_parameters) || own == 0 || fabs(own / x->n_parameters - 1) <= 0.005;
}

static bool is_chosen(const struct kv_runs *r, const struct kv_device_run *x,
                      const struct kv_runs_choice *c) {
    for (size_t i = 0; i < c->n_where; i++)
        if (!kv_setting_holds(r, x->setting, c->where[i])) return false;
    return (!c->shape || memcmp(&x->shape, c->shape, sizeof x->shape) == 0) &&
           (!c->weights || strcmp(c->weights, x->weights) == 0) &&
           (c->threads < 0 || x->threads == (uint32_t)c->threads);
}

int kv_runs_choose(struct kv_runs *r, const struct kv_runs_choice *c, struct kv_error *e) {
    size_t n = 0;
    for (size_t i = 0; i < c->n_where; i++) {
        int rc = kv_setting_check(r, c->where[i], e);
        if (rc) return rc;
    }
    for (size_t i = 0; i < r->n; i++) {
        struct kv_device_run *x = &r->row[i];
        if (c->shape && x->shape.n_layers == 0 && !may_be_of(x, c->shape))
            return kv_fail(e, KV_EFAIL, "calibrate",
                           "run %zu is of %s%s%.4g parameters; --shape %s has %.4g", i + 1,
                           x->model, *x->model ? ", " : "", x->n_parameters, c->shape_name,
                           kv_shape_parameters(c->shape));
        if (c->shape && x->shape.n_layers == 0) {
            x->shape = *c->shape;
            snprintf(x->shape_name, sizeof x->shape_name, "%s", c->shape_name);
        }
        if (is_chosen(r, x, c)) r->row[n++] = *x;
    }
    r->n = n;
    return n ? 0
             : kv_fail(e, KV_EFAIL, "calibrate",
                       "no run has the shape, weights, threads and settings asked");
}

static void shift(struct kv_device_run *x, double ns) {
    x->step_ns += ns;
    x->low_ns += ns;
    x->high_ns += ns;
}

void kv_runs_add_policy(struct kv_runs *r, size_t first, double ns) {
    for (size_t i = first; i < r->n; i++) {
        if (r->row[i].mix.by_cell) continue;
        shift(&r->row[i], ns);
        r->row[i].part_ns[KV_PART_POLICY] += ns;
    }
}

double kv_runs_take_policy(struct kv_runs *r) {
    double most = 0;
    for (size_t i = 0; i < r->n; i++) {
        struct kv_device_run *x = &r->row[i];
        double policy = x->part_ns[KV_PART_POLICY];
        if (!(policy > 1000)) continue; // the clock alone
        shift(x, -policy);
        x->part_ns[KV_PART_POLICY] = NAN;
        if (x->mix.by_cell)
            x->controller_ns = policy;
        else
            most = fmax(most, policy);
    }
    return most;
}
