// SPDX-License-Identifier: Apache-2.0
// The command line's own vocabulary: commands, their option tables, and the tables they print.
//
// A command is a row {name, summary, usage, example, options, run} in cmd_NAME.c and a line in
// commands.def. Options of all commands: -j/--jobs, -s/--seed, -q/--quiet, -v/--verbose, --tsv,
// --json,
// --help. Data goes to stdout, talk to stderr; run returns 0 or an enum kv_code and fills *e.
#ifndef KV_CLI_H
#define KV_CLI_H

#include "sim/base/util.h"

struct kv_option {
    const char *name;     // without "--"
    char letter;          // short form, or 0
    const char *arg;      // "FILE", "N"; NULL = a flag
    const char *fallback; // default text; NULL = not set
    const char *help;
};

struct kv_cli {
    const struct kv_command *command;
    size_t n_args; // what is not an option
    char **args;
    const char *
        *values; // in the order of the command's options: text, or NULL; "" for a flag given
    unsigned jobs;
    uint64_t seed;
    enum kv_output { KV_OUT_TEXT, KV_OUT_TSV, KV_OUT_JSON } output;
};

struct kv_command {
    const char *name, *summary;
    const char *usage;               // "TRACE SPEC..."
    const char *example;             // one that works on the samples
    const struct kv_option *options; // ends with {0}; NULL = none
    size_t min_args, max_args;
    int (*run)(struct kv_cli *c, struct kv_error *e);
};

// Value of an option of this command: text or the default; NULL when neither.
const char *kv_opt(const struct kv_cli *c, const char *name);
bool kv_opt_given(const struct kv_cli *c, const char *name);
// Numbers of options, checked: KV_EUSAGE names the option and what was expected.
KV_MUST_CHECK int kv_opt_int(const struct kv_cli *c, const char *name, long min, long max,
                             long *out, struct kv_error *e);
KV_MUST_CHECK int kv_opt_float(const struct kv_cli *c, const char *name, double min, double max,
                               double *out, struct kv_error *e);

// ---- tables (table.c) -----------------------------------------------------------------

// Collects rows and prints them as aligned text, TSV with a header, or a JSON array of objects.
struct kv_table;
enum kv_align { KV_LEFT, KV_RIGHT };
struct kv_column {
    const char *name; // with its unit: "kl_nats"
    enum kv_align align;
};
struct kv_table *kv_table_new(const struct kv_column *columns, size_t n);
void kv_table_text(struct kv_table *t, const char *s); // NULL = empty (JSON null)
// NAN = empty; JSON keeps all digits. Negative decimals: as many digits as x needs to be read back.
void kv_table_number(struct kv_table *t, double x, int decimals);
void kv_table_count(struct kv_table *t, long long n);
// The row begun last (or to begin) stands out when printed as text in colour.
void kv_table_mark(struct kv_table *t);
void kv_table_colour(struct kv_table *t, bool on);
// "auto" (NULL): colour on a terminal, unless $NO_COLOR is set or $TERM is "dumb"; "always",
// "never". KV_EUSAGE names them.
KV_MUST_CHECK int kv_wants_colour(const char *when, bool *colour, struct kv_error *e);
// Cells fill row after row. Prints to stdout and frees. On a terminal long text columns shrink to
// its width; columns that do not fit stand in further tables below, each with the first column.
// TSV writes tab, newline, return and backslash inside a text as \t, \n, \r and \\.
KV_MUST_CHECK int kv_table_print(struct kv_table *t, enum kv_output how, struct kv_error *e);
void kv_table_free(struct kv_table *t); // one that is not printed; NULL is fine
// Columns of stdout's terminal (COLUMNS, else the terminal's own); 0 = unlimited.
size_t kv_terminal_width(void);

#endif
