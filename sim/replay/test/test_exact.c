// SPDX-License-Identifier: Apache-2.0
// Exact replay of the real model on a few items: what must be equal is compared bit for bit.
#include "sim/replay/test/real_model.h"

// Three samples, two of them recorded again as a subset, and two questions of a few tokens.
static struct fixture {
    struct kv_model *m;
    char *dir;
    struct kv_trace *samples, *subset, *tiny;
} fx;

// Contexts of one token and of a few; choices of one token, which leave nothing but the branch
// point to score.
static const char tiny_questions[] =
    "{\"id\": \"1-1\", \"question\": {\"stem\": \"water\", \"choices\": [{\"text\": \"falls\", "
    "\"label\": \"A\"}, {\"text\": \"burns\", \"label\": \"B\"}]}, \"answerKey\": \"A\"}\n"
    "{\"id\": \"1-2\", \"question\": {\"stem\": \"a cat likes to drink cold\", \"choices\": "
    "[{\"text\": \"milk\", \"label\": \"A\"}, {\"text\": \"stone\", \"label\": \"B\"}]}, "
    "\"answerKey\": \"A\"}\n";

static int set_up(void **state) {
    (void)state;
    kv_set_verbosity(-1);
    fx.m = real_model_open();
    if (!fx.m) return 0;
    fx.dir = scratch_dir();
    write_text(fx.dir, "tiny.jsonl", tiny_questions);
    char *ids = kv_format_text("%s/ids", fx.dir), *tiny = kv_format_text("%s/tiny.jsonl", fx.dir);
    fx.samples =
        record_to(fx.m, "samples", fx.dir, "three", (struct kv_record_options){.n = 3, .seed = 8});
    struct kv_text list = {0}; // the subset: the first and the last of the three
    kv_text_addf(&list, "%s\n%s\n", kv_trace_item(fx.samples, 0)->id,
                 kv_trace_item(fx.samples, 2)->id);
    write_text(fx.dir, "ids", list.s);
    fx.subset = record_to(fx.m, "samples", fx.dir, "two",
                          (struct kv_record_options){.ids_file = ids, .jobs = 1});
    fx.tiny = record_to(fx.m, tiny, fx.dir, "tiny", (struct kv_record_options){0});
    free(kv_text_take(&list));
    free(ids);
    free(tiny);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    kv_trace_close(fx.samples);
    kv_trace_close(fx.subset);
    kv_trace_close(fx.tiny);
    if (fx.dir) remove_dir(fx.dir);
    free(fx.dir);
    kv_model_close(fx.m);
    return 0;
}

#define NEED_MODEL()                                                                               \
    do {                                                                                           \
        (void)state;                                                                               \
        if (!fx.m) skip();                                                                         \
    } while (0)

static void assert_same_bits(double a, double b) {
    if (memcmp(&a, &b, sizeof a) != 0) fail_msg("%.17g is not %.17g", a, b);
}

static void assert_same_outcome(const struct kv_outcome *a, const struct kv_outcome *b) {
    assert_non_null(a->choice);
    assert_non_null(b->choice);
    assert_int_equal(a->n_choices, b->n_choices);
    assert_int_equal(a->gold, b->gold);
    assert_int_equal(a->n_scored, b->n_scored);
    assert_memory_equal(a->pick, b->pick, sizeof a->pick);
    assert_memory_equal(a->pick_ref, b->pick_ref, sizeof a->pick_ref);
    assert_memory_equal(&a->ledger, &b->ledger, sizeof a->ledger);
    assert_same_bits(a->margin, b->margin);
    assert_same_bits(a->kl_nats, b->kl_nats);
    for (uint32_t c = 0; c < (a->n_choices ? a->n_choices : 1); c++) {
        const struct kv_choice_outcome *x = &a->choice[c], *y = &b->choice[c];
        assert_same_bits(x->logprob, y->logprob);
        assert_same_bits(x->logprob_ref, y->logprob_ref);
        assert_same_bits(x->kl_nats, y->kl_nats);
        assert_same_bits(x->logprob_after_prefix, y->logprob_after_prefix);
        assert_int_equal(x->tokens, y->tokens);
        assert_int_equal(x->chars, y->chars);
        assert_int_equal(x->bytes, y->bytes);
    }
}

