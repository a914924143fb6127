// SPDX-License-Identifier: Apache-2.0
// Policy cells: its network against sums by hand, its choice against all choices, its budgets.
#include "policies/test/fake_cells.h"
#include "policies/test/fake_item.h"
#include "policies/cells_weights.h"

static char path[64];

static struct fake_cells all_inputs(void) {
    return (struct fake_cells){.shape = fake_setting.shape,
                               .inputs = "paper/token/attention/probe",
                               .digest = "0123456789abcdef",
                               .n_token = 8,
                               .attention = true,
                               .probe = true,
                               .net = true,
                               .seed = 3};
}

static struct fake_cells shipped_inputs(void) {
    struct fake_cells c = all_inputs();
    c.inputs = "attention/probe";
    c.n_token = 0;
    return c;
}

static int set_up(void **state) {
    (void)state;
    cells_path(path, sizeof path);
    return 0;
}
static int tear_down(void **state) {
    (void)state;
    return unlink(path);
}

static struct kv_replay_spec open_cells(const char *keys) {
    char *text = kv_format_text("cells:weights=%s%s%s%s@asym:group=32", path,
                                strstr(keys, "bits=") ? "" : ",bits=5", *keys ? "," : "", keys);
    struct kv_replay_spec spec = fake_spec(text);
    free(text);
    return spec;
}

// ---- rows -----------------------------------------------------------------------------

enum { LAYERS = 3, HEADS = 2, DIM = 32, HIDDEN = 16, TOKENS = 300, PLACES = 2 * HEADS };

// What layer `layer` knows of token `row`: made up, seeded; how large errors are differs by token.
struct made_row {
    float features[HEADS * KV_N_CELL_FEATURES], input[HIDDEN], kv[2 * HEADS * DIM];
    float error[PLACES * KV_MAX_WIDTHS];
};

static void make_row(struct made_row *r, const struct kv_run *run, size_t layer, size_t row,
                     double size) {
    uint64_t key = layer * 100003 + row;
    for (size_t i = 0; i < HEADS * KV_N_CELL_FEATURES; i++)
        r->features[i] = (float)(4 * kv_draw(1, key, i) - 2);
    for (size_t i = 0; i < HIDDEN; i++) r->input[i] = (float)(4 * kv_draw(2, key, i) - 2);
    for (size_t p = 0; p < PLACES; p++)
        for (size_t w = 0; w < run->n_widths; w++)
            r->error[p * run->n_widths + w] =
                (float)(size * exp(4 * kv_draw(3, key, p)) * pow(4, -run->width_bits[w]));
}

static int ask(const struct kv_replay_spec *spec, const struct fake *f, size_t layer, size_t row,
               double size, void *state, uint8_t *cells, struct kv_error *e) {
    struct made_row r;
    make_row(&r, &spec->run, layer, row, size);
    struct kv_layer_rows rows = {.struct_bytes = sizeof rows,
                                 .item = &f->item,
                                 .layer = (uint32_t)layer,
                                 .first = row,
                                 .n = 1,
                                 .features = r.features,
                                 .input = r.input,
                                 .error = r.error};
    return spec->policy->decide_layer(spec->self, &rows, state, cells, e);
}

static double bits_of(const struct kv_replay_spec *spec, const uint8_t *cells) {
    double bits = 0;
    for (size_t p = 0; p < PLACES; p++)
        bits += (double)spec->run.cell_bits[p & 1][cells[p]] / PLACES;
    return bits;
}

// ---- the network ----------------------------------------------------------------------

static double silu_of(double x) {
    return x / (1 + exp(-x));
}

