// SPDX-License-Identifier: Apache-2.0
// Published claims as small text files, and what an interval says about one.
#include "analysis/claims/claim.h"

#include <ctype.h>
#include <stdlib.h>
#include <strings.h>

#include "sim/base/args.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"

const char *const kv_answer_names[] = {"holds", "does not hold", "cannot be told", NULL};

const struct kv_quantity_row kv_quantities[] = {
    {"acc difference", KV_Q_DIFFERENCE, KV_ACC, "points", true, "accuracy, sum of log-probs"},
    {"acc_norm difference", KV_Q_DIFFERENCE, KV_ACC_NORM, "points", true, "... a character"},
    {"acc_bytes difference", KV_Q_DIFFERENCE, KV_ACC_BYTES, "points", true, "... a byte"},
    {"acc_token difference", KV_Q_DIFFERENCE, KV_ACC_TOKEN, "points", true, "... a token"},
    {"kl ratio", KV_Q_KL_RATIO, KV_ACC, "", true, "divergence from 16 bit, first / second"},
    {"kl", KV_Q_KL, KV_ACC, "nats a token", false, "divergence from 16 bit"},
    {"agreement", KV_Q_AGREE, KV_ACC, "%", false, "picks that are the 16-bit run's"},
    {"perplexity difference", KV_Q_PERPLEXITY, KV_ACC, "", true, "of text windows"},
    {"latency saving", KV_Q_SAVING, KV_ACC, "%", true, "of a decode step on a device"},
    {0}};

// ---- reading --------------------------------------------------------------------------

#define FIELD(f) offsetof(struct kv_claim, f)
enum { TEXT_KEY, NUMBER_KEY, QUANTITY_KEY, MODE_KEY, SELF_KEY };
// Numbers are kept apart until the claim is whole.
enum number { VALUE, TOLERANCE, AT_LEAST, AT_MOST, CONTEXT, N_NUMBERS };

