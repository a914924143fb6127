// SPDX-License-Identifier: Apache-2.0
// kvsim tasks: says what a benchmark file is: kind, prompt, counts, and lengths in tokens.
#include <stdlib.h>

#include "sim/base/utf8.h"
#include "sim/base/memory.h"
#include "sim/cli/options.h"
#include "traces/gsm8k.h"
#include "traces/items.h"
#include "traces/tasks.h"

// Least, mean and greatest of a count.
struct range {
    size_t least, most, n;
    double sum;
};

static void widen(struct range *r, size_t x) {
    if (r->n == 0 || x < r->least) r->least = x;
    if (x > r->most) r->most = x;
    r->sum += (double)x;
    r->n++;
}

// What is said: a name, and a text, a count or a mean.
struct fact {
    char what[64];
    enum { TEXT, COUNT, MEAN } kind;
    const char *text; // borrowed from the tasks
    size_t count;
    double mean;
};
struct facts {
    size_t n;
    struct fact *at;
};

static struct fact *add(struct facts *f, const char *what) {
    f->at = kv_grow(f->at, f->n + 1, sizeof *f->at);
    f->at[f->n] = (struct fact){0};
    snprintf(f->at[f->n].what, sizeof f->at[f->n].what, "%s", what);
    return &f->at[f->n++];
}

static void add_text(struct facts *f, const char *what, const char *value) {
    add(f, what)->text = value;
}

static void add_count(struct facts *f, const char *what, size_t n) {
    struct fact *x = add(f, what);
    x->kind = COUNT;
    x->count = n;
}

static void add_mean(struct facts *f, const char *what, double mean) {
    struct fact *x = add(f, what);
    x->kind = MEAN;
    x->mean = mean;
}

KV_CELL(what_cell, struct fact, kv_table_text(t, row->what))

static void value_cell(struct kv_table *t, const void *row) {
    const struct fact *x = row;
    if (x->kind == TEXT)
        kv_table_text(t, x->text);
    else if (x->kind == COUNT)
        kv_table_count(t, (long long)x->count);
    else
        kv_table_number(t, x->mean, 1);
}

// Three rows: WHAT_min, WHAT_mean, WHAT_max; none where nothing was counted.
static void add_range(struct facts *f, const char *what, const struct range *r) {
    char name[48];
    if (r->n == 0) return;
    snprintf(name, sizeof name, "%s_min", what);
    add_count(f, name, r->least);
    snprintf(name, sizeof name, "%s_mean", what);
    add_mean(f, name, r->sum / (double)r->n);
    snprintf(name, sizeof name, "%s_max", what);
    add_count(f, name, r->most);
}

