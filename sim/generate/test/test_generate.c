// SPDX-License-Identifier: Apache-2.0
// Generation on a small random model: 16 bits are the reference whatever stores them, company
// changes nothing, stored sequences against whole passes over the same tokens, stop rules, draws.
#include "sim/replay/test/aged_pass.h"

#include "sim/base/finite.h"
#include "sim/generate/generate.h"
#include "sim/generate/sample.h"

enum { PROMPT = 70, TOKENS = 90 };
static struct tiny_trace tiny;
static struct kv_model *model;
static uint32_t prompt[PROMPT + TOKENS];

static int set_up(void **state) {
    (void)state;
    for (uint32_t i = 0; i < PROMPT + TOKENS; i++)
        prompt[i] = (uint32_t)(kv_draw(5, 1, i) * N_TINY_PIECES);
    return tiny_trace_open(&tiny, KV_KEEP_FINAL, 1, &model);
}

static int tear_down(void **state) {
    (void)state;
    tiny_trace_close(&tiny);
    kv_model_close(model);
    return 0;
}

static struct kv_generate job_of(const struct kv_replay_spec *specs, size_t n, enum kv_mode mode) {
    return (struct kv_generate){
        .model = model, .specs = specs, .n_specs = n, .mode = mode, .tokens = TOKENS, .seed = 1};
}

static void generate(const struct kv_generate *g, const size_t *which, size_t n,
                     struct kv_generated *out) {
    struct kv_scratch *s = kv_scratch_new();
    const struct kv_generate_item item = {
        .key = 77, .ids = prompt, .n = PROMPT, .which = which, .n_which = n, .out = out};
    size_t failed;
    struct kv_error e;
    if (kv_generate_items(g, s, &item, 1, &failed, &e)) fail_msg("%s: %s", e.where, e.msg);
    kv_scratch_free(s);
}

static void sixteen_bits_are_the_reference_in_every_mode_and_format(void **state) {
    static const char *const texts[] = {"static:bits=16",
                                        "static:bits=16@sym:sinks=4,window=16",
                                        "static:bits=16@asym:group=32",
                                        "static:bits=16@kivi:group=32,residual=32",
                                        "static:bits=16@hqq",
                                        "static:bits=16@q8_0"};
    static const enum kv_mode modes[] = {KV_INLINE, KV_PREFILL, KV_PREFILL1};
    enum { N = sizeof texts / sizeof *texts };
    struct kv_replay_spec specs[N];
    struct kv_generated out[N];
    size_t which[N];
    (void)state;
    for (size_t i = 0; i < N; i++) {
        specs[i] = tiny_spec(&tiny, texts[i]);
        which[i] = i;
    }
    for (size_t m = 0; m < 6; m++) {
        struct kv_generate g = job_of(specs, N, modes[m / 2]);
        g.temperature = m % 2 ? 1.3 : 0;
        g.self_exact = m % 2;
        generate(&g, which, N, out);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(out[i].n_reference, TOKENS);
            assert_int_equal(out[i].equal, TOKENS);
            assert_false(out[i].parted);
            assert_memory_equal(out[i].own, out[i].reference, TOKENS * sizeof *out[i].own);
            for (size_t t = 0; t < TOKENS; t++) {
                // A window's tokens are read in another piece of the prompt's attention.
                if (modes[m / 2] == KV_INLINE)
                    assert_true(out[i].own_kl[t] < 1e-9);
                else
                    assert_true(out[i].own_kl[t] == 0 && out[i].forced_kl[t] == 0);
            }
            kv_generated_fini(&out[i]);
        }
    }
    for (size_t i = 0; i < N; i++) kv_replay_spec_close(&specs[i]);
}

