// SPDX-License-Identifier: Apache-2.0
// Weighted sums of a page of values; included by attend_simd.h, which says how codes meet factors.

// Sums of weight x value in the lane order of each low plane: [part][half][i] vectors a head, lanes
// are words of one or several tokens. Width 16: channels in their order.
struct FN(sums) {
    int dim, groups;
    bool used[3];
    float bias[MAX_HEADS][MAX_GROUPS][LANES]; // what all channels of a group share, in parts
    float lane[3][MAX_HEADS][2 * MAX_DIM], plain[MAX_HEADS][MAX_DIM];
};

INLINE void FN(sums_init)(struct FN(sums) * s, int heads, int dim, int groups) {
    s->dim = dim;
    s->groups = groups;
    memset(s->used, 0, sizeof s->used);
    for (int h = 0; h < heads; h++) {
        memset(s->bias[h], 0, (size_t)groups * sizeof s->bias[h][0]);
        memset(s->plain[h], 0, (size_t)dim * sizeof s->plain[h][0]);
    }
}

// How the words of a page's values fill vectors: several tokens to a vector where they are few, as
// many as divide half a page; else a token in parts, of which the last may end in lanes that hold
// the next token's words and count for nothing.
struct FN(fit) {
    int words, together, parts;
};
INLINE struct FN(fit) FN(fit_words)(int dim, int base) {
    struct FN(fit) f = {.words = dim * base / 32, .together = 1};
    while (2 * f.together * f.words <= LANES) f.together *= 2;
    f.parts = (f.words + LANES - 1) / LANES;
    return f;
}

// What lane k of a part reads by: its factor among those of the vector's tokens, its word of the
// high plane, and its place in that.
struct FN(lanes) {
    int32_t spread[LANES], pick[LANES], place[LANES];
};
struct FN(places) {
    uint32_t dim, groups, known; // of which ports, as bits
    struct FN(lanes) part[KV_PORT_WIDTHS][MAX_DIM * 8 / 32 / LANES];
};

// Those of a port, kept from page to page and from job to job.
static TARGET __attribute__((noinline)) const struct FN(lanes) *
    FN(lanes_of)(uint32_t dim, const struct kv_side_layout *l) {
    static _Thread_local struct FN(places) kept;
    if (kept.dim != dim || kept.groups != l->n_groups) {
        kept.dim = dim;
        kept.groups = l->n_groups;
        kept.known = 0;
    }
    struct FN(lanes) *part = kept.part[l->port];
    if (kept.known >> l->port & 1) return part;
    const struct FN(fit) f = FN(fit_words)((int)dim, l->plane[0]);
    const int groups = (int)l->n_groups, group_words = f.words / groups, extra = l->plane[1];
    const int ratio = extra ? l->plane[0] / extra : 1, per_half = 16 / l->plane[0];
    for (int p = 0; p < f.parts; p++)
        for (int k = 0; k < LANES; k++) {
            int token = k / f.words, w = f.together > 1 ? k % f.words : p * LANES + k;
            bool idle = f.together > 1 ? token >= f.together : w >= f.words;
            if (f.together == 1) token = 0;
            part[p].spread[k] =
                idle ? 0 : token * groups + w / group_words - p * LANES / group_words;
            part[p].pick[k] = idle ? 0 : token * (int)l->words[1] + w / ratio - p * LANES / ratio;
            part[p].place[k] = w % ratio * per_half * extra;
        }
    kept.known |= 1u << l->port;
    return part;
}

// A page's softmax weights times its scales as 15-bit integers, tokens t and t + 32 in one word.
struct FN(weights) {
    int32_t pair[MAX_HEADS][MAX_GROUPS * HALF + LANES]; // [HALF][groups]
    float factor[MAX_HEADS];
};

// [HALF][groups] of [groups][HALF]: what lies half of the rows apart is interleaved until their
// number is odd.
INLINE void FN(turn_groups)(int32_t *row, int groups, int32_t *out) {
    int32_t other[MAX_GROUPS * HALF], *to = other, *from = row;
    int n = groups, length = HALF;
    for (; n % 2 == 0; n /= 2, length *= 2) {
        if (n == 2) to = out;
        for (int p = 0; p < n / 2; p++)
            for (int t = 0; t < length; t += LANES)
                v_interleave(v_load(from + p * length + t), v_load(from + (p + n / 2) * length + t),
                             to + 2 * (p * length + t));
        int32_t *swap = from;
        from = to;
        to = swap;
    }
    for (int p = 0; p < n && n > 1; p++)
        for (int i = 0; i < length; i++) out[i * n + p] = from[p * length + i];
}

