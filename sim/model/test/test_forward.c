// SPDX-License-Identifier: Apache-2.0
// The forward pass judged by float64 loops: trees, prefixes, coded reads, evictions, the head, each
// CPU level.
#include <setjmp.h>

#include "sim/base/memory.h"
#include "sim/base/cpu.h"
#include "sim/model/kernels.h"
#include "sim/model/test/slow_model.h"

// cmocka wants the headers above before its own
#include <cmocka.h>

static const uint32_t ids[] = {3, 17, 5, 40, 2, 9, 33, 12, 7, 21, 30, 1, 18};
static const uint32_t first[] = {5, 8, 13};
static const struct kv_tree tree = {13, 5, 2, first, ids}, line = {13, 13, 0, NULL, ids};

static const struct {
    struct kv_shape shape;
    enum kv_order order;
    bool tied;
    struct kv_random_model how;
} models[] = {
    {{2, 6, 2, 16, 48, 64, 48, 64}, KV_ORDER_GGML, true, {0}},
    {{3, 4, 1, 32, 96, 80, 56, 32}, KV_ORDER_HF, false, {0}},
    {{1, 3, 3, 64, 192, 144, 48, 16}, KV_ORDER_GGML, false, {0}}, // one query head a KV head
    // Issue 15: other families, heads of 80, 96, 128 and 256, windows that begin in context and
    // choice.
    {{2, 7, 1, 80, 48, 64, 48, 16}, KV_ORDER_HF, false, {.architecture = "qwen2"}},
    {{2, 4, 2, 96, 48, 64, 48, 16}, KV_ORDER_HF, true, {.architecture = "qwen3"}},
    {{2, 2, 2, 128, 48, 64, 48, 16},
     KV_ORDER_GGML,
     false,
     {.architecture = "llama", .biases = true, .attn_scale = 0.05f}},
    {{3, 4, 1, 256, 48, 64, 48, 16},
     KV_ORDER_HF,
     true,
     {.architecture = "gemma3",
      .window = 4,
      .window_pattern = 3,
      .rope = {{.base = 100, .attention_factor = 1}, {.base = 10, .attention_factor = 1}}}},
    {{2, 2, 1, 16, 48, 64, 48, 16},
     KV_ORDER_GGML,
     true,
     {.architecture = "gemma3", .window = 2, .window_pattern = 2}},
};
enum { N_MODELS = sizeof models / sizeof *models };

static struct kv_model *model(size_t i) {
    struct kv_model *m = kv_model_random_as(&models[i].shape, models[i].order, models[i].tied,
                                            7 + i, &models[i].how);
    assert_non_null(m);
    return m;
}

// ---- what the pass reads --------------------------------------------------------------

// A smooth stand-in for coding, so that float32's last bits flip nothing.
static double coded(enum kv_side side, double x) {
    return side == KV_KEY ? 0.9 * x + 0.05 : 1.1 * x - 0.02;
}

struct cache {
    const struct kv_model *m;
    const struct kv_shape *shape;
    const struct kv_tree *t;
    const uint32_t *upto;   // as in kv_forward
    const uint8_t *evicted; // [n_layers][n_kv_heads][n_tokens], or NULL
    float *k, *v;           // coded
    double *seen;           // [n_tokens][3] variance, so_far, future
};

static int store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                 struct kv_layer_view *view, struct kv_error *e) {
    struct cache *c = self;
    size_t n = (size_t)c->t->n_tokens * c->shape->n_kv_heads * c->shape->head_dim;
    (void)e;
    *view = (struct kv_layer_view){.k_exact = kv->k, .v_exact = kv->v};
    if (c->upto) {
        for (size_t i = 0; i < n; i++) c->k[i] = (float)coded(KV_KEY, (double)kv->k[i]);
        for (size_t i = 0; i < n; i++) c->v[i] = (float)coded(KV_VALUE, (double)kv->v[i]);
        view->k_coded = c->k;
        view->v_coded = c->v;
    }
    if (c->evicted)
        view->evicted = c->evicted + (size_t)layer * c->shape->n_kv_heads * c->t->n_tokens;
    return 0;
}

