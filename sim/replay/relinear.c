// SPDX-License-Identifier: Apache-2.0
// Measuring sensitivities where a policy has taken the cache, and asking it again.
#include "sim/replay/answers.h"
#include "sim/replay/relinear.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/quant/code.h"
#include "sim/replay/ask.h"
#include "sim/replay/pass.h"

int kv_relinear_measure(const struct kv_model *m, const struct kv_trace_item *it,
                        const struct kv_replay_spec *spec, const uint8_t *cells,
                        const struct kv_adjoint_info *how, bool keep_gradients,
                        struct kv_scratch *s, struct kv_sensitivity *out, struct kv_error *e) {
    const struct kv_shape *sh = &m->shape;
    struct kv_tree tree = {it->n_tokens, it->n_context, it->n_choices, it->first, it->ids};
    *out = (struct kv_sensitivity){0};
    if (memchr(cells, KV_EVICT, it->n_tokens * kv_cells(sh)))
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "sensitivities cannot be measured where cells are evicted (item %s)",
                       it->id);
    struct kv_pass p;
    kv_pass_init(&p, m, &tree);
    p.spec = spec;
    p.cells = cells;
    p.code_scratch = kv_alloc(kv_code_scratch_bytes(spec->format), 1);
    uint32_t *upto = kv_alloc(2 * (size_t)it->n_tokens, sizeof *upto);
    for (uint32_t row = 0; row < it->n_tokens; row++)
        upto[2 * row] = upto[2 * row + 1] = kv_tree_position(&tree, row) + 1;
    float *final = kv_alloc((size_t)it->n_tokens * sh->hidden, sizeof *final);
    struct kv_tape *tape = kv_tape_new(m, it->n_tokens, KV_TAPE_BYTES);
    struct kv_forward job = {.tree = &tree,
                             .coded_upto = upto,
                             .store = kv_pass_store,
                             .self = &p,
                             .tape = tape,
                             .final = final};
    int rc = kv_forward(m, &job, s, e);
    if (rc == 0) kv_sensitivity_measure(m, it, how, keep_gradients, tape, final, NULL, s, out);
    kv_tape_free(tape);
    kv_pass_fini(&p);
    free(final);
    free(upto);
    return rc;
}

// ---- rounds ---------------------------------------------------------------------------

static bool needs_gradients(enum kv_cell_table_kind form) {
    return form == KV_TABLE_ELEMENT || form == KV_TABLE_VECTOR;
}

int kv_relinear_answers(const struct kv_replay *r, const struct kv_replay_spec *spec,
                        struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(r->trace);
    if (spec->rounds <= 1) return 0;
    if (!r->model)
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "rounds=%u measures sensitivities again by running the model, which only "
                       "exact replay does",
                       spec->rounds);
    if (r->mode != KV_INLINE || r->self_exact)
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "rounds=%u measures sensitivities in mode inline with the own step coded "
                       "and in no other",
                       spec->rounds);
    bool whole = needs_gradients(r->form);
    uint32_t keep = KV_KEEP_KV | (whole ? KV_KEEP_GRAD : KV_KEEP_SENS);
    if ((in->keep & keep) != keep)
        return kv_fail(e, KV_EFAIL, in->path,
                       "keeps too little for rounds=%u; record with --keep final,kv,%s",
                       spec->rounds, whole ? "sens,grad" : "sens");
    return kv_adjoint_answers(in, spec, r->mode, r->self_exact, e);
}

// The policy that asks for rounds: the spec's own or the one that it wraps.
static const struct kv_replay_spec *who_asks(const struct kv_replay_spec *spec) {
    while (spec->inner && !spec->policy->rounds_as_opened) spec = spec->inner;
    return spec;
}

// One round: where does the policy go on this damage, and what is the damage there?
static int visit(const struct kv_replay *r, const struct kv_replay_spec *spec,
                 const struct kv_trace_item *it, struct kv_item *view, uint32_t round,
                 uint8_t *cells, struct kv_scratch *s, float *damage, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(r->trace);
    const struct kv_replay_spec *asking = who_asks(spec);
    struct kv_adjoint_info how = in->adjoint;
    struct kv_sensitivity at = {0};
    how.seed += (uint64_t)round << 32; // other labels than those that were chosen on
    view->run = &asking->run;
    int rc = kv_spec_ask(asking, view, cells, e);
    if (rc == 0) rc = kv_check_answers(spec, it->id, it->n_tokens, cells, e);
    if (rc == 0)
        rc = kv_relinear_measure(r->model, it, spec, cells, &how, needs_gradients(r->form), s, &at,
                                 e);
    if (rc == 0) {
        struct kv_trace_item moved = *it;
        struct kv_cell_table_scratch *coding = kv_cell_table_scratch_new(spec->format);
        moved.sens = at.sens;
        moved.k_grad = at.k_grad;
        moved.v_grad = at.v_grad;
        rc = kv_cell_table_fill(in, &moved, spec->format, r->form, kv_trace_channels(r->trace),
                                coding, damage, e);
        kv_cell_table_scratch_free(coding);
    }
    kv_sensitivity_fini(&at);
    return rc;
}

int kv_relinear_damage(const struct kv_replay *r, size_t which, size_t item,
                       const struct kv_item *shown, float **out, struct kv_error *e) {
    const struct kv_replay_spec *spec = &r->specs[which];
    const struct kv_trace_item *it = kv_trace_item(r->trace, item);
    size_t cells = it->n_tokens * kv_cells(&spec->run.shape), n = cells * spec->run.n_widths;
    struct kv_item view = *shown;
    *out = NULL;
    int rc = kv_relinear_answers(r, spec, e);
    if (rc) return rc;
    float *mean = kv_alloc(n, sizeof *mean), *here = kv_alloc(n, sizeof *here);
    uint8_t *decided = kv_alloc(cells, 1);
    struct kv_scratch *s = kv_scratch_new();
    memcpy(mean, shown->damage, n * sizeof *mean);
    view.damage = mean;
    for (uint32_t round = 1; round < spec->rounds && rc == 0; round++) {
        rc = visit(r, spec, it, &view, round, decided, s, here, e);
        for (size_t i = 0; i < n && rc == 0; i++)
            mean[i] += (here[i] - mean[i]) / (float)(round + 1);
        if (rc == 0 && kv_interrupted()) rc = kv_fail(e, KV_EINTR, "", "interrupted");
    }
    kv_scratch_free(s);
    free(decided);
    free(here);
    if (rc)
        free(mean);
    else
        *out = mean;
    return rc;
}
