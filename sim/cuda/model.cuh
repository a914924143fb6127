// SPDX-License-Identifier: Apache-2.0
// A model and its caches in GPU memory, and the graphs of its steps.
#ifndef KV_MODEL_CUH
#define KV_MODEL_CUH

#include "shapes.cuh"

// ---- a model on the GPU
// --------------------------------------------------------------------------

// A kernel of attention: which heads it serves, how many query heads a block.
struct attention {
    int head_dim, group, warps, shared;
    void (*run)(layout, int, int, int, const float *, const float *, const float *, float *, int *,
                float *);
};
template <int HEAD, int GROUP> static constexpr attention attention_of() {
    return {HEAD, GROUP, head_of<HEAD>::warps,
            head_of<HEAD>::warps * STAGES * head_of<HEAD>::stage_bytes, attend<HEAD, GROUP>};
}
static const attention attentions[] = {
    attention_of<64, 4>(),  attention_of<64, 3>(),  attention_of<64, 1>(),
    attention_of<80, 2>(),  attention_of<80, 1>(),  attention_of<96, 2>(),
    attention_of<96, 1>(),  attention_of<128, 2>(), attention_of<128, 1>(),
    attention_of<256, 2>(), attention_of<256, 1>(),
};

// The first that a shape's heads fill. More heads to a block read the cache less often; fewer leave
// fewer splits to be joined (measured on an H200 by Qwen's and Gemma's shapes).
static const attention *kernel_for(const shape &s) {
    for (const attention &a : attentions)
        if (a.head_dim == s.head_dim && a.group <= s.heads / s.kv_heads) return &a;
    fprintf(stderr, "kvsim-cuda: %s: no kernel attends by heads of %d\n", s.name, s.head_dim);
    exit(1);
}

struct model {
    shape s;
    const attention *kernel;
    __nv_bfloat16 *qkv, *out, *gateup, *down, *head; // of all layers
    float *x0, *x, *qkv_row, *context, *ffn, *logits, *partial, *cosine, *sine;
    int *arrived;
    int processors;
    cudaStream_t stream;
};

// Parts of all KV heads: blocks that attend to the same tokens.
static int parts_of(const model *m) {
    const int group = m->s.heads / m->s.kv_heads;
    return (group + m->kernel->group - 1) / m->kernel->group * m->s.kv_heads;
}
// Blocks of attention a part: one on every processor, two where a block serves a single query head
// of 64. The grid does not depend on the context, as in a graph that is captured once: a warp takes
// one tile or none, and beyond round_tokens more, in rounds.
static int splits_of(const model *m) {
    const bool two = m->s.heads == m->s.kv_heads && m->s.head_dim == 64;
    const int splits = (two ? 2 : 1) * m->processors / parts_of(m);
    return splits < 1 ? 1 : splits < MAX_SPLITS ? splits : MAX_SPLITS;
}
static int round_tokens(const model *m) {
    return splits_of(m) * m->kernel->warps * TILE;
}

static void model_init(model *m, const shape &s) {
    memset(m, 0, sizeof *m);
    m->s = s;
    size_t layers = s.layers, heads = (size_t)s.heads * s.head_dim;
    m->qkv = new_weights(layers * qkv_rows(s), s.hidden, 1);
    m->out = new_weights(layers * s.hidden, heads, 2);
    m->gateup = new_weights(layers * 2 * s.ffn, s.hidden, 3);
    m->down = new_weights(layers * s.hidden, s.ffn, 4);
    m->head = new_weights(s.vocab, s.hidden, 5);
    m->x0 = new_floats(s.hidden);
    m->x = new_floats(s.hidden);
    m->qkv_row = new_floats(qkv_rows(s));
    m->context = new_floats(heads);
    m->ffn = new_floats(s.ffn);
    m->logits = new_floats(s.vocab);
    m->cosine = new_floats(s.head_dim / 2);
    m->sine = new_floats(s.head_dim / 2);
    CHECK(cudaDeviceGetAttribute(&m->processors, cudaDevAttrMultiProcessorCount, 0));
    m->kernel = kernel_for(s);
    const size_t parts = parts_of(m);
    m->partial = new_floats(parts * splits_of(m) * m->kernel->group * (s.head_dim + 2));
    CHECK(cudaMalloc(&m->arrived, parts * sizeof(int)));
    CHECK(cudaMemset(m->arrived, 0, parts * sizeof(int)));
    CHECK(cudaFuncSetAttribute(m->kernel->run, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               m->kernel->shared));
    float *x = (float *)malloc(s.hidden * sizeof *x);
    for (int i = 0; i < s.hidden; i++) x[i] = sinf((float)i * 1.7f + 0.3f);
    CHECK(cudaMemcpy(m->x0, x, s.hidden * sizeof *x, cudaMemcpyHostToDevice));
    free(x);
    CHECK(cudaStreamCreate(&m->stream));
    CHECK(cudaDeviceSynchronize());
}

