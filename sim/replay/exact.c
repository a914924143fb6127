// SPDX-License-Identifier: Apache-2.0
// Exact replay: the model runs again and reads, at every layer, what the decided cache would
// return.
#include <pthread.h>
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/quant/code.h"
#include "sim/replay/ask.h"
#include "sim/replay/batches.h"
#include "sim/replay/closed.h"
#include "sim/replay/compare.h"
#include "sim/replay/ledger.h"
#include "sim/replay/pass.h"
#include "sim/replay/reads.h"
#include "sim/replay/requant.h"
#include "traces/features.h"

static const double disturbance = 1e-6; // relative, on the embeddings of a redraw

struct engine {
    const struct kv_replay *r;
    struct kv_scratch **scratch; // [jobs]
    pthread_mutex_t lock;        // around r->take
    struct kv_progress *progress;
    bool *batched; // [n_specs] those that an engine has run (batches.h), or NULL
};

// ---- the prompt of the prefill modes --------------------------------------------------

struct prompt {
    uint32_t rows;
    bool not_finite;            // as kv_pass has it
    struct kv_layer_kv *layers; // [n_layers], arrays of [rows][n_kv]
    struct kv_pass_rows *seen;  // [n_layers] for policies that decide by layers, else NULL
    float *block, *seen_block;
};

static bool decides_by_layers(const struct kv_replay *r) {
    for (size_t j = 0; j < r->n_specs; j++)
        if (kv_by_layers(&r->specs[j])) return true;
    return false;
}

// Room for what is observed of the prompt's rows.
static void keep_seen(const struct kv_shape *s, uint32_t rows, struct prompt *out) {
    size_t n_q = (size_t)s->n_heads * s->head_dim, n = (size_t)rows * (s->hidden + n_q);
    out->seen = kv_alloc(s->n_layers, sizeof *out->seen);
    out->seen_block = kv_alloc(s->n_layers * n, sizeof(float));
    for (size_t l = 0; l < s->n_layers; l++) {
        float *at = out->seen_block + l * n;
        out->seen[l] = (struct kv_pass_rows){at, at + (size_t)rows * s->hidden};
    }
}

static int run_prompt(const struct engine *g, struct kv_scratch *s, const struct kv_trace_item *it,
                      uint32_t rows, struct prompt *out, struct kv_error *e) {
    const struct kv_model *m = g->r->model;
    size_t n = (size_t)rows * m->shape.n_kv_heads * m->shape.head_dim;
    *out = (struct prompt){.rows = rows};
    out->layers = kv_alloc(m->shape.n_layers, sizeof *out->layers);
    out->block = kv_alloc(3 * n * m->shape.n_layers, sizeof(float));
    for (size_t l = 0; l < m->shape.n_layers; l++)
        out->layers[l] = (struct kv_layer_kv){out->block + 3 * l * n, out->block + (3 * l + 1) * n,
                                              out->block + (3 * l + 2) * n};
    if (rows == 0) return 0;
    struct kv_tree tree = {rows, rows, 0, NULL, it->ids};
    struct kv_pass p;
    kv_pass_init(&p, m, &tree);
    p.reads_exact = true;
    p.kept = out->layers;
    if (decides_by_layers(g->r)) keep_seen(&m->shape, rows, out);
    p.seen = out->seen;
    float *final = kv_alloc((size_t)rows * m->shape.hidden, sizeof *final);
    struct kv_forward job = {.tree = &tree,
                             .store = kv_pass_store,
                             .observe = kv_pass_observe,
                             .self = &p,
                             .final = final,
                             .disturb = g->r->redraw ? disturbance : 0,
                             .disturb_seed = g->r->seed + g->r->redraw + it->key};
    int rc = kv_forward(m, &job, s, e);
    out->not_finite = p.not_finite;
    free(final);
    kv_pass_fini(&p);
    return rc;
}

static void prompt_fini(struct prompt *p) {
    free(p->layers);
    free(p->block);
    free(p->seen);
    free(p->seen_block);
}

// ---- one spec on one item -------------------------------------------------------------

