// SPDX-License-Identifier: Apache-2.0
// Row after row of a layer before a policy that decides there.
#include "sim/replay/layered.h"

#include <stdlib.h>

#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/model/cell_features.h"
#include "sim/quant/code.h"
#include "sim/replay/plugin.h"
#include "sim/replay/scrambled.h"

int kv_layered_answers(const struct kv_replay_spec *spec, enum kv_mode mode, bool closed,
                       struct kv_error *e) {
    const struct kv_replay_spec *by = kv_by_layers(spec);
    const struct kv_format *f = spec->format;
    if (!by) return 0;
    if (mode == KV_REQUANT)
        return kv_fail(e, KV_EUSAGE, spec->canonical,
                       "policy %s decides when a layer codes a token, once; mode requant codes "
                       "everything again and again",
                       by->policy_name);
    if (closed && by->needs)
        return kv_fail(e, KV_EUSAGE, spec->canonical,
                       "policy %s reads recorded features (open); closed feedback has none for it",
                       by->policy_name);
    const char *why = f->scope != KV_SCOPE_VECTOR ? "shares scales beyond one head's vector"
                      : f->window[0] || f->window[1] || f->flush[0] > 1 || f->flush[1] > 1
                          ? "keeps a window of tokens exact"
                      : f->keys_before_rope  ? "codes keys before RoPE"
                      : f->centre.tokens > 0 ? "takes the mean of tokens that come first"
                                             : NULL;
    return why ? kv_fail(e, KV_EUSAGE, spec->canonical,
                         "policy %s decides for each cell as it is coded; format %s %s",
                         by->policy_name, f->type->name, why)
               : 0;
}

void kv_layered_init(struct kv_layered *y, const struct kv_replay_spec *spec,
                     const struct kv_item *view, uint32_t n_tokens) {
    const struct kv_shape *s = &spec->run.shape;
    const struct kv_replay_spec *by = kv_by_layers(spec);
    size_t n_kv = (size_t)s->n_kv_heads * s->head_dim;
    *y = (struct kv_layered){.spec = spec, .by = by, .view = view};
    y->memory = kv_alloc(kv_code_scratch_bytes(spec->format), 1);
    y->stored = kv_alloc(n_tokens * n_kv, sizeof(float));
    y->trial = kv_alloc(n_kv, sizeof(float));
    y->error = kv_alloc((size_t)s->n_kv_heads * 2 * spec->run.n_widths, sizeof(float));
    y->scores = kv_alloc(n_tokens, sizeof(float));
    y->features = kv_alloc((size_t)s->n_kv_heads * KV_N_CELL_FEATURES, sizeof(float));
    if (by->policy->layer_state_bytes) // whole lines of 16, so that each copy is aligned
        y->state_bytes = (by->policy->layer_state_bytes(by->self) + 15) / 16 * 16;
    y->context_state = kv_alloc(3 * y->state_bytes + 1, 1);
    y->state = y->context_state + y->state_bytes;
    y->spare_state = y->state + y->state_bytes;
    if (by->policy->revise) {
        y->first = kv_alloc(n_tokens * kv_cells(s), 1);
        y->ages = kv_ages_new(s, view->n_context);
    }
}

void kv_layered_fini(struct kv_layered *y) {
    void *owned[] = {y->memory, y->stored,   y->trial,         y->error,
                     y->scores, y->features, y->context_state, y->first};
    kv_ages_free(y->ages);
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    *y = (struct kv_layered){0};
}

// ---- one row --------------------------------------------------------------------------

// A row of one side as code.h wants it: alone, at its place in its branch.
static struct kv_vectors row_of(const struct kv_layered *y, uint32_t layer, enum kv_side side,
                                uint32_t row, const float *x, float *out, const uint8_t *cells,
                                size_t head_stride) {
    const struct kv_tree *t = y->tree;
    const struct kv_shape *s = &y->spec->run.shape;
    size_t width = (size_t)s->n_kv_heads * s->head_dim;
    return (struct kv_vectors){.layer = layer,
                               .side = side,
                               .start = row < t->n_context ? 0 : t->n_context,
                               .first = kv_tree_position(t, row),
                               .n = 1,
                               .x = x,
                               .x_stride = width,
                               .y = out,
                               .y_stride = width,
                               .cells = cells,
                               .cell_token_stride = width,
                               .cell_head_stride = head_stride};
}

