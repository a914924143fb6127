// SPDX-License-Identifier: Apache-2.0
// The backward pass judged by central finite differences of a plain float64 forward pass.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
// cmocka wants the four headers above before its own
#include <cmocka.h>

#include "policies/policy.h"
#include "sim/model/adjoint.h"
#include "sim/model/kernels.h"
#include "sim/model/test/slow_model.h"
#include "sim/test/light.h"

// ---- the scalar in float64 ------------------------------------------------------------

// Added to a key or value as later queries read it.
struct nudge {
    uint32_t layer, row, element;
    enum kv_side side;
    double delta;
    const uint32_t *counted; // reads that see the delta, as in kv_adjoint; NULL = all
};

static double read_nudged(const void *self, const struct slow_read *r, double x) {
    const struct nudge *n = self;
    bool here = r->layer == n->layer && r->row == n->row && r->element == n->element &&
                r->side == n->side && (!n->counted || r->position < n->counted[r->query]);
    return here ? x + n->delta : x;
}

// sum over scored positions and their labels of log p(label).
static double slow_scalar(const struct kv_model *m, const struct kv_tree *t, const struct nudge *n,
                          const struct kv_adjoint_seed *seed, size_t draw) {
    size_t h = m->shape.hidden;
    struct slow slow = {.m = m, .t = t, .read = read_nudged, .self = n};
    double *final = calloc(t->n_tokens * h, sizeof *final),
           *logit = calloc(m->shape.vocab, sizeof *logit), scalar = 0;
    const uint32_t *label = seed->label + draw * seed->n_labels;
    slow_forward(&slow, final);
    for (size_t i = 0; i < seed->n_scored; i++) {
        double sum = 0;
        slow_product(logit, &m->head, final + seed->scored[i].row * h);
        for (size_t v = 0; v < m->shape.vocab; v++) sum += exp(logit[v]);
        for (uint32_t c = 0; c < seed->scored[i].count; c++) scalar += logit[*label++] - log(sum);
    }
    free(final);
    free(logit);
    return scalar;
}

// ---- the pass under test --------------------------------------------------------------

static int keep_float32(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                        struct kv_layer_view *view, struct kv_error *e) {
    (void)self, (void)layer, (void)e;
    *view = (struct kv_layer_view){.k_exact = kv->k, .v_exact = kv->v};
    return 0;
}

struct gradients {
    size_t n; // a layer's floats
    float *dk, *dv;
};

static void take(void *self, size_t draw, uint32_t layer, const float *dk, const float *dv,
                 const float *d_evict) {
    (void)draw, (void)d_evict;
    struct gradients *g = self;
    memcpy(g->dk + layer * g->n, dk, g->n * sizeof *dk);
    memcpy(g->dv + layer * g->n, dv, g->n * sizeof *dv);
}

static const uint32_t ids[] = {3, 17, 5, 40, 2, 9, 33, 12, 7, 21, 30}, first[] = {5, 8, 11};
static const struct kv_tree tree = {11, 5, 2, first, ids};
static const struct kv_scored scored[] = {{4, 2}, {5, 1}, {6, 1}, {8, 1}, {9, 1}};

