// SPDX-License-Identifier: Apache-2.0
// Names made short: parts that others share go first, then the middle, never what differs.
#include "reports/table/names.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/base/utf8.h"

enum { MAX_PARTS = 64, LEAST_ROOM = 8, MANY = 512 };

const char *kv_skip_characters(const char *s, size_t n) {
    size_t i = 0, all = strlen(s);
    while (n-- > 0 && i < all && kv_utf8_next(s, all, &i) != KV_UTF8_BAD) {
    }
    return s + i;
}

static size_t characters(const char *s, size_t n) {
    return kv_utf8_count(s, n);
}

// A text cut before each ':', ',', '@', '#', '(', ')' and blank, and behind the folders of a path.
struct parts {
    size_t n, folders; // the first `folders` are those of the path
    struct part {
        const char *at;
        size_t n;
        bool kept;
    } part[MAX_PARTS];
};

static void cut(struct parts *p, const char *text) {
    static const char before[] = ":,@#() ";
    size_t name = strcspn(text, before);
    *p = (struct parts){0};
    for (const char *at = text; *at && p->n < MAX_PARTS; p->n++) {
        size_t n = 1 + strcspn(at + 1, before), folder = strcspn(at, "/") + 1;
        if (at < text + name && at + folder <= text + name) {
            n = folder;
            p->folders++;
        }
        if (p->n + 1 == MAX_PARTS) n = strlen(at);
        p->part[p->n] = (struct part){at, n, true};
        at += n;
    }
}

// Parts are alike whatever stands before a key: ",v=4" and ":v=4".
static bool same_part(const struct part *a, const struct part *b) {
    static const char separators[] = ":,";
    size_t skip_a = a->n > 1 && strchr(separators, *a->at) ? 1 : 0,
           skip_b = b->n > 1 && strchr(separators, *b->at) ? 1 : 0;
    return a->n - skip_a == b->n - skip_b &&
           memcmp(a->at + skip_a, b->at + skip_b, a->n - skip_a) == 0;
}

static bool has_part(const struct parts *p, const struct part *x) {
    for (size_t i = 0; i < p->n; i++)
        if (same_part(&p->part[i], x)) return true;
    return false;
}

// What a text begins with, its folders aside: texts that share it are of a kind.
static bool of_a_kind(const struct parts *a, const struct parts *b) {
    return a->n > a->folders && b->n > b->folders &&
           same_part(&a->part[a->folders], &b->part[b->folders]);
}

// The share of the other texts of its kind that have this part too; 0 where there is but one, which
// makes no custom.
static double shared(const struct parts *all, size_t n, size_t i, size_t part) {
    size_t others = 0, with = 0;
    for (size_t j = 0; j < n; j++) {
        if (j == i || !of_a_kind(&all[j], &all[i])) continue;
        others++;
        with += has_part(&all[j], &all[i].part[part]);
    }
    return others > 1 ? (double)with / (double)others : 0;
}

// What is kept, an ellipsis for each run that is not; folders go without one.
static char *joined(const struct parts *p, size_t *width) {
    struct kv_text t = {0};
    for (size_t i = 0; i < p->n; i++) {
        if (p->part[i].kept)
            kv_text_add(&t, p->part[i].at, p->part[i].n);
        else if (i >= p->folders && p->part[i - 1].kept)
            kv_text_addf(&t, "…");
    }
    char *s = kv_text_take(&t);
    *width = characters(s, strlen(s));
    return s;
}

// The part to go next: what most of its kind share, at least half of them, digests first; else the
// last, since specs begin with what matters most. p->n = none is left.
static size_t least_telling(const struct parts *p, const double *share) {
    size_t best = p->n;
    double most = 0;
    for (size_t k = 0; k < p->n; k++) {
        double own = share[k] < 0.5 ? 0 : share[k] + (*p->part[k].at == '#');
        if (k == p->folders || !p->part[k].kept || own < most) continue;
        best = k;
        most = own;
    }
    return best;
}

static char *without_shared(struct parts *all, size_t n, size_t i, size_t room) {
    struct parts *p = &all[i];
    double share[MAX_PARTS];
    size_t width;
    for (size_t k = 0; k < p->n; k++) share[k] = k < p->folders ? 3 : shared(all, n, i, k);
    char *name = joined(p, &width);
    while (width > room) {
        size_t k = least_telling(p, share);
        if (k == p->n) break;
        p->part[k].kept = false;
        free(name);
        name = joined(p, &width);
    }
    for (size_t k = 0; k < p->n; k++) p->part[k].kept = true;
    return name;
}

// Head and tail of a text, the tail from `from` (or the end's) on where that shows more.
static char *without_middle(const char *text, size_t room, const char *from) {
    size_t width = characters(text, strlen(text)), head = (room - 1) * 2 / 3,
           tail = room - 1 - head;
    if (width <= room) return kv_strdup(text);
    const char *end = kv_skip_characters(text, width - tail);
    if (!from || from >= end)
        return kv_format_text("%.*s…%s", (int)(kv_skip_characters(text, head) - text), text, end);
    // What differs stands in the part that would go.
    size_t behind = characters(from, strlen(from)), before = width - behind;
    if (before + 1 < room) // ... or in the head
        return kv_format_text("%.*s…", (int)(kv_skip_characters(text, room - 1) - text), text);
    head = (room - 2) / 3;
    tail = room - 2 - head;
    return kv_format_text("%.*s…%.*s…", (int)(kv_skip_characters(text, head) - text), text,
                          (int)(kv_skip_characters(from, tail) - from), from);
}

// Where a text first differs from another, back to where that key or number begins.
static const char *difference(const char *text, const char *other) {
    size_t i = 0;
    while (text[i] && text[i] == other[i]) i++;
    while (i && ((unsigned char)text[i] & 0xC0) == 0x80) i--;
    for (size_t back = i; back && i - back < 8; back--)
        if (strchr(":,@#(/ ", text[back - 1])) return text + back;
    return text + i;
}

static void tell_apart(const char *const *texts, size_t n, size_t room, char **names) {
    bool *alike = kv_alloc(n + 1, sizeof *alike);
    const char **from = kv_alloc(n + 1, sizeof *from);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            if (strcmp(names[i], names[j]) != 0 || strcmp(texts[i], texts[j]) == 0) continue;
            const char *at = difference(texts[i], texts[j]);
            if (!alike[i] || at > from[i]) from[i] = at;
            alike[i] = true;
        }
    for (size_t i = 0; i < n; i++) {
        if (!alike[i]) continue;
        free(names[i]);
        names[i] = without_middle(texts[i], room, from[i]);
    }
    free(from);
    free(alike);
}

void kv_shorten_names(const char *const *texts, size_t n, size_t room, char **names) {
    if (room < LEAST_ROOM) room = LEAST_ROOM;
    bool few = n <= MANY; // beyond, comparing all with all takes too long to wait for
    struct parts *all = few ? kv_alloc(n + 1, sizeof *all) : NULL;
    for (size_t i = 0; few && i < n; i++) cut(&all[i], texts[i]);
    for (size_t i = 0; i < n; i++) {
        bool fits = characters(texts[i], strlen(texts[i])) <= room;
        char *name = few && !fits ? without_shared(all, n, i, room) : kv_strdup(texts[i]);
        names[i] = without_middle(name, room, NULL);
        free(name);
    }
    if (few) tell_apart(texts, n, room, names);
    free(all);
}