// What each cell of a row would lose at each width that the policy asks for:
// error[n_kv_heads][2][n_widths].
static int try_widths(struct kv_layered *y, const struct kv_layer_pass *p, uint32_t row,
                      struct kv_error *e) {
    const struct kv_run *run = &y->spec->run;
    const struct kv_shape *s = &run->shape;
    const struct kv_policy *policy = y->by->policy;
    size_t d = s->head_dim, width = (size_t)s->n_kv_heads * d;
    uint32_t wanted = policy->error_widths ? policy->error_widths(y->by->self) : UINT32_MAX;
    const float *weights = policy->error_weights ? policy->error_weights(y->by->self) : NULL;
    uint8_t *cells = kv_alloc(s->n_kv_heads, 1);
    int rc = 0;
    for (size_t w = 0; w < run->n_widths && rc == 0; w++) {
        if (!(wanted >> w & 1)) continue;
        memset(cells, (int)w, s->n_kv_heads);
        for (int side = 0; side < 2 && rc == 0; side++) {
            const float *x = (side ? p->v : p->k) + row * width;
            struct kv_vectors r =
                row_of(y, p->layer, (enum kv_side)side, row, x, y->trial, cells, 1);
            rc = kv_code_rows(y->spec->format, &r, y->memory, NULL, e);
            for (size_t h = 0; h < s->n_kv_heads && rc == 0; h++) {
                const float *m =
                    weights
                        ? weights + (((size_t)p->layer * s->n_kv_heads + h) * 2 + (size_t)side) * d
                        : NULL;
                float sum = 0;
                for (size_t i = 0; i < d; i++) {
                    float off = y->trial[h * d + i] - x[h * d + i];
                    sum += (m ? m[i] : 1) * off * off;
                }
                y->error[(2 * h + (size_t)side) * run->n_widths + w] = sum;
            }
        }
    }
    free(cells);
    return rc;
}

static void own_attention(struct kv_layered *y, const struct kv_layer_pass *p, uint32_t row) {
    const struct kv_shape *s = &y->spec->run.shape;
    const struct kv_tree *t = y->tree;
    size_t width = (size_t)s->n_kv_heads * s->head_dim, n_q = (size_t)s->n_heads * s->head_dim;
    uint32_t c = kv_tree_choice(t, row);
    bool in_context = c == t->n_choices;
    size_t first = in_context ? row : t->first[c];
    struct kv_cell_span seen[2] = {
        {y->stored, width, in_context ? row : t->n_context},
        {y->stored + first * width, width, row - first},
    };
    if (y->spec->windows)
        kv_cell_spans_skip(seen, 2,
                           kv_window_start(y->spec->windows[p->layer], kv_tree_position(t, row)));
    kv_cell_features(s, p->q + row * n_q, p->k + row * width, p->v + row * width, seen, 2,
                     y->scores, y->features);
}

// ---- the audit ------------------------------------------------------------------------

// Asks again about the same row with a scrambled item and the state as it was.
static int ask_again(struct kv_layered *y, const struct kv_layer_rows *rows, void *state,
                     const uint8_t *cells, struct kv_error *e) {
    size_t n = (size_t)y->spec->run.shape.n_kv_heads * 2;
    uint8_t *again = kv_alloc(n, 1);
    struct kv_scrambled other;
    struct kv_layer_rows shown = *rows;
    kv_scrambled_init(&other, y->view, (uint32_t)rows->first);
    shown.item = &other.item;
    int rc = y->by->policy->decide_layer(y->by->self, &shown, state, again, e);
    if (rc == 0 && memcmp(again, cells, n) != 0)
        rc =
            kv_fail(e, KV_EFAIL, y->spec->canonical,
                    "policy %s decided about token %zu in layer %u by what it does not declare, by "
                    "what comes later, or by something that it keeps besides its state",
                    y->by->policy_name, rows->first, rows->layer);
    kv_scrambled_fini(&other);
    free(again);
    return rc;
}

