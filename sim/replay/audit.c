// SPDX-License-Identifier: Apache-2.0
// The audit: a policy that knows only the past answers the same whatever the future is, and one
// that reads what it declares answers the same whatever else it is shown.
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/replay/ask.h"

enum { POINTS = 5 }; // moments of an item at which the future is scrambled
#define EVERYTHING SIZE_MAX

// A copy of an item in which the rows that are not yet known hold noise.
struct scrambled {
    struct kv_item view;
    struct kv_token *tokens;
    uint16_t *vectors[4];
};

// Known when the token of row `now` is decided: the rows it sees in its own sequence, and `delay`
// more of its segment, or all of the prompt.
static bool is_known(const struct kv_item *it, size_t row, size_t now, uint32_t delay) {
    const struct kv_token *t = &it->tokens[row], *at = &it->tokens[now];
    if (delay == KV_DELAY_PROMPT && t->segment == 0) return true;
    uint32_t ahead = delay == KV_DELAY_PROMPT ? 0 : delay;
    if (t->segment != 0 && t->segment != at->segment) return false;
    return t->segment == at->segment ? t->pos <= at->pos + ahead : at->segment != 0;
}

static void scramble_token(struct kv_token *t, uint64_t seed, size_t row) {
    t->id = (uint32_t)(kv_draw(seed, 1, row) * 1000);
    t->kind = (uint32_t)(kv_draw(seed, 2, row) * KV_N_KINDS);
    for (size_t f = 0; f < KV_N_FEATURES; f++) // those that are hidden stay hidden
        if (!isnan(t->feature[f])) t->feature[f] = (float)(8 * kv_draw(seed, 3 + f, row));
}

// Finite halves between -4 and 4.
static void scramble_halves(uint16_t *x, size_t n, uint64_t seed) {
    uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (uint16_t)(state >> 48) & 0xC3FFu;
    }
}

// now: the token at which the future begins; EVERYTHING scrambles all rows.
static void scrambled_init(struct scrambled *s, const struct kv_item *it, size_t now,
                           uint32_t delay, uint64_t seed) {
    const struct kv_shape *sh = &it->run->shape;
    size_t kv = (size_t)sh->n_layers * sh->n_kv_heads * sh->head_dim,
           row_halves[4] = {kv, kv, (size_t)sh->n_layers * sh->n_heads * sh->head_dim,
                            (size_t)sh->n_layers * sh->hidden};
    const uint16_t **shown[4] = {&s->view.k, &s->view.v, &s->view.q, &s->view.hidden};
    s->view = *it;
    s->tokens = kv_alloc(it->n_tokens, sizeof *s->tokens);
    memcpy(s->tokens, it->tokens, it->n_tokens * sizeof *s->tokens);
    s->view.tokens = s->tokens;
    for (size_t a = 0; a < 4; a++) {
        s->vectors[a] = NULL;
        if (!*shown[a]) continue;
        s->vectors[a] = kv_alloc(it->n_tokens * row_halves[a], sizeof(uint16_t));
        memcpy(s->vectors[a], *shown[a], it->n_tokens * row_halves[a] * sizeof(uint16_t));
        *shown[a] = s->vectors[a];
    }
    for (size_t row = 0; row < it->n_tokens; row++) {
        if (now != EVERYTHING && is_known(it, row, now, delay)) continue;
        scramble_token(&s->tokens[row], seed, row);
        for (size_t a = 0; a < 4; a++)
            if (s->vectors[a])
                scramble_halves(s->vectors[a] + row * row_halves[a], row_halves[a],
                                seed + row * 4 + a);
    }
}

static void scrambled_fini(struct scrambled *s) {
    for (size_t a = 0; a < 4; a++) free(s->vectors[a]);
    free(s->tokens);
}

// ---- what is declared -----------------------------------------------------------------

// How what a policy did not declare is shown to it.
enum showing { RECORDED, HIGH, LOW, N_SHOWINGS };

// What a policy may read without having declared it: a feature or the class of each token, or
// vectors that the trace keeps. (Tables that are not declared are not there: NULL.)
static const uint32_t showable =
    (KV_NEED(KV_N_FEATURES) - 1) | KV_NEED_CLASS | KV_NEED_KV | KV_NEED_Q | KV_NEED_HIDDEN;

static void show_also(uint32_t needs, enum showing how, const struct kv_trace_item *it,
                      const float *features, struct kv_token *tokens, struct kv_item *view) {
    static const float extreme[] = {[HIGH] = 1e6f, [LOW] = -1e6f};
    for (size_t row = 0; row < it->n_tokens; row++) {
        for (size_t f = 0; f < KV_N_FEATURES; f++)
            if (needs & KV_NEED(f))
                tokens[row].feature[f] =
                    how == RECORDED ? features[row * KV_N_FEATURES + f] : extreme[how];
        if (needs & KV_NEED_CLASS) tokens[row].kind = (it->kinds[row] + (uint32_t)how) % KV_N_KINDS;
    }
    if (needs & KV_NEED_KV) {
        view->k = it->k;
        view->v = it->v;
    }
    if (needs & KV_NEED_Q) view->q = it->q;
    if (needs & KV_NEED_HIDDEN) view->hidden = it->hidden;
}

