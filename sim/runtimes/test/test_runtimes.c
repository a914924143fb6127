// SPDX-License-Identifier: Apache-2.0
// Plans out to runtimes and in again: what each serves, what is snapped, what is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "sim/runtimes/layer_runs.h"
#include "sim/runtimes/runtimes.h"

static struct kv_format_setting setting_of(uint32_t layers, uint32_t heads, uint32_t head_dim) {
    return (struct kv_format_setting){.shape = {.n_layers = layers,
                                                .n_heads = heads,
                                                .n_kv_heads = heads,
                                                .head_dim = head_dim,
                                                .hidden = heads * head_dim}};
}

static const struct kv_runtime *named(const char *name) {
    const struct kv_runtime *r;
    struct kv_error e;
    if (kv_runtime_find(&r, name, &e)) fail_msg("%s: %s", e.where, e.msg);
    return r;
}

// A spec as a runtime's file; NULL: it is refused. *served: the spec that replays the file.
static char *exported(const struct kv_runtime *r, const char *spec,
                      const struct kv_format_setting *s, char **served, struct kv_error *e) {
    struct kv_cache_plan plan;
    struct kv_served snapped;
    struct kv_text t = {0};
    int rc = kv_cache_plan_of_spec(&plan, spec, s, e);
    if (rc) fail_msg("%s: %s: %s", spec, e->where, e->msg);
    rc = kv_snap(&snapped, r, &plan, e);
    if (rc == 0) rc = r->write(&snapped, &t, e);
    if (rc == 0) rc = kv_served_spec(&snapped, s, served, e);
    kv_served_fini(&snapped);
    kv_cache_plan_fini(&plan);
    char *text = kv_text_take(&t);
    if (rc == 0) return text;
    free(text);
    return NULL;
}

static char *imported(const struct kv_runtime *r, const char *text,
                      const struct kv_format_setting *s, struct kv_error *e) {
    static const struct kv_shape unknown;
    struct kv_served read;
    char *spec;
    if (kv_runtime_read(&read, r, text, "file", s ? &s->shape : &unknown, e)) return NULL;
    int rc = kv_served_spec(&read, s, &spec, e);
    kv_served_fini(&read);
    return rc ? NULL : spec;
}

// ---- out, in, out -----------------------------------------------------------------------

static const char *const plans[] = {"static:bits=4@q4_0",
                                    "static:bits=4@hadamard(q4_0)",
                                    "static:k=8,v=4@ggml",
                                    "static:k=8,v=5@hadamard(ggml:types=1)",
                                    "static:k=5,v=4@ggml:types=nl",
                                    "static:k=16,v=4@ggml",
                                    "static:bits=8@ggml:types=1",
                                    "static:bits=4@hadamard(ggml):sides=k",
                                    "layerwise:k=8/4/5,v=4/5@hadamard(ggml):sides=v",
                                    "layerwise:k=8/5/4,v=4/3@asym",
                                    "layerwise:by=head,k=8/4/2,v=2/4/4/8@asym-zp",
                                    "layerwise:k=8/16,v=8/16@fp8_e4m3",
                                    "layerwise:k=16/16/4/4/4/4/16/16@turbo",
                                    "static:bits=3@turbo",
                                    "static:bits=8@fp8_e5m2",
                                    "static:bits=2@kivi:group=16,residual=128",
                                    "static:bits=3@hqq:group=32,window=64",
                                    "static:k=8,v=4@asym:scale=fp32,group=16",
                                    "static:bits=6@asym:group=32",
                                    "static:bits=2@sym:group=16,sinks=4",
                                    "static:bits=7@qaq",
                                    "static:bits=16@bf16",
                                    "none"};
static const struct {
    uint32_t layers, heads, head_dim;
} shapes[] = {{30, 3, 64}, {8, 2, 128}, {6, 1, 32}, {5, 4, 96}, {1, 1, 64}};