// Entropy and confidence of the rows that a pass computed, scored rows and the others apart as in a
// recording.
static void predict(const struct kv_model *m, struct kv_scratch *s, const struct kv_trace_item *it,
                    uint32_t first, uint32_t first_live, const float *final, float *features) {
    uint32_t *rows = kv_alloc(2 * (size_t)it->n_tokens, sizeof *rows),
             *others = rows + it->n_tokens;
    size_t n = 0, n_others = 0;
    for (uint32_t row = 0, f = 0; row < it->n_tokens; row++) {
        bool scored = f < it->n_final && it->final_rows[f] == row;
        f += scored;
        if (row < first_live) continue;
        if (scored)
            rows[n++] = row;
        else
            others[n_others++] = row;
    }
    kv_predicted_features(m, s, final, first, rows, n, features);
    kv_predicted_features(m, s, final, first, others, n_others, features);
    free(rows);
}

// States of a run that read something that is not finite say nothing, and may look as if they did:
// a weight of 0 hides an infinite key.
static void forget(const struct kv_trace_item *it, size_t hidden, float *scored) {
    for (size_t i = 0; i < it->n_final * hidden; i++) scored[i] = NAN;
}

// Final states at the item's scored rows, [n_final][hidden], and the entropy of the codes on the
// way. features (or NULL): gets those of the run, [n_tokens][KV_N_FEATURES]. layered (or NULL):
// decides on the way, which fills cells.
static int run_spec(const struct engine *g, struct kv_scratch *s, const struct kv_trace_item *it,
                    const struct kv_replay_spec *spec, uint8_t *cells, const struct prompt *prompt,
                    struct kv_layered *layered, float *scored, double *entropy_bits,
                    float *features, struct kv_error *e) {
    const struct kv_model *m = g->r->model;
    size_t h = m->shape.hidden;
    if (g->r->mode == KV_REQUANT) {
        uint64_t *histogram = kv_alloc(256 * spec->run.n_widths, sizeof *histogram);
        int rc = kv_requant_run(g->r, s, it, spec, cells, prompt->layers,
                                g->r->redraw ? disturbance : 0, scored, histogram, e);
        *entropy_bits = kv_codes_entropy_bits(histogram, spec->run.n_widths);
        free(histogram);
        if (prompt->not_finite) forget(it, h, scored);
        return rc;
    }
    struct kv_tree tree = {it->n_tokens, it->n_context, it->n_choices, it->first, it->ids};
    uint32_t *upto = kv_alloc(2 * (size_t)it->n_tokens, sizeof *upto);
    float *final = kv_alloc((size_t)(it->n_tokens - prompt->rows) * h, sizeof *final);
    struct kv_pass p;
    kv_pass_init(&p, m, &tree);
    p.spec = spec;
    p.cells = cells;
    p.code_scratch = kv_alloc(kv_code_scratch_bytes(spec->format), 1);
    p.histogram = kv_alloc(256 * spec->run.n_widths, sizeof *p.histogram);
    p.reads_exact = kv_lay_out_reads(g->r, spec, &tree, upto);
    if (layered) {
        layered->exact_rows = prompt->rows;
        layered->tree = &tree;
        kv_pass_layered(&p, layered, cells, prompt->rows, prompt->seen);
    }
    struct kv_attention_stats stats = {0};
    uint32_t live = g->r->mode == KV_INLINE ? 0 : it->n_context;
    if (features) { // reads_exact holds: a token's own K and V are read exact
        stats.variance = kv_alloc(it->n_tokens, sizeof(float));
        for (size_t row = live; row < it->n_tokens; row++)
            features[row * KV_N_FEATURES + KV_KEY_RANGE] =
                features[row * KV_N_FEATURES + KV_VALUE_RANGE] = 0;
        p.features = features;
        p.first_live = live;
    }
    struct kv_forward job = {.tree = &tree,
                             .first_row = prompt->rows,
                             .prefix = prompt->layers,
                             .coded_upto = upto,
                             .store = kv_pass_store,
                             .observe = layered ? kv_pass_observe : NULL,
                             .age = layered && layered->ages ? kv_pass_age : NULL,
                             .age_tokens = KV_REVISE_TOKENS,
                             .self = &p,
                             .stats = features ? &stats : NULL,
                             .final = final,
                             .disturb = g->r->redraw ? disturbance : 0,
                             .disturb_seed = g->r->seed + g->r->redraw + it->key};
    int rc = kv_forward(m, &job, s, e);
    if (rc == 0 && features) {
        for (size_t row = live; row < it->n_tokens; row++)
            features[row * KV_N_FEATURES + KV_ATTN_VAR] = stats.variance[row];
        if (spec->needs & (KV_NEED(KV_ENTROPY_NATS) | KV_NEED(KV_CONFIDENCE)))
            predict(m, s, it, prompt->rows, live, final, features);
    }
    for (uint32_t f = 0; f < it->n_final && rc == 0; f++) {
        uint32_t row = it->final_rows[f];
        // prefill1 scores the first choice token from exact logits: the recorded state stands.
        const float *from =
            row < prompt->rows ? it->final + f * h : final + (row - prompt->rows) * h;
        memcpy(scored + f * h, from, h * sizeof *scored);
    }
    if (p.not_finite || prompt->not_finite) forget(it, h, scored);
    *entropy_bits = kv_codes_entropy_bits(p.histogram, spec->run.n_widths);
    kv_pass_fini(&p);
    free(stats.variance);
    free(final);
    free(upto);
    return rc;
}

