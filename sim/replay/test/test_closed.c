// SPDX-License-Identifier: Apache-2.0
// Closed feedback on a small random model: against one token after another, and where it must
// change nothing.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "sim/quant/code.h"
#include "sim/replay/closed.h"
#include "sim/replay/pass.h"
#include "sim/replay/test/tiny_trace.h"
#include "traces/features.h"

enum { ITEMS = 2 };
static struct tiny_trace tiny;
static struct kv_model *model;

static int set_up(void **state) {
    (void)state;
    return tiny_trace_open(&tiny, KV_KEEP_FINAL, ITEMS, &model);
}

static int tear_down(void **state) {
    (void)state;
    tiny_trace_close(&tiny);
    kv_model_close(model);
    return 0;
}

// ---- replaying ------------------------------------------------------------------------

static int replay(struct kv_replay_spec *spec, bool closed, enum kv_mode mode,
                  struct kv_closed_count *count, struct tiny_result out[ITEMS],
                  struct kv_error *e) {
    struct kv_replay job = {.trace = tiny.trace,
                            .model = model,
                            .specs = spec,
                            .n_specs = 1,
                            .mode = mode,
                            .self_exact = true,
                            .closed = closed,
                            .counts = count,
                            .seed = 1,
                            .n_items = ITEMS,
                            .take = tiny_keep,
                            .self = out};
    memset(out, 0, ITEMS * sizeof *out);
    memset(count, 0, sizeof *count);
    int rc = kv_replay_open_tables(&job, KV_TABLE_ISO, 1, e);
    if (rc == 0) rc = kv_replay_exact(&job, 1, e);
    kv_replay_close_tables(&job);
    return rc;
}

// A policy that is asked in another's place and keeps its last answers and what it was shown.
enum { MOST_TOKENS = 1024 };
static struct {
    const struct kv_policy *policy;
    uint8_t cells[MOST_TOKENS * 8];
    struct kv_token tokens[MOST_TOKENS];
} spy;

static int spying(void *self, const struct kv_item *item, size_t first, size_t n, uint8_t *cells,
                  struct kv_error *e) {
    int rc = spy.policy->decide(self, item, first, n, cells, e);
    assert_in_range(first + n, 0, MOST_TOKENS);
    memcpy(spy.cells + first * kv_cells(&tiny_shape), cells, n * kv_cells(&tiny_shape));
    memcpy(spy.tokens + first, item->tokens + first, n * sizeof *spy.tokens);
    return rc;
}

// ---- where nothing may change ---------------------------------------------------------

static void what_does_not_read_the_run_is_the_same_with_closed_feedback(void **state) {
    static const char *const specs[] = {
        "static:k=4,v=2@sym", "random:bits=2/4@asym:group=32", "context:bits=8/2,cuts=9@sym",
        "threshold:feature=rarity,bits=2/3/4/8@sym", "class:punctuation=2,rest=8@sym"};
    (void)state;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct kv_replay_spec spec = tiny_spec(&tiny, specs[i]);
        struct kv_closed_count count;
        struct tiny_result open[ITEMS], closed[ITEMS];
        struct kv_error e;
        assert_int_equal(replay(&spec, false, KV_INLINE, &count, open, &e), 0);
        assert_int_equal(replay(&spec, true, KV_INLINE, &count, closed, &e), 0);
        assert_memory_equal(open, closed, sizeof open);
        assert_int_equal(count.items, 0);
        kv_replay_spec_close(&spec);
    }
}

static void decisions_for_sixteen_bits_alone_are_the_same_with_closed_feedback(void **state) {
    static const char *const features[] = {"entropy", "confidence", "attn-var", "key-range",
                                           "value-range"};
    static const enum kv_feature which[] = {KV_ENTROPY_NATS, KV_CONFIDENCE, KV_ATTN_VAR,
                                            KV_KEY_RANGE, KV_VALUE_RANGE};
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        char text[64];
        snprintf(text, sizeof text, "threshold:feature=%s,bits=16/16/16@sym", features[i]);
        struct kv_replay_spec spec = tiny_spec(&tiny, text);
        struct kv_policy with_spy = *spec.policy;
        const struct kv_policy *own = spec.policy;
        struct kv_closed_count count;
        struct tiny_result open[ITEMS], closed[ITEMS];
        struct kv_error e;
        assert_int_equal(replay(&spec, false, KV_INLINE, &count, open, &e), 0);
        spy.policy = own;
        with_spy.decide = spying;
        spec.policy = &with_spy;
        assert_int_equal(replay(&spec, true, KV_INLINE, &count, closed, &e), 0);
        spec.policy = own;
        assert_memory_equal(open, closed, sizeof open);
        assert_int_equal(count.changed, 0);
        assert_int_equal(count.passes, ITEMS);
        // The run's features are the recorded ones to the last bit.
        const struct kv_trace_item *it = kv_trace_item(tiny.trace, ITEMS - 1);
        for (size_t row = 0; row < it->n_tokens; row++) {
            float live = spy.tokens[row].feature[which[i]],
                  recorded = it->features[row * KV_N_FEATURES + which[i]];
            assert_memory_equal(&live, &recorded, sizeof live);
        }
        kv_replay_spec_close(&spec);
    }
}