static double slow_reads(const void *self, const struct slow_read *r, double x) {
    const struct cache *c = self;
    bool is_coded = c->upto && r->position < c->upto[2 * r->query + (uint32_t)r->side];
    return is_coded ? coded(r->side, x) : x;
}

static bool slow_sees(const void *self, uint32_t layer, size_t head, uint32_t query, uint32_t row) {
    const struct cache *c = self;
    return !c->evicted || row == query ||
           !c->evicted[((size_t)layer * c->shape->n_kv_heads + head) * c->t->n_tokens + row];
}

static void slow_counts(const void *self, uint32_t layer, uint32_t query, const uint32_t *path,
                        const double *w, size_t n) {
    const struct cache *c = self;
    double heads = c->shape->n_heads, layers = c->shape->n_layers, mean = 0, square = 0;
    bool in_context = query < c->t->n_context;
    size_t window = c->m->layers[layer].window, all = n;
    if (!c->seen) return;
    n = window && window < n ? window : n; // what is visible
    for (size_t j = all - n; j < all; j++) {
        double *to = c->seen + 3 * path[j];
        if (path[j] == query || in_context) to[1] += w[j] / heads / layers;
        bool shared = !in_context && path[j] < c->t->n_context; // all choices go on from it
        if (path[j] != query) to[2] += w[j] / heads / layers / (shared ? c->t->n_choices : 1);
        mean += w[j] / (double)n;
        square += w[j] * w[j] / (double)n;
    }
    if (layer + 1 == c->shape->n_layers) c->seen[3 * query] += (square - mean * mean) / heads;
}

// Final states of the pass under test.
static float *fast(const struct kv_model *m, struct cache *c, struct kv_forward job) {
    struct kv_scratch *s = kv_scratch_new();
    struct kv_error e;
    size_t n = (size_t)c->t->n_tokens * m->shape.n_kv_heads * m->shape.head_dim;
    c->m = m;
    c->shape = &m->shape;
    c->k = calloc(n, sizeof *c->k);
    c->v = calloc(n, sizeof *c->v);
    job.tree = c->t;
    job.store = store;
    job.coded_upto = c->upto;
    job.self = c;
    job.final = calloc((size_t)c->t->n_tokens * m->shape.hidden, sizeof *job.final);
    assert_int_equal(0, kv_forward(m, &job, s, &e));
    free(c->k);
    free(c->v);
    kv_scratch_free(s);
    return job.final;
}

static void near(double want, double x, double tolerance) {
    if (!(fabs(want - x) <= tolerance * (1 + fabs(want))))
        fail_msg("%.9g is wanted, not %.9g", want, x);
}

// Rounding errors of float32 through a few small layers stay below this; states are of size 1.
static const double tolerance = 2e-5;

static void equals_slow(const struct kv_model *m, struct cache *c) {
    size_t n = (size_t)c->t->n_tokens * m->shape.hidden;
    float *mine = fast(m, c, (struct kv_forward){0});
    double *judge = calloc(n, sizeof *judge);
    struct slow slow = {m, c->t, slow_reads, slow_sees, slow_counts, c};
    slow_forward(&slow, judge);
    for (size_t i = 0; i < n; i++) near(judge[i], (double)mine[i], tolerance);
    free(mine);
    free(judge);
}

static void random_models_equal_float64_loops_on_a_tree_and_on_a_line(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        struct kv_model *m = model(i);
        equals_slow(m, &(struct cache){.t = &tree});
        equals_slow(m, &(struct cache){.t = &line});
        kv_model_close(m);
    }
}

static void a_query_reads_coded_below_its_bound_and_exact_above(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        struct kv_model *m = model(i);
        for (uint64_t draw = 0; draw < 4; draw++) { // any bounds, K and V apart
            uint32_t upto[2 * 13];
            for (uint32_t r = 0; r < 2 * 13; r++)
                upto[r] = (uint32_t)(kv_draw(draw, 5, r) * (kv_tree_position(&tree, r / 2) + 2));
            equals_slow(m, &(struct cache){.t = &tree, .upto = upto});
        }
        kv_model_close(m);
    }
}

