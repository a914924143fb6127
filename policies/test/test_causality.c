// SPDX-License-Identifier: Apache-2.0
// Every policy that does not declare the future answers the same when the future is scrambled.
#include "policies/test/fake_net.h"

// Settings worth a line of their own; every other policy of the table is audited with its defaults.
static const char *const online[] = {
    "none",
    "static:k=8,v=4",
    "random:by=cell",
    "layerwise:k=8/4/2",
    "threshold",
    "threshold:feature=key-range,quantiles=0.2/0.4/0.9",
    "threshold:feature=entropy,cuts=0.2/0.4/0.6",
    "context:cuts=3/9,bits=16/8/4",
    "context:cuts=0.3,unit=share",
    "sinks:keep=2,window=3",
    "h2o",
    "h2o:by=token",
    "shuffle(threshold)",
    "qkvshare(h2o):hops=3",
    "qaq:value-error=0.05,max=8",
    "qaq:level=token,rule=code",
    "zipcache:random=0.3",
    "rotatekv:pivots=3",
    "pmkvq:tokens=4/9/30",
    "kvadaquant:bits=4",
    "kvtuner:bits=4.5",
    "class:first=16,digit=8,space=2",
    "mlp:weights=", // of a file made for the test
};

static void audit(const char *text) {
    struct kv_replay_spec spec = fake_spec(text);
    for (uint64_t seed = 0; seed < 6; seed++) {
        struct fake *f = fake_new(&spec.run, 18, seed % 4, 5, seed);
        struct kv_error e = {0};
        fake_ask(&spec, f);
        if (kv_audit(&spec, &f->item, f->cells, &e)) fail_msg("%s: %s", text, e.msg);
        fake_free(f);
    }
    kv_replay_spec_close(&spec);
}

static void no_online_policy_answers_by_the_future(void **state) {
    const size_t width[] = {4, 16, 16, 4};
    char path[64], text[160];
    (void)state;
    make_path(path, sizeof path);
    write_net(path, width, noise);
    for (size_t i = 0; i < sizeof online / sizeof *online; i++) {
        bool net = online[i][strlen(online[i]) - 1] == '=';
        snprintf(text, sizeof text, "%s%s", online[i], net ? path : "");
        audit(text);
    }
    unlink(path);
}

static bool has_a_line(const char *name) {
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof online / sizeof *online; i++)
        if (strncmp(online[i], name, n) == 0 && strchr(":(", online[i][n])) return true;
    return false;
}

static void a_policy_of_the_table_without_a_line_is_audited_as_it_comes(void **state) {
    const struct kv_policy *p;
    (void)state;
    for (size_t i = 0; (p = kv_policy_at(i)); i++)
        // One that decides by layers is audited in its pass (test_layered.c), one that needs the
        // weights of cells beside them (test_cells.c).
        if (!(p->needs & KV_NEEDS_FUTURE) && !p->decide_layer && !has_a_line(p->name) &&
            strcmp(p->name, "frozen") != 0)
            audit(p->name);
}

// ---- a policy that cheats ----------------------------------------------------------------

// Gives each token the width that the next token's entropy asks for.
static int peek(void *self, const struct kv_item *item, size_t first, size_t n, uint8_t *cells,
                struct kv_error *e) {
    size_t n_cells = kv_cells(&item->run->shape);
    (void)self, (void)e;
    for (size_t t = first; t < first + n; t++) {
        size_t next = t + 1 < item->n_tokens ? t + 1 : t;
        int wide = item->tokens[next].feature[KV_ENTROPY_NATS] > 0.5f;
        memset(cells + (t - first) * n_cells, wide, n_cells);
    }
    return 0;
}

static void a_policy_that_peeks_is_caught_unless_it_says_how_late_it_decides(void **state) {
    (void)state;
    struct kv_replay_spec spec = fake_spec("threshold:feature=entropy,cuts=0.2/0.4/0.6");
    struct kv_policy cheat = *spec.policy;
    const struct kv_policy *own = spec.policy;
    int caught = 0;
    cheat.decide = peek;
    spec.policy = &cheat;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct fake *f = fake_new(&spec.run, 40, 0, 0, seed);
        struct kv_error e = {0};
        fake_ask(&spec, f);
        spec.delay_tokens = 0;
        if (kv_audit(&spec, &f->item, f->cells, &e)) {
            caught++;
            assert_non_null(strstr(e.msg, "which it does not declare"));
        }
        spec.delay_tokens = 1;
        assert_int_equal(kv_audit(&spec, &f->item, f->cells, &e), 0);
        fake_free(f);
    }
    assert_in_range(caught, 15, 20);
    spec.policy = own;
    kv_replay_spec_close(&spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_online_policy_answers_by_the_future),
        cmocka_unit_test(a_policy_of_the_table_without_a_line_is_audited_as_it_comes),
        cmocka_unit_test(a_policy_that_peeks_is_caught_unless_it_says_how_late_it_decides),
    };
    return cmocka_run_group_tests_name("causality", tests, NULL, NULL);
}
