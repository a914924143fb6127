// SPDX-License-Identifier: Apache-2.0
// Exact replay: the model runs again and reads, at every layer, what the decided cache would
// return.
#include <pthread.h>
#include <stdlib.h>

#include "sim/base/util.h"
#include "sim/model/forward.h"
#include "sim/quant/code.h"
#include "sim/replay/replay.h"

static const double disturbance = 1e-6; // relative, on the embeddings of a redraw

// ---- one item's fixed part ------------------------------------------------------------

struct worker {
    struct kv_scratch *scratch;
};

struct engine {
    const struct kv_replay *r;
    struct worker *workers;
    pthread_mutex_t lock; // around r->take
    struct kv_progress *progress;
};

// One forward pass with a decided cache; the store hook's state.
struct pass {
    const struct kv_model *m;
    const struct kv_replay_spec *spec; // NULL: fp16 everywhere (the prompt of the prefill modes)
    const struct kv_tree *tree;
    const uint8_t *cells;
    bool reads_exact;           // some query reads exact values
    float *exact[2], *coded[2]; // [n_tokens][n_kv] K, V
    uint16_t *half;
    uint8_t *evicted; // [n_kv_heads][n_tokens]
    void *code_scratch;
    uint32_t *positions;
    struct kv_layer_kv *kept; // [n_layers] where the prompt's K and V go; NULL = not kept
};

static void round_rows(const struct pass *p, const float *x, float *y, size_t n) {
    kv_f32_to_f16_n(x, p->half, n);
    kv_f16_to_f32_n(p->half, y, n);
}

static bool mark_evicted(const struct pass *p, uint32_t layer) {
    const struct kv_shape *s = &p->m->shape;
    size_t per_token = kv_cells(s), per_layer = per_token / s->n_layers;
    bool any = false;
    for (size_t h = 0; h < s->n_kv_heads; h++)
        for (size_t row = 0; row < p->tree->n_tokens; row++) {
            bool gone = p->cells[row * per_token + layer * per_layer + 2 * h] == KV_EVICT;
            p->evicted[h * p->tree->n_tokens + row] = gone;
            any |= gone;
        }
    return any;
}

// Codes the context's rows and then each choice's: a choice's groups of tokens begin at the branch.
static int code_side(const struct pass *p, uint32_t layer, enum kv_side side, const float *x,
                     float *y, struct kv_error *e) {
    const struct kv_shape *s = &p->m->shape;
    const struct kv_tree *t = p->tree;
    size_t width = (size_t)s->n_kv_heads * s->head_dim, per_token = kv_cells(s);
    for (uint32_t b = 0; b <= t->n_choices; b++) {
        size_t row = b ? t->first[b - 1] : 0, end = b ? t->first[b] : t->n_context;
        size_t start = b ? t->n_context : 0;
        struct kv_rows rows = {.layer = layer,
                               .side = side,
                               .start = start,
                               .first = start,
                               .n = end - row,
                               .x = x + row * width,
                               .x_stride = width,
                               .y = y + row * width,
                               .y_stride = width,
                               .cells = p->cells + row * per_token +
                                        layer * (per_token / s->n_layers) + side,
                               .cell_token_stride = per_token,
                               .cell_head_stride = 2};
        int rc = kv_code_rows(p->spec->format, &rows, p->code_scratch, NULL, e);
        rows.x = rows.y; // a prompt that is handed on is coded again from what was read
        for (uint32_t hop = 1; b == 0 && hop < p->spec->hops && rc == 0; hop++)
            rc = kv_code_rows(p->spec->format, &rows, p->code_scratch, NULL, e);
        if (rc) return rc;
    }
    return 0;
}

static int store(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                 struct kv_layer_view *view, struct kv_error *e) {
    struct pass *p = self;
    size_t n = (size_t)p->tree->n_tokens * p->m->shape.n_kv_heads * p->m->shape.head_dim;
    if (p->reads_exact) {
        round_rows(p, kv->k, p->exact[KV_KEY], n);
        round_rows(p, kv->v, p->exact[KV_VALUE], n);
        view->k_exact = p->exact[KV_KEY];
        view->v_exact = p->exact[KV_VALUE];
    }
    if (p->spec && !*p->spec->format_text) { // policy none: nothing is rounded
        view->k_exact = kv->k;
        view->v_exact = kv->v;
    }
    if (p->kept) {
        memcpy(p->kept[layer].k_raw, kv->k_raw, n * sizeof(float));
        memcpy(p->kept[layer].k, kv->k, n * sizeof(float));
        memcpy(p->kept[layer].v, kv->v, n * sizeof(float));
    }
    if (!p->spec) return 0;
    bool raw = p->spec->format->keys_before_rope;
    int rc = code_side(p, layer, KV_KEY, raw ? kv->k_raw : kv->k, p->coded[KV_KEY], e);
    if (rc == 0) rc = code_side(p, layer, KV_VALUE, kv->v, p->coded[KV_VALUE], e);
    if (rc) return rc;
    if (raw) kv_rope_keys(p->m, p->coded[KV_KEY], p->tree->n_tokens, p->positions);
    view->k_coded = p->coded[KV_KEY];
    view->v_coded = p->coded[KV_VALUE];
    view->evicted = mark_evicted(p, layer) ? p->evicted : NULL;
    return 0;
}

