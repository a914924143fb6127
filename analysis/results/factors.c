// SPDX-License-Identifier: Apache-2.0
// The factors that a store's runs differ in, read off their specs and settings.
#include "analysis/results/factors.h"

#include <stdlib.h>

#include "sim/base/memory.h"

enum { MAX_KEYS = 64 };

// A run as a list of "factor = level" in words. Owns its texts.
struct words {
    size_t n;
    char *name[MAX_KEYS], *value[MAX_KEYS];
    bool of_format[MAX_KEYS]; // a key that another format may lack
};

static void add(struct words *w, const char *name, const char *value, bool of_format) {
    if (w->n == MAX_KEYS) return;
    w->name[w->n] = kv_strdup(name);
    w->value[w->n] = kv_strdup(value);
    w->of_format[w->n++] = of_format;
}

static const char *find(const struct words *w, const char *name) {
    for (size_t i = 0; i < w->n; i++)
        if (strcmp(w->name[i], name) == 0) return w->value[i];
    return NULL;
}

static void set(struct words *w, const char *name, const char *value) {
    for (size_t i = 0; i < w->n; i++)
        if (strcmp(w->name[i], name) == 0) {
            free(w->value[i]);
            w->value[i] = kv_strdup(value);
        }
}

static void drop(struct words *w, const char *name) {
    for (size_t i = 0; i < w->n; i++) {
        if (strcmp(w->name[i], name) != 0) continue;
        free(w->name[i]);
        free(w->value[i]);
        for (w->n--; i < w->n; i++) {
            w->name[i] = w->name[i + 1];
            w->value[i] = w->value[i + 1];
            w->of_format[i] = w->of_format[i + 1];
        }
        return;
    }
}

// "hadamard(sym:group=64):sides=both": the wrapper is the rotation, its keys but for those that the
// inner format has too are left.
static void add_format(struct words *w, const struct kv_spec *s, size_t n) {
    const struct kv_spec *keys = n > 1 ? &s[1] : s;
    const char *sides = n > 1 ? kv_spec_value(s, "sides") : NULL;
    add(w, "format", n > 1 ? keys->name : s->inner ? "" : s->name, false);
    add(w, "rotation", s->inner ? s->name : "none", false);
    if (sides && strcmp(sides, "both") != 0) {
        char *level = kv_format_text("%s of %s", s->name, sides);
        set(w, "rotation", level);
        free(level);
    }
    for (size_t i = 0; i < keys->n_pairs; i++)
        if (!find(w, keys->keys[i])) add(w, keys->keys[i], keys->values[i], true);
}

static void take_apart(struct words *w, const struct kv_summary *row) {
    const struct kv_spec_parts *p = &row->parts;
    const struct kv_spec *policy = p->policies;
    *w = (struct words){0};
    if (p->n_formats) add_format(w, p->formats, p->n_formats);
    if (p->n_policies) add(w, "policy", p->policy_text, false);
    for (size_t i = 0; p->n_policies && i < policy->n_pairs; i++)
        if (strcmp(policy->name, "static") == 0) add(w, policy->keys[i], policy->values[i], false);
    add(w, "mode", kv_mode_names[row->mode], false);
    add(w, "own step", kv_self_names[row->self], false);
    add(w, "compute", row->compute, false);
}

static void free_words(struct words *w) {
    for (size_t i = 0; i < w->n; i++) {
        free(w->name[i]);
        free(w->value[i]);
    }
}

// ---- all runs together ----------------------------------------------------------------

static bool varies(const struct words *rows, size_t n, const char *name) {
    const char *first = find(&rows[0], name);
    for (size_t i = 1; i < n; i++) {
        const char *other = find(&rows[i], name);
        if (!first != !other || (first && strcmp(first, other) != 0)) return true;
    }
    return false;
}

static bool all_have(const struct words *rows, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (!find(&rows[i], name)) return false;
    return true;
}

// Folds a key that some formats lack into the format's level. Only values that differ among those
// that have it are worth a word.
static void fold(struct words *rows, size_t n, const char *name) {
    const char *usual = NULL;
    bool differs = false;
    for (size_t i = 0; i < n; i++) {
        const char *value = find(&rows[i], name);
        if (value && usual && strcmp(value, usual) != 0) differs = true;
        if (value && !usual) usual = value;
    }
    for (size_t i = 0; i < n; i++) {
        const char *value = find(&rows[i], name);
        if (value && differs) {
            char *level = kv_format_text("%s:%s=%s", find(&rows[i], "format"), name, value);
            set(&rows[i], "format", level);
            free(level);
        }
    }
    for (size_t i = 0; i < n; i++) drop(&rows[i], name);
}