// ---- a layer --------------------------------------------------------------------------

static int ask_row(struct kv_layered *y, const struct kv_layer_pass *p, uint32_t row, void *state,
                   uint8_t *cells, struct kv_error *e) {
    const struct kv_run *run = &y->spec->run;
    const struct kv_shape *s = &run->shape;
    const struct kv_policy *policy = y->by->policy;
    size_t width = (size_t)s->n_kv_heads * s->head_dim,
           n_features = (size_t)s->n_kv_heads * KV_N_CELL_FEATURES;
    bool tried = !policy->error_widths || policy->error_widths(y->by->self);
    if (!p->features) own_attention(y, p, row);
    int rc = tried ? try_widths(y, p, row, e) : 0;
    if (rc) return rc;
    struct kv_layer_rows rows = {.struct_bytes = sizeof rows,
                                 .item = y->view,
                                 .layer = p->layer,
                                 .first = row,
                                 .n = 1,
                                 .features =
                                     p->features ? p->features + row * n_features : y->features,
                                 .input = p->input + (size_t)row * s->hidden,
                                 .k = p->k + row * width,
                                 .v = p->v + row * width,
                                 .error = tried ? y->error : NULL,
                                 .window = y->spec->windows ? y->spec->windows[p->layer] : 0};
    bool audit = y->audit && row == p->layer * 37u % y->tree->n_tokens;
    if (audit) memcpy(y->spare_state, state, y->state_bytes);
    rc = policy->decide_layer(y->by->self, &rows, state, cells, e);
    return rc || !audit ? rc : ask_again(y, &rows, y->spare_state, cells, e);
}

// What later rows see of the row's key.
static int store_key(struct kv_layered *y, const struct kv_layer_pass *p, uint32_t row,
                     const uint8_t *cells, struct kv_error *e) {
    const struct kv_shape *s = &y->spec->run.shape;
    size_t width = (size_t)s->n_kv_heads * s->head_dim;
    const struct kv_policy *policy = y->by->policy;
    const float *x = p->k + row * width;
    float *to = y->stored + row * width;
    if (row >= y->exact_rows &&
        !(policy->reads_exact_keys && policy->reads_exact_keys(y->by->self))) {
        struct kv_vectors r = row_of(y, p->layer, KV_KEY, row, x, to, cells, 2);
        return kv_code_rows(y->spec->format, &r, y->memory, NULL, e);
    }
    for (size_t i = 0; i < width; i++) to[i] = kv_half_to_float(kv_f32_to_f16(x[i]));
    return 0;
}

// What later rows see of keys that were stored wider before.
static int lower_keys(struct kv_layered *y, const struct kv_layer_pass *p, uint32_t position,
                      struct kv_error *e) {
    const struct kv_policy *policy = y->by->policy;
    const struct kv_age *last = y->ages->n ? &y->ages->at[y->ages->n - 1] : NULL;
    if (p->features || !last || last->position != position ||
        (policy->reads_exact_keys && policy->reads_exact_keys(y->by->self)))
        return 0;
    return kv_age_code(y->spec->format, p->layer, KV_KEY, last, y->exact_rows, y->stored, y->memory,
                       NULL, e);
}