static void pass_init(struct pass *p, const struct kv_model *m, const struct kv_tree *t) {
    size_t n = (size_t)t->n_tokens * m->shape.n_kv_heads * m->shape.head_dim;
    *p = (struct pass){.m = m, .tree = t};
    for (int s = 0; s < 2; s++) {
        p->exact[s] = kv_alloc(n, sizeof(float));
        p->coded[s] = kv_alloc(n, sizeof(float));
    }
    p->half = kv_alloc(n, sizeof *p->half);
    p->evicted = kv_alloc((size_t)t->n_tokens * m->shape.n_kv_heads, 1);
    p->positions = kv_alloc(t->n_tokens, sizeof *p->positions);
    for (uint32_t row = 0; row < t->n_tokens; row++) p->positions[row] = kv_tree_position(t, row);
}

static void pass_fini(struct pass *p) {
    for (int s = 0; s < 2; s++) {
        free(p->exact[s]);
        free(p->coded[s]);
    }
    free(p->half);
    free(p->evicted);
    free(p->code_scratch);
    free(p->positions);
}

// ---- the prompt of the prefill modes --------------------------------------------------

struct prompt {
    uint32_t rows;
    struct kv_layer_kv *layers; // [n_layers], arrays of [rows][n_kv]
    float *block;
};

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
    struct pass p;
    pass_init(&p, m, &tree);
    p.reads_exact = true;
    p.kept = out->layers;
    float *final = kv_alloc((size_t)rows * m->shape.hidden, sizeof *final);
    struct kv_forward job = {.tree = &tree,
                             .store = store,
                             .self = &p,
                             .final = final,
                             .disturb = g->r->redraw ? disturbance : 0,
                             .disturb_seed = g->r->seed + g->r->redraw + it->key};
    int rc = kv_forward(m, &job, s, e);
    free(final);
    pass_fini(&p);
    return rc;
}

static void prompt_fini(struct prompt *p) {
    free(p->layers);
    free(p->block);
}

// ---- one spec on one item -------------------------------------------------------------

// Which positions each row reads coded. Returns whether some row reads an exact one.
static bool lay_out_reads(const struct kv_replay *r, const struct kv_replay_spec *spec,
                          const struct kv_tree *t, uint32_t *upto) {
    bool exact = false;
    for (uint32_t row = 0; row < t->n_tokens; row++) {
        uint32_t position = kv_tree_position(t, row);
        for (int side = 0; side < 2; side++) {
            upto[2 * row + (uint32_t)side] = (uint32_t)kv_coded_upto(
                spec->format, (enum kv_side)side, row < t->n_context ? 0 : t->n_context, position,
                r->self_exact);
            exact |= upto[2 * row + (uint32_t)side] <= position;
        }
    }
    return exact;
}

// Final states at the item's scored rows, [n_final][hidden].
static int run_spec(const struct engine *g, struct kv_scratch *s, const struct kv_trace_item *it,
                    const struct kv_replay_spec *spec, const uint8_t *cells,
                    const struct prompt *prompt, float *scored, struct kv_error *e) {
    const struct kv_model *m = g->r->model;
    size_t h = m->shape.hidden;
    struct kv_tree tree = {it->n_tokens, it->n_context, it->n_choices, it->first, it->ids};
    uint32_t *upto = kv_alloc(2 * (size_t)it->n_tokens, sizeof *upto);
    float *final = kv_alloc((size_t)(it->n_tokens - prompt->rows) * h, sizeof *final);
    struct pass p;
    pass_init(&p, m, &tree);
    p.spec = spec;
    p.cells = cells;
    p.code_scratch = kv_alloc(kv_code_scratch_bytes(spec->format), 1);
    p.reads_exact = lay_out_reads(g->r, spec, &tree, upto);
    struct kv_forward job = {.tree = &tree,
                             .first_row = prompt->rows,
                             .prefix = prompt->layers,
                             .coded_upto = upto,
                             .store = store,
                             .self = &p,
                             .final = final,
                             .disturb = g->r->redraw ? disturbance : 0,
                             .disturb_seed = g->r->seed + g->r->redraw + it->key};
    int rc = kv_forward(m, &job, s, e);
    for (uint32_t f = 0; f < it->n_final && rc == 0; f++) {
        uint32_t row = it->final_rows[f];
        // prefill1 scores the first choice token from exact logits: the recorded state stands.
        const float *from =
            row < prompt->rows ? it->final + f * h : final + (row - prompt->rows) * h;
        memcpy(scored + f * h, from, h * sizeof *scored);
    }
    pass_fini(&p);
    free(final);
    free(upto);
    return rc;
}

