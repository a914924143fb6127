// SPDX-License-Identifier: Apache-2.0
// Exact replay judged by figures of independent programs: equal in float32, equal in distribution
// when coded.
#include <jansson.h>

#include "sim/replay/test/recording.h"

// What must agree, and why so much and no more: sim/test/reference/README.md.
static const struct rule {
    const char *name, *spec;
    double correlation; // of the shift against float32, centred over an item's choices
    size_t other_picks_of_24;
} rules[] = {{"float32", "none", 0, 0},
             {"sym8", "static:bits=8@sym", 0.5, 3},
             {"sym4", "static:bits=4@sym", 0.85, 3},
             {"asym4_g32", "static:bits=4@asym:group=32", 0.45, 6}};
enum { N_RULES = sizeof rules / sizeof *rules, MAX_CHOICES = 8 };

// Log-probs of an item's choices under a rule; theirs is a JSON list.
struct pairs {
    size_t n_items;
    const json_t *items;
    const struct outcomes *ours;
};

static double their_logprob(const struct pairs *p, size_t item, size_t rule, size_t choice) {
    const json_t *lists = json_object_get(json_array_get(p->items, item), "logprob");
    return json_number_value(json_array_get(json_object_get(lists, rules[rule].name), choice));
}

static double our_logprob(const struct pairs *p, size_t item, size_t rule, size_t choice) {
    return p->ours->at[item * N_RULES + rule].choice[choice].logprob;
}

static size_t count_choices(const struct pairs *p, size_t item) {
    return p->ours->at[item * N_RULES].n_choices;
}

static long long index_of(const json_t *item) {
    return json_integer_value(json_object_get(item, "ind"));
}

static void check_ids(const json_t *list, const uint32_t *ids, size_t n) {
    assert_int_equal(n, json_array_size(list));
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids[i], json_integer_value(json_array_get(list, i)));
}

static void same_tokens(const struct kv_trace *t, const json_t *items) {
    for (size_t i = 0; i < kv_trace_info(t)->n_items; i++) {
        const struct kv_trace_item *it = kv_trace_item(t, i);
        const json_t *one = json_array_get(items, i), *choices = json_object_get(one, "choice_ids");
        assert_int_equal(index_of(one), atol(it->id));
        assert_int_equal(json_integer_value(json_object_get(one, "gold")), it->gold);
        check_ids(json_object_get(one, "context_ids"), it->ids, it->n_context);
        assert_int_equal(it->n_choices, json_array_size(choices));
        for (uint32_t c = 0; c < it->n_choices; c++)
            check_ids(json_array_get(choices, c), it->ids + it->first[c],
                      it->first[c + 1] - it->first[c]);
    }
}

static void same_float32(const struct pairs *p) {
    for (size_t i = 0; i < p->n_items; i++)
        for (size_t c = 0; c < count_choices(p, i); c++) {
            double off = our_logprob(p, i, 0, c) - their_logprob(p, i, 0, c);
            if (!(fabs(off) <= 5e-4))
                fail_msg("item %zu, choice %zu: float32 log-prob differs by %.6f", i, c, off);
        }
}

static size_t best(const double *x, size_t n) {
    size_t b = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[b]) b = i;
    return b;
}