// How often each value of a small number occurs: a row each, "items_with_4_choices".
static void add_choices(struct facts *f, const struct kv_tasks *tasks) {
    size_t most = 0;
    for (size_t i = 0; i < tasks->n_items; i++)
        if (tasks->items[i].n_choices > most) most = tasks->items[i].n_choices;
    size_t *with = kv_alloc(most + 1, sizeof *with), *gold = kv_alloc(most + 1, sizeof *gold);
    for (size_t i = 0; i < tasks->n_items; i++) {
        with[tasks->items[i].n_choices]++;
        if (tasks->items[i].gold >= 0) gold[tasks->items[i].gold]++;
    }
    char name[48];
    for (size_t n = 1; n <= most; n++) {
        snprintf(name, sizeof name, "items_with_%zu_choices", n);
        if (with[n]) add_count(f, name, with[n]);
    }
    for (size_t n = 0; n < most; n++) {
        snprintf(name, sizeof name, "gold_%zu", n);
        add_count(f, name, gold[n]);
    }
    free(with);
    free(gold);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_sources(struct facts *f, const struct kv_tasks *tasks) {
    size_t n = tasks->n_items;
    const char **sources = kv_alloc(n, sizeof *sources);
    for (size_t i = 0; i < n; i++) sources[i] = tasks->items[i].source;
    qsort(sources, n, sizeof *sources, by_text);
    for (size_t i = 0, from = 0; i < n; i++) {
        if (i + 1 < n && strcmp(sources[i], sources[i + 1]) == 0) continue;
        char name[64];
        snprintf(name, sizeof name, "source_%.48s", sources[i]);
        if (*sources[i]) add_count(f, name, i + 1 - from);
        from = i + 1;
    }
    free(sources);
}

static void add_characters(struct facts *f, const struct kv_tasks *tasks) {
    struct range context = {0}, choice = {0};
    for (size_t i = 0; i < tasks->n_items; i++) {
        const struct kv_task_item *item = &tasks->items[i];
        widen(&context, kv_utf8_count(item->context, strlen(item->context)));
        for (size_t k = 0; k < item->n_choices; k++)
            widen(&choice, kv_utf8_count(item->choices[k], strlen(item->choices[k])));
    }
    add_range(f, "context_characters", &context);
    add_range(f, "choice_characters", &choice);
}

static void add_items(struct facts *f, const struct kv_tasks *tasks) {
    add_choices(f, tasks);
    add_sources(f, tasks);
    add_characters(f, tasks);
    if (tasks->kind == KV_TASK_GSM8K)
        add_mean(f, "commonest_answer_%", 100 * kv_gsm8k_floor(tasks, NULL));
}

// Tokenizes all items as `record` would; those that are made for a model replace the tasks.
static int tokenize(struct kv_items **items, struct kv_tasks **tasks, const char *model_path,
                    struct kv_error *e) {
    struct kv_model *m;
    int rc = kv_model_open(&m, model_path, KV_WEIGHTS_BF16, e);
    if (rc) return rc;
    rc = kv_tasks_settle(tasks, m, e);
    if (!rc) rc = kv_items_new(items, m, *tasks, &(struct kv_record_options){0}, e);
    kv_model_close(m);
    return rc;
}

// An item is its context and all its choices; a text has windows instead.
static void add_tokens(struct facts *f, const struct kv_items *items, bool text) {
    struct range context = {0}, choice = {0}, whole = {0};
    for (size_t i = 0; i < items->n; i++) {
        const struct kv_trace_item *item = &items->items[i];
        widen(&context, item->n_context);
        widen(&whole, item->n_tokens);
        for (uint32_t k = 0; k < item->n_choices; k++)
            widen(&choice, item->first[k + 1] - item->first[k]);
    }
    if (text) add_count(f, "windows", items->n);
    add_range(f, text ? "window_tokens" : "context_tokens", &context);
    add_range(f, "choice_tokens", &choice);
    if (!text) add_range(f, "item_tokens", &whole);
    add_count(f, "tokens", items->n_tokens);
}

static int tasks(struct kv_cli *c, struct kv_error *e) {
    static const struct kv_table_column columns[] = {
        {"what", KV_LEFT, what_cell}, {"value", KV_LEFT, value_cell}, {0}};
    struct kv_tasks *loaded;
    struct kv_items *items = NULL;
    int rc = kv_tasks_load(&loaded, c->args[0], e);
    if (!rc && kv_opt(c, "model")) rc = tokenize(&items, &loaded, kv_opt(c, "model"), e);
    if (!rc) {
        struct facts f = {0};
        add_text(&f, "kind", loaded->name);
        add_text(&f, "path", loaded->path);
        if (*loaded->prompt) add_text(&f, "prompt", loaded->prompt);
        if (loaded->window_tokens) add_count(&f, "window", loaded->window_tokens);
        add_text(&f, "digest", loaded->digest);
        add_count(&f, "items", kv_tasks_count(loaded));
        if (!loaded->places) add_items(&f, loaded);
        if (items) add_tokens(&f, items, loaded->kind == KV_TASK_TEXT);
        rc = kv_table_print_rows(columns, f.at, f.n, sizeof *f.at, c->output, e);
        free(f.at);
    }
    kv_items_free(items);
    kv_tasks_free(loaded);
    return rc;
}

static const struct kv_option options[] = {
    {"model", 'm', "MODEL", NULL, "count tokens too: GGUF file or Hugging Face folder"}, {0}};

const struct kv_command kv_cmd_tasks = {
    .name = "tasks",
    .summary = "says what a benchmark file is, with its counts",
    .usage = "FILE",
    .example = "kvsim tasks samples",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = tasks,
};
