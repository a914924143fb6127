// SPDX-License-Identifier: Apache-2.0
// Exact replay on the real model: what it must reproduce bit for bit, and the ledger by hand.
#include "sim/replay/ledger.h"
#include "sim/replay/test/recording.h"

struct fixture {
    struct kv_model *model;
    struct recording all, part; // three short samples; two of them, and a window of text
    struct recording text;
};

static const char three[] = "6\n60\n114\n", two[] = "6\n60\n";
static const size_t part_in_all[] = {0, 1};
static const char *const specs[] = {
    "static:bits=16@sym", "none",
    "static:bits=4@sym",  "static:k=8,v=4@asym:group=32,sinks=2,window=8",
    "static@q4_0",        "random:bits=2/4/8/16@sym"};
enum { N_SPECS = sizeof specs / sizeof *specs };

static struct outcomes run(const struct fixture *f, struct kv_replay job, unsigned jobs) {
    if (!job.trace) job.trace = f->all.trace;
    job.model = f->model;
    if (job.seed == 0) job.seed = 1;
    return replay_specs_as(job, specs, N_SPECS, jobs);
}

static void same_bits(double a, double b) {
    assert_memory_equal(&a, &b, sizeof a);
}

static void same_outcome(const struct kv_outcome *a, const struct kv_outcome *b) {
    assert_int_equal(a->n_choices, b->n_choices);
    for (uint32_t c = 0; c < (a->n_choices ? a->n_choices : 1); c++) {
        same_bits(a->choice[c].logprob, b->choice[c].logprob);
        same_bits(a->choice[c].logprob_ref, b->choice[c].logprob_ref);
        same_bits(a->choice[c].kl_nats, b->choice[c].kl_nats);
        same_bits(a->choice[c].logprob_after_prefix, b->choice[c].logprob_after_prefix);
    }
    assert_memory_equal(a->pick, b->pick, sizeof a->pick);
    same_bits(a->margin, b->margin);
    same_bits(a->kl_nats, b->kl_nats);
    assert_memory_equal(&a->ledger, &b->ledger, sizeof a->ledger);
}

// ---- what 16 bits must reproduce ------------------------------------------------------

static void sixteen_bits_replay_to_the_recorded_scores_with_no_divergence(void **state) {
    const struct fixture *f = *state;
    struct outcomes o = replay_specs_as(
        (struct kv_replay){.trace = f->all.trace, .model = f->model, .seed = 1}, specs, 1, 2);
    for (size_t i = 0; i < o.n_items; i++) {
        const struct kv_trace_item *it = kv_trace_item(f->all.trace, i);
        assert_int_equal(4, o.at[i].n_choices);
        same_bits(0, o.at[i].kl_nats);
        for (uint32_t c = 0; c < 4; c++) {
            same_bits(it->score[c], o.at[i].choice[c].logprob);
            same_bits(it->score[c], o.at[i].choice[c].logprob_ref);
            same_bits(0, o.at[i].choice[c].kl_nats);
        }
        for (int s = 0; s < KV_N_SCORERS; s++)
            assert_int_equal(o.at[i].pick_ref[s], o.at[i].pick[s]);
    }
    free_outcomes(&o);
}

static void sixteen_bits_do_so_on_a_window_of_text(void **state) {
    const struct fixture *f = *state;
    struct outcomes o = replay_specs_as(
        (struct kv_replay){.trace = f->text.trace, .model = f->model, .seed = 1}, specs, 3, 1);
    const struct kv_trace_item *it = kv_trace_item(f->text.trace, 0);
    assert_int_equal(0, o.at[0].n_choices);
    assert_int_equal(it->n_tokens - 1, o.at[0].n_scored);
    same_bits(it->score[0], o.at[0].choice[0].logprob);
    same_bits(0, o.at[0].kl_nats);
    assert_true(isnan(o.at[0].margin));
    assert_int_equal(-1, o.at[0].pick[KV_ACC]);
    assert_true(o.at[1].kl_nats > 0 && o.at[1].kl_nats < 1e-4); // float32 beside fp16
    assert_true(o.at[2].kl_nats > 1e-3);
    free_outcomes(&o);
}

