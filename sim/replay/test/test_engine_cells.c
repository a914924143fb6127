// SPDX-License-Identifier: Apache-2.0
// Policy cells inside an engine's pass (sim/cuda/engine/decide.cuh, by one CPU thread): the widths
// that this CPU decides but for near ties, and outcomes to match. Random models of several shapes,
// made-up weights of every kind.
#include "policies/test/fake_cells.h"
#include "sim/model/engine.h"
#include "sim/replay/batches.h"
#include "sim/replay/test/tiny_trace.h"
#include "sim/test/light.h"

enum { ITEMS = 2 };

// What is decided by, on which model.
static const struct subject {
    struct kv_shape shape;
    const char *inputs;
    size_t n_token;
    bool attention, probe, net;
    uint32_t window; // of odd layers
} whole = {{2, 4, 2, 32, 64, 96, N_TINY_PIECES, 1024}, "attention/probe", 0, true, true, true, 0},
  wide = {{2, 6, 2, 64, 96, 64, N_TINY_PIECES, 1024},
          "paper/token/attention",
          8,
          true,
          false,
          true,
          0},
  alone = {{3, 2, 1, 128, 32, 32, N_TINY_PIECES, 1024}, "token/probe", 4, false, true, false, 0},
  sliding = {{2, 8, 8, 16, 64, 32, N_TINY_PIECES, 1024}, "attention", 0, true, false, true, 20},
  odd = {{2, 5, 1, 80, 40, 24, N_TINY_PIECES, 1024}, "place", 0, false, false, false, 0};

struct bench {
    struct tiny_trace trace;
    struct kv_model *model;
    char weights[64];
};

static void bench_init(struct bench *b, const struct subject *s) {
    struct tiny_pieces pieces;
    struct kv_error e;
    b->model = kv_model_random(&s->shape, KV_ORDER_HF, true, 11);
    make_tiny_pieces(&pieces);
    assert_int_equal(kv_tokenizer_new(&b->model->tokenizer, pieces.text, N_TINY_PIECES, tiny_merges,
                                      N_TINY_MERGES, true, &e),
                     0);
    for (uint32_t l = 1; l < s->shape.n_layers; l += 2) b->model->layers[l].window = s->window;
    uint32_t more = s->n_token ? KV_KEEP_KV | KV_KEEP_SENS | KV_KEEP_CELLS : 0; // surprisals
    assert_int_equal(tiny_trace_of(&b->trace, b->model, KV_KEEP_FINAL | more, ITEMS), 0);
    cells_path(b->weights, sizeof b->weights);
    struct fake_cells c = {.shape = s->shape,
                           .inputs = s->inputs,
                           .digest = kv_trace_info(b->trace.trace)->model_digest,
                           .n_token = s->n_token,
                           .attention = s->attention,
                           .probe = s->probe,
                           .net = s->net,
                           .spread = true,
                           .seed = 7};
    write_cells(b->weights, &c);
}

static void bench_fini(struct bench *b) {
    tiny_trace_close(&b->trace);
    kv_model_close(b->model);
    if (*b->weights) unlink(b->weights);
}

// Decisions and outcomes of one replay.
struct answers {
    const struct bench *b;
    uint8_t *cells[ITEMS];
    struct tiny_result out[ITEMS];
};

static void keep_cells(void *self, size_t item, size_t spec, const uint8_t *cells) {
    struct answers *a = self;
    const struct kv_trace_item *it = kv_trace_item(a->b->trace.trace, item);
    size_t n = it->n_tokens * kv_cells(&a->b->model->shape);
    (void)spec;
    a->cells[item] = memcpy(kv_alloc(n, 1), cells, n);
}

static int keep_outcome(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                        struct kv_error *e) {
    return tiny_keep(((struct answers *)self)->out, item, spec, o, e);
}

static struct kv_replay job_of(struct answers *a, const struct kv_replay_spec *spec,
                               enum kv_mode mode) {
    return (struct kv_replay){.trace = a->b->trace.trace,
                              .model = a->b->model,
                              .specs = spec,
                              .n_specs = 1,
                              .mode = mode,
                              .seed = 1,
                              .quiet = true,
                              .n_items = ITEMS,
                              .take = keep_outcome,
                              .decided = keep_cells,
                              .self = a};
}

static void must(int rc, const struct kv_error *e) {
    if (rc) fail_msg("%s: %s", e->where, e->msg);
}

