// SPDX-License-Identifier: Apache-2.0
// For tests: exact replay held against figures of independent programs. What must agree, and why so
// much and no more: sim/test/reference/README.md.
#ifndef KV_REPLAY_TEST_AGREEMENT_H
#define KV_REPLAY_TEST_AGREEMENT_H

#include <jansson.h>

#include "sim/replay/test/recording.h"

// A spec, and its name in the files. The first is what the others' shifts are counted from.
struct rule {
    const char *name, *spec;
    double correlation; // of the shift against the first, centred over an item's choices
    size_t other_picks; // at most so many items of which another choice is the best
};
enum { MAX_RULES = 4, MAX_CHOICES = 8 };

// Log-probs of items' choices under rules; theirs are JSON: {"logprob": {RULE: [choice]}}.
struct pairs {
    const struct rule *rules;
    size_t n_rules, n_items;
    const json_t *items;
    const struct outcomes *ours;
};

static inline double their_logprob(const struct pairs *p, size_t item, size_t rule, size_t choice) {
    const json_t *lists = json_object_get(json_array_get(p->items, item), "logprob");
    const json_t *x = json_array_get(json_object_get(lists, p->rules[rule].name), choice);
    if (!x) fail_msg("item %zu has no %s of choice %zu", item, p->rules[rule].name, choice);
    return json_number_value(x);
}

static inline double our_logprob(const struct pairs *p, size_t item, size_t rule, size_t choice) {
    return p->ours->at[item * p->n_rules + rule].choice[choice].logprob;
}

static inline size_t count_choices(const struct pairs *p, size_t item) {
    return p->ours->at[item * p->n_rules].n_choices;
}

static inline long long index_of(const json_t *item) {
    return json_integer_value(json_object_get(item, "ind"));
}

// The largest difference of a choice's log-prob under the first rule.
static inline double same_float32(const struct pairs *p, double tolerance) {
    double most = 0;
    for (size_t i = 0; i < p->n_items; i++)
        for (size_t c = 0; c < count_choices(p, i); c++) {
            double off = our_logprob(p, i, 0, c) - their_logprob(p, i, 0, c);
            if (!(fabs(off) <= tolerance))
                fail_msg("item %zu, choice %zu: float32 log-prob differs by %.6f", i, c, off);
            most = fmax(most, fabs(off));
        }
    return most;
}

static inline size_t best_of(const double *x, size_t n) {
    size_t b = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[b]) b = i;
    return b;
}

// One coded rule: mean, spread, correlation and picks.
static inline void same_distribution(const struct pairs *p, size_t rule, double spread_allowed) {
    double mean = 0, square = 0, ours = 0, theirs = 0, ours2 = 0, theirs2 = 0;
    double xy = 0, xx = 0, yy = 0, n = 0, n_items = (double)p->n_items;
    size_t other_picks = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        size_t choices = count_choices(p, i);
        double x[MAX_CHOICES], y[MAX_CHOICES], a[MAX_CHOICES], b[MAX_CHOICES];
        double x_mean = 0, y_mean = 0;
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
        other_picks += best_of(a, choices) != best_of(b, choices);
    }
    double error = sqrt((square - mean * mean) / (n_items - 1));
    double spread = sqrt((ours2 - ours * ours / n) / (theirs2 - theirs * theirs / n));
    double correlation = xy / sqrt(xx * yy);
    print_message("# %s: mean difference %.3f (standard error %.3f), correlation %.2f, spread "
                  "ratio %.2f, %zu of %zu picks differ\n",
                  p->rules[rule].name, mean, error, correlation, spread, other_picks, p->n_items);
    assert_true(fabs(mean) <= 3 * error);
    assert_true(correlation >= p->rules[rule].correlation);
    assert_true(fabs(spread - 1) <= spread_allowed);
    assert_true(other_picks <= p->rules[rule].other_picks);
}

// Records the items of a list by their `ind`, which ascends, as a trace has them.
static inline void record_listed(struct recording *r, const struct kv_model *m, const char *tasks,
                                 const json_t *items) {
    struct kv_text ids = {0};
    for (size_t i = 0; i < json_array_size(items); i++)
        kv_text_addf(&ids, "%lld\n", index_of(json_array_get(items, i)));
    record_items(r, m, tasks, ids.s, KV_KEEP_FINAL);
    free(ids.s);
    assert_int_equal(kv_trace_info(r->trace)->n_items, json_array_size(items));
}

static inline struct outcomes replay_rules(const struct recording *r, const struct kv_model *m,
                                           const struct rule *rules, size_t n_rules) {
    const char *specs[MAX_RULES];
    assert_true(n_rules <= MAX_RULES);
    for (size_t i = 0; i < n_rules; i++) specs[i] = rules[i].spec;
    return replay_specs_as((struct kv_replay){.trace = r->trace, .model = m, .seed = 1}, specs,
                           n_rules, kv_cpu_count());
}

static inline void check_ids(const json_t *list, const uint32_t *ids, size_t n) {
    assert_int_equal(n, json_array_size(list));
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids[i], json_integer_value(json_array_get(list, i)));
}

// The trace's items are those of the list, token by token.
static inline void same_tokens(const struct kv_trace *t, const json_t *items) {
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

// Every step-th item of a list, in the order of the benchmark file. Caller decrefs it.
static inline json_t *in_file_order(const json_t *items, size_t step) {
    json_t *sorted = json_array();
    for (size_t i = 0; i < json_array_size(items); i += step) {
        json_t *one = json_array_get(items, i);
        size_t at = json_array_size(sorted);
        while (at > 0 && index_of(json_array_get(sorted, at - 1)) > index_of(one)) at--;
        json_array_insert(sorted, at, one);
    }
    return sorted;
}

static inline json_t *load_json(const char *path) {
    json_error_t e;
    return path ? json_load_file(path, 0, &e) : NULL;
}

#endif
