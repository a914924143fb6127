// SPDX-License-Identifier: Apache-2.0
// Attention over packed pages with integer dot products; included by attend.isa.c per vector set.
//
// Queries and softmax weights become 15-bit integers with one float scale, so that a code meets its
// factor in one multiply-add of 16-bit pairs (vpmaddwd, vpdpwssd) and sums are exact: the only
// rounding is that of the factor, at most 2^-16 of the largest one. A 32-bit word x of b-bit codes
// holds in (x >> b i) & mask the codes i and i + 16/b, one in each half; where a code has a high
// plane, its bits are joined to these before they meet the factor, at two operations more.
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

// Codes at place `shift` of a low word's halves, with the high bits from place `from` of theirs.
#define v_codes(low, shift, high, from, base, extra)                                               \
    ((extra) ? v_and(v_join(v_seti((int)(((1u << (base)) - 1) * 0x10001u)), v_srl(low, shift),     \
                            (from) < (base) ? v_sll(high, ((base) - (from)) & 31)                  \
                                            : v_srl(high, ((from) - (base)) & 31)),                \
                     v_seti((int)(((1u << ((base) + (extra))) - 1) * 0x10001u)))                   \
             : v_and(v_srl(low, shift), v_seti((int)(((1u << (base)) - 1) * 0x10001u))))

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

// A page that holds tokens of a job. Its scores or weights are kept from place `at` on; pages of
// one width lie together, with a page's room after them.
struct FN(visit) {
    const uint8_t *block;
    const uint16_t *token; // of its slots
    uint32_t at;
    uint8_t port, slots;
    bool ends; // with a token of the job
};

// One side of a job.
struct FN(side) {
    uint32_t n, n_ports, end; // pages; widths that have any; first place after all
    uint32_t first[KV_PORT_WIDTHS + 1], ports[KV_PORT_WIDTHS]; // page of a width; the widths
    bool in_order;
    struct FN(visit) * pages;
};

// The pages of one side, up to `room`. Wide cells come first: what is asked for ahead lies at the
// places of the page that is being read, and a narrower one has no others.
INLINE void FN(plan)(const struct kv_attend_job *j, int side, uint32_t room,
                     struct FN(visit) * pages, struct FN(side) * s) {
    *s = (struct FN(side)){.in_order = true, .pages = pages};
    for (uint32_t port = KV_PORT_WIDTHS; port-- > 0;) {
        const struct kv_cell_run *run = &j->span->runs[side][port];
        size_t at = KV_PAGE_HEAD + j->member * j->layouts[side][port].bytes;
        uint32_t before = s->n;
        for (uint32_t p = 0; p * KV_PAGE_TOKENS < run->n && s->n < room; p++) {
            const struct kv_cell_page *page = &run->pages[p];
            if (page->high < j->first || page->low >= j->end) continue;
            uint32_t left = run->n - p * KV_PAGE_TOKENS;
            pages[s->n++] = (struct FN(visit)){
                .block = page->data + at,
                .token = (const uint16_t *)page->data,
                .at = s->end,
                .port = (uint8_t)port,
                .slots = (uint8_t)(left < KV_PAGE_TOKENS ? left : KV_PAGE_TOKENS),
                .ends = page->high < j->end};
            s->end += KV_PAGE_TOKENS;
        }
        if (s->n == before) continue;
        s->in_order &= run->in_order;
        s->end += KV_PAGE_TOKENS;
        s->first[s->n_ports] = before;
        s->ports[s->n_ports++] = port;
        s->first[s->n_ports] = s->n;
    }
}

// Asks for a page of values, into the second-level cache.
INLINE void FN(want_page)(const struct kv_attend_job *j, const struct FN(visit) * v) {
    const uint8_t *end = v->block + j->layouts[KV_VALUE][v->port].bytes;
    for (const uint8_t *p = v->block; p < end; p += 64) v_prefetch_far(p);
}

// Scores of tokens that lie side by side.
struct FN(stretch) {
    float *at;
    uint32_t n;
};

