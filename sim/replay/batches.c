// SPDX-License-Identifier: Apache-2.0
// Batches of runs laid out for an engine, and their outcomes.
#include "sim/replay/batches.h"

#include <pthread.h>
#include <stdlib.h>

#include "policies/cells_plain.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/model/engine.h"
#include "sim/replay/ask.h"
#include "sim/replay/closed.h"
#include "sim/replay/compare.h"
#include "sim/replay/layered.h"
#include "sim/replay/ledger.h"
#include "sim/replay/reads.h"

struct pair {
    size_t item, spec;
};

struct batches {
    const struct kv_replay *r;
    struct kv_progress *progress;
    struct pair *pairs; // by item, then spec
    size_t *cut;        // [n + 1] where batches begin
    size_t n;
    uint32_t *held;                  // [n_specs] which of the engine's formats
    struct kv_plain_cells *deciders; // of specs whose cells are decided in the pass
    uint32_t *decider;               // [n_specs] which of them, or KV_ENGINE_NO_ROW
    uint32_t tile_rows;              // rows of a tile of queries
    pthread_mutex_t *lock;
};

static const struct kv_trace_item *item_of(const struct batches *b, size_t pair) {
    return kv_trace_item(b->r->trace, b->pairs[pair].item);
}
static const struct kv_plain_cells *decider_of(const struct batches *b, size_t pair) {
    uint32_t d = b->decider[b->pairs[pair].spec];
    return d == KV_ENGINE_NO_ROW ? NULL : &b->deciders[d];
}
// Final states of an item that are compared.
static uint32_t judged(const struct batches *b, const struct kv_trace_item *it) {
    return b->r->decisions_only ? 0 : it->n_final;
}
static bool begins_item(const struct batches *b, size_t from, size_t pair) {
    return pair == from || b->pairs[pair].item != b->pairs[pair - 1].item;
}

// ---- the layout of a batch ------------------------------------------------------------

// Arrays of an engine's batch as they are filled.
struct layout {
    struct kv_engine_batch b;
    uint8_t *flags, *cells;
    uint32_t *ids, *position, *stored_as, *upto, *run, (*copied)[2], *scored;
    float *references;
    struct kv_engine_branch *branches;
    struct kv_engine_decision
        *decisions; // of each branch; decider KV_ENGINE_NO_ROW where it has none
    float *known;
    struct kv_engine_tile *tiles;
    struct kv_engine_target *targets;
    uint32_t prompt, prompt_computed;   // stored and computed row of the item's prompt
    size_t item_reference, item_target; // of the item at hand
};

// Room for a batch's runs and the prompts that an item's runs share.
static void make_room(const struct batches *b, size_t from, size_t to, struct layout *l) {
    const struct kv_shape *s = &b->r->model->shape;
    size_t runs = 0, rows = 0, segments = 0, references = 0, targets = 0, slots = 0, slot = 0,
           known = 0;
    for (size_t p = from; p < to; p++) {
        const struct kv_trace_item *it = item_of(b, p);
        if (begins_item(b, from, p)) {
            runs++, segments++;
            rows += kv_prompt_rows(b->r->mode, it);
            references += judged(b, it);
            targets += it->n_tokens + it->n_choices;
            slot = 0;
        }
        runs++;
        rows += it->n_tokens;
        segments += it->n_choices + 1;
        if (decider_of(b, p)) known += (size_t)it->n_tokens * decider_of(b, p)->n_token;
        if (++slot > slots) slots = slot;
    }
    *l = (struct layout){.b.n_slots = (uint32_t)slots};
    l->flags = kv_alloc(runs, 1);
    l->cells = kv_alloc(rows * kv_cells(s), 1);
    l->ids = kv_alloc(rows, sizeof *l->ids);
    l->position = kv_alloc(rows, sizeof *l->position);
    l->stored_as = kv_alloc(rows, sizeof *l->stored_as);
    l->upto = kv_alloc(2 * rows, sizeof *l->upto);
    l->run = kv_alloc(rows, sizeof *l->run);
    l->copied = kv_alloc(rows, sizeof *l->copied);
    l->branches = kv_alloc(segments, sizeof *l->branches);
    l->decisions = kv_alloc(segments, sizeof *l->decisions);
    l->known = kv_alloc(known, sizeof *l->known);
    l->b.no_number = kv_alloc(segments, sizeof *l->b.no_number);
    l->tiles = kv_alloc(rows / b->tile_rows + segments, sizeof *l->tiles);
    l->references = kv_alloc(references * s->hidden, sizeof *l->references);
    l->scored = kv_alloc(slots * references, sizeof *l->scored);
    memset(l->scored, 0xFF, slots * references * sizeof *l->scored);
    l->targets = kv_alloc(targets, sizeof *l->targets);
    l->b.n_references = (uint32_t)references;
    l->b.kl_nats = kv_alloc(slots * references, sizeof(double));
    l->b.top = kv_alloc((slots + 1) * references, sizeof(uint32_t));
    l->b.logprob = kv_alloc(slots * targets, sizeof(double));
    l->b.logprob_ref = kv_alloc(targets, sizeof(double));
    l->b.not_finite = kv_alloc(runs, 1);
    l->b.tally = kv_alloc(runs * KV_MAX_WIDTHS * 256, sizeof(uint64_t));
}

