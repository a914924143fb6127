// SPDX-License-Identifier: Apache-2.0
// The forward pass and the head against a slow double-precision model written a second time, on
// small random models.
#include "sim/model/forward.h"
#include "sim/base/util.h"
#include "sim/model/kernels.h"

#include <cblas.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

enum { MAX_ROWS = 160, MAX_DIM = 64, MAX_HIDDEN = 320, MAX_FFN = 320, VOCAB = 2500 };

// Heads of 16, 32 and 64; 1, 3 and 5 query heads for each KV head.
static const struct kv_shape shapes[] = {{2, 4, 4, 16, 64, 96, VOCAB, 256},
                                         {3, 6, 2, 32, 96, 160, VOCAB, 256},
                                         {2, 5, 1, 64, 320, 320, VOCAB, 256}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static uint32_t ids[MAX_ROWS];

static void fill_ids(uint64_t seed) {
    for (size_t i = 0; i < MAX_ROWS; i++) ids[i] = (uint32_t)(kv_draw(seed, 3, i) * VOCAB);
}

// ---- the slow model
// ------------------------------------------------------------------------------

// One sequence; final[t] are the states after the last norm. `visible` and `read` may hide a
// position from a query or change what it reads there.
struct slow {
    const struct kv_model *m;
    size_t n;
    double (*final)[MAX_HIDDEN]; // [n]
    bool (*visible)(size_t layer, size_t head, size_t query, size_t key);
    double (*read)(size_t side, size_t query, size_t key, double exact); // what a query reads
};

static void slow_norm(double *y, const double *x, const float *gain, size_t n, double eps) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    for (size_t i = 0; i < n; i++) y[i] = x[i] / sqrt(sum / (double)n + eps) * (double)gain[i];
}

static double slow_dot(const struct kv_matrix *w, size_t row, const double *x) {
    double sum = 0;
    for (size_t i = 0; i < w->cols; i++) sum += (double)w->f32[row * w->cols + i] * x[i];
    return sum;
}

static void slow_rope(const struct kv_model *m, double *x, size_t position) {
    size_t d = m->shape.head_dim;
    for (size_t i = 0; i < d / 2; i++) {
        size_t a = m->order == KV_ORDER_GGML ? 2 * i : i,
               b = m->order == KV_ORDER_GGML ? 2 * i + 1 : i + d / 2;
        double angle = (double)position * pow((double)m->rope_base, -2.0 * (double)i / (double)d),
               p = x[a], q = x[b];
        x[a] = p * cos(angle) - q * sin(angle);
        x[b] = p * sin(angle) + q * cos(angle);
    }
}

static void slow_attend(const struct slow *s, size_t layer, size_t t, size_t h, const double *q,
                        const double *k, const double *v, double *out) {
    const struct kv_shape *sh = &s->m->shape;
    size_t d = sh->head_dim, width = sh->n_kv_heads * d;
    size_t kv = h / (sh->n_heads / sh->n_kv_heads);
    double w[MAX_ROWS], top = -INFINITY, sum = 0;
    for (size_t j = 0; j <= t; j++) {
        w[j] = 0;
        for (size_t i = 0; i < d; i++) {
            double key = k[j * width + kv * d + i];
            w[j] += q[i] * (s->read ? s->read(KV_KEY, t, j, key) : key);
        }
        w[j] /= sqrt((double)d);
        if (s->visible && !s->visible(layer, kv, t, j)) w[j] = -INFINITY;
        top = fmax(top, w[j]);
    }
    for (size_t j = 0; j <= t; j++) sum += w[j] = exp(w[j] - top);
    for (size_t i = 0; i < d; i++) out[i] = 0;
    for (size_t j = 0; j <= t; j++)
        for (size_t i = 0; i < d; i++) {
            double value = v[j * width + kv * d + i];
            out[i] += w[j] / sum * (s->read ? s->read(KV_VALUE, t, j, value) : value);
        }
}

