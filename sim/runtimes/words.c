// SPDX-License-Identifier: Apache-2.0
// Command lines: words as a POSIX shell splits them, settings before them, options by name.
#include "sim/base/spec.h"
#include "sim/runtimes/own.h"

#include <ctype.h>
#include <stdlib.h>

static int broken(const char *path, const char *what, struct kv_error *e) {
    return kv_fail(e, KV_EFAIL, path, "is no plain command line: %s", what);
}

// One word from *at on, quotes taken off.
static int read_word(const char **at, struct kv_text *word, const char *path, struct kv_error *e) {
    const char *p = *at;
    char quote = 0;
    for (; *p && (quote || !isspace((unsigned char)*p)); p++) {
        if (quote ? *p == quote : *p == '\'' || *p == '"') {
            quote = quote ? 0 : *p;
        } else if (*p == '\\' && quote != '\'') {
            if (!*++p) return broken(path, "it ends in a backslash", e);
            if (*p != '\n') kv_text_add(word, p, 1);
        } else if (!quote && strchr("|&;<>$`", *p)) {
            return broken(path, "a word holds one of | & ; < > $ `", e);
        } else {
            kv_text_add(word, p, 1);
        }
    }
    *at = p;
    return quote ? broken(path, "a quotation mark is not closed", e) : 0;
}

int kv_words_read(struct kv_words *w, const char *text, const char *path, struct kv_error *e) {
    *w = (struct kv_words){0};
    bool first = true;
    for (const char *at = text;;) {
        while (isspace((unsigned char)*at) || (*at == '\\' && at[1] == '\n')) at++;
        if (!*at) break;
        if (*at == '#') {
            at += strcspn(at, "\n");
            continue;
        }
        struct kv_text word = {0};
        int rc = read_word(&at, &word, path, e);
        if (rc) {
            free(word.s);
            kv_words_fini(w);
            return rc;
        }
        w->at = kv_grow(w->at, w->n + 1, sizeof *w->at);
        w->at[w->n] = kv_text_take(&word);
        const char *own = w->at[w->n++];
        size_t name =
            strspn(own, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789");
        first = first && own[name] == '=';
        w->n_settings += first;
    }
    return 0;
}

void kv_words_fini(struct kv_words *w) {
    kv_list_free(w->at, w->n);
    *w = (struct kv_words){0};
}

int kv_words_option(const struct kv_words *w, const char *const *names, const char *path,
                    const char **value, struct kv_error *e) {
    *value = NULL;
    for (size_t i = w->n_settings; i < w->n; i++)
        for (const char *const *name = names; *name; name++) {
            size_t n = strlen(*name);
            if (strncmp(w->at[i], *name, n) != 0) continue;
            if (w->at[i][n] == '=' && (*name)[1] == '-') {
                *value = w->at[i] + n + 1;
            } else if (!w->at[i][n]) {
                if (i + 1 == w->n)
                    return kv_fail(e, KV_EFAIL, path, "%s stands without a value", *name);
                *value = w->at[i + 1];
            }
        }
    return 0;
}

bool kv_words_flag(const struct kv_words *w, const char *name) {
    for (size_t i = w->n_settings; i < w->n; i++)
        if (strcmp(w->at[i], name) == 0) return true;
    return false;
}

const char *kv_words_setting(const struct kv_words *w, const char *name) {
    const char *found = NULL;
    size_t n = strlen(name);
    for (size_t i = 0; i < w->n_settings; i++)
        if (strncmp(w->at[i], name, n) == 0 && w->at[i][n] == '=') found = w->at[i] + n + 1;
    return found;
}

bool kv_words_say(const struct kv_words *w, const char *part) {
    for (size_t i = w->n_settings; i < w->n; i++)
        if (strstr(w->at[i], part)) return true;
    return false;
}
