// SPDX-License-Identifier: Apache-2.0
// kvsim help: the commands by group, one command's options, or all of it as a Markdown page.
#include "sim/cli/help.h"
#include "sim/cli/complete.h"
#include "sim/cli/terminal.h"
#include "sim/base/args.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/version.h"

#include <ctype.h>
#include <stdlib.h>

#define KV_GROUP(title)
#define KV_COMMAND(name) extern const struct kv_command kv_cmd_##name;
#include "sim/cli/commands.def"
#undef KV_GROUP
#undef KV_COMMAND

static const struct kv_command help;

// A group's title, or a command of the group begun last.
static const struct entry {
    const char *group;
    const struct kv_command *command;
} entries[] = {
#define KV_GROUP(title) {title, NULL},
#define KV_COMMAND(name) {NULL, &kv_cmd_##name},
#include "sim/cli/commands.def"
#undef KV_GROUP
#undef KV_COMMAND
};
enum { N_ENTRIES = sizeof entries / sizeof *entries };

int kv_find_command(const char *name, const struct kv_command **c, struct kv_error *e) {
    const char *names[N_ENTRIES + 2];
    size_t n = 0;
    *c = strcmp(name, help.name) == 0 ? &help : NULL;
    names[n++] = help.name;
    for (size_t i = 0; i < N_ENTRIES; i++) {
        if (!entries[i].command) continue;
        names[n++] = entries[i].command->name;
        if (strcmp(entries[i].command->name, name) == 0) *c = entries[i].command;
    }
    names[n] = NULL;
    if (*c) return 0;
    const char *near = kv_nearest(name, names);
    if (near)
        return kv_fail(e, KV_EUSAGE, "", "unknown command '%s'; did you mean '%s'?", name, near);
    return kv_fail(e, KV_EUSAGE, "", "unknown command '%s' (kvsim --help lists them)", name);
}

static const struct kv_command *command_at(size_t i) { // help comes last
    for (size_t k = 0; k < N_ENTRIES; k++)
        if (entries[k].command && i-- == 0) return entries[k].command;
    return i == 0 ? &help : NULL;
}

// ---- as text --------------------------------------------------------------------------

static void print_entry(const struct kv_command *c, size_t widest) {
    printf("  %-*s  ", (int)widest, c->name);
    kv_print_wrapped(c->summary, widest + 4, kv_terminal_width());
}

void kv_help_all(void) {
    size_t widest = 0;
    for (size_t i = 0; i < N_ENTRIES; i++)
        if (entries[i].command && strlen(entries[i].command->name) > widest)
            widest = strlen(entries[i].command->name);
    kv_print_wrapped("kvsim " KV_VERSION
                     ": replays KV-cache precision policies against a recorded language model",
                     0, kv_terminal_width());
    putchar('\n');
    puts("usage: kvsim COMMAND [options]    kvsim help COMMAND: an example that works");
    for (size_t i = 0; i < N_ENTRIES; i++)
        if (entries[i].group)
            printf("\n%s:\n", entries[i].group);
        else
            print_entry(entries[i].command, widest);
    puts("\noptions of every command:");
    kv_options_print(kv_common_options);
}

void kv_help_one(const struct kv_command *c) {
    char *summary = kv_format_text("kvsim %s: %s", c->name, c->summary);
    kv_print_wrapped(summary, 0, kv_terminal_width());
    free(summary);
    printf("\nusage: kvsim %s%s%s [options]\n", c->name, *c->usage ? " " : "", c->usage);
    if (c->options && c->options->name) {
        puts("\noptions:");
        kv_options_print(c->options);
    }
    puts("\noptions of every command:");
    kv_options_print(kv_common_options);
    if (c->columns) puts("\ncolumns of its table:");
    for (const struct kv_note *n = c->columns; n && n->name; n++) {
        printf("  %s\n      ", n->name);
        kv_print_wrapped(n->text, 6, kv_terminal_width() ? kv_terminal_width() : 100);
    }
    printf("\nexample:\n  %s\n", c->example);
}

// ---- as Markdown ----------------------------------------------------------------------