static void a_row_of_a_product_does_not_know_of_the_others(void **state) {
    enum { ROWS = 11, COLS = 77, OUTPUTS = 45 };
    float w[OUTPUTS * COLS], x[ROWS * COLS], all[ROWS * OUTPUTS], one[OUTPUTS];
    struct kv_scratch *s = kv_scratch_new();
    const struct kv_matrix m = {.rows = OUTPUTS, .cols = COLS, .f32 = w};
    (void)state;
    for (size_t i = 0; i < OUTPUTS * COLS; i++) w[i] = (float)kv_draw(1, 1, i) - 0.5f;
    for (size_t i = 0; i < ROWS * COLS; i++) x[i] = (float)kv_draw(1, 2, i) - 0.5f;
    kv_scratch_row_by_row(s, true);
    kv_product(&m, x, ROWS, all, s);
    for (size_t r = 0; r < ROWS; r++) {
        kv_product(&m, x + r * COLS, 1, one, s);
        assert_memory_equal(one, all + r * OUTPUTS, sizeof one);
        for (size_t o = 0; o < OUTPUTS; o++) {
            double sum = 0;
            for (size_t i = 0; i < COLS; i++) sum += (double)w[o * COLS + i] * x[r * COLS + i];
            assert_true(fabs(sum - (double)one[o]) < 1e-5);
        }
    }
    kv_scratch_free(s);
}

static void company_changes_no_bit(void **state) {
    static const char *const texts[] = {"static:bits=2@sym",
                                        "static:bits=4@kivi:group=32,residual=32",
                                        "static:k=3,v=2@asym:group=32", "none"};
    struct kv_replay_spec specs[4];
    struct kv_generated all[4], one;
    const size_t which[] = {0, 1, 2, 3};
    (void)state;
    for (size_t i = 0; i < 4; i++) specs[i] = tiny_spec(&tiny, texts[i]);
    struct kv_generate g = job_of(specs, 4, KV_PREFILL);
    size_t n_parted = 0;
    g.temperature = 1;
    generate(&g, which, 4, all);
    for (size_t i = 0; i < 4; i++) {
        generate(&g, &which[i], 1, &one);
        assert_int_equal(one.n_own, all[i].n_own);
        assert_int_equal(one.equal, all[i].equal);
        assert_memory_equal(one.own, all[i].own, one.n_own * sizeof *one.own);
        assert_memory_equal(one.own_kl, all[i].own_kl, one.n_own * sizeof(double));
        assert_memory_equal(one.forced_kl, all[i].forced_kl, one.n_reference * sizeof(double));
        for (uint32_t t = 0; t < one.n_own; t++) {
            assert_true(isfinite(one.own_kl[t]) && isfinite(one.forced_kl[t]));
            // One path until they part, and at the token where they do.
            if (t <= one.equal) assert_true(one.own_kl[t] == one.forced_kl[t]);
            if (t < one.equal) assert_int_equal(one.own[t], one.reference[t]);
        }
        if (one.parted) assert_int_not_equal(one.own[one.equal], one.reference[one.equal]);
        n_parted += one.parted;
        kv_generated_fini(&one);
        kv_generated_fini(&all[i]);
    }
    assert_true(n_parted >= 2);
    for (size_t i = 0; i < 4; i++) kv_replay_spec_close(&specs[i]);
}

// ---- against whole passes -------------------------------------------------------------

// Steps over prompt[from..n) behind a prompt of `from` tokens; the last state.
static void in_steps(const struct kv_replay_spec *spec, uint32_t from, uint32_t n, float *final) {
    struct kv_scratch *s = kv_scratch_new();
    const struct kv_prompt_ask ask = {.ids = prompt,
                                      .rows = from,
                                      .key = 77,
                                      .spec = spec,
                                      .tokenizer = model->tokenizer,
                                      .seen = true};
    struct kv_prompt p;
    struct kv_error e;
    assert_int_equal(kv_prompt_run(model, s, &ask, &p, &e), 0);
    struct kv_held *h = kv_held_new(model, spec, &p, &ask, from, n, false);
    for (uint32_t i = from; i < n; i++) {
        assert_int_equal(kv_held_feed(h, prompt[i], &e), 0);
        const struct kv_step_row row = kv_held_row(h);
        const struct kv_step step = {1, &row, kv_held_store, final, NULL};
        if (kv_step(model, &step, s, &e)) fail_msg("%s: %s", e.where, e.msg);
    }
    kv_held_free(h);
    kv_prompt_fini(&p);
    kv_scratch_free(s);
}