static void slow_layer(const struct slow *s, size_t layer, double (*x)[MAX_HIDDEN]) {
    const struct kv_shape *sh = &s->m->shape;
    const struct kv_layer_weights *w = &s->m->layers[layer];
    size_t d = sh->head_dim, nq = sh->n_heads * d, nk = sh->n_kv_heads * d;
    double *q = kv_alloc(s->n * nq, sizeof *q), *k = kv_alloc(s->n * nk, sizeof *k),
           *v = kv_alloc(s->n * nk, sizeof *v), y[MAX_HIDDEN], mixed[MAX_HIDDEN], act[MAX_FFN];
    for (size_t t = 0; t < s->n; t++) {
        slow_norm(y, x[t], w->attn_norm, sh->hidden, (double)s->m->rms_eps);
        for (size_t i = 0; i < nq; i++) q[t * nq + i] = slow_dot(&w->qkv, i, y);
        for (size_t i = 0; i < nk; i++) k[t * nk + i] = slow_dot(&w->qkv, nq + i, y);
        for (size_t i = 0; i < nk; i++) v[t * nk + i] = slow_dot(&w->qkv, nq + nk + i, y);
        for (size_t h = 0; h < sh->n_heads; h++) slow_rope(s->m, q + t * nq + h * d, t);
        for (size_t h = 0; h < sh->n_kv_heads; h++) slow_rope(s->m, k + t * nk + h * d, t);
    }
    for (size_t t = 0; t < s->n; t++) {
        for (size_t h = 0; h < sh->n_heads; h++)
            slow_attend(s, layer, t, h, q + t * nq + h * d, k, v, mixed + h * d);
        for (size_t i = 0; i < sh->hidden; i++) x[t][i] += slow_dot(&w->out, i, mixed);
        slow_norm(y, x[t], w->ffn_norm, sh->hidden, (double)s->m->rms_eps);
        for (size_t i = 0; i < sh->ffn; i++) {
            double gate = slow_dot(&w->gateup, i, y);
            act[i] = gate / (1 + exp(-gate)) * slow_dot(&w->gateup, sh->ffn + i, y);
        }
        for (size_t i = 0; i < sh->hidden; i++) x[t][i] += slow_dot(&w->down, i, act);
    }
    free(q);
    free(k);
    free(v);
}

static void slow_forward(const struct slow *s, const uint32_t *sequence) {
    const struct kv_shape *sh = &s->m->shape;
    double(*x)[MAX_HIDDEN] = kv_alloc(s->n, sizeof *x);
    for (size_t t = 0; t < s->n; t++)
        for (size_t i = 0; i < sh->hidden; i++)
            x[t][i] = (double)s->m->embed.f32[sequence[t] * sh->hidden + i];
    for (size_t l = 0; l < sh->n_layers; l++) slow_layer(s, l, x);
    for (size_t t = 0; t < s->n; t++)
        slow_norm(s->final[t], x[t], s->m->final_norm, sh->hidden, (double)s->m->rms_eps);
    free(x);
}

// ---- the fast model
// ------------------------------------------------------------------------------

// A store hook: exact values as they are; the coded ones 1.5 times as large, which a reader can
// tell.
struct hook {
    const struct kv_model *m;
    size_t n_tokens;
    float *coded[2];
    const uint8_t *evicted;
    struct kv_layer_kv *kept; // [n_layers] or NULL
    uint32_t kept_rows;
    bool give_coded;
};

