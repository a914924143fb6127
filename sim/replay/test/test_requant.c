// SPDX-License-Identifier: Apache-2.0
// Mode requant on a small random model: against mode prefill, against one pass that says who reads
// what, and its ledger by hand.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "sim/model/forward.h"
#include "sim/quant/code.h"
#include "sim/replay/answers.h"
#include "sim/replay/fisher.h"
#include "sim/replay/ledger.h"
#include "sim/replay/requant.h"
#include "sim/replay/test/tiny_trace.h"

enum { ITEMS = 3 };
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

static void replay(const char *text, enum kv_mode mode, struct tiny_result out[ITEMS]) {
    struct kv_replay_spec spec = tiny_spec(&tiny, text);
    struct kv_error e = {0};
    struct kv_replay job = {.trace = tiny.trace,
                            .model = model,
                            .specs = &spec,
                            .n_specs = 1,
                            .mode = mode,
                            .seed = 1,
                            .n_items = ITEMS,
                            .take = tiny_keep,
                            .self = out};
    if (kv_replay_exact(&job, 1, &e)) fail_msg("%s: %s: %s", text, e.where, e.msg);
    kv_replay_spec_close(&spec);
}

// ---- a window that never fills --------------------------------------------------------

// Then the prompt is coded once and choices stay at 16 bits: what mode prefill does with a policy
// that says so.
static void a_window_that_never_fills_is_mode_prefill_with_exact_choices(void **state) {
    static const char *const format[] = {"asym:group=32", "sym", "hadamard(sym)"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct tiny_result again[ITEMS], once[ITEMS];
        char text[2][96];
        snprintf(text[0], sizeof text[0], "static:bits=3@%s%cwindow=512", format[i],
                 strchr(format[i], ':') ? ',' : ':');
        snprintf(text[1], sizeof text[1], "context:unit=share,cuts=1,bits=3/16@%s", format[i]);
        replay(text[0], KV_REQUANT, again);
        replay(text[1], KV_PREFILL, once);
        for (size_t k = 0; k < ITEMS; k++) {
            assert_true(again[k].kl_nats > 1e-4);
            for (uint32_t c = 0; c < 4; c++)
                assert_true(fabs(again[k].logprob[c] - once[k].logprob[c]) < 1e-5);
            assert_true(fabs(again[k].ledger.allocated_bits - once[k].ledger.allocated_bits) <
                        1e-12);
        }
    }
}

static void sixteen_bits_stay_sixteen_bits_however_often_they_are_coded(void **state) {
    struct tiny_result often[ITEMS], once[ITEMS];
    (void)state;
    replay("static:bits=16@sym:window=2", KV_REQUANT, often);
    replay("static:bits=16@sym", KV_PREFILL, once);
    for (size_t k = 0; k < ITEMS; k++)
        for (uint32_t c = 0; c < 4; c++)
            assert_true(fabs(often[k].logprob[c] - once[k].logprob[c]) < 2e-3);
}

// ---- one pass that says who reads what ------------------------------------------------

// Where coded data codes to the same bytes again, repeating changes nothing: row o of a choice
// reads coded what lies below the branch and o / R whole windows, and the rest exact. Written as
// one pass over the tree, coding each row once, the choices' from their fp16 values.
struct plain {
    const struct kv_tree *tree;
    const struct kv_replay_spec *spec;
    const uint8_t *cells;
    float *exact[2], *coded[2];
    void *scratch;
};

static int plain_store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                       struct kv_layer_view *view, struct kv_error *e) {
    struct plain *p = self;
    const struct kv_shape *s = &tiny_shape;
    size_t width = (size_t)s->n_kv_heads * s->head_dim, cells = kv_cells(s), n = p->tree->n_tokens;
    for (int side = 0; side < 2; side++) {
        const float *x = side ? kv->v : kv->k;
        for (size_t i = 0; i < n * width; i++)
            p->exact[side][i] = kv_half_to_float(kv_f32_to_f16(x[i]));
        for (size_t row = 0; row < n; row++) {
            struct kv_vectors rows = {
                .layer = layer,
                .side = (enum kv_side)side,
                .n = 1,
                .x = (row < p->tree->n_context ? x : p->exact[side]) + row * width,
                .x_stride = width,
                .y = p->coded[side] + row * width,
                .y_stride = width,
                .cells = p->cells + row * cells + layer * (cells / s->n_layers) + (size_t)side,
                .cell_token_stride = cells,
                .cell_head_stride = 2};
            int rc = kv_code_rows(p->spec->format, &rows, p->scratch, NULL, e);
            if (rc) return rc;
        }
    }
    *view = (struct kv_layer_view){.k_exact = p->exact[0],
                                   .v_exact = p->exact[1],
                                   .k_coded = p->coded[0],
                                   .v_coded = p->coded[1]};
    return 0;
}

