// SPDX-License-Identifier: Apache-2.0
// One chunk of tokens through the model, layer by layer, so that what a layer's rows need stays in
// the cache; and the gradient on the way back.
#include "analysis/search/cells_net.h"

#include <stdlib.h>

#include "sim/base/blas.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/model/kernels.h"

struct kv_cells_room {
    float *in;                         // [rows][n_x + embedding]; without a net [rows][n_x]
    float *value[2], *gate[2], *delta; // [rows][net]: SiLU's output, its sigmoid, d loss / d value
    float *d_in;                       // [rows][embedding]
    float *hidden;                     // [chunk][hidden]
    float *f, *d, *inverse;            // [rows]
};

// ---- the parts of a model -----------------------------------------------------------------

static float *take(float **at, size_t n) {
    float *here = n ? *at : NULL;
    if (*at) *at += n;
    return here;
}

struct kv_cells_model kv_cells_view(const struct kv_cells_shape *s, float *parameter) {
    struct kv_cells_model m = {.shape = *s, .parameter = parameter};
    size_t places = kv_cells_places(s), n_x = kv_cells_features_of(s), net = s->net;
    size_t n_in = n_x + KV_CELLS_EMBEDDING;
    float *at = parameter;
    m.bias = take(&at, places);
    m.linear = at; // never NULL: without features it is empty
    take(&at, places * n_x);
    if (net) {
        m.embedding = take(&at, places * KV_CELLS_EMBEDDING);
        const size_t inputs[] = {n_in, net, net}, outputs[] = {net, net, 1};
        for (size_t l = 0; l < 3; l++) {
            m.weight[l] = take(&at, outputs[l] * inputs[l]);
            m.offset[l] = take(&at, outputs[l]);
        }
    }
    m.probe_at = places * (1 + n_x);
    if (net)
        m.probe_at += places * KV_CELLS_EMBEDDING + net * (n_in + 1) + net * (net + 1) + net + 1;
    m.probe = take(&at, places * s->hidden);
    m.n = m.probe_at + places * s->hidden;
    return m;
}

struct kv_cells_room *kv_cells_room_new(const struct kv_cells_shape *s) {
    struct kv_cells_room *r = kv_alloc(1, sizeof *r);
    size_t rows = (size_t)KV_CELLS_CHUNK * 2 * s->n_kv_heads;
    r->in = kv_alloc(rows * (kv_cells_features_of(s) + KV_CELLS_EMBEDDING), sizeof(float));
    float **wide[] = {&r->value[0], &r->value[1], &r->gate[0], &r->gate[1], &r->delta};
    for (size_t i = 0; i < 5; i++) *wide[i] = kv_alloc(rows * s->net, sizeof(float));
    r->d_in = kv_alloc(rows * KV_CELLS_EMBEDDING, sizeof(float));
    r->hidden = kv_alloc((size_t)KV_CELLS_CHUNK * s->hidden, sizeof(float));
    float **narrow[] = {&r->f, &r->d, &r->inverse};
    for (size_t i = 0; i < 3; i++) *narrow[i] = kv_alloc(rows, sizeof(float));
    return r;
}

void kv_cells_room_free(struct kv_cells_room *r) {
    if (!r) return;
    float *owned[] = {r->in,   r->value[0], r->value[1], r->gate[0], r->gate[1], r->delta,
                      r->d_in, r->hidden,   r->f,        r->d,       r->inverse};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    free(r);
}

// ---- forward ------------------------------------------------------------------------------

// One layer of one chunk: what both ways need.
struct step {
    const struct kv_cells_model *m;
    const struct kv_cells_data *d;
    const struct kv_cells_rows *rows;
    struct kv_cells_room *r;
    size_t from, n, layer;
    size_t per_token;  // cells of a token in the layer: 2 n_kv_heads
    size_t n_x, n_in;  // columns of x, and of a row of r->in
    size_t first_cell; // place of the layer's first cell
};

static size_t source(const uint32_t *other, const struct step *s, size_t i) {
    return other ? other[s->from + i] : s->rows->token[s->from + i];
}

