// SPDX-License-Identifier: Apache-2.0
// Asking what shall be stored narrower by now, and storing it so.
#include "sim/replay/ageing.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/replay/layered.h"
#include "sim/replay/scrambled.h"

struct kv_ages *kv_ages_new(const struct kv_shape *s, uint32_t n_context) {
    size_t most = n_context / KV_REVISE_TOKENS, per_layer = (size_t)s->n_kv_heads * 2;
    struct kv_ages *a = kv_alloc(1, sizeof *a);
    a->at = kv_alloc(most + 1, sizeof *a->at);
    a->changes = kv_alloc(KV_REVISE_TOKENS * per_layer * most * (most + 1) / 2 + 1, 1);
    a->stored = kv_alloc(3 * n_context * per_layer + 1, 1);
    a->answer = a->stored + n_context * per_layer;
    a->again = a->answer + n_context * per_layer;
    return a;
}

void kv_ages_free(struct kv_ages *a) {
    if (!a) return;
    free(a->at);
    free(a->changes);
    free(a->stored);
    free(a);
}

void kv_ages_begin(struct kv_ages *a) {
    a->n = 0;
}

bool kv_ages_at(const struct kv_layered *y, uint32_t row) {
    return y->ages && row > 0 && row % KV_REVISE_TOKENS == 0 && row <= y->tree->n_context;
}

// How often a layer of the tree is asked.
static uint32_t n_asked(const struct kv_tree *t) {
    return (t->n_tokens > t->n_context ? t->n_context : t->n_context - 1) / KV_REVISE_TOKENS;
}

// Asks the same again with a scrambled item and the state as it was.
static int ask_again(struct kv_layered *y, const struct kv_layer_ages *ages, size_t n_cells,
                     struct kv_error *e) {
    struct kv_ages *a = y->ages;
    struct kv_scrambled other;
    struct kv_layer_ages shown = *ages;
    kv_scrambled_init(&other, y->view, (uint32_t)ages->n - 1);
    shown.item = &other.item;
    memcpy(a->again, a->stored, n_cells);
    int rc = y->by->policy->revise(y->by->self, &shown, y->spare_state, a->again, e);
    if (rc == 0 && memcmp(a->again, a->answer, n_cells) != 0)
        rc = kv_fail(e, KV_EFAIL, y->spec->canonical,
                     "policy %s revised layer %u at %zu tokens by what it does not declare, by "
                     "what comes later, or by something that it keeps besides its state",
                     y->by->policy_name, ages->layer, ages->n);
    kv_scrambled_fini(&other);
    return rc;
}

static int refuse(const struct kv_layered *y, uint32_t layer, size_t row, uint8_t from, uint8_t to,
                  struct kv_error *e) {
    const struct kv_run *run = &y->spec->run;
    char what[64];
    if (to < run->n_widths)
        snprintf(what, sizeof what, "widens a cell from %u to %u bits", run->width_bits[from],
                 run->width_bits[to]);
    else
        snprintf(what, sizeof what, "%s",
                 to == KV_EVICT     ? "evicts a cell"
                 : to == KV_FLOAT32 ? "asks for float32"
                                    : "asks for a width that the format does not offer");
    return kv_fail(e, KV_EFAIL, y->spec->canonical,
                   "policy %s %s as it ages, at item %s, token %zu, layer %u; what is stored can "
                   "only become narrower",
                   y->by->policy_name, what, y->item ? y->item : "?", row, layer);
}

// Checks the answers, lowers cells and remembers what changed.
static int take_answers(struct kv_layered *y, uint32_t layer, uint32_t position, uint8_t *cells,
                        struct kv_error *e) {
    struct kv_ages *a = y->ages;
    const struct kv_shape *s = &y->spec->run.shape;
    size_t per_token = kv_cells(s), per_layer = per_token / s->n_layers;
    struct kv_age *last = a->n ? &a->at[a->n - 1] : NULL;
    size_t used = last ? (size_t)(last->cells - a->changes) + last->position * per_layer : 0;
    uint8_t *changes = a->changes + used;
    bool any = false;
    for (size_t i = 0; i < position * per_layer; i++) {
        uint8_t from = a->stored[i], to = a->answer[i];
        if (to > from) return refuse(y, layer, i / per_layer, from, to, e);
        changes[i] = to < from ? to : KV_FLOAT32;
        any |= to < from;
        cells[i / per_layer * per_token + layer * per_layer + i % per_layer] = to;
    }
    if (any) a->at[a->n++] = (struct kv_age){position, changes};
    return 0;
}

int kv_ages_ask(struct kv_layered *y, uint32_t layer, uint32_t position, uint8_t *cells,
                struct kv_error *e) {
    struct kv_ages *a = y->ages;
    const struct kv_shape *s = &y->spec->run.shape;
    size_t per_token = kv_cells(s), per_layer = per_token / s->n_layers, n = position * per_layer;
    for (size_t row = 0; row < position; row++)
        memcpy(a->stored + row * per_layer, cells + row * per_token + layer * per_layer, per_layer);
    memcpy(a->answer, a->stored, n);
    struct kv_layer_ages ages = {
        .struct_bytes = sizeof ages, .item = y->view, .layer = layer, .n = position};
    bool audit = y->audit && position / KV_REVISE_TOKENS - 1 == layer * 37u % n_asked(y->tree);
    if (audit) memcpy(y->spare_state, y->context_state, y->state_bytes);
    int rc = y->by->policy->revise(y->by->self, &ages, y->context_state, a->answer, e);
    if (rc == 0 && audit) rc = ask_again(y, &ages, n, e);
    return rc ? rc : take_answers(y, layer, position, cells, e);
}

int kv_age_code(const struct kv_format *f, uint32_t layer, enum kv_side side,
                const struct kv_age *a, size_t from, float *stored, void *memory,
                uint64_t *histogram, struct kv_error *e) {
    const struct kv_shape *s = &f->setting.shape;
    size_t width = (size_t)s->n_kv_heads * s->head_dim, per_layer = (size_t)s->n_kv_heads * 2;
    if (from >= a->position) return 0;
    struct kv_vectors rows = {.layer = layer,
                              .side = side,
                              .first = from,
                              .n = a->position - from,
                              .x = stored + from * width,
                              .x_stride = width,
                              .y = stored + from * width,
                              .y_stride = width,
                              .cells = a->cells + from * per_layer + side,
                              .cell_token_stride = per_layer,
                              .cell_head_stride = 2};
    return kv_code_rows(f, &rows, memory, histogram, e);
}
