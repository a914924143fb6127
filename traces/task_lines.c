// SPDX-License-Identifier: Apache-2.0
// Lines of benchmark files as items, with the prompts of lm-evaluation-harness.
//
// Prompts: lm_eval/tasks/hellaswag/utils.py, arc/arc_easy.yaml, openbookqa/openbookqa.yaml in
// https://github.com/EleutherAI/lm-evaluation-harness. Its Python strips and capitalizes by
// Unicode; so does this, with one-to-one letters of Latin, Greek and Cyrillic. Not done: "ß",
// ligatures and the final sigma, none of which occurs where HellaSwag's validation file is
// capitalized (all of its 10,042 ctx_b are ASCII there).
#include "traces/task_lines.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "traces/gsm8k.h"
#include "traces/harness_text.h"

#define MAX_CHOICES 16

// ---- messages -------------------------------------------------------------------------

int kv_task_line_fail(const struct kv_task_source *s, struct kv_error *e, const char *format, ...) {
    char where[192], text[400];
    size_t n = strlen(s->path);
    va_list ap;
    snprintf(where, sizeof where, "%s%s: %s %zu", n > 150 ? "..." : "",
             n > 150 ? s->path + n - 147 : s->path, s->unit, s->line);
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    return kv_fail(e, KV_EFAIL, where, "%s", text);
}

static int get_text(const struct kv_task_source *s, const json_t *from, const char *key,
                    const char **text, struct kv_error *e) {
    const json_t *v = json_object_get(from, key);
    *text = json_string_value(v);
    if (!v) return kv_task_line_fail(s, e, "the field \"%s\" is missing", key);
    if (!*text) return kv_task_line_fail(s, e, "the field \"%s\" is not a text", key);
    return KV_OK;
}

// ---- items ----------------------------------------------------------------------------

static int check_choices(const struct kv_task_source *s, const struct kv_task_item *item,
                         struct kv_error *e) {
    if (kv_is_blank(item->context)) return kv_task_line_fail(s, e, "the context is empty");
    for (size_t i = 0; i < item->n_choices; i++)
        if (kv_is_blank(item->choices[i])) return kv_task_line_fail(s, e, "choice %zu is empty", i);
    return KV_OK;
}

static int check_count(const struct kv_task_source *s, const json_t *list, const char *key,
                       struct kv_error *e) {
    size_t n = json_array_size(list);
    if (!json_is_array(list))
        return kv_task_line_fail(s, e, "the field \"%s\" is missing or no list", key);
    if (n < 2 || n > MAX_CHOICES)
        return kv_task_line_fail(s, e, "\"%s\" has %zu entries; 2 to %d are read", key, n,
                                 MAX_CHOICES);
    return KV_OK;
}

// A whole number or a text that spells one, as datasets write labels; -1 for anything else.
static json_int_t label_of(const json_t *v) {
    if (json_is_integer(v)) return json_integer_value(v);
    const char *text = json_string_value(v);
    if (!text || !*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 9)
        return -1;
    return strtol(text, NULL, 10);
}

// "activitynet~v_..." names its source; files without source_id tell it by ctx_b, which only
// ActivityNet's captions have. Our own samples are neither unless they say so.
static char *source_of(const struct kv_task_source *s, const json_t *line, const char *ctx_b) {
    const char *id = json_string_value(json_object_get(line, "source_id"));
    const char *named = json_string_value(json_object_get(line, "source"));
    if (id) {
        char *source = kv_strdup(id);
        source[strcspn(source, "~")] = 0;
        return source;
    }
    if (named || s->sample) return kv_strdup(named ? named : "");
    return kv_strdup(*ctx_b ? "activitynet" : "wikihow");
}

static char *id_of(const json_t *line, const char *key, size_t number) {
    const json_t *id = json_object_get(line, key);
    if (json_is_string(id)) return kv_strdup(json_string_value(id));
    if (json_is_integer(id)) return kv_format_text("%lld", (long long)json_integer_value(id));
    return kv_format_text("%zu", number);
}

