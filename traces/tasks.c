// SPDX-License-Identifier: Apache-2.0
// Reads benchmark files into items: which kind a file is, its parameters, its lines.
#include "traces/tasks.h"

#include <stdlib.h>
#include <unistd.h>

#include "sim/base/args.h"
#include "sim/base/assets.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/base/utf8.h"
#include "traces/gsm8k.h"
#include "traces/harness_text.h"
#include "traces/made.h"
#include "traces/task_lines.h"

// The next item, owned by t also when half filled; memory grows with items, not with lines.
static struct kv_task_item *add_item(struct kv_tasks *t, size_t *room) {
    if (t->n_items == *room) {
        *room = *room ? 2 * *room : 64;
        t->items = kv_grow(t->items, *room, sizeof *t->items);
    }
    t->items[t->n_items] = (struct kv_task_item){0};
    return &t->items[t->n_items++];
}

static int read_item(struct kv_task_source *s, struct kv_tasks *t, size_t *room, const json_t *line,
                     struct kv_error *e) {
    return kv_task_line_read(s, t->kind, line, add_item(t, room), e);
}

static int bad_json(const struct kv_task_source *s, const json_error_t *bad, struct kv_error *e) {
    return kv_task_line_fail(s, e, "this is not JSON: %.200s at byte %d", bad->text, bad->position);
}

// Files joined by `cat` have their byte order marks inside.
static void skip_marks(const char **text, size_t *n) {
    static const char mark[] = "\xEF\xBB\xBF";
    for (; *n >= 3 && memcmp(*text, mark, 3) == 0; *n -= 3) *text += 3;
    while (*n >= 3 && memcmp(*text + *n - 3, mark, 3) == 0) *n -= 3;
}

static int read_line(struct kv_task_source *s, struct kv_tasks *t, size_t *room, const char *text,
                     size_t n, struct kv_error *e) {
    json_error_t bad;
    skip_marks(&text, &n);
    json_t *line = json_loadb(text, n, JSON_REJECT_DUPLICATES, &bad);
    if (!line) return bad_json(s, &bad, e);
    int rc = read_item(s, t, room, line, e);
    json_decref(line);
    return rc;
}