static void sixteen_bits_stay_within_rounding_in_the_prefill_modes(void **state) {
    const struct fixture *f = *state;
    for (enum kv_mode mode = KV_PREFILL; mode <= KV_PREFILL1; mode++) {
        struct outcomes o = replay_specs_as(
            (struct kv_replay){.trace = f->part.trace, .model = f->model, .mode = mode, .seed = 1},
            specs, 1, 2);
        for (size_t i = 0; i < o.n_items; i++)
            for (uint32_t c = 0; c < 4; c++) {
                // Products of other shapes: last bits differ, and fp16 roundings flip with them.
                double off = o.at[i].choice[c].logprob - o.at[i].choice[c].logprob_ref;
                if (fabs(off) > 0.05 || o.at[i].kl_nats > 1e-5)
                    fail_msg("%.6f, KL %.3g nats", off, o.at[i].kl_nats);
            }
        free_outcomes(&o);
    }
}

// ---- an outcome depends on its item and spec alone ------------------------------------

static void an_outcome_is_the_same_whatever_runs_beside_it(void **state) {
    const struct fixture *f = *state;
    struct outcomes base = run(f, (struct kv_replay){0}, 2);
    struct outcomes alone = run(f, (struct kv_replay){0}, 1);
    for (size_t i = 0; i < base.n_items * N_SPECS; i++) same_outcome(&base.at[i], &alone.at[i]);
    free_outcomes(&alone);

    // A part of the trace, in a replay and in a trace of its own.
    struct outcomes range = run(f, (struct kv_replay){.first_item = 2, .n_items = 1}, 2);
    for (size_t j = 0; j < N_SPECS; j++)
        same_outcome(&base.at[2 * N_SPECS + j], &range.at[2 * N_SPECS + j]);
    assert_null(range.at[0].choice); // others were not run
    free_outcomes(&range);
    struct outcomes part = run(f, (struct kv_replay){.trace = f->part.trace}, 2);
    for (size_t i = 0; i < part.n_items; i++)
        for (size_t j = 0; j < N_SPECS; j++)
            same_outcome(&base.at[part_in_all[i] * N_SPECS + j], &part.at[i * N_SPECS + j]);
    free_outcomes(&part);

    // Specs in another order, and each by itself.
    const char *backwards[N_SPECS];
    for (size_t j = 0; j < N_SPECS; j++) backwards[j] = specs[N_SPECS - 1 - j];
    struct kv_replay job = {.trace = f->part.trace, .model = f->model, .seed = 1};
    struct outcomes turned = replay_specs_as(job, backwards, N_SPECS, 2);
    for (size_t i = 0; i < turned.n_items; i++)
        for (size_t j = 0; j < N_SPECS; j++)
            same_outcome(&base.at[part_in_all[i] * N_SPECS + N_SPECS - 1 - j],
                         &turned.at[i * N_SPECS + j]);
    free_outcomes(&turned);
    job.n_items = 1;
    for (size_t j = 0; j < N_SPECS; j++) {
        struct outcomes one = replay_specs_as(job, specs + j, 1, 1);
        same_outcome(&base.at[part_in_all[0] * N_SPECS + j], &one.at[0]);
        free_outcomes(&one);
    }
    free_outcomes(&base);
}

static bool only_some(void *self, size_t item, size_t spec) {
    (void)self;
    return (item + spec) % 2 == 0;
}

static void an_interrupted_sweep_goes_on_to_the_same_outcomes(void **state) {
    const struct fixture *f = *state;
    struct outcomes base = run(f, (struct kv_replay){.trace = f->part.trace}, 2);
    struct outcomes some =
        run(f, (struct kv_replay){.trace = f->part.trace, .wanted = only_some}, 2);
    for (size_t i = 0; i < base.n_items; i++)
        for (size_t j = 0; j < N_SPECS; j++) {
            const struct kv_outcome *one = &some.at[i * N_SPECS + j];
            if (only_some(NULL, i, j))
                same_outcome(&base.at[i * N_SPECS + j], one);
            else
                assert_null(one->choice);
        }
    free_outcomes(&some);
    free_outcomes(&base);
}

// ---- modes, windows, seeds ------------------------------------------------------------

// An item whose choices are one token each: all that is scored is the branch point.
static const char short_choices[] =
    "{\"ind\": 0, \"activity_label\": \"Cooking\", \"ctx_a\": \"She puts the pot on the stove and "
    "waits until the water\", \"ctx_b\": \"\", \"ctx\": \"She puts the pot on the stove and waits "
    "until the water\", \"endings\": [\"is\", \"on\", \"the\", \"a\"], \"label\": 0}\n";

