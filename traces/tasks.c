// SPDX-License-Identifier: Apache-2.0
// Reads benchmark files into items, with the prompts of lm-evaluation-harness.
//
// Prompts: lm_eval/tasks/hellaswag/utils.py, arc/arc_easy.yaml, openbookqa/openbookqa.yaml in
// https://github.com/EleutherAI/lm-evaluation-harness. Its Python strips and capitalizes by
// Unicode; so does this, with one-to-one letters of Latin, Greek and Cyrillic. Not done: "ß",
// ligatures and the final sigma, none of which occurs where HellaSwag's validation file is
// capitalized (all of its 10,042 ctx_b are ASCII there).
#include "traces/tasks.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "sim/base/args.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/base/assets.h"
#include "sim/base/utf8.h"
#include "traces/harness_text.h"

#define MAX_CHOICES 16

// One file being read: where it is, for messages, and what is asked of it.
struct source {
    const char *path;
    const char *unit; // what is counted: "line", or "item" of an array
    size_t line;      // from 1
    bool sample;      // shipped with kvsim
    bool harness;
};

// ---- messages -------------------------------------------------------------------------

// "path: line N", the end of a path too long for a message being its telling part.
KV_PRINTF(3, 4)
static int fail_line(const struct source *s, struct kv_error *e, const char *format, ...) {
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

static int get_text(const struct source *s, const json_t *from, const char *key, const char **text,
                    struct kv_error *e) {
    const json_t *v = json_object_get(from, key);
    *text = json_string_value(v);
    if (!v) return fail_line(s, e, "the field \"%s\" is missing", key);
    if (!*text) return fail_line(s, e, "the field \"%s\" is not a text", key);
    return KV_OK;
}

// ---- items ----------------------------------------------------------------------------

static int check_choices(const struct source *s, const struct kv_task_item *item,
                         struct kv_error *e) {
    if (kv_is_blank(item->context)) return fail_line(s, e, "the context is empty");
    for (size_t i = 0; i < item->n_choices; i++)
        if (kv_is_blank(item->choices[i])) return fail_line(s, e, "choice %zu is empty", i);
    return KV_OK;
}

static int check_count(const struct source *s, const json_t *list, const char *key,
                       struct kv_error *e) {
    size_t n = json_array_size(list);
    if (!json_is_array(list)) return fail_line(s, e, "the field \"%s\" is missing or no list", key);
    if (n < 2 || n > MAX_CHOICES)
        return fail_line(s, e, "\"%s\" has %zu entries; 2 to %d are read", key, n, MAX_CHOICES);
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
static char *source_of(const struct source *s, const json_t *line, const char *ctx_b) {
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

static int read_hellaswag(const struct source *s, const json_t *line, struct kv_task_item *item,
                          struct kv_error *e) {
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
        if (!text) return fail_line(s, e, "ending %zu is not a text", i);
        item->choices[item->n_choices++] = s->harness ? kv_harness_text(text) : kv_strdup(text);
    }
    const json_t *label = json_object_get(line, "label");
    json_int_t gold = label_of(label);
    if (!label) return fail_line(s, e, "the field \"label\" is missing");
    if (gold < 0 || (size_t)gold >= item->n_choices)
        return fail_line(s, e, "\"label\" is none of the endings 0 to %zu", item->n_choices - 1);
    item->gold = (int)gold;
    return KV_OK;
}

// A choice's text and label: of a list of {text, label} in the official files, of an object of two
// lists in what `datasets` exports. NULL where there is none.
struct choices {
    const json_t *list, *texts, *labels; // either the first or the two others
    size_t n;
};

static int find_choices(const struct source *s, const json_t *choices, struct choices *c,
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
        rc = fail_line(s, e, "choices has %zu texts, but %zu labels", c->n,
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

static int read_choice(const struct source *s, const struct choices *c, size_t i, const char **text,
                       char label[24], struct kv_error *e) {
    const json_t *one = json_array_get(c->list, i);
    const json_t *mark = c->list ? json_object_get(one, "label") : json_array_get(c->labels, i);
    if (c->list) {
        int rc = get_text(s, one, "text", text, e);
        if (rc) return rc;
    } else if (!(*text = json_string_value(json_array_get(c->texts, i)))) {
        return fail_line(s, e, "text %zu of the choices is not a text", i);
    }
    if (!mark) return fail_line(s, e, "the field \"label\" is missing");
    if (!label_text(mark, label))
        return fail_line(s, e, "the field \"label\" is neither a short text nor a whole number");
    return KV_OK;
}

// All labels have been read.
static int check_labels_differ(const struct source *s, const struct choices *c,
                               struct kv_error *e) {
    const char *text;
    char a[24], b[24];
    for (size_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < i; k++) {
            int rc = read_choice(s, c, i, &text, a, e);
            if (!rc) rc = read_choice(s, c, k, &text, b, e);
            if (!rc && strcmp(a, b) == 0)
                rc = fail_line(s, e, "the label \"%.20s\" stands at two choices", a);
            if (rc) return rc;
        }
    return KV_OK;
}

// The question and its choices, wherever the line has them: {question: {stem, choices}} in the
// official files; {question or question_stem, choices} in the hub's.
static int find_question(const struct source *s, const json_t *line, const char **stem,
                         struct choices *c, struct kv_error *e) {
    const json_t *question = json_object_get(line, "question");
    const json_t *from = json_is_object(question) ? question : line;
    const char *key = from == question                         ? "stem"
                      : json_object_get(line, "question_stem") ? "question_stem"
                                                               : "question";
    int rc = get_text(s, from, key, stem, e);
    if (!rc && kv_is_blank(*stem)) rc = fail_line(s, e, "the stem is empty");
    return rc ? rc : find_choices(s, json_object_get(from, "choices"), c, e);
}

// ARC and OpenBookQA share a layout; labels are A, B, ... or 1, 2, ..., so the key is looked up
// among the item's own.
static int read_question(const struct source *s, const json_t *line, struct kv_task_item *item,
                         bool arc, struct kv_error *e) {
    const char *stem, *text;
    char key[24], label[24];
    struct choices choices;
    int rc = find_question(s, line, &stem, &choices, e);
    if (rc) return rc;
    const json_t *answer = json_object_get(line, "answerKey");
    if (!answer) return fail_line(s, e, "the field \"answerKey\" is missing");
    if (!label_text(answer, key))
        return fail_line(s, e,
                         "the field \"answerKey\" is neither a short text nor a whole number");
    if (!*key) return fail_line(s, e, "answerKey is empty: this set's answers are not published");
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
        rc = fail_line(s, e, "answerKey \"%.20s\" is none of the labels %.200s", key, all);
    free(all);
    return rc;
}

// The next item, owned by t also when half filled; memory grows with items, not with lines.
static struct kv_task_item *add_item(struct kv_tasks *t, size_t *room) {
    if (t->n_items == *room) {
        *room = *room ? 2 * *room : 64;
        t->items = kv_grow(t->items, *room, sizeof *t->items);
    }
    t->items[t->n_items] = (struct kv_task_item){0};
    return &t->items[t->n_items++];
}

static int read_item(struct source *s, struct kv_tasks *t, size_t *room, const json_t *line,
                     struct kv_error *e) {
    struct kv_task_item *item = add_item(t, room);
    int rc;
    if (!json_is_object(line))
        rc = fail_line(s, e, "a JSON object was expected");
    else if (t->kind == KV_TASK_HELLASWAG)
        rc = read_hellaswag(s, line, item, e);
    else
        rc = read_question(s, line, item, t->kind == KV_TASK_ARC, e);
    return rc ? rc : check_choices(s, item, e);
}

static int bad_json(const struct source *s, const json_error_t *bad, struct kv_error *e) {
    return fail_line(s, e, "this is not JSON: %.200s at byte %d", bad->text, bad->position);
}

// Files joined by `cat` have their byte order marks inside.
static void skip_marks(const char **text, size_t *n) {
    static const char mark[] = "\xEF\xBB\xBF";
    for (; *n >= 3 && memcmp(*text, mark, 3) == 0; *n -= 3) *text += 3;
    while (*n >= 3 && memcmp(*text + *n - 3, mark, 3) == 0) *n -= 3;
}

static int read_line(struct source *s, struct kv_tasks *t, size_t *room, const char *text, size_t n,
                     struct kv_error *e) {
    json_error_t bad;
    skip_marks(&text, &n);
    json_t *line = json_loadb(text, n, JSON_REJECT_DUPLICATES, &bad);
    if (!line) return bad_json(s, &bad, e);
    int rc = read_item(s, t, room, line, e);
    json_decref(line);
    return rc;
}

// A whole file as one JSON array; "line" is then an item's place in it.
static int read_array(struct source *s, struct kv_tasks *t, const char *text, size_t n,
                      struct kv_error *e) {
    json_error_t bad;
    size_t room = 0, i;
    json_t *array = json_loadb(text, n, JSON_REJECT_DUPLICATES, &bad), *one;
    int rc = KV_OK;
    if (!array) {
        s->line = bad.line > 0 ? (size_t)bad.line : 1;
        return bad_json(s, &bad, e);
    }
    s->unit = "item";
    json_array_foreach(array, i, one) {
        s->line = i + 1;
        rc = read_item(s, t, &room, one, e);
        if (rc) break;
    }
    json_decref(array);
    if (rc) return rc;
    return t->n_items ? KV_OK : kv_fail(e, KV_EFAIL, s->path, "there are no items");
}

static bool blank_line(const char *s, size_t n) {
    while (n > 0 && strchr(" \t\r", s[n - 1]) && s[n - 1]) n--;
    return n == 0;
}

static int read_lines(struct source *s, struct kv_tasks *t, const char *text, size_t n,
                      struct kv_error *e) {
    size_t room = 0;
    for (size_t at = 0; at < n;) {
        const char *newline = memchr(text + at, '\n', n - at);
        size_t length = newline ? (size_t)(newline - text) - at : n - at;
        s->line++;
        if (!blank_line(text + at, length)) {
            int rc = read_line(s, t, &room, text + at, length, e);
            if (rc) return rc;
        }
        at += length + 1;
    }
    return t->n_items ? KV_OK : kv_fail(e, KV_EFAIL, s->path, "there are no items");
}

static int read_text(struct source *s, struct kv_tasks *t, const char *text, size_t n,
                     struct kv_error *e) {
    const char *zero = memchr(text, 0, n);
    size_t valid = zero ? (size_t)(zero - text) : kv_utf8_valid(text, n);
    for (size_t i = 0; i < valid; i++) s->line += text[i] == '\n';
    s->line++;
    if (valid < n)
        return fail_line(s, e, "byte %zu of the text (0x%02x) is %s", valid,
                         (unsigned char)text[valid], zero ? "zero" : "not UTF-8");
    if (kv_is_blank(text)) return kv_fail(e, KV_EFAIL, s->path, "there are no items: it is empty");
    t->items = kv_alloc(1, sizeof *t->items);
    t->n_items = 1;
    t->items[0] = (struct kv_task_item){
        .id = kv_strdup("0"), .source = kv_strdup(""), .context = kv_strdup(text), .gold = -1};
    return KV_OK;
}

// ---- specs ----------------------------------------------------------------------------

static const struct kv_param hellaswag_params[] = {
    {"prompt", KV_CHOICE, "harness", 0, 0, "harness/text", NULL,
     "lm-evaluation-harness's text, or ctx as it stands"},
    {0}};
static const struct kv_param text_params[] = {
    {"window", KV_INT, "512", 64, 999999, NULL, "tokens",
     "tokens of an item, up to the model's own context"},
    {"score", KV_TEXT, "1", 0, 0, NULL, NULL,
     "1/N: of each N positions one is scored, drawn with the seed"},
    {0}};
static const struct kv_param no_params[] = {{0}};

// Kinds by enum kv_task_kind.
static const struct {
    const char *name;
    const struct kv_param *params;
} kinds[] = {{"hellaswag", hellaswag_params},
             {"arc", no_params},
             {"openbookqa", no_params},
             {"text", text_params}};
#define N_KINDS (sizeof kinds / sizeof *kinds)

// Files shipped in the program.
static const struct {
    const char *name, *asset;
    enum kv_task_kind kind;
} samples[] = {{"samples", "traces/samples/sentences.jsonl", KV_TASK_HELLASWAG},
               {"samples-text", "traces/samples/text.txt", KV_TASK_TEXT}};
#define N_SAMPLES (sizeof samples / sizeof *samples)

static bool file_exists(const char *path) {
    return access(path, R_OK) == 0; // opening a pipe would wait for its writer
}

// Takes a kind off the front of *path: its index, or N_KINDS when there is none.
static size_t take_kind(char **path) {
    size_t n = strcspn(*path, ":");
    for (size_t i = 0; i < N_KINDS && (*path)[n]; i++)
        if (strlen(kinds[i].name) == n && memcmp(kinds[i].name, *path, n) == 0) {
            *path += n + 1;
            return i;
        }
    return N_KINDS;
}

// "helaswag:FILE" where no such file is: the kind is a typo.
static int check_kind(const char *path, struct kv_error *e) {
    size_t n = strcspn(path, ":");
    if (path[n] != ':' || memchr(path, '/', n) || file_exists(path)) return KV_OK;
    char *name = kv_strdup(path);
    name[n] = 0;
    const char *names[N_KINDS + 1] = {0};
    for (size_t i = 0; i < N_KINDS; i++) names[i] = kinds[i].name;
    const char *near = kv_nearest(name, names);
    int rc = near ? kv_fail(e, KV_EUSAGE, "tasks", "unknown kind '%.60s'; did you mean '%s'?", name,
                            near)
                  : kv_fail(e, KV_EUSAGE, "tasks",
                            "unknown kind '%.60s'; it is hellaswag, arc, openbookqa or text", name);
    free(name);
    return rc;
}

// OpenBookQA's ids are two numbers ("8-343"); ARC's name an exam ("Mercury_7175875").
static bool id_is_two_numbers(const char *id) {
    size_t a = id ? strspn(id, "0123456789") : 0;
    size_t b = a && id[a] == '-' ? strspn(id + a + 1, "0123456789") : 0;
    return b > 0 && id[a + 1 + b] == 0;
}

static size_t first_letter(const char *text, size_t n) {
    size_t i = 0;
    while (i < n && strchr(" \t\r\n", text[i]) && text[i]) i++;
    return i;
}

// What the text is instead of JSON, if its first bytes tell; else the parser's own words.
static int not_json(const struct source *s, const char *text, size_t n, const json_error_t *bad,
                    struct kv_error *e) {
    const char *kind = kv_file_kind(text, n, NULL);
    if (kind && text[first_letter(text, n)] != '{' && text[first_letter(text, n)] != '[')
        return kv_fail(e, KV_EFAIL, s->path, "this is no benchmark file: %s", kind);
    return bad_json(s, bad, e);
}

static int recognize(const char *path, const char *text, size_t n, size_t *kind,
                     struct kv_error *e) {
    size_t length = strlen(path);
    if (length > 3 && strcmp(path + length - 3, ".gz") == 0) length -= 3;
    if (length > 4 && memcmp(path + length - 4, ".txt", 4) == 0) {
        *kind = KV_TASK_TEXT;
        return KV_OK;
    }
    size_t begin = first_letter(text, n);
    if (begin == n) return kv_fail(e, KV_EFAIL, path, "there are no items: it is empty");
    struct source s = {.path = path, .unit = "line", .line = 1};
    for (size_t i = 0; i < begin; i++) s.line += text[i] == '\n';
    const char *newline = memchr(text + begin, '\n', n - begin);
    bool array = text[begin] == '[';
    size_t line_bytes = newline && !array ? (size_t)(newline - text) - begin : n - begin;
    json_error_t bad;
    json_t *line = json_loadb(text + begin, line_bytes, 0, &bad);
    if (!line) return not_json(&s, text, n, &bad, e);
    const json_t *first = array ? json_array_get(line, 0) : line;
    const json_t *question = json_object_get(first, "question");
    const char *id = json_string_value(json_object_get(first, "id"));
    bool known = true;
    if (json_object_get(first, "endings"))
        *kind = KV_TASK_HELLASWAG;
    else if (json_object_get(first, "question_stem"))
        *kind = KV_TASK_OPENBOOKQA;
    else if (json_object_get(question, "choices") ||
             (json_is_string(question) && json_object_get(first, "choices")))
        *kind = id_is_two_numbers(id) ? KV_TASK_OPENBOOKQA : KV_TASK_ARC;
    else
        known = false;
    bool empty = array && json_array_size(line) == 0;
    json_decref(line);
    if (known) return KV_OK;
    if (empty) return kv_fail(e, KV_EFAIL, path, "there are no items: the array is empty");
    return kv_fail(e, KV_EFAIL, path,
                   "this is not recognized: its first %s has neither \"endings\" nor "
                   "\"question\" or \"question_stem\" with \"choices\"; say hellaswag:, arc:, "
                   "openbookqa: or text: before the path",
                   array ? "item" : "line");
}

// Splits "key=value,key=value" into a spec for kv_args_new. The text is cut in place.
static int parse_pairs(struct kv_spec *spec, char *text, const char *what, struct kv_error *e) {
    for (char *rest = text, *pair; rest && (pair = strsep(&rest, ","));) {
        char *equals = strchr(pair, '=');
        if (!equals || equals == pair)
            return kv_fail(e, KV_EUSAGE, what,
                           "'%.60s' is no key=value; a path may not hold a comma", pair);
        *equals = 0;
        spec->keys = kv_grow(spec->keys, spec->n_pairs + 1, sizeof *spec->keys);
        spec->values = kv_grow(spec->values, spec->n_pairs + 1, sizeof *spec->values);
        spec->keys[spec->n_pairs] = pair;
        spec->values[spec->n_pairs++] = equals + 1;
    }
    return KV_OK;
}

// "1/16", or "1" for every position.
static int read_share(struct kv_tasks *t, const char *text, const char *what, struct kv_error *e) {
    const char *n = strncmp(text, "1/", 2) == 0 ? text + 2 : text;
    bool number = *n && strlen(n) < 5 && strspn(n, "0123456789") == strlen(n);
    t->score_one_in = number ? (uint32_t)atoi(n) : 0;
    if (t->score_one_in > 0 && (n != text || t->score_one_in == 1)) return KV_OK;
    return kv_fail(e, KV_EUSAGE, what, "score=%.60s: 1 or 1/N with N from 1 to 9999 is expected",
                   text);
}

static int apply_pairs(struct kv_tasks *t, struct source *s, char *pairs, struct kv_error *e) {
    char what[32];
    struct kv_spec spec = {0};
    struct kv_args *args = NULL;
    snprintf(what, sizeof what, "tasks %s", t->name);
    int rc = parse_pairs(&spec, pairs, what, e);
    if (!rc) rc = kv_args_new(&args, &spec, kinds[t->kind].params, NULL, what, e);
    if (!rc && t->kind == KV_TASK_HELLASWAG) {
        free(t->prompt);
        t->prompt = kv_strdup(kv_arg(args, "prompt")->text);
        s->harness = kv_number(args, "prompt") == 0;
    }
    if (!rc && t->kind == KV_TASK_TEXT) t->window_tokens = (uint32_t)kv_number(args, "window");
    if (!rc && t->kind == KV_TASK_TEXT) rc = read_share(t, kv_arg(args, "score")->text, what, e);
    kv_args_free(args);
    free(spec.keys);
    free(spec.values);
    return rc;
}

// Reads the file or the sample of that name; *kind becomes the sample's.
static int read_bytes(const char *path, struct source *s, size_t *kind, char **text, size_t *n,
                      struct kv_error *e) {
    for (size_t i = 0; i < N_SAMPLES; i++) {
        if (*kind != N_KINDS || strcmp(path, samples[i].name) != 0) continue;
        const struct kv_asset *asset = kv_asset_find(samples[i].asset);
        if (!asset) return kv_fail(e, KV_EFAIL, path, "this build holds no %s", samples[i].asset);
        struct kv_text copy = {0};
        kv_text_add(&copy, (const char *)asset->data, asset->n);
        *n = copy.n;
        *text = kv_text_take(&copy);
        *kind = samples[i].kind;
        s->sample = true;
        return KV_OK;
    }
    int rc = *kind == N_KINDS ? check_kind(path, e) : KV_OK;
    return rc ? rc : kv_read_file(path, text, n, e);
}

// ARC's two sets have one form and are told apart by the names of their files.
static const char *name_of(size_t kind, const char *path) {
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
    if (kind != KV_TASK_ARC) return kinds[kind].name;
    return strcasestr(file, "easy")        ? "arc_easy"
           : strcasestr(file, "challenge") ? "arc_challenge"
                                           : "arc";
}

static int by_id(const void *a, const void *b) {
    const struct kv_task_item *const *x = a, *const *y = b;
    return strcmp((*x)->id, (*y)->id);
}

// An item that stands twice would count twice, and narrow every interval: what is recorded has ids
// that differ (traces/manifest.h).
static void warn_of_doubles(const struct kv_tasks *t) {
    const struct kv_task_item **item = kv_alloc(t->n_items + 1, sizeof *item);
    size_t doubles = 0, first = 0;
    for (size_t i = 0; i < t->n_items; i++) item[i] = &t->items[i];
    qsort(item, t->n_items, sizeof *item, by_id);
    for (size_t i = 1; i < t->n_items; i++)
        if (by_id(&item[i - 1], &item[i]) == 0 && doubles++ == 0) first = i;
    if (doubles)
        kv_say("warning: %s: the id '%s' is given to two items; %zu items repeat an id, and record "
               "takes one of each",
               t->path, item[first]->id, doubles);
    free(item);
}

// Skips UTF-8's byte order mark; refuses UTF-16 and UTF-32, known by theirs or by zero bytes
// beside the first letters.
static int check_encoding(const char *path, const char **text, size_t *n, struct kv_error *e) {
    const unsigned char *p = (const unsigned char *)*text;
    bool marked = *n >= 2 && ((p[0] == 0xFF && p[1] == 0xFE) || (p[0] == 0xFE && p[1] == 0xFF));
    bool halves = *n >= 4 && !p[0] != !p[1] && !p[2] == !p[0] && !p[3] == !p[1];
    if (marked || halves || (*n >= 4 && !p[0] && !p[1] && p[2] == 0xFE && p[3] == 0xFF))
        return kv_fail(e, KV_EFAIL, path,
                       "the text is UTF-16 or UTF-32, not UTF-8: convert it, for instance with "
                       "`iconv -f UTF-16 -t UTF-8`");
    if (*n >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0) {
        *text += 3;
        *n -= 3;
    }
    return KV_OK;
}

static int read_items(struct source *s, struct kv_tasks *t, const char *text, size_t n,
                      struct kv_error *e) {
    size_t begin = first_letter(text, n);
    if (t->kind == KV_TASK_TEXT) return read_text(s, t, text, n, e);
    if (begin < n && text[begin] == '[') return read_array(s, t, text, n, e);
    return read_lines(s, t, text, n, e);
}

int kv_tasks_load(struct kv_tasks **out, const char *spec, struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    char *copy = kv_strdup(spec), *path = copy, *text = NULL;
    char *pairs = strchr(copy, ',');
    if (pairs) *pairs++ = 0;
    size_t n = 0, kind = take_kind(&path);
    struct source s = {.path = path, .unit = "line"};
    struct kv_tasks *t = kv_alloc(1, sizeof *t);
    int rc = read_bytes(path, &s, &kind, &text, &n, e);
    const char *body = text;
    size_t n_body = n;
    if (!rc) rc = check_encoding(path, &body, &n_body, e);
    if (!rc && kind == N_KINDS) rc = recognize(path, body, n_body, &kind, e);
    if (rc) goto done;
    t->kind = (enum kv_task_kind)kind;
    t->name = kv_strdup(name_of(kind, path));
    t->path = kv_strdup(path);
    t->prompt = kv_strdup("");
    kv_hex64(kv_hash(text, n, 0), t->digest);
    rc = apply_pairs(t, &s, pairs, e);
    if (!rc) rc = read_items(&s, t, body, n_body, e);
    if (!rc) warn_of_doubles(t);
done:
    free(text);
    free(copy);
    if (rc) {
        kv_tasks_free(t);
        return rc;
    }
    *out = t;
    return KV_OK;
}

void kv_tasks_free(struct kv_tasks *t) {
    if (!t) return;
    for (size_t i = 0; i < t->n_items; i++) {
        struct kv_task_item *item = &t->items[i];
        for (size_t k = 0; k < item->n_choices; k++) free(item->choices[k]);
        free(item->choices);
        free(item->id);
        free(item->source);
        free(item->context);
    }
    free(t->items);
    free(t->name);
    free(t->path);
    free(t->prompt);
    free(t);
}
