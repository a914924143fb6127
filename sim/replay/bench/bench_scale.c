// SPDX-License-Identifier: Apache-2.0
// What more items and more threads cost: a sweep into a store, in a process of its own each time,
// so that its peak of memory is its own. Twice the items are to take twice the time, in the same
// memory.
//
// Environment: MODEL, KVSIM_DATA (HellaSwag there; else the samples), BENCH_FIRST and BENCH_ITEMS
// (from and to, doubling; default 100 and 400), BENCH_JOBS (threads of that series; default: all).
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "analysis/studies/sweep.h"
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/test/figure.h"
#include "traces/record.h"

static const char *const specs[] = {"static:bits=4@asym:group=32"};

struct run {
    double open_s, run_s, cpu_s;  // of the child; cpu_s: of the run
    double peak_mb, anonymous_mb; // the former with pages of files, which the system may drop
    size_t tokens;
};

static void fail(int rc, const struct kv_error *e) {
    if (rc == 0) return;
    fprintf(stderr, "bench_scale: %s: %s\n", e->where, e->msg);
    exit(1);
}

static double anonymous_mb(void) {
    char line[256];
    double kb = NAN;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "RssAnon:", 8) == 0) kb = atof(line + 8);
    if (f) fclose(f);
    return kb / 1024;
}

// n of the trace's `most` items: every so-manieth, since a benchmark's later items may be longer.
static void sweep(const char *dir, const char *model, size_t n, size_t most, unsigned jobs,
                  struct run *r) {
    struct kv_error e = {0};
    struct kv_sweep_options o = kv_sweep_defaults();
    struct kv_sweep *s;
    char *db = kv_format_text("%s/%zu-%u.db", dir, n, jobs);
    o.trace = dir;
    o.model = model;
    o.specs = specs;
    o.n_specs = sizeof specs / sizeof *specs;
    o.shard = (struct kv_shard){1, (uint32_t)(most / n)};
    o.items = (struct kv_item_range){0, most / n * n};
    o.db = db;
    o.jobs = jobs;
    double start = kv_now_s();
    fail(kv_sweep_open(&s, &o, &e), &e);
    r->open_s = kv_now_s() - start;
    double cpu = kv_cpu_time_s();
    start = kv_now_s();
    fail(kv_sweep_run(s, &e), &e);
    r->run_s = kv_now_s() - start;
    r->cpu_s = kv_cpu_time_s() - cpu;
    r->anonymous_mb = anonymous_mb();
    for (size_t i = 0; i < n; i++)
        r->tokens += kv_trace_item(kv_sweep_trace(s), i * (most / n))->n_tokens;
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    r->peak_mb = (double)u.ru_maxrss / 1024;
    kv_sweep_close(s);
    free(db);
}

static struct run in_a_child(const char *dir, const char *model, size_t n, size_t most,
                             unsigned jobs) {
    struct run r = {0};
    int ends[2], status = 0;
    if (pipe(ends)) exit(1);
    pid_t pid = fork();
    if (pid == 0) {
        sweep(dir, model, n, most, jobs, &r);
        _exit(write(ends[1], &r, sizeof r) == sizeof r ? 0 : 1);
    }
    close(ends[1]);
    bool got = read(ends[0], &r, sizeof r) == sizeof r;
    close(ends[0]);
    if (waitpid(pid, &status, 0) != pid || status || !got) exit(1);
    return r;
}

// Recorded in a child too: what loaded a model here would be a part of every other child's memory.
static size_t record(const char *dir, const char *model_path, const char *tasks_spec, size_t n) {
    struct kv_error e = {0};
    struct kv_tasks *tasks;
    struct kv_model *m;
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        fail(kv_tasks_load(&tasks, tasks_spec, &e), &e);
        fail(kv_model_open(&m, model_path, KV_WEIGHTS_F32, &e), &e);
        struct kv_record_options o = {
            .dir = dir, .keep = KV_KEEP_FINAL, .n = n, .seed = 1, .jobs = kv_cpu_count()};
        if (n > tasks->n_items) o.n = tasks->n_items;
        fail(kv_record(m, tasks, &o, &e), &e);
        _exit(0);
    }
    if (waitpid(pid, &status, 0) != pid || status) exit(1);
    struct kv_trace *t;
    fail(kv_trace_open(&t, dir, &e), &e);
    n = kv_trace_info(t)->n_items;
    kv_trace_close(t);
    return n;
}

