// SPDX-License-Identifier: Apache-2.0
// Judges attention replay by plain float64 attention over the same recorded queries.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the headers above before its own
#include <cmocka.h>

#include "sim/replay/attention.h"
#include "sim/replay/test/tiny_trace.h"

static struct tiny_trace whole, without_q,
    windowed; // the last: its second layer sees WINDOW tokens
enum { WINDOW = 9 };

static int set_up(void **state) {
    (void)state;
    struct kv_model *m = tiny_model();
    m->layers[1].window = WINDOW;
    int rc = tiny_trace_of(&windowed, m, KV_KEEP_FINAL | KV_KEEP_Q | KV_KEEP_CELLS, 2);
    kv_model_close(m);
    return rc || tiny_trace_open(&whole, KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_Q, 2, NULL) ||
           tiny_trace_open(&without_q, KV_KEEP_FINAL | KV_KEEP_KV, 1, NULL);
}

static int tear_down(void **state) {
    (void)state;
    tiny_trace_close(&whole);
    tiny_trace_close(&without_q);
    tiny_trace_close(&windowed);
    return 0;
}

struct seen {
    size_t n;
    struct kv_attention_layer mean[16], layer[16][2];
};

static int keep(void *self, size_t item, size_t spec, const struct kv_attention_error *x,
                struct kv_error *e) {
    struct seen *s = self;
    (void)e;
    size_t at = item * 8 + spec;
    s->mean[at] = x->mean;
    memcpy(s->layer[at], x->layer, 2 * sizeof *x->layer);
    s->n++;
    return 0;
}

static struct seen run_on(const struct tiny_trace *t, struct kv_replay_spec *specs, size_t n,
                          bool self_exact, unsigned jobs) {
    struct seen s = {0};
    struct kv_error e = {0};
    struct kv_replay r = {
        .trace = t->trace, .specs = specs, .n_specs = n, .self_exact = self_exact, .n_items = 2};
    if (kv_replay_attention(&r, jobs, keep, &s, &e)) fail_msg("%s: %s", e.where, e.msg);
    assert_int_equal(s.n, 2 * n);
    return s;
}

static struct seen run(struct kv_replay_spec *specs, size_t n, bool self_exact, unsigned jobs) {
    return run_on(&whole, specs, n, self_exact, jobs);
}

// ---- plain attention ------------------------------------------------------------------

// Rows a row sees, in order: the newest `window` of them, or all.
static size_t path_of(const struct kv_trace_item *it, size_t row, size_t window, size_t *path) {
    size_t n = 0, c = 0;
    while (c < it->n_choices && row >= it->first[c + 1]) c++;
    for (size_t i = 0; i < it->n_context && i <= row; i++) path[n++] = i;
    for (size_t i = it->first[c]; row >= it->n_context && i <= row; i++) path[n++] = i;
    if (window == 0 || n <= window) return n;
    memmove(path, path + n - window, window * sizeof *path);
    return window;
}

static double plain_output(const struct kv_trace_item *it, const float *error, uint32_t layer,
                           size_t window, bool own_exact, double *kl) {
    const struct kv_shape *s = &tiny_shape;
    size_t d = s->head_dim, path[1024];
    double sum = 0, w[2][1024], o[2][64];
    *kl = 0;
    for (size_t row = 0; row < it->n_tokens; row++)
        for (size_t h = 0; h < s->n_heads; h++) {
            size_t kv = h / (s->n_heads / s->n_kv_heads), n = path_of(it, row, window, path);
            for (int coded = 0; coded < 2; coded++) {
                double top = -INFINITY, total = 0;
                memset(o[coded], 0, sizeof o[coded]);
                for (int pass = 0; pass < 3; pass++)
                    for (size_t j = 0; j < n; j++) {
                        size_t at = (path[j] * s->n_layers + layer) * s->n_kv_heads + kv;
                        double use = coded && !(own_exact && path[j] == row), score = 0;
                        for (size_t i = 0; i < d && pass == 0; i++)
                            score +=
                                (double)kv_f16_to_f32(
                                    it->q[((row * s->n_layers + layer) * s->n_heads + h) * d + i]) *
                                ((double)kv_f16_to_f32(it->k[at * d + i]) +
                                 use * (double)error[2 * at * d + i]);
                        if (pass == 0) top = fmax(top, w[coded][j] = score / sqrt((double)d));
                        if (pass == 1) total += w[coded][j] = exp(w[coded][j] - top);
                        for (size_t i = 0; i < d && pass == 2; i++)
                            o[coded][i] += w[coded][j] / total *
                                           ((double)kv_f16_to_f32(it->v[at * d + i]) +
                                            use * (double)error[(2 * at + 1) * d + i]);
                    }
                for (size_t j = 0; j < n; j++) w[coded][j] /= total;
            }
            double norm = 0, e = 0;
            for (size_t i = 0; i < d; i++) {
                norm += o[0][i] * o[0][i];
                e += (o[1][i] - o[0][i]) * (o[1][i] - o[0][i]);
            }
            sum += e / norm;
            for (size_t j = 0; j < n; j++) *kl += w[0][j] * log(w[0][j] / w[1][j]);
        }
    *kl /= (double)(it->n_tokens * s->n_heads);
    return sum / (double)(it->n_tokens * s->n_heads);
}

