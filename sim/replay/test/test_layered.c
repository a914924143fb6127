// SPDX-License-Identifier: Apache-2.0
// Policies that decide inside the running pass, on a small random model: the same bits as a plan
// where the plan is the same, equal bits for a shuffle, a budget met over a set, what cannot be run
// refused.
#include "policies/test/fake_cells.h"
#include "sim/quant/code.h"
#include "sim/replay/ask.h"
#include "sim/replay/pass.h"
#include "sim/replay/test/tiny_trace.h"

enum { ITEMS = 3 };
static struct tiny_trace tiny, bare;
static struct kv_model *model;
static char path[64];

static int set_up(void **state) {
    (void)state;
    cells_path(path, sizeof path);
    if (tiny_trace_open(&bare, KV_KEEP_FINAL, ITEMS, NULL)) return 1;
    if (tiny_trace_open(&tiny, KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_SENS | KV_KEEP_CELLS, ITEMS,
                        &model))
        return 1;
    struct fake_cells c = {.shape = tiny_shape,
                           .inputs = "attention/probe",
                           .digest = kv_trace_info(tiny.trace)->model_digest,
                           .attention = true,
                           .probe = true,
                           .net = true,
                           .seed = 7};
    write_cells(path, &c);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    tiny_trace_close(&tiny);
    tiny_trace_close(&bare);
    kv_model_close(model);
    return unlink(path);
}

static struct kv_replay_spec cells_spec(const char *form, const char *keys, const char *format) {
    char *inner = kv_format_text("cells:weights=%s%s%s%s", path,
                                 strstr(keys, "bits=") ? "" : ",bits=5", *keys ? "," : "", keys);
    char *text = kv_format_text(form, inner), *whole = kv_format_text("%s@%s", text, format);
    struct kv_replay_spec spec = tiny_spec(&tiny, whole);
    free(inner);
    free(text);
    free(whole);
    return spec;
}

static struct kv_replay job_of(const struct kv_replay_spec *spec, enum kv_mode mode,
                               struct tiny_result *out) {
    return (struct kv_replay){.trace = tiny.trace,
                              .model = model,
                              .specs = spec,
                              .n_specs = 1,
                              .mode = mode,
                              .seed = 1,
                              .n_items = ITEMS,
                              .audit = true,
                              .take = tiny_keep,
                              .self = out};
}

static void replay(const struct kv_replay_spec *spec, enum kv_mode mode, unsigned jobs,
                   struct tiny_result out[ITEMS]) {
    struct kv_replay job = job_of(spec, mode, out);
    struct kv_error e;
    memset(out, 0, ITEMS * sizeof *out);
    int rc = kv_replay_open_tables(&job, KV_TABLE_ISO, 1, &e);
    if (rc == 0) rc = kv_replay_exact(&job, jobs, &e);
    if (rc) fail_msg("%s: %s", e.where, e.msg);
    kv_replay_close_tables(&job);
}

static void one_width_is_a_static_plan_to_the_bit(void **state) {
    static const enum kv_mode modes[] = {KV_INLINE, KV_PREFILL, KV_PREFILL1};
    static const char *const formats[] = {"asym:group=32", "sym", "hadamard(sym)", "sym:sinks=2"};
    struct tiny_result one[ITEMS], other[ITEMS];
    (void)state;
    for (size_t m = 0; m < 3; m++)
        for (size_t f = 0; f < 4; f++) {
            char *text = kv_format_text("static:bits=4@%s", formats[f]);
            struct kv_replay_spec cells = cells_spec(
                                      "%s", f == 0 ? "widths=4" : "widths=4,bits=4.5", formats[f]),
                                  plan = tiny_spec(&tiny, text);
            replay(&cells, modes[m], 2, one);
            replay(&plan, modes[m], 2, other);
            for (size_t i = 0; i < ITEMS; i++) {
                assert_memory_equal(&one[i].kl_nats, &other[i].kl_nats, sizeof one[i].kl_nats);
                assert_memory_equal(one[i].logprob, other[i].logprob, sizeof one[i].logprob);
                assert_true(one[i].kl_nats > 0);
            }
            kv_replay_spec_close(&cells);
            kv_replay_spec_close(&plan);
            free(text);
        }
}

