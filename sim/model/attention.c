// SPDX-License-Identifier: Apache-2.0
// Attention of a layer's queries over what they see: spans of a token's path, exact or coded.
#include "sim/model/kernels.h"
#include "sim/model/layer.h"

// Appends the positions [from, to) of a segment that starts at row `start`, column `column`.
static void add_span(struct kv_attend *a, const struct kv_layer_run *p, bool coded_k, bool coded_v,
                     size_t head, size_t start, size_t column, size_t from, size_t to) {
    if (from >= to) return;
    size_t d = p->m->shape.head_dim, width = (size_t)p->m->shape.n_kv_heads * d;
    const float *v = coded_v ? p->view.v_coded : p->view.v_exact;
    a->span[a->n_spans++] = (struct kv_span){
        .k_t = p->k_t[coded_k] + head * d * p->at.ld + column + from,
        .ld_k = p->at.ld,
        .v = v + (start + from) * width + head * d,
        .ld_v = width,
        .count = to - from,
    };
}

// Cuts the positions [from, to) of a segment whose first is `base` where coded K or coded V end.
static void add_segment(struct kv_attend *a, const struct kv_layer_run *p, const uint32_t upto[2],
                        size_t head, size_t start, size_t column, size_t base, size_t from,
                        size_t to) {
    size_t end[2];
    if (from >= to) return;
    for (int s = 0; s < 2; s++) {
        end[s] = upto[s] > from ? upto[s] : from;
        end[s] = (end[s] > to ? to : end[s]) - base;
    }
    size_t low = end[KV_KEY] < end[KV_VALUE] ? end[KV_KEY] : end[KV_VALUE];
    size_t high = end[KV_KEY] + end[KV_VALUE] - low;
    add_span(a, p, true, true, head, start, column, from - base, low);
    add_span(a, p, end[KV_KEY] == high, end[KV_VALUE] == high, head, start, column, low, high);
    add_span(a, p, false, false, head, start, column, high, to - base);
}

// from: the position of the first weight.
static void count_attention(const struct kv_layer_run *p, uint32_t row, const struct kv_attend *a,
                            size_t from) {
    const struct kv_tree *t = p->job->tree;
    struct kv_attention_stats *s = p->job->stats;
    uint32_t c = p->at.choice[row];
    bool last_layer = p->layer + 1 == p->m->shape.n_layers;
    float per_head = 1.0f / (float)p->m->shape.n_heads;
    float share = per_head / (float)p->m->shape.n_layers;
    // Each choice goes on from the context; what a choice's token receives is its own branch's.
    float later = c == t->n_choices ? share : share / (float)t->n_choices;
    for (size_t g = 0; g < a->n_q; g++) {
        const float *w = a->weights + g * a->ld_w;
        double sum = 0, squares = 0;
        for (size_t j = 0; j < a->len; j++) {
            size_t to = kv_paths_row(&p->at, c, from + j);
            bool own = to == row;
            if (s->so_far && (own || c == t->n_choices)) s->so_far[to] += share * w[j];
            if (s->future && !own) s->future[to] += (to < t->n_context ? later : share) * w[j];
            sum += w[j];
            squares += (double)w[j] * w[j];
        }
        double mean = sum / (double)a->len;
        if (s->variance && last_layer)
            s->variance[row] += per_head * (float)(squares / (double)a->len - mean * mean);
    }
}

static void attend_row(struct kv_layer_run *p, uint32_t row, size_t head) {
    const struct kv_shape *sh = &p->m->shape;
    const struct kv_tree *t = p->job->tree;
    size_t d = sh->head_dim, group = sh->n_heads / sh->n_kv_heads, first_row = p->job->first_row;
    uint32_t c = p->at.choice[row], position = p->at.position[row], none[2] = {0, 0};
    const uint32_t *upto = p->job->coded_upto ? p->job->coded_upto + 2 * (size_t)row : none;
    size_t from = kv_window_start(p->m->layers[p->layer].window, position), end = position + 1;
    struct kv_attend a = {.n_q = group, .dim = d, .q = p->q_scaled, .len = end - from};
    const float *q = p->q + ((row - first_row) * sh->n_heads + head * group) * d;
    float scale = 1.0f / sqrtf((float)d);
    for (size_t i = 0; i < group * d; i++) p->q_scaled[i] = q[i] * scale;
    if (c == t->n_choices)
        add_segment(&a, p, upto, head, 0, 0, 0, from, end);
    else {
        add_segment(&a, p, upto, head, 0, 0, 0, from, t->n_context);
        add_segment(&a, p, upto, head, t->first[c], p->at.column[c], t->n_context,
                    from > t->n_context ? from : t->n_context, end);
    }
    if (p->view.evicted) {
        const uint8_t *gone = p->view.evicted + head * t->n_tokens;
        for (size_t j = 0; j < a.len; j++) p->masked[j] = gone[kv_paths_row(&p->at, c, from + j)];
        p->masked[a.len - 1] = 0; // a token's own query sees it
        a.masked = p->masked;
    }
    a.weights = p->weights;
    a.ld_w = p->at.ld_row;
    a.out = p->out + ((row - first_row) * sh->n_heads + head * group) * d;
    kv_kernels()->attend(&a);
    if (p->job->stats) count_attention(p, row, &a, from);
}

static int attend_rows(struct kv_layer_run *p, uint32_t from, uint32_t to, struct kv_error *e) {
    uint32_t context = p->job->tree->n_context;
    if (p->by_blocks && from < context) {
        uint32_t end = to < context ? to : context;
        int rc = kv_layer_attend_blocks(p, from, end, e);
        if (rc) return rc;
        from = end;
    }
    for (size_t h = 0; h < p->m->shape.n_kv_heads; h++)
        for (uint32_t row = from; row < to; row++) attend_row(p, row, h);
    return 0;
}

// The rows in runs between which what is stored may change: the context's end at multiples of
// age_tokens, the choices are the last.
static int attend_as_it_ages(struct kv_layer_run *p, size_t width, struct kv_error *e) {
    const struct kv_forward *job = p->job;
    const struct kv_tree *t = job->tree;
    for (uint32_t from = job->first_row, to; from < t->n_tokens; from = to) {
        bool in_context = from < t->n_context;
        int aged = job->age(job->self, p->layer, in_context ? from : t->n_context, e);
        if (aged < 0) return aged;
        if (aged && p->view.k_coded && p->k_t[1])
            kv_paths_transpose(&p->at, width, p->view.k_coded, p->k_t[1]);
        to = in_context ? (from / job->age_tokens + 1) * job->age_tokens : t->n_tokens;
        if (in_context && to > t->n_context) to = t->n_context;
        int rc = attend_rows(p, from, to, e);
        if (rc) return rc;
    }
    return 0;
}

int kv_layer_attend(struct kv_layer_run *p, struct kv_error *e) {
    size_t width = (size_t)p->m->shape.n_kv_heads * p->m->shape.head_dim;
    if (p->view.k_exact && p->k_t[0]) kv_paths_transpose(&p->at, width, p->view.k_exact, p->k_t[0]);
    if (p->view.k_coded && p->k_t[1]) kv_paths_transpose(&p->at, width, p->view.k_coded, p->k_t[1]);
    if (p->job->age) return attend_as_it_ages(p, width, e);
    return attend_rows(p, p->job->first_row, p->job->tree->n_tokens, e);
}