// `how` NULL: a Llama without anything more.
static void compare_with_differences(const struct kv_shape *shape, enum kv_order order,
                                     const struct kv_random_model *how, const uint32_t *counted) {
    struct kv_model *m =
        kv_model_random_as(shape, order, true, 7, how ? how : &(struct kv_random_model){0});
    assert_non_null(m);
    struct kv_scratch *s = kv_scratch_new();
    struct kv_tape *tape = kv_tape_new(m, tree.n_tokens, KV_TAPE_BYTES);
    struct kv_error e;
    size_t n_kv = (size_t)shape->n_kv_heads * shape->head_dim;
    struct gradients g = {.n = tree.n_tokens * n_kv};
    g.dk = calloc(g.n * shape->n_layers, sizeof *g.dk);
    g.dv = calloc(g.n * shape->n_layers, sizeof *g.dv);
    float *final = calloc(tree.n_tokens * shape->hidden, sizeof *final),
          *d_final = calloc(tree.n_tokens * shape->hidden, sizeof *d_final);
    assert_int_equal(
        0, kv_forward(m,
                      &(struct kv_forward){
                          .tree = &tree, .store = keep_float32, .tape = tape, .final = final},
                      s, &e));
    struct kv_adjoint_seed seed;
    kv_adjoint_seed(m, final, scored, 5, 11, 2, s, &seed);
    kv_adjoint_draw(m, &seed, 1, tree.n_tokens, d_final);
    kv_adjoint(m,
               &(struct kv_adjoint){.tree = &tree,
                                    .tape = tape,
                                    .counted = counted,
                                    .n_draws = 1,
                                    .d_final = d_final,
                                    .take = take,
                                    .self = &g},
               s);
    double error = 0, size = 0, step = 1e-4;
    const uint32_t stride = light_testing() ? 5 : 1; // of channels
    for (uint32_t l = 0; l < shape->n_layers; l++)
        for (uint32_t side = 0; side < 2; side++)
            for (uint32_t row = 0; row < tree.n_tokens; row++)
                for (uint32_t i = row % stride; i < n_kv; i += stride) {
                    struct nudge n = {l, row, i, (enum kv_side)side, step, counted};
                    double up = slow_scalar(m, &tree, &n, &seed, 1);
                    n.delta = -step;
                    double difference = (up - slow_scalar(m, &tree, &n, &seed, 1)) / (2 * step);
                    double mine = (double)(side ? g.dv : g.dk)[l * g.n + row * n_kv + i];
                    error += (mine - difference) * (mine - difference);
                    size += difference * difference;
                }
    assert_true(size > 1e-8);
    if (sqrt(error / size) >= 1e-5)
        fail_msg("relative error %.2e, allowed 1e-5", sqrt(error / size));
    kv_adjoint_seed_fini(&seed);
    kv_tape_free(tape);
    kv_scratch_free(s);
    kv_model_close(m);
    free(g.dk);
    free(g.dv);
    free(final);
    free(d_final);
}

static void whole_pass_ggml(void **state) {
    (void)state;
    compare_with_differences(&(struct kv_shape){2, 6, 2, 16, 48, 64, 48, 64}, KV_ORDER_GGML, NULL,
                             NULL);
}

static void whole_pass_hf(void **state) {
    (void)state;
    compare_with_differences(&(struct kv_shape){2, 2, 2, 32, 48, 64, 48, 64}, KV_ORDER_HF, NULL,
                             NULL);
}

// Mode prefill, own step exact: the context reads nothing coded but its last token, which reads all
// before it.
static void counted_reads(void **state) {
    (void)state;
    const uint32_t counted[] = {0, 0, 0, 0, 4, 5, 6, 7, 5, 6, 7};
    compare_with_differences(&(struct kv_shape){2, 4, 2, 16, 48, 64, 48, 64}, KV_ORDER_GGML, NULL,
                             counted);
}

// ---- issue 15: what other families do -------------------------------------------------

// Waves of 16 channels and base 100 are 6 to 354 tokens long: the ramps fall among them.
static const struct kv_rope llama3_rope = {.base = 100,
                                           .scaling = KV_ROPE_LLAMA3,
                                           .factor = 4,
                                           .low_factor = 1,
                                           .high_factor = 4,
                                           .attention_factor = 1,
                                           .original_tokens = 64},
                            yarn_rope = {.base = 100,
                                         .scaling = KV_ROPE_YARN,
                                         .factor = 4,
                                         .low_factor = 0.5f,
                                         .high_factor = 8,
                                         .attention_factor = 1.2f,
                                         .original_tokens = 64},
                            linear_rope = {.base = 100,
                                           .scaling = KV_ROPE_LINEAR,
                                           .factor = 2.5f,
                                           .attention_factor = 1},
                            plain_rope = {.base = 10, .factor = 1, .attention_factor = 1};
