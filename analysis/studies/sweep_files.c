// SPDX-License-Identifier: Apache-2.0
// Keeps decisions and scores of a run item by item, whatever the order in which they come, and
// writes them in the items' order.
#include "analysis/studies/sweep_files.h"

#include <stdlib.h>

#include "analysis/results/result_file.h"
#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/replay/plan_out.h"

// An item's outcome, and its scored tokens.
struct scores {
    bool taken;
    struct kv_outcome o; // choices owned
    size_t n;
    struct token {
        uint32_t id;
        double logprob, logprob16, kl_nats;
    } * tokens;
};

struct kv_sweep_files {
    const struct kv_sweep_options *o;
    const struct kv_trace *trace;
    const struct kv_replay_spec *spec;
    struct kv_plan_out *plan;
    struct scores *items; // [o->items.n] or NULL
};

int kv_sweep_files_check(const struct kv_sweep_options *o, struct kv_error *e) {
    const char *option = o->scores_out ? "scores-out" : "plan-out";
    if (!o->scores_out && !o->plan_out) return 0;
    const char *why = o->db                        ? "a store, which may hold items already,"
                      : o->attention               ? "fidelity attention"
                      : o->exact && o->fisher      ? "more than one fidelity"
                      : o->published               ? "mode published"
                      : o->n_modes > 1             ? "more than one mode"
                      : o->redraws > 1             ? "more than one redraw"
                      : o->scores_out && !o->exact ? "fidelity fisher, which scores nothing,"
                                                   : NULL;
    if (why)
        return kv_fail(e, KV_EUSAGE, option, "this file is of one run; %s cannot go with it", why);
    int rc = o->scores_out ? kv_check_output(o->scores_out, e) : 0;
    return rc || !o->plan_out ? rc : kv_check_output(o->plan_out, e);
}

int kv_sweep_files_open(struct kv_sweep_files **out, const struct kv_sweep_options *o,
                        const struct kv_trace *t, const struct kv_replay_spec *specs, size_t n,
                        struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    if (!o->plan_out && !o->scores_out) return 0;
    if (n != 1)
        return kv_fail(e, KV_EUSAGE, o->scores_out ? "scores-out" : "plan-out",
                       "this file is of one spec, not of %zu", n);
    struct kv_sweep_files *f = kv_alloc(1, sizeof *f);
    *f = (struct kv_sweep_files){.o = o, .trace = t, .spec = specs};
    int rc = o->plan_out ? kv_plan_out_new(&f->plan, t, specs, o->items.first, o->items.n, e) : 0;
    if (rc == 0 && o->scores_out) f->items = kv_alloc(o->items.n, sizeof *f->items);
    if (rc)
        kv_sweep_files_close(f);
    else
        *out = f;
    return rc;
}

void kv_sweep_files_close(struct kv_sweep_files *f) {
    if (!f) return;
    for (size_t i = 0; f->items && i < f->o->items.n; i++) {
        if (f->items[i].taken) kv_outcome_fini(&f->items[i].o);
        free(f->items[i].tokens);
    }
    free(f->items);
    kv_plan_out_free(f->plan);
    free(f);
}

void kv_sweep_files_decided(struct kv_sweep_files *f, size_t item, const uint8_t *cells) {
    if (f->plan) kv_plan_out_take(f->plan, item, cells);
}

void kv_sweep_files_scored(struct kv_sweep_files *f, size_t item, const struct kv_targets *t,
                           const double *kl_nats) {
    if (!f->items) return;
    struct scores *to = &f->items[item - f->o->items.first];
    to->n = t->n;
    to->tokens = kv_alloc(t->n, sizeof *to->tokens);
    for (size_t i = 0; i < t->n; i++)
        to->tokens[i] =
            (struct token){t->list[i].id, t->list[i].logprob, t->ref[i], kl_nats[t->list[i].row]};
}

