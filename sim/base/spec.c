// SPDX-License-Identifier: Apache-2.0
// The syntax of specs: name(inner):key=value,..., policy@format, and expansion of {a,b} and
// from..to+step.
#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"

#include <ctype.h>
#include <stdlib.h>

enum {
    MAX_SPECS = 100000,
    MAX_DEPTH = 32,     // of brackets: wrappers within wrappers
    MAX_LENGTH = 65536, // of one spec
};
static const size_t MAX_WORK = (size_t)64 << 20; // characters written while a text is expanded

static char *copy_n(const char *s, size_t n) {
    char *c = memcpy(kv_grow(NULL, n + 1, 1), s, n);
    c[n] = '\0';
    return c;
}

static bool name_char(char c) {
    return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '.' || c == '/';
}

enum { UNBALANCED = -1, TOO_DEEP = -2 };

// Index of the first character of `stop` outside round brackets, or of the end; else one of the
// above.
static long find_outside(const char *s, const char *stop) {
    long depth = 0;
    for (long i = 0;; i++) {
        if (s[i] == '\0') return depth ? UNBALANCED : i;
        if (depth == 0 && strchr(stop, s[i])) return i;
        if (s[i] == '(' && ++depth > MAX_DEPTH) return TOO_DEEP;
        if (s[i] == ')' && --depth < 0) return UNBALANCED;
    }
}

static int fail_brackets(long found, const char *text, struct kv_error *e) {
    return found == TOO_DEEP
               ? kv_fail(e, KV_EUSAGE, text, "brackets nest more than %d deep", MAX_DEPTH)
               : kv_fail(e, KV_EUSAGE, text, "brackets do not match");
}

static int check_length(const char *text, struct kv_error *e) {
    return strlen(text) > MAX_LENGTH
               ? kv_fail(e, KV_EUSAGE, text, "a spec is longer than %d characters", MAX_LENGTH)
               : 0;
}

// These two are unguarded: who calls them here passes over any error but memory that runs out.
static int split(const char *text, char **policy, char **format, struct kv_error *e) {
    *policy = *format = NULL;
    long at = find_outside(text, "@");
    if (at < 0) return fail_brackets(at, text, e);
    *policy = copy_n(text, (size_t)at);
    if (text[at]) *format = kv_strdup(text + at + 1);
    return 0;
}

static int parse(struct kv_spec *s, const char *text, struct kv_error *e) {
    *s = (struct kv_spec){0};
    size_t n = 0;
    while (name_char(text[n])) n++;
    if (n == 0) return kv_fail(e, KV_EUSAGE, text, "a spec begins with a name");
    s->name = copy_n(text, n);
    const char *p = text + n;
    if (*p == '(') {
        long close = find_outside(p + 1, ")");
        if (close < 0 || p[1 + close] != ')') {
            kv_spec_fini(s);
            return fail_brackets(close, text, e);
        }
        s->inner = copy_n(p + 1, (size_t)close);
        p += close + 2;
    }
    if (*p == '\0') return 0;
    if (*p != ':') {
        kv_fail(e, KV_EUSAGE, text, "after '%s' comes ':' and key=value, not '%c'", s->name, *p);
        kv_spec_fini(s);
        return KV_EUSAGE;
    }
    for (p++;; p++) {
        long end = find_outside(p, ",");
        const char *equal = end < 0 ? NULL : memchr(p, '=', (size_t)end);
        if (!equal || equal == p) {
            kv_fail(e, KV_EUSAGE, text, "'%.*s' is not key=value",
                    (int)(end < 0 ? (long)strlen(p) : end), p);
            kv_spec_fini(s);
            return KV_EUSAGE;
        }
        s->keys = kv_grow(s->keys, s->n_pairs + 1, sizeof *s->keys);
        s->values = kv_grow(s->values, s->n_pairs + 1, sizeof *s->values);
        s->keys[s->n_pairs] = copy_n(p, (size_t)(equal - p));
        s->values[s->n_pairs] = copy_n(equal + 1, (size_t)(p + end - equal - 1));
        s->n_pairs++;
        p += end;
        if (*p == '\0') return 0;
    }
}

int kv_spec_split(const char *text, char **policy, char **format, struct kv_error *e) {
    KV_GUARD(e);
    return split(text, policy, format, e);
}

