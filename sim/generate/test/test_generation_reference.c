// SPDX-License-Identifier: Apache-2.0
// Greedy tokens judged by an independent numpy program: the same in float32, or the first other one
// stands where that program's two largest logits are nearly equal.
#include "sim/replay/test/agreement.h"

#include "sim/generate/generate.h"
#include "sim/generate/sample.h"

enum { MOST_PROMPTS = 20, MOST_TOKENS = 64 };
static const double near_logits = 1e-3;

struct fixture {
    struct kv_model *model;
    json_t *root;
    struct kv_replay_spec none;
};

static uint32_t at(const json_t *list, size_t i) {
    return (uint32_t)json_integer_value(json_array_get(list, i));
}

// A sequence that has read a prompt but its last token, which it has been fed.
static struct kv_held *begin(const struct fixture *f, struct kv_scratch *s, const json_t *prompt) {
    uint32_t n = (uint32_t)json_array_size(prompt), *ids = kv_alloc(n, sizeof *ids);
    struct kv_prompt p;
    struct kv_error e;
    for (uint32_t i = 0; i < n; i++) ids[i] = at(prompt, i);
    const struct kv_prompt_ask ask = {
        .ids = ids, .rows = n - 1, .key = 1, .spec = &f->none, .tokenizer = f->model->tokenizer};
    assert_int_equal(kv_prompt_run(f->model, s, &ask, &p, &e), 0);
    struct kv_held *h = kv_held_new(f->model, &f->none, &p, &ask, n, n + MOST_TOKENS, true);
    assert_int_equal(kv_held_feed(h, ids[n - 1], &e), 0);
    kv_prompt_fini(&p);
    free(ids);
    return h;
}

// All prompts go on beside each other. differs[i]: the first token that is another.
static void go_on(const struct fixture *f, const json_t *prompts, size_t n, size_t n_tokens,
                  size_t *differs) {
    struct kv_scratch *s = kv_scratch_new();
    struct kv_held *h[MOST_PROMPTS];
    struct kv_error e;
    size_t vocab = f->model->shape.vocab;
    float *final = kv_alloc(n * f->model->shape.hidden, sizeof *final);
    for (size_t i = 0; i < n; i++) {
        h[i] = begin(f, s, json_object_get(json_array_get(prompts, i), "prompt"));
        differs[i] = n_tokens;
    }
    for (size_t t = 0; t < n_tokens; t++) {
        struct kv_step_row rows[MOST_PROMPTS];
        struct kv_reference judged;
        for (size_t i = 0; i < n; i++) rows[i] = kv_held_row(h[i]);
        const struct kv_step step = {n, rows, kv_held_store, final, NULL};
        if (kv_step(f->model, &step, s, &e)) fail_msg("%s: %s", e.where, e.msg);
        kv_head_reference(f->model, final, n, s, &judged);
        for (size_t i = 0; i < n; i++) {
            const json_t *theirs = json_object_get(json_array_get(prompts, i), "tokens");
            uint32_t ours = kv_sample_pick(judged.logit + i * vocab, vocab, 0, NULL);
            if (ours != at(theirs, t) && differs[i] == n_tokens) differs[i] = t;
            assert_int_equal(kv_held_feed(h[i], ours, &e), 0);
        }
    }
    for (size_t i = 0; i < n; i++) kv_held_free(h[i]);
    kv_scratch_free(s);
    free(final);
}

static void tokens_are_those_of_an_independent_numpy_program(void **state) {
    const struct fixture *f = *state;
    const json_t *prompts = json_object_get(f->root, "prompts");
    size_t n = light_testing() ? 3 : json_array_size(prompts), same = 0, differs[MOST_PROMPTS],
           n_tokens = light_testing() ? 16 : MOST_TOKENS;
    assert_int_equal(json_array_size(prompts), MOST_PROMPTS);
    go_on(f, prompts, n, n_tokens, differs);
    for (size_t i = 0; i < n; i++) {
        const json_t *gap = json_object_get(json_array_get(prompts, i), "gap");
        assert_int_equal(json_array_size(gap), MOST_TOKENS);
        same += differs[i] == n_tokens;
        if (differs[i] == n_tokens) continue;
        double by = json_number_value(json_array_get(gap, differs[i]));
        printf("prompt %zu: token %zu differs, where the logits are %g apart\n", i, differs[i], by);
        assert_true(by < near_logits);
    }
    printf("%zu of %zu prompts give the same %zu tokens\n", same, n, n_tokens);
}

// The decode loop, on the first prompt: float32's own sequence, and 16 bits the reference's.
static void the_decode_loop_gives_them_too(void **state) {
    const struct fixture *f = *state;
    const json_t *one = json_array_get(json_object_get(f->root, "prompts"), 0),
                 *prompt = json_object_get(one, "prompt"), *tokens = json_object_get(one, "tokens");
    uint32_t n = (uint32_t)json_array_size(prompt), ids[256];
    struct kv_scratch *s = kv_scratch_new();
    struct kv_generated out;
    struct kv_error e;
    const size_t which = 0;
    for (uint32_t i = 0; i < n; i++) ids[i] = at(prompt, i);
    const struct kv_generate g = {.model = f->model,
                                  .specs = &f->none,
                                  .n_specs = 1,
                                  .mode = KV_PREFILL,
                                  .tokens = 16,
                                  .seed = 1};
    const struct kv_generate_item item = {1, ids, n, NULL, NULL, &which, 1, &out};
    size_t failed;
    if (kv_generate_items(&g, s, &item, 1, &failed, &e)) fail_msg("%s: %s", e.where, e.msg);
    assert_int_equal(out.n_own, 16);
    for (uint32_t t = 0; t < 16; t++) assert_int_equal(out.own[t], at(tokens, t));
    kv_generated_fini(&out);
    kv_scratch_free(s);
}

static int set_up(void **state) {
    static struct fixture f;
    struct kv_error e;
    *state = &f;
    f.model = open_test_model();
    f.root = load_json("sim/test/reference/generation.json");
    if (!f.model || !f.root) return 1;
    const struct kv_format_setting setting = {.shape = f.model->shape, .order = f.model->order};
    return kv_replay_spec_open(&f.none, "none", &setting, 1, &e);
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    kv_replay_spec_close(&f->none);
    kv_model_close(f->model);
    json_decref(f->root);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_those_of_an_independent_numpy_program),
        cmocka_unit_test(the_decode_loop_gives_them_too),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
