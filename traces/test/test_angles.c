// SPDX-License-Identifier: Apache-2.0
// RoPE's angles of a recording: from a model into a manifest and back.
#include "traces/angles.h"
#include "sim/model/model.h"

#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

enum { LAYERS = 3, DIM = 8, HALF = DIM / 2 };

static const struct kv_shape shape = {LAYERS, 2, 1, DIM, 16, 24, 32, 64};

static struct kv_trace_info info_of(const struct kv_model *m) {
    return (struct kv_trace_info){
        .shape = shape, .rope_base = m->rope[0].base, .rope = kv_angles_of_model(m)};
}

static void test_plain(void **state) {
    (void)state;
    struct kv_model *m = kv_model_random(&shape, KV_ORDER_HF, true, 1);
    struct kv_trace_info in = info_of(m), back = {.shape = shape, .rope_base = in.rope_base};
    struct kv_error e;
    assert_null(kv_angles_json(&in)); // rope_base says it all: manifests stay as they were
    assert_int_equal(kv_angles_read(NULL, &back, "t", &e), 0);
    for (size_t i = 0; i < LAYERS * HALF; i++)
        assert_true(fabs(back.rope[i] - in.rope[i]) <= 1e-12 * in.rope[i]);
    assert_ptr_equal(kv_trace_setting(&back).rope, back.rope);
    free(in.rope);
    free(back.rope);
    kv_model_close(m);
}

// Layer 1 with a RoPE of its own, as Gemma has them.
static void test_two(void **state) {
    (void)state;
    static const struct {
        const char *path, *text;
    } lies[] = {{"layers", "[0, 2, 0]"},
                {"layers", "[0, 1]"},
                {"layers", "[0, -1, 0]"},
                {"angles", "[[1, 2, 3], [1, 2, 3, 4]]"},
                {"angles", "[[1, 2, 3, null], [1, 2, 3, 4]]"}};
    struct kv_model *m = kv_model_random(&shape, KV_ORDER_HF, true, 1);
    struct kv_error e;
    m->n_ropes = 2;
    m->rope[1] = (struct kv_rope){.base = 1e6f, .attention_factor = 1};
    m->layers[1].rope = 1;
    struct kv_trace_info in = info_of(m), back = {.shape = shape, .rope_base = in.rope_base};
    json_t *j = kv_angles_json(&in);
    assert_int_equal(json_array_size(json_object_get(j, "angles")), 2);
    assert_int_equal(kv_angles_read(j, &back, "t", &e), 0);
    assert_memory_equal(back.rope, in.rope, LAYERS * HALF * sizeof *in.rope);
    assert_true(back.rope[HALF + 1] < back.rope[1]);
    free(back.rope);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        json_t *lie = json_copy(j);
        json_object_set_new(lie, lies[i].path, json_loads(lies[i].text, 0, NULL));
        assert_int_equal(kv_angles_read(lie, &back, "t", &e), KV_EFAIL);
        assert_non_null(strstr(e.msg, "names no row of 4 finite angles for layer"));
        free(back.rope);
        json_decref(lie);
    }
    json_decref(j);
    free(in.rope);
    m->rope[1] = (struct kv_rope){0};
    m->n_ropes = 1;
    kv_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"a RoPE that rope_base describes adds nothing to a manifest", test_plain, 0, 0, 0},
        {"layers that turn otherwise keep their angles, and lies about them are refused", test_two,
         0, 0, 0},
    };
    return cmocka_run_group_tests_name("angles", tests, NULL, NULL);
}
