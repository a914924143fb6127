// SPDX-License-Identifier: Apache-2.0
// The inner loops of the forward pass on the compiler's vectors, built once per CPU level.
#include "sim/base/isa.h"
#include "sim/model/kernels.h"

#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, WIDE = 64 };
#elif defined(__AVX2__)
enum { LANES = 8, WIDE = 32 };
#else
enum { LANES = 4, WIDE = 16 };
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef uint32_t uvec __attribute__((vector_size(LANES * 4))); // wraps, where a NaN makes it

static inline vec load(const float *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void store(float *p, vec v) {
    memcpy(p, &v, sizeof v);
}
static inline vec all(float x) {
    return x - (vec){0};
}
static inline vec select(ivec mask, vec a, vec b) {
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}
static inline vec vmax(vec a, vec b) {
    return select(a > b, a, b);
}
static inline float sum_lanes(vec v) {
    float s = 0;
    for (int i = 0; i < LANES; i++) s += v[i];
    return s;
}
static inline float max_lanes(vec v) {
    float m = v[0];
    for (int i = 1; i < LANES; i++) m = v[i] > m ? v[i] : m;
    return m;
}

// exp to 2 units in the last place: x = n ln 2 + r with |r| <= ln 2 / 2 and a degree-6 Taylor-like
// polynomial (coefficients 1/k!, whose remainder r^7/7! is below 1.3e-7 of the result). Below -87
// it gives 0.
static inline vec vexp(vec x) {
    const vec magic = all(12582912.0f); // 1.5 * 2^23: adding it rounds to an integer
    vec clamped = select(x > all(88.0f), all(88.0f), x);
    vec n = clamped * all(1.44269504088896341f) + magic;
    uvec exponent = (uvec)n - (uvec)magic;
    n -= magic;
    vec r = clamped - n * all(0.693145751953125f); // ln 2 in two parts, the first exact in few bits
    r -= n * all(1.42860682030941723e-6f);
    vec p = all(1.0f / 720.0f);
    p = p * r + all(1.0f / 120.0f);
    p = p * r + all(1.0f / 24.0f);
    p = p * r + all(1.0f / 6.0f);
    p = p * r + all(0.5f);
    p = p * r + all(1.0f);
    p = p * r + all(1.0f);
    vec y = (vec)((uvec)p + (exponent << 23));
    return select(x < all(-87.0f), (vec){0}, y);
}

// c[g][0..W) (+)= sum over k of a[g * lda + k] b[k * ldb ..], W floats wide, for G rows that share
// b.
#define PANEL(G, W)                                                                                \
    static inline void panel_##G##_##W(size_t nk, const float *a, size_t lda, const float *b,      \
                                       size_t ldb, float *c, size_t ldc, int add) {                \
        enum { NV = (W) / LANES > 0 ? (W) / LANES : 1 };                                           \
        vec acc[G][NV];                                                                            \
        for (int g = 0; g < (G); g++)                                                              \
            for (int j = 0; j < NV; j++)                                                           \
                acc[g][j] = add ? load(c + (size_t)g * ldc + j * LANES) : (vec){0};                \
        for (size_t k = 0; k < nk; k++) {                                                          \
            vec bk[NV];                                                                            \
            for (int j = 0; j < NV; j++) bk[j] = load(b + k * ldb + j * LANES);                    \
            for (int g = 0; g < (G); g++) {                                                        \
                vec ag = all(a[(size_t)g * lda + k]);                                              \
                for (int j = 0; j < NV; j++) acc[g][j] += ag * bk[j];                              \
            }                                                                                      \
        }                                                                                          \
        for (int g = 0; g < (G); g++)                                                              \
            for (int j = 0; j < NV; j++) store(c + (size_t)g * ldc + j * LANES, acc[g][j]);        \
    }
