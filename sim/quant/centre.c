// SPDX-License-Identifier: Apache-2.0
// Finds the centre of a sequence's vectors and turns it to where a token stands.
#include "sim/quant/centre.h"
#include "sim/quant/own.h"
#include "sim/quant/pack.h"

static bool turns(const struct kv_format *f) {
    return f->centre.before_rope && !f->keys_before_rope;
}

static const double *angles_of(const struct kv_format *f, uint32_t layer) {
    return f->setting.rope + (size_t)layer * (f->setting.shape.head_dim / 2);
}

// Adds up one head's channels of positions [from, to).
static void find_head(const struct kv_format *f, const struct kv_vectors *r, const float *rows,
                      size_t from, size_t to, float *centre) {
    size_t d = f->setting.shape.head_dim;
    uint8_t half[2];
    double sum[1024] = {0}; // as long as a head may be
    float x[1024];
    for (size_t t = from; t < to; t++) {
        memcpy(x, rows + t * r->x_stride, d * sizeof *x);
        if (turns(f)) kv_turn(x, d, f->setting.order, angles_of(f, r->layer), -(double)t);
        for (size_t i = 0; i < d; i++) sum[i] += (double)x[i];
    }
    for (size_t i = 0; i < d; i++) {
        centre[i] = to > from ? (float)(sum[i] / (double)(to - from)) : 0;
        kv_put_halves(&centre[i], 1, half);
        kv_get_halves(half, 1, &centre[i]);
    }
}

int kv_centre_find(const struct kv_format *f, const struct kv_vectors *r, float *centre,
                   struct kv_error *e) {
    size_t d = f->setting.shape.head_dim, from = f->sinks, to = kv_centre_known(f, r->side);
    const float *rows = r->opening ? r->opening : r->x;
    size_t n = r->opening ? r->n_opening : r->n;
    if (!r->opening && r->first > 0)
        return kv_fail(e, KV_EFAIL, f->canonical,
                       "takes the mean of a sequence's first tokens, and the tokens from position "
                       "%zu on came without them",
                       r->first);
    if (turns(f) && r->side == KV_KEY && !f->setting.rope)
        return kv_fail(e, KV_EFAIL, f->canonical,
                       "side=pre turns a mean by RoPE, whose angles are not known here");
    if (to > n) to = n;
    for (size_t h = 0; h < f->setting.shape.n_kv_heads; h++)
        find_head(f, r, rows + h * d, from, to, centre + h * d);
    return 0;
}

void kv_centre_at(const struct kv_format *f, uint32_t layer, const float *centre, size_t head,
                  size_t position, float *at) {
    size_t d = f->setting.shape.head_dim;
    memcpy(at, centre + head * d, d * sizeof *at);
    if (turns(f)) kv_turn(at, d, f->setting.order, angles_of(f, layer), (double)position);
}

void kv_centre_count(const struct kv_format *f, const struct kv_vectors *r, size_t upto,
                     struct kv_bits *bits) {
    size_t values = (size_t)f->setting.shape.n_kv_heads * f->setting.shape.head_dim;
    if (!kv_is_centred(f, r->side) || r->start > 0 || r->n <= f->sinks || upto <= f->sinks) return;
    bits->meta_bits += 16 * values;
    bits->bytes += 2 * values;
}