static size_t number(const char *name, size_t otherwise) {
    const char *text = getenv(name);
    return text && atol(text) > 0 ? (size_t)atol(text) : otherwise;
}

static void print_row(size_t n, unsigned jobs, const struct run *r) {
    printf("%6zu  %7u  %6.2f  %8.2f  %8.2f  %13.2f  %20.3f  %7.0f  %12.0f\n", n, jobs, r->open_s,
           r->run_s, r->cpu_s, 1e3 * r->cpu_s / (double)n, 1e6 * r->cpu_s / (double)r->tokens,
           r->peak_mb, r->anonymous_mb);
    fflush(stdout);
}

int main(void) {
    const char *model = getenv("MODEL") ? getenv("MODEL") : "data/SmolLM2-135M-Instruct.Q4_1.gguf",
               *data = getenv("KVSIM_DATA");
    char *tasks = data && *data ? kv_format_text("hellaswag:%s/hellaswag_val.jsonl.gz", data)
                                : kv_strdup("samples");
    char dir[] = "/tmp/kvsim-bench-XXXXXX";
    size_t first = number("BENCH_FIRST", 100), most = number("BENCH_ITEMS", 400);
    unsigned jobs = (unsigned)number("BENCH_JOBS", kv_cpu_count());
    kv_set_verbosity(-1);
    if (!mkdtemp(dir)) return 1;
    most = record(dir, model, tasks, most);
    if (first < 2) first = 2;
    if (first > most) first = most;
    printf("a sweep of %s into a store, %s, %u cores\n", specs[0], kv_cpu_model(), kv_cpu_count());
    printf(" items  threads  open_s     run_s     cpu_s  cpu_ms_an_item  cpu_us_a_token  peak_MB  "
           "anonymous_MB\n");
    // One thread, then two: of the first items, in turn, the better of two each.
    struct run one = {.run_s = INFINITY}, two = one;
    for (int turn = 0; turn < 2 && kv_cpu_count() > 1; turn++) {
        struct run a = in_a_child(dir, model, first / 2, most, 1), b;
        char *again = kv_format_text("rm -f '%s'/*.db*", dir);
        if (system(again)) return 1;
        b = in_a_child(dir, model, first / 2, most, 2);
        if (system(again)) return 1;
        free(again);
        if (a.run_s < one.run_s) one = a;
        if (b.run_s < two.run_s) two = b;
    }
    if (isfinite(one.run_s)) {
        print_row(first / 2, 1, &one);
        print_row(first / 2, 2, &two);
        printf("two threads are %.2f times as fast as one  (at least 1.9 is asked)\n",
               one.run_s / two.run_s);
        bench_figure((double)(first / 2) / two.run_s, "items/s", "two times one thread",
                     (double)first / one.run_s, "sweep, 2 threads");
    }
    struct run before = {0};
    for (size_t n = first; n <= most; n *= 2) {
        struct run r = in_a_child(dir, model, n, most, jobs);
        print_row(n, jobs, &r);
        if (before.run_s > 0) {
            double growth = r.cpu_s / before.cpu_s,
                   tokens = (double)r.tokens / (double)before.tokens;
            printf(
                "twice the items: %.3f times the time for %.3f times the tokens; memory %+.0f MB "
                "(%+.0f MB of it no file's)\n",
                growth, tokens, r.peak_mb - before.peak_mb, r.anonymous_mb - before.anonymous_mb);
            bench_figure((double)r.tokens / r.cpu_s, "tokens/CPU-s", "half as many items",
                         (double)before.tokens / before.cpu_s, "sweep, %zu items", n);
        }
        before = r;
    }
    char *clean = kv_format_text("rm -r '%s'", dir);
    int gone = system(clean);
    free(clean);
    free(tasks);
    return gone ? 1 : 0;
}
