// SPDX-License-Identifier: Apache-2.0
// Values of a spec checked against parameter tables; canonical text; the nearest name for a typo.
#include "sim/base/args.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"

#include <stdlib.h>

static size_t table_length(const struct kv_param *p) {
    size_t n = 0;
    while (p && p[n].name) n++;
    return n;
}

// Optimal string alignment distance (insert, delete, replace, swap neighbours), texts up to 63
// long.
static size_t distance(const char *a, const char *b) {
    size_t la = strlen(a), lb = strlen(b), d[3][64];
    if (la > 63 || lb > 63) return SIZE_MAX;
    for (size_t j = 0; j <= lb; j++) d[0][j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t *row = d[i % 3], *up = d[(i + 2) % 3], *up2 = d[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t best = up[j - 1] + (a[i - 1] != b[j - 1]);
            if (up[j] + 1 < best) best = up[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                up2[j - 2] + 1 < best)
                best = up2[j - 2] + 1;
            row[j] = best;
        }
    }
    return d[la % 3][lb];
}

const char *kv_nearest(const char *name, const char *const *candidates) {
    const char *best = NULL;
    size_t best_distance =
        (strlen(name) + 5) / 3; // a typo or two in a short name, a third of a long one
    for (; *candidates; candidates++) {
        size_t d = distance(name, *candidates);
        if (d < best_distance) best_distance = d, best = *candidates;
    }
    return best;
}

