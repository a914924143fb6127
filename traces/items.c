// SPDX-License-Identifier: Apache-2.0
// Tokenizing and choosing items: what lm-evaluation-harness does with a context and its choices.
#include "traces/items.h"

#include <gsl/gsl_randist.h>
#include <gsl/gsl_rng.h>
#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"

// ---- which items ----------------------------------------------------------------------

static int choose_by_file(const struct kv_tasks *t, const char *path, bool *chosen,
                          struct kv_error *e) {
    char *text, *line, *rest;
    size_t n, line_number = 0;
    int rc = kv_read_lines(path, &text, &n, e);
    if (rc) return rc;
    for (rest = text; (line = strsep(&rest, "\n"));) {
        line_number++;
        line[strcspn(line, "\r \t")] = '\0';
        if (!*line) continue;
        size_t i = 0;
        while (i < t->n_items && strcmp(t->items[i].id, line) != 0) i++;
        if (i == t->n_items) {
            rc = kv_fail(e, KV_EFAIL, path, "line %zu: %s holds no item with id '%s'", line_number,
                         t->path, line);
            break;
        }
        if (chosen[i]) {
            rc = kv_fail(e, KV_EFAIL, path, "line %zu: id '%s' is listed twice", line_number, line);
            break;
        }
        chosen[i] = true;
    }
    free(text);
    return rc;
}

// Marks the items to record and says in words which they are.
static int choose(const struct kv_tasks *t, const struct kv_record_options *o, bool *chosen,
                  char **words, struct kv_error *e) {
    size_t n = t->n_items;
    if ((o->n > 0) + (o->stride > 0) + (o->ids_file != NULL) > 1)
        return kv_fail(e, KV_EUSAGE, "record", "-n, --stride and --ids exclude each other");
    if (o->ids_file) {
        *words = kv_format_text("listed in %s, of %zu", o->ids_file, n);
        return choose_by_file(t, o->ids_file, chosen, e);
    }
    if (o->stride > 0) {
        for (size_t i = 0; i < n; i += o->stride) chosen[i] = true;
        *words = kv_format_text("every %zu-th of %zu", o->stride, n);
        return 0;
    }
    if (o->n == 0 || o->n >= n) {
        if (o->n > n) return kv_fail(e, KV_EFAIL, t->path, "has %zu items, not %zu", n, o->n);
        memset(chosen, 1, n);
        *words = kv_format_text("all %zu", n);
        return 0;
    }
    gsl_rng *r = gsl_rng_alloc(gsl_rng_mt19937);
    size_t *order = kv_alloc(n, sizeof *order), *drawn = kv_alloc(o->n, sizeof *drawn);
    for (size_t i = 0; i < n; i++) order[i] = i;
    gsl_rng_set(r, (unsigned long)o->seed);
    gsl_ran_choose(r, drawn, o->n, order, n, sizeof *order);
    for (size_t i = 0; i < o->n; i++) chosen[drawn[i]] = true;
    *words =
        kv_format_text("%zu of %zu drawn with seed %llu", o->n, n, (unsigned long long)o->seed);
    gsl_rng_free(r);
    free(order);
    free(drawn);
    return 0;
}

// ---- memory: everything of the items lives and dies together --------------------------

struct arena {
    size_t n;
    void **blocks;
};

static void *take(struct kv_items *items, size_t count, size_t size) {
    struct arena *a = items->arena;
    a->blocks = kv_grow(a->blocks, a->n + 1, sizeof *a->blocks);
    return a->blocks[a->n++] = kv_alloc(count, size);
}

static const void *keep(struct kv_items *items, const void *data, size_t count, size_t size) {
    return count ? memcpy(take(items, count, size), data, count * size) : take(items, 1, size);
}

void kv_items_free(struct kv_items *items) {
    if (!items) return;
    struct arena *a = items->arena;
    for (size_t i = 0; i < a->n; i++) free(a->blocks[i]);
    free(a->blocks);
    free(a);
    free(items->items);
    free(items->rarity);
    free(items->counted);
    free(items->branch);
    free(items->subset);
    free(items);
}

// ---- rarity ---------------------------------------------------------------------------

// Running counts over the contexts of the file, in file order (arXiv 2604.04722 eq. 15:
// R = -log((c + 1) / (N + V + 1))): before a token is counted itself, c is how often it was seen, N
// how many tokens were, V how many different ones. Choices are rated by the counts at their branch
// point and add none.
struct counts {
    uint32_t *seen; // [vocabulary]
    size_t total, distinct;
};

