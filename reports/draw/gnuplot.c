// SPDX-License-Identifier: Apache-2.0
// Writes a figure's data and script and runs gnuplot on them, quoting what it complains of.
#include "reports/draw/gnuplot.h"
#include "sim/base/assets.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
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

// ---- files ----------------------------------------------------------------------------

static int write_file(const struct kv_gnuplot *g, const char *ending, const char *text,
                      struct kv_error *e) {
    char *path = kv_format_text("%s/%s.%s", g->dir, g->file, ending);
    int code = kv_write_file(path, text, strlen(text), e);
    free(path);
    return code;
}

static int add_script(struct kv_text *t, const char *name, struct kv_error *e) {
    char *path = kv_format_text("reports/draw/%s.gp", name);
    const struct kv_asset *a = kv_asset_find(path);
    int code = a ? 0 : kv_fail(e, KV_EFAIL, path, "is not in this program");
    if (a) kv_text_addf(t, "\n%s", (const char *)a->data);
    free(path);
    return code;
}

// What style.gp needs to know of a figure, and how to draw it again.
static void add_head(struct kv_text *t, const struct kv_gnuplot *g) {
    if (g->command)
        kv_text_addf(t, "# Drawn by %s. Again: gnuplot -e \"format='png'\" %s.gp\n", g->command,
                     g->file);
    kv_text_addf(t,
                 "if (!exists(\"format\")) format = \"svg\"\n"
                 "name = '%s'\ndata = '%s.tsv'\n",
                 g->file, g->file);
    if (g->canvas_x > 0)
        kv_text_addf(t, "canvas_x = %.0f\ncanvas_y = %.0f\n", g->canvas_x, g->canvas_y);
    if (g->width_mm > 0) kv_text_addf(t, "width_mm = %g\n", g->width_mm);
    kv_text_addf(t, "%s", g->settings);
}

static int write_script(const struct kv_gnuplot *g, struct kv_error *e) {
    struct kv_text t = {0};
    add_head(&t, g);
    int code = add_script(&t, "style", e);
    if (!code) code = add_script(&t, g->name, e);
    char *script = kv_text_take(&t);
    if (!code) code = write_file(g, "gp", script, e);
    free(script);
    return code;
}

// ---- gnuplot --------------------------------------------------------------------------

// Starts gnuplot in the figure's folder, so that the script's file names are the folder's. It reads
// nothing and says everything to `out`.
static int start(const struct kv_gnuplot *g, const char *format, int out, pid_t *child) {
    char *choose = kv_format_text("format = \"%s\"", format);
    char *script = kv_format_text("%s.gp", g->file);
    char *args[] = {"gnuplot", "--default-settings", "-e", choose, script, NULL};
    posix_spawn_file_actions_t plan;
    int code = posix_spawn_file_actions_init(&plan);
    if (code) goto done;
    code = posix_spawn_file_actions_addopen(&plan, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (!code) code = posix_spawn_file_actions_adddup2(&plan, out, STDERR_FILENO);
    if (!code) code = posix_spawn_file_actions_adddup2(&plan, out, STDOUT_FILENO);
    if (!code) code = posix_spawn_file_actions_addchdir_np(&plan, g->dir);
    if (!code) code = posix_spawnp(child, args[0], &plan, NULL, args, environ);
    posix_spawn_file_actions_destroy(&plan);
done:
    free(choose);
    free(script);
    return code;
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
    pid_t child;
    if (pipe2(pipe_ends, O_CLOEXEC)) return kv_fail(e, KV_EFAIL, "gnuplot", "could not be started");
    int why = start(g, format, pipe_ends[1], &child);
    close(pipe_ends[1]);
    if (!why) {
        first_line(pipe_ends[0], said, sizeof said);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
    }
    close(pipe_ends[0]);
    if (why == ENOENT)
        return kv_fail(e, KV_EFAIL, "gnuplot",
                       "is not installed (package gnuplot-nox; make deps installs it); the data "
                       "and scripts of the figures are in %s",
                       g->dir);
    if (why) return kv_fail(e, KV_EFAIL, "gnuplot", "could not be started: %s", strerror(why));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
    return kv_fail(e, KV_EFAIL, "gnuplot", "could not draw %s/%s.%s: %s", g->dir, g->file, format,
                   *said ? said : "it said nothing");
}

// gnuplot's SVG has a size in pixels: in print it is that of the paper, and the viewBox scales.
static int size_svg(const struct kv_gnuplot *g, struct kv_error *e) {
    char *path = kv_format_text("%s/%s.svg", g->dir, g->file), *svg = NULL;
    size_t n;
    int code = kv_read_file(path, &svg, &n, e);
    char *from = code ? NULL : strstr(svg, "<svg"), *to = from ? strstr(from, "viewBox") : NULL;
    if (!code && !to) code = kv_fail(e, KV_EFAIL, path, "is no SVG of gnuplot's");
    if (!code) {
        char *sized =
            kv_format_text("%.*s<svg width=\"%gmm\" height=\"%.2fmm\" %s", (int)(from - svg), svg,
                           g->width_mm, g->width_mm * g->canvas_y / g->canvas_x, to);
        code = kv_write_file(path, sized, strlen(sized), e);
        free(sized);
    }
    free(svg);
    free(path);
    return code;
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

int kv_gnuplot_draw(const struct kv_gnuplot *g, struct kv_error *e) {
    char *file = kv_gnuplot_text(g->file ? g->file : g->name);
    char *list = kv_strdup(g->formats ? g->formats : "svg,png"), *rest = list, *format;
    struct kv_gnuplot clean = *g;
    clean.file = file;
    int code = write_file(&clean, "tsv", g->data, e);
    if (!code) code = write_script(&clean, e);
    while (!code && (format = strsep(&rest, ","))) {
        code = run_gnuplot(&clean, format, e);
        if (!code && g->width_mm > 0 && strcmp(format, "svg") == 0) code = size_svg(&clean, e);
    }
    free(list);
    free(file);
    return code;
}
