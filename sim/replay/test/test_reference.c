// SPDX-License-Identifier: Apache-2.0
// Exact replay judged by figures of independent programs: equal in float32, equal in distribution
// when coded.
#include "sim/replay/test/agreement.h"

static const struct rule of_samples[] = {{"float32", "none", 0, 0},
                                         {"sym8", "static:bits=8@sym", 0.5, 3},
                                         {"sym4", "static:bits=4@sym", 0.85, 3},
                                         {"asym4_g32", "static:bits=4@asym:group=32", 0.45, 6}};
static const struct rule of_hellaswag[] = {{"float32", "none", 0, 0},
                                           {"sym8", "static:bits=8@sym", 0.5, 3}, // 44 of 47 picks
                                           {"sym4", "static:bits=4@sym", 0.85, 3},
                                           {"asym4_g32", "static:bits=4@asym:group=32", 0.45, 3}};
enum { N_RULES = sizeof of_samples / sizeof *of_samples };

// ---- the two sets of figures ----------------------------------------------------------

struct fixture {
    struct kv_model *model;
    json_t *samples, *hellaswag;
    char *hellaswag_tasks; // NULL where the files are not there
};

static void compare(const struct fixture *f, const char *tasks, const json_t *root,
                    const struct rule *rules, double spread) {
    json_t *items = in_file_order(json_object_get(root, "items"), light_testing() ? 8 : 1);
    struct recording r;
    record_listed(&r, f->model, tasks, items);
    same_tokens(r.trace, items);
    struct outcomes all = replay_rules(&r, f->model, rules, N_RULES);
    struct pairs p = {rules, N_RULES, json_array_size(items), items, &all};
    same_float32(&p, 5e-4);
    for (size_t i = 1; i < N_RULES && !light_testing(); i++) same_distribution(&p, i, spread);
    free_outcomes(&all);
    remove_recording(&r);
    json_decref(items);
}

static void samples_agree_with_an_independent_numpy_program(void **state) {
    const struct fixture *f = *state;
    assert_non_null(f->samples);
    compare(f, "samples", f->samples, of_samples, 0.25);
}

static void hellaswag_agrees_with_an_independent_jax_program(void **state) {
    const struct fixture *f = *state;
    if (!f->hellaswag) skip();
    compare(f, f->hellaswag_tasks, f->hellaswag, of_hellaswag, 0.20);
}

static int set_up(void **state) {
    static struct fixture f;
    const char *data = getenv("KVSIM_DATA");
    *state = &f;
    f.model = open_test_model();
    f.samples = load_json("sim/test/reference/samples.json");
    if (data && *data) {
        char *path = kv_format_text("%s/../reference/hellaswag47.json", data);
        char *benchmark = kv_format_text("%s/hellaswag_val.jsonl.gz", data);
        if (access(benchmark, R_OK) == 0) f.hellaswag = load_json(path);
        f.hellaswag_tasks = kv_format_text("hellaswag:%s,prompt=text", benchmark);
        free(benchmark);
        free(path);
    }
    if (!f.hellaswag) print_message("# no reference figures of HellaSwag beside KVSIM_DATA\n");
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    kv_model_close(f->model);
    json_decref(f->samples);
    json_decref(f->hellaswag);
    free(f->hellaswag_tasks);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_agree_with_an_independent_numpy_program),
        cmocka_unit_test(hellaswag_agrees_with_an_independent_jax_program),
    };
    return cmocka_run_group_tests_name("exact replay against independent programs", tests, set_up,
                                       tear_down);
}