static void what_was_exported_comes_back_the_same(void **state) {
    (void)state;
    struct kv_error e;
    size_t n = 0, refused = 0;
    const struct kv_runtime *r;
    for (size_t i = 0; (r = kv_runtime_at(i)); i++)
        for (size_t p = 0; p < sizeof plans / sizeof *plans; p++)
            for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
                struct kv_format_setting s =
                    setting_of(shapes[k].layers, shapes[k].heads, shapes[k].head_dim);
                char *served, *again_served;
                if (strstr(plans[p], "turbo") && s.shape.head_dim == 96) continue; // no such format
                char *first = exported(r, plans[p], &s, &served, &e);
                if (!first) {
                    refused++;
                    assert_string_equal(r->name, "kvtuner");
                    assert_non_null(strstr(e.msg, "codes nothing"));
                    continue;
                }
                char *back = imported(r, first, &s, &e);
                if (!back) fail_msg("%s: %s: %s: %s", r->name, first, e.where, e.msg);
                char *second = exported(r, back, &s, &again_served, &e);
                if (!second || strcmp(first, second) != 0)
                    fail_msg("%s, %s (%s): %s is not %s", r->name, plans[p], back,
                             second ? second : e.msg, first);
                // What stands in the file is what is replayed.
                assert_string_equal(served, again_served);
                free(first);
                free(second);
                free(back);
                free(served);
                free(again_served);
                n++;
            }
    assert_true(n > 800);
    assert_int_equal(refused, 11); // KVTuner, of 16 bit throughout: two plans, and one of a layer
}

// Whether the nearest plan is the plan itself: by hand, of the head of 64.
static void each_runtime_serves_what_it_has_and_no_more(void **state) {
    (void)state;
    static const struct {
        const char *runtime, *spec;
        bool serves;
    } expected[] = {{"llama.cpp", "static:bits=4@hadamard(q4_0)", true},
                    {"llama.cpp", "static:bits=4@q4_0", true},
                    {"llama.cpp", "static:bits=5@ggml:types=1", true},
                    {"llama.cpp", "static:bits=4@hadamard(q4_0):sides=k", false},
                    {"llama.cpp", "static:bits=4@q4_0:sinks=4", false},
                    {"llama.cpp", "layerwise:k=8/4@ggml", false},
                    {"llama.cpp", "layerwise:k=4@ggml", true},
                    {"llama.cpp", "static:bits=4@sym", false},
                    {"llama.cpp", "threshold:quantiles=0.5,bits=4/8@ggml", false},
                    {"ik_llama.cpp", "static:bits=4@hadamard(q4_0):sides=k", true},
                    {"ik_llama.cpp", "layerwise:k=8/8/4/4/4/4/5/5,v=4@ggml", true},
                    {"ik_llama.cpp", "layerwise:k=8/4/8/4/4/4/5/5,v=4@ggml", false},
                    {"vllm", "static:bits=8@fp8_e4m3", true},
                    {"vllm", "layerwise:k=8/16/8/8/8/8/8/16@fp8_e4m3", true},
                    {"vllm", "static:k=8,v=16@fp8_e4m3", false},
                    {"vllm", "static:bits=4@hadamard(asym)", true},
                    {"vllm", "static:bits=4@turbo", false},
                    {"vllm", "layerwise:k=16/16/4/4/4/4/16/16@turbo", true},
                    {"modelopt", "layerwise:k=8/16/8/8/8/8/8/16@fp8_e4m3", true},
                    {"modelopt", "static:bits=8@fp8_e5m2", false},
                    {"transformers", "static:bits=3@hqq:group=32,window=128", true},
                    {"transformers", "static:bits=5@hqq", false},
                    {"transformers", "static:bits=2@kivi:residual=128", true},
                    {"transformers", "static:bits=4@asym:group=64", true},
                    {"kvtuner", "layerwise:k=8/4/2,v=2@asym-zp", true},
                    {"kvtuner", "layerwise:k=6,v=2@asym-zp", false},
                    {"openvino", "static:k=8,v=4@asym:scale=fp32", true},
                    {"openvino", "static:k=8,v=4@asym", false},
                    {"mlx-lm", "static:bits=6@asym:group=32", true},
                    {"mlx-lm", "static:k=6,v=4@asym:group=32", false},
                    {"mlx-lm", "static:bits=6@asym:group=16", false}};
    struct kv_format_setting s = setting_of(8, 2, 64);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        if (kv_runtime_serves(named(expected[i].runtime), expected[i].spec, &s) !=
            expected[i].serves)
            fail_msg("%s: %s", expected[i].runtime, expected[i].spec);
}