static void the_sensitivity_is_the_sum_by_hand(void **state) {
    struct fake_cells c = all_inputs();
    struct kv_replay_spec spec = fake_spec("static:bits=4@asym:group=32");
    struct fake *f = fake_new(&spec.run, 20, 0, 0, 5);
    float surprisal[20];
    struct kv_tensors file;
    struct kv_cells_weights m;
    struct kv_error e;
    (void)state;
    write_cells(path, &c);
    assert_int_equal(kv_tensors_open(&file, path, &e), 0);
    assert_int_equal(kv_cells_weights_open(&m, &file, &c.shape, NULL, &e), 0);
    assert_int_equal(m.n_x, 14);
    for (size_t i = 0; i < 20; i++) surprisal[i] = (float)i / 3;
    f->item.surprisal_nats = surprisal;
#define N(name, i) (double)fake_number(&c, name, i)
    for (size_t row = 0; row < 6; row++) {
        size_t layer = row % LAYERS;
        struct made_row r;
        make_row(&r, &spec.run, layer, row, 1);
        struct kv_layer_rows rows = {.item = &f->item,
                                     .layer = (uint32_t)layer,
                                     .first = row,
                                     .n = 1,
                                     .features = r.features,
                                     .input = r.input,
                                     .window = row < 4 ? 4 : 5}; // row 5 sees position 0 no more
        float got[PLACES];
        kv_cells_log_s(&m, &rows, 0, got);
        const struct kv_token *t = &f->item.tokens[row];
        const double token[8] = {(double)t->feature[KV_ENTROPY_NATS],
                                 (double)t->feature[KV_CONFIDENCE],
                                 (double)t->feature[KV_RARITY_NATS],
                                 log((double)t->feature[KV_ATTN_VAR]),
                                 (double)surprisal[row],
                                 log(1 + (double)row),
                                 row == 0,
                                 row < 4};
        for (size_t p = 0; p < PLACES; p++) {
            size_t head = layer * HEADS + p / 2, place = 2 * head + p % 2;
            double x[14], want = N("bias", place), one[FAKE_HIDDEN], two[FAKE_HIDDEN];
            for (size_t i = 0; i < 6; i++)
                x[i] = ((double)r.features[p / 2 * 6 + i] - N("attention.mean", head * 6 + i)) /
                       N("attention.deviation", head * 6 + i);
            if (row == 5) x[KV_CELL_FIRST] = 0;
            for (size_t i = 0; i < 8; i++)
                x[6 + i] = (token[i] - N("token.mean", i)) / N("token.deviation", i);
            for (size_t i = 0; i < 14; i++) want += N("linear", place * 14 + i) * x[i];
            for (size_t i = 0; i < HIDDEN; i++)
                want += N("probe", place * HIDDEN + i) * (double)r.input[i];
            for (size_t j = 0; j < FAKE_HIDDEN; j++) {
                one[j] = N("net.0.bias", j);
                for (size_t i = 0; i < 14; i++) one[j] += N("net.0.weight", j * 22 + i) * x[i];
                for (size_t i = 0; i < 8; i++)
                    one[j] += N("net.0.weight", j * 22 + 14 + i) * N("embedding", place * 8 + i);
                one[j] = silu_of(one[j]);
            }
            want += N("net.4.bias", 0);
            for (size_t j = 0; j < FAKE_HIDDEN; j++) {
                two[j] = N("net.2.bias", j);
                for (size_t i = 0; i < FAKE_HIDDEN; i++)
                    two[j] += N("net.2.weight", j * FAKE_HIDDEN + i) * one[i];
                want += N("net.4.weight", j) * silu_of(two[j]);
            }
            assert_true(fabs(want) < 30 && fabs((double)got[p] - want) < 2e-5 * (1 + fabs(want)));
        }
    }
#undef N
    kv_cells_weights_close(&m);
    fake_free(f);
    kv_replay_spec_close(&spec);
}