static int store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                 struct kv_layer_view *view, struct kv_error *e) {
    struct hook *h = self;
    size_t width = h->m->shape.n_kv_heads * h->m->shape.head_dim, n = h->n_tokens * width;
    (void)e;
    *view = (struct kv_layer_view){.k_exact = kv->k, .v_exact = kv->v, .evicted = h->evicted};
    if (h->give_coded) {
        for (size_t i = 0; i < n; i++) {
            h->coded[0][i] = 1.5f * kv->k[i];
            h->coded[1][i] = 1.5f * kv->v[i];
        }
        view->k_coded = h->coded[0];
        view->v_coded = h->coded[1];
    }
    if (h->kept) {
        size_t bytes = h->kept_rows * width * sizeof(float);
        memcpy(h->kept[layer].k_raw, kv->k_raw, bytes);
        memcpy(h->kept[layer].k, kv->k, bytes);
        memcpy(h->kept[layer].v, kv->v, bytes);
    }
    return 0;
}

static float *run(const struct kv_model *m, const struct kv_tree *tree, struct hook *h,
                  struct kv_forward job) {
    struct kv_error e = {0};
    size_t width = m->shape.n_kv_heads * m->shape.head_dim;
    struct kv_scratch *s = kv_scratch_new();
    h->m = m;
    h->n_tokens = tree->n_tokens;
    for (int i = 0; i < 2; i++) h->coded[i] = kv_alloc(tree->n_tokens * width, sizeof(float));
    job.tree = tree;
    job.store = store;
    job.self = h;
    job.final = kv_alloc((size_t)tree->n_tokens * m->shape.hidden, sizeof *job.final);
    if (kv_forward(m, &job, s, &e)) fail_msg("%s", e.msg);
    for (int i = 0; i < 2; i++) free(h->coded[i]);
    kv_scratch_free(s);
    return job.final;
}

// States after the last norm are of the order of 1. float32 sums of a few hundred products over two
// or three layers keep five digits: a wrong pair, row or head would show in the first.
static const double tolerance = 1e-4;

static void assert_near(const float *got, const double *want, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= tolerance))
            fail_msg("channel %zu: %.7g is not %.7g", i, (double)got[i], want[i]);
}

static struct kv_model *small_model(size_t shape, enum kv_order order) {
    struct kv_model *m = kv_model_random(&shapes[shape], order, shape != 1, 42 + shape);
    assert_non_null(m);
    return m;
}

static double slow_states[MAX_ROWS][MAX_HIDDEN];

static void test_sequence(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++)
        for (int order = 0; order < 2; order++) {
            struct kv_model *m = small_model(i, (enum kv_order)order);
            struct kv_tree tree = {.n_tokens = 70, .n_context = 70, .ids = ids};
            struct hook h = {0};
            fill_ids(i);
            float *got = run(m, &tree, &h, (struct kv_forward){0});
            slow_forward(&(struct slow){.m = m, .n = 70, .final = slow_states}, ids);
            for (size_t t = 0; t < 70; t++)
                assert_near(got + t * m->shape.hidden, slow_states[t], m->shape.hidden);
            free(got);
            kv_model_close(m);
        }
}

// A context of 20 tokens and choices of 1, 9 and 66 tokens: fewer and more than a tile of columns.
static const uint32_t first[] = {20, 21, 30, 96};
static const struct kv_tree branched = {96, 20, 3, first, ids};

static void test_tree(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct kv_model *m = small_model(i, KV_ORDER_GGML);
        size_t hidden = m->shape.hidden;
        struct hook h = {0};
        fill_ids(10 + i);
        float *got = run(m, &branched, &h, (struct kv_forward){0});
        for (uint32_t c = 0; c < 3; c++) {
            uint32_t sequence[MAX_ROWS], n = first[c + 1] - first[c];
            memcpy(sequence, ids, 20 * sizeof *ids);
            memcpy(sequence + 20, ids + first[c], n * sizeof *ids);
            slow_forward(&(struct slow){.m = m, .n = 20 + n, .final = slow_states}, sequence);
            for (uint32_t t = 0; t < 20; t++) assert_near(got + t * hidden, slow_states[t], hidden);
            for (uint32_t t = 0; t < n; t++) {
                assert_int_equal(kv_tree_position(&branched, first[c] + t), 20 + t);
                assert_int_equal(kv_tree_choice(&branched, first[c] + t), c);
                assert_near(got + (first[c] + t) * hidden, slow_states[20 + t], hidden);
            }
        }
        struct hook h2 = {0};
        float *again = run(m, &branched, &h2, (struct kv_forward){0});
        assert_memory_equal(got, again, 96 * hidden * sizeof *got);
        free(again);
        free(got);
        kv_model_close(m);
    }
}

