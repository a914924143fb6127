// SPDX-License-Identifier: Apache-2.0
// What a recording with --keep cells holds, against plain sums over whole gradients and a plain
// softmax; that stopping, workers and older recordings change nothing.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the headers above before its own
#include <cmocka.h>

#include "sim/base/blas.h"
#include "sim/base/files.h"
#include "sim/base/half.h"
#include "sim/model/accelerator.h"
#include "sim/model/forward.h"
#include "sim/replay/test/tiny_trace.h"
#include "traces/products.h"
#include "traces/tables.h"

#define SHARD "shard-00000.safetensors"

enum { ITEMS = 4, WHOLE = KV_KEEP_FINAL | KV_KEEP_SENS | KV_KEEP_GRAD | KV_KEEP_CELLS };
static struct tiny_trace whole;
static struct kv_model *model;

static int set_up(void **state) {
    (void)state;
    return tiny_trace_open(&whole, WHOLE, ITEMS, &model);
}

static int tear_down(void **state) {
    (void)state;
    kv_model_close(model);
    tiny_trace_close(&whole);
    return 0;
}

static void must(int rc, const struct kv_error *e) {
    if (rc) fail_msg("%s: %s", e->where, e->msg);
}

static int record(const char *dir, uint32_t keep, unsigned jobs, const char *format,
                  struct kv_error *e) {
    struct kv_tasks *tasks;
    must(kv_tasks_load(&tasks, "samples", e), e);
    struct kv_record_options o = {.dir = dir,
                                  .keep = keep,
                                  .n = ITEMS,
                                  .adjoint = tiny_adjoint,
                                  .cells_format = format,
                                  .seed = 1,
                                  .jobs = jobs};
    int rc = kv_record(model, tasks, &o, e);
    kv_tasks_free(tasks);
    return rc;
}

// ---- squared gradients ----------------------------------------------------------------

// Errors of an item at 4 bits in the format that the trace names.
static float *errors_at_4_bits(const struct kv_trace_item *it) {
    const struct kv_trace_info *in = kv_trace_info(whole.trace);
    struct kv_error e;
    struct kv_format *f;
    size_t n = it->n_tokens * kv_cells(&in->shape), w = 0;
    must(kv_format_open(&f, in->cells_format, &whole.setting, &e), &e);
    while (f->width_bits[w] != 4) w++;
    uint8_t *widths = kv_alloc(n, 1);
    float *error = kv_alloc(n * in->shape.head_dim, sizeof *error);
    memset(widths, (int)w, n);
    struct kv_cell_table_scratch *s = kv_cell_table_scratch_new(f);
    must(kv_coding_error(in, it, f, widths, s, error, &e), &e);
    kv_cell_table_scratch_free(s);
    free(widths);
    kv_format_close(f);
    return error;
}

// g^2 of one channel of a cell, averaged over draws; gradients are in bf16.
static double squared_gradient(const struct kv_trace_item *it, size_t row, size_t cell,
                               size_t channel) {
    size_t draws = tiny_adjoint.draws, cells = kv_cells(&tiny_shape), d = tiny_shape.head_dim;
    const uint16_t *g = cell & 1 ? it->v_grad : it->k_grad;
    double sum = 0;
    for (size_t r = 0; r < draws; r++) {
        double x =
            (double)kv_wide_bf16(g[((row * draws + r) * (cells / 2) + cell / 2) * d + channel]);
        sum += x * x;
    }
    return sum / (double)draws;
}

// Each gradient is off by up to 2^-9 of itself in bf16, its square by 2^-8.
static void close_to_bf16(double want, double got, const char *what, size_t at) {
    if (!(fabs(got - want) <= want / 256 + 1e-30))
        fail_msg("%s %zu: %.8g is wanted, not %.8g", what, at, want, got);
}