static void model_fini(model *m) {
    void *owned[] = {m->qkv,    m->out,     m->gateup,  m->down,    m->head,
                     m->x0,     m->x,       m->qkv_row, m->context, m->ffn,
                     m->logits, m->partial, m->cosine,  m->sine,    m->arrived};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) CHECK(cudaFree(owned[i]));
    CHECK(cudaStreamDestroy(m->stream));
}

static void set_position(model *m, int position) {
    float c[MAX_DIM / 2], s[MAX_DIM / 2];
    const int half = m->s.head_dim / 2;
    for (int i = 0; i < half; i++) {
        double angle = position * pow(10000.0, -1.0 * i / half);
        c[i] = (float)cos(angle);
        s[i] = (float)sin(angle);
    }
    CHECK(cudaMemcpy(m->cosine, c, half * sizeof *c, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(m->sine, s, half * sizeof *s, cudaMemcpyHostToDevice));
}

template <int KIND>
static void launch_product(const model *m, const __nv_bfloat16 *w, const float *x, float *y,
                           int rows, int cols, bool norm) {
    const int threads = 256;
    int blocks = min((rows + threads / 32 - 1) / (threads / 32), 8 * m->processors);
    product<KIND><<<blocks, threads, cols * sizeof(float), m->stream>>>(w, x, y, rows, cols, norm);
}

static void launch_attention(const model *m, const layout &l, int layer) {
    const shape &s = m->s;
    const attention *a = m->kernel;
    dim3 grid(splits_of(m), parts_of(m));
    a->run<<<grid, a->warps * 32, a->shared, m->stream>>>(
        l, layer, s.kv_heads, s.heads / s.kv_heads, m->qkv_row, m->cosine, m->sine, m->partial,
        m->arrived, m->context);
}

enum { WITH_ATTENTION = 1, WITH_LAYERS = 2, WITH_HEAD = 4, WHOLE = 7 };

// Puts the kernels of a step on the stream; `what` leaves some out, for the parts' times.
static void launch_step(const model *m, const layout &l, int what) {
    const shape &s = m->s;
    int heads = s.heads * s.head_dim, rows = (int)qkv_rows(s);
    CHECK(cudaMemcpyAsync(m->x, m->x0, s.hidden * sizeof(float), cudaMemcpyDeviceToDevice,
                          m->stream));
    for (int i = 0; i < s.layers; i++) {
        size_t at = i;
        if (what & WITH_LAYERS)
            launch_product<PLAIN>(m, m->qkv + at * rows * s.hidden, m->x, m->qkv_row, rows,
                                  s.hidden, true);
        if (what & WITH_ATTENTION) launch_attention(m, l, i);
        if (!(what & WITH_LAYERS)) continue;
        launch_product<ADD>(m, m->out + at * s.hidden * heads, m->context, m->x, s.hidden, heads,
                            false);
        launch_product<GATE>(m, m->gateup + at * 2 * s.ffn * s.hidden, m->x, m->ffn, s.ffn,
                             s.hidden, true);
        launch_product<ADD>(m, m->down + at * s.hidden * s.ffn, m->ffn, m->x, s.hidden, s.ffn,
                            false);
    }
    if (what & WITH_HEAD)
        launch_product<PLAIN>(m, m->head, m->x, m->logits, s.vocab, s.hidden, true);
    CHECK(cudaGetLastError());
}

static cudaGraphExec_t capture(const model *m, const layout &l, int what) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK(cudaStreamBeginCapture(m->stream, cudaStreamCaptureModeThreadLocal));
    launch_step(m, l, what);
    CHECK(cudaStreamEndCapture(m->stream, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    return exec;
}

// ---- mixes
// ---------------------------------------------------------------------------------------

struct mix {
    char text[128];
    int n, bits[MAX_CLASSES][2];
    double share[MAX_CLASSES];
};

static bool is_width(long b) {
    return b == 2 || b == 4 || b == 8 || b == 16;
}

// "8", "k8v4" or parts with shares: "k4v2=0.5/8=0.5", as kvsim spells them.
static bool parse_mix(mix *m, const char *text) {
    memset(m, 0, sizeof *m);
    snprintf(m->text, sizeof m->text, "%s", text);
    double total = 0;
    for (const char *at = text; *at;) {
        char *end;
        if (m->n == MAX_CLASSES) return false;
        bool apart = *at == 'k';
        long k = strtol(at + apart, &end, 10), v = k;
        if (apart) {
            if (*end != 'v') return false;
            v = strtol(end + 1, &end, 10);
        }
        double share = *end == '=' ? strtod(end + 1, &end) : NAN;
        if (!is_width(k) || !is_width(v) || (*end && *end != '/')) return false;
        m->bits[m->n][0] = (int)k;
        m->bits[m->n][1] = (int)v;
        m->share[m->n++] = share;
        at = *end ? end + 1 : end;
    }
    for (int i = 0; i < m->n; i++) {
        if (isnan(m->share[i])) m->share[i] = 1.0 / m->n;
        total += m->share[i];
    }
    return m->n > 0 && fabs(total - 1) < 1e-3;
}

// Memory for a mix at up to `tokens`, filled with random codes.
static void layout_init(layout *l, const mix *m, const shape &s, int tokens) {
    memset(l, 0, sizeof *l);
    l->n = m->n;
    for (int i = 0; i < m->n; i++) {
        width_class *c = &l->at[i];
        c->key_bits = m->bits[i][0];
        c->value_bits = m->bits[i][1];
        c->stride = pages_of((int)ceil(m->share[i] * tokens) + 1);
        c->value_at = (side_bytes(c->key_bits, s.head_dim) + 127) / 128 * 128;
        c->block_bytes = (c->value_at + side_bytes(c->value_bits, s.head_dim) + 127) / 128 * 128;
        size_t blocks = (size_t)s.layers * s.kv_heads * c->stride;
        CHECK(cudaMalloc(&c->base, blocks * c->block_bytes));
        fill_blocks<<<2048, 256>>>(c->base, blocks, c->block_bytes, 0, c->key_bits, s.head_dim,
                                   11 + i);
        fill_blocks<<<2048, 256>>>(c->base, blocks, c->block_bytes, c->value_at, c->value_bits,
                                   s.head_dim, 77 + i);
    }
    CHECK(cudaDeviceSynchronize());
}

// Sets how many tokens each class holds at a context; the last token of the largest is the new one.
static void layout_set(layout *l, const mix *m, int tokens) {
    double before = 0;
    l->new_class = 0;
    for (int i = 0; i < m->n; i++) {
        double after = i + 1 == m->n ? 1 : before + m->share[i];
        l->at[i].tokens = (int)(lround(after * tokens) - lround(before * tokens));
        before = after;
        if (l->at[i].tokens > l->at[l->new_class].tokens) l->new_class = i;
    }
    l->new_slot = l->at[l->new_class].tokens - 1;
}

static double layout_bytes(const layout *l, const shape &s) {
    double bytes = 0;
    for (int i = 0; i < l->n; i++)
        bytes += (double)l->at[i].tokens *
                 (side_bytes(l->at[i].key_bits, s.head_dim) + side_bytes(l->at[i].value_bits, s.head_dim)) / PAGE;
    return bytes * s.layers * s.kv_heads;
}

static void layout_fini(layout *l) {
    for (int i = 0; i < l->n; i++) CHECK(cudaFree(l->at[i].base));
}

#endif
