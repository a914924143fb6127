// SPDX-License-Identifier: Apache-2.0
// Anatomy of small random models into whose key biases constants are planted.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "analysis/studies/anatomy.h"
#include "sim/base/guard.h"
#include "sim/replay/test/tiny_trace.h"
#include "sim/test/light.h"

enum { LAYERS = 7, HEADS = 2, DIM = 32, ITEMS = 3 };
static const struct kv_shape shape = {LAYERS, 4, HEADS, DIM, 64, 96, N_TINY_PIECES, 1024};

struct made {
    char dir[64];
    struct kv_model *model;
    struct kv_trace *trace;
};

static void must(int rc, const struct kv_error *e) {
    if (rc) fail_msg("%s: %s", e->where, e->msg);
}

// Every projection has a bias of norm 1 or so; channel 14 of keys one of `constant` in layers 1 and
// 4 (of head 1).
static struct kv_model *biased_model(float constant) {
    struct tiny_pieces pieces;
    struct kv_error e;
    struct kv_model *m = kv_model_random(&shape, KV_ORDER_HF, true, 5);
    size_t n = (4 + 2 * HEADS) * DIM;
    make_tiny_pieces(&pieces);
    must(kv_tokenizer_new(&m->tokenizer, pieces.text, N_TINY_PIECES, tiny_merges, N_TINY_MERGES,
                          true, &e),
         &e);
    m->embed_scale = 30; // so that no layer's part of the residual stream drowns the later ones'
    for (size_t l = 0; l < LAYERS; l++) {
        float *bias = m->layers[l].qkv_bias = kv_alloc(n, sizeof *bias);
        for (size_t i = 0; i < n; i++) bias[i] = (float)(0.5 * kv_draw(9, l, i) - 0.25);
        if (l == 1 || l == 4) bias[(4 + 1) * DIM + 14] = constant;
    }
    return m;
}

static void swap_layers(struct kv_model *m, size_t a, size_t b) {
    struct kv_layer_weights was = m->layers[a];
    m->layers[a] = m->layers[b];
    m->layers[b] = was;
}

static void record(struct made *t, struct kv_model *m) {
    struct kv_error e = {0};
    struct kv_tasks *tasks;
    strcpy(t->dir, "/tmp/kvsim-anatomy-XXXXXX");
    assert_non_null(mkdtemp(t->dir));
    struct kv_record_options o = {.dir = t->dir,
                                  .keep = KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_Q | KV_KEEP_SENS,
                                  .n = light_testing() ? 1 : ITEMS,
                                  .adjoint = tiny_adjoint,
                                  .seed = 1,
                                  .jobs = 2};
    t->model = m;
    kv_set_verbosity(-1);
    must(kv_tasks_load(&tasks, "samples", &e), &e);
    must(kv_record(m, tasks, &o, &e), &e);
    kv_tasks_free(tasks);
    must(kv_trace_open(&t->trace, t->dir, &e), &e);
}

static void made_close(struct made *t) {
    kv_trace_close(t->trace);
    kv_model_close(t->model);
    tiny_remove(t->dir);
}

static struct kv_anatomy_options options_of(const struct made *t) {
    return (struct kv_anatomy_options){.model = t->model,
                                       .trace = t->trace,
                                       .format = "asym:group=32",
                                       .bits = 4,
                                       .budget_bits = 0.25,
                                       .jobs = 2};
}

// A bit for each layer whose keys, or values, are named.
static unsigned long named(const struct kv_anatomy *a, enum kv_side side) {
    unsigned long set = 0;
    for (size_t i = side; i < LAYERS * HEADS * 2; i += 2)
        if (a->places[i].named) set |= 1ul << a->places[i].layer;
    return set;
}

static const struct kv_anatomy_remedy *find(const struct kv_anatomy *a, const char *name) {
    for (size_t i = 0; i < a->n_remedies; i++)
        if (strcmp(a->remedies[i].name, name) == 0) return &a->remedies[i];
    fail_msg("no remedy is called '%s'", name);
    return NULL;
}

static void planted_constants_are_named_and_followed(void **state) {
    struct made t;
    struct kv_anatomy a;
    struct kv_error e;
    (void)state;
    struct kv_model *m = biased_model(60);
    for (int moved = 0; moved < 2; moved++) {
        if (moved) m = biased_model(60), swap_layers(m, 1, 6), swap_layers(m, 4, 0);
        record(&t, m);
        struct kv_anatomy_options o = options_of(&t);
        must(kv_anatomy_open(&a, &o, &e), &e);
        assert_int_equal(named(&a, KV_KEY), moved ? 1 | 1 << 6 : 1 << 1 | 1 << 4);
        assert_int_equal(named(&a, KV_VALUE), 0);
        assert_non_null(strstr(a.verdict, moved ? "keys of layers 0 and 6" : "layers 1 and 4"));
        assert_non_null(strstr(a.verdict, moved ? "14 of layer 6" : "14 of layer 1"));
        assert_true(a.remedies[1].within && strstr(a.remedies[1].spec, "side=pre"));
        assert_true(a.remedies[1].left_pct < 10);
        kv_anatomy_close(&a);
        o.trace = NULL; // and of the weights alone
        must(kv_anatomy_open(&a, &o, &e), &e);
        assert_int_equal(named(&a, KV_KEY), moved ? 1 | 1 << 6 : 1 << 1 | 1 << 4);
        assert_non_null(strstr(a.verdict, moved ? "keys of layers 0 and 6" : "layers 1 and 4"));
        kv_anatomy_close(&a);
        made_close(&t);
    }
}