PANEL(1, 64)
PANEL(2, 64)
PANEL(3, 64)
PANEL(1, 32)
PANEL(2, 32)
PANEL(3, 32)
PANEL(1, 16)
PANEL(2, 16)
PANEL(3, 16)

// c[n_rows][0..width) over width a multiple of 16, in the widest panels that registers hold.
static void panels(size_t n_rows, size_t width, size_t nk, const float *a, size_t lda,
                   const float *b, size_t ldb, float *c, size_t ldc, int add) {
    for (size_t j = 0; j < width;) {
        size_t w = width - j >= WIDE ? WIDE : 16;
        for (size_t g = 0; g < n_rows;) {
            size_t rows = n_rows - g >= 3 ? 3 : n_rows - g;
            const float *ag = a + g * lda, *bj = b + j;
            float *cg = c + g * ldc + j;
#define CASE(G, W)                                                                                 \
    if (rows == (G) && w == (W)) panel_##G##_##W(nk, ag, lda, bj, ldb, cg, ldc, add)
            CASE(3, 64);
            CASE(2, 64);
            CASE(1, 64);
            CASE(3, 32);
            CASE(2, 32);
            CASE(1, 32);
            CASE(3, 16);
            CASE(2, 16);
            CASE(1, 16);
#undef CASE
            g += rows;
        }
        j += w;
    }
}

// A vocabulary's worth of small terms is lost when added to one float: each block is added in
// floats, the blocks in double.
enum { BLOCK = 1024 };

static void max_sum_exp(const float *x, size_t n, float *max, float *sum) {
    vec m = all(-INFINITY);
    size_t whole = n / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) m = vmax(m, load(x + i));
    float top = max_lanes(m), last[LANES];
    for (size_t i = whole; i < n; i++) top = x[i] > top ? x[i] : top;
    for (size_t j = 0; j < LANES; j++) last[j] = whole + j < n ? x[whole + j] - top : -INFINITY;
    double total = (double)sum_lanes(vexp(load(last)));
    for (size_t from = 0; from < whole; from += BLOCK) {
        size_t to = whole - from < BLOCK ? whole : from + BLOCK;
        vec s = {0};
        for (size_t i = from; i < to; i += LANES) s += vexp(load(x + i) - all(top));
        total += (double)sum_lanes(s);
    }
    *max = top;
    *sum = (float)total;
}

static void exp_shifted(float *y, const float *x, size_t n, float shift) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) store(y + i, vexp(load(x + i) - all(shift)));
    float last[LANES] = {0};
    for (size_t j = i; j < n; j++) last[j - i] = x[j] - shift;
    store(last, vexp(load(last)));
    for (size_t j = i; j < n; j++) y[j] = last[j - i];
}

static void softmax(float *w, size_t n) {
    size_t padded = (n + LANES - 1) / LANES * LANES;
    for (size_t j = n; j < padded; j++) w[j] = -INFINITY;
    vec m = all(-INFINITY), total = {0};
    for (size_t j = 0; j < padded; j += LANES) m = vmax(m, load(w + j));
    float max = max_lanes(m);
    for (size_t j = 0; j < padded; j += LANES) {
        vec e = vexp(load(w + j) - all(max));
        total += e;
        store(w + j, e);
    }
    vec inverse = all(1.0f / sum_lanes(total));
    for (size_t j = 0; j < padded; j += LANES) store(w + j, load(w + j) * inverse);
}

static void add_rows(float *to, const float *x, size_t n) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) store(to + i, load(to + i) + load(x + i));
    for (; i < n; i++) to[i] += x[i];
}

static size_t largest(const float *x, size_t n) {
    vec m = all(-INFINITY);
    size_t i = 0, at = 0;
    for (; i + LANES <= n; i += LANES) m = vmax(m, load(x + i));
    float top = max_lanes(m);
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    while (at < n && !(x[at] >= top)) at++;
    return at;
}