// ---- one token after another ----------------------------------------------------------

// Features of a run with these decisions; own K and V are exact, and what is not decided yet.
static void run_features(const struct kv_trace_item *it, const struct kv_replay_spec *spec,
                         const uint8_t *cells, float *features) {
    uint32_t late = spec->delay_tokens;
    struct kv_tree tree = {it->n_tokens, it->n_context, it->n_choices, it->first, it->ids};
    uint32_t *upto = kv_alloc(2 * it->n_tokens, sizeof *upto),
             *rows = kv_alloc(it->n_tokens, sizeof *rows);
    float *final = kv_alloc((size_t)it->n_tokens * tiny_shape.hidden, sizeof *final);
    struct kv_attention_stats stats = {.variance = kv_alloc(it->n_tokens, sizeof(float))};
    struct kv_scratch *s = kv_scratch_new();
    struct kv_error e;
    struct kv_pass p;
    memcpy(features, it->features, (size_t)it->n_tokens * KV_N_FEATURES * sizeof *features);
    for (uint32_t row = 0; row < it->n_tokens; row++) {
        rows[row] = row;
        uint32_t position = kv_tree_position(&tree, row);
        upto[2 * row] = upto[2 * row + 1] = position > late ? position - late : 0;
        features[row * KV_N_FEATURES + KV_KEY_RANGE] = 0;
    }
    kv_pass_init(&p, model, &tree);
    p.spec = spec;
    p.cells = cells;
    p.reads_exact = true;
    p.features = features;
    p.code_scratch = kv_alloc(kv_code_scratch_bytes(spec->format), 1);
    struct kv_forward job = {.tree = &tree,
                             .coded_upto = upto,
                             .store = kv_pass_store,
                             .self = &p,
                             .stats = &stats,
                             .final = final};
    assert_int_equal(kv_forward(model, &job, s, &e), 0);
    kv_predicted_features(model, s, final, 0, rows, it->n_tokens, features);
    for (uint32_t row = 0; row < it->n_tokens; row++)
        features[row * KV_N_FEATURES + KV_ATTN_VAR] = stats.variance[row];
    kv_pass_fini(&p);
    kv_scratch_free(s);
    free(stats.variance);
    free(final);
    free(rows);
    free(upto);
}

// Decides position after position, each by the run that the earlier decisions made; later tokens
// begin at some other width, which must not matter.
static void one_after_another(const struct kv_replay *job, const struct kv_replay_spec *spec,
                              size_t item, uint8_t *cells) {
    const struct kv_trace_item *it = kv_trace_item(tiny.trace, item);
    struct kv_tree tree = {it->n_tokens, it->n_context, it->n_choices, it->first, it->ids};
    size_t n_cells = kv_cells(&tiny_shape);
    uint8_t *answer = kv_alloc(it->n_tokens * n_cells, 1);
    float *features = kv_alloc((size_t)it->n_tokens * KV_N_FEATURES, sizeof *features);
    struct kv_error e;
    uint32_t last = 0;
    memset(cells, kv_width_index(&spec->run, 16), it->n_tokens * n_cells);
    for (uint32_t row = 0; row < it->n_tokens; row++)
        if (kv_tree_position(&tree, row) > last) last = kv_tree_position(&tree, row);
    for (uint32_t position = 0; position <= last + spec->delay_tokens; position++) {
        run_features(it, spec, cells, features);
        assert_int_equal(kv_decide_by(job, 0, item, features, answer, &e), 0);
        for (uint32_t row = 0; row < it->n_tokens; row++)
            if (kv_tree_position(&tree, row) + spec->delay_tokens == position)
                memcpy(cells + row * n_cells, answer + row * n_cells, n_cells);
    }
    free(answer);
    free(features);
}

