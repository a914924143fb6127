// SPDX-License-Identifier: Apache-2.0
// Device files: JSON in and out, and the shipped ones by name (README.md beside this is the spec).
#include "sim/cost/cost.h"
#include "sim/cost/run_json.h"
#include "sim/base/assets.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/shape.h"

#include <stdlib.h>
#include <unistd.h>

#define DEVICE_DIR "sim/cost/devices/"

// ---- the shipped ones -----------------------------------------------------------------

static const struct kv_asset *shipped_at(size_t i) {
    const struct kv_asset *a;
    for (size_t at = 0; (a = kv_asset_at(at)); at++)
        if (strncmp(a->path, DEVICE_DIR, strlen(DEVICE_DIR)) == 0 && i-- == 0) return a;
    return NULL;
}

// "epyc" of "sim/cost/devices/epyc.json"
static size_t shipped_name(const struct kv_asset *a, const char **name) {
    *name = a->path + strlen(DEVICE_DIR);
    return strlen(*name) - strlen(".json");
}

const char *kv_device_name_at(size_t i) {
    static _Thread_local char text[96];
    const struct kv_asset *a = shipped_at(i);
    if (!a) return NULL;
    const char *name;
    size_t n = shipped_name(a, &name);
    snprintf(text, sizeof text, "%.*s", (int)n, name);
    return text;
}

// ---- fields ---------------------------------------------------------------------------

static const struct text_field {
    const char *key;
    size_t at;
} text_fields[] = {
    {"name", offsetof(struct kv_device, name)},
    {"summary", offsetof(struct kv_device, summary)},
    {"machine", offsetof(struct kv_device, machine)},
    {"date", offsetof(struct kv_device, date)},
    {"engine", offsetof(struct kv_device, engine)},
    {"provenance", offsetof(struct kv_device, provenance)},
    {"weights", offsetof(struct kv_device, weights)},
};
static const size_t n_text_fields = sizeof text_fields / sizeof *text_fields;

static const struct number_field {
    const char *key;
    size_t at;
    double min, fallback; // fallback NAN with required = the file must hold it
    bool required;
} number_fields[] = {
    {"base_ns", offsetof(struct kv_device, base_ns), 0, NAN, true},
    {"attend_ns", offsetof(struct kv_device, attend_ns), 0, 0, false},
    {"append_ns", offsetof(struct kv_device, append_ns), 0, 0, false},
    {"class_ns", offsetof(struct kv_device, class_ns), 0, 0, false},
    {"mixed_ns", offsetof(struct kv_device, mixed_ns), 0, NAN, false},
    {"cell_class_ns", offsetof(struct kv_device, cell_class_ns), 0, NAN, false},
    {"controller_ns", offsetof(struct kv_device, controller_ns), 0, NAN, false},
    {"round_ns", offsetof(struct kv_device, round_ns), 0, 0, false},
    {"round_tokens", offsetof(struct kv_device, round_tokens), 0, 0, false},
    {"switch_ns", offsetof(struct kv_device, switch_ns), 0, 0, false},
    {"hidden_bytes", offsetof(struct kv_device, hidden_bytes), 0, 0, false},
    {"bandwidth_bytes_per_ns", offsetof(struct kv_device, bandwidth_bytes_per_ns), 0, NAN, false},
    {"knee_bytes", offsetof(struct kv_device, knee_bytes), 0, INFINITY, false},
    {"knee_factor", offsetof(struct kv_device, knee_factor), 0, 1, false},
    {"error_median", offsetof(struct kv_device, error_median), 0, NAN, false},
    {"error_worst", offsetof(struct kv_device, error_worst), 0, NAN, false},
    {"share_error_median", offsetof(struct kv_device, share_error_median), 0, NAN, false},
    {"share_error_mix_median", offsetof(struct kv_device, share_error_mix_median), 0, NAN, false},
    {"sign_right", offsetof(struct kv_device, sign_right), 0, NAN, false},
};
static const size_t n_number_fields = sizeof number_fields / sizeof *number_fields;