// Where the job's cells of each width in order lie among places: those of tokens before and after
// it are left out. at: widths that are not there point to room that nobody reads; stretches: as in
// s->ports, or NULL.
INLINE void FN(bounds)(const struct kv_attend_job *j, const struct FN(side) * s, float *by_page,
                       float **at, struct FN(stretch) * stretches) {
    for (uint32_t p = 0; p < KV_PORT_WIDTHS; p++) at[p] = by_page + s->end;
    for (uint32_t i = 0; i < s->n_ports; i++) {
        const struct FN(visit) *first = &s->pages[s->first[i]];
        const struct FN(visit) *last = &s->pages[s->first[i + 1] - 1];
        uint32_t before = 0, slots = last->slots;
        while (j->first && first->token[before] < j->first) before++;
        at[s->ports[i]] = by_page + first->at + before;
        if (!stretches) continue;
        while (!last->ends && slots && last->token[slots - 1] >= j->end) slots--;
        stretches[i].at = at[s->ports[i]];
        stretches[i].n = last->at + slots - (first->at + before);
    }
}

// Softmax of a row: scores become weights, in whatever order they lie. What follows a stretch, up
// to a vector, is overwritten. Memory would rest meanwhile: the first pages of values are asked
// for, into the second-level cache, at about the pace at which it answers.
INLINE void FN(soften)(const struct kv_attend_job *j, const struct FN(side) * values,
                       const struct FN(stretch) * stretches, uint32_t n_stretches, float *max,
                       float *sum, float *weighted) {
    vf top = v_set(-INFINITY), total = v_set(0), mean = v_set(0);
    for (uint32_t i = 0; i < n_stretches; i++) {
        float *score = stretches[i].at;
        uint32_t n = stretches[i].n;
        for (uint32_t t = n; t < n + LANES; t++) score[t] = -INFINITY;
        for (uint32_t t = 0; t < n; t += LANES) top = v_max(top, v_loadf(score + t));
    }
    vf largest = v_set(v_top(top));
    uint32_t done = 0;
    for (uint32_t i = 0; i < n_stretches; i++) {
        float *score = stretches[i].at;
        for (uint32_t t = 0; t < stretches[i].n; t += LANES, done++) {
            if (done % (SOON_TOKENS / LANES) == 0 && done / (SOON_TOKENS / LANES) < values->n)
                FN(want_page)(j, &values->pages[done / (SOON_TOKENS / LANES)]);
            vf below = v_max(v_sub(v_loadf(score + t), largest), v_set(-87.0f));
            vf p = FN(v_exp)(below);
            v_storef(score + t, p);
            total = v_addf(total, p);
            mean = v_fma(p, below, mean);
        }
    }
    *max = v_top(top);
    *sum = v_total(total);
    *weighted = v_total(mean);
}

// Weights by page of values (in `by_value`) from scores by page of keys (in `by_key`), where both
// sides are in order: the softmax runs over the scores as they lie.
INLINE void FN(soften_in_order)(const struct kv_attend_job *j, const struct FN(side) * keys,
                                const struct FN(side) * values, float *by_key, float *by_value,
                                float *oldest, float *max, float *sum, float *weighted) {
    struct FN(stretch) stretches[KV_PORT_WIDTHS];
    float *from[KV_PORT_WIDTHS], *to[KV_PORT_WIDTHS];
    const uint8_t *tag = j->tag + j->first;
    FN(bounds)(j, keys, by_key, from, stretches);
    *oldest = *from[kv_tag_port(*tag, KV_KEY)];
    FN(soften)(j, values, stretches, keys->n_ports, max, sum, weighted);
    FN(bounds)(j, values, by_value, to, NULL);
    for (uint32_t i = 0; i < values->n_ports; i++) { // whole pages between are written
        memset(by_value + values->pages[values->first[i]].at, 0, KV_PAGE_TOKENS * sizeof(float));
        memset(by_value + values->pages[values->first[i + 1] - 1].at, 0,
               KV_PAGE_TOKENS * sizeof(float));
    }
    uint32_t n = j->end - j->first;
    if (keys->n_ports == 1 && values->n_ports == 1)
        memcpy(to[values->ports[0]], from[keys->ports[0]], n * sizeof **to);
    else
        v_shuffle(tag, n, from, to,
                  keys->ports[0] == KV_PORT_WIDTHS - 1 || values->ports[0] == KV_PORT_WIDTHS - 1);
}