// ---- judging --------------------------------------------------------------------------

// The next-token targets of an item: choice c's tokens in order, each with the index of its scored
// row.
struct targets {
    size_t n;
    struct kv_target *list;
    double *ref;      // [n] log-prob under the 16-bit run
    uint32_t *choice; // [n]
};

static void add_target(struct targets *t, uint32_t choice, uint32_t row, uint32_t id) {
    t->list[t->n] = (struct kv_target){.row = row, .id = id};
    t->choice[t->n++] = choice;
}

static void list_targets(const struct kv_trace_item *it, struct targets *t) {
    *t = (struct targets){.list = kv_alloc(it->n_tokens + it->n_choices, sizeof *t->list),
                          .ref = kv_alloc(it->n_tokens + it->n_choices, sizeof *t->ref),
                          .choice = kv_alloc(it->n_tokens + it->n_choices, sizeof *t->choice)};
    if (it->n_choices == 0)
        for (uint32_t f = 0; f < it->n_final; f++) add_target(t, 0, f, it->ids[f + 1]);
    uint32_t row = 1; // scored row 0 is the branch point; the choices' rows follow in order
    for (uint32_t c = 0; c < it->n_choices; c++) {
        add_target(t, c, 0, it->ids[it->first[c]]);
        for (uint32_t i = it->first[c] + 1; i < it->first[c + 1]; i++)
            add_target(t, c, row++, it->ids[i]);
    }
}

static void targets_fini(struct targets *t) {
    free(t->list);
    free(t->ref);
    free(t->choice);
}

// Tokens that all choices begin with; 0 when one choice would have nothing left.
static uint32_t common_prefix(const struct kv_trace_item *it) {
    for (uint32_t n = 0;; n++)
        for (uint32_t c = 0; c < it->n_choices; c++) {
            if (it->first[c] + n >= it->first[c + 1]) return 0;
            if (it->ids[it->first[c] + n] != it->ids[it->first[0] + n]) return n;
        }
}

static void fill_outcome(const struct kv_trace_item *it, const struct targets *t,
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
        if (c->tokens++ < prefix) continue;
        c->logprob_after_prefix += t->list[i].logprob;
        c->logprob_ref_after_prefix += t->ref[i];
        c->tokens_after_prefix++;
    }
    for (uint32_t c = 0; c < it->n_choices; c++) {
        o->choice[c].chars = it->chars[c];
        o->choice[c].bytes = it->bytes[c];
    }
    o->n_scored = (uint32_t)t->n;
    o->kl_nats = kl_sum / (double)t->n;
    kv_outcome_score(o);
}

// KL and target log-probs of all specs, the reference computed once for each cut of rows.
static void judge(const struct engine *g, struct kv_scratch *s, const struct kv_trace_item *it,
                  size_t n_specs, float *const *scored, struct targets *targets,
                  double *const *kl) {
    const struct kv_model *m = g->r->model;
    size_t h = m->shape.hidden;
    struct kv_target *part = kv_alloc(targets[0].n, sizeof *part);
    size_t *which = kv_alloc(targets[0].n, sizeof *which);
    for (size_t from = 0, n; from < it->n_final; from += n) {
        struct kv_reference ref;
        size_t n_part = 0;
        n = it->n_final - from < KV_HEAD_ROWS ? it->n_final - from : KV_HEAD_ROWS;
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
            kv_head_compare(m, &ref, scored[j] + from * h, s, kl[j] + from, part, n_part);
            for (size_t i = 0; i < n_part; i++) targets[j].list[which[i]].logprob = part[i].logprob;
        }
    }
    free(part);
    free(which);
}

// ---- one item, all specs --------------------------------------------------------------

enum { SPECS_AT_ONCE = 32 }; // bounds the final states held for judging

