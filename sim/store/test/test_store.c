// SPDX-License-Identifier: Apache-2.0
// The store keeps what it is given, resumes, is shared by processes, and says calmly what went
// wrong.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "analysis/test/synthetic.h"
#include "sim/base/cache_types.h"

enum { N = 150 };

struct fixture {
    char dir[64], path[96];
    struct synthetic *trace;
};

static int set_up(void **state) {
    struct fixture *f = kv_alloc(1, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/kvsim-store-XXXXXX");
    if (!mkdtemp(f->dir)) return -1;
    snprintf(f->path, sizeof f->path, "%s/kv.db", f->dir);
    f->trace = synthetic_new(N);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    static const char *const names[] = {"kv.db", "kv.db-wal", "kv.db-shm",
                                        "b.db",  "b.db-wal",  "b.db-shm"};
    chmod(f->dir, 0700);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", f->dir, names[i]);
        unlink(path);
    }
    rmdir(f->dir);
    synthetic_free(f->trace);
    free(f);
    return 0;
}

static struct kv_store *open_store(const char *path, enum kv_store_access access) {
    struct kv_store *s;
    struct kv_error e = {0};
    if (kv_store_open(&s, path, access, &e)) fail_msg("%s: %s", e.where, e.msg);
    return s;
}

static long long run_of(struct kv_store *s, const struct synthetic *t, const char *spec,
                        uint32_t redraw) {
    long long trace, run;
    struct kv_error e = {0};
    assert_int_equal(synthetic_trace(s, t, &trace, &e), 0);
    struct kv_run_key key = synthetic_key(trace, spec);
    key.redraw = redraw;
    if (kv_store_run(s, &key, &run, &e)) fail_msg("%s: %s", e.where, e.msg);
    return run;
}

static int put(struct kv_store *s, long long run, size_t i, uint64_t policy, double damage,
               struct kv_error *e) {
    struct kv_choice_outcome choice[SYNTHETIC_CHOICES];
    struct kv_outcome o = synthetic_outcome(i, policy, 0.6, damage, 8, 4, choice);
    return kv_store_put(s, run, (uint32_t)i, &o, e);
}

static void fill(struct kv_store *s, long long run, size_t first, size_t last, uint64_t policy) {
    struct kv_error e = {0};
    for (size_t i = first; i < last; i++)
        if (put(s, run, i, policy, 0.2, &e)) fail_msg("%s: %s", e.where, e.msg);
}

static void close_store(struct kv_store *s) {
    struct kv_error e = {0};
    if (kv_store_close(s, &e)) fail_msg("%s: %s", e.where, e.msg);
}

// All result tables as text, in the order of their keys.
static int add_row(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                   struct kv_error *e) {
    (void)names, (void)e;
    for (size_t i = 0; i < n; i++)
        if (v[i].text)
            kv_text_addf(self, "%s|", v[i].text);
        else
            kv_text_addf(self, "%.17g|", v[i].x);
    kv_text_add(self, "\n", 1);
    return 0;
}

static char *dump(const char *path) {
    struct kv_text t = {0};
    struct kv_error e = {0};
    struct kv_store *s = open_store(path, KV_STORE_READ);
    assert_int_equal(kv_store_query(s,
                                    "SELECT * FROM policy_spec; SELECT * FROM run;"
                                    "SELECT * FROM item; SELECT * FROM outcome_item;"
                                    "SELECT * FROM outcome_choice; SELECT * FROM outcome_share;",
                                    NULL, 0, add_row, &t, &e),
                     0);
    close_store(s);
    return kv_text_take(&t);
}

