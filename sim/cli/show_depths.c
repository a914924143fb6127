// SPDX-License-Identifier: Apache-2.0
// What show prints of scored positions: rows by depth, and the tokens that diverge most.
#include <stdlib.h>

#include "analysis/results/depths.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "sim/base/talk.h"
#include "sim/base/files.h"
#include "sim/cli/columns.h"

struct line {
    struct kv_depth_row d;
    int decimals; // of readers; -1 for programs
};
#define ESTIMATE(X, T, name, m)                                                                    \
    X(T, name, KV_NUMBER(row->d.s.at[m].value, row->decimals))                                     \
    X(T, name##_low, KV_NUMBER(row->d.s.at[m].interval.low, row->decimals))                        \
    X(T, name##_high, KV_NUMBER(row->d.s.at[m].interval.high, row->decimals))
#define BY_DEPTH(X, T)                                                                             \
    X(T, spec, KV_TEXT(row->d.row->s.spec))                                                        \
    X(T, context_from, KV_COUNT(row->d.depths.above + 1))                                          \
    X(T, context_to, KV_COUNT(row->d.depths.upto))                                                 \
    X(T, positions, KV_COUNT(row->d.s.n))                                                          \
    X(T, blocks, KV_COUNT(row->d.s.n_blocks))                                                      \
    ESTIMATE(X, T, kl_mean, KV_TOKEN_KL_MEAN)                                                      \
    ESTIMATE(X, T, kl_median, KV_TOKEN_KL_MEDIAN)                                                  \
    ESTIMATE(X, T, kl_99, KV_TOKEN_KL_99)                                                          \
    ESTIMATE(X, T, kl_999, KV_TOKEN_KL_999)                                                        \
    ESTIMATE(X, T, same_top, KV_TOKEN_SAME_TOP)                                                    \
    ESTIMATE(X, T, rms_dp, KV_TOKEN_RMS_DP)                                                        \
    X(T, effective_bits, KV_NUMBER(row->d.row->s.effective_bits, row->decimals))                   \
    X(T, label, KV_TEXT(row->d.row->label))
KV_TABLE_COLUMNS(columns, line, BY_DEPTH)

#define TOLD(X, T, name, m)                                                                        \
    X(T, name, KV_RIGHT, kv_table_take(t, kv_token_estimate_text(&row->d.s.at[m])))
#define FOR_READERS(X, T)                                                                          \
    X(T, spec, KV_TEXT(row->d.row->label))                                                         \
    X(T, context, KV_RIGHT,                                                                        \
      kv_table_take(t, kv_format_text("%u-%u", row->d.depths.above + 1, row->d.depths.upto)))      \
    X(T, positions, KV_COUNT(row->d.s.n))                                                          \
    TOLD(X, T, kl_mean, KV_TOKEN_KL_MEAN)                                                          \
    TOLD(X, T, kl_median, KV_TOKEN_KL_MEDIAN)                                                      \
    TOLD(X, T, kl_99, KV_TOKEN_KL_99)                                                              \
    TOLD(X, T, kl_999, KV_TOKEN_KL_999)                                                            \
    TOLD(X, T, same_top, KV_TOKEN_SAME_TOP)                                                        \
    TOLD(X, T, rms_dp, KV_TOKEN_RMS_DP)
KV_TABLE_COLUMNS(told, line, FOR_READERS)

static int none(const char *db, struct kv_error *e) {
    return kv_fail(e, KV_EFAIL, db,
                   "holds no scored positions of text windows, which replays of text keep since "
                   "schema 5: sweep "
                   "a recording of text:FILE,window=N into another store");
}

int kv_depths_print(const struct kv_rows *rows, const char *db, enum kv_output how,
                    struct kv_error *e) {
    size_t n;
    struct kv_depth_row *d = kv_rows_by_depth(rows->row, rows->n, &n);
    struct line *lines = kv_alloc(n + 1, sizeof *lines);
    for (size_t i = 0; i < n; i++) lines[i] = (struct line){d[i], -1};
    free(d);
    int code = n ? kv_table_print_rows(kv_for_readers(how) ? told : columns, lines, n,
                                       sizeof *lines, how, e)
                 : none(db, e);
    free(lines);
    if (code || !kv_for_readers(how)) return code;
    kv_table_note(how, "context: tokens that a scored position sees; [ ]: 95 %%, from resampled "
                       "blocks of tokens; > and to: bounds by order statistics where positions are "
                       "too few for the quantile");
    return kv_flush_stdout(e);
}

#define WORST(X, T)                                                                                \
    X(T, spec, KV_TEXT(row->row->s.spec))                                                          \
    X(T, window, KV_TEXT(row->id))                                                                 \
    X(T, context, KV_COUNT(row->t.row + 1))                                                        \
    X(T, kl_nats, KV_NUMBER((double)row->t.kl_nats, 4))                                            \
    X(T, dp, KV_NUMBER((double)row->t.dp, 4))                                                      \
    X(T, same_top, KV_COUNT(!row->t.other_top))                                                    \
    X(T, token, KV_TEXT(row->token))                                                               \
    X(T, before, KV_WORDS(row->before))                                                            \
    X(T, label, KV_TEXT(row->row->label))
KV_TABLE_COLUMNS(worst, kv_worst_token, WORST)

int kv_worst_print(const struct kv_rows *rows, struct kv_store *s, size_t most, const char *traces,
                   const char *model, const char *db, enum kv_output how, struct kv_error *e) {
    size_t n;
    struct kv_worst_token *w = kv_rows_worst(rows, s, most, traces, model, &n);
    int code = n ? kv_table_print_rows(worst, w, n, sizeof *w, how, e) : none(db, e);
    if (n && !w[0].token)
        kv_say("tokens are not spelled: the recording or its model (-m) is not at hand");
    kv_worst_tokens_free(w, n);
    return code ? code : kv_flush_stdout(e);
}