// The largest difference between the last state of steps and that of one pass over all tokens,
// each query of which reads what its position may.
static double off(const struct kv_replay_spec *spec, uint32_t n) {
    struct kv_scratch *s = kv_scratch_new();
    const struct kv_prompt_ask ask = {.ids = prompt,
                                      .rows = n,
                                      .key = 77,
                                      .spec = spec,
                                      .tokenizer = model->tokenizer,
                                      .seen = true};
    struct kv_prompt whole;
    struct kv_error e;
    float *final = kv_alloc(tiny_shape.hidden, sizeof *final);
    double most = 0;
    if (kv_prompt_run(model, s, &ask, &whole, &e)) fail_msg("%s: %s", e.where, e.msg);
    in_steps(spec, PROMPT, n, final);
    for (size_t i = 0; i < tiny_shape.hidden; i++)
        most = fmax(most, fabs((double) final[i] - (double)whole.final[i]));
    kv_prompt_fini(&whole);
    kv_scratch_free(s);
    free(final);
    return most;
}

static void steps_read_what_a_pass_over_all_tokens_reads(void **state) {
    static const char *const texts[] = {"none",
                                        "static:bits=16",
                                        "static:bits=8@asym:group=32",
                                        "static:bits=3@sym:sinks=4,window=16",
                                        "static:bits=4@kivi:group=32,residual=32",
                                        "static:k=4,v=3@hadamard(sym)",
                                        "static:bits=4@center(asym):tokens=16",
                                        "static:bits=4@rotatekv"};
    (void)state;
    assert_true(off(NULL, PROMPT + TOKENS) < 1e-4);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct kv_replay_spec spec = tiny_spec(&tiny, texts[i]);
        const uint32_t ends[] = {PROMPT + 1, PROMPT + 25, PROMPT + 26, PROMPT + 27,
                                 PROMPT + TOKENS};
        for (size_t n = 0; n < 5; n++) {
            double d = off(&spec, ends[n]);
            // A state is of size 1; a code that rounds the other way moves it by less than 0.002.
            if (d > 0.002) fail_msg("%s, %u tokens: off by %g", texts[i], ends[n], d);
        }
        kv_replay_spec_close(&spec);
    }
}

// What other architectures do beyond a Llama: biases, norms of heads and of what is added, sliding
// windows, scaled embeddings.
static void steps_take_what_each_architecture_may_have(void **state) {
    static const struct kv_random_model how[] = {
        {.architecture = "qwen2", .biases = true},
        {.architecture = "qwen3"},
        {.architecture = "gemma3", .window = 24, .window_pattern = 2},
    };
    struct kv_model *llama = model;
    (void)state;
    for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
        model = kv_model_random_as(&tiny_shape, KV_ORDER_HF, true, 5, &how[i]);
        assert_non_null(model);
        double d = off(NULL, PROMPT + TOKENS);
        kv_model_close(model);
        model = llama;
        if (d > 1e-3) fail_msg("%s: off by %g", how[i].architecture, d);
    }
}

static void a_policy_that_ages_is_asked_as_tokens_arrive(void **state) {
    (void)state;
    const uint32_t ends[] = {PROMPT + 1, 128, 129, 130, PROMPT + TOKENS};
    for (size_t n = 0; n < 5; n++) {
        struct made *m = make(&tiny, "asym:group=32", LOWERS, true);
        double d = off(&m->spec, ends[n]);
        if (d > 0.002) fail_msg("%u tokens: off by %g", ends[n], d);
        assert_true(m->ageing.calls > 0);
        unmake(m);
    }
}