// One coded rule against the reference: mean, spread, correlation and picks.
static void same_distribution(const struct pairs *p, size_t rule, double spread_allowed,
                              size_t other_picks_allowed) {
    double mean = 0, square = 0, ours = 0, theirs = 0, ours2 = 0, theirs2 = 0;
    double xy = 0, xx = 0, yy = 0, n = 0, n_items = (double)p->n_items;
    size_t other_picks = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        size_t choices = count_choices(p, i);
        double x[MAX_CHOICES], y[MAX_CHOICES], a[MAX_CHOICES], b[MAX_CHOICES], x_mean = 0,
                                                                               y_mean = 0;
        assert_true(choices <= MAX_CHOICES);
        for (size_t c = 0; c < choices; c++) {
            a[c] = our_logprob(p, i, rule, c);
            b[c] = their_logprob(p, i, rule, c);
            x[c] = a[c] - our_logprob(p, i, 0, c);
            y[c] = b[c] - their_logprob(p, i, 0, c);
            x_mean += x[c] / (double)choices;
            y_mean += y[c] / (double)choices;
            ours += x[c], ours2 += x[c] * x[c], theirs += y[c], theirs2 += y[c] * y[c], n++;
        }
        for (size_t c = 0; c < choices; c++) {
            xy += (x[c] - x_mean) * (y[c] - y_mean);
            xx += (x[c] - x_mean) * (x[c] - x_mean);
            yy += (y[c] - y_mean) * (y[c] - y_mean);
        }
        mean += (x_mean - y_mean) / n_items;
        square += (x_mean - y_mean) * (x_mean - y_mean) / n_items;
        other_picks += best(a, choices) != best(b, choices);
    }
    double error = sqrt((square - mean * mean) / (n_items - 1));
    double spread = sqrt((ours2 - ours * ours / n) / (theirs2 - theirs * theirs / n));
    double correlation = xy / sqrt(xx * yy);
    print_message("# %s: mean difference %.3f (standard error %.3f), correlation %.2f, spread "
                  "ratio %.2f, %zu of %zu picks differ\n",
                  rules[rule].name, mean, error, correlation, spread, other_picks, p->n_items);
    assert_true(fabs(mean) <= 3 * error);
    assert_true(correlation >= rules[rule].correlation);
    assert_true(fabs(spread - 1) <= spread_allowed);
    assert_true(other_picks <= other_picks_allowed);
}

// ---- the two sets of figures ----------------------------------------------------------

struct fixture {
    struct kv_model *model;
    json_t *samples, *hellaswag;
    char *hellaswag_tasks; // NULL where the files are not there
};

// Every step-th item of a list, in the order of the benchmark file, as a trace has them.
static json_t *in_file_order(const json_t *items, size_t step) {
    json_t *sorted = json_array();
    for (size_t i = 0; i < json_array_size(items); i += step) {
        json_t *one = json_array_get(items, i);
        size_t at = json_array_size(sorted);
        while (at > 0 && index_of(json_array_get(sorted, at - 1)) > index_of(one)) at--;
        json_array_insert(sorted, at, one);
    }
    return sorted;
}

static void compare(const struct fixture *f, const char *tasks, const json_t *root, double spread,
                    size_t other_picks_of_24) {
    json_t *items = in_file_order(json_object_get(root, "items"), light_testing() ? 8 : 1);
    struct kv_text ids = {0};
    struct recording r;
    size_t n = json_array_size(items), n_rules = light_testing() ? 1 : N_RULES;
    for (size_t i = 0; i < n; i++)
        kv_text_addf(
            &ids, "%lld\n",
            (long long)json_integer_value(json_object_get(json_array_get(items, i), "ind")));
    record_items(&r, f->model, tasks, ids.s, KV_KEEP_FINAL);
    free(ids.s);
    same_tokens(r.trace, items);
    const char *specs[N_RULES];
    for (size_t i = 0; i < N_RULES; i++) specs[i] = rules[i].spec;
    struct outcomes all =
        replay_specs_as((struct kv_replay){.trace = r.trace, .model = f->model, .seed = 1}, specs,
                        N_RULES, kv_cpu_count());
    struct pairs p = {n, items, &all};
    same_float32(&p);
    for (size_t i = 1; i < n_rules; i++)
        same_distribution(&p, i, spread,
                          other_picks_of_24 ? other_picks_of_24 : rules[i].other_picks_of_24);
    free_outcomes(&all);
    remove_recording(&r);
    json_decref(items);
}

static void samples_agree_with_an_independent_numpy_program(void **state) {
    const struct fixture *f = *state;
    assert_non_null(f->samples);
    compare(f, "samples", f->samples, 0.25, 0);
}

static void hellaswag_agrees_with_an_independent_jax_program(void **state) {
    const struct fixture *f = *state;
    if (!f->hellaswag) skip();
    compare(f, f->hellaswag_tasks, f->hellaswag, 0.20, 3); // 44 of 47 picks
}

static json_t *load(const char *path) {
    json_error_t e;
    return path ? json_load_file(path, 0, &e) : NULL;
}

static int set_up(void **state) {
    static struct fixture f;
    const char *data = getenv("KVSIM_DATA");
    *state = &f;
    f.model = open_test_model();
    f.samples = load("sim/test/reference/samples.json");
    if (data && *data) {
        char *path = kv_format_text("%s/../reference/hellaswag47.json", data);
        char *benchmark = kv_format_text("%s/hellaswag_val.jsonl.gz", data);
        if (access(benchmark, R_OK) == 0) f.hellaswag = load(path);
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
