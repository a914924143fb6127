// SPDX-License-Identifier: Apache-2.0
// Runs gnuplot on a figure's script and the data its SQL makes.
#include "reports/draw/gnuplot.h"
#include "sim/base/assets.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

char *kv_gnuplot_text(const char *s) {
    struct kv_text t = {0};
    for (const unsigned char *p = (const unsigned char *)s; *p;) {
        size_t n = *p < 0x80 ? 1 : *p >= 0xF0 ? 4 : *p >= 0xE0 ? 3 : *p >= 0xC2 ? 2 : 0;
        for (size_t i = 1; i < n; i++)
            if ((p[i] & 0xC0) != 0x80) n = 0;
        if (*p == '"' || *p == '\'')
            kv_text_addf(&t, "\u2019");
        else if (*p == '\\')
            kv_text_add(&t, "/", 1);
        else if (n == 0 || *p < 0x20 || *p == 0x7F)
            kv_text_add(&t, "?", 1);
        else
            kv_text_add(&t, (const char *)p, n);
        p += n ? n : 1;
    }
    return kv_text_take(&t);
}

// ---- data -----------------------------------------------------------------------------

static int add_row(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                   struct kv_error *e) {
    struct kv_text *t = self;
    (void)e;
    bool first = t->n == 0;
    for (size_t i = 0; first && i < n; i++)
        kv_text_addf(t, "%s%c", names[i], i + 1 < n ? '\t' : '\n');
    for (size_t i = 0; i < n; i++) {
        if (v[i].kind == KV_SQL_TEXT) kv_text_addf(t, "%s", v[i].text);
        if (v[i].kind == KV_SQL_INT) kv_text_addf(t, "%lld", v[i].n);
        if (v[i].kind == KV_SQL_REAL) kv_text_addf(t, "%.10g", v[i].x);
        kv_text_add(t, i + 1 < n ? "\t" : "\n", 1);
    }
    return 0;
}

static int write_file(const struct kv_gnuplot *g, const char *ending, char *text,
                      struct kv_error *e) {
    char *path = kv_format_text("%s/%s.%s", g->dir, g->file, ending);
    int code = kv_write_file(path, text, strlen(text), e);
    free(path);
    free(text);
    return code;
}

static const char *asset(const char *name, const char *ending) {
    char *path = kv_format_text("reports/draw/%s.%s", name, ending);
    const struct kv_asset *a = kv_asset_find(path);
    free(path);
    return a ? (const char *)a->data : "";
}

static int write_data(const struct kv_gnuplot *g, struct kv_store *s, struct kv_error *e) {
    struct kv_text t = {0};
    if (g->data) return write_file(g, "tsv", kv_strdup(g->data), e);
    int code = kv_store_query(s, asset(g->name, "sql"), g->values, g->n_values, add_row, &t, e);
    char *text = kv_text_take(&t);
    if (code) {
        free(text);
        return code;
    }
    return write_file(g, "tsv", text, e);
}

static int write_script(const struct kv_gnuplot *g, struct kv_error *e) {
    return write_file(g, "gp",
                      kv_format_text("%s\n%s\n%s\n%s", g->settings, asset("style", "gp"),
                                     asset(g->name, "gp"), g->data ? "" : asset("panels", "gp")),
                      e);
}

// ---- gnuplot --------------------------------------------------------------------------

enum { EXIT_NO_PROGRAM = 127, EXIT_NO_DIR = 126 };

// In the child: never returns. Standard error goes to `out`, standard input is empty.
static void become_gnuplot(const struct kv_gnuplot *g, const char *format, int out) {
    char *choose = kv_format_text("format = \"%s\"", format);
    char *script = kv_format_text("%s.gp", g->file);
    char *args[] = {"gnuplot", "--default-settings", "-e", choose, script, NULL};
    int nothing = open("/dev/null", O_RDONLY);
    if (nothing >= 0) dup2(nothing, STDIN_FILENO);
    dup2(out, STDERR_FILENO);
    dup2(out, STDOUT_FILENO);
    if (chdir(g->dir)) _exit(EXIT_NO_DIR);
    execvp(args[0], args);
    _exit(EXIT_NO_PROGRAM);
}

// Reads all of fd and keeps its first line that says something.
static void first_line(int fd, char *line, size_t room) {
    char chunk[512];
    size_t n = 0;
    bool ended = false;
    ssize_t got;
    while ((got = read(fd, chunk, sizeof chunk)) > 0 || (got < 0 && errno == EINTR))
        for (ssize_t i = 0; i < got && !ended; i++) {
            bool blank = strchr(" \t\r\n^", chunk[i]) != NULL;
            if (n == 0 && blank) continue;
            ended = chunk[i] == '\n' || n + 1 == room;
            if (!ended) line[n++] = chunk[i];
        }
    line[n] = '\0';
}

static int run_gnuplot(const struct kv_gnuplot *g, const char *format, struct kv_error *e) {
    char said[200];
    int pipe_ends[2], status = 0;
    fflush(NULL);
    if (pipe(pipe_ends)) return kv_fail(e, KV_EFAIL, "gnuplot", "could not be started");
    pid_t child = fork();
    if (child == 0) become_gnuplot(g, format, pipe_ends[1]);
    close(pipe_ends[1]);
    if (child > 0) {
        first_line(pipe_ends[0], said, sizeof said);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
    }
    close(pipe_ends[0]);
    if (child < 0) return kv_fail(e, KV_EFAIL, "gnuplot", "could not be started");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NO_PROGRAM)
        return kv_fail(e, KV_EFAIL, "gnuplot",
                       "is not installed (package gnuplot-nox; make deps installs it); the data "
                       "and scripts of the figures are in %s",
                       g->dir);
    return kv_fail(e, KV_EFAIL, "gnuplot", "could not draw %s/%s.%s: %s", g->dir, g->file, format,
                   *said ? said : "it said nothing");
}

int kv_gnuplot_formats(const char *list, struct kv_error *e) {
    static const char *const known[] = {"svg", "png", "pdf"};
    char *copy = kv_strdup(list), *rest = copy, *format;
    int code = 0;
    while (!code && (format = strsep(&rest, ","))) {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found = found || strcmp(known[i], format) == 0;
        if (!found)
            code = kv_fail(e, KV_EUSAGE, "--format", "'%s' is not one of svg, png, pdf", format);
    }
    free(copy);
    return code;
}

int kv_gnuplot_draw(const struct kv_gnuplot *g, struct kv_store *s, struct kv_error *e) {
    int code = write_data(g, s, e);
    if (!code) code = write_script(g, e);
    char *list = kv_strdup(g->formats ? g->formats : "svg,png"), *rest = list, *format;
    while (!code && (format = strsep(&rest, ","))) code = run_gnuplot(g, format, e);
    free(list);
    return code;
}