static void what_is_lowered_shows_in_the_widths(void **state) {
    struct made *m = make(&tiny, "asym:group=32", LOWERS, true);
    struct kv_scratch *s = kv_scratch_new();
    const struct kv_prompt_ask ask = {.ids = prompt,
                                      .rows = PROMPT,
                                      .key = 77,
                                      .spec = NULL,
                                      .tokenizer = model->tokenizer,
                                      .seen = true};
    struct kv_prompt p;
    struct kv_error e;
    float *final = kv_alloc(tiny_shape.hidden, sizeof *final);
    uint32_t n;
    (void)state;
    assert_int_equal(kv_prompt_run(model, s, &ask, &p, &e), 0);
    struct kv_held *h = kv_held_new(model, &m->spec, &p, &ask, PROMPT, 200, true);
    for (uint32_t i = PROMPT; i < 150; i++) {
        assert_int_equal(kv_held_feed(h, prompt[i], &e), 0);
        const struct kv_step_row row = kv_held_row(h);
        const struct kv_step step = {1, &row, kv_held_store, final, NULL};
        assert_int_equal(kv_step(model, &step, s, &e), 0);
        const uint8_t *cells = kv_held_cells(h, &n);
        uint32_t grown = i / PAGE * PAGE; // the query at a page's end comes after it is lowered
        for (uint32_t r = 0; r < n; r++)
            for (uint32_t c = 0; c < 8; c++) {
                unsigned bits = r < grown ? bits_at(grown, r, c / 4, c % 4) : 8;
                assert_int_equal(cells[r * 8 + c], m->ageing.at[bits]);
            }
    }
    kv_held_free(h);
    kv_prompt_fini(&p);
    kv_scratch_free(s);
    free(final);
    unmake(m);
}

// ---- features of a sequence that is being generated -----------------------------------

static float seen[PROMPT + TOKENS][KV_N_FEATURES];
static uint32_t n_seen;
static const struct kv_policy *spied;

// Decides as the policy that it stands before, and remembers what it saw.
static int spy(void *self, const struct kv_item *item, uint8_t *cells, struct kv_error *e) {
    n_seen = item->n_tokens;
    for (uint32_t i = 0; i < n_seen; i++) memcpy(seen[i], item->tokens[i].feature, sizeof seen[i]);
    return spied->plan(self, item, cells, e);
}

// All six, of every token but the newest, in each mode, against one pass over the same tokens.
static void features_are_those_of_a_pass_over_the_text(void **state) {
    static const enum kv_mode modes[] = {KV_PREFILL, KV_PREFILL1, KV_INLINE};
    float rarity[PROMPT], rarity_of[N_TINY_PIECES];
    uint32_t ids[PROMPT + TOKENS];
    const size_t which = 0;
    size_t failed;
    struct kv_error e;
    (void)state;
    for (uint32_t i = 0; i < PROMPT; i++) rarity[i] = 100 + (float)i;
    for (uint32_t i = 0; i < N_TINY_PIECES; i++) rarity_of[i] = (float)i;
    for (size_t m = 0; m < 3; m++) {
        struct kv_replay_spec spec = tiny_spec(&tiny, "static:bits=16");
        struct kv_policy policy = *spec.policy;
        struct kv_generate g = job_of(&spec, 1, modes[m]);
        struct kv_scratch *s = kv_scratch_new();
        struct kv_generated out;
        struct kv_prompt whole;
        spied = spec.policy;
        policy.plan = spy;
        spec.policy = &policy;
        spec.needs = KV_HELD_FEATURES;
        g.self_exact = true;
        const struct kv_generate_item item = {77,        prompt, PROMPT, rarity,
                                              rarity_of, &which, 1,      &out};
        if (kv_generate_items(&g, s, &item, 1, &failed, &e)) fail_msg("%s", e.msg);
        assert_false(out.parted);
        memcpy(ids, prompt, PROMPT * sizeof *ids);
        memcpy(ids + PROMPT, out.own, TOKENS * sizeof *ids);
        const struct kv_prompt_ask ask = {.ids = ids, .rows = PROMPT + TOKENS, .features = true};
        assert_int_equal(kv_prompt_run(model, s, &ask, &whole, &e), 0);
        assert_int_equal(n_seen, PROMPT + TOKENS - 2); // all that were fed but the newest
        for (uint32_t i = 0; i < n_seen; i++) {
            const float *f = whole.features + i * KV_N_FEATURES;
            for (int k = 0; k < KV_N_FEATURES; k++) {
                double expected = k != KV_RARITY_NATS ? (double)f[k]
                                  : i < PROMPT        ? (double)rarity[i]
                                                      : (double)rarity_of[ids[i]];
                if (!(KV_HELD_FEATURES >> k & 1))
                    assert_true(isnan(seen[i][k]));
                else if (!(fabs((double)seen[i][k] - expected) <= 1e-3 * fabs(expected)))
                    fail_msg("mode %zu, token %u, feature %d: %g, not %g", m, i, k,
                             (double)seen[i][k], expected);
            }
        }
        kv_prompt_fini(&whole);
        kv_generated_fini(&out);
        kv_scratch_free(s);
        spec.policy = spied;
        kv_replay_spec_close(&spec);
    }
}

