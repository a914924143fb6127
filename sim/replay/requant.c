// SPDX-License-Identifier: Apache-2.0
// One tree pass until a choice's window is full; then choice by choice and window by window, each
// from a cache that was decoded and coded again.
#include "sim/replay/requant.h"

#include <stdlib.h>

#include "sim/base/finite.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/quant/code.h"

uint32_t kv_requant_window(const struct kv_format *f) {
    uint32_t most = f->gathers;
    for (int side = 0; side < 2; side++) {
        if (f->window[side] > most) most = f->window[side];
        if (f->flush[side] > most) most = f->flush[side];
    }
    return most;
}

struct requant {
    const struct kv_replay *r;
    struct kv_scratch *s;
    const struct kv_trace_item *it;
    const struct kv_replay_spec *spec;
    const uint8_t *cells;
    size_t width, n_cells, n_layers; // floats and cells of a token
    uint32_t window;
    double disturb;
    uint64_t *histogram;
    void *code_scratch;
    bool *not_finite; // set where something that attention reads is not finite
    float *state;     // [n_tokens][hidden] final states of the rows computed
};

static uint32_t length(const struct kv_trace_item *it, uint32_t c) {
    return it->first[c + 1] - it->first[c];
}

// ---- K and V of all layers ------------------------------------------------------------

static struct kv_layer_kv *layers_new(const struct requant *q, size_t rows) {
    struct kv_layer_kv *l = kv_alloc(q->n_layers, sizeof *l);
    size_t n = rows * q->width;
    float *block = kv_alloc(3 * n * q->n_layers, sizeof *block);
    for (size_t i = 0; i < q->n_layers; i++, block += 3 * n)
        l[i] = (struct kv_layer_kv){block, block + n, block + 2 * n};
    return l;
}

static void layers_free(struct kv_layer_kv *l) {
    if (l) free(l[0].k_raw);
    free(l);
}

static void copy_rows(const struct requant *q, const struct kv_layer_kv *from, size_t row,
                      struct kv_layer_kv *to, size_t at, size_t n) {
    for (size_t l = 0; l < q->n_layers; l++) {
        memcpy(to[l].k_raw + at * q->width, from[l].k_raw + row * q->width,
               n * q->width * sizeof(float));
        memcpy(to[l].k + at * q->width, from[l].k + row * q->width, n * q->width * sizeof(float));
        memcpy(to[l].v + at * q->width, from[l].v + row * q->width, n * q->width * sizeof(float));
    }
}

// ---- coding a held cache --------------------------------------------------------------

static void round_rows(float *x, size_t n) {
    uint16_t half[256];
    for (size_t i = 0; i < n; i += 256) {
        size_t here = n - i < 256 ? n - i : 256;
        kv_f32_to_f16_n(x + i, half, here);
        kv_f16_to_f32_n(half, x + i, here);
    }
}

// Codes rows [0, n) in place, `times` times over; rows from `fresh` on have been held in fp16.
static int code_again(const struct requant *q, struct kv_layer_kv *held, const uint8_t *cells,
                      size_t fresh, size_t n, uint32_t times, uint64_t *histogram,
                      struct kv_error *e) {
    const struct kv_format *f = q->spec->format;
    bool raw = f->keys_before_rope, rounds = *q->spec->format_text != '\0';
    uint32_t *positions = kv_alloc(n, sizeof *positions);
    int rc = 0;
    for (size_t i = 0; i < n; i++) positions[i] = (uint32_t)i;
    for (uint32_t l = 0; l < q->n_layers && rc == 0; l++) {
        float *x[2] = {raw ? held[l].k_raw : held[l].k, held[l].v};
        for (int side = 0; side < 2; side++) {
            struct kv_vectors rows = {.layer = l,
                                      .side = (enum kv_side)side,
                                      .n = n,
                                      .x = x[side],
                                      .x_stride = q->width,
                                      .y = x[side],
                                      .y_stride = q->width,
                                      .cells = cells + l * (q->n_cells / q->n_layers) + side,
                                      .cell_token_stride = q->n_cells,
                                      .cell_head_stride = 2};
            if (rounds) round_rows(x[side] + fresh * q->width, (n - fresh) * q->width);
            for (uint32_t i = 0; i < times && rc == 0; i++)
                rc = kv_code_rows(f, &rows, q->code_scratch, histogram, e);
            *q->not_finite |= !kv_all_finite(x[side], n * q->width);
        }
        if (raw) {
            memcpy(held[l].k, held[l].k_raw, n * q->width * sizeof(float));
            kv_rope_keys(q->r->model, (uint32_t)l, held[l].k, n, positions);
        }
    }
    free(positions);
    return rc;
}

