// SPDX-License-Identifier: Apache-2.0
// qaq: as many bits as keep a token's expected error under a target, keys and values by different
// rules. Its own quantizer (mean-centred, outliers apart) is a matter of the format; the bits too
// are those of the values that are no outliers (the authors' src/quantizer.py, commit f8d47e09).
#include "policies/attention.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_qaq;

enum { RULE_PAPER, RULE_CODE };
enum { LEVEL_HEAD, LEVEL_LAYER, LEVEL_TOKEN };

static const double code_query_norm = 300; // the released code's constant in the place of |q|^2

static const struct kv_param params[] = {
    {"rule", KV_CHOICE, "paper", 0, 0, "paper/code", NULL,
     "bits for a range r and a spread s: paper log2(r / (2 sqrt(3) s)); code log2(r / (2 sqrt(12) "
     "s) + 1)"},
    {"level", KV_CHOICE, "head", 0, 0, "head/layer/token", NULL,
     "what shares a width: a KV head of a token, its layer, the token; K and V always apart"},
    {"key-error", KV_FLOAT, "1", 1e-9, 1e9, NULL, NULL, "target spread of attention scores"},
    {"value-error", KV_FLOAT, "1", 1e-9, 1e9, NULL, NULL, "target spread of the output"},
    {"window", KV_INT, "5", 1, 1e6, NULL, "tokens",
     "newest prompt rows whose attention counts; all but one of those tokens keep max bits"},
    {"min", KV_INT, "2", 0, 16, NULL, "bits", "least width"},
    {"max", KV_INT, "4", 1, 16, NULL, "bits", "largest width"},
    {"outliers", KV_FLOAT, "0.01", 0, 0.2, NULL, NULL,
     "share of a group's values that the format keeps apart, half at each end: the range is that "
     "of "
     "the others"},
    {"q2", KV_FLOAT, "", 1e-9, 1e12, NULL, NULL,
     "|q|^2 (default: paper, the prompt's upper 10 % quantile; code, its constant of 300)"},
    {0}};

struct qaq {
    int rule, level;
    double key_error, value_error, outliers, q2; // q2 NAN = from the prompt
    uint32_t window, min, max, options;
};

static int qaq_open(void **self, const struct kv_run *run, const struct kv_args *args,
                    struct kv_error *e) {
    struct qaq *q = calloc(1, sizeof *q);
    if (!q) return kv_fail(e, KV_ENOMEM, "qaq", "out of memory");
    *self = q;
    q->rule = (int)kv_number(args, "rule");
    q->level = (int)kv_number(args, "level");
    q->key_error = kv_number(args, "key-error");
    q->value_error = kv_number(args, "value-error");
    q->outliers = kv_number(args, "outliers");
    q->window = (uint32_t)kv_number(args, "window");
    q->min = (uint32_t)kv_number(args, "min");
    q->max = (uint32_t)kv_number(args, "max");
    q->q2 = kv_arg(args, "q2")->given ? kv_number(args, "q2")
            : q->rule == RULE_CODE    ? code_query_norm
                                      : NAN;
    q->options = 1u + kv_width_at_least(run, q->max) - kv_width_at_least(run, q->min);
    if (q->min > q->max) return kv_fail(e, KV_EUSAGE, "policy qaq", "min is above max");
    return 0;
}

// Bits that quantize a range so finely that the error's spread is sigma, within min and max.
static double bits_for(const struct qaq *q, double range, double sigma) {
    double bits = q->rule == RULE_PAPER ? ceil(log2(range / (2 * sqrt(3) * sigma)))
                                        : ceil(log2(range / (2 * sqrt(12) * sigma) + 1));
    return !(bits > q->min) ? q->min : fmin(bits, q->max); // no range or no bound: min
}

// ---- what the rules read -----------------------------------------------------------------

// Arrays over one item's prompt. A group is what shares a width: a KV head of a token, its layer,
// or the token.
struct seen {
    float *keys, *p; // of one head
    float *received; // [n_context][groups] largest attention from the window's rows
    float *range;    // [n_context][groups][2] of the inliers of K and V
    float *sorted;   // the values of one group, or |q|^2 of all rows, layers and heads
};

// KV heads of a group, which lie side by side.
static size_t group_heads(const struct qaq *q, const struct kv_shape *s) {
    return q->level == LEVEL_HEAD ? 1 : q->level == LEVEL_LAYER ? s->n_kv_heads : kv_cells(s) / 2;
}

static bool seen_init(struct seen *s, const struct kv_item *item) {
    const struct kv_shape *sh = &item->run->shape;
    size_t n = item->n_context, heads = kv_cells(sh) / 2, norms = n * sh->n_layers * sh->n_heads,
           values = heads * sh->head_dim;
    s->keys = calloc(kv_attention_floats(item) + 1, sizeof(float));
    s->p = calloc(n + 1, sizeof(float));
    s->received = calloc(n * heads + 1, sizeof(float));
    s->range = calloc(2 * n * heads + 1, sizeof(float));
    s->sorted = calloc((norms > values ? norms : values) + 1, sizeof(float));
    return s->keys && s->p && s->received && s->range && s->sorted;
}

static void seen_fini(struct seen *s) {
    float *owned[] = {s->keys, s->p, s->received, s->range, s->sorted};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
}