// Rows of x, and the place's embedding behind it.
static void load_inputs(const struct step *s) {
    const struct kv_cells_shape *shape = &s->m->shape;
    const struct kv_cells_rows *rows = s->rows;
    size_t heads = shape->n_kv_heads, n_a = shape->n_attention, n_t = shape->n_token;
    size_t split = rows->split < n_t ? rows->split : n_t;
    for (size_t i = 0; i < s->n; i++) {
        const float *low = NULL, *high = NULL, *attention = NULL;
        if (n_t) {
            low = s->d->token + source(rows->low, s, i) * n_t;
            high = s->d->token + source(rows->high, s, i) * n_t;
        }
        if (n_a)
            attention = s->d->attention +
                        (source(rows->attention, s, i) * shape->n_layers + s->layer) * heads * n_a;
        for (size_t c = 0; c < s->per_token; c++) {
            float *to = s->r->in + (i * s->per_token + c) * s->n_in;
            for (size_t k = 0; k < n_a; k++) to[k] = attention[c / 2 * n_a + k];
            for (size_t k = 0; k < n_t; k++) to[n_a + k] = k < split ? low[k] : high[k];
            if (shape->net)
                memcpy(to + s->n_x, s->m->embedding + (s->first_cell + c) * KV_CELLS_EMBEDDING,
                       KV_CELLS_EMBEDDING * sizeof *to);
        }
    }
}

static void load_hidden(const struct step *s) {
    size_t width = s->m->shape.hidden;
    for (size_t i = 0; i < s->n; i++)
        kv_f16_to_f32_n(s->d->hidden[source(s->rows->probe, s, i)] + s->layer * width,
                        s->r->hidden + i * width, width);
}

// value: z becomes silu(z) = z / (1 + exp(-z)); gate: the sigmoid.
static void silu(float *value, float *gate, size_t n) {
    for (size_t i = 0; i < n; i++) gate[i] = -value[i];
    kv_kernels()->exp_shifted(gate, gate, n, 0);
    for (size_t i = 0; i < n; i++) gate[i] = 1.0f / (1.0f + gate[i]);
    for (size_t i = 0; i < n; i++) value[i] *= gate[i];
}

static void net_forward(const struct step *s) {
    const struct kv_cells_model *m = s->m;
    size_t rows = s->n * s->per_token, net = m->shape.net;
    const float *in = s->r->in;
    size_t n_in = s->n_in;
    for (size_t l = 0; l < 2; l++) {
        float *out = s->r->value[l];
        for (size_t i = 0; i < rows; i++) memcpy(out + i * net, m->offset[l], net * sizeof *out);
        kv_sgemm(false, true, rows, net, n_in, in, n_in, m->weight[l], n_in, 1, out, net);
        silu(out, s->r->gate[l], rows * net);
        in = out;
        n_in = net;
    }
    for (size_t i = 0; i < rows; i++) s->r->f[i] += m->offset[2][0];
    kv_sgemm(false, true, rows, 1, net, in, net, m->weight[2], net, 1, s->r->f, 1);
}

// r->f of the layer's rows.
static void forward(const struct step *s) {
    const struct kv_cells_model *m = s->m;
    size_t n = s->n, per = s->per_token, width = m->shape.hidden;
    if (s->n_x || m->shape.net) load_inputs(s);
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < per; c++) {
            const float *w = m->linear + (s->first_cell + c) * s->n_x;
            const float *x = s->r->in + (i * per + c) * s->n_in;
            float sum = m->bias[s->first_cell + c];
            for (size_t k = 0; k < s->n_x; k++) sum += w[k] * x[k];
            s->r->f[i * per + c] = sum;
        }
    if (m->shape.net) net_forward(s);
    if (width == 0) return;
    load_hidden(s);
    kv_sgemm(false, true, n, per, width, s->r->hidden, width, m->probe + s->first_cell * width,
             width, 1, s->r->f, per);
}

// ---- backward -----------------------------------------------------------------------------

// The loss of the layer's rows; r->d: its derivative by f, times scale.
static double lose(const struct step *s, float scale) {
    size_t per = s->per_token, places = kv_cells_places(&s->m->shape);
    struct kv_cells_room *r = s->r;
    double loss = 0;
    for (size_t i = 0; i < s->n * per; i++) {
        float f = r->f[i];
        f = f > kv_cells_clip ? kv_cells_clip : f < -kv_cells_clip ? -kv_cells_clip : f;
        r->d[i] = f;
        r->inverse[i] = -f;
    }
    kv_kernels()->exp_shifted(r->inverse, r->inverse, s->n * per, 0);
    for (size_t i = 0; i < s->n; i++) {
        uint32_t token = s->rows->token[s->from + i];
        const float *target = s->d->target + token * places + s->first_cell;
        float weight = s->d->weight ? s->d->weight[token] : 1;
        for (size_t c = 0; c < per; c++) {
            size_t at = i * per + c;
            float f = r->d[at], left = target[c] * r->inverse[at];
            if (!(target[c] >= 0)) {
                r->d[at] = 0;
                continue;
            }
            loss += (double)weight * ((double)left + (double)f);
            // Not `f == clipped`: a NaN must reach the gradient and be seen.
            bool clipped = r->f[at] > kv_cells_clip || r->f[at] < -kv_cells_clip;
            r->d[at] = clipped ? 0 : scale * weight * (1 - left);
        }
    }
    return loss;
}

