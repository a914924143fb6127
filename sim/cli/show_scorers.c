// SPDX-License-Identifier: Apache-2.0
// show --scorers: how the ranking of specs changes with the scorer.
#include <stdlib.h>

#include "analysis/results/scorers.h"
#include "sim/base/memory.h"
#include "sim/cli/columns.h"

// A row among those of its trace, which alone it is ranked with.
struct ranked {
    const struct kv_row *rows;
    size_t n, at;
};

static double score_of(const struct ranked *r, int by) {
    return by == KV_BY_KL ? r->rows[r->at].kl.mean : r->rows[r->at].s.acc[by];
}

static void text_scores(struct kv_table *t, const void *row) {
    const struct ranked *r = row;
    for (int by = 0; by < KV_N_RANKINGS; by++) {
        size_t place = kv_ranking_place(r->rows, r->n, r->at, by);
        int decimals = by == KV_BY_KL ? 4 : 3;
        kv_table_take(t,
                      place ? kv_format_text("%.*f %4zu", decimals, score_of(r, by), place) : NULL);
    }
}

static void scores(struct kv_table *t, const void *row) {
    const struct ranked *r = row;
    for (int by = 0; by < KV_N_RANKINGS; by++) {
        size_t place = kv_ranking_place(r->rows, r->n, r->at, by);
        kv_table_number(t, score_of(r, by), 6);
        kv_table_number(t, place ? (double)place : NAN, 0);
    }
}

KV_CELL(spec, struct ranked, kv_table_text(t, row->rows[row->at].s.spec))
KV_CELL(label, struct ranked, kv_table_text(t, row->rows[row->at].label))
KV_CELL(digest, struct ranked, kv_table_text(t, row->rows[row->at].s.trace_digest))
KV_CELL(spread, struct ranked, kv_table_number(t, kv_ranking_spread(row->rows, row->n, row->at), 0))

static const struct kv_table_column columns[] = {{"spec", KV_LEFT, spec},
                                                 {"trace", KV_LEFT, digest},
                                                 {"acc", KV_RIGHT, scores},
                                                 {"acc_place", KV_RIGHT, NULL},
                                                 {"acc_norm", KV_RIGHT, NULL},
                                                 {"acc_norm_place", KV_RIGHT, NULL},
                                                 {"acc_bytes", KV_RIGHT, NULL},
                                                 {"acc_bytes_place", KV_RIGHT, NULL},
                                                 {"acc_token", KV_RIGHT, NULL},
                                                 {"acc_token_place", KV_RIGHT, NULL},
                                                 {"kl_nats", KV_RIGHT, NULL},
                                                 {"kl_nats_place", KV_RIGHT, NULL},
                                                 {"spread", KV_RIGHT, spread},
                                                 {"label", KV_LEFT, label},
                                                 {0}};
static const struct kv_table_column text_columns[] = {{"spec", KV_LEFT, label},
                                                      {"acc place", KV_RIGHT, text_scores},
                                                      {"acc_norm place", KV_RIGHT, NULL},
                                                      {"acc_bytes place", KV_RIGHT, NULL},
                                                      {"acc_token place", KV_RIGHT, NULL},
                                                      {"kl_nats place", KV_RIGHT, NULL},
                                                      {"spread", KV_RIGHT, spread},
                                                      {0}};

// ---- agreement ------------------------------------------------------------------------

KV_CELL(ranking, struct ranked, kv_table_text(t, kv_ranking_names[row->at]))
static void taus(struct kv_table *t, const void *row) {
    const struct ranked *r = row;
    int by = (int)r->at;
    for (int other = 0; other < KV_N_RANKINGS; other++)
        kv_table_number(t, other > by ? NAN : kv_ranking_agreement(r->rows, r->n, by, other), 2);
}

static int print_agreement(const struct kv_row *rows, size_t n, enum kv_output how,
                           struct kv_error *e) {
    static const struct kv_table_column tau[] = {{"Kendall's tau", KV_LEFT, ranking},
                                                 {"acc", KV_RIGHT, taus},
                                                 {"acc_norm", KV_RIGHT, NULL},
                                                 {"acc_bytes", KV_RIGHT, NULL},
                                                 {"acc_token", KV_RIGHT, NULL},
                                                 {"kl_nats", KV_RIGHT, NULL},
                                                 {0}};
    struct ranked r[KV_N_RANKINGS];
    for (size_t by = 0; by < KV_N_RANKINGS; by++) r[by] = (struct ranked){rows, n, by};
    putchar('\n');
    return kv_table_print_rows(tau, r, KV_N_RANKINGS, sizeof *r, how, e);
}

int kv_scorers_print(const struct kv_row *rows, size_t n, enum kv_output how, struct kv_error *e) {
    struct ranked *r = kv_alloc(n + 1, sizeof *r);
    for (size_t first = 0, last; first < n; first = last) {
        for (last = first; last < n && rows[last].s.trace == rows[first].s.trace;) last++;
        for (size_t i = first; i < last; i++)
            r[i] = (struct ranked){rows + first, last - first, i - first};
    }
    int code =
        kv_table_print_rows(kv_for_readers(how) ? text_columns : columns, r, n, sizeof *r, how, e);
    free(r);
    return code || !kv_for_readers(how) ? code : print_agreement(rows, n, how, e);
}