INLINE void FN(weigh)(const struct kv_side_layout *l, const uint8_t *block, int bits, int heads,
                      float *const *score, int groups, struct FN(weights) * w,
                      struct FN(sums) * sums) {
    const uint16_t *scale = (const uint16_t *)(block + l->scale_at);
    const uint16_t *min = (const uint16_t *)(block + l->min_at);
    float product[MAX_HEADS][MAX_GROUPS * KV_PAGE_TOKENS];
    vf top[MAX_HEADS], mins[MAX_HEADS];
    for (int h = 0; h < heads; h++) top[h] = v_set(0);
    for (int g = 0; g < groups; g++) {
        for (int h = 0; h < heads; h++) mins[h] = v_loadf(sums->bias[h][g]);
        for (int t = 0; t < KV_PAGE_TOKENS; t += LANES) {
            const int at = g * KV_PAGE_TOKENS + t;
            const vf s = v_halves(scale + at), m = l->has_min ? v_halves(min + at) : v_set(0);
            for (int h = 0; h < heads; h++) {
                vf p = v_loadf(score[h] + t), y = v_mul(p, s);
                v_storef(product[h] + at, y);
                top[h] = v_max(top[h], y);
                if (l->has_min) mins[h] = v_fma(p, m, mins[h]);
            }
        }
        for (int h = 0; h < heads; h++) v_storef(sums->bias[h][g], mins[h]);
    }
    for (int h = 0; h < heads; h++) {
        int32_t row[MAX_GROUPS * HALF], *both = groups == 1 ? w->pair[h] : row;
        float largest = v_top(top[h]), inverse = largest > 0 ? 32767.0f / largest : 0.0f;
        w->factor[h] = largest / 32767.0f;
        for (int g = 0; g < groups; g++) {
            vi sum = v_seti(0); // at most 64 x 32767 x 128: no overflow
            for (int t = 0; t < HALF; t += LANES) {
                const float *y = product[h] + g * KV_PAGE_TOKENS + t;
                vi a = v_int(v_mul(v_loadf(y), v_set(inverse)));
                vi b = v_int(v_mul(v_loadf(y + HALF), v_set(inverse)));
                if (l->centred) sum = v_add(sum, v_add(a, b));
                v_store(both + g * HALF + t, v_weave_low(a, b));
            }
            if (!l->centred) continue;
            const vf below = v_set(-w->factor[h] * (float)(1 << (bits - 1)));
            v_storef(sums->bias[h][g], v_fma(v_float(sum), below, v_loadf(sums->bias[h][g])));
        }
        if (groups > 1) FN(turn_groups)(row, groups, w->pair[h]);
    }
}

// What a part of the words of a page's values is read by.
struct FN(words) {
    const uint32_t *low, *high; // of token 0
    ptrdiff_t ahead;
    struct FN(fit) fit;
    const struct FN(lanes) * lanes;
    int groups, first; // groups of a token; the part's first one
};

// `some` of the codes of a word's two halves, counted by turns from `first` on, for all heads at
// once: as many as there are registers for their sums.
INLINE void FN(value_words)(const struct FN(words) * x, int base, int extra, int heads, int n,
                            int first, int some, const struct FN(weights) * w, float *const *lane) {
    const int per_half = 16 / base, words = x->fit.words, together = x->fit.together;
    const int ratio = extra ? base / extra : 1, high_words = (words + ratio - 1) / ratio;
    const int width = extra ? 2 * base : base, scales = SCALES(width, 4);
    const vi spread = v_load(x->lanes->spread);
    const vi pick = v_load(x->lanes->pick), place = v_load(x->lanes->place);
    vi acc[MAX_HEADS][16];
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < some; i++) acc[h][i] = v_seti(0);
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
            f[h] = v_permute(spread, v_load(w->pair[h] + t * x->groups + x->first));
        for (int side = first / per_half; side * per_half < first + some; side++) {
            vi both = side ? v_weave_high(low[0], low[1]) : v_weave_low(low[0], low[1]);
            vi more = side ? v_weave_high(high[0], high[1]) : v_weave_low(high[0], high[1]);
            struct FN(opened) o = FN(open)(both, more, 0, base, extra, scales);
            for (int u = 0; u < per_half; u++) {
                const int at = side * per_half + u - first;
                if (at < 0 || at >= some) continue;
                vi codes = FN(code)(&o, u, width, scales);
                for (int h = 0; h < heads; h++) acc[h][at] = v_dot(acc[h][at], codes, f[h]);
            }
        }
    }
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < some; i++) {
            const int side = (first + i) / per_half, u = (first + i) % per_half;
            const float scale = 1.0f / (float)(1 << SCALE(u, width, scales));
            float *out = lane[h] + (side * per_half + TURN(u, per_half, extra)) * LANES;
            v_storef(out, v_fma(v_float(acc[h][i]), v_set(w->factor[h] * scale), v_loadf(out)));
        }
}