static char **text_at(const struct kv_device *d, size_t at) {
    return (char **)((char *)d + at);
}
static double *number_at(const struct kv_device *d, size_t at) {
    return (double *)((char *)d + at);
}

struct kv_device *kv_device_new(void) {
    KV_GUARD_ELSE(return NULL);
    struct kv_device *d = kv_alloc(1, sizeof *d);
    for (size_t i = 0; i < n_text_fields; i++) *text_at(d, text_fields[i].at) = kv_strdup("");
    for (size_t i = 0; i < n_number_fields; i++)
        *number_at(d, number_fields[i].at) = number_fields[i].fallback;
    for (int side = 0; side < 2; side++)
        for (int w = 0; w < KV_COST_BINS; w++) d->c_ns[side][w] = NAN;
    d->runs_meta = kv_strdup("");
    return d;
}

void kv_device_free(struct kv_device *d) {
    if (!d) return;
    for (size_t i = 0; i < n_text_fields; i++) free(*text_at(d, text_fields[i].at));
    free(d->intervals);
    free(d->runs_meta);
    free(d->runs);
    free(d);
}

// ---- reading --------------------------------------------------------------------------

static const char *const cost_keys[2] = {"key_ns", "value_ns"};

double *kv_device_cost(struct kv_device *d, const char *name) {
    for (int side = 0; side < 2; side++) {
        size_t n = strlen(cost_keys[side]), bin;
        if (strncmp(name, cost_keys[side], n) == 0 && name[n] == ' ' &&
            kv_cost_bin_read(name + n + 1, &bin))
            return &d->c_ns[side][bin];
    }
    return NULL;
}

// A JSON number that a device may hold: finite, at least `least` and no more than any machine's.
static bool is_sane(const json_t *v, double least) {
    double x = json_number_value(v);
    return json_is_number(v) && isfinite(x) && x >= least && x <= 1e18;
}

static int read_costs(struct kv_device *d, const json_t *root, enum kv_side side, const char *path,
                      struct kv_error *e) {
    const char *const *keys = cost_keys;
    json_t *table = json_object_get(root, keys[side]);
    if (!json_is_object(table))
        return kv_fail(e, KV_EFAIL, path,
                       "%s must be an object of widths or cache types and ns a value", keys[side]);
    const char *bits;
    json_t *cost;
    size_t n = 0;
    json_object_foreach(table, bits, cost) {
        size_t bin;
        if (!kv_cost_bin_read(bits, &bin) || !is_sane(cost, 0))
            return kv_fail(e, KV_EFAIL, path,
                           "%s: '%.40s' must be a width (1..16 or 32) or a cache type with a cost "
                           "from 0 to 1e18",
                           keys[side], bits);
        if (!isnan(d->c_ns[side][bin]))
            return kv_fail(e, KV_EFAIL, path, "%s: '%.40s' is given twice", keys[side], bits);
        d->c_ns[side][bin] = json_number_value(cost);
        n++;
    }
    if (n == 0) return kv_fail(e, KV_EFAIL, path, "%s holds no width", keys[side]);
    return 0;
}

// {"layers": 15, "tokens": 512}; absent: every layer sees all tokens.
static int read_sliding(struct kv_device *d, const json_t *root, const char *path,
                        struct kv_error *e) {
    const json_t *sliding = json_object_get(root, "sliding");
    json_int_t layers = json_integer_value(json_object_get(sliding, "layers")),
               tokens = json_integer_value(json_object_get(sliding, "tokens"));
    if (!sliding) return 0;
    if (layers < 1 || layers > d->shape.n_layers || tokens < 1 || tokens > 1 << 24)
        return kv_fail(e, KV_EFAIL, path,
                       "sliding: 'layers' must be 1 to %u and 'tokens' a positive whole number",
                       d->shape.n_layers);
    d->sliding = (struct kv_sliding){(uint32_t)layers, (uint32_t)tokens};
    return 0;
}

