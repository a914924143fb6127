// SPDX-License-Identifier: Apache-2.0
// The store hook of exact replay: from a layer's K and V to what attention reads of them.
#include "sim/replay/pass.h"

#include <stdlib.h>

#include "sim/base/finite.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/quant/code.h"
#include "traces/features.h"

// What an exact read returns: held rows as they are, the others rounded to fp16.
static void round_rows(const struct kv_pass *p, const float *x, float *y, size_t n) {
    size_t held = (size_t)p->held_rows * p->m->shape.n_kv_heads * p->m->shape.head_dim;
    memcpy(y, x, held * sizeof *y);
    kv_f32_to_f16_n(x + held, p->half, n - held);
    kv_f16_to_f32_n(p->half, y + held, n - held);
}

static bool mark_evicted(const struct kv_pass *p, uint32_t layer) {
    const struct kv_shape *s = &p->m->shape;
    size_t per_token = kv_cells(s), per_layer = per_token / s->n_layers;
    bool any = false;
    for (size_t h = 0; h < s->n_kv_heads; h++)
        for (size_t row = 0; row < p->tree->n_tokens; row++) {
            bool gone = p->cells[row * per_token + layer * per_layer + 2 * h] == KV_EVICT;
            p->evicted[h * p->tree->n_tokens + row] = gone;
            any |= gone;
        }
    return any;
}

// Codes the context's rows and then each choice's: a choice's groups of tokens begin at the branch.
static int code_side(const struct kv_pass *p, uint32_t layer, enum kv_side side, const float *x,
                     float *y, struct kv_error *e) {
    const struct kv_tree *t = p->tree;
    for (uint32_t b = 0; b < p->coded_segments; b++) {
        struct kv_vectors rows =
            kv_branch_rows(&p->m->shape, layer, side, t->n_context, t->first, b, p->cells, x, y);
        int rc = kv_code_rows(p->spec->format, &rows, p->code_scratch, p->histogram, e);
        rows.x = rows.y; // a prompt that is handed on is coded again from what was read
        for (uint32_t hop = 1; b == 0 && hop < p->spec->hops && rc == 0; hop++)
            rc = kv_code_rows(p->spec->format, &rows, p->code_scratch, p->histogram, e);
        if (rc) return rc;
    }
    return 0;
}

static void check_read(struct kv_pass *p, const float *k, const float *v, size_t n) {
    p->not_finite = p->not_finite || !kv_all_finite(k, n) || !kv_all_finite(v, n);
}

// The rows that were computed stand behind those that came before.
static void take_rows(const float *x, size_t width, size_t first, size_t n, const float *before,
                      float *to) {
    if (first) memcpy(to, before, first * width * sizeof *to);
    memcpy(to + first * width, x, n * width * sizeof *to);
}

void kv_pass_observe(void *self, uint32_t layer, const float *x, const float *norm, const float *q,
                     const struct kv_layer_kv *kv) {
    struct kv_pass *p = self;
    const struct kv_shape *s = &p->m->shape;
    size_t first = p->first_row, n = p->tree->n_tokens - first,
           n_q = (size_t)s->n_heads * s->head_dim;
    (void)x, (void)kv;
    if (p->layered) {
        take_rows(norm, s->hidden, first, n, first ? p->before[layer].input : NULL, p->now.input);
        take_rows(q, n_q, first, n, first ? p->before[layer].q : NULL, p->now.q);
    }
    if (p->seen) {
        memcpy(p->seen[layer].input, norm, n * s->hidden * sizeof *norm);
        memcpy(p->seen[layer].q, q, n * n_q * sizeof *q);
    }
}