static void test_prefix(void **state) {
    (void)state;
    struct kv_model *m = small_model(1, KV_ORDER_GGML);
    size_t hidden = m->shape.hidden, width = m->shape.n_kv_heads * m->shape.head_dim;
    struct kv_layer_kv kept[3];
    float *block = kv_alloc(9 * 20 * width, sizeof *block);
    for (size_t l = 0; l < 3; l++)
        kept[l] = (struct kv_layer_kv){block + 60 * l * width, block + (60 * l + 20) * width,
                                       block + (60 * l + 40) * width};
    struct hook h = {.kept = kept, .kept_rows = 20};
    fill_ids(5);
    float *whole = run(m, &branched, &h, (struct kv_forward){0});
    for (uint32_t from = 19; from <= 20; from++) {
        struct kv_layer_kv part[3];
        memcpy(part, kept, sizeof part);
        struct hook h2 = {0};
        float *rest =
            run(m, &branched, &h2, (struct kv_forward){.first_row = from, .prefix = part});
        for (size_t i = 0; i < (96 - from) * hidden; i++)
            assert_true(fabsf(rest[i] - whole[from * hidden + i]) < 2e-5f);
        free(rest);
    }
    free(whole);
    free(block);
    kv_model_close(m);
}

// ---- what a query reads
// --------------------------------------------------------------------------

// Keys leave a window of 7 and values one of 3; a query at t reads position j coded below t + 1 -
// window.
static size_t coded_below(size_t side, size_t query) {
    size_t window = side == KV_KEY ? 7 : 3;
    return query + 1 > window ? query + 1 - window : 0;
}

static double read_coded(size_t side, size_t query, size_t key, double exact) {
    return key < coded_below(side, query) ? 1.5 * exact : exact;
}

static void test_windows(void **state) {
    (void)state;
    struct kv_model *m = small_model(1, KV_ORDER_HF);
    size_t hidden = m->shape.hidden;
    uint32_t upto[2 * MAX_ROWS];
    struct hook h = {.give_coded = true};
    fill_ids(6);
    for (uint32_t row = 0; row < branched.n_tokens; row++)
        for (size_t side = 0; side < 2; side++)
            upto[2 * row + side] = (uint32_t)coded_below(side, kv_tree_position(&branched, row));
    float *got = run(m, &branched, &h, (struct kv_forward){.coded_upto = upto});
    for (uint32_t c = 1; c < 3; c++) {
        uint32_t sequence[MAX_ROWS], n = first[c + 1] - first[c];
        memcpy(sequence, ids, 20 * sizeof *ids);
        memcpy(sequence + 20, ids + first[c], n * sizeof *ids);
        slow_forward(&(struct slow){.m = m, .n = 20 + n, .final = slow_states, .read = read_coded},
                     sequence);
        for (uint32_t t = 0; t < n; t++)
            assert_near(got + (first[c] + t) * hidden, slow_states[20 + t], hidden);
    }
    free(got);
    kv_model_close(m);
}

// Head 0 loses position 4, head 1 all positions that 3 divides. A token's own query sees it.
static bool not_evicted(size_t layer, size_t head, size_t query, size_t key) {
    (void)layer;
    return query == key || !(head == 0 ? key == 4 : key % 3 == 0);
}

