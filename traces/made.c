// SPDX-License-Identifier: Apache-2.0
// Items that kvsim makes: a needle in a text, and recall of one of many pairs.
//
// Item i is the same at every place: the same fact in a passage that begins at the same sentence,
// or the same pairs. What differs between two places is how much text there is and where the fact
// stands in it, so contexts of one item share all that stands before the shallower needle, and with
// recall all but the question.
#include "traces/made.h"

#include <ctype.h>
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/model/model.h"

enum { N_CHOICES = 4, NUMBER = 6 }; // digits of a number and the zero behind
enum { MOST_PAIRS = 10000, FIRST_NUMBER = 10000, N_NUMBERS = 90000 };

struct maker {
    const struct kv_model *m;
    const struct kv_tasks *from;
    char *text;                  // twice, so that a passage may begin anywhere
    size_t n_text;               // once
    size_t *sentence;            // where sentences of both begin, ascending
    size_t n_sentences, n_first; // in all, in the first
    bool *taken;                 // [N_NUMBERS] numbers of five digits that stand in it
    char **word;                 // [n_words] of the text, all different; NULL where there is none
    size_t n_words;
    uint32_t *ids; // of what is counted
    struct kv_tasks *to;
    size_t room;
};

// ---- the text -------------------------------------------------------------------------

static bool is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

// After a line's end, or after white space behind a full stop, '!' or '?'.
static bool begins_sentence(const char *text, size_t at) {
    if (at == 0) return true;
    if (is_blank(text[at]) || !is_blank(text[at - 1])) return false;
    size_t before = at;
    while (before > 0 && is_blank(text[before - 1]))
        if (text[--before] == '\n') return true;
    return before > 0 && strchr(".!?", text[before - 1]);
}

