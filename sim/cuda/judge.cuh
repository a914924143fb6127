// SPDX-License-Identifier: Apache-2.0
// The judge: a decode step in plain loops on the CPU, over the cache that the GPU left.
#ifndef KV_JUDGE_CUH
#define KV_JUDGE_CUH

#include "model.cuh"

static float bf16_at(const __nv_bfloat16 *w, size_t i) {
    uint16_t h;
    memcpy(&h, w + i, sizeof h);
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static void *fetched(const void *device, size_t bytes) {
    void *host = malloc(bytes);
    CHECK(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
    return host;
}

static void judge_product(const __nv_bfloat16 *w, const double *x, double *y, int rows, int cols,
                          bool norm) {
    double squares = 0;
    for (int i = 0; i < cols; i++) squares += x[i] * x[i];
    double scale = norm ? 1 / sqrt(squares / cols + 1e-5) : 1;
    for (int r = 0; r < rows; r++) {
        y[r] = 0;
        for (int i = 0; i < cols; i++) y[r] += bf16_at(w, (size_t)r * cols + i) * x[i] * scale;
    }
}

// One decoded value; t is the token's index in its class. *step: the distance of two codes.
static double judge_value(const width_class &c, const uint8_t *host, const shape &s, int layer,
                          int head, int t, int side, int channel, double *step) {
    const uint8_t *block =
        host + ((size_t)(layer * s.kv_heads + head) * c.stride + t / PAGE) * c.block_bytes;
    int bits = side ? c.value_bits : c.key_bits, words = words_of(bits, s.head_dim), per_word = 32 / bits;
    const uint32_t *stream = (const uint32_t *)(block + (side ? c.value_at : 0));
    int slot = t % PAGE, w = channel / per_word;
    uint32_t word = stream[side ? slot * words + w : w * PAGE + slot];
    uint32_t code = bits == 16 ? (word >> (16 * (channel % 2)) & 0xFFFF)
                               : (word >> (bits * (channel % per_word)) & ((1u << bits) - 1));
    __half_raw raw;
    raw.x = bits == 16 ? (unsigned short)code : ((const uint16_t *)(stream + PAGE * words))[slot];
    double number = (double)__half2float(__half(raw));
    *step = bits == 16 ? fabs(number) * 0x1p-10 + 1e-7 : number;
    return bits == 16 ? number : number * ((int)code - (1 << (bits - 1)));
}

struct judged {
    double coded;     // worst distance of a stored value from the exact one, in steps
    double attention; // worst error of attention, of the largest value
    double logits;    // worst error of a logit, of the largest
};

// Half a step by rounding and the last bits of k; float sums against double ones.
static bool is_right(const judged &j) {
    return j.coded <= 0.51 && j.attention < 2e-4 && j.logits < 2e-3;
}

// Runs one step on the GPU and the same on the CPU, reading the cache the GPU left.
static judged judge_step(const shape &s, const char *text, int tokens) {
    model m;
    layout l;
    mix x;
    judged worst = {0, 0, 0};
    model_init(&m, s);
    if (!parse_mix(&x, text)) exit(2);
    layout_init(&l, &x, s, tokens);
    layout_set(&l, &x, tokens);
    set_position(&m, tokens - 1);
    cudaGraphExec_t graph = capture(&m, l, WHOLE);
    CHECK(cudaMemset(m.logits, 0xFF, s.vocab * sizeof(float))); // NaN where nothing is written
    for (int i = 0; i < 3; i++)
        CHECK(cudaGraphLaunch(graph, m.stream)); // counters reset themselves
    CHECK(cudaStreamSynchronize(m.stream));
    const int dim = s.head_dim;
    int heads = s.heads * dim, group = s.heads / s.kv_heads, rows = (int)qkv_rows(s);
    __nv_bfloat16 *qkv = (__nv_bfloat16 *)fetched(m.qkv, (size_t)s.layers * rows * s.hidden * 2);
    __nv_bfloat16 *out = (__nv_bfloat16 *)fetched(m.out, (size_t)s.layers * s.hidden * heads * 2);
    __nv_bfloat16 *gateup =
        (__nv_bfloat16 *)fetched(m.gateup, (size_t)s.layers * 2 * s.ffn * s.hidden * 2);
    __nv_bfloat16 *down = (__nv_bfloat16 *)fetched(m.down, (size_t)s.layers * s.hidden * s.ffn * 2);
    __nv_bfloat16 *head_w = (__nv_bfloat16 *)fetched(m.head, (size_t)s.vocab * s.hidden * 2);
    float *x0 = (float *)fetched(m.x0, s.hidden * 4),
          *logits = (float *)fetched(m.logits, s.vocab * 4);
    float *cosine = (float *)fetched(m.cosine, dim * 2), *sine = (float *)fetched(m.sine, dim * 2);
    float *last_context = (float *)fetched(m.context, heads * 4);
    uint8_t *host[MAX_CLASSES];
    for (int i = 0; i < l.n; i++)
        host[i] = (uint8_t *)fetched(l.at[i].base, (size_t)s.layers * s.kv_heads * l.at[i].stride *
                                                       l.at[i].block_bytes);
    size_t widest = 2 * (size_t)s.ffn + rows + heads + s.vocab;
    double *h = (double *)calloc(s.hidden, 8), *y = (double *)calloc(widest, 8);
    double *ctx = (double *)calloc(heads, 8), *f = (double *)calloc(widest, 8);
    double *p = (double *)calloc(tokens, 8);
    for (int i = 0; i < s.hidden; i++) h[i] = x0[i];
    for (int layer = 0; layer < s.layers; layer++) {
        judge_product(qkv + (size_t)layer * rows * s.hidden, h, y, rows, s.hidden, true);
        for (int n = 0; n < s.heads + s.kv_heads; n++)
            for (int i = 0; i < dim / 2; i++) {
                double a = y[n * dim + i], b = y[n * dim + i + dim / 2];
                y[n * dim + i] = a * cosine[i] - b * sine[i];
                y[n * dim + i + dim / 2] = b * cosine[i] + a * sine[i];
            }
        double step, largest = 0;
        for (int n = 0; n < s.kv_heads; n++)
            for (int side = 0; side < 2; side++)
                for (int i = 0; i < dim; i++) {
                    double exact = y[(s.heads + side * s.kv_heads + n) * dim + i];
                    double v = judge_value(l.at[l.new_class], host[l.new_class], s, layer, n,
                                           l.new_slot, side, i, &step);
                    worst.coded = fmax(worst.coded, (fabs(v - exact) - 1e-4) / step);
                }
        for (int n = 0; n < s.heads; n++) {
            double top = -INFINITY, sum = 0;
            int t = 0, head = n / group;
            for (int c = 0; c < l.n; c++)
                for (int i = 0; i < l.at[c].tokens; i++, t++) {
                    p[t] = 0;
                    for (int d = 0; d < dim; d++)
                        p[t] += y[n * dim + d] *
                                judge_value(l.at[c], host[c], s, layer, head, i, 0, d, &step) / sqrt(dim);
                    top = fmax(top, p[t]);
                }
            for (int i = 0; i < tokens; i++) sum += p[i] = exp(p[i] - top);
            for (int d = 0; d < dim; d++) {
                ctx[n * dim + d] = 0;
                t = 0;
                for (int c = 0; c < l.n; c++)
                    for (int i = 0; i < l.at[c].tokens; i++, t++) {
                        double v = judge_value(l.at[c], host[c], s, layer, head, i, 1, d, &step);
                        ctx[n * dim + d] += p[t] / sum * v;
                        largest = fmax(largest, fabs(v));
                    }
            }
        }
        for (int i = 0; i < heads && layer + 1 == s.layers; i++) {
            double wrong = fabs(ctx[i] - last_context[i]) / largest;
            worst.attention = wrong >= 0 ? fmax(worst.attention, wrong) : INFINITY;
        }
        judge_product(out + (size_t)layer * s.hidden * heads, ctx, f, s.hidden, heads, false);
        for (int i = 0; i < s.hidden; i++) h[i] += f[i];
        judge_product(gateup + (size_t)layer * 2 * s.ffn * s.hidden, h, y, 2 * s.ffn, s.hidden,
                      true);
        for (int i = 0; i < s.ffn; i++) y[i] = y[i] / (1 + exp(-y[i])) * y[s.ffn + i];
        judge_product(down + (size_t)layer * s.hidden * s.ffn, y, f, s.hidden, s.ffn, false);
        for (int i = 0; i < s.hidden; i++) h[i] += f[i];
    }
    judge_product(head_w, h, y, s.vocab, s.hidden, true);
    double largest = 0;
    for (int i = 0; i < s.vocab; i++) largest = fmax(largest, fabs(y[i]));
    for (int i = 0; i < s.vocab; i++) {
        double wrong = fabs(y[i] - logits[i]) / largest;
        worst.logits = wrong >= 0 ? fmax(worst.logits, wrong) : INFINITY;
    }
    void *owned[] = {qkv,  out,          gateup, down, head_w, x0, logits, cosine,
                     sine, last_context, h,      y,    ctx,    f,  p};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    for (int i = 0; i < l.n; i++) free(host[i]);
    CHECK(cudaGraphExecDestroy(graph));
    layout_fini(&l);
    model_fini(&m);
    return worst;
}

// Every width on each side, mixes, and lengths around a page, for each kernel of attention.
static bool check_kernels() {
    static const char *const mixes[] = {"16",
                                        "8",
                                        "4",
                                        "2",
                                        "k8v4",
                                        "k4v8",
                                        "k2v16",
                                        "k16v2",
                                        "2=0.25/4=0.25/8=0.25/16=0.25",
                                        "k4v2=0.7/k8v16=0.3"};
    static const int lengths[] = {2, 63, 64, 65, 700};
    judged worst = {0, 0, 0};
    for (size_t g = 0; g < sizeof small_shapes / sizeof *small_shapes; g++)
        for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++) {
            int tokens = lengths[(i + g) % 5];
            if (strchr(mixes[i], '=') && tokens < 16) tokens = 333;
            judged j = judge_step(small_shapes[g], mixes[i], tokens);
            if (!is_right(j))
                fprintf(stderr, "%s, %s, %d tokens: %.3f steps, attention %.1e, logits %.1e\n",
                        small_shapes[g].name, mixes[i], tokens, j.coded, j.attention, j.logits);
            worst.coded = fmax(worst.coded, j.coded);
            worst.attention = fmax(worst.attention, j.attention);
            worst.logits = fmax(worst.logits, j.logits);
        }
    bool right = is_right(worst);
    fprintf(
        stderr,
        "checked against the CPU: codes within %.3f steps, attention within %.1e of the largest "
        "value, logits within %.1e of the largest: %s\n",
        worst.coded, worst.attention, worst.logits, right ? "right" : "WRONG");
    return right;
}

#endif
