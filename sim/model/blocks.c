// SPDX-License-Identifier: Apache-2.0
// Attention of a long context by blocks of queries: scores of a block against all earlier keys in
// one product, whole softmax rows, one product with the values. Held by each thread:
// KV_BLOCK_ROWS rows of a KV head's queries, over all positions; nothing of tokens x tokens, and no
// sum is rescaled.
#include <stdlib.h>

#include "sim/base/blas.h"
#include "sim/base/memory.h"
#include "sim/model/kernels.h"
#include "sim/model/layer.h"
#include "sim/model/scratch.h"

// A block of rows [from, to) before one KV head. What a row reads coded ends at upto[side], which
// differs from row to row: columns below most[side] are multiplied with coded values, those from
// least[side] on with exact ones, and a row takes of each what it reads.
struct block {
    const struct kv_layer_run *p;
    struct kv_scratch *scratch;
    uint32_t from, to;
    size_t head, group, d, width, n_rows; // n_rows: queries, those of a token side by side
    size_t begin;                         // first position that some row sees
    size_t least[2], most[2];
    size_t ld, ld_exact;
    float *q, *w, *exact, *out;
    float *received,
        *own; // of all heads [n_kv_heads]: by position [longest], by query [n_rows]; or NULL
};

static size_t coded_end(const struct block *b, uint32_t row, int side) {
    const uint32_t *upto = b->p->job->coded_upto;
    size_t end = upto ? upto[2 * (size_t)row + (size_t)side] : 0;
    if (end < b->begin) end = b->begin;
    return end > row + 1u ? row + 1u : end;
}

static void find_ends(struct block *b) {
    for (int side = 0; side < 2; side++) {
        b->least[side] = b->to;
        b->most[side] = b->begin;
        for (uint32_t row = b->from; row < b->to; row++) {
            size_t end = coded_end(b, row, side);
            if (end == row + 1u) end = b->to; // what follows is not seen: no exact part for it
            if (end < b->least[side]) b->least[side] = end;
            if (end > b->most[side]) b->most[side] = end;
        }
    }
}

static void take_queries(const struct block *b) {
    const struct kv_shape *sh = &b->p->m->shape;
    float scale = 1.0f / sqrtf((float)b->d), *to = b->q;
    for (uint32_t row = b->from; row < b->to; row++) {
        const float *q =
            b->p->q +
            ((row - b->p->job->first_row) * (size_t)sh->n_heads + b->head * b->group) * b->d;
        for (size_t i = 0; i < b->group * b->d; i++) *to++ = q[i] * scale;
    }
}

// Scores [n_rows][begin .. to) into w, from coded keys and then, where rows differ, exact ones.
static void score(const struct block *b) {
    const struct kv_layer_view *v = &b->p->view;
    size_t at = b->head * b->d, least = b->least[KV_KEY], most = b->most[KV_KEY];
    if (most > b->begin)
        kv_sgemm(false, true, b->n_rows, most - b->begin, b->d, b->q, b->d,
                 v->k_coded + b->begin * b->width + at, b->width, 0, b->w, b->ld);
    if (least >= b->to) return;
    bool apart = least < most; // some columns are read both ways
    float *to = apart ? b->exact : b->w + (least - b->begin);
    kv_sgemm(false, true, b->n_rows, b->to - least, b->d, b->q, b->d,
             v->k_exact + least * b->width + at, b->width, 0, to, apart ? b->ld_exact : b->ld);
    if (!apart) return;
    for (size_t i = 0; i < b->n_rows; i++) {
        uint32_t row = b->from + (uint32_t)(i / b->group);
        size_t end = coded_end(b, row, KV_KEY);
        if (end < least) end = least;
        for (size_t t = end; t < row + 1u; t++)
            b->w[i * b->ld + t - b->begin] = to[i * b->ld_exact + t - least];
    }
}