static uint32_t longest_path(const struct kv_trace_item *it) {
    uint32_t most = 0;
    for (uint32_t c = 0; c < it->n_choices; c++)
        if (it->first[c + 1] - it->first[c] > most) most = it->first[c + 1] - it->first[c];
    return it->n_context + most;
}

// run_spec with closed feedback (closed.h): cells hold the decisions by recorded features and get
// those by the run's.
static int run_closed(struct engine *g, struct kv_scratch *s, size_t i, size_t which,
                      uint8_t *cells, const struct prompt *prompt, float *scored,
                      double *entropy_bits, struct kv_error *e) {
    const struct kv_replay *r = g->r;
    const struct kv_replay_spec *spec = &r->specs[which];
    const struct kv_trace_item *it = kv_trace_item(r->trace, i);
    size_t n_cells = kv_cells(&r->model->shape), n = it->n_tokens * n_cells;
    uint8_t *recorded = kv_alloc(2 * n, 1), *next = recorded + n;
    float *features = kv_alloc((size_t)it->n_tokens * KV_N_FEATURES, sizeof *features);
    struct kv_closed_count count = {.items = 1, .tokens = it->n_tokens};
    bool settled = false;
    int rc = 0;
    memcpy(recorded, cells, n);
    memcpy(features, it->features, (size_t)it->n_tokens * KV_N_FEATURES * sizeof *features);
    while (!settled && rc == 0) {
        if (count.passes++ > (uint64_t)longest_path(it) + 1)
            rc = kv_fail(e, KV_EFAIL, spec->canonical,
                         "policy %s did not settle at item %s: it decides by what comes later",
                         spec->policy_name, it->id);
        if (rc == 0)
            rc = run_spec(g, s, it, spec, cells, prompt, NULL, scored, entropy_bits, features, e);
        if (rc == 0 && isnan(scored[0])) break; // there is no run to decide by
        if (rc == 0) rc = kv_decide_by(r, which, i, features, next, e);
        settled = rc == 0 && memcmp(next, cells, n) == 0;
        memcpy(cells, next, n);
        if (rc == 0 && kv_interrupted()) rc = kv_fail(e, KV_EINTR, "", "interrupted");
    }
    for (size_t row = 0; row < it->n_tokens; row++)
        count.changed += memcmp(cells + row * n_cells, recorded + row * n_cells, n_cells) != 0;
    if (rc == 0 && r->counts) {
        struct kv_closed_count *to = &r->counts[which];
        pthread_mutex_lock(&g->lock);
        to->items += count.items;
        to->tokens += count.tokens;
        to->changed += count.changed;
        to->passes += count.passes;
        pthread_mutex_unlock(&g->lock);
    }
    free(recorded);
    free(features);
    return rc;
}

