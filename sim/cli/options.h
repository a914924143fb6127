// SPDX-License-Identifier: Apache-2.0
// The command line's own vocabulary: commands, their option tables, and the tables they print.
//
// A command is a row {name, summary, usage, example, options, run} in cmd_NAME.c and a line in
// commands.def. Options of all commands: -j/--jobs, -s/--seed, -q/--quiet, -v/--verbose, --tsv,
// --csv, --json, --markdown, --latex, --help. Data goes to stdout, talk to stderr; run returns 0 or
// an enum kv_code and fills *e.
#ifndef KV_CLI_OPTIONS_H
#define KV_CLI_OPTIONS_H

#include "sim/cli/table.h"

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
        *values;    // in the order of the command's options: text, or NULL; "" for a flag given
    size_t n_given; // every option with a value as it was given, repeated ones too
    struct kv_given {
        const char *option, *value; // its full name
    } * given;
    const char **grouped; // [n_given] their values, those of one option beside each other
    unsigned jobs;
    uint64_t seed;
    enum kv_output output;
};

// What a column of a table says.
struct kv_note {
    const char *name, *text;
};

struct kv_command {
    const char *name, *summary;
    const char *usage;               // "TRACE SPEC..."
    const char *example;             // one that works on the samples
    const struct kv_option *options; // ends with {0}; NULL = none
    const struct kv_note *columns;   // ends with {0}; NULL: they speak for themselves
    size_t min_args, max_args;
    int (*run)(struct kv_cli *c, struct kv_error *e);
};

// Value of an option of this command: text or the default; NULL when neither.
const char *kv_opt(const struct kv_cli *c, const char *name);
bool kv_opt_given(const struct kv_cli *c, const char *name);
// The i-th value of an option that may be repeated; NULL past the end.
const char *kv_opt_nth(const struct kv_cli *c, const char *name, size_t i);
// All values of an option that may be repeated, n of them; they live as long as *c.
const char *const *kv_opt_all(const struct kv_cli *c, const char *name, size_t *n);
// Numbers of options, checked: KV_EUSAGE names the option and what was expected.
KV_MUST_CHECK int kv_opt_int(const struct kv_cli *c, const char *name, long min, long max,
                             long *out, struct kv_error *e);
KV_MUST_CHECK int kv_opt_float(const struct kv_cli *c, const char *name, double min, double max,
                               double *out, struct kv_error *e);

// Reads a command's arguments into cli, whose command is set; args, values, given and grouped are
// then heap arrays for the caller to free. KV_EUSAGE names the option.
KV_MUST_CHECK int kv_options_read(struct kv_cli *cli, int argc, char **argv, struct kv_error *e);
// Prints option rows as help does.
void kv_options_print(const struct kv_option *o);
extern const struct kv_option kv_common_options[]; // of every command

#endif
