// SPDX-License-Identifier: Apache-2.0
// Attention over packed pages with integer dot products; included by attend.isa.c per vector set.
//
// Queries and softmax weights become 15-bit integers with one float scale, so that a code meets its
// factor in one multiply-add of 16-bit pairs (vpmaddwd, vpdpwssd) and sums are exact: the only
// rounding is that of the factor, at most 2^-16 of the largest one. A 32-bit word x of b-bit codes
// holds in (x >> b i) & mask the codes i and i + 16/b, one in each half. Shifts are dear: where
// sums allow it the mask lies higher, and the sum is shifted back. High bits of a second plane are
// looked up by bytes and joined to several codes at once.
//   keys: a lane is a token, words of 16 tokens interleaved; the factor is the query's pair.
//   values: a lane is a word, so a pair must be two tokens: words of token t and t + 32 are woven
//   into one that holds the low halves and one that holds the high halves of both.
// Groups: a head has a scale for each, of at least 16 channels. Keys sum a group's words before
// they meet its scale; values carry a weight times scale for each group.
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

// Each 16-bit half twice.
#define v_both(x) v_seti((int)((x)*0x10001u))

// Words whose halves hold `width`-bit codes that a mask takes out. Where a word has a high plane,
// every other code gets its high bits in place of its neighbour: two words of twice the width.
struct FN(opened) {
    vi word[4];
};

// Codes that a mask takes out of one opened word's halves; they come times 2^(width x place).
#define SCALES(width, most) ((width) == 8 ? 1 : (width) == 4 ? 2 : (most))

// high: the high bits of the halves' codes, from bit `from` of these on.
INLINE struct FN(opened) FN(open)(vi low, vi high, int from, int base, int extra, int scales) {
    struct FN(opened) o;
    if (!extra) {
        for (int k = 0; k < 16 / (base * scales); k++)
            o.word[k] = k ? v_srl(low, k * base * scales) : low;
        return o;
    }
    // High bits of the codes of a byte, by what these are: of the even codes, of the odd ones.
    static const uint8_t table[3][2][16] = {{{0x00, 0x04, 0x00, 0x04, 0x40, 0x44, 0x40, 0x44, 0x00,
                                              0x04, 0x00, 0x04, 0x40, 0x44, 0x40, 0x44},
                                             {0x00, 0x00, 0x04, 0x04, 0x00, 0x00, 0x04, 0x04, 0x40,
                                              0x40, 0x44, 0x44, 0x40, 0x40, 0x44, 0x44}},
                                            {{0x00, 0x10, 0x00, 0x10}, {0x00, 0x00, 0x10, 0x10}},
                                            {{0x00, 0x10, 0x20, 0x30, 0x00, 0x10, 0x20, 0x30, 0x00,
                                              0x10, 0x20, 0x30, 0x00, 0x10, 0x20, 0x30},
                                             {0x00, 0x00, 0x00, 0x00, 0x10, 0x10, 0x10, 0x10, 0x20,
                                              0x20, 0x20, 0x20, 0x30, 0x30, 0x30, 0x30}}};
    const int in_byte = 8 / base * extra, back = from + in_byte - 8;
    const uint32_t one = (1u << in_byte) - 1, even = base == 2 ? 0x3333u : 0x0F0Fu;
    const uint8_t(*const t)[16] = table[base + extra == 3 ? 0 : base + extra - 4];
    vi next = back < 0 ? v_sll(high, -back & 31) : back ? v_srl(high, back & 31) : high;
    vi at = v_merge(v_both(one), from ? v_srl(high, from) : high, v_and(next, v_both(one << 8)));
    for (int odd = 0; odd < 2; odd++) {
        vi x = v_merge(v_both(even), odd ? v_srl(low, base) : low, v_look(v_table(t[odd]), at));
        if (base == 2) {
            o.word[2 * odd] = x;
            o.word[2 * odd + 1] = v_srl(x, 8);
        } else {
            o.word[odd] = x;
        }
    }
    return o;
}