// Asks with `needs` shown besides what was; true = another answer.
static bool changes(const struct kv_replay_spec *spec, uint32_t needs, enum showing how,
                    const struct kv_trace_item *it, const float *features,
                    const struct kv_item *view, const uint8_t *cells) {
    size_t n = it->n_tokens * kv_cells(&spec->run.shape);
    struct kv_token *tokens = kv_alloc(it->n_tokens, sizeof *tokens);
    uint8_t *again = kv_alloc(n, 1);
    struct kv_item shown = *view;
    struct kv_error ignored;
    memcpy(tokens, view->tokens, it->n_tokens * sizeof *tokens);
    shown.tokens = tokens;
    show_also(needs, how, it, features, tokens, &shown);
    bool other = kv_spec_ask(spec, &shown, again, &ignored) != 0 || memcmp(again, cells, n) != 0;
    free(tokens);
    free(again);
    return other;
}

int kv_audit_needs(const struct kv_replay_spec *spec, const struct kv_trace_item *it,
                   const float *features, const struct kv_item *view, const uint8_t *cells,
                   struct kv_error *e) {
    KV_GUARD(e);
    const uint32_t hidden = showable & ~spec->needs;
    if (changes(spec, 0, RECORDED, it, features, view, cells))
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "policy %s answers otherwise when it is asked the same again (item %s)",
                       spec->policy_name, it->id);
    for (int how = 0; how < N_SHOWINGS; how++) {
        if (!changes(spec, hidden, (enum showing)how, it, features, view, cells)) continue;
        const char *name = "more than it declares";
        for (int i = 0; i < 32; i++)
            if (hidden >> i & 1 &&
                changes(spec, 1u << i, (enum showing)how, it, features, view, cells)) {
                name = kv_need_name(1u << i);
                break;
            }
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "policy %s reads %s without declaring it in needs: its answers change when "
                       "it is shown (item %s)",
                       spec->policy_name, name, it->id);
    }
    return 0;
}

// A policy whose widths follow from positions answers the same whatever the tokens are.
static int audit_position(const struct kv_replay_spec *spec, const struct kv_item *item,
                          const uint8_t *cells, uint8_t *again, struct kv_error *e) {
    struct scrambled s;
    scrambled_init(&s, item, EVERYTHING, 0, item->key);
    int rc = kv_spec_ask(spec, &s.view, again, e);
    scrambled_fini(&s);
    if (rc || memcmp(again, cells, item->n_tokens * kv_cells(&item->run->shape)) == 0) return rc;
    return kv_fail(e, KV_EFAIL, spec->canonical,
                   "policy %s declares that widths follow from positions (KV_VARIES_POSITION) and "
                   "goes by what the tokens are",
                   spec->policy_name);
}

// ---- causality ------------------------------------------------------------------------

int kv_audit(const struct kv_replay_spec *spec, const struct kv_item *item, const uint8_t *cells,
             struct kv_error *e) {
    KV_GUARD(e);
    size_t n = kv_cells(&item->run->shape);
    if (spec->needs & KV_NEEDS_FUTURE) return 0;
    uint8_t *again = kv_alloc(item->n_tokens * n, 1);
    int rc = 0;
    if (spec->varies & KV_VARIES_POSITION && !(spec->varies & KV_VARIES_TOKEN))
        rc = audit_position(spec, item, cells, again, e);
    if (rc == 0 && spec->inner) { // a wrapper hands answers on, a shuffle to other tokens: what it
                                  // wraps counts
        rc = kv_spec_ask(spec->inner, item, again, e);
        if (rc == 0) rc = kv_audit(spec->inner, item, again, e);
    }
    for (size_t point = 0; point < POINTS && rc == 0 && !spec->inner; point++) {
        uint64_t seed = item->key + point;
        size_t now = (size_t)(kv_draw(seed, item->key, point) * item->n_tokens);
        struct scrambled s;
        scrambled_init(&s, item, now, spec->delay_tokens, seed);
        rc = kv_spec_ask(spec, &s.view, again, e);
        for (size_t row = 0; row <= now && rc == 0; row++)
            if (is_known(item, row, now, 0) && memcmp(again + row * n, cells + row * n, n) != 0)
                rc = kv_fail(e, KV_EFAIL, spec->canonical,
                             "policy %s decided about token %zu by what comes after token %zu "
                             "+ %s, which it does not declare",
                             spec->policy_name, row, now,
                             spec->delay_tokens == KV_DELAY_PROMPT ? "the prompt" : "its delay");
        scrambled_fini(&s);
    }
    free(again);
    return rc;
}