// A spec whose policy, or the one that it wraps, decides by layers. Of a wrapper, one pass decides
// and another stores what the wrapper makes of it.
static int run_layered(struct engine *g, struct kv_scratch *s, size_t i, size_t which,
                       uint8_t *cells, const struct prompt *prompt, float *scored,
                       double *entropy_bits, struct kv_error *e) {
    const struct kv_replay *r = g->r;
    const struct kv_replay_spec *spec = &r->specs[which];
    const struct kv_trace_item *it = kv_trace_item(r->trace, i);
    struct kv_token *tokens = kv_alloc(it->n_tokens, sizeof *tokens);
    struct kv_item view;
    struct kv_layered y = {0};
    int rc = kv_show_item(r, which, i, it->features, tokens, &view, e);
    if (rc == 0) {
        kv_layered_init(&y, spec, &view, it->n_tokens);
        y.item = it->id;
        y.audit = r->audit || i == r->first_item;
        rc = run_spec(g, s, it, spec, cells, prompt, &y, scored, entropy_bits, NULL, e);
        if (rc == 0 && y.first)
            rc = kv_check_answers(kv_by_layers(spec), it->id, it->n_tokens, y.first, e);
        kv_layered_fini(&y);
    }
    if (rc == 0) rc = kv_check_answers(kv_by_layers(spec), it->id, it->n_tokens, cells, e);
    if (rc == 0 && kv_by_layers(spec) != spec) {
        uint8_t *decided = kv_alloc(it->n_tokens * kv_cells(&r->model->shape), 1);
        memcpy(decided, cells, it->n_tokens * kv_cells(&r->model->shape));
        rc = kv_decide_given(r, which, i, decided, cells, e);
        if (rc == 0)
            rc = run_spec(g, s, it, spec, cells, prompt, NULL, scored, entropy_bits, NULL, e);
        free(decided);
    }
    free(tokens);
    return rc;
}

static int run_one(struct engine *g, struct kv_scratch *s, size_t i, size_t which, uint8_t *cells,
                   const struct prompt *prompt, float *scored, double *entropy_bits,
                   struct kv_error *e) {
    const struct kv_replay_spec *spec = &g->r->specs[which];
    if (kv_by_layers(spec))
        return run_layered(g, s, i, which, cells, prompt, scored, entropy_bits, e);
    int rc = kv_decide(g->r, which, i, cells, e);
    if (rc) return rc;
    if (g->r->closed && kv_reads_run(spec))
        return run_closed(g, s, i, which, cells, prompt, scored, entropy_bits, e);
    return run_spec(g, s, kv_trace_item(g->r->trace, i), spec, cells, prompt, NULL, scored,
                    entropy_bits, NULL, e);
}

// Coding knows token, layer and head of what it refuses; the item is added here.
static int name_item(const struct kv_trace_item *it, int rc, struct kv_error *e) {
    if (!rc || !e || strcmp(e->where, "decision") != 0) return rc;
    struct kv_error why = *e;
    return kv_fail(e, rc, why.where, "item %s, %s", it->id, why.msg);
}

// ---- one item, all specs --------------------------------------------------------------

enum { SPECS_AT_ONCE = 32 }; // bounds the final states held for judging, as do these bytes
static const size_t most_states_bytes = (size_t)256 << 20;

static size_t specs_at_once(const struct kv_trace_item *it, size_t hidden) {
    size_t fit = most_states_bytes / (it->n_final * hidden * sizeof(float) + 1);
    return fit < 1 ? 1 : fit < SPECS_AT_ONCE ? fit : SPECS_AT_ONCE;
}

static int replay_specs(struct engine *g, struct kv_scratch *s, size_t i, const size_t *specs,
                        size_t n, const struct prompt *prompt, struct kv_error *e) {
    const struct kv_replay *r = g->r;
    const struct kv_trace_item *it = kv_trace_item(r->trace, i);
    float *scored[SPECS_AT_ONCE] = {NULL};
    double *kl[SPECS_AT_ONCE] = {NULL};
    struct kv_targets targets[SPECS_AT_ONCE] = {{0}};
    struct kv_outcome outcome[SPECS_AT_ONCE] = {{0}};
    uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(&r->model->shape), 1);
    int rc = 0;
    for (size_t j = 0; j < n && rc == 0; j++) {
        const struct kv_replay_spec *spec = &r->specs[specs[j]];
        scored[j] = kv_alloc((size_t)it->n_final * r->model->shape.hidden, sizeof(float));
        kl[j] = kv_alloc(it->n_final, sizeof(double));
        kv_targets_init(&targets[j], it);
        double entropy_bits = NAN;
        rc = name_item(it, run_one(g, s, i, specs[j], cells, prompt, scored[j], &entropy_bits, e),
                       e);
        if (rc == 0 && r->mode == KV_REQUANT)
            kv_ledger_count_requant(spec, it, cells, &outcome[j].ledger);
        else if (rc == 0)
            kv_ledger_count(spec, it, cells, &outcome[j].ledger);
        outcome[j].ledger.entropy_bits = entropy_bits;
        if (rc == 0 && r->decided) {
            KV_LOCK(&g->lock);
            r->decided(r->self, i, specs[j], cells);
        }
        if (rc == 0 && kv_interrupted()) rc = kv_fail(e, KV_EINTR, "", "interrupted");
    }
    if (rc == 0 && !r->decisions_only) kv_compare_final(r->model, s, it, n, scored, targets, kl);
    for (size_t j = 0; j < n; j++) {
        if (rc == 0) {
            if (!r->decisions_only) kv_compare_outcome(it, &targets[j], kl[j], &outcome[j]);
            KV_LOCK(&g->lock);
            if (r->scored && !r->decisions_only)
                r->scored(r->self, i, specs[j], &targets[j], kl[j]);
            rc = r->take(r->self, i, specs[j], &outcome[j], e);
        }
        kv_outcome_fini(&outcome[j]);
        kv_targets_fini(&targets[j]);
        free(scored[j]);
        free(kl[j]);
    }
    free(cells);
    return rc;
}