static void threads_change_nothing(void **state) {
    struct tiny_result one[ITEMS], other[ITEMS];
    struct kv_replay_spec spec = cells_spec("%s", "", "asym:group=32");
    (void)state;
    replay(&spec, KV_INLINE, 1, one);
    replay(&spec, KV_INLINE, 2, other);
    for (size_t i = 0; i < ITEMS; i++) {
        assert_memory_equal(&one[i].kl_nats, &other[i].kl_nats, sizeof one[i].kl_nats);
        assert_true(one[i].ledger.allocated_bits == other[i].ledger.allocated_bits);
    }
    kv_replay_spec_close(&spec);
}

static void a_shuffle_takes_the_same_bits_and_loses_what_was_known(void **state) {
    struct tiny_result one[ITEMS], other[ITEMS];
    struct kv_replay_spec spec = cells_spec("%s", "hold=none", "asym:group=32"),
                          null =
                              cells_spec("shuffle(%s):within=cell", "hold=none", "asym:group=32");
    bool differ = false;
    (void)state;
    replay(&spec, KV_INLINE, 2, one);
    replay(&null, KV_INLINE, 2, other);
    for (size_t i = 0; i < ITEMS; i++) {
        // Choices weigh alike whatever their tokens: equal to rounding, not to the bit.
        assert_true(fabs(one[i].ledger.allocated_bits - other[i].ledger.allocated_bits) < 1e-9);
        differ = differ || one[i].kl_nats != other[i].kl_nats;
    }
    assert_true(differ);
    kv_replay_spec_close(&spec);
    kv_replay_spec_close(&null);
}

static double mean_bits(const struct tiny_result *r) {
    double sum = 0;
    for (size_t i = 0; i < ITEMS; i++) sum += r[i].ledger.allocated_bits / ITEMS;
    return sum;
}

static void a_matched_budget_is_met_and_its_spec_says_how(void **state) {
    struct tiny_result out[ITEMS], again[ITEMS];
    struct kv_error e;
    (void)state;
    for (double bits = 4; bits < 7; bits += 1.25) {
        char *keys = kv_format_text("hold=matched,bits=%g", bits);
        struct kv_replay_spec spec = cells_spec("%s", keys, "asym:group=32"), found;
        struct kv_replay job = job_of(&spec, KV_INLINE, out);
        assert_int_equal(kv_replay_match(&job, &spec, 1, 2, &e), 0);
        assert_null(strstr(spec.canonical, "scale=1,"));
        replay(&spec, KV_INLINE, 2, out);
        if (fabs(mean_bits(out) - bits) > 0.01)
            fail_msg("%s takes %.4f", spec.canonical, mean_bits(out));
        // The text that it got is a spec of its own, which needs no matching.
        assert_int_equal(kv_replay_spec_open(&found, spec.canonical, &tiny.setting, 1, &e), 0);
        assert_string_equal(found.canonical, spec.canonical);
        assert_int_equal(kv_replay_match(&job, &found, 1, 2, &e), 0);
        assert_string_equal(found.canonical, spec.canonical);
        replay(&found, KV_INLINE, 2, again);
        assert_true(fabs(mean_bits(again) - mean_bits(out)) < 0.005);
        kv_replay_spec_close(&spec);
        kv_replay_spec_close(&found);
        free(keys);
    }
}

