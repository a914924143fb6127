// SPDX-License-Identifier: Apache-2.0
// Training policy cells: the gradient against differences of a plain model in double, a planted
// model that is found again, the same bits whatever the workers, and what the file then says.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the headers above before its own
#include <cmocka.h>

#include "analysis/search/cells.h"
#include "analysis/studies/cells.h"
#include "analysis/studies/cells_budget.h"
#include "analysis/test/tiny_study.h"
#include "sim/base/blas.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/model/safetensors.h"
#include "sim/test/light.h"

static void must(int rc, const struct kv_error *e) {
    if (rc) fail_msg("%s: %s", e->where, e->msg);
}

// ---- made-up tokens -------------------------------------------------------------------

struct set {
    struct kv_cells_shape shape;
    size_t n;
    float *target, *attention, *token;
    uint16_t *values;
    const uint16_t **hidden;
    uint32_t *all;
};

static double normal(uint64_t stream, uint64_t i) { // Box and Muller 1958
    double u = 1 - kv_draw(11, stream, 2 * i), v = kv_draw(11, stream, 2 * i + 1);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static struct set make_set(struct kv_cells_shape shape, size_t n) {
    struct set s = {.shape = shape, .n = n};
    size_t places = kv_cells_places(&shape), attention = places / 2 * shape.n_attention;
    size_t hidden = (size_t)shape.n_layers * shape.hidden;
    s.target = kv_alloc(n * places, sizeof(float));
    s.attention = kv_alloc(n * attention, sizeof(float));
    s.token = kv_alloc(n * shape.n_token, sizeof(float));
    s.values = kv_alloc(n * hidden, sizeof(uint16_t));
    s.hidden = kv_alloc(n, sizeof *s.hidden);
    s.all = kv_alloc(n, sizeof *s.all);
    for (size_t i = 0; i < n * places; i++) s.target[i] = (float)-log(1 - kv_draw(11, 1, i));
    for (size_t i = 0; i < n * attention; i++) s.attention[i] = (float)normal(2, i);
    for (size_t i = 0; i < n * shape.n_token; i++) s.token[i] = (float)normal(3, i);
    for (size_t i = 0; i < n * hidden; i++) s.values[i] = kv_f32_to_f16((float)normal(4, i));
    for (size_t i = 0; i < n; i++) {
        s.hidden[i] = s.values + i * hidden;
        s.all[i] = (uint32_t)i;
    }
    return s;
}

static void set_fini(struct set *s) {
    void *owned[] = {s->target, s->attention, s->token, s->values, s->hidden, s->all};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
}

static struct kv_cells_data data_of(const struct set *s) {
    return (struct kv_cells_data){s->n, s->target, s->attention, s->token, s->hidden, NULL};
}

// ---- the model, written down plainly --------------------------------------------------

static double silu(double z) {
    return z / (1 + exp(-z));
}

// f of one cell in double.
static double plain(const struct kv_cells_model *m, const struct set *s, size_t token,
                    size_t place) {
    const struct kv_cells_shape *h = &s->shape;
    size_t n_x = kv_cells_features_of(h), net = h->net, width = h->hidden;
    double x[32], one[64], two[64], f = (double)m->bias[place];
    for (size_t k = 0; k < n_x; k++)
        x[k] =
            k < h->n_attention
                ? (double)s
                      ->attention[(token * kv_cells_places(h) / 2 + place / 2) * h->n_attention + k]
                : (double)s->token[token * h->n_token + k - h->n_attention];
    for (size_t k = 0; k < n_x; k++) f += (double)m->linear[place * n_x + k] * x[k];
    for (size_t k = 0; k < width; k++)
        f += (double)m->probe[place * width + k] *
             (double)kv_f16_to_f32(s->hidden[token][place / (2 * h->n_kv_heads) * width + k]);
    if (net == 0) return f;
    for (size_t k = 0; k < KV_CELLS_EMBEDDING; k++)
        x[n_x + k] = (double)m->embedding[place * KV_CELLS_EMBEDDING + k];
    n_x += KV_CELLS_EMBEDDING;
    for (size_t i = 0; i < net; i++) {
        double z = (double)m->offset[0][i];
        for (size_t k = 0; k < n_x; k++) z += (double)m->weight[0][i * n_x + k] * x[k];
        one[i] = silu(z);
    }
    for (size_t i = 0; i < net; i++) {
        double z = (double)m->offset[1][i];
        for (size_t k = 0; k < net; k++) z += (double)m->weight[1][i * net + k] * one[k];
        two[i] = silu(z);
    }
    for (size_t i = 0; i < net; i++) f += (double)m->weight[2][i] * two[i];
    return f + (double)m->offset[2][0];
}

static double plain_loss(const struct kv_cells_model *m, const struct set *s) {
    size_t places = kv_cells_places(&s->shape);
    double loss = 0;
    for (size_t i = 0; i < s->n * places; i++) {
        if (s->target[i] < 0) continue;
        double f = fmin(fmax(plain(m, s, i / places, i % places), -12), 12);
        loss += (double)s->target[i] * exp(-f) + f;
    }
    return loss;
}

// Every parameter moved off its start, so that no part is 0.
static struct kv_cells_model *moved_model(const struct kv_cells_shape *shape, double by) {
    struct kv_cells_model *m = kv_cells_new(shape, 5);
    for (size_t i = 0; i < m->n; i++) m->parameter[i] += (float)(by * normal(6, i));
    return m;
}

static const struct kv_cells_shape small = {
    .n_layers = 2, .n_kv_heads = 2, .hidden = 5, .n_attention = 6, .n_token = 3, .net = 7};

static void check_gradient(struct kv_cells_shape shape) {
    struct set s = make_set(shape, 9);
    struct kv_cells_model *m = moved_model(&shape, 0.3);
    struct kv_cells_data d = data_of(&s);
    struct kv_cells_rows rows = {.n = s.n, .token = s.all};
    float *gradient = kv_alloc(m->n, sizeof *gradient);
    s.target[3] = -1; // left out
    m->bias[2] = 40;  // beyond the clip: no gradient from there
    double loss = kv_cells_gradient(m, &d, &rows, 1, gradient);
    assert_true(fabs(loss - plain_loss(m, &s)) < 1e-4 * fabs(loss));
    for (size_t i = 0; i < m->n; i++) {
        float was = m->parameter[i];
        m->parameter[i] = was + 0x1p-10f;
        double above = plain_loss(m, &s), up = (double)m->parameter[i];
        m->parameter[i] = was - 0x1p-10f;
        double below = plain_loss(m, &s), want = (above - below) / (up - (double)m->parameter[i]);
        m->parameter[i] = was;
        if (fabs(want - (double)gradient[i]) > 2e-4 * (1 + fabs(want)))
            fail_msg("parameter %zu of %zu: %.8g by differences, %.8g", i, m->n, want,
                     (double)gradient[i]);
    }
    free(gradient);
    kv_cells_free(m);
    set_fini(&s);
}

static void the_gradient_is_that_of_differences(void **state) {
    (void)state;
    struct kv_cells_shape parts[] = {small, small, small, small, small};
    parts[1].net = 0;
    parts[2].hidden = 0;
    parts[3].n_token = 0;
    parts[4].n_attention = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) check_gradient(parts[i]);
    check_gradient((struct kv_cells_shape){.n_layers = 2, .n_kv_heads = 1}); // place alone
}