static void the_numerator_is_the_squared_gradient_times_the_squared_error(void **state) {
    (void)state;
    size_t cells = kv_cells(&tiny_shape), d = tiny_shape.head_dim, above_zero = 0, n = 0;
    assert_string_equal("asym:group=32,order=hf,scale=fp16,sinks=0,window=0",
                        kv_trace_info(whole.trace)->cells_format);
    for (size_t i = 0; i < ITEMS; i++) {
        const struct kv_trace_item *it = kv_trace_item(whole.trace, i);
        float *error = errors_at_4_bits(it);
        for (size_t c = 0; c < it->n_tokens * cells; c++, n++) {
            double want = 0;
            for (size_t k = 0; k < d; k++)
                want += squared_gradient(it, c / cells, c % cells, k) *
                        pow((double)error[c * d + k], 2);
            close_to_bf16(want, (double)it->cells_numerator[c], "cell", c);
            above_zero += want > 0;
        }
        free(error);
    }
    assert_true(above_zero > n / 2);
}

static void channels_hold_the_squared_gradients_of_all_tokens(void **state) {
    (void)state;
    size_t cells = kv_cells(&tiny_shape), d = tiny_shape.head_dim;
    for (size_t i = 0; i < ITEMS; i++) {
        const struct kv_trace_item *it = kv_trace_item(whole.trace, i);
        for (size_t c = 0; c < cells; c++) {
            double all = 0, sens = 0;
            for (size_t k = 0; k < d; k++) {
                double want = 0;
                for (size_t row = 0; row < it->n_tokens; row++)
                    want += squared_gradient(it, row, c, k);
                all += (double)it->channel_gradient[c * d + k];
                close_to_bf16(want, (double)it->channel_gradient[c * d + k], "channel", c * d + k);
            }
            for (size_t row = 0; row < it->n_tokens; row++)
                sens += (double)it->sens[row * cells + c];
            assert_true(sens > 0 && fabs(all - sens) < 1e-5 * sens);
        }
    }
}

// ---- damage by channel ----------------------------------------------------------------

static void weights_of_channels_are_the_sums_of_all_items_with_mean_1(void **state) {
    (void)state;
    size_t d = tiny_shape.head_dim, n = kv_cells(&tiny_shape) * d;
    const float *m = kv_trace_channels(whole.trace);
    double largest = 0;
    assert_true(m == kv_trace_channels(whole.trace));
    for (size_t at = 0; at < n; at += d) {
        double all = 0, mean = 0;
        for (size_t i = 0; i < ITEMS; i++)
            for (size_t k = at; k < at + d; k++)
                all += (double)kv_trace_item(whole.trace, i)->channel_gradient[k];
        for (size_t k = at; k < at + d; k++) {
            double sum = 0;
            for (size_t i = 0; i < ITEMS; i++)
                sum += (double)kv_trace_item(whole.trace, i)->channel_gradient[k];
            assert_true(fabs((double)m[k] - sum / all * (double)d) < 1e-6 * (double)m[k]);
            mean += (double)m[k] / (double)d;
            largest = fmax(largest, (double)m[k]);
        }
        assert_true(fabs(mean - 1) < 1e-6);
    }
    assert_true(largest > 1.5); // channels differ, else the form would be iso
}

// Fills an item's table of a kind at all widths. Caller frees.
static float *table_of(const struct kv_trace_item *it, struct kv_format *f,
                       enum kv_cell_table_kind kind, const float *channels) {
    struct kv_error e;
    float *out = kv_alloc(it->n_tokens * f->n_widths * kv_cells(&tiny_shape), sizeof *out);
    struct kv_cell_table_scratch *s = kv_cell_table_scratch_new(f);
    must(kv_cell_table_fill(kv_trace_info(whole.trace), it, f, kind, channels, s, out, &e), &e);
    kv_cell_table_scratch_free(s);
    return out;
}