// A text in a table's cell: what Markdown would take for its own is escaped, but for spans of code.
static void print_cell(const char *s) {
    bool code = false;
    for (; *s; s++) {
        if (*s == '`') code = !code;
        if (*s == '|' || (!code && strchr("*<", *s))) putchar('\\');
        putchar(*s);
    }
}

static void print_options_table(const struct kv_option *o) {
    puts("| option | default | |\n|---|---|---|");
    for (; o && o->name; o++) {
        printf("| `");
        if (o->letter) printf("-%c, ", o->letter);
        printf("--%s%s", o->name, o->arg ? " " : "");
        print_cell(o->arg ? o->arg : "");
        printf(o->arg && o->fallback && *o->fallback ? "` | `%s` | " : "` | | ", o->fallback);
        print_cell(o->help);
        puts(" |");
    }
}

static void print_section(const struct kv_command *c) {
    printf("\n### %s\n\n%c%s.\n\n    kvsim %s%s%s [options]\n\n", c->name,
           toupper((unsigned char)*c->summary), c->summary + 1, c->name, *c->usage ? " " : "",
           c->usage);
    if (c->options && c->options->name) {
        print_options_table(c->options);
        putchar('\n');
    }
    if (c->columns) puts("| column | |\n|---|---|");
    for (const struct kv_note *n = c->columns; n && n->name; n++) {
        printf("| %s | ", n->name);
        print_cell(n->text);
        puts(" |");
    }
    if (c->columns) putchar('\n');
    printf("Example:\n\n    %s\n", c->example);
}

static void print_page(void) {
    puts("# The command line\n\n"
         "`make commands` writes this page from the tables that the program itself reads: "
         "[commands.def](commands.def) and the\noptions in each `cmd_*.c`. `kvsim help COMMAND` "
         "prints one command's part of it.\n\n"
         "Data goes to standard output, talk to standard error. Exit codes: 0 done, 1 could not, "
         "2 wrong usage. Where nobody\nreads the output any more (`| head`) a command writes its "
         "files and ends of SIGPIPE, without a word, as `cat` does (141 in a shell).\nLists are "
         "`2,4,8`\n(inside a spec `2/4/8`), ranges of items `A-B`, "
         "counted from 0. `-o` names what a command writes, `--db` the store.\n\n"
         "| | commands |\n|---|---|");
    for (size_t i = 0; i < N_ENTRIES; i++) {
        const struct kv_command *c = entries[i].command;
        if (entries[i].group) printf("| %s |", entries[i].group);
        if (c) printf(" [%s](#%s)", c->name, c->name);
        if (i + 1 == N_ENTRIES || entries[i + 1].group) puts(" |");
    }
    puts("\n## Options of every command\n");
    print_options_table(kv_common_options);
    for (size_t i = 0; i < N_ENTRIES; i++)
        if (entries[i].group)
            printf("\n## %c%s\n", toupper((unsigned char)*entries[i].group), entries[i].group + 1);
        else
            print_section(entries[i].command);
}

// ---- command --------------------------------------------------------------------------

static int run(struct kv_cli *cli, struct kv_error *e) {
    const struct kv_command *c = NULL;
    if (kv_opt_given(cli, "complete")) {
        kv_complete(cli->args, cli->n_args, command_at);
        return kv_flush_stdout(e);
    }
    if (cli->n_args > 1) return kv_fail(e, KV_EUSAGE, "help", "usage: kvsim help [COMMAND]");
    if (kv_opt_given(cli, "bash")) {
        kv_complete_bash();
        return kv_flush_stdout(e);
    }
    int rc = cli->n_args ? kv_find_command(cli->args[0], &c, e) : 0;
    if (rc) return rc;
    if (kv_opt_given(cli, "markdown"))
        print_page();
    else if (c)
        kv_help_one(c);
    else
        kv_help_all();
    return kv_flush_stdout(e);
}

static const struct kv_option options[] = {
    {"bash", 0, NULL, NULL, "the completion script for bash, to be sourced"},
    {"complete", 0, NULL, NULL,
     "what the last of the words behind -- may become, one a line, as that script asks"},
    {0}};

static const struct kv_command help = {
    .name = "help",
    .summary = "lists the commands, or says what one of them takes; with --markdown, all on a page",
    .usage = "[COMMAND]",
    .example = "kvsim help replay",
    .options = options,
    .max_args = 10000,
    .run = run,
};