static int replay_item(void *self, unsigned worker, size_t index, struct kv_error *e) {
    struct engine *g = self;
    const struct kv_replay *r = g->r;
    size_t i = r->first_item + index, n = 0;
    const struct kv_trace_item *it = kv_trace_item(r->trace, i);
    size_t *specs = kv_alloc(r->n_specs, sizeof *specs);
    for (size_t j = 0; j < r->n_specs; j++)
        if (!(g->batched && g->batched[j]) && (!r->wanted || r->wanted(r->self, i, j)))
            specs[n++] = j;
    if (n && r->claim && !r->claim(r->self, i)) n = 0;
    struct prompt prompt = {0};
    uint32_t rows = kv_prompt_rows(r->mode, it);
    int rc = kv_trace_check_item(r->trace, i, KV_KEEP_FINAL, e);
    if (rc == 0 && n && rows) rc = run_prompt(g, g->scratch[worker], it, rows, &prompt, e);
    size_t most = specs_at_once(it, r->model->shape.hidden);
    for (size_t from = 0; from < n && rc == 0; from += most) {
        size_t some = n - from < most ? n - from : most;
        rc = replay_specs(g, g->scratch[worker], i, specs + from, some, &prompt, e);
    }
    prompt_fini(&prompt);
    free(specs);
    if (n) kv_trace_item_read(r->trace, i);
    if (rc == 0) kv_progress_step(g->progress, n);
    return rc;
}

static int check_replay(const struct kv_replay *r, struct kv_error *e) {
    const struct kv_trace_info *info = kv_trace_info(r->trace);
    int made = kv_trace_check_model(info, r->model, e);
    if (made) return made;
    if (!(info->keep & KV_KEEP_FINAL))
        return kv_fail(
            e, KV_EFAIL, info->path,
            "keeps no final states, which exact replay compares with; record with --keep final");
    if (r->mode != KV_INLINE && info->window_tokens > 0)
        return kv_fail(e, KV_EUSAGE, info->path,
                       "windows of text have no decode step: mode %s does not apply",
                       kv_mode_names[r->mode]);
    for (size_t j = 0; j < r->n_specs; j++) {
        int rc = kv_layered_answers(&r->specs[j], r->mode, r->closed, e);
        if (rc == 0 && r->closed) rc = kv_closed_answers(&r->specs[j], r->mode, r->self_exact, e);
        if (rc) return rc;
    }
    return 0;
}

int kv_replay_exact(const struct kv_replay *r, unsigned jobs, struct kv_error *e) {
    KV_GUARD(e);
    int rc = check_replay(r, e);
    if (rc) return rc;
    struct engine g = {.r = r, .scratch = kv_scratch_crew_new(jobs, r->n_items)};
    size_t total = 0;
    for (size_t i = r->first_item; i < r->first_item + r->n_items; i++)
        for (size_t j = 0; j < r->n_specs; j++) total += !r->wanted || r->wanted(r->self, i, j);
    pthread_mutex_init(&g.lock, NULL);
    if (!r->quiet) g.progress = kv_progress_start("replaying", total, "item-specs");
    if (r->model->engine) {
        g.batched = kv_alloc(r->n_specs, sizeof *g.batched);
        rc = kv_replay_batches(r, jobs, g.progress, g.batched, e);
    }
    if (rc == 0) rc = kv_parallel(r->n_items, jobs, replay_item, &g, e);
    kv_progress_end(g.progress);
    kv_scratch_crew_free(g.scratch, jobs);
    free(g.batched);
    pthread_mutex_destroy(&g.lock);
    return rc;
}
