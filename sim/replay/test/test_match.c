// SPDX-License-Identifier: Apache-2.0
// Whether a choice is what greedy decoding writes: against a plain search for the largest of all
// logits, token by token.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sim/replay/compare.h"
#include "sim/replay/test/tiny_trace.h"

static struct tiny_trace t;
static struct kv_model *m;

static int set_up(void **state) {
    (void)state;
    return tiny_trace_open(&t, KV_KEEP_FINAL, 4, &m);
}

static int tear_down(void **state) {
    (void)state;
    kv_trace_close(t.trace);
    kv_model_close(m);
    tiny_remove(t.dir);
    return 0;
}

// The token with the largest logit after a final state.
static uint32_t greedy(const float *final) {
    size_t hidden = m->shape.hidden;
    double most = -INFINITY;
    uint32_t best = 0;
    for (uint32_t v = 0; v < m->shape.vocab; v++) {
        double sum = 0;
        for (size_t i = 0; i < hidden; i++)
            sum += (double)m->head.f32[v * hidden + i] * (double) final[i];
        if (sum > most) most = sum, best = v;
    }
    return best;
}

// Scored row of a choice's token: the branch point's for the first one, then the choices' in order.
static uint32_t row_of(const struct kv_trace_item *it, uint32_t choice, uint32_t token) {
    uint32_t row = token ? 1 : 0;
    for (uint32_t c = 0; c < choice && token; c++) row += it->first[c + 1] - it->first[c] - 1;
    return token ? row + token - 1 : 0;
}

static enum kv_exact_match plain(const struct kv_trace_item *it, uint32_t c, const float *final) {
    for (uint32_t i = 0; i < it->first[c + 1] - it->first[c]; i++)
        if (greedy(final + row_of(it, c, i) * m->shape.hidden) != it->ids[it->first[c] + i])
            return KV_MATCH_NO;
    return KV_MATCH_YES;
}

// Choice 0 is written as the 16-bit run decodes it, choice 1 so up to its last token, choice 2 as
// the other run decodes it; the others stay.
static void write_choices(const struct kv_trace_item *it, const float *other, uint32_t *ids) {
    size_t h = m->shape.hidden;
    for (uint32_t c = 0; c < 3 && c < it->n_choices; c++)
        for (uint32_t i = 0; i < it->first[c + 1] - it->first[c]; i++)
            ids[it->first[c] + i] = greedy((c == 2 ? other : it->final) + row_of(it, c, i) * h);
    uint32_t last = it->first[2] - 1;
    ids[last] = (ids[last] + 1) % m->shape.vocab;
}

static void a_match_is_what_a_plain_search_of_all_logits_finds(void **state) {
    struct kv_scratch *s = kv_scratch_new();
    size_t h = m->shape.hidden, seen[2][3] = {{0}};
    (void)state;
    for (size_t i = 0; i < kv_trace_info(t.trace)->n_items; i++) {
        struct kv_trace_item it = *kv_trace_item(t.trace, i);
        uint32_t *ids = kv_alloc(it.n_tokens, sizeof *ids);
        float *other = kv_alloc(it.n_final * h, sizeof *other);
        double *kl = kv_alloc(it.n_final, sizeof *kl);
        struct kv_targets targets;
        struct kv_outcome o = {0};
        assert_true(it.n_choices >= 2);
        for (size_t k = 0; k < it.n_final * h; k++)
            other[k] = it.final[k] + (float)(kv_draw(i, 1, k) - 0.5);
        memcpy(ids, it.ids, it.n_tokens * sizeof *ids);
        write_choices(&it, other, ids);
        it.ids = ids;
        kv_targets_init(&targets, &it);
        kv_compare_final(m, s, &it, 1, &other, &targets, &kl);
        kv_compare_outcome(&it, &targets, kl, &o);
        for (uint32_t c = 0; c < it.n_choices; c++) {
            assert_int_equal(o.choice[c].match_ref, plain(&it, c, it.final));
            assert_int_equal(o.choice[c].match, plain(&it, c, other));
            seen[0][o.choice[c].match_ref]++;
            seen[1][o.choice[c].match]++;
        }
        assert_int_equal(o.choice[0].match_ref, KV_MATCH_YES);
        assert_int_equal(o.choice[1].match_ref, KV_MATCH_NO);
        kv_outcome_fini(&o);
        kv_targets_fini(&targets);
        free(ids);
        free(other);
        free(kl);
    }
    for (int k = 0; k < 2; k++) assert_true(seen[k][KV_MATCH_YES] && seen[k][KV_MATCH_NO]);
    kv_scratch_free(s);
}

static void what_is_not_finite_matches_nothing_and_no_match_is_counted(void **state) {
    struct kv_scratch *s = kv_scratch_new();
    const struct kv_trace_item *it = kv_trace_item(t.trace, 0);
    size_t n = it->n_final * m->shape.hidden;
    float *other = kv_alloc(n, sizeof *other);
    double *kl = kv_alloc(it->n_final, sizeof *kl);
    struct kv_targets targets;
    struct kv_outcome o = {0};
    (void)state;
    memcpy(other, it->final, n * sizeof *other);
    other[n - 1] = NAN;
    kv_targets_init(&targets, it);
    kv_compare_final(m, s, it, 1, &other, &targets, &kl);
    kv_compare_outcome(it, &targets, kl, &o);
    for (uint32_t c = 0; c < it->n_choices; c++) {
        assert_int_equal(o.choice[c].match, KV_MATCH_UNKNOWN);
        assert_int_equal(o.choice[c].match_ref, KV_MATCH_UNKNOWN);
    }
    kv_outcome_fini(&o);
    kv_targets_fini(&targets);
    free(other);
    free(kl);
    kv_scratch_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_match_is_what_a_plain_search_of_all_logits_finds),
        cmocka_unit_test(what_is_not_finite_matches_nothing_and_no_match_is_counted)};
    return cmocka_run_group_tests_name("matches", tests, set_up, tear_down);
}