static void what_is_predicted_is_the_plain_model_and_starts_at_nothing(void **state) {
    (void)state;
    struct kv_error e;
    struct set s = make_set(small, 300); // more than two chunks
    struct kv_cells_data d = data_of(&s);
    struct kv_cells_rows rows = {.n = s.n, .token = s.all};
    size_t places = kv_cells_places(&small);
    float *f = kv_alloc(s.n * places, sizeof *f);
    struct kv_cells_model *m = kv_cells_new(&small, 5);
    must(kv_cells_predict(m, &d, &rows, 2, f, &e), &e);
    for (size_t i = 0; i < s.n * places; i++) assert_true(f[i] == 0);
    kv_cells_free(m);
    m = moved_model(&small, 0.3);
    must(kv_cells_predict(m, &d, &rows, 2, f, &e), &e);
    double sum = 0;
    for (size_t i = 0; i < s.n * places; i++) {
        double want = plain(m, &s, i / places, i % places);
        assert_true(fabs((double)f[i] - want) < 1e-4 * (1 + fabs(want)));
        sum += (double)s.target[i] * exp(-fmin(fmax(want, -12), 12)) + fmin(fmax(want, -12), 12);
    }
    double deviance = kv_cells_deviance(m, &d, &rows, f);
    assert_true(fabs(deviance - sum / (double)(s.n * places)) < 1e-4 * fabs(deviance));
    kv_cells_free(m);
    free(f);
    set_fini(&s);
}