int kv_index_of(const char *name, const char *const *names) {
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

static int unknown_key(const char *key, const struct kv_args *a, const char *what,
                       struct kv_error *e) {
    const char **names = kv_alloc(a->n + 1, sizeof *names);
    struct kv_text all = {0};
    for (size_t i = 0; i < a->n; i++) {
        names[i] = a->params[i].name;
        kv_text_addf(&all, "%s%s", i ? ", " : "", names[i]);
    }
    const char *near = kv_nearest(key, names);
    char *known = kv_text_take(&all);
    if (near)
        kv_fail(e, KV_EUSAGE, what, "unknown key '%s'; did you mean '%s'?", key, near);
    else if (*known)
        kv_fail(e, KV_EUSAGE, what, "unknown key '%s'; it has %s", key, known);
    else
        kv_fail(e, KV_EUSAGE, what, "unknown key '%s'; it has none", key);
    free(known);
    free(names);
    return KV_EUSAGE;
}

static int check_number(const struct kv_param *p, const char *text, double *x, const char *what,
                        struct kv_error *e) {
    char *end;
    *x = strtod(text, &end);
    bool whole = p->type != KV_INT || *x == floor(*x);
    bool bounded = p->min < p->max; // a row without bounds takes any number
    if (end != text && *end == '\0' && whole && !isnan(*x) &&
        (!bounded || (*x >= p->min && *x <= p->max)))
        return 0;
    if (bounded)
        return kv_fail(e, KV_EUSAGE, what, "%s=%s: %s must be %s from %g to %g", p->name, text,
                       p->name, p->type == KV_INT ? "a whole number" : "a number", p->min, p->max);
    return kv_fail(e, KV_EUSAGE, what, "%s=%s: %s must be %s", p->name, text, p->name,
                   p->type == KV_INT ? "a whole number" : "a number");
}

static int check_choice(const struct kv_param *p, const char *text, double *index, const char *what,
                        struct kv_error *e) {
    size_t n = strlen(text), i = 0;
    for (const char *c = p->choices; c; i++) {
        const char *slash = strchr(c, '/');
        size_t length = slash ? (size_t)(slash - c) : strlen(c);
        if (length == n && memcmp(c, text, n) == 0) {
            *index = (double)i;
            return 0;
        }
        c = slash ? slash + 1 : NULL;
    }
    return kv_fail(e, KV_EUSAGE, what, "%s=%s: %s must be one of %s", p->name, text, p->name,
                   p->choices);
}

static int check_list(const struct kv_param *p, const char *text, struct kv_value *v,
                      const char *what, struct kv_error *e) {
    double *list = NULL;
    char *copy = kv_strdup(text);
    int rc = 0;
    for (char *rest = copy, *one; rc == 0 && (one = strsep(&rest, "/"));) {
        list = kv_grow(list, v->n_list + 1, sizeof *list);
        rc = check_number(p, one, &list[v->n_list], what, e);
        if (rc == 0) v->n_list++;
    }
    free(copy);
    v->list = list;
    v->number = (double)v->n_list;
    return rc;
}

int kv_args_new(struct kv_args **args, const struct kv_spec *s, const struct kv_param *params,
                const struct kv_param *common, const char *what, struct kv_error *e) {
    size_t n_own = table_length(params), n = n_own + table_length(common);
    struct kv_args *a = kv_alloc(1, sizeof *a);
    struct kv_param *all = kv_alloc(n + 1, sizeof *all);
    struct kv_value *values = kv_alloc(n + 1, sizeof *values);
    if (n_own) memcpy(all, params, n_own * sizeof *all);
    if (n > n_own) memcpy(all + n_own, common, (n - n_own) * sizeof *all);
    *a = (struct kv_args){sizeof *a, all, values, n, s->inner ? kv_strdup(s->inner) : NULL};
    *args = NULL;
    int rc = 0;
    for (size_t i = 0; i < s->n_pairs && rc == 0; i++) {
        size_t k = 0;
        while (k < n && strcmp(all[k].name, s->keys[i]) != 0) k++;
        if (k == n)
            rc = unknown_key(s->keys[i], a, what, e);
        else if (values[k].given)
            rc = kv_fail(e, KV_EUSAGE, what, "key '%s' is given twice", s->keys[i]);
        else {
            values[k].text = kv_strdup(s->values[i]);
            values[k].given = true;
        }
    }
    for (size_t k = 0; k < n && rc == 0; k++) {
        const struct kv_param *p = &all[k];
        if (!values[k].given) {
            if (!p->fallback)
                rc = kv_fail(e, KV_EUSAGE, what, "key '%s' must be given (%s)", p->name, p->help);
            values[k].text = kv_strdup(p->fallback ? p->fallback : "");
        }
        const char *text = values[k].text;
        if (rc || (*text == '\0' && !values[k].given)) continue;
        if (p->type == KV_INT || p->type == KV_FLOAT)
            rc = check_number(p, text, &values[k].number, what, e);
        if (p->type == KV_CHOICE) rc = check_choice(p, text, &values[k].number, what, e);
        if (p->type == KV_LIST) rc = check_list(p, text, &values[k], what, e);
    }
    if (rc)
        kv_args_free(a);
    else
        *args = a;
    return rc;
}

void kv_args_free(struct kv_args *a) {
    if (!a) return;
    for (size_t i = 0; i < a->n; i++) {
        free((void *)a->values[i].text);
        free((void *)a->values[i].list);
    }
    free((void *)a->values);
    free((void *)a->params);
    free((void *)a->inner);
    free(a);
}

// Numbers are spelled alike however the user wrote them: 4, 4.0 and 04 are one policy.
static void add_value(struct kv_text *t, const struct kv_param *p, const struct kv_value *v) {
    if (p->type == KV_INT || p->type == KV_FLOAT)
        kv_text_addf(t, "%.9g", v->number);
    else if (p->type == KV_LIST)
        for (size_t i = 0; i < v->n_list; i++) kv_text_addf(t, "%s%.9g", i ? "/" : "", v->list[i]);
    else
        kv_text_addf(t, "%s", v->text);
}

char *kv_args_canonical(const struct kv_args *a, const char *name) {
    struct kv_text t = {0};
    kv_text_addf(&t, "%s", name);
    if (a->inner) kv_text_addf(&t, "(%s)", a->inner);
    const char *previous = "";
    for (size_t done = 0;; done++) { // selection by name: tables are short
        size_t next = a->n;
        for (size_t i = 0; i < a->n; i++)
            if (*a->values[i].text && strcmp(a->params[i].name, previous) > 0 &&
                (next == a->n || strcmp(a->params[i].name, a->params[next].name) < 0))
                next = i;
        if (next == a->n) break;
        previous = a->params[next].name;
        kv_text_addf(&t, "%c%s=", done ? ',' : ':', previous);
        add_value(&t, &a->params[next], &a->values[next]);
    }
    return kv_text_take(&t);
}