static void attend(const struct kv_attend *a) {
    size_t t = 0;
    for (size_t i = 0; i < a->n_spans; i++) {
        const struct kv_span *s = &a->span[i];
        size_t width = (s->count + 15) / 16 * 16;
        panels(a->n_q, width, a->dim, a->q, a->dim, s->k_t, s->ld_k, a->weights + t, a->ld_w, 0);
        t += s->count;
    }
    for (size_t g = 0; g < a->n_q; g++) {
        float *w = a->weights + g * a->ld_w;
        if (a->masked)
            for (size_t j = 0; j < a->len; j++)
                if (a->masked[j]) w[j] = -INFINITY;
        softmax(w, a->len);
    }
    memset(a->out, 0, a->n_q * a->dim * sizeof *a->out);
    t = 0;
    for (size_t i = 0; i < a->n_spans; i++) {
        const struct kv_span *s = &a->span[i];
        panels(a->n_q, a->dim, s->count, a->weights + t, a->ld_w, s->v, s->ld_v, a->out, a->dim, 1);
        t += s->count;
    }
}

static void rms_norm(float *y, const float *x, const float *gain, size_t rows, size_t n,
                     float eps) {
    for (size_t r = 0; r < rows; r++, x += n, y += n) {
        vec s = {0};
        size_t i = 0;
        for (; i + LANES <= n; i += LANES) s += load(x + i) * load(x + i);
        float total = sum_lanes(s);
        for (; i < n; i++) total += x[i] * x[i];
        float scale = 1.0f / sqrtf(total / (float)n + eps);
        for (i = 0; i < n; i++) y[i] = x[i] * scale * gain[i];
    }
}

static void swiglu(float *y, const float *g, size_t rows, size_t n) {
    for (size_t r = 0; r < rows; r++, g += 2 * n, y += n) {
        size_t i = 0;
        for (; i + LANES <= n; i += LANES) {
            vec x = load(g + i);
            store(y + i, x / (all(1.0f) + vexp(-x)) * load(g + n + i));
        }
        for (; i < n; i++) y[i] = g[i] / (1.0f + expf(-g[i])) * g[n + i];
    }
}

// 1/2 (1 + tanh(u)) = 1 / (1 + exp(-2 u)), so that gelu(x) = x / (1 + exp(-2 u)).
#define GELU_SLOPE 0.7978845608028654f // sqrt(2 / pi)
#define GELU_CUBE 0.044715f

static void geglu(float *y, const float *g, size_t rows, size_t n) {
    for (size_t r = 0; r < rows; r++, g += 2 * n, y += n) {
        size_t i = 0;
        for (; i + LANES <= n; i += LANES) {
            vec x = load(g + i), u = all(GELU_SLOPE) * x * (all(1.0f) + all(GELU_CUBE) * x * x);
            store(y + i, x / (all(1.0f) + vexp(all(-2.0f) * u)) * load(g + n + i));
        }
        for (; i < n; i++) {
            float x = g[i], u = GELU_SLOPE * x * (1.0f + GELU_CUBE * x * x);
            y[i] = x / (1.0f + expf(-2.0f * u)) * g[n + i];
        }
    }
}

static struct kv_tile_sums compare(const float *logit, const float *ref, const float *p, size_t n) {
    vec m = all(-INFINITY), sp = {0}, se = {0}, sd = {0};
    size_t whole = n / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) m = vmax(m, load(logit + i) - load(ref + i));
    struct kv_tile_sums s = {.max_d = max_lanes(m)};
    for (size_t i = whole; i < n; i++) s.max_d = fmaxf(s.max_d, logit[i] - ref[i]);
    for (size_t i = 0; i < whole; i += LANES) {
        vec d = load(logit + i) - load(ref + i), pi = load(p + i);
        sp += pi;
        se += pi * vexp(d - all(s.max_d));
        sd += pi * d;
    }
    s.sum_p = sum_lanes(sp);
    s.sum_pe = sum_lanes(se);
    s.sum_pd = sum_lanes(sd);
    for (size_t i = whole; i < n; i++) {
        float d = logit[i] - ref[i];
        s.sum_p += p[i];
        s.sum_pe += p[i] * expf(d - s.max_d);
        s.sum_pd += p[i] * d;
    }
    return s;
}

