// SPDX-License-Identifier: Apache-2.0
// Short names of specs for tables and figures: what is at its default is not said.
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "analysis/results/rows.h"
#include "sim/replay/spec.h"

#include <stdlib.h>

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
            if (strcmp(p->name, key) == 0) return p->fallback && strcmp(p->fallback, value) == 0;
    return false;
}

// "static:k=4,v=4" reads as "static:bits=4", the way it is written.
static bool equal_sides(const struct kv_spec *s) {
    const char *side[2] = {NULL, NULL};
    for (size_t i = 0; i < s->n_pairs; i++) {
        if (strcmp(s->keys[i], "bits") == 0) return false;
        if (strcmp(s->keys[i], "k") == 0) side[0] = s->values[i];
        if (strcmp(s->keys[i], "v") == 0) side[1] = s->values[i];
    }
    return strcmp(s->name, "static") == 0 && side[0] && side[1] && strcmp(side[0], side[1]) == 0;
}

// Adds one half of a spec to t. `keep_order`: the channel order is worth saying.
static void add_half(struct kv_text *t, const char *text, bool format, bool keep_order) {
    struct kv_error ignored;
    struct kv_spec s;
    if (kv_spec_parse(&s, text, &ignored)) {
        kv_text_addf(t, "%s", text);
        return;
    }
    struct known k = format ? known_format(s.name) : known_policy(s.name);
    bool fold = !format && equal_sides(&s);
    char separator = ':';
    kv_text_addf(t, "%s", s.name);
    if (s.inner) {
        kv_text_add(t, "(", 1);
        add_half(t, s.inner, format, keep_order);
        kv_text_add(t, ")", 1);
    }
    for (size_t i = 0; i < s.n_pairs; i++) {
        const char *key = s.keys[i];
        if (is_default(k, key, s.values[i])) continue;
        if (!format && strcmp(key, "digest") == 0) continue; // of a file that the label names
        if (format && !keep_order && strcmp(key, "order") == 0) continue;
        if (fold && strcmp(key, "v") == 0) continue;
        kv_text_addf(t, "%c%s=%s", separator, fold && strcmp(key, "k") == 0 ? "bits" : key,
                     s.values[i]);
        separator = ',';
    }
    kv_spec_fini(&s);
}

static char *shorten(const char *spec, bool keep_order) {
    struct kv_text t = {0};
    struct kv_error ignored;
    char *policy, *format;
    if (kv_spec_split(spec, &policy, &format, &ignored)) return kv_strdup(spec);
    add_half(&t, policy, false, true);
    if (format && *format) {
        kv_text_add(&t, "@", 1);
        add_half(&t, format, true, keep_order);
    }
    free(policy);
    free(format);
    return kv_text_take(&t);
}

static bool orders_differ(const char *const *specs, size_t n) {
    bool seen[2] = {false, false};
    for (size_t i = 0; i < n; i++) {
        seen[0] = seen[0] || strstr(specs[i], "order=ggml");
        seen[1] = seen[1] || strstr(specs[i], "order=hf");
    }
    return seen[0] && seen[1];
}

// The short form, with the channel order only where it is not the one the format takes by itself.
static char *label_of(const char *spec, const struct kv_format_setting *setting, bool keep_order) {
    struct kv_error ignored;
    char *brief = shorten(spec, false), *back = NULL;
    if (setting && kv_spec_canonical(brief, setting, &back, &ignored) == 0)
        keep_order = strcmp(back, spec) != 0;
    free(back);
    if (!keep_order) return brief;
    free(brief);
    return shorten(spec, true);
}

void kv_spec_labels(const char *const *specs, const struct kv_format_setting *const *settings,
                    size_t n, char **labels) {
    bool keep_order = orders_differ(specs, n);
    bool *alike = kv_alloc(n + 1, sizeof *alike);
    for (size_t i = 0; i < n; i++)
        labels[i] = label_of(specs[i], settings ? settings[i] : NULL, keep_order);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            if (strcmp(labels[i], labels[j]) == 0 && strcmp(specs[i], specs[j]) != 0)
                alike[i] = true;
    for (size_t i = 0; i < n; i++) {
        if (!alike[i]) continue;
        free(labels[i]);
        labels[i] = kv_strdup(specs[i]);
    }
    free(alike);
}
