// SPDX-License-Identifier: Apache-2.0
// Attention over packed pages with integer dot products; included by attend.isa.c per vector set.
//
// Queries and softmax weights become 15-bit integers with one float scale, so that a code meets its
// factor in one multiply-add of 16-bit pairs (vpmaddwd, vpdpwssd) and sums are exact: the only
// rounding is that of the factor, at most 2^-16 of the largest one. A 32-bit word x of b-bit codes
// holds in (x >> b i) & mask the codes i and i + 16/b, one in each half.
//   keys: a lane is a token, words of 16 tokens interleaved; the factor is the query's pair.
//   values: a lane is a word, so a pair must be two tokens: words of token t and t + 32 are woven
//   into one that holds the low halves and one that holds the high halves of both.
//
// Needs: LANES, vi, vf, and the small operations below with the prefix v_; FN(name) names a
// function, TARGET is its attribute.

#define INLINE static inline __attribute__((always_inline)) TARGET

// exp(x) for x <= 0 by range reduction to 2^n exp(r), |r| <= ln(2)/2, and the Taylor polynomial of
// degree 6; relative error below 2e-7, 0 below -87.
INLINE vf FN(v_exp)(vf x) {
    x = v_max(x, v_set(-87.0f));
    vf n = v_round(v_mul(x, v_set(1.44269504f)));
    vf r = v_fma(n, v_set(-0.693359375f), x);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    vf y = v_set(1.0f / 720);
    y = v_fma(y, r, v_set(1.0f / 120));
    y = v_fma(y, r, v_set(1.0f / 24));
    y = v_fma(y, r, v_set(1.0f / 6));
    y = v_fma(y, r, v_set(0.5f));
    y = v_fma(y, r, v_set(1.0f));
    y = v_fma(y, r, v_set(1.0f));
    return v_scale2(y, n);
}

// The query of `heads` heads as 16-bit integers, in the pair order of a width.
struct FN(query) {
    float scale[MAX_HEADS];
    int32_t sum[MAX_HEADS]; // of the integers
    int32_t pair[MAX_HEADS][PAIRS];
};

INLINE void FN(query_init)(struct FN(query) * q, int heads, const float *query, int bits) {
    int per_half = 16 / bits;
    for (int h = 0; h < heads; h++, query += DIM) {
        int32_t code[DIM];
        vf low = v_set(0), high = v_set(0);
        for (int c = 0; c < DIM; c += LANES) {
            vf x = v_loadf(query + c);
            high = v_max(high, x);
            low = v_max(low, v_sub(v_set(0), x));
        }
        float largest = v_top(v_max(low, high));
        float inverse = largest > 0 ? 32767.0f / largest : 0.0f;
        vi sum = v_seti(0);
        q->scale[h] = largest / 32767.0f;
        for (int c = 0; c < DIM; c += LANES) {
            vi x = v_int(v_mul(v_loadf(query + c), v_set(inverse)));
            v_store(code + c, x);
            sum = v_add(sum, x);
        }
        q->sum[h] = v_totali(sum);
        for (int p = 0; p < PAIRS; p++) {
            int low_code = p / per_half * 2 * per_half + p % per_half;
            q->pair[h][p] = (int32_t)((uint32_t)code[low_code] & 0xFFFF) |
                            (int32_t)((uint32_t)code[low_code + per_half] << 16);
        }
    }
}

// Words of the tokens from t on: LANES of them side by side, the next word KV_KEY_TILE further.
INLINE const uint32_t *FN(key_words)(const uint8_t *block, int words, int t) {
    return (const uint32_t *)block + t / KV_KEY_TILE * words * KV_KEY_TILE + t % KV_KEY_TILE;
}

