// SPDX-License-Identifier: Apache-2.0
// Predicting divergence from sensitivities, and the cross terms that the prediction leaves out.
#include "sim/replay/answers.h"
#include "sim/replay/damage.h"
#include "sim/replay/fisher.h"

#include <pthread.h>
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/replay/ledger.h"

// ---- cross terms ----------------------------------------------------------------------

int kv_cross_terms(const struct kv_replay *r, size_t which, double *ratio, double *by_layer,
                   struct kv_error *e) {
    KV_GUARD(e);
    const struct kv_trace *t = r->trace;
    const struct kv_replay_spec *spec = &r->specs[which];
    const struct kv_trace_info *in = kv_trace_info(t);
    size_t cells = kv_cells(&in->shape), d = in->shape.head_dim, n_layers = in->shape.n_layers,
           per_layer = cells / n_layers;
    if (!(in->keep & KV_KEEP_GRAD) || !(in->keep & KV_KEEP_KV))
        return kv_fail(e, KV_EFAIL, in->path,
                       "keeps no whole gradients; cross terms need --keep kv,grad");
    double *s1 = kv_alloc(n_layers + 1, sizeof *s1), *s2 = kv_alloc(n_layers + 1, sizeof *s2);
    double *draw = kv_alloc(n_layers, sizeof *draw);
    struct kv_cell_table_scratch *s = kv_cell_table_scratch_new(spec->format);
    int rc = 0;
    for (size_t i = r->first_item; i < r->first_item + r->n_items && rc == 0; i++) {
        const struct kv_trace_item *it = kv_trace_item(t, i);
        uint8_t *decided = kv_alloc(it->n_tokens * cells, 1);
        float *error = kv_alloc(it->n_tokens * cells * d, sizeof *error);
        rc = kv_trace_check_item(t, i, KV_KEEP_GRAD | KV_KEEP_KV, e);
        if (rc == 0) rc = kv_decide(r, which, i, decided, e);
        if (rc == 0) rc = kv_coding_error(in, it, spec->format, decided, s, error, e);
        for (size_t n = 0; n < in->adjoint.draws && rc == 0; n++) {
            double all = 0;
            memset(draw, 0, n_layers * sizeof *draw);
            for (size_t row = 0; row < it->n_tokens; row++)
                for (size_t c = 0; c < cells; c++) {
                    const uint16_t *g = (c & 1 ? it->v_grad : it->k_grad) +
                                        ((row * in->adjoint.draws + n) * cells / 2 + c / 2) * d;
                    const float *x = error + (row * cells + c) * d;
                    double dot = 0;
                    for (size_t k = 0; k < d; k++) dot += (double)(kv_bf16_to_f32(g[k]) * x[k]);
                    draw[c / per_layer] += dot;
                    s1[c / per_layer] += dot * dot;
                }
            for (size_t l = 0; l < n_layers; l++) {
                s2[l] += draw[l] * draw[l];
                all += draw[l];
            }
            s2[n_layers] += all * all;
        }
        free(decided);
        free(error);
    }
    for (size_t l = 0; l < n_layers; l++) {
        s1[n_layers] += s1[l];
        if (by_layer) by_layer[l] = s2[l] / s1[l];
    }
    *ratio = s2[n_layers] / s1[n_layers];
    kv_cell_table_scratch_free(s);
    free(s1);
    free(s2);
    free(draw);
    return rc;
}

// ---- replay ---------------------------------------------------------------------------

struct fisher {
    const struct kv_replay *r;
    struct kv_cell_table **tables; // [n_specs], shared by specs of one format
    pthread_mutex_t lock;
};

static bool mine(const struct kv_replay *r, size_t item) {
    bool any = !r->wanted;
    for (size_t j = 0; j < r->n_specs && !any; j++) any = r->wanted(r->self, item, j);
    return any && r->claim(r->self, item);
}

static int fisher_item(void *self, unsigned worker, size_t index, struct kv_error *e) {
    struct fisher *f = self;
    const struct kv_replay *r = f->r;
    size_t i = r->first_item + index;
    const struct kv_trace_item *it = kv_trace_item(r->trace, i);
    uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(&kv_trace_info(r->trace)->shape), 1);
    int rc = kv_trace_check_item(r->trace, i, KV_KEEP_SENS, e);
    (void)worker;
    const size_t n = !r->claim || mine(r, i) ? r->n_specs : 0;
    for (size_t j = 0; j < n && rc == 0; j++) {
        const struct kv_replay_spec *spec = &r->specs[j];
        if (r->wanted && !r->wanted(r->self, i, j)) continue;
        if ((rc = kv_decide(r, j, i, cells, e))) break;
        struct kv_outcome o = {.gold = it->gold, .margin = NAN};
        for (int s = 0; s < KV_N_SCORERS; s++) o.pick[s] = o.pick_ref[s] = -1;
        o.kl_nats = kv_fisher_kl(r->trace, i, f->tables[j], spec->run.n_widths, cells, NULL);
        o.n_scored = (uint32_t)kv_fisher_scored(kv_trace_info(r->trace), it);
        (void)kv_outcome_judged(&o);
        kv_ledger_count(spec, it, cells, &o.ledger);
        KV_LOCK(&f->lock);
        if (r->decided) r->decided(r->self, i, j, cells);
        rc = r->take(r->self, i, j, &o, e);
    }
    free(cells);
    return rc;
}

int kv_replay_fisher(const struct kv_replay *r, enum kv_cell_table_kind form, unsigned jobs,
                     struct kv_error *e) {
    KV_GUARD(e);
    struct fisher f = {.r = r};
    int rc = 0;
    pthread_mutex_init(&f.lock, NULL);
    for (size_t j = 0; j < r->n_specs && rc == 0; j++)
        rc = kv_fisher_answers(kv_trace_info(r->trace), &r->specs[j], r->mode, r->self_exact, e);
    if (rc == 0) rc = kv_cell_tables_open(&f.tables, r, 0, form, jobs, e);
    if (rc == 0) rc = kv_parallel(r->n_items, jobs, fisher_item, &f, e);
    kv_cell_tables_close(f.tables, r->n_specs);
    pthread_mutex_destroy(&f.lock);
    return rc;
}
