// SPDX-License-Identifier: Apache-2.0
// The specs of a sweep, read from words and files.
#include "analysis/studies/sweep_specs.h"

#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/store/label.h"

// What is the same for all that is added.
struct reading {
    struct kv_spec_list *l;
    const struct kv_format_setting *setting;
    uint64_t seed;
};

static int give_name(struct kv_spec_list *l, size_t i, const char *name, struct kv_error *e) {
    int rc = kv_name_check(name, e);
    if (rc) return rc;
    for (size_t k = 0; k < l->n; k++)
        if (k != i && l->name[k] && strcmp(l->name[k], name) == 0)
            return kv_fail(e, KV_EUSAGE, "as", "'%s' is the name of two specs: %s and %s", name,
                           l->at[k].canonical, l->at[i].canonical);
    if (l->name[i] && strcmp(l->name[i], name) != 0)
        return kv_fail(e, KV_EUSAGE, "as", "%s is named '%s' and '%s'", l->at[i].canonical,
                       l->name[i], name);
    free(l->name[i]);
    l->name[i] = NULL;
    l->name[i] = kv_strdup(name);
    return 0;
}

// The place of a spec among those that are there; l->n = none.
static size_t place_of(const struct kv_spec_list *l, const char *canonical) {
    size_t i = 0;
    while (i < l->n && strcmp(l->at[i].canonical, canonical) != 0) i++;
    return i;
}

static int add_spec(const struct reading *r, const char *text, bool alone, const char *name,
                    struct kv_error *e) {
    struct kv_spec_list *l = r->l;
    struct kv_replay_spec spec;
    int rc = kv_replay_spec_open(&spec, text, r->setting, r->seed, e);
    if (rc == KV_ENOTOFFERED && !alone) { // an impossible pair of an expansion
        kv_say("skipped %s: %s", text, e->msg);
        return 0;
    }
    if (rc) return rc;
    size_t at = place_of(l, spec.canonical);
    if (at < l->n) {
        kv_replay_spec_close(&spec);
    } else {
        l->at = kv_grow(l->at, l->n + 1, sizeof *l->at);
        l->name = kv_grow(l->name, l->n + 1, sizeof *l->name);
        l->name[l->n] = NULL;
        l->at[l->n++] = spec;
    }
    return name ? give_name(l, at, name, e) : 0;
}

static int add_expanded(const struct reading *r, const char *text, const char *name,
                        struct kv_error *e) {
    char **list;
    size_t n;
    int rc = kv_spec_expand(text, &list, &n, e);
    if (rc == 0 && name && n > 1)
        rc = kv_fail(e, KV_EUSAGE, text, "is %zu specs, and '%s' is the name of one", n, name);
    for (size_t i = 0; i < n && rc == 0; i++) rc = add_spec(r, list[i], n == 1, name, e);
    kv_list_free(list, n);
    return rc;
}

// One line of a sweep file, cut up in place.
static int add_line(const struct reading *r, char *line, struct kv_error *e) {
    static const char as[] = "as=";
    line[strcspn(line, "#\r")] = '\0';
    line += strspn(line, " \t");
    size_t n = strcspn(line, " \t"), end = strlen(line);
    while (end && strchr(" \t", line[end - 1])) line[--end] = '\0';
    char *behind = line + n + strspn(line + n, " \t"), *name = NULL;
    if (strncmp(behind, as, sizeof as - 1) == 0)
        name = behind + sizeof as - 1;
    else if (*behind)
        return kv_fail(e, KV_EUSAGE, behind,
                       "stands behind a spec; a line holds one, and as=NAME behind it");
    line[n] = '\0';
    return n ? add_expanded(r, line, name, e) : 0;
}

static int add_file(const struct reading *r, const char *path, struct kv_error *e) {
    char *text, *line, *rest;
    size_t n, number = 0;
    int rc = kv_read_lines(path, &text, &n, e);
    if (rc) return rc;
    for (rest = text; rc == 0 && (line = strsep(&rest, "\n"));) {
        number++;
        if ((rc = add_line(r, line, e))) {
            struct kv_error inner = *e;
            kv_fail(e, rc, path, "line %zu: %s: %s", number, inner.where, inner.msg);
        }
    }
    free(text);
    return rc;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n > m && strcmp(s + n - m, end) == 0;
}

int kv_spec_list_add(struct kv_spec_list *l, const char *word,
                     const struct kv_format_setting *setting, uint64_t seed, struct kv_error *e) {
    const struct reading r = {l, setting, seed};
    return ends_with(word, ".sweep") ? add_file(&r, word, e) : add_expanded(&r, word, NULL, e);
}

int kv_spec_list_add_named(struct kv_spec_list *l, const char *text,
                           const struct kv_format_setting *setting, uint64_t seed,
                           struct kv_error *e) {
    const struct reading r = {l, setting, seed};
    const char *equal = strchr(text, '=');
    if (!equal || equal == text || !equal[1])
        return kv_fail(e, KV_EUSAGE, "as", "'%s': NAME=SPEC is expected", text);
    char *name = kv_format_text("%.*s", (int)(equal - text), text);
    int rc = add_expanded(&r, equal + 1, name, e);
    free(name);
    return rc;
}

void kv_spec_list_fini(struct kv_spec_list *l) {
    for (size_t i = 0; i < l->n; i++) {
        kv_replay_spec_close(&l->at[i]);
        free(l->name[i]);
    }
    free(l->at);
    free(l->name);
    *l = (struct kv_spec_list){0};
}