static void channel_tables_weigh_each_squared_error_by_its_channel(void **state) {
    (void)state;
    struct kv_error e;
    struct kv_format *f;
    struct kv_cell_table *table;
    size_t cells = kv_cells(&tiny_shape), d = tiny_shape.head_dim, w = 0;
    must(kv_format_open(&f, "asym:group=32", &whole.setting, &e), &e);
    must(kv_cell_table_open(&table, whole.trace, f, KV_TABLE_CHANNEL, 2, &e), &e);
    while (f->width_bits[w] != 4) w++;
    const float *m = kv_trace_channels(whole.trace);
    for (size_t i = 0; i < ITEMS; i++) {
        const struct kv_trace_item *it = kv_trace_item(whole.trace, i);
        float *error = errors_at_4_bits(it);
        for (size_t c = 0; c < it->n_tokens * cells; c++) {
            double sum = 0;
            for (size_t k = 0; k < d; k++)
                sum += (double)m[c % cells * d + k] * pow((double)error[c * d + k], 2);
            double want = 0.5 * (double)it->sens[c] / (double)d * sum,
                   got = (double)kv_cell_table_item(
                       table, i)[(c / cells * f->n_widths + w) * cells + c % cells];
            if (!(fabs(got - want) <= 1e-5 * want))
                fail_msg("item %zu, cell %zu: %g is wanted, not %g", i, c, want, got);
        }
        free(error);
    }
    kv_cell_table_close(table);
    kv_format_close(f);
}

static void channels_that_weigh_alike_give_the_table_iso(void **state) {
    (void)state;
    struct kv_error e;
    struct kv_format *f;
    const struct kv_trace_item *it = kv_trace_item(whole.trace, 0);
    size_t n = kv_cells(&tiny_shape) * tiny_shape.head_dim;
    float *ones = kv_alloc(n, sizeof *ones);
    for (size_t i = 0; i < n; i++) ones[i] = 1;
    must(kv_format_open(&f, "asym:group=16", &whole.setting, &e), &e);
    float *iso = table_of(it, f, KV_TABLE_ISO, NULL),
          *channel = table_of(it, f, KV_TABLE_CHANNEL, ones);
    assert_memory_equal(iso, channel,
                        it->n_tokens * f->n_widths * kv_cells(&tiny_shape) * sizeof *iso);
    free(iso);
    free(channel);
    free(ones);
    kv_format_close(f);
}

static void the_best_form_is_the_finest_that_a_trace_can_give(void **state) {
    static const struct {
        uint32_t keep;
        enum kv_cell_table_kind best, old; // old: without sums by channel
    } cases[] = {{WHOLE, KV_TABLE_ELEMENT, KV_TABLE_ELEMENT},
                 {KV_KEEP_KV | KV_KEEP_SENS, KV_TABLE_CHANNEL, KV_TABLE_ISO},
                 {KV_KEEP_SENS, KV_TABLE_ISO, KV_TABLE_ISO},
                 {KV_KEEP_CELLS, KV_TABLE_ISO, KV_TABLE_ISO}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tiny_trace t;
        struct kv_error e;
        assert_int_equal(tiny_trace_open(&t, cases[i].keep, 1, NULL), 0);
        assert_int_equal(kv_cell_table_best(t.trace), cases[i].best);
        if (!(cases[i].keep & KV_KEEP_CELLS)) {
            struct kv_format *f;
            struct kv_cell_table *table;
            kv_trace_close(t.trace);
            tiny_forget_channels(t.dir);
            must(kv_trace_open(&t.trace, t.dir, &e), &e);
            assert_null(kv_trace_channels(t.trace));
            assert_int_equal(kv_cell_table_best(t.trace), cases[i].old);
            if (cases[i].keep & KV_KEEP_KV) {
                must(kv_format_open(&f, "asym:group=16", &t.setting, &e), &e);
                assert_int_equal(kv_cell_table_open(&table, t.trace, f, KV_TABLE_CHANNEL, 1, &e),
                                 KV_EFAIL);
                if (!strstr(e.msg, "before squared gradients were summed by channel"))
                    fail_msg("%s", e.msg);
                kv_format_close(f);
            }
        }
        tiny_trace_close(&t);
    }
}

// ---- attention and input --------------------------------------------------------------

// The recording's own pass once more: of each layer what it computed, float32.
struct layer_seen {
    float *x, *q, *k, *v, *k_exact;
};
struct pass_seen {
    size_t n;
    struct layer_seen layer[2];
};

static float *copied(const float *x, size_t n) {
    return memcpy(kv_alloc(n, sizeof *x), x, n * sizeof *x);
}