// Files and what stands for them, worked out by hand.
static void plans_are_snapped_as_the_rule_says(void **state) {
    (void)state;
    static const struct {
        const char *runtime, *spec, *file;
    } expected[] = {
        // mean of keys 5.67: the narrowest type of no fewer bits
        {"llama.cpp", "layerwise:k=8/5/4,v=4@sym",
         "llama-server -m MODEL.gguf -ctk q8_0 -ctv q4_0 -fa on\n"},
        {"llama.cpp", "static:bits=16@fp16",
         "llama-server -m MODEL.gguf -ctk f16 -ctv f16 -fa auto\n"},
        {"llama.cpp", "static:bits=3@asym",
         "llama-server -m MODEL.gguf -ctk q4_1 -ctv q4_1 -fa on\n"},
        {"ik_llama.cpp", "layerwise:k=8/8/4/4/4/4,v=4@ggml",
         "llama-server -m MODEL.gguf -fa on -ctk q4_0 -ctv q4_0 -ctk-first q8_0,2\n"},
        // layers above 8 bits stay at the model's own type
        {"vllm", "layerwise:k=8/16/8/8/4/4@sym",
         "vllm serve MODEL --kv-cache-dtype int8_per_token_head "
         "--kv-cache-dtype-skip-layers 1\n"},
        {"mlx-lm", "layerwise:k=8/4,v=4@asym",
         "mlx_lm.generate --model MODEL --kv-bits 5 --kv-group-size 64 --quantized-kv-start 0\n"},
        {"mlx-lm", "static:bits=4@asym:group=16",
         "mlx_lm.generate --model MODEL --kv-bits 4 --kv-group-size 32 --quantized-kv-start 0\n"},
        {"kvtuner", "layerwise:k=8/5/3,v=2@asym",
         "0: {nbits_key: 8, nbits_value: 2}\n1: {nbits_key: 8, nbits_value: 2}\n"
         "2: {nbits_key: 3, nbits_value: 2}\n3: {nbits_key: 8, nbits_value: 2}\n"
         "4: {nbits_key: 8, nbits_value: 2}\n5: {nbits_key: 3, nbits_value: 2}\n"}};
    struct kv_format_setting s = setting_of(6, 2, 64);
    struct kv_error e;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        char *served,
            *file = exported(named(expected[i].runtime), expected[i].spec, &s, &served, &e);
        assert_non_null(file);
        assert_string_equal(file, expected[i].file);
        free(file);
        free(served);
    }
}

// ---- runs of layers -----------------------------------------------------------------------

// Against trying all of a small model's plans of at most three runs, told apart by their text.
static void the_best_runs_are_the_best_of_all(void **state) {
    (void)state;
    enum { LAYERS = 6 };
    const unsigned width[] = {4, 5, 8};
    for (unsigned seed = 0; seed < 40; seed++) {
        double wanted[LAYERS], mean = 0, least = INFINITY, found = 0, bits = 0;
        for (size_t l = 0; l < LAYERS; l++) {
            wanted[l] = 2 + floor(kv_draw(seed, 7, l) * 7);
            mean += wanted[l] / LAYERS;
        }
        if (mean < 4) mean = 4;
        for (unsigned code = 0; code < 729; code++) { // three choices a layer
            double damage = 0, sum = 0;
            size_t changes = 0;
            for (unsigned l = 0, rest = code, before = 0; l < LAYERS; l++, rest /= 3) {
                unsigned w = width[rest % 3];
                changes += l && w != before;
                before = w;
                sum += w;
                damage += fmax(0, pow(4, -(double)w) - pow(4, -wanted[l]));
            }
            if (changes <= 2 && sum <= mean * LAYERS + 1e-9) least = fmin(least, damage);
        }
        struct kv_runs_of_layers r =
            kv_runs_best(wanted, LAYERS, 1u << 4 | 1u << 5 | 1u << 8, mean);
        for (size_t l = 0; l < LAYERS; l++) {
            unsigned w = kv_runs_at(&r, l, LAYERS);
            bits += w;
            found += fmax(0, pow(4, -(double)w) - pow(4, -wanted[l]));
        }
        assert_true(bits <= mean * LAYERS + 1e-9);
        assert_true(fabs(found - least) <= 1e-12);
    }
}

// ---- files of others ----------------------------------------------------------------------

