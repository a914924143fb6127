// SPDX-License-Identifier: Apache-2.0
// Cells lowered as a sequence grows, on a small random model: against forward passes in stages,
// each over what was stored by then; what a policy may not do is refused; the ledger counts the
// end.
#include "sim/replay/test/aged_pass.h"

#include "sim/replay/ask.h"
#include "sim/replay/ledger.h"

enum { ITEMS = 3 };
static struct tiny_trace tiny;
static struct kv_model *model;

static int set_up(void **state) {
    (void)state;
    return tiny_trace_open(&tiny, KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_SENS | KV_KEEP_CELLS, ITEMS,
                           &model);
}

static int tear_down(void **state) {
    (void)state;
    tiny_trace_close(&tiny);
    kv_model_close(model);
    return 0;
}

// ---- the same in stages ---------------------------------------------------------------

struct stage {
    const struct made *m;
    size_t n, from; // rows; those from here on are this stage's, the context has grown so far
    struct kv_layer_kv *kept;
    float *coded[2], *trial;
    void *memory;
};

// K and V as computed: of earlier stages' rows by them.
static void keep(const struct stage *s, uint32_t layer, const struct kv_layer_kv *kv) {
    size_t at = s->from * KV, bytes = (s->n - s->from) * KV * sizeof(float);
    memcpy(s->kept[layer].k_raw + at, kv->k_raw + at, bytes);
    memcpy(s->kept[layer].k + at, kv->k + at, bytes);
    memcpy(s->kept[layer].v + at, kv->v + at, bytes);
}

static void code_all(const struct stage *s, uint32_t layer, enum kv_side side, unsigned bits,
                     size_t n, const float *x, float *y) {
    uint8_t width = (uint8_t)s->m->ageing.at[bits];
    struct kv_error e;
    struct kv_vectors rows = {.layer = layer,
                              .side = side,
                              .n = n,
                              .x = x,
                              .x_stride = KV,
                              .y = y,
                              .y_stride = KV,
                              .cells = &width};
    assert_int_equal(kv_code_rows(s->m->spec.format, &rows, s->memory, NULL, &e), 0);
}

// Everything at 8 bits, then page by page what the rule lowers, from what was stored.
static int store_stage(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                       struct kv_layer_view *view, struct kv_error *e) {
    struct stage *s = self;
    (void)e;
    keep(s, layer, kv);
    for (size_t side = 0; side < 2; side++) {
        float *y = s->coded[side];
        code_all(s, layer, (enum kv_side)side, 8, s->n, side ? s->kept[layer].v : s->kept[layer].k,
                 y);
        for (size_t grown = PAGE; grown <= s->from; grown += PAGE)
            for (unsigned bits = 4; bits >= 2; bits -= 2) {
                code_all(s, layer, (enum kv_side)side, bits, grown, y, s->trial);
                for (size_t row = 0; row < grown; row++)
                    for (size_t h = 0; h < 2; h++)
                        if (bits_at(grown, row, layer, 2 * h + side) == bits &&
                            bits_at(grown - PAGE, row, layer, 2 * h + side) > bits)
                            memcpy(y + row * KV + h * 32, s->trial + row * KV + h * 32,
                                   32 * sizeof *y);
            }
    }
    view->k_coded = s->coded[0];
    view->v_coded = s->coded[1];
    return 0;
}

// Final states of the rows from `row` on, whose predecessors' K and V are in `kept`. Each stage is
// a pass over all of these rows, so that its products have the shape and the bits of one pass.
static void run_in_stages(const struct made *m, const struct kv_tree *t, uint32_t row,
                          struct kv_layer_kv *kept, float *final) {
    struct stage s = {.m = m, .n = t->n_tokens, .kept = kept};
    size_t n = (size_t)t->n_tokens * KV, h = tiny_shape.hidden;
    s.memory = kv_alloc(kv_code_scratch_bytes(m->spec.format), 1);
    s.coded[0] = kv_alloc(3 * n, sizeof(float));
    s.coded[1] = s.coded[0] + n;
    s.trial = s.coded[1] + n;
    struct kv_scratch *scratch = kv_scratch_new();
    float *all = kv_alloc((t->n_tokens - row) * h, sizeof *all);
    uint32_t *upto = reads_of(t);
    struct kv_error e;
    for (uint32_t from = row, to; from < t->n_tokens; from = to) {
        bool in_context = from < t->n_context;
        to = in_context ? (from / PAGE + 1) * PAGE : t->n_tokens;
        if (in_context && to > t->n_context) to = t->n_context;
        s.from = from;
        struct kv_forward job = {.tree = t,
                                 .first_row = row,
                                 .prefix = kept,
                                 .coded_upto = upto,
                                 .store = store_stage,
                                 .self = &s,
                                 .final = all};
        assert_int_equal(kv_forward(model, &job, scratch, &e), 0);
        memcpy(final + (from - row) * h, all + (from - row) * h, (to - from) * h * sizeof *all);
    }
    kv_scratch_free(scratch);
    free(s.coded[0]);
    free(s.memory);
    free(all);
    free(upto);
}