static void dot(const float *a, const float *b, size_t n, double *sum) {
    double total = 0;
    size_t whole = n / LANES * LANES;
    for (size_t from = 0; from < whole; from += BLOCK) {
        size_t to = whole - from < BLOCK ? whole : from + BLOCK;
        vec s = {0};
        for (size_t i = from; i < to; i += LANES) s += load(a + i) * load(b + i);
        total += (double)sum_lanes(s);
    }
    for (size_t i = whole; i < n; i++) total += (double)a[i] * b[i];
    *sum = total;
}

// dk_t += sum over heads of ds[g][t] q[g], dv_t += sum over heads of a[g][t] d_out[g].
static void add_outer(const struct kv_attend_back *a, const float *s, size_t t0, size_t count,
                      const float *x, float *to, size_t ld) {
    for (size_t t = 0; t < count; t++, to += ld)
        for (size_t i = 0; i < a->dim; i += LANES) {
            vec sum = load(to + i);
            for (size_t g = 0; g < a->n_q; g++)
                sum += all(s[g * a->ld_w + t0 + t]) * load(x + g * a->dim + i);
            store(to + i, sum);
        }
}

static void attend_back(const struct kv_attend_back *a) {
    size_t t0 = 0;
    memset(a->dq, 0, a->n_q * a->dim * sizeof *a->dq);
    for (size_t i = 0; i < a->n_spans; i++) { // d a_t = d_out . v_t
        const struct kv_attend_back_span *s = &a->span[i];
        panels(a->n_q, (s->count + 15) / 16 * 16, a->dim, a->d_out, a->dim, s->v_t, s->ld_t,
               a->d_score + t0, a->ld_w, 0);
        t0 += s->count;
    }
    for (size_t g = 0; g < a->n_q;
         g++) { // softmax: d s_t = a_t (d a_t - sum_u a_u d a_u); the sum is d_out . out
        const float *w = a->weights + g * a->ld_w;
        float *d = a->d_score + g * a->ld_w;
        vec dot_lanes = {0};
        for (size_t i = 0; i < a->dim; i += LANES)
            dot_lanes += load(a->d_out + g * a->dim + i) * load(a->out + g * a->dim + i);
        float mean = sum_lanes(dot_lanes);
        for (size_t t = 0; t < a->len; t++) d[t] = w[t] * (d[t] - mean);
    }
    t0 = 0;
    for (size_t i = 0; i < a->n_spans; i++) {
        const struct kv_attend_back_span *s = &a->span[i];
        panels(a->n_q, a->dim, s->count, a->d_score + t0, a->ld_w, s->k, s->ld, a->dq, a->dim, 1);
        add_outer(a, a->d_score, t0, s->count, a->q, s->dk, s->ld);
        add_outer(a, a->weights, t0, s->count, a->d_out, s->dv, s->ld);
        t0 += s->count;
    }
}

// y_i = r x_i g_i with r = (mean x^2 + eps)^-1/2, so dx_i = r g_i dy_i - r^3 x_i / n * sum_j g_j
// dy_j x_j.
static void rms_norm_back(float *dx, const float *dy, const float *x, const float *gain,
                          size_t rows, size_t n, float eps) {
    for (size_t row = 0; row < rows; row++, dx += n, dy += n, x += n) {
        vec squares = {0}, mixed = {0};
        float square = 0, mix = 0;
        size_t i = 0;
        for (; i + LANES <= n; i += LANES) {
            vec xi = load(x + i);
            squares += xi * xi;
            mixed += xi * load(dy + i) * load(gain + i);
        }
        for (; i < n; i++) {
            square += x[i] * x[i];
            mix += x[i] * dy[i] * gain[i];
        }
        float r = 1.0f / sqrtf((sum_lanes(squares) + square) / (float)n + eps);
        float pull = r * r * r / (float)n * (sum_lanes(mixed) + mix);
        for (i = 0; i < n; i++) dx[i] += r * gain[i] * dy[i] - pull * x[i];
    }
}