static void evicted_tokens_are_seen_by_their_own_query_alone(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        struct kv_model *m = model(i);
        uint8_t evicted[3 * 3 * 13];
        uint32_t upto[2 * 13];
        for (uint64_t j = 0; j < sizeof evicted; j++) evicted[j] = kv_draw(1, 2, j) < 0.4;
        for (uint32_t r = 0; r < 2 * 13; r++) upto[r] = kv_tree_position(&tree, r / 2) / 2;
        equals_slow(m, &(struct cache){.t = &tree, .evicted = evicted});
        equals_slow(m, &(struct cache){.t = &tree, .evicted = evicted, .upto = upto});
        kv_model_close(m);
    }
}

static void a_tree_equals_its_sequences_run_one_by_one(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        struct kv_model *m = model(i);
        size_t h = m->shape.hidden;
        float *whole = fast(m, &(struct cache){.t = &tree}, (struct kv_forward){0});
        for (uint32_t c = 0; c < tree.n_choices; c++) {
            uint32_t n = tree.n_context + first[c + 1] - first[c], path[13];
            for (uint32_t p = 0; p < n; p++)
                path[p] = p < tree.n_context ? ids[p] : ids[first[c] + p - tree.n_context];
            struct kv_tree alone = {n, n, 0, NULL, path};
            float *one = fast(m, &(struct cache){.t = &alone}, (struct kv_forward){0});
            for (uint32_t p = 0; p < n; p++) {
                uint32_t row = p < tree.n_context ? p : first[c] + p - tree.n_context;
                for (size_t j = 0; j < h; j++)
                    near((double)one[p * h + j], (double)whole[row * h + j], tolerance);
            }
            free(one);
        }
        free(whole);
        kv_model_close(m);
    }
}

// ---- prefix ---------------------------------------------------------------------------

struct kept {
    struct cache cache;
    struct kv_layer_kv layer[3];
};

static int store_and_keep(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                          struct kv_layer_view *view, struct kv_error *e) {
    struct kept *k = self;
    size_t n = (size_t)k->cache.t->n_tokens * k->cache.shape->n_kv_heads *
               k->cache.shape->head_dim * sizeof(float);
    memcpy(k->layer[layer].k_raw = malloc(n), kv->k_raw, n);
    memcpy(k->layer[layer].k = malloc(n), kv->k, n);
    memcpy(k->layer[layer].v = malloc(n), kv->v, n);
    return store(&k->cache, layer, kv, view, e);
}

static void a_known_prefix_equals_the_whole_run(void **state) {
    const uint32_t prompt_rows = 4;
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        struct kv_model *m = model(i);
        struct kv_scratch *s = kv_scratch_new();
        struct kv_error e;
        size_t h = m->shape.hidden;
        struct kv_tree prompt = {prompt_rows, prompt_rows, 0, NULL, ids};
        struct kept k = {.cache = {.t = &prompt, .shape = &m->shape}};
        float *ignored = calloc(prompt_rows * h, sizeof *ignored);
        struct kv_forward job = {
            .tree = &prompt, .store = store_and_keep, .self = &k, .final = ignored};
        assert_int_equal(0, kv_forward(m, &job, s, &e));
        float *whole = fast(m, &(struct cache){.t = &tree}, (struct kv_forward){0});
        float *rest = fast(m, &(struct cache){.t = &tree},
                           (struct kv_forward){.first_row = prompt_rows, .prefix = k.layer});
        for (size_t j = 0; j < (tree.n_tokens - prompt_rows) * h; j++)
            near((double)whole[prompt_rows * h + j], (double)rest[j], tolerance);
        for (size_t l = 0; l < m->shape.n_layers; l++) {
            free(k.layer[l].k_raw);
            free(k.layer[l].k);
            free(k.layer[l].v);
        }
        free(ignored);
        free(whole);
        free(rest);
        kv_scratch_free(s);
        kv_model_close(m);
    }
}

// ---- features, disturbance, refusals --------------------------------------------------