INLINE void FN(value_page)(const struct kv_side_layout *l, const uint8_t *block, ptrdiff_t ahead,
                           int fixed, int base, int extra, int heads, int n, float *const *score,
                           struct FN(sums) * sums) {
    const int dim = fixed ? fixed : sums->dim, per_half = 16 / base;
    const int groups = !fixed ? (int)l->n_groups : l->n_groups == 2 ? 2 : 1;
    const struct FN(fit) fit = FN(fit_words)(dim, base);
    const struct FN(lanes) *lanes = FN(lanes_of)((uint32_t)dim, l);
    struct FN(weights) w;
    FN(weigh)(l, block, base + extra, heads, score, groups, &w, sums);
    if (!sums->used[BASE(base)]) {
        sums->used[BASE(base)] = true;
        for (int h = 0; h < heads; h++)
            memset(sums->lane[BASE(base)][h], 0,
                   (size_t)(fit.parts * LANES * 2 * per_half) * sizeof sums->lane[0][0][0]);
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
    for (int part = 0; part < fit.parts; part++) {
        struct FN(words) x = {.low = (const uint32_t *)block + part * LANES,
                              .high = (const uint32_t *)(block + l->high_at) +
                                      (extra ? part * LANES / (base / extra) : 0),
                              .ahead = ahead,
                              .fit = fit,
                              .lanes = lanes + part,
                              .groups = groups,
                              .first = part * LANES / (fit.words / groups)};
        float *lane[MAX_HEADS];
        for (int h = 0; h < heads; h++)
            lane[h] = sums->lane[BASE(base)][h] + part * 2 * per_half * LANES;
        const int all = 2 * per_half, some = heads * all <= REGISTERS       ? all
                                             : heads * all <= 2 * REGISTERS ? all / 2
                                                                            : all / 4;
        FN(value_words)(&x, base, extra, heads, n, 0, some, &w, lane);
        if (some < all) FN(value_words)(&x, base, extra, heads, n, some, some, &w, lane);
        if (2 * some == all || some == all) continue;
        FN(value_words)(&x, base, extra, heads, n, 2 * some, some, &w, lane);
        FN(value_words)(&x, base, extra, heads, n, 3 * some, some, &w, lane);
    }
}

// `vectors` vectors of channels from `first` on.
INLINE void FN(value_channels)(const uint8_t *block, ptrdiff_t ahead, int dim, int first,
                               int vectors, int heads, int n, float *const *score,
                               struct FN(sums) * sums) {
    const uint16_t *x = (const uint16_t *)block + first;
    vf acc[MAX_HEADS][4];
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < vectors; i++) acc[h][i] = v_loadf(sums->plain[h] + first + i * LANES);
    for (int t = 0; t < n; t++) {
        v_prefetch((const uint8_t *)(x + t * dim) + ahead);
        if (vectors * LANES > 32) v_prefetch((const uint8_t *)(x + t * dim) + 64 + ahead);
        for (int i = 0; i < vectors; i++) {
            vf v = v_halves(x + t * dim + i * LANES);
            for (int h = 0; h < heads; h++) acc[h][i] = v_fma(v, v_set(score[h][t]), acc[h][i]);
        }
    }
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < vectors; i++) v_storef(sums->plain[h] + first + i * LANES, acc[h][i]);
}

INLINE void FN(value_page_16)(const uint8_t *block, ptrdiff_t ahead, int fixed, int heads, int n,
                              float *const *score, struct FN(sums) * sums) {
    enum { VECTORS = 4 }; // at a time: 12 accumulators for three heads
    const int dim = fixed ? fixed : sums->dim;
    int first = 0;
    for (; first + VECTORS * LANES <= dim; first += VECTORS * LANES)
        FN(value_channels)(block, ahead, dim, first, VECTORS, heads, n, score, sums);
    for (; first < dim && !fixed; first += LANES)
        FN(value_channels)(block, ahead, dim, first, 1, heads, n, score, sums);
}

// The channels of head h.
INLINE void FN(unfold)(const struct FN(sums) * sums, int h, float *out) {
    const int width = sums->dim / sums->groups;
    for (int g = 0; g < sums->groups; g++) {
        float bias = v_total(v_loadf(sums->bias[h][g]));
        for (int c = g * width; c < (g + 1) * width; c++) out[c] = sums->plain[h][c] + bias;
    }
    for (int bits = 2; bits <= 8; bits *= 2) {
        const int codes = 32 / bits;
        const struct FN(fit) f = FN(fit_words)(sums->dim, bits);
        const float *lane = sums->lane[BASE(bits)][h];
        if (!sums->used[BASE(bits)]) continue;
        for (int part = 0; part < f.parts; part++)
            for (int i = 0; i < codes; i++, lane += LANES)
                for (int k = 0, w = 0; k < f.together * f.words && k < LANES; k++, w++) {
                    if (w == f.words) w = 0;
                    int word = part * LANES + w;
                    if (word < f.words) out[word * codes + i] += lane[k];
                }
    }
}
