// SPDX-License-Identifier: Apache-2.0
// The output head where it is scored: reference distributions once, divergence from them tile by
// tile.
//
// With d = logit - reference logit and p the reference probabilities,
//   KL(ref || other) = log sum p e^d - sum p d,   log Z - log Z_ref = log sum p e^d,
// so that equal logits give exactly 0 and a small divergence is not the difference of large
// numbers. A row whose state or logits are not finite has NaN for everything: they are tested
// first, as maxima and fast exponentials would make numbers of them.
#include <stdlib.h>

#include "sim/base/finite.h"
#include "sim/base/memory.h"
#include "sim/model/accelerator.h"
#include "sim/model/kernels.h"
#include "sim/model/scratch.h"

enum {
    TILE_ROWS = 1024
}; // rows of the vocabulary a product covers: a tile of weights stays in cache

// Rows [from, from + n) of a matrix as a matrix.
static struct kv_matrix slice(const struct kv_matrix *w, size_t from, size_t n) {
    struct kv_matrix part = {.rows = n, .cols = w->cols, .accelerator = w->accelerator};
    if (w->f32) part.f32 = w->f32 + from * w->cols;
    if (w->bf16) part.bf16 = w->bf16 + from * w->cols;
    return part;
}

enum { MOST_ROWS = 256, USUAL_VOCAB = 49152 };

size_t kv_head_rows(const struct kv_model *m) {
    size_t rows = (size_t)MOST_ROWS * USUAL_VOCAB / m->shape.vocab;
    return rows > MOST_ROWS ? MOST_ROWS : rows > 0 ? rows : 1;
}

static size_t tile_rows(const struct kv_model *m) {
    return m->accelerator ? m->accelerator->tile_rows : TILE_ROWS;
}

static size_t tile_at(const struct kv_model *m, size_t from) {
    size_t left = m->shape.vocab - from, most = tile_rows(m);
    return left < most ? left : most;
}

void kv_head_reference(const struct kv_model *m, const float *final, size_t n_rows,
                       struct kv_scratch *s, struct kv_reference *r) {
    size_t vocab = m->shape.vocab;
    const struct kv_kernels *k = kv_kernels();
    r->n_rows = n_rows;
    r->logit = kv_scratch_floats(s, KV_BUF_REF_LOGITS, n_rows * vocab);
    r->p = kv_scratch_floats(s, KV_BUF_REF_P, n_rows * vocab);
    r->log_z = (double *)kv_scratch_floats(s, KV_BUF_REF_SUMS, 4 * n_rows);
    r->sum_p = r->log_z + n_rows;
    float *tile = kv_scratch_floats(s, KV_BUF_LOGITS, n_rows * tile_rows(m));
    for (size_t from = 0, n; from < vocab; from += n) {
        n = tile_at(m, from);
        struct kv_matrix part = slice(&m->head, from, n);
        kv_product(&part, final, n_rows, tile, s);
        for (size_t i = 0; i < n_rows; i++)
            memcpy(r->logit + i * vocab + from, tile + i * n, n * sizeof *tile);
    }
    for (size_t i = 0; i < n_rows; i++) {
        float max, sum;
        const float *logit = r->logit + i * vocab;
        k->max_sum_exp(logit, vocab, &max, &sum);
        r->log_z[i] = (double)max + log((double)sum);
        if (!kv_all_finite(final + i * m->shape.hidden, m->shape.hidden) ||
            !kv_all_finite(logit, vocab))
            r->log_z[i] = NAN;
        k->exp_shifted(r->p + i * vocab, logit, vocab, (float)r->log_z[i]);
        // Added tile by tile, as kv_head_compare does.
        r->sum_p[i] = 0;
        for (size_t from = 0; from < vocab; from += tile_rows(m))
            r->sum_p[i] +=
                k->compare(logit + from, logit + from, r->p + i * vocab + from, tile_at(m, from))
                    .sum_p;
    }
}

double kv_reference_divergence(const struct kv_model *m, const struct kv_reference *r, size_t row,
                               size_t other) {
    size_t vocab = m->shape.vocab;
    double max_d = -INFINITY, sum_pe = 0, sum_pd = 0;
    if (isnan(r->log_z[row]) || isnan(r->log_z[other])) return NAN;
    for (size_t from = 0, n; from < vocab; from += n) {
        n = tile_at(m, from);
        struct kv_tile_sums t =
            kv_kernels()->compare(r->logit + other * vocab + from, r->logit + row * vocab + from,
                                  r->p + row * vocab + from, n);
        double max = fmax(max_d, (double)t.max_d);
        sum_pe = sum_pe * exp(max_d - max) + (double)t.sum_pe * exp((double)t.max_d - max);
        sum_pd += (double)t.sum_pd;
        max_d = max;
    }
    return kv_not_negative(max_d + log(sum_pe / r->sum_p[row]) - sum_pd / r->sum_p[row]);
}