static void a_group_taken_from_other_tokens_changes_that_group_alone(void **state) {
    (void)state;
    struct kv_error e;
    struct set s = make_set(small, 40), turned = make_set(small, 40);
    size_t places = kv_cells_places(&small), n_a = places / 2 * small.n_attention;
    uint32_t *other = kv_alloc(s.n, sizeof *other);
    for (size_t i = 0; i < s.n; i++) other[i] = (uint32_t)((i + 7) % s.n);
    struct kv_cells_model *m = moved_model(&small, 0.3);
    float *f = kv_alloc(s.n * places, sizeof *f);
    for (int group = 0; group < 4; group++) { // turned: the same set with that group moved
        struct kv_cells_rows rows = {.n = s.n, .token = s.all, .split = 2};
        const uint32_t **of[] = {&rows.attention, &rows.low, &rows.high, &rows.probe};
        *of[group] = other;
        for (size_t i = 0; i < s.n; i++) {
            memcpy(turned.attention + i * n_a, s.attention + (group == 0 ? other[i] : i) * n_a,
                   n_a * sizeof(float));
            for (size_t k = 0; k < 3; k++)
                turned.token[i * 3 + k] =
                    s.token[(group == (k < 2 ? 1 : 2) ? other[i] : i) * 3 + k];
            turned.hidden[i] = s.hidden[group == 3 ? other[i] : i];
        }
        struct kv_cells_data d = data_of(&s);
        must(kv_cells_predict(m, &d, &rows, 1, f, &e), &e);
        for (size_t i = 0; i < s.n * places; i++) {
            double want = plain(m, &turned, i / places, i % places);
            assert_true(fabs((double)f[i] - want) < 1e-4 * (1 + fabs(want)));
        }
    }
    free(f);
    free(other);
    kv_cells_free(m);
    set_fini(&s);
    set_fini(&turned);
}

// ---- training -------------------------------------------------------------------------

static const struct kv_cells_shape planted = {
    .n_layers = 2, .n_kv_heads = 1, .hidden = 8, .n_attention = 6, .n_token = 1, .net = 16};
enum { PLANTED = 12000, LEARNED = 10000 };

// Targets whose mean is exp(f) of a known model, times an exponential draw.
static struct kv_cells_model *plant(struct set *s) {
    struct kv_cells_model *m = moved_model(&planted, 0);
    size_t places = kv_cells_places(&planted), n_x = kv_cells_features_of(&planted);
    for (size_t i = 0; i < places * n_x; i++) m->linear[i] = (float)(0.3 * normal(7, i));
    for (size_t i = 0; i < places * planted.hidden; i++) m->probe[i] = (float)(0.3 * normal(8, i));
    for (size_t i = 0; i < planted.net; i++) m->weight[2][i] = (float)(2 * normal(9, i));
    for (size_t i = 0; i < s->n * places; i++)
        s->target[i] = (float)((double)s->target[i] * exp(plain(m, s, i / places, i % places)));
    return m;
}

static struct kv_cells_options quick(unsigned jobs) {
    struct kv_cells_options o;
    kv_cells_defaults(&o);
    o.passes = 40;
    o.batch = 256;
    o.probe_rate = 3e-3;
    o.seed = 3;
    o.jobs = jobs;
    return o;
}

