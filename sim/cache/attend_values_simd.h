// SPDX-License-Identifier: Apache-2.0
// Weighted sums of a page of values; included by attend_simd.h, which says how codes meet factors.

// Sums of weight x value in the lane order of each low plane: [part][half][i] vectors a head, lanes
// are words of one or several tokens. Width 16: channels in their order.
struct FN(sums) {
    bool used[3];
    float bias[MAX_HEADS][2][LANES]; // what all channels of a group share, in parts
    float lane[3][MAX_HEADS][4 * DIM], plain[MAX_HEADS][DIM];
};

INLINE void FN(sums_init)(struct FN(sums) * s, int heads) {
    memset(s->used, 0, sizeof s->used);
    for (int h = 0; h < heads; h++) {
        memset(s->bias[h], 0, sizeof s->bias[h]);
        memset(s->plain[h], 0, sizeof s->plain[h]);
    }
}

// A page's softmax weights times its scales as 15-bit integers, tokens t and t + 32 in one word.
struct FN(weights) {
    int32_t pair[MAX_HEADS][2 * HALF + LANES]; // [HALF][groups]
    float factor[MAX_HEADS];
};

INLINE void FN(weigh)(const struct kv_side_layout *l, const uint8_t *block, int bits, int heads,
                      float *const *score, struct FN(weights) * w, struct FN(sums) * sums) {
    const uint16_t *scale = (const uint16_t *)(block + l->scale_at);
    const uint16_t *min = (const uint16_t *)(block + l->min_at);
    const int groups = (int)l->n_groups;
    for (int h = 0; h < heads; h++) {
        float product[2 * KV_PAGE_TOKENS];
        vf top = v_set(0), mins[2] = {v_set(0), v_set(0)};
        for (int g = 0; g < groups; g++)
            for (int t = 0; t < KV_PAGE_TOKENS; t += LANES) {
                int at = g * KV_PAGE_TOKENS + t;
                vf p = v_loadf(score[h] + t), y = v_mul(p, v_halves(scale + at));
                v_storef(product + at, y);
                top = v_max(top, y);
                if (l->has_min) mins[g] = v_fma(p, v_halves(min + at), mins[g]);
            }
        float largest = v_top(top), inverse = largest > 0 ? 32767.0f / largest : 0.0f;
        vi sum[2] = {v_seti(0), v_seti(0)}; // at most 64 x 32767 x 128: no overflow
        for (int t = 0; t < HALF; t += LANES) {
            vi both[2] = {v_seti(0), v_seti(0)};
            for (int g = 0; g < groups; g++) {
                const float *y = product + g * KV_PAGE_TOKENS + t;
                vi a = v_int(v_mul(v_loadf(y), v_set(inverse)));
                vi b = v_int(v_mul(v_loadf(y + HALF), v_set(inverse)));
                sum[g] = v_add(sum[g], v_add(a, b));
                both[g] = v_weave_low(a, b);
            }
            if (groups == 2)
                v_interleave(both[0], both[1], w->pair[h] + 2 * t);
            else
                v_store(w->pair[h] + t, both[0]);
        }
        w->factor[h] = largest / 32767.0f;
        for (int g = 0; g < groups; g++) {
            vf bias = v_addf(v_loadf(sums->bias[h][g]), mins[g]);
            if (l->centred)
                bias =
                    v_fma(v_float(sum[g]), v_set(-w->factor[h] * (float)(1 << (bits - 1))), bias);
            v_storef(sums->bias[h][g], bias);
        }
    }
}

// What a part of the words of a page's values is read by.
struct FN(words) {
    const uint32_t *low, *high; // of token 0
    ptrdiff_t ahead;
    vi spread; // lane -> factor among those of a vector's tokens
    int groups;
};

// One half (0 low, 1 high, or both when which = 2) of the value words, for all heads at once.
INLINE void FN(value_words)(const struct FN(words) * x, int base, int extra, int heads, int n,
                            int which, const struct FN(weights) * w, float *const *lane) {
    const int per_half = 16 / base, words = DIM * base / 32;
    const int together = words < LANES ? LANES / words : 1; // tokens of a vector
    const int n_acc = which == 2 ? 2 * per_half : per_half;
    const int ratio = extra ? base / extra : 1, high_words = words / ratio;
    // Lane k's high bits: word k / ratio of the vector's tokens, from (k mod ratio) per_half extra.
    const vi pick = v_srl(v_iota(), ratio == 4 ? 2 : 1);
    const vi place = v_sll(v_and(v_iota(), v_seti(ratio - 1)), per_half * extra == 8 ? 3 : 2);
    vi acc[MAX_HEADS][16];
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < n_acc; i++) acc[h][i] = v_seti(0);
    const int end = n < HALF ? n : HALF; // weights beyond n are 0
    for (int t = 0; t < end; t += together) {
        vi low[2], high[2] = {v_seti(0), v_seti(0)}, f[MAX_HEADS];
        for (int k = 0; k < 2; k++) {
            low[k] = FN(load_ahead)(x->low + (t + k * HALF) * words, x->ahead);
            if (extra)
                high[k] =
                    v_srlv(v_permute(pick, FN(load_ahead)(x->high + (t + k * HALF) * high_words,
                                                          x->ahead)),
                           place);
        }
        for (int h = 0; h < heads; h++)
            f[h] = v_permute(x->spread, v_load(w->pair[h] + t * x->groups));
        for (int side = which == 1; side <= (which != 0); side++) {
            vi both = side ? v_weave_high(low[0], low[1]) : v_weave_low(low[0], low[1]);
            vi more = side ? v_weave_high(high[0], high[1]) : v_weave_low(high[0], high[1]);
            int first = which == 2 ? side * per_half : 0;
            for (int i = 0; i < per_half; i++) {
                vi codes = v_codes(both, base * i, more, extra * i, base, extra);
                for (int h = 0; h < heads; h++)
                    acc[h][first + i] = v_dot(acc[h][first + i], codes, f[h]);
            }
        }
    }
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < n_acc; i++) {
            float *out = lane[h] + ((which == 1) * per_half + i) * LANES;
            v_storef(out, v_fma(v_float(acc[h][i]), v_set(w->factor[h]), v_loadf(out)));
        }
}

