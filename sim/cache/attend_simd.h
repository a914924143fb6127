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
        int16_t code[DIM];
        float largest = 0;
        for (int c = 0; c < DIM; c++) largest = fmaxf(largest, fabsf(query[c]));
        float inverse = largest > 0 ? 32767.0f / largest : 0.0f;
        q->scale[h] = largest / 32767.0f;
        q->sum[h] = 0;
        for (int c = 0; c < DIM; c++) {
            code[c] = (int16_t)lrintf(query[c] * inverse);
            q->sum[h] += code[c];
        }
        for (int p = 0; p < PAIRS; p++) {
            int low = p / per_half * 2 * per_half + p % per_half;
            q->pair[h][p] = (int32_t)((uint32_t)(uint16_t)code[low] |
                                      (uint32_t)(uint16_t)code[low + per_half] << 16);
        }
    }
}

// Scores of a page's 64 tokens for each head. `next` is the block to be read after this one.
INLINE void FN(key_page)(const struct kv_side_layout *l, const uint8_t *block, const uint8_t *next,
                         const struct FN(query) * q, int bits, int heads,
                         float score[][KV_PAGE_TOKENS]) {
    const int per_half = 16 / bits, words = DIM * bits / 32;
    const uint16_t *scale = (const uint16_t *)(block + l->scale_at);
    const uint16_t *min = (const uint16_t *)(block + l->min_at);
    const vi mask = v_seti((int)(((1u << bits) - 1) * 0x10001u));
    for (int t = 0; t < KV_PAGE_TOKENS; t += LANES) {
        const uint32_t *x = (const uint32_t *)block + t / KV_TILE * words * KV_TILE + t % KV_TILE;
        const uint8_t *ahead = next + (size_t)(t * words) * 4;
        vi acc[MAX_HEADS][2];
        for (int h = 0; h < heads; h++) {
            acc[h][0] = v_seti(l->centred ? -(q->sum[h] << (bits - 1)) : 0);
            acc[h][1] = v_seti(0);
        }
        for (int w = 0; w < words; w++) {
            vi v = v_load(x + w * KV_TILE);
            if (w % (16 / LANES) == 0) v_prefetch(ahead + w * LANES * 4);
            for (int i = 0; i < per_half; i++) {
                vi codes = v_and(v_srl(v, bits * i), mask);
                for (int h = 0; h < heads; h++)
                    acc[h][i & 1] =
                        v_dot(acc[h][i & 1], codes, v_seti(q->pair[h][w * per_half + i]));
            }
        }
        vf s = v_halves(scale + t);
        for (int h = 0; h < heads; h++) {
            vf y = v_mul(v_float(v_add(acc[h][0], acc[h][1])), s);
            if (l->has_min) y = v_fma(v_halves(min + t), v_set((float)q->sum[h]), y);
            v_storef(score[h] + t, v_mul(y, v_set(q->scale[h])));
        }
    }
}