static double largest_difference(const float *a, const float *b, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

static const struct {
    uint32_t n_context, n_choices;
} trees[] = {{200, 2}, {3 * PAGE, 3}, {3 * PAGE, 0}, {3 * PAGE + 1, 0}, {40, 2}};
enum { N_TREES = sizeof trees / sizeof *trees };

static void check_widths(const struct made *m, const struct kv_tree *t, const struct passed *p) {
    size_t n_cells = kv_cells(&tiny_shape), grown = t->n_context / PAGE * PAGE;
    if (t->n_choices == 0 && grown == t->n_context) grown -= PAGE; // nobody reads the last ones
    for (size_t row = 0; row < t->n_tokens; row++)
        for (size_t c = 0; c < n_cells; c++) {
            unsigned bits = row < t->n_context ? bits_at(grown, row, (uint32_t)(c / 4), c % 4) : 8;
            assert_int_equal(p->cells[row * n_cells + c], m->ageing.at[bits]);
            assert_int_equal(p->first[row * n_cells + c], m->ageing.at[8]);
        }
}

static void each_query_reads_what_is_stored_by_then(void **state) {
    static const char *const formats[] = {"asym:group=32", "sym", "hadamard(sym)", "qaq"};
    (void)state;
    for (size_t f = 0; f < 4; f++)
        for (size_t i = 0; i < N_TREES; i++) {
            struct made *m = make(&tiny, formats[f], LOWERS, true),
                        *plain = make(&tiny, formats[f], LOWERS, false);
            struct made_tree *t = make_tree(trees[i].n_context, trees[i].n_choices);
            size_t n = t->tree.n_tokens, h = tiny_shape.hidden;
            struct kv_layer_kv *kept = kv_new(n);
            float *final = kv_alloc(n * h, sizeof *final);
            struct passed p = run_pass(model, m, t, 0, NULL, true),
                          q = run_pass(model, plain, t, 0, NULL, true);
            if (p.rc) fail_msg("%s: %s", p.e.where, p.e.msg);
            run_in_stages(m, &t->tree, 0, kept, final);
            assert_memory_equal(p.final, final, n * h * sizeof(float));
            check_widths(m, &t->tree, &p);
            // Up to the first cells lowered the bits are those of a policy that never revises.
            size_t same = n < 2 * PAGE ? n : 2 * PAGE;
            assert_memory_equal(p.final, q.final, same * h * sizeof(float));
            if (n > same)
                assert_true(largest_difference(p.final + same * h, q.final + same * h,
                                               (n - same) * h) > 1e-2);
            passed_free(&p);
            passed_free(&q);
            kv_free(kept);
            free(final);
            free(t);
            unmake(m);
            unmake(plain);
        }
}

static int store_exact(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                       struct kv_layer_view *view, struct kv_error *e) {
    (void)e;
    keep(self, layer, kv);
    view->k_exact = kv->k;
    view->v_exact = kv->v;
    return 0;
}

// The prompt's own queries read exact values; then it is stored, and aged, before others read it.
static void a_prompt_that_attended_exactly_is_aged_before_it_is_read(void **state) {
    (void)state;
    for (size_t i = 0; i < 2; i++)
        for (uint32_t left = 0; left < 2; left++) {
            struct made *m = make(&tiny, "asym:group=32", LOWERS, true);
            struct made_tree *t = make_tree(trees[i].n_context, trees[i].n_choices);
            uint32_t n = t->tree.n_tokens, rows = t->tree.n_context - left;
            size_t h = tiny_shape.hidden;
            struct kv_layer_kv *kept = kv_new(n);
            float *final = kv_alloc(n * h, sizeof *final);
            struct kv_tree prompt = {rows, rows, 0, NULL, t->ids};
            struct stage s = {.n = rows, .kept = kept};
            struct kv_forward job = {
                .tree = &prompt, .store = store_exact, .self = &s, .final = final};
            struct kv_scratch *scratch = kv_scratch_new();
            struct kv_error e;
            assert_int_equal(kv_forward(model, &job, scratch, &e), 0);
            struct passed p = run_pass(model, m, t, rows, kept, true);
            if (p.rc) fail_msg("%s: %s", p.e.where, p.e.msg);
            run_in_stages(m, &t->tree, rows, kept, final);
            assert_memory_equal(p.final, final, (n - rows) * h * sizeof(float));
            check_widths(m, &t->tree, &p);
            kv_scratch_free(scratch);
            passed_free(&p);
            kv_free(kept);
            free(final);
            free(t);
            unmake(m);
        }
}

static void revising_nothing_changes_no_bit(void **state) {
    (void)state;
    for (size_t i = 0; i < N_TREES; i++) {
        struct made *m = make(&tiny, "asym:group=32", CHANGES_NOTHING, true),
                    *plain = make(&tiny, "asym:group=32", LOWERS, false);
        struct made_tree *t = make_tree(trees[i].n_context, trees[i].n_choices);
        size_t n = t->tree.n_tokens;
        struct passed p = run_pass(model, m, t, 0, NULL, true),
                      q = run_pass(model, plain, t, 0, NULL, true);
        if (p.rc) fail_msg("%s: %s", p.e.where, p.e.msg);
        assert_true((m->ageing.calls > 0) == (n > PAGE));
        assert_memory_equal(p.final, q.final, n * tiny_shape.hidden * sizeof(float));
        assert_memory_equal(p.cells, q.cells, n * kv_cells(&tiny_shape));
        passed_free(&p);
        passed_free(&q);
        free(t);
        unmake(m);
        unmake(plain);
    }
}

static void what_a_revision_may_not_do_is_refused_and_the_place_is_named(void **state) {
    static const struct {
        enum how how;
        const char *says;
    } wrong[] = {{WIDENS,
                  "policy ageing widens a cell from 8 to 16 bits as it ages, at item it, token 5, "
                  "layer 1"},
                 {EVICTS, "policy ageing evicts a cell as it ages, at item it, token 5, layer 0"},
                 {PEEKS, "by what comes later"},
                 {REMEMBERS, "keeps besides its state"}};
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct made *m = make(&tiny, "asym:group=32", wrong[i].how, true);
        struct made_tree *t = make_tree(200, 2);
        // Whatever the noise is, some token it stands for differs in what is read of it.
        bool caught = false;
        for (uint32_t id = 0; id < 2 && !caught; id++) {
            for (uint32_t at = PAGE; at < 200; at += PAGE) t->tokens[at].id = id;
            struct passed p = run_pass(model, m, t, 0, NULL, true);
            caught = p.rc == KV_EFAIL && strstr(p.e.msg, wrong[i].says);
            if (p.rc && !caught) fail_msg("%s", p.e.msg);
            passed_free(&p);
        }
        if (!caught) fail_msg("not refused: %s", wrong[i].says);
        free(t);
        unmake(m);
    }
}

