// SPDX-License-Identifier: Apache-2.0
// The program: finds the command, reads its options, runs it, says what went wrong, ends with its
// code.
#include "sim/base/cpu.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/cli/help.h"

#include <cblas.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

// One sentence on stderr: where it went wrong, and what.
static int report(const struct kv_error *e, int rc) {
    if (rc == 0) return 0;
    if (*e->where)
        fprintf(stderr, "kvsim: %s: %s\n", e->where, e->msg);
    else
        fprintf(stderr, "kvsim: %s\n", e->msg);
    return rc == KV_EUSAGE || rc == KV_ENOTOFFERED ? 2 : 1;
}

// SIGINT and SIGTERM let what runs come to a good end; a second SIGINT does not wait for it.
static void on_signal(int sig) {
    if (kv_interrupted() && sig == SIGINT) _exit(130);
    kv_interrupt(true);
}

static void catch_interrupts(void) {
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
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
    cli->output = kv_opt_given(cli, "json")  ? KV_OUT_JSON
                  : kv_opt_given(cli, "tsv") ? KV_OUT_TSV
                                             : KV_OUT_TEXT;
    kv_set_verbosity(kv_opt_given(cli, "quiet") ? -1 : kv_opt_given(cli, "verbose") ? 1 : 0);
    if (cli->n_args < c->min_args || cli->n_args > c->max_args)
        return kv_fail(e, KV_EUSAGE, c->name, "usage: kvsim %s%s%s", c->name, *c->usage ? " " : "",
                       c->usage);
    return c->run(cli, e);
}

int main(int argc, char **argv) {
    struct kv_error e = {0};
    openblas_set_num_threads(1); // workers are ours; a product must not depend on their number
    signal(SIGPIPE, SIG_IGN);    // a closed pipe is a write error like any other
    signal(SIGXFSZ, SIG_IGN);    // so is a file-size limit
    catch_interrupts();
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        kv_help_all();
        return argc > 1 ? report(&e, kv_flush_stdout(&e)) : 2;
    }
    if (strcmp(name, "--version") == 0) name = "version";
    struct kv_cli cli = {0};
    int rc = kv_find_command(name, &cli.command, &e);
    if (rc) return report(&e, rc);
    rc = run(&cli, argc - 2, argv + 2, &e);
    int code = report(&e, rc);
    free(cli.args);
    free(cli.values);
    free(cli.given);
    return code;
}
