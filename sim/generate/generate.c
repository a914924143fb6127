// SPDX-License-Identifier: Apache-2.0
// The decode loop: of each item a reference, and of each policy its own run, a companion, and a run
// along the reference's tokens.
#include "sim/generate/generate.h"

#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/generate/sample.h"

// Of a worker's company: specs, and memory of their sequences. Beside a GPU, which wants many rows,
// there is more of both.
enum { MOST_SPECS = 16, MOST_SPECS_ELSEWHERE = 64 };
static const size_t most_bytes = (size_t)2 << 30, most_bytes_elsewhere = (size_t)8 << 30;

void kv_generated_fini(struct kv_generated *g) {
    void *owned[] = {g->reference, g->own, g->own_kl, g->forced_kl};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    *g = (struct kv_generated){0};
}

// Sequences of an item at most: each policy's three and the reference.
static size_t rows_of(size_t n_specs) {
    return 3 * n_specs + 1;
}

size_t kv_generate_at_once(const struct kv_generate *g, uint32_t n_prompt) {
    uint32_t room = n_prompt + g->tokens;
    bool elsewhere = g->model->accelerator;
    size_t most = elsewhere ? MOST_SPECS_ELSEWHERE : MOST_SPECS,
           rows = (kv_head_rows(g->model) - 1) / 3, largest = 1;
    for (size_t j = 0; j < g->n_specs; j++) {
        size_t bytes = kv_held_bytes(g->model, &g->specs[j], room);
        if (bytes > largest) largest = bytes;
    }
    size_t one = 2 * largest + kv_held_bytes(g->model, NULL, room),
           fit = (elsewhere ? most_bytes_elsewhere : most_bytes) / one;
    if (rows < most) most = rows;
    if (fit < most) most = fit;
    return most ? most : 1;
}

