// SPDX-License-Identifier: Apache-2.0
// Format qaq: a uniform grid about the mean of the inliers, with a share of outliers kept exact.
#include "sim/base/memory.h"
#include "sim/quant/grid.h"
#include "sim/quant/own.h"
#include "sim/quant/pack.h"
#include "sim/quant/plain.h"

static const struct kv_param params[] = {
    {"group", KV_CHOICE, "head", 0, 0, "head/layer", NULL,
     "what shares mean and scale: a head's vector or all KV heads of a token"},
    {"outliers", KV_FLOAT, "0.01", 0, 0.2, NULL, NULL,
     "share of the values of a group kept exact, half at each end"},
    {0}};

struct qaq {
    uint32_t low, high;   // outliers at each end
    uint32_t index_bytes; // of an outlier
};

// Order statistics, as in the authors' src/quantizer.py (commit f8d47e09): outliers are the
// ceil(alpha/2 n) smallest of n values and those above the floor((1 - alpha/2) n)-th.
static void count_outliers(struct qaq *q, double alpha, uint32_t n) {
    q->low = (uint32_t)ceil(alpha / 2 * n);
    q->high = n - (uint32_t)floor((1 - alpha / 2) * n);
    if (q->high > n - q->low) q->high = n - q->low; // a group of one value
    q->index_bytes = n <= 256 ? 1 : 2;
}

static int qaq_open(struct kv_format *f, const struct kv_format_setting *s,
                    const struct kv_args *args, struct kv_error *e) {
    (void)s;
    static const uint8_t bits[] = {1, 2, 3, 4, 5, 6, 7, 8, 16};
    uint32_t group;
    struct qaq *self = f->self = kv_alloc(1, sizeof *self);
    int rc = kv_grid_group(f, kv_arg(args, "group")->text, &group, e);
    if (rc) return rc;
    kv_set_widths(f, bits, sizeof bits);
    count_outliers(self, kv_number(args, "outliers"), group);
    return 0;
}

static struct kv_unit_size qaq_size(const struct kv_format *f, enum kv_side side, uint32_t width) {
    const struct qaq *self = f->self;
    uint32_t n = kv_unit_values(f, side), bits = f->width_bits[width];
    uint32_t meta = 4 + (self->low + self->high) * (2 + self->index_bytes);
    if (bits == 16) return kv_half_size(n);
    return (struct kv_unit_size){.values = n,
                                 .code_bits = n * bits,
                                 .meta_bits = 8 * meta,
                                 .bytes = meta + (uint32_t)kv_packed_bytes(n, bits)};
}

// Marks the next extreme of what is left; NaN comes last.
static uint32_t take_extreme(const float *x, uint32_t n, bool lowest, bool *taken) {
    uint32_t best = n;
    for (uint32_t i = 0; i < n; i++) {
        if (taken[i]) continue;
        if (best == n || isnan(x[best]) || (lowest ? x[i] < x[best] : x[i] > x[best])) best = i;
    }
    taken[best] = true;
    return best;
}

static float held(float x) { // within fp16; NaN as 0
    return isnan(x) ? 0.0f : x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x;
}

// Mean and scale of the inliers, as the decoder reads them.
static void measure(const float *x, uint32_t n, const bool *taken, unsigned bits, uint8_t *out) {
    float min = INFINITY, max = -INFINITY;
    double sum = 0.0;
    uint32_t inliers = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (taken[i] || isnan(x[i])) continue;
        float v = held(x[i]);
        min = v < min ? v : min;
        max = v > max ? v : max;
        sum += (double)v;
        inliers++;
    }
    if (inliers == 0) min = max = 0.0f;
    kv_put_half(out, (max - min) / (float)(1u << bits));
    kv_put_half(out + 2, inliers ? (float)(sum / inliers) : 0.0f);
}

static void encode_unit(const struct qaq *self, uint32_t n, unsigned bits, const float *x,
                        uint8_t *out) {
    bool taken[KV_MAX_UNIT] = {false};
    uint8_t code[KV_MAX_UNIT], *p = out + 4;
    for (uint32_t k = 0; k < self->low + self->high; k++) {
        uint32_t i = take_extreme(x, n, k < self->low, taken);
        p[0] = (uint8_t)i;
        if (self->index_bytes == 2) p[1] = (uint8_t)(i >> 8);
        kv_put_half(p + self->index_bytes, held(x[i]));
        p += self->index_bytes + 2;
    }
    measure(x, n, taken, bits, out);
    float scale = kv_get_half(out), mean = kv_get_half(out + 2), half = (float)(1u << (bits - 1));
    for (uint32_t i = 0; i < n; i++) {
        float q = taken[i] || isnan(x[i]) || scale == 0.0f ? 0.0f : rintf((x[i] - mean) / scale);
        q = q < -half ? -half : q > half - 1.0f ? half - 1.0f : q;
        code[i] = (uint8_t)(q + half);
    }
    kv_pack(code, n, bits, p);
}