static void a_planted_model_is_found_again(void **state) {
    (void)state;
    if (light_testing()) skip(); // the next tests take the same ways
    struct kv_error e;
    struct set s = make_set(planted, PLANTED);
    struct kv_cells_model *truth = plant(&s), *m = kv_cells_new(&planted, 3);
    struct kv_cells_data d = data_of(&s);
    struct kv_cells_options o = quick(2);
    struct kv_cells_rows held = {.n = PLANTED - LEARNED, .token = s.all + LEARNED};
    float *f = kv_alloc(PLANTED * kv_cells_places(&planted), sizeof *f);
    must(kv_cells_fit(m, &d, s.all, LEARNED, &o, &e), &e);
    double alone = kv_cells_deviance(m, &d, &held, NULL);
    must(kv_cells_predict(m, &d, &held, 2, f, &e), &e);
    double found = kv_cells_deviance(m, &d, &held, f);
    must(kv_cells_predict(truth, &d, &held, 2, f, &e), &e);
    double best = kv_cells_deviance(truth, &d, &held, f);
    if (!(found - best < 0.05 * (alone - best)))
        fail_msg("deviance %.4f of place alone, %.4f learned, %.4f of the truth", alone, found,
                 best);
    kv_cells_free(m);
    kv_cells_free(truth);
    free(f);
    set_fini(&s);
}

static struct kv_cells_model *trained(const struct set *s, struct kv_cells_options o) {
    struct kv_error e;
    struct kv_cells_data d = data_of(s);
    struct kv_cells_model *m = kv_cells_new(&s->shape, o.seed);
    must(kv_cells_fit(m, &d, s->all, s->n, &o, &e), &e);
    return m;
}

static bool equal(const struct kv_cells_model *a, const struct kv_cells_model *b) {
    return memcmp(a->parameter, b->parameter, a->n * sizeof(float)) == 0;
}

static void workers_change_no_bit_and_seeds_do(void **state) {
    (void)state;
    struct set s = make_set(planted, 1500);
    struct kv_cells_options one = quick(1), three = quick(3), other = quick(1), small_window;
    one.passes = three.passes = other.passes = 3;
    one.batch = three.batch = other.batch = 700; // chunks that are not full
    other.seed = 4;
    small_window = one;
    small_window.window_bytes = 1; // one block a window: draws come from 256 tokens at a time
    struct kv_cells_model *a = trained(&s, one), *b = trained(&s, three), *c = trained(&s, other),
                          *d = trained(&s, small_window);
    small_window.jobs = 2;
    struct kv_cells_model *again = trained(&s, small_window);
    assert_true(equal(a, b));
    assert_false(equal(a, c));
    assert_false(equal(a, d));
    assert_true(equal(d, again));
    struct kv_cells_model *all[] = {a, b, c, d, again};
    for (size_t i = 0; i < 5; i++) kv_cells_free(all[i]);
    set_fini(&s);
}

static void windows_learn_as_well_as_draws_from_everything(void **state) {
    (void)state;
    struct kv_error e;
    struct set s = make_set(planted, PLANTED);
    kv_cells_free(plant(&s));
    struct kv_cells_data d = data_of(&s);
    struct kv_cells_rows rows = {.n = s.n, .token = s.all};
    float *f = kv_alloc(s.n * kv_cells_places(&planted), sizeof *f);
    double deviance[2];
    for (int i = 0; i < 2; i++) {
        struct kv_cells_options o = quick(2);
        if (i) o.window_bytes = 10 * 256 * 2 * 8 * 2; // ten blocks of 47
        struct kv_cells_model *m = trained(&s, o);
        must(kv_cells_predict(m, &d, &rows, 2, f, &e), &e);
        deviance[i] = kv_cells_deviance(m, &d, &rows, f);
        kv_cells_free(m);
    }
    double alone;
    struct kv_cells_model *m = kv_cells_new(&planted, 1);
    alone = kv_cells_deviance(m, &d, &rows, NULL);
    kv_cells_free(m);
    assert_true(fabs(deviance[1] - deviance[0]) < 0.02 * (alone - deviance[0]));
    free(f);
    set_fini(&s);
}

static void a_loss_that_is_no_number_ends_training(void **state) {
    (void)state;
    struct kv_error e;
    struct set s = make_set(planted, 400);
    struct kv_cells_data d = data_of(&s);
    struct kv_cells_options o = quick(2);
    s.attention[5] = NAN;
    struct kv_cells_model *m = kv_cells_new(&planted, 1);
    assert_int_equal(kv_cells_fit(m, &d, s.all, s.n, &o, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "the loss is no number after 0 of"));
    assert_int_equal(kv_cells_fit(m, &d, s.all, 0, &o, &e), KV_EUSAGE);
    kv_cells_free(m);
    set_fini(&s);
}