// A whole file as one JSON array; "line" is then an item's place in it.
static int read_array(struct kv_task_source *s, struct kv_tasks *t, const char *text, size_t n,
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

static int read_lines(struct kv_task_source *s, struct kv_tasks *t, const char *text, size_t n,
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

static int read_text(struct kv_task_source *s, struct kv_tasks *t, const char *text, size_t n,
                     struct kv_error *e) {
    const char *zero = memchr(text, 0, n);
    size_t valid = zero ? (size_t)(zero - text) : kv_utf8_valid(text, n);
    for (size_t i = 0; i < valid; i++) s->line += text[i] == '\n';
    s->line++;
    if (valid < n)
        return kv_task_line_fail(s, e, "byte %zu of the text (0x%02x) is %s", valid,
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
static const struct kv_param gsm8k_params[] = {
    {"shots", KV_INT, "", 0, 64, NULL, NULL,
     "solved problems before each question: 5 where `from` is given, else 0"},
    {"from", KV_TEXT, "", 0, 0, NULL, NULL, "the file that they are drawn from"},
    {0}};
static const struct kv_param no_params[] = {{0}};

// Kinds by enum kv_task_kind.
static const struct {
    const char *name;
    const struct kv_param *params;
} kinds[] = {{"hellaswag", hellaswag_params}, {"arc", no_params},      {"openbookqa", no_params},
             {"text", text_params},           {"gsm8k", gsm8k_params}, {"needle", kv_needle_params},
             {"recall", kv_recall_params}};
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
    for (size_t i = 0; i < N_KINDS; i++)
        if (strlen(kinds[i].name) == n && memcmp(kinds[i].name, *path, n) == 0) {
            if (!(*path)[n] && i != KV_TASK_RECALL) break; // which needs no file
            *path += n + ((*path)[n] != 0);
            return i;
        }
    return N_KINDS;
}

static int no_file(size_t kind, struct kv_error *e) {
    return kv_fail(e, KV_EUSAGE, "tasks", "%s needs a file: %s:FILE", kinds[kind].name,
                   kinds[kind].name);
}

// "helaswag:FILE" where no such file is: the kind is a typo.
static int check_kind(const char *path, struct kv_error *e) {
    size_t n = strcspn(path, ":");
    for (size_t i = 0; i < N_KINDS; i++)
        if (strcmp(kinds[i].name, path) == 0 && !file_exists(path)) return no_file(i, e);
    if (path[n] != ':' || memchr(path, '/', n) || file_exists(path)) return KV_OK;
    char *name = kv_strdup(path);
    name[n] = 0;
    const char *names[N_KINDS + 1] = {0};
    for (size_t i = 0; i < N_KINDS; i++) names[i] = kinds[i].name;
    const char *near = kv_nearest(name, names);
    int rc = near ? kv_fail(e, KV_EUSAGE, "tasks", "unknown kind '%.60s'; did you mean '%s'?", name,
                            near)
                  : kv_fail(e, KV_EUSAGE, "tasks",
                            "unknown kind '%.60s'; it is hellaswag, arc, openbookqa, text, gsm8k, "
                            "needle or recall",
                            name);
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
static int not_json(const struct kv_task_source *s, const char *text, size_t n,
                    const json_error_t *bad, struct kv_error *e) {
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
    struct kv_task_source s = {.path = path, .unit = "line", .line = 1};
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
    else if (json_is_string(question) && json_is_string(json_object_get(first, "answer")))
        *kind = KV_TASK_GSM8K;
    else
        known = false;
    bool empty = array && json_array_size(line) == 0;
    json_decref(line);
    if (known) return KV_OK;
    if (empty) return kv_fail(e, KV_EFAIL, path, "there are no items: the array is empty");
    return kv_fail(e, KV_EFAIL, path,
                   "this is not recognized: its first %s has neither \"endings\" nor "
                   "\"question\" or \"question_stem\" with \"choices\"; say hellaswag:, arc:, "
                   "openbookqa:, gsm8k: or text: before the path",
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

// What is asked of GSM8K's prompts.
struct shots {
    size_t n;
    char *from; // file, or NULL
};

static int take_shots(struct shots *shots, const struct kv_args *args, const char *what,
                      struct kv_error *e) {
    const struct kv_value *n = kv_arg(args, "shots"), *from = kv_arg(args, "from");
    shots->n = n->given ? (size_t)n->number : from->given ? 5 : 0;
    if (shots->n && !*from->text)
        return kv_fail(e, KV_EUSAGE, what,
                       "shots=%zu needs from=FILE, the problems to draw them from", shots->n);
    if (from->given && shots->n == 0)
        return kv_fail(e, KV_EUSAGE, what, "from=%.60s: shots=0 draws none of it", from->text);
    if (shots->n) shots->from = kv_strdup(from->text);
    return KV_OK;
}

static int add_shots(struct kv_tasks *t, const struct shots *shots, struct kv_error *e) {
    struct kv_tasks *from;
    char *spec = kv_format_text("gsm8k:%s", shots->from);
    int rc = kv_tasks_load(&from, spec, e);
    free(spec);
    if (rc) return rc;
    rc = kv_gsm8k_add_shots(t, from, shots->n, e);
    free(t->prompt);
    t->prompt = kv_format_text("shots=%zu of %s", shots->n, from->digest);
    kv_tasks_free(from);
    return rc;
}

static bool is_made(enum kv_task_kind kind) {
    return kind == KV_TASK_NEEDLE || kind == KV_TASK_RECALL;
}

static int apply_pairs(struct kv_tasks *t, struct kv_task_source *s, struct shots *shots,
                       char *pairs, struct kv_error *e) {
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
    if (!rc && t->kind == KV_TASK_GSM8K) rc = take_shots(shots, args, what, e);
    if (!rc && is_made(t->kind)) rc = kv_places_take(t, args, what, e);
    kv_args_free(args);
    free(spec.keys);
    free(spec.values);
    return rc;
}

// Reads the file or the sample of that name; *kind becomes the sample's.
static int read_bytes(const char *path, struct kv_task_source *s, size_t *kind, char **text,
                      size_t *n, struct kv_error *e) {
    for (size_t i = 0; i < N_SAMPLES; i++) {
        bool within = samples[i].kind == KV_TASK_TEXT && *kind < N_KINDS && is_made(*kind);
        if ((*kind != N_KINDS && !within) || strcmp(path, samples[i].name) != 0) continue;
        const struct kv_asset *asset = kv_asset_find(samples[i].asset);
        if (!asset) return kv_fail(e, KV_EFAIL, path, "this build holds no %s", samples[i].asset);
        struct kv_text copy = {0};
        kv_text_add(&copy, (const char *)asset->data, asset->n);
        *n = copy.n;
        *text = kv_text_take(&copy);
        if (!within) *kind = samples[i].kind;
        s->sample = true;
        return KV_OK;
    }
    if (*kind == KV_TASK_RECALL && !*path) { // makes its own
        *n = 0;
        *text = kv_strdup("");
        return KV_OK;
    }
    int rc = *kind == N_KINDS ? check_kind(path, e) : *path ? KV_OK : no_file(*kind, e);
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

static int read_items(struct kv_task_source *s, struct kv_tasks *t, const char *text, size_t n,
                      struct kv_error *e) {
    size_t begin = first_letter(text, n);
    if (t->kind == KV_TASK_RECALL && n == 0 && !*s->path) return KV_OK;
    if (t->kind == KV_TASK_TEXT || is_made(t->kind)) return read_text(s, t, text, n, e);
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
    struct kv_task_source s = {.path = path, .unit = "line"};
    struct shots shots = {0};
    struct kv_tasks *t = kv_alloc(1, sizeof *t);
    int rc = read_bytes(path, &s, &kind, &text, &n, e);
    const char *body = text;
    size_t n_body = n;
    if (!rc) rc = check_encoding(path, &body, &n_body, e);
    if (!rc && kind == N_KINDS) rc = recognize(path, body, n_body, &kind, e);
    if (rc) goto done;
    t->kind = (enum kv_task_kind)kind;
    t->name = kv_strdup(name_of(kind, path));
    t->path = kv_strdup(*path ? path : t->name);
    t->prompt = kv_strdup("");
    kv_hex64(kv_hash(text, n, 0), t->digest);
    rc = apply_pairs(t, &s, &shots, pairs, e);
    if (!rc && !*path) kv_hex64(kv_hash(t->prompt, strlen(t->prompt), 0), t->digest);
    if (!rc) rc = read_items(&s, t, body, n_body, e);
    if (!rc && shots.n) rc = add_shots(t, &shots, e);
    if (!rc) warn_of_doubles(t);
done:
    free(text);
    free(copy);
    free(shots.from);
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
        free(item->answer);
    }
    free(t->places);
    free(t->items);
    free(t->name);
    free(t->path);
    free(t->prompt);
    free(t);
}