static void qaq_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                       size_t n_units, uint8_t *out) {
    const struct kv_unit_size size = qaq_size(f, b->side, b->width);
    if (f->width_bits[b->width] == 16) {
        kv_put_halves(x, n_units * size.values, out);
        return;
    }
    for (size_t u = 0; u < n_units; u++, x += size.values, out += size.bytes)
        encode_unit(f->self, size.values, f->width_bits[b->width], x, out);
}

static void qaq_codes(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                      size_t n_units, uint8_t *q) {
    const struct kv_unit_size size = qaq_size(f, b->side, b->width);
    for (size_t u = 0; u < n_units; u++, codes += size.bytes, q += size.values)
        kv_unpack(codes + size.meta_bits / 8, size.values, f->width_bits[b->width], q);
}

static void qaq_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                       size_t n_units, float *y) {
    const struct qaq *self = f->self;
    const struct kv_unit_size size = qaq_size(f, b->side, b->width);
    uint8_t code[KV_MAX_UNIT];
    if (f->width_bits[b->width] == 16) {
        kv_get_halves(codes, n_units * size.values, y);
        return;
    }
    int half = 1 << (f->width_bits[b->width] - 1);
    for (size_t u = 0; u < n_units; u++, codes += size.bytes, y += size.values) {
        float scale = kv_get_half(codes), mean = kv_get_half(codes + 2);
        const uint8_t *p = codes + 4;
        kv_unpack(codes + size.meta_bits / 8, size.values, f->width_bits[b->width], code);
        for (uint32_t i = 0; i < size.values; i++) y[i] = (float)(code[i] - half) * scale + mean;
        for (uint32_t k = 0; k < self->low + self->high; k++, p += self->index_bytes + 2) {
            uint32_t i = self->index_bytes == 2 ? kv_get16(p) : p[0];
            if (i < size.values) y[i] = kv_get_half(p + self->index_bytes);
        }
    }
}

static void qaq_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                       kv_field_fn *take, void *self) {
    const struct qaq *q = f->self;
    const struct kv_unit_size size = qaq_size(f, side, width);
    uint32_t n = q->low + q->high, index = 8 * q->index_bytes;
    kv_take_groups(take, self, "scale", "fp16", 16, 1, 0, 16, size.values);
    kv_take_groups(take, self, "mean", "fp16", 16, 1, 16, 16, size.values);
    if (n) {
        kv_take_groups(take, self, "place of an outlier", "uint", index, n, 32, index + 16, 0);
        kv_take_groups(take, self, "outlier", "fp16", 16, n, 32 + index, index + 16, 0);
    }
    kv_take_codes(take, self, "uint", f->width_bits[width], size.values, size.meta_bits);
}

static void qaq_plain(const struct kv_format *f, enum kv_side side, uint32_t width,
                      struct kv_plain_width *to) {
    const struct qaq *q = f->self;
    (void)side, (void)width;
    to->rule = KV_PLAIN_OUTLIERS;
    to->low = q->low;
    to->high = q->high;
    to->index_bytes = q->index_bytes;
}

const struct kv_format_type kv_format_type_qaq = {
    .name = "qaq",
    .summary = "QAQ: a grid about the mean of the inliers; outliers kept in fp16 with their place",
    .citation = "Dong et al. 2024, arXiv:2403.04643, section 3; asymmetric, uniform",
    .tag = "faithful",
    .layout = "fp16 scale, fp16 mean; per outlier its index (1 byte up to 256 values, else 2) and "
              "fp16; then codes + 2^(b-1), b bits each",
    .formula = "b + (32 + 24 outliers)/group with 1 + 1 outliers in a head of 64",
    .rounding = "mean in float64, rounded to fp16; scale (max - min) / 2^b to fp16; (x - mean) / "
                "scale half to even, clamped to -2^(b-1)..2^(b-1)-1, so that skewed groups clip",
    .guards = "NaN codes as the mean, as an outlier 0; infinities saturate at 65504; scale 0 "
              "decodes to the mean. Of equal values at the lower end, all of which its source sets "
              "apart, the first are. Its source does not count the outliers' places",
    .params = params,
    .open = qaq_open,
    .size = qaq_size,
    .encode = qaq_encode,
    .decode = qaq_decode,
    .codes = qaq_codes,
    .fields = qaq_fields,
    .plain = qaq_plain,
    .close = kv_free_self,
    .revision = 1, // 0 counted outliers by interpolated quantiles: other numbers at some shares
    .published_mode = KV_PUBLISHED_PREFILL1,
};