// ---- passes ---------------------------------------------------------------------------

static int forward(const struct requant *q, struct kv_pass *p, const struct kv_tree *t,
                   uint32_t first_row, const struct kv_layer_kv *prefix, const uint32_t *upto,
                   float *final, struct kv_error *e) {
    struct kv_forward job = {.tree = t,
                             .first_row = first_row,
                             .prefix = prefix,
                             .coded_upto = upto,
                             .store = kv_pass_store,
                             .self = p,
                             .final = final,
                             .disturb = q->disturb,
                             .disturb_seed = q->r->seed + q->r->redraw + q->it->key};
    p->spec = q->spec;
    p->reads_exact = true;
    p->code_scratch = kv_alloc(kv_code_scratch_bytes(q->spec->format), 1);
    p->histogram = kv_alloc(256 * q->spec->run.n_widths, sizeof *p->histogram);
    int rc = kv_forward(q->r->model, &job, q->s, e);
    *q->not_finite |= p->not_finite;
    for (size_t i = 0; i < 256 * q->spec->run.n_widths; i++) q->histogram[i] += p->histogram[i];
    return rc;
}

// The last context token and the first window of each choice, which read the prompt as it was
// coded first. `kept` (NULL = no window fills) gets the K and V of the rows of this tree.
static int run_tree(const struct requant *q, const struct kv_layer_kv *prompt,
                    const struct kv_tree *t, const uint8_t *cells, struct kv_layer_kv *kept,
                    float *final, struct kv_error *e) {
    struct kv_pass p;
    uint32_t n = t->n_context, *upto = kv_alloc(2 * (size_t)t->n_tokens, sizeof *upto);
    kv_pass_init(&p, q->r->model, t);
    p.cells = cells;
    p.coded_segments = 1;
    p.kept = kept;
    for (size_t i = 0; i < 2 * (size_t)t->n_tokens; i++)
        upto[i] = i / 2 + 1 == n && q->r->self_exact ? n - 1 : n;
    int rc = forward(q, &p, t, n - 1, prompt, upto, final, e);
    kv_pass_fini(&p);
    free(upto);
    return rc;
}

// What is left of a choice once its first window is full. held: its cache, the context as it was
// coded and the window's tokens as they came.
static int run_rest(const struct requant *q, uint32_t c, struct kv_layer_kv *held,
                    struct kv_error *e) {
    const struct kv_trace_item *it = q->it;
    uint32_t n = it->n_context, end = n + length(it, c), h = q->r->model->shape.hidden;
    uint32_t *ids = kv_alloc(end, sizeof *ids);
    uint8_t *cells = kv_alloc(end * q->n_cells, 1);
    memcpy(ids, it->ids, n * sizeof *ids);
    memcpy(ids + n, it->ids + it->first[c], (end - n) * sizeof *ids);
    memcpy(cells, q->cells, n * q->n_cells);
    memcpy(cells + n * q->n_cells, q->cells + it->first[c] * q->n_cells, (end - n) * q->n_cells);
    int rc = 0;
    for (uint32_t from = n + q->window; from < end && rc == 0; from += q->window) {
        uint32_t to = end - from > q->window ? from + q->window : end;
        struct kv_tree path = {to, to, 0, NULL, ids};
        struct kv_pass p;
        if ((rc = code_again(q, held, cells, from - q->window, from, 1, q->histogram, e))) break;
        kv_pass_init(&p, q->r->model, &path);
        p.cells = cells;
        p.coded_segments = 0;
        p.held_rows = from;
        p.kept = held;
        rc = forward(q, &p, &path, from, held, NULL,
                     q->state + (size_t)(it->first[c] + from - n) * h, e);
        kv_pass_fini(&p);
    }
    free(ids);
    free(cells);
    return rc;
}

// A copy of the item's tree without the tokens behind each choice's first window.
struct cut {
    struct kv_tree tree;
    uint32_t *first, *ids;
    uint8_t *cells;
};

