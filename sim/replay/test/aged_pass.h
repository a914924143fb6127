// SPDX-License-Identifier: Apache-2.0
// For tests: a policy whose cells age, trees for it, and the pass that exact replay makes of it, on
// the small model.
#ifndef KV_REPLAY_TEST_AGED_PASS_H
#define KV_REPLAY_TEST_AGED_PASS_H

#include <setjmp.h>

#include "sim/quant/code.h"
#include "sim/replay/pass.h"
#include "sim/replay/test/tiny_trace.h"

// cmocka wants the headers above before its own
#include <cmocka.h>

enum { PAGE = KV_REVISE_TOKENS, KV = 2 * 32 };

// ---- a policy that ages ---------------------------------------------------------------

enum how { LOWERS, CHANGES_NOTHING, WIDENS, EVICTS, PEEKS, REMEMBERS };

struct ageing {
    enum how how;
    int at[12]; // of a width in bits: its index
    _Atomic uint32_t calls;
};

// The rule: 8 bits, 4 from 65 tokens on, 2 from 129 on; keys of head 1 never, values of head 0 in
// layer 1 only the second time.
static inline unsigned bits_at(size_t grown, size_t row, uint32_t layer, size_t cell) {
    size_t age = grown > row ? grown - row : 0;
    if (cell == 2) return 8;
    if (age > 2 * PAGE) return 2;
    return age > PAGE && !(layer == 1 && cell == 1) ? 4 : 8;
}

static inline int decide_layer(void *self, const struct kv_layer_rows *rows, void *state,
                               uint8_t *cells, struct kv_error *e) {
    const struct ageing *a = self;
    uint32_t *seen = state;
    (void)e;
    for (size_t i = 0; i < rows->n * 4; i++) cells[i] = (uint8_t)a->at[8];
    *seen += (uint32_t)rows->n;
    return 0;
}

static inline int revise(void *self, const struct kv_layer_ages *ages, void *state, uint8_t *cells,
                         struct kv_error *e) {
    struct ageing *a = self;
    const uint32_t *seen = state;
    if (ages->n % PAGE || *seen != ages->n) // the context's state, one row after the other
        return kv_fail(e, KV_EFAIL, "", "asked at %zu tokens in state %u", ages->n, *seen);
    uint32_t calls = ++a->calls;
    for (size_t i = 0; i < ages->n * 4 && a->how == LOWERS; i++) {
        if (cells[i] != a->at[bits_at(ages->n - PAGE, i / 4, ages->layer, i % 4)])
            return kv_fail(e, KV_EFAIL, "", "token %zu is shown at another width", i / 4);
        cells[i] = (uint8_t)a->at[bits_at(ages->n, i / 4, ages->layer, i % 4)];
    }
    uint8_t *one = &cells[5 * 4 + 3];
    if (a->how == WIDENS && ages->layer == 1) *one = (uint8_t)(a->at[8] + 1);
    if (a->how == EVICTS) *one = KV_EVICT;
    if (a->how == PEEKS && ages->item->tokens[ages->n].id % 2) *one = (uint8_t)a->at[2];
    if (a->how == REMEMBERS && calls % 2) *one = (uint8_t)a->at[2];
    return 0;
}

static inline size_t state_bytes(void *self) {
    (void)self;
    return sizeof(uint32_t);
}
static inline uint32_t no_errors(void *self) {
    (void)self;
    return 0;
}
#define AGEING                                                                                     \
    .abi = KV_POLICY_ABI, .struct_bytes = sizeof(struct kv_policy), .name = "ageing",              \
    .varies = 15, .decide_layer = decide_layer, .layer_state_bytes = state_bytes,                  \
    .error_widths = no_errors
static const struct kv_policy ageing_policy = {AGEING, .revise = revise}, plain_policy = {AGEING};

// A spec of that policy, made of a static one.
struct made {
    struct kv_replay_spec spec;
    const struct kv_policy *policy;
    void *self;
    char *name;
    struct ageing ageing;
};

static inline struct made *make(const struct tiny_trace *tiny, const char *format, enum how how,
                                bool ages) {
    struct made *m = kv_alloc(1, sizeof *m);
    char *text = kv_format_text("static:bits=8@%s", format);
    m->spec = tiny_spec(tiny, text);
    m->policy = m->spec.policy;
    m->self = m->spec.self;
    m->ageing.how = how;
    for (size_t w = 0; w < m->spec.run.n_widths; w++)
        if (m->spec.run.width_bits[w] < 12) m->ageing.at[m->spec.run.width_bits[w]] = (int)w;
    m->spec.policy = ages ? &ageing_policy : &plain_policy;
    m->name = m->spec.policy_name;
    m->spec.policy_name = "ageing";
    m->spec.self = &m->ageing;
    m->spec.varies = ageing_policy.varies;
    m->spec.options = 3;
    free(text);
    return m;
}

static inline void unmake(struct made *m) {
    m->spec.policy = m->policy;
    m->spec.policy_name = m->name;
    m->spec.self = m->self;
    kv_replay_spec_close(&m->spec);
    free(m);
}

// ---- trees and passes -----------------------------------------------------------------

