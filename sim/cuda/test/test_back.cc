// SPDX-License-Identifier: Apache-2.0
// The backward pass of an accelerator, by plain loops on this machine, against sim/model's own.
#include "sim/cuda/back.cuh"

extern "C" {
#include "sim/base/memory.h"
#include "sim/model/back.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
}
#include <stdlib.h>
#include <vector>

// What KvBack runs on, without a device.
struct plain_loops {
    using Team = KvAlone;
    std::vector<float> rooms[KV_BACK_SLOTS], got;
    std::vector<uint32_t> places;
    int failed() const { return 0; }
    bool full() const { return false; }
    float *room(int slot, size_t n) {
        if (rooms[slot].size() < n) rooms[slot].resize(n, NAN);
        return rooms[slot].data();
    }
    float *up(int slot, const float *host, size_t n) {
        return (float *)memcpy(room(slot, n), host, n * sizeof *host);
    }
    uint32_t *place(const uint32_t *position, const uint32_t *begin, const uint32_t *counted,
                    size_t n) {
        places.assign(position, position + n);
        places.insert(places.end(), begin, begin + n);
        if (counted) places.insert(places.end(), counted, counted + n);
        return places.data();
    }
    const float *down(const float *a, size_t n, const float *b, size_t m) {
        got.assign(a, a + n);
        got.insert(got.end(), b, b + m);
        return got.data();
    }
    void zero(float *to, size_t n) { memset(to, 0, n * sizeof *to); }
    template <class F> void each(size_t n, F f) {
        for (size_t i = 0; i < n; i++) f(i);
    }
    template <class F> void teams(size_t n, F f) {
        for (size_t i = 0; i < n; i++) f(KvAlone(), i);
    }
    void product(size_t rows, size_t n, size_t k, const float *dy, const float *w, float *dx) {
        for (size_t r = 0; r < rows; r++)
            for (size_t i = 0; i < n; i++) {
                double sum = 0;
                for (size_t j = 0; j < k; j++) sum += (double)dy[r * k + j] * (double)w[j * n + i];
                dx[r * n + i] = (float)sum;
            }
    }
    static size_t step(const KvSteps &s, size_t i) {
        return s.c + i / s.n * s.a + i % s.n * s.b + i % s.n / s.group * s.e;
    }
    void batched(size_t count, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha,
                 const float *a, KvSteps sa, size_t lda, const float *b, KvSteps sb, size_t ldb,
                 float beta, float *c, KvSteps sc, size_t ldc) {
        for (size_t of = 0; of < count; of++)
            for (size_t i = 0; i < m; i++)
                for (size_t j = 0; j < n; j++) {
                    const float *x = a + step(sa, of), *y = b + step(sb, of);
                    float *to = c + step(sc, of) + i * ldc + j;
                    double sum = 0;
                    for (size_t p = 0; p < k; p++)
                        sum += (double)(ta ? x[p * lda + i] : x[i * lda + p]) *
                               (double)(tb ? y[j * ldb + p] : y[p * ldb + j]);
                    *to = alpha * (float)sum + (beta != 0.0f ? *to : 0.0f);
                }
    }
};

static int by_loops(const kv_back_job *job, char *, size_t) {
    plain_loops on;
    return kv_back_run(on, job);
}

enum { DRAWS = 3, TOKENS = 13 };
static const uint32_t ids[] = {3, 17, 5, 40, 2, 9, 33, 12, 7, 21, 30, 4, 5},
                      first[] = {6, 9, 10, 13}, counted[] = {0, 0, 1, 2, 2, 5, 5, 6, 7, 6, 6, 7, 8};
static const kv_tree tree = {TOKENS, 6, 3, first, ids};

struct gradients {
    std::vector<float> k, v, evict;
    size_t n, heads;
};

static void take(void *self, size_t draw, uint32_t layer, const float *dk, const float *dv,
                 const float *d_evict) {
    gradients *g = (gradients *)self;
    size_t at = (layer * DRAWS + draw) * g->n, at_e = (layer * DRAWS + draw) * g->heads;
    memcpy(&g->k[at], dk, g->n * sizeof *dk);
    memcpy(&g->v[at], dv, g->n * sizeof *dv);
    memcpy(&g->evict[at_e], d_evict, g->heads * sizeof *dv);
}

static int keep_float32(void *, uint32_t, const kv_layer_kv *kv, kv_layer_view *view, kv_error *) {
    *view = kv_layer_view{};
    view->k_exact = kv->k, view->v_exact = kv->v;
    return 0;
}

static double apart(const std::vector<float> &a, const std::vector<float> &b) {
    double error = 0, size = 0;
    for (size_t i = 0; i < a.size(); i++) {
        error += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)a[i] * a[i];
    }
    assert_true(size > 0);
    return sqrt(error / size);
}