// Scores of a page's first n tokens (and some after them) for each head. `next` is the block to be
// read after this one.
INLINE void FN(key_page)(const struct kv_side_layout *l, const uint8_t *block, const uint8_t *next,
                         const struct FN(query) * q, int bits, int heads, int n,
                         float score[][KV_PAGE_TOKENS]) {
    const int per_half = 16 / bits, words = DIM * bits / 32;
    const uint16_t *scale = (const uint16_t *)(block + l->scale_at);
    const uint16_t *min = (const uint16_t *)(block + l->min_at);
    const vi mask = v_seti((int)(((1u << bits) - 1) * 0x10001u));
    // Two vectors of tokens share each pair of the query; chains keep sums independent.
    const int chains = heads == 1 ? REGISTERS / 6 : REGISTERS / 12;
    for (int t = 0; t < n; t += 2 * LANES) {
        const uint32_t *x[2] = {FN(key_words)(block, words, t),
                                FN(key_words)(block, words, t + LANES)};
        const uint8_t *ahead = next + (size_t)(t * words) * 4;
        vi acc[MAX_HEADS][2][4];
        for (int h = 0; h < heads; h++)
            for (int k = 0; k < chains; k++)
                acc[h][0][k] = acc[h][1][k] =
                    v_seti(k == 0 && l->centred ? -q->sum[h] * (1 << (bits - 1)) : 0);
        for (int w = 0; w < words; w++) {
            vi a = v_load(x[0] + w * KV_KEY_TILE), b = v_load(x[1] + w * KV_KEY_TILE);
            v_prefetch(ahead + w * LANES * 8);
            if (LANES == 16) v_prefetch(ahead + w * LANES * 8 + 64);
            for (int i = 0; i < per_half; i++) {
                vi low = v_and(v_srl(a, bits * i), mask), high = v_and(v_srl(b, bits * i), mask);
                int k = (w * per_half + i) % chains;
                for (int h = 0; h < heads; h++) {
                    vi pair = v_seti(q->pair[h][w * per_half + i]);
                    acc[h][0][k] = v_dot(acc[h][0][k], low, pair);
                    acc[h][1][k] = v_dot(acc[h][1][k], high, pair);
                }
            }
        }
        for (int v = 0; v < 2; v++) {
            int at = t + v * LANES;
            vf s = v_halves(scale + at);
            for (int h = 0; h < heads; h++) {
                vi sum = acc[h][v][0];
                for (int k = 1; k < chains; k++) sum = v_add(sum, acc[h][v][k]);
                vf y = v_mul(v_float(sum), s);
                if (l->has_min) y = v_fma(v_halves(min + at), v_set((float)q->sum[h]), y);
                v_storef(score[h] + at, v_mul(y, v_set(q->scale[h])));
            }
        }
    }
}