static void attention_statistics_are_those_of_the_definition(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        struct kv_model *m = model(i);
        float stats[3][13] = {{0}};
        double judge[13 * 3] = {0};
        struct kv_attention_stats out = {stats[0], stats[1], stats[2]};
        struct cache c = {.t = &tree, .seen = judge};
        free(fast(m, &c, (struct kv_forward){.stats = &out}));
        double *ignored = calloc((size_t)tree.n_tokens * m->shape.hidden, sizeof *ignored);
        slow_forward(&(struct slow){m, &tree, slow_reads, slow_sees, slow_counts, &c}, ignored);
        free(ignored);
        for (size_t row = 0; row < 13; row++)
            for (size_t k = 0; k < 3; k++) near(judge[3 * row + k], (double)stats[k][row], 1e-5);
        kv_model_close(m);
    }
}

static void a_disturbance_is_seeded_and_of_its_size(void **state) {
    struct kv_model *m = model(0);
    size_t n = (size_t)tree.n_tokens * m->shape.hidden;
    struct kv_forward job = {.disturb = 1e-3, .disturb_seed = 1};
    (void)state;
    float *plain = fast(m, &(struct cache){.t = &tree}, (struct kv_forward){0});
    float *one = fast(m, &(struct cache){.t = &tree}, job);
    float *again = fast(m, &(struct cache){.t = &tree}, job);
    job.disturb_seed = 2;
    float *other = fast(m, &(struct cache){.t = &tree}, job);
    double off = 0;
    assert_memory_equal(one, again, n * sizeof *one);
    assert_memory_not_equal(one, other, n * sizeof *one);
    for (size_t i = 0; i < n; i++) off = fmax(off, fabs((double)one[i] - (double)plain[i]));
    assert_true(off > 1e-4 && off < 3e-2);
    free(plain);
    free(one);
    free(again);
    free(other);
    kv_model_close(m);
}

static void unknown_ids_and_long_sequences_are_refused(void **state) {
    struct kv_model *m = model(2);
    struct kv_scratch *s = kv_scratch_new();
    struct kv_error e;
    struct cache c = {.shape = &m->shape};
    uint32_t many[17] = {0, 48};
    float final[17 * 192];
    (void)state;
    struct kv_tree wrong = {2, 2, 0, NULL, many}, longer = {17, 17, 0, NULL, many + 2};
    struct kv_forward job = {.tree = &wrong, .store = store, .self = &c, .final = final};
    assert_int_equal(KV_EFAIL, kv_forward(m, &job, s, &e));
    assert_string_equal("token 1 has id 48; the model knows 48", e.msg);
    many[1] = 0, longer.ids = many;
    job.tree = &longer;
    assert_int_equal(KV_EFAIL, kv_forward(m, &job, s, &e));
    assert_string_equal("a sequence is longer than the model's 16 tokens", e.msg);
    m->shape.head_dim = 72; // kernels go over heads in steps of 16
    assert_int_equal(KV_EFAIL, kv_forward(m, &job, s, &e));
    assert_string_equal("heads have 72 channels; only multiples of 16 are computed", e.msg);
    m->shape.head_dim = 64;
    kv_scratch_free(s);
    kv_model_close(m);
}

// ---- long sequences -------------------------------------------------------------------

// What a query reads coded, and which tokens later ones do not see, in a sequence longer than what
// is computed at once.
enum { LONG_TOKENS = 2200, LONG_SEEN = 2049 };

struct long_run {
    float *final, *stats; // [LONG_TOKENS][hidden], [3][LONG_TOKENS]
};