INLINE void FN(value_page)(const struct kv_side_layout *l, const uint8_t *block, ptrdiff_t ahead,
                           int base, int extra, int heads, int n, float *const *score,
                           struct FN(sums) * sums) {
    const int per_half = 16 / base, words = DIM * base / 32;
    const int parts = words > LANES ? words / LANES : 1, groups = (int)l->n_groups;
    const int log_words = base == 2 ? 2 : base == 4 ? 3 : 4;
    struct FN(weights) w;
    FN(weigh)(l, block, base + extra, heads, score, &w, sums);
    if (!sums->used[BASE(base)]) {
        sums->used[BASE(base)] = true;
        for (int h = 0; h < heads; h++)
            memset(sums->lane[BASE(base)][h], 0, sizeof sums->lane[0][0]);
    }
    for (int g = 0; g < groups; g++) {
        const uint8_t *at = block + l->scale_at + g * 2 * KV_PAGE_TOKENS + ahead;
        v_prefetch(at);
        v_prefetch(at + 64);
        if (l->has_min) {
            v_prefetch(at + (l->min_at - l->scale_at));
            v_prefetch(at + (l->min_at - l->scale_at) + 64);
        }
    }
    for (int part = 0; part < parts; part++) {
        vi word = v_add(v_iota(), v_seti(part * LANES)); // counted over a vector's tokens
        vi spread = v_srl(word, groups == 2 ? log_words - 1 : log_words);
        struct FN(words) x = {(const uint32_t *)block + part * LANES,
                              (const uint32_t *)(block + l->high_at), ahead, spread, groups};
        float *lane[MAX_HEADS];
        for (int h = 0; h < heads; h++)
            lane[h] = sums->lane[BASE(base)][h] + part * 2 * per_half * LANES;
        if (heads * 2 * per_half <= REGISTERS) {
            FN(value_words)(&x, base, extra, heads, n, 2, &w, lane);
            continue;
        }
        FN(value_words)(&x, base, extra, heads, n, 0, &w, lane);
        FN(value_words)(&x, base, extra, heads, n, 1, &w, lane);
    }
}

INLINE void FN(value_page_16)(const uint8_t *block, ptrdiff_t ahead, int heads, int n,
                              float *const *score, struct FN(sums) * sums) {
    enum { VECTORS = 4 }; // at a time: 12 accumulators for three heads
    for (int first = 0; first < DIM; first += VECTORS * LANES) {
        const uint16_t *x = (const uint16_t *)block + first;
        vf acc[MAX_HEADS][VECTORS];
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < VECTORS; i++)
                acc[h][i] = v_loadf(sums->plain[h] + first + i * LANES);
        for (int t = 0; t < n; t++) {
            v_prefetch((const uint8_t *)(x + t * DIM) + ahead);
            if (LANES == 16) v_prefetch((const uint8_t *)(x + t * DIM) + 64 + ahead);
            for (int i = 0; i < VECTORS; i++) {
                vf v = v_halves(x + t * DIM + i * LANES);
                for (int h = 0; h < heads; h++) acc[h][i] = v_fma(v, v_set(score[h][t]), acc[h][i]);
            }
        }
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < VECTORS; i++)
                v_storef(sums->plain[h] + first + i * LANES, acc[h][i]);
    }
}

// The channels of head h.
INLINE void FN(unfold)(const struct FN(sums) * sums, int h, uint32_t groups, float *out) {
    float bias[2] = {v_total(v_loadf(sums->bias[h][0])), v_total(v_loadf(sums->bias[h][1]))};
    for (int c = 0; c < DIM; c++)
        out[c] = sums->plain[h][c] + bias[groups == 2 ? c / (DIM / 2) : 0];
    for (int bits = 2; bits <= 8; bits *= 2) {
        const int per_half = 16 / bits, words = DIM * bits / 32;
        const int parts = words > LANES ? words / LANES : 1;
        const float *lane = sums->lane[BASE(bits)][h];
        if (!sums->used[BASE(bits)]) continue;
        for (int part = 0; part < parts; part++)
            for (int i = 0; i < 2 * per_half; i++)
                for (int k = 0; k < LANES; k++)
                    out[(part * LANES + k) % words * 2 * per_half + i] += *lane++;
    }
}