static void compare_with_plain(const struct tiny_trace *t, size_t window) {
    struct kv_error e;
    struct kv_replay_spec spec = tiny_spec(t, "static:k=3,v=4@asym:group=16");
    struct kv_cell_table_scratch *s = kv_cell_table_scratch_new(spec.format);
    for (int own = 0; own < 2; own++) {
        struct seen seen = run_on(t, &spec, 1, own, 1);
        for (size_t i = 0; i < 2; i++) {
            const struct kv_trace_item *it = kv_trace_item(t->trace, i);
            struct kv_replay r = {.trace = t->trace, .specs = &spec, .n_specs = 1};
            size_t n = it->n_tokens * kv_cells(&tiny_shape);
            uint8_t *cells = kv_alloc(n, 1);
            float *error = kv_alloc(n * tiny_shape.head_dim, sizeof *error);
            assert_int_equal(kv_decide(&r, 0, i, cells, &e), 0);
            assert_int_equal(
                kv_coding_error(kv_trace_info(t->trace), it, spec.format, cells, s, error, &e), 0);
            for (uint32_t l = 0; l < 2; l++) {
                double kl, output = plain_output(it, error, l, l == 1 ? window : 0, own, &kl);
                const struct kv_attention_layer *x = &seen.layer[8 * i][l];
                assert_true(output > 1e-6);
                assert_true(fabs(x->output - output) < 1e-3 * output);
                assert_true(fabs(x->kl_nats - kl) < 1e-2 * kl + 1e-9);
            }
            free(cells);
            free(error);
        }
    }
    kv_cell_table_scratch_free(s);
    kv_replay_spec_close(&spec);
}

static void matches_plain_attention(void **state) {
    (void)state;
    compare_with_plain(&whole, 0);
    compare_with_plain(&windowed, WINDOW);
}

static void a_window_bounds_what_a_cell_s_own_attention_says(void **state) {
    (void)state;
    const struct kv_trace_item *it = kv_trace_item(windowed.trace, 0);
    float most[2] = {0, 0};
    for (size_t row = 0; row < it->n_tokens; row++)
        for (size_t l = 0; l < 2; l++)
            for (size_t h = 0; h < 2; h++)
                most[l] = fmaxf(most[l],
                                it->cells_attention[((row * 2 + l) * 2 + h) * KV_N_CELL_FEATURES +
                                                    KV_CELL_ENTROPY_NATS]);
    assert_true(most[0] > logf(WINDOW) + 0.1f && most[1] <= logf(WINDOW) + 1e-5f && most[1] > 1);
}

static void sixteen_bits_change_nothing_and_fewer_bits_change_more(void **state) {
    (void)state;
    struct kv_replay_spec specs[] = {
        tiny_spec(&whole, "static:bits=16@sym"), tiny_spec(&whole, "static:bits=8@sym"),
        tiny_spec(&whole, "static:bits=4@sym"), tiny_spec(&whole, "static:k=16,v=4@sym")};
    struct seen s = run(specs, 4, false, 1);
    assert_true(s.mean[0].output == 0 && s.mean[0].kl_nats < 1e-12 && s.mean[0].key == 0);
    assert_true(s.mean[1].output > 0 && s.mean[1].output < s.mean[2].output);
    assert_true(s.mean[1].kl_nats < s.mean[2].kl_nats && s.mean[1].key < s.mean[2].key);
    assert_true(s.mean[3].kl_nats < 1e-12 && s.mean[3].output > 0 && s.mean[3].key == 0);
    for (size_t i = 0; i < 4; i++) kv_replay_spec_close(&specs[i]);
}