// kind: 0 = all exact, 1 = all coded, 2 = the newest 37 keys and 5 values exact, and some evicted.
static struct long_run run_long(const struct kv_model *m, uint32_t n, int kind,
                                unsigned n_threads) {
    static uint32_t long_ids[LONG_TOKENS];
    const struct kv_shape *sh = &m->shape;
    uint32_t *upto = kv_alloc(2 * (size_t)n, sizeof *upto), end = n;
    uint8_t *evicted = kv_alloc((size_t)n * sh->n_layers * sh->n_kv_heads, 1);
    size_t n_kv = (size_t)n * sh->n_kv_heads * sh->head_dim;
    for (uint32_t i = 0; i < n; i++) long_ids[i] = (uint32_t)(kv_draw(5, 0, i) * (double)sh->vocab);
    for (uint32_t i = 0; i < n && kind; i++) {
        upto[2 * i] = kind == 1 ? i + 1 : i > 37 ? i - 37 : 0;
        upto[2 * i + 1] = kind == 1 ? i + 1 : i > 5 ? i - 5 : 0;
    }
    for (size_t i = 0; i < (size_t)n * sh->n_layers * sh->n_kv_heads; i++)
        evicted[i] = kind == 2 && i % n % 11 == 3;
    const struct kv_tree t = {n, n, 0, &end, long_ids};
    struct cache c = {.m = m,
                      .shape = sh,
                      .t = &t,
                      .upto = kind ? upto : NULL,
                      .evicted = kind == 2 ? evicted : NULL,
                      .k = kv_alloc(n_kv, sizeof(float)),
                      .v = kv_alloc(n_kv, sizeof(float))};
    struct long_run r = {kv_alloc((size_t)n * sh->hidden, sizeof(float)),
                         kv_alloc(3 * (size_t)n, sizeof(float))};
    struct kv_attention_stats stats = {r.stats, r.stats + n, r.stats + 2 * n};
    struct kv_scratch *s = kv_scratch_new();
    kv_scratch_share(s, n_threads);
    struct kv_error e = {0};
    assert_int_equal(kv_forward(m,
                                &(struct kv_forward){.tree = &t,
                                                     .store = store,
                                                     .self = &c,
                                                     .coded_upto = c.upto,
                                                     .stats = &stats,
                                                     .final = r.final},
                                s, &e),
                     0);
    kv_scratch_free(s);
    free(c.k), free(c.v), free(upto), free(evicted);
    return r;
}

// Rows of a long context, computed by blocks and chunks, by one thread or by three, are those of
// its beginning computed whole; what the last rows see is held against loops in float64 by the
// other tests' models of blocks of one row: a sequence of 2,049 tokens goes row by row.
static void a_long_sequence_by_blocks_equals_its_beginning_by_rows(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MODELS; i += 6) { // without and with windows of layers
        struct kv_shape shape = models[i].shape;
        shape.max_tokens = LONG_TOKENS;
        struct kv_random_model how = models[i].how;
        struct kv_model *m =
            kv_model_random_as(&shape, models[i].order, models[i].tied, 7 + i, &how);
        for (int kind = 0; kind < 3; kind++) {
            struct long_run all = run_long(m, LONG_TOKENS, kind, 1),
                            shared = run_long(m, LONG_TOKENS, kind, 3),
                            part = run_long(m, LONG_SEEN, kind, 1);
            assert_memory_equal(all.final, shared.final,
                                LONG_TOKENS * (size_t)shape.hidden * sizeof *all.final);
            assert_memory_equal(all.stats, shared.stats, 3 * LONG_TOKENS * sizeof *all.stats);
            for (size_t k = 0; k < (size_t)LONG_SEEN * shape.hidden; k++)
                near((double)part.final[k], (double)all.final[k], 2e-4);
            for (size_t k = 0; k < LONG_SEEN; k++) // variance of its own row; what comes later adds
                near((double)part.stats[k], (double)all.stats[k], 1e-6);
            double received = 0, seen = 0;
            for (size_t k = 0; k < LONG_TOKENS; k++) {
                received += (double)all.stats[LONG_TOKENS + k];
                seen += (double)all.stats[2 * LONG_TOKENS + k];
            }
            near(LONG_TOKENS, received, 0.02); // each query gives away 1, its own share in so_far
            assert_true(seen > 0 && seen < received);
            free(all.final), free(all.stats), free(part.final), free(part.stats);
            free(shared.final), free(shared.stats);
        }
        kv_model_close(m);
    }
}

// ---- head -----------------------------------------------------------------------------

