// SPDX-License-Identifier: Apache-2.0
// Short names of specs for tables and figures: what is at its default is not said.
#include "sim/store/label.h"

#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "sim/replay/spec.h"

// The parameters a name may have: its own and those that all of its kind share; NULL = none known.
struct known {
    const struct kv_param *own, *common;
};

static struct known known_format(const char *name) {
    const struct kv_format_type *f;
    for (size_t i = 0; (f = kv_format_type_at(i)); i++)
        if (strcmp(f->name, name) == 0) return (struct known){f->params, kv_format_common_params};
    return (struct known){0};
}

static struct known known_policy(const char *name) {
    const struct kv_policy *p;
    for (size_t i = 0; (p = kv_policy_at(i)); i++)
        if (strcmp(p->name, name) == 0) return (struct known){p->params, NULL};
    return (struct known){0};
}

static bool is_default(struct known k, const char *key, const char *value) {
    const struct kv_param *tables[] = {k.own, k.common};
    for (size_t t = 0; t < 2; t++)
        for (const struct kv_param *p = tables[t]; p && p->name; p++)
            if (strcmp(p->name, key) == 0 && p->fallback) {
                // One of several that a default names: weights=shipped, weights=shipped/NAME.
                size_t n = strlen(p->fallback);
                return strncmp(p->fallback, value, n) == 0 &&
                       (value[n] == 0 || (n && p->type == KV_TEXT && value[n] == '/'));
            }
    return false;
}

const char *kv_uniform_width(const struct kv_spec *policy) {
    const char *k = kv_spec_value(policy, "k"), *v = kv_spec_value(policy, "v");
    bool equal = strcmp(policy->name, "static") == 0 && k && v && strcmp(k, v) == 0;
    return equal && !kv_spec_value(policy, "bits") ? k : NULL;
}

bool kv_spec_shuffles(const struct kv_spec_parts *shuffle, const struct kv_spec_parts *of) {
    const struct kv_spec *s = shuffle->policies;
    return shuffle->n_policies && strcmp(s->name, "shuffle") == 0 && s->inner &&
           strcmp(s->inner, of->policy_text) == 0 &&
           strcmp(shuffle->format_text, of->format_text) == 0;
}

// The first digits of a digest tell builds of one file apart, as Git's do.
enum { DIGEST_SHOWN = 4 };

const char *kv_spec_digest(const struct kv_spec_parts *p, const char **file) {
    for (size_t i = 0; i < p->n_policies; i++) {
        const struct kv_spec *s = &p->policies[i];
        const char *digest = kv_spec_value(s, "digest"), *weights = kv_spec_value(s, "weights");
        if (!digest) continue;
        *file = weights ? weights : s->name;
        return digest;
    }
    return NULL;
}

// A list over layers or heads has a number for each of them; a name has room for few.
enum { LIST_SHOWN = 8 };

// Whether a value is a list of more numbers than that, and their mean.
static bool long_list(const char *value, double *mean) {
    double sum = 0;
    size_t n = 0;
    for (const char *at = value; at; n++) {
        char *end;
        double x = strtod(at, &end);
        if (end == at || (*end && *end != '/') || !isfinite(x)) return false;
        sum += x;
        at = *end ? end + 1 : NULL;
    }
    *mean = sum / (double)n;
    return n > LIST_SHOWN;
}

// The pair behind whose value the digest of a spec's long lists stands: the last of these.
// s->n_pairs = there is none.
static size_t last_long_list(const struct kv_spec *s, char digest[17]) {
    struct kv_text all = {0};
    size_t last = s->n_pairs;
    double mean;
    for (size_t i = 0; i < s->n_pairs; i++)
        if (long_list(s->values[i], &mean)) {
            kv_text_addf(&all, "%s=%s,", s->keys[i], s->values[i]);
            last = i;
        }
    kv_hex64(kv_hash(all.s, all.n, 0), digest);
    free(all.s);
    return last;
}

static void add_pair(struct kv_text *t, char separator, const char *key, const char *value) {
    double mean;
    if (long_list(value, &mean))
        kv_text_addf(t, "%c%s~%.2f", separator, key, mean);
    else
        kv_text_addf(t, "%c%s=%s", separator, key, value);
}

