// SPDX-License-Identifier: Apache-2.0
// The null draws what it says: shares, independence, and nothing that depends on the order of work.
#include "policies/test/fake_item.h"

enum { TOKENS = 3000 };
static const double share[4] = {0.1, 0.2, 0.3, 0.4};

// Chi-square of counts against probabilities.
static double chi_square(const double *count, const double *p, size_t n) {
    double total = 0, sum = 0;
    for (size_t i = 0; i < n; i++) total += count[i];
    for (size_t i = 0; i < n; i++) sum += pow(count[i] - total * p[i], 2) / (total * p[i]);
    return sum;
}

static size_t place(unsigned bits) {
    return bits == 2 ? 0 : bits == 4 ? 1 : bits == 8 ? 2 : 3;
}

static void widths_come_at_their_shares_whatever_is_drawn(void **state) {
    static const char *const by[] = {"token", "layer", "cell"};
    (void)state;
    for (size_t b = 0; b < 3; b++) {
        char text[96];
        snprintf(text, sizeof text, "random:bits=2/4/8/16,shares=1/2/3/4,by=%s", by[b]);
        struct kv_replay_spec spec = fake_spec(text);
        struct fake *f = fake_new(&spec.run, TOKENS, 0, 0, 5);
        size_t cells = kv_cells(&spec.run.shape), layers = spec.run.shape.n_layers,
               step = b == 0   ? cells
                      : b == 1 ? cells / layers
                               : 1;
        double count[4] = {0};
        fake_ask(&spec, f);
        for (size_t t = 0; t < f->item.n_tokens; t++)
            for (size_t c = 0; c < cells; c++) {
                if (c % step == 0)
                    count[place(fake_bits(&spec, f, t, c))]++;
                else
                    assert_int_equal(fake_bits(&spec, f, t, c), fake_bits(&spec, f, t, c - 1));
            }
        assert_true(chi_square(count, share, 4) < 16.3); // 3 degrees of freedom, p = 0.001
        fake_free(f);
        kv_replay_spec_close(&spec);
    }
}

static void neighbours_are_drawn_apart(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("random:bits=2/4/8/16,shares=1/2/3/4,by=cell");
    struct fake *f = fake_new(&spec.run, TOKENS, 0, 0, 6);
    size_t cells = kv_cells(&spec.run.shape), stride[] = {1, 2, cells};
    double p[16];
    for (size_t i = 0; i < 16; i++) p[i] = share[i / 4] * share[i % 4];
    fake_ask(&spec, f);
    for (size_t s = 0; s < 3; s++) { // K beside V, K beside the next K, one token beside the next
        double count[16] = {0};
        for (size_t i = 0; i + stride[s] < f->item.n_tokens * cells; i += 2 * stride[s])
            count[4 * place(fake_bits(&spec, f, 0, i)) +
                  place(fake_bits(&spec, f, 0, i + stride[s]))]++;
        assert_true(chi_square(count, p, 16) < 37.7); // 15 degrees of freedom, p = 0.001
    }
    fake_free(f);
    kv_replay_spec_close(&spec);
}

static void a_draw_depends_on_seed_item_and_token_alone(void **state) {
    (void)state;
    struct kv_error e;
    struct kv_replay_spec spec = fake_spec("random:by=cell"),
                          other = fake_spec("random:by=cell,seed=1");
    struct fake *f = fake_new(&spec.run, 40, 0, 0, 7);
    size_t cells = kv_cells(&spec.run.shape);
    uint8_t part[64];
    assert_true(cells <= sizeof part);
    fake_ask(&spec, f);
    for (size_t t = 39; t > 0; t -= 13) {
        assert_int_equal(spec.policy->decide(spec.self, &f->item, t, 1, part, &e), 0);
        assert_memory_equal(part, f->cells + t * cells, cells);
        assert_int_equal(other.policy->decide(other.self, &f->item, t, 1, part, &e), 0);
        assert_memory_not_equal(part, f->cells + t * cells, cells);
    }
    fake_free(f);
    kv_replay_spec_close(&spec);
    kv_replay_spec_close(&other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(widths_come_at_their_shares_whatever_is_drawn),
        cmocka_unit_test(neighbours_are_drawn_apart),
        cmocka_unit_test(a_draw_depends_on_seed_item_and_token_alone),
    };
    return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