int kv_pass_store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                  struct kv_layer_view *view, struct kv_error *e) {
    struct kv_pass *p = self;
    size_t n = (size_t)p->tree->n_tokens * p->m->shape.n_kv_heads * p->m->shape.head_dim;
    if (p->reads_exact) {
        round_rows(p, kv->k, p->exact[KV_KEY], n);
        round_rows(p, kv->v, p->exact[KV_VALUE], n);
        view->k_exact = p->exact[KV_KEY];
        view->v_exact = p->exact[KV_VALUE];
        check_read(p, p->exact[KV_KEY], p->exact[KV_VALUE], n);
    }
    for (int side = 0; p->features && side < 2; side++)
        kv_add_ranges(&p->m->shape, p->exact[side], p->first_live, p->tree->n_tokens,
                      side ? KV_VALUE_RANGE : KV_KEY_RANGE, p->features);
    if (p->spec && !*p->spec->format_text) { // policy none: nothing is rounded
        view->k_exact = kv->k;
        view->v_exact = kv->v;
        check_read(p, kv->k, kv->v, n);
    }
    if (p->kept) {
        memcpy(p->kept[layer].k_raw, kv->k_raw, n * sizeof(float));
        memcpy(p->kept[layer].k, kv->k, n * sizeof(float));
        memcpy(p->kept[layer].v, kv->v, n * sizeof(float));
    }
    if (!p->spec) return 0;
    if (p->layered) {
        struct kv_layer_pass at = {
            .layer = layer, .q = p->now.q, .input = p->now.input, .k = kv->k, .v = kv->v};
        int decided = kv_layered_layer(p->layered, &at, p->layered_cells, e);
        if (decided) return decided;
        p->aged = 0;
    }
    bool raw = p->spec->format->keys_before_rope;
    int rc = code_side(p, layer, KV_KEY, raw ? kv->k_raw : kv->k, p->coded[KV_KEY], e);
    if (rc == 0) rc = code_side(p, layer, KV_VALUE, kv->v, p->coded[KV_VALUE], e);
    if (rc) return rc;
    if (raw) kv_rope_keys(p->m, layer, p->coded[KV_KEY], p->tree->n_tokens, p->positions);
    check_read(p, p->coded[KV_KEY], p->coded[KV_VALUE], n);
    view->k_coded = p->coded[KV_KEY];
    view->v_coded = p->coded[KV_VALUE];
    view->evicted = mark_evicted(p, layer) ? p->evicted : NULL;
    return 0;
}

int kv_pass_age(void *self, uint32_t layer, uint32_t position, struct kv_error *e) {
    struct kv_pass *p = self;
    const struct kv_ages *ages = p->layered->ages;
    size_t width = (size_t)p->m->shape.n_kv_heads * p->m->shape.head_dim;
    int changed = 0;
    for (; p->aged < ages->n && ages->at[p->aged].position <= position; p->aged++) {
        const struct kv_age *a = &ages->at[p->aged];
        for (int side = 0; side < 2; side++) {
            int rc = kv_age_code(p->spec->format, layer, (enum kv_side)side, a, 0, p->coded[side],
                                 p->code_scratch, p->histogram, e);
            if (rc) return rc;
        }
        check_read(p, p->coded[KV_KEY], p->coded[KV_VALUE], a->position * width);
        changed = 1;
    }
    return changed;
}

void kv_pass_init(struct kv_pass *p, const struct kv_model *m, const struct kv_tree *t) {
    size_t n = (size_t)t->n_tokens * m->shape.n_kv_heads * m->shape.head_dim;
    *p = (struct kv_pass){.m = m, .tree = t, .coded_segments = t->n_choices + 1};
    for (int s = 0; s < 2; s++) {
        p->exact[s] = kv_alloc(n, sizeof(float));
        p->coded[s] = kv_alloc(n, sizeof(float));
    }
    p->half = kv_alloc(n, sizeof *p->half);
    p->evicted = kv_alloc((size_t)t->n_tokens * m->shape.n_kv_heads, 1);
    p->positions = kv_alloc(t->n_tokens, sizeof *p->positions);
    for (uint32_t row = 0; row < t->n_tokens; row++) p->positions[row] = kv_tree_position(t, row);
}

void kv_pass_layered(struct kv_pass *p, struct kv_layered *y, uint8_t *cells, uint32_t first_row,
                     const struct kv_pass_rows *before) {
    const struct kv_shape *s = &p->m->shape;
    p->layered = y;
    p->layered_cells = cells;
    p->cells = y->first ? y->first : cells;
    p->first_row = first_row;
    p->before = before;
    p->now.input = kv_alloc((size_t)p->tree->n_tokens * s->hidden, sizeof(float));
    p->now.q = kv_alloc((size_t)p->tree->n_tokens * s->n_heads * s->head_dim, sizeof(float));
}

void kv_pass_fini(struct kv_pass *p) {
    for (int s = 0; s < 2; s++) {
        free(p->exact[s]);
        free(p->coded[s]);
    }
    free(p->half);
    free(p->evicted);
    free(p->code_scratch);
    free(p->histogram);
    free(p->positions);
    free(p->now.input);
    free(p->now.q);
}