static const struct family {
    struct kv_shape shape;
    struct kv_random_model how;
} families[] = {
    {{2, 4, 2, 16, 48, 64, 48, 64}, {.architecture = "qwen2"}},
    {{2, 4, 1, 16, 48, 64, 48, 64}, {.architecture = "qwen3", .biases = true}},
    {{2, 2, 1, 32, 48, 64, 48, 64},
     {.architecture = "gemma3",
      .biases = true,
      .window = 4,
      .window_pattern = 2,
      .rope = {linear_rope, plain_rope},
      .attn_scale = 0.2f}},
    // Windows shorter and longer than a choice, and one of a single token.
    {{3, 4, 2, 16, 48, 64, 48, 64}, {.architecture = "gemma3", .window = 2, .window_pattern = 3}},
    {{1, 4, 2, 16, 48, 64, 48, 64}, {.architecture = "gemma3", .window = 1, .window_pattern = 2}},
    {{2, 6, 2, 16, 48, 64, 48, 64},
     {.architecture = "llama", .biases = true, .rope = {llama3_rope}}},
    {{2, 4, 2, 16, 48, 64, 48, 64}, {.architecture = "llama", .rope = {yarn_rope}}},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

static void issue_15_other_families_equal_differences(void **state) {
    (void)state;
    for (size_t i = 0; i < N_FAMILIES; i++)
        compare_with_differences(&families[i].shape, i % 2 ? KV_ORDER_HF : KV_ORDER_GGML,
                                 &families[i].how, NULL);
}

static void issue_15_counted_reads_through_a_window(void **state) {
    (void)state;
    const uint32_t counted[] = {0, 0, 0, 0, 4, 5, 6, 7, 5, 6, 7};
    compare_with_differences(&families[2].shape, KV_ORDER_HF, &families[2].how, counted);
}

// ---- tapes ----------------------------------------------------------------------------

struct all_draws {
    size_t n, n_layers; // a layer's floats
    float *dk, *dv;     // [draws][n_layers][n]
};

static void take_all(void *self, size_t draw, uint32_t layer, const float *dk, const float *dv,
                     const float *d_evict) {
    struct all_draws *g = self;
    (void)d_evict;
    memcpy(g->dk + (draw * g->n_layers + layer) * g->n, dk, g->n * sizeof *dk);
    memcpy(g->dv + (draw * g->n_layers + layer) * g->n, dv, g->n * sizeof *dv);
}

enum { DRAWS = 3 };

// Gradients of all draws in one call or in one call each, over a tape of at most so many bytes.
static struct all_draws gradients_over(const struct kv_model *m, const struct kv_tree *t,
                                       size_t most_bytes, bool at_once) {
    const struct kv_shape *sh = &m->shape;
    struct kv_scratch *s = kv_scratch_new();
    struct kv_tape *tape = kv_tape_new(m, t->n_tokens, most_bytes);
    struct kv_error e;
    struct kv_adjoint_seed seed;
    struct all_draws g = {.n = (size_t)t->n_tokens * sh->n_kv_heads * sh->head_dim,
                          .n_layers = sh->n_layers};
    size_t n = (size_t)t->n_tokens * sh->hidden, all = DRAWS * g.n_layers * g.n;
    float *final = calloc(n, sizeof *final), *d_final = calloc(DRAWS * n, sizeof *d_final);
    g.dk = calloc(all, sizeof *g.dk);
    g.dv = calloc(all, sizeof *g.dv);
    assert_int_equal(most_bytes < kv_tape_bytes(m, t->n_tokens, false), tape->shared != NULL);
    assert_int_equal(
        0,
        kv_forward(
            m, &(struct kv_forward){.tree = t, .store = keep_float32, .tape = tape, .final = final},
            s, &e));
    kv_adjoint_seed(m, final, scored, t->n_choices ? 5 : 1, 11, DRAWS, s, &seed);
    for (size_t r = 0; r < DRAWS; r++) kv_adjoint_draw(m, &seed, r, t->n_tokens, d_final + r * n);
    for (size_t r = 0; r < (at_once ? 1 : DRAWS); r++) {
        struct all_draws part = g;
        part.dk += r * g.n_layers * g.n;
        part.dv += r * g.n_layers * g.n;
        kv_adjoint(m,
                   &(struct kv_adjoint){.tree = t,
                                        .tape = tape,
                                        .n_draws = at_once ? DRAWS : 1,
                                        .d_final = d_final + r * n,
                                        .take = take_all,
                                        .self = &part},
                   s);
    }
    kv_adjoint_seed_fini(&seed);
    kv_tape_free(tape);
    kv_scratch_free(s);
    free(final);
    free(d_final);
    return g;
}

static void check_thrift(struct kv_model *m, const struct kv_tree *t) {
    const struct kv_shape *sh = &m->shape;
    struct all_draws whole = gradients_over(m, t, SIZE_MAX, true),
                     thrifty = gradients_over(m, t, 0, true),
                     single = gradients_over(m, t, 0, false);
    size_t bytes = DRAWS * whole.n_layers * whole.n * sizeof *whole.dk;
    assert_memory_equal(whole.dk, thrifty.dk, bytes);
    assert_memory_equal(whole.dv, thrifty.dv, bytes);
    assert_memory_equal(whole.dk, single.dk, bytes);
    assert_memory_equal(whole.dv, single.dv, bytes);
    if (sh->n_layers > 1) assert_true(kv_tape_bytes(m, 100, true) < kv_tape_bytes(m, 100, false));
    struct all_draws *all[] = {&whole, &thrifty, &single};
    for (size_t k = 0; k < 3; k++) free(all[k]->dk), free(all[k]->dv);
    kv_model_close(m);
}

static void a_thrifty_tape_gives_the_same_bits_and_takes_less(void **state) {
    static const struct kv_shape shapes[] = {{4, 6, 2, 16, 48, 64, 48, 64},
                                             {3, 2, 2, 32, 48, 64, 48, 64}};
    (void)state;
    for (size_t i = 0; i < 2; i++)
        check_thrift(kv_model_random(&shapes[i], i ? KV_ORDER_HF : KV_ORDER_GGML, true, 7), &tree);
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (families[i].shape.n_layers > 1)
            check_thrift(
                kv_model_random_as(&families[i].shape, KV_ORDER_HF, true, 7, &families[i].how),
                &tree);
}

// Longer than what is computed at once: activations go by chunks and blocks, forth and again.
static void a_thrifty_tape_of_a_long_sequence_gives_the_same_bits(void **state) {
    enum { TOKENS = 2100 };
    static uint32_t long_ids[TOKENS];
    const struct kv_shape shape = {2, 4, 2, 16, 48, 64, 48, TOKENS};
    const uint32_t end = TOKENS;
    const struct kv_tree t = {TOKENS, TOKENS, 0, &end, long_ids};
    (void)state;
    for (uint32_t i = 0; i < TOKENS; i++)
        long_ids[i] = (uint32_t)(kv_draw(3, 0, i) * (double)shape.vocab);
    check_thrift(kv_model_random(&shape, KV_ORDER_GGML, true, 7), &t);
}

// ---- the real model ----------------------------------------------------------------------

// Adds a direction to one layer's keys and values as they are read.
struct push {
    uint32_t layer;
    float size;
    const float *dk, *dv; // [n_tokens][n_kv]
    size_t n;
    float *k, *v;
};

static int push_store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                      struct kv_layer_view *view, struct kv_error *e) {
    struct push *p = self;
    (void)e;
    for (size_t i = 0; i < p->n; i++) {
        p->k[i] = kv->k[i] + (layer == p->layer ? p->size * p->dk[i] : 0);
        p->v[i] = kv->v[i] + (layer == p->layer ? p->size * p->dv[i] : 0);
    }
    *view = (struct kv_layer_view){.k_exact = p->k, .v_exact = p->v};
    return 0;
}