static void prefill1_scores_the_first_choice_token_from_exact_logits(void **state) {
    const struct fixture *f = *state;
    const char *const coarse[] = {"static:bits=2@sym"};
    char file[] = "/tmp/kvsim-test-XXXXXX";
    struct recording r;
    int fd = mkstemp(file);
    assert_int_equal(sizeof short_choices - 1, write(fd, short_choices, sizeof short_choices - 1));
    close(fd);
    char *tasks = kv_format_text("hellaswag:%s", file);
    record_items(&r, f->model, tasks, "0\n", KV_KEEP_FINAL);
    const struct kv_trace_item *it = kv_trace_item(r.trace, 0);
    assert_int_equal(it->n_context + 4, it->n_tokens);
    struct kv_replay job = {.trace = r.trace, .model = f->model, .seed = 1, .mode = KV_PREFILL1};
    struct outcomes first = replay_specs_as(job, coarse, 1, 1);
    job.mode = KV_PREFILL;
    struct outcomes fed = replay_specs_as(job, coarse, 1, 1);
    job.mode = KV_INLINE;
    struct outcomes in = replay_specs_as(job, coarse, 1, 1);
    same_bits(0, first.at[0].kl_nats);
    for (uint32_t c = 0; c < 4; c++) same_bits(it->score[c], first.at[0].choice[c].logprob);
    assert_true(fed.at[0].kl_nats > 1e-4); // the last context token reads a cache of 2 bits
    assert_true(in.at[0].kl_nats > 1e-4 && in.at[0].kl_nats != fed.at[0].kl_nats);
    free_outcomes(&first);
    free_outcomes(&fed);
    free_outcomes(&in);
    remove_recording(&r);
    free(tasks);
    unlink(file);
}

static void a_window_as_long_as_the_item_is_sixteen_bits(void **state) {
    const struct fixture *f = *state;
    const char *const windows[] = {"static:bits=2@sym:window=512", "static:bits=2@sym:sinks=512",
                                   "static:bits=2@sym:window=8"};
    struct outcomes o = replay_specs_as(
        (struct kv_replay){.trace = f->part.trace, .model = f->model, .seed = 1}, windows, 3, 2);
    for (size_t i = 0; i < o.n_items; i++) {
        const struct kv_outcome *whole = &o.at[i * 3], *some = &o.at[i * 3 + 2];
        for (int w = 0; w < 2; w++) {
            same_bits(0, whole[w].kl_nats);
            assert_true(whole[w].ledger.allocated_bits == 16);
        }
        const struct kv_trace_item *it = kv_trace_item(f->part.trace, i);
        double want = 0; // 8 tokens at 16 bits, the rest at 2 bits and a scale of 16 bits in 64
        for (uint32_t c = 0; c < 4; c++) {
            double n = it->n_context + it->first[c + 1] - it->first[c];
            want += (8 * 16 + (n - 8) * 2.25) / n / 4;
        }
        assert_true(fabs(some->ledger.effective_bits - want) < 1e-12);
    }
    free_outcomes(&o);
}

static void an_own_step_read_exact_changes_outcomes_but_not_bits_stored(void **state) {
    const struct fixture *f = *state;
    struct kv_replay job = {.trace = f->part.trace, .model = f->model, .seed = 1};
    struct outcomes coded = replay_specs_as(job, specs, 3, 2);
    job.self_exact = true;
    struct outcomes exact = replay_specs_as(job, specs, 3, 2);
    for (size_t i = 0; i < coded.n_items; i++) {
        same_outcome(&coded.at[i * 3], &exact.at[i * 3]); // 16 bits: the same
        const struct kv_outcome *a = &coded.at[i * 3 + 2], *b = &exact.at[i * 3 + 2];
        assert_true(a->kl_nats != b->kl_nats && b->kl_nats > 0);
        struct kv_ledger la = a->ledger, lb = b->ledger;
        assert_true(la.entropy_bits > 0 && lb.entropy_bits > 0);
        la.entropy_bits = lb.entropy_bits = 0; // of the codes themselves, which differ
        assert_memory_equal(&la, &lb, sizeof la);
    }
    free_outcomes(&coded);
    free_outcomes(&exact);
}

