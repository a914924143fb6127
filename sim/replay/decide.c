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

int kv_decide(const struct kv_replay *r, size_t which, size_t item, uint8_t *cells,
              struct kv_error *e) {
    const struct kv_replay_spec *spec = &r->specs[which];
    const struct kv_trace_item *it = kv_trace_item(r->trace, item);
    const struct kv_policy *p = spec->policy;
    struct kv_token *tokens = kv_alloc(it->n_tokens, sizeof *tokens);
    struct kv_item view = {.struct_bytes = sizeof view,
                           .run = &spec->run,
                           .key = it->key,
                           .n_tokens = it->n_tokens,
                           .n_context = it->n_context,
                           .n_choices = it->n_choices,
                           .tokens = tokens};
    if (r->damage && r->damage[which]) view.damage = kv_table_item(r->damage[which], item);
    if (r->error && r->error[which]) view.error = kv_table_item(r->error[which], item);
    show_tokens(tokens, it, p->needs);
    int rc = 0;
    if ((p->needs & KV_NEED_DAMAGE && !view.damage) || (p->needs & KV_NEED_ERROR && !view.error))
        rc = kv_fail(e, KV_EFAIL, spec->canonical, "policy %s needs tables that were not opened",
                     spec->policy_name);
    else if (p->plan)
        rc = p->plan(spec->self, &view, cells, e);
    else {
        size_t n = kv_cells(&spec->run.shape);
        rc = p->decide(spec->self, &view, 0, it->n_context, cells, e);
        for (uint32_t c = 0; c < it->n_choices && rc == 0; c++)
            rc = p->decide(spec->self, &view, it->first[c], it->first[c + 1] - it->first[c],
                           cells + it->first[c] * n, e);
    }
    free(tokens);
    return rc ? rc : check_cells(spec, it, cells, e);
}

// ---- tables ---------------------------------------------------------------------------

static int open_kind(const struct kv_replay *r, uint32_t need, enum kv_table_kind kind,
                     struct kv_table **tables, unsigned jobs, struct kv_error *e) {
    int rc = 0;
    for (size_t j = 0; j < r->n_specs && rc == 0; j++) {
        if (!(r->specs[j].policy->needs & need)) continue;
        for (size_t k = 0; k < j && !tables[j]; k++)
            if (tables[k] &&
                strcmp(r->specs[k].format->canonical, r->specs[j].format->canonical) == 0)
                tables[j] = tables[k];
        if (!tables[j]) rc = kv_table_open(&tables[j], r->trace, r->specs[j].format, kind, jobs, e);
    }
    return rc;
}

int kv_replay_open_tables(struct kv_replay *r, enum kv_table_kind form, unsigned jobs,
                          struct kv_error *e) {
    r->damage = kv_alloc(r->n_specs, sizeof(struct kv_table *));
    r->error = kv_alloc(r->n_specs, sizeof(struct kv_table *));
    int rc = open_kind(r, KV_NEED_DAMAGE, form, r->damage, jobs, e);
    return rc ? rc : open_kind(r, KV_NEED_ERROR, KV_TABLE_ERROR, r->error, jobs, e);
}

void kv_tables_close(struct kv_table **tables, size_t n) {
    for (size_t j = 0; tables && j < n; j++) {
        bool shared = false;
        for (size_t k = 0; k < j; k++) shared |= tables[k] == tables[j];
        if (!shared) kv_table_close(tables[j]);
    }
    free(tables);
}

void kv_replay_close_tables(struct kv_replay *r) {
    kv_tables_close(r->damage, r->n_specs);
    kv_tables_close(r->error, r->n_specs);
    r->damage = r->error = NULL;
}
