// SPDX-License-Identifier: Apache-2.0
// The page's provenance (recordings, builds, device) and the commands that make it again.
#include "reports/draw/generation.h"
#include "reports/page/html.h"
#include "reports/page/sections.h"

#include <stdlib.h>
#include "sim/base/guard.h"

// ---- provenance -----------------------------------------------------------------------

static int add_line(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                    struct kv_error *e) {
    struct kv_text *t = self;
    (void)names;
    (void)e;
    kv_text_addf(t, "<tr>");
    for (size_t i = 0; i < n; i++) {
        kv_text_addf(t, i ? "<td>" : "<th scope=\"row\">");
        if (v[i].kind == KV_SQL_TEXT) kv_html_text(t, v[i].text);
        if (v[i].kind == KV_SQL_INT) kv_text_addf(t, "%lld", v[i].n);
        if (v[i].kind == KV_SQL_REAL) kv_text_addf(t, "%g", v[i].x);
        kv_text_addf(t, i ? "</td>" : "</th>");
    }
    kv_text_addf(t, "</tr>\n");
    return 0;
}

static int add_query(struct kv_text *t, struct kv_store *s, const char *caption,
                     const char *columns, const char *sql, struct kv_error *e) {
    struct kv_text lines = {0};
    int code = kv_store_query(s, sql, NULL, 0, add_line, &lines, e);
    if (lines.n) {
        kv_text_addf(t, "<h3>%s</h3>\n", caption);
        kv_html_wide(t, caption);
        kv_text_addf(t, "<table class=\"text\"><thead><tr>%s</tr></thead><tbody>\n", columns);
        kv_text_add(t, lines.s, lines.n);
        kv_text_addf(t, "</tbody></table></div>\n");
    }
    free(lines.s);
    return code;
}

#define COLUMN(name) "<th scope=\"col\">" name "</th>"

int kv_page_provenance(struct kv_text *t, const struct kv_page *p, struct kv_error *e) {
    int code = add_query(
        t, p->store, "Recordings in the store",
        COLUMN("trace") COLUMN("task") COLUMN("prompt") COLUMN("items") COLUMN("tokens")
            COLUMN("model") COLUMN("model digest") COLUMN("weights") COLUMN("task digest")
                COLUMN("recorded by") COLUMN("BLAS"),
        "SELECT digest, task_name, task_prompt, n_items || ' (' || subset || ')', n_tokens, "
        "model_name || ', ' || model_source, model_digest, weights_as, task_digest, "
        "'kvsim ' || tool_version, blas FROM trace ORDER BY id",
        e);
    if (!code)
        code = add_query(t, p->store, "Builds and machines that computed the outcomes",
                         COLUMN("version") COLUMN("commit") COLUMN("CPU") COLUMN("BLAS")
                             COLUMN("seed") COLUMN("runs"),
                         "SELECT version, git_commit, cpu, blas, seed, COUNT(*) FROM run "
                         "GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5",
                         e);
    if (!code)
        code = add_query(t, p->store, "Generated texts in the store",
                         COLUMN("task") COLUMN("prompt") COLUMN("policies") COLUMN("texts")
                             COLUMN("model") COLUMN("model digest") COLUMN("weights")
                                 COLUMN("task digest") COLUMN("version") COLUMN("commit")
                                     COLUMN("CPU") COLUMN("products") COLUMN("seed"),
                         "SELECT task_name, task_prompt, COUNT(DISTINCT spec), SUM((SELECT "
                         "COUNT(*) FROM generated_item WHERE generation = g.id)) AS texts, "
                         "model_name, model_digest, weights_as, task_digest, version, git_commit, "
                         "cpu, compute || ' ' || blas, seed FROM generation AS g GROUP BY 1, 2, "
                         "5, 6, 7, 8, 9, 10, 11, 12, 13 HAVING texts > 0 ORDER BY MIN(id)",
                         e);
    const struct kv_device *d = p->all->device;
    if (d && p->n_parts) {
        kv_text_addf(t, "<p>Device <code>");
        kv_html_text(t, d->name);
        kv_text_addf(t, "</code>: ");
        kv_html_text(t, d->summary);
        kv_text_addf(t, ". Measured on ");
        kv_html_text(t, d->machine);
        kv_text_addf(t, ", ");
        kv_html_text(t, d->date);
        kv_text_addf(t, ", with ");
        kv_html_text(t, d->engine);
        kv_text_addf(t, ".");
        if (!isnan(d->error_median))
            kv_text_addf(t,
                         " On contexts left out of the fit it errs by %.1f %% in the median, at "
                         "worst %.1f %%, of a step.",
                         100 * d->error_median, 100 * d->error_worst);
        kv_text_addf(t, "</p>\n");
    }
    return code;
}

// ---- commands -------------------------------------------------------------------------

// A word of a shell command, quoted where it must be, as HTML.
static void add_word(struct kv_text *t, const char *word) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "./_-+=:,@%";
    struct kv_text quoted = {0};
    if (*word && strspn(word, plain) == strlen(word)) {
        kv_html_text(t, word);
        return;
    }
    kv_text_add(&quoted, "'", 1);
    for (; *word; word++) {
        if (*word == '\'')
            kv_text_addf(&quoted, "'\\''");
        else
            kv_text_add(&quoted, word, 1);
    }
    kv_text_add(&quoted, "'", 1);
    char *s = kv_text_take(&quoted);
    kv_html_text(t, s);
    free(s);
}

