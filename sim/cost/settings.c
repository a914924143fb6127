// SPDX-License-Identifier: Apache-2.0
// How runs were run: what a file says beside the sweep and its times, compared, chosen, and named
// where it differs. Runs of two machines, builds or flags are two devices.
#include "sim/base/args.h"
#include "sim/cost/run_json.h"

#include <stdlib.h>

// Of a llama-bench row: what a fit varies, what was measured, and when.
static const char *const not_settings[] = {"type_k",     "type_v",    "f16_kv",    "n_prompt",
                                           "n_gen",      "n_depth",   "test_time", "avg_ns",
                                           "stddev_ns",  "avg_ts",    "stddev_ts", "samples_ns",
                                           "samples_ts", "n_threads", NULL};
// Of other rows, whose further columns may be notes.
static const char *const settings[] = {"machine",       "engine",
                                       "compiler",      "gpu_info",
                                       "cpu_info",      "backends",
                                       "backend",       "gpu",
                                       "cpu",           "device",
                                       "devices",       "host",
                                       "n_gpu_layers",  "ngl",
                                       "flash_attn",    "fa",
                                       "no_kv_offload", "build_commit",
                                       "build_number",  "n_batch",
                                       "n_ubatch",      "main_gpu",
                                       "split_mode",    "tensor_split",
                                       "use_mmap",      "cpu_mask",
                                       "cpu_strict",    "poll",
                                       "driver",        "n_cpu_moe",
                                       "no_op_offload", "embeddings",
                                       "model",         "model_filename",
                                       "model_type",    "model_size",
                                       "synthetic",     NULL};

static bool is_listed(const char *name, const char *const *names) {
    return kv_index_of(name, names) >= 0;
}

// A value as text, the same from JSON and CSV: truth is 1 or 0.
static char *text_of(const json_t *v) {
    const char *s = json_string_value(v);
    if (s) return kv_strdup(strcmp(s, "true") == 0 ? "1" : strcmp(s, "false") == 0 ? "0" : s);
    if (json_is_boolean(v)) return kv_strdup(json_is_true(v) ? "1" : "0");
    if (json_is_integer(v)) return kv_format_text("%lld", (long long)json_integer_value(v));
    if (json_is_real(v)) return kv_format_text("%.17g", json_real_value(v));
    char *dump = json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    char *text = kv_strdup(dump ? dump : "");
    free(dump);
    return text;
}

unsigned kv_runs_setting(struct kv_runs *r, const json_t *row, bool is_llama) {
    json_t *own = json_object();
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)row, name, v) {
        if (is_llama ? is_listed(name, not_settings) : !is_listed(name, settings)) continue;
        char *text = text_of(v);
        json_object_set_new(own, name, json_string(text));
        free(text);
    }
    for (unsigned i = 0; i < r->n_settings; i++)
        if (json_equal(r->setting[i], own)) {
            json_decref(own);
            return i + 1;
        }
    r->setting = kv_grow(r->setting, r->n_settings + 1, sizeof *r->setting);
    r->setting[r->n_settings++] = own;
    return (unsigned)r->n_settings;
}

// ---- conditions -----------------------------------------------------------------------

// The field's text; NULL = the setting does not tell it.
static const char *value_of(const struct kv_runs *r, unsigned setting, const char *field) {
    return setting ? json_string_value(json_object_get(r->setting[setting - 1], field)) : NULL;
}

const char *kv_run_machine(const struct kv_runs *r, const struct kv_device_run *run) {
    static const char *const fields[] = {"gpu_info", "cpu_info", "machine"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const char *told = value_of(r, run->setting, fields[i]);
        if (told && *told) return told;
    }
    return r->machine;
}

// Takes "field=value" apart into a heap copy.
static char *field_of(const char *condition, const char **value) {
    const char *equal = strchr(condition, '=');
    *value = equal ? equal + 1 : "";
    return kv_format_text("%.*s", (int)(equal ? (size_t)(equal - condition) : strlen(condition)),
                          condition);
}

static bool is_value(const char *told, const char *asked) {
    if (strcmp(asked, "true") == 0) asked = "1";
    if (strcmp(asked, "false") == 0) asked = "0";
    return strcmp(told ? told : "", asked) == 0;
}

bool kv_setting_holds(const struct kv_runs *r, unsigned setting, const char *condition) {
    const char *value;
    char *field = field_of(condition, &value);
    bool holds = is_value(value_of(r, setting, field), value);
    free(field);
    return holds;
}

// "'A' (12 runs) or 'B' (3 runs)": the values of a field, at most four. Returns how many there are.
static size_t add_values(struct kv_text *t, const struct kv_runs *r, const char *field) {
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        const char *own = value_of(r, r->row[i].setting, field), *said = own ? own : "";
        size_t count = 0, first = r->n;
        for (size_t k = r->n; k-- > 0;) {
            const char *other = value_of(r, r->row[k].setting, field);
            if (strcmp(said, other ? other : "") != 0) continue;
            count++;
            first = k;
        }
        if (first != i || n++ >= 4) continue;
        kv_text_addf(t, "%s'%.48s' (%zu run%s)", n > 1 ? " or " : "", said, count,
                     count == 1 ? "" : "s");
    }
    return n;
}

int kv_setting_check(const struct kv_runs *r, const char *condition, struct kv_error *e) {
    const char *value;
    char *field = field_of(condition, &value);
    bool told = false, met = false;
    for (size_t i = 0; i < r->n; i++) {
        const char *own = value_of(r, r->row[i].setting, field);
        told |= own != NULL;
        met |= is_value(own, value);
    }
    struct kv_text t = {0};
    if (told) add_values(&t, r, field);
    char *values = kv_text_take(&t);
    int rc = 0;
    if (!told)
        rc = kv_fail(e, KV_EFAIL, "calibrate", "--where: no run tells '%.40s'", field);
    else if (!met)
        rc = kv_fail(e, KV_EFAIL, "calibrate", "--where: %.40s is never '%.60s'; it is %s", field,
                     value, values);
    free(values);
    free(field);
    return rc;
}

// ---- one way --------------------------------------------------------------------------

// Names that vary, in the order in which the runs tell them.
static bool varies(const struct kv_runs *r, const char *field) {
    const char *first = value_of(r, r->row[0].setting, field);
    for (size_t i = 1; i < r->n; i++) {
        const char *own = value_of(r, r->row[i].setting, field);
        if (strcmp(own ? own : "", first ? first : "") != 0) return true;
    }
    return false;
}

int kv_runs_check_one_way(const struct kv_runs *r, struct kv_error *e) {
    struct kv_text t = {0};
    json_t *seen = json_object();
    char *choose = NULL;
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        if (!r->row[i].setting || (i && r->row[i].setting == r->row[i - 1].setting)) continue;
        const char *field;
        json_t *v;
        json_object_foreach(r->setting[r->row[i].setting - 1], field, v) {
            if (json_object_get(seen, field)) continue;
            json_object_set_new(seen, field, json_true());
            if (!varies(r, field) || n++ >= 3) continue;
            kv_text_addf(&t, "%s%.40s is ", n > 1 ? "; " : "", field);
            add_values(&t, r, field);
            if (!choose)
                choose = kv_format_text("--where '%.40s=%.60s'", field, json_string_value(v));
        }
    }
    json_decref(seen);
    char *told = kv_text_take(&t);
    int rc = n == 0
                 ? 0
                 : kv_fail(e, KV_EFAIL, "calibrate",
                           "the runs were made in several ways: %.250s%s; choose one, as with %s",
                           told, n > 3 ? "; and more" : "", choose);
    free(told);
    free(choose);
    return rc;
}
