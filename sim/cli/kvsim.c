// SPDX-License-Identifier: Apache-2.0
// The program: finds the command, reads its options, runs it, says what went wrong, ends with its
// code.
#include "sim/base/cpu.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/print.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/cli/help.h"
#include "sim/cli/last_resort.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

// One sentence on stderr: where it went wrong, and what.
static int report(const struct kv_error *e, int rc) {
    if (rc == 0) return 0;
    if (*e->where)
        kv_print_to(stderr, "kvsim: %s: %s\n", e->where, e->msg);
    else
        kv_print_to(stderr, "kvsim: %s\n", e->msg);
    return rc == KV_EUSAGE || rc == KV_ENOTOFFERED ? 2 : 1;
}

// What runs may come to a good end for this long, unless a second signal comes before. One that
// comes within the echo is the first once more: timeout(1) signals its child and then its child's
// group.
enum { GRACE_S = 30, ECHO_MS = 200 };

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// The first SIGINT, SIGTERM or SIGHUP asks: what was finished is stored, and the command ends. Work
// that does not look (a plug-in's endless loop) is ended by a second one, at once, or by the clock.
static void on_signal(int sig) {
    static atomic_long asked_ms;
    if (kv_interrupted()) {
        if (sig == SIGALRM || now_ms() - atomic_load(&asked_ms) > ECHO_MS)
            kv_end_at_once(128 + (sig == SIGALRM ? SIGTERM : sig));
        return;
    }
    atomic_store(&asked_ms, now_ms());
    kv_interrupt(true);
    alarm(GRACE_S);
}

static void catch_interrupts(void) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGALRM};
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, before;
    sigemptyset(&a.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        sigaction(signals[i], &a, &before);
        // nohup(1) asks that SIGHUP stays without effect.
        if (signals[i] == SIGHUP && before.sa_handler == SIG_IGN) signal(SIGHUP, SIG_IGN);
    }
}

// Nobody reads standard output any more: files are written, and what is left is to end as any
// filter does, of SIGPIPE and without a word.
static void end_as_a_filter(void) {
    signal(SIGPIPE, SIG_DFL);
    raise(SIGPIPE);
}

// How tables are printed; two ways at once are none.
static int read_output(struct kv_cli *cli, struct kv_error *e) {
    static const struct {
        const char *option;
        enum kv_output output;
    } outputs[] = {{"tsv", KV_OUT_TSV},
                   {"csv", KV_OUT_CSV},
                   {"json", KV_OUT_JSON},
                   {"markdown", KV_OUT_MARKDOWN},
                   {"latex", KV_OUT_LATEX}};
    const char *first = NULL;
    cli->output = KV_OUT_TEXT;
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) {
        if (!kv_opt_given(cli, outputs[i].option)) continue;
        if (first)
            return kv_fail(e, KV_EUSAGE, cli->command->name,
                           "--%s and --%s: a table is printed in one way", first,
                           outputs[i].option);
        first = outputs[i].option;
        cli->output = outputs[i].output;
    }
    return 0;
}

static int wrong_number(const struct kv_cli *cli, struct kv_error *e) {
    const struct kv_command *c = cli->command;
    const struct kv_option *o = c->options;
    const char *gap = *c->usage ? " " : "";
    if (cli->n_args < c->min_args)
        return kv_fail(e, KV_EUSAGE, c->name, "usage: kvsim %s%s%s", c->name, gap, c->usage);
    while (o && o->name && strcmp(o->name, "db") != 0) o++; // what is often meant by a bare file
    return kv_fail(e, KV_EUSAGE, c->name, "'%s' is one argument too many; usage: kvsim %s%s%s%s",
                   cli->args[c->max_args], c->name, gap, c->usage,
                   o && o->name ? " --db FILE" : "");
}

static int run(struct kv_cli *cli, int argc, char **argv, struct kv_error *e) {
    KV_GUARD(e);
    const struct kv_command *c = cli->command;
    int rc = kv_options_read(cli, argc, argv, e);
    if (rc) return rc;
    if (kv_opt_given(cli, "help")) {
        kv_help_one(c);
        return kv_flush_stdout(e);
    }
    long jobs = (long)kv_cpu_count(), seed;
    if (kv_opt_given(cli, "jobs") && (rc = kv_opt_int(cli, "jobs", 1, 4096, &jobs, e))) return rc;
    if ((rc = kv_opt_int(cli, "seed", 0, 1L << 53, &seed, e))) return rc;
    cli->jobs = (unsigned)jobs;
    cli->seed = (uint64_t)seed;
    if ((rc = read_output(cli, e))) return rc;
    kv_set_verbosity(kv_opt_given(cli, "quiet") ? -1 : kv_opt_given(cli, "verbose") ? 1 : 0);
    if (cli->n_args < c->min_args || cli->n_args > c->max_args) return wrong_number(cli, e);
    struct kv_progress *alive = kv_progress_start(c->name, 0, "");
    rc = c->run(cli, e);
    kv_progress_end(alive);
    return rc;
}

int main(int argc, char **argv) {
    struct kv_error e = {0};
    signal(SIGPIPE, SIG_IGN); // a run whose output nobody reads any more still stores its results
    signal(SIGXFSZ, SIG_IGN); // a file-size limit is a write error like any other
    catch_interrupts();
    kv_last_resort();
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        kv_help_all();
        int rc = kv_flush_stdout(&e);
        if (rc == 0 && kv_stdout_closed()) end_as_a_filter();
        return argc > 1 ? report(&e, rc) : 2;
    }
    if (strcmp(name, "--version") == 0) name = "version";
    struct kv_cli cli = {0};
    int rc = kv_cpu_check(&e);
    if (rc == 0) rc = kv_find_command(name, &cli.command, &e);
    if (rc) return report(&e, rc);
    rc = run(&cli, argc - 2, argv + 2, &e);
    if (rc == 0 && kv_stdout_closed()) end_as_a_filter();
    int code = report(&e, rc);
    free(cli.args);
    free(cli.values);
    free(cli.given);
    free(cli.grouped);
    return code;
}