size_t kv_generate_items_at_once(const struct kv_generate *g, uint32_t n_prompt) {
    if (!g->model->accelerator) return 1;
    size_t fit = kv_generate_at_once(g, n_prompt) / g->n_specs,
           rows = kv_head_rows(g->model) / rows_of(g->n_specs);
    size_t most = fit < rows ? fit : rows;
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

// Rows that go through the weights together.
struct company {
    const struct kv_generate *g;
    struct kv_scratch *s;
    struct kv_step_row *rows;
    uint32_t n_rows, n_steps; // of the step at hand
    float *states;            // [rows][hidden]
    float *variance;          // of each row's attention; NULL where nobody reads it
    struct kv_reference judged;
};

struct loop { // an item's
    const struct kv_generate *g;
    const struct kv_generate_item *item;
    struct company *company;
    struct path reference;
    struct pair *pair;
    size_t n;
    uint32_t *ids; // the reference's
    uint32_t n_ids;
    float *noise;
    struct kv_prompt *prompts; // [n + 1]
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

static void place(struct company *c, struct path *p) {
    if (!p->held) return;
    p->row = c->n_rows++;
    if (!p->first) c->rows[c->n_steps++] = kv_held_row(p->held);
}

// The state that a pass over the prompt left, where the first token comes from there.
static void recall(const struct company *c, const struct path *p) {
    size_t hidden = c->g->model->shape.hidden;
    if (p->held && p->first)
        memcpy(c->states + p->row * hidden, p->first, hidden * sizeof *c->states);
}

// Tells a policy that reads features what this step made known of its newest token.
static void tell(const struct company *c, const struct path *p) {
    float entropy, confidence;
    if (!p->held || p->first || !kv_held_wants(p->held)) return;
    kv_reference_features(c->g->model, &c->judged, p->row, &entropy, &confidence);
    kv_held_tell(p->held, entropy, confidence, c->variance[p->row]);
}

// States of all sequences that run, and the distributions that they give.
static int run_step(struct company *c, struct loop *loops, size_t n, struct kv_error *e) {
    const struct kv_model *m = c->g->model;
    c->n_rows = c->n_steps = 0;
    for (struct loop *l = loops; l < loops + n; l++) {
        place(c, &l->reference);
        for (size_t j = 0; j < l->n; j++) {
            place(c, &l->pair[j].own);
            place(c, &l->pair[j].companion);
            place(c, &l->pair[j].forced);
        }
    }
    for (struct loop *l = loops; l < loops + n; l++) {
        recall(c, &l->reference);
        for (size_t j = 0; j < l->n; j++) recall(c, &l->pair[j].own);
    }
    const struct kv_step step = {c->n_steps, c->rows, kv_held_store, c->states, c->variance};
    int rc = kv_step(m, &step, c->s, e);
    if (rc) return rc;
    kv_scratch_row_by_row(c->s, true);
    kv_head_reference(m, c->states, c->n_rows, c->s, &c->judged);
    kv_scratch_row_by_row(c->s, false);
    for (struct loop *l = loops; l < loops + n; l++)
        for (size_t j = 0; j < l->n; j++) {
            tell(c, &l->pair[j].own);
            tell(c, &l->pair[j].forced);
        }
    return 0;
}

static double divergence(const struct loop *l, const struct path *from, const struct path *to) {
    if (kv_held_not_finite(from->held) || kv_held_not_finite(to->held)) return NAN;
    return kv_reference_divergence(l->g->model, &l->company->judged, from->row, to->row);
}

static uint32_t pick(const struct loop *l, const struct path *p) {
    size_t vocab = l->g->model->shape.vocab;
    return kv_sample_pick(l->company->judged.logit + p->row * vocab, vocab, l->g->temperature,
                          l->noise);
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

// An item's token t, of the step that ran.
static int take_tokens(struct loop *l, uint32_t t, struct kv_error *e) {
    const struct kv_generate *g = l->g;
    uint32_t next = 0;
    bool running = l->reference.held, more = false;
    int rc = 0;
    if (g->temperature > 0)
        kv_sample_noise(g->seed, l->item->key, t, g->model->shape.vocab, l->noise);
    if (running) {
        next = l->ids[l->n_ids++] = pick(l, &l->reference);
        more = !ends(g, l->ids, l->n_ids);
    }
    for (size_t j = 0; j < l->n && rc == 0; j++) rc = take_token(l, &l->pair[j], t, more, next, e);
    if (running && !more) end(&l->reference);
    return rc ? rc : feed(&l->reference, next, e);
}

static int decode(struct company *c, struct loop *loops, size_t n, size_t *failed,
                  struct kv_error *e) {
    for (uint32_t t = 0;; t++) {
        bool any = false;
        for (size_t i = 0; i < n; i++) any |= runs(&loops[i]);
        if (!any) return 0;
        int rc = run_step(c, loops, n, e);
        for (size_t i = 0; i < n && rc == 0; i++) {
            if (!runs(&loops[i])) continue;
            rc = take_tokens(&loops[i], t, e);
            if (rc) *failed = i;
        }
        if (rc == 0 && kv_interrupted()) rc = kv_fail(e, KV_EINTR, "", "interrupted");
        if (rc) return rc;
    }
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
        rc = kv_prompt_run(g->model, l->company->s, &ask, own, e);
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

static int begin_all(struct loop *l, struct kv_error *e) {
    const struct kv_generate *g = l->g;
    const size_t *which = l->item->which;
    struct kv_prompt_ask ask = {.ids = l->item->ids,
                                .rows = l->item->n - (g->mode == KV_PREFILL),
                                .key = l->item->key,
                                .tokenizer = g->model->tokenizer,
                                .features = l->company->variance,
                                .rarity = l->item->rarity};
    for (size_t j = 0; j < l->n && g->mode != KV_INLINE; j++)
        ask.seen = ask.seen || kv_by_layers(&g->specs[which[j]]);
    int rc = kv_prompt_run(g->model, l->company->s, &ask, &l->prompts[0], e);
    if (rc == 0 && l->prompts[0].not_finite)
        rc = kv_fail(e, KV_EFAIL, "generate", "the 16-bit run itself overflows on this prompt");
    if (rc == 0) rc = begin(l, &l->reference, NULL, &l->prompts[0], NULL, e);
    for (size_t j = 0; j < l->n && rc == 0; j++)
        rc = begin(l, &l->pair[j].own, &g->specs[which[j]], &l->prompts[0], &l->prompts[j + 1], e);
    return rc;
}

static struct loop new_loop(const struct kv_generate *g, const struct kv_generate_item *item,
                            struct company *c) {
    struct loop l = {.g = g, .item = item, .company = c, .n = item->n_which};
    l.prompts = kv_alloc(l.n + 1, sizeof *l.prompts);
    l.pair = kv_alloc(l.n, sizeof *l.pair);
    l.ids = kv_alloc(g->tokens, sizeof *l.ids);
    l.noise = g->temperature > 0 ? kv_alloc(g->model->shape.vocab, sizeof *l.noise) : NULL;
    for (size_t j = 0; j < l.n; j++) {
        item->out[j] = (struct kv_generated){.reference = kv_alloc(g->tokens, sizeof(uint32_t)),
                                             .own = kv_alloc(g->tokens, sizeof(uint32_t)),
                                             .own_kl = kv_alloc(g->tokens, sizeof(double)),
                                             .forced_kl = kv_alloc(g->tokens, sizeof(double))};
        for (uint32_t t = 0; t < g->tokens; t++) item->out[j].forced_kl[t] = NAN;
        l.pair[j].out = &item->out[j];
    }
    return l;
}

static void end_loop(struct loop *l, bool failed) {
    for (size_t j = 0; j < l->n; j++) {
        struct kv_generated *out = l->pair[j].out;
        out->n_reference = l->n_ids;
        memcpy(out->reference, l->ids, l->n_ids * sizeof *l->ids);
        if (failed) kv_generated_fini(out);
        end(&l->pair[j].own);
        end(&l->pair[j].companion);
        end(&l->pair[j].forced);
        kv_prompt_fini(&l->prompts[j + 1]);
    }
    end(&l->reference);
    kv_prompt_fini(&l->prompts[0]);
    free(l->prompts);
    free(l->pair);
    free(l->ids);
    free(l->noise);
}

static int check_item(const struct kv_generate *g, const struct kv_generate_item *item,
                      struct kv_error *e) {
    uint32_t most = g->model->shape.max_tokens;
    if (item->n < 2)
        return kv_fail(e, KV_EUSAGE, "generate", "a prompt of %u tokens; 2 at least are needed",
                       item->n);
    if ((size_t)item->n + g->tokens > most)
        return kv_fail(e, KV_EUSAGE, "generate",
                       "a prompt of %u tokens and %u more are longer than the model's %u", item->n,
                       g->tokens, most);
    return 0;
}

static bool reads_features(const struct kv_generate *g, const struct kv_generate_item *item) {
    for (size_t j = 0; j < item->n_which; j++)
        if (g->specs[item->which[j]].needs & KV_HELD_FEATURES) return true;
    return false;
}

int kv_generate_items(const struct kv_generate *g, struct kv_scratch *s,
                      const struct kv_generate_item *items, size_t n, size_t *failed,
                      struct kv_error *e) {
    KV_GUARD(e);
    struct company c = {.g = g, .s = s};
    size_t rows = 0;
    bool features = false;
    for (*failed = 0; *failed < n; ++*failed) {
        int rc = check_item(g, &items[*failed], e);
        if (rc) return rc;
        rows += rows_of(items[*failed].n_which);
        features = features || reads_features(g, &items[*failed]);
    }
    c.states = kv_alloc(rows * g->model->shape.hidden, sizeof *c.states);
    c.rows = kv_alloc(rows, sizeof *c.rows);
    if (features) c.variance = kv_alloc(rows, sizeof *c.variance);
    struct loop *loops = kv_alloc(n, sizeof *loops);
    int rc = 0;
    for (size_t i = 0; i < n; i++) loops[i] = new_loop(g, &items[i], &c);
    for (size_t i = 0; i < n && rc == 0; i++) {
        *failed = i;
        rc = begin_all(&loops[i], e);
    }
    if (rc == 0) {
        *failed = n > 1 ? n : 0;
        rc = decode(&c, loops, n, failed, e);
    }
    for (size_t i = 0; i < n; i++) end_loop(&loops[i], rc != 0);
    free(loops);
    free(c.states);
    free(c.variance);
    free(c.rows);
    return rc;
}
