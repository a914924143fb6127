// SPDX-License-Identifier: Apache-2.0
// Tables for documents: Markdown's pipes, and LaTeX with the rules of package booktabs.
#include "reports/table/inside.h"

#include <stdlib.h>

#include "sim/base/print.h"

// What a language takes for its own, and how it is written to be read as it stands.
struct escape {
    char from;
    const char *into;
};

static const struct escape markdown[] = {{'|', "\\|"}, {'*', "\\*"}, {'~', "\\~"},   {'<', "&lt;"},
                                         {'_', "\\_"}, {'`', "\\`"}, {'\\', "\\\\"}, {0}};
static const struct escape latex[] = {{'\\', "\\textbackslash{}"},
                                      {'~', "\\textasciitilde{}"},
                                      {'^', "\\textasciicircum{}"},
                                      {'&', "\\&"},
                                      {'%', "\\%"},
                                      {'$', "\\$"},
                                      {'#', "\\#"},
                                      {'_', "\\_"},
                                      {'{', "\\{"},
                                      {'}', "\\}"},
                                      {'<', "\\textless{}"},
                                      {'>', "\\textgreater{}"},
                                      {'|', "\\textbar{}"},
                                      {0}};

// A text without the blanks that pad it on a terminal.
static void escaped(struct kv_text *to, const char *s, const struct escape *rules) {
    size_t width;
    char *clean = kv_printable(s ? s : "", &width);
    size_t n = strlen(clean);
    while (n && clean[n - 1] == ' ') n--;
    for (size_t i = 0; i < n; i++) {
        const struct escape *r = rules;
        while (r->from && r->from != clean[i]) r++;
        if (r->from)
            kv_text_addf(to, "%s", r->into);
        else
            kv_text_add(to, &clean[i], 1);
    }
    free(clean);
}

void kv_table_as_markdown(const struct kv_table *t, struct kv_text *to) {
    for (size_t i = 0; i < t->n_columns + t->n_cells; i++) {
        kv_text_addf(to, i % t->n_columns ? " | " : "| ");
        escaped(to, i < t->n_columns ? t->columns[i].name : t->cells[i - t->n_columns].text,
                markdown);
        if ((i + 1) % t->n_columns) continue;
        kv_text_addf(to, " |\n");
        for (size_t c = 0; i < t->n_columns && c < t->n_columns; c++)
            kv_text_addf(to, t->columns[c].align == KV_RIGHT ? "|---:" : "|---");
        if (i < t->n_columns) kv_text_addf(to, "|\n");
    }
}

// A hyphen before a digit is a minus sign: "+0.008 [-0.023 +0.046]".
static void latex_cell(struct kv_text *to, const char *s, bool number) {
    for (; number && s && *s; s++) {
        size_t n = strcspn(s, "-");
        char *piece = kv_format_text("%.*s", (int)n, s);
        size_t before = to->n;
        escaped(to, piece, latex);
        // escaped() takes blanks at the end of a piece for padding.
        if (s[n] && n && s[n - 1] == ' ' && to->n > before) kv_text_addf(to, " ");
        free(piece);
        s += n;
        if (!*s) return;
        kv_text_addf(to, "$-$");
    }
    if (!number) escaped(to, s, latex);
}

void kv_table_as_latex(const struct kv_table *t, struct kv_text *to) {
    kv_text_addf(to, "%% \\usepackage{booktabs}\n\\begin{tabular}{");
    for (size_t c = 0; c < t->n_columns; c++)
        kv_text_addf(to, "%c", t->columns[c].align == KV_RIGHT ? 'r' : 'l');
    kv_text_addf(to, "}\n\\toprule\n");
    for (size_t i = 0; i < t->n_columns + t->n_cells; i++) {
        bool head = i < t->n_columns;
        latex_cell(to, head ? t->columns[i].name : t->cells[i - t->n_columns].text,
                   !head && t->columns[i % t->n_columns].align == KV_RIGHT);
        bool last = (i + 1) % t->n_columns == 0;
        kv_text_addf(to, last ? " \\\\\n" : " & ");
        if (last && head) kv_text_addf(to, "\\midrule\n");
    }
    kv_text_addf(to, "\\bottomrule\n\\end{tabular}\n");
}
