// SPDX-License-Identifier: Apache-2.0
// Predicting divergence from sensitivities: sums of table entries, and the cross terms that they
// leave out.
#include "sim/replay/fisher.h"

#include <pthread.h>
#include <stdlib.h>

#include "sim/base/isa.h"
#include "sim/base/cpu.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"

double kv_table_sum_base(const float *, const uint8_t *, size_t, size_t, size_t);
double kv_table_sum_avx2(const float *, const uint8_t *, size_t, size_t, size_t);
double kv_table_sum_avx512(const float *, const uint8_t *, size_t, size_t, size_t);
typedef double table_sum_fn(const float *, const uint8_t *, size_t, size_t, size_t);
KV_ISA_TABLE(table_sum_fn *, table_sum_at, kv_table_sum)

double kv_table_sum(const float *table, const uint8_t *cells, size_t n_tokens, size_t n_widths,
                    size_t n_cells) {
    return table_sum_at[kv_cpu_level()](table, cells, n_tokens, n_widths, n_cells);
}

double kv_fisher_scored(const struct kv_trace_info *in, const struct kv_trace_item *it) {
    double n = it->n_final + (it->n_choices ? it->n_choices - 1.0 : 0);
    return strcmp(in->adjoint.score, "all") == 0 && it->n_choices ? n + it->n_context - 1 : n;
}

double kv_fisher_kl(const struct kv_trace *t, size_t item, const struct kv_cell_table *table,
                    size_t n_widths, const uint8_t *cells, double *error) {
    const struct kv_trace_info *in = kv_trace_info(t);
    const struct kv_trace_item *it = kv_trace_item(t, item);
    const float *entry = kv_cell_table_item(table, item);
    size_t n_cells = kv_cells(&in->shape);
    double sum = kv_table_sum(entry, cells, it->n_tokens, n_widths, n_cells),
           n = kv_fisher_scored(in, it);
    if (memchr(cells, KV_EVICT, it->n_tokens * n_cells)) // K and V go together: once for both
        for (size_t i = 0; i < it->n_tokens * n_cells; i += 2)
            if (cells[i] == KV_EVICT) sum += 0.5 * (double)it->evict[i / 2];
    if (error) {
        double spread = 0;
        for (size_t row = 0; row < it->n_tokens; row++)
            for (size_t c = 0; c < n_cells; c++) {
                size_t i = row * n_cells + c;
                if (cells[i] < n_widths && it->sens[i] > 0)
                    spread += (double)(entry[(row * n_widths + cells[i]) * n_cells + c] *
                                       it->sens_spread[i] / it->sens[i]);
            }
        *error = spread / sqrt((double)in->adjoint.draws) / n;
    }
    return sum / n;
}

// ---- cross terms ----------------------------------------------------------------------

int kv_cross_terms(const struct kv_replay *r, size_t which, double *ratio, double *by_layer,
                   struct kv_error *e) {
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
        rc = kv_decide(r, which, i, decided, e);
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

int kv_adjoint_answers(const struct kv_trace_info *in, const struct kv_replay_spec *spec,
                       enum kv_mode mode, bool self_exact, struct kv_error *e) {
    const struct kv_format *f = spec->format;
    if (strcmp(in->adjoint.mode, kv_mode_names[mode]) != 0)
        return kv_fail(e, KV_EFAIL, in->path,
                       "its sensitivities were recorded for mode %s and do not answer for %s",
                       in->adjoint.mode, kv_mode_names[mode]);
    if (strcmp(in->adjoint.self, self_exact ? "exact" : "coded") != 0)
        return kv_fail(e, KV_EFAIL, in->path,
                       "its sensitivities were recorded for the own step read %s",
                       in->adjoint.self);
    if (spec->hops > 1)
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "fisher replay does not answer for a prompt coded %u times; use --fidelity "
                       "exact",
                       spec->hops);
    if (f->window[KV_KEY] || f->window[KV_VALUE] || f->flush[KV_KEY] > 1 || f->flush[KV_VALUE] > 1)
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "fisher replay does not answer for windows or open groups of tokens: who "
                       "reads exact values "
                       "changes with age; use --fidelity exact");
    return 0;
}

int kv_fisher_answers(const struct kv_trace_info *in, const struct kv_replay_spec *spec,
                      enum kv_mode mode, bool self_exact, struct kv_error *e) {
    if (spec->rounds > 1)
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "rounds=%u measures sensitivities again by running the model; use "
                       "--fidelity exact",
                       spec->rounds);
    return kv_adjoint_answers(in, spec, mode, self_exact, e);
}

struct fisher {
    const struct kv_replay *r;
    struct kv_cell_table **tables; // [n_specs], shared by specs of one format
    pthread_mutex_t lock;
};

static int fisher_item(void *self, unsigned worker, size_t index, struct kv_error *e) {
    struct fisher *f = self;
    const struct kv_replay *r = f->r;
    size_t i = r->first_item + index;
    const struct kv_trace_item *it = kv_trace_item(r->trace, i);
    uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(&kv_trace_info(r->trace)->shape), 1);
    int rc = 0;
    (void)worker;
    for (size_t j = 0; j < r->n_specs && rc == 0; j++) {
        const struct kv_replay_spec *spec = &r->specs[j];
        if (r->wanted && !r->wanted(r->self, i, j)) continue;
        if ((rc = kv_decide(r, j, i, cells, e))) break;
        struct kv_outcome o = {.gold = it->gold, .margin = NAN};
        for (int s = 0; s < KV_N_SCORERS; s++) o.pick[s] = o.pick_ref[s] = -1;
        o.kl_nats = kv_fisher_kl(r->trace, i, f->tables[j], spec->run.n_widths, cells, NULL);
        o.n_scored = (uint32_t)kv_fisher_scored(kv_trace_info(r->trace), it);
        kv_ledger_count(spec, it, cells, &o.ledger);
        pthread_mutex_lock(&f->lock);
        rc = r->take(r->self, i, j, &o, e);
        pthread_mutex_unlock(&f->lock);
    }
    free(cells);
    return rc;
}

int kv_replay_fisher(const struct kv_replay *r, enum kv_cell_table_kind form, unsigned jobs,
                     struct kv_error *e) {
    struct fisher f = {.r = r, .tables = kv_alloc(r->n_specs, sizeof(struct kv_cell_table *))};
    int rc = 0;
    pthread_mutex_init(&f.lock, NULL);
    for (size_t j = 0; j < r->n_specs && rc == 0; j++) {
        rc = kv_fisher_answers(kv_trace_info(r->trace), &r->specs[j], r->mode, r->self_exact, e);
        for (size_t k = 0; k < j && !f.tables[j] && rc == 0; k++)
            if (strcmp(r->specs[k].format->canonical, r->specs[j].format->canonical) == 0)
                f.tables[j] = f.tables[k];
        if (rc == 0 && !f.tables[j])
            rc = kv_cell_table_open(&f.tables[j], r->trace, r->specs[j].format, form, jobs, e);
    }
    if (rc == 0) rc = kv_parallel(r->n_items, jobs, fisher_item, &f, e);
    kv_cell_tables_close(f.tables, r->n_specs);
    pthread_mutex_destroy(&f.lock);
    return rc;
}