INLINE void FN(key_page_16)(const uint8_t *block, const uint8_t *next, const float *query,
                            int heads, int n, float score[][KV_PAGE_TOKENS]) {
    const int chains = REGISTERS / 12;
    for (int t = 0; t < n; t += 2 * LANES) {
        const uint16_t *x =
            (const uint16_t *)block + t / KV_KEY_TILE * DIM * KV_KEY_TILE + t % KV_KEY_TILE;
        const uint16_t *y = x + (LANES < KV_KEY_TILE ? LANES : DIM * KV_KEY_TILE);
        const uint8_t *ahead = next + (size_t)t * DIM * 2;
        vf acc[MAX_HEADS][2][2];
        for (int h = 0; h < heads; h++)
            for (int k = 0; k < chains; k++) acc[h][0][k] = acc[h][1][k] = v_set(0);
        for (int c = 0; c < DIM; c++) {
            vf a = v_halves(x + c * KV_KEY_TILE), b = v_halves(y + c * KV_KEY_TILE);
            if (c % (16 / LANES) == 0) v_prefetch(ahead + c * LANES * 4);
            for (int h = 0; h < heads; h++) {
                vf with = v_set(query[h * DIM + c]);
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

// Softmax of a page: raises max, turns scores into weights, returns the factor for what was summed.
INLINE float FN(soften)(float *score, uint32_t n, float *max, float *sum) {
    for (uint32_t t = n; t < KV_PAGE_TOKENS; t++) score[t] = -INFINITY;
    vf top = v_set(*max);
    for (int t = 0; t < KV_PAGE_TOKENS; t += LANES) top = v_max(top, v_loadf(score + t));
    float largest = v_top(top), keep = *max == largest ? 1.0f : expf(*max - largest);
    vf total = v_set(0);
    for (int t = 0; t < KV_PAGE_TOKENS; t += LANES) {
        vf p = FN(v_exp)(v_sub(v_loadf(score + t), v_set(largest)));
        v_storef(score + t, p);
        total = v_addf(total, p);
    }
    for (uint32_t t = n; t < KV_PAGE_TOKENS; t++) score[t] = 0;
    *max = largest;
    *sum = *sum * keep + v_total(total);
    return keep;
}

// Sums of weight x value in the lane order of a width: [part][half][i] vectors a head, lanes are
// words of one or several tokens. Width 16: channels in their order.
struct FN(sums) {
    float bias[MAX_HEADS][LANES]; // what all channels of a head share, in parts
    float lane[MAX_HEADS][4 * DIM];
};

// One half (0 low, 1 high, or both when which = 2) of the value words, for all heads at once.
INLINE void FN(value_words)(const uint32_t *x, const uint8_t *next, int bits, int heads, int n,
                            int which, int32_t weight[][HALF], float *const *lane,
                            const float *factor, const float *keep) {
    const int per_half = 16 / bits, words = DIM * bits / 32;
    const int together = words < LANES ? LANES / words : 1; // tokens of a vector
    const int n_acc = which == 2 ? 2 * per_half : per_half;
    const vi mask = v_seti((int)(((1u << bits) - 1) * 0x10001u));
    vi acc[MAX_HEADS][16];
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < n_acc; i++) acc[h][i] = v_seti(0);
    const int end = n < HALF ? n : HALF; // weights beyond n are 0
    for (int t = 0; t < end; t += together) {
        vi a = v_load(x + t * words), b = v_load(x + (t + HALF) * words), f[MAX_HEADS];
        v_prefetch(next + (size_t)(t * words) * 4);
        v_prefetch(next + (size_t)((t + HALF) * words) * 4);
        for (int h = 0; h < heads; h++) f[h] = v_spread(weight[h] + t, together);
        for (int side = which == 1; side <= (which != 0); side++) {
            vi both = side ? v_weave_high(a, b) : v_weave_low(a, b);
            int first = which == 2 ? side * per_half : 0;
            for (int i = 0; i < per_half; i++) {
                vi codes = v_and(v_srl(both, bits * i), mask);
                for (int h = 0; h < heads; h++)
                    acc[h][first + i] = v_dot(acc[h][first + i], codes, f[h]);
            }
        }
    }
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < n_acc; i++) {
            float *out = lane[h] + ((which == 1) * per_half + i) * LANES;
            vf old = v_mul(v_loadf(out), v_set(keep[h]));
            v_storef(out, v_fma(v_float(acc[h][i]), v_set(factor[h]), old));
        }
}

INLINE void FN(value_page)(const struct kv_side_layout *l, const uint8_t *block,
                           const uint8_t *next, int bits, int heads, int n,
                           float score[][KV_PAGE_TOKENS], const float *keep,
                           struct FN(sums) * sums) {
    const int per_half = 16 / bits, words = DIM * bits / 32;
    const int parts = words > LANES ? words / LANES : 1;
    const uint16_t *scale = (const uint16_t *)(block + l->scale_at);
    const uint16_t *min = (const uint16_t *)(block + l->min_at);
    int32_t weight[MAX_HEADS][HALF];
    float factor[MAX_HEADS];
    for (int h = 0; h < heads; h++) {
        float w[KV_PAGE_TOKENS];
        vf top = v_set(0), mins = v_set(0);
        for (int t = 0; t < KV_PAGE_TOKENS; t += LANES) {
            vf p = v_loadf(score[h] + t), y = v_mul(p, v_halves(scale + t));
            v_storef(w + t, y);
            top = v_max(top, y);
            if (l->has_min) mins = v_fma(p, v_halves(min + t), mins);
        }
        float largest = v_top(top), inverse = largest > 0 ? 32767.0f / largest : 0.0f;
        vi sum = v_seti(0); // at most 64 x 32767 x 128: no overflow
        for (int t = 0; t < HALF; t += LANES) {
            vi a = v_int(v_mul(v_loadf(w + t), v_set(inverse)));
            vi b = v_int(v_mul(v_loadf(w + t + HALF), v_set(inverse)));
            sum = v_add(sum, v_add(a, b));
            v_store(weight[h] + t, v_weave_low(a, b));
        }
        factor[h] = largest / 32767.0f;
        if (l->centred)
            mins = v_fma(v_float(sum), v_set(-factor[h] * (float)(1 << (bits - 1))), mins);
        v_storef(sums->bias[h], v_fma(v_loadf(sums->bias[h]), v_set(keep[h]), mins));
    }
    for (int part = 0; part < parts; part++) {
        const uint32_t *x = (const uint32_t *)block + part * LANES;
        float *lane[MAX_HEADS];
        for (int h = 0; h < heads; h++) lane[h] = sums->lane[h] + part * 2 * per_half * LANES;
        if (heads * 2 * per_half <= REGISTERS) {
            FN(value_words)
            (x, next + part * LANES * 4, bits, heads, n, 2, weight, lane, factor, keep);
            continue;
        }
        FN(value_words)(x, next + part * LANES * 4, bits, heads, n, 0, weight, lane, factor, keep);
        FN(value_words)(x, next + part * LANES * 4, bits, heads, n, 1, weight, lane, factor, keep);
    }
}

INLINE void FN(value_page_16)(const uint8_t *block, const uint8_t *next, int heads, int n,
                              float score[][KV_PAGE_TOKENS], const float *keep,
                              struct FN(sums) * sums) {
    enum { VECTORS = 4 }; // at a time: 12 accumulators for three heads
    for (int first = 0; first < DIM; first += VECTORS * LANES) {
        const uint16_t *x = (const uint16_t *)block + first;
        vf acc[MAX_HEADS][VECTORS];
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < VECTORS; i++)
                acc[h][i] = v_mul(v_loadf(sums->lane[h] + first + i * LANES), v_set(keep[h]));
        for (int t = 0; t < n; t++) {
            v_prefetch(next + (size_t)(t * DIM + first) * 2);
            if (LANES == 16) v_prefetch(next + (size_t)(t * DIM + first) * 2 + 64);
            for (int i = 0; i < VECTORS; i++) {
                vf v = v_halves(x + t * DIM + i * LANES);
                for (int h = 0; h < heads; h++) acc[h][i] = v_fma(v, v_set(score[h][t]), acc[h][i]);
            }
        }
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < VECTORS; i++)
                v_storef(sums->lane[h] + first + i * LANES, acc[h][i]);
    }
}