static void a_budget_lies_between_those_of_training(void **state) {
    struct fake_cells c = shipped_inputs();
    struct kv_tensors file;
    struct kv_cells_weights m;
    struct kv_error e;
    double layer[4 * LAYERS], at_node[4 * LAYERS];
    (void)state;
    write_cells(path, &c);
    assert_int_equal(kv_tensors_open(&file, path, &e), 0);
    assert_int_equal(kv_cells_weights_open(&m, &file, &c.shape, NULL, &e), 0);
    double mean[2] = {0}; // over layers, of what budgets 3 and 4 took in step 1
    for (size_t b = 0; b < 2; b++)
        for (size_t l = 0; l < LAYERS; l++)
            mean[b] += (double)m.step_bits[((3 + b) * 4 + 1) * LAYERS + l] / LAYERS;
    assert_true(mean[0] > mean[1] + 0.1);
    assert_true(fabs(log(kv_cells_lambda(&m, 1, mean[0], at_node) / pow(4, -5))) < 1e-5);
    assert_true(fabs(log(kv_cells_lambda(&m, 1, (mean[0] + mean[1]) / 2, layer) / pow(4, -4.5))) <
                1e-5);
    assert_true(fabs(at_node[1] - (double)m.step_bits[(3 * 4 + 1) * LAYERS + 1]) < 1e-5);
    assert_true(fabs(kv_cells_lambda(&m, 1, 100, layer) / (double)m.lambda[0] - 1) < 1e-9);
    assert_true(fabs(kv_cells_lambda(&m, 1, 0, layer) / (double)m.lambda[FAKE_BUDGETS - 1] - 1) <
                1e-9);
    kv_cells_weights_close(&m);
}

// ---- the choice -----------------------------------------------------------------------