static void random_draws_follow_the_seed(void **state) {
    const struct fixture *f = *state;
    const char *const drawn[] = {"random:bits=2/4/8/16@sym", "random:bits=2/4/8/16,seed=1@sym"};
    struct kv_replay job = {.trace = f->part.trace, .model = f->model, .seed = 1, .n_items = 1};
    struct outcomes one = replay_specs_as(job, drawn, 2, 2),
                    again = replay_specs_as(job, drawn, 2, 1);
    job.seed = 2;
    struct outcomes other = replay_specs_as(job, drawn, 2, 2);
    for (size_t i = 0; i < 2; i++) {
        same_outcome(&one.at[i], &again.at[i]);
        assert_true(one.at[i].kl_nats != other.at[i].kl_nats);
    }
    assert_true(one.at[0].kl_nats != one.at[1].kl_nats);
    free_outcomes(&one);
    free_outcomes(&again);
    free_outcomes(&other);
}

static void redraws_disturb_and_repeat(void **state) {
    const struct fixture *f = *state;
    struct kv_replay job = {
        .trace = f->part.trace, .model = f->model, .seed = 1, .redraw = 1, .n_items = 1};
    struct outcomes a = replay_specs_as(job, specs, 3, 2), b = replay_specs_as(job, specs, 3, 1);
    for (size_t j = 0; j < 3; j++) same_outcome(&a.at[j], &b.at[j]);
    assert_true(a.at[0].kl_nats > 0 && a.at[0].kl_nats < 1e-6); // 1e-6 on the embeddings
    free_outcomes(&a);
    free_outcomes(&b);
}

// ---- refusals -------------------------------------------------------------------------

static void another_model_and_modes_that_cannot_be_are_refused(void **state) {
    const struct fixture *f = *state;
    struct kv_error e;
    struct kv_model other = *f->model;
    snprintf(other.digest, sizeof other.digest, "0123456789abcdef");
    struct kv_replay job = {.trace = f->all.trace, .model = &other, .n_items = 1};
    assert_int_equal(KV_EFAIL, kv_replay_exact(&job, 1, &e));
    assert_non_null(strstr(e.msg, "was recorded from"));
    assert_non_null(strstr(e.msg, "0123456789abcdef"));
    job = (struct kv_replay){
        .trace = f->text.trace, .model = f->model, .n_items = 1, .mode = KV_PREFILL};
    assert_int_equal(KV_EUSAGE, kv_replay_exact(&job, 1, &e));
    assert_string_equal("windows of text have no decode step: mode prefill does not apply", e.msg);
}

// ---- the ledger by hand ---------------------------------------------------------------

// One layer, 1 KV head of 64: 128 values a token. Two context tokens; choices of 1 and 3.
static void count(const char *text, struct kv_ledger *ledger) {
    static const uint32_t first[] = {2, 3, 6};
    const struct kv_format_setting setting = {.shape = {1, 1, 1, 64, 64, 64, 64, 64},
                                              .order = KV_ORDER_GGML};
    const struct kv_trace_item item = {
        .id = "hand", .n_tokens = 6, .n_context = 2, .n_choices = 2, .first = first};
    struct kv_token tokens[6] = {0};
    struct kv_replay_spec spec;
    struct kv_error e;
    uint8_t cells[6 * 2];
    must(kv_replay_spec_open(&spec, text, &setting, 1, &e), &e);
    const struct kv_item view = {.struct_bytes = sizeof view,
                                 .run = &spec.run,
                                 .n_tokens = 6,
                                 .n_context = 2,
                                 .n_choices = 2,
                                 .tokens = tokens};
    must(kv_ask(spec.policy, spec.self, &view, cells, &e), &e);
    kv_ledger_count(&spec, &item, cells, ledger);
    kv_replay_spec_close(&spec);
}

static void near(double want, double x) {
    if (!(fabs(want - x) < 1e-12)) fail_msg("%.9f is wanted, not %.9f", want, x);
}

