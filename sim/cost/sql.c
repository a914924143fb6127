// SPDX-License-Identifier: Apache-2.0
// llama-bench's SQL: INSERT statements as rows of its JSON. Every value is a quoted text; its forks
// double a quotation mark inside, llama.cpp does not.
#include "sim/base/memory.h"
#include "sim/cost/run_json.h"

#include <ctype.h>
#include <stdlib.h>

static const char *past_blanks(const char *at) {
    while (isspace((unsigned char)*at)) at++;
    return at;
}

// A text in quotes: its end is the mark before a comma or a bracket.
static const char *read_text(const char *at, struct kv_text *t) {
    for (at++; *at; at++) {
        const char *next = past_blanks(at + 1);
        if (*at == '\'' && (*next == ',' || *next == ')')) return at + 1;
        if (*at == '\'' && at[1] == '\'') at++;
        kv_text_add(t, at, 1);
    }
    return NULL;
}

static const char *read_word(const char *at, struct kv_text *t) {
    while (*at && !strchr(",) \t\r\n", *at)) kv_text_add(t, at++, 1);
    return at;
}

// "(a, 'b', ...)" as an array of texts; NULL = it is none. *at moves behind it.
static json_t *read_list(const char **at) {
    const char *p = past_blanks(*at);
    json_t *list = *p == '(' ? json_array() : NULL;
    while (list && *p != ')') {
        struct kv_text t = {0};
        p = past_blanks(p + 1); // past the bracket or the comma
        p = *p == '\'' ? read_text(p, &t) : read_word(p, &t);
        char *text = kv_text_take(&t);
        json_array_append_new(list, json_string(text));
        free(text);
        if (p) p = past_blanks(p);
        if (!p || (*p != ',' && *p != ')')) {
            json_decref(list);
            list = NULL;
        }
    }
    if (list) *at = p + 1;
    return list;
}

static int add_row(json_t *rows, const json_t *names, const json_t *values, const char *where,
                   struct kv_error *e) {
    size_t n = json_array_size(names), i;
    json_t *name, *row = json_object();
    if (json_array_size(values) != n) {
        json_decref(row);
        return kv_fail(e, KV_EFAIL, where, "%zu values for %zu columns", json_array_size(values),
                       n);
    }
    json_array_foreach((json_t *)names, i, name)
        json_object_set(row, json_string_value(name), json_array_get(values, i));
    json_array_append_new(rows, row);
    return 0;
}

int kv_sql_runs(json_t **rows, const char *text, const char *path, struct kv_error *e) {
    static const char insert[] = "INSERT INTO";
    size_t number = 0;
    int rc = 0;
    *rows = json_array();
    for (const char *at = text; rc == 0 && (at = strstr(at, insert));) {
        char where[256];
        snprintf(where, sizeof where, "%s: INSERT %zu", path, ++number);
        at = past_blanks(at + strlen(insert));
        while (*at && !strchr("( \t\r\n", *at)) at++; // the table's name
        json_t *names = read_list(&at), *values = NULL;
        at = past_blanks(at);
        if (names && strncmp(at, "VALUES", 6) == 0) {
            at += 6;
            values = read_list(&at);
        }
        rc = values ? add_row(*rows, names, values, where, e)
                    : kv_fail(e, KV_EFAIL, where, "expected (columns) VALUES ('...', ...)");
        json_decref(names);
        json_decref(values);
    }
    if (rc) {
        json_decref(*rows);
        *rows = NULL;
    }
    return rc;
}
