// SPDX-License-Identifier: Apache-2.0
// KVTuner's plans (cmd2001/KVTuner): YAML with a line a layer, `0: {nbits_key: 8, nbits_value: 4}`,
// or of heads, one level more. Keys are whole numbers without quotes: its code indexes by them.
#include "sim/runtimes/own.h"

#include <stdlib.h>

static bool heads_differ(const struct kv_served *s) {
    for (size_t i = 0; i < (size_t)s->n_layers * s->n_heads; i++)
        for (size_t side = 0; side < 2; side++)
            if (s->bits[2 * i + side] != s->bits[i / s->n_heads * s->n_heads * 2 + side])
                return true;
    return false;
}

int kv_write_kvtuner(const struct kv_served *s, struct kv_text *t, struct kv_error *e) {
    bool by_head = heads_differ(s);
    if (!s->offer)
        return kv_fail(
            e, KV_EFAIL, "kvtuner",
            "its cache codes at 8 bits at most; a plan that codes nothing needs no file");
    for (uint32_t l = 0; l < s->n_layers; l++) {
        if (by_head) kv_text_addf(t, "%u:\n", l);
        for (uint32_t h = 0; h < (by_head ? s->n_heads : 1); h++) {
            const uint8_t *own = s->bits + ((size_t)l * s->n_heads + h) * 2;
            kv_text_addf(t, "%s%u: {nbits_key: %u, nbits_value: %u}\n", by_head ? "  " : "",
                         by_head ? h : l, own[0], own[1]);
        }
    }
    return 0;
}

// ---- reading --------------------------------------------------------------------------

// The file as it is met: the layer and head that widths belong to.
struct yaml {
    const char *path;
    size_t line;
    long layer, head; // -1 = none yet
    int layer_indent, head_indent;
    uint8_t *bits; // [n_layers][n_heads][2], 0 = not met; grown as they come
    uint32_t n_layers, n_heads;
    bool by_head;
};

static int wrong(const struct yaml *y, const char *what, struct kv_error *e) {
    char where[160];
    snprintf(where, sizeof where, "%s: line %zu", y->path, y->line);
    return kv_fail(e, KV_EFAIL, where, "%s", what);
}

enum { MOST_LAYERS = 1024, MOST_HEADS = 256 };

static uint8_t *cell(struct yaml *y, int side) {
    return &y->bits[((size_t)y->layer * MOST_HEADS + (size_t)(y->head < 0 ? 0 : y->head)) * 2 +
                    (size_t)side];
}

static int take_bits(struct yaml *y, const char *name, size_t n, const char *value,
                     struct kv_error *e) {
    static const char *const names[] = {"nbits_key", "nbits_value"};
    char *end;
    long bits = strtol(value, &end, 10);
    if (y->layer < 0) return wrong(y, "a width stands before any layer", e);
    for (int side = 0; side < 2; side++) {
        if (strlen(names[side]) != n || strncmp(name, names[side], n) != 0) continue;
        if (end == value || (*end && !strchr(" ,}\r\n", *end)))
            return wrong(y, "a width is no whole number", e);
        if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
            return wrong(y, "a width is none of 2, 3, 4, 8", e);
        if (*cell(y, side)) return wrong(y, "a width is given twice", e);
        *cell(y, side) = (uint8_t)bits;
        return 0;
    }
    return wrong(y, "expected nbits_key and nbits_value", e);
}

// "nbits_key: 8" or "{nbits_key: 8, nbits_value: 4}" up to the line's end.
static int take_pairs(struct yaml *y, const char *at, const char *end, struct kv_error *e) {
    int rc = 0;
    while (rc == 0) {
        at += strspn(at, " {},\t");
        if (at >= end || *at == '\r' || *at == '#') return 0;
        size_t n = strcspn(at, ":\r\n");
        if (at + n >= end || at[n] != ':') return wrong(y, "expected NAME: WIDTH", e);
        const char *value = at + n + 1;
        value += strspn(value, " ");
        rc = take_bits(y, at, n, value, e);
        at = value + strcspn(value, ",}\r\n");
    }
    return rc;
}

static int take_number(struct yaml *y, long number, int indent, struct kv_error *e) {
    if (y->layer < 0 || indent <= y->layer_indent) {
        if (number >= MOST_LAYERS) return wrong(y, "more layers than a model has", e);
        y->layer = number;
        y->layer_indent = indent;
        y->head = -1;
        if ((uint32_t)number >= y->n_layers) y->n_layers = (uint32_t)number + 1;
        return 0;
    }
    if (number >= MOST_HEADS) return wrong(y, "more heads than a layer has", e);
    y->head = number;
    y->by_head = true;
    if ((uint32_t)number >= y->n_heads) y->n_heads = (uint32_t)number + 1;
    return 0;
}

static int take_line(struct yaml *y, const char *at, const char *end, struct kv_error *e) {
    const char *word = at + strspn(at, " ");
    if (word >= end || *word == '\r' || *word == '#' || strncmp(word, "---", 3) == 0) return 0;
    if (*word == '"' || *word == '\'')
        return wrong(y, "a key in quotes is a text, and KVTuner looks up whole numbers", e);
    if (*word == '\t') return wrong(y, "YAML takes no tabs", e);
    char *rest;
    long number = strtol(word, &rest, 10);
    if (rest == word || *rest != ':') return take_pairs(y, word, end, e);
    if (number < 0) return wrong(y, "a layer below 0", e);
    int rc = take_number(y, number, (int)(word - at), e);
    return rc ? rc : take_pairs(y, rest + 1, end, e);
}

static int check_all(struct yaml *y, const struct kv_served *s, struct kv_error *e) {
    uint32_t heads = y->by_head ? y->n_heads : 1;
    if (!y->n_layers) return kv_fail(e, KV_EFAIL, y->path, "holds no layer");
    if (s->model_layers && s->model_layers != y->n_layers)
        return kv_fail(e, KV_EFAIL, y->path, "holds %u layers, and the model has %u", y->n_layers,
                       s->model_layers);
    for (uint32_t l = 0; l < y->n_layers; l++)
        for (uint32_t h = 0; h < heads; h++)
            for (int side = 0; side < 2; side++)
                if (!y->bits[((size_t)l * MOST_HEADS + h) * 2 + (size_t)side])
                    return kv_fail(e, KV_EFAIL, y->path, "layer %u has no nbits_%s", l,
                                   side ? "value" : "key");
    return 0;
}

int kv_read_kvtuner(struct kv_served *s, const char *text, const char *path, struct kv_error *e) {
    struct yaml y = {.path = path, .layer = -1, .head = -1};
    int rc = 0;
    y.bits = kv_alloc((size_t)MOST_LAYERS * MOST_HEADS * 2, 1);
    for (const char *at = text; *at && rc == 0;) {
        const char *end = at + strcspn(at, "\n");
        y.line++;
        rc = take_line(&y, at, end, e);
        at = *end ? end + 1 : end;
    }
    if (rc == 0) rc = check_all(&y, s, e);
    if (rc == 0) {
        s->offer = &s->runtime->offers[0];
        s->model_layers = y.n_layers;
        uint32_t heads = y.by_head ? y.n_heads : 1;
        rc = kv_served_spread(s, heads, path, e);
        for (uint32_t l = 0; rc == 0 && l < y.n_layers; l++)
            memcpy(s->bits + (size_t)l * heads * 2, y.bits + (size_t)l * MOST_HEADS * 2, heads * 2);
    }
    free(y.bits);
    return rc;
}

bool kv_is_kvtuner(const char *text) {
    return *text != '{' && strstr(text, "nbits_key");
}