static float rarity_nats(const struct counts *c, uint32_t id) {
    return (float)-log(((double)c->seen[id] + 1) / ((double)c->total + (double)c->distinct + 1));
}

// ---- one item -------------------------------------------------------------------------

// Ids of the item's tree and its boundaries, in growing buffers reused from item to item.
struct tree_builder {
    uint32_t *whole; // ids of context + " " + choice
    uint32_t *ids;
    size_t n_ids;
    uint32_t *first, *chars, *bytes;
};

static size_t count_chars(const char *s) {
    size_t n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

// Ids of a sequence: the text's, after BOS where the model was trained with it.
static int encode(const struct kv_model *m, const char *text, size_t n_text, uint32_t **ids,
                  size_t *n, struct kv_error *e) {
    int rc = kv_tokenizer_encode(m->tokenizer, text, n_text, ids, n, e);
    if (rc || !m->add_bos) return rc;
    *ids = kv_grow(*ids, *n + 1, sizeof **ids);
    memmove(*ids + 1, *ids, *n * sizeof **ids);
    (*ids)[0] = m->bos;
    ++*n;
    return rc;
}

static int tokenize(struct tree_builder *b, const struct kv_model *m,
                    const struct kv_task_item *item, size_t *n_context, struct kv_error *e) {
    // As in the harness, blanks at the context's end belong to the choices.
    size_t n_text = strlen(item->context);
    while (n_text > 0 && strchr(" \t\n\r\v\f", item->context[n_text - 1])) n_text--;
    int rc = encode(m, item->context, n_text, &b->ids, n_context, e);
    if (rc == 0 && *n_context == m->add_bos)
        rc = kv_fail(e, KV_EFAIL, item->id, "the context has no tokens");
    if (rc) return rc;
    b->n_ids = *n_context;
    b->first = kv_grow(b->first, item->n_choices + 1, sizeof *b->first);
    b->chars = kv_grow(b->chars, item->n_choices + 1, sizeof *b->chars);
    b->bytes = kv_grow(b->bytes, item->n_choices + 1, sizeof *b->bytes);
    for (size_t c = 0; c < item->n_choices; c++) {
        size_t n;
        char *text = kv_format_text("%s %s", item->context, item->choices[c]);
        rc = encode(m, text, strlen(text), &b->whole, &n, e);
        free(text);
        if (rc) return rc;
        if (n <= *n_context)
            return kv_fail(e, KV_EFAIL, "item", "'%s': choice %zu adds no token to the context",
                           item->id, c);
        b->ids = kv_grow(b->ids, b->n_ids + n, sizeof *b->ids);
        memcpy(b->ids + b->n_ids, b->whole + *n_context, (n - *n_context) * sizeof *b->ids);
        b->first[c] = (uint32_t)b->n_ids;
        b->n_ids += n - *n_context;
        b->chars[c] = (uint32_t)count_chars(item->choices[c]);
        b->bytes[c] = (uint32_t)strlen(item->choices[c]);
        if (n > m->shape.max_tokens)
            return kv_fail(e, KV_EFAIL, "item", "'%s' has %zu tokens; the model reads %u", item->id,
                           n, m->shape.max_tokens);
    }
    b->first[item->n_choices] = (uint32_t)b->n_ids;
    return 0;
}

// Of each one_in of n positions in a row, the last run perhaps being shorter, one: every depth has
// the same share. Returns how many.
static size_t draw_rows(size_t n, uint32_t one_in, uint64_t seed, uint32_t *rows) {
    size_t n_rows = 0;
    for (size_t from = 0; from < n; from += one_in) {
        size_t run = n - from < one_in ? n - from : one_in,
               at = run > 1 ? (size_t)(kv_draw(seed, n_rows, 0) * (double)run) : 0;
        rows[n_rows++] = (uint32_t)(from + at);
    }
    return n_rows;
}

// one_in, seed: which rows of a text are scored.
static void add_item(struct kv_items *items, const struct kv_model *m, const struct tree_builder *b,
                     const char *id, const struct kv_task_item *item, size_t n_context,
                     const struct counts *counts, const float *context_rarity, uint32_t one_in,
                     uint64_t seed) {
    struct kv_trace_item *t = &items->items[items->n];
    size_t n = b->n_ids, n_final = 0;
    *t = (struct kv_trace_item){.index = (uint32_t)items->n,
                                .id = keep(items, id, strlen(id) + 1, 1),
                                .source = keep(items, item->source, strlen(item->source) + 1, 1),
                                .gold = item->n_choices ? item->gold : -1,
                                .n_tokens = (uint32_t)n,
                                .n_context = (uint32_t)n_context,
                                .n_choices = (uint32_t)item->n_choices};
    t->ids = keep(items, b->ids, n, sizeof *b->ids);
    t->first = keep(items, b->first, item->n_choices + 1, sizeof *b->first);
    t->chars = keep(items, b->chars, item->n_choices, sizeof *b->chars);
    t->bytes = keep(items, b->bytes, item->n_choices, sizeof *b->bytes);
    t->key = kv_hash(b->first, (item->n_choices + 1) * sizeof *b->first,
                     kv_hash(b->ids, n * sizeof *b->ids, 0));
    uint8_t *kinds = take(items, n, 1);
    float *rarity = take(items, n, sizeof *rarity);
    uint32_t *rows = take(items, n, sizeof *rows);
    for (size_t i = 0; i < n; i++) {
        kinds[i] = (uint8_t)(i ? kv_tokenizer_kind(m->tokenizer, b->ids[i]) : KV_FIRST);
        rarity[i] = i < n_context ? context_rarity[i] : rarity_nats(counts, b->ids[i]);
    }
    // Scored rows: see struct kv_trace_item.
    if (item->n_choices == 0)
        n_final = draw_rows(n - 1, one_in, seed + t->key, rows);
    else {
        rows[n_final++] = (uint32_t)n_context - 1;
        for (size_t c = 0; c < item->n_choices; c++)
            for (uint32_t i = b->first[c]; i + 1 < b->first[c + 1]; i++) rows[n_final++] = i;
    }
    t->kinds = kinds;
    t->final_rows = rows;
    t->n_final = (uint32_t)n_final;
    items->rarity[items->n] = rarity;
    items->branch[items->n++] = items->n_counted;
    items->n_tokens += n;
}

static void make_room(struct kv_items *items) {
    items->items = kv_grow(items->items, items->n + 1, sizeof *items->items);
    items->rarity = kv_grow(items->rarity, items->n + 1, sizeof *items->rarity);
    items->branch = kv_grow(items->branch, items->n + 1, sizeof *items->branch);
}

static void count(struct counts *c, uint32_t id) {
    c->distinct += c->seen[id]++ == 0;
    c->total++;
}

// Counts a context and rates its tokens on the way.
static void count_context(struct kv_items *items, struct counts *c, const uint32_t *ids, size_t n,
                          float *rarity) {
    items->counted = kv_grow(items->counted, items->n_counted + n, sizeof *items->counted);
    for (size_t i = 0; i < n; i++) {
        rarity[i] = rarity_nats(c, ids[i]);
        count(c, ids[i]);
        items->counted[items->n_counted++] = ids[i];
    }
}

void kv_items_rarity(const struct kv_items *items, size_t i, uint32_t vocab, float *rarity) {
    struct counts c = {.seen = kv_alloc(vocab, sizeof *c.seen)};
    for (size_t k = 0; k < items->branch[i]; k++) count(&c, items->counted[k]);
    for (uint32_t id = 0; id < vocab; id++) rarity[id] = rarity_nats(&c, id);
    free(c.seen);
}

// Text: whole windows of the wanted length; a text shorter than one window is one window. Each has
// BOS before it where the model was trained with it, and is that much longer.
static int cut_windows(struct kv_items *items, const struct kv_model *m,
                       const struct kv_tasks *tasks, const struct kv_record_options *o,
                       struct counts *counts, struct kv_error *e) {
    uint32_t *ids = NULL;
    size_t n, window = tasks->window_tokens, bos = m->add_bos;
    const char *text = tasks->items[0].context;
    if (window + bos > m->shape.max_tokens)
        return kv_fail(e, KV_EUSAGE, tasks->path, "window=%zu: the model reads %u tokens%s", window,
                       m->shape.max_tokens, bos ? ", BOS among them" : "");
    int rc = kv_tokenizer_encode(m->tokenizer, text, strlen(text), &ids, &n, e);
    if (rc) {
        free(ids);
        return rc;
    }
    if (n < 2) rc = kv_fail(e, KV_EFAIL, tasks->path, "has %zu tokens: too few to predict one", n);
    if (window > n) window = n;
    size_t n_windows = window ? n / window : 0;
    // Windows are chosen like items: give them ids and let choose() see a list of that length.
    struct kv_tasks list = *tasks;
    list.n_items = n_windows;
    list.items = kv_alloc(n_windows + 1, sizeof *list.items);
    bool *chosen = kv_alloc(n_windows + 1, 1);
    float *rarity = kv_alloc(window + 2, sizeof *rarity);
    uint32_t *sequence = kv_alloc(window + 2, sizeof *sequence);
    sequence[0] = m->bos;
    for (size_t i = 0; i < n_windows; i++) {
        list.items[i].id = kv_format_text("%zu", i);
        list.items[i].source = tasks->items[0].source;
    }
    uint32_t one_in = tasks->score_one_in ? tasks->score_one_in : 1;
    if (rc == 0) rc = choose(&list, o, chosen, &items->subset, e);
    if (rc == 0 && one_in > 1) {
        char *words = items->subset;
        items->subset = kv_format_text("%s, one of %u positions scored (seed %llu)", words, one_in,
                                       (unsigned long long)o->seed);
        free(words);
    }
    for (size_t i = 0; i < n_windows && rc == 0; i++) {
        uint32_t first = (uint32_t)(window + bos);
        struct tree_builder b = {.ids = sequence, .n_ids = first, .first = &first};
        memcpy(sequence + bos, ids + i * window, window * sizeof *ids);
        count_context(items, counts, b.ids, first, rarity);
        if (!chosen[i]) continue;
        make_room(items);
        add_item(items, m, &b, list.items[i].id, &list.items[i], first, counts, rarity, one_in,
                 o->seed);
    }
    for (size_t i = 0; i < n_windows; i++) free(list.items[i].id);
    free(list.items);
    free(chosen);
    free(rarity);
    free(sequence);
    free(ids);
    return rc;
}

static int tokenize_items(struct kv_items *items, const struct kv_model *m,
                          const struct kv_tasks *tasks, const struct kv_record_options *o,
                          struct counts *counts, struct kv_error *e) {
    struct tree_builder b = {0};
    bool *chosen = kv_alloc(tasks->n_items, 1);
    float *rarity = NULL;
    int rc = choose(tasks, o, chosen, &items->subset, e);
    for (size_t i = 0; i < tasks->n_items && rc == 0; i++) {
        struct kv_task_item context_only = tasks->items[i];
        size_t n_context = 0;
        if (!chosen[i]) context_only.n_choices = 0;
        if ((rc = tokenize(&b, m, &context_only, &n_context, e))) break;
        rarity = kv_grow(rarity, n_context, sizeof *rarity);
        count_context(items, counts, b.ids, n_context, rarity);
        if (!chosen[i]) continue;
        make_room(items);
        add_item(items, m, &b, tasks->items[i].id, &tasks->items[i], n_context, counts, rarity, 1,
                 o->seed);
    }
    free(rarity);
    free(chosen);
    free(b.whole);
    free(b.ids);
    free(b.first);
    free(b.chars);
    free(b.bytes);
    return rc;
}

int kv_items_new(struct kv_items **out, const struct kv_model *m, const struct kv_tasks *tasks,
                 const struct kv_record_options *o, struct kv_error *e) {
    if (tasks->places) { // there are no items yet
        struct kv_tasks *made;
        *out = NULL;
        int failed = kv_tasks_make(&made, tasks, m, e);
        if (failed) return failed;
        failed = kv_items_new(out, m, made, o, e);
        kv_tasks_free(made);
        return failed;
    }
    struct kv_items *items = kv_alloc(1, sizeof *items);
    struct counts counts = {.seen = kv_alloc(m->shape.vocab, sizeof(uint32_t))};
    items->arena = kv_alloc(1, sizeof(struct arena));
    *out = NULL;
    int rc = tasks->kind == KV_TASK_TEXT ? cut_windows(items, m, tasks, o, &counts, e)
                                         : tokenize_items(items, m, tasks, o, &counts, e);
    if (rc == 0 && items->n == 0) rc = kv_fail(e, KV_EFAIL, tasks->path, "no items were chosen");
    free(counts.seen);
    if (rc)
        kv_items_free(items);
    else
        *out = items;
    return rc;
}