// The code in turn u of each half, times 2^SCALE.
INLINE vi FN(code)(const struct FN(opened) * o, int u, int width, int scales) {
    if (width == 8)
        return u % 2 ? v_srl16(o->word[u / 2], 8) : v_and(o->word[u / 2], v_both(0xFFu));
    return v_and(o->word[u / scales], v_both(((1u << width) - 1) << width * (u % scales)));
}
#define SCALE(u, width, scales) ((u) % (scales) * (width))
// Which of a half's codes has turn u.
#define TURN(u, per_half, extra)                                                                   \
    ((extra) ? (u) % ((per_half) / 2) * 2 + (u) / ((per_half) / 2) : (u))

// Index of a low plane's width in what is kept for each.
#define BASE(bits) ((bits) == 2 ? 0 : (bits) == 4 ? 1 : 2)

#include "sim/cache/attend_keys_simd.h"
#include "sim/cache/attend_values_simd.h"

// One instance a width, number of heads, and dimension: the commonest one and any.
typedef void FN(key_fn)(const struct kv_side_layout *l, const uint8_t *block, ptrdiff_t ahead,
                        const struct FN(query) * q, int n, float *const *score);
typedef void FN(value_fn)(const struct kv_side_layout *l, const uint8_t *block, ptrdiff_t ahead,
                          int n, float *const *score, struct FN(sums) * sums);

#define PAGE(bits, base, heads, fixed)                                                             \
    static TARGET void FN(keys_##bits##_##heads##_##fixed)(                                        \
        const struct kv_side_layout *l, const uint8_t *block, ptrdiff_t ahead,                     \
        const struct FN(query) * q, int n, float *const *score) {                                  \
        FN(key_page)(l, block, ahead, q, fixed, base, bits - base, heads, n, score);               \
    }                                                                                              \
    static TARGET void FN(values_##bits##_##heads##_##fixed)(                                      \
        const struct kv_side_layout *l, const uint8_t *block, ptrdiff_t ahead, int n,              \
        float *const *score, struct FN(sums) * sums) {                                             \
        FN(value_page)(l, block, ahead, fixed, base, bits - base, heads, n, score, sums);          \
    }
#define PAGE_16(heads, fixed)                                                                      \
    static TARGET void FN(keys_16_##heads##_##fixed)(                                              \
        const struct kv_side_layout *l, const uint8_t *block, ptrdiff_t ahead,                     \
        const struct FN(query) * q, int n, float *const *score) {                                  \
        (void)l;                                                                                   \
        FN(key_page_16)(block, ahead, q->plain, fixed ? fixed : q->dim, heads, n, score);          \
    }                                                                                              \
    static TARGET void FN(values_16_##heads##_##fixed)(                                            \
        const struct kv_side_layout *l, const uint8_t *block, ptrdiff_t ahead, int n,              \
        float *const *score, struct FN(sums) * sums) {                                             \
        (void)l;                                                                                   \
        FN(value_page_16)(block, ahead, fixed, heads, n, score, sums);                             \
    }
#define HEADS(heads, fixed)                                                                        \
    PAGE(2, 2, heads, fixed)                                                                       \
    PAGE(3, 2, heads, fixed)                                                                       \
    PAGE(4, 4, heads, fixed)                                                                       \
    PAGE(5, 4, heads, fixed)                                                                       \
    PAGE(6, 4, heads, fixed)                                                                       \
    PAGE(8, 8, heads, fixed)                                                                       \
    PAGE_16(heads, fixed)
HEADS(1, 64)
HEADS(2, 64)
HEADS(3, 64)
HEADS(1, 0)
HEADS(2, 0)
HEADS(3, 0)
#undef PAGE
#undef PAGE_16
#undef HEADS

