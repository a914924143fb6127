// SPDX-License-Identifier: Apache-2.0
// The program: finds the command, reads its options, runs it, says what went wrong, ends with its
// code.
#include "sim/base/args.h"
#include "sim/cli/cli.h"

#include <cblas.h>
#include <signal.h>
#include <stdlib.h>

#define KV_COMMAND(name) extern const struct kv_command kv_cmd_##name;
#include "sim/cli/commands.def"
#undef KV_COMMAND

static const struct kv_command *const commands[] = {
#define KV_COMMAND(name) &kv_cmd_##name,
#include "sim/cli/commands.def"
#undef KV_COMMAND
    NULL};

static const struct kv_option common[] = {
    {"jobs", 'j', "N", NULL, "threads (default: all processors)"},
    {"seed", 's', "S", "1", "seed of every random draw"},
    {"quiet", 'q', NULL, NULL, "say nothing but errors"},
    {"verbose", 'v', NULL, NULL, "say more"},
    {"tsv", 0, NULL, NULL, "print tables as TSV with a header"},
    {"json", 0, NULL, NULL, "print tables as JSON"},
    {"help", 'h', NULL, NULL, "this text"},
    {0}};

static void print_options(const struct kv_option *o) {
    for (; o && o->name; o++) {
        char left[48];
        snprintf(left, sizeof left, "%c%c%s--%s%s%s", o->letter ? '-' : ' ',
                 o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name, o->arg ? " " : "",
                 o->arg ? o->arg : "");
        printf("  %-28s %s", left, o->help);
        if (o->arg && o->fallback && *o->fallback) printf(" (default %s)", o->fallback);
        putchar('\n');
    }
}

static void print_usage(void) {
    puts("kvsim " KV_VERSION
         ": replays KV-cache precision policies against a recorded language model\n");
    puts("usage: kvsim COMMAND [options]      kvsim COMMAND --help shows an example that works\n");
    for (size_t i = 0; commands[i]; i++)
        printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
    puts("\noptions of every command:");
    print_options(common);
}

static void print_help(const struct kv_command *c) {
    printf("kvsim %s: %s\n\nusage: kvsim %s%s%s [options]\n", c->name, c->summary, c->name,
           *c->usage ? " " : "", c->usage);
    if (c->options && c->options->name) {
        puts("\noptions:");
        print_options(c->options);
    }
    puts("\noptions of every command:");
    print_options(common);
    printf("\nexample:\n  %s\n", c->example);
}

// One sentence on stderr: where it went wrong, and what.
static int report(const struct kv_error *e, int rc) {
    if (rc == 0) return 0;
    if (*e->where)
        fprintf(stderr, "kvsim: %s: %s\n", e->where, e->msg);
    else
        fprintf(stderr, "kvsim: %s\n", e->msg);
    return rc == KV_EUSAGE ? 2 : 1;
}

static size_t count_options(const struct kv_option *o) {
    size_t n = 0;
    while (o && o[n].name) n++;
    return n;
}

// Index of an option in the command's table followed by the common ones; -1 = unknown.
static long find_option(const struct kv_option *own, size_t n_own, const char *name, size_t n,
                        char letter) {
    for (size_t i = 0; i < n_own + count_options(common); i++) {
        const struct kv_option *o = i < n_own ? &own[i] : &common[i - n_own];
        if (name ? strlen(o->name) == n && memcmp(o->name, name, n) == 0 : o->letter == letter)
            return (long)i;
    }
    return -1;
}

static int unknown_option(const struct kv_command *c, size_t n_own, const char *arg,
                          struct kv_error *e) {
    const char *names[80];
    size_t n = 0;
    for (size_t i = 0; i < n_own && n < 70; i++) names[n++] = c->options[i].name;
    for (size_t i = 0; common[i].name; i++) names[n++] = common[i].name;
    names[n] = NULL;
    const char *near = strncmp(arg, "--", 2) == 0 ? kv_nearest(arg + 2, names) : NULL;
    if (near)
        return kv_fail(e, KV_EUSAGE, c->name, "unknown option '%s'; did you mean '--%s'?", arg,
                       near);
    return kv_fail(e, KV_EUSAGE, c->name, "unknown option '%s' (kvsim %s --help lists them)", arg,
                   c->name);
}

// Fills values[own options, then common ones] and the plain arguments.
static int read_arguments(struct kv_cli *cli, const struct kv_command *c, int argc, char **argv,
                          struct kv_error *e) {
    size_t n_own = count_options(c->options);
    bool plain = false;
    for (int i = 0; i < argc; i++) {
        char *a = argv[i], letter_text[3] = "";
        const char *value = NULL;
        if (plain || a[0] != '-' || a[1] == '\0') {
            cli->args[cli->n_args++] = a;
            continue;
        }
        if (strcmp(a, "--") == 0) {
            plain = true;
            continue;
        }
        long k;
        if (a[1] == '-') {
            char *equal = strchr(a, '=');
            k = find_option(c->options, n_own, a + 2,
                            equal ? (size_t)(equal - a - 2) : strlen(a + 2), 0);
            if (k >= 0 && equal) value = equal + 1;
        } else {
            snprintf(letter_text, sizeof letter_text, "-%c", a[1]);
            k = find_option(c->options, n_own, NULL, 0, a[1]);
            if (k >= 0 && a[2]) value = a + 2;
        }
        if (k < 0) return unknown_option(c, n_own, a, e);
        const struct kv_option *o = (size_t)k < n_own ? &c->options[k] : &common[(size_t)k - n_own];
        if (!o->arg && value)
            return kv_fail(e, KV_EUSAGE, c->name, "option --%s takes no value", o->name);
        if (o->arg && !value) {
            if (i + 1 >= argc)
                return kv_fail(e, KV_EUSAGE, c->name, "option --%s needs %s", o->name, o->arg);
            value = argv[++i];
        }
        cli->values[k] = o->arg ? value : "";
    }
    return 0;
}

