// SPDX-License-Identifier: Apache-2.0
// Ledgers worked out on paper, and what a policy is shown and may answer. No model is needed.
#include "sim/base/memory.h"
#include "sim/replay/ledger.h"
#include "sim/replay/replay.h"
#include "traces/writer.h"

#include <setjmp.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

// SmolLM2-135M's cache: 30 layers x 3 KV heads x 64 values, K and V: 11,520 values a token.
enum { LAYERS = 30, HEADS = 3, DIM = 64, CELLS = LAYERS * HEADS * 2, VALUES = CELLS * DIM };
static struct kv_format_setting setting = {.shape = {.n_layers = LAYERS,
                                                     .n_heads = 9,
                                                     .n_kv_heads = HEADS,
                                                     .head_dim = DIM,
                                                     .hidden = 576,
                                                     .ffn = 1536,
                                                     .vocab = 100,
                                                     .max_tokens = 64},
                                           .order = KV_ORDER_GGML};

static const uint32_t ids[] = {5, 6, 7, 8, 9, 10};
static const uint8_t kinds[] = {KV_FIRST, KV_WORD_REST, KV_DIGIT, KV_SPACE, KV_SPACE, KV_SPACE};
static const uint32_t choice_first[] = {2, 3, 6}, text_first[] = {3}, scored[] = {1, 3, 4},
                      text_scored[] = {0, 1}, lengths[] = {4, 4};
static const float log_probs[6];
static const double scores[2];
static float features[6 * KV_N_FEATURES]; // feature f of token t is t * KV_N_FEATURES + f

// A context of two tokens with choices of one and three; and a text of three tokens.
enum { QUESTION, TEXT };
static const struct kv_trace_item items[] = {[QUESTION] = {.id = "q",
                                                           .source = "",
                                                           .key = 78,
                                                           .gold = 0,
                                                           .n_tokens = 6,
                                                           .n_context = 2,
                                                           .n_choices = 2,
                                                           .first = choice_first,
                                                           .n_final = 3,
                                                           .final_rows = scored,
                                                           .chars = lengths,
                                                           .bytes = lengths,
                                                           .ids = ids,
                                                           .kinds = kinds,
                                                           .features = features,
                                                           .next_logprob = log_probs,
                                                           .score = scores},
                                             [TEXT] = {.id = "t",
                                                       .source = "",
                                                       .key = 77,
                                                       .gold = -1,
                                                       .n_tokens = 3,
                                                       .n_context = 3,
                                                       .first = text_first,
                                                       .n_final = 2,
                                                       .final_rows = text_scored,
                                                       .ids = ids,
                                                       .kinds = kinds,
                                                       .features = features,
                                                       .next_logprob = log_probs,
                                                       .score = scores}};

static struct kv_trace *trace;
static char *dir;

static int set_up(void **state) {
    struct kv_trace_writer *w;
    struct kv_error e = {0};
    struct kv_trace_info info = {.shape = setting.shape,
                                 .order = setting.order,
                                 .model_name = "",
                                 .model_digest = "",
                                 .model_source = "",
                                 .weights_as = "f32",
                                 .task_name = "",
                                 .task_path = "",
                                 .task_prompt = "",
                                 .task_digest = "",
                                 .subset = "",
                                 .tokenizer_digest = "",
                                 .rope_base = 1e4f,
                                 .n_items = 2,
                                 .n_tokens = 9,
                                 .tool_version = "",
                                 .blas = ""};
    const char *build = getenv("BUILD");
    (void)state;
    dir = kv_format_text("%s/ledger-XXXXXX", build ? build : "build");
    if (!mkdtemp(dir)) return 1;
    for (int i = 0; i < 6 * KV_N_FEATURES; i++) features[i] = (float)i;
    int rc = kv_trace_writer_open(&w, dir, &info, "", items, 2, &e);
    for (size_t i = 0; i < 2 && rc == 0; i++) rc = kv_trace_writer_put(w, i, &items[i], 0, &e);
    if (rc == 0) rc = kv_trace_writer_close(w, true, &e);
    if (rc == 0) rc = kv_trace_open(&trace, dir, &e);
    if (rc) printf("# %s: %s\n", e.where, e.msg);
    return rc;
}

static int tear_down(void **state) {
    static const char *const files[] = {"manifest.json", "shard-00000.safetensors"};
    (void)state;
    kv_trace_close(trace);
    for (size_t i = 0; i < 2; i++) {
        char *path = kv_format_text("%s/%s", dir, files[i]);
        unlink(path);
        free(path);
    }
    rmdir(dir);
    free(dir);
    return 0;
}