static double scalar_of(const struct kv_model *m, const float *final,
                        const struct kv_adjoint_seed *seed, struct kv_scratch *s) {
    const uint32_t *label = seed->label;
    double sum = 0;
    for (size_t i = 0; i < seed->n_scored; i++) {
        struct kv_reference r;
        kv_head_reference(m, final + seed->scored[i].row * m->shape.hidden, 1, s, &r);
        for (uint32_t c = 0; c < seed->scored[i].count; c++)
            sum += kv_reference_logprob(m, &r, 0, *label++);
    }
    return sum;
}

// Along the gradient of a layer the scalar must change as |g|^2 says, within 1 %.
static void directional_derivatives_of_the_real_model(void **state) {
    const char *path = getenv("MODEL");
    struct kv_model *m;
    struct kv_error e;
    (void)state;
    if (kv_model_open(&m, path ? path : "data/SmolLM2-135M-Instruct.Q4_1.gguf", KV_WEIGHTS_F32, &e))
        skip();
    // "Pour the milk into the pan and" ... any text of the vocabulary serves: two short choices
    // branch off.
    static const uint32_t text[] = {504, 713, 216, 34,   32, 34,    36,  761, 216,
                                    35,  38,  38,  2009, 30, 19556, 905, 260, 2380};
    static const uint32_t starts[] = {12, 15, 18};
    static const struct kv_tree real = {18, 12, 2, starts, text};
    static const struct kv_scored rows[] = {{11, 2}, {12, 1}, {13, 1}, {15, 1}, {16, 1}};
    const struct kv_shape *sh = &m->shape;
    size_t n = (size_t)real.n_tokens * sh->n_kv_heads * sh->head_dim, h = sh->hidden;
    struct kv_scratch *s = kv_scratch_new();
    struct kv_tape *tape = kv_tape_new(m, real.n_tokens, KV_TAPE_BYTES);
    struct gradients g = {.n = n,
                          .dk = calloc(n * sh->n_layers, sizeof(float)),
                          .dv = calloc(n * sh->n_layers, sizeof(float))};
    float *final = calloc(real.n_tokens * h, sizeof *final),
          *d_final = calloc(real.n_tokens * h, sizeof *d_final);
    struct push push = {
        .n = n, .k = calloc(n, sizeof(float)), .v = calloc(n, sizeof(float)), .layer = UINT32_MAX};
    struct kv_forward job = {
        .tree = &real, .store = push_store, .self = &push, .tape = tape, .final = final};
    struct kv_adjoint_seed seed;
    assert_int_equal(0, kv_forward(m, &job, s, &e));
    kv_adjoint_seed(m, final, rows, 5, 3, 1, s, &seed);
    kv_adjoint_draw(m, &seed, 0, real.n_tokens, d_final);
    kv_adjoint(m,
               &(struct kv_adjoint){.tree = &real,
                                    .tape = tape,
                                    .n_draws = 1,
                                    .d_final = d_final,
                                    .take = take,
                                    .self = &g},
               s);
    job.tape = NULL;
    for (uint32_t l = 0; l < sh->n_layers; l += 7) {
        double squares = 0, change[2];
        push.layer = l;
        push.dk = g.dk + l * n;
        push.dv = g.dv + l * n;
        for (size_t i = 0; i < n; i++)
            squares +=
                (double)push.dk[i] * (double)push.dk[i] + (double)push.dv[i] * (double)push.dv[i];
        for (int sign = 0; sign < 2; sign++) {
            push.size = (float)((sign ? -0.02 : 0.02) / squares);
            assert_int_equal(0, kv_forward(m, &job, s, &e));
            change[sign] = scalar_of(m, final, &seed, s);
        }
        double measured = (change[0] - change[1]) / 0.04; // of the change that |g|^2 promises
        if (fabs(measured - 1) > 0.01) fail_msg("layer %u: %.4f of the derivative", l, measured);
    }
    kv_adjoint_seed_fini(&seed);
    kv_tape_free(tape);
    kv_scratch_free(s);
    kv_model_close(m);
    free(g.dk), free(g.dv), free(final), free(d_final), free(push.k), free(push.v);
}

