// SPDX-License-Identifier: Apache-2.0
// Opens any file of runs: JSON, JSON lines, CSV, Markdown or SQL, by this tool, llama-bench or
// hand.
#include "sim/cost/run_json.h"
#include "sim/base/args.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"

#include <stdlib.h>

// ---- rows -----------------------------------------------------------------------------

#define BENCH_INSTEAD "use llama-bench -p 0 -n 32 -d 0,512,2048 -ctk f16,q8_0 -fa 1 -o json"

static void llama_meta(struct kv_runs *r, const json_t *row) {
    if (*r->engine) return;
    free(r->engine);
    free(r->machine);
    free(r->date);
    const char *gpu = kv_run_text(row, "gpu_info"), *commit = kv_run_text(row, "build_commit"),
               *backends = kv_run_text(row, "backends");
    double flash = kv_run_number(row, "flash_attn");
    r->engine = kv_format_text("llama.cpp%s%s%s%s%s%s", *commit ? " " : "", commit,
                               *backends ? " (" : "", backends, *backends ? ")" : "",
                               isnan(flash) ? ""
                               : flash != 0 ? ", flash_attn 1"
                                            : ", flash_attn 0");
    r->machine = kv_strdup(*gpu ? gpu : kv_run_text(row, "cpu_info"));
    r->date = kv_strdup(kv_run_text(row, "test_time"));
}

static int add_row(struct kv_runs *r, const json_t *row, const char *path, size_t number,
                   struct kv_error *e) {
    char where[256];
    snprintf(where, sizeof where, "%s: row %zu", path, number);
    if (!json_is_object(row)) return kv_fail(e, KV_EFAIL, where, "expected an object");
    if (json_object_get(row, "t_tg") && json_object_get(row, "pl"))
        return kv_fail(e, KV_EFAIL, where, "llama-batched-bench times batches: " BENCH_INSTEAD);
    bool is_llama = json_object_get(row, "avg_ts") && json_object_get(row, "n_gen");
    // Prompt processing says nothing of a decode step.
    if (is_llama && (kv_run_number(row, "n_gen") == 0 || kv_run_number(row, "n_prompt") > 0))
        return 0;
    struct kv_device_run *run = kv_runs_add(r);
    run->setting = kv_runs_setting(r, row, is_llama);
    if (is_llama)
        llama_meta(r, row);
    else
        kv_runs_read_meta(r, row);
    return is_llama ? kv_llama_run_read(run, row, where, e) : kv_run_read(run, row, where, e);
}

// ---- file kinds -----------------------------------------------------------------------

// Where the file's data begin: the first line that is a header, an object or an array of objects.
// llama-bench's talk stands before it in a file that took stderr too. NULL = nowhere.
static const char *data_of(const char *text) {
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        const char *at = line + (*line == '[' ? 1 : 0);
        at += strspn(at, *line == '[' ? " \t\r\n" : "");
        if (*at == '{' || (*line == '[' && *at == ']')) return line;
        if (strncmp(line, "build_commit,", 13) == 0 || strncmp(line, "\"build_commit\",", 15) == 0)
            return line;
    }
    return NULL;
}

static int add_json(struct kv_runs *r, json_t *root, const char *path, struct kv_error *e) {
    json_t *rows = json_is_array(root) ? root : json_object_get(root, "runs"), *row;
    size_t i;
    int rc = 0;
    if (!json_is_array(rows))
        rc = kv_fail(e, KV_EFAIL, path, "expected an array of runs, or an object with 'runs'");
    if (rc == 0 && json_is_object(root)) kv_runs_read_meta(r, root);
    if (rc == 0) json_array_foreach(rows, i, row) if ((rc = add_row(r, row, path, i + 1, e))) break;
    return rc;
}

static size_t lines_before(const char *file, const char *at) {
    size_t lines = 0;
    for (; file < at; file++) lines += *file == '\n';
    return lines;
}

// Several values may stand in one file, with talk between: a tool's output was appended.
static int read_json(struct kv_runs *r, const char *file, const char *text, const char *path,
                     struct kv_error *e) {
    int rc = 0;
    for (const char *at = text; rc == 0 && at;) {
        json_error_t why;
        json_t *root =
            json_loadb(at, strlen(at), JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &why);
        if (!root) {
            return kv_fail(e, KV_EFAIL, path, "line %zu: %s",
                           lines_before(file, at) + (size_t)why.line, why.text);
        }
        rc = add_json(r, root, path, e);
        json_decref(root);
        at = data_of(at + why.position);
    }
    return rc;
}

static int read_markdown(struct kv_runs *r, const char *text, const char *path,
                         struct kv_error *e) {
    json_t *root = kv_markdown_runs(text);
    if (!root)
        return kv_fail(e, KV_EFAIL, path, "holds no table with the columns model, test and t/s");
    int rc = add_json(r, root, path, e);
    json_decref(root);
    return rc;
}

static int read_sql(struct kv_runs *r, const char *text, const char *path, struct kv_error *e) {
    json_t *root;
    int rc = kv_sql_runs(&root, text, path, e);
    if (rc == 0) rc = add_json(r, root, path, e);
    json_decref(root);
    return rc;
}

static int read_jsonl(struct kv_runs *r, const char *file, const char *text, const char *path,
                      struct kv_error *e) {
    size_t number = lines_before(file, text);
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        size_t n = strcspn(line, "\n");
        number++;
        if (!memchr(line, '{', n)) continue; // blank, or what the tool said between its rows
        json_error_t why;
        json_t *row = json_loadb(line, n, JSON_REJECT_DUPLICATES, &why);
        if (!row) return kv_fail(e, KV_EFAIL, path, "line %zu: %s", number, why.text);
        int rc = add_row(r, row, path, number, e);
        json_decref(row);
        if (rc) return rc;
    }
    return 0;
}

