// SPDX-License-Identifier: Apache-2.0
// The oracle and its null: least in its own objective, never beyond its budget, equal bits
// shuffled.
#include "policies/test/fake_item.h"

static double objective(const struct kv_replay_spec *spec, const struct fake *f, bool by_error) {
    size_t cells = kv_cells(&spec->run.shape);
    double sum = 0;
    for (size_t t = 0; t < f->item.n_tokens; t++)
        for (size_t c = 0; c < cells; c++) {
            size_t at = (t * spec->run.n_widths + f->cells[t * cells + c]) * cells + c;
            sum += by_error ? (double)f->item.error[at] *
                                  (double)f->item.tokens[t].feature[KV_ATTN_FUTURE]
                            : (double)f->item.damage[at];
        }
    return sum;
}

static void no_random_allocation_of_equal_bits_beats_the_oracle(void **state) {
    static const char *const specs[] = {"oracle:bits=4.3", "oracle:bits=3.5,by=error",
                                        "oracle:bits=5,grain=token,kv=joint",
                                        "oracle:bits=3.3,grain=token-layer,widths=2/4/8",
                                        "oracle:bits=6,grain=cell,kv=joint,count=nominal"};
    (void)state;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct kv_replay_spec spec = fake_spec(specs[i]);
        bool by_error = i == 1;
        for (uint64_t seed = 0; seed < 4; seed++) {
            struct fake *f = fake_new(&spec.run, 20, 3, 4, seed);
            fake_ask(&spec, f);
            double best = objective(&spec, f, by_error), bits = fake_allocated(&spec, f);
            for (int draw = 0; draw < 60; draw++) {
                char text[128];
                snprintf(text, sizeof text, "shuffle(%s):seed=%d,within=%s", specs[i], draw,
                         i == 2 || i == 4 ? "item"
                         : i == 3         ? "layer"
                                          : "all");
                struct kv_replay_spec other = fake_spec(text);
                fake_ask(&other, f);
                // The ledger counts a token's tags whether it is shuffled or not.
                assert_true(fabs(fake_allocated(&other, f) - bits) < 0.2);
                assert_true(objective(&other, f, by_error) >= best);
                kv_replay_spec_close(&other);
            }
            fake_free(f);
        }
        kv_replay_spec_close(&spec);
    }
}

static void the_oracle_never_exceeds_its_budget(void **state) {
    static const char *const grains[] = {"token", "token-layer", "cell"};
    (void)state;
    for (double bits = 2.6; bits < 14; bits += 0.7)
        for (size_t g = 0; g < 3; g++)
            for (int apart = 0; apart < 2; apart++) {
                char text[96];
                snprintf(text, sizeof text, "oracle:bits=%g,grain=%s,kv=%s", bits, grains[g],
                         apart ? "apart" : "joint");
                struct kv_replay_spec spec = fake_spec(text);
                // Choices of unequal length weigh differently in the mean over sequences.
                struct fake *f = fake_new(&spec.run, 17, 4, 5, g + 10);
                f->item.n_tokens -= 3;
                fake_ask(&spec, f);
                double used = fake_allocated(&spec, f);
                assert_true(used <= bits + 1e-9);
                assert_true(used > bits - 1.0); // and wastes little of it
                fake_free(f);
                kv_replay_spec_close(&spec);
            }
}

static void a_budget_below_the_narrowest_width_is_refused_in_a_sentence(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("oracle:bits=2");
    struct fake *f = fake_new(&spec.run, 6, 0, 0, 1);
    struct kv_error e = {0};
    assert_int_equal(kv_ask(spec.policy, spec.self, &f->item, f->cells, &e), KV_EUSAGE);
    assert_non_null(strstr(e.msg, "the narrowest widths take"));
    fake_free(f);
    kv_replay_spec_close(&spec);
}

static void an_oracle_needs_only_what_its_objective_reads(void **state) {
    (void)state;
    struct kv_replay_spec loss = fake_spec("oracle:bits=4"),
                          error = fake_spec("oracle:bits=4,by=error");
    assert_int_equal(loss.needs, KV_NEED_DAMAGE);
    assert_int_equal(error.needs, KV_NEED_ERROR | KV_NEED(KV_ATTN_FUTURE));
    kv_replay_spec_close(&loss);
    kv_replay_spec_close(&error);
}

static void rounds_are_for_damage_alone_and_one_is_the_default(void **state) {
    (void)state;
    struct kv_error e = {0};
    char *text;
    struct kv_replay_spec once = fake_spec("oracle:bits=4"),
                          wrapped = fake_spec("shuffle(oracle:bits=4,rounds=3)");
    assert_int_equal(once.rounds, 1);
    assert_int_equal(wrapped.rounds, 3);
    assert_int_equal(kv_spec_canonical("oracle:bits=4,by=error,rounds=2", &fake_setting, &text, &e),
                     KV_EUSAGE);
    assert_non_null(strstr(e.msg, "which by=error does not read"));
    kv_replay_spec_close(&once);
    kv_replay_spec_close(&wrapped);
}