// Adds the lanes of a width to the channels they belong to.
INLINE void FN(unfold)(const struct FN(sums) * sums, int bits, int heads, float *out) {
    const int per_half = 16 / bits, words = DIM * bits / 32;
    const int parts = words > LANES ? words / LANES : 1;
    for (int h = 0; h < heads; h++, out += DIM) {
        const float *lane = sums->lane[h];
        float bias = v_total(v_loadf(sums->bias[h]));
        for (int c = 0; c < DIM; c++) out[c] += bias;
        for (int part = 0; part < parts; part++)
            for (int i = 0; i < 2 * per_half; i++)
                for (int k = 0; k < LANES; k++)
                    out[(part * LANES + k) % words * 2 * per_half + i] += *lane++;
    }
}

// One instance a width and number of heads. Keys and values are called once a page, the others once
// a run of pages.
typedef void FN(key_fn)(const struct kv_side_layout *l, const uint8_t *block, const uint8_t *next,
                        const struct FN(query) * q, const float *query, int n,
                        float score[][KV_PAGE_TOKENS]);
typedef void FN(value_fn)(const struct kv_side_layout *l, const uint8_t *block, const uint8_t *next,
                          int n, float score[][KV_PAGE_TOKENS], const float *keep,
                          struct FN(sums) * sums);
typedef void FN(query_fn)(struct FN(query) * q, int heads, const float *query);
typedef void FN(unfold_fn)(const struct FN(sums) * sums, int heads, float *out);

#define PAGE(bits, heads)                                                                          \
    static TARGET void FN(keys_##bits##_##heads)(                                                  \
        const struct kv_side_layout *l, const uint8_t *block, const uint8_t *next,                 \
        const struct FN(query) * q, const float *query, int n, float score[][KV_PAGE_TOKENS]) {    \
        (void)query;                                                                               \
        FN(key_page)(l, block, next, q, bits, heads, n, score);                                    \
    }                                                                                              \
    static TARGET void FN(values_##bits##_##heads)(                                                \
        const struct kv_side_layout *l, const uint8_t *block, const uint8_t *next, int n,          \
        float score[][KV_PAGE_TOKENS], const float *keep, struct FN(sums) * sums) {                \
        FN(value_page)(l, block, next, bits, heads, n, score, keep, sums);                         \
    }
#define PAGE_16(heads)                                                                             \
    static TARGET void FN(keys_16_##heads)(                                                        \
        const struct kv_side_layout *l, const uint8_t *block, const uint8_t *next,                 \
        const struct FN(query) * q, const float *query, int n, float score[][KV_PAGE_TOKENS]) {    \
        (void)l, (void)q;                                                                          \
        FN(key_page_16)(block, next, query, heads, n, score);                                      \
    }                                                                                              \
    static TARGET void FN(values_16_##heads)(                                                      \
        const struct kv_side_layout *l, const uint8_t *block, const uint8_t *next, int n,          \
        float score[][KV_PAGE_TOKENS], const float *keep, struct FN(sums) * sums) {                \
        (void)l;                                                                                   \
        FN(value_page_16)(block, next, heads, n, score, keep, sums);                               \
    }
