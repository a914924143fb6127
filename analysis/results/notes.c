// SPDX-License-Identifier: Apache-2.0
// Sentences about what the numbers beside them leave out.
#include "analysis/results/notes.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "traces/trace.h"

// Mean length of the sequences that were judged; of text, of what the scored positions see.
static double tokens_seen(const struct kv_row *row) {
    double sum = 0, n = 0;
    for (size_t i = 0; i < row->n_windows; i++)
        for (uint32_t k = 0; k < row->window[i].n; k++, n++)
            sum += row->window[i].token[k].row + 1.0;
    return n > 0 ? sum / n : row->s.context_tokens;
}

bool kv_measured_at(const struct kv_row *row, double context) {
    double at = tokens_seen(row);
    return isnan(at) || (at * KV_SAME_CONTEXT >= context && at <= context * KV_SAME_CONTEXT);
}

char *kv_depth_note(const struct kv_row *const *rows, size_t n, const double *context,
                    size_t n_contexts) {
    struct kv_text t = {0};
    for (size_t k = 0; k < n_contexts; k++) {
        bool any = false;
        struct kv_depths d = kv_depths_of(context[k]);
        for (size_t i = 0; i < n; i++) any = any || rows[i]->depth[k].n > 0;
        if (any)
            kv_text_addf(&t, "%s at %g: of positions that see %u to %u tokens", t.n ? ";" : "KL",
                         context[k], d.above + 1, d.upto);
    }
    return t.n ? kv_text_take(&t) : NULL;
}

char *kv_context_note(const struct kv_row *const *rows, size_t n, const double *context,
                      size_t n_contexts) {
    struct kv_text elsewhere = {0};
    double sum = 0, known = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(tokens_seen(rows[i]))) continue;
        sum += tokens_seen(rows[i]);
        known++;
    }
    for (size_t k = 0; k < n_contexts; k++) {
        bool measured = true;
        for (size_t i = 0; i < n; i++) measured = measured && kv_measured_at(rows[i], context[k]);
        if (!measured) kv_text_addf(&elsewhere, "%s%g", elsewhere.n ? " or " : "", context[k]);
    }
    if (!elsewhere.n) return NULL;
    char *note = kv_format_text("quality was measured at %.0f tokens (mean), not %s", sum / known,
                                elsewhere.s);
    free(elsewhere.s);
    return note;
}

static char *left_out(size_t n_left_out, size_t n, const char *ids) {
    return kv_format_text("%zu of %zu items, whose scores or divergence are not finite (%s %s)",
                          n_left_out, n, n_left_out == 1 ? "id" : "ids", ids);
}

char *kv_left_out_note(const struct kv_row *row) {
    char *items =
        row->n_left_out ? left_out(row->n_left_out, row->s.n_items, row->left_out_ids) : NULL;
    if (!row->n_redraws_out) return items;
    char *all = kv_format_text("%s%s%zu of %zu redraws of %sitems, which count by their others "
                               "(ids %s)",
                               items ? items : "", items ? "; " : "", row->n_redraws_out,
                               row->n_redraws_in_all, items ? "other " : "", row->redraws_out_ids);
    free(items);
    return all;
}

char *kv_left_out_items(const struct kv_trace *trace, size_t first, size_t n_items,
                        const bool *marked, size_t n_left_out, size_t n) {
    struct kv_text ids = {0};
    size_t named = 0;
    if (!n_left_out) return NULL;
    for (size_t i = 0; i < n_items; i++)
        if (marked[i] && named++ < KV_IDS_NAMED)
            kv_text_addf(&ids, "%s%s", ids.n ? ", " : "", kv_trace_item(trace, first + i)->id);
    if (named > KV_IDS_NAMED) kv_text_addf(&ids, " and %d more", (int)(named - KV_IDS_NAMED));
    char *text = kv_text_take(&ids), *note = left_out(n_left_out, n, text);
    free(text);
    return note;
}