static void test_eviction(void **state) {
    (void)state;
    struct kv_model *m = small_model(1, KV_ORDER_GGML);
    size_t hidden = m->shape.hidden;
    uint8_t evicted[2 * 96];
    fill_ids(7);
    for (uint32_t row = 0; row < 96; row++) {
        evicted[row] = kv_tree_position(&branched, row) == 4;
        evicted[96 + row] = kv_tree_position(&branched, row) % 3 == 0;
    }
    struct hook h = {.evicted = evicted};
    float *got = run(m, &branched, &h, (struct kv_forward){0});
    uint32_t sequence[MAX_ROWS];
    memcpy(sequence, ids, 20 * sizeof *ids);
    memcpy(sequence + 20, ids + 30, 66 * sizeof *ids);
    slow_forward(&(struct slow){.m = m, .n = 86, .final = slow_states, .visible = not_evicted},
                 sequence);
    for (uint32_t t = 0; t < 66; t++)
        assert_near(got + (30 + t) * hidden, slow_states[20 + t], hidden);
    free(got);
    kv_model_close(m);
}

static void test_stats(void **state) {
    (void)state;
    struct kv_model *m = small_model(1, KV_ORDER_GGML);
    float variance[96] = {0}, so_far[96] = {0}, future[96] = {0};
    struct kv_attention_stats stats = {variance, so_far, future};
    struct hook h = {0};
    fill_ids(8);
    free(run(m, &branched, &h, (struct kv_forward){.stats = &stats}));
    // Each query gives away an attention of 1. The context's is all counted as received so far; of
    // a choice token's, its own part is, and the rest is a third of a later token's, as there are
    // three choices.
    double so_far_context = 0, own = 0, later = 0;
    for (size_t i = 0; i < 96; i++) {
        *(i < 20 ? &so_far_context : &own) += (double)so_far[i];
        later += (double)future[i];
    }
    assert_true(fabs(so_far_context - 20) < 1e-4);
    assert_true(own > 0 && own < 76);
    assert_true(later > (76 - own) / 3 && later < (76 - own) / 3 + 19);
    assert_true(variance[0] == 0.0f); // one visible entry
    for (size_t i = 1; i < 96; i++) assert_true(variance[i] > 0 && variance[i] < 0.25f);
    kv_model_close(m);
}

static void test_refusals(void **state) {
    (void)state;
    struct kv_model *m = small_model(0, KV_ORDER_GGML);
    struct kv_scratch *s = kv_scratch_new();
    struct kv_error e = {0};
    static uint32_t many[300];
    float final[1];
    uint32_t bad = VOCAB;
    struct kv_tree tree = {1, 1, 0, NULL, &bad}, longer = {300, 300, 0, NULL, many};
    struct kv_forward job = {.tree = &tree, .store = store, .final = final};
    assert_int_equal(kv_forward(m, &job, s, &e), KV_EFAIL);
    assert_string_equal(e.msg, "token 0 has id 2500; the model knows 2500");
    job.tree = &longer;
    assert_int_equal(kv_forward(m, &job, s, &e), KV_EFAIL);
    assert_string_equal(e.msg, "a sequence is longer than the model's 256 tokens");
    kv_scratch_free(s);
    kv_model_close(m);
}

// ---- the head
// ------------------------------------------------------------------------------------

static void slow_logprobs(const struct kv_model *m, const float *final, double *logprob) {
    double x[MAX_HIDDEN], top = -INFINITY, sum = 0;
    for (size_t i = 0; i < m->shape.hidden; i++) x[i] = (double) final[i];
    for (size_t v = 0; v < VOCAB; v++) {
        logprob[v] = slow_dot(&m->head, v, x);
        top = fmax(top, logprob[v]);
    }
    for (size_t v = 0; v < VOCAB; v++) sum += exp(logprob[v] - top);
    for (size_t v = 0; v < VOCAB; v++) logprob[v] -= top + log(sum);
}