static void issue_13_A4_a_row_says_which_cache_type_holds_each_width(void **state) {
    const struct fixture *f = *state;
    static const struct {
        const char *spec, *type; // of four bits
    } cases[] = {{"static:k=4,v=4@q4_0:order=ggml,sinks=0,window=0", "q4_0"},
                 {"static:k=4,v=4@iq4_nl:order=ggml,sinks=0,window=0", "iq4_nl"},
                 {"static:k=4,v=4@ggml:order=ggml,types=1", "q4_1"},
                 {"static:k=4,v=4@sym", "none"}};
    struct kv_error e;
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    for (size_t i = 0; i < 4; i++) fill(s, run_of(s, f->trace, cases[i].spec, 0), 0, 3, 1);
    assert_int_equal(kv_store_flush(s, &e), 0);
    struct kv_summary *rows;
    size_t n, found = 0;
    assert_int_equal(kv_store_summaries(s, NULL, &rows, &n, &e), 0);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 4; k++) {
            if (strcmp(rows[i].spec, cases[k].spec) != 0) continue;
            const struct kv_cache_type *t = kv_cache_type_at(rows[i].ledger.type[KV_VALUE][4]);
            assert_string_equal(t ? t->name : "none", cases[k].type);
            found++;
        }
    assert_int_equal(found, 4);
    kv_summaries_free(rows, n);
    close_store(s);
}