static struct kv_replay_spec spec_of(const struct bench *b, const char *keys, const char *format) {
    char *text = kv_format_text("cells:weights=%s,%s@%s", b->weights, keys, format);
    struct kv_replay_spec spec = tiny_spec(&b->trace, text);
    free(text);
    return spec;
}

static bool attach(struct bench *b) {
    const char *build = getenv("BUILD");
    char *path = kv_format_text("%s/libkvsim-cuda-emulated.so", build ? build : "build");
    struct kv_error e;
    int rc = access(path, R_OK) == 0 ? kv_engine_attach(b->model, path, false, &e) : 1;
    free(path);
    if (rc < 0) fail_msg("%s: %s", e.where, e.msg);
    return rc == 0;
}

// How many widths differ, of how many.
static void compare(const struct answers *cpu, const struct answers *gpu, size_t items,
                    size_t *other, size_t *all) {
    size_t n_cells = kv_cells(&cpu->b->model->shape);
    for (size_t i = 0; i < items; i++) {
        size_t n = kv_trace_item(cpu->b->trace.trace, i)->n_tokens * n_cells, differ = 0;
        const struct tiny_result *x = &cpu->out[i], *y = &gpu->out[i];
        for (size_t c = 0; c < n; c++) differ += cpu->cells[i][c] != gpu->cells[i][c];
        double bits = 8.0 * (double)differ / (double)n;
        if (fabs(x->kl_nats - y->kl_nats) > 1e-6 + 1e-2 * x->kl_nats ||
            fabs(x->ledger.allocated_bits - y->ledger.allocated_bits) > bits + 1e-12 ||
            fabs(x->ledger.entropy_bits - y->ledger.entropy_bits) > bits + 1e-3)
            fail_msg("item %zu: %g against %g nats, %g against %g bits, %g against %g of entropy",
                     i, y->kl_nats, x->kl_nats, y->ledger.allocated_bits, x->ledger.allocated_bits,
                     y->ledger.entropy_bits, x->ledger.entropy_bits);
        *other += differ;
        *all += n;
    }
}

static void answers_fini(struct answers *a) {
    for (size_t i = 0; i < ITEMS; i++) free(a->cells[i]);
}

// The CPU's answers and the engine's to one spec, on so many items.
static void same(struct bench *b, const char *keys, const char *format, enum kv_mode mode,
                 size_t items) {
    struct answers cpu = {.b = b}, gpu = {.b = b};
    struct kv_replay_spec spec = spec_of(b, keys, format);
    struct kv_replay job = job_of(&cpu, &spec, mode);
    struct kv_error e;
    bool served = false;
    size_t other = 0, all = 0, widths[KV_MAX_WIDTHS] = {0}, used = 0;
    job.n_items = items;
    if (b->model->layers[1].window) assert_non_null(spec.windows); // which the CPU's features mind
    must(kv_replay_exact(&job, 1, &e), &e);
    if (!attach(b)) skip();
    job.self = &gpu;
    must(kv_replay_batches(&job, 1, NULL, &served, &e), &e);
    kv_engine_detach(b->model);
    assert_true(served);
    compare(&cpu, &gpu, items, &other, &all);
    for (size_t c = 0; c < all / items / 2; c++) widths[gpu.cells[0][c]]++;
    for (size_t w = 0; w < KV_MAX_WIDTHS; w++) used += widths[w] > 0;
    print_message("# %s@%s, %s: %zu of %zu widths differ, %zu widths\n", keys, format,
                  kv_mode_names[mode], other, all, used);
    if (other * 100 > all) fail_msg("%s: %zu of %zu widths differ", keys, other, all);
    if (used < 2) fail_msg("%s: one width is no decision", keys);
    answers_fini(&cpu);
    answers_fini(&gpu);
    kv_replay_spec_close(&spec);
}

// Decides a table of specs on a model of its own.
struct asked {
    const char *keys, *format;
    enum kv_mode mode;
};

static void same_all(const struct subject *s, const struct asked *asked, size_t n) {
    struct bench b;
    bench_init(&b, s);
    for (size_t i = 0; i < n && (i == 0 || !light_testing()); i++)
        same(&b, asked[i].keys, asked[i].format, asked[i].mode, i || light_testing() ? 1 : ITEMS);
    bench_fini(&b);
}

static void a_pass_decides_as_this_cpu_does_whatever_holds_the_budget(void **state) {
    static const struct asked asked[] = {
        {"bits=5", "asym:group=32", KV_INLINE},
        {"bits=5,hold=none", "asym:group=32", KV_PREFILL},
        {"bits=4,hold=hard,gain=0,scale=0.01", "asym:group=32", KV_INLINE},
        {"bits=5,features=exact", "asym:group=32", KV_PREFILL1},
    };
    (void)state;
    same_all(&whole, asked, sizeof asked / sizeof *asked);
}