static void test_head(void **state) {
    (void)state;
    enum { ROWS = 5 };
    struct kv_model *m = small_model(1, KV_ORDER_GGML); // an untied head
    struct kv_scratch *s = kv_scratch_new();
    static float a[ROWS * MAX_HIDDEN], b[ROWS * MAX_HIDDEN];
    static double la[VOCAB], lb[VOCAB];
    size_t hidden = m->shape.hidden;
    // The same state, a near one, and far ones.
    static const double distance[ROWS] = {0, 1e-3, 0.1, 1, 10};
    for (size_t i = 0; i < ROWS * hidden; i++) {
        a[i] = (float)(4 * kv_draw(1, 1, i) - 2);
        b[i] = a[i] + (float)(distance[i / hidden] * (kv_draw(1, 2, i) - 0.5));
    }
    struct kv_reference r;
    struct kv_target targets[ROWS];
    double kl[ROWS];
    for (uint32_t i = 0; i < ROWS; i++)
        targets[i] = (struct kv_target){.row = i, .id = i * 600 + 5}; // in several tiles
    kv_head_reference(m, a, ROWS, s, &r);
    kv_head_compare(m, &r, b, s, kl, targets, ROWS);
    for (size_t i = 0; i < ROWS; i++) {
        double want = 0, entropy = 0, top = -INFINITY;
        slow_logprobs(m, a + i * hidden, la);
        slow_logprobs(m, b + i * hidden, lb);
        for (size_t v = 0; v < VOCAB; v++) {
            want += exp(la[v]) * (la[v] - lb[v]);
            entropy -= exp(la[v]) * la[v];
            top = fmax(top, la[v]);
        }
        float h, confidence;
        kv_reference_features(m, &r, i, &h, &confidence);
        assert_true(fabs((double)h - entropy) < 1e-4);
        assert_true(fabs((double)confidence - exp(top)) < 1e-5);
        assert_true(fabs(kv_reference_logprob(m, &r, i, targets[i].id) - la[targets[i].id]) < 1e-4);
        assert_true(fabs(targets[i].logprob - lb[targets[i].id]) < 1e-4);
        // Sums over a tile are float32 sums near 1: they leave 1e-7 nats.
        assert_true(fabs(kl[i] - want) < 1e-5 * want + 5e-7);
    }
    assert_true(kl[0] == 0);
    assert_true(targets[0].logprob == kv_reference_logprob(m, &r, 0, targets[0].id));
    kv_scratch_free(s);
    kv_model_close(m);
}

// ---- CPU levels
// ----------------------------------------------------------------------------------

extern const struct kv_kernels kv_kernels_base;
#if defined(__x86_64__)
extern const struct kv_kernels kv_kernels_avx2, kv_kernels_avx512;
#endif

static const struct kv_kernels *level(size_t i) {
#if defined(__x86_64__)
    if (i == KV_CPU_AVX2) return kv_cpu_level() >= KV_CPU_AVX2 ? &kv_kernels_avx2 : NULL;
    if (i == KV_CPU_AVX512) return kv_cpu_level() >= KV_CPU_AVX512 ? &kv_kernels_avx512 : NULL;
#endif
    return i == KV_CPU_BASE ? &kv_kernels_base : NULL;
}

static void near_floats(const float *a, const float *b, size_t n, double relative) {
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= relative * (1 + fabs((double)a[i]))))
            fail_msg("%zu: %.9g is not %.9g", i, (double)a[i], (double)b[i]);
}

