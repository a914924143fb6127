// SPDX-License-Identifier: Apache-2.0
// A decode step over rows of several sequences: the layers' own steps, with attention a row at a
// time.
#include "sim/model/step.h"

#include <stdlib.h>

#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/model/kernels.h"
#include "sim/model/layer.h"
#include "sim/model/scratch.h"

_Static_assert((int)KV_STEP_COLUMNS == (int)KV_TILE, "kernels read whole tiles of columns");

static void embed(const struct kv_model *m, uint32_t id, float *x) {
    size_t h = m->shape.hidden, at = (size_t)id * h;
    for (size_t i = 0; i < h; i++)
        x[i] = m->embed.f32 ? m->embed.f32[at + i] : kv_bf16_to_f32(m->embed.bf16[at + i]);
    for (size_t i = 0; i < h && m->embed_scale != 1; i++) x[i] *= m->embed_scale;
}

static int check_rows(const struct kv_model *m, const struct kv_step *step, struct kv_error *e) {
    if (m->shape.head_dim % 16)
        return kv_fail(e, KV_EFAIL, "decode step",
                       "heads have %u channels; only multiples of 16 are computed",
                       m->shape.head_dim);
    for (size_t r = 0; r < step->n; r++) {
        if (step->rows[r].id >= m->shape.vocab)
            return kv_fail(e, KV_EFAIL, "decode step", "token id %u; the model knows %u",
                           step->rows[r].id, m->shape.vocab);
        if (step->rows[r].position >= m->shape.max_tokens)
            return kv_fail(e, KV_EFAIL, "decode step",
                           "a sequence is longer than the model's %u tokens", m->shape.max_tokens);
    }
    return 0;
}

// Buffers of attention, for the longest row.
struct room {
    float *weights, *q;
    uint8_t *masked;
    size_t ld_w;
};

// variance: where that of the weights is added up, mean over heads, or NULL.
static void attend(const struct kv_model *m, uint32_t layer, uint32_t position,
                   const struct kv_step_view *view, const float *q, const struct room *room,
                   float *out, float *variance) {
    const struct kv_shape *s = &m->shape;
    size_t d = s->head_dim, group = s->n_heads / s->n_kv_heads, width = s->n_kv_heads * d,
           from = kv_window_start(m->layers[layer].window, position), len = position + 1 - from;
    float scale = 1.0f / sqrtf((float)d);
    for (size_t head = 0; head < s->n_kv_heads; head++) {
        for (size_t i = 0; i < group * d; i++) room->q[i] = q[head * group * d + i] * scale;
        struct kv_attend a = {.n_q = group,
                              .dim = d,
                              .q = room->q,
                              .n_spans = 1,
                              .len = len,
                              .weights = room->weights,
                              .ld_w = room->ld_w,
                              .out = out + head * group * d};
        a.span[0] = (struct kv_span){.k_t = view->k_t + head * d * view->ld + from,
                                     .ld_k = view->ld,
                                     .v = view->v + from * width + head * d,
                                     .ld_v = width,
                                     .count = len};
        if (view->evicted) {
            memcpy(room->masked, view->evicted + head * view->ld + from, len);
            room->masked[len - 1] = 0;
            a.masked = room->masked;
        }
        kv_kernels()->attend(&a);
        for (size_t g = 0; variance && g < group; g++)
            *variance += (float)kv_variance_of(a.weights + g * a.ld_w, len) / (float)s->n_heads;
    }
}

static int attend_all(const struct kv_model *m, const struct kv_step *step, uint32_t layer,
                      const float *norm, const float *q, const struct kv_layer_kv *kv,
                      const struct room *room, float *mixed, struct kv_error *e) {
    const struct kv_shape *s = &m->shape;
    size_t n_q = (size_t)s->n_heads * s->head_dim, n_kv = (size_t)s->n_kv_heads * s->head_dim;
    for (size_t r = 0; r < step->n; r++) {
        const struct kv_step_kv own = {.input = norm + r * s->hidden,
                                       .q = q + r * n_q,
                                       .k_raw = kv->k_raw + r * n_kv,
                                       .k = kv->k + r * n_kv,
                                       .v = kv->v + r * n_kv};
        struct kv_step_view view = {0};
        int rc = step->store(step->rows[r].self, layer, &own, &view, e);
        if (rc) return rc;
        float *variance = step->variance && layer + 1 == s->n_layers ? &step->variance[r] : NULL;
        if (variance) *variance = 0;
        attend(m, layer, step->rows[r].position, &view, own.q, room, mixed + r * n_q, variance);
    }
    return 0;
}

int kv_step(const struct kv_model *m, const struct kv_step *step, struct kv_scratch *s,
            struct kv_error *e) {
    const struct kv_shape *sh = &m->shape;
    size_t h = sh->hidden, n = step->n, n_q = (size_t)sh->n_heads * sh->head_dim, longest = 1;
    int rc = check_rows(m, step, e);
    if (rc || n == 0) return rc;
    bool before = s->row_by_row;
    uint32_t *position = kv_alloc(n, sizeof *position);
    for (size_t r = 0; r < n; r++) {
        position[r] = step->rows[r].position;
        if (position[r] + 1 > longest) longest = position[r] + 1;
    }
    size_t group = sh->n_heads / sh->n_kv_heads;
    struct room room = {.ld_w = (longest + 2 * KV_TILE) / KV_TILE * KV_TILE};
    room.weights = kv_scratch_floats(s, KV_BUF_WEIGHTS_ROW, group * room.ld_w);
    room.q = kv_scratch_floats(s, KV_BUF_Q_SCALED, group * sh->head_dim);
    room.masked = kv_alloc(longest, 1);
    const struct kv_forward job = {0}; // no row comes before those of the step, nobody observes
    struct kv_layer_run p = {.m = m, .job = &job, .at.position = position};
    float *x = kv_scratch_floats(s, KV_BUF_X, n * h), *q = kv_scratch_floats(s, KV_BUF_Q, n * n_q),
          *mixed = kv_scratch_floats(s, KV_BUF_MIXED, n * n_q);
    struct kv_layer_kv kv = kv_layer_take_kv(m, n, s);
    kv_scratch_row_by_row(s, true);
    for (size_t r = 0; r < n; r++) embed(m, step->rows[r].id, x + r * h);
    for (uint32_t l = 0; l < sh->n_layers && rc == 0; l++) {
        p.layer = l;
        if ((rc = kv_layer_project(&p, x, n, q, &kv, s, e))) break;
        rc = attend_all(m, step, l, kv_scratch_floats(s, KV_BUF_NORM, n * h), q, &kv, &room, mixed,
                        e);
        if (rc || (rc = kv_layer_add_mixed(&p, mixed, n, x, s, e))) break;
        rc = kv_layer_feed_forward(&p, NULL, n, x, s, e);
    }
    if (rc == 0) kv_kernels()->rms_norm(step->final, x, m->final_norm, n, h, m->rms_eps);
    kv_scratch_row_by_row(s, before);
    free(room.masked);
    free(position);
    return rc;
}