static void fill(float *x, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) x[i] = (float)(2 * kv_draw(seed, 0, i) - 1);
}

static void slow_log_softmax(double *y, const struct kv_model *m, const float *final) {
    double x[192], sum = 0, top = -INFINITY;
    for (size_t i = 0; i < m->shape.hidden; i++) x[i] = (double) final[i];
    slow_product(y, &m->head, x);
    for (size_t v = 0; v < m->shape.vocab; v++) top = fmax(top, y[v]);
    for (size_t v = 0; v < m->shape.vocab; v++) sum += exp(y[v] - top);
    for (size_t v = 0; v < m->shape.vocab; v++) y[v] -= top + log(sum);
}

// A vocabulary of two tiles and a rest.
static void divergence_and_log_probs_equal_float64(void **state) {
    enum { VOCAB = 2 * 1024 + 37, ROWS = 9 };
    struct kv_shape shape = {1, 2, 1, 16, 48, 48, VOCAB, 16};
    struct kv_model *m = kv_model_random(&shape, KV_ORDER_GGML, false, 3);
    struct kv_scratch *s = kv_scratch_new();
    struct kv_reference r;
    static double p[VOCAB], q[VOCAB];
    float ref[ROWS * 48], other[ROWS * 48];
    double kl[ROWS], itself[ROWS];
    bool other_top[ROWS];
    struct kv_target targets[ROWS], same[ROWS];
    (void)state;
    fill(ref, ROWS * 48, 1), fill(other, ROWS * 48, 2);
    for (size_t i = 0; i < ROWS * 48; i++) other[i] = 3 * (ref[i] + 0.3f * other[i]), ref[i] *= 3;
    for (uint32_t i = 0; i < ROWS; i++)
        same[i] = targets[i] = (struct kv_target){.row = i, .id = i * 260};
    kv_head_reference(m, ref, ROWS, s, &r);
    kv_head_compare(m, &r, other, s, kl, targets, ROWS, other_top);
    kv_head_compare(m, &r, ref, s, itself, same, ROWS, NULL);
    for (uint32_t i = 0; i < ROWS; i++) {
        double want = 0, entropy = 0, top = 0;
        float entropy_nats, confidence;
        size_t likeliest = 0, other_likeliest = 0;
        slow_log_softmax(p, m, ref + i * 48);
        slow_log_softmax(q, m, other + i * 48);
        for (size_t v = 0; v < VOCAB; v++) {
            want += exp(p[v]) * (p[v] - q[v]);
            entropy -= exp(p[v]) * p[v];
            top = fmax(top, exp(p[v]));
            if (p[v] > p[likeliest]) likeliest = v;
            if (q[v] > q[other_likeliest]) other_likeliest = v;
        }
        near(want, kl[i], 1e-5);
        assert_int_equal(likeliest != other_likeliest, other_top[i]);
        assert_int_equal(targets[i].id == other_likeliest, targets[i].top);
        assert_int_equal(targets[i].id == likeliest, targets[i].ref_top);
        near(q[targets[i].id], targets[i].logprob, 1e-5);
        near(p[targets[i].id], kv_reference_logprob(m, &r, i, targets[i].id), 1e-5);
        kv_reference_features(m, &r, i, &entropy_nats, &confidence);
        near(entropy, (double)entropy_nats, 1e-5);
        near(top, (double)confidence, 1e-6);
        // Equal logits diverge by exactly nothing.
        assert_true(itself[i] == 0);
        assert_true(same[i].logprob == kv_reference_logprob(m, &r, i, same[i].id));
    }
    kv_scratch_free(s);
    kv_model_close(m);
}

// A vocabulary's small terms must not be lost beside a large one (they were, in float sums).
static void a_flat_tail_counts_in_the_sum(void **state) {
    enum { N = 49152 };
    static float x[N];
    float max, sum;
    (void)state;
    for (size_t i = 0; i < N; i++) x[i] = -17; // 4.14e-8 each: below half a unit in 1's last place
    for (size_t i = 0; i < 64; i++) x[i] = 0;  // one in each lane
    kv_kernels()->max_sum_exp(x, N, &max, &sum);
    assert_true(max == 0);
    near(64 + (N - 64) * exp(-17), (double)sum, 1e-6); // lost in one block at most
}