static void files_as_others_write_them_are_read(void **state) {
    (void)state;
    static const struct {
        const char *file, *runtime, *spec;
    } expected[] = {
        {"version = 1\n[smollm2]\nmodel = SmolLM2-135M.gguf\ncache-type-k = q8_0\n"
         "cache-type-v = q4_0\nflash-attn = on\n",
         "llama.cpp", "static:k=8,v=4@hadamard(ggml)"},
        {"llama-cli -m 'a b.gguf' --cache-type-k q5_1 -ctv q4_1 -fa -p \"what?\"", "llama.cpp",
         "static:k=5,v=4@hadamard(ggml:types=1)"},
        {"LLAMA_ATTN_ROT_DISABLE=1 LLAMA_ARG_CACHE_TYPE_K=q8_0 ./llama-server \\\n  -m x.gguf",
         "llama.cpp", "static:k=8,v=16@ggml"},
        {"./llama-server -m M.gguf -fa on -ctk q4_0 -ctv q4_0 -ctk-first q8_0,2 -ctk-last q8_0,3 "
         "-khad",
         "ik_llama.cpp", "layerwise:k=8/8/4/4/4/8/8/8,v=4/4/4/4/4/4/4/4@hadamard(ggml):sides=k"},
        {"vllm serve m --kv-cache-dtype=fp8", "vllm", "static:k=8,v=8@fp8_e4m3"},
        {"vllm serve m --kv-cache-dtype int4_per_token_head --kv-cache-dtype-skip-layers 0 7 -tp 2",
         "vllm", "layerwise:k=16/4/4/4/4/4/4/16,v=16/4/4/4/4/4/4/16@hadamard(asym)"},
        {"{\"quantization_config\": {\"quant_method\": \"compressed-tensors\", "
         "\"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\", \"symmetric\": true, "
         "\"strategy\": \"tensor\"}}}",
         "vllm", "static:k=8,v=8@fp8_e4m3"},
        {"{\"quantization\": {\"quant_algo\": null, \"kv_cache_quant_algo\": \"FP8\"}}", "modelopt",
         "static:k=8,v=8@fp8_e4m3"},
        {"{\"temperature\": 0.7, \"cache_implementation\": \"quantized\", \"cache_config\": "
         "{\"backend\": \"HQQ\", \"nbits\": 3, \"axis_key\": 1, \"axis_value\": 1}}",
         "transformers", "static:k=3,v=3@hqq:group=head,window=128"},
        {"# of a search\n0:\n  nbits_key: 8\n  nbits_value: 4\n1: {nbits_value: 2, nbits_key: 4}\n"
         "2: {nbits_key: 4, nbits_value: 4}\n3: {nbits_key: 4, nbits_value: 4}\n"
         "4: {nbits_key: 4, nbits_value: 4}\n5: {nbits_key: 4, nbits_value: 4}\n"
         "6: {nbits_key: 4, nbits_value: 4}\n7: {nbits_key: 4, nbits_value: 4}",
         "kvtuner", "layerwise:k=8/4/4/4/4/4/4/4,v=4/2/4/4/4/4/4/4@asym-zp"},
        {"{\"KV_CACHE_PRECISION\": \"u8\", \"VALUE_CACHE_PRECISION\": \"u4\", "
         "\"KEY_CACHE_GROUP_SIZE\": 32, \"VALUE_CACHE_GROUP_SIZE\": \"32\"}",
         "openvino", "static:k=8,v=4@asym:group=32,scale=fp32"},
        {"python -m mlx_lm.generate --model m --kv-bits 8", "mlx-lm",
         "static:k=8,v=8@asym:group=head"}};
    struct kv_format_setting s = setting_of(8, 2, 64);
    struct kv_error e;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        struct kv_served read;
        char *spec;
        if (kv_runtime_read(&read, NULL, expected[i].file, "file", &s.shape, &e))
            fail_msg("%s: %s: %s", expected[i].file, e.where, e.msg);
        assert_string_equal(read.runtime->name, expected[i].runtime);
        assert_int_equal(kv_served_spec(&read, NULL, &spec, &e), 0);
        assert_string_equal(spec, expected[i].spec);
        free(spec);
        kv_served_fini(&read);
    }
}