static void fold_partial_keys(struct words *rows, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < rows[i].n;) {
            if (rows[i].of_format[k] && !all_have(rows, n, rows[i].name[k])) {
                char *name = kv_strdup(rows[i].name[k]);
                fold(rows, n, name); // the key at k is gone
                free(name);
            } else {
                k++;
            }
        }
}

// Uniform widths are told by k and v, or by "bits" where these are always equal; where other
// policies are among them, each policy is a level of its own.
static void join_sides(struct words *rows, size_t n) {
    bool uniform = all_have(rows, n, "k") && all_have(rows, n, "v");
    for (size_t i = 0; i < n; i++) {
        if (uniform) {
            drop(&rows[i], "policy");
            continue;
        }
        drop(&rows[i], "k");
        drop(&rows[i], "v");
    }
    for (size_t i = 0; i < n; i++) {
        const char *k = find(&rows[i], "k"), *v = find(&rows[i], "v");
        if (!k || !v || strcmp(k, v) != 0) return;
    }
    for (size_t i = 0; i < n; i++) {
        add(&rows[i], "bits", find(&rows[i], "k"), false);
        drop(&rows[i], "k");
        drop(&rows[i], "v");
    }
}

static int add_factor(struct kv_factors *f, const struct words *rows, const char *name,
                      struct kv_error *e) {
    size_t k = f->n;
    if (k == KV_MAX_FACTORS)
        return kv_fail(e, KV_EFAIL, "attribute", "the runs differ in more than %d things",
                       KV_MAX_FACTORS);
    f->name[f->n++] = kv_strdup(name);
    for (size_t i = 0; i < f->n_rows; i++) {
        const char *value = find(&rows[i], name);
        size_t l = 0;
        if (!value) value = "none";
        while (l < f->n_levels[k] && strcmp(f->level_name[k][l], value) != 0) l++;
        if (l == KV_MAX_LEVELS)
            return kv_fail(e, KV_EFAIL, "attribute",
                           "'%s' has more than %d values; choose some runs with --only", name,
                           KV_MAX_LEVELS);
        if (l == f->n_levels[k]) f->level_name[k][f->n_levels[k]++] = kv_strdup(value);
        f->level[i * KV_MAX_FACTORS + k] = l;
    }
    return 0;
}

int kv_factors_find(struct kv_factors *f, const struct kv_summary *const *rows, size_t n_rows,
                    struct kv_error *e) {
    // What one asks for first, so that what follows from it is left out and not it.
    static const char *const order[] = {"policy", "format", "group", "rotation", "bits",
                                        "k",      "v",      "mode",  "own step"};
    enum { N_ORDER = sizeof order / sizeof *order };
    struct words *w = kv_alloc(n_rows + 1, sizeof *w);
    int code = 0;
    *f = (struct kv_factors){.n_rows = n_rows};
    f->level = kv_alloc(n_rows * KV_MAX_FACTORS + 1, sizeof *f->level);
    for (size_t i = 0; i < n_rows; i++) take_apart(&w[i], rows[i]);
    fold_partial_keys(w, n_rows);
    if (n_rows) join_sides(w, n_rows);
    for (size_t k = 0; !code && n_rows && k < N_ORDER; k++)
        if (varies(w, n_rows, order[k])) code = add_factor(f, w, order[k], e);
    for (size_t i = 0; !code && i < n_rows; i++)
        for (size_t k = 0; !code && k < w[i].n; k++) {
            bool known = !varies(w, n_rows, w[i].name[k]);
            for (size_t j = 0; j < f->n; j++)
                known = known || strcmp(f->name[j], w[i].name[k]) == 0;
            if (!known) code = add_factor(f, w, w[i].name[k], e);
        }
    if (!code && f->n == 0)
        code = kv_fail(e, KV_EFAIL, "attribute",
                       "the runs differ in nothing that could explain their results");
    for (size_t i = 0; i < n_rows; i++) free_words(&w[i]);
    free(w);
    // From rows of KV_MAX_FACTORS to rows of n.
    for (size_t i = 0; i < n_rows; i++)
        memmove(&f->level[i * f->n], &f->level[i * KV_MAX_FACTORS], f->n * sizeof *f->level);
    if (code) kv_factors_fini(f);
    return code;
}

void kv_factors_fini(struct kv_factors *f) {
    for (size_t k = 0; k < f->n; k++) {
        free(f->name[k]);
        for (size_t l = 0; l < f->n_levels[k]; l++) free(f->level_name[k][l]);
    }
    free(f->level);
    *f = (struct kv_factors){0};
}