static int read_shape(struct kv_device *d, const json_t *root, const char *path,
                      struct kv_error *e) {
    json_t *shape = json_object_get(root, "shape");
    for (size_t i = 0; i < KV_N_SHAPE_FIELDS; i++) {
        json_t *v = json_object_get(shape, kv_shape_fields[i].word);
        if (!v && i > 3) continue; // the cache needs the first four
        if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > 1 << 24)
            return kv_fail(e, KV_EFAIL, path, "shape: '%s' must be a positive whole number",
                           kv_shape_fields[i].word);
        kv_shape_set(&d->shape, i, (uint32_t)json_integer_value(v));
    }
    return read_sliding(d, root, path, e);
}

static int read_ports(struct kv_device *d, const json_t *root, const char *path,
                      struct kv_error *e) {
    json_t *ports = json_object_get(root, "ports"), *port;
    size_t i;
    if (ports && !json_is_array(ports))
        return kv_fail(e, KV_EFAIL, path, "ports must be a list of widths");
    json_array_foreach(ports, i, port) {
        json_int_t w = json_integer_value(port);
        if (w < 1 || w > 16 || i >= KV_WIDTH_BINS || (i > 0 && w <= d->ports[i - 1]))
            return kv_fail(e, KV_EFAIL, path, "ports must be widths of 1 to 16 bits, ascending");
        d->ports[d->n_ports++] = (uint8_t)w;
    }
    return 0;
}

static int read_intervals(struct kv_device *d, const json_t *root, const char *path,
                          struct kv_error *e) {
    json_t *table = json_object_get(root, "intervals_95"), *pair;
    const char *name;
    if (table && !json_is_object(table))
        return kv_fail(e, KV_EFAIL, path, "intervals_95 must be an object of [low, high]");
    d->intervals = kv_alloc(json_object_size(table) + 1, sizeof *d->intervals);
    json_object_foreach(table, name, pair) {
        struct kv_device_interval *v = &d->intervals[d->n_intervals++];
        snprintf(v->name, sizeof v->name, "%s", name);
        v->low = json_number_value(json_array_get(pair, 0));
        v->high = json_number_value(json_array_get(pair, 1));
        if (json_array_size(pair) != 2 || !is_sane(json_array_get(pair, 0), 0) ||
            !is_sane(json_array_get(pair, 1), 0) || !(v->low <= v->high))
            return kv_fail(e, KV_EFAIL, path, "intervals_95: '%s' must be [low, high]", name);
    }
    return 0;
}

static int read_range(struct kv_device *d, const json_t *root, const char *path,
                      struct kv_error *e) {
    json_t *range = json_object_get(root, "context_tokens");
    const json_t *least = json_array_get(range, 0), *most = json_array_get(range, 1);
    json_int_t low = json_integer_value(least), high = json_integer_value(most);
    if (json_array_size(range) != 2 || !json_is_integer(least) || !json_is_integer(most) ||
        low < 0 || high < low || high > UINT32_MAX)
        return kv_fail(e, KV_EFAIL, path, "context_tokens must be [least, most] as measured");
    d->context_min = (uint32_t)low;
    d->context_max = (uint32_t)high;
    json_t *threads = json_object_get(root, "threads");
    if (threads && (!json_is_integer(threads) || json_integer_value(threads) < 0 ||
                    json_integer_value(threads) > 1 << 20))
        return kv_fail(e, KV_EFAIL, path, "threads must be a whole number");
    d->threads = (uint32_t)json_integer_value(threads);
    return 0;
}