static void assert_is_the_recorded_run(const struct outcomes *all, const struct kv_trace *t) {
    for (size_t s = 0; s < all->n_specs; s++)
        for (size_t i = 0; i < all->n_items; i++) {
            const struct kv_outcome *o = outcome_of(all, s, i);
            const struct kv_trace_item *it = kv_trace_item(t, i);
            assert_same_bits(o->kl_nats, 0);
            for (uint32_t c = 0; c < (o->n_choices ? o->n_choices : 1); c++) {
                assert_same_bits(o->choice[c].kl_nats, 0);
                assert_same_bits(o->choice[c].logprob, it->score[c]);
                assert_same_bits(o->choice[c].logprob_ref, it->score[c]);
            }
        }
}

// ---- the recorded run comes back
// -----------------------------------------------------------------

static void test_sixteen_bits(void **state) {
    NEED_MODEL();
    const char *const *specs = SPECS("static:bits=16", "static:bits=16@asym:group=32");
    struct outcomes *all = replay_texts(fx.m, fx.samples, specs, 2, (struct kv_replay){0});
    assert_is_the_recorded_run(all, fx.samples);
    outcomes_free(all);
    // Everything inside the window or the sinks is held exact.
    specs = SPECS("static:bits=2@sym:window=4096", "static:bits=2@sym:sinks=4096");
    all = replay_texts(fx.m, fx.tiny, specs, 1, (struct kv_replay){0});
    assert_is_the_recorded_run(all, fx.tiny);
    assert_same_bits(outcome_of(all, 0, 1)->ledger.allocated_bits, 16);
    assert_same_bits(outcome_of(all, 1, 1)->ledger.allocated_bits, 16);
    outcomes_free(all);
}

static void test_text_windows(void **state) {
    NEED_MODEL();
    struct kv_trace *text = record_to(fx.m, "text:traces/samples/text.txt,window=64", fx.dir,
                                      "text", (struct kv_record_options){.n = 1, .seed = 3});
    struct outcomes *all = replay_texts(fx.m, text, SPECS("static:bits=16", "static:bits=4"), 1,
                                        (struct kv_replay){0});
    const struct kv_outcome *exact = outcome_of(all, 0, 0), *coded = outcome_of(all, 1, 0);
    assert_same_bits(exact->kl_nats, 0);
    assert_same_bits(exact->choice[0].logprob, kv_trace_item(text, 0)->score[0]);
    assert_int_equal(exact->n_scored, 63);
    assert_int_equal(exact->pick[KV_ACC], -1);
    assert_true(isnan(exact->margin));
    assert_true(coded->kl_nats > 1e-4);
    outcomes_free(all);
    struct kv_error e = {0};
    struct kv_replay prefill = {.trace = text, .model = fx.m, .mode = KV_PREFILL, .n_items = 1};
    assert_int_equal(kv_replay_exact(&prefill, 1, &e), KV_EUSAGE);
    assert_string_equal(e.msg, "windows of text have no decode step: mode prefill does not apply");
    kv_trace_close(text);
}

static void test_float32(void **state) {
    NEED_MODEL();
    struct outcomes *all = replay_texts(fx.m, fx.samples, SPECS("none"), 2, (struct kv_replay){0});
    for (size_t i = 0; i < all->n_items; i++) {
        const struct kv_outcome *o = outcome_of(all, 0, i);
        // fp16 keeps 11 bits: the divergence is of the order of 2^-22, but not nothing.
        assert_true(o->kl_nats > 0 && o->kl_nats < 1e-4);
        for (uint32_t c = 0; c < o->n_choices; c++)
            assert_true(fabs(o->choice[c].logprob - o->choice[c].logprob_ref) < 0.05);
        assert_same_bits(o->ledger.allocated_bits, 32);
        assert_true(o->ledger.share[KV_KEY][17] == 1 && o->ledger.share[KV_VALUE][17] == 1);
    }
    outcomes_free(all);
}

// ---- an item's outcome depends on nothing else
// ---------------------------------------------------