static void each_cell_gets_the_width_that_costs_least(void **state) {
    struct fake_cells c = shipped_inputs();
    uint8_t cells[PLACES];
    struct kv_error e;
    (void)state;
    write_cells(path, &c);
    struct kv_replay_spec spec = open_cells("hold=none,bits=5");
    struct kv_tensors file;
    struct kv_cells_weights m;
    assert_int_equal(kv_tensors_open(&file, path, &e), 0);
    assert_int_equal(kv_cells_weights_open(&m, &file, &c.shape, NULL, &e), 0);
    struct fake *f = fake_new(&spec.run, TOKENS, 0, 0, 5);
    double share[4 * LAYERS],
        tag_bits = 3.0 / DIM,
        lambda = kv_cells_lambda(
            &m, 0, 5 - tag_bits - (double)spec.run.cell_bits[0][kv_width_index(&spec.run, 4)] + 5,
            share);
    size_t seen[KV_MAX_WIDTHS] = {0};
    for (size_t row = 0; row < 60; row++) {
        struct made_row r;
        float log_s[PLACES];
        make_row(&r, &spec.run, row % LAYERS, row, 1e3);
        struct kv_layer_rows rows = {.item = &f->item,
                                     .layer = (uint32_t)(row % LAYERS),
                                     .first = row,
                                     .n = 1,
                                     .features = r.features,
                                     .input = r.input};
        kv_cells_log_s(&m, &rows, 0, log_s);
        uint64_t memory[8] = {0};
        assert_int_equal(ask(&spec, f, row % LAYERS, row, 1e3, memory, cells, &e), 0);
        for (size_t p = 0; p < PLACES; p++) {
            double least = INFINITY, got = INFINITY;
            for (size_t w = 0; w < spec.run.n_widths; w++) {
                unsigned bits = spec.run.width_bits[w];
                double cost =
                    0.5 * exp((double)log_s[p]) * (double)r.error[p * spec.run.n_widths + w] +
                    lambda * DIM * (double)spec.run.cell_bits[p & 1][w];
                if (bits == 2 || bits == 3 || bits == 4 || bits == 5 || bits == 6 || bits == 8)
                    least = fmin(least, cost);
                if (w == cells[p]) got = cost;
            }
            assert_true(got <= least * (1 + 1e-5));
            seen[cells[p]]++;
        }
    }
    size_t different = 0;
    for (size_t w = 0; w < KV_MAX_WIDTHS; w++) different += seen[w] > 0;
    assert_true(different >= 3); // else the test says little
    kv_cells_weights_close(&m);
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// Widths of all tokens in all layers, in one order of asking or the other, each layer with a memory
// of its own: [TOKENS][LAYERS][PLACES].
static void ask_all(const struct kv_replay_spec *spec, const struct fake *f, bool by_token,
                    double size, uint8_t *cells) {
    uint64_t memory[LAYERS][16] = {{0}};
    struct kv_error e;
    assert_in_range(spec->policy->layer_state_bytes(spec->self), 1, sizeof memory[0]);
    for (size_t i = 0; i < TOKENS * LAYERS; i++) {
        size_t row = by_token ? i / LAYERS : i % TOKENS, layer = by_token ? i % LAYERS : i / TOKENS;
        assert_int_equal(ask(spec, f, layer, row, size, memory[layer],
                             cells + (row * LAYERS + layer) * PLACES, &e),
                         0);
    }
}

static void layer_after_layer_and_token_after_token_decide_alike(void **state) {
    static uint8_t one[TOKENS * LAYERS * PLACES], other[sizeof one];
    static const char *const holds[] = {"hold=run", "hold=hard", "hold=none"};
    struct fake_cells c = shipped_inputs();
    (void)state;
    write_cells(path, &c);
    for (size_t i = 0; i < 3; i++) {
        struct kv_replay_spec spec = open_cells(holds[i]);
        struct fake *f = fake_new(&spec.run, TOKENS, 0, 0, 5);
        ask_all(&spec, f, true, 1e3, one);
        ask_all(&spec, f, false, 1e3, other);
        assert_memory_equal(one, other, sizeof one);
        fake_free(f);
        kv_replay_spec_close(&spec);
    }
}

// ---- budgets --------------------------------------------------------------------------

static double mean_bits(const struct kv_replay_spec *spec, const uint8_t *cells, size_t from) {
    double sum = 0;
    for (size_t i = from * LAYERS; i < TOKENS * LAYERS; i++)
        sum += bits_of(spec, cells + i * PLACES);
    return sum / (double)((TOKENS - from) * LAYERS);
}

static void hold_run_comes_back_to_the_budget_from_any_start(void **state) {
    static uint8_t cells[TOKENS * LAYERS * PLACES];
    static const double sizes[] = {10, 1e3, 3e4};
    struct fake_cells c = shipped_inputs();
    (void)state;
    write_cells(path, &c);
    for (size_t i = 0; i < 3; i++) {
        struct kv_replay_spec spec = open_cells("hold=run,bits=5"),
                              free_spec = open_cells("hold=none,bits=5");
        struct fake *f = fake_new(&spec.run, TOKENS, 0, 0, 5);
        double want = 5 - 3.0 / DIM;
        ask_all(&free_spec, f, false, sizes[i], cells);
        double without = mean_bits(&free_spec, cells, 200);
        ask_all(&spec, f, false, sizes[i], cells);
        assert_true(fabs(mean_bits(&spec, cells, 200) - want) < 0.1);
        assert_true(sizes[i] == 1e3 ||
                    fabs(without - want) > 0.3); // else nothing had to be led back
        fake_free(f);
        kv_replay_spec_close(&spec);
        kv_replay_spec_close(&free_spec);
    }
}

static void hold_hard_is_never_above_its_bound(void **state) {
    static uint8_t cells[TOKENS * LAYERS * PLACES];
    static const double sizes[] = {1e-2, 1e3, 1e5, 1e9};
    static const char *const budgets[] = {"hold=hard,bits=3.6", "hold=hard,bits=5",
                                          "hold=hard,bits=6"};
    struct fake_cells c = shipped_inputs();
    struct kv_tensors file;
    struct kv_cells_weights m;
    struct kv_error e;
    bool reached = false;
    (void)state;
    write_cells(path, &c);
    assert_int_equal(kv_tensors_open(&file, path, &e), 0);
    assert_int_equal(kv_cells_weights_open(&m, &file, &c.shape, NULL, &e), 0);
    for (size_t b = 0; b < 3; b++)
        for (size_t i = 0; i < 4; i++) {
            struct kv_replay_spec spec = open_cells(budgets[b]);
            struct fake *f = fake_new(&spec.run, TOKENS, 0, 0, 5);
            double budget = atof(budgets[b] + strlen("hold=hard,bits=")), sum[LAYERS] = {0},
                   all = 0;
            ask_all(&spec, f, false, sizes[i], cells);
            for (size_t row = 0; row < TOKENS; row++) {
                all = 0;
                for (size_t l = 0; l < LAYERS; l++) {
                    sum[l] += bits_of(&spec, cells + (row * LAYERS + l) * PLACES);
                    all += sum[l] / LAYERS;
                }
                // Shares average to the budget, so the layers' mean is bounded by it whatever they
                // are.
                double bound = (budget - 3.0 / DIM) * (double)(row + 1 + 64);
                assert_true(all <= bound * (1 + 1e-9));
                reached = reached || all > 0.98 * bound;
            }
            fake_free(f);
            kv_replay_spec_close(&spec);
        }
    assert_true(reached); // some sequence is led along its bound
    kv_cells_weights_close(&m);
}

static void grains_share_their_widths(void **state) {
    static uint8_t cells[TOKENS * LAYERS * PLACES];
    struct fake_cells c = shipped_inputs();
    (void)state;
    write_cells(path, &c);
    struct kv_replay_spec kv = open_cells("grain=kv"), layer = open_cells("grain=layer");
    struct fake *f = fake_new(&kv.run, TOKENS, 0, 0, 5);
    assert_int_equal(kv.varies, KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_KV);
    assert_int_equal(layer.varies, KV_VARIES_TOKEN | KV_VARIES_LAYER);
    ask_all(&kv, f, false, 1e3, cells);
    bool sides_differ = false;
    for (size_t i = 0; i < TOKENS * LAYERS; i++) {
        const uint8_t *x = cells + i * PLACES;
        assert_true(x[0] == x[2] && x[1] == x[3]);
        sides_differ = sides_differ || x[0] != x[1];
    }
    assert_true(sides_differ);
    ask_all(&layer, f, false, 1e3, cells);
    for (size_t i = 0; i < TOKENS * LAYERS; i++)
        for (size_t p = 1; p < PLACES; p++)
            assert_int_equal(cells[i * PLACES], cells[i * PLACES + p]);
    fake_free(f);
    kv_replay_spec_close(&kv);
    kv_replay_spec_close(&layer);
}

// ---- other grains and widths --------------------------------------------------------------

// Losses e^-1 to e^10, evenly over the layer's units; widths 3 and 5 differ by a factor of 16 and
// by 2 bits a value. At lambda the wide one is taken by those that save more than its bits.
static void lambda_follows_from_how_losses_spread(void **state) {
    struct fake_cells c = shipped_inputs();
    struct kv_tensors file;
    struct kv_cells_weights m;
    struct kv_error e;
    double layer[LAYERS];
    (void)state;
    c.spread = true;
    write_cells(path, &c);
    assert_int_equal(kv_tensors_open(&file, path, &e), 0);
    assert_int_equal(kv_cells_weights_open(&m, &file, &c.shape, NULL, &e), 0);
    const struct kv_cells_offer o = {
        .n_widths = 2, .width = {3, 5}, .bits = {4 * DIM, 6 * DIM}, .values = DIM};
    // Half of them wide: the median loss, e^4.5, saves (4 - 1/4) of itself for 2 DIM bits.
    double lambda = kv_cells_spread_lambda(&m, &o, 1, 5, layer);
    assert_true(fabs(log(lambda / (exp(4.5) * (4 - 0.25) / (2 * DIM)))) < 0.15);
    for (size_t l = 0; l < LAYERS; l++) assert_true(fabs(layer[l] - 5) < 0.03);
    // Nine tenths: the loss that a tenth lies below.
    lambda = kv_cells_spread_lambda(&m, &o, 1, 5.8, layer);
    double tenth = -1 + 11 * (0.1 - 0.01) / 0.98;
    assert_true(fabs(log(lambda / (exp(tenth) * (4 - 0.25) / (2 * DIM)))) < 0.15);
    assert_true(fabs(kv_cells_ratio(&m, 0, 8) + 4 * log(4)) < 1e-5);
    assert_true(fabs(kv_cells_ratio(&m, 0, 7) - 2 * log(15.0 / 127)) < 1e-12); // not of training
    kv_cells_weights_close(&m);
}

// Only a file with a spread changes what another grain or other widths start from; what was trained
// keeps its curve.
static void a_file_with_a_spread_serves_other_grains_and_widths(void **state) {
    static uint8_t with[TOKENS * LAYERS * PLACES], without[sizeof with];
    static const char *const keys[] = {"hold=none", "hold=none,widths=3/5",
                                       "hold=none,grain=layer"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct fake_cells c = shipped_inputs();
        for (size_t k = 0; k < 2; k++) {
            c.spread = k;
            write_cells(path, &c);
            struct kv_replay_spec spec = open_cells(keys[i]);
            struct fake *f = fake_new(&spec.run, TOKENS, 0, 0, 5);
            ask_all(&spec, f, false, 1e3, k ? with : without);
            fake_free(f);
            kv_replay_spec_close(&spec);
        }
        assert_true((memcmp(with, without, sizeof with) == 0) == (i == 0));
    }
}

// ---- frozen -------------------------------------------------------------------------------

static unsigned frozen_bits(const struct kv_replay_spec *spec, const struct fake *f, size_t token,
                            size_t cell) {
    return spec->run.width_bits[f->cells[token * kv_cells(&spec->run.shape) + cell]];
}

static void a_frozen_table_goes_by_class_and_place_and_takes_the_budget(void **state) {
    struct fake_cells c = shipped_inputs();
    struct kv_error e;
    (void)state;
    c.spread = true;
    write_cells(path, &c);
    char *text = kv_format_text("frozen:bits=5,weights=%s@asym:group=32", path);
    struct kv_replay_spec spec = fake_spec(text);
    struct fake *f = fake_new(&spec.run, 100, 0, 0, 5);
    size_t places = LAYERS * PLACES;
    assert_int_equal(kv_ask(spec.policy, spec.self, &f->item, f->cells, &e), 0);
    assert_int_equal(kv_audit(&spec, &f->item, f->cells, &e), 0);
    assert_int_equal(spec.varies,
                     KV_VARIES_POSITION | KV_VARIES_LAYER | KV_VARIES_HEAD | KV_VARIES_KV);
    double sum[3] = {0}; // positions 0 to 15, 16 to 31, 48 on
    for (size_t p = 0; p < places; p++) {
        for (size_t t = 1; t < 100; t++) {
            size_t same = t < 4 ? 1 : t < 16 ? 4 : t < 32 ? 16 : t < 48 ? 32 : 48;
            assert_int_equal(frozen_bits(&spec, f, t, p), frozen_bits(&spec, f, same, p));
        }
        for (size_t t = 0; t < 16; t++) sum[0] += frozen_bits(&spec, f, t, p) / 16.0;
        sum[1] += frozen_bits(&spec, f, 20, p);
        sum[2] += frozen_bits(&spec, f, 99, p);
    }
    // One bit a value for scale and minimum; no step above the budget, none far below it.
    for (size_t i = 0; i < 3; i++) {
        double bits = 1 + sum[i] / (double)places;
        assert_true(bits <= 5 + 1e-9 && bits > 4.8);
    }
    fake_free(f);
    kv_replay_spec_close(&spec);
    free(text);
    c.spread = false;
    write_cells(path, &c);
    text = kv_format_text("frozen:bits=5,weights=%s@asym:group=32", path);
    assert_int_equal(kv_replay_spec_open(&spec, text, &fake_setting, 1, &e), KV_EFAIL);
    assert_string_equal(e.msg,
                        "holds no table by class and place; kvsim train cells --again adds one");
    free(text);
    text = kv_format_text("frozen:bits=9.5,weights=%s@asym:group=32", path);
    c.spread = true;
    write_cells(path, &c);
    assert_int_equal(kv_replay_spec_open(&spec, text, &fake_setting, 1, &e), KV_EUSAGE);
    assert_string_equal(e.msg, "bits=9.5 cannot be met: these widths take 3.000 to 9.000");
    free(text);
}

// ---- files and specs ------------------------------------------------------------------

static void the_canonical_form_comes_back_and_pins_the_file(void **state) {
    struct fake_cells c = shipped_inputs();
    char *one, *two, *text = NULL;
    struct kv_error e;
    (void)state;
    write_cells(path, &c);
    text = kv_format_text("cells:bits=4.5,widths=2/4/8,hold=hard,weights=%s", path);
    assert_int_equal(kv_spec_canonical(text, &fake_setting, &one, &e), 0);
    assert_int_equal(kv_spec_canonical(one, &fake_setting, &two, &e), 0);
    assert_string_equal(one, two);
    assert_non_null(strstr(one, "widths=2/4/8"));
    free(two);
    c.seed = 4;
    write_cells(path, &c);
    assert_int_equal(kv_spec_canonical(one, &fake_setting, &two, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "as the spec says"));
    free(one);
    free(text);
}

static void files_and_settings_that_cannot_be_are_refused(void **state) {
    static const struct {
        const char *keys, *why;
    } wrong[] = {{"bits=3", "cannot be met"},
                 {"bits=9.5", "cannot be met"},
                 {"widths=4/2", "widths rise"},
                 {"widths=7/9", "offer"},
                 {"hold=soft", "soft"}};
    struct fake_cells c = shipped_inputs();
    struct kv_replay_spec spec;
    struct kv_error e;
    char *whole;
    size_t n;
    (void)state;
    write_cells(path, &c);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *text =
            kv_format_text("cells:weights=%s%s,%s@asym:group=32", path,
                           strncmp(wrong[i].keys, "bits", 4) == 0 ? "" : ",bits=5", wrong[i].keys);
        assert_int_not_equal(kv_replay_spec_open(&spec, text, &fake_setting, 1, &e), 0);
        if (!strstr(e.msg, wrong[i].why)) fail_msg("%s: %s", wrong[i].keys, e.msg);
        free(text);
    }
    char *text = kv_format_text("cells:bits=5,weights=%s", path);
    assert_int_equal(kv_read_file(path, &whole, &n, &e), 0);
    for (size_t cut = 0; cut < n; cut += cut < 3000 ? 7 : 331) {
        assert_int_equal(kv_write_file(path, whole, cut, &e), 0);
        assert_int_not_equal(kv_replay_spec_open(&spec, text, &fake_setting, 1, &e), 0);
        assert_true(*e.msg);
    }
    for (size_t at = 0; at < n; at += at < 3000 ? 1 : 97) {
        char was = whole[at];
        whole[at] = (char)(was ^ 0x15);
        assert_int_equal(kv_write_file(path, whole, n, &e), 0);
        if (kv_replay_spec_open(&spec, text, &fake_setting, 1, &e) == 0)
            kv_replay_spec_close(&spec);
        whole[at] = was;
    }
    free(whole);
    free(text);
    // Weights of another shape, or of another model.
    c.shape.n_layers = 4;
    write_cells(path, &c);
    text = kv_format_text("cells:bits=5,weights=%s", path);
    assert_int_equal(kv_replay_spec_open(&spec, text, &fake_setting, 1, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "tensor channel has another shape"));
    c = shipped_inputs();
    write_cells(path, &c);
    spec = fake_unfitted(text);
    struct kv_fitting fit = {.struct_bytes = sizeof fit,
                             .run = &spec.run,
                             .model_name = "other",
                             .model_digest = "ffff"};
    assert_int_equal(spec.policy->fit(spec.self, &fit, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "not for other"));
    kv_replay_spec_close(&spec);
    free(text);
}