// ---- bits and lambda ------------------------------------------------------------------

// Two tokens, one layer, one head of 2 channels, widths of 3 and 5 bits. Going from 3 to 5 costs
// 4 bits a cell; damage saved there: K 8, 4; V 2, 1. So at lambda below 1/4 all are wide.
static void bits_follow_from_what_a_bit_may_cost(void **state) {
    (void)state;
    static const double bits[2][KV_MAX_WIDTHS] = {{3, 5}, {3, 5}};
    static const float damage[] = {8, 0, 2, 0, 4, 0, 1, 0};
    struct kv_shape shape = {.n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 2};
    struct kv_cells_choices c = {.shape = &shape,
                                 .grain = KV_CELLS_GRAIN_CELL,
                                 .n = 2,
                                 .n_widths = 2,
                                 .damage = damage,
                                 .bits = bits};
    static const double lambda[] = {0.2, 0.3, 0.75, 1.5, 2.5};
    static const double cell[] = {5, 4.5, 4, 3.5, 3};
    for (size_t i = 0; i < 5; i++)
        assert_true(kv_cells_bits_at(&c, lambda[i], NULL, NULL) == cell[i]);
    // K and V of a token together: savings of 10 and 5 for 8 bits. One head alone: kv is cell.
    c.grain = KV_CELLS_GRAIN_TOKEN;
    assert_true(kv_cells_bits_at(&c, 0.6, NULL, NULL) == 5);
    assert_true(kv_cells_bits_at(&c, 0.7, NULL, NULL) == 4);
    assert_true(kv_cells_bits_at(&c, 1.3, NULL, NULL) == 3);
    c.grain = KV_CELLS_GRAIN_LAYER;
    assert_true(kv_cells_bits_at(&c, 0.7, NULL, NULL) == 4);
    c.grain = KV_CELLS_GRAIN_KV;
    for (size_t i = 0; i < 5; i++)
        assert_true(kv_cells_bits_at(&c, lambda[i], NULL, NULL) == cell[i]);
    // The same damages as two heads' K and V of one token: heads share, K and V do not.
    shape.n_kv_heads = 2;
    c.n = 1;
    assert_true(kv_cells_bits_at(&c, 0.3, NULL, NULL) == 5); // K saves 12, V 3, for 8 bits each
    assert_true(kv_cells_bits_at(&c, 0.4, NULL, NULL) == 4);
    assert_true(kv_cells_bits_at(&c, 1.6, NULL, NULL) == 3);
    // Weighed three to one, and told apart by step: at .3 the first token takes 5, the second 4.
    static const double weight[] = {3, 1};
    static const uint8_t step[] = {0, 2};
    double layer, by_step[4];
    shape.n_kv_heads = 1;
    c.n = 2;
    c.grain = KV_CELLS_GRAIN_CELL;
    c.weight = weight;
    c.step = step;
    assert_true(kv_cells_bits_at(&c, 0.3, &layer, by_step) == 4.75);
    assert_true(layer == 4.75 && by_step[0] == 5 && by_step[1] == 4.75 && by_step[2] == 4);
}

