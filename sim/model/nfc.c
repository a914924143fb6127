// SPDX-License-Identifier: Apache-2.0
// Normalization form C over the tables that make_nfc.py writes.
#include "sim/model/nfc.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/base/utf8.h"

struct pair {
    uint32_t c, first, second;
};
static const struct pair pairs[] = {
#include "sim/model/nfc_pairs.def"
};
static const uint16_t compose[] = {
#include "sim/model/nfc_compose.def"
};
static const struct {
    uint32_t first, last;
    uint8_t class;
} classes[] = {
#include "sim/model/nfc_classes.def"
};
#define COUNT(table) (sizeof(table) / sizeof *(table))

// Hangul: 19 leading consonants, 21 vowels, 27 trailing consonants or none.
enum { L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11A7, S_BASE = 0xAC00 };
enum { L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = L_COUNT * V_COUNT * T_COUNT };

struct mark {
    uint32_t c;
    uint8_t class;
};

struct marks {
    struct mark *list;
    size_t n, room;
};

static uint8_t class_of(uint32_t c) {
    size_t low = 0, high = COUNT(classes);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > classes[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < COUNT(classes) && c >= classes[low].first ? classes[low].class : 0;
}

static int by_character(const void *key, const void *row) {
    uint32_t c = *(const uint32_t *)key, other = ((const struct pair *)row)->c;
    return (c > other) - (c < other);
}

static void push(struct marks *m, uint32_t c) {
    if (m->n == m->room) {
        m->room = 2 * m->room + 16;
        m->list = kv_grow(m->list, m->room, sizeof *m->list);
    }
    m->list[m->n++] = (struct mark){c, class_of(c)};
}

// Decompositions of decompositions are at most a few deep.
static void decompose(struct marks *m, uint32_t c) {
    if (c >= S_BASE && c < S_BASE + S_COUNT) {
        uint32_t at = c - S_BASE;
        push(m, L_BASE + at / (V_COUNT * T_COUNT));
        push(m, V_BASE + at / T_COUNT % V_COUNT);
        if (at % T_COUNT) push(m, T_BASE + at % T_COUNT);
        return;
    }
    const struct pair *p = bsearch(&c, pairs, COUNT(pairs), sizeof *pairs, by_character);
    if (!p) {
        push(m, c);
        return;
    }
    decompose(m, p->first);
    if (p->second) push(m, p->second);
}

static int by_class(const void *a, const void *b) {
    const struct mark *x = *(const struct mark *const *)a, *y = *(const struct mark *const *)b;
    return x->class != y->class ? x->class - y->class : (x > y) - (x < y);
}

// Marks between two starters by class, equal ones as they stand. Runs may be as long as a text.
static void sort_run(struct mark *run, size_t n) {
    const struct mark **order = kv_alloc(n, sizeof *order);
    struct mark *sorted = kv_alloc(n, sizeof *sorted);
    for (size_t i = 0; i < n; i++) order[i] = &run[i];
    qsort(order, n, sizeof *order, by_class);
    for (size_t i = 0; i < n; i++) sorted[i] = *order[i];
    memcpy(run, sorted, n * sizeof *run);
    free(order);
    free(sorted);
}

static void order_marks(struct marks *m) {
    for (size_t i = 0, begin; i < m->n;) {
        if (m->list[i].class == 0) {
            i++;
            continue;
        }
        bool sorted = true;
        for (begin = i++; i < m->n && m->list[i].class; i++)
            sorted = sorted && m->list[i - 1].class <= m->list[i].class;
        if (!sorted) sort_run(m->list + begin, i - begin);
    }
}

// The character of a pair; 0 where there is none.
static uint32_t composed(uint32_t a, uint32_t b) {
    if (a >= L_BASE && a < L_BASE + L_COUNT && b >= V_BASE && b < V_BASE + V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a >= S_BASE && a < S_BASE + S_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE &&
        b < T_BASE + T_COUNT)
        return a + (b - T_BASE);
    size_t low = 0, high = COUNT(compose);
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct pair *p = &pairs[compose[middle]];
        if (p->first < a || (p->first == a && p->second < b))
            low = middle + 1;
        else
            high = middle;
    }
    const struct pair *p = low < COUNT(compose) ? &pairs[compose[low]] : NULL;
    return p && p->first == a && p->second == b ? p->c : 0;
}

// A character joins the last starter when nothing between them has its class or a higher one
// (definition D115, blocked).
static void compose_marks(struct marks *m) {
    size_t out = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < m->n; i++) {
        struct mark x = m->list[i];
        bool adjacent = starter != SIZE_MAX && out == starter + 1;
        bool blocked = starter == SIZE_MAX || (!adjacent && m->list[out - 1].class >= x.class);
        uint32_t c = blocked ? 0 : composed(m->list[starter].c, x.c);
        if (c) {
            m->list[starter] = (struct mark){c, 0};
            continue;
        }
        if (x.class == 0) starter = out;
        m->list[out++] = x;
    }
    m->n = out;
}

bool kv_nfc_surely(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        uint32_t c = kv_utf8_next(s, n, &i);
        // Below U+0300 nothing combines or has another form; nor does the punctuation from U+2002.
        if (c >= 0x300 && (c < 0x2002 || c >= 0x20D0)) return false;
    }
    return true;
}

char *kv_nfc(const char *s, size_t n, size_t *n_out) {
    struct marks m = {0};
    for (size_t i = 0; i < n;) decompose(&m, kv_utf8_next(s, n, &i));
    order_marks(&m);
    compose_marks(&m);
    char *out = kv_grow(NULL, 4 * m.n + 1, 1);
    *n_out = 0;
    for (size_t i = 0; i < m.n; i++) *n_out += kv_utf8_put(m.list[i].c, out + *n_out);
    out[*n_out] = 0;
    free(m.list);
    return out;
}