// delta *= silu'(z) = gate + value (1 - gate), value = z gate.
static void silu_back(float *delta, const float *value, const float *gate, size_t n) {
    for (size_t i = 0; i < n; i++) delta[i] *= gate[i] + value[i] * (1.0f - gate[i]);
}

static void add_columns(float *to, const float *x, size_t rows, size_t columns) {
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < columns; k++) to[k] += x[i * columns + k];
}

// delta: d loss / d (output of layer l); adds to the weights of l.
static void add_layer(const struct step *s, struct kv_cells_model *g, size_t l, size_t outputs,
                      const float *delta, const float *in, size_t n_in) {
    size_t rows = s->n * s->per_token;
    kv_sgemm(true, false, outputs, n_in, rows, delta, outputs, in, n_in, 1, g->weight[l], n_in);
    add_columns(g->offset[l], delta, rows, outputs);
}

static void net_backward(const struct step *s, struct kv_cells_model *g) {
    struct kv_cells_room *r = s->r;
    size_t rows = s->n * s->per_token, net = s->m->shape.net;
    add_layer(s, g, 2, 1, r->d, r->value[1], net);
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < net; k++) r->delta[i * net + k] = r->d[i] * s->m->weight[2][k];
    silu_back(r->delta, r->value[1], r->gate[1], rows * net);
    add_layer(s, g, 1, net, r->delta, r->value[0], net);
    // The second layer's output is not needed any more: its room takes the first one's delta.
    float *delta = r->value[1];
    kv_sgemm(false, false, rows, net, net, r->delta, net, s->m->weight[1], net, 0, delta, net);
    silu_back(delta, r->value[0], r->gate[0], rows * net);
    add_layer(s, g, 0, net, delta, r->in, s->n_in);
    kv_sgemm(false, false, rows, KV_CELLS_EMBEDDING, net, delta, net, s->m->weight[0] + s->n_x,
             s->n_in, 0, r->d_in, KV_CELLS_EMBEDDING);
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < KV_CELLS_EMBEDDING; k++)
            g->embedding[(s->first_cell + i % s->per_token) * KV_CELLS_EMBEDDING + k] +=
                r->d_in[i * KV_CELLS_EMBEDDING + k];
}

static void backward(const struct step *s, struct kv_cells_model *g) {
    size_t per = s->per_token, width = s->m->shape.hidden;
    for (size_t i = 0; i < s->n; i++)
        for (size_t c = 0; c < per; c++) {
            float d = s->r->d[i * per + c], *w = g->linear + (s->first_cell + c) * s->n_x;
            const float *x = s->r->in + (i * per + c) * s->n_in;
            g->bias[s->first_cell + c] += d;
            for (size_t k = 0; k < s->n_x; k++) w[k] += d * x[k];
        }
    if (width)
        kv_sgemm(true, false, per, width, s->n, s->r->d, per, s->r->hidden, width, 1,
                 g->probe + s->first_cell * width, width);
    if (s->m->shape.net) net_backward(s, g);
}

// ---- all layers ---------------------------------------------------------------------------

double kv_cells_chunk(const struct kv_cells_model *m, const struct kv_cells_data *d,
                      const struct kv_cells_rows *rows, size_t from, size_t n,
                      struct kv_cells_room *r, float *f, float scale, float *gradient) {
    const struct kv_cells_shape *shape = &m->shape;
    struct kv_cells_model g = {0};
    struct step s = {.m = m,
                     .d = d,
                     .rows = rows,
                     .r = r,
                     .from = from,
                     .n = n,
                     .per_token = 2 * (size_t)shape->n_kv_heads,
                     .n_x = kv_cells_features_of(shape)};
    s.n_in = s.n_x + (shape->net ? KV_CELLS_EMBEDDING : 0);
    double loss = 0;
    if (gradient) g = kv_cells_view(shape, gradient);
    for (s.layer = 0; s.layer < shape->n_layers; s.layer++) {
        s.first_cell = s.layer * s.per_token;
        forward(&s);
        for (size_t i = 0; f && i < n; i++)
            memcpy(f + i * kv_cells_places(shape) + s.first_cell, r->f + i * s.per_token,
                   s.per_token * sizeof *f);
        if (!gradient) continue;
        loss += lose(&s, scale);
        backward(&s, &g);
    }
    return loss;
}