// ---- the null ----------------------------------------------------------------------------

static void count_widths(const struct fake *f, size_t cells, size_t first, size_t end, size_t from,
                         size_t n, size_t *count) {
    memset(count, 0, 256 * sizeof *count);
    for (size_t t = first; t < end; t++)
        for (size_t c = from; c < from + n; c++) count[f->cells[t * cells + c]]++;
}

static void a_shuffle_keeps_the_histogram_of_every_sequence(void **state) {
    static const char *const within[] = {"item", "layer", "all"};
    (void)state;
    for (size_t w = 0; w < 3; w++) {
        char text[96];
        snprintf(text, sizeof text, "shuffle(random:by=cell):within=%s", within[w]);
        struct kv_replay_spec inner = fake_spec("random:by=cell"), outer = fake_spec(text);
        struct fake *f = fake_new(&inner.run, 30, 2, 6, 5), *g = fake_new(&inner.run, 30, 2, 6, 5);
        size_t cells = kv_cells(&inner.run.shape), a[256], b[256];
        fake_ask(&inner, f);
        fake_ask(&outer, g);
        assert_true(fake_allocated(&inner, f) == fake_allocated(&inner, g));
        assert_memory_not_equal(f->cells, g->cells, f->item.n_tokens * cells);
        for (size_t row = 0, end; row < f->item.n_tokens; row = end) {
            end = kv_segment_end(&f->item, row);
            size_t layers = w == 2 ? 1 : 3, n = cells / layers; // all mixes layers
            for (size_t l = 0; l < layers; l++) {
                count_widths(f, cells, row, end, l * n, n, a);
                count_widths(g, cells, row, end, l * n, n, b);
                assert_memory_equal(a, b, sizeof a);
            }
        }
        fake_free(f);
        fake_free(g);
        kv_replay_spec_close(&inner);
        kv_replay_spec_close(&outer);
    }
}

static void a_shuffle_of_one_width_is_that_width(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("shuffle(static:k=8,v=4):within=item");
    struct fake *f = fake_new(&spec.run, 9, 2, 3, 1);
    fake_ask(&spec, f);
    for (size_t t = 0; t < f->item.n_tokens; t++) {
        assert_int_equal(fake_bits(&spec, f, t, 4), 8);
        assert_int_equal(fake_bits(&spec, f, t, 5), 4);
    }
    fake_free(f);
    kv_replay_spec_close(&spec);
}

static void a_wrapper_spells_its_inner_spec_out_and_reads_back(void **state) {
    (void)state;
    char *once, *twice;
    struct kv_error e = {0};
    assert_int_equal(kv_spec_canonical("shuffle(static:bits=4)@sym", &fake_setting, &once, &e), 0);
    assert_non_null(strstr(once, "shuffle(static:k=4,v=4):seed=0,within=item@sym:"));
    assert_int_equal(kv_spec_canonical(once, &fake_setting, &twice, &e), 0);
    assert_string_equal(once, twice);
    free(once);
    free(twice);
}

static void brackets_where_they_do_not_belong_are_refused(void **state) {
    (void)state;
    struct kv_error e = {0};
    char *text;
    assert_int_equal(kv_spec_canonical("static(random):bits=4", &fake_setting, &text, &e),
                     KV_EUSAGE);
    assert_non_null(strstr(e.msg, "wraps no other"));
    assert_int_equal(kv_spec_canonical("shuffle:within=all", &fake_setting, &text, &e), KV_EUSAGE);
    assert_non_null(strstr(e.msg, "wraps another"));
    assert_int_equal(kv_spec_canonical("shuffle(statik)", &fake_setting, &text, &e), KV_EUSAGE);
    assert_non_null(strstr(e.msg, "did you mean 'static'"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_random_allocation_of_equal_bits_beats_the_oracle),
        cmocka_unit_test(the_oracle_never_exceeds_its_budget),
        cmocka_unit_test(a_budget_below_the_narrowest_width_is_refused_in_a_sentence),
        cmocka_unit_test(an_oracle_needs_only_what_its_objective_reads),
        cmocka_unit_test(rounds_are_for_damage_alone_and_one_is_the_default),
        cmocka_unit_test(a_shuffle_keeps_the_histogram_of_every_sequence),
        cmocka_unit_test(a_shuffle_of_one_width_is_that_width),
        cmocka_unit_test(a_wrapper_spells_its_inner_spec_out_and_reads_back),
        cmocka_unit_test(brackets_where_they_do_not_belong_are_refused),
    };
    return cmocka_run_group_tests_name("oracle", tests, NULL, NULL);
}