// Below every entropy and above every one there is only one width: the static policy's text.
static void cuts_that_tell_nothing_apart_give_the_static_policys_text(void **state) {
    static const char *const texts[] = {"static:bits=3@sym",
                                        "threshold:feature=entropy,cuts=1000,bits=3/16@sym",
                                        "threshold:feature=entropy,cuts=0,bits=16/3@sym",
                                        "threshold:feature=attn-var,cuts=0.001,bits=3/16@sym"};
    static const enum kv_mode modes[] = {KV_PREFILL, KV_PREFILL1, KV_INLINE};
    struct kv_replay_spec specs[4];
    struct kv_generated out[4];
    const size_t which[] = {0, 1, 2, 3};
    (void)state;
    for (size_t i = 0; i < 4; i++) specs[i] = tiny_spec(&tiny, texts[i]);
    for (size_t m = 0; m < 3; m++) {
        struct kv_generate g = job_of(specs, 4, modes[m]);
        g.self_exact = true;
        g.temperature = 1;
        generate(&g, which, 4, out);
        assert_true(out[0].parted);
        for (size_t i = 1; i < 3; i++) {
            assert_memory_equal(out[i].own, out[0].own, TOKENS * sizeof *out[i].own);
            assert_memory_equal(out[i].own_kl, out[0].own_kl, TOKENS * sizeof(double));
            assert_memory_equal(out[i].forced_kl, out[0].forced_kl, TOKENS * sizeof(double));
        }
        assert_memory_not_equal(out[3].own_kl, out[0].own_kl, TOKENS * sizeof(double));
        for (size_t i = 0; i < 4; i++) kv_generated_fini(&out[i]);
    }
    for (size_t i = 0; i < 4; i++) kv_replay_spec_close(&specs[i]);
}

// ---- rules ----------------------------------------------------------------------------

static void a_sequence_ends_where_its_rules_say(void **state) {
    struct kv_replay_spec spec = tiny_spec(&tiny, "static:bits=16");
    struct kv_generate g = job_of(&spec, 1, KV_PREFILL);
    struct kv_generated whole, cut;
    const size_t which = 0;
    (void)state;
    g.temperature = 2;
    generate(&g, &which, 1, &whole);
    uint32_t at = 7, first = 0;
    while (whole.own[first] != whole.own[at]) first++;
    g.ends = &whole.own[at];
    g.n_ends = 1;
    generate(&g, &which, 1, &cut);
    assert_int_equal(cut.n_own, first + 1);
    assert_int_equal(cut.n_reference, first + 1);
    assert_false(cut.parted);
    kv_generated_fini(&cut);
    size_t n_bytes;
    const char *bytes = kv_tokenizer_bytes(model->tokenizer, whole.own[at], &n_bytes);
    char stop[16] = "";
    memcpy(stop, bytes, n_bytes < 15 ? n_bytes : 15);
    g.n_ends = 0;
    g.stops = (const char *const[]){stop, NULL};
    if (*stop) {
        generate(&g, &which, 1, &cut);
        assert_true(cut.n_own <= at + 1);
        assert_true(kv_sample_stops(model->tokenizer, cut.own, cut.n_own, g.stops));
        kv_generated_fini(&cut);
    }
    kv_generated_fini(&whole);
    kv_replay_spec_close(&spec);
}