static int prompt_store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                        struct kv_layer_view *view, struct kv_error *e) {
    struct plain *p = self;
    struct kv_layer_kv *kept = (struct kv_layer_kv *)p->scratch + layer;
    size_t width = (size_t)tiny_shape.n_kv_heads * tiny_shape.head_dim,
           n = p->tree->n_tokens * width;
    (void)e;
    memcpy(kept->k_raw, kv->k_raw, n * sizeof(float));
    memcpy(kept->k, kv->k, n * sizeof(float));
    memcpy(kept->v, kv->v, n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        p->exact[0][i] = kv_half_to_float(kv_f32_to_f16(kv->k[i]));
        p->exact[1][i] = kv_half_to_float(kv_f32_to_f16(kv->v[i]));
    }
    *view = (struct kv_layer_view){.k_exact = p->exact[0], .v_exact = p->exact[1]};
    return 0;
}

// Final states of the scored rows, [n_final][hidden].
static void one_pass(const struct kv_trace_item *it, const struct kv_replay_spec *spec,
                     const uint8_t *cells, uint32_t window, float *scored) {
    size_t width = (size_t)tiny_shape.n_kv_heads * tiny_shape.head_dim, h = tiny_shape.hidden,
           n = it->n_tokens * width;
    struct kv_scratch *s = kv_scratch_new();
    struct kv_error e = {0};
    float *block = kv_alloc(4 * n + 3 * n * tiny_shape.n_layers, sizeof *block),
          *final = kv_alloc(it->n_tokens * h, sizeof *final);
    struct kv_layer_kv prompt[2];
    for (size_t l = 0; l < 2; l++)
        prompt[l] = (struct kv_layer_kv){block + (4 + 3 * l) * n, block + (5 + 3 * l) * n,
                                         block + (6 + 3 * l) * n};
    struct kv_tree before = {it->n_context - 1, it->n_context - 1, 0, NULL, it->ids},
                   tree = {it->n_tokens, it->n_context, it->n_choices, it->first, it->ids};
    struct plain p = {.tree = &before,
                      .exact = {block, block + n},
                      .coded = {block + 2 * n, block + 3 * n},
                      .scratch = prompt};
    struct kv_forward job = {.tree = &before, .store = prompt_store, .self = &p, .final = final};
    if (kv_forward(model, &job, s, &e)) fail_msg("%s", e.msg);
    uint32_t *upto = kv_alloc(2 * it->n_tokens, sizeof *upto);
    for (uint32_t row = 0, c = 0; row < it->n_tokens; row++) {
        while (c < it->n_choices && row >= it->first[c + 1]) c++;
        uint32_t windows = row < it->n_context ? 0 : (row - it->first[c]) / window;
        upto[2 * row] = upto[2 * row + 1] = it->n_context + windows * window;
    }
    p.tree = &tree;
    p.spec = spec;
    p.cells = cells;
    p.scratch = kv_alloc(kv_code_scratch_bytes(spec->format), 1);
    job = (struct kv_forward){.tree = &tree,
                              .first_row = before.n_tokens,
                              .prefix = prompt,
                              .coded_upto = upto,
                              .store = plain_store,
                              .self = &p,
                              .final = final};
    if (kv_forward(model, &job, s, &e)) fail_msg("%s", e.msg);
    for (uint32_t f = 0; f < it->n_final; f++)
        memcpy(scored + f * h, final + (it->final_rows[f] - before.n_tokens) * h,
               h * sizeof *scored);
    free(p.scratch);
    free(upto);
    free(block);
    free(final);
    kv_scratch_free(s);
}

static double distance(const float *a, const float *b, size_t n) {
    double d = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        d += pow((double)(a[i] - b[i]), 2);
        norm += pow((double)b[i], 2);
    }
    return sqrt(d / norm);
}

