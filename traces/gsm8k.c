// SPDX-License-Identifier: Apache-2.0
// GSM8K's prompt, filters and exact match, by the harness's own patterns.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "traces/gsm8k.h"

#include <pcre2.h>
#include <stdlib.h>

#include "sim/base/memory.h"
#include "traces/python_random.h"

static const char strict[] = "#### (\\-?[0-9\\.\\,]+)", flexible[] = "(-?[$0-9.,]{2,})|(-?[0-9]+)";

const char *const kv_gsm8k_stops[] = {"Question:", "</s>", "<|im_end|>", NULL};

char *kv_gsm8k_prompt(const char *question) {
    return kv_format_text("Question: %s\nAnswer:", question);
}

// ---- filters --------------------------------------------------------------------------

// The first group that matched, of the first or the last match (RegexFilter of
// lm_eval/filters/extraction.py).
static char *extract(const char *pattern, const char *text, bool last) {
    int code;
    PCRE2_SIZE where, from = 0, n = strlen(text), begin = 0, end = 0;
    pcre2_code *regex =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, 0, &code, &where, NULL);
    pcre2_match_data *match = regex ? pcre2_match_data_create_from_pattern(regex, NULL) : NULL;
    bool found = false;
    while (match && pcre2_match(regex, (PCRE2_SPTR)text, n, from, 0, match, NULL) > 0) {
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(match);
        size_t group = at[2] != PCRE2_UNSET ? 1 : 2;
        begin = at[2 * group], end = at[2 * group + 1];
        from = at[1]; // no match of either pattern is empty
        found = true;
        if (!last) break;
    }
    pcre2_match_data_free(match);
    pcre2_code_free(regex);
    return found ? kv_format_text("%.*s", (int)(end - begin), text + begin)
                 : kv_strdup(KV_GSM8K_NONE);
}

char *kv_gsm8k_strict(const char *generated) {
    return extract(strict, generated, false);
}

char *kv_gsm8k_flexible(const char *generated) {
    return extract(flexible, generated, true);
}

// ---- exact match ----------------------------------------------------------------------

// The patterns of regexes_to_ignore one after the other: "," and "\$", "(?s).*#### ", "\.$", whose
// "$" also stands before a line end that is the last character; then ignore_case.
char *kv_gsm8k_normal(const char *text) {
    char *copy = kv_strdup(text), *to = copy;
    for (const char *p = copy; *p; p++)
        if (*p != ',' && *p != '$') *to++ = *p;
    *to = 0;
    const char *from = copy;
    for (const char *mark; (mark = strstr(from, "#### "));) from = mark + strlen("#### ");
    char *out = kv_strdup(from);
    free(copy);
    size_t n = strlen(out), stop = n > 1 && out[n - 1] == '\n' ? n - 2 : n - 1;
    if (n && out[stop] == '.') memmove(out + stop, out + stop + 1, n - stop);
    for (char *p = out; *p; p++)
        if (*p >= 'A' && *p <= 'Z') *p = (char)(*p - 'A' + 'a');
    return out;
}

bool kv_gsm8k_right(const char *found, const char *answer) {
    char *a = kv_gsm8k_normal(found), *b = kv_gsm8k_normal(answer);
    bool right = strcmp(a, b) == 0;
    free(a);
    free(b);
    return right;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

double kv_gsm8k_floor(const struct kv_tasks *t, char **answer) {
    char **all = kv_alloc(t->n_items + 1, sizeof *all);
    const char *common = "";
    size_t n = 0, most = 0;
    for (size_t i = 0; i < t->n_items; i++)
        if (t->items[i].answer) all[n++] = kv_gsm8k_normal(t->items[i].answer);
    qsort(all, n, sizeof *all, by_text);
    for (size_t from = 0, to; from < n; from = to) {
        for (to = from; to < n && strcmp(all[to], all[from]) == 0;) to++;
        if (to - from > most) most = to - from, common = all[from];
    }
    if (answer) *answer = kv_strdup(common);
    for (size_t i = 0; i < n; i++) free(all[i]);
    free(all);
    return n ? (double)most / (double)n : 0;
}

// ---- examples -------------------------------------------------------------------------

int kv_gsm8k_add_shots(struct kv_tasks *t, const struct kv_tasks *from, size_t shots,
                       struct kv_error *e) {
    enum { SEED = 1234 }; // fewshot_seed of lm_eval.simple_evaluate
    struct kv_python_random r;
    if (shots > from->n_items)
        return kv_fail(e, KV_EUSAGE, "tasks gsm8k", "shots=%zu: %s holds %zu problems", shots,
                       from->path, from->n_items);
    size_t *drawn = kv_alloc(shots + 1, sizeof *drawn);
    kv_python_random_init(&r, SEED);
    for (size_t i = 0; i < t->n_items; i++) {
        struct kv_text prompt = {0};
        kv_python_sample(&r, from->n_items, shots, drawn);
        for (size_t k = 0; k < shots; k++) {
            const struct kv_task_item *shot = &from->items[drawn[k]];
            kv_text_addf(&prompt, "%s %s\n\n", shot->context, shot->answer);
        }
        kv_text_addf(&prompt, "%s", t->items[i].context);
        free(t->items[i].context);
        t->items[i].context = kv_text_take(&prompt);
    }
    free(drawn);
    return KV_OK;
}