static uint8_t cells[6 * CELLS];

static int decide(const struct kv_replay_spec *spec, size_t item, struct kv_error *e) {
    const struct kv_replay r = {.trace = trace, .specs = spec, .n_specs = 1, .n_items = 2};
    return kv_decide(&r, 0, item, cells, e);
}

static struct kv_ledger ledger_of(const char *spec_text, size_t item) {
    struct kv_replay_spec spec;
    struct kv_ledger ledger;
    struct kv_error e = {0};
    memset(cells, 0xEE, sizeof cells);
    if (kv_replay_spec_open(&spec, spec_text, &setting, 1, &e) || decide(&spec, item, &e))
        fail_msg("%s: %s", spec_text, e.msg);
    kv_ledger_count(&spec, kv_trace_item(trace, item), cells, &ledger);
    kv_replay_spec_close(&spec);
    return ledger;
}

static void assert_near(double a, double b, double tolerance) {
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.15g is not %.15g", a, b);
}

static void assert_bits(const struct kv_ledger *l, double nominal, double effective,
                        double allocated) {
    assert_near(l->nominal_bits, nominal, 1e-12);
    assert_near(l->effective_bits, effective, 1e-12);
    assert_near(l->allocated_bits, allocated, 1e-12);
    assert_near(l->bytes_per_token, allocated * VALUES / 8, 1e-7);
}

static void test_static(void **state) {
    (void)state;
    struct kv_ledger l = ledger_of("static:bits=4@sym", TEXT);
    assert_bits(&l, 4, 4 + 16.0 / 64, 4 + 16.0 / 64);
    assert_near(l.share[KV_KEY][4], 1, 0);
    assert_near(l.share[KV_VALUE][4], 1, 0);
    l = ledger_of("static:bits=4@asym:group=32", TEXT);
    assert_bits(&l, 4, 4 + 32.0 / 32, 4 + 32.0 / 32);
    l = ledger_of("static:k=8,v=4@sym", TEXT);
    assert_bits(&l, 6, 6.25, 6.25);
    assert_near(l.share[KV_KEY][8], 1, 0);
    assert_near(l.share[KV_VALUE][4], 1, 0);
    l = ledger_of("static@q8_0", TEXT); // 32 codes and an fp16 scale: 34 bytes
    assert_bits(&l, 8, 8.5, 8.5);
    l = ledger_of("static@q4_0", TEXT); // 18 bytes
    assert_bits(&l, 4, 4.5, 4.5);
    l = ledger_of("static:bits=16", TEXT);
    assert_bits(&l, 16, 16, 16);
    l = ledger_of("none", TEXT);
    assert_bits(&l, 32, 32, 32);
}

static void test_windows(void **state) {
    (void)state;
    // One of three tokens exact: (16 + 2 x 4.25) / 3.
    struct kv_ledger l = ledger_of("static:bits=4@sym:sinks=1", TEXT);
    assert_bits(&l, (16 + 2 * 4) / 3.0, (16 + 2 * 4.25) / 3, (16 + 2 * 4.25) / 3);
    assert_near(l.share[KV_KEY][16], 1.0 / 3, 1e-12);
    l = ledger_of("static:bits=4@sym:window=1", TEXT);
    assert_bits(&l, (16 + 2 * 4) / 3.0, (16 + 2 * 4.25) / 3, (16 + 2 * 4.25) / 3);
    l = ledger_of("static:bits=4@sym:sinks=1,window=1", TEXT);
    assert_bits(&l, (2 * 16 + 4) / 3.0, (2 * 16 + 4.25) / 3, (2 * 16 + 4.25) / 3);
    // Sequences of 3 and 5 tokens, the newest exact, averaged.
    l = ledger_of("static:bits=4@sym:window=1", QUESTION);
    double a = (16 + 2 * 4.25) / 3, b = (16 + 4 * 4.25) / 5;
    assert_near(l.allocated_bits, (a + b) / 2, 1e-12);
    // A window of two reaches from the choice of one token back into the context.
    l = ledger_of("static:bits=4@sym:window=2", QUESTION);
    assert_near(l.allocated_bits, ((2 * 16 + 4.25) / 3 + (2 * 16 + 3 * 4.25) / 5) / 2, 1e-12);
    l = ledger_of("static:bits=4@sym:sinks=60", QUESTION);
    assert_bits(&l, 16, 16, 16);
}