void kv_sweep_files_take(struct kv_sweep_files *f, size_t item, const struct kv_outcome *o) {
    if (!f->items) return;
    struct scores *to = &f->items[item - f->o->items.first];
    size_t n = o->n_choices ? o->n_choices : 1;
    struct kv_choice_outcome *choices = kv_alloc(n, sizeof *choices);
    to->o = *o;
    to->o.choice = memcpy(choices, o->choice, n * sizeof *choices);
    to->taken = true;
}

// ---- scores ---------------------------------------------------------------------------

static double right(int32_t pick, int32_t gold) {
    return pick < 0 || gold < 0 ? NAN : pick == gold;
}

static void put_item(struct kv_result_file *to, const struct kv_trace_item *it,
                     const struct scores *s) {
    const struct kv_outcome *o = &s->o;
    kv_result_put_key(to, it->key);
    kv_result_put(to, KV_ITEM_INDEX, it->index);
    kv_result_put(to, KV_ITEM_GOLD, o->gold);
    kv_result_put(to, KV_ITEM_N_CHOICES, o->n_choices ? o->n_choices : 1);
    kv_result_put(to, KV_ITEM_N_TOKENS, (double)s->n);
    kv_result_put(to, KV_ITEM_KL_NATS, o->kl_nats);
    kv_result_put(to, KV_ITEM_MARGIN, o->margin);
    for (int k = 0; k < KV_N_SCORERS; k++) {
        kv_result_put(to, KV_ITEM_RIGHT, right(o->pick[k], o->gold));
        kv_result_put(to, KV_ITEM_RIGHT16, right(o->pick_ref[k], o->gold));
    }
    kv_result_put(to, KV_ITEM_BITS, o->ledger.nominal_bits);
    kv_result_put(to, KV_ITEM_BITS, o->ledger.effective_bits);
    kv_result_put(to, KV_ITEM_BITS, o->ledger.allocated_bits);
    for (uint32_t c = 0; c < (o->n_choices ? o->n_choices : 1); c++) {
        kv_result_put(to, KV_CHOICE_LOGPROB, o->choice[c].logprob);
        kv_result_put(to, KV_CHOICE_LOGPROB16, o->choice[c].logprob_ref);
        kv_result_put(to, KV_CHOICE_KL_NATS, o->choice[c].kl_nats);
        kv_result_put(to, KV_CHOICE_TOKENS, o->choice[c].tokens);
        kv_result_put(to, KV_CHOICE_CHARS, o->choice[c].chars);
        kv_result_put(to, KV_CHOICE_BYTES, o->choice[c].bytes);
    }
    bool known = isfinite(o->kl_nats); // else none of an item's scores is a result
    for (size_t i = 0; i < s->n; i++) {
        kv_result_put(to, KV_TOKEN_ID, s->tokens[i].id);
        kv_result_put(to, KV_TOKEN_LOGPROB, known ? s->tokens[i].logprob : NAN);
        kv_result_put(to, KV_TOKEN_LOGPROB16, known ? s->tokens[i].logprob16 : NAN);
        kv_result_put(to, KV_TOKEN_KL_NATS, known ? s->tokens[i].kl_nats : NAN);
    }
}

static int write_scores(const struct kv_sweep_files *f, struct kv_error *e) {
    struct kv_result_file *to = kv_result_file_new();
    const char *const texts[] = {"format",   "kvsim-scores-1",
                                 "spec",     f->spec->canonical,
                                 "trace",    kv_trace_info(f->trace)->digest,
                                 "fidelity", "exact",
                                 "mode",     kv_mode_names[f->o->modes[0]],
                                 "redraws",  "1"};
    for (size_t i = 0; i < f->o->items.n; i++)
        put_item(to, kv_trace_item(f->trace, f->o->items.first + i), &f->items[i]);
    int rc = kv_result_file_write(to, f->o->scores_out, texts, sizeof texts / sizeof *texts / 2, e);
    kv_result_file_free(to);
    return rc;
}

int kv_sweep_files_write(const struct kv_sweep_files *f, struct kv_error *e) {
    KV_GUARD(e);
    int rc = f->plan ? kv_plan_out_write(f->plan, f->o->plan_out, e) : 0;
    return rc || !f->items ? rc : write_scores(f, e);
}
