// SPDX-License-Identifier: Apache-2.0
// Putting an item before a policy: what it declared is shown, everything else is hidden, answers
// are checked.
#include <stdlib.h>

#include "sim/base/util.h"
#include "sim/replay/replay.h"

static void show_tokens(struct kv_token *tokens, const struct kv_trace_item *item, uint32_t needs) {
    for (uint32_t c = 0, row = 0; row < item->n_tokens; row++) {
        while (c < item->n_choices && row >= item->first[c]) c++;
        bool in_choice = row >= item->n_context;
        tokens[row] = (struct kv_token){
            .pos = in_choice ? item->n_context + row - item->first[c - 1] : row,
            .id = item->ids[row],
            .segment = in_choice ? c : 0,
            .kind = needs & KV_NEED_CLASS ? item->kinds[row] : 0,
        };
        for (int f = 0; f < KV_N_FEATURES; f++)
            tokens[row].feature[f] =
                needs & KV_NEED(f) ? item->features[(size_t)row * KV_N_FEATURES + (size_t)f] : NAN;
    }
}

static int check_cells(const struct kv_replay_spec *spec, const struct kv_trace_item *item,
                       const uint8_t *cells, struct kv_error *e) {
    size_t n = kv_cells(&spec->run.shape);
    for (size_t i = 0; i < item->n_tokens * n; i++) {
        if (cells[i] < spec->run.n_widths || cells[i] == KV_FLOAT32) continue;
        if (cells[i] == KV_EVICT && cells[i ^ 1] == KV_EVICT) continue;
        const char *why = cells[i] == KV_EVICT
                              ? "evicts a key or a value without the other"
                              : "answers with a width that the format does not offer";
        return kv_fail(e, KV_EFAIL, spec->canonical, "policy %s %s, at item %s, token %zu",
                       spec->policy_name, why, item->id, i / n);
    }
    return 0;
}

int kv_decide(const struct kv_replay_spec *spec, const struct kv_trace_item *item, uint8_t *cells,
              struct kv_error *e) {
    const struct kv_policy *p = spec->policy;
    struct kv_token *tokens = kv_alloc(item->n_tokens, sizeof *tokens);
    struct kv_item view = {.struct_bytes = sizeof view,
                           .run = &spec->run,
                           .key = item->key,
                           .n_tokens = item->n_tokens,
                           .n_context = item->n_context,
                           .n_choices = item->n_choices,
                           .tokens = tokens};
    show_tokens(tokens, item, p->needs);
    int rc = 0;
    if (p->plan)
        rc = p->plan(spec->self, &view, cells, e);
    else {
        size_t n = kv_cells(&spec->run.shape);
        rc = p->decide(spec->self, &view, 0, item->n_context, cells, e);
        for (uint32_t c = 0; c < item->n_choices && rc == 0; c++)
            rc = p->decide(spec->self, &view, item->first[c], item->first[c + 1] - item->first[c],
                           cells + item->first[c] * n, e);
    }
    free(tokens);
    return rc ? rc : check_cells(spec, item, cells, e);
}
