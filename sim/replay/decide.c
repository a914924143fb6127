// SPDX-License-Identifier: Apache-2.0
// Putting an item before a policy: what it declared is shown, everything else is hidden, answers
// are checked.
#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/replay/relinear.h"

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

#define UNANSWERED 0xFDu // what cells hold before a policy is asked

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
    return 0;
}

// Asks, and says something where a policy fails without a word.
static int ask(const struct kv_replay_spec *spec, const struct kv_item *view, const char *item,
               uint8_t *cells, struct kv_error *e) {
    struct kv_error own = {0};
    memset(cells, UNANSWERED, view->n_tokens * kv_cells(&spec->run.shape));
    int rc = kv_ask(spec->policy, spec->self, view, cells, &own);
    if (rc == 0) return 0;
    if (!*own.msg || own.code != rc)
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "policy %s failed at item %s and did not say why (code %d)",
                       spec->policy_name, item, rc);
    return kv_fail(e, rc, own.where, "%s (item %s)", own.msg, item);
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

int kv_decide(const struct kv_replay *r, size_t which, size_t item, uint8_t *cells,
              struct kv_error *e) {
    return kv_decide_by(r, which, item, kv_trace_item(r->trace, item)->features, cells, e);
}

int kv_decide_by(const struct kv_replay *r, size_t which, size_t item, const float *features,
                 uint8_t *cells, struct kv_error *e) {
    const struct kv_trace_item *it = kv_trace_item(r->trace, item);
    const struct kv_replay_spec *spec = &r->specs[which];
    uint32_t needs = spec->needs;
    struct kv_token *tokens = kv_alloc(it->n_tokens, sizeof *tokens);
    struct kv_item view = {.struct_bytes = sizeof view,
                           .run = &spec->run,
                           .key = it->key,
                           .n_tokens = it->n_tokens,
                           .n_context = it->n_context,
                           .n_choices = it->n_choices,
                           .tokens = tokens};
    if (r->damage && r->damage[which]) view.damage = kv_cell_table_item(r->damage[which], item);
    if (r->error && r->error[which]) view.error = kv_cell_table_item(r->error[which], item);
    if (needs & KV_NEED_QUANTILES) view.quantiles = r->quantiles;
    show_tokens(tokens, it, features, needs);
    show_vectors(&view, it, needs);
    if (needs & KV_NEED_NORMS) view.norms = kv_trace_info(r->trace)->kv_norms;
    int rc = 0;
    if ((needs & KV_NEED_DAMAGE && !view.damage) || (needs & KV_NEED_ERROR && !view.error) ||
        (needs & KV_NEED_QUANTILES && !view.quantiles))
        rc = kv_fail(e, KV_EFAIL, spec->canonical, "policy %s needs tables that were not opened",
                     spec->policy_name);
    float *moved = NULL; // the damage where the rounds have led
    if (rc == 0 && spec->rounds > 1) {
        rc = kv_relinear_damage(r, which, item, &view, &moved, e);
        view.damage = moved;
    }
    if (rc == 0) rc = ask(spec, &view, it->id, cells, e);
    if (rc == 0) rc = kv_check_answers(spec, it->id, it->n_tokens, cells, e);
    if (rc == 0 && r->audit) rc = kv_audit(spec, &view, cells, e);
    free(moved);
    free(tokens);
    return rc;
}

// ---- tables ---------------------------------------------------------------------------

static int open_kind(const struct kv_replay *r, uint32_t need, enum kv_cell_table_kind kind,
                     struct kv_cell_table **tables, unsigned jobs, struct kv_error *e) {
    int rc = 0;
    for (size_t j = 0; j < r->n_specs && rc == 0; j++) {
        if (!(r->specs[j].needs & need)) continue;
        for (size_t k = 0; k < j && !tables[j]; k++)
            if (tables[k] &&
                strcmp(r->specs[k].format->canonical, r->specs[j].format->canonical) == 0)
                tables[j] = tables[k];
        if (!tables[j])
            rc = kv_cell_table_open(&tables[j], r->trace, r->specs[j].format, kind, jobs, e);
    }
    return rc;
}