static void find_sentences(struct maker *k) {
    size_t n = strlen(k->text), room = 0;
    for (size_t i = 0; i < n; i++) {
        if (!begins_sentence(k->text, i)) continue;
        if (k->n_sentences == room) {
            room = room ? 2 * room : 256;
            k->sentence = kv_grow(k->sentence, room, sizeof *k->sentence);
        }
        k->sentence[k->n_sentences++] = i;
        k->n_first += i < k->n_text;
    }
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// Words of 4 to 12 ASCII letters in small ones, sorted, each once.
static void find_words(struct maker *k) {
    size_t room = 0, n = 0;
    for (const char *p = k->text, *end = k->text + k->n_text; p < end;) {
        size_t length = 0;
        while (p + length < end && isalpha((unsigned char)p[length])) length++;
        if (length >= 4 && length <= 12) {
            if (n == room) {
                room = room ? 2 * room : 1024;
                k->word = kv_grow(k->word, room, sizeof *k->word);
            }
            k->word[n++] = kv_format_text("%.*s", (int)length, p);
            for (char *c = k->word[n - 1]; *c; c++) *c = (char)tolower((unsigned char)*c);
        }
        p += length ? length : 1;
    }
    if (n) qsort(k->word, n, sizeof *k->word, by_text);
    for (size_t i = 0; i < n; i++)
        if (k->n_words && strcmp(k->word[k->n_words - 1], k->word[i]) == 0)
            free(k->word[i]);
        else
            k->word[k->n_words++] = k->word[i];
}

// Numbers of five digits that the text holds, also within longer ones. Errors: so many that too few
// are left to draw from.
static int find_numbers(struct maker *k, struct kv_error *e) {
    size_t left = N_NUMBERS, digits = 0, number = 0;
    k->taken = kv_alloc(N_NUMBERS, sizeof *k->taken);
    for (const char *p = k->text; *p; p++) {
        bool digit = *p >= '0' && *p <= '9';
        digits = digit ? digits + 1 : 0;
        number = digit ? (number * 10 + (size_t)(*p - '0')) % (FIRST_NUMBER * 10) : 0;
        if (digits < 5 || number < FIRST_NUMBER || k->taken[number - FIRST_NUMBER]) continue;
        k->taken[number - FIRST_NUMBER] = true;
        left--;
    }
    return left > 2 * MOST_PAIRS
               ? 0
               : kv_fail(e, KV_EFAIL, k->from->path,
                         "holds so many numbers of five digits that only %zu are left to ask for",
                         left);
}

// ---- draws ----------------------------------------------------------------------------

// What is drawn for item i, each from its own sequence.
enum draws { DRAW_START, DRAW_NAME, DRAW_NUMBER, DRAW_RIVAL };

static size_t draw(const struct maker *k, size_t i, enum draws what, uint64_t index, size_t below) {
    return (size_t)(kv_draw(k->from->places->seed, (uint64_t)i << 3 | what, index) * (double)below);
}

// Five digits that do not stand in the text nor among those before.
static void draw_number(const struct maker *k, size_t i, uint64_t *index, char (*before)[NUMBER],
                        size_t n) {
    for (bool fresh = false; !fresh;) {
        size_t number = draw(k, i, DRAW_NUMBER, (*index)++, N_NUMBERS);
        snprintf(before[n], NUMBER, "%zu", FIRST_NUMBER + number);
        fresh = !k->taken[number];
        for (size_t j = 0; j < n && fresh; j++) fresh = strcmp(before[j], before[n]) != 0;
    }
}

// A made-up word of three syllables.
static void draw_name(const struct maker *k, size_t i, uint64_t *index, char name[7]) {
    static const char consonants[] = "bdfgklmnprstvz", vowels[] = "aeiou";
    for (size_t c = 0; c < 6; c++) {
        const char *from = c % 2 ? vowels : consonants;
        name[c] = from[draw(k, i, DRAW_NAME, (*index)++, strlen(from))];
    }
    name[6] = 0;
}

// ---- one item -------------------------------------------------------------------------

static int count_tokens(struct maker *k, const char *text, size_t *n, struct kv_error *e) {
    int rc = kv_tokenizer_encode(k->m->tokenizer, text, strlen(text), &k->ids, n, e);
    *n += k->m->add_bos;
    return rc;
}

// Appends an item of a context, which it owns from here on, and choices, the answer first.
static void add_item(struct maker *k, char *id, char *place, char *context,
                     char (*choice)[NUMBER]) {
    if (k->to->n_items == k->room) {
        k->room = k->room ? 2 * k->room : 64;
        k->to->items = kv_grow(k->to->items, k->room, sizeof *k->to->items);
    }
    struct kv_task_item *item = &k->to->items[k->to->n_items++];
    *item = (struct kv_task_item){.id = id, .source = place, .context = context};
    item->answer = kv_strdup(choice[0]);
    item->choices = kv_alloc(N_CHOICES, sizeof *item->choices);
    for (; item->n_choices < N_CHOICES; item->n_choices++)
        item->choices[item->n_choices] = kv_strdup(choice[item->n_choices]);
}

// The context of a size: words of text, or pairs.
typedef char *compose_fn(const struct maker *k, const void *self, size_t size);

// The largest size up to `most` whose context has no more than `length` tokens, and that context;
// longer ones are taken to have more. 0: none fits.
static int fit(struct maker *k, compose_fn *compose, const void *self, uint32_t length, size_t most,
               size_t *size, char **context, struct kv_error *e) {
    size_t high = (most < length ? most : length) + 1, n; // a word or a pair is a token at least
    int rc = 0;
    *size = 0;
    *context = NULL;
    while (rc == 0 && high - *size > 1) {
        size_t middle = *size + (high - *size) / 2;
        char *text = compose(k, self, middle);
        rc = count_tokens(k, text, &n, e);
        bool fits = rc == 0 && n <= length;
        if (fits)
            *size = middle;
        else
            high = middle;
        free(fits ? *context : text);
        if (fits) *context = text;
    }
    if (rc == 0 && *size == 0)
        rc = kv_fail(e, KV_EFAIL, k->from->path,
                     "length=%u: the question and its fact alone have more tokens", length);
    if (rc) free(*context);
    return rc;
}

static char *place_text(const struct maker *k, size_t place, double depth) {
    const struct kv_task_places *p = k->from->places;
    return p->n_pairs ? kv_format_text("pairs=%u,depth=%g", p->pairs[place], depth)
                      : kv_format_text("length=%u,depth=%g", p->lengths[place], depth);
}

static char *id_text(const struct maker *k, size_t place, double depth, size_t i) {
    const struct kv_task_places *p = k->from->places;
    return kv_format_text("%u/%g/%zu", p->n_pairs ? p->pairs[place] : p->lengths[place], depth, i);
}

// ---- needle ---------------------------------------------------------------------------

struct needle {
    size_t start;       // of the passage
    const size_t *word; // ends of its words
    char name[7], number[N_CHOICES][NUMBER];
    double depth;
};

// Where the fact goes in the first n bytes of the passage: the sentence's begin, or the end of all,
// that is nearest to its depth.
static size_t needle_at(const struct maker *k, const struct needle *f, size_t n) {
    double wanted = f->depth / 100 * (double)n;
    size_t best = 0;
    for (size_t i = 0; i < k->n_sentences && k->sentence[i] < f->start + n; i++)
        if (k->sentence[i] > f->start &&
            fabs((double)(k->sentence[i] - f->start) - wanted) < fabs((double)best - wanted))
            best = k->sentence[i] - f->start;
    return (double)n - wanted < fabs((double)best - wanted) ? n : best;
}

static char *compose_needle(const struct maker *k, const void *self, size_t n_words) {
    const struct needle *f = self;
    const char *passage = k->text + f->start;
    size_t n = f->word[n_words - 1] - f->start, at = needle_at(k, f, n);
    struct kv_text t = {0};
    kv_text_add(&t, passage, at);
    if (at == n) kv_text_add(&t, " ", 1);
    kv_text_addf(&t, "The secret number of %s is %s.", f->name, f->number[0]);
    if (at < n) kv_text_add(&t, " ", 1);
    kv_text_add(&t, passage + at, n - at);
    kv_text_addf(&t,
                 "\n\nQuestion: What is the secret number of %s?\nAnswer: The secret number of %s "
                 "is",
                 f->name, f->name);
    return kv_text_take(&t);
}

static void draw_needle(const struct maker *k, size_t i, const size_t *ends, size_t n_ends,
                        struct needle *f) {
    uint64_t index = 0;
    size_t first = 0;
    f->start = k->sentence[draw(k, i, DRAW_START, 0, k->n_first)];
    while (first < n_ends && ends[first] <= f->start) first++;
    f->word = ends + first;
    do draw_name(k, i, &index, f->name);
    while (strstr(k->text, f->name));
    f->name[0] = (char)toupper((unsigned char)f->name[0]);
    index = 0;
    for (size_t c = 0; c < N_CHOICES; c++) draw_number(k, i, &index, f->number, c);
}

// Ends of the words of both texts. Caller frees.
static size_t *word_ends(const struct maker *k, size_t *n) {
    size_t *ends = NULL, room = *n = 0;
    for (size_t i = 0; k->text[i]; i++) {
        if (is_blank(k->text[i]) || (k->text[i + 1] && !is_blank(k->text[i + 1]))) continue;
        if (*n == room) {
            room = room ? 2 * room : 1024;
            ends = kv_grow(ends, room, sizeof *ends);
        }
        ends[(*n)++] = i + 1;
    }
    return ends;
}

static int make_needles(struct maker *k, struct kv_error *e) {
    const struct kv_task_places *p = k->from->places;
    size_t n_ends, size;
    size_t *ends = word_ends(k, &n_ends), n_words = n_ends / 2; // a passage goes once round
    int rc = 0;
    for (size_t l = 0; l < p->n_lengths; l++)
        for (size_t d = 0; d < p->n_depths; d++)
            for (size_t i = 0; i < p->n && rc == 0; i++) {
                struct needle f = {.depth = p->depths[d]};
                char *context;
                draw_needle(k, i, ends, n_ends, &f);
                rc = fit(k, compose_needle, &f, p->lengths[l], n_words, &size, &context, e);
                if (rc) break;
                add_item(k, id_text(k, l, p->depths[d], i), place_text(k, l, p->depths[d]), context,
                         f.number);
                if (size == n_words)
                    rc = kv_fail(e, KV_EFAIL, k->from->path,
                                 "has %zu words, too few for a context of length=%u", n_words,
                                 p->lengths[l]);
            }
    free(ends);
    return rc;
}

// ---- recall ---------------------------------------------------------------------------

struct recall {
    size_t n_drawn;
    char (*key)[13];
    char (*number)[NUMBER];
    double depth;
};

// Which of n pairs is asked.
static size_t asked(const struct recall *r, size_t n) {
    return (size_t)round(r->depth / 100 * (double)(n - 1));
}

static char *compose_recall(const struct maker *k, const void *self, size_t n_pairs) {
    const struct recall *r = self;
    struct kv_text t = {0};
    (void)k;
    kv_text_addf(&t, "Each word has a number.\n\n");
    for (size_t i = 0; i < n_pairs; i++) kv_text_addf(&t, "%s: %s\n", r->key[i], r->number[i]);
    kv_text_addf(&t, "\nOne of them again.\n\n%s:", r->key[asked(r, n_pairs)]);
    return kv_text_take(&t);
}

static void draw_pairs(const struct maker *k, size_t i, size_t n, struct recall *r) {
    uint64_t index = 0, numbers = 0;
    r->key = kv_alloc(n + 1, sizeof *r->key);
    r->number = kv_alloc(n + 1, sizeof *r->number);
    for (; r->n_drawn < n; r->n_drawn++) {
        size_t at = r->n_drawn;
        for (bool fresh = false; !fresh;) {
            if (k->n_words)
                strcpy(r->key[at], k->word[draw(k, i, DRAW_NAME, index++, k->n_words)]);
            else
                draw_name(k, i, &index, r->key[at]);
            fresh = true;
            for (size_t j = 0; j < at && fresh; j++) fresh = strcmp(r->key[j], r->key[at]) != 0;
        }
        draw_number(k, i, &numbers, r->number, at);
    }
}

// The answer and three numbers of other pairs, or of none where there are too few.
static void choose_numbers(const struct maker *k, size_t i, const struct recall *r, size_t n,
                           char (*choice)[NUMBER]) {
    size_t right = asked(r, n);
    uint64_t rival = 0, number = 1000000;
    strcpy(choice[0], r->number[right]);
    for (size_t c = 1; c < N_CHOICES; c++) {
        if (n < N_CHOICES) {
            draw_number(k, i, &number, choice, c);
            continue;
        }
        for (bool fresh = false; !fresh;) {
            strcpy(choice[c], r->number[draw(k, i, DRAW_RIVAL, rival++, n)]);
            fresh = true;
            for (size_t j = 0; j < c && fresh; j++) fresh = strcmp(choice[j], choice[c]) != 0;
        }
    }
}

static int make_recall(struct maker *k, size_t place, size_t d, size_t i, struct kv_error *e) {
    const struct kv_task_places *p = k->from->places;
    char *context, choice[N_CHOICES][NUMBER];
    struct recall r = {.depth = p->depths[d]};
    size_t most = k->word && k->n_words < MOST_PAIRS ? k->n_words : MOST_PAIRS, n;
    int rc = 0;
    // A pair is four tokens at least: its word, a colon, a number, a line's end.
    n = p->n_pairs ? p->pairs[place] : p->lengths[place] / 4 < most ? p->lengths[place] / 4 : most;
    if (k->word && n > k->n_words)
        return kv_fail(e, KV_EFAIL, k->from->path, "has %zu words of its own; pairs=%zu needs more",
                       k->n_words, n);
    if (n > most)
        return kv_fail(e, KV_EUSAGE, "tasks recall", "%zu pairs: at most %d are made", n,
                       MOST_PAIRS);
    draw_pairs(k, i, n, &r);
    if (p->n_pairs)
        context = compose_recall(k, &r, n);
    else
        rc = fit(k, compose_recall, &r, p->lengths[place], n, &n, &context, e);
    if (rc == 0 && !p->n_pairs && n == most) {
        free(context);
        rc = kv_fail(e, KV_EFAIL, k->from->path,
                     "length=%u holds more than the %zu pairs there are", p->lengths[place], n);
    }
    if (rc == 0) {
        choose_numbers(k, i, &r, n, choice);
        add_item(k, id_text(k, place, p->depths[d], i), place_text(k, place, p->depths[d]), context,
                 choice);
    }
    free(r.key);
    free(r.number);
    return rc;
}

static int make_recalls(struct maker *k, struct kv_error *e) {
    const struct kv_task_places *p = k->from->places;
    size_t n_places = p->n_pairs ? p->n_pairs : p->n_lengths;
    int rc = 0;
    for (size_t l = 0; l < n_places; l++)
        for (size_t d = 0; d < p->n_depths; d++)
            for (size_t i = 0; i < p->n && rc == 0; i++) rc = make_recall(k, l, d, i, e);
    return rc;
}

// ---- all ------------------------------------------------------------------------------

int kv_tasks_make(struct kv_tasks **made, const struct kv_tasks *t, const struct kv_model *m,
                  struct kv_error *e) {
    *made = NULL;
    KV_GUARD(e);
    if (!m->tokenizer) return kv_fail(e, KV_EFAIL, m->name, "has no tokenizer");
    const char *text = t->n_items ? t->items[0].context : "";
    struct maker k = {.m = m,
                      .from = t,
                      .text = kv_format_text("%s\n%s", text, text),
                      .n_text = strlen(text),
                      .to = kv_alloc(1, sizeof *k.to)};
    k.to->kind = t->kind;
    k.to->name = kv_strdup(t->name);
    k.to->path = kv_strdup(t->path);
    k.to->prompt = kv_strdup(t->prompt);
    memcpy(k.to->digest, t->digest, sizeof k.to->digest);
    bool needle = t->kind == KV_TASK_NEEDLE;
    if (needle) find_sentences(&k);
    if (!needle && t->n_items) find_words(&k);
    int rc = find_numbers(&k, e);
    if (rc == 0) rc = needle ? make_needles(&k, e) : make_recalls(&k, e);
    for (size_t i = 0; i < k.n_words; i++) free(k.word[i]);
    free(k.taken);
    free(k.word);
    free(k.sentence);
    free(k.text);
    free(k.ids);
    if (rc)
        kv_tasks_free(k.to);
    else
        *made = k.to;
    return rc;
}

int kv_tasks_settle(struct kv_tasks **t, const struct kv_model *m, struct kv_error *e) {
    struct kv_tasks *made;
    int rc = (*t)->places ? kv_tasks_make(&made, *t, m, e) : 0;
    if (rc || !(*t)->places) return rc;
    kv_tasks_free(*t);
    *t = made;
    return 0;
}
