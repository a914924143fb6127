// SPDX-License-Identifier: Apache-2.0
// Putting an item before a policy: what it declared is shown, everything else is hidden, answers
// are checked.
#include "sim/replay/ask.h"

static void show_tokens(struct kv_token *tokens, const struct kv_trace_item *item,
                        const float *features, uint32_t needs) {
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
                needs & KV_NEED(f) ? features[(size_t)row * KV_N_FEATURES + (size_t)f] : NAN;
    }
}

// The vectors of the recording that the policy declared.
static void show_vectors(struct kv_item *view, const struct kv_trace_item *it, uint32_t needs) {
    if (needs & KV_NEED_KV) {
        view->k = it->k;
        view->v = it->v;
    }
    if (needs & KV_NEED_Q) view->q = it->q;
    if (needs & KV_NEED_HIDDEN) view->hidden = it->hidden;
}

int kv_show_item(const struct kv_replay *r, size_t which, size_t item, const float *features,
                 struct kv_token *tokens, struct kv_item *view, struct kv_error *e) {
    const struct kv_trace_item *it = kv_trace_item(r->trace, item);
    const struct kv_replay_spec *spec = &r->specs[which];
    uint32_t needs = spec->needs;
    *view = (struct kv_item){.struct_bytes = sizeof *view,
                             .run = &spec->run,
                             .key = it->key,
                             .n_tokens = it->n_tokens,
                             .n_context = it->n_context,
                             .n_choices = it->n_choices,
                             .tokens = tokens};
    if (r->damage && r->damage[which]) view->damage = kv_cell_table_item(r->damage[which], item);
    if (r->error && r->error[which]) view->error = kv_cell_table_item(r->error[which], item);
    if (needs & KV_NEED_QUANTILES) view->quantiles = r->quantiles;
    show_tokens(tokens, it, features, needs);
    show_vectors(view, it, needs);
    if (needs & KV_NEED_SURPRISAL) view->surprisal_nats = it->surprisal;
    if (needs & KV_NEED_NORMS) view->norms = kv_trace_info(r->trace)->kv_norms;
    if ((needs & KV_NEED_DAMAGE && !view->damage) || (needs & KV_NEED_ERROR && !view->error) ||
        (needs & KV_NEED_QUANTILES && !view->quantiles) ||
        (needs & KV_NEED_SURPRISAL && !view->surprisal_nats))
        return kv_fail(e, KV_EFAIL, spec->canonical, "policy %s needs tables that were not opened",
                       spec->policy_name);
    return 0;
}

#define UNANSWERED 0xFDu // what cells hold before a policy is asked

// The first cell that differs from another along an axis that the policy does not declare: what
// the tags that are counted cannot say.
static int check_axes(const struct kv_replay_spec *spec, const char *item, size_t n_tokens,
                      const uint8_t *cells, struct kv_error *e) {
    static const struct {
        uint32_t declared;
        const char *name, *bit;
    } axes[] = {{KV_VARIES_TOKEN | KV_VARIES_POSITION, "token", "TOKEN"},
                {KV_VARIES_LAYER, "layer", "LAYER"},
                {KV_VARIES_HEAD, "KV head", "HEAD"},
                {KV_VARIES_KV, "K and V", "KV"}};
    const struct kv_shape *sh = &spec->run.shape;
    size_t n = kv_cells(sh), by_layer = (size_t)sh->n_kv_heads * 2;
    for (size_t i = 0; i < n_tokens * n; i++) {
        size_t cell = i % n, at[] = {i / n, cell / by_layer, cell % by_layer / 2, cell % 2};
        const size_t token = at[0], step[] = {n, by_layer, 2, 1};
        size_t now = i;
        for (size_t a = 0; a < 4; a++) { // one axis after the other is walked back to its start
            if (spec->varies & axes[a].declared) continue;
            size_t start = now - at[a] * step[a];
            if (cells[start] != cells[now])
                return kv_fail(e, KV_EFAIL, spec->canonical,
                               "policy %s answers otherwise along %s, which it does not declare "
                               "(KV_VARIES_%s), at item %s, token %zu",
                               spec->policy_name, axes[a].name, axes[a].bit, item, token);
            now = start;
        }
    }
    return 0;
}

int kv_check_answers(const struct kv_replay_spec *spec, const char *item, size_t n_tokens,
                     const uint8_t *cells, struct kv_error *e) {
    size_t n = kv_cells(&spec->run.shape);
    for (size_t i = 0; i < n_tokens * n; i++) {
        if (cells[i] < spec->run.n_widths || cells[i] == KV_FLOAT32) continue;
        if (cells[i] == KV_EVICT && cells[i ^ 1] == KV_EVICT) continue;
        const char *why = cells[i] == KV_EVICT ? "evicts a key or a value without the other"
                          : cells[i] == UNANSWERED
                              ? "leaves a cell undecided"
                              : "answers with a width that the format does not offer";
        return kv_fail(e, KV_EFAIL, spec->canonical, "policy %s %s, at item %s, token %zu",
                       spec->policy_name, why, item, i / n);
    }
    return check_axes(spec, item, n_tokens, cells, e);
}

// Asks, and says something where a policy fails without a word.
static int ask(const struct kv_replay_spec *spec, const struct kv_item *view, const char *item,
               uint8_t *cells, struct kv_error *e) {
    struct kv_error own = {0};
    memset(cells, UNANSWERED, view->n_tokens * kv_cells(&spec->run.shape));
    int rc = kv_spec_ask(spec, view, cells, &own);
    if (rc == 0) return 0;
    if (!*own.msg || own.code != rc)
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "policy %s failed at item %s and did not say why (code %d)",
                       spec->policy_name, item, rc);
    return kv_fail(e, rc, own.where, "%s (item %s)", own.msg, item);
}

int kv_ask_checked(const struct kv_replay_spec *spec, const struct kv_item *view, const char *item,
                   uint8_t *cells, struct kv_error *e) {
    int rc = ask(spec, view, item, cells, e);
    return rc ? rc : kv_check_answers(spec, item, view->n_tokens, cells, e);
}