#define ROW(side, heads, fixed)                                                                    \
    {                                                                                              \
        FN(side##_2_##heads##_##fixed), FN(side##_3_##heads##_##fixed),                            \
            FN(side##_4_##heads##_##fixed), FN(side##_5_##heads##_##fixed),                        \
            FN(side##_6_##heads##_##fixed), FN(side##_8_##heads##_##fixed),                        \
            FN(side##_16_##heads##_##fixed)                                                        \
    }
#define ROWS(side)                                                                                 \
    {                                                                                              \
        {ROW(side, 1, 0), ROW(side, 2, 0), ROW(side, 3, 0)}, {                                     \
            ROW(side, 1, 64), ROW(side, 2, 64), ROW(side, 3, 64)                                   \
        }                                                                                          \
    }
static FN(key_fn) *const FN(key_fns)[2][MAX_HEADS][KV_PORT_WIDTHS] = ROWS(keys);
static FN(value_fn) *const FN(value_fns)[2][MAX_HEADS][KV_PORT_WIDTHS] = ROWS(values);
#undef ROW
#undef ROWS

// A page that holds tokens of a job.
struct FN(visit) {
    const uint8_t *block;
    const uint16_t *token; // of its slots
    uint16_t low;
    uint8_t port, slots;
    bool inside;   // all of its tokens are the job's
    bool straight; // and they fill it, one after the other
};

// One side of a job.
struct FN(side) {
    uint32_t n;
    struct FN(visit) * pages;
};

// The pages of one side, up to `room`. Wide cells come first: what is asked for ahead lies at the
// places of the page that is being read, and a narrower one has no others.
INLINE struct FN(side)
    FN(plan)(const struct kv_attend_job *j, int side, uint32_t room, struct FN(visit) * pages) {
    struct FN(side) s = {.pages = pages};
    for (uint32_t port = KV_PORT_WIDTHS; port-- > 0;) {
        const struct kv_cell_run *run = &j->span->runs[side][port];
        size_t at = KV_PAGE_HEAD + j->member * j->layouts[side][port].bytes;
        for (uint32_t p = 0; p * KV_PAGE_TOKENS < run->n && s.n < room; p++) {
            const struct kv_cell_page *page = &run->pages[p];
            if (page->high < j->first || page->low >= j->end) continue;
            uint32_t left = run->n - p * KV_PAGE_TOKENS;
            bool inside = page->low >= j->first && page->high < j->end;
            pages[s.n++] = (struct FN(visit)){
                .block = page->data + at,
                .token = (const uint16_t *)page->data,
                .low = page->low,
                .port = (uint8_t)port,
                .slots = (uint8_t)(left < KV_PAGE_TOKENS ? left : KV_PAGE_TOKENS),
                .inside = inside,
                .straight = inside && page->consecutive && left >= KV_PAGE_TOKENS};
        }
    }
    return s;
}

// Asks for a page of values, into the second-level cache.
INLINE void FN(want_page)(const struct kv_attend_job *j, const struct FN(visit) * v) {
    const uint8_t *end = v->block + j->layouts[KV_VALUE][v->port].bytes;
    for (const uint8_t *p = v->block; p < end; p += 64) v_prefetch_far(p);
}

// Asks for the tokens of a page where they will be read.
INLINE void FN(want_tokens)(const struct FN(visit) * v) {
    if (v->straight) return;
    v_prefetch(v->token);
    v_prefetch(v->token + KV_PAGE_TOKENS / 2);
}

// Softmax of a row: scores of tokens [first, end) become weights. What follows them, up to a
// vector, is overwritten. Memory would rest meanwhile: the first pages of values are asked for,
// into the second-level cache, at about the pace at which it answers.
INLINE void FN(soften)(const struct kv_attend_job *j, const struct FN(side) * values, float *row,
                       float *max, float *sum, float *weighted) {
    vf top = v_set(-INFINITY), total = v_set(0), mean = v_set(0);
    for (uint32_t t = j->end; t < j->end + LANES; t++) row[t] = -INFINITY;
    for (uint32_t t = j->first; t < j->end; t += LANES) top = v_max(top, v_loadf(row + t));
    vf largest = v_set(v_top(top));
    uint32_t wanted = 0;
    for (uint32_t t = j->first; t < j->end; t += LANES) {
        if ((t - j->first) % SOON_TOKENS == 0 && wanted < values->n)
            FN(want_page)(j, &values->pages[wanted++]);
        vf below = v_max(v_sub(v_loadf(row + t), largest), v_set(-87.0f));
        vf p = FN(v_exp)(below);
        v_storef(row + t, p);
        total = v_addf(total, p);
        mean = v_fma(p, below, mean);
    }
    *max = v_top(top);
    *sum = v_total(total);
    *weighted = v_total(mean);
}

// Scores of a page's slots go to their tokens' places.
INLINE void FN(scatter)(const struct FN(visit) * v, uint32_t heads, float (*page)[KV_PAGE_TOKENS],
                        float (*rows)[ROW_ROOM]) {
#pragma GCC unroll 4
    for (uint32_t t = 0; t < v->slots; t++) {
        const uint32_t token = v->token[t];
        for (uint32_t h = 0; h < heads; h++) rows[h][token] = page[h][t];
    }
}

// Weights of a page's slots come from their tokens' places; 0 for slots that hold none of the job.
INLINE void FN(gather)(const struct kv_attend_job *j, const struct FN(visit) * v, uint32_t heads,
                       float (*rows)[ROW_ROOM], float (*page)[KV_PAGE_TOKENS]) {
    if (v->inside)
#pragma GCC unroll 4
        for (uint32_t t = 0; t < v->slots; t++) {
            const uint32_t token = v->token[t];
            for (uint32_t h = 0; h < heads; h++) page[h][t] = rows[h][token];
        }
    else
        for (uint32_t t = 0; t < v->slots; t++) {
            const bool ours = v->token[t] - j->first < j->end - j->first;
            for (uint32_t h = 0; h < heads; h++) page[h][t] = ours ? rows[h][v->token[t]] : 0;
        }
    for (uint32_t t = v->slots; t < KV_PAGE_TOKENS; t++)
        for (uint32_t h = 0; h < heads; h++) page[h][t] = 0;
}

// Up to ALL_HEADS heads over each page in turn, batch by batch: the first one of a page brings it
// into the first-level cache.
static TARGET void FN(attend_heads)(const struct kv_attend_job *j, const struct FN(side) * keys,
                                    const struct FN(side) * values, uint32_t first_head,
                                    uint32_t heads) {
    // Each head's scores, then its weights, by token of the span. Rooms of threads are carved out
    // of their stacks.
    static _Thread_local float rows[ALL_HEADS][ROW_ROOM];
    const int dim = (int)j->dim, groups = (int)j->layouts[0][0].n_groups;
    const bool fixed = dim == 64 && groups <= 2;
    float max[ALL_HEADS], sum[ALL_HEADS], weighted[ALL_HEADS];
    float page[MAX_HEADS][KV_PAGE_TOKENS], *at[MAX_HEADS];
    struct FN(query) q[MAX_BATCHES];
    struct FN(sums) sums[MAX_BATCHES];
    const uint32_t n = (heads + MAX_HEADS - 1) / MAX_HEADS;
    uint32_t begin[MAX_BATCHES + 1]; // heads of a batch: as even as can be
    for (uint32_t b = 0; b <= n; b++) begin[b] = heads * b / n;
    for (uint32_t b = 0; b < n; b++) FN(query_init)
    (&q[b], (int)(begin[b + 1] - begin[b]), j->query + (first_head + begin[b]) * j->dim, dim,
     groups);
    for (uint32_t i = 0; i < keys->n; i++) {
        const struct FN(visit) *v = &keys->pages[i];
        FN(want_tokens)(&v[AHEAD]);
        for (uint32_t b = 0; b < n; b++) {
            const uint32_t size = begin[b + 1] - begin[b];
            for (uint32_t h = 0; h < size; h++)
                at[h] = v->straight ? rows[begin[b] + h] + v->low : page[h];
            FN(key_fns)
            [fixed][size - 1][v->port](&j->layouts[KV_KEY][v->port], v->block,
                                       v[AHEAD].block - v->block, &q[b], (int)v->slots, at);
            if (v->straight) continue;
            if (size == 1) FN(scatter)(v, 1, page, rows + begin[b]);
            if (size == 2) FN(scatter)(v, 2, page, rows + begin[b]);
            if (size == 3) FN(scatter)(v, 3, page, rows + begin[b]);
        }
    }
    for (uint32_t h = 0; h < heads; h++) {
        if (j->oldest) j->oldest[first_head + h] = rows[h][0];
        FN(soften)(j, values, rows[h], &max[h], &sum[h], &weighted[h]);
    }
    for (uint32_t b = 0; b < n; b++)
        FN(sums_init)(&sums[b], (int)(begin[b + 1] - begin[b]), dim, groups);
    for (uint32_t i = 0; i < values->n; i++) {
        const struct FN(visit) *v = &values->pages[i];
        FN(want_tokens)(&v[AHEAD]);
        for (uint32_t b = 0; b < n; b++) {
            const uint32_t size = begin[b + 1] - begin[b];
            for (uint32_t h = 0; h < size; h++)
                at[h] = v->straight ? rows[begin[b] + h] + v->low : page[h];
            if (!v->straight && size == 1) FN(gather)(j, v, 1, rows + begin[b], page);
            if (!v->straight && size == 2) FN(gather)(j, v, 2, rows + begin[b], page);
            if (!v->straight && size == 3) FN(gather)(j, v, 3, rows + begin[b], page);
            FN(value_fns)
            [fixed][size - 1][v->port](&j->layouts[KV_VALUE][v->port], v->block,
                                       v[AHEAD].block - v->block, (int)v->slots, at, &sums[b]);
        }
    }
    for (uint32_t b = 0; b < n; b++)
        for (uint32_t h = begin[b]; h < begin[b + 1]; h++) {
            float out[MAX_DIM];
            FN(unfold)(&sums[b], (int)(h - begin[b]), out);
            kv_attend_join(j, first_head + h, max[h], sum[h], weighted[h], out);
        }
}

// Asks for the lists of pages that the next plan reads.
INLINE void FN(want_plan)(const struct kv_attend_job *j) {
    for (int i = 0; i < 2 * KV_PORT_WIDTHS; i++) {
        const struct kv_cell_run *run = &j->span->runs[i / KV_PORT_WIDTHS][i % KV_PORT_WIDTHS];
        const char *end =
            (const char *)(run->pages + (run->n + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS);
        for (const char *p = (const char *)run->pages; p < end; p += 64) v_prefetch(p);
    }
}

static TARGET void FN(attend_packed)(const struct kv_attend_job *j) {
    struct FN(visit) v[2 * PAGES_ROOM + AHEAD];
    const struct FN(side) keys = FN(plan)(j, KV_KEY, PAGES_ROOM, v);
    const struct FN(side) values = FN(plan)(j, KV_VALUE, PAGES_ROOM, v + keys.n);
    struct FN(side) next = {0};
    struct FN(visit) *end = v + keys.n + values.n;
    if (j->next) next = FN(plan)(j->next, KV_KEY, AHEAD, end);
    for (uint32_t i = next.n; i < AHEAD; i++) end[i] = end[(int)i - 1];
    if (j->next) FN(want_plan)(j->next);
    for (uint32_t h = 0; h < j->heads; h += ALL_HEADS)
        FN(attend_heads)(j, &keys, &values, h, j->heads - h < ALL_HEADS ? j->heads - h : ALL_HEADS);
}

#undef v_both
#undef SCALES
#undef SCALE
#undef TURN
#undef BASE