static void and_whatever_shares_a_width_or_stands_for_its_error(void **state) {
    static const struct asked asked[] = {
        {"bits=5,grain=kv,error=scaled", "hadamard(sym)", KV_INLINE},
        {"bits=5,grain=layer,hold=hard,error=range", "sym:group=16,sinks=2", KV_PREFILL},
        {"bits=5,error=range,features=exact", "asym:group=32", KV_INLINE},
        {"bits=5,widths=3/4/8", "asym:group=32", KV_PREFILL1},
    };
    (void)state;
    same_all(&whole, asked, sizeof asked / sizeof *asked);
}

static void on_models_and_inputs_of_other_shapes(void **state) {
    static const struct {
        const struct subject *on;
        struct asked asked;
    } all[] = {{&wide, {"bits=5", "asym:group=16", KV_INLINE}},
               {&alone, {"bits=5", "sym", KV_PREFILL}},
               {&sliding, {"bits=5", "asym:group=16", KV_INLINE}},
               {&odd, {"bits=5", "sym", KV_PREFILL}}};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all && (i == 0 || !light_testing()); i++)
        same_all(all[i].on, &all[i].asked, 1);
}

// ---- a real model ---------------------------------------------------------------------

// How many widths of layers [from, to) differ.
static size_t differ(const struct answers *a, const struct answers *b, size_t from, size_t to) {
    const struct kv_shape *s = &a->b->model->shape;
    size_t all = kv_cells(s), of_layer = all / s->n_layers, n = 0;
    for (size_t row = 0; row < kv_trace_item(a->b->trace.trace, 0)->n_tokens; row++)
        for (size_t c = row * all + from * of_layer; c < row * all + to * of_layer; c++)
            n += a->cells[0][c] != b->cells[0][c];
    return n;
}

// Thirty layers deep what rounding flips in one decides the next: the engine may differ from this
// CPU by what the CPU differs from itself when its embeddings move by a millionth.
static void a_real_models_widths_differ_as_rounding_makes_them(void **state) {
    enum { CPU, REDRAWN, AGAIN, GPU, N };
    const char *path = getenv("MODEL");
    struct bench b = {.weights = ""};
    struct answers a[N] = {{.b = &b}, {.b = &b}, {.b = &b}, {.b = &b}};
    struct kv_error e;
    bool served = false;
    (void)state;
    if (light_testing()) skip();
    must(kv_model_open(&b.model, path ? path : "data/SmolLM2-135M-Instruct.Q4_1.gguf",
                       KV_WEIGHTS_F32, &e),
         &e);
    must(tiny_trace_of(&b.trace, b.model, KV_KEEP_FINAL, 1), &e);
    struct kv_replay_spec spec = tiny_spec(&b.trace, "cells:bits=5@asym:group=32");
    for (int run = 0; run < N; run++) {
        struct kv_replay job = job_of(&a[run], &spec, KV_INLINE);
        job.n_items = 1;
        job.redraw = run == GPU ? 0 : (uint32_t)run;
        if (run < GPU)
            must(kv_replay_exact(&job, 1, &e), &e);
        else if (!attach(&b))
            skip();
        else
            must(kv_replay_batches(&job, 1, NULL, &served, &e), &e);
    }
    assert_true(served);
    size_t layers = b.model->shape.n_layers, early = differ(&a[CPU], &a[GPU], 0, 4),
           all = differ(&a[CPU], &a[GPU], 0, layers), one = differ(&a[CPU], &a[REDRAWN], 0, layers),
           two = differ(&a[CPU], &a[AGAIN], 0, layers),
           n = kv_trace_item(b.trace.trace, 0)->n_tokens * kv_cells(&b.model->shape);
    print_message("# of %zu widths %zu differ, after redraws %zu and %zu; %.4f nats, %.4f; %.4f, "
                  "%.4f\n",
                  n, all, one, two, a[CPU].out[0].kl_nats, a[GPU].out[0].kl_nats,
                  a[REDRAWN].out[0].kl_nats, a[AGAIN].out[0].kl_nats);
    assert_true(early * 100 <= n * 4 / layers);
    assert_true(all <= (one > two ? one : two) * 2 + n / 100);
    assert_true(fabs(a[GPU].out[0].kl_nats / a[CPU].out[0].kl_nats - 1) < 0.35);
    assert_true(fabs(a[GPU].out[0].ledger.allocated_bits - a[CPU].out[0].ledger.allocated_bits) <
                0.02);
    kv_engine_detach(b.model);
    for (int run = 0; run < N; run++) answers_fini(&a[run]);
    kv_replay_spec_close(&spec);
    bench_fini(&b);
}