// Adds one half of a spec to t: s[n], wrappers first. `keep_order`: the channel order is worth
// saying.
static void add_half(struct kv_text *t, const struct kv_spec *s, size_t n, bool format,
                     bool keep_order) {
    struct known k = format ? known_format(s->name) : known_policy(s->name);
    bool fold = !format && kv_uniform_width(s); // written as "static:bits=4"
    char separator = ':';
    const char *digest = format ? NULL : kv_spec_value(s, "digest");
    const char *holder = !digest ? "" : kv_spec_value(s, "weights") ? "weights" : s->name;
    char lists[17];
    size_t last_list = last_long_list(s, lists);
    kv_text_addf(t, "%s", s->name);
    if (holder == s->name) kv_text_addf(t, "#%.*s", DIGEST_SHOWN, digest);
    if (s->inner) {
        kv_text_add(t, "(", 1);
        if (n > 1)
            add_half(t, s + 1, n - 1, format, keep_order);
        else
            kv_text_addf(t, "%s", s->inner);
        kv_text_add(t, ")", 1);
    }
    for (size_t i = 0; i < s->n_pairs; i++) {
        const char *key = s->keys[i];
        if (is_default(k, key, s->values[i])) continue;
        if (!format && strcmp(key, "digest") == 0) continue; // stands behind the file's name
        if (format && !keep_order && strcmp(key, "order") == 0) continue;
        if (fold && strcmp(key, "v") == 0) continue;
        add_pair(t, separator, fold && strcmp(key, "k") == 0 ? "bits" : key, s->values[i]);
        if (strcmp(holder, key) == 0) kv_text_addf(t, "#%.*s", DIGEST_SHOWN, digest);
        if (i == last_list) kv_text_addf(t, "#%.*s", DIGEST_SHOWN, lists);
        separator = ',';
    }
}

static char *shorten(const struct kv_spec_parts *p, bool keep_order) {
    struct kv_text t = {0};
    if (p->n_policies)
        add_half(&t, p->policies, p->n_policies, false, true);
    else
        kv_text_addf(&t, "%s", p->policy_text);
    if (*p->format_text) kv_text_add(&t, "@", 1);
    if (p->n_formats)
        add_half(&t, p->formats, p->n_formats, true, keep_order);
    else
        kv_text_addf(&t, "%s", p->format_text);
    return kv_text_take(&t);
}

// A spec to be named.
struct subject {
    const char *spec;
    const struct kv_spec_parts *parts;
    const struct kv_format_setting *setting; // NULL = unknown
};

static bool orders_differ(const struct subject *s, size_t n) {
    const char *first = NULL;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < s[i].parts->n_formats; k++) {
            const char *order = kv_spec_value(&s[i].parts->formats[k], "order");
            if (order && first && strcmp(order, first) != 0) return true;
            if (order) first = order;
        }
    return false;
}

// Whether the format of a spec takes its channel order by itself, for its trace's shape.
static bool takes_order(const struct subject *s) {
    struct kv_text t = {0};
    struct kv_format *f = NULL;
    struct kv_error ignored;
    add_half(&t, s->parts->formats, s->parts->n_formats, true, false);
    bool opened = kv_tolerate(kv_format_open(&f, t.s, s->setting, &ignored), &ignored) == 0,
         same = opened && strcmp(f->canonical, s->parts->format_text) == 0;
    if (opened) kv_format_close(f);
    free(t.s);
    return same;
}

// The short form, with the channel order only where it is not the one the format takes by itself.
static char *label_of(const struct subject *s, bool keep_order) {
    if (s->setting && s->parts->n_formats) keep_order = !takes_order(s);
    return shorten(s->parts, keep_order);
}

static void label_all(const struct subject *s, size_t n, char **labels) {
    bool *alike = kv_alloc(n + 1, sizeof *alike), keep_order = orders_differ(s, n);
    for (size_t i = 0; i < n; i++) labels[i] = label_of(&s[i], keep_order);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            if (strcmp(labels[i], labels[j]) == 0 && strcmp(s[i].spec, s[j].spec) != 0)
                alike[i] = true;
    for (size_t i = 0; i < n; i++) {
        if (!alike[i]) continue;
        free(labels[i]);
        labels[i] = kv_strdup(s[i].spec);
    }
    free(alike);
}

void kv_spec_labels(const char *const *specs, const struct kv_format_setting *const *settings,
                    size_t n, char **labels) {
    struct subject *all = kv_alloc(n + 1, sizeof *all);
    struct kv_spec_parts *parts = kv_alloc(n + 1, sizeof *parts);
    for (size_t i = 0; i < n; i++) {
        kv_spec_take_apart(&parts[i], specs[i]);
        all[i] = (struct subject){specs[i], &parts[i], settings ? settings[i] : NULL};
    }
    label_all(all, n, labels);
    for (size_t i = 0; i < n; i++) kv_spec_parts_fini(&parts[i]);
    free(parts);
    free(all);
}

