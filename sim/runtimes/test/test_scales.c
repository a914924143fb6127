// SPDX-License-Identifier: Apache-2.0
// Scales of an FP8 cache: against the recorded keys and values themselves.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>

#include "sim/base/half.h"
#include "sim/model/safetensors.h"
#include "sim/replay/test/tiny_trace.h"
#include "sim/runtimes/scales.h"

// A plan as vLLM (or another runtime) serves it; to be freed.
static struct kv_served served_as(const char *runtime, const char *spec,
                                  const struct kv_format_setting *setting) {
    const struct kv_runtime *r;
    struct kv_cache_plan plan;
    struct kv_served served;
    struct kv_error e;
    if (kv_runtime_find(&r, runtime, &e) || kv_cache_plan_of_spec(&plan, spec, setting, &e) ||
        kv_snap(&served, r, &plan, &e))
        fail_msg("%s: %s", e.where, e.msg);
    kv_cache_plan_fini(&plan);
    return served;
}

// The largest magnitude of a layer's side in the items [first, first + n).
static float most(const struct tiny_trace *t, uint32_t layer, int side, size_t first, size_t n) {
    float largest = 0;
    for (size_t i = first; i < first + n; i++) {
        const struct kv_trace_item *item = kv_trace_item(t->trace, i);
        for (size_t row = 0; row < item->n_tokens; row++)
            for (size_t c = 0; c < 64; c++) { // 2 KV heads of 32
                size_t at = (row * 2 + layer) * 64 + c;
                float x = kv_f16_to_f32(side == KV_KEY ? item->k[at] : item->v[at]);
                largest = fmaxf(largest, fabsf(x));
            }
    }
    return largest;
}

static void scales_are_the_largest_magnitude_of_a_layer_by_448(void **state) {
    const struct tiny_trace *t = *state;
    struct kv_cache_scales c;
    struct kv_error e;
    struct kv_served s = served_as("modelopt", "static:bits=8@fp8_e4m3", &t->setting);
    for (size_t n = 1; n <= 3; n += 2) {
        assert_int_equal(kv_cache_scales_of(&c, &s, t->trace, 1, n, &e), 0);
        assert_int_equal(c.n_layers, 2);
        for (uint32_t l = 0; l < 2; l++)
            for (int side = 0; side < 2; side++) {
                assert_true(c.of[2 * l + side] == most(t, l, side, 1, n) / 448.0f);
                assert_true(c.of[2 * l + side] > 0);
            }
        kv_cache_scales_fini(&c);
    }
    kv_served_fini(&s);
}

static void a_checkpoint_s_tensors_are_float32_scalars_of_the_coded_layers(void **state) {
    const struct tiny_trace *t = *state;
    struct kv_served s = served_as("vllm", "layerwise:k=16/8,v=16/8@fp8_e4m3", &t->setting);
    struct kv_cache_scales c;
    struct kv_safetensors file;
    struct kv_error e;
    char path[128];
    snprintf(path, sizeof path, "%s/scales.safetensors", t->dir);
    assert_int_equal(kv_cache_scales_of(&c, &s, t->trace, 0, 3, &e), 0);
    assert_int_equal(kv_cache_scales_write(&c, path, &e), 0);
    assert_int_equal(kv_safetensors_open(&file, path, &e), 0);
    assert_int_equal(file.n, 2); // layer 0 stays at 16 bit
    static const char *const names[] = {"model.layers.1.self_attn.k_proj.k_scale",
                                        "model.layers.1.self_attn.v_proj.v_scale"};
    for (int side = 0; side < 2; side++) {
        const struct kv_tensor *x = kv_safetensors_find(&file, names[side]);
        assert_non_null(x);
        assert_string_equal(x->dtype, "F32");
        assert_int_equal(x->n_dims, 0);
        float held;
        memcpy(&held, x->data, sizeof held);
        assert_true(held == most(t, 1, side, 0, 3) / 448.0f);
    }
    kv_safetensors_close(&file);
    unlink(path);
    char *words = kv_cache_scales_words(&c);
    assert_memory_equal(words, "keys 0.0", 8);
    free(words);
    kv_cache_scales_fini(&c);
    kv_served_fini(&s);
}

static void what_takes_no_scales_is_refused(void **state) {
    const struct tiny_trace *t = *state;
    static const struct {
        const char *runtime, *spec, *says;
    } rows[] = {{"vllm", "static:bits=4@hadamard(asym)", "int4_per_token_head"},
                {"vllm", "static:bits=16@fp16", "a 16-bit cache"},
                {"transformers", "static:bits=8@fp8_e4m3", "transformers takes none with fp8"}};
    struct kv_cache_scales c;
    struct kv_error e;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kv_served s = served_as(rows[i].runtime, rows[i].spec, &t->setting);
        assert_int_equal(kv_cache_scales_of(&c, &s, t->trace, 0, 1, &e), KV_EUSAGE);
        if (!strstr(e.msg, rows[i].says)) fail_msg("%s", e.msg);
        kv_served_fini(&s);
    }
    struct tiny_trace bare;
    if (tiny_trace_open(&bare, KV_KEEP_FINAL, 1, NULL)) fail();
    struct kv_served s = served_as("vllm", "static:bits=8@fp8_e4m3", &bare.setting);
    assert_int_equal(kv_cache_scales_of(&c, &s, bare.trace, 0, 1, &e), KV_EUSAGE);
    assert_non_null(strstr(e.msg, "--keep final,kv"));
    kv_served_fini(&s);
    tiny_trace_close(&bare);
}

static int record(void **state) {
    static struct tiny_trace t;
    *state = &t;
    return tiny_trace_open(&t, KV_KEEP_FINAL | KV_KEEP_KV, 4, NULL);
}

static int drop(void **state) {
    tiny_trace_close(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scales_are_the_largest_magnitude_of_a_layer_by_448),
        cmocka_unit_test(a_checkpoint_s_tensors_are_float32_scalars_of_the_coded_layers),
        cmocka_unit_test(what_takes_no_scales_is_refused),
    };
    return cmocka_run_group_tests_name("scales", tests, record, drop);
}