static void free_room(struct layout *l) {
    void *all[] = {l->flags,   l->cells,        l->ids,           l->position,  l->stored_as,
                   l->upto,    l->run,          l->copied,        l->branches,  l->tiles,
                   l->targets, l->scored,       l->references,    l->b.kl_nats, l->b.logprob,
                   l->b.tally, l->b.not_finite, l->b.logprob_ref, l->b.top,     l->decisions,
                   l->known,   l->b.no_number};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static uint32_t *append_rows(struct layout *l, const struct kv_tree *t, uint32_t from, uint32_t to,
                             uint32_t stored) {
    uint32_t *upto = l->upto + 2 * (size_t)l->b.n_rows;
    for (uint32_t row = from; row < to; row++, l->b.n_rows++) {
        l->ids[l->b.n_rows] = t->ids[row];
        l->position[l->b.n_rows] = kv_tree_position(t, row);
        l->stored_as[l->b.n_rows] = stored + row;
    }
    return upto;
}

// Tiles of rows [from, to) of a tree, whose first computed row is `computed` and first stored row
// `stored`. own: the stored row of the branch's first token.
static void append_tiles(const struct batches *b, struct layout *l, const struct kv_tree *t,
                         uint32_t from, uint32_t to, uint32_t computed, uint32_t stored,
                         uint32_t own) {
    for (uint32_t row = from, n; row < to; row += n) {
        n = to - row < b->tile_rows ? to - row : b->tile_rows;
        l->tiles[l->b.n_tiles++] = (struct kv_engine_tile){.row = computed + row - from,
                                                           .n = n,
                                                           .position = kv_tree_position(t, row),
                                                           .context = stored,
                                                           .n_context = t->n_context,
                                                           .own = own};
    }
}

static uint32_t append_run(struct layout *l, uint32_t n_stored, uint8_t flags) {
    uint32_t run = l->b.n_runs++;
    l->flags[run] = flags;
    for (uint32_t i = 0; i < n_stored; i++) l->run[l->b.n_stored + i] = run;
    l->b.n_stored += n_stored;
    return run;
}

// What an item's runs share: its references, targets, prompt.
static void append_item(const struct batches *b, struct layout *l, const struct kv_trace_item *it,
                        size_t n_references_before) {
    size_t h = b->r->model->shape.hidden;
    struct kv_targets targets;
    uint32_t rows = kv_prompt_rows(b->r->mode, it);
    l->item_reference = n_references_before;
    l->item_target = l->b.n_targets;
    memcpy(l->references + n_references_before * h, it->final, judged(b, it) * h * sizeof(float));
    kv_targets_init(&targets, it);
    for (size_t i = 0; i < targets.n && !b->r->decisions_only; i++)
        l->targets[l->b.n_targets++] = (struct kv_engine_target){
            .reference = (uint32_t)n_references_before + targets.list[i].row,
            .id = targets.list[i].id};
    kv_targets_fini(&targets);
    if (!rows) return;
    struct kv_tree tree = {rows, rows, 0, NULL, it->ids};
    l->prompt = l->b.n_stored;
    append_run(l, rows, KV_ENGINE_READS_EXACT);
    uint32_t first = l->prompt_computed = l->b.n_rows,
             *upto = append_rows(l, &tree, 0, rows, l->prompt);
    memset(upto, 0, 2 * (size_t)rows * sizeof *upto);
    append_tiles(b, l, &tree, 0, rows, first, l->prompt, l->prompt);
    l->b.reads_exact = true;
}

// One run; its cells, at the end of l->cells, are decided already or will be in the pass. known:
// where its tokens' own features begin.
static void append_spec(const struct batches *b, struct layout *l, const struct kv_trace_item *it,
                        size_t spec_index, size_t slot, uint32_t known) {
    const struct kv_replay_spec *spec = &b->r->specs[spec_index];
    struct kv_tree t = {it->n_tokens, it->n_context, it->n_choices, it->first, it->ids};
    uint32_t prompt = kv_prompt_rows(b->r->mode, it), stored = l->b.n_stored, first = l->b.n_rows;
    uint32_t *all = kv_alloc(2 * (size_t)it->n_tokens, sizeof *all);
    bool exact = kv_lay_out_reads(b->r, spec, &t, all);
    l->b.reads_exact |= exact;
    uint32_t run = append_run(
        l, it->n_tokens,
        (uint8_t)((*spec->format_text ? 0 : KV_ENGINE_RAW) | (exact ? KV_ENGINE_READS_EXACT : 0)));
    uint32_t *upto = append_rows(l, &t, prompt, it->n_tokens, stored);
    memcpy(upto, all + 2 * prompt, 2 * (size_t)(it->n_tokens - prompt) * sizeof *upto);
    free(all);
    for (uint32_t row = 0; row < prompt; row++) {
        l->copied[l->b.n_copied][0] = stored + row;
        l->copied[l->b.n_copied++][1] = l->prompt + row;
    }
    append_tiles(b, l, &t, prompt, it->n_context, first, stored, stored);
    for (uint32_t c = 0; c < it->n_choices; c++)
        append_tiles(b, l, &t, it->first[c], it->first[c + 1], first + it->first[c] - prompt,
                     stored, stored + it->first[c]);
    for (uint32_t c = 0; c <= it->n_choices; c++) {
        uint32_t row = c ? it->first[c - 1] : 0, end = c ? it->first[c] : it->n_context,
                 d = b->decider[spec_index];
        l->decisions[l->b.n_branches] = (struct kv_engine_decision){
            .decider = d,
            .context = c,
            .n_exact = prompt,
            .prompt = l->prompt_computed,
            .own = first + (c ? row - prompt : 0),
            .known = d == KV_ENGINE_NO_ROW ? 0 : known + row * b->deciders[d].n_token};
        l->branches[l->b.n_branches++] = (struct kv_engine_branch){.row = stored + row,
                                                                   .n = end - row,
                                                                   .start = c ? it->n_context : 0,
                                                                   .format = b->held[spec_index],
                                                                   .opening_row = stored,
                                                                   .n_opening = it->n_context,
                                                                   .tally = run};
        if (end - row > l->b.longest) l->b.longest = end - row;
    }
    uint32_t *scored = l->scored + slot * l->b.n_references + l->item_reference;
    for (uint32_t f = 0; f < judged(b, it); f++)
        scored[f] = it->final_rows[f] < prompt ? (uint32_t)KV_ENGINE_RECORDED
                                               : first + it->final_rows[f] - prompt;
}

// Branches in the order that the engine wants: contexts that are decided in the pass, choices that
// are, the others, those whose keys are coded before RoPE. decisions[i].context comes as the number
// of the choice, 0 for a context.
enum place { DECIDED_CONTEXT, DECIDED_CHOICE, GIVEN, BEFORE_ROPE, N_PLACES };

static enum place place_of(const struct layout *l, const bool *before_rope, uint32_t i) {
    if (l->decisions[i].decider != KV_ENGINE_NO_ROW)
        return l->decisions[i].context ? DECIDED_CHOICE : DECIDED_CONTEXT;
    return before_rope[l->branches[i].format] ? BEFORE_ROPE : GIVEN;
}

static void sort_branches(struct layout *l, const bool *before_rope) {
    uint32_t all = l->b.n_branches, n = 0, count[N_PLACES] = {0};
    struct kv_engine_branch *branches = kv_alloc(all, sizeof *branches);
    struct kv_engine_decision *decisions = kv_alloc(all, sizeof *decisions);
    for (int place = 0; place < N_PLACES; place++) {
        uint32_t contexts = 0; // met so far, each before its choices
        for (uint32_t i = 0; i < all; i++) {
            enum place own = place_of(l, before_rope, i);
            contexts += own == DECIDED_CONTEXT;
            if ((int)own != place) continue;
            branches[n] = l->branches[i];
            decisions[n] = l->decisions[i];
            decisions[n++].context = contexts - 1;
            count[place]++;
        }
    }
    memcpy(l->branches, branches, all * sizeof *branches);
    memcpy(l->decisions, decisions, all * sizeof *decisions);
    l->b.n_decided_contexts = count[DECIDED_CONTEXT];
    l->b.n_decided = count[DECIDED_CONTEXT] + count[DECIDED_CHOICE];
    l->b.n_before_rope = count[BEFORE_ROPE];
    free(branches);
    free(decisions);
}

// What a run's tokens bring of their own to decisions in the pass.
static int append_known(const struct batches *b, struct layout *l, size_t pair,
                        struct kv_error *e) {
    const struct kv_trace_item *it = item_of(b, pair);
    size_t which = b->pairs[pair].spec, n = decider_of(b, pair)->n_token;
    const struct kv_replay_spec *spec = &b->r->specs[which];
    struct kv_token *tokens = kv_alloc(it->n_tokens, sizeof *tokens);
    struct kv_item view;
    int rc = kv_show_item(b->r, which, b->pairs[pair].item, it->features, tokens, &view, e);
    for (uint32_t row = 0; row < it->n_tokens && rc == 0; row++, l->b.n_known += (uint32_t)n)
        spec->policy->plain_token(spec->self, &view, row, l->known + l->b.n_known);
    free(tokens);
    return rc;
}

// ---- a batch --------------------------------------------------------------------------

static int refuse(const struct batches *b, size_t from, const struct layout *l,
                  struct kv_error *e) {
    uint32_t row = l->b.bad - 1, first = 0;
    for (size_t p = from;; p++) {
        const struct kv_trace_item *it = item_of(b, p);
        if (begins_item(b, from, p)) first += kv_prompt_rows(b->r->mode, it);
        if (row < first + it->n_tokens)
            return kv_fail(e, KV_EFAIL, "decision",
                           "item %s, token %u: %s holds a width that the format does not have, or "
                           "cells that share a scale differ",
                           it->id, row - first, b->r->specs[b->pairs[p].spec].canonical);
        first += it->n_tokens;
    }
}

// Whether what was decided in the pass of a run can stand: cells of its stored rows from `stored`
// on.
static int check_decided(const struct batches *b, const struct layout *l, size_t pair, uint32_t run,
                         size_t stored, const uint8_t *cells, struct kv_error *e) {
    const struct kv_trace_item *it = item_of(b, pair);
    const struct kv_replay_spec *spec = &b->r->specs[b->pairs[pair].spec];
    if (!decider_of(b, pair)) return 0;
    for (uint32_t i = 0; i < l->b.n_decided; i++)
        if (l->branches[i].tally == run && l->b.no_number[i][0])
            return kv_fail(e, KV_EFAIL, spec->canonical,
                           "a feature of token %zu in layer %u is no number (item %s)",
                           l->b.no_number[i][0] - 1 - stored, l->b.no_number[i][1], it->id);
    return kv_check_answers(spec, it->id, it->n_tokens, cells, e);
}

// One run's outcome: its slot's divergences and log-probs, from the item's first reference and
// target on.
static int take_outcome(struct batches *b, const struct layout *l, size_t pair, uint32_t run,
                        size_t slot, size_t reference, size_t target, const uint8_t *cells,
                        bool finite, struct kv_error *e) {
    const struct kv_replay *r = b->r;
    const struct kv_trace_item *it = item_of(b, pair);
    size_t which = b->pairs[pair].spec;
    const struct kv_replay_spec *spec = &r->specs[which];
    const double *kl = l->b.kl_nats + slot * l->b.n_references + reference,
                 *logprob = l->b.logprob + slot * l->b.n_targets + target;
    const uint32_t *top = l->b.top + slot * l->b.n_references + reference,
                   *ref_top = l->b.top + (size_t)l->b.n_slots * l->b.n_references + reference;
    double *own = kv_alloc(it->n_final, sizeof *own);
    struct kv_targets targets;
    struct kv_outcome o = {0};
    kv_targets_init(&targets, it);
    for (uint32_t f = 0; f < judged(b, it); f++) {
        own[f] = finite ? kl[f] : NAN;
        targets.other_top[f] = top[f] != ref_top[f];
    }
    for (size_t i = 0; i < targets.n && !r->decisions_only; i++) {
        targets.list[i].logprob = finite ? logprob[i] : NAN;
        targets.ref[i] = l->b.logprob_ref[target + i];
        targets.list[i].top = top[targets.list[i].row] == targets.list[i].id;
        targets.list[i].ref_top = ref_top[targets.list[i].row] == targets.list[i].id;
    }
    targets.tops = true;
    kv_ledger_count(spec, it, cells, &o.ledger);
    o.ledger.entropy_bits =
        kv_codes_entropy_bits(l->b.tally + (size_t)run * KV_MAX_WIDTHS * 256, spec->run.n_widths);
    if (!r->decisions_only) kv_compare_outcome(it, &targets, own, &o);
    int rc;
    {
        KV_LOCK(b->lock);
        if (r->decided) r->decided(r->self, b->pairs[pair].item, which, cells);
        if (r->scored && !r->decisions_only)
            r->scored(r->self, b->pairs[pair].item, which, &targets, own);
        rc = r->take(r->self, b->pairs[pair].item, which, &o, e);
    }
    kv_outcome_fini(&o);
    kv_targets_fini(&targets);
    free(own);
    return rc;
}

static int run_pairs(struct batches *b, size_t from, size_t to, struct kv_error *e) {
    const struct kv_replay *r = b->r;
    size_t n_cells = kv_cells(&r->model->shape), references = 0, slot = 0;
    bool *before_rope = kv_alloc(r->n_specs, sizeof *before_rope);
    char why[256] = "";
    struct layout l;
    int rc = 0;
    make_room(b, from, to, &l);
    for (size_t p = from; p < to && rc == 0; p++, slot++) {
        const struct kv_trace_item *it = item_of(b, p);
        size_t which = b->pairs[p].spec;
        if (begins_item(b, from, p)) {
            rc = kv_trace_check_item(r->trace, b->pairs[p].item, KV_KEEP_FINAL, e);
            if (rc) break;
            append_item(b, &l, it, references);
            references += judged(b, it);
            slot = 0;
        }
        before_rope[b->held[which]] = r->specs[which].format->keys_before_rope;
        uint32_t known = l.b.n_known;
        if (decider_of(b, p))
            rc = append_known(b, &l, p, e);
        else
            rc = kv_decide(r, which, b->pairs[p].item, l.cells + l.b.n_stored * n_cells, e);
        if (rc == 0) append_spec(b, &l, it, which, slot, known);
    }
    if (rc == 0) {
        sort_branches(&l, before_rope);
        l.b.flags = l.flags, l.b.cells = l.cells, l.b.ids = l.ids, l.b.position = l.position;
        l.b.stored_as = l.stored_as, l.b.coded_upto = l.upto, l.b.run = l.run;
        l.b.copied = (const uint32_t(*)[2])l.copied;
        l.b.branches = l.branches, l.b.tiles = l.tiles, l.b.references = l.references;
        l.b.scored = l.scored, l.b.targets = l.targets;
        l.b.decisions = l.decisions, l.b.known = l.known;
        if (r->model->engine->run(r->model->engine_self, &l.b, why, sizeof why))
            rc = kv_fail(e, KV_EFAIL, r->model->engine->hardware, "a batch of %u rows failed: %s",
                         l.b.n_rows, why);
        else if (l.b.bad)
            rc = refuse(b, from, &l, e);
    }
    uint32_t run = 0;
    size_t stored = 0, reference = 0, target = 0, next_reference = 0, next_target = 0;
    bool prompt_finite = true;
    slot = 0;
    for (size_t p = from; p < to && rc == 0; p++, slot++, run++) {
        const struct kv_trace_item *it = item_of(b, p);
        if (begins_item(b, from, p)) {
            uint32_t rows = kv_prompt_rows(r->mode, it);
            reference = next_reference, target = next_target, slot = 0;
            next_reference += judged(b, it);
            while (next_target < l.b.n_targets && l.targets[next_target].reference < next_reference)
                next_target++;
            prompt_finite = !rows || !l.b.not_finite[run];
            if (rows) run++;
            stored += rows;
        }
        const uint8_t *cells = l.cells + stored * n_cells;
        rc = check_decided(b, &l, p, run, stored, cells, e);
        if (rc == 0)
            rc = take_outcome(b, &l, p, run, slot, reference, target, cells,
                              prompt_finite && !l.b.not_finite[run], e);
        stored += it->n_tokens;
    }
    free_room(&l);
    free(before_rope);
    return rc;
}

// The pairs of a batch whose items nobody else has taken.
static int run_batch(void *self, unsigned worker, size_t index, struct kv_error *e) {
    struct batches *b = self, mine = *b;
    size_t from = b->cut[index], to = b->cut[index + 1], n = 0;
    bool claimed = false;
    (void)worker;
    mine.pairs = kv_alloc(to - from, sizeof *mine.pairs);
    for (size_t p = from; p < to; p++) {
        if (begins_item(b, from, p))
            claimed = !b->r->claim || b->r->claim(b->r->self, b->pairs[p].item);
        if (claimed) mine.pairs[n++] = b->pairs[p];
    }
    int rc = n ? run_pairs(&mine, 0, n, e) : 0;
    free(mine.pairs);
    if (rc == 0) kv_progress_step(b->progress, to - from);
    return rc;
}

// ---- all of them ----------------------------------------------------------------------

// Hands the formats to the engine. A spec whose format it cannot take is not served.
static int hold_formats(struct batches *b, bool *served, struct kv_error *e) {
    const struct kv_replay *r = b->r;
    const struct kv_shape *s = &r->model->shape;
    struct kv_plain_format *plain = kv_alloc(r->n_specs, sizeof *plain);
    uint32_t n = 0, longest = 1;
    bool turns = false;
    char why[256] = "";
    int rc = 0;
    for (size_t i = r->first_item; i < r->first_item + r->n_items; i++)
        if (kv_trace_item(r->trace, i)->n_tokens > longest)
            longest = kv_trace_item(r->trace, i)->n_tokens;
    for (size_t j = 0; j < r->n_specs; j++) {
        if (!served[j]) continue;
        struct kv_error unknown = {0};
        served[j] = kv_format_plain(r->specs[j].format, &plain[n], &unknown) == 0;
        turns |= served[j] && plain[n].centre_turns;
        if (served[j]) b->held[j] = n++;
    }
    float *table = NULL;
    if (turns) {
        size_t of_layer = (size_t)longest * s->head_dim;
        table = kv_alloc(s->n_layers * of_layer, sizeof *table);
        for (size_t l = 0; l < s->n_layers; l++)
            kv_plain_turns(kv_trace_info(r->trace)->rope + l * (s->head_dim / 2), s->head_dim,
                           longest, table + l * of_layer);
    }
    if (n &&
        r->model->engine->hold(r->model->engine_self, plain, n, table, longest, why, sizeof why))
        rc = kv_fail(e, KV_EFAIL, r->model->engine->hardware, "cannot hold the formats: %s", why);
    free(table);
    free(plain);
    return rc;
}

// The same with policies that decide in the pass.
static int hold_deciders(struct batches *b, const bool *served, struct kv_error *e) {
    const struct kv_replay *r = b->r;
    char why[256] = "";
    uint32_t n = 0;
    int rc = 0;
    for (size_t j = 0; j < r->n_specs && rc == 0; j++) {
        const struct kv_replay_spec *spec = &r->specs[j];
        b->decider[j] = KV_ENGINE_NO_ROW;
        if (!served[j] || !kv_by_layers(spec)) continue;
        b->decider[j] = n;
        rc = spec->policy->plain_cells(spec->self, &b->deciders[n++], e);
    }
    if (rc == 0 &&
        r->model->engine->hold_deciders(r->model->engine_self, b->deciders, n, why, sizeof why))
        rc = kv_fail(e, KV_EFAIL, r->model->engine->hardware, "cannot hold policies: %s", why);
    return rc;
}

// Cuts pairs where a batch has the rows that suit the engine: at an item's end if it can be.
static void cut(struct batches *b, size_t n_pairs) {
    size_t rows = 0, most = 2 * (size_t)b->r->model->engine->rows;
    b->cut = kv_alloc(n_pairs + 1, sizeof *b->cut);
    b->n = 0;
    for (size_t p = 0; p < n_pairs; p++) {
        const struct kv_trace_item *it = item_of(b, p);
        size_t own = it->n_tokens;
        bool begins = begins_item(b, b->cut[b->n], p);
        if (begins) own += kv_prompt_rows(b->r->mode, it);
        if (p > b->cut[b->n] && rows + own > most) {
            b->cut[++b->n] = p;
            rows = 0;
            own = it->n_tokens + kv_prompt_rows(b->r->mode, it);
        }
        rows += own;
    }
    if (n_pairs) b->cut[++b->n] = n_pairs;
}

// Whether a spec's policy, deciding by layers, can be asked as plain numbers.
static bool decides_in_pass(const struct kv_replay *r, const struct kv_replay_spec *spec) {
    return kv_by_layers(spec) == spec && spec->policy->plain_cells && !r->audit;
}

static bool may_serve(const struct kv_replay *r, const struct kv_replay_spec *spec) {
    bool decides = kv_by_layers(spec) ? decides_in_pass(r, spec) : !r->decisions_only;
    return decides && r->mode != KV_REQUANT && !r->redraw && spec->hops <= 1 &&
           !(r->closed && kv_reads_run(spec));
}

// Says which specs the caller runs. Under bf16 there are none: the caller's passes are float32.
static int say_left(const struct kv_replay *r, const bool *served, struct kv_error *e) {
    size_t n = 0, last = 0;
    for (size_t j = 0; j < r->n_specs; j++)
        if (!served[j]) n++, last = j;
    if (n && r->model->engine_bf16)
        return kv_fail(e, KV_EUSAGE, r->specs[last].canonical,
                       "mode %s of it is not computed in bf16; take --precision f32",
                       kv_mode_names[r->mode]);
    if (n && !r->quiet)
        kv_say("%zu of %zu specs go through the model on this CPU, with products on the GPU (%s%s)",
               n, r->n_specs, r->specs[last].canonical, n > 1 ? ", ..." : "");
    return 0;
}

int kv_replay_batches(const struct kv_replay *r, unsigned jobs, struct kv_progress *progress,
                      bool *served, struct kv_error *e) {
    const struct kv_shape *s = &r->model->shape;
    struct batches b = {.r = r,
                        .progress = progress,
                        .pairs = kv_alloc(r->n_items * r->n_specs, sizeof *b.pairs),
                        .held = kv_alloc(r->n_specs, sizeof *b.held),
                        .deciders = kv_alloc(r->n_specs, sizeof *b.deciders),
                        .decider = kv_alloc(r->n_specs, sizeof *b.decider),
                        .tile_rows = 64 / (s->n_heads / s->n_kv_heads)};
    size_t n = 0;
    for (size_t j = 0; j < r->n_specs; j++) served[j] = may_serve(r, &r->specs[j]);
    int rc = hold_formats(&b, served, e);
    if (rc == 0) rc = hold_deciders(&b, served, e);
    if (rc == 0) rc = say_left(r, served, e);
    for (size_t i = r->first_item; i < r->first_item + r->n_items && rc == 0; i++)
        for (size_t j = 0; j < r->n_specs; j++)
            if (served[j] && (!r->wanted || r->wanted(r->self, i, j)))
                b.pairs[n++] = (struct pair){i, j};
    pthread_mutex_t lock;
    pthread_mutex_init(&lock, NULL);
    b.lock = &lock;
    cut(&b, n);
    if (rc == 0) rc = kv_parallel(b.n, jobs, run_batch, &b, e);
    pthread_mutex_destroy(&lock);
    free(b.pairs);
    free(b.cut);
    free(b.held);
    free(b.deciders);
    free(b.decider);
    return rc;
}