static int read_device(struct kv_device *d, const char *text, size_t n, const char *path,
                       struct kv_error *e) {
    json_error_t why;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    if (!root) return kv_fail(e, KV_EFAIL, path, "line %d: %s", why.line, why.text);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n_text_fields; i++) {
        json_t *v = json_object_get(root, text_fields[i].key);
        if (v && !json_is_string(v))
            rc = kv_fail(e, KV_EFAIL, path, "'%s' must be a text", text_fields[i].key);
        if (!v || rc) continue;
        free(*text_at(d, text_fields[i].at));
        *text_at(d, text_fields[i].at) = kv_strdup(json_string_value(v));
    }
    for (size_t i = 0; rc == 0 && i < n_number_fields; i++) {
        const struct number_field *f = &number_fields[i];
        json_t *v = json_object_get(root, f->key);
        if (!v || json_is_null(v)) {
            if (f->required) rc = kv_fail(e, KV_EFAIL, path, "'%s' is missing", f->key);
            continue;
        }
        if (!is_sane(v, f->min))
            rc = kv_fail(e, KV_EFAIL, path, "'%s' must be a number of %g or more, up to 1e18",
                         f->key, f->min);
        else if (f->at == offsetof(struct kv_device, sign_right) && json_number_value(v) > 1)
            rc = kv_fail(e, KV_EFAIL, path, "'%s' must be a share from 0 to 1", f->key);
        else if (f->at == offsetof(struct kv_device, round_tokens) && json_number_value(v) > 0 &&
                 json_number_value(v) < 1)
            rc = kv_fail(e, KV_EFAIL, path, "'%s' must be 0 or at least one token", f->key);
        else if (f->required && json_number_value(v) == 0)
            rc = kv_fail(e, KV_EFAIL, path, "'%s' is 0: no step takes no time", f->key);
        *number_at(d, f->at) = json_number_value(v);
    }
    if (rc == 0) rc = read_costs(d, root, KV_KEY, path, e);
    if (rc == 0) rc = read_costs(d, root, KV_VALUE, path, e);
    if (rc == 0) rc = read_shape(d, root, path, e);
    if (rc == 0) rc = read_range(d, root, path, e);
    if (rc == 0) rc = read_ports(d, root, path, e);
    if (rc == 0) rc = read_intervals(d, root, path, e);
    if (rc == 0) rc = kv_runs_from_json(root, &d->runs, &d->n_runs, path, e);
    const char *meta = json_string_value(json_object_get(root, "runs_from"));
    if (meta) {
        free(d->runs_meta);
        d->runs_meta = kv_strdup(meta);
    }
    json_decref(root);
    return rc;
}

static int unknown_device(const char *name, struct kv_error *e) {
    struct kv_text t = {0};
    const char *known;
    for (size_t i = 0; (known = kv_device_name_at(i)); i++)
        kv_text_addf(&t, "%s%s", i ? ", " : "", known);
    char *names = kv_text_take(&t);
    int rc = kv_fail(e, KV_EUSAGE, "device",
                     "no device file or shipped device is named '%s'; shipped: %s", name,
                     *names ? names : "none");
    free(names);
    return rc;
}

int kv_device_open(struct kv_device **device, const char *name, struct kv_error *e) {
    *device = NULL;
    KV_GUARD(e);
    const char *shipped = NULL, *end = strrchr(name, '.');
    char *text = NULL;
    size_t n = 0;
    const struct kv_asset *a;
    for (size_t i = 0; (a = shipped_at(i)); i++) {
        size_t length = shipped_name(a, &shipped);
        if (strlen(name) == length && strncmp(name, shipped, length) == 0) break;
    }
    if (!a) {
        bool is_path = strchr(name, '/') || (end && strcmp(end, ".json") == 0);
        if (!is_path && access(name, R_OK) != 0) return unknown_device(name, e);
        int rc = kv_read_file(name, &text, &n, e);
        if (rc) return rc;
    }
    struct kv_device *d = kv_device_new();
    int rc = a ? read_device(d, (const char *)a->data, a->n, a->path, e)
               : read_device(d, text, n, name, e);
    free(text);
    if (rc)
        kv_device_free(d);
    else
        *device = d;
    return rc;
}

const char *kv_device_default_name(void) {
    KV_GUARD_ELSE(return NULL);
    static _Thread_local char chosen[96];
    const char *name;
    double least_values = INFINITY, least_error = INFINITY;
    *chosen = 0;
    for (size_t i = 0; (name = kv_device_name_at(i)); i++) {
        struct kv_device *d;
        struct kv_error ignored;
        if (kv_tolerate(kv_device_open(&d, name, &ignored), &ignored)) continue;
        double values = (double)d->shape.n_layers * d->shape.n_kv_heads * d->shape.head_dim;
        double error = isnan(d->share_error_median) ? 1e9 : d->share_error_median;
        if (d->threads == 0) values += 1e18; // a GPU only where no CPU is shipped
        if (values < least_values || (values == least_values && error < least_error)) {
            least_values = values;
            least_error = error;
            snprintf(chosen, sizeof chosen, "%s", name);
        }
        kv_device_free(d);
    }
    return *chosen ? chosen : NULL;
}