static void replay(const struct made *m, enum kv_mode mode, unsigned jobs,
                   struct tiny_result out[ITEMS]) {
    struct kv_replay job = {.trace = tiny.trace,
                            .model = model,
                            .specs = &m->spec,
                            .n_specs = 1,
                            .mode = mode,
                            .seed = 1,
                            .n_items = ITEMS,
                            .quiet = true,
                            .take = tiny_keep,
                            .self = out};
    struct kv_error e;
    memset(out, 0, ITEMS * sizeof *out);
    if (kv_replay_exact(&job, jobs, &e)) fail_msg("%s: %s", e.where, e.msg);
}

// Also by recorded features, which decide without a run.
static void the_ledger_counts_the_widths_of_the_end(void **state) {
    struct made *m = make(&tiny, "asym:group=32", LOWERS, true),
                *plain = make(&tiny, "asym:group=32", LOWERS, false);
    struct kv_replay job = {.trace = tiny.trace, .specs = &m->spec, .n_specs = 1};
    struct tiny_result aged[ITEMS], one[ITEMS], other[ITEMS];
    size_t n_cells = kv_cells(&tiny_shape), lowered = 0;
    (void)state;
    for (int mode = KV_INLINE; mode <= KV_PREFILL1; mode++) {
        replay(m, (enum kv_mode)mode, 2, aged);
        replay(plain, (enum kv_mode)mode, 1, one);
        replay(m, (enum kv_mode)mode, 1, other);
        for (size_t i = 0; i < ITEMS; i++) {
            const struct kv_trace_item *it = kv_trace_item(tiny.trace, i);
            uint8_t *cells = kv_alloc(2 * it->n_tokens * n_cells, 1),
                    *recorded = cells + it->n_tokens * n_cells;
            struct kv_ledger ledger;
            struct kv_error e;
            size_t grown = it->n_context / PAGE * PAGE;
            for (size_t row = 0; row < it->n_tokens; row++)
                for (size_t c = 0; c < n_cells; c++)
                    cells[row * n_cells + c] = (uint8_t)m->ageing.at[bits_at(
                        row < it->n_context ? grown : 0, row, (uint32_t)(c / 4), c % 4)];
            kv_ledger_count(&m->spec, it, cells, &ledger);
            assert_true(ledger.allocated_bits == aged[i].ledger.allocated_bits);
            assert_int_equal(kv_decide(&job, 0, i, recorded, &e), 0);
            assert_memory_equal(cells, recorded, it->n_tokens * n_cells);
            if (grown >= 2 * PAGE) {
                assert_true(aged[i].ledger.allocated_bits < one[i].ledger.allocated_bits);
                assert_true(aged[i].kl_nats != one[i].kl_nats);
                lowered++;
            }
            assert_memory_equal(&aged[i].kl_nats, &other[i].kl_nats, sizeof aged[i].kl_nats);
            free(cells);
        }
    }
    assert_true(lowered > 0);
    unmake(m);
    unmake(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_query_reads_what_is_stored_by_then),
        cmocka_unit_test(a_prompt_that_attended_exactly_is_aged_before_it_is_read),
        cmocka_unit_test(revising_nothing_changes_no_bit),
        cmocka_unit_test(what_a_revision_may_not_do_is_refused_and_the_place_is_named),
        cmocka_unit_test(the_ledger_counts_the_widths_of_the_end),
    };
    return cmocka_run_group_tests_name("ageing", tests, set_up, tear_down);
}
