// SPDX-License-Identifier: Apache-2.0
// Rows of text windows by depth, and their worst tokens.
#include "analysis/results/depths.h"

#include <stdlib.h>

#include "analysis/results/widths.h"
#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/model/model.h"

static struct kv_token_summary summary_of(const struct kv_row *row, struct kv_depths d,
                                          double confidence) {
    struct kv_token_window *w = kv_alloc(row->n_windows + 1, sizeof *w);
    for (size_t i = 0; i < row->n_windows; i++)
        w[i] = (struct kv_token_window){row->window[i].token, row->window[i].n};
    struct kv_token_summary s =
        kv_token_summary(w, row->n_windows, d, KV_DEPTH_SEED, KV_DEPTH_DRAWS, confidence);
    free(w);
    return s;
}

bool kv_row_at_depth(const struct kv_row *row, double context, double confidence,
                     struct kv_token_summary *s) {
    *s = (struct kv_token_summary){0};
    if (row->n_windows == 0) return false;
    *s = summary_of(row, kv_depths_of(context), confidence);
    return s->n > 0;
}

int kv_row_read_tokens(struct kv_row *row, const struct kv_rows *rows, struct kv_store *s,
                       struct kv_error *e) {
    int code = kv_store_tokens(s, row->s.run_group, &row->window, &row->n_windows, e);
    if (code || row->n_windows == 0) return code;
    row->tokens = summary_of(row, kv_all_depths, KV_CONFIDENCE);
    for (size_t k = 0; k < rows->n_contexts; k++)
        (void)kv_row_at_depth(row, rows->context[k], KV_CONFIDENCE, &row->depth[k]);
    return 0;
}

void kv_row_free_tokens(struct kv_row *row) {
    kv_window_tokens_free(row->window, row->n_windows);
}

char *kv_token_estimate_text(const struct kv_token_estimate *x) {
    const struct kv_interval *i = &x->interval;
    if (!x->bound && isnan(i->low))
        return isnan(x->value) ? NULL : kv_format_text("%.4f", x->value);
    if (!x->bound) return kv_format_text("%.4f [%.4f, %.4f]", x->value, i->low, i->high);
    if (isnan(i->low) && isnan(i->high)) return NULL;
    if (isnan(i->high)) return kv_format_text("> %.4f", i->low);
    return isnan(i->low) ? kv_format_text("< %.4f", i->high)
                         : kv_format_text("%.4f to %.4f", i->low, i->high);
}

// ---- buckets --------------------------------------------------------------------------

// Contexts of the shallowest and the deepest position.
static void find_range(const struct kv_row *row, uint32_t *least, uint32_t *most) {
    *least = UINT32_MAX;
    *most = 0;
    for (size_t i = 0; i < row->n_windows; i++) {
        uint32_t first = row->window[i].token[0].row + 1,
                 last = row->window[i].token[row->window[i].n - 1].row + 1;
        if (first < *least) *least = first;
        if (last > *most) *most = last;
    }
}

struct kv_depth_row *kv_rows_by_depth(const struct kv_row *rows, size_t n, size_t *n_out) {
    struct kv_depth_row *out = NULL;
    *n_out = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t least, most;
        find_range(&rows[i], &least, &most);
        struct kv_depths d = kv_depths_of(least == UINT32_MAX ? 1 : least);
        for (; rows[i].n_windows && d.above < most; d = kv_depths_of(2.0 * d.upto)) {
            struct kv_token_summary s = summary_of(&rows[i], d, KV_CONFIDENCE);
            if (s.n == 0) continue;
            double low = d.above < least ? least : d.above + 1,
                   high = d.upto < most ? d.upto : most;
            out = kv_grow(out, *n_out + 1, sizeof *out);
            out[(*n_out)++] = (struct kv_depth_row){&rows[i], d, sqrt(low * high), s};
        }
    }
    return out;
}

// ---- the worst ------------------------------------------------------------------------