// ---- writing --------------------------------------------------------------------------

// Six digits, large numbers without an exponent.
static void add_number(struct kv_text *t, double x) {
    kv_text_addf(t, fabs(x) >= 1e5 ? "%.0f" : "%.6g", x);
}

static void add_costs(struct kv_text *t, const char *key, const double *c_ns) {
    kv_text_addf(t, "  \"%s\": {", key);
    const char *comma = "";
    for (size_t w = 1; w < KV_COST_BINS; w++) {
        if (isnan(c_ns[w])) continue;
        kv_text_addf(t, "%s\"%s\": %.6g", comma, kv_cost_bin_name(w), c_ns[w]);
        comma = ", ";
    }
    kv_text_addf(t, "},\n");
}

char *kv_device_text(const struct kv_device *d) {
    KV_GUARD_ELSE(return NULL);
    struct kv_text t = {0};
    kv_text_addf(&t, "{\n");
    for (size_t i = 0; i < n_text_fields; i++) {
        kv_text_addf(&t, "  \"%s\": ", text_fields[i].key);
        kv_json_add_string(&t, *text_at(d, text_fields[i].at));
        kv_text_addf(&t, ",\n");
    }
    kv_text_addf(&t, "  \"threads\": %u,\n  \"shape\": {", d->threads);
    for (size_t i = 0; i < KV_N_SHAPE_FIELDS; i++) {
        uint32_t v = kv_shape_get(&d->shape, i);
        if (v) kv_text_addf(&t, "%s\"%s\": %u", i ? ", " : "", kv_shape_fields[i].word, v);
    }
    kv_text_addf(&t, "},\n");
    if (d->sliding.layers)
        kv_text_addf(&t, "  \"sliding\": {\"layers\": %u, \"tokens\": %u},\n", d->sliding.layers,
                     d->sliding.tokens);
    for (size_t i = 0; i < n_number_fields; i++) {
        double v = *number_at(d, number_fields[i].at);
        if (!isfinite(v)) continue;
        kv_text_addf(&t, "  \"%s\": ", number_fields[i].key);
        add_number(&t, v);
        kv_text_addf(&t, ",\n");
    }
    add_costs(&t, "key_ns", d->c_ns[KV_KEY]);
    add_costs(&t, "value_ns", d->c_ns[KV_VALUE]);
    kv_text_addf(&t, "  \"context_tokens\": [%u, %u]", d->context_min, d->context_max);
    for (size_t i = 0; i < d->n_ports; i++)
        kv_text_addf(&t, "%s%u%s", i ? ", " : ",\n  \"ports\": [", d->ports[i],
                     i + 1 == d->n_ports ? "]" : "");
    for (size_t i = 0; i < d->n_intervals; i++) {
        kv_text_addf(&t, i ? ",\n    " : ",\n  \"intervals_95\": {\n    ");
        kv_json_add_string(&t, d->intervals[i].name);
        kv_text_addf(&t, ": [");
        add_number(&t, d->intervals[i].low);
        kv_text_addf(&t, ", ");
        add_number(&t, d->intervals[i].high);
        kv_text_addf(&t, "]%s", i + 1 == d->n_intervals ? "\n  }" : "");
    }
    if (d->n_runs) {
        kv_text_addf(&t, ",\n  \"runs_from\": ");
        kv_json_add_string(&t, d->runs_meta);
        kv_text_addf(&t, ",\n  \"runs\": ");
        kv_runs_add_json(&t, d->runs, d->n_runs);
    }
    kv_text_addf(&t, "\n}\n");
    return kv_text_take(&t);
}