static int read_hellaswag(const struct kv_task_source *s, const json_t *line,
                          struct kv_task_item *item, struct kv_error *e) {
    const char *activity, *ctx_a = "", *ctx_b = "", *ctx = "";
    const json_t *endings = json_object_get(line, "endings"), *ending;
    int rc = get_text(s, line, "activity_label", &activity, e);
    if (!rc && s->harness) rc = get_text(s, line, "ctx_a", &ctx_a, e);
    if (!rc && s->harness) rc = get_text(s, line, "ctx_b", &ctx_b, e);
    if (!rc && !s->harness) rc = get_text(s, line, "ctx", &ctx, e);
    if (!rc) rc = check_count(s, endings, "endings", e);
    if (rc) return rc;
    if (!s->harness) {
        const char *b = json_string_value(json_object_get(line, "ctx_b"));
        ctx_b = b ? b : "";
    }
    item->id = id_of(line, "ind", s->line - 1);
    item->source = source_of(s, line, ctx_b);
    struct kv_text query = {0};
    kv_text_addf(&query, "%s: %s", activity, s->harness ? ctx_a : ctx);
    if (s->harness) {
        kv_text_add(&query, " ", 1);
        kv_add_capitalized(&query, ctx_b);
    }
    char *raw = kv_text_take(&query);
    item->context = s->harness ? kv_harness_text(raw) : kv_strdup(raw);
    free(raw);
    item->choices = kv_alloc(json_array_size(endings), sizeof *item->choices);
    for (size_t i = 0; i < json_array_size(endings); i++) {
        ending = json_array_get(endings, i);
        const char *text = json_string_value(ending);
        if (!text) return kv_task_line_fail(s, e, "ending %zu is not a text", i);
        item->choices[item->n_choices++] = s->harness ? kv_harness_text(text) : kv_strdup(text);
    }
    const json_t *label = json_object_get(line, "label");
    json_int_t gold = label_of(label);
    if (!label) return kv_task_line_fail(s, e, "the field \"label\" is missing");
    if (gold < 0 || (size_t)gold >= item->n_choices)
        return kv_task_line_fail(s, e, "\"label\" is none of the endings 0 to %zu",
                                 item->n_choices - 1);
    item->gold = (int)gold;
    return KV_OK;
}

// A choice's text and label: of a list of {text, label} in the official files, of an object of two
// lists in what `datasets` exports. NULL where there is none.
struct choices {
    const json_t *list, *texts, *labels; // either the first or the two others
    size_t n;
};

static int find_choices(const struct kv_task_source *s, const json_t *choices, struct choices *c,
                        struct kv_error *e) {
    *c = (struct choices){0};
    if (!json_is_object(choices)) {
        c->list = choices;
        c->n = json_array_size(choices);
        return check_count(s, choices, "choices", e);
    }
    c->texts = json_object_get(choices, "text");
    c->labels = json_object_get(choices, "label");
    c->n = json_array_size(c->texts);
    int rc = check_count(s, c->texts, "choices.text", e);
    if (!rc) rc = check_count(s, c->labels, "choices.label", e);
    if (!rc && json_array_size(c->labels) != c->n)
        rc = kv_task_line_fail(s, e, "choices has %zu texts, but %zu labels", c->n,
                               json_array_size(c->labels));
    return rc;
}

// A label or key as it is compared: a text, or the digits of a whole number.
static bool label_text(const json_t *v, char text[24]) {
    const char *as_text = json_string_value(v);
    if (json_is_integer(v)) return snprintf(text, 24, "%lld", (long long)json_integer_value(v)) > 0;
    if (!as_text || strlen(as_text) >= 24) return false;
    strcpy(text, as_text);
    return true;
}

static int read_choice(const struct kv_task_source *s, const struct choices *c, size_t i,
                       const char **text, char label[24], struct kv_error *e) {
    const json_t *one = json_array_get(c->list, i);
    const json_t *mark = c->list ? json_object_get(one, "label") : json_array_get(c->labels, i);
    if (c->list) {
        int rc = get_text(s, one, "text", text, e);
        if (rc) return rc;
    } else if (!(*text = json_string_value(json_array_get(c->texts, i)))) {
        return kv_task_line_fail(s, e, "text %zu of the choices is not a text", i);
    }
    if (!mark) return kv_task_line_fail(s, e, "the field \"label\" is missing");
    if (!label_text(mark, label))
        return kv_task_line_fail(s, e,
                                 "the field \"label\" is neither a short text nor a whole number");
    return KV_OK;
}

// All labels have been read.
static int check_labels_differ(const struct kv_task_source *s, const struct choices *c,
                               struct kv_error *e) {
    const char *text;
    char a[24], b[24];
    for (size_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < i; k++) {
            int rc = read_choice(s, c, i, &text, a, e);
            if (!rc) rc = read_choice(s, c, k, &text, b, e);
            if (!rc && strcmp(a, b) == 0)
                rc = kv_task_line_fail(s, e, "the label \"%.20s\" stands at two choices", a);
            if (rc) return rc;
        }
    return KV_OK;
}