static gradients of_model(kv_model *m, size_t tape_bytes, const uint32_t *counts,
                          const kv_accelerator *elsewhere) {
    const kv_shape *sh = &m->shape;
    kv_scratch *s = kv_scratch_new();
    kv_tape *tape = kv_tape_new(m, TOKENS, tape_bytes);
    std::vector<float> final(TOKENS * sh->hidden), d_final(DRAWS * final.size());
    struct kv_forward forward = {};
    kv_error e = {};
    forward.tree = &tree, forward.store = keep_float32, forward.tape = tape;
    forward.final = final.data();
    assert_int_equal(kv_forward(m, &forward, s, &e), 0);
    for (size_t i = 0; i < d_final.size(); i++)
        d_final[i] = (float)sin(1.7 * (double)i + (double)(i % 7));
    gradients g = {};
    g.n = (size_t)TOKENS * sh->n_kv_heads * sh->head_dim;
    g.heads = (size_t)TOKENS * sh->n_kv_heads;
    g.k.resize(sh->n_layers * DRAWS * g.n), g.v.resize(g.k.size());
    g.evict.resize(sh->n_layers * DRAWS * g.heads);
    struct kv_adjoint job = {};
    job.tree = &tree, job.tape = tape, job.counted = counts, job.n_draws = DRAWS;
    job.d_final = d_final.data(), job.take = take, job.self = &g;
    m->accelerator = elsewhere; // its matrices stay here: products are the host's
    kv_adjoint(m, &job, s);
    m->accelerator = NULL;
    kv_tape_free(tape);
    kv_scratch_free(s);
    return g;
}

static void compare(kv_model *m, size_t tape_bytes, const uint32_t *counts) {
    const kv_accelerator loops = {
        KV_ACCELERATOR_ABI, "loops", "loops", 1, NULL, NULL, NULL, NULL, by_loops};
    gradients own = of_model(m, tape_bytes, counts, NULL),
              other = of_model(m, tape_bytes, counts, &loops);
    double k = apart(own.k, other.k), v = apart(own.v, other.v),
           gone = apart(own.evict, other.evict);
    if (!(k < 1e-5 && v < 1e-5 && gone < 1e-4))
        fail_msg("%s: gradients are %.2e (keys), %.2e (values) and %.2e (evictions) apart", m->name,
                 k, v, gone);
    kv_model_close(m);
}

static kv_shape shape_of(uint32_t layers, uint32_t heads, uint32_t kv_heads, uint32_t d) {
    kv_shape s = {};
    s.n_layers = layers, s.n_heads = heads, s.n_kv_heads = kv_heads, s.head_dim = d;
    s.hidden = 48, s.ffn = 64, s.vocab = 48, s.max_tokens = 64;
    return s;
}

static kv_model *family(uint32_t i) {
    static const char *const names[] = {NULL, NULL, "qwen2", "qwen3", "gemma3"};
    kv_shape s = shape_of(i == 1 ? 1 : 4, 6, i == 1 ? 6 : 2, i % 2 ? 32 : 16);
    kv_random_model how = {};
    how.architecture = names[i];
    how.biases = true;
    if (i == 4) how.window = 4, how.window_pattern = 2, how.attn_scale = 0.1f;
    kv_model *m = kv_model_random_as(&s, i ? KV_ORDER_HF : KV_ORDER_GGML, true, 7, &how);
    if (!m) fail_msg("no random model of family %u", i);
    return m;
}

static void test_families(void **) {
    for (uint32_t i = 0; i < 5; i++) compare(family(i), KV_TAPE_BYTES, NULL);
}

static void test_counted(void **) {
    for (uint32_t i = 0; i < 5; i++) compare(family(i), KV_TAPE_BYTES, counted);
}

static void test_thrifty(void **) {
    for (uint32_t i = 0; i < 5; i++) compare(family(i), 0, counted);
}

static int as_if_long(const kv_back_job *job, char *, size_t) {
    kv_back_job long_one = *job;
    plain_loops on;
    long_one.rows = 1 << 20;
    return kv_back_run(on, &long_one);
}

struct no_memory : plain_loops {
    bool full() const { return true; }
};

static int as_if_full(const kv_back_job *job, char *, size_t) {
    no_memory on;
    return kv_back_run(on, job);
}

// What the host would have said is what comes, to the bit.
static void test_too_long(void **) {
    for (auto back : {as_if_long, as_if_full}) {
        const kv_accelerator small = {
            KV_ACCELERATOR_ABI, "small", "small", 1, NULL, NULL, NULL, NULL, back};
        kv_model *m = family(0);
        gradients own = of_model(m, KV_TAPE_BYTES, NULL, NULL),
                  other = of_model(m, KV_TAPE_BYTES, NULL, &small);
        assert_memory_equal(own.k.data(), other.k.data(), own.k.size() * sizeof(float));
        assert_memory_equal(own.v.data(), other.v.data(), own.v.size() * sizeof(float));
        kv_model_close(m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"an accelerator's way back has the gradients of the host's, in each family", test_families,
         0, 0, 0},
        {"and where some reads do not count", test_counted, 0, 0, 0},
        {"and over a thrifty tape", test_thrifty, 0, 0, 0},
        {"an item that does not fit is left to the host", test_too_long, 0, 0, 0},
    };
    return cmocka_run_group_tests_name("way back", tests, NULL, NULL);
}
