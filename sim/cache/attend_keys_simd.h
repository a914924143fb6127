// SPDX-License-Identifier: Apache-2.0
// Scores of a page of keys; included by attend_simd.h, which says how codes meet factors.

// The query of a batch of heads as 16-bit integers, in the pair order of each low plane.
struct FN(query) {
    const float *plain;
    int dim;
    float scale[MAX_HEADS];
    int32_t sum[MAX_HEADS][MAX_GROUPS]; // of the integers
    int32_t pair[3][MAX_HEADS][MAX_DIM / 2];
};

INLINE void FN(query_pairs)(const int32_t *code, int dim, int bits, int32_t *pair) {
    const int per_half = 16 / bits;
    for (int p = 0; p < dim / 2; p++) {
        int low = p / per_half * 2 * per_half + p % per_half;
        pair[p] = (int32_t)((uint32_t)code[low] & 0xFFFF) |
                  (int32_t)((uint32_t)code[low + per_half] << 16);
    }
}

INLINE void FN(query_init)(struct FN(query) * q, int heads, const float *query, int dim,
                           int groups) {
    q->plain = query;
    q->dim = dim;
    for (int h = 0; h < heads; h++, query += dim) {
        int32_t code[MAX_DIM];
        vf low = v_set(0), high = v_set(0);
        for (int c = 0; c < dim; c += LANES) {
            vf x = v_loadf(query + c);
            high = v_max(high, x);
            low = v_max(low, v_sub(v_set(0), x));
        }
        float largest = v_top(v_max(low, high));
        float inverse = largest > 0 ? 32767.0f / largest : 0.0f;
        q->scale[h] = largest / 32767.0f;
        for (int g = 0; g < groups; g++) {
            vi sum = v_seti(0);
            for (int c = g * (dim / groups); c < (g + 1) * (dim / groups); c += LANES) {
                vi x = v_int(v_mul(v_loadf(query + c), v_set(inverse)));
                v_store(code + c, x);
                sum = v_add(sum, x);
            }
            q->sum[h][g] = v_totali(sum);
        }
        FN(query_pairs)(code, dim, 2, q->pair[0][h]);
        FN(query_pairs)(code, dim, 4, q->pair[1][h]);
        FN(query_pairs)(code, dim, 8, q->pair[2][h]);
    }
}

// Words of the tokens from t on: LANES of them side by side, the next word KV_KEY_TILE further.
INLINE const uint32_t *FN(key_words)(const uint8_t *plane, int words, int t) {
    return (const uint32_t *)plane + t / KV_KEY_TILE * words * KV_KEY_TILE + t % KV_KEY_TILE;
}

INLINE vi FN(load_ahead)(const uint32_t *x, ptrdiff_t ahead) {
    v_prefetch((const uint8_t *)x + ahead);
    return v_load(x);
}

