// SPDX-License-Identifier: Apache-2.0
// A made-up item for tests of policies: every array that a policy may declare, seeded.
#ifndef KV_POLICIES_TEST_FAKE_ITEM_H
#define KV_POLICIES_TEST_FAKE_ITEM_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/replay/ledger.h"
#include "sim/replay/replay.h"

static const struct kv_format_setting fake_setting = {.shape = {.n_layers = 3,
                                                                .n_heads = 4,
                                                                .n_kv_heads = 2,
                                                                .head_dim = 32,
                                                                .hidden = 16,
                                                                .ffn = 32,
                                                                .vocab = 100,
                                                                .max_tokens = 512},
                                                      .order = KV_ORDER_GGML};

struct fake {
    struct kv_item item;
    struct kv_quantiles quantiles;
    uint8_t *cells;
};

static inline struct kv_replay_spec fake_unfitted(const char *text) {
    struct kv_replay_spec spec;
    struct kv_error e = {0};
    if (kv_replay_spec_open(&spec, text, &fake_setting, 1, &e))
        fail_msg("%s: %s: %s", text, e.where, e.msg);
    return spec;
}

// Errors that fall with each bit and differ from layer to layer.
static inline int fake_output_error(const struct kv_fitting *f, size_t n, size_t n_pairs,
                                    const uint8_t (*pair)[2], double *error, struct kv_error *e) {
    size_t n_layers = f->run->shape.n_layers;
    (void)n, (void)e;
    for (size_t p = 0; p < n_pairs; p++)
        for (size_t l = 0; l < n_layers; l++)
            error[p * n_layers + l] =
                (1 + (double)l) * (3 * pow(4, -f->run->width_bits[pair[p][0]]) +
                                   pow(4, -f->run->width_bits[pair[p][1]]));
    return 0;
}

static inline struct kv_replay_spec fake_spec(const char *text) {
    struct kv_replay_spec spec = fake_unfitted(text);
    struct kv_error e = {0};
    for (struct kv_replay_spec *s = &spec; s; s = s->inner) {
        struct kv_fitting f = {.struct_bytes = sizeof f,
                               .run = &s->run,
                               .n_items = 1,
                               .output_error = fake_output_error};
        if (s->policy->fit && s->policy->fit(s->self, &f, &e)) fail_msg("%s: %s", text, e.msg);
    }
    return spec;
}

static inline uint16_t *fake_halves(size_t n, uint64_t seed, double size) {
    uint16_t *x = kv_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = kv_f32_to_f16((float)(size * (2 * kv_draw(seed, 5, i) - 1)));
    return x;
}

// A context and `n_choices` choices of n_choice tokens each.
static inline struct fake *fake_new(const struct kv_run *run, uint32_t n_context,
                                    uint32_t n_choices, uint32_t n_choice, uint64_t seed) {
    const struct kv_shape *s = &run->shape;
    struct fake *f = kv_alloc(1, sizeof *f);
    size_t n = n_context + n_choices * n_choice, cells = kv_cells(s), w = run->n_widths,
           kv = cells / 2 * s->head_dim;
    struct kv_token *tokens = kv_alloc(n, sizeof *tokens);
    float *damage = kv_alloc(n * w * cells, sizeof *damage),
          *error = kv_alloc(n * w * cells, sizeof *error);
    for (size_t t = 0; t < n; t++) {
        size_t c = t < n_context ? 0 : 1 + (t - n_context) / n_choice;
        tokens[t] =
            (struct kv_token){.pos = (uint32_t)(c ? n_context + (t - n_context) % n_choice : t),
                              .id = (uint32_t)(100 * kv_draw(seed, 1, t)),
                              .segment = (uint32_t)c,
                              .kind = (uint32_t)(KV_N_KINDS * kv_draw(seed, 2, t))};
        for (size_t i = 0; i < KV_N_FEATURES; i++)
            tokens[t].feature[i] = (float)kv_draw(seed, 3, t * KV_N_FEATURES + i);
        for (size_t i = 0; i < w; i++)
            for (size_t k = 0; k < cells; k++) {
                double scale = exp(5 * kv_draw(seed, 4, t * cells + k)),
                       fall = pow(4, -run->width_bits[i]);
                size_t at = (t * w + i) * cells + k;
                bool whole = run->width_bits[i] == 16;
                damage[at] = whole ? 0 : (float)(scale * fall * (0.5 + kv_draw(seed, 6, at)));
                error[at] = whole ? 0 : (float)(fall * (0.5 + kv_draw(seed, 7, at)));
            }
    }
    for (size_t i = 0; i <= KV_MEAN_OF_FOUR; i++)
        for (size_t q = 0; q < KV_N_QUANTILES; q++)
            f->quantiles.quantile[i][q] = (float)q / (KV_N_QUANTILES - 1);
    f->quantiles.struct_bytes = sizeof f->quantiles;
    f->item =
        (struct kv_item){.struct_bytes = sizeof f->item,
                         .run = run,
                         .key = 77 + seed,
                         .n_tokens = (uint32_t)n,
                         .n_context = n_context,
                         .n_choices = n_choices,
                         .tokens = tokens,
                         .damage = damage,
                         .error = error,
                         .quantiles = &f->quantiles,
                         .k = fake_halves(n * kv, seed + 1, 2),
                         .v = fake_halves(n * kv, seed + 2, 1),
                         .q = fake_halves(n * s->n_layers * s->n_heads * s->head_dim, seed + 3, 2),
                         .hidden = fake_halves(n * s->n_layers * s->hidden, seed + 4, 3)};
    float *norms = kv_alloc(2 * s->n_layers, sizeof *norms);
    for (size_t i = 0; i < 2 * s->n_layers; i++) norms[i] = (float)(1 + 9 * kv_draw(seed, 8, i));
    f->item.norms = norms;
    f->cells = kv_alloc(n * cells, 1);
    return f;
}

static inline void fake_free(struct fake *f) {
    const void *owned[] = {f->item.tokens, f->item.damage, f->item.error,  f->item.k,
                           f->item.v,      f->item.q,      f->item.hidden, f->item.norms};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free((void *)owned[i]);
    free(f->cells);
    free(f);
}

static inline void fake_ask(const struct kv_replay_spec *spec, struct fake *f) {
    struct kv_error e = {0};
    memset(f->cells, 0xAA, f->item.n_tokens * kv_cells(&spec->run.shape));
    if (kv_ask(spec->policy, spec->self, &f->item, f->cells, &e))
        fail_msg("%s: %s: %s", spec->canonical, e.where, e.msg);
}

// Width in bits that a cell was given.
static inline unsigned fake_bits(const struct kv_replay_spec *spec, const struct fake *f,
                                 size_t token, size_t cell) {
    return spec->run.width_bits[f->cells[token * kv_cells(&spec->run.shape) + cell]];
}

// Mean allocated bits a value, as the ledger counts them.
static inline double fake_allocated(const struct kv_replay_spec *spec, const struct fake *f) {
    uint32_t first[16];
    struct kv_trace_item it = {.n_tokens = f->item.n_tokens,
                               .n_context = f->item.n_context,
                               .n_choices = f->item.n_choices,
                               .first = first};
    struct kv_ledger ledger;
    for (uint32_t c = 0, row = f->item.n_context; c <= f->item.n_choices; c++) {
        first[c] = row;
        if (row < f->item.n_tokens) row = (uint32_t)kv_segment_end(&f->item, row);
    }
    kv_ledger_count(spec, &it, f->cells, &ledger);
    return ledger.allocated_bits;
}

#endif