// ---- single operations ----------------------------------------------------------------

enum { N = 83 }; // no multiple of any vector

static void fill(float *x, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) x[i] = (float)(2 * kv_draw(seed, 0, i) - 1);
}

static void norm_alone(void **state) {
    float x[N], gain[N], dy[N], dx[N] = {0};
    (void)state;
    fill(x, N, 1), fill(gain, N, 2), fill(dy, N, 3);
    kv_kernels()->rms_norm_back(dx, dy, x, gain, 1, N, 1e-5f);
    for (size_t i = 0; i < N; i++) {
        double y[N], xs[N], sum[2];
        for (int sign = 0; sign < 2; sign++) {
            for (size_t j = 0; j < N; j++)
                xs[j] = (double)x[j] + (j == i ? (sign ? -1e-5 : 1e-5) : 0);
            slow_norm(y, xs, gain, N, 1e-5);
            sum[sign] = 0;
            for (size_t j = 0; j < N; j++) sum[sign] += y[j] * (double)dy[j];
        }
        assert_true(fabs((sum[0] - sum[1]) / 2e-5 - (double)dx[i]) <
                    1e-5 * (1 + fabs((double)dx[i])));
    }
}

// Of either gate: forward and backward, at sizes where the exponentials run out as well.
static void gates_alone(void **state) {
    float g[2 * N], dy[N], dg[2 * N], got[N];
    const struct kv_kernels *k = kv_kernels();
    (void)state;
    fill(g, 2 * N, 4), fill(dy, N, 5);
    for (size_t i = 0; i < N; i++) g[i] *= i % 7 ? 3.0f : 60.0f;
    for (int gelu = 0; gelu < 2; gelu++) {
        struct kv_model m = {.activation = gelu ? KV_GELU_TANH : KV_SILU};
        (gelu ? k->geglu : k->swiglu)(got, g, 1, N);
        (gelu ? k->geglu_back : k->swiglu_back)(dg, dy, g, 1, N);
        for (size_t i = 0; i < N; i++) {
            double want = slow_gate(&m, (double)g[i]) * (double)g[N + i];
            assert_true(fabs(want - (double)got[i]) < 2e-6 * (1 + fabs(want)));
        }
        for (size_t i = 0; i < 2 * N; i++) {
            double a = (double)g[i % N], b = (double)g[N + i % N], step = 1e-5, y[2];
            for (int sign = 0; sign < 2; sign++) {
                double as = a + (i < N ? (sign ? -step : step) : 0),
                       bs = b + (i < N ? 0 : (sign ? -step : step));
                y[sign] = slow_gate(&m, as) * bs * (double)dy[i % N];
            }
            assert_true(fabs((y[0] - y[1]) / (2 * step) - (double)dg[i]) <
                        1e-5 * (1 + fabs((double)dg[i])));
        }
    }
}