static int by_divergence(const void *a, const void *b) {
    const struct kv_worst_token *x = a, *y = b;
    if (x->t.kl_nats != y->t.kl_nats) return x->t.kl_nats > y->t.kl_nats ? -1 : 1;
    if (x->id != y->id) return strcmp(x->id, y->id);
    return (x->t.row > y->t.row) - (x->t.row < y->t.row);
}

// Text of tokens [from, to) of an item; line ends are blanks.
static char *spell(const struct kv_trace_item *it, const struct kv_tokenizer *tokenizer,
                   uint32_t from, uint32_t to) {
    struct kv_text t = {0};
    for (uint32_t i = from; i < to; i++) {
        size_t n;
        const char *bytes = kv_tokenizer_bytes(tokenizer, it->ids[i], &n);
        kv_text_add(&t, bytes, n);
    }
    char *text = kv_text_take(&t);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ') *p = ' ';
    return text;
}

enum { TOKENS_BEFORE = 12 };

static void add_text(struct kv_worst_token *w, const struct kv_trace *trace,
                     const struct kv_tokenizer *tokenizer) {
    if (w->item >= kv_trace_info(trace)->n_items) return;
    const struct kv_trace_item *it = kv_trace_item(trace, w->item);
    uint32_t at = w->t.row + 1;
    if (at >= it->n_tokens) return;
    w->before = spell(it, tokenizer, at > TOKENS_BEFORE ? at - TOKENS_BEFORE : 0, at);
    w->token = spell(it, tokenizer, at, at + 1);
}

static struct kv_worst_token *worst_of(const struct kv_row *row, size_t most, size_t *n) {
    size_t all = 0, at = 0;
    for (size_t k = 0; k < row->n_windows; k++) all += row->window[k].n;
    struct kv_worst_token *list = kv_alloc(all + 1, sizeof *list);
    for (size_t k = 0; k < row->n_windows; k++)
        for (uint32_t j = 0; j < row->window[k].n; j++)
            list[at++] = (struct kv_worst_token){.row = row,
                                                 .id = row->window[k].id,
                                                 .item = row->window[k].item,
                                                 .t = row->window[k].token[j]};
    qsort(list, all, sizeof *list, by_divergence);
    *n = all < most ? all : most;
    return list;
}

struct kv_worst_token *kv_rows_worst(const struct kv_rows *rows, struct kv_store *s, size_t most,
                                     const char *traces, const char *model, size_t *n_out) {
    struct kv_worst_token *out = NULL;
    struct kv_model *m = NULL;
    struct kv_trace *trace = NULL;
    struct kv_error why;
    char digest[17] = "";
    *n_out = 0;
    if (model && kv_tolerate(kv_model_open(&m, model, KV_WEIGHTS_BF16, &why), &why)) m = NULL;
    if (m) kv_hex64(kv_tokenizer_digest(m->tokenizer), digest);
    for (size_t i = 0; i < rows->n; i++) {
        const struct kv_row *row = &rows->row[i];
        if (i == 0 || row->s.trace != rows->row[i - 1].s.trace) {
            kv_trace_close(trace);
            trace = m && row->n_windows ? kv_widths_open(s, &row->s, traces) : NULL;
        }
        bool spoken = trace && strcmp(digest, kv_trace_info(trace)->tokenizer_digest) == 0;
        size_t n;
        struct kv_worst_token *w = worst_of(row, most, &n);
        out = kv_grow(out, *n_out + n + 1, sizeof *out);
        for (size_t k = 0; k < n; k++) {
            if (spoken) add_text(&w[k], trace, m->tokenizer);
            out[(*n_out)++] = w[k];
        }
        free(w);
    }
    kv_trace_close(trace);
    kv_model_close(m);
    return out;
}

void kv_worst_tokens_free(struct kv_worst_token *w, size_t n) {
    for (size_t i = 0; w && i < n; i++) {
        free(w[i].before);
        free(w[i].token);
    }
    free(w);
}