static void look(void *self, uint32_t layer, const float *x, const float *norm, const float *q,
                 const struct kv_layer_kv *kv) {
    struct pass_seen *s = self;
    const struct kv_shape *sh = &tiny_shape;
    (void)kv;
    assert_non_null(norm);
    s->layer[layer].x = copied(x, s->n * sh->hidden);
    s->layer[layer].q = copied(q, s->n * sh->n_heads * sh->head_dim);
}

static int round_and_keep(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                          struct kv_layer_view *view, struct kv_error *e) {
    struct pass_seen *s = self;
    size_t n = s->n * tiny_shape.n_kv_heads * tiny_shape.head_dim;
    struct layer_seen *to = &s->layer[layer];
    (void)e;
    to->k = copied(kv->k, n);
    to->v = copied(kv->v, n);
    to->k_exact = copied(kv->k, n);
    for (size_t i = 0; i < n; i++) {
        to->k_exact[i] = kv_f16_to_f32(kv_f32_to_f16(to->k_exact[i]));
        kv->v[i] = kv_f16_to_f32(kv_f32_to_f16(kv->v[i]));
    }
    *view = (struct kv_layer_view){.k_exact = to->k_exact, .v_exact = kv->v};
    return 0;
}

static struct pass_seen run(const struct kv_trace_item *it) {
    struct pass_seen seen = {.n = it->n_tokens};
    struct kv_error e;
    struct kv_tree tree = {it->n_tokens, it->n_context, it->n_choices, it->first, it->ids};
    struct kv_scratch *s = kv_scratch_new();
    float *final = kv_alloc(it->n_tokens * (size_t)tiny_shape.hidden, sizeof *final);
    struct kv_forward job = {
        .tree = &tree, .store = round_and_keep, .observe = look, .self = &seen, .final = final};
    must(kv_forward(model, &job, s, &e), &e);
    free(final);
    kv_scratch_free(s);
    return seen;
}

static void forget(struct pass_seen *s) {
    for (int l = 0; l < 2; l++) {
        float *blocks[] = {s->layer[l].x, s->layer[l].q, s->layer[l].k, s->layer[l].v,
                           s->layer[l].k_exact};
        for (size_t b = 0; b < 5; b++) free(blocks[b]);
    }
}