double kv_reference_logprob(const struct kv_model *m, const struct kv_reference *r, size_t row,
                            uint32_t id) {
    return (double)r->logit[row * m->shape.vocab + id] - r->log_z[row];
}

void kv_head_compare(const struct kv_model *m, const struct kv_reference *r, const float *final,
                     struct kv_scratch *s, double *kl_nats, struct kv_target *targets,
                     size_t n_targets, bool *other_top) {
    size_t vocab = m->shape.vocab, n_rows = r->n_rows;
    float *tile = kv_scratch_floats(s, KV_BUF_LOGITS, n_rows * tile_rows(m));
    struct running {
        double max_d, sum_pe, sum_pd;
        bool finite;
        float best;
        size_t top, ref_top;
    } *sums = kv_alloc(n_rows, sizeof *sums);
    for (size_t i = 0; i < n_rows; i++) {
        sums[i].max_d = sums[i].best = -INFINITY;
        sums[i].finite = kv_all_finite(final + i * m->shape.hidden, m->shape.hidden);
    }
    for (size_t from = 0, n; from < vocab; from += n) {
        n = tile_at(m, from);
        struct kv_matrix part = slice(&m->head, from, n);
        kv_product(&part, final, n_rows, tile, s);
        for (size_t i = 0; i < n_rows; i++) {
            size_t at = i * vocab + from;
            sums[i].finite = sums[i].finite && kv_all_finite(tile + i * n, n);
            struct kv_tile_sums t =
                kv_kernels()->compare(tile + i * n, r->logit + at, r->p + at, n);
            double max = fmax(sums[i].max_d, (double)t.max_d);
            sums[i].sum_pe = sums[i].sum_pe * exp(sums[i].max_d - max) +
                             (double)t.sum_pe * exp((double)t.max_d - max);
            sums[i].sum_pd += (double)t.sum_pd;
            sums[i].max_d = max;
            size_t top = other_top ? kv_kernels()->largest(tile + i * n, n) : n;
            if (top < n && tile[i * n + top] > sums[i].best) {
                sums[i].best = tile[i * n + top];
                sums[i].top = from + top;
            }
        }
        for (size_t j = 0; j < n_targets; j++)
            if (targets[j].id >= from && targets[j].id < from + n) {
                size_t at = targets[j].row * vocab + targets[j].id;
                targets[j].logprob =
                    (double)tile[targets[j].row * n + targets[j].id - from] - (double)r->logit[at];
            }
    }
    for (size_t i = 0; i < n_rows; i++) { // from here max_d holds log (Z / Z_ref)
        sums[i].max_d += log(sums[i].sum_pe / r->sum_p[i]);
        if (!sums[i].finite || isnan(r->log_z[i])) sums[i].max_d = NAN;
        kl_nats[i] = kv_not_negative(sums[i].max_d - sums[i].sum_pd / r->sum_p[i]);
        if (!other_top) continue;
        sums[i].ref_top = kv_kernels()->largest(r->logit + i * vocab, vocab);
        other_top[i] = sums[i].ref_top != sums[i].top;
    }
    for (size_t j = 0; j < n_targets; j++) {
        struct kv_target *t = &targets[j];
        t->logprob += kv_reference_logprob(m, r, t->row, t->id) - sums[t->row].max_d;
        t->top = other_top && sums[t->row].top == t->id;
        t->ref_top = other_top && sums[t->row].ref_top == t->id;
    }
    free(sums);
}

void kv_reference_features(const struct kv_model *m, const struct kv_reference *r, size_t row,
                           float *entropy_nats,
                           float *confidence) { // H = log Z - sum p logit
    size_t vocab = m->shape.vocab;
    float max, sum;
    double mean_logit;
    kv_kernels()->max_sum_exp(r->logit + row * vocab, vocab, &max, &sum);
    kv_kernels()->dot(r->p + row * vocab, r->logit + row * vocab, vocab, &mean_logit);
    *entropy_nats = (float)kv_not_negative(r->log_z[row] - mean_logit / r->sum_p[row]);
    *confidence = isnan(r->log_z[row]) ? NAN : 1.0f / sum;
}
