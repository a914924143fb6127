// SPDX-License-Identifier: Apache-2.0
// Reads a command line by the option table of its command.
#include "sim/cli/options.h"
#include "sim/base/args.h"
#include "sim/base/memory.h"
#include "sim/cli/terminal.h"

#include <math.h>
#include <stdlib.h>

const struct kv_option kv_common_options[] = {
    {"jobs", 'j', "N", NULL, "threads (default: all processors)"},
    {"seed", 's', "S", "1", "seed of every random draw"},
    {"quiet", 'q', NULL, NULL, "say nothing but errors"},
    {"verbose", 'v', NULL, NULL, "say more"},
    {"tsv", 0, NULL, NULL, "print tables as TSV with a header"},
    {"csv", 0, NULL, NULL, "print tables as CSV with a header"},
    {"json", 0, NULL, NULL, "print tables as JSON"},
    {"markdown", 0, NULL, NULL, "print tables for a page: pipes"},
    {"latex", 0, NULL, NULL, "print tables for a paper: tabular, with the rules of booktabs"},
    {"help", 'h', NULL, NULL, "what a command takes, and an example of it"},
    {0}};

enum { MARGIN = 31 }; // where the help of an option begins

void kv_options_print(const struct kv_option *o) {
    for (; o && o->name; o++) {
        char left[48];
        snprintf(left, sizeof left, "%c%c%s--%s%s%s", o->letter ? '-' : ' ',
                 o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name, o->arg ? " " : "",
                 o->arg ? o->arg : "");
        printf("  %-28s ", left);
        char *help = o->arg && o->fallback && *o->fallback
                         ? kv_format_text("%s (default %s)", o->help, o->fallback)
                         : kv_strdup(o->help);
        kv_print_wrapped(help, MARGIN, kv_terminal_width());
        free(help);
    }
}

static size_t count_options(const struct kv_option *o) {
    size_t n = 0;
    while (o && o[n].name) n++;
    return n;
}

// Index of an option in the command's table followed by the kv_common_options ones; -1 = unknown.
static long find_option(const struct kv_option *own, size_t n_own, const char *name, size_t n,
                        char letter) {
    for (size_t i = 0; i < n_own + count_options(kv_common_options); i++) {
        const struct kv_option *o = i < n_own ? &own[i] : &kv_common_options[i - n_own];
        if (name ? strlen(o->name) == n && memcmp(o->name, name, n) == 0 : o->letter == letter)
            return (long)i;
    }
    return -1;
}

// Spellings that were. The new one is named wherever it is an option and the old one is not.
static const struct {
    const char *command; // NULL = any
    const char *old, *now;
} renamed[] = {{NULL, "output", "out"},          {"record", "items", "draw"},
               {"train", "figure", "figures"},   {"tune", "test", "items"},
               {"attribute", "trace", "digest"}, {"diff", "trace", "digest"},
               {"outcomes", "trace", "digest"}};

// The present name of an option that this command once spelled otherwise; NULL = it did not.
static const char *present_name(const struct kv_command *c, size_t n_own, const char *name,
                                size_t n) {
    for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++) {
        const char *now = renamed[i].now;
        if ((!renamed[i].command || strcmp(renamed[i].command, c->name) == 0) &&
            strlen(renamed[i].old) == n && memcmp(renamed[i].old, name, n) == 0 &&
            find_option(c->options, n_own, now, strlen(now), 0) >= 0)
            return now;
    }
    return NULL;
}

static int unknown_option(const struct kv_command *c, size_t n_own, const char *arg,
                          struct kv_error *e) {
    bool is_long = strncmp(arg, "--", 2) == 0;
    const char *now = is_long ? present_name(c, n_own, arg + 2, strcspn(arg + 2, "=")) : NULL;
    if (now) return kv_fail(e, KV_EUSAGE, c->name, "option '%s' is called '--%s' now", arg, now);
    size_t n = 0;
    const char **names = kv_alloc(n_own + count_options(kv_common_options) + 1, sizeof *names);
    for (size_t i = 0; i < n_own; i++) names[n++] = c->options[i].name;
    for (size_t i = 0; kv_common_options[i].name; i++) names[n++] = kv_common_options[i].name;
    const char *near = is_long ? kv_nearest(arg + 2, names) : NULL;
    free(names);
    if (near)
        return kv_fail(e, KV_EUSAGE, c->name, "unknown option '%s'; did you mean '--%s'?", arg,
                       near);
    return kv_fail(e, KV_EUSAGE, c->name, "unknown option '%s' (kvsim %s --help lists them)", arg,
                   c->name);
}

// Where the values of an option begin among the grouped ones, and how many there are.
static size_t group_of(const struct kv_cli *c, const char *name, size_t *n) {
    size_t before = 0;
    *n = 0;
    for (size_t k = 0; k < c->n_given; k++) {
        if (strcmp(c->given[k].option, name) == 0) ++*n;
        if (strcmp(c->given[k].option, name) < 0) before++;
    }
    return before;
}

static void group_values(struct kv_cli *c) {
    c->grouped = kv_alloc(c->n_given + 1, sizeof *c->grouped);
    for (size_t k = 0, n; k < c->n_given; k++) {
        size_t at = group_of(c, c->given[k].option, &n);
        while (c->grouped[at]) at++;
        c->grouped[at] = c->given[k].value;
    }
}

// Fills values[own options, then kv_common_options ones] and the plain arguments.
int kv_options_read(struct kv_cli *cli, int argc, char **argv, struct kv_error *e) {
    const struct kv_command *c = cli->command;
    size_t n_own = count_options(c->options);
    bool plain = false;
    cli->args = kv_alloc((size_t)argc + 1, sizeof *cli->args);
    cli->values = kv_alloc(n_own + count_options(kv_common_options), sizeof *cli->values);
    cli->given = kv_alloc((size_t)argc + 1, sizeof *cli->given);
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
        const struct kv_option *o =
            (size_t)k < n_own ? &c->options[k] : &kv_common_options[(size_t)k - n_own];
        if (!o->arg && value)
            return kv_fail(e, KV_EUSAGE, c->name, "option --%s takes no value", o->name);
        if (o->arg && !value) {
            if (i + 1 >= argc)
                return kv_fail(e, KV_EUSAGE, c->name, "option --%s needs %s", o->name, o->arg);
            value = argv[++i];
        }
        cli->values[k] = o->arg ? value : "";
        cli->given[cli->n_given++] = (struct kv_given){o->name, cli->values[k]};
    }
    group_values(cli);
    return 0;
}

static const char *value_of(const struct kv_cli *c, const char *name, bool with_default) {
    size_t n_own = count_options(c->command->options);
    long k = find_option(c->command->options, n_own, name, strlen(name), 0);
    if (k < 0) return NULL;
    const struct kv_option *o =
        (size_t)k < n_own ? &c->command->options[k] : &kv_common_options[(size_t)k - n_own];
    return c->values[k] || !with_default ? c->values[k] : o->fallback;
}

const char *kv_opt(const struct kv_cli *c, const char *name) {
    return value_of(c, name, true);
}
bool kv_opt_given(const struct kv_cli *c, const char *name) {
    return value_of(c, name, false) != NULL;
}

const char *kv_opt_nth(const struct kv_cli *c, const char *name, size_t i) {
    for (size_t k = 0; k < c->n_given; k++)
        if (strcmp(c->given[k].option, name) == 0 && i-- == 0) return c->given[k].value;
    return NULL;
}

const char *const *kv_opt_all(const struct kv_cli *c, const char *name, size_t *n) {
    return c->grouped + group_of(c, name, n);
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