static int replay_specs(struct engine *g, struct kv_scratch *s, size_t i, const size_t *specs,
                        size_t n, const struct prompt *prompt, struct kv_error *e) {
    const struct kv_replay *r = g->r;
    const struct kv_trace_item *it = kv_trace_item(r->trace, i);
    float *scored[SPECS_AT_ONCE] = {NULL};
    double *kl[SPECS_AT_ONCE] = {NULL};
    struct targets targets[SPECS_AT_ONCE] = {{0}};
    struct kv_outcome outcome[SPECS_AT_ONCE] = {{0}};
    uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(&r->model->shape), 1);
    int rc = 0;
    for (size_t j = 0; j < n && rc == 0; j++) {
        const struct kv_replay_spec *spec = &r->specs[specs[j]];
        scored[j] = kv_alloc((size_t)it->n_final * r->model->shape.hidden, sizeof(float));
        kl[j] = kv_alloc(it->n_final, sizeof(double));
        list_targets(it, &targets[j]);
        rc = kv_decide(r, specs[j], i, cells, e);
        if (rc == 0) rc = run_spec(g, s, it, spec, cells, prompt, scored[j], e);
        if (rc == 0) kv_ledger_count(spec, it, cells, &outcome[j].ledger);
        if (rc == 0 && kv_interrupted()) rc = kv_fail(e, KV_EINTR, "", "interrupted");
    }
    if (rc == 0) judge(g, s, it, n, scored, targets, kl);
    for (size_t j = 0; j < n; j++) {
        if (rc == 0) {
            fill_outcome(it, &targets[j], kl[j], &outcome[j]);
            pthread_mutex_lock(&g->lock);
            rc = r->take(r->self, i, specs[j], &outcome[j], e);
            pthread_mutex_unlock(&g->lock);
        }
        kv_outcome_fini(&outcome[j]);
        targets_fini(&targets[j]);
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
        if (!r->wanted || r->wanted(r->self, i, j)) specs[n++] = j;
    struct prompt prompt = {0};
    uint32_t rows = r->mode == KV_PREFILL    ? it->n_context - 1
                    : r->mode == KV_PREFILL1 ? it->n_context
                                             : 0;
    int rc = n && rows ? run_prompt(g, g->workers[worker].scratch, it, rows, &prompt, e) : 0;
    for (size_t from = 0; from < n && rc == 0; from += SPECS_AT_ONCE) {
        size_t some = n - from < SPECS_AT_ONCE ? n - from : SPECS_AT_ONCE;
        rc = replay_specs(g, g->workers[worker].scratch, i, specs + from, some, &prompt, e);
    }
    prompt_fini(&prompt);
    free(specs);
    if (rc == 0) kv_progress_step(g->progress, n);
    return rc;
}

static int check_replay(const struct kv_replay *r, struct kv_error *e) {
    const struct kv_trace_info *info = kv_trace_info(r->trace);
    if (strcmp(info->model_digest, r->model->digest) != 0)
        return kv_fail(e, KV_EFAIL, info->path,
                       "was recorded from %s (digest %s), not from %s (digest %s)",
                       info->model_name, info->model_digest, r->model->name, r->model->digest);
    if (strcmp(info->weights_as, r->model->weights_as) != 0)
        return kv_fail(e, KV_EFAIL, info->path, "was recorded with weights held in %s, not %s",
                       info->weights_as, r->model->weights_as);
    if (!(info->keep & KV_KEEP_FINAL))
        return kv_fail(
            e, KV_EFAIL, info->path,
            "keeps no final states, which exact replay compares with; record with --keep final");
    if (r->mode != KV_INLINE && info->window_tokens > 0)
        return kv_fail(e, KV_EUSAGE, info->path,
                       "windows of text have no decode step: mode %s does not apply",
                       kv_mode_names[r->mode]);
    return 0;
}

int kv_replay_exact(const struct kv_replay *r, unsigned jobs, struct kv_error *e) {
    int rc = check_replay(r, e);
    if (rc) return rc;
    struct engine g = {.r = r, .workers = kv_alloc(jobs, sizeof *g.workers)};
    size_t total = 0;
    for (size_t i = r->first_item; i < r->first_item + r->n_items; i++)
        for (size_t j = 0; j < r->n_specs; j++) total += !r->wanted || r->wanted(r->self, i, j);
    pthread_mutex_init(&g.lock, NULL);
    for (unsigned w = 0; w < jobs; w++) g.workers[w].scratch = kv_scratch_new();
    g.progress = kv_progress_start("replaying", total, "item-specs");
    rc = kv_parallel(r->n_items, jobs, replay_item, &g, e);
    kv_progress_end(g.progress);
    for (unsigned w = 0; w < jobs; w++) kv_scratch_free(g.workers[w].scratch);
    free(g.workers);
    pthread_mutex_destroy(&g.lock);
    return rc;
}