static void where_no_layer_stands_out_none_is_named(void **state) {
    struct made t;
    struct kv_anatomy a;
    struct kv_error e;
    (void)state;
    record(&t, biased_model(0.2f));
    struct kv_anatomy_options o = options_of(&t);
    must(kv_anatomy_open(&a, &o, &e), &e);
    assert_int_equal(named(&a, KV_KEY) | named(&a, KV_VALUE), 0);
    assert_non_null(strstr(a.verdict, "no layer stands out"));
    kv_anatomy_close(&a);
    o.trace = NULL;
    must(kv_anatomy_open(&a, &o, &e), &e);
    assert_non_null(strstr(a.verdict, "foretell no layer that stands out"));
    kv_anatomy_close(&a);
    made_close(&t);
}

// A key is its bias before RoPE where the projection is nought, and does not change from token to
// token: all its energy is constant, its pair's, and after RoPE less of it.
static void numbers_of_a_place_are_those_of_its_vectors(void **state) {
    struct made t;
    struct kv_anatomy a;
    struct kv_error e;
    (void)state;
    struct kv_model *m = biased_model(60);
    struct kv_matrix *w = &m->layers[1].qkv;
    memset(w->f32 + (4 + 1) * DIM * w->cols, 0, DIM * w->cols * sizeof *w->f32);
    record(&t, m);
    struct kv_anatomy_options o = options_of(&t);
    must(kv_anatomy_open(&a, &o, &e), &e);
    const struct kv_anatomy_place *p = &a.places[(1 * HEADS + 1) * 2 + KV_KEY];
    assert_true(p->constant_pct > 99.99 && p->constant_pct < 100.01);
    assert_true(p->after_pct < p->constant_pct);
    assert_int_equal(p->mean_channel, 14);
    assert_true(fabs(p->mean - 60) < 0.05);
    assert_true(fabs(p->bias - 60) < 0.05);
    assert_int_equal(p->pair, 14); // half-split: channels 14 and 30
    assert_true(p->pair_pct > 99);
    assert_true(fabs(p->first_ratio - 1) < 1e-3);
    assert_true(p->kurtosis > 15 && p->kurtosis < 33); // one channel of 32 has it all
    double damage = 0, of_format = 0;
    for (size_t i = 0; i < LAYERS * HEADS * 2; i++) {
        damage += a.places[i].damage_pct;
        assert_true(a.places[i].error > 0 && a.places[i].error < 0.3);
        assert_true(a.places[i].sink_pct > 0 && a.places[i].sink_pct < 100);
        for (size_t c = 0; c < DIM; c++) of_format += a.damage[i * DIM + c];
    }
    assert_true(fabs(damage - 100) < 1e-6);
    assert_true(fabs(of_format / a.remedies[0].kl_fisher - 1) < 1e-5); // tables say the same
    kv_anatomy_close(&a);
    made_close(&t);
}

static void remedies_are_ranked_priced_and_checked(void **state) {
    struct made t;
    struct kv_anatomy a;
    struct kv_error e;
    (void)state;
    record(&t, biased_model(60));
    struct kv_anatomy_options o = options_of(&t);
    o.check = 2;
    must(kv_anatomy_open(&a, &o, &e), &e);
    assert_string_equal(a.remedies[0].name, "as it is");
    assert_true(fabs(a.remedies[0].allocated_bits - 5) < 1e-9);
    assert_true(fabs(find(&a, "a rotation")->more_bits) < 1e-9);
    assert_true(fabs(find(&a, "smaller groups")->more_bits - 1) < 1e-9);
    assert_false(find(&a, "smaller groups")->within);
    assert_true(find(&a, "keys by channel")->rough);
    const struct kv_anatomy_remedy *wider = find(&a, "wider layers");
    assert_true(wider->within && wider->kl_fisher < a.remedies[0].kl_fisher);
    for (size_t i = 0; i < a.n_remedies; i++) {
        const struct kv_anatomy_remedy *r = &a.remedies[i];
        assert_int_equal(r->within, r->more_bits <= 0.25 + 1e-9);
        assert_true(i < 2 || a.remedies[i - 1].within >= r->within);
        assert_true(i < 3 || a.remedies[i - 1].within != r->within ||
                    a.remedies[i - 1].kl_fisher <= r->kl_fisher);
        assert_int_equal(isfinite(r->kl_exact), i < 3);
    }
    assert_true(a.remedies[1].kl_exact < 0.5 * a.remedies[0].kl_exact);
    assert_non_null(strstr(a.verdict, "run exactly it leaves"));
    kv_anatomy_close(&a);
    made_close(&t);
}

static void what_cannot_be_asked_is_refused(void **state) {
    struct made t;
    struct kv_anatomy a;
    struct kv_error e;
    (void)state;
    record(&t, biased_model(0));
    struct kv_anatomy_options o = options_of(&t);
    o.bits = 7;
    assert_int_equal(kv_anatomy_open(&a, &o, &e), KV_EUSAGE);
    assert_string_equal(e.where, "bits");
    o = options_of(&t);
    o.items = (struct kv_item_range){2, 9};
    assert_int_equal(kv_anatomy_open(&a, &o, &e), KV_EUSAGE);
    o = options_of(&t);
    o.check = 3, o.model = NULL;
    assert_int_equal(kv_anatomy_open(&a, &o, &e), KV_EUSAGE);
    o.trace = NULL;
    assert_int_equal(kv_anatomy_open(&a, &o, &e), KV_EUSAGE);
    made_close(&t);
}

#define TEST(t) cmocka_unit_test(t)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(planted_constants_are_named_and_followed),
        TEST(where_no_layer_stands_out_none_is_named),
        TEST(numbers_of_a_place_are_those_of_its_vectors),
        TEST(remedies_are_ranked_priced_and_checked),
        TEST(what_cannot_be_asked_is_refused),
    };
    return cmocka_run_group_tests_name("anatomy", tests, NULL, NULL);
}