// The widths that were drawn and their tags, from the decisions left in `cells`.
// A layer whose queries see two tokens holds two of three, and of five; a window of sinks holds no
// token that the layer's own window has passed.
static void test_windows_of_layers(void **state) {
    (void)state;
    static const uint32_t windows[LAYERS] = {[7] = 2};
    const struct kv_format_setting usual = setting;
    const double row = 2 * HEADS * (DIM * 4 + 16) / 8.0, exact = 2 * HEADS * DIM * 2;
    setting.windows = windows;
    struct kv_ledger l = ledger_of("static:bits=4@sym", TEXT);
    assert_near(l.allocated_bits, 4.25, 1e-12); // of a value that is held
    assert_near(l.bytes_per_token, (29 * 3 + 2) * row / 3, 1e-9);
    assert_near(l.share[KV_KEY][4], 1, 1e-12);
    l = ledger_of("static:bits=4@sym", QUESTION);
    assert_near(l.bytes_per_token, ((29 * 3 + 2) * row / 3 + (29 * 5 + 2) * row / 5) / 2, 1e-9);
    l = ledger_of("static:bits=4@sym:sinks=1", TEXT);
    assert_near(l.bytes_per_token, (29 * (exact + 2 * row) + 2 * row) / 3, 1e-9);
    setting = usual;
}

static void check_random(const char *spec, double tag_bits_per_token) {
    static const double width[] = {2, 3, 4, 5, 6, 8, 16}; // sym's table
    struct kv_ledger l = ledger_of(spec, TEXT);
    double code = 0, meta = 0;
    for (size_t i = 0; i < 3 * CELLS; i++) {
        code += width[cells[i]] * DIM;
        meta += cells[i] < 6 ? 16 : 0;
    }
    double tag_bytes = ceil(3 * tag_bits_per_token / 8), n = 3.0 * VALUES;
    assert_bits(&l, code / n, (code + meta) / n, (code + meta + 8 * tag_bytes) / n);
}

static void test_tags(void **state) {
    (void)state;
    check_random("random:bits=2/4/8/16", 2); // 6 bits in all: one byte
    check_random("random:bits=2/4/8/16,by=layer", 2 * LAYERS);
    check_random("random:bits=2/4/8/16,by=cell", 2 * CELLS);
    check_random("random:bits=2/4/8", 2);
    check_random("random:bits=4/8", 1);
    check_random("random:bits=4", 0); // nothing to tell apart
}

// ---- what a policy sees and may answer
// -----------------------------------------------------------

static size_t n_shown; // rows in the first question; the audit asks further ones

static int look(void *self, const struct kv_item *item, size_t first, size_t n, uint8_t *out,
                struct kv_error *e) {
    struct kv_token *seen = self;
    (void)e;
    if (n_shown < item->n_tokens) memcpy(seen + first, item->tokens + first, n * sizeof *seen);
    n_shown += n;
    assert_int_equal(item->key, items[QUESTION].key);
    assert_null(item->damage);
    memset(out, 0, n * CELLS);
    return 0;
}

static void test_features_are_hidden(void **state) {
    (void)state;
    struct kv_token seen[6];
    const struct kv_policy nosy = {
        .name = "nosy", .needs = KV_NEED(KV_ENTROPY_NATS), .decide = look};
    struct kv_replay_spec spec;
    struct kv_error e = {0};
    assert_int_equal(kv_replay_spec_open(&spec, "none", &setting, 1, &e), 0);
    spec.policy = &nosy;
    spec.needs = nosy.needs;
    spec.self = seen;
    n_shown = 0;
    assert_int_equal(decide(&spec, QUESTION, &e), 0);
    static const uint32_t segment[] = {0, 0, 1, 2, 2, 2}, pos[] = {0, 1, 2, 2, 3, 4};
    for (uint32_t t = 0; t < 6; t++) {
        assert_int_equal(seen[t].segment, segment[t]);
        assert_int_equal(seen[t].pos, pos[t]);
        assert_int_equal(seen[t].id, ids[t]);
        assert_int_equal(seen[t].kind, 0); // not declared
        for (int f = 0; f < KV_N_FEATURES; f++)
            if (f == KV_ENTROPY_NATS)
                assert_near(seen[t].feature[f], t * KV_N_FEATURES + f, 0);
            else
                assert_true(isnan(seen[t].feature[f]));
    }
    spec.needs = KV_NEED_CLASS;
    n_shown = 0;
    assert_int_equal(decide(&spec, QUESTION, &e), 0);
    for (uint32_t t = 0; t < 6; t++) assert_int_equal(seen[t].kind, kinds[t]);
    spec.policy = NULL;
    kv_replay_spec_close(&spec);
}