// How far requant's final states lie from the pass that codes each row once.
static double drift(const char *text, size_t item) {
    const struct kv_trace_item *it = kv_trace_item(tiny.trace, item);
    struct kv_replay_spec spec = tiny_spec(&tiny, text);
    size_t n = it->n_tokens, h = tiny_shape.hidden, all = it->n_final * h,
           width = (size_t)tiny_shape.n_kv_heads * tiny_shape.head_dim;
    uint8_t *cells = kv_alloc(n * kv_cells(&tiny_shape), 1);
    float *often = kv_alloc(2 * all, sizeof *often), *once = often + all;
    uint64_t *histogram = kv_alloc(256 * spec.run.n_widths, sizeof *histogram);
    struct kv_error e = {0};
    struct kv_replay job = {
        .trace = tiny.trace, .model = model, .specs = &spec, .n_specs = 1, .mode = KV_REQUANT};
    if (kv_decide(&job, 0, item, cells, &e)) fail_msg("%s", e.msg);
    one_pass(it, &spec, cells, kv_requant_window(spec.format), once);

    // The prompt's K and V, as exact replay would hand them over.
    struct kv_scratch *s = kv_scratch_new();
    float *block = kv_alloc(2 * n * width + 6 * n * width, sizeof *block),
          *final = kv_alloc(n * h, sizeof *final);
    struct kv_layer_kv prompt[2];
    for (size_t l = 0; l < 2; l++)
        prompt[l] =
            (struct kv_layer_kv){block + (2 + 3 * l) * n * width, block + (3 + 3 * l) * n * width,
                                 block + (4 + 3 * l) * n * width};
    struct kv_tree before = {it->n_context - 1, it->n_context - 1, 0, NULL, it->ids};
    struct plain p = {.tree = &before, .exact = {block, block + n * width}, .scratch = prompt};
    struct kv_forward pass = {.tree = &before, .store = prompt_store, .self = &p, .final = final};
    if (kv_forward(model, &pass, s, &e)) fail_msg("%s", e.msg);
    if (kv_requant_run(&job, s, it, &spec, cells, prompt, 0, often, histogram, &e))
        fail_msg("%s", e.msg);
    double d = distance(often, once, all);
    kv_scratch_free(s);
    free(block);
    free(final);
    free(histogram);
    free(often);
    free(cells);
    kv_replay_spec_close(&spec);
    return d;
}

static void a_stable_format_loses_nothing_by_being_coded_again(void **state) {
    (void)state;
    for (size_t item = 0; item < ITEMS; item++) {
        double a = drift("static:bits=4@asym:group=32,window=3", item),
               b = drift("static:k=3,v=2@sym:window=1", item);
        if (!(a < 1e-3 && b < 1e-3)) fail_msg("item %zu: %.3g, %.3g", item, a, b);
    }
}

// turbo codes a vector's direction and keeps its norm, so each coding shortens what is decoded.
static void other_formats_drift_the_more_the_oftener_they_are_coded(void **state) {
    (void)state;
    for (size_t item = 0; item < ITEMS; item++) {
        double never = drift("static:bits=4@turbo:window=512", item),
               seldom = drift("static:bits=4@turbo:window=16", item),
               often = drift("static:bits=4@turbo:window=1", item);
        if (!(never < 1e-5 && seldom > 1e-2 && often > 1.5 * seldom))
            fail_msg("item %zu: %.3g, %.3g, %.3g", item, never, seldom, often);
    }
}

// QKVShare's handoffs (arXiv 2605.03884) repeat the coding of the prompt alone.
static void a_prompt_handed_on_drifts_in_the_same_formats(void **state) {
    struct tiny_result once[ITEMS], five[ITEMS];
    (void)state;
    replay("static:bits=4@asym:group=32", KV_PREFILL, once);
    replay("qkvshare(static:bits=4):hops=5@asym:group=32", KV_PREFILL, five);
    for (size_t k = 0; k < ITEMS; k++)
        assert_true(fabs(five[k].kl_nats - once[k].kl_nats) < 0.01 * once[k].kl_nats);
    replay("static:bits=4@turbo", KV_PREFILL, once);
    replay("qkvshare(static:bits=4):hops=5@turbo", KV_PREFILL, five);
    for (size_t k = 0; k < ITEMS; k++) assert_true(five[k].kl_nats > 1.2 * once[k].kl_nats);
}