// Softmax of each query over what it sees; 0 for the other columns.
static void weigh(const struct block *b) {
    const struct kv_tree *t = b->p->job->tree;
    const uint8_t *gone = b->p->view.evicted ? b->p->view.evicted + b->head * t->n_tokens : NULL;
    uint32_t window = b->p->m->layers[b->p->layer].window;
    for (size_t i = 0; i < b->n_rows; i++) {
        uint32_t row = b->from + (uint32_t)(i / b->group);
        size_t first = kv_window_start(window, row) - b->begin, end = row + 1 - b->begin;
        float *w = b->w + i * b->ld;
        for (size_t j = first; gone && j + 1 < end; j++)
            if (gone[b->begin + j]) w[j] = -INFINITY;
        memset(w, 0, first * sizeof *w);
        kv_kernels()->softmax(w + first, end - first);
        memset(w + end, 0, (b->to - b->begin - end) * sizeof *w);
    }
}

// Before the head at hand: what rows receive, and how their own weights vary (struct
// kv_attention_stats), as attention.c counts it for a row. Only rows of the block have a variance
// from it, but what positions receive is added up in the order of blocks: tell.
static void count(const struct block *b) {
    const struct kv_layer_run *p = b->p;
    struct kv_attention_stats *s = p->job->stats;
    float per_head = 1.0f / (float)p->m->shape.n_heads,
          *received = b->received + b->head * p->at.longest, *own = b->own + b->head * b->n_rows;
    bool last = p->layer + 1 == p->m->shape.n_layers && s->variance;
    uint32_t window = p->m->layers[p->layer].window;
    memset(received, 0, (b->to - b->begin) * sizeof *received);
    for (size_t i = 0; i < b->n_rows; i++) {
        uint32_t row = b->from + (uint32_t)(i / b->group);
        size_t n = row - b->begin;
        const float *w = b->w + i * b->ld;
        kv_kernels()->add(received, w, n); // its own apart: future leaves it out
        own[i] = w[n];
        if (!last) continue;
        size_t from = kv_window_start(window, row), len = row + 1 - from;
        s->variance[row] += per_head * (float)kv_variance_of(w + from - b->begin, len);
    }
}

static void tell(const struct block *b) {
    const struct kv_shape *sh = &b->p->m->shape;
    const struct kv_attention_stats *s = b->p->job->stats;
    float share = 1.0f / (float)sh->n_heads / (float)sh->n_layers;
    for (size_t head = 0; head < sh->n_kv_heads; head++) {
        const float *received = b->received + head * b->p->at.longest,
                    *own = b->own + head * b->n_rows;
        for (size_t i = 0; i < b->n_rows && s->so_far; i++)
            s->so_far[b->from + i / b->group] += share * own[i];
        for (size_t j = 0; j < b->to - b->begin; j++) {
            if (s->so_far) s->so_far[b->begin + j] += share * received[j];
            if (s->future) s->future[b->begin + j] += share * received[j];
        }
    }
}

// out = weights x values: columns read coded, then those read exact.
static void mix(const struct block *b) {
    const struct kv_layer_view *v = &b->p->view;
    size_t at = b->head * b->d, least = b->least[KV_VALUE], most = b->most[KV_VALUE];
    bool exact = least < b->to, apart = exact && least < most;
    for (size_t i = 0; i < b->n_rows && apart; i++) {
        size_t end = coded_end(b, b->from + (uint32_t)(i / b->group), KV_VALUE);
        float *w = b->w + i * b->ld, *x = b->exact + i * b->ld_exact;
        if (end < least) end = least;
        memset(x, 0, (end - least) * sizeof *x);
        memcpy(x + (end - least), w + (end - b->begin), (b->to - end) * sizeof *x);
        if (most > end) memset(w + (end - b->begin), 0, (most - end) * sizeof *w);
    }
    if (most > b->begin)
        kv_sgemm(false, false, b->n_rows, b->d, most - b->begin, b->w, b->ld,
                 v->v_coded + b->begin * b->width + at, b->width, 0, b->out, b->d);
    if (exact)
        kv_sgemm(false, false, b->n_rows, b->d, b->to - least,
                 apart ? b->exact : b->w + (least - b->begin), apart ? b->ld_exact : b->ld,
                 v->v_exact + least * b->width + at, b->width, most > b->begin, b->out, b->d);
}