static double norm_of(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

// The six of one token, layer and KV head, straight from cells.md's words.
static void plain_features(const struct kv_trace_item *it, const struct layer_seen *l, uint32_t row,
                           size_t head, double want[KV_N_CELL_FEATURES]) {
    size_t d = tiny_shape.head_dim, n_kv = tiny_shape.n_kv_heads * d,
           group = tiny_shape.n_heads / tiny_shape.n_kv_heads;
    double self = 0, first = 0, largest = 0, entropy = 0;
    uint32_t branch = 0;
    while (branch < it->n_choices && row >= it->first[branch]) branch++; // 0: context
    for (size_t g = 0; g < group; g++) {
        const float *q = l->q + (row * tiny_shape.n_heads + head * group + g) * d;
        double *w = kv_alloc(it->n_tokens, sizeof *w), sum = 0, most = 0;
        for (uint32_t j = 0; j <= row; j++) {
            bool seen = j < it->n_context || (branch && j >= it->first[branch - 1]);
            const float *k = (j == row ? l->k : l->k_exact) + j * n_kv + head * d;
            double s = 0;
            for (size_t i = 0; i < d; i++) s += (double)q[i] * (double)k[i];
            sum += w[j] = seen ? exp(s / sqrt((double)d)) : 0;
        }
        for (uint32_t j = 0; j <= row; j++) {
            double p = w[j] / sum;
            most = fmax(most, p);
            if (p > 0) entropy -= p * log(p) / (double)group;
        }
        self += w[row] / sum / (double)group;
        first += w[0] / sum / (double)group;
        largest += most / (double)group;
        free(w);
    }
    want[KV_CELL_SELF] = log(fmax(self, exp(-12)));
    want[KV_CELL_FIRST] = log(fmax(first, 1e-6));
    want[KV_CELL_LARGEST] = log(fmax(largest, 1e-6));
    want[KV_CELL_ENTROPY_NATS] = entropy;
    want[KV_CELL_KEY_NORM] = log(norm_of(l->k + row * n_kv + head * d, d));
    want[KV_CELL_VALUE_NORM] = log(norm_of(l->v + row * n_kv + head * d, d));
}

static void features_are_those_of_the_tokens_own_attention_row(void **state) {
    (void)state;
    size_t heads = tiny_shape.n_kv_heads;
    for (size_t i = 0; i < ITEMS; i++) {
        const struct kv_trace_item *it = kv_trace_item(whole.trace, i);
        struct pass_seen seen = run(it);
        assert_true(it->n_choices > 1);
        for (uint32_t row = 0; row < it->n_tokens; row++)
            for (size_t c = 0; c < tiny_shape.n_layers * heads; c++) {
                double want[KV_N_CELL_FEATURES];
                plain_features(it, &seen.layer[c / heads], row, c % heads, want);
                const float *got = it->cells_attention +
                                   (row * tiny_shape.n_layers * heads + c) * KV_N_CELL_FEATURES;
                for (size_t f = 0; f < KV_N_CELL_FEATURES; f++)
                    if (!(fabs((double)got[f] - want[f]) < 1e-4))
                        fail_msg("item %zu, token %u, cell %zu, feature %zu: %g is wanted, not %g",
                                 i, row, c, f, want[f], (double)got[f]);
            }
        forget(&seen);
    }
}

static void the_layers_input_is_kept_after_its_norm(void **state) {
    (void)state;
    const struct kv_trace_item *it = kv_trace_item(whole.trace, 0);
    struct pass_seen seen = run(it);
    size_t h = tiny_shape.hidden, layers = tiny_shape.n_layers;
    for (size_t row = 0; row < it->n_tokens; row++)
        for (size_t l = 0; l < layers; l++) {
            const float *x = seen.layer[l].x + row * h;
            double scale = 1 / sqrt(pow(norm_of(x, h), 2) / (double)h + (double)model->rms_eps);
            for (size_t j = 0; j < h; j++) {
                double want = (double)x[j] * scale * (double)model->layers[l].attn_norm[j],
                       got = (double)kv_f16_to_f32(it->cells_input[(row * layers + l) * h + j]);
                assert_true(fabs(got - want) <= fabs(want) / 1024 + 1e-6);
            }
        }
    forget(&seen);
}

static void surprisal_is_that_of_the_parents_distribution(void **state) {
    (void)state;
    for (size_t i = 0; i < ITEMS; i++) {
        const struct kv_trace_item *it = kv_trace_item(whole.trace, i);
        assert_true(it->surprisal[0] == 0);
        for (uint32_t row = 1; row < it->n_tokens; row++)
            if (!isnan(it->next_logprob[row - 1]))
                assert_true(it->surprisal[row] == -it->next_logprob[row - 1]);
        for (uint32_t c = 0; c < it->n_choices; c++) {
            double sum = 0;
            for (uint32_t row = it->first[c]; row < it->first[c + 1]; row++)
                sum -= (double)it->surprisal[row];
            assert_true(fabs(sum - it->score[c]) < 1e-5 * fabs(it->score[c]));
        }
    }
}

// ---- one recording, however it is made ------------------------------------------------

static void same_files(const char *one, const char *other) {
    static const char *const files[] = {SHARD, "manifest.json"};
    for (int i = 0; i < 2; i++) {
        struct kv_error e;
        char *paths[2] = {kv_format_text("%s/%s", one, files[i]),
                          kv_format_text("%s/%s", other, files[i])},
             *text[2];
        size_t n[2];
        for (int k = 0; k < 2; k++) must(kv_read_file(paths[k], &text[k], &n[k], &e), &e);
        assert_int_equal(n[0], n[1]);
        assert_memory_equal(text[0], text[1], n[0]);
        for (int k = 0; k < 2; k++) free(paths[k]), free(text[k]);
    }
}

static void the_number_of_workers_does_not_show(void **state) {
    (void)state;
    struct kv_error e;
    char *dir = kv_format_text("%s/again", whole.dir);
    must(record(dir, WHOLE, 3, "asym:group=32", &e), &e);
    same_files(whole.dir, dir);
    tiny_remove(dir);
    free(dir);
}

// What a call that ends by an error of a device had allocated is not given back (sim/base/guard.h):
// a leak checker, where there is one, looks away meanwhile.
void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));