// ---- the ledger by hand ---------------------------------------------------------------

// One layer, one KV head of 64: 128 values a token. A prompt of 5; choices of 3 and 8 tokens.
static double allocated(const char *text) {
    static const uint32_t first[] = {5, 8, 16};
    const struct kv_format_setting setting = {.shape = {1, 1, 1, 64, 64, 64, 64, 64},
                                              .order = KV_ORDER_GGML};
    const struct kv_trace_item item = {
        .id = "hand", .n_tokens = 16, .n_context = 5, .n_choices = 2, .first = first};
    struct kv_replay_spec spec;
    struct kv_ledger ledger;
    struct kv_error e;
    uint8_t cells[16 * 2];
    if (kv_replay_spec_open(&spec, text, &setting, 1, &e)) fail_msg("%s", e.msg);
    memset(cells, kv_width_index(&spec.run, 4), sizeof cells);
    kv_ledger_count_requant(&spec, &item, cells, &ledger);
    kv_replay_spec_close(&spec);
    return ledger.allocated_bits;
}

static void the_ledger_counts_what_was_coded_when_the_window_was_last_full(void **state) {
    (void)state;
    // Windows of 3: of the first choice's 8 tokens all are coded, of the other's 13 all but 2.
    assert_true(fabs(allocated("static:bits=4@sym:window=3") -
                     (4.25 + (11 * 4.25 + 2 * 16) / 13) / 2) < 1e-12);
    // Windows of 4: of 8 tokens 3 are exact, of 13 none.
    assert_true(fabs(allocated("static:bits=4@sym:window=4") -
                     ((5 * 4.25 + 3 * 16) / 8 + (13 * 4.25) / 13) / 2) < 1e-12);
    // No window: everything is coded at each token. Sinks stay exact.
    assert_true(fabs(allocated("static:bits=4@sym") - 4.25) < 1e-12);
    assert_true(fabs(allocated("static:bits=4@sym:sinks=2") -
                     ((2 * 16 + 6 * 4.25) / 8 + (2 * 16 + 11 * 4.25) / 13) / 2) < 1e-12);
    // KIVI, groups and windows of 4 (keys of 64 channels by 4 tokens: 4 + 32 / 4 bits; values of 64
    // channels: 4 + 32 / 4). 8 tokens: the prompt's 5 have one group of keys, and no window is
    // full: keys 4 coded, 4 exact; values 5 coded, 3 exact. 13 tokens: windows were full at 9 and
    // 13: 3 groups of keys, which run on over the branch point, and one token; all values.
    double group = 4 + 32.0 / 4, first = ((4 + 5) * group + (4 + 3) * 16) / 16,
           second = ((12 + 13) * group + 1 * 16) / 26;
    assert_true(fabs(allocated("static:bits=4@kivi:group=4,residual=4") - (first + second) / 2) <
                1e-12);
}

static void fisher_replay_does_not_answer_for_it(void **state) {
    struct kv_error e = {0};
    struct kv_replay_spec spec = tiny_spec(&tiny, "static:bits=4@sym");
    struct kv_trace_info in = *kv_trace_info(tiny.trace);
    (void)state;
    in.keep |= KV_KEEP_SENS;
    in.adjoint = (struct kv_adjoint_info){.mode = "inline", .self = "coded", .draws = 1};
    assert_int_not_equal(kv_fisher_answers(&in, &spec, KV_REQUANT, false, &e), 0);
    assert_non_null(strstr(e.msg, "do not answer for requant"));
    kv_replay_spec_close(&spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_that_never_fills_is_mode_prefill_with_exact_choices),
        cmocka_unit_test(sixteen_bits_stay_sixteen_bits_however_often_they_are_coded),
        cmocka_unit_test(a_stable_format_loses_nothing_by_being_coded_again),
        cmocka_unit_test(other_formats_drift_the_more_the_oftener_they_are_coded),
        cmocka_unit_test(a_prompt_handed_on_drifts_in_the_same_formats),
        cmocka_unit_test(the_ledger_counts_what_was_coded_when_the_window_was_last_full),
        cmocka_unit_test(fisher_replay_does_not_answer_for_it),
    };
    return cmocka_run_group_tests_name("requant", tests, set_up, tear_down);
}