static double mean_bits(const struct tiny_result *r) {
    double sum = 0;
    for (size_t i = 0; i < ITEMS; i++) sum += r[i].ledger.allocated_bits / ITEMS;
    return sum;
}

// An engine's answers to one spec.
static void decide_in_engine(struct bench *b, const struct kv_replay_spec *spec,
                             struct answers *gpu) {
    *gpu = (struct answers){.b = b};
    struct kv_replay job = job_of(gpu, spec, KV_INLINE);
    struct kv_error e;
    must(kv_replay_exact(&job, 1, &e), &e);
    answers_fini(gpu);
}

static void a_hard_budget_binds_and_a_matched_one_is_met(void **state) {
    struct bench b;
    struct answers gpu;
    struct kv_error e;
    (void)state;
    if (light_testing()) skip();
    bench_init(&b, &whole);
    struct kv_replay_spec loose = spec_of(&b, "bits=4,hold=none,scale=0.01", "asym:group=32"),
                          hard = spec_of(&b, "bits=4,hold=hard,gain=0,scale=0.01", "asym:group=32"),
                          matched = spec_of(&b, "bits=5,hold=matched", "asym:group=32");
    if (!attach(&b)) skip();
    decide_in_engine(&b, &loose, &gpu);
    double most = mean_bits(gpu.out);
    decide_in_engine(&b, &hard, &gpu);
    if (mean_bits(gpu.out) > most - 0.1)
        fail_msg("held hard %.3f bits, not held %.3f", mean_bits(gpu.out), most);
    struct kv_replay job = job_of(&gpu, &matched, KV_INLINE);
    must(kv_replay_match(&job, &matched, 1, 1, &e), &e);
    decide_in_engine(&b, &matched, &gpu);
    if (fabs(mean_bits(gpu.out) - 5) > 0.01)
        fail_msg("%s takes %.4f", matched.canonical, mean_bits(gpu.out));
    kv_engine_detach(b.model);
    kv_replay_spec_close(&loose);
    kv_replay_spec_close(&hard);
    kv_replay_spec_close(&matched);
    bench_fini(&b);
}

// What is no number decides nothing, and is said; what a plain description cannot do is left to the
// caller.
static void what_cannot_be_decided_is_said_or_left(void **state) {
    struct bench b;
    struct answers gpu = {.b = &b};
    struct kv_error e;
    bool served = true;
    (void)state;
    bench_init(&b, &whole);
    if (!attach(&b)) skip();
    struct kv_replay_spec spec = spec_of(&b, "bits=5", "asym:group=32"),
                          unmatched = spec_of(&b, "bits=5,hold=matched", "asym:group=32");
    struct kv_replay job = job_of(&gpu, &spec, KV_INLINE),
                     other = job_of(&gpu, &unmatched, KV_INLINE);
    assert_int_equal(kv_replay_batches(&other, 1, NULL, &served, &e), KV_EUSAGE);
    assert_non_null(strstr(e.msg, "hold=matched is led"));
    job.audit = true;
    assert_int_equal(kv_replay_batches(&job, 1, NULL, &served, &e), 0);
    assert_false(served);
    kv_engine_detach(b.model);
    b.model->layers[1].attn_norm[3] = NAN;
    job.audit = false;
    assert_true(attach(&b));
    assert_int_equal(kv_replay_batches(&job, 1, NULL, &served, &e), KV_EFAIL);
    if (!strstr(e.msg, "a feature of token 0 in layer 1 is no number")) fail_msg("%s", e.msg);
    kv_engine_detach(b.model);
    kv_replay_spec_close(&spec);
    kv_replay_spec_close(&unmatched);
    bench_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pass_decides_as_this_cpu_does_whatever_holds_the_budget),
        cmocka_unit_test(and_whatever_shares_a_width_or_stands_for_its_error),
        cmocka_unit_test(on_models_and_inputs_of_other_shapes),
        cmocka_unit_test(a_real_models_widths_differ_as_rounding_makes_them),
        cmocka_unit_test(a_hard_budget_binds_and_a_matched_one_is_met),
        cmocka_unit_test(what_cannot_be_decided_is_said_or_left),
    };
    return cmocka_run_group_tests_name("cells in an engine", tests, NULL, NULL);
}