static void give_back(const struct block *b) {
    size_t n_heads = b->p->m->shape.n_heads;
    const float *from = b->out;
    for (uint32_t row = b->from; row < b->to; row++, from += b->group * b->d)
        memcpy(b->p->out + ((row - b->p->job->first_row) * n_heads + b->head * b->group) * b->d,
               from, b->group * b->d * sizeof *from);
}

static struct block block_of(const struct kv_layer_run *p, uint32_t from, uint32_t to) {
    const struct kv_shape *sh = &p->m->shape;
    size_t group = sh->n_heads / sh->n_kv_heads;
    return (struct block){.p = p,
                          .from = from,
                          .to = to,
                          .group = group,
                          .d = sh->head_dim,
                          .width = (size_t)sh->n_kv_heads * sh->head_dim,
                          .n_rows = (to - from) * group,
                          .begin = kv_window_start(p->m->layers[p->layer].window, from),
                          .ld = p->at.ld_row};
}

static void attend_block(struct block *b) {
    size_t n_kv_heads = b->p->m->shape.n_kv_heads;
    find_ends(b);
    size_t least = b->least[KV_KEY] < b->least[KV_VALUE] ? b->least[KV_KEY] : b->least[KV_VALUE];
    b->ld_exact = least < b->to ? b->to - least : 0;
    b->q = kv_scratch_floats(b->scratch, KV_BUF_BLOCK_Q, KV_BLOCK_ROWS * b->group * b->d);
    b->out = kv_scratch_floats(b->scratch, KV_BUF_BLOCK_OUT, KV_BLOCK_ROWS * b->group * b->d);
    b->w = kv_scratch_floats(b->scratch, KV_BUF_BLOCK, KV_BLOCK_ROWS * b->group * b->ld);
    bool apart = b->least[KV_KEY] < b->most[KV_KEY] || b->least[KV_VALUE] < b->most[KV_VALUE];
    if (apart)
        b->exact = kv_scratch_floats(b->scratch, KV_BUF_BLOCK_EXACT, b->n_rows * b->ld_exact);
    for (b->head = 0; b->head < n_kv_heads; b->head++) {
        take_queries(b);
        score(b);
        weigh(b);
        if (b->received) count(b);
        mix(b);
        give_back(b);
    }
}

// ---- blocks that are computed at once ---------------------------------------------------

enum { BLOCKS_A_THREAD = 4 }; // at once: their lengths differ little

static void attend_one(void *self, struct kv_scratch *hand, size_t i) {
    struct block *b = (struct block *)self + i;
    b->scratch = hand;
    attend_block(b);
}

// Blocks end at multiples of their size, wherever the rows begin.
int kv_layer_attend_blocks(struct kv_layer_run *p, uint32_t from, uint32_t to, struct kv_error *e) {
    const struct kv_shape *sh = &p->m->shape;
    size_t most = BLOCKS_A_THREAD * (size_t)(1 + p->scratch->n_more),
           queries = KV_BLOCK_ROWS * (size_t)(sh->n_heads / sh->n_kv_heads),
           counts = sh->n_kv_heads * (p->at.longest + queries);
    float *seen =
        p->job->stats ? kv_scratch_floats(p->scratch, KV_BUF_BLOCK_COUNTS, most * counts) : NULL;
    struct block *blocks = kv_alloc(most, sizeof *blocks);
    int rc = 0;
    while (from < to && rc == 0) {
        size_t n = 0;
        for (; n < most && from < to; n++) {
            uint32_t end = (from / KV_BLOCK_ROWS + 1) * KV_BLOCK_ROWS;
            if (end > to) end = to;
            blocks[n] = block_of(p, from, end);
            if (seen) {
                blocks[n].received = seen + n * counts;
                blocks[n].own = blocks[n].received + sh->n_kv_heads * p->at.longest;
            }
            from = end;
        }
        rc = kv_scratch_parallel(p->scratch, n, attend_one, blocks, e);
        for (size_t i = 0; i < n && seen && rc == 0; i++) tell(&blocks[i]);
    }
    free(blocks);
    return rc;
}