int kv_spec_parse(struct kv_spec *s, const char *text, struct kv_error *e) {
    KV_GUARD(e);
    return parse(s, text, e);
}

void kv_spec_fini(struct kv_spec *s) {
    free(s->name);
    free(s->inner);
    for (size_t i = 0; i < s->n_pairs; i++) {
        free(s->keys[i]);
        free(s->values[i]);
    }
    free(s->keys);
    free(s->values);
    *s = (struct kv_spec){0};
}

const char *kv_spec_value(const struct kv_spec *s, const char *key) {
    for (size_t i = 0; i < s->n_pairs; i++)
        if (strcmp(s->keys[i], key) == 0) return s->values[i];
    return NULL;
}

// ---- a whole spec ---------------------------------------------------------------------

static void parse_chain(const char *text, struct kv_spec **list, size_t *n) {
    struct kv_spec one;
    struct kv_error ignored;
    for (; text && parse(&one, text, &ignored) == 0; text = one.inner) {
        *list = kv_grow(*list, *n + 1, sizeof **list);
        (*list)[(*n)++] = one;
    }
}

void kv_spec_take_apart(struct kv_spec_parts *p, const char *text) {
    *p = (struct kv_spec_parts){0};
    KV_GUARD_ELSE(return );
    struct kv_error ignored;
    if (split(text, &p->policy_text, &p->format_text, &ignored)) p->policy_text = kv_strdup(text);
    if (!p->format_text) p->format_text = kv_strdup("");
    parse_chain(p->policy_text, &p->policies, &p->n_policies);
    parse_chain(p->format_text, &p->formats, &p->n_formats);
}

void kv_spec_parts_fini(struct kv_spec_parts *p) {
    for (size_t i = 0; i < p->n_policies; i++) kv_spec_fini(&p->policies[i]);
    for (size_t i = 0; i < p->n_formats; i++) kv_spec_fini(&p->formats[i]);
    free(p->policies);
    free(p->formats);
    free(p->policy_text);
    free(p->format_text);
    *p = (struct kv_spec_parts){0};
}

// ---- expansion ------------------------------------------------------------------------

struct list {
    char **items;
    size_t n, room;
    size_t *slot, n_slots; // by hash, at least twice as many as items: 1 + index; 0 = free
    size_t work, n_spliced;
};

// Where an item's slot is, or would be.
static size_t *slot_of(const struct list *l, const char *item) {
    size_t at = kv_hash(item, strlen(item), 0) & (l->n_slots - 1);
    while (l->slot[at] && strcmp(l->items[l->slot[at] - 1], item) != 0)
        at = (at + 1) & (l->n_slots - 1);
    return &l->slot[at];
}

static bool list_holds(const struct list *l, const char *item) {
    return l->n && *slot_of(l, item);
}

static void list_add(struct list *l, char *item) {
    if (l->n == l->room) {
        l->room = l->room ? l->room * 2 : 16;
        l->items = kv_grow(l->items, l->room, sizeof *l->items);
        free(l->slot);
        l->slot = NULL;
        l->n_slots = 2 * l->room;
        l->slot = kv_alloc(l->n_slots, sizeof *l->slot);
        for (size_t i = 0; i < l->n; i++) *slot_of(l, l->items[i]) = i + 1;
    }
    *slot_of(l, item) = l->n + 1;
    l->items[l->n++] = item;
}

void kv_list_free(char **list, size_t n) {
    for (size_t i = 0; i < n; i++) free(list[i]);
    free(list);
}

static char *splice(const char *text, size_t from, size_t to, const char *middle, size_t n_middle) {
    struct kv_text t = {0};
    kv_text_add(&t, text, from);
    kv_text_add(&t, middle, n_middle);
    kv_text_add(&t, text + to, strlen(text + to));
    return kv_text_take(&t);
}