static void outcomes_come_back_as_they_were_put(void **state) {
    const struct fixture *f = *state;
    struct kv_error e;
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    long long run = run_of(s, f->trace, "static:bits=4@sym", 0);
    fill(s, run, 0, N, 1);
    close_store(s);

    s = open_store(f->path, KV_STORE_READ);
    struct kv_summary *rows;
    size_t n;
    assert_int_equal(kv_store_summaries(s, &(struct kv_store_filter){0}, &rows, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_string_equal(rows[0].spec, "static:bits=4@sym");
    assert_int_equal(rows[0].mode, KV_INLINE);
    assert_int_equal(rows[0].n_items, N);
    assert_int_equal(rows[0].n_trace_items, N);
    assert_true(rows[0].effective_bits == 6.5);
    assert_true(rows[0].chance == 0.25);
    assert_true(rows[0].context_tokens == 50);
    assert_true(rows[0].ledger.share[KV_KEY][8] == 1 && rows[0].ledger.share[KV_VALUE][4] == 1);
    assert_true(rows[0].ledger.share[KV_KEY][4] == 0);

    struct kv_item_result *items;
    size_t n_items, n_choices, right = 0;
    double kl = 0;
    assert_int_equal(kv_store_items(s, rows[0].run_group, &items, &n_items, &e), 0);
    assert_int_equal(n_items, N);
    for (size_t i = 0; i < n_items; i++) {
        struct kv_choice_outcome choice[SYNTHETIC_CHOICES];
        struct kv_outcome o = synthetic_outcome(i, 1, 0.6, 0.2, 8, 4, choice);
        assert_int_equal(items[i].item, i);
        assert_int_equal(items[i].gold, o.gold);
        assert_true(items[i].right[KV_ACC] == (o.pick[0] == o.gold));
        assert_true(items[i].right_ref[KV_ACC] == (o.pick_ref[0] == o.gold));
        assert_true(items[i].kl_nats == o.kl_nats && items[i].margin == o.margin);
        assert_true((items[i].context_key == items[0].context_key) == (i < 2));
        right += o.pick[0] == o.gold;
        kl += o.kl_nats;
    }
    assert_true(rows[0].acc[KV_ACC] == (double)right / N);
    assert_true(fabs(rows[0].kl_nats - kl / N) < 1e-12);
    assert_string_equal(items[5].id, "105");
    kv_item_results_free(items, n_items);

    struct kv_choice_result *choices;
    assert_int_equal(kv_store_choices(s, rows[0].run_group, &choices, &n_choices, &e), 0);
    assert_int_equal(n_choices, N * SYNTHETIC_CHOICES);
    assert_int_equal(choices[5].item, 1);
    assert_int_equal(choices[5].choice, 1);
    assert_true(choices[5].outcome.tokens == 10 && choices[5].outcome.bytes == 45);
    kv_choice_results_free(choices, n_choices);
    kv_summaries_free(rows, n);
    close_store(s);
}

static void settings_come_back_as_they_were_put(void **state) {
    const struct fixture *f = *state;
    struct kv_error e = {0};
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    long long trace, run;
    assert_int_equal(synthetic_trace(s, f->trace, &trace, &e), 0);
    struct kv_run_key key = synthetic_key(trace, "shuffle(static:k=4,v=4):seed=1@hadamard(sym)");
    key.fidelity = KV_FISHER;
    key.mode = KV_PREFILL1;
    key.self = KV_SELF_EXACT;
    key.form = KV_FORM_VECTOR;
    key.feedback = KV_FEEDBACK_CLOSED;
    key.compute = "cublas";
    assert_int_equal(kv_store_run(s, &key, &run, &e), 0);
    fill(s, run, 0, 3, 1);
    assert_int_equal(kv_store_flush(s, &e), 0);
    struct kv_summary *rows;
    size_t n;
    assert_int_equal(kv_store_summaries(s, NULL, &rows, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_true(rows[0].fidelity == KV_FISHER && rows[0].mode == KV_PREFILL1);
    assert_true(rows[0].self == KV_SELF_EXACT && rows[0].form == KV_FORM_VECTOR);
    assert_true(rows[0].feedback == KV_FEEDBACK_CLOSED);
    assert_string_equal(rows[0].compute, "cublas");
    assert_string_equal(rows[0].parts.policies[1].name, "static"); // parsed when it was read
    assert_string_equal(rows[0].parts.formats[0].name, "hadamard");
    kv_summaries_free(rows, n);
    const struct kv_store_filter exact = {.fidelities = 1u << KV_EXACT | 1u << KV_ATTENTION};
    assert_int_equal(kv_store_summaries(s, &exact, &rows, &n, &e), 0);
    assert_int_equal(n, 0);

    struct kv_text t = {0};
    assert_int_equal(kv_store_query(s, "SELECT fidelity, mode, self, variant FROM run", NULL, 0,
                                    add_row, &t, &e),
                     0);
    assert_string_equal(t.s, "fisher|prefill1|exact|feedback=closed,form=vector|\n");
    free(t.s);
    close_store(s);
}

static void a_setting_that_is_not_known_is_said_with_its_file(void **state) {
    const struct fixture *f = *state;
    struct kv_error e = {0};
    static const char *const changes[] = {"mode = 'sideways'", "fidelity = 'guess'", "self = ''",
                                          "variant = 'form=round'"};
    static const char *const said[] = {"mode 'sideways'", "fidelity 'guess'", "self ''",
                                       "variant 'form=round'"};
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    fill(s, run_of(s, f->trace, "a", 0), 0, 3, 1);
    assert_int_equal(kv_store_flush(s, &e), 0);
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        struct kv_summary *rows;
        size_t n;
        char *change = kv_format_text("UPDATE run SET mode = 'inline', fidelity = 'exact', self = "
                                      "'coded', variant = ''; UPDATE run SET %s",
                                      changes[i]);
        char *message =
            kv_format_text("holds a run of %s, which this kvsim does not know", said[i]);
        assert_int_equal(kv_store_query(s, change, NULL, 0, NULL, NULL, &e), 0);
        assert_int_equal(kv_store_summaries(s, NULL, &rows, &n, &e), KV_EFAIL);
        assert_string_equal(e.where, f->path);
        assert_string_equal(e.msg, message);
        assert_null(rows);
        free(change);
        free(message);
    }
    close_store(s);
}

static void what_a_fidelity_cannot_know_stays_unknown(void **state) {
    const struct fixture *f = *state;
    struct kv_error e;
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    long long run = run_of(s, f->trace, "static:bits=4@sym", 0);
    struct kv_outcome o = {.n_choices = 4,
                           .pick = {-1, -1, -1, -1},
                           .pick_ref = {-1, -1, -1, -1},
                           .margin = NAN,
                           .kl_nats = 0.25,
                           .n_scored = 3,
                           .ledger = {.effective_bits = 4.5, .entropy_bits = NAN}};
    struct kv_item_result *items;
    struct kv_summary *rows;
    size_t n;
    assert_int_equal(kv_store_put(s, run, 3, &o, &e), 0);
    assert_int_equal(kv_store_flush(s, &e), 0);
    assert_int_equal(kv_store_items(s, run, &items, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_true(isnan(items[0].right[KV_ACC]) && isnan(items[0].margin) && isnan(items[0].agree));
    assert_true(items[0].kl_nats == 0.25);
    kv_item_results_free(items, n);
    assert_int_equal(kv_store_summaries(s, NULL, &rows, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(rows[0].n_judged, 0);
    assert_true(isnan(rows[0].acc[KV_ACC]) && rows[0].kl_nats == 0.25);
    kv_summaries_free(rows, n);
    close_store(s);
}

static void a_sweep_resumes_at_the_item_where_it_stopped(void **state) {
    const struct fixture *f = *state;
    struct kv_error e;
    bool done[N] = {false};
    size_t n_done;
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    long long run = run_of(s, f->trace, "static:bits=4@sym", 0);
    fill(s, run, 0, 70, 1);
    assert_int_equal(kv_store_done(s, run, done, N, &n_done, &e), 0);
    assert_int_equal(n_done, 70); // buffered ones count
    kv_store_abandon(s);          // as a killed run would: the open batch is lost

    s = open_store(f->path, KV_STORE_WRITE);
    assert_int_equal(run_of(s, f->trace, "static:bits=4@sym", 0), run);
    memset(done, 0, sizeof done);
    assert_int_equal(kv_store_done(s, run, done, N, &n_done, &e), 0);
    assert_in_range(n_done, 70 - 64, 69);
    assert_true(done[0] && !done[69] && !done[70]);
    for (size_t i = 0; i < N; i++)
        if (!done[i]) fill(s, run, i, i + 1, 1);
    close_store(s);

    char other[128];
    snprintf(other, sizeof other, "%s/b.db", f->dir);
    s = open_store(other, KV_STORE_CREATE);
    fill(s, run_of(s, f->trace, "static:bits=4@sym", 0), 0, N, 1);
    close_store(s);
    char *a = dump(f->path), *b = dump(other);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

static void result_tables_are_equal_whatever_the_order_of_work(void **state) {
    const struct fixture *f = *state;
    char other[128];
    snprintf(other, sizeof other, "%s/b.db", f->dir);
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    long long a = run_of(s, f->trace, "a", 0), b = run_of(s, f->trace, "b", 0);
    fill(s, a, 0, N, 1);
    fill(s, b, 0, N, 2);
    close_store(s);
    s = open_store(other, KV_STORE_CREATE);
    a = run_of(s, f->trace, "a", 0), b = run_of(s, f->trace, "b", 0);
    for (size_t i = N; i-- > 0;) {
        fill(s, b, i, i + 1, 2);
        fill(s, a, (i * 7) % N, (i * 7) % N + 1, 1); // 7 and 150 share no factor
    }
    close_store(s);
    char *x = dump(f->path), *y = dump(other);
    assert_string_equal(x, y);
    free(x);
    free(y);
}

static void two_processes_write_one_store_at_once(void **state) {
    const struct fixture *f = *state;
    struct kv_error e = {0};
    pid_t child[3];
    for (int c = 0; c < 3; c++) {
        child[c] = fork();
        if (child[c] != 0) continue;
        struct kv_store *s;
        long long trace, run;
        char spec[32];
        int code = kv_store_open(&s, f->path, KV_STORE_CREATE, &e);
        if (!code) code = synthetic_trace(s, f->trace, &trace, &e);
        for (int r = 0; !code && r < 3; r++) {
            snprintf(spec, sizeof spec, "spec%d", (r + c) % 3);
            struct kv_run_key key = synthetic_key(trace, spec);
            code = kv_store_run(s, &key, &run, &e);
            for (size_t i = (size_t)c; !code && i < N; i += 3) {
                code = put(s, run, i, 1, 0.1, &e);
                if (!code && i % 10 == 0) code = kv_store_flush(s, &e);
            }
        }
        if (!code) code = kv_store_close(s, &e);
        if (code) fprintf(stderr, "# %s: %s\n", e.where, e.msg);
        _exit(code != 0);
    }
    for (int c = 0; c < 3; c++) {
        int status;
        assert_int_equal(waitpid(child[c], &status, 0), child[c]);
        assert_int_equal(status, 0);
    }
    struct kv_store *s = open_store(f->path, KV_STORE_READ);
    struct kv_summary *rows;
    size_t n;
    assert_int_equal(kv_store_summaries(s, NULL, &rows, &n, &e), 0);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < n; i++) assert_int_equal(rows[i].n_items, N);
    kv_summaries_free(rows, n);
    close_store(s);
}

static void redraws_are_averaged_within_an_item(void **state) {
    const struct fixture *f = *state;
    struct kv_error e;
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    long long first = run_of(s, f->trace, "static:bits=2@sym", 0);
    fill(s, first, 0, N, 1);
    fill(s, run_of(s, f->trace, "static:bits=2@sym", 1), 0, N, 2);
    assert_int_equal(kv_store_flush(s, &e), 0);
    struct kv_item_result *items;
    struct kv_summary *rows;
    size_t n, halves = 0;
    assert_int_equal(kv_store_summaries(s, NULL, &rows, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(rows[0].n_redraws, 2);
    assert_int_equal(rows[0].n_items, N);
    assert_int_equal(rows[0].run_group, first);
    assert_true(rows[0].ledger.share[KV_KEY][8] == 1);
    kv_summaries_free(rows, n);
    assert_int_equal(kv_store_items(s, first, &items, &n, &e), 0);
    assert_int_equal(n, N);
    for (size_t i = 0; i < n; i++) halves += items[i].right[KV_ACC] == 0.5;
    assert_true(halves > 0);
    kv_item_results_free(items, n);
    struct kv_redraw_result *draws;
    size_t differ = 0;
    assert_int_equal(kv_store_redraws(s, first, &draws, &n, &e), 0);
    assert_int_equal(n, 2 * N);
    for (size_t i = 0; i < n; i += 2) {
        assert_int_equal(draws[i].item, draws[i + 1].item);
        assert_true(draws[i].redraw == 0 && draws[i + 1].redraw == 1);
        differ += draws[i].right[KV_ACC] != draws[i + 1].right[KV_ACC];
    }
    assert_int_equal(differ, halves);
    free(draws);
    close_store(s);
}

static void of_several_builds_the_fullest_run_is_shown(void **state) {
    const struct fixture *f = *state;
    struct kv_error e;
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    long long trace, newer, older = run_of(s, f->trace, "a", 0);
    fill(s, older, 0, N, 1);
    assert_int_equal(synthetic_trace(s, f->trace, &trace, &e), 0);
    struct kv_run_key key = synthetic_key(trace, "a");
    key.commit = "def";
    assert_int_equal(kv_store_run(s, &key, &newer, &e), 0);
    assert_true(newer != older);
    fill(s, newer, 0, 10, 1);
    assert_int_equal(kv_store_flush(s, &e), 0);
    struct kv_summary *rows;
    size_t n;
    assert_int_equal(kv_store_summaries(s, NULL, &rows, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(rows[0].run_group, older);
    kv_summaries_free(rows, n);
    assert_int_equal(
        kv_store_summaries(s, &(struct kv_store_filter){.all_builds = true}, &rows, &n, &e), 0);
    assert_int_equal(n, 2);
    kv_summaries_free(rows, n);
    close_store(s);
}

static void the_view_of_the_frontier_leaves_out_what_another_beats(void **state) {
    const struct fixture *f = *state;
    struct kv_error e;
    struct kv_text t = {0};
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    static const struct {
        const char *spec;
        double damage;
        int bits;
    } policies[] = {{"best", 0, 16}, {"dominated", 0.6, 8}, {"small", 0.3, 4}};
    for (size_t p = 0; p < 3; p++) {
        long long run = run_of(s, f->trace, policies[p].spec, 0);
        for (size_t i = 0; i < N; i++) {
            struct kv_choice_outcome choice[SYNTHETIC_CHOICES];
            struct kv_outcome o = synthetic_outcome(i, 1, 0.6, policies[p].damage, policies[p].bits,
                                                    policies[p].bits, choice);
            assert_int_equal(kv_store_put(s, run, (uint32_t)i, &o, &e), 0);
        }
    }
    assert_int_equal(kv_store_flush(s, &e), 0);
    assert_int_equal(kv_store_query(s, "SELECT spec FROM frontier", NULL, 0, add_row, &t, &e), 0);
    char *text = kv_text_take(&t);
    assert_string_equal(text, "small|\nbest|\n");
    free(text);
    assert_int_equal(kv_store_query(s, "SELECT won, lost, difference FROM paired LIMIT 1", NULL, 0,
                                    add_row, &t, &e),
                     0);
    text = kv_text_take(&t);
    assert_string_equal(text, "0|0|0|\n");
    free(text);
    close_store(s);
}

static void durations_add_up_and_live_apart(void **state) {
    const struct fixture *f = *state;
    struct kv_error e;
    struct kv_text t = {0};
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    long long run = run_of(s, f->trace, "a", 0);
    assert_int_equal(kv_store_put_timing(s, run, 1.5, 3, 10, &e), 0);
    assert_int_equal(kv_store_put_timing(s, run, 0.5, 1, 4, &e), 0);
    assert_int_equal(
        kv_store_query(s, "SELECT wall_s, cpu_s, items FROM timing", NULL, 0, add_row, &t, &e), 0);
    char *text = kv_text_take(&t);
    assert_string_equal(text, "2|4|14|\n");
    free(text);
    close_store(s);
}

static void the_setting_of_a_trace_comes_back(void **state) {
    const struct fixture *f = *state;
    struct kv_error e;
    struct kv_store_setting *settings;
    size_t n;
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    run_of(s, f->trace, "a", 0);
    assert_int_equal(kv_store_settings(s, &settings, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_memory_equal(&settings[0].setting.shape, &f->trace->info.shape, sizeof(struct kv_shape));
    assert_int_equal(settings[0].setting.order, KV_ORDER_HF);
    free(settings);
    close_store(s);
}

static void expect_refusal(const char *path, enum kv_store_access access, const char *message) {
    struct kv_store *s;
    struct kv_error e = {0};
    assert_int_equal(kv_store_open(&s, path, access, &e), KV_EFAIL);
    assert_null(s);
    assert_string_equal(e.where, path);
    assert_string_equal(e.msg, message);
}

static void wrong_files_are_refused_in_one_sentence(void **state) {
    const struct fixture *f = *state;
    struct kv_error e;
    char no_dir[128];
    snprintf(no_dir, sizeof no_dir, "%s/none/kv.db", f->dir);
    expect_refusal(f->path, KV_STORE_READ, "no such store");
    expect_refusal(f->path, KV_STORE_WRITE, "no such store");
    expect_refusal(f->dir, KV_STORE_CREATE, "a folder, where a store's file was expected");
    expect_refusal("/dev/full", KV_STORE_CREATE, "not a regular file; a store needs one");
    expect_refusal(no_dir, KV_STORE_CREATE,
                   "could not open it: the file or its folder cannot be written");
    FILE *out = fopen(f->path, "w");
    for (int i = 0; i < 500; i++) fprintf(out, "this is no database\n");
    fclose(out);
    expect_refusal(f->path, KV_STORE_CREATE, "this is not a kvsim store (nor any SQLite file)");
    expect_refusal(f->path, KV_STORE_READ, "this is not a kvsim store (nor any SQLite file)");
    truncate(f->path, 0);
    expect_refusal(f->path, KV_STORE_READ, "the store is empty");

    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    assert_int_equal(kv_store_query(s, "PRAGMA application_id = 5", NULL, 0, NULL, NULL, &e), 0);
    close_store(s);
    expect_refusal(f->path, KV_STORE_WRITE, "this SQLite file is not a kvsim store");
}

static void a_newer_store_is_refused(void **state) {
    const struct fixture *f = *state;
    struct kv_error e;
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    assert_int_equal(kv_store_query(s, "PRAGMA user_version = 99", NULL, 0, NULL, NULL, &e), 0);
    close_store(s);
    assert_int_equal(kv_store_open(&s, f->path, KV_STORE_READ, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "made by a newer kvsim (schema 99"));
}

// Runs `what` in a child that is not root; returns its exit code.
static int as_nobody(int (*what)(const struct fixture *), const struct fixture *f) {
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && (setgroups(0, NULL) || setgid(65534) || setuid(65534))) _exit(77);
        _exit(what(f));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int read_but_not_write(const struct fixture *f) {
    struct kv_store *s;
    struct kv_summary *rows;
    struct kv_error e = {0};
    size_t n;
    if (kv_store_open(&s, f->path, KV_STORE_WRITE, &e) != KV_EFAIL) return 1;
    if (strcmp(e.msg, "the store is read-only") != 0) return 2;
    if (kv_store_open(&s, f->path, KV_STORE_READ, &e)) return 3;
    if (kv_store_summaries(s, NULL, &rows, &n, &e) || n != 1 || rows[0].n_items != N) return 4;
    kv_summaries_free(rows, n);
    return kv_store_close(s, &e) ? 5 : 0;
}

static void a_read_only_store_in_a_read_only_folder_can_be_read(void **state) {
    const struct fixture *f = *state;
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    fill(s, run_of(s, f->trace, "a", 0), 0, N, 1);
    close_store(s);
    chmod(f->path, 0444);
    chmod(f->dir, 0555);
    assert_int_equal(as_nobody(read_but_not_write, f), 0);
}

static int fill_a_small_disk(const struct fixture *f) {
    struct kv_store *s;
    struct kv_error e = {0};
    long long trace, run = 0;
    signal(SIGXFSZ, SIG_IGN);
    int code = kv_store_open(&s, f->path, KV_STORE_WRITE, &e);
    if (code) return 1;
    struct rlimit limit = {200000, 200000};
    if (setrlimit(RLIMIT_FSIZE, &limit)) return 2;
    code = synthetic_trace(s, f->trace, &trace, &e);
    for (int p = 0; !code && p < 100; p++) {
        char spec[32];
        snprintf(spec, sizeof spec, "spec%d", p);
        struct kv_run_key key = synthetic_key(trace, spec);
        code = kv_store_run(s, &key, &run, &e);
        for (size_t i = 0; !code && i < N; i++) code = put(s, run, i, 1, 0.1, &e);
    }
    if (code != KV_EFAIL) return 3;
    if (!strstr(e.msg, "file size limit of this process was reached; what was stored before is "
                       "safe")) {
        fprintf(stderr, "# %s: %s\n", e.where, e.msg);
        return 4;
    }
    kv_store_abandon(s);
    return 0;
}

static void a_full_disk_is_said_and_earlier_results_stay(void **state) {
    const struct fixture *f = *state;
    struct kv_store *s = open_store(f->path, KV_STORE_CREATE);
    fill(s, run_of(s, f->trace, "first", 0), 0, N, 1);
    close_store(s);
    pid_t child = fork();
    if (child == 0) _exit(fill_a_small_disk(f));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    struct kv_error e;
    struct kv_summary *rows;
    size_t n;
    s = open_store(f->path, KV_STORE_WRITE);
    assert_int_equal(
        kv_store_summaries(s, &(struct kv_store_filter){.spec = "first"}, &rows, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(rows[0].n_items, N);
    kv_summaries_free(rows, n);
    close_store(s);
}

static void a_reader_changes_nothing(void **state) {
    const struct fixture *f = *state;
    struct kv_error e = {0};
    close_store(open_store(f->path, KV_STORE_CREATE));
    struct kv_store *s = open_store(f->path, KV_STORE_READ);
    const char *const changes[] = {"DELETE FROM run", "CREATE TEMP TABLE point (x)"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(kv_store_query(s, changes[i], NULL, 0, NULL, NULL, &e), KV_EFAIL);
        assert_non_null(strstr(e.msg, "read-only"));
    }
    assert_int_equal(kv_store_query(s, "SELECT unknown FROM run", NULL, 0, NULL, NULL, &e),
                     KV_EFAIL);
    assert_non_null(strstr(e.msg, "no such column: unknown"));
    close_store(s);
}

#define CASE(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(issue_13_A4_a_row_says_which_cache_type_holds_each_width),
        CASE(outcomes_come_back_as_they_were_put),
        CASE(settings_come_back_as_they_were_put),
        CASE(a_setting_that_is_not_known_is_said_with_its_file),
        CASE(what_a_fidelity_cannot_know_stays_unknown),
        CASE(a_sweep_resumes_at_the_item_where_it_stopped),
        CASE(result_tables_are_equal_whatever_the_order_of_work),
        CASE(two_processes_write_one_store_at_once),
        CASE(redraws_are_averaged_within_an_item),
        CASE(of_several_builds_the_fullest_run_is_shown),
        CASE(the_view_of_the_frontier_leaves_out_what_another_beats),
        CASE(durations_add_up_and_live_apart),
        CASE(the_setting_of_a_trace_comes_back),
        CASE(wrong_files_are_refused_in_one_sentence),
        CASE(a_newer_store_is_refused),
        CASE(a_read_only_store_in_a_read_only_folder_can_be_read),
        CASE(a_full_disk_is_said_and_earlier_results_stay),
        CASE(a_reader_changes_nothing),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