INLINE void FN(key_page_16)(const uint8_t *block, const uint8_t *next, const float *query,
                            int heads, float score[][KV_PAGE_TOKENS]) {
    for (int t = 0; t < KV_PAGE_TOKENS; t += LANES) {
        const uint16_t *x = (const uint16_t *)block + t / KV_TILE * DIM * KV_TILE + t % KV_TILE;
        const uint8_t *ahead = next + (size_t)t * DIM * 2;
        vf acc[MAX_HEADS][2];
        for (int h = 0; h < heads; h++) acc[h][0] = acc[h][1] = v_set(0);
        for (int c = 0; c < DIM; c++) {
            vf k = v_halves(x + c * KV_TILE);
            if (c % (32 / LANES) == 0) v_prefetch(ahead + c * LANES * 2);
            for (int h = 0; h < heads; h++)
                acc[h][c & 1] = v_fma(k, v_set(query[h * DIM + c]), acc[h][c & 1]);
        }
        for (int h = 0; h < heads; h++) v_storef(score[h] + t, v_addf(acc[h][0], acc[h][1]));
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
    float bias[MAX_HEADS]; // what all channels of a head share
    float lane[MAX_HEADS][4 * DIM];
};

// One half (0 low, 1 high, or both when which = 2) of the value words, for all heads at once.
INLINE void FN(value_words)(const uint32_t *x, const uint8_t *next, int bits, int heads, int which,
                            int32_t weight[][HALF], float *const *lane, const float *factor,
                            const float *keep) {
    const int per_half = 16 / bits, words = DIM * bits / 32;
    const int together = words < LANES ? LANES / words : 1; // tokens of a vector
    const int n_acc = which == 2 ? 2 * per_half : per_half;
    const vi mask = v_seti((int)(((1u << bits) - 1) * 0x10001u));
    vi acc[MAX_HEADS][16];
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < n_acc; i++) acc[h][i] = v_seti(0);
    for (int t = 0; t < HALF; t += together) {
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
                           const uint8_t *next, int bits, int heads, float score[][KV_PAGE_TOKENS],
                           const float *keep, struct FN(sums) * sums) {
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
        vi sum = v_seti(0);
        for (int t = 0; t < HALF; t += LANES) {
            vi a = v_int(v_mul(v_loadf(w + t), v_set(inverse)));
            vi b = v_int(v_mul(v_loadf(w + t + HALF), v_set(inverse)));
            sum = v_add(sum, v_add(a, b));
            v_store(weight[h] + t, v_weave_low(a, b));
        }
        factor[h] = largest / 32767.0f;
        float shared = l->has_min ? v_total(mins) : 0.0f;
        if (l->centred) shared -= factor[h] * (float)(v_totali(sum) << (bits - 1));
        sums->bias[h] = sums->bias[h] * keep[h] + shared;
    }
    for (int part = 0; part < parts; part++) {
        const uint32_t *x = (const uint32_t *)block + part * LANES;
        float *lane[MAX_HEADS];
        for (int h = 0; h < heads; h++) lane[h] = sums->lane[h] + part * 2 * per_half * LANES;
        if (heads * 2 * per_half <= REGISTERS) {
            FN(value_words)(x, next + part * LANES * 4, bits, heads, 2, weight, lane, factor, keep);
            continue;
        }
        FN(value_words)(x, next + part * LANES * 4, bits, heads, 0, weight, lane, factor, keep);
        FN(value_words)(x, next + part * LANES * 4, bits, heads, 1, weight, lane, factor, keep);
    }
}