static const char *value_of(const struct kv_cli *c, const char *name, bool with_default) {
    size_t n_own = count_options(c->command->options);
    long k = find_option(c->command->options, n_own, name, strlen(name), 0);
    if (k < 0) return NULL;
    const struct kv_option *o =
        (size_t)k < n_own ? &c->command->options[k] : &common[(size_t)k - n_own];
    return c->values[k] || !with_default ? c->values[k] : o->fallback;
}

const char *kv_opt(const struct kv_cli *c, const char *name) {
    return value_of(c, name, true);
}
bool kv_opt_given(const struct kv_cli *c, const char *name) {
    return value_of(c, name, false) != NULL;
}

int kv_opt_float(const struct kv_cli *c, const char *name, double min, double max, double *out,
                 struct kv_error *e) {
    const char *text = kv_opt(c, name);
    char *end = NULL;
    double x = text ? strtod(text, &end) : NAN;
    if (!text || end == text || *end || !(x >= min && x <= max))
        return kv_fail(e, KV_EUSAGE, c->command->name,
                       "--%s %s: a number from %g to %g is expected", name, text ? text : "", min,
                       max);
    *out = x;
    return 0;
}

int kv_opt_int(const struct kv_cli *c, const char *name, long min, long max, long *out,
               struct kv_error *e) {
    const char *text = kv_opt(c, name);
    char *end = NULL;
    long x = text ? strtol(text, &end, 10) : 0;
    if (!text || end == text || *end || x < min || x > max)
        return kv_fail(e, KV_EUSAGE, c->command->name,
                       "--%s %s: a whole number from %ld to %ld is expected", name,
                       text ? text : "", min, max);
    *out = x;
    return 0;
}

static int run(struct kv_cli *cli, int argc, char **argv, struct kv_error *e) {
    const struct kv_command *c = cli->command;
    int rc = read_arguments(cli, c, argc, argv, e);
    if (rc) return rc;
    if (kv_opt_given(cli, "help")) {
        print_help(c);
        return kv_flush_stdout(e);
    }
    long jobs = (long)kv_cpu_count(), seed;
    if (kv_opt_given(cli, "jobs") && (rc = kv_opt_int(cli, "jobs", 1, 4096, &jobs, e))) return rc;
    if ((rc = kv_opt_int(cli, "seed", 0, 1L << 53, &seed, e))) return rc;
    cli->jobs = (unsigned)jobs;
    cli->seed = (uint64_t)seed;
    cli->output = kv_opt_given(cli, "json")  ? KV_OUT_JSON
                  : kv_opt_given(cli, "tsv") ? KV_OUT_TSV
                                             : KV_OUT_TEXT;
    kv_set_verbosity(kv_opt_given(cli, "quiet") ? -1 : kv_opt_given(cli, "verbose") ? 1 : 0);
    if (cli->n_args < c->min_args || cli->n_args > c->max_args)
        return kv_fail(e, KV_EUSAGE, c->name, "usage: kvsim %s %s", c->name, c->usage);
    return c->run(cli, e);
}

int main(int argc, char **argv) {
    struct kv_error e = {0};
    openblas_set_num_threads(1); // workers are ours; a product must not depend on their number
    signal(SIGPIPE, SIG_IGN);    // a closed pipe is a write error like any other
    signal(SIGXFSZ, SIG_IGN);    // so is a file-size limit
    kv_catch_interrupts();
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_usage();
        return argc > 1 ? report(&e, kv_flush_stdout(&e)) : 2;
    }
    if (strcmp(name, "--version") == 0) name = "version";
    const char *names[64];
    size_t n = 0;
    struct kv_cli cli = {0};
    for (size_t i = 0; commands[i]; i++) {
        names[n++] = commands[i]->name;
        if (strcmp(commands[i]->name, name) == 0) cli.command = commands[i];
    }
    names[n] = NULL;
    if (!cli.command) {
        const char *near = kv_nearest(name, names);
        int rc = near ? kv_fail(&e, KV_EUSAGE, "", "unknown command '%s'; did you mean '%s'?", name,
                                near)
                      : kv_fail(&e, KV_EUSAGE, "", "unknown command '%s' (kvsim --help lists them)",
                                name);
        return report(&e, rc);
    }
    cli.args = kv_alloc((size_t)argc, sizeof *cli.args);
    cli.values =
        kv_alloc(count_options(cli.command->options) + count_options(common), sizeof *cli.values);
    int rc = run(&cli, argc - 2, argv + 2, &e);
    int code = report(&e, rc);
    free(cli.args);
    free(cli.values);
    return code;
}