static int answer_badly(void *self, const struct kv_item *item, uint8_t *out, struct kv_error *e) {
    (void)e;
    memset(out, 0, item->n_tokens * CELLS);
    out[CELLS + 2] = *(const uint8_t *)self; // token 1, layer 0, head 1, key
    return 0;
}

static void test_answers_are_checked(void **state) {
    (void)state;
    uint8_t bad;
    const struct kv_policy policy = {.name = "none", .plan = answer_badly};
    struct kv_replay_spec spec;
    struct kv_error e = {0};
    assert_int_equal(kv_replay_spec_open(&spec, "none", &setting, 1, &e), 0);
    spec.policy = &policy;
    spec.self = &bad;
    spec.varies = KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_HEAD | KV_VARIES_KV;
    bad = KV_EVICT;
    assert_int_equal(decide(&spec, TEXT, &e), KV_EFAIL);
    assert_string_equal(e.msg, "policy none evicts a key or a value without the other, at item t, "
                               "token 1");
    bad = 7; // sym offers seven widths: 0 to 6
    assert_int_equal(decide(&spec, TEXT, &e), KV_EFAIL);
    assert_string_equal(e.msg, "policy none answers with a width that the format does not offer, "
                               "at item t, token 1");
    bad = 6;
    assert_int_equal(decide(&spec, TEXT, &e), 0);
    spec.policy = NULL;
    kv_replay_spec_close(&spec);
}

// ---- specs
// ---------------------------------------------------------------------------------------

static void assert_canonical(const char *spec, const char *want) {
    char *text_form;
    struct kv_error e = {0};
    if (kv_spec_canonical(spec, &setting, &text_form, &e)) fail_msg("%s: %s", spec, e.msg);
    assert_string_equal(text_form, want);
    free(text_form);
}

// A store knows a spec's text alone: what it says of the cache is what the opened policy says.
static void test_the_text_of_a_spec_tells_how_its_cache_lies(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        bool by_cell, by_place;
    } cases[] = {
        {"static:bits=4@sym", false, true},
        {"layerwise:k=4/2@sym", false, true},
        {"oracle:bits=4@sym", true, false},
        {"oracle:bits=4,grain=token@sym", false, false},
        {"oracle:bits=4,grain=token-layer@sym", false, false},
        {"qaq@sym", true, false},
        {"qaq:level=layer@sym", false, false},
        {"h2o@sym", true, false},
        {"h2o:by=token@sym", false, false},
        {"random:bits=2/8@sym", false, false},
        {"shuffle(oracle:bits=4):within=cell@sym", true, false},
        {"shuffle(static:bits=4)@sym", false, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_replay_spec s;
        struct kv_spec_parts parts;
        struct kv_error e = {0};
        struct kv_ledger by_text = {0}, counted;
        uint8_t widths[3 * CELLS] = {0};
        kv_spec_take_apart(&parts, cases[i].spec);
        kv_ledger_name_grain(&by_text, &parts);
        if (kv_replay_spec_open(&s, cases[i].spec, &setting, 1, &e))
            fail_msg("%s: %s: %s", cases[i].spec, e.where, e.msg);
        kv_ledger_count(&s, &items[TEXT], widths, &counted);
        if (by_text.by_cell != cases[i].by_cell || counted.by_cell != cases[i].by_cell)
            fail_msg("%s: by cell: by its text %d, opened %d", cases[i].spec, by_text.by_cell,
                     counted.by_cell);
        if (by_text.by_place != cases[i].by_place || counted.by_place != cases[i].by_place)
            fail_msg("%s: by place: by its text %d, opened %d", cases[i].spec, by_text.by_place,
                     counted.by_place);
        assert_false(by_text.controlled || counted.controlled);
        kv_replay_spec_close(&s);
        kv_spec_parts_fini(&parts);
    }
    struct kv_spec_parts parts;
    struct kv_ledger l = {0};
    kv_spec_take_apart(&parts, "cells:bits=5@asym:group=32");
    kv_ledger_name_grain(&l, &parts);
    assert_true(l.by_cell && l.controlled);
    kv_spec_parts_fini(&parts);
    kv_spec_take_apart(&parts, "cells:bits=5,grain=layer@asym:group=32");
    kv_ledger_name_grain(&l, &parts);
    assert_false(l.by_cell || l.controlled);
    kv_spec_parts_fini(&parts);
}