// Two tokens of one layer and two heads of 1 channel, losses at the middle width: K 1, V 2, K 4,
// V 8 and e times as much. A quarter as much a width further.
static void losses_spread_by_grain_class_and_width(void **state) {
    (void)state;
    static const float at[2][4] = {{1, 2, 4, 8},
                                   {2.718281828f, 5.436563657f, 10.87312731f, 21.74625463f}};
    float damage[2][4][3];
    for (size_t t = 0; t < 2; t++)
        for (size_t p = 0; p < 4; p++)
            for (size_t w = 0; w < 3; w++)
                damage[t][p][w] = at[t][p] * (float)pow(4, 1 - (double)w);
    static const double bits[2][KV_MAX_WIDTHS] = {{3, 4, 5}, {3, 4, 5}};
    static const uint8_t step[] = {0, 3}, class[] = {0, 5};
    struct kv_shape shape = {.n_layers = 1, .n_heads = 2, .n_kv_heads = 2, .head_dim = 1};
    struct kv_cells_choices c = {.shape = &shape,
                                 .n = 2,
                                 .n_widths = 3,
                                 .damage = &damage[0][0][0],
                                 .bits = bits,
                                 .step = step,
                                 .class = class};
    struct kv_cells_spread *s = kv_cells_spread_measure(&c, 1);
    enum { Q = KV_CELLS_QUANTILES, STEPS = KV_CELLS_STEPS };
#define QUANTILE(grain, step, q) ((double)s->quantile[((grain)*STEPS + (step)) * Q + (q)])
    assert_true(fabs(QUANTILE(0, 0, 0)) < 1e-6 && fabs(QUANTILE(0, 0, Q - 1) - log(8)) < 1e-6);
    assert_true(fabs(QUANTILE(0, 3, 0) - 1) < 1e-6); // the second token's alone
    assert_true(fabs(QUANTILE(0, 1, 0)) < 1e-6 &&    // no token: all of them
                fabs(QUANTILE(0, 1, Q - 1) - 1 - log(8)) < 1e-6);
    assert_true(fabs(QUANTILE(1, 0, 0) - log(5)) < 1e-6 && // keys 1 + 4, values 2 + 8
                fabs(QUANTILE(1, 0, Q - 1) - log(10)) < 1e-6);
    assert_true(fabs(QUANTILE(2, 0, 3) - log(15)) < 1e-6);
#undef QUANTILE
    for (size_t grain = 0; grain < KV_CELLS_SPREADS; grain++)
        for (size_t w = 0; w < 3; w++)
            assert_true(fabs((double)s->ratio[grain * 3 + w] - (1 - (double)w) * log(4)) < 1e-5);
    for (size_t p = 0; p < 4; p++) {
        assert_true(fabs((double)s->table[p] - log((double)at[0][p])) < 1e-6);
        assert_true(fabs((double)s->table[5 * 4 + p] - log((double)at[1][p])) < 1e-6);
        assert_true(fabs((double)s->table[2 * 4 + p] -
                         log(((double)at[0][p] + (double)at[1][p]) / 2)) < 1e-6);
    }
    kv_cells_spread_free(s);
}

// ---- the study ------------------------------------------------------------------------

enum { ITEMS = 12 };

static char *train_file(const struct tiny_study *t, const char *name, unsigned jobs,
                        struct kv_cells_trained *r) {
    struct kv_error e;
    struct kv_trace *trace;
    struct kv_cells_training o;
    must(kv_trace_open(&trace, t->trace, &e), &e);
    char *path = file_in(t->dir, name), *bytes;
    kv_cells_training_defaults(&o);
    o.groups = 1u << KV_CELLS_PAPER | 1u << KV_CELLS_TOKEN | 1u << KV_CELLS_ATTENTION |
               1u << KV_CELLS_PROBE;
    o.net = 8;
    o.holdout = 0.25;
    o.fit.batch = 256;
    o.fit.jobs = jobs;
    o.out = path;
    o.command = "kvsim train cells tiny.trace";
    must(kv_cells_train((const struct kv_trace *const[]){trace}, 1, &o, r, &e), &e);
    must(kv_read_file(path, &bytes, &r->bytes, &e), &e);
    kv_trace_close(trace);
    free(path);
    return bytes;
}

static void shape_is(const struct kv_safetensors *s, const char *name, uint64_t rows,
                     uint64_t columns) {
    const struct kv_tensor *t = kv_safetensors_find(s, name);
    if (!t) fail_msg("%s is missing", name);
    assert_string_equal(t->dtype, "F32");
    assert_int_equal(t->dims[0], rows);
    assert_int_equal(t->n_dims, columns ? 2 : 1);
    if (columns) assert_int_equal(t->dims[1], columns);
}