static void test_levels(void **state) {
    (void)state;
    enum { N = 1037, LEN = 131, LD = 192 + KV_TILE };
    static float x[3 * N], y[2][3 * N], k_t[64 * LD], v[LEN * 64], q[3 * 64], w[2][3 * 256],
        out[2][3 * 64];
    uint8_t masked[LEN] = {0};
    for (size_t i = 0; i < 3 * N; i++) x[i] = (float)(12 * kv_draw(3, 1, i) - 6);
    for (size_t i = 0; i < 64 * LD; i++) k_t[i] = (float)(2 * kv_draw(3, 2, i) - 1);
    for (size_t i = 0; i < LEN * 64; i++) v[i] = (float)(2 * kv_draw(3, 4, i) - 1);
    for (size_t i = 0; i < 3 * 64; i++) q[i] = (float)(kv_draw(3, 5, i) - 0.5);
    for (size_t i = 0; i < LEN - 1; i++) masked[i] = i % 5 == 0;
    for (size_t l = 1; l < KV_N_CPU; l++) {
        const struct kv_kernels *k[2] = {level(0), level(l)};
        if (!k[1]) continue;
        float max[2], sum[2];
        double dot[2];
        struct kv_tile_sums sums[2];
        for (int j = 0; j < 2; j++) {
            k[j]->rms_norm(y[j], x, x + N, 1, N, 1e-5f);
            k[j]->max_sum_exp(x, N, &max[j], &sum[j]);
            k[j]->dot(x, x + N, N, &dot[j]);
            struct kv_attend a = {.n_q = 3,
                                  .dim = 64,
                                  .q = q,
                                  .n_spans = 2,
                                  .len = LEN,
                                  .masked = masked,
                                  .weights = w[j],
                                  .ld_w = 256,
                                  .out = out[j]};
            a.span[0] = (struct kv_span){k_t, LD, v, 64, 100};
            a.span[1] = (struct kv_span){k_t + 128, LD, v + 100 * 64, 64, LEN - 100};
            k[j]->attend(&a);
        }
        near_floats(y[0], y[1], N, 1e-6);
        near_floats(out[0], out[1], 3 * 64, 1e-5);
        for (size_t h = 0; h < 3; h++) near_floats(w[0] + h * 256, w[1] + h * 256, LEN, 1e-5);
        for (size_t i = 0; i < LEN; i++) assert_true(!masked[i] || w[1][i] == 0.0f);
        assert_true(max[0] == max[1]);
        assert_true(fabsf(sum[0] / sum[1] - 1) < 1e-5f);
        assert_true(fabs(dot[0] - dot[1]) < 1e-3);
        for (int j = 0; j < 2; j++) {
            k[j]->exp_shifted(y[j], x, N, 7.0f);
            sums[j] = k[j]->compare(x, x + N, y[0], N);
        }
        for (size_t i = 0; i < N; i++)
            assert_true(fabs((double)y[1][i] / exp((double)x[i] - 7) - 1) < 1e-6);
        assert_true(sums[0].max_d == sums[1].max_d);
        assert_true(fabsf(sums[0].sum_p / sums[1].sum_p - 1) < 1e-5f);
        assert_true(fabsf(sums[0].sum_pe / sums[1].sum_pe - 1) < 1e-5f);
        for (int j = 0; j < 2; j++) k[j]->swiglu(y[j], x, 1, N);
        near_floats(y[0], y[1], N, 1e-6);
    }
}

static int set_up(void **state) {
    (void)state;
    openblas_set_num_threads(1);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"a sequence agrees with the slow model: heads of 16, 32, 64, groups of 1, 3, 5, both "
         "channel orders",
         test_sequence, NULL, NULL, NULL},
        {"a tree is each context and choice run as one sequence, and the same bytes when run twice",
         test_tree, NULL, NULL, NULL},
        {"rows above a known prefix come out as in the whole run", test_prefix, NULL, NULL, NULL},
        {"a query reads coded keys and values up to where it is told, and exact ones from there",
         test_windows, NULL, NULL, NULL},
        {"evicted tokens are not seen by later queries, head by head", test_eviction, NULL, NULL,
         NULL},
        {"attention statistics add up to what the queries gave", test_stats, NULL, NULL, NULL},
        {"ids beyond the vocabulary and sequences beyond the context are refused", test_refusals,
         NULL, NULL, NULL},
        {"log-probs, KL, entropy and confidence agree with a naive softmax; equal states give "
         "exactly 0",
         test_head, NULL, NULL, NULL},
        {"each CPU level agrees with plain C", test_levels, NULL, NULL, NULL},
    };
    return cmocka_run_group_tests_name("forward pass", tests, set_up, NULL);
}
