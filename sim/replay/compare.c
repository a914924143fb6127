// SPDX-License-Identifier: Apache-2.0
// From final states to outcomes: KL and log-probs at an item's targets, under the recorded run's
// states and under replayed ones.
#include "sim/replay/compare.h"

#include <stdlib.h>

#include "sim/base/memory.h"

static void add_target(struct kv_targets *t, uint32_t choice, uint32_t row, uint32_t id) {
    t->list[t->n] = (struct kv_target){.row = row, .id = id};
    t->choice[t->n++] = choice;
}

void kv_targets_init(struct kv_targets *t, const struct kv_trace_item *it) {
    *t = (struct kv_targets){.list = kv_alloc(it->n_tokens + it->n_choices, sizeof *t->list),
                             .ref = kv_alloc(it->n_tokens + it->n_choices, sizeof *t->ref),
                             .choice = kv_alloc(it->n_tokens + it->n_choices, sizeof *t->choice),
                             .other_top = kv_alloc(it->n_final, sizeof *t->other_top)};
    if (it->n_choices == 0)
        for (uint32_t f = 0; f < it->n_final; f++)
            add_target(t, 0, f, it->ids[it->final_rows[f] + 1]);
    uint32_t row = 1; // scored row 0 is the branch point; the choices' rows follow in order
    for (uint32_t c = 0; c < it->n_choices; c++) {
        add_target(t, c, 0, it->ids[it->first[c]]);
        for (uint32_t i = it->first[c] + 1; i < it->first[c + 1]; i++)
            add_target(t, c, row++, it->ids[i]);
    }
}

void kv_targets_fini(struct kv_targets *t) {
    free(t->list);
    free(t->ref);
    free(t->choice);
    free(t->other_top);
}

// The reference is computed once for each cut of rows.
void kv_compare_final(const struct kv_model *m, struct kv_scratch *s,
                      const struct kv_trace_item *it, size_t n_specs, float *const *scored,
                      struct kv_targets *targets, double *const *kl_nats) {
    size_t h = m->shape.hidden, most = kv_head_rows(m);
    struct kv_target *part = kv_alloc(targets[0].n, sizeof *part);
    size_t *which = kv_alloc(targets[0].n, sizeof *which);
    for (size_t from = 0, n; from < it->n_final; from += n) {
        struct kv_reference ref;
        size_t n_part = 0;
        n = it->n_final - from < most ? it->n_final - from : most;
        kv_head_reference(m, it->final + from * h, n, s, &ref);
        for (size_t i = 0; i < targets[0].n; i++) {
            uint32_t row = targets[0].list[i].row;
            if (row >= from && row < from + n) which[n_part++] = i;
        }
        for (size_t j = 0; j < n_specs; j++) {
            for (size_t i = 0; i < n_part; i++) {
                part[i] = targets[j].list[which[i]];
                part[i].row -= (uint32_t)from;
                targets[j].ref[which[i]] = kv_reference_logprob(m, &ref, part[i].row, part[i].id);
            }
            kv_head_compare(m, &ref, scored[j] + from * h, s, kl_nats[j] + from, part, n_part,
                            targets[j].other_top + from);
            for (size_t i = 0; i < n_part; i++) {
                struct kv_target *to = &targets[j].list[which[i]];
                to->logprob = part[i].logprob;
                to->top = part[i].top;
                to->ref_top = part[i].ref_top;
            }
        }
    }
    for (size_t j = 0; j < n_specs; j++) targets[j].tops = true;
    free(part);
    free(which);
}

// Tokens that all choices begin with; 0 when one choice would have nothing left.
static uint32_t common_prefix(const struct kv_trace_item *it) {
    for (uint32_t n = 0;; n++)
        for (uint32_t c = 0; c < it->n_choices; c++) {
            if (it->first[c] + n >= it->first[c + 1]) return 0;
            if (it->ids[it->first[c] + n] != it->ids[it->first[0] + n]) return n;
        }
}

// A text's scored positions one by one: its windows are long, and divergence goes by depth.
static void list_tokens(const struct kv_trace_item *it, const struct kv_targets *t,
                        const double *kl_nats, struct kv_outcome *o) {
    o->token = kv_alloc(t->n, sizeof *o->token);
    o->n_tokens = (uint32_t)t->n;
    for (size_t i = 0; i < t->n; i++)
        o->token[i] =
            (struct kv_token_outcome){.row = it->final_rows[i],
                                      .kl_nats = (float)kl_nats[i],
                                      .dp = (float)(exp(t->list[i].logprob) - exp(t->ref[i])),
                                      .other_top = t->other_top[i]};
}

// A choice is decoded greedily until one of its tokens is not the likeliest.
static void follow(enum kv_exact_match *match, bool top) {
    if (*match != KV_MATCH_NO) *match = top ? KV_MATCH_YES : KV_MATCH_NO;
}

void kv_compare_outcome(const struct kv_trace_item *it, const struct kv_targets *t,
                        const double *kl_nats, struct kv_outcome *o) {
    uint32_t n = it->n_choices ? it->n_choices : 1,
             prefix = it->n_choices > 1 ? common_prefix(it) : 0;
    o->n_choices = it->n_choices;
    o->gold = it->gold;
    o->choice = kv_alloc(n, sizeof *o->choice);
    double kl_sum = 0;
    for (size_t i = 0; i < t->n; i++) {
        struct kv_choice_outcome *c = &o->choice[t->choice[i]];
        c->logprob += t->list[i].logprob;
        c->logprob_ref += t->ref[i];
        c->kl_nats += kl_nats[t->list[i].row];
        kl_sum += kl_nats[t->list[i].row];
        if (t->tops) {
            follow(&c->match, t->list[i].top);
            follow(&c->match_ref, t->list[i].ref_top);
        }
        if (c->tokens++ < prefix) continue;
        c->logprob_after_prefix += t->list[i].logprob;
        c->logprob_ref_after_prefix += t->ref[i];
        c->tokens_after_prefix++;
    }
    for (uint32_t c = 0; c < it->n_choices; c++) {
        o->choice[c].chars = it->chars[c];
        o->choice[c].bytes = it->bytes[c];
    }
    if (it->n_choices == 0) list_tokens(it, t, kl_nats, o);
    o->n_scored = (uint32_t)t->n;
    o->kl_nats = kl_sum / (double)t->n;
    kv_outcome_score(o);
    (void)kv_outcome_judged(o);
}