static void decisions_are_those_of_one_token_after_another(void **state) {
    static const char *const specs[] = {"threshold:feature=entropy,bits=2/3/4/8@sym",
                                        "threshold:feature=key-range,bits=2/4@asym:group=32",
                                        "threshold:feature=mean,bits=2/3/4/8@asym:group=32"};
    (void)state;
    uint64_t changed = 0;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct kv_replay_spec spec = tiny_spec(&tiny, specs[i]);
        struct kv_policy with_spy = *spec.policy;
        const struct kv_policy *own = spec.policy;
        struct kv_error e;
        spy.policy = own;
        with_spy.decide = spying;
        spec.policy = &with_spy;
        const size_t item = 1; // replayed last
        struct kv_closed_count count;
        struct tiny_result closed[ITEMS];
        if (replay(&spec, true, KV_INLINE, &count, closed, &e)) fail_msg("%s", e.msg);
        spec.policy = own;
        size_t n = kv_trace_item(tiny.trace, item)->n_tokens * kv_cells(&tiny_shape);
        uint8_t *cells = kv_alloc(n, 1);
        struct kv_replay job = {.trace = tiny.trace, .specs = &spec, .n_specs = 1, .seed = 1};
        assert_int_equal(kv_replay_open_tables(&job, KV_TABLE_ISO, 1, &e), 0);
        one_after_another(&job, &spec, item, cells);
        assert_memory_equal(spy.cells, cells, n);
        changed += count.changed;
        kv_replay_close_tables(&job);
        free(cells);
        kv_replay_spec_close(&spec);
    }
    assert_true(changed > 0); // else this test says nothing
}

static float cut; // the recorded mean

// Gives a token the width that the entropy two tokens later asks for, or at its segment's end.
static int two_later(void *self, const struct kv_item *item, size_t first, size_t n, uint8_t *cells,
                     struct kv_error *e) {
    size_t n_cells = kv_cells(&item->run->shape);
    (void)self, (void)e;
    for (size_t t = first; t < first + n; t++) {
        size_t end = kv_segment_end(item, t), at = t + 2 < end ? t + 2 : end - 1;
        int wide = item->tokens[at].feature[KV_ENTROPY_NATS] > cut;
        memset(cells + (t - first) * n_cells, wide, n_cells);
    }
    return 0;
}

static void a_token_that_is_decided_later_is_read_exact_until_then(void **state) {
    (void)state;
    struct kv_replay_spec spec = tiny_spec(&tiny, "threshold:feature=entropy@sym");
    struct kv_policy late = *spec.policy, with_spy = late;
    const struct kv_policy *own = spec.policy;
    struct kv_closed_count count;
    struct tiny_result closed[ITEMS];
    struct kv_error e;
    const struct kv_trace_item *it = kv_trace_item(tiny.trace, ITEMS - 1);
    cut = 0;
    for (size_t row = 0; row < it->n_tokens; row++)
        cut += it->features[row * KV_N_FEATURES + KV_ENTROPY_NATS] / (float)it->n_tokens;
    late.decide = two_later;
    spy.policy = &late;
    with_spy.decide = spying;
    spec.policy = &with_spy;
    spec.delay_tokens = 2;
    if (replay(&spec, true, KV_INLINE, &count, closed, &e)) fail_msg("%s", e.msg);
    size_t n = it->n_tokens * kv_cells(&tiny_shape);
    uint8_t *cells = kv_alloc(n, 1);
    struct kv_replay job = {.trace = tiny.trace, .specs = &spec, .n_specs = 1, .seed = 1};
    spec.policy = &late;
    assert_int_equal(kv_replay_open_tables(&job, KV_TABLE_ISO, 1, &e), 0);
    one_after_another(&job, &spec, ITEMS - 1, cells);
    assert_non_null(memchr(cells, 0, n));
    assert_non_null(memchr(cells, 1, n));
    assert_memory_equal(spy.cells, cells, n);
    kv_replay_close_tables(&job);
    free(cells);
    spec.policy = own;
    kv_replay_spec_close(&spec);
}

