// SPDX-License-Identifier: Apache-2.0
// The decode loop of one item: a reference, and of each policy its own run, a companion, and a run
// along the reference's tokens.
#include "sim/generate/generate.h"

#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/generate/sample.h"

enum { MOST_AT_ONCE = 16 };                       // specs
static const size_t most_bytes = (size_t)2 << 30; // of a worker's sequences

void kv_generated_fini(struct kv_generated *g) {
    void *owned[] = {g->reference, g->own, g->own_kl, g->forced_kl};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    *g = (struct kv_generated){0};
}

size_t kv_generate_at_once(const struct kv_generate *g, uint32_t n_prompt) {
    uint32_t room = n_prompt + g->tokens;
    size_t most = MOST_AT_ONCE, rows = (kv_head_rows(g->model) - 1) / 3, largest = 1;
    for (size_t j = 0; j < g->n_specs; j++) {
        size_t bytes = kv_held_bytes(g->model, &g->specs[j], room);
        if (bytes > largest) largest = bytes;
    }
    size_t one = 2 * largest + kv_held_bytes(g->model, NULL, room), fit = most_bytes / one;
    if (rows < most) most = rows;
    if (fit < most) most = fit;
    return most ? most : 1;
}

// A sequence that goes on, or has ended, or has not begun.
struct path {
    struct kv_held *held; // NULL: it runs no more, or not yet
    const float *first;   // the state that a pass over the prompt left, for the first token
    uint32_t row;         // of the step at hand, where it runs
};

struct pair { // a policy's
    struct path own, companion, forced;
    struct kv_generated *out;
};

struct loop {
    const struct kv_generate *g;
    const struct kv_generate_item *item;
    struct kv_scratch *s;
    struct path reference;
    struct pair *pair;
    size_t n;
    uint32_t *ids; // the reference's
    uint32_t n_ids;
    float *noise, *states;
    float *variance; // of each row's attention; NULL where nobody reads it
    struct kv_step_row *rows;
    struct kv_reference judged;
};

static void end(struct path *p) {
    kv_held_free(p->held);
    p->held = NULL;
}

// Whether a sequence ends with the last of its n tokens.
static bool ends(const struct kv_generate *g, const uint32_t *ids, uint32_t n) {
    if (n >= g->tokens) return true;
    for (size_t i = 0; i < g->n_ends; i++)
        if (g->ends[i] == ids[n - 1]) return true;
    return kv_sample_stops(g->model->tokenizer, ids, n, g->stops);
}

// ---- a step ---------------------------------------------------------------------------

static void place(struct loop *l, struct path *p, uint32_t *n_rows, uint32_t *n_steps) {
    if (!p->held) return;
    p->row = (*n_rows)++;
    if (!p->first) l->rows[(*n_steps)++] = kv_held_row(p->held);
}

// Tells a policy that reads features what this step made known of its newest token.
static void tell(const struct loop *l, const struct path *p) {
    float entropy, confidence;
    if (!p->held || p->first || !kv_held_wants(p->held)) return;
    kv_reference_features(l->g->model, &l->judged, p->row, &entropy, &confidence);
    kv_held_tell(p->held, entropy, confidence, l->variance[p->row]);
}

// States of all sequences that run, [rows][hidden]; those of a pass over the prompt where that is
// where the first token comes from.
static int run_step(struct loop *l, struct kv_error *e) {
    const struct kv_model *m = l->g->model;
    uint32_t n_rows = 0, n_steps = 0;
    place(l, &l->reference, &n_rows, &n_steps);
    for (size_t j = 0; j < l->n; j++) {
        place(l, &l->pair[j].own, &n_rows, &n_steps);
        place(l, &l->pair[j].companion, &n_rows, &n_steps);
        place(l, &l->pair[j].forced, &n_rows, &n_steps);
    }
    if (n_steps == 0) { // of the first token
        memcpy(l->states, l->reference.first, m->shape.hidden * sizeof *l->states);
        for (size_t j = 0; j < l->n; j++)
            memcpy(l->states + l->pair[j].own.row * m->shape.hidden, l->pair[j].own.first,
                   m->shape.hidden * sizeof *l->states);
    }
    const struct kv_step step = {n_steps, l->rows, kv_held_store, l->states, l->variance};
    int rc = kv_step(m, &step, l->s, e);
    if (rc) return rc;
    kv_scratch_row_by_row(l->s, true);
    kv_head_reference(m, l->states, n_rows, l->s, &l->judged);
    kv_scratch_row_by_row(l->s, false);
    for (size_t j = 0; j < l->n; j++) {
        tell(l, &l->pair[j].own);
        tell(l, &l->pair[j].forced);
    }
    return 0;
}