static void assert_refused(const char *spec, int code, const char *where, const char *msg) {
    struct kv_replay_spec s;
    struct kv_error e = {0};
    assert_int_equal(kv_replay_spec_open(&s, spec, &setting, 1, &e), code);
    assert_string_equal(e.where, where);
    assert_string_equal(e.msg, msg);
    kv_replay_spec_close(&s);
}

static void test_specs(void **state) {
    (void)state;
    static const char sym4[] =
        "static:k=4,v=4@sym:group=head,levels=full,order=ggml,scale=fp16,sinks=0,window=0";
    assert_canonical("static", sym4);
    assert_canonical("static:v=4,k=4@sym", sym4);
    assert_canonical("static:bits=04@sym:window=0,order=ggml", sym4);
    assert_canonical("none", "none");
    assert_refused("statik:bits=4", KV_EUSAGE, "spec",
                   "no policy is named 'statik'; did you mean 'static'?");
    assert_refused("static:bit=4", KV_EUSAGE, "policy static",
                   "unknown key 'bit'; did you mean 'bits'?");
    assert_refused("static@simm", KV_EUSAGE, "format",
                   "no format is named 'simm'; did you mean 'sym'?");
    assert_refused("static:bits=7@sym", KV_ENOTOFFERED, "spec",
                   "format sym does not offer 7 bits; it offers 2/3/4/5/6/8/16");
    assert_refused("none@sym", KV_EUSAGE, "none@sym",
                   "policy none stores float32 and takes no format");
}

// ---- scorers
// -------------------------------------------------------------------------------------

static void test_scorers(void **state) {
    (void)state;
    struct kv_choice_outcome c[] = {{.logprob = -10,
                                     .logprob_ref = -9,
                                     .chars = 10,
                                     .bytes = 10,
                                     .tokens = 4,
                                     .logprob_after_prefix = -9,
                                     .logprob_ref_after_prefix = -8,
                                     .tokens_after_prefix = 3},
                                    {.logprob = -12,
                                     .logprob_ref = -9,
                                     .chars = 20,
                                     .bytes = 10,
                                     .tokens = 4,
                                     .logprob_after_prefix = -6,
                                     .logprob_ref_after_prefix = -3,
                                     .tokens_after_prefix = 3},
                                    {.logprob = -13,
                                     .logprob_ref = -20,
                                     .chars = 10,
                                     .bytes = 40,
                                     .tokens = 10,
                                     .logprob_after_prefix = -9,
                                     .logprob_ref_after_prefix = -16,
                                     .tokens_after_prefix = 9}};
    struct kv_outcome o = {.n_choices = 3, .choice = c, .gold = 1};
    kv_outcome_score(&o);
    assert_int_equal(o.pick[KV_ACC], 0);
    assert_int_equal(o.pick[KV_ACC_NORM], 1);
    assert_int_equal(o.pick[KV_ACC_BYTES], 2);
    assert_int_equal(o.pick[KV_ACC_TOKEN], 2);
    assert_int_equal(o.pick_ref[KV_ACC], 0); // a tie: the first wins, as numpy's argmax
    assert_near(o.margin, -2, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"a static policy stores exactly its bits plus scales and minima", test_static, NULL, NULL,
         NULL},
        {"sinks and windows hold tokens at 16 bits, whichever choice they reach into", test_windows,
         NULL, NULL, NULL},
        {"a layer with a window holds its newest tokens and no more", test_windows_of_layers, NULL,
         NULL, NULL},
        {"widths that vary cost tags: log2 of the answers for each independent one", test_tags,
         NULL, NULL, NULL},
        {"a policy sees what it declared and NAN for the rest", test_features_are_hidden, NULL,
         NULL, NULL},
        {"an impossible answer is refused with item and token", test_answers_are_checked, NULL,
         NULL, NULL},
        {"equal specs have one canonical form, and wrong ones get one sentence", test_specs, NULL,
         NULL, NULL},
        {"the text of a spec tells how its cache lies",
         test_the_text_of_a_spec_tells_how_its_cache_lies, NULL, NULL, NULL},
        {"each scorer picks by its own rule", test_scorers, NULL, NULL, NULL},
    };
    return cmocka_run_group_tests_name("ledger and decisions", tests, set_up, tear_down);
}