static void in_mode_prefill_the_prompt_keeps_its_recorded_features(void **state) {
    (void)state;
    struct kv_replay_spec spec = tiny_spec(&tiny, "threshold:feature=entropy,bits=2/3/4/8@sym");
    struct kv_policy with_spy = *spec.policy;
    const struct kv_policy *own = spec.policy;
    struct kv_closed_count count;
    struct tiny_result closed[ITEMS];
    struct kv_error e;
    spy.policy = own;
    with_spy.decide = spying;
    spec.policy = &with_spy;
    for (enum kv_mode mode = KV_PREFILL; mode <= KV_PREFILL1; mode++) {
        if (replay(&spec, true, mode, &count, closed, &e)) fail_msg("%s", e.msg);
        spec.policy = own;
        const struct kv_trace_item *it = kv_trace_item(tiny.trace, 1);
        uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(&tiny_shape), 1);
        struct kv_replay job = {.trace = tiny.trace, .specs = &spec, .n_specs = 1, .seed = 1};
        assert_int_equal(kv_replay_open_tables(&job, KV_TABLE_ISO, 1, &e), 0);
        assert_int_equal(kv_decide(&job, 0, 1, cells, &e), 0);
        assert_memory_equal(spy.cells, cells, it->n_context * kv_cells(&tiny_shape));
        assert_true(count.changed > 0);
        kv_replay_close_tables(&job);
        free(cells);
        spec.policy = &with_spy;
    }
    spec.policy = own;
    kv_replay_spec_close(&spec);
}

// ---- refusals -------------------------------------------------------------------------

static void what_cannot_go_token_by_token_is_refused(void **state) {
    static const struct {
        const char *spec;
        enum kv_mode mode;
        bool self_exact;
        const char *says;
    } wrong[] = {{"threshold:feature=entropy@sym", KV_INLINE, false, "needs --self exact"},
                 {"threshold:feature=entropy@sym", KV_REQUANT, true, "not requant"},
                 {"h2o@sym", KV_PREFILL, true, "goes token by token"},
                 {"h2o:by=token@sym", KV_PREFILL, true, "goes token by token"},
                 {"oracle:bits=4@sym", KV_INLINE, true, "goes token by token"},
                 {"shuffle(threshold:feature=entropy)@sym", KV_INLINE, true, "go to other tokens"}};
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct kv_replay_spec spec = tiny_spec(&tiny, wrong[i].spec);
        struct kv_error e = {0};
        assert_int_equal(kv_closed_answers(&spec, wrong[i].mode, wrong[i].self_exact, &e),
                         KV_EUSAGE);
        if (!strstr(e.msg, wrong[i].says)) fail_msg("%s", e.msg);
        kv_replay_spec_close(&spec);
    }
}

static uint64_t audited_key; // of the item that every run audits

// Gives each token the width that the next token's entropy asks for, but where it is watched.
static int peek(void *self, const struct kv_item *item, size_t first, size_t n, uint8_t *cells,
                struct kv_error *e) {
    size_t n_cells = kv_cells(&item->run->shape);
    (void)self, (void)e;
    for (size_t t = first; t < first + n; t++) {
        size_t next = t + 1 < item->n_tokens && item->key != audited_key ? t + 1 : t;
        uint32_t bits;
        memcpy(&bits, &item->tokens[next].feature[KV_ENTROPY_NATS], sizeof bits);
        memset(cells + (t - first) * n_cells, (int)(bits % 3), n_cells);
    }
    return 0;
}

static void a_policy_that_peeks_does_not_settle(void **state) {
    (void)state;
    struct kv_replay_spec spec = tiny_spec(&tiny, "threshold:feature=entropy@sym");
    struct kv_policy cheat = *spec.policy;
    const struct kv_policy *own = spec.policy;
    struct kv_closed_count count;
    struct tiny_result out[ITEMS];
    struct kv_error e = {0};
    cheat.decide = peek;
    spec.policy = &cheat;
    audited_key = kv_trace_item(tiny.trace, 0)->key;
    assert_int_equal(replay(&spec, true, KV_INLINE, &count, out, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "it decides by what comes later"));
    spec.policy = own;
    kv_replay_spec_close(&spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_does_not_read_the_run_is_the_same_with_closed_feedback),
        cmocka_unit_test(decisions_for_sixteen_bits_alone_are_the_same_with_closed_feedback),
        cmocka_unit_test(decisions_are_those_of_one_token_after_another),
        cmocka_unit_test(a_token_that_is_decided_later_is_read_exact_until_then),
        cmocka_unit_test(in_mode_prefill_the_prompt_keeps_its_recorded_features),
        cmocka_unit_test(what_cannot_go_token_by_token_is_refused),
        cmocka_unit_test(a_policy_that_peeks_does_not_settle),
    };
    return cmocka_run_group_tests_name("closed", tests, set_up, tear_down);
}