// Products as the CPU makes them, on a device that fails at a tree of so many rows.
static size_t fails_at;
static int multiply(bool transposed, size_t rows, size_t n, size_t k, const float *x,
                    const float *w, float *y, char *why, size_t room) {
    kv_sgemm(false, transposed, rows, n, k, x, k, w, transposed ? k : n, 0, y, n);
    snprintf(why, room, "pulled out by a test");
    return rows == fails_at;
}

// Stopped by a device that fails at an item longer than those before it, as one that is lost would.
static void a_recording_that_was_stopped_goes_on_to_the_same_bytes(void **state) {
    (void)state;
    static const struct kv_accelerator device = {.hardware = "a device", .multiply = multiply};
    struct kv_error e;
    char *dir = kv_format_text("%s/stopped", whole.dir);
    uint32_t reached = kv_trace_item(whole.trace, 0)->n_tokens, longer = 0;
    for (size_t i = 1; i < ITEMS && longer <= reached; i++)
        longer = kv_trace_item(whole.trace, i)->n_tokens;
    assert_true(longer > reached);
    fails_at = longer;
    model->layers[0].qkv.accelerator = &device;
    if (__lsan_disable) __lsan_disable();
    assert_int_equal(KV_EFAIL, record(dir, WHOLE, 1, NULL, &e));
    if (__lsan_enable) __lsan_enable();
    model->layers[0].qkv.accelerator = NULL;
    if (!strstr(e.msg, "items are kept")) fail_msg("%s", e.msg);
    assert_int_equal(KV_EFAIL, record(dir, WHOLE, 1, "sym:group=32", &e));
    if (!strstr(e.msg, "cells_format is")) fail_msg("%s", e.msg);
    must(record(dir, WHOLE, 1, NULL, &e), &e);
    same_files(whole.dir, dir);
    tiny_remove(dir);
    free(dir);
}

// ---- what is not there ----------------------------------------------------------------

static void only_cells_keep_what_is_of_cells(void **state) {
    static const struct {
        uint32_t keep;
        bool cells, channels, kv;
    } cases[] = {{KV_KEEP_CELLS, true, true, true},
                 {KV_KEEP_SENS, false, true, false},
                 {KV_KEEP_ALL, false, true, true},
                 {KV_KEEP_FINAL | KV_KEEP_GRAD, false, false, false}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tiny_trace t;
        assert_int_equal(tiny_trace_open(&t, cases[i].keep, 1, NULL), 0);
        struct kv_error e;
        const struct kv_trace_item *it = kv_trace_item(t.trace, 0),
                                   *full = kv_trace_item(whole.trace, 0);
        const struct kv_trace_info *in = kv_trace_info(t.trace);
        must(kv_trace_verify(t.trace, &e), &e);
        assert_int_equal(in->adjoint.draws, tiny_adjoint.draws);
        assert_int_equal(in->cells_format != NULL, cases[i].cells);
        const void *of_cells[] = {it->cells_numerator, it->cells_attention, it->cells_input,
                                  it->surprisal};
        for (size_t k = 0; k < 4; k++) assert_int_equal(of_cells[k] != NULL, cases[i].cells);
        assert_int_equal(it->channel_gradient != NULL, cases[i].channels);
        assert_int_equal(it->k != NULL && it->v != NULL, cases[i].kv);
        assert_int_equal(it->sens != NULL, (cases[i].keep & KV_KEEP_SENS) != 0);
        if (it->channel_gradient && it->key == full->key)
            assert_memory_equal(it->channel_gradient, full->channel_gradient,
                                kv_cells(&tiny_shape) * tiny_shape.head_dim * sizeof(float));
        tiny_trace_close(&t);
    }
}