// Weights that travel fit one shape, and of that shape one model alone (test_families asks the
// others' own files which ones they are).
static void weights_that_travel_are_of_one_model(void **state) {
    static const struct {
        struct kv_format_setting setting;
        const char *source, *digest;
    } travelling[] = {
        {{.shape = {30, 9, 3, 64, 576, 1536, 49152, 8192}, .order = KV_ORDER_GGML},
         "weights=shipped/smollm2-135m-instruct,",
         "f9e409eee24a3d17"},
        {{.shape = {24, 14, 2, 64, 896, 4864, 151936, 32768}, .order = KV_ORDER_HF},
         "weights=shipped/qwen2.5-coder-0.5b-instruct,",
         "c214ef5f5bffc2b7"},
        {{.shape = {18, 4, 1, 256, 640, 2048, 262144, 32768}, .order = KV_ORDER_HF},
         "weights=shipped/gemma-3-270m,",
         "a8c69b705ff4d758"},
    };
    enum { N = sizeof travelling / sizeof *travelling };
    (void)state;
    for (size_t i = 0; i < N; i++)
        for (size_t model = 0; model < N; model++) {
            struct kv_replay_spec spec;
            struct kv_error e;
            assert_int_equal(kv_replay_spec_open(&spec, "cells:bits=5@asym:group=32",
                                                 &travelling[i].setting, 1, &e),
                             0);
            assert_non_null(strstr(spec.canonical, travelling[i].source));
            struct kv_fitting fit = {.struct_bytes = sizeof fit,
                                     .run = &spec.run,
                                     .model_name = "this one",
                                     .model_digest = travelling[model].digest};
            assert_int_equal(spec.policy->fit(spec.self, &fit, &e), i == model ? 0 : KV_EFAIL);
            kv_replay_spec_close(&spec);
        }
}