static double divergence(const struct loop *l, const struct path *from, const struct path *to) {
    if (kv_held_not_finite(from->held) || kv_held_not_finite(to->held)) return NAN;
    return kv_reference_divergence(l->g->model, &l->judged, from->row, to->row);
}

static uint32_t pick(const struct loop *l, const struct path *p) {
    size_t vocab = l->g->model->shape.vocab;
    return kv_sample_pick(l->judged.logit + p->row * vocab, vocab, l->g->temperature, l->noise);
}

static int feed(struct path *p, uint32_t id, struct kv_error *e) {
    p->first = NULL;
    return p->held ? kv_held_feed(p->held, id, e) : 0;
}

// One token of a policy: what it diverges by, what it picks, whether it parts. `next`: what the
// reference picked here; it has that token already where it still runs.
static int take_token(struct loop *l, struct pair *p, uint32_t t, bool more, uint32_t next,
                      struct kv_error *e) {
    struct kv_generated *out = p->out;
    const struct path *beside = out->parted ? &p->companion : &l->reference;
    bool own = p->own.held, forced = p->forced.held;
    if (own) out->own_kl[t] = divergence(l, beside, &p->own);
    if (forced) out->forced_kl[t] = divergence(l, &l->reference, &p->forced);
    if (own && !out->parted) out->forced_kl[t] = out->own_kl[t];
    if (own && isnan(out->own_kl[t])) { // no token comes of it
        if (!out->parted) out->equal = t;
        out->parted = out->broken = true;
        end(&p->own);
        end(&p->companion);
        own = false;
    }
    if (own) {
        out->own[out->n_own++] = pick(l, &p->own);
        bool goes_on = !ends(l->g, out->own, out->n_own);
        if (!out->parted && out->own[t] != next) {
            out->parted = true;
            out->equal = t;
            if (goes_on) p->companion.held = kv_held_copy(l->reference.held);
            if (more) p->forced.held = kv_held_copy(p->own.held);
        } else if (!out->parted)
            out->equal = t + 1;
        if (!goes_on) {
            end(&p->own);
            end(&p->companion);
        }
    }
    if (!more) end(&p->forced);
    if (p->forced.held && isnan(out->forced_kl[t])) end(&p->forced);
    int rc = own ? feed(&p->own, out->own[t], e) : 0;
    if (rc == 0 && own) rc = feed(&p->companion, out->own[t], e);
    return rc ? rc : feed(&p->forced, next, e);
}

static bool runs(const struct loop *l) {
    if (l->reference.held) return true;
    for (size_t j = 0; j < l->n; j++)
        if (l->pair[j].own.held) return true;
    return false;
}

static int decode(struct loop *l, struct kv_error *e) {
    const struct kv_generate *g = l->g;
    int rc = 0;
    for (uint32_t t = 0; rc == 0 && runs(l); t++) {
        uint32_t next = 0;
        bool running = l->reference.held, more = false;
        if (g->temperature > 0)
            kv_sample_noise(g->seed, l->item->key, t, g->model->shape.vocab, l->noise);
        if ((rc = run_step(l, e))) break;
        if (running) {
            next = l->ids[l->n_ids++] = pick(l, &l->reference);
            more = !ends(g, l->ids, l->n_ids);
        }
        for (size_t j = 0; j < l->n && rc == 0; j++)
            rc = take_token(l, &l->pair[j], t, more, next, e);
        if (running && !more) end(&l->reference);
        if (rc == 0) rc = feed(&l->reference, next, e);
        if (rc == 0 && kv_interrupted()) rc = kv_fail(e, KV_EINTR, "", "interrupted");
    }
    return rc;
}

// ---- an item --------------------------------------------------------------------------

// The prompt of the reference, and of the policies where theirs attends exactly.
static int begin(struct loop *l, struct path *p, const struct kv_replay_spec *spec,
                 const struct kv_prompt *exact, struct kv_prompt *own, struct kv_error *e) {
    const struct kv_generate *g = l->g;
    const struct kv_generate_item *it = l->item;
    const struct kv_prompt *from = exact;
    struct kv_prompt_ask ask = {.ids = it->ids,
                                .rows = exact ? exact->rows : 0,
                                .key = it->key,
                                .spec = spec,
                                .tokenizer = g->model->tokenizer,
                                .self_exact = g->self_exact,
                                .rarity = it->rarity,
                                .rarity_of = it->rarity_of,
                                .known = exact ? exact->features : NULL,
                                .seen = spec && kv_by_layers(spec)};
    int rc = 0;
    if (g->mode == KV_INLINE && spec) {
        rc = kv_prompt_run(g->model, l->s, &ask, own, e);
        from = own;
    }
    if (rc) return rc;
    p->held =
        kv_held_new(g->model, spec, from, &ask, it->n, it->n + g->tokens, g->mode != KV_INLINE);
    if (from->rows == it->n) {
        p->first = from->final;
        return 0;
    }
    return kv_held_feed(p->held, it->ids[it->n - 1], e);
}