// What a policy may declare that a recording need not keep.
static const struct {
    uint32_t need, keep;
    const char *what, *word;
} kept[] = {{KV_NEED_KV, KV_KEEP_KV, "keys and values", "kv"},
            {KV_NEED_Q, KV_KEEP_Q, "queries", "q"},
            {KV_NEED_HIDDEN, KV_KEEP_HIDDEN, "hidden states", "hidden"}};

static int check_kept(const struct kv_trace_info *in, const struct kv_replay_spec *spec,
                      struct kv_error *e) {
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (spec->needs & kept[i].need && !(in->keep & kept[i].keep))
            return kv_fail(e, KV_EFAIL, in->path,
                           "keeps no %s, which policy %s reads; record with --keep %s",
                           kept[i].what, spec->policy_name, kept[i].word);
    if (spec->needs & KV_NEED_NORMS && !in->kv_norms)
        return kv_fail(e, KV_EFAIL, in->path,
                       "holds no norms of the projections, which policy %s reads; record it again",
                       spec->policy_name);
    return 0;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

// Quantiles of n values, which are sorted in place; values that are not numbers are left out.
static void fill_quantiles(float *x, size_t n, float *quantile) {
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(x[i])) x[m++] = x[i];
    qsort(x, m, sizeof *x, ascending);
    for (size_t i = 0; i < KV_N_QUANTILES; i++)
        quantile[i] = m ? x[i * (m - 1) / (KV_N_QUANTILES - 1)] : NAN;
}

static struct kv_quantiles *quantiles_of(const struct kv_trace *t) {
    const struct kv_trace_info *in = kv_trace_info(t);
    struct kv_quantiles *q = kv_alloc(1, sizeof *q);
    float *x = kv_alloc(in->n_tokens, sizeof *x);
    q->struct_bytes = sizeof *q;
    for (size_t f = 0; f <= KV_MEAN_OF_FOUR; f++) {
        size_t n = 0;
        for (size_t i = 0; i < in->n_items; i++) {
            const struct kv_trace_item *it = kv_trace_item(t, i);
            for (size_t row = 0; row < it->n_tokens; row++) {
                const float *feature = it->features + row * KV_N_FEATURES;
                struct kv_token token = {0};
                memcpy(token.feature, feature, sizeof token.feature);
                x[n++] = f == KV_MEAN_OF_FOUR ? kv_mean_of_four(q, &token) : feature[f];
            }
        }
        fill_quantiles(x, n, q->quantile[f]);
    }
    free(x);
    return q;
}

int kv_replay_open_tables(struct kv_replay *r, enum kv_cell_table_kind form, unsigned jobs,
                          struct kv_error *e) {
    int rc = 0;
    bool quantiles = false;
    r->form = form;
    for (size_t j = 0; j < r->n_specs && rc == 0; j++) {
        rc = check_kept(kv_trace_info(r->trace), &r->specs[j], e);
        if (rc == 0) rc = kv_relinear_answers(r, &r->specs[j], e);
        quantiles = quantiles || r->specs[j].needs & KV_NEED_QUANTILES;
    }
    if (rc) return rc;
    if (quantiles) r->quantiles = quantiles_of(r->trace);
    r->damage = kv_alloc(r->n_specs, sizeof(struct kv_cell_table *));
    r->error = kv_alloc(r->n_specs, sizeof(struct kv_cell_table *));
    rc = open_kind(r, KV_NEED_DAMAGE, form, r->damage, jobs, e);
    if (rc == 0) rc = open_kind(r, KV_NEED_ERROR, KV_TABLE_ERROR, r->error, jobs, e);
    return rc ? rc : kv_replay_fit(r, jobs, e);
}

void kv_cell_tables_close(struct kv_cell_table **tables, size_t n) {
    for (size_t j = 0; tables && j < n; j++) {
        bool shared = false;
        for (size_t k = 0; k < j; k++) shared |= tables[k] == tables[j];
        if (!shared) kv_cell_table_close(tables[j]);
    }
    free(tables);
}

void kv_replay_close_tables(struct kv_replay *r) {
    kv_cell_tables_close(r->damage, r->n_specs);
    kv_cell_tables_close(r->error, r->n_specs);
    free(r->quantiles);
    r->damage = r->error = NULL;
    r->quantiles = NULL;
}