static void a_file_holds_what_the_policy_reads(void **state) {
    (void)state;
    struct kv_error e;
    struct tiny_study t;
    struct kv_cells_trained one, two;
    struct kv_safetensors s;
    assert_int_equal(tiny_study_open(&t, KV_KEEP_KV | KV_KEEP_CELLS, ITEMS), 0);
    char *a = train_file(&t, "a.safetensors", 1, &one),
         *b = train_file(&t, "b.safetensors", 2, &two);
    assert_int_equal(one.bytes, two.bytes);
    assert_memory_equal(a, b, one.bytes);
    assert_string_equal(one.digest, two.digest);
    assert_int_equal(one.n_items, ITEMS);
    assert_true(one.n_held_items > 0 && one.n_held_items < ITEMS);
    assert_int_equal(one.n_worth, 6); // all, four groups, place alone
    must(kv_safetensors_open(&s, one.path, &e), &e);
    uint64_t places = kv_cells(&tiny_shape), n_x = 14;
    shape_is(&s, "channel", places, tiny_shape.head_dim);
    shape_is(&s, "bias", places, 0);
    shape_is(&s, "linear", places, n_x);
    shape_is(&s, "probe", places, tiny_shape.hidden);
    shape_is(&s, "embedding", places, 8);
    shape_is(&s, "net.0.weight", 8, n_x + 8);
    shape_is(&s, "net.0.bias", 8, 0);
    shape_is(&s, "net.2.weight", 8, 8);
    shape_is(&s, "net.4.weight", 1, 8);
    shape_is(&s, "net.4.bias", 1, 0);
    shape_is(&s, "attention.mean", places / 2, 6);
    shape_is(&s, "attention.deviation", places / 2, 6);
    shape_is(&s, "token.mean", 8, 0);
    shape_is(&s, "budget.lambda", 49, 0);
    shape_is(&s, "budget.step_bits", 49, 4 * tiny_shape.n_layers);
    assert_string_equal(kv_safetensors_meta(&s, "format"), "kvsim-cells 1");
    assert_string_equal(kv_safetensors_meta(&s, "inputs"), "paper/token/attention/probe");
    assert_string_equal(kv_safetensors_meta(&s, "widths"), "2/3/4/5/6/8");
    assert_string_equal(kv_safetensors_meta(&s, "grain"), "cell");
    assert_string_equal(kv_safetensors_meta(&s, "net"), "8");
    const float *bits = (const float *)(const void *)kv_safetensors_find(&s, "budget.bits")->data;
    double wide = 8 + strtod(kv_safetensors_meta(&s, "overhead_bits"), NULL), narrow = wide - 6;
    for (size_t i = 1; i < 49; i++) assert_true(bits[i] <= bits[i - 1]);
    assert_true(fabs((double)bits[0] - wide) < 0.1 && fabs((double)bits[48] - narrow) < 0.1);
    const float *m = (const float *)(const void *)kv_safetensors_find(&s, "channel")->data;
    for (size_t p = 0; p < places; p++) {
        double sum = 0;
        for (size_t k = 0; k < tiny_shape.head_dim; k++)
            sum += (double)m[p * tiny_shape.head_dim + k];
        assert_true(fabs(sum / tiny_shape.head_dim - 1) < 1e-5);
    }
    shape_is(&s, "spread", 12, 12 * tiny_shape.n_layers);
    shape_is(&s, "table", 6, places);
    // Read again on the same recording, it is the same file but for what made it.
    struct kv_cells_training o;
    struct kv_cells_trained again;
    struct kv_safetensors other;
    struct kv_trace *trace;
    must(kv_trace_open(&trace, t.trace, &e), &e);
    kv_cells_training_defaults(&o);
    char *path = file_in(t.dir, "again.safetensors");
    o.out = path;
    o.again = one.path;
    o.holdout = 0.25;
    must(kv_cells_train((const struct kv_trace *const[]){trace}, 1, &o, &again, &e), &e);
    must(kv_safetensors_open(&other, path, &e), &e);
    assert_true(fabs(again.deviance - one.deviance) < 1e-6);
    for (size_t i = 0; i < s.n; i++) {
        const struct kv_tensor *x = &s.tensors[i], *y = kv_safetensors_find(&other, x->name);
        assert_non_null(y);
        assert_int_equal(x->n_bytes, y->n_bytes);
        bool measured = strncmp(x->name, "spread", 6) == 0 || strcmp(x->name, "table") == 0;
        for (size_t k = 0; k < x->n_bytes / 4; k++) {
            double u = (double)((const float *)(const void *)x->data)[k],
                   v = (double)((const float *)(const void *)y->data)[k];
            // Measured through a bias that was rounded once more.
            assert_true(measured ? fabs(u - v) <= 0.02 * (1 + fabs(u)) : u == v);
        }
    }
    assert_string_equal(kv_safetensors_meta(&other, "command"), "kvsim train cells tiny.trace; ");
    assert_string_equal(kv_safetensors_meta(&other, "trained_on"),
                        kv_safetensors_meta(&s, "trained_on"));
    kv_safetensors_close(&other);
    kv_cells_trained_fini(&again);
    kv_trace_close(trace);
    free(path);
    kv_safetensors_close(&s);
    kv_cells_trained_fini(&one);
    kv_cells_trained_fini(&two);
    free(a);
    free(b);
    tiny_study_close(&t);
}