static void stretch_is_one_where_attention_is_linear(void **state) {
    (void)state;
    struct kv_replay_spec specs[] = {
        tiny_spec(&whole, "static:k=16,v=2@sym"), tiny_spec(&whole, "static:bits=8@asym:group=16"),
        tiny_spec(&whole, "static:bits=16@sym"), tiny_spec(&whole, "static:k=2,v=16@sym"),
        tiny_spec(&whole, "static:k=16,v=2@sym:window=16")};
    struct seen s = run(specs, 5, false, 1);
    assert_true(fabs(s.mean[0].stretch - 1) < 1e-4);
    assert_true(fabs(s.mean[1].stretch - 1) < 0.03);
    assert_true(s.mean[2].stretch == 1);
    assert_true(fabs(s.mean[3].stretch - 1) > 0.05);
    assert_true(fabs(s.mean[4].stretch - 1) < 1e-4);
    for (size_t i = 0; i < 5; i++) kv_replay_spec_close(&specs[i]);
}

static void eviction_changes_outputs_but_not_how_the_rest_compare(void **state) {
    (void)state;
    struct kv_replay_spec specs[] = {tiny_spec(&whole, "sinks:keep=4,window=8,bits=16@sym"),
                                     tiny_spec(&whole, "sinks:keep=4,window=8,bits=4@sym")};
    struct seen s = run(specs, 2, false, 1);
    assert_true(s.mean[0].output > 0.01 && s.mean[0].kl_nats < 1e-6 && s.mean[0].key == 0);
    assert_true(s.mean[1].output > s.mean[0].output && s.mean[1].kl_nats > 1e-4);
    for (size_t i = 0; i < 2; i++) kv_replay_spec_close(&specs[i]);
}

static void a_window_keeps_new_tokens_exact(void **state) {
    (void)state;
    struct kv_replay_spec specs[] = {tiny_spec(&whole, "static:bits=2@sym"),
                                     tiny_spec(&whole, "static:bits=2@sym:window=16"),
                                     tiny_spec(&whole, "static:bits=2@sym:window=1024")};
    struct seen s = run(specs, 3, false, 1);
    assert_true(s.mean[1].output < s.mean[0].output && s.mean[1].output > 0);
    assert_true(s.mean[2].output == 0);
    for (size_t i = 0; i < 3; i++) kv_replay_spec_close(&specs[i]);
}

static void workers_change_no_bit(void **state) {
    (void)state;
    struct kv_replay_spec specs[] = {tiny_spec(&whole, "random:bits=2/4@sym"),
                                     tiny_spec(&whole, "static:bits=3@sym")};
    struct seen one = run(specs, 2, false, 1), two = run(specs, 2, false, 2);
    assert_memory_equal(&one, &two, sizeof one);
    for (size_t i = 0; i < 2; i++) kv_replay_spec_close(&specs[i]);
}

static void a_trace_without_queries_is_refused(void **state) {
    (void)state;
    struct kv_error e;
    struct kv_replay r = {.trace = without_q.trace, .n_items = 1};
    assert_int_equal(kv_replay_attention(&r, 1, keep, NULL, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "record with --keep q,kv"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_plain_attention),
        cmocka_unit_test(a_window_bounds_what_a_cell_s_own_attention_says),
        cmocka_unit_test(sixteen_bits_change_nothing_and_fewer_bits_change_more),
        cmocka_unit_test(stretch_is_one_where_attention_is_linear),
        cmocka_unit_test(eviction_changes_outputs_but_not_how_the_rest_compare),
        cmocka_unit_test(a_window_keeps_new_tokens_exact),
        cmocka_unit_test(workers_change_no_bit),
        cmocka_unit_test(a_trace_without_queries_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