// Scores of a page's first n tokens (and some after them) for each head. ahead: how far the block
// that is wanted soon lies from this one; fixed: 64 for heads of 64 with one scale or two, else 0.
INLINE void FN(key_page)(const struct kv_side_layout *l, const uint8_t *block, ptrdiff_t ahead,
                         const struct FN(query) * q, int fixed, int base, int extra, int heads,
                         int n, float *const *score) {
    const int dim = fixed ? fixed : q->dim, per_half = 16 / base, words = dim * base / 32;
    // Low words of a turn: those that share a high word; else as many as keep the chains busy.
    const int turn = extra ? base / extra : base == 2 ? 1 : base / 2;
    const int high_words = (words + turn - 1) / turn, bits = base + extra;
    const int groups = (int)l->n_groups, group_words = words / groups;
    const bool whole = fixed || group_words % turn == 0; // no group ends within a turn
    const uint16_t *scale = (const uint16_t *)(block + l->scale_at);
    const uint16_t *min = (const uint16_t *)(block + l->min_at);
    const int width = extra ? 2 * base : base, scales = SCALES(width, 2);
    // Two vectors of tokens share each pair of the query; a sum for each scale, and more of them to
    // keep sums independent.
    const int least = heads == 1 ? REGISTERS / 6 : REGISTERS / 12;
    const int sums = least > scales ? least : scales;
    for (int t = 0; t < n; t += 2 * LANES) {
        const uint32_t *x[2], *y[2];
        for (int v = 0; v < 2; v++) {
            x[v] = FN(key_words)(block, words, t + v * LANES);
            y[v] = FN(key_words)(block + l->high_at, high_words, t + v * LANES);
        }
        vf total[MAX_HEADS][2];
        for (int h = 0; h < heads; h++) total[h][0] = total[h][1] = v_set(0);
        for (int g = 0; g < groups; g++) {
            vi acc[MAX_HEADS][2][4];
            for (int h = 0; h < heads; h++)
                for (int k = 0; k < sums; k++)
                    acc[h][0][k] = acc[h][1][k] =
                        v_seti(k == 0 && l->centred ? -q->sum[h][g] * (1 << (bits - 1)) : 0);
            const int begin = g * group_words, end = begin + group_words;
            for (int b = begin / turn; b * turn < end; b++) {
                vi high[2] = {v_seti(0), v_seti(0)};
                for (int v = 0; v < 2 && extra; v++)
                    high[v] = FN(load_ahead)(y[v] + b * KV_KEY_TILE, ahead);
#pragma GCC unroll 4
                for (int k = 0; k < turn; k++) {
                    int w = b * turn + k;
                    if (!whole && (w < begin || w >= end)) continue;
                    vi low[2] = {FN(load_ahead)(x[0] + w * KV_KEY_TILE, ahead),
                                 FN(load_ahead)(x[1] + w * KV_KEY_TILE, ahead)};
                    struct FN(opened) x0, x1;
                    x0 = FN(open)(low[0], high[0], k * per_half * extra, base, extra, scales);
                    x1 = FN(open)(low[1], high[1], k * per_half * extra, base, extra, scales);
#pragma GCC unroll 8
                    for (int u = 0; u < per_half; u++) {
                        vi c0 = FN(code)(&x0, u, width, scales);
                        vi c1 = FN(code)(&x1, u, width, scales);
                        const int i = TURN(u, per_half, extra), s = (k * per_half + u) % sums;
                        for (int h = 0; h < heads; h++) {
                            vi pair = v_seti(q->pair[BASE(base)][h][w * per_half + i]);
                            acc[h][0][s] = v_dot(acc[h][0][s], c0, pair);
                            acc[h][1][s] = v_dot(acc[h][1][s], c1, pair);
                        }
                    }
                }
            }
            for (int v = 0; v < 2; v++) {
                int at = g * KV_PAGE_TOKENS + t + v * LANES;
                vf s = v_halves(scale + at);
                v_prefetch((const uint8_t *)(scale + at) + ahead);
                if (l->has_min) v_prefetch((const uint8_t *)(min + at) + ahead);
                for (int h = 0; h < heads; h++) {
                    vi sum = acc[h][v][0];
                    for (int k = 1; k < sums; k++)
                        sum = v_add(sum, SCALE(k, width, scales) > 0
                                             ? v_sra(acc[h][v][k], SCALE(k, width, scales))
                                             : acc[h][v][k]);
                    total[h][v] = v_fma(v_float(sum), s, total[h][v]);
                    if (l->has_min)
                        total[h][v] =
                            v_fma(v_halves(min + at), v_set((float)q->sum[h][g]), total[h][v]);
                }
            }
        }
        for (int h = 0; h < heads; h++)
            for (int v = 0; v < 2; v++)
                v_storef(score[h] + t + v * LANES, v_mul(total[h][v], v_set(q->scale[h])));
    }
}

INLINE void FN(key_page_16)(const uint8_t *block, ptrdiff_t ahead, const float *query, int dim,
                            int heads, int n, float *const *score) {
    const int chains = REGISTERS / 12;
    for (int t = 0; t < n; t += 2 * LANES) {
        const uint16_t *x =
            (const uint16_t *)block + t / KV_KEY_TILE * dim * KV_KEY_TILE + t % KV_KEY_TILE;
        const uint16_t *y = x + (LANES < KV_KEY_TILE ? LANES : dim * KV_KEY_TILE);
        vf acc[MAX_HEADS][2][2];
        for (int h = 0; h < heads; h++)
            for (int k = 0; k < chains; k++) acc[h][0][k] = acc[h][1][k] = v_set(0);
#pragma GCC unroll 4
        for (int c = 0; c < dim; c++) {
            vf a = v_halves(x + c * KV_KEY_TILE), b = v_halves(y + c * KV_KEY_TILE);
            if (c % 2 == 0) {
                v_prefetch((const uint8_t *)(x + c * KV_KEY_TILE) + ahead);
                if (LANES == 16) v_prefetch((const uint8_t *)(y + c * KV_KEY_TILE) + ahead);
            }
            for (int h = 0; h < heads; h++) {
                vf with = v_set(query[h * dim + c]);
                acc[h][0][c % chains] = v_fma(a, with, acc[h][0][c % chains]);
                acc[h][1][c % chains] = v_fma(b, with, acc[h][1][c % chains]);
            }
        }
        for (int h = 0; h < heads; h++)
            for (int v = 0; v < 2; v++) {
                vf sum = acc[h][v][0];
                for (int k = 1; k < chains; k++) sum = v_addf(sum, acc[h][v][k]);
                v_storef(score[h] + t + v * LANES, sum);
            }
    }
}