// Every exported file, spoiled in one place, is refused.
static void a_spoiled_copy_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *runtime, *spec, *good, *spoiled;
    } spoils[] = {
        {"llama.cpp", "static:k=8,v=4@ggml", "q8_0", "q9_0"},
        {"llama.cpp", "static:k=8,v=4@ggml", "-fa on", "-fa off"},
        {"llama.cpp", "static:k=8,v=4@ggml", "q8_0", "bf16"},
        {"ik_llama.cpp", "layerwise:k=8/8/4/4/4/4/4/4,v=4@ggml", "q8_0,2", "q8_0,9"},
        {"ik_llama.cpp", "layerwise:k=8/8/4/4/4/4/4/4,v=4@ggml", "q8_0,2", "q8_0"},
        {"vllm", "layerwise:k=8/16/8/8/8/8/8/8@fp8_e4m3", "fp8_e4m3", "fp8_e4m4"},
        {"vllm", "layerwise:k=8/16/8/8/8/8/8/8@fp8_e4m3", "layers 1", "layers 8"},
        {"modelopt", "layerwise:k=8/16/8/8/8/8/8/8@fp8_e4m3", "\"FP8\"", "\"FP7\""},
        {"modelopt", "layerwise:k=8/16/8/8/8/8/8/8@fp8_e4m3", "\"FP8\"", "\"NVFP4\""},
        {"modelopt", "layerwise:k=8/16/8/8/8/8/8/8@fp8_e4m3", "layers.7.", "layers.8."},
        {"modelopt", "layerwise:k=8/16/8/8/8/8/8/8@fp8_e4m3", "version\": 1", "version\": 2"},
        {"transformers", "static:bits=3@hqq", "\"nbits\": 3", "\"nbits\": 77"},
        {"transformers", "static:bits=3@hqq", "\"hqq\"", "\"hgg\""},
        {"transformers", "static:bits=3@hqq", "quantized", "quantised"},
        {"transformers", "static:bits=3@hqq", "size\": 64", "size\": 48"},
        {"kvtuner", "layerwise:k=8/4,v=4@asym-zp", "1: {", "\"1\": {"},
        {"kvtuner", "layerwise:k=8/4,v=4@asym-zp", "7: {", "8: {"},
        {"kvtuner", "layerwise:k=8/4,v=4@asym-zp", "nbits_key: 8", "nbits_key: 7"},
        {"openvino", "static:k=8,v=4@asym:scale=fp32", "\"u8\"", "\"u7\""},
        {"openvino", "static:k=8,v=4@asym:scale=fp32", "\"0\"", "\"-1\""},
        {"mlx-lm", "static:bits=4@asym", "--kv-bits 4", "--kv-bits 7"},
        {"mlx-lm", "static:bits=4@asym", "size 64", "size 63"},
        {"mlx-lm", "static:bits=4@asym", "size 64", "size 128"}};
    struct kv_format_setting s = setting_of(8, 2, 64);
    struct kv_error e;
    for (size_t i = 0; i < sizeof spoils / sizeof *spoils; i++) {
        const struct kv_runtime *r = named(spoils[i].runtime);
        char *served, *file = exported(r, spoils[i].spec, &s, &served, &e);
        assert_non_null(file);
        char *at = strstr(file, spoils[i].good);
        if (!at) fail_msg("%s: no %s in %s", r->name, spoils[i].good, file);
        char *spoiled = kv_format_text("%.*s%s%s", (int)(at - file), file, spoils[i].spoiled,
                                       at + strlen(spoils[i].good));
        char *spec = imported(r, spoiled, &s, &e);
        if (spec) fail_msg("%s: %s is taken for %s", r->name, spoiled, spec);
        assert_true(strlen(e.msg) > 10);
        spec = imported(r, file, &s, &e);
        assert_non_null(spec);
        free(spec);
        free(file);
        free(spoiled);
        free(served);
    }
}

static void layers_without_their_number_are_refused(void **state) {
    (void)state;
    static const char *const files[] = {
        "llama-server -ctk q8_0 -ctv q8_0 -ctk-first q4_0,2",
        "vllm serve m --kv-cache-dtype fp8 --kv-cache-dtype-skip-layers 1",
        "{\"quantization\": {\"kv_cache_quant_algo\": \"MIXED_PRECISION\", "
        "\"kv_cache_quantized_layers\": {\"model.layers.0.self_attn\": {\"quant_algo\": "
        "\"FP8\"}}}}"};
    struct kv_error e;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        assert_null(imported(NULL, files[i], NULL, &e));
        assert_non_null(strstr(e.msg, "not how many the model has"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_exported_comes_back_the_same),
        cmocka_unit_test(each_runtime_serves_what_it_has_and_no_more),
        cmocka_unit_test(plans_are_snapped_as_the_rule_says),
        cmocka_unit_test(the_best_runs_are_the_best_of_all),
        cmocka_unit_test(files_as_others_write_them_are_read),
        cmocka_unit_test(a_spoiled_copy_is_refused),
        cmocka_unit_test(layers_without_their_number_are_refused),
    };
    return cmocka_run_group_tests_name("runtimes", tests, NULL, NULL);
}