static const struct key {
    const char *name;
    int kind;
    size_t at; // offset of a text, or enum number
} keys[] = {
    {"claim", TEXT_KEY, FIELD(claim)},
    {"source", TEXT_KEY, FIELD(source)},
    {"model", TEXT_KEY, FIELD(model)},
    {"benchmark", TEXT_KEY, FIELD(benchmark)},
    {"quantity", QUANTITY_KEY, 0},
    {"first", TEXT_KEY, FIELD(first)},
    {"second", TEXT_KEY, FIELD(second)},
    {"mode", MODE_KEY, 0},
    {"self", SELF_KEY, 0},
    {"device", TEXT_KEY, FIELD(device)},
    {"note", TEXT_KEY, FIELD(note)},
    {"value", NUMBER_KEY, VALUE},
    {"tolerance", NUMBER_KEY, TOLERANCE},
    {"at least", NUMBER_KEY, AT_LEAST},
    {"at most", NUMBER_KEY, AT_MOST},
    {"context", NUMBER_KEY, CONTEXT},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

struct draft {
    struct kv_claim claim;
    double number[N_NUMBERS]; // NAN = not given
    bool given[N_KEYS];
};

struct reader {
    const char *file;
    size_t line;
    struct draft shared, now;
    bool begun; // a claim
    struct kv_claim *claims;
    size_t n;
};

static char **text_of(struct kv_claim *c, const struct key *k) {
    return (char **)(void *)((char *)c + k->at);
}

static void free_texts(struct kv_claim *c) {
    for (size_t i = 0; i < N_KEYS; i++)
        if (keys[i].kind == TEXT_KEY) free(*text_of(c, &keys[i]));
    free(c->file);
}

static int fail_line(const struct reader *r, size_t line, struct kv_error *e, const char *what,
                     const char *name, const char *near) {
    char *where = kv_format_text("%s:%zu", r->file, line);
    int code = near ? kv_fail(e, KV_EUSAGE, where, "%s '%s'; did you mean '%s'?", what, name, near)
                    : kv_fail(e, KV_EUSAGE, where, "%s '%s'", what, name);
    free(where);
    return code;
}

static void draft_new(struct draft *d) {
    *d = (struct draft){0};
    for (size_t i = 0; i < N_NUMBERS; i++) d->number[i] = NAN;
}

// A claim begins as a copy of what stands before the first one.
static void begin_claim(struct reader *r) {
    r->now = r->shared;
    for (size_t i = 0; i < N_KEYS; i++) {
        char **from = keys[i].kind == TEXT_KEY ? text_of(&r->now.claim, &keys[i]) : NULL;
        if (from && *from) *from = kv_strdup(*from);
        r->now.given[i] = false;
    }
    r->now.claim.line = r->line;
    r->now.claim.file = kv_strdup(r->file);
    r->begun = true;
}

static int lacks(const struct reader *r, const char *key, struct kv_error *e) {
    return fail_line(r, r->now.claim.line, e, "this claim lacks the key", key, NULL);
}

// Checks the claim at hand and adds it to the list.
static int end_claim(struct reader *r, struct kv_error *e) {
    struct draft *d = &r->now;
    struct kv_claim *c = &d->claim;
    const double *x = d->number;
    if (!r->begun) return 0;
    if (!c->source) return lacks(r, "source", e);
    if (!c->model) return lacks(r, "model", e);
    if (!c->quantity) return lacks(r, "quantity", e);
    if (!c->first) return lacks(r, "first", e);
    if (c->quantity->pair && !c->second) return lacks(r, "second", e);
    if (c->quantity->quantity == KV_Q_SAVING && isnan(x[CONTEXT])) return lacks(r, "context", e);
    if (c->quantity->quantity == KV_Q_SAVING && !c->device) return lacks(r, "device", e);
    bool bounded = !isnan(x[AT_LEAST]) || !isnan(x[AT_MOST]);
    if (isnan(x[VALUE]) && !bounded) return lacks(r, "value", e);
    if (!isnan(x[VALUE]) && bounded)
        return fail_line(r, c->line, e,
                         "this claim has a value and a bound; one is enough:", c->claim, NULL);
    if (!isnan(x[VALUE]) && !(x[TOLERANCE] >= 0)) return lacks(r, "tolerance", e);
    if (bounded) {
        c->low = isnan(x[AT_LEAST]) ? -INFINITY : x[AT_LEAST];
        c->high = isnan(x[AT_MOST]) ? INFINITY : x[AT_MOST];
    } else {
        c->low = x[VALUE] - x[TOLERANCE];
        c->high = x[VALUE] + x[TOLERANCE];
    }
    if (!(c->low <= c->high))
        return fail_line(r, c->line, e, "nothing lies within the bounds of", c->claim, NULL);
    c->context = x[CONTEXT];
    if (!c->benchmark) c->benchmark = kv_strdup("any");
    r->claims = kv_grow(r->claims, r->n + 1, sizeof *r->claims);
    r->claims[r->n++] = *c;
    r->begun = false;
    draft_new(&r->now);
    return 0;
}

static int take_quantity(const struct reader *r, struct kv_claim *c, const char *value,
                         struct kv_error *e) {
    const char *names[sizeof kv_quantities / sizeof *kv_quantities];
    size_t n = 0;
    for (const struct kv_quantity_row *q = kv_quantities; q->name; q++) {
        names[n++] = q->name;
        if (strcmp(q->name, value) == 0) {
            c->quantity = q;
            return 0;
        }
    }
    names[n] = NULL;
    return fail_line(r, r->line, e, "unknown quantity", value, kv_nearest(value, names));
}

static int take_name(const struct reader *r, const char *what, const char *value,
                     const char *const *names, unsigned *bits, struct kv_error *e) {
    int at = kv_index_of(value, names);
    if (at < 0) return fail_line(r, r->line, e, what, value, kv_nearest(value, names));
    *bits = 1u << at;
    return 0;
}

static int take_pair(struct reader *r, const char *name, const char *value, struct kv_error *e) {
    const char *names[N_KEYS + 1] = {NULL};
    size_t k = 0;
    while (k < N_KEYS && strcmp(keys[k].name, name) != 0) k++;
    for (size_t i = 0; i < N_KEYS; i++) names[i] = keys[i].name;
    if (k == N_KEYS) return fail_line(r, r->line, e, "unknown key", name, kv_nearest(name, names));
    if (!*value) return fail_line(r, r->line, e, "nothing is said after", name, NULL);
    if (strcmp(name, "claim") == 0) {
        int code = end_claim(r, e);
        if (code) return code;
        begin_claim(r);
    }
    struct draft *d = r->begun ? &r->now : &r->shared;
    if (d->given[k]) return fail_line(r, r->line, e, "this key was given before:", name, NULL);
    d->given[k] = true;
    switch (keys[k].kind) {
    case QUANTITY_KEY:
        return take_quantity(r, &d->claim, value, e);
    case MODE_KEY:
        return take_name(r, "unknown mode", value, kv_mode_names, &d->claim.modes, e);
    case SELF_KEY:
        return take_name(r, "unknown own step", value, kv_self_names, &d->claim.selves, e);
    case TEXT_KEY: {
        char **at = text_of(&d->claim, &keys[k]);
        free(*at);
        *at = kv_strdup(value);
        return 0;
    }
    }
    char *end;
    double x = strtod(value, &end);
    if (end == value || *end || !isfinite(x) ||
        ((keys[k].at == TOLERANCE || keys[k].at == CONTEXT) && x < 0))
        return fail_line(r, r->line, e, "a plain number in the quantity's unit is expected, not",
                         value, NULL);
    d->number[keys[k].at] = x;
    return 0;
}

// The text without spaces around it and without a comment, in place.
static char *trimmed(char *s) {
    for (char *p = s; *p; p++)
        if (*p == '#' && (p == s || isspace((unsigned char)p[-1]))) {
            *p = '\0';
            break;
        }
    while (isspace((unsigned char)*s)) s++;
    for (size_t n = strlen(s); n && isspace((unsigned char)s[n - 1]);) s[--n] = '\0';
    return s;
}

static int take_line(struct reader *r, char *line, struct kv_error *e) {
    char *s = trimmed(line), *colon = strchr(s, ':');
    if (!*s) return 0;
    if (!colon) return fail_line(r, r->line, e, "'key: value' is expected, not", s, NULL);
    *colon = '\0';
    return take_pair(r, trimmed(s), trimmed(colon + 1), e);
}

int kv_claims_parse(const char *file, const char *text, struct kv_claim **claims, size_t *n,
                    struct kv_error *e) {
    struct reader r = {.file = file};
    int code = 0;
    draft_new(&r.shared);
    draft_new(&r.now);
    for (const char *p = text; !code && *p;) {
        size_t length = strcspn(p, "\n");
        char *line = kv_format_text("%.*s", (int)length, p);
        r.line++;
        code = take_line(&r, line, e);
        free(line);
        p += length + (p[length] == '\n');
    }
    if (!code) code = end_claim(&r, e);
    if (!code && r.n == 0)
        code =
            kv_fail(e, KV_EUSAGE, file, "no claim stands in this file ('claim: ...' begins one)");
    free_texts(&r.shared.claim);
    free_texts(&r.now.claim);
    *claims = code ? NULL : r.claims;
    *n = code ? 0 : r.n;
    if (code) kv_claims_free(r.claims, r.n);
    return code;
}

int kv_claims_read(const char *path, struct kv_claim **claims, size_t *n, struct kv_error *e) {
    char *text;
    size_t length;
    int code = kv_read_file(path, &text, &length, e);
    if (code) return code;
    code = strlen(text) == length
               ? kv_claims_parse(path, text, claims, n, e)
               : kv_fail(e, KV_EUSAGE, path, "a text file is expected; this one holds a zero byte");
    free(text);
    return code;
}

void kv_claims_free(struct kv_claim *claims, size_t n) {
    for (size_t i = 0; i < n; i++) free_texts(&claims[i]);
    free(claims);
}

char *kv_claim_region_text(const struct kv_claim *c) {
    const char *unit = c->quantity->unit, *space = *unit ? " " : "";
    if (isinf(c->high)) return kv_format_text("at least %g%s%s", c->low, space, unit);
    if (isinf(c->low)) return kv_format_text("at most %g%s%s", c->high, space, unit);
    return kv_format_text("%g to %g%s%s", c->low, c->high, space, unit);
}

// ---- models ---------------------------------------------------------------------------

// The next word of letters, digits and points in lower case; false at the end.
static bool next_word(const char **s, char word[32]) {
    size_t n = 0;
    while (**s && !isalnum((unsigned char)**s)) (*s)++;
    for (; isalnum((unsigned char)**s) || **s == '.'; (*s)++)
        if (n + 1 < 32) word[n++] = (char)tolower((unsigned char)**s);
    word[n] = '\0';
    return n > 0;
}

static bool has_word(const char *s, const char *wanted) {
    char word[32];
    while (next_word(&s, word))
        if (strcmp(word, wanted) == 0) return true;
    return false;
}

bool kv_same_model(const char *claimed, const char *recorded) {
    static const char *const tuned[] = {"instruct", "chat", "it", NULL};
    char word[32];
    if (strcasecmp(claimed, "any") == 0) return true;
    for (size_t i = 0; tuned[i]; i++)
        if (has_word(recorded, tuned[i]) && !has_word(claimed, tuned[i])) return false;
    for (const char *s = claimed; next_word(&s, word);)
        if (!has_word(recorded, word)) return false;
    return true;
}

// ---- answers --------------------------------------------------------------------------

enum kv_answer kv_claim_answer(const struct kv_claim *c, double low, double high) {
    if (low >= c->low && high <= c->high) return KV_HOLDS;
    if (high < c->low || low > c->high) return KV_FAILS;
    return KV_CANNOT_TELL;
}

double kv_claim_distance(const struct kv_claim *c, double estimate) {
    return fmin(fabs(estimate - c->low), fabs(estimate - c->high));
}
