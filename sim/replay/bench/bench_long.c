// SPDX-License-Identifier: Apache-2.0
// What windows as long as a model's context cost: recording and exact replay beside a plain pass of
// that length with logits at the scored positions alone, in CPU time of all threads, and the most
// memory beside the weights, which must grow with the tokens and not with their square.
//
// Environment: MODEL, KVSIM_DATA (its wikitext2_test.raw.txt), BENCH_TOKENS (ascending lengths,
// default "2048,4096,8192"), BENCH_SHARE (1/N of the positions scored, default 16), BENCH_THREADS
// (default 1).
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/model/forward.h"
#include "sim/replay/replay.h"
#include "traces/record.h"

static const char *const specs[] = {"static:bits=4@sym", "static:bits=4@kivi", "static@q4_0"};
enum { N_SPECS = sizeof specs / sizeof *specs };

static void fail(int rc, const struct kv_error *e) {
    if (rc == 0) return;
    fprintf(stderr, "bench_long: %s: %s\n", e->where, e->msg);
    exit(1);
}

static double peak_mb(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1024;
}

// What is held now: the weights, when the model is open.
static double resident_mb(void) {
    unsigned long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%lu %lu", &pages, &resident) != 2) resident = 0;
    if (f) fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1048576;
}

static int ignore(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                  struct kv_error *e) {
    (void)self, (void)item, (void)spec, (void)o, (void)e;
    return 0;
}

static int keep_float32(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                        struct kv_layer_view *view, struct kv_error *e) {
    (void)self, (void)layer, (void)e;
    *view = (struct kv_layer_view){.k_exact = kv->k, .v_exact = kv->v};
    return 0;
}

// CPU seconds of the model alone on an item, logits at its scored rows included.
static double plain_s(const struct kv_model *m, const struct kv_trace_item *it,
                      unsigned n_threads) {
    struct kv_error e;
    struct kv_tree t = {it->n_tokens, it->n_context, 0, it->first, it->ids};
    size_t h = m->shape.hidden, most = kv_head_rows(m);
    float *final = kv_alloc(it->n_tokens * h, sizeof *final),
          *rows = kv_alloc(most * h, sizeof *rows);
    struct kv_scratch *s = kv_scratch_new();
    kv_scratch_share(s, n_threads);
    double start = kv_cpu_time_s();
    fail(kv_forward(m, &(struct kv_forward){.tree = &t, .store = keep_float32, .final = final}, s,
                    &e),
         &e);
    for (size_t from = 0, n; from < it->n_final; from += n) {
        struct kv_reference r;
        n = it->n_final - from < most ? it->n_final - from : most;
        for (size_t i = 0; i < n; i++)
            memcpy(rows + i * h, final + it->final_rows[from + i] * h, h * sizeof *rows);
        kv_head_reference(m, rows, n, s, &r);
    }
    double used = kv_cpu_time_s() - start;
    kv_scratch_free(s);
    free(final);
    free(rows);
    return used;
}

static void run(const struct kv_model *m, long tokens, const char *data, const char *share,
                unsigned n_threads, double weights_mb) {
    struct kv_error e = {0};
    struct kv_tasks *tasks;
    struct kv_trace *t;
    char dir[] = "/tmp/kvsim-bench-XXXXXX";
    char *text =
        kv_format_text("text:%s/wikitext2_test.raw.txt,window=%ld,score=1/%s", data, tokens, share);
    fail(kv_tasks_load(&tasks, text, &e), &e);
    if (!mkdtemp(dir)) exit(1);
    struct kv_record_options o = {
        .dir = dir, .keep = KV_KEEP_FINAL, .n = 1, .seed = 1, .jobs = n_threads};
    double start = kv_cpu_time_s();
    fail(kv_record(m, tasks, &o, &e), &e);
    double record = kv_cpu_time_s() - start;
    fail(kv_trace_open(&t, dir, &e), &e);
    double plain = plain_s(m, kv_trace_item(t, 0), n_threads);
    printf("%ld tokens, 1/%s scored: plain pass %.1f CPU s; record %.2f times that", tokens, share,
           plain, record / plain);
    struct kv_format_setting setting = kv_trace_setting(kv_trace_info(t));
    for (size_t i = 0; i < N_SPECS; i++) {
        struct kv_replay_spec opened;
        fail(kv_replay_spec_open(&opened, specs[i], &setting, 1, &e), &e);
        struct kv_replay job = {.trace = t,
                                .model = m,
                                .specs = &opened,
                                .n_specs = 1,
                                .mode = KV_INLINE,
                                .n_items = 1,
                                .quiet = true,
                                .take = ignore};
        start = kv_cpu_time_s();
        fail(kv_replay_exact(&job, n_threads, &e), &e);
        printf(", %s %.2f", specs[i], (kv_cpu_time_s() - start) / plain);
        kv_replay_spec_close(&opened);
    }
    printf(" (at most 2 is asked); at most %.0f MB beside the weights, %.1f KB a token\n",
           peak_mb() - weights_mb, 1024 * (peak_mb() - weights_mb) / (double)tokens);
    fflush(stdout);
    kv_trace_close(t);
    kv_tasks_free(tasks);
    char *clean = kv_format_text("rm -r '%s'", dir);
    int gone = system(clean);
    (void)gone;
    free(clean);
    free(text);
}

int main(void) {
    struct kv_error e = {0};
    struct kv_model *m;
    const char *path = getenv("MODEL"), *data = getenv("KVSIM_DATA"),
               *lengths = getenv("BENCH_TOKENS"), *share = getenv("BENCH_SHARE"),
               *threads = getenv("BENCH_THREADS");
    if (!data || !*data) {
        printf("bench_long: skipped, KVSIM_DATA names no folder with wikitext2_test.raw.txt\n");
        return 0;
    }
    kv_set_verbosity(-1);
    fail(
        kv_model_open(&m, path ? path : "data/SmolLM2-135M-Instruct.Q4_1.gguf", KV_WEIGHTS_F32, &e),
        &e);
    double weights_mb = resident_mb();
    unsigned n_threads = threads && atoi(threads) > 0 ? (unsigned)atoi(threads) : 1;
    char *list = kv_strdup(lengths ? lengths : "2048,4096,8192"), *rest = list, *word;
    while ((word = strsep(&rest, ",")))
        run(m, atol(word), data, share ? share : "16", n_threads, weights_mb);
    free(list);
    kv_model_close(m);
    return 0;
}