struct made_tree {
    struct kv_tree tree;
    uint32_t first[4], ids[320];
    struct kv_token tokens[320];
};

static inline struct made_tree *make_tree(uint32_t n_context, uint32_t n_choices) {
    struct made_tree *t = kv_alloc(1, sizeof *t);
    uint32_t n = n_context;
    for (uint32_t c = 0; c < n_choices; c++) t->first[c] = n, n += 5 + 4 * c;
    t->first[n_choices] = n;
    for (uint32_t i = 0; i < n; i++) t->ids[i] = (uint32_t)(kv_draw(3, 9, i) * N_TINY_PIECES);
    t->tree = (struct kv_tree){n, n_context, n_choices, n_choices ? t->first : NULL, t->ids};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t c = kv_tree_choice(&t->tree, i);
        t->tokens[i] = (struct kv_token){.pos = kv_tree_position(&t->tree, i),
                                         .id = t->ids[i],
                                         .segment = c == n_choices ? 0 : c + 1};
    }
    return t;
}

// Room for all layers' K and V of n rows.
static inline struct kv_layer_kv *kv_new(size_t n) {
    struct kv_layer_kv *kv = kv_alloc(tiny_shape.n_layers, sizeof *kv);
    for (size_t l = 0; l < tiny_shape.n_layers; l++) {
        kv[l].k_raw = kv_alloc(3 * n * KV, sizeof(float));
        kv[l].k = kv[l].k_raw + n * KV;
        kv[l].v = kv[l].k + n * KV;
    }
    return kv;
}
static inline void kv_free(struct kv_layer_kv *kv) {
    for (size_t l = 0; l < tiny_shape.n_layers; l++) free(kv[l].k_raw);
    free(kv);
}

// Each row reads everything coded, its own too.
static inline uint32_t *reads_of(const struct kv_tree *t) {
    uint32_t *upto = kv_alloc(2 * (size_t)t->n_tokens, sizeof *upto);
    for (uint32_t row = 0; row < t->n_tokens; row++)
        upto[2 * row] = upto[2 * row + 1] = kv_tree_position(t, row) + 1;
    return upto;
}

// What a pass leaves: final states of the rows from first_row on, widths at the end and at first.
struct passed {
    float *final;
    uint8_t *cells, *first;
    struct kv_error e;
    int rc;
};
static inline void passed_free(struct passed *p) {
    free(p->final);
    free(p->cells);
    free(p->first);
}

// The pass under test, as exact replay makes it.
static inline struct passed run_pass(const struct kv_model *model, struct made *m,
                                     const struct made_tree *t, uint32_t first_row,
                                     const struct kv_layer_kv *prefix, bool audit) {
    const struct kv_tree *tree = &t->tree;
    size_t n_cells = kv_cells(&tiny_shape), n = tree->n_tokens;
    struct passed out = {.final = kv_alloc(n * tiny_shape.hidden, sizeof(float)),
                         .cells = kv_alloc(n * n_cells, 1),
                         .first = kv_alloc(n * n_cells, 1)};
    struct kv_item view = {.struct_bytes = sizeof view,
                           .run = &m->spec.run,
                           .key = 5,
                           .n_tokens = tree->n_tokens,
                           .n_context = tree->n_context,
                           .n_choices = tree->n_choices,
                           .tokens = t->tokens};
    float *zeros = kv_alloc(n * (tiny_shape.hidden + 4 * 32), sizeof *zeros);
    struct kv_pass_rows before[2] = {{zeros, zeros}, {zeros, zeros}};
    uint32_t *upto = reads_of(tree);
    struct kv_layered y;
    struct kv_pass p;
    kv_pass_init(&p, model, tree);
    p.spec = &m->spec;
    p.code_scratch = kv_alloc(kv_code_scratch_bytes(m->spec.format), 1);
    p.histogram = kv_alloc(256 * m->spec.run.n_widths, sizeof *p.histogram);
    kv_layered_init(&y, &m->spec, &view, tree->n_tokens);
    y.tree = tree;
    y.item = "it";
    y.audit = audit;
    y.exact_rows = first_row;
    kv_pass_layered(&p, &y, out.cells, first_row, before);
    struct kv_scratch *s = kv_scratch_new();
    struct kv_forward job = {.tree = tree,
                             .first_row = first_row,
                             .prefix = prefix,
                             .coded_upto = upto,
                             .store = kv_pass_store,
                             .observe = kv_pass_observe,
                             .age = y.ages ? kv_pass_age : NULL,
                             .age_tokens = PAGE,
                             .self = &p,
                             .final = out.final};
    out.rc = kv_forward(model, &job, s, &out.e);
    if (out.rc == 0 && y.first) memcpy(out.first, y.first, n * n_cells);
    // Features were computed from the keys that attention read, at the end and so at each step.
    if (out.rc == 0 && first_row == 0)
        assert_memory_equal(y.stored, p.coded[KV_KEY], n * KV * sizeof(float));
    kv_scratch_free(s);
    kv_layered_fini(&y);
    kv_pass_fini(&p);
    free(upto);
    free(zeros);
    return out;
}

#endif