// The question and its choices, wherever the line has them: {question: {stem, choices}} in the
// official files; {question or question_stem, choices} in the hub's.
static int find_question(const struct kv_task_source *s, const json_t *line, const char **stem,
                         struct choices *c, struct kv_error *e) {
    const json_t *question = json_object_get(line, "question");
    const json_t *from = json_is_object(question) ? question : line;
    const char *key = from == question                         ? "stem"
                      : json_object_get(line, "question_stem") ? "question_stem"
                                                               : "question";
    int rc = get_text(s, from, key, stem, e);
    if (!rc && kv_is_blank(*stem)) rc = kv_task_line_fail(s, e, "the stem is empty");
    return rc ? rc : find_choices(s, json_object_get(from, "choices"), c, e);
}

// ARC and OpenBookQA share a layout; labels are A, B, ... or 1, 2, ..., so the key is looked up
// among the item's own.
static int read_question(const struct kv_task_source *s, const json_t *line,
                         struct kv_task_item *item, bool arc, struct kv_error *e) {
    const char *stem, *text;
    char key[24], label[24];
    struct choices choices;
    int rc = find_question(s, line, &stem, &choices, e);
    if (rc) return rc;
    const json_t *answer = json_object_get(line, "answerKey");
    if (!answer) return kv_task_line_fail(s, e, "the field \"answerKey\" is missing");
    if (!label_text(answer, key))
        return kv_task_line_fail(
            s, e, "the field \"answerKey\" is neither a short text nor a whole number");
    if (!*key)
        return kv_task_line_fail(s, e, "answerKey is empty: this set's answers are not published");
    item->id = id_of(line, "id", s->line - 1);
    item->source = kv_strdup("");
    item->context = arc ? kv_format_text("Question: %s\nAnswer:", stem) : kv_strdup(stem);
    item->choices = kv_alloc(choices.n, sizeof *item->choices);
    item->gold = -1;
    struct kv_text labels = {0};
    for (size_t i = 0; i < choices.n && !rc; i++) {
        rc = read_choice(s, &choices, i, &text, label, e);
        if (rc) break;
        kv_text_addf(&labels, "%s%.20s", i ? ", " : "", label);
        if (strcmp(label, key) == 0 && item->gold < 0) item->gold = (int)i;
        item->choices[item->n_choices++] = kv_strdup(text);
    }
    char *all = kv_text_take(&labels);
    if (!rc) rc = check_labels_differ(s, &choices, e);
    if (!rc && item->gold < 0)
        rc = kv_task_line_fail(s, e, "answerKey \"%.20s\" is none of the labels %.200s", key, all);
    free(all);
    return rc;
}

// The answer is the one choice, so that a recording scores it; there is nothing to pick.
static int read_gsm8k(const struct kv_task_source *s, const json_t *line, struct kv_task_item *item,
                      struct kv_error *e) {
    const char *question, *answer;
    int rc = get_text(s, line, "question", &question, e);
    if (!rc) rc = get_text(s, line, "answer", &answer, e);
    if (!rc && kv_is_blank(question)) rc = kv_task_line_fail(s, e, "the question is empty");
    char *number = rc ? NULL : kv_gsm8k_strict(answer);
    if (!rc && strcmp(number, KV_GSM8K_NONE) == 0)
        rc = kv_task_line_fail(s, e, "the answer ends in no \"#### \" and a number");
    free(number);
    if (rc) return rc;
    item->id = id_of(line, "id", s->line - 1);
    item->source = kv_strdup("");
    item->context = kv_gsm8k_prompt(question);
    item->answer = kv_strdup(answer);
    item->choices = kv_alloc(1, sizeof *item->choices);
    item->choices[item->n_choices++] = kv_strdup(answer);
    item->gold = -1;
    return KV_OK;
}

int kv_task_line_read(const struct kv_task_source *s, enum kv_task_kind kind, const json_t *line,
                      struct kv_task_item *item, struct kv_error *e) {
    int rc = KV_OK;
    if (!json_is_object(line))
        rc = kv_task_line_fail(s, e, "a JSON object was expected");
    else if (kind == KV_TASK_HELLASWAG)
        rc = read_hellaswag(s, line, item, e);
    else if (kind == KV_TASK_GSM8K)
        rc = read_gsm8k(s, line, item, e);
    else
        rc = read_question(s, line, item, kind == KV_TASK_ARC, e);
    return rc ? rc : check_choices(s, item, e);
}
