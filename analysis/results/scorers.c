// SPDX-License-Identifier: Apache-2.0
// How the ranking of specs changes with the scorer.
#include "analysis/results/scorers.h"
#include "sim/base/memory.h"

#include <stdlib.h>

const char *const kv_ranking_names[] = {"acc", "acc_norm", "acc_bytes", "acc_token", "kl_nats"};

double kv_ranking_score(const struct kv_row *r, int by) {
    return by < KV_N_SCORERS ? r->s.acc[by] : -r->kl.mean;
}

size_t kv_ranking_place(const struct kv_row *rows, size_t n, size_t row, int by) {
    size_t place = 1;
    double own = kv_ranking_score(&rows[row], by);
    for (size_t i = 0; i < n; i++) place += kv_ranking_score(&rows[i], by) > own;
    return isnan(own) ? 0 : place;
}

double kv_ranking_agreement(const struct kv_row *rows, size_t n, int by, int other) {
    double *x = kv_alloc(n + 1, sizeof *x), *y = kv_alloc(n + 1, sizeof *y);
    for (size_t i = 0; i < n; i++) {
        x[i] = kv_ranking_score(&rows[i], by);
        y[i] = kv_ranking_score(&rows[i], other);
    }
    double tau = kv_kendall(x, y, n);
    free(x);
    free(y);
    return tau;
}

static void add_text_cell(struct kv_table *t, const struct kv_row *rows, size_t n, size_t i,
                          int by) {
    size_t place = kv_ranking_place(rows, n, i, by);
    double shown = by == KV_BY_KL ? rows[i].kl.mean : rows[i].s.acc[by];
    char *text = place ? kv_format_text("%.*f %4zu", by == KV_BY_KL ? 4 : 3, shown, place) : NULL;
    kv_table_text(t, text);
    free(text);
}

// How far the places of row i lie apart among the scorers.
static void add_spread(struct kv_table *t, const struct kv_row *rows, size_t n, size_t i) {
    size_t first = n, last = 0;
    for (int by = 0; by < KV_N_SCORERS; by++) {
        size_t place = kv_ranking_place(rows, n, i, by);
        if (!place) continue;
        if (place < first) first = place;
        if (place > last) last = place;
    }
    if (last)
        kv_table_count(t, (long long)(last - first));
    else
        kv_table_text(t, NULL);
}

static int print_agreement(const struct kv_row *rows, size_t n, struct kv_error *e) {
    struct kv_column head[KV_N_RANKINGS + 1] = {{"Kendall's tau", KV_LEFT}};
    for (int by = 0; by < KV_N_RANKINGS; by++)
        head[by + 1] = (struct kv_column){kv_ranking_names[by], KV_RIGHT};
    struct kv_table *t = kv_table_new(head, KV_N_RANKINGS + 1);
    for (int by = 0; by < KV_N_RANKINGS; by++) {
        kv_table_text(t, kv_ranking_names[by]);
        for (int other = 0; other < KV_N_RANKINGS; other++)
            kv_table_number(t, other > by ? NAN : kv_ranking_agreement(rows, n, by, other), 2);
    }
    putchar('\n');
    return kv_table_print(t, KV_OUT_TEXT, e);
}

int kv_scorers_print(const struct kv_row *rows, size_t n, enum kv_output how, struct kv_error *e) {
    struct kv_column head[4 + 2 * KV_N_RANKINGS];
    char names[KV_N_RANKINGS][32];
    bool text = how == KV_OUT_TEXT;
    size_t columns = 0;
    head[columns++] = (struct kv_column){"spec", KV_LEFT};
    if (!text) head[columns++] = (struct kv_column){"trace", KV_LEFT};
    for (int by = 0; by < KV_N_RANKINGS; by++) {
        snprintf(names[by], sizeof *names, text ? "%s place" : "%s_place", kv_ranking_names[by]);
        if (!text) head[columns++] = (struct kv_column){kv_ranking_names[by], KV_RIGHT};
        head[columns++] = (struct kv_column){names[by], KV_RIGHT};
    }
    head[columns++] = (struct kv_column){"spread", KV_RIGHT};
    struct kv_table *t = kv_table_new(head, columns);
    for (size_t i = 0; i < n; i++) {
        kv_table_text(t, text ? rows[i].label : rows[i].s.spec);
        if (!text) kv_table_text(t, rows[i].s.trace_digest);
        // Places are among the rows of one trace.
        size_t first = i, last = i;
        while (first > 0 && rows[first - 1].s.trace == rows[i].s.trace) first--;
        while (last < n && rows[last].s.trace == rows[i].s.trace) last++;
        for (int by = 0; by < KV_N_RANKINGS; by++) {
            if (text) {
                add_text_cell(t, rows + first, last - first, i - first, by);
                continue;
            }
            kv_table_number(t, by == KV_BY_KL ? rows[i].kl.mean : rows[i].s.acc[by], 6);
            size_t place = kv_ranking_place(rows + first, last - first, i - first, by);
            kv_table_number(t, place ? (double)place : NAN, 0);
        }
        add_spread(t, rows + first, last - first, i - first);
    }
    int code = kv_table_print(t, how, e);
    return code || !text ? code : print_agreement(rows, n, e);
}