INLINE void FN(value_page_16)(const uint8_t *block, const uint8_t *next, int heads,
                              float score[][KV_PAGE_TOKENS], const float *keep,
                              struct FN(sums) * sums) {
    enum { VECTORS = 4 }; // at a time: 12 accumulators for three heads
    for (int first = 0; first < DIM; first += VECTORS * LANES) {
        const uint16_t *x = (const uint16_t *)block + first;
        vf acc[MAX_HEADS][VECTORS];
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < VECTORS; i++)
                acc[h][i] = v_mul(v_loadf(sums->lane[h] + first + i * LANES), v_set(keep[h]));
        for (int t = 0; t < KV_PAGE_TOKENS; t++) {
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
INLINE void FN(unfold)(const struct FN(sums) * sums, int bits, uint32_t heads, float *out) {
    const int per_half = 16 / bits, words = DIM * bits / 32;
    const int parts = words > LANES ? words / LANES : 1;
    for (uint32_t h = 0; h < heads; h++, out += DIM) {
        const float *lane = sums->lane[h];
        for (int c = 0; c < DIM; c++) out[c] += sums->bias[h] + (bits == 16 ? lane[c] : 0.0f);
        for (int part = 0; bits < 16 && part < parts; part++)
            for (int i = 0; i < 2 * per_half; i++)
                for (int k = 0; k < LANES; k++)
                    out[(part * LANES + k) % words * 2 * per_half + i] += *lane++;
    }
}

// One instance a width and number of heads, called once a page.
typedef void FN(key_fn)(const struct kv_side_layout *l, const uint8_t *block, const uint8_t *next,
                        const struct FN(query) * q, const float *query,
                        float score[][KV_PAGE_TOKENS]);
typedef void FN(value_fn)(const struct kv_side_layout *l, const uint8_t *block, const uint8_t *next,
                          float score[][KV_PAGE_TOKENS], const float *keep, struct FN(sums) * sums);
#define PAGE(bits, heads)                                                                          \
    static TARGET void FN(keys_##bits##_##heads)(                                                  \
        const struct kv_side_layout *l, const uint8_t *block, const uint8_t *next,                 \
        const struct FN(query) * q, const float *query, float score[][KV_PAGE_TOKENS]) {           \
        (void)query;                                                                               \
        FN(key_page)(l, block, next, q, bits, heads, score);                                       \
    }                                                                                              \
    static TARGET void FN(values_##bits##_##heads)(                                                \
        const struct kv_side_layout *l, const uint8_t *block, const uint8_t *next,                 \
        float score[][KV_PAGE_TOKENS], const float *keep, struct FN(sums) * sums) {                \
        FN(value_page)(l, block, next, bits, heads, score, keep, sums);                            \
    }
#define PAGE_16(heads)                                                                             \
    static TARGET void FN(keys_16_##heads)(const struct kv_side_layout *l, const uint8_t *block,   \
                                           const uint8_t *next, const struct FN(query) * q,        \
                                           const float *query, float score[][KV_PAGE_TOKENS]) {    \
        (void)l, (void)q;                                                                          \
        FN(key_page_16)(block, next, query, heads, score);                                         \
    }                                                                                              \
    static TARGET void FN(values_16_##heads)(const struct kv_side_layout *l, const uint8_t *block, \
                                             const uint8_t *next, float score[][KV_PAGE_TOKENS],   \
                                             const float *keep, struct FN(sums) * sums) {          \
        (void)l;                                                                                   \
        FN(value_page_16)(block, next, heads, score, keep, sums);                                  \
    }
PAGE(2, 1)
PAGE(2, 3)
PAGE(4, 1)
PAGE(4, 3)
PAGE(8, 1)
PAGE(8, 3)
PAGE_16(1)
PAGE_16(3)
#undef PAGE
#undef PAGE_16

static TARGET void FN(attend_heads)(const struct kv_attend_job *j, uint32_t first_head,
                                    uint32_t heads) {
    static FN(key_fn) *const key_fns[2][KV_PORT_WIDTHS] = {
        {FN(keys_2_1), FN(keys_4_1), FN(keys_8_1), FN(keys_16_1)},
        {FN(keys_2_3), FN(keys_4_3), FN(keys_8_3), FN(keys_16_3)}};
    static FN(value_fn) *const value_fns[2][KV_PORT_WIDTHS] = {
        {FN(values_2_1), FN(values_4_1), FN(values_8_1), FN(values_16_1)},
        {FN(values_2_3), FN(values_4_3), FN(values_8_3), FN(values_16_3)}};
    const struct kv_side_layout *kl = j->layout[KV_KEY], *vl = j->layout[KV_VALUE];
    FN(key_fn) *keys = key_fns[heads == 3][kl->port];
    FN(value_fn) *values = value_fns[heads == 3][vl->port];
    struct FN(query) q;
    struct FN(sums) sums = {0};
    const float *query = j->query + first_head * DIM;
    float *max = j->max + first_head, *sum = j->sum + first_head, *out = j->out + first_head * DIM;
    float keep_all[MAX_HEADS] = {1, 1, 1};
    if (kl->bits < 16) FN(query_init)(&q, (int)heads, query, kl->bits);
    for (uint32_t done = 0; done < j->n; done += KV_PAGE_TOKENS) {
        uint8_t *const *page = j->pages + done / KV_PAGE_TOKENS;
        uint32_t left = j->n - done, n = left < KV_PAGE_TOKENS ? left : KV_PAGE_TOKENS;
        const uint8_t *next = left > KV_PAGE_TOKENS ? page[1] : page[0];
        float score[MAX_HEADS][KV_PAGE_TOKENS], keep[MAX_HEADS];
        keys(kl, page[0] + j->at[KV_KEY], next + j->at[KV_KEY], &q, query, score);
        for (uint32_t h = 0; h < heads; h++) {
            keep[h] = FN(soften)(score[h], n, &max[h], &sum[h]);
            keep_all[h] *= keep[h];
        }
        values(vl, page[0] + j->at[KV_VALUE], next + j->at[KV_VALUE], score, keep, &sums);
    }
    for (uint32_t h = 0; h < heads; h++)
        for (int c = 0; c < DIM; c++) out[h * DIM + (uint32_t)c] *= keep_all[h];
    FN(unfold)(&sums, vl->bits, heads, out);
}

static TARGET void FN(attend_packed)(const struct kv_attend_job *j) {
    uint32_t h = 0;
    for (; h + 3 <= j->heads; h += 3) FN(attend_heads)(j, h, 3);
    for (; h < j->heads; h++) FN(attend_heads)(j, h, 1);
}