static int begin_all(struct loop *l, const size_t *which, struct kv_prompt *prompts,
                     struct kv_error *e) {
    const struct kv_generate *g = l->g;
    struct kv_prompt_ask ask = {.ids = l->item->ids,
                                .rows = l->item->n - (g->mode == KV_PREFILL),
                                .key = l->item->key,
                                .tokenizer = g->model->tokenizer};
    ask.features = l->variance;
    ask.rarity = l->item->rarity;
    for (size_t j = 0; j < l->n && g->mode != KV_INLINE; j++)
        ask.seen = ask.seen || kv_by_layers(&g->specs[which[j]]);
    int rc = kv_prompt_run(g->model, l->s, &ask, &prompts[0], e);
    if (rc == 0 && prompts[0].not_finite)
        rc = kv_fail(e, KV_EFAIL, "generate", "the 16-bit run itself overflows on this prompt");
    if (rc == 0) rc = begin(l, &l->reference, NULL, &prompts[0], NULL, e);
    for (size_t j = 0; j < l->n && rc == 0; j++)
        rc = begin(l, &l->pair[j].own, &g->specs[which[j]], &prompts[0], &prompts[j + 1], e);
    return rc;
}

static void give_reference(const struct loop *l, struct kv_generated *out) {
    out->n_reference = l->n_ids;
    memcpy(out->reference, l->ids, l->n_ids * sizeof *l->ids);
}

int kv_generate_item(const struct kv_generate *g, struct kv_scratch *s,
                     const struct kv_generate_item *item, const size_t *which, size_t n_which,
                     struct kv_generated *out, struct kv_error *e) {
    KV_GUARD(e);
    const struct kv_shape *sh = &g->model->shape;
    if (item->n < 2)
        return kv_fail(e, KV_EUSAGE, "generate", "a prompt of %u tokens; 2 at least are needed",
                       item->n);
    if ((size_t)item->n + g->tokens > sh->max_tokens)
        return kv_fail(e, KV_EUSAGE, "generate",
                       "a prompt of %u tokens and %u more are longer than the model's %u", item->n,
                       g->tokens, sh->max_tokens);
    struct loop l = {.g = g, .item = item, .s = s, .n = n_which};
    size_t rows = 3 * n_which + 1;
    struct kv_prompt *prompts = kv_alloc(n_which + 1, sizeof *prompts);
    l.pair = kv_alloc(n_which, sizeof *l.pair);
    l.ids = kv_alloc(g->tokens, sizeof *l.ids);
    l.noise = g->temperature > 0 ? kv_alloc(sh->vocab, sizeof *l.noise) : NULL;
    l.states = kv_alloc(rows * sh->hidden, sizeof *l.states);
    l.rows = kv_alloc(rows, sizeof *l.rows);
    for (size_t j = 0; j < n_which && !l.variance; j++)
        if (g->specs[which[j]].needs & KV_HELD_FEATURES)
            l.variance = kv_alloc(rows, sizeof *l.variance);
    for (size_t j = 0; j < n_which; j++) {
        out[j] = (struct kv_generated){.reference = kv_alloc(g->tokens, sizeof(uint32_t)),
                                       .own = kv_alloc(g->tokens, sizeof(uint32_t)),
                                       .own_kl = kv_alloc(g->tokens, sizeof(double)),
                                       .forced_kl = kv_alloc(g->tokens, sizeof(double))};
        for (uint32_t t = 0; t < g->tokens; t++) out[j].forced_kl[t] = NAN;
        l.pair[j].out = &out[j];
    }
    int rc = begin_all(&l, which, prompts, e);
    if (rc == 0) rc = decode(&l, e);
    for (size_t j = 0; j < n_which; j++) {
        if (rc == 0) give_reference(&l, &out[j]);
        if (rc) kv_generated_fini(&out[j]);
        end(&l.pair[j].own);
        end(&l.pair[j].companion);
        end(&l.pair[j].forced);
        kv_prompt_fini(&prompts[j + 1]);
    }
    end(&l.reference);
    kv_prompt_fini(&prompts[0]);
    free(prompts);
    free(l.pair);
    free(l.ids);
    free(l.noise);
    free(l.states);
    free(l.variance);
    free(l.rows);
    return rc;
}