// ---- each CPU level -------------------------------------------------------------------

extern const struct kv_kernels kv_kernels_base;
#if defined(__x86_64__)
extern const struct kv_kernels kv_kernels_avx2, kv_kernels_avx512;
#endif

// Levels this machine can run, base among them.
static size_t levels(const struct kv_kernels *list[KV_N_CPU]) {
    size_t n = 0;
    list[n++] = &kv_kernels_base;
#if defined(__x86_64__)
    if (kv_cpu_level() >= KV_CPU_AVX2) list[n++] = &kv_kernels_avx2;
    if (kv_cpu_level() >= KV_CPU_AVX512) list[n++] = &kv_kernels_avx512;
#endif
    return n;
}

// Softmax attention of n_q heads over `len` positions cut into spans at `cuts`.
static void attend_at(const struct kv_kernels *k, size_t n_q, size_t dim, size_t len,
                      const size_t *cuts, size_t n_cuts, const uint8_t *masked) {
    enum { LD = 256, MAX_Q = 7, MAX_DIM = 64 };
    static float k_t[MAX_DIM * LD], v[LD * MAX_DIM], q[MAX_Q * MAX_DIM], w[MAX_Q * LD],
        out[MAX_Q * MAX_DIM];
    struct kv_attend a = {.n_q = n_q,
                          .dim = dim,
                          .q = q,
                          .len = len,
                          .masked = masked,
                          .weights = w,
                          .ld_w = LD,
                          .out = out};
    fill(k_t, dim * LD, 1), fill(v, LD * dim, 2), fill(q, n_q * dim, 3);
    for (size_t c = 0, from = 0; c <= n_cuts; c++) {
        size_t to = c < n_cuts ? cuts[c] : len;
        a.span[a.n_spans++] = (struct kv_span){k_t + from, LD, v + from * dim, dim, to - from};
        from = to;
    }
    k->attend(&a);
    for (size_t g = 0; g < n_q; g++) {
        double s[LD], top = -INFINITY, sum = 0;
        for (size_t t = 0; t < len; t++) {
            s[t] = 0;
            for (size_t i = 0; i < dim; i++)
                s[t] += (double)q[g * dim + i] * (double)k_t[i * LD + t];
            if (masked && masked[t]) s[t] = -INFINITY;
            top = fmax(top, s[t]);
        }
        for (size_t t = 0; t < len; t++) sum += s[t] = exp(s[t] - top);
        for (size_t t = 0; t < len; t++) near(s[t] / sum, (double)w[g * LD + t], 2e-6);
        for (size_t i = 0; i < dim; i++) {
            double o = 0;
            for (size_t t = 0; t < len; t++) o += s[t] / sum * (double)v[t * dim + i];
            near(o, (double)out[g * dim + i], 5e-6);
        }
    }
}

static void attention_of_each_level_equals_float64(void **state) {
    const struct kv_kernels *list[KV_N_CPU];
    size_t n = levels(list);
    (void)state;
    for (size_t l = 0; l < n; l++)
        for (size_t len = 1; len < 190; len += 1 + len / 3)
            for (size_t n_q = 1; n_q <= 7; n_q += 2) {
                const size_t cuts[] = {len / 3, len / 2, len - len / 7};
                uint8_t masked[256];
                for (size_t t = 0; t < len; t++) masked[t] = t + 1 < len && t % 3 == 0;
                attend_at(list[l], n_q, 64, len, NULL, 0, NULL);
                attend_at(list[l], n_q, 16, len, cuts, 3, NULL);
                attend_at(list[l], n_q, 32, len, cuts, 2, masked);
            }
}