static void product_and_rope_alone(void **state) {
    struct kv_shape shape = {1, 2, 1, 16, 32, 48, 24, 16};
    struct kv_model *m = kv_model_random(&shape, KV_ORDER_GGML, true, 3);
    struct kv_scratch *s = kv_scratch_new();
    float dy[2 * 32], dx[2 * 48], x[32];
    const uint32_t positions[] = {5};
    (void)state;
    fill(dy, 64, 6);
    const struct kv_matrix *w = &m->layers[0].down; // [32][48]
    kv_product_back(w, dy, 2, dx, s);
    for (size_t r = 0; r < 2; r++)
        for (size_t c = 0; c < 48; c++) {
            double sum = 0;
            for (size_t i = 0; i < 32; i++)
                sum += (double)dy[r * 32 + i] * (double)w->f32[i * 48 + c];
            assert_true(fabs(sum - (double)dx[r * 48 + c]) < 1e-5 * (1 + fabs(sum)));
        }
    fill(x, 16, 8);
    float y[16];
    memcpy(y, x, sizeof y);
    kv_rope_keys(m, 0, y, 1, positions);
    kv_rope_back(m, 0, y, 1, 1, positions); // a rotation's adjoint is its inverse
    for (size_t i = 0; i < 16; i++) assert_true(fabsf(x[i] - y[i]) < 1e-6f);
    kv_scratch_free(s);
    kv_model_close(m);
}

static void labels_follow_the_distribution(void **state) {
    struct kv_shape shape = {1, 2, 1, 16, 32, 48, 8, 16};
    struct kv_model *m = kv_model_random(&shape, KV_ORDER_GGML, true, 3);
    struct kv_scratch *s = kv_scratch_new();
    struct kv_adjoint_seed seed;
    struct kv_reference r;
    enum { LABELS = 20000 };
    float final[32];
    double seen[8] = {0}, chi2 = 0;
    (void)state;
    fill(final, 32, 9);
    kv_adjoint_seed(m, final, &(struct kv_scored){0, 1}, 1, 5, LABELS, s, &seed);
    kv_head_reference(m, final, 1, s, &r);
    for (size_t i = 0; i < LABELS; i++) seen[seed.label[i]]++;
    for (size_t v = 0; v < 8; v++) {
        double expected = LABELS * (double)r.p[v];
        chi2 += (seen[v] - expected) * (seen[v] - expected) / expected;
    }
    assert_true(chi2 < 24.3); // chi-square, 7 degrees of freedom, p = 0.001
    kv_adjoint_seed_fini(&seed);
    kv_scratch_free(s);
    kv_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_pass_ggml),
        cmocka_unit_test(whole_pass_hf),
        cmocka_unit_test(counted_reads),
        cmocka_unit_test(issue_15_other_families_equal_differences),
        cmocka_unit_test(issue_15_counted_reads_through_a_window),
        cmocka_unit_test(a_thrifty_tape_gives_the_same_bits_and_takes_less),
        cmocka_unit_test(a_thrifty_tape_of_a_long_sequence_gives_the_same_bits),
        cmocka_unit_test(directional_derivatives_of_the_real_model),
        cmocka_unit_test(norm_alone),
        cmocka_unit_test(gates_alone),
        cmocka_unit_test(product_and_rope_alone),
        cmocka_unit_test(labels_follow_the_distribution),
    };
    return cmocka_run_group_tests_name("the backward pass", tests, NULL, NULL);
}