// "-t hellaswag:PATH,prompt=harness"
static int add_task(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                    struct kv_error *e) {
    (void)n, (void)names, (void)e;
    const char *name = v[0].text, *path = v[1].text, *prompt = v[2].text;
    char *task = strcmp(path, "samples") == 0
                     ? kv_strdup(path)
                     : kv_format_text("%s:%s%s%s", name, path, *prompt ? ",prompt=" : "", prompt);
    kv_text_addf(self, "kvsim record -m MODEL -t ");
    add_word(self, task);
    free(task);
    return 0;
}

static void add_sweep(struct kv_text *t, const struct kv_page *p, const struct kv_page_part *part) {
    const struct kv_summary *s = &part->set.rows[0].s;
    kv_text_addf(t, "kvsim sweep %s.trace", s->trace_digest);
    kv_text_addf(t, " --fidelity %s --mode %s --self %s", kv_fidelity_names[s->fidelity],
                 kv_mode_names[s->mode], kv_self_names[s->self]);
    bool bf16 = strcmp(s->compute, KV_COMPUTE_IN_BF16) == 0;
    if (strcmp(s->compute, KV_COMPUTE_CPU) != 0)
        kv_text_addf(t, " --compute %s", bf16 ? "cuda --precision bf16" : s->compute);
    size_t redraws = 1;
    for (size_t i = 0; i < part->set.n; i++)
        if (part->set.rows[i].s.n_redraws > redraws) redraws = part->set.rows[i].s.n_redraws;
    if (redraws > 1) kv_text_addf(t, " --redraws %zu", redraws);
    kv_text_addf(t, " --seed %llu --db ", (unsigned long long)s->seed);
    add_word(t, p->db);
    for (size_t i = 0; i < part->set.n; i++) {
        kv_text_addf(t, " \\\n    ");
        add_word(t, part->set.rows[i].s.spec);
    }
    kv_text_addf(t, "\n");
}

// The first of a group says for all how they were made.
static void add_generate(struct kv_text *t, const struct kv_page *p, size_t first, size_t n) {
    const struct kv_generation *g = p->generations->row[first].g;
    kv_text_addf(t, "kvsim generate -m MODEL -t TASK -n %zu --tokens %u --temperature %g",
                 p->generations->row[first].n, g->tokens, g->temperature);
    kv_text_addf(t, " --mode %s --self %s --compute %s --seed %llu", g->mode, g->self, g->compute,
                 (unsigned long long)g->seed);
    if (!g->ends) kv_text_addf(t, " --past-end");
    if (*g->stop && !strchr(g->stop, '\n')) { // several are the task's own
        kv_text_addf(t, " --stop ");
        add_word(t, g->stop);
    }
    kv_text_addf(t, " --db ");
    add_word(t, p->db);
    for (size_t i = first; i < first + n; i++) {
        kv_text_addf(t, " \\\n    ");
        add_word(t, p->generations->row[i].g->spec);
    }
    kv_text_addf(t, "   # TASK: ");
    kv_html_text(t, g->task);
    if (*g->task_prompt) kv_text_addf(t, ", ");
    kv_html_text(t, g->task_prompt);
    if (g->window_tokens) kv_text_addf(t, ", window=%u", g->window_tokens);
    kv_text_addf(t, "\n");
}

void kv_page_rebuild(struct kv_text *t, const struct kv_page *p) {
    kv_text_addf(t,
                 "<p>The page, from the same store:</p>\n<pre tabindex=\"0\">kvsim report --db ");
    add_word(t, p->db);
    if (p->all->device) {
        kv_text_addf(t, " --device ");
        add_word(t, p->all->device->name);
    }
    kv_text_addf(t, " --context ");
    for (size_t k = 0; k < p->all->n_contexts; k++)
        kv_text_addf(t, "%s%g", k ? "," : "", p->all->context[k]);
    kv_text_addf(t,
                 " --seed %llu</pre>\n<p>The store, from model and task (any <code>MODEL</code> "
                 "with the digest above; -n and --seed as the subset says):</p>\n"
                 "<details><summary>commands</summary><pre tabindex=\"0\">",
                 (unsigned long long)p->seed);
    for (size_t i = 0; i < p->n_parts; i++) {
        const struct kv_summary *s = &p->parts[i].set.rows[0].s;
        if (i == 0 || s->trace != p->parts[i - 1].set.rows[0].s.trace) {
            struct kv_error ignored;
            const struct kv_sql_value id = {.kind = KV_SQL_INT, .n = s->trace};
            int rc = kv_store_query(
                p->store, "SELECT task_name, task_path, task_prompt FROM trace WHERE id = ?", &id,
                1, add_task, t, &ignored);
            if (kv_tolerate(rc, &ignored)) continue;
            kv_text_addf(t, "  -o %s.trace   # ", s->trace_digest);
            kv_html_text(t, s->subset);
            kv_text_addf(t, "\n");
        }
        add_sweep(t, p, &p->parts[i]);
    }
    for (size_t at = 0, n; at < p->generations->n; at += n) {
        n = kv_generation_group(p->generations, at);
        add_generate(t, p, at, n);
    }
    kv_text_addf(t, "</pre></details>\n");
}