static void cut_init(const struct requant *q, struct cut *x) {
    const struct kv_trace_item *it = q->it;
    x->first = kv_alloc(it->n_choices + 1, sizeof *x->first);
    x->ids = kv_alloc(it->n_tokens, sizeof *x->ids);
    x->cells = kv_alloc(it->n_tokens * q->n_cells, 1);
    memcpy(x->ids, it->ids, it->n_context * sizeof *x->ids);
    memcpy(x->cells, q->cells, it->n_context * q->n_cells);
    uint32_t row = it->n_context;
    for (uint32_t c = 0; c < it->n_choices; c++) {
        uint32_t n = length(it, c) < q->window ? length(it, c) : q->window;
        x->first[c] = row;
        memcpy(x->ids + row, it->ids + it->first[c], n * sizeof *x->ids);
        memcpy(x->cells + row * q->n_cells, q->cells + it->first[c] * q->n_cells, n * q->n_cells);
        row += n;
    }
    x->first[it->n_choices] = row;
    x->tree = (struct kv_tree){row, it->n_context, it->n_choices, x->first, x->ids};
}

static void cut_fini(struct cut *x) {
    free(x->first);
    free(x->ids);
    free(x->cells);
}

static int run_all(const struct requant *q, const struct kv_layer_kv *prompt, bool fills,
                   struct kv_error *e) {
    const struct kv_trace_item *it = q->it;
    uint32_t n = it->n_context, h = q->r->model->shape.hidden;
    struct cut x;
    cut_init(q, &x);
    struct kv_layer_kv *kept = fills ? layers_new(q, x.tree.n_tokens) : NULL;
    float *final = kv_alloc((size_t)(x.tree.n_tokens - n + 1) * h, sizeof *final);
    int rc = run_tree(q, prompt, &x.tree, x.cells, kept, final, e);
    memcpy(q->state + (size_t)(n - 1) * h, final, h * sizeof *final);
    for (uint32_t c = 0; c < it->n_choices; c++)
        memcpy(q->state + (size_t)it->first[c] * h, final + (size_t)(x.first[c] - n + 1) * h,
               (size_t)(x.first[c + 1] - x.first[c]) * h * sizeof *final);
    free(final);
    // The context is coded as the tree's pass coded it; its codes were counted there.
    struct kv_layer_kv *context = fills ? layers_new(q, n) : NULL;
    if (rc == 0 && fills) {
        copy_rows(q, kept, 0, context, 0, n);
        rc = code_again(q, context, q->cells, n, n, q->spec->hops, NULL, e);
    }
    for (uint32_t c = 0; c < it->n_choices && rc == 0; c++) {
        if (length(it, c) <= q->window) continue;
        struct kv_layer_kv *held = layers_new(q, n + length(it, c));
        copy_rows(q, context, 0, held, 0, n);
        copy_rows(q, kept, x.first[c], held, n, q->window);
        rc = run_rest(q, c, held, e);
        layers_free(held);
    }
    layers_free(context);
    layers_free(kept);
    cut_fini(&x);
    return rc;
}

int kv_requant_run(const struct kv_replay *r, struct kv_scratch *s, const struct kv_trace_item *it,
                   const struct kv_replay_spec *spec, const uint8_t *cells,
                   const struct kv_layer_kv *prompt, double disturb, float *scored,
                   uint64_t *histogram, struct kv_error *e) {
    const struct kv_shape *sh = &r->model->shape;
    struct requant q = {.r = r,
                        .s = s,
                        .it = it,
                        .spec = spec,
                        .cells = cells,
                        .width = (size_t)sh->n_kv_heads * sh->head_dim,
                        .n_cells = kv_cells(sh),
                        .n_layers = sh->n_layers,
                        .window = kv_requant_window(spec->format),
                        .disturb = disturb,
                        .histogram = histogram};
    bool fills = false, not_finite = false;
    q.not_finite = &not_finite;
    for (uint32_t c = 0; c < it->n_choices; c++) fills |= length(it, c) > q.window;
    q.code_scratch = kv_alloc(kv_code_scratch_bytes(spec->format), 1);
    q.state = kv_alloc((size_t)it->n_tokens * sh->hidden, sizeof *q.state);
    int rc = run_all(&q, prompt, fills, e);
    for (uint32_t f = 0; f < it->n_final && rc == 0; f++)
        memcpy(scored + (size_t)f * sh->hidden, q.state + (size_t)it->final_rows[f] * sh->hidden,
               sh->hidden * sizeof *scored);
    for (size_t i = 0; not_finite && i < (size_t)it->n_final * sh->hidden; i++) scored[i] = NAN;
    free(q.state);
    free(q.code_scratch);
    return rc;
}