static void swiglu_back(float *dg, const float *dy, const float *g, size_t rows, size_t n) {
    for (size_t r = 0; r < rows; r++, g += 2 * n, dy += n, dg += 2 * n) {
        size_t i = 0;
        for (; i + LANES <= n; i += LANES) {
            vec x = load(g + i), up = load(g + n + i), d = load(dy + i);
            vec sigmoid = all(1.0f) / (all(1.0f) + vexp(-x));
            store(dg + i, d * up * sigmoid * (all(1.0f) + x * (all(1.0f) - sigmoid)));
            store(dg + n + i, d * x * sigmoid);
        }
        for (; i < n; i++) {
            float sigmoid = 1.0f / (1.0f + expf(-g[i]));
            dg[i] = dy[i] * g[n + i] * sigmoid * (1.0f + g[i] * (1.0f - sigmoid));
            dg[n + i] = dy[i] * g[i] * sigmoid;
        }
    }
}

// d gelu / dx = s + 2 x s (1 - s) du/dx with s = 1 / (1 + exp(-2 u)).
static void geglu_back(float *dg, const float *dy, const float *g, size_t rows, size_t n) {
    const float cube = 3.0f * GELU_CUBE;
    for (size_t r = 0; r < rows; r++, g += 2 * n, dy += n, dg += 2 * n) {
        size_t i = 0;
        for (; i + LANES <= n; i += LANES) {
            vec x = load(g + i), up = load(g + n + i), d = load(dy + i),
                u = all(GELU_SLOPE) * x * (all(1.0f) + all(GELU_CUBE) * x * x),
                slope = all(GELU_SLOPE) * (all(1.0f) + all(cube) * x * x);
            vec share = all(1.0f) / (all(1.0f) + vexp(all(-2.0f) * u));
            vec rise = share + all(2.0f) * x * share * (all(1.0f) - share) * slope;
            store(dg + i, d * up * rise);
            store(dg + n + i, d * x * share);
        }
        for (; i < n; i++) {
            float x = g[i], u = GELU_SLOPE * x * (1.0f + GELU_CUBE * x * x),
                  slope = GELU_SLOPE * (1.0f + cube * x * x);
            float share = 1.0f / (1.0f + expf(-2.0f * u));
            dg[i] = dy[i] * g[n + i] * (share + 2.0f * x * share * (1.0f - share) * slope);
            dg[n + i] = dy[i] * x * share;
        }
    }
}

// ---- products whose rows do not know of each other ------------------------------------

// Half of the lanes onto the other half until four are left, then one after the other.
static inline float fold_lanes(vec v) {
    float t[LANES];
    store(t, v);
    for (int half = LANES / 2; half >= 4; half /= 2)
        for (int i = 0; i < half; i++) t[i] += t[i + half];
    return (t[0] + t[1]) + (t[2] + t[3]);
}

static inline vec load_some(const float *p, size_t n) {
    float t[LANES] = {0};
    memcpy(t, p, n * sizeof *t);
    return load(t);
}

// Registers hold ROWS x OUTPUTS sums; what a sum is does not depend on either.
enum { PRODUCT_ROWS = 4, PRODUCT_OUTPUTS = LANES == 16 ? 4 : 2 };