static int decide_rows(struct kv_layered *y, const struct kv_layer_pass *p, uint8_t *cells,
                       struct kv_error *e) {
    const struct kv_tree *t = y->tree;
    const struct kv_shape *s = &y->spec->run.shape;
    size_t per_token = kv_cells(s), per_layer = per_token / s->n_layers;
    int rc = 0;
    memset(y->context_state, 0, y->state_bytes);
    if (y->ages) kv_ages_begin(y->ages);
    for (uint32_t row = 0; row < t->n_tokens && rc == 0; row++) {
        uint32_t c = kv_tree_choice(t, row);
        bool in_context = c == t->n_choices;
        if (kv_ages_at(y, row)) {
            rc = kv_ages_ask(y, p->layer, row, cells, e);
            if (rc == 0) rc = lower_keys(y, p, row, e);
            if (rc) break;
        }
        if (!in_context && row == t->first[c]) memcpy(y->state, y->context_state, y->state_bytes);
        uint8_t *to = cells + row * per_token + p->layer * per_layer;
        rc = ask_row(y, p, row, in_context ? y->context_state : y->state, to, e);
        for (size_t i = 0; i < per_layer && rc == 0; i++)
            if (to[i] >= y->spec->run.n_widths)
                rc = kv_fail(e, KV_EFAIL, y->spec->canonical,
                             "policy %s answers with a width that the format does not offer, at "
                             "token %u, layer %u",
                             y->by->policy_name, row, p->layer);
        if (rc == 0 && !p->features) rc = store_key(y, p, row, to, e);
        if (rc == 0 && y->first)
            memcpy(y->first + row * per_token + p->layer * per_layer, to, per_layer);
    }
    return rc;
}

int kv_layered_layer(struct kv_layered *y, const struct kv_layer_pass *p, uint8_t *cells,
                     struct kv_error *e) {
    const char *before = kv_plugin_enter(kv_spec_plugin(y->by));
    int rc = decide_rows(y, p, cells, e);
    kv_plugin_leave(before);
    return rc;
}

// ---- from a recording -----------------------------------------------------------------

// One layer of [n_tokens][n_layers][width] halves.
static void widen(const uint16_t *x, size_t n_tokens, size_t n_layers, size_t layer, size_t width,
                  float *out) {
    for (size_t row = 0; row < n_tokens; row++)
        kv_f16_to_f32_n(x + (row * n_layers + layer) * width, out + row * width, width);
}

int kv_layered_recorded(const struct kv_replay *r, size_t which, size_t item,
                        const struct kv_item *view, uint8_t *cells, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(r->trace);
    const struct kv_trace_item *it = kv_trace_item(r->trace, item);
    const struct kv_replay_spec *spec = &r->specs[which];
    const struct kv_shape *s = &in->shape;
    size_t n = it->n_tokens, width = (size_t)s->n_kv_heads * s->head_dim,
           n_features = (size_t)s->n_kv_heads * KV_N_CELL_FEATURES;
    if (!(in->keep & KV_KEEP_CELLS))
        return kv_fail(e, KV_EFAIL, in->path,
                       "keeps no features of cells, by which policy %s decides without a run; "
                       "record with --keep cells",
                       kv_by_layers(spec)->policy_name);
    int rc = kv_layered_answers(spec, r->mode, false, e);
    if (rc == 0) rc = kv_trace_check_item(r->trace, item, KV_KEEP_CELLS | KV_KEEP_KV, e);
    if (rc) return rc;
    struct kv_tree tree = {it->n_tokens, it->n_context, it->n_choices, it->first, it->ids};
    struct kv_layered y;
    kv_layered_init(&y, spec, view, it->n_tokens);
    y.tree = &tree;
    y.item = it->id;
    float *k = kv_alloc(n * width, sizeof *k), *v = kv_alloc(n * width, sizeof *v),
          *input = kv_alloc(n * s->hidden, sizeof *input),
          *features = kv_alloc(n * n_features, sizeof *features);
    for (uint32_t l = 0; l < s->n_layers && rc == 0; l++) {
        widen(it->k, n, s->n_layers, l, width, k);
        widen(it->v, n, s->n_layers, l, width, v);
        widen(it->cells_input, n, s->n_layers, l, s->hidden, input);
        for (size_t row = 0; row < n; row++)
            memcpy(features + row * n_features,
                   it->cells_attention + (row * s->n_layers + l) * n_features,
                   n_features * sizeof *features);
        rc = kv_layered_layer(&y,
                              &(struct kv_layer_pass){
                                  .layer = l, .features = features, .input = input, .k = k, .v = v},
                              cells, e);
    }
    kv_layered_fini(&y);
    free(k);
    free(v);
    free(input);
    free(features);
    return rc;
}