static void without_a_pass_there_is_no_answer(void **state) {
    struct fake_cells c = shipped_inputs();
    struct kv_error e;
    (void)state;
    write_cells(path, &c);
    struct kv_replay_spec spec = open_cells("");
    struct fake *f = fake_new(&spec.run, 8, 2, 3, 5);
    assert_int_equal(kv_ask(spec.policy, spec.self, &f->item, f->cells, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "running pass"));
    fake_free(f);
    kv_replay_spec_close(&spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sensitivity_is_the_sum_by_hand),
        cmocka_unit_test(a_budget_lies_between_those_of_training),
        cmocka_unit_test(each_cell_gets_the_width_that_costs_least),
        cmocka_unit_test(layer_after_layer_and_token_after_token_decide_alike),
        cmocka_unit_test(hold_run_comes_back_to_the_budget_from_any_start),
        cmocka_unit_test(hold_hard_is_never_above_its_bound),
        cmocka_unit_test(grains_share_their_widths),
        cmocka_unit_test(lambda_follows_from_how_losses_spread),
        cmocka_unit_test(a_file_with_a_spread_serves_other_grains_and_widths),
        cmocka_unit_test(a_frozen_table_goes_by_class_and_place_and_takes_the_budget),
        cmocka_unit_test(the_canonical_form_comes_back_and_pins_the_file),
        cmocka_unit_test(files_and_settings_that_cannot_be_are_refused),
        cmocka_unit_test(weights_that_travel_are_of_one_model),
        cmocka_unit_test(without_a_pass_there_is_no_answer),
    };
    return cmocka_run_group_tests_name("cells", tests, set_up, tear_down);
}