#define SUMS(R, O)                                                                                 \
    static inline void sums_##R##_##O(const float *x, const float *w, size_t n, float *y,          \
                                      size_t ld_y) {                                               \
        vec acc[R][O];                                                                             \
        for (int r = 0; r < (R); r++)                                                              \
            for (int o = 0; o < (O); o++) acc[r][o] = (vec){0};                                    \
        size_t i = 0;                                                                              \
        for (; i + LANES <= n; i += LANES) {                                                       \
            vec wi[O];                                                                             \
            for (int o = 0; o < (O); o++) wi[o] = load(w + (size_t)o * n + i);                     \
            for (int r = 0; r < (R); r++) {                                                        \
                vec xi = load(x + (size_t)r * n + i);                                              \
                for (int o = 0; o < (O); o++) acc[r][o] += xi * wi[o];                             \
            }                                                                                      \
        }                                                                                          \
        for (int r = 0; i < n && r < (R); r++)                                                     \
            for (int o = 0; o < (O); o++)                                                          \
                acc[r][o] += load_some(x + (size_t)r * n + i, n - i) *                             \
                             load_some(w + (size_t)o * n + i, n - i);                              \
        for (int r = 0; r < (R); r++)                                                              \
            for (int o = 0; o < (O); o++) y[(size_t)r * ld_y + (size_t)o] = fold_lanes(acc[r][o]); \
    }
SUMS(1, 1)
SUMS(2, 1)
SUMS(3, 1)
SUMS(4, 1)
SUMS(1, 2)
SUMS(2, 2)
SUMS(3, 2)
SUMS(4, 2)
#if defined(__AVX512F__)
SUMS(1, 4)
SUMS(2, 4)
SUMS(3, 4)
SUMS(4, 4)
#endif

// Asks for part `i` of `parts` of the bytes that come next, while sums keep the processor busy:
// weights come from memory once, and waiting for them would take longer than adding them up.
static inline void fetch_part(const float *next, size_t floats, size_t i, size_t parts) {
    enum { LINE = 16 }; // floats of a cache line
    size_t lines = floats / LINE, from = lines * i / parts, to = lines * (i + 1) / parts;
    for (size_t l = from; l < to; l++) __builtin_prefetch(next + l * LINE, 0, 2);
}

static void product(const float *x, size_t rows, const float *w, size_t outputs, size_t n, float *y,
                    size_t ld_y) {
    size_t parts = (rows + PRODUCT_ROWS - 1) / PRODUCT_ROWS;
    for (size_t o = 0, some; o < outputs; o += some) {
        some = outputs - o >= PRODUCT_OUTPUTS ? PRODUCT_OUTPUTS : 1;
        for (size_t r = 0, now; r < rows; r += now) {
            now = rows - r >= PRODUCT_ROWS ? PRODUCT_ROWS : rows - r;
            const float *xr = x + r * n, *wo = w + o * n;
            float *to = y + r * ld_y + o;
            if (o + 2 * some <= outputs)
                fetch_part(wo + some * n, some * n, r / PRODUCT_ROWS, parts);
#define CASE(R, O)                                                                                 \
    if (now == (R) && some == (O)) sums_##R##_##O(xr, wo, n, to, ld_y)
            CASE(1, 1);
            CASE(2, 1);
            CASE(3, 1);
            CASE(4, 1);
            CASE(1, 2);
            CASE(2, 2);
            CASE(3, 2);
            CASE(4, 2);
#if defined(__AVX512F__)
            CASE(1, 4);
            CASE(2, 4);
            CASE(3, 4);
            CASE(4, 4);
#endif
#undef CASE
        }
    }
}

extern const struct kv_kernels KV_ISA_NAME(kv_kernels);
const struct kv_kernels KV_ISA_NAME(kv_kernels) = {
    .attend = attend,
    .softmax = softmax,
    .add = add_rows,
    .largest = largest,
    .rms_norm = rms_norm,
    .swiglu = swiglu,
    .geglu = geglu,
    .max_sum_exp = max_sum_exp,
    .exp_shifted = exp_shifted,
    .compare = compare,
    .dot = dot,
    .product = product,
    .attend_back = attend_back,
    .rms_norm_back = rms_norm_back,
    .swiglu_back = swiglu_back,
    .geglu_back = geglu_back,
};
