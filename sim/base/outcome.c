// SPDX-License-Identifier: Apache-2.0
// The names of how specs are replayed, and from log-probs to picks: the scorers in use, side by
// side.
#include <stdlib.h>

#include "sim/base/outcome.h"

const char *const kv_fidelity_names[] = {"exact", "fisher", "attention", NULL};
const char *const kv_mode_names[] = {"inline", "prefill", "prefill1", "requant", NULL};
const char *const kv_self_names[] = {"coded", "exact", NULL};
const char *const kv_feedback_names[] = {"open", "closed", NULL};
const char *const kv_form_names[] = {"none", "iso", "element", "vector", "channel", NULL};
const char *const kv_scorer_names[] = {"acc", "acc_norm", "acc_bytes", "acc_token", NULL};

static const char *const variants[][2] = {
    [KV_FORM_NONE] = {"", "feedback=closed"},
    [KV_FORM_ISO] = {"form=iso", "feedback=closed,form=iso"},
    [KV_FORM_ELEMENT] = {"form=element", "feedback=closed,form=element"},
    [KV_FORM_VECTOR] = {"form=vector", "feedback=closed,form=vector"},
    [KV_FORM_CHANNEL] = {"form=channel", "feedback=closed,form=channel"}};

const char *kv_variant_name(enum kv_form form, enum kv_feedback feedback) {
    return variants[form][feedback];
}

bool kv_variant_read(const char *text, enum kv_form *form, enum kv_feedback *feedback) {
    for (int i = 0; i <= KV_FORM_CHANNEL; i++)
        for (int k = 0; k < 2; k++) {
            if (strcmp(variants[i][k], text) != 0) continue;
            *form = (enum kv_form)i;
            *feedback = (enum kv_feedback)k;
            return true;
        }
    return false;
}

void kv_outcome_fini(struct kv_outcome *o) {
    free(o->choice);
    free(o->token);
    *o = (struct kv_outcome){0};
}

static bool finite_choice(const struct kv_choice_outcome *c) {
    return isfinite(c->logprob) && isfinite(c->logprob_ref) && isfinite(c->kl_nats) &&
           isfinite(c->logprob_after_prefix) && isfinite(c->logprob_ref_after_prefix);
}

bool kv_outcome_judged(struct kv_outcome *o) {
    uint32_t n = !o->choice ? 0 : o->n_choices ? o->n_choices : 1;
    bool finite = isfinite(o->kl_nats);
    for (uint32_t c = 0; c < n; c++) finite = finite && finite_choice(&o->choice[c]);
    if (finite) return true;
    o->n_tokens = 0;
    o->kl_nats = o->margin = NAN;
    for (int s = 0; s < KV_N_SCORERS; s++) o->pick[s] = o->pick_ref[s] = -1;
    for (uint32_t c = 0; c < n; c++) {
        struct kv_choice_outcome *x = &o->choice[c];
        x->logprob = x->logprob_after_prefix = x->kl_nats = NAN;
        x->logprob_ref = x->logprob_ref_after_prefix = NAN;
        x->match = x->match_ref = KV_MATCH_UNKNOWN;
    }
    return false;
}

static double score(const struct kv_choice_outcome *c, enum kv_scorer scorer, bool reference) {
    double sum = reference ? c->logprob_ref : c->logprob;
    switch (scorer) {
    case KV_ACC_NORM:
        return sum / c->chars;
    case KV_ACC_BYTES:
        return sum / c->bytes;
    case KV_ACC_TOKEN:
        return (reference ? c->logprob_ref_after_prefix : c->logprob_after_prefix) /
               c->tokens_after_prefix;
    default:
        return sum;
    }
}

static int32_t best(const struct kv_outcome *o, enum kv_scorer scorer, bool reference) {
    int32_t pick = -1;
    double top = -INFINITY;
    for (uint32_t c = 0; c < o->n_choices && o->n_choices > 1; c++) { // of one there is no pick
        double s = score(&o->choice[c], scorer, reference);
        if (s > top) top = s, pick = (int32_t)c;
    }
    return pick;
}

void kv_outcome_score(struct kv_outcome *o) {
    for (int s = 0; s < KV_N_SCORERS; s++) {
        o->pick[s] = best(o, (enum kv_scorer)s, false);
        o->pick_ref[s] = best(o, (enum kv_scorer)s, true);
    }
    o->margin = NAN;
    if (o->gold < 0 || o->n_choices < 2) return;
    double rival = -INFINITY;
    for (uint32_t c = 0; c < o->n_choices; c++)
        if ((int32_t)c != o->gold) rival = fmax(rival, o->choice[c].logprob);
    o->margin = o->choice[o->gold].logprob - rival;
}