static void look_at_attention(const struct qaq *q, const struct kv_item *item, struct seen *s) {
    const struct kv_shape *sh = &item->run->shape;
    size_t n = item->n_context, heads = kv_cells(sh) / 2, size = group_heads(q, sh),
           per = sh->n_heads / sh->n_kv_heads, first = n > q->window ? n - q->window : 0;
    for (size_t head = 0; head < heads; head++) {
        size_t layer = head / sh->n_kv_heads, g = head % sh->n_kv_heads;
        kv_attention_keys(item, layer, g, s->keys);
        for (size_t h = g * per; h < (g + 1) * per; h++)
            for (size_t row = first; row < n; row++) {
                kv_attention_row(item, layer, h, row, s->keys, s->p);
                for (size_t t = 0; t <= row; t++) {
                    float *most = &s->received[t * (heads / size) + head / size];
                    *most = fmaxf(*most, s->p[t]);
                }
            }
    }
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

// Range of the inliers among m values, which are sorted in place. Outliers are the values up to the
// ceil(alpha/2 m)-th smallest, its equals included, and those above the floor((1 - alpha/2) m)-th;
// 0 where nothing is left.
static float inlier_range(float *x, size_t m, double alpha) {
    size_t low = (size_t)ceil(alpha / 2 * (double)m), first = 0,
           last = (size_t)floor((1 - alpha / 2) * (double)m);
    qsort(x, m, sizeof *x, ascending);
    while (low > 0 && first < m && x[first] <= x[low - 1]) first++;
    return first < last ? x[last - 1] - x[first] : 0;
}

static void look_at_ranges(const struct qaq *q, const struct kv_item *item, struct seen *s) {
    const struct kv_shape *sh = &item->run->shape;
    size_t size = group_heads(q, sh), m = size * sh->head_dim,
           groups = item->n_context * (kv_cells(sh) / 2) / size;
    for (size_t g = 0; g < groups; g++)
        for (size_t side = 0; side < 2; side++) {
            const uint16_t *x = (side ? item->v : item->k) + g * m;
            for (size_t k = 0; k < m; k++) s->sorted[k] = kv_half_to_float(x[k]);
            s->range[2 * g + side] = inlier_range(s->sorted, m, q->outliers);
        }
}

// The value that a tenth of the prompt's |q|^2 exceed.
static double query_norm(const struct qaq *q, const struct kv_item *item, struct seen *s) {
    const struct kv_shape *sh = &item->run->shape;
    size_t n = (size_t)item->n_context * sh->n_layers * sh->n_heads, d = sh->head_dim;
    if (!isnan(q->q2)) return q->q2;
    for (size_t i = 0; i < n; i++) {
        s->sorted[i] = 0;
        for (size_t k = 0; k < d; k++) {
            float x = kv_half_to_float(item->q[i * d + k]);
            s->sorted[i] += x * x;
        }
    }
    qsort(s->sorted, n, sizeof *s->sorted, ascending);
    return (double)s->sorted[(size_t)(0.9 * (double)(n - 1))];
}

// ---- the decision ------------------------------------------------------------------------

static double cell_bits(const struct qaq *q, const struct kv_item *item, const struct seen *s,
                        double q2, size_t token, size_t head, size_t side) {
    size_t size = group_heads(q, &item->run->shape),
           group = (token * (kv_cells(&item->run->shape) / 2) + head) / size;
    double n = item->n_context, key = n * n * n / (n - 1) * q->key_error * q->key_error + 1,
           received = (double)s->received[group],
           sigma = side == KV_KEY ? sqrt(log(key) / q2) : q->value_error / (sqrt(n) * received);
    return bits_for(q, (double)s->range[2 * group + side], sigma);
}

static int qaq_plan(void *self, const struct kv_item *item, uint8_t *cells, struct kv_error *e) {
    const struct qaq *q = self;
    size_t n = kv_cells(&item->run->shape);
    struct seen s;
    memset(cells, kv_width_at_least(item->run, q->max), item->n_tokens * n);
    if (!seen_init(&s, item)) {
        seen_fini(&s);
        return kv_fail(e, KV_ENOMEM, "qaq", "out of memory");
    }
    look_at_attention(q, item, &s);
    look_at_ranges(q, item, &s);
    double q2 = query_norm(q, item, &s);
    for (size_t t = 0; t + q->window - 1 < item->n_context; t++)
        for (size_t c = 0; c < n; c++)
            cells[t * n + c] =
                kv_width_at_least(item->run, cell_bits(q, item, &s, q2, t, c / 2, c & 1));
    seen_fini(&s);
    return 0;
}

static uint32_t qaq_varies(void *self) {
    int level = ((const struct qaq *)self)->level;
    return KV_VARIES_TOKEN | KV_VARIES_KV | (level <= LEVEL_LAYER ? KV_VARIES_LAYER : 0) |
           (level == LEVEL_HEAD ? KV_VARIES_HEAD : 0);
}

static uint32_t qaq_options(void *self) {
    return ((const struct qaq *)self)->options;
}

const struct kv_policy kv_policy_qaq = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "qaq",
    .summary = "bits that keep the expected error of attention under a target",
    .citation = "QAQ, arXiv 2403.04643 (decided once, at the end of the prompt; bits round up to "
                "offered widths; newer tokens keep max bits)",
    .tag = "approximate",
    .params = params,
    .varies = KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_HEAD | KV_VARIES_KV,
    .needs = KV_NEED_KV | KV_NEED_Q,
    .delay_tokens = KV_DELAY_PROMPT,
    .open = qaq_open,
    .plan = qaq_plan,
    .varies_as_opened = qaq_varies,
    .options_as_opened = qaq_options,
    .close = free,
    .published_mode = KV_PUBLISHED_PREFILL1,
};