static void a_stop_text_may_lie_across_tokens(void **state) {
    uint32_t *ids = NULL;
    size_t n;
    struct kv_error e;
    (void)state;
    assert_int_equal(kv_tokenizer_encode(model->tokenizer, "a b.\n\nc", 7, &ids, &n, &e), 0);
    assert_true(n >= 2);
    const char *const at_end[] = {"nowhere", "c", NULL}, *const before[] = {"a b", NULL},
                      *const across[] = {"\nc", NULL}, *const empty[] = {"", NULL},
                      *const none[] = {NULL};
    assert_true(kv_sample_stops(model->tokenizer, ids, n, at_end));
    assert_false(kv_sample_stops(model->tokenizer, ids, n, before)); // before the last token
    assert_true(kv_sample_stops(model->tokenizer, ids, n, across));
    assert_false(kv_sample_stops(model->tokenizer, ids, n, empty));
    assert_false(kv_sample_stops(model->tokenizer, ids, n, none));
    assert_false(kv_sample_stops(model->tokenizer, ids, n, NULL));
    const struct {
        const char *const *stops;
        const char *text;
    } texts[] = {{at_end, "a b.\n\n"},
                 {before, ""},
                 {across, "a b.\n"},
                 {empty, "a b.\n\nc"},
                 {NULL, "a b.\n\nc"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *text = kv_sample_text(model->tokenizer, ids, n, texts[i].stops);
        assert_string_equal(text, texts[i].text);
        free(text);
    }
    free(ids);
}

// Draws of a known distribution: within 4 standard errors of each probability.
static void draws_follow_the_softmax_at_its_temperature(void **state) {
    enum { V = 5, N = 20000 };
    const float logits[V] = {0, 1, -1, 2, 0.5f};
    (void)state;
    for (int t = 0; t < 2; t++) {
        double temperature = t ? 2 : 0.7, sum = 0;
        size_t count[V] = {0};
        for (size_t i = 0; i < V; i++) sum += exp((double)logits[i] / temperature);
        for (uint32_t i = 0; i < N; i++) {
            float noise[V];
            kv_sample_noise(3, 9, i, V, noise);
            count[kv_sample_pick(logits, V, temperature, noise)]++;
        }
        for (size_t i = 0; i < V; i++) {
            double p = exp((double)logits[i] / temperature) / sum;
            assert_true(fabs((double)count[i] / N - p) < 4 * sqrt(p * (1 - p) / N));
        }
    }
    assert_int_equal(kv_sample_pick(logits, V, 0, NULL), 3);
}

static void what_only_a_recording_knows_is_refused_by_name(void **state) {
    static const struct {
        const char *text, *said;
        enum kv_mode mode;
    } cases[] = {
        {"threshold:feature=entropy,cuts=0.5/1.5/3,bits=2/4/8/16@sym", "--self exact", KV_INLINE},
        {"threshold:feature=entropy,bits=2/4/8/16@sym", "quantiles", KV_PREFILL},
        {"oracle:bits=4@sym", "damage", KV_PREFILL},
        {"static:bits=4@sym", "requant", KV_REQUANT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_replay_spec spec = tiny_spec(&tiny, cases[i].text);
        struct kv_error e = {0};
        assert_int_equal(kv_held_answers(&spec, cases[i].mode, i > 0, &e), KV_EUSAGE);
        if (!strstr(e.msg, cases[i].said)) fail_msg("%s: %s", cases[i].text, e.msg);
        kv_replay_spec_close(&spec);
    }
}

static void prompts_that_cannot_be_gone_on_from_are_refused(void **state) {
    struct kv_replay_spec spec = tiny_spec(&tiny, "static:bits=4");
    struct kv_generate g = job_of(&spec, 1, KV_PREFILL);
    struct kv_scratch *s = kv_scratch_new();
    struct kv_generated out;
    struct kv_error e;
    const size_t which = 0;
    size_t failed;
    (void)state;
    struct kv_generate_item items[] = {{1, prompt, PROMPT, NULL, NULL, &which, 1, &out},
                                       {1, prompt, 1, NULL, NULL, &which, 1, &out}};
    assert_int_equal(kv_generate_items(&g, s, items, 2, &failed, &e), KV_EUSAGE);
    assert_non_null(strstr(e.msg, "2 at least"));
    assert_int_equal(failed, 1);
    g.tokens = 1000;
    assert_int_equal(kv_generate_items(&g, s, items, 1, &failed, &e), KV_EUSAGE);
    assert_non_null(strstr(e.msg, "1024"));
    kv_scratch_free(s);
    kv_replay_spec_close(&spec);
}

static void items_give_in_company_what_they_give_alone(void **state) {
    static const char *const texts[] = {"static:bits=2", "static:bits=4@kivi:group=32,residual=32"};
    static const enum kv_mode modes[] = {KV_INLINE, KV_PREFILL, KV_PREFILL1};
    struct kv_replay_spec specs[] = {tiny_spec(&tiny, texts[0]), tiny_spec(&tiny, texts[1])};
    const size_t both[] = {0, 1};
    (void)state;
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        struct kv_generate g = job_of(specs, 2, modes[m]);
        g.temperature = 1; // each item draws by its own key
        struct kv_generated out[3][2], alone[2];
        struct kv_generate_item items[3];
        size_t failed;
        struct kv_error e;
        struct kv_scratch *s = kv_scratch_new();
        for (uint32_t i = 0; i < 3; i++) // of other lengths; the last wants one spec alone
            items[i] = (struct kv_generate_item){.key = 5 + i,
                                                 .ids = prompt + i,
                                                 .n = PROMPT - 2 * i,
                                                 .which = both + (i == 2),
                                                 .n_which = i == 2 ? 1 : 2,
                                                 .out = out[i]};
        if (kv_generate_items(&g, s, items, 3, &failed, &e)) fail_msg("%s", e.msg);
        for (size_t i = 0; i < 3; i++) {
            items[i].out = alone;
            if (kv_generate_items(&g, s, &items[i], 1, &failed, &e)) fail_msg("%s", e.msg);
            for (size_t j = 0; j < items[i].n_which; j++) {
                const struct kv_generated *a = &out[i][j], *b = &alone[j];
                assert_int_equal(a->n_own, b->n_own);
                assert_int_equal(a->n_reference, b->n_reference);
                assert_memory_equal(a->own, b->own, a->n_own * sizeof *a->own);
                assert_memory_equal(a->own_kl, b->own_kl, a->n_own * sizeof *a->own_kl);
                assert_memory_equal(a->forced_kl, b->forced_kl,
                                    a->n_reference * sizeof *a->forced_kl);
                kv_generated_fini(&out[i][j]);
                kv_generated_fini(&alone[j]);
            }
        }
        kv_scratch_free(s);
    }
    for (size_t i = 0; i < 2; i++) kv_replay_spec_close(&specs[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_give_in_company_what_they_give_alone),
        cmocka_unit_test(sixteen_bits_are_the_reference_in_every_mode_and_format),
        cmocka_unit_test(a_row_of_a_product_does_not_know_of_the_others),
        cmocka_unit_test(company_changes_no_bit),
        cmocka_unit_test(steps_read_what_a_pass_over_all_tokens_reads),
        cmocka_unit_test(steps_take_what_each_architecture_may_have),
        cmocka_unit_test(a_policy_that_ages_is_asked_as_tokens_arrive),
        cmocka_unit_test(what_is_lowered_shows_in_the_widths),
        cmocka_unit_test(features_are_those_of_a_pass_over_the_text),
        cmocka_unit_test(cuts_that_tell_nothing_apart_give_the_static_policys_text),
        cmocka_unit_test(a_sequence_ends_where_its_rules_say),
        cmocka_unit_test(a_stop_text_may_lie_across_tokens),
        cmocka_unit_test(draws_follow_the_softmax_at_its_temperature),
        cmocka_unit_test(what_only_a_recording_knows_is_refused_by_name),
        cmocka_unit_test(prompts_that_cannot_be_gone_on_from_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