// By recorded features the first layer, which nothing before it disturbs, is decided as in the pass
// but for fp16.
static void recorded_features_decide_without_a_model(void **state) {
    struct kv_replay_spec spec = cells_spec("%s", "features=exact,hold=none", "asym:group=32"),
                          null = cells_spec("shuffle(%s):within=cell", "features=exact,hold=none",
                                            "asym:group=32");
    struct tiny_result out[ITEMS];
    struct kv_replay job = job_of(&spec, KV_INLINE, out);
    struct kv_error e;
    const struct kv_trace_item *it = kv_trace_item(tiny.trace, 0);
    size_t n = it->n_tokens * kv_cells(&tiny_shape), same = 0, first = 0,
           widths[KV_MAX_WIDTHS] = {0};
    uint8_t *cells = kv_alloc(2 * n, 1), *other = cells + n;
    struct kv_token *tokens = kv_alloc(it->n_tokens, sizeof *tokens);
    struct kv_item view;
    struct kv_layered y;
    struct kv_tree tree = {it->n_tokens, it->n_context, it->n_choices, it->first, it->ids};
    (void)state;
    assert_int_equal(kv_decide(&job, 0, 0, cells, &e), 0);
    // The pass's own decisions, from a run whose cache is read as it was recorded in layer 0.
    struct kv_pass p;
    kv_pass_init(&p, model, &tree);
    p.spec = &spec;
    p.code_scratch = kv_alloc(kv_code_scratch_bytes(spec.format), 1);
    p.histogram = kv_alloc(256 * spec.run.n_widths, sizeof *p.histogram);
    assert_int_equal(kv_show_item(&job, 0, 0, it->features, tokens, &view, &e), 0);
    kv_layered_init(&y, &spec, &view, it->n_tokens);
    y.tree = &tree;
    kv_pass_layered(&p, &y, other, 0, NULL);
    float *final = kv_alloc((size_t)it->n_tokens * tiny_shape.hidden, sizeof *final);
    uint32_t *upto = kv_alloc(2 * (size_t)it->n_tokens, sizeof *upto);
    for (uint32_t row = 0; row < it->n_tokens; row++)
        upto[2 * row] = upto[2 * row + 1] = kv_tree_position(&tree, row) + 1;
    struct kv_scratch *s = kv_scratch_new();
    struct kv_forward pass = {.tree = &tree,
                              .coded_upto = upto,
                              .store = kv_pass_store,
                              .observe = kv_pass_observe,
                              .self = &p,
                              .final = final};
    assert_int_equal(kv_forward(model, &pass, s, &e), 0);
    size_t per_token = kv_cells(&tiny_shape), per_layer = per_token / tiny_shape.n_layers;
    for (size_t row = 0; row < it->n_tokens; row++)
        for (size_t c = 0; c < per_layer; c++, first++) {
            same += cells[row * per_token + c] == other[row * per_token + c];
            widths[cells[row * per_token + c]]++;
        }
    assert_true(same >= first - first / 50);
    size_t different = 0;
    for (size_t w = 0; w < KV_MAX_WIDTHS; w++) different += widths[w] > first / 50;
    assert_true(different >= 3); // else little was decided
    // A wrapper is asked about these too.
    job.specs = &null;
    assert_int_equal(kv_decide(&job, 0, 0, other, &e), 0);
    assert_memory_not_equal(other, cells, n);
    kv_scratch_free(s);
    kv_layered_fini(&y);
    kv_pass_fini(&p);
    free(final);
    free(upto);
    free(tokens);
    free(cells);
    kv_replay_spec_close(&spec);
    kv_replay_spec_close(&null);
}

static void what_cannot_be_decided_so_is_refused(void **state) {
    static const struct {
        enum kv_mode mode;
        const char *format, *why;
    } wrong[] = {{KV_REQUANT, "asym:group=32", "requant"},
                 {KV_INLINE, "sym:window=16", "window"},
                 {KV_INLINE, "kivi", "kivi"},
                 {KV_INLINE, "sym:scope=token", "heads"}};
    struct tiny_result out[ITEMS];
    struct kv_error e;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *text = kv_format_text("cells:weights=%s,widths=4,bits=8@%s", path, wrong[i].format);
        struct kv_replay_spec spec;
        int rc = kv_replay_spec_open(&spec, text, &tiny.setting, 1, &e);
        free(text);
        if (rc) continue; // this format has no such widths or keys
        struct kv_replay job = job_of(&spec, wrong[i].mode, out);
        assert_int_equal(kv_replay_exact(&job, 1, &e), KV_EUSAGE);
        if (!strstr(e.msg, wrong[i].why)) fail_msg("%s: %s", wrong[i].format, e.msg);
        kv_replay_spec_close(&spec);
    }
    struct kv_replay_spec spec = cells_spec("%s", "", "asym:group=32");
    struct kv_replay job = job_of(&spec, KV_INLINE, out);
    uint8_t *cells = kv_alloc(kv_trace_item(bare.trace, 0)->n_tokens * kv_cells(&tiny_shape), 1);
    job.trace = bare.trace;
    assert_int_equal(kv_decide(&job, 0, 0, cells, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "--keep cells"));
    free(cells);
    kv_replay_spec_close(&spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_width_is_a_static_plan_to_the_bit),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(a_shuffle_takes_the_same_bits_and_loses_what_was_known),
        cmocka_unit_test(a_matched_budget_is_met_and_its_spec_says_how),
        cmocka_unit_test(recorded_features_decide_without_a_model),
        cmocka_unit_test(what_cannot_be_decided_so_is_refused),
    };
    return cmocka_run_group_tests_name("layered", tests, set_up, tear_down);
}