static void test_order_of_work(void **state) {
    NEED_MODEL();
    const char *a = "static:bits=4", *b = "random:by=cell", *c = "static:k=8,v=3@asym:group=32";
    struct kv_replay how = {.seed = 7};
    struct outcomes *all = replay_texts(fx.m, fx.samples, SPECS(a, b, c), 1, how);
    struct outcomes *permuted = replay_texts(fx.m, fx.samples, SPECS(c, a, b), 2, how);
    for (size_t s = 0; s < 3; s++)
        for (size_t i = 0; i < 3; i++)
            assert_same_outcome(outcome_of(all, s, i), outcome_of(permuted, (s + 1) % 3, i));
    struct outcomes *alone =
        replay_texts(fx.m, fx.samples, SPECS(b), 1, (struct kv_replay){.seed = 7, .first_item = 2});
    assert_null(outcome_of(alone, 0, 1)->choice); // not asked for
    assert_same_outcome(outcome_of(all, 1, 2), outcome_of(alone, 0, 2));
    struct outcomes *subset = replay_texts(fx.m, fx.subset, SPECS(a, b), 2, how);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(kv_trace_item(fx.subset, i)->key, kv_trace_item(fx.samples, 2 * i)->key);
        for (size_t s = 0; s < 2; s++)
            assert_same_outcome(outcome_of(all, s, 2 * i), outcome_of(subset, s, i));
    }
    outcomes_free(all);
    outcomes_free(permuted);
    outcomes_free(alone);
    outcomes_free(subset);
}

static void test_subset_records_the_same(void **state) {
    NEED_MODEL();
    for (size_t i = 0; i < 2; i++) {
        const struct kv_trace_item *a = kv_trace_item(fx.samples, 2 * i),
                                   *b = kv_trace_item(fx.subset, i);
        assert_string_equal(a->id, b->id);
        assert_int_equal(a->n_tokens, b->n_tokens);
        assert_memory_equal(a->features, b->features,
                            a->n_tokens * KV_N_FEATURES * sizeof *a->features);
        assert_memory_equal(a->next_logprob, b->next_logprob,
                            a->n_tokens * sizeof *a->next_logprob);
        assert_memory_equal(a->score, b->score, a->n_choices * sizeof *a->score);
        assert_memory_equal(a->final, b->final,
                            (size_t)a->n_final * fx.m->shape.hidden * sizeof *a->final);
    }
}

static void test_seeds_and_redraws(void **state) {
    NEED_MODEL();
    const char *const *specs = SPECS("random", "static:bits=4", "none");
    struct outcomes *one = replay_texts(fx.m, fx.tiny, specs, 1, (struct kv_replay){.seed = 1});
    struct outcomes *two = replay_texts(fx.m, fx.tiny, specs, 1, (struct kv_replay){.seed = 2});
    struct outcomes *redraw =
        replay_texts(fx.m, fx.tiny, specs, 1, (struct kv_replay){.seed = 1, .redraw = 1});
    struct outcomes *again =
        replay_texts(fx.m, fx.tiny, specs, 2, (struct kv_replay){.seed = 1, .redraw = 1});
    const struct kv_outcome *r1 = outcome_of(one, 0, 1), *r2 = outcome_of(two, 0, 1);
    assert_true(r1->choice[0].logprob != r2->choice[0].logprob);
    assert_same_outcome(outcome_of(one, 1, 1), outcome_of(two, 1, 1)); // static draws nothing
    // A redraw disturbs the embeddings by 1e-6: another figure, repeatable, and for float32 a near
    // one.
    for (size_t s = 0; s < 3; s++)
        assert_same_outcome(outcome_of(redraw, s, 1), outcome_of(again, s, 1));
    assert_true(outcome_of(redraw, 1, 1)->kl_nats != outcome_of(one, 1, 1)->kl_nats);
    double before = outcome_of(one, 2, 1)->choice[0].logprob,
           after = outcome_of(redraw, 2, 1)->choice[0].logprob;
    assert_true(before != after && fabs(before - after) < 1e-3);
    outcomes_free(one);
    outcomes_free(two);
    outcomes_free(redraw);
    outcomes_free(again);
}

// ---- when a coded value is read
// ------------------------------------------------------------------

static void test_modes(void **state) {
    NEED_MODEL();
    const char *const *specs = SPECS("static:bits=3", "static:bits=16");
    struct outcomes *in = replay_texts(fx.m, fx.tiny, specs, 1, (struct kv_replay){0});
    struct outcomes *pre =
        replay_texts(fx.m, fx.tiny, specs, 1, (struct kv_replay){.mode = KV_PREFILL});
    struct outcomes *pre1 =
        replay_texts(fx.m, fx.tiny, specs, 1, (struct kv_replay){.mode = KV_PREFILL1});
    for (size_t i = 0; i < 2; i++) {
        const struct kv_trace_item *it = kv_trace_item(fx.tiny, i);
        assert_int_equal(it->n_final, 1); // only the branch point is scored
        // prefill1: the first choice token is scored from exact logits, and there is no other.
        const struct kv_outcome *o = outcome_of(pre1, 0, i);
        assert_same_bits(o->kl_nats, 0);
        for (uint32_t c = 0; c < 2; c++) assert_same_bits(o->choice[c].logprob, it->score[c]);
        assert_true(outcome_of(in, 0, i)->kl_nats > 1e-5);
        assert_true(outcome_of(pre, 0, i)->kl_nats > 1e-5);
        // Other shapes of the products: other last bits, which fp16 rounding carries on.
        assert_true(outcome_of(pre, 1, i)->kl_nats < 1e-5);
        assert_memory_equal(&outcome_of(in, 0, i)->ledger, &outcome_of(pre, 0, i)->ledger,
                            sizeof(struct kv_ledger));
    }
    // The prompt of two tokens or more attends exactly in prefill and coded in inline.
    assert_true(outcome_of(in, 0, 1)->kl_nats != outcome_of(pre, 0, 1)->kl_nats);
    outcomes_free(in);
    outcomes_free(pre);
    outcomes_free(pre1);
}