static void the_ledger_counts_codes_scales_and_minima(void **state) {
    struct kv_ledger l;
    (void)state;
    count("static:bits=4@sym", &l); // a vector of 64: 64 codes of 4 bits and a scale of 16
    near(4, l.nominal_bits);
    near(4 + 16.0 / 64, l.effective_bits);
    near(4.25, l.allocated_bits); // 34 bytes: nothing is padded
    near(2 * 34, l.bytes_per_token);
    near(1, l.share[KV_KEY][4]);
    near(1, l.share[KV_VALUE][4]);
    count("static:bits=4@asym:group=32", &l); // a scale and a minimum of 16 bits each in 32
    near(4, l.nominal_bits);
    near(4 + 32.0 / 32, l.effective_bits);
    near(5, l.allocated_bits);
    near(2 * 40, l.bytes_per_token);
    count("static:k=8,v=4@sym", &l);
    near(6, l.nominal_bits);
    near(6.25, l.effective_bits);
    near(1, l.share[KV_KEY][8]);
    near(1, l.share[KV_VALUE][4]);
    count("static:bits=16@sym", &l);
    near(16, l.nominal_bits);
    near(16, l.allocated_bits);
    near(256, l.bytes_per_token);
    count("static@q8_0", &l); // blocks of 32: 34 bytes
    near(8, l.nominal_bits);
    near(8.5, l.allocated_bits);
    count("none", &l);
    near(32, l.allocated_bits);
    near(1, l.share[KV_KEY][17]);
}

static void a_window_is_counted_at_the_end_of_each_sequence(void **state) {
    struct kv_ledger l;
    (void)state;
    // Sequences of 3 and 5 tokens whose newest 2 are exact: (2 x 16 + 1 x 4.25) / 3 and
    // (2 x 16 + 3 x 4.25) / 5.
    count("static:bits=4@sym:window=2", &l);
    near((36.25 / 3 + 44.75 / 5) / 2, l.allocated_bits);
    near((2.0 / 3 + 2.0 / 5) / 2, l.share[KV_KEY][16]);
    count("static:bits=4@sym:sinks=1", &l);
    near(((16 + 2 * 4.25) / 3 + (16 + 4 * 4.25) / 5) / 2, l.allocated_bits);
}

static void tags_are_paid_where_widths_differ_between_tokens(void **state) {
    struct kv_ledger l, drawn;
    (void)state;
    // Four widths: 2 bits a token, so 6 and 10 bits, stored as 1 and 2 bytes of 8 bits.
    count("random:bits=2/4/8/16@sym", &drawn);
    double codes = drawn.effective_bits, tags = (8.0 / (3 * 128) + 16.0 / (5 * 128)) / 2;
    near(codes + tags, drawn.allocated_bits);
    // One width needs none; two need 1 bit: 3 and 5 bits, a byte each.
    count("random:bits=4@sym", &l);
    near(4.25, l.allocated_bits);
    count("random:bits=4/8,shares=1/0@sym", &l);
    near(4.25 + (8.0 / (3 * 128) + 8.0 / (5 * 128)) / 2, l.allocated_bits);
}

// ---- fixture --------------------------------------------------------------------------

static int set_up(void **state) {
    static struct fixture f;
    *state = &f;
    f.model = open_test_model();
    record_items(&f.all, f.model, "samples", three, KV_KEEP_FINAL);
    record_items(&f.part, f.model, "samples", two, KV_KEEP_FINAL | KV_KEEP_KV);
    record_items(&f.text, f.model, "text:traces/samples/text.txt,window=64", "0\n", KV_KEEP_FINAL);
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    remove_recording(&f->all);
    remove_recording(&f->part);
    remove_recording(&f->text);
    kv_model_close(f->model);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixteen_bits_replay_to_the_recorded_scores_with_no_divergence),
        cmocka_unit_test(sixteen_bits_do_so_on_a_window_of_text),
        cmocka_unit_test(sixteen_bits_stay_within_rounding_in_the_prefill_modes),
        cmocka_unit_test(an_outcome_is_the_same_whatever_runs_beside_it),
        cmocka_unit_test(an_interrupted_sweep_goes_on_to_the_same_outcomes),
        cmocka_unit_test(prefill1_scores_the_first_choice_token_from_exact_logits),
        cmocka_unit_test(a_window_as_long_as_the_item_is_sixteen_bits),
        cmocka_unit_test(an_own_step_read_exact_changes_outcomes_but_not_bits_stored),
        cmocka_unit_test(random_draws_follow_the_seed),
        cmocka_unit_test(redraws_disturb_and_repeat),
        cmocka_unit_test(another_model_and_modes_that_cannot_be_are_refused),
        cmocka_unit_test(the_ledger_counts_codes_scales_and_minima),
        cmocka_unit_test(a_window_is_counted_at_the_end_of_each_sequence),
        cmocka_unit_test(tags_are_paid_where_widths_differ_between_tokens),
    };
    return cmocka_run_group_tests_name("exact replay", tests, set_up, tear_down);
}