#define WIDTH(bits)                                                                                \
    PAGE(bits, 1)                                                                                  \
    PAGE(bits, 3)                                                                                  \
    static TARGET void FN(query_##bits)(struct FN(query) * q, int heads, const float *query) {     \
        FN(query_init)(q, heads, query, bits);                                                     \
    }                                                                                              \
    static TARGET void FN(unfold_##bits)(const struct FN(sums) * sums, int heads, float *out) {    \
        FN(unfold)(sums, bits, heads, out);                                                        \
    }
WIDTH(2)
WIDTH(4)
WIDTH(8)
PAGE_16(1)
PAGE_16(3)
static TARGET void FN(query_16)(struct FN(query) * q, int heads, const float *query) {
    (void)q, (void)heads, (void)query; // fp16 keys meet the query as it is
}
static TARGET void FN(unfold_16)(const struct FN(sums) * sums, int heads, float *out) {
    for (int h = 0; h < heads; h++)
        for (int c = 0; c < DIM; c++) out[h * DIM + c] += sums->lane[h][c];
}
#undef PAGE
#undef PAGE_16
#undef WIDTH

static TARGET void FN(attend_heads)(const struct kv_attend_job *j, uint32_t first_head,
                                    uint32_t heads) {
    static FN(key_fn) *const key_fns[2][KV_PORT_WIDTHS] = {
        {FN(keys_2_1), FN(keys_4_1), FN(keys_8_1), FN(keys_16_1)},
        {FN(keys_2_3), FN(keys_4_3), FN(keys_8_3), FN(keys_16_3)}};
    static FN(value_fn) *const value_fns[2][KV_PORT_WIDTHS] = {
        {FN(values_2_1), FN(values_4_1), FN(values_8_1), FN(values_16_1)},
        {FN(values_2_3), FN(values_4_3), FN(values_8_3), FN(values_16_3)}};
    const struct kv_side_layout *kl = j->layout[KV_KEY], *vl = j->layout[KV_VALUE];
    static FN(query_fn) *const query_fns[] = {FN(query_2), FN(query_4), FN(query_8), FN(query_16)};
    static FN(unfold_fn) *const unfold_fns[] = {FN(unfold_2), FN(unfold_4), FN(unfold_8),
                                                FN(unfold_16)};
    FN(key_fn) *keys = key_fns[heads == 3][kl->port];
    FN(value_fn) *values = value_fns[heads == 3][vl->port];
    struct FN(query) q;
    struct FN(sums) sums;
    memset(sums.bias, 0, sizeof sums.bias);
    for (uint32_t h = 0; h < heads; h++)
        memset(sums.lane[h], 0, (vl->bits == 2 ? 4 * DIM : 2 * DIM) * sizeof(float));
    const float *query = j->query + first_head * DIM;
    float *max = j->max + first_head, *sum = j->sum + first_head, *out = j->out + first_head * DIM;
    float keep_all[MAX_HEADS] = {1, 1, 1};
    query_fns[kl->port](&q, (int)heads, query);
    for (uint32_t done = 0; done < j->n; done += KV_PAGE_TOKENS) {
        uint8_t *const *page = j->pages + done / KV_PAGE_TOKENS;
        uint32_t left = j->n - done, n = left < KV_PAGE_TOKENS ? left : KV_PAGE_TOKENS;
        const uint8_t *next = left > KV_PAGE_TOKENS ? page[1] : page[0];
        float score[MAX_HEADS][KV_PAGE_TOKENS], keep[MAX_HEADS];
        keys(kl, page[0] + j->at[KV_KEY], next + j->at[KV_KEY], &q, query, (int)n, score);
        for (uint32_t h = 0; h < heads; h++) {
            keep[h] = FN(soften)(score[h], n, &max[h], &sum[h]);
            keep_all[h] *= keep[h];
        }
        values(vl, page[0] + j->at[KV_VALUE], next + j->at[KV_VALUE], (int)n, score, keep, &sums);
    }
    for (uint32_t h = 0; h < heads; h++)
        for (int c = 0; c < DIM; c++) out[h * DIM + (uint32_t)c] *= keep_all[h];
    unfold_fns[vl->port](&sums, (int)heads, out);
}

static TARGET void FN(attend_packed)(const struct kv_attend_job *j) {
    uint32_t h = 0;
    for (; h + 3 <= j->heads; h += 3) FN(attend_heads)(j, h, 3);
    for (; h < j->heads; h++) FN(attend_heads)(j, h, 1);
}