// One CSV cell (RFC 4180: quotes double inside quotes). Returns what ended it: ',', '\n' or 0.
static int read_cell(const char **at, struct kv_text *cell) {
    const char *s = *at;
    bool quoted = *s == '"';
    if (quoted) s++;
    for (; *s; s++) {
        if (quoted && *s == '"') {
            if (s[1] != '"') {
                quoted = false;
                continue;
            }
            s++;
        } else if (!quoted && (*s == ',' || *s == '\n')) {
            break;
        }
        if (*s != '\r') kv_text_add(cell, s, 1);
    }
    int end = *s;
    *at = *s ? s + 1 : s;
    return end;
}

static bool names_runs(const json_t *names) {
    static const char *const known[] = {"context", "mix",          "step_ns", "step_ms",
                                        "n_gen",   "tokens_per_s", NULL};
    size_t i;
    json_t *name;
    json_array_foreach(names, i,
                       name) if (kv_index_of(json_string_value(name), known) >= 0) return true;
    return false;
}

static int read_csv(struct kv_runs *r, const char *text, const char *path, struct kv_error *e) {
    json_t *names = json_array();
    const char *at = text;
    for (int end = ','; end == ',';) {
        struct kv_text cell = {0};
        end = read_cell(&at, &cell);
        char *s = kv_text_take(&cell);
        json_array_append_new(names, json_string(s));
        free(s);
    }
    int rc = names_runs(names)
                 ? 0
                 : kv_fail(e, KV_EFAIL, path,
                           "is neither JSON, JSON lines, a table of llama-bench's, nor CSV whose "
                           "first line names context, mix and step_ns, or n_gen");
    for (size_t number = 1; rc == 0 && *at; number++) {
        json_t *row = json_object();
        size_t i = 0;
        for (int end = ','; end == ','; i++) {
            struct kv_text cell = {0};
            end = read_cell(&at, &cell);
            char *s = kv_text_take(&cell);
            json_t *value = json_string(s);
            if (value && i < json_array_size(names))
                json_object_set(row, json_string_value(json_array_get(names, i)), value);
            json_decref(value);
            free(s);
        }
        if (i == json_array_size(names))
            rc = add_row(r, row, path, number, e);
        else if (i > 1)
            rc = kv_fail(e, KV_EFAIL, path, "row %zu holds %zu cells; the header names %zu", number,
                         i, json_array_size(names));
        json_decref(row);
    }
    json_decref(names);
    return rc;
}

// ---- what a file is -------------------------------------------------------------------

static bool has_line(const char *text, const char *start) {
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n')
        if (strncmp(line, start, strlen(start)) == 0) return true;
    return false;
}

// Files that runs come in but cannot be read: one sentence each.
static int refuse(const char *text, size_t n, const char *path, struct kv_error *e) {
    if (n >= 15 && memcmp(text, "SQLite format 3", 15) == 0)
        return kv_fail(e, KV_EFAIL, path, "is a database; write runs with llama-bench -o json");
    if (n >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0))
        return kv_fail(e, KV_EFAIL, path,
                       "is UTF-16; turn it into UTF-8 (iconv -f UTF-16 -t UTF-8)");
    const char *zero = memchr(text, 0, n);
    if (zero)
        return kv_fail(e, KV_EFAIL, path, "byte %zu is zero: runs are text in UTF-8, not in UTF-16",
                       (size_t)(zero - text));
    if (strstr(text, "S_PP t/s") && strstr(text, "S_TG t/s"))
        return kv_fail(e, KV_EFAIL, path,
                       "is llama-batched-bench's table, which times batches: " BENCH_INSTEAD);
    return 0;
}

static int read_any(struct kv_runs *r, const char *text, const char *path, struct kv_error *e) {
    const char *first = text + strspn(text, " \t\r\n");
    if (!*first) return 0;
    if (has_line(first, "INSERT INTO") || has_line(first, "CREATE TABLE"))
        return read_sql(r, first, path, e);
    if (*first != '{' && *first != '[') {
        const char *data = data_of(first);
        if (!data && (has_line(first, "| model ") || *first == '|'))
            return read_markdown(r, first, path, e);
        if (data) first = data;
    }
    const char *second = strchr(first, '\n');
    second = second ? second + strspn(second, " \t\r\n") : NULL;
    size_t length = strcspn(first, "\n");
    while (length > 0 && strchr(" \t\r", first[length - 1])) length--;
    bool whole = *first == '{' && length > 1 && first[length - 1] == '}';
    if (*first == '{' && (whole || (second && (*second == '{' || !*second))))
        return strstr(first, "\"runs\"") && (!second || !*second)
                   ? read_json(r, text, first, path, e)
                   : read_jsonl(r, text, first, path, e);
    return *first == '{' || *first == '[' ? read_json(r, text, first, path, e)
                                          : read_csv(r, first, path, e);
}

int kv_runs_open(struct kv_runs **runs, const char *path, struct kv_error *e) {
    *runs = NULL;
    KV_GUARD(e);
    char *text;
    size_t n;
    int rc = kv_read_file(path, &text, &n, e);
    if (rc) return rc;
    struct kv_runs *r = kv_runs_new();
    rc = refuse(text, n, path, e);
    bool marked = n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0; // a byte order mark
    if (rc == 0) rc = read_any(r, text + (marked ? 3 : 0), path, e);
    free(text);
    if (rc == 0 && r->n == 0)
        rc = kv_fail(e, KV_EFAIL, path,
                     "holds no decode runs (rows that generate, after no prompt)");
    if (rc)
        kv_runs_free(r);
    else
        *runs = r;
    return rc;
}