char *kv_spec_label(const char *spec) {
    char *label;
    kv_spec_labels(&spec, NULL, 1, &label);
    return label;
}

int kv_store_label(struct kv_store *s, long long trace, const char *spec, char **label,
                   struct kv_error *e) {
    struct kv_store_setting *settings;
    const struct kv_format_setting *own = NULL;
    size_t n;
    *label = NULL;
    int code = kv_store_settings(s, &settings, &n, e);
    if (code) return code;
    for (size_t i = 0; i < n; i++)
        if (settings[i].trace == trace) own = &settings[i].setting;
    kv_spec_labels(&spec, &own, 1, label);
    free(settings);
    return 0;
}

static int take_spec(void *self, size_t n, const char *const *names,
                     const struct kv_sql_value *values, struct kv_error *e) {
    char **spec = self;
    (void)n, (void)names, (void)e;
    if (!*spec) *spec = kv_strdup(values[0].text);
    return 0;
}

int kv_name_check(const char *name, struct kv_error *e) {
    size_t width, n = strlen(name);
    char *clean = kv_printable(name, &width);
    bool fits = n && width <= KV_NAME_CHARACTERS && strcmp(clean, name) == 0 && name[0] != ' ' &&
                name[n - 1] != ' ' && !strpbrk(name, "@=#");
    int code = fits ? 0
                    : kv_fail(e, KV_EUSAGE, "as",
                              "'%s': a name of 1 to %d characters is expected, without '@', '=' "
                              "and '#'",
                              clean, KV_NAME_CHARACTERS);
    free(clean);
    return code;
}

int kv_store_name(struct kv_store *s, const char *spec, const char *name, struct kv_error *e) {
    KV_GUARD(e);
    char *other = NULL;
    const struct kv_sql_value values[] = {kv_sql_text(name), kv_sql_text(spec)};
    int code = kv_name_check(name, e);
    if (!code)
        code = kv_store_query(s, "SELECT spec FROM policy_spec WHERE name = ? AND spec <> ?",
                              values, 2, take_spec, &other, e);
    if (!code && other)
        code = kv_fail(e, KV_EUSAGE, kv_store_path(s), "'%s' is its name of another spec, %s", name,
                       other);
    if (!code)
        code = kv_store_query(s, "UPDATE policy_spec SET name = ? WHERE spec = ?", values, 2, NULL,
                              NULL, e);
    free(other);
    return code;
}

int kv_store_spec(struct kv_store *s, const char *called, char **spec, struct kv_error *e) {
    *spec = NULL;
    KV_GUARD(e);
    const struct kv_sql_value text = kv_sql_text(called);
    return kv_store_query(s,
                          "SELECT MIN(s.spec) FROM policy_spec AS s JOIN run AS r ON r.spec = s.id "
                          "WHERE s.name = ?1 OR r.label = ?1 HAVING COUNT(DISTINCT s.id) = 1",
                          &text, 1, take_spec, spec, e);
}

struct unnamed {
    size_t n;
    long long *run, *trace;
    char **spec;
};

static int take_unnamed(void *self, size_t n, const char *const *names,
                        const struct kv_sql_value *values, struct kv_error *e) {
    struct unnamed *u = self;
    (void)n, (void)names, (void)e;
    u->run = kv_grow(u->run, u->n + 1, sizeof *u->run);
    u->trace = kv_grow(u->trace, u->n + 1, sizeof *u->trace);
    u->spec = kv_grow(u->spec, u->n + 1, sizeof *u->spec);
    u->run[u->n] = values[0].n;
    u->trace[u->n] = values[1].n;
    u->spec[u->n++] = kv_strdup(values[2].text);
    return 0;
}

int kv_store_label_runs(struct kv_store *s, struct kv_error *e) {
    struct unnamed u = {0};
    int code = kv_store_query(s,
                              "SELECT r.id, r.trace, s.spec FROM run AS r JOIN policy_spec AS s "
                              "ON s.id = r.spec WHERE r.label = ''",
                              NULL, 0, take_unnamed, &u, e);
    for (size_t i = 0; i < u.n; i++) {
        char *label = NULL;
        if (!code) code = kv_store_label(s, u.trace[i], u.spec[i], &label, e);
        const struct kv_sql_value values[] = {kv_sql_text(label), kv_sql_int(u.run[i])};
        if (!code)
            code = kv_store_query(s, "UPDATE run SET label = ? WHERE id = ?", values, 2, NULL, NULL,
                                  e);
        free(label);
        free(u.spec[i]);
    }
    free(u.run);
    free(u.trace);
    free(u.spec);
    return code;
}