static void a_recording_without_channels_opens_and_one_of_cells_needs_them(void **state) {
    (void)state;
    static const uint32_t keeps[] = {KV_KEEP_SENS, KV_KEEP_CELLS};
    for (int i = 0; i < 2; i++) {
        struct tiny_trace t;
        struct kv_error e;
        assert_int_equal(tiny_trace_open(&t, keeps[i], 1, NULL), 0);
        kv_trace_close(t.trace);
        t.trace = NULL;
        tiny_forget_channels(t.dir);
        int rc = kv_trace_open(&t.trace, t.dir, &e);
        if (i == 0) {
            must(rc, &e);
            must(kv_trace_verify(t.trace, &e), &e);
            assert_null(kv_trace_item(t.trace, 0)->channel_gradient);
            assert_non_null(kv_trace_item(t.trace, 0)->sens);
        } else {
            assert_int_equal(rc, KV_EFAIL);
            assert_string_equal(e.msg, "tensor channel.gradient is missing");
        }
        tiny_trace_close(&t);
    }
}

static void formats_in_which_a_cell_has_no_error_at_4_bits_are_refused(void **state) {
    static const struct {
        const char *spec, *message;
    } bad[] = {{"kivi", "does not code each head's vector by itself"},
               {"fp16", "has no width of 4 bits"},
               {"asim", "asym"},
               {"asym:group=48", "48"}};
    (void)state;
    char *dir = kv_format_text("%s/refused", whole.dir);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kv_error e;
        assert_int_equal(record(dir, KV_KEEP_CELLS, 1, bad[i].spec, &e), KV_EUSAGE);
        if (!strstr(e.msg, bad[i].message)) fail_msg("%s: %s", bad[i].spec, e.msg);
        assert_int_equal(-1, access(dir, F_OK));
    }
    free(dir);
}

// The norm's gain times s, and the projections by 1 / s: q, k and v stay what they were.
static void an_input_that_fp16_cannot_hold_is_refused(void **state) {
    (void)state;
    struct kv_error e;
    struct kv_layer_weights *w = &model->layers[1];
    char *dir = kv_format_text("%s/large", whole.dir);
    const float s = 1 << 20;
    for (size_t i = 0; i < tiny_shape.hidden; i++) w->attn_norm[i] *= s;
    for (size_t i = 0; i < w->qkv.rows * w->qkv.cols; i++) w->qkv.f32[i] /= s;
    assert_int_equal(record(dir, KV_KEEP_CELLS, 1, NULL, &e), KV_EFAIL);
    if (!strstr(e.msg, "a normalised input of layer 1 at token") ||
        !strstr(e.msg, "which fp16 cannot hold"))
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < tiny_shape.hidden; i++) w->attn_norm[i] /= s;
    for (size_t i = 0; i < w->qkv.rows * w->qkv.cols; i++) w->qkv.f32[i] *= s;
    free(dir);
}

int main(void) {
    kv_set_verbosity(-1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_numerator_is_the_squared_gradient_times_the_squared_error),
        cmocka_unit_test(channels_hold_the_squared_gradients_of_all_tokens),
        cmocka_unit_test(weights_of_channels_are_the_sums_of_all_items_with_mean_1),
        cmocka_unit_test(channel_tables_weigh_each_squared_error_by_its_channel),
        cmocka_unit_test(channels_that_weigh_alike_give_the_table_iso),
        cmocka_unit_test(the_best_form_is_the_finest_that_a_trace_can_give),
        cmocka_unit_test(features_are_those_of_the_tokens_own_attention_row),
        cmocka_unit_test(the_layers_input_is_kept_after_its_norm),
        cmocka_unit_test(surprisal_is_that_of_the_parents_distribution),
        cmocka_unit_test(the_number_of_workers_does_not_show),
        cmocka_unit_test(a_recording_that_was_stopped_goes_on_to_the_same_bytes),
        cmocka_unit_test(only_cells_keep_what_is_of_cells),
        cmocka_unit_test(a_recording_without_channels_opens_and_one_of_cells_needs_them),
        cmocka_unit_test(formats_in_which_a_cell_has_no_error_at_4_bits_are_refused),
        cmocka_unit_test(an_input_that_fp16_cannot_hold_is_refused),
    };
    return cmocka_run_group_tests_name("recording cells", tests, set_up, tear_down);
}
