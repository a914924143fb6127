// SPDX-License-Identifier: Apache-2.0
// The forms of predicted damage, draw by draw, for given decisions.
#include "sim/replay/answers.h"
#include "sim/replay/damage.h"
#include "sim/replay/draws.h"

#include <pthread.h>
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "traces/products.h"

const char *const kv_draw_forms[] = {"iso", "element", "vector", "total", NULL};

// ---- one item -------------------------------------------------------------------------

struct kv_draw_work {
    const struct kv_trace *trace;
    const struct kv_format *format;
    struct kv_cell_table_scratch *scratch;
    float *error;
    size_t room; // floats
};

struct kv_draw_work *kv_draw_work_new(const struct kv_trace *t, const struct kv_format *f) {
    struct kv_draw_work *w = kv_alloc(1, sizeof *w);
    *w = (struct kv_draw_work){.trace = t, .format = f, .scratch = kv_cell_table_scratch_new(f)};
    return w;
}

void kv_draw_work_free(struct kv_draw_work *w) {
    if (!w) return;
    kv_cell_table_scratch_free(w->scratch);
    free(w->error);
    free(w);
}

int kv_draws_of(struct kv_draw_work *w, size_t item, const uint8_t *cells,
                struct kv_draw_sums *draw, double *layers, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(w->trace);
    const struct kv_trace_item *it = kv_trace_item(w->trace, item);
    size_t n_cells = kv_cells(&in->shape), d = in->shape.head_dim, n_draws = in->adjoint.draws,
           n_layers = in->shape.n_layers, per_layer = n_cells / n_layers,
           need = it->n_tokens * n_cells * d;
    if (w->room < need) {
        free(w->error);
        w->error = kv_alloc(need, sizeof *w->error);
        w->room = need;
    }
    int rc = kv_coding_error(in, it, w->format, cells, w->scratch, w->error, e);
    if (rc) return rc;
    double *total = kv_alloc(3 * n_draws * n_layers, sizeof *total),
           *square = total + n_draws * n_layers, *element = square + n_draws * n_layers,
           evicted = 0;
    memset(draw, 0, n_draws * sizeof *draw);
    for (size_t row = 0; row < it->n_tokens; row++)
        for (size_t c = 0; c < n_cells; c++) {
            const float *x = w->error + (row * n_cells + c) * d;
            if (cells[row * n_cells + c] == KV_EVICT) { // K and V go together: once for both
                if (c % 2 == 0) evicted += 0.5 * (double)it->evict[(row * n_cells + c) / 2];
                continue;
            }
            double size = (double)kv_square(x, d);
            if (size == 0) continue;
            for (size_t r = 0; r < n_draws; r++) {
                const uint16_t *g = (c & 1 ? it->v_grad : it->k_grad) +
                                    ((row * n_draws + r) * n_cells / 2 + c / 2) * d;
                struct kv_products p = kv_gradient_products(g, x, d);
                double dot = (double)p.dot;
                draw[r].form[0] += 0.5 * (double)p.gradient * size / (double)d;
                draw[r].form[1] += 0.5 * (double)p.squares;
                draw[r].form[2] += 0.5 * dot * dot;
                total[r * n_layers + c / per_layer] += dot;
                square[r * n_layers + c / per_layer] += dot * dot;
                element[r * n_layers + c / per_layer] += (double)p.squares;
            }
        }
    for (size_t r = 0; r < n_draws; r++) {
        double all = 0;
        for (size_t l = 0; l < n_layers; l++) all += total[r * n_layers + l];
        draw[r].form[3] = 0.5 * all * all;
        draw[r].evicted = evicted;
    }
    if (layers) memcpy(layers, total, 3 * n_draws * n_layers * sizeof *total);
    free(total);
    return 0;
}

// ---- replay ---------------------------------------------------------------------------

struct engine {
    const struct kv_replay *r;
    int (*take)(void *, size_t, size_t, const struct kv_draws *, struct kv_error *);
    void *self;
    pthread_mutex_t lock;
    struct kv_progress *progress;
};

static int replay_item(void *self, unsigned worker, size_t index, struct kv_error *e) {
    struct engine *g = self;
    const struct kv_replay *r = g->r;
    const struct kv_trace_info *in = kv_trace_info(r->trace);
    size_t i = r->first_item + index, n_draws = in->adjoint.draws, n_layers = in->shape.n_layers;
    const struct kv_trace_item *it = kv_trace_item(r->trace, i);
    uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(&in->shape), 1);
    struct kv_draw_sums *draw = kv_alloc(n_draws, sizeof *draw);
    double *layers = kv_alloc(3 * n_draws * n_layers, sizeof *layers);
    int rc = kv_trace_check_item(r->trace, i, KV_KEEP_KV | KV_KEEP_GRAD, e);
    (void)worker;
    for (size_t j = 0; j < r->n_specs && rc == 0; j++) {
        if (r->wanted && !r->wanted(r->self, i, j)) continue;
        struct kv_draw_work *w = kv_draw_work_new(r->trace, r->specs[j].format);
        rc = kv_decide(r, j, i, cells, e);
        if (rc == 0) rc = kv_draws_of(w, i, cells, draw, layers, e);
        kv_draw_work_free(w);
        if (rc) break;
        struct kv_draws x = {.n_draws = n_draws,
                             .n_layers = n_layers,
                             .scored = kv_fisher_scored(in, it),
                             .draw = draw,
                             .layer_total = layers,
                             .layer_square = layers + n_draws * n_layers,
                             .layer_element = layers + 2 * n_draws * n_layers};
        KV_LOCK(&g->lock);
        rc = g->take(g->self, i, j, &x, e);
    }
    free(cells);
    free(draw);
    free(layers);
    if (rc == 0) kv_progress_step(g->progress, r->n_specs);
    return rc;
}

int kv_replay_draws(const struct kv_replay *r, unsigned jobs,
                    int (*take)(void *, size_t, size_t, const struct kv_draws *, struct kv_error *),
                    void *self, struct kv_error *e) {
    KV_GUARD(e);
    const struct kv_trace_info *in = kv_trace_info(r->trace);
    if (!(in->keep & KV_KEEP_GRAD) || !(in->keep & KV_KEEP_KV) || !(in->keep & KV_KEEP_SENS))
        return kv_fail(e, KV_EFAIL, in->path,
                       "keeps no whole gradients; the forms need --keep kv,sens,grad");
    struct engine g = {.r = r, .take = take, .self = self};
    int rc = 0;
    for (size_t j = 0; j < r->n_specs && rc == 0; j++)
        rc = kv_fisher_answers(in, &r->specs[j], r->mode, r->self_exact, e);
    if (rc) return rc;
    pthread_mutex_init(&g.lock, NULL);
    g.progress = kv_progress_start("predicting", r->n_items * r->n_specs, "item-specs");
    rc = kv_parallel(r->n_items, jobs, replay_item, &g, e);
    kv_progress_end(g.progress);
    pthread_mutex_destroy(&g.lock);
    return rc;
}