// Records two items of a random model of that shape.
static struct kv_trace *recorded(const char *dir, struct kv_shape shape) {
    struct kv_error e;
    struct tiny_pieces pieces;
    struct kv_tasks *tasks;
    struct kv_trace *trace;
    struct kv_model *m = kv_model_random(&shape, KV_ORDER_HF, true, 11);
    make_tiny_pieces(&pieces);
    must(kv_tokenizer_new(&m->tokenizer, pieces.text, N_TINY_PIECES, tiny_merges, N_TINY_MERGES,
                          true, &e),
         &e);
    must(kv_tasks_load(&tasks, "samples", &e), &e);
    struct kv_record_options o = {.dir = dir,
                                  .keep = KV_KEEP_KV | KV_KEEP_CELLS,
                                  .n = 2,
                                  .adjoint = tiny_adjoint,
                                  .seed = 1,
                                  .jobs = 1};
    must(kv_record(m, tasks, &o, &e), &e);
    must(kv_trace_open(&trace, dir, &e), &e);
    kv_tasks_free(tasks);
    kv_model_close(m);
    return trace;
}

static void recordings_of_different_shapes_are_refused(void **state) {
    (void)state;
    struct kv_error e;
    char dir[] = "/tmp/kvsim-cells-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *paths[] = {file_in(dir, "a"), file_in(dir, "b"), file_in(dir, "x.safetensors")};
    struct kv_shape deeper = tiny_shape;
    deeper.n_layers++;
    struct kv_trace *traces[] = {recorded(paths[0], tiny_shape), recorded(paths[1], deeper)};
    struct kv_cells_training o;
    struct kv_cells_trained r;
    kv_cells_training_defaults(&o);
    o.out = paths[2];
    assert_int_equal(kv_cells_train((const struct kv_trace *const *)traces, 2, &o, &r, &e),
                     KV_EFAIL);
    char *want = kv_format_text("is of a model of another shape than %s", paths[0]);
    assert_string_equal(e.where, paths[1]);
    assert_string_equal(e.msg, want);
    free(want);
    for (int i = 0; i < 2; i++) kv_trace_close(traces[i]);
    tiny_remove(dir);
    for (int i = 0; i < 3; i++) free(paths[i]);
}

int main(void) {
    kv_set_verbosity(-1);
    struct kv_error e;
    if (kv_blas_open(&e)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_gradient_is_that_of_differences),
        cmocka_unit_test(what_is_predicted_is_the_plain_model_and_starts_at_nothing),
        cmocka_unit_test(a_group_taken_from_other_tokens_changes_that_group_alone),
        cmocka_unit_test(a_planted_model_is_found_again),
        cmocka_unit_test(workers_change_no_bit_and_seeds_do),
        cmocka_unit_test(windows_learn_as_well_as_draws_from_everything),
        cmocka_unit_test(a_loss_that_is_no_number_ends_training),
        cmocka_unit_test(bits_follow_from_what_a_bit_may_cost),
        cmocka_unit_test(losses_spread_by_grain_class_and_width),
        cmocka_unit_test(a_file_holds_what_the_policy_reads),
        cmocka_unit_test(recordings_of_different_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