static void rows_of_each_level_equal_float64(void **state) {
    const struct kv_kernels *list[KV_N_CPU];
    static float x[2 * 300], y[2 * 300], gain[300], z[300];
    size_t n_levels = levels(list);
    (void)state;
    for (size_t l = 0; l < n_levels; l++)
        for (size_t n = 1; n < 150; n += 1 + n / 4) {
            double norm = 0, dot = 0, sum = 0, top = -INFINITY, d;
            float max, total;
            fill(x, 2 * n, n), fill(gain, n, n + 1), fill(z, n, n + 2);
            list[l]->rms_norm(y, x, gain, 1, n, 1e-5f);
            for (size_t i = 0; i < n; i++) norm += (double)x[i] * (double)x[i] / (double)n;
            for (size_t i = 0; i < n; i++)
                near((double)x[i] / sqrt(norm + 1e-5) * (double)gain[i], (double)y[i], 1e-6);
            list[l]->swiglu(y, x, 1, n);
            for (size_t i = 0; i < n; i++)
                near((double)x[i] / (1 + exp(-(double)x[i])) * (double)x[n + i], (double)y[i],
                     1e-6);
            for (size_t i = 0; i < n; i++) x[i] *= 20; // exponents from 1 down to e^-40
            for (size_t i = 0; i < n; i++) top = fmax(top, (double)x[i]);
            for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - top);
            list[l]->max_sum_exp(x, n, &max, &total);
            assert_true((double)max == top);
            near(sum, (double)total, 1e-6);
            list[l]->exp_shifted(y, x, n, max);
            for (size_t i = 0; i < n; i++) near(exp((double)x[i] - top), (double)y[i], 1e-6);
            list[l]->dot(x, z, n, &d);
            for (size_t i = 0; i < n; i++) dot += (double)x[i] * (double)z[i];
            near(dot, d, 1e-5);
        }
}

static void comparing_tiles_of_each_level_equals_float64(void **state) {
    const struct kv_kernels *list[KV_N_CPU];
    static float logit[150], ref[150], p[150];
    size_t n_levels = levels(list);
    (void)state;
    for (size_t l = 0; l < n_levels; l++)
        for (size_t n = 1; n < 150; n += 1 + n / 4) {
            double top = -INFINITY, sum_p = 0, sum_pe = 0, sum_pd = 0;
            fill(logit, n, n), fill(ref, n, n + 1), fill(p, n, n + 2);
            for (size_t i = 0; i < n; i++) {
                p[i] = fabsf(p[i]);
                top = fmax(top, (double)(logit[i] - ref[i]));
            }
            struct kv_tile_sums s = list[l]->compare(logit, ref, p, n);
            for (size_t i = 0; i < n; i++) {
                double d = (double)(logit[i] - ref[i]);
                sum_p += (double)p[i];
                sum_pe += (double)p[i] * exp(d - top);
                sum_pd += (double)p[i] * d;
            }
            assert_true((double)s.max_d == top);
            near(sum_p, (double)s.sum_p, 1e-6);
            near(sum_pe, (double)s.sum_pe, 1e-6);
            near(sum_pd, (double)s.sum_pd, 1e-5);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_models_equal_float64_loops_on_a_tree_and_on_a_line),
        cmocka_unit_test(a_query_reads_coded_below_its_bound_and_exact_above),
        cmocka_unit_test(evicted_tokens_are_seen_by_their_own_query_alone),
        cmocka_unit_test(a_tree_equals_its_sequences_run_one_by_one),
        cmocka_unit_test(a_known_prefix_equals_the_whole_run),
        cmocka_unit_test(attention_statistics_are_those_of_the_definition),
        cmocka_unit_test(a_disturbance_is_seeded_and_of_its_size),
        cmocka_unit_test(unknown_ids_and_long_sequences_are_refused),
        cmocka_unit_test(a_long_sequence_by_blocks_equals_its_beginning_by_rows),
        cmocka_unit_test(divergence_and_log_probs_equal_float64),
        cmocka_unit_test(a_flat_tail_counts_in_the_sum),
        cmocka_unit_test(attention_of_each_level_equals_float64),
        cmocka_unit_test(rows_of_each_level_equal_float64),
        cmocka_unit_test(comparing_tiles_of_each_level_equals_float64),
    };
    return cmocka_run_group_tests_name("the forward pass", tests, NULL, NULL);
}