// Finds the first "from..to" or "from..to+step" that stands after '='. True = found, with its
// extent.
static bool find_range(const char *text, size_t *from, size_t *to, double v[3], int *decimals) {
    for (const char *dots = strstr(text, ".."); dots; dots = strstr(dots + 2, "..")) {
        const char *a = dots;
        while (a > text && strchr("0123456789.-", a[-1])) a--;
        if (a == dots || a == text || a[-1] != '=') continue;
        char *end;
        v[0] = strtod(a, NULL);
        v[1] = strtod(dots + 2, &end);
        if (end == dots + 2) continue;
        v[2] = 1;
        if (*end == '+') {
            char *after;
            v[2] = strtod(end + 1, &after);
            if (after == end + 1) continue;
            end = after;
        }
        *decimals = 0;
        for (const char *c = a, *dot = NULL; c < end;
             c++) { // as many decimals as the longest number has
            if (c == dots)
                c++, dot = NULL;
            else if (*c == '.')
                dot = c;
            else if (!isdigit((unsigned char)*c))
                dot = NULL;
            if (dot && c - dot > *decimals) *decimals = (int)(c - dot);
        }
        *from = (size_t)(a - text);
        *to = (size_t)(end - text);
        return true;
    }
    return false;
}

static int expand(const char *text, struct list *l, struct kv_error *e);

// Goes on with text[from, to) replaced. Work is counted here, since results that are equal, or
// texts that never become results, take it too.
static int expand_with(const char *text, size_t from, size_t to, const char *middle,
                       size_t n_middle, struct list *l, struct kv_error *e) {
    char *one = splice(text, from, to, middle, n_middle);
    l->work += strlen(one) + 1;
    int rc = l->work > MAX_WORK || ++l->n_spliced > 10 * MAX_SPECS
                 ? kv_fail(e, KV_EUSAGE, text,
                           "takes too much work to expand: braces and ranges "
                           "multiply")
                 : expand(one, l, e);
    free(one);
    return rc;
}

static int fail_many(const char *text, struct kv_error *e) {
    return kv_fail(e, KV_EUSAGE, text, "makes more than %d specs", MAX_SPECS);
}

static int expand_range(const char *text, size_t from, size_t to, const double v[3], int decimals,
                        struct list *l, struct kv_error *e) {
    double steps = (v[1] - v[0]) / v[2];
    int rc = 0;
    if (!isfinite(v[0]) || !isfinite(v[1]) || !(v[2] > 0) || v[1] < v[0])
        return kv_fail(e, KV_EUSAGE, text,
                       "a range is from..to+step with from below to and step above 0");
    if (steps >= MAX_SPECS) return fail_many(text, e);
    size_t n = (size_t)(steps + 1e-6) + 1;
    for (size_t i = 0; i < n && rc == 0; i++) {
        char *number = kv_format_text("%.*f", decimals, v[0] + (double)i * v[2]);
        rc = expand_with(text, from, to, number, strlen(number), l, e);
        free(number);
    }
    return rc;
}

// The brace group that opens at `from`, one alternative after the other.
static int expand_group(const char *text, size_t from, struct list *l, struct kv_error *e) {
    size_t to = from + 1, start = to;
    for (int depth = 1; depth; to++) {
        if (!text[to]) return kv_fail(e, KV_EUSAGE, text, "'{' is not closed");
        if (text[to] == '{') depth++;
        if (text[to] == '}') depth--;
    }
    int rc = 0, depth = 0;
    for (size_t p = start; p < to && rc == 0; p++) {
        if (text[p] == '{') depth++;
        if (depth == 0 && (text[p] == ',' || p == to - 1)) {
            rc = expand_with(text, from, to, text + start, p - start, l, e);
            start = p + 1;
        }
        if (text[p] == '}') depth--;
    }
    return rc;
}

// Replaces the first brace group or range and goes on with each result.
static int expand(const char *text, struct list *l, struct kv_error *e) {
    size_t from, to;
    double v[3];
    int decimals;
    const char *open = strchr(text, '{');
    if (open) return expand_group(text, (size_t)(open - text), l, e);
    if (strchr(text, '}')) return kv_fail(e, KV_EUSAGE, text, "'}' without '{'");
    if (find_range(text, &from, &to, v, &decimals))
        return expand_range(text, from, to, v, decimals, l, e);
    if (list_holds(l, text)) return 0;
    if (l->n == MAX_SPECS) return fail_many(text, e);
    list_add(l, kv_strdup(text));
    return 0;
}

int kv_spec_expand(const char *text, char ***list, size_t *n, struct kv_error *e) {
    *list = NULL;
    *n = 0;
    KV_GUARD(e);
    struct list l = {0};
    int rc = check_length(text, e);
    if (rc == 0) rc = expand(text, &l, e);
    free(l.slot);
    if (rc) {
        kv_list_free(l.items, l.n);
        l = (struct list){0};
    }
    *list = l.items;
    *n = l.n;
    return rc;
}