static void test_later_choice_tokens(void **state) {
    NEED_MODEL();
    struct outcomes *all =
        replay_texts(fx.m, fx.samples, SPECS("static:bits=3"), 1,
                     (struct kv_replay){.mode = KV_PREFILL1, .first_item = 1, .n_items = 1});
    assert_true(outcome_of(all, 0, 1)->kl_nats > 1e-4); // tokens after the first read coded values
    outcomes_free(all);
}

static void test_own_step(void **state) {
    NEED_MODEL();
    const char *const *specs = SPECS("static:bits=3", "static:bits=3@sym:window=1");
    struct outcomes *coded = replay_texts(fx.m, fx.tiny, specs, 1, (struct kv_replay){0});
    struct outcomes *exact =
        replay_texts(fx.m, fx.tiny, specs, 1, (struct kv_replay){.self_exact = true});
    assert_int_equal(kv_trace_item(fx.tiny, 0)->n_context, 1);
    // A context of one token reads nothing but itself.
    assert_same_bits(outcome_of(exact, 0, 0)->kl_nats, 0);
    assert_true(outcome_of(coded, 0, 0)->kl_nats > 1e-5);
    // A window of one token is the own step read exact; its bits are counted, the own step's not.
    for (size_t i = 0; i < 2; i++) {
        assert_same_bits(outcome_of(exact, 0, i)->kl_nats, outcome_of(coded, 1, i)->kl_nats);
        assert_same_bits(outcome_of(exact, 0, i)->ledger.nominal_bits, 3);
        assert_true(outcome_of(coded, 1, i)->ledger.nominal_bits > 3);
    }
    outcomes_free(coded);
    outcomes_free(exact);
}

// ---- refusals
// ------------------------------------------------------------------------------------

static void test_other_model(void **state) {
    NEED_MODEL();
    struct kv_error e = {0};
    struct kv_model other = *fx.m;
    memcpy(other.digest, "0123456789abcdef", 17);
    struct kv_replay r = {.trace = fx.tiny, .model = &other, .n_items = 2};
    assert_int_equal(kv_replay_exact(&r, 1, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "was recorded from "));
    assert_non_null(strstr(e.msg, "(digest 0123456789abcdef)"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"16 bits, and windows that hold everything, replay to the recorded scores bit for bit "
         "with a divergence of exactly 0",
         test_sixteen_bits, NULL, NULL, NULL},
        {"a window of text is judged at every token, and has no prefill mode", test_text_windows,
         NULL, NULL, NULL},
        {"float32 diverges from fp16 by rounding alone", test_float32, NULL, NULL, NULL},
        {"an item's outcome is bitwise the same whatever jobs, order of specs, range or subset",
         test_order_of_work, NULL, NULL, NULL},
        {"an item recorded in a subset is the item recorded in another, bit for bit",
         test_subset_records_the_same, NULL, NULL, NULL},
        {"seeds move random policies only; redraws are another draw, repeatable",
         test_seeds_and_redraws, NULL, NULL, NULL},
        {"prefill1 scores the first choice token exactly; prefill and inline do not", test_modes,
         NULL, NULL, NULL},
        {"in prefill1 the tokens after the first read the coded cache", test_later_choice_tokens,
         NULL, NULL, NULL},
        {"self=exact lets a token read its own key and value exact", test_own_step, NULL, NULL,
         NULL},
        {"a trace of another model is refused with both digests", test_other_model, NULL, NULL,
         NULL},
    };
    return cmocka_run_group_tests_name("exact replay", tests, set_up, tear_down);
}