// The same by way of a row by token, through the pages' lists of tokens; by_value may be by_key.
INLINE void FN(soften_by_token)(const struct kv_attend_job *j, const struct FN(side) * keys,
                                const struct FN(side) * values, const float *by_key, float *row,
                                float *by_value, float *oldest, float *max, float *sum,
                                float *weighted) {
    uint32_t n = j->end - j->first;
    for (uint32_t i = 0; i < keys->n; i++)
        for (uint32_t t = 0; t < keys->pages[i].slots; t++) {
            uint32_t token = keys->pages[i].token[t] - j->first; // those before the first wrap
            if (token < n) row[token] = by_key[keys->pages[i].at + t];
        }
    *oldest = row[0];
    FN(soften)(j, values, &(struct FN(stretch)){row, n}, 1, max, sum, weighted);
    for (uint32_t i = 0; i < values->n; i++)
        for (uint32_t t = 0; t < KV_PAGE_TOKENS; t++) {
            uint32_t token = t < values->pages[i].slots ? values->pages[i].token[t] - j->first : n;
            by_value[values->pages[i].at + t] = token < n ? row[token] : 0;
        }
}

// Up to ALL_HEADS heads over each page in turn, batch by batch: the first one of a page brings it
// into the first-level cache.
static TARGET void FN(attend_heads)(const struct kv_attend_job *j, const struct FN(side) * keys,
                                    const struct FN(side) * values, uint32_t first_head,
                                    uint32_t heads) {
    // Head h's scores lie in room h + 1, its weights in room h: the scores that lay there are
    // weights by then. Rooms of threads are carved out of their stacks.
    static _Thread_local float room[ALL_HEADS + 1][PLACES_ROOM], row[ROW_ROOM];
    float(*const by_key)[PLACES_ROOM] = room + 1, (*const by_value)[PLACES_ROOM] = room;
    const bool in_order = keys->in_order && values->in_order;
    const int dim = (int)j->dim, groups = (int)j->layouts[0][0].n_groups;
    const bool fixed = dim == 64 && groups <= 2;
    float max[ALL_HEADS], sum[ALL_HEADS], weighted[ALL_HEADS], *at[MAX_HEADS];
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
        v_prefetch(j->tag + j->first + i * KV_PAGE_TOKENS);
        for (uint32_t b = 0; b < n; b++) {
            const uint32_t size = begin[b + 1] - begin[b];
            for (uint32_t h = 0; h < size; h++) at[h] = by_key[begin[b] + h] + v->at;
            FN(key_fns)
            [fixed][size - 1][v->port](&j->layouts[KV_KEY][v->port], v->block,
                                       v[AHEAD].block - v->block, &q[b], (int)v->slots, at);
        }
    }
    for (uint32_t h = 0; h < heads; h++) {
        float oldest;
        if (in_order) FN(soften_in_order)
        (j, keys, values, by_key[h], by_value[h], &oldest, &max[h], &sum[h], &weighted[h]);
        else FN(soften_by_token)(j, keys, values, by_key[h], row, by_value[h], &oldest, &max[h],
                                 &sum[h], &weighted[h]);
        if (j->oldest) j->oldest[first_head + h] = oldest;
    }
    for (uint32_t b = 0; b < n; b++)
        FN(sums_init)(&sums[b], (int)(begin[b + 1] - begin[b]), dim, groups);
    for (uint32_t i = 0; i < values->n; i++) {
        const struct FN(visit) *v = &values->pages[i];
        for (uint32_t b = 0; b < n; b++) {
            const uint32_t size = begin[b + 1] - begin[b];
            for (uint32_t h = 0; h < size; h++) at[h] = by_value[begin[b] + h] + v->at;
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
    struct FN(side) keys, values, next = {0};
    FN(plan)(j, KV_KEY, PAGES_ROOM, v, &keys);
    FN(plan)(j, KV_VALUE, PAGES_ROOM, v + keys.n, &values);
    struct FN(visit) *end = v + keys.n + values.n;
    if (j->next) FN(plan)(j->next, KV_KEY, AHEAD, end, &next);
    for (uint32_t i = next.n; i < AHEAD; i++) end[i] = end[(int)i - 1];
    if (j->next) FN(want_plan)(j->next);
    for (uint32_t h = 0; h < j->heads; h += ALL_HEADS)
        FN(attend_heads)(j, &keys, &values, h, j->heads - h < ALL_HEADS ? j->heads - h : ALL_HEADS);
}

#undef v_codes
#undef BASE
