// SPDX-License-Identifier: Apache-2.0
// Decode steps of a batch of sequences over a cache by cell, each a CUDA graph. Products are those
// of cuBLAS in bf16, the same in all variants.
#ifndef KV_CELL_STEP_CUH
#define KV_CELL_STEP_CUH

#include "cell_control.cuh"
#include "shapes.cuh"

#include <cublas_v2.h>

#define CHECK_BLAS(call)                                                                           \
    do {                                                                                           \
        cublasStatus_t rc_ = (call);                                                               \
        if (rc_ != CUBLAS_STATUS_SUCCESS) {                                                        \
            fprintf(stderr, "kvsim-cuda-cells: %s: cuBLAS status %d\n", #call, (int)rc_);          \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

// ---- small kernels: a block a sequence, or a sequence and KV head ------------------------------

// Norm of x [sequences][n] in fp32 and bf16.
__global__ void normed(const float *x, int n, float *y, __nv_bfloat16 *z) {
    __shared__ float room[FINISH / 32];
    const float *row = x + (size_t)blockIdx.x * n;
    float squares = 0;
    for (int i = threadIdx.x; i < n; i += FINISH) squares += row[i] * row[i];
    const float scale = rsqrtf(block_sum(squares, room) / (float)n + 1e-5f);
    for (int i = threadIdx.x; i < n; i += FINISH) {
        const size_t at = (size_t)blockIdx.x * n + i;
        y[at] = row[i] * scale;
        z[at] = __float2bfloat16(row[i] * scale);
    }
}

// Rows [sequences][heads + 2 KV heads][DIM] as rotated queries [pairs][GROUP][DIM] and keys, and
// values [pairs][DIM].
template <int GROUP>
__global__ void rotate_rows(const float *qkv, int kv_heads, const int *tokens, float *query,
                            float *key, float *value) {
    const int sequence = blockIdx.x / kv_heads, head = blockIdx.x % kv_heads, i = threadIdx.x % DIM;
    const int of = threadIdx.x / DIM; // GROUP queries, then the key, then the value
    cudaTriggerProgrammaticLaunchCompletion();
    const float *row = qkv + (size_t)sequence * (GROUP + 2) * kv_heads * DIM;
    const float *x =
        of < GROUP ? row + (head * GROUP + of) * DIM : row + (of * kv_heads + head) * DIM;
    if (of == GROUP + 1) {
        value[blockIdx.x * DIM + i] = x[i];
        return;
    }
    const float turns = (float)*tokens * powf(10000.0f, -2.0f * (float)(i % (DIM / 2)) / DIM);
    float sine, cosine;
    sincosf(turns, &sine, &cosine);
    const float y =
        i < DIM / 2 ? x[i] * cosine - x[i + DIM / 2] * sine : x[i] * cosine + x[i - DIM / 2] * sine;
    if (of < GROUP)
        query[(blockIdx.x * GROUP + of) * DIM + i] = y;
    else
        key[blockIdx.x * DIM + i] = y;
}

// silu(gate) times up: rows [2 n] to [n].
__global__ void gated(const float *x, int n, __nv_bfloat16 *y) {
    const float *row = x + (size_t)blockIdx.y * 2 * n;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        y[(size_t)blockIdx.y * n + i] = __float2bfloat16(silu(row[i]) * row[n + i]);
}

// ---- a model -----------------------------------------------------------------------------------

struct batch_model {
    shape s;
    int sequences, grid, group;
    __nv_bfloat16 *qkv, *out, *gateup, *down, *head, *input16, *context, *ffn16;
    float *x0, *x, *input, *rows, *query, *key, *value, *gate, *logits, *partial, *features;
    float *weights[10]; // of the controller
    controller control;
    cudaStream_t stream;
    cublasHandle_t blas;
    void *workspace;
};

// Weights of a controller, seeded, of the true sizes, with values that let its choice fall on every
// width.
static void controller_init(batch_model *m) {
    const shape &s = m->s;
    const size_t heads = (size_t)s.layers * s.kv_heads, places = heads * 2;
    const size_t sizes[] = {places * DIM, places,          places * FEATURES, places * s.hidden,
                            places * NET, FEATURES * NET,  NET * NET,         NET,
                            NET,          heads * FEATURES};
    const float size[] = {0.5f, 3,    0.2f, 1 / sqrtf((float)s.hidden), 0.2f, 0.2f, 0.2f,
                          0.2f, 0.2f, 0.2f};
    for (int i = 0; i < 10; i++)
        m->weights[i] = noise_on_device(sizes[i], 100 + i, size[i], i == 0 || i == 9 ? 1 : 0);
    float *const *w = m->weights;
    m->control = {w[0], w[1], w[2], w[3], w[4], w[5],  w[6],
                  w[7], w[8], w[9], w[9], 0.1f, 1e-3f, true};
}

static void batch_init(batch_model *m, const shape &s, int sequences, int processors) {
    memset(m, 0, sizeof *m);
    m->s = s;
    m->sequences = sequences;
    m->grid = cell_grid(processors);
    m->group = s.heads / s.kv_heads;
    const size_t layers = s.layers, heads = (size_t)s.heads * DIM, b = sequences;
    const size_t pairs = b * s.kv_heads;
    m->qkv = new_weights(layers * qkv_rows(s), s.hidden, 1);
    m->out = new_weights(layers * s.hidden, heads, 2);
    m->gateup = new_weights(layers * 2 * s.ffn, s.hidden, 3);
    m->down = new_weights(layers * s.hidden, s.ffn, 4);
    m->head = new_weights(s.vocab, s.hidden, 5);
    m->input16 = new_weights(b, s.hidden, 6);
    m->context = new_weights(b, heads, 7);
    m->ffn16 = new_weights(b, s.ffn, 8);
    m->x0 = noise_on_device(b * s.hidden, 50, 1, 0);
    m->x = new_floats(b * s.hidden);
    m->input = new_floats(b * s.hidden);
    m->rows = new_floats(b * qkv_rows(s));
    m->query = new_floats(b * heads);
    m->key = new_floats(pairs * DIM);
    m->value = new_floats(pairs * DIM);
    m->gate = new_floats(b * 2 * s.ffn);
    m->logits = new_floats(b * s.vocab);
    m->partial = new_floats(pairs * parts_room((int)pairs, m->grid) * m->group * PART);
    m->features = new_floats(pairs * FEATURES);
    controller_init(m);
    const size_t room = (size_t)32 << 20;
    CHECK(cudaMalloc(&m->workspace, room));
    CHECK(cudaStreamCreate(&m->stream));
    CHECK_BLAS(cublasCreate(&m->blas));
    CHECK_BLAS(cublasSetStream(m->blas, m->stream));
    CHECK_BLAS(cublasSetWorkspace(m->blas, m->workspace, room));
    CHECK(cudaDeviceSynchronize());
}

static void batch_fini(batch_model *m) {
    void *owned[] = {m->qkv,   m->out,  m->gateup, m->down,    m->head,     m->input16,  m->context,
                     m->ffn16, m->x0,   m->x,      m->input,   m->rows,     m->query,    m->key,
                     m->value, m->gate, m->logits, m->partial, m->features, m->workspace};
    CHECK_BLAS(cublasDestroy(m->blas));
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) CHECK(cudaFree(owned[i]));
    for (int i = 0; i < 10; i++) CHECK(cudaFree(m->weights[i]));
    CHECK(cudaStreamDestroy(m->stream));
}

// y [sequences][rows] = keep y + x [sequences][cols] w^T, w [rows][cols].
static void batch_product(const batch_model *m, const __nv_bfloat16 *w, const __nv_bfloat16 *x,
                          float *y, int rows, int cols, float keep) {
    const float one = 1;
    CHECK_BLAS(cublasGemmEx(m->blas, CUBLAS_OP_T, CUBLAS_OP_N, rows, m->sequences, cols, &one, w,
                            CUDA_R_16BF, cols, x, CUDA_R_16BF, cols, &keep, y, CUDA_R_32F, rows,
                            CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

// What a step does about its cache. given: as in finish_job; no cache: the ceiling.
struct step_kind {
    const cells *c;
    int given;
    port_shares drawn;
};

template <int GROUP>
static void launch_layer_attention(const batch_model *m, const step_kind &k, int layer) {
    const shape &s = m->s;
    const int pairs = m->sequences * s.kv_heads;
    const attend_job a = {*k.c,     layer * pairs, pairs, parts_room(pairs, m->grid),
                          m->query, m->partial};
    rotate_rows<GROUP><<<pairs, (GROUP + 2) * DIM, 0, m->stream>>>(m->rows, s.kv_heads, k.c->tokens,
                                                                   m->query, m->key, m->value);
    launch_attend<GROUP>(a, m->grid, m->stream);
    const finish_job f = {a,        m->grid,    layer,       s.kv_heads, s.hidden, m->key, m->value,
                          m->input, m->context, m->features, m->control, k.given,  k.drawn};
    finish_cells<GROUP><<<pairs, FINISH, 0, m->stream>>>(f);
}

static void launch_batch_step(const batch_model *m, const step_kind &k) {
    const shape &s = m->s;
    const int heads = s.heads * DIM, rows = (int)qkv_rows(s), b = m->sequences;
    CHECK(cudaMemcpyAsync(m->x, m->x0, (size_t)b * s.hidden * 4, cudaMemcpyDeviceToDevice,
                          m->stream));
    for (int i = 0; i < s.layers; i++) {
        const size_t at = i;
        normed<<<b, FINISH, 0, m->stream>>>(m->x, s.hidden, m->input, m->input16);
        batch_product(m, m->qkv + at * rows * s.hidden, m->input16, m->rows, rows, s.hidden, 0);
        if (k.c && m->group == 3) launch_layer_attention<3>(m, k, i);
        if (k.c && m->group == 1) launch_layer_attention<1>(m, k, i);
        batch_product(m, m->out + at * s.hidden * heads, m->context, m->x, s.hidden, heads, 1);
        normed<<<b, FINISH, 0, m->stream>>>(m->x, s.hidden, m->input, m->input16);
        batch_product(m, m->gateup + at * 2 * s.ffn * s.hidden, m->input16, m->gate, 2 * s.ffn,
                      s.hidden, 0);
        gated<<<dim3((s.ffn + 255) / 256, b), 256, 0, m->stream>>>(m->gate, s.ffn, m->ffn16);
        batch_product(m, m->down + at * s.hidden * s.ffn, m->ffn16, m->x, s.hidden, s.ffn, 1);
    }
    normed<<<b, FINISH, 0, m->stream>>>(m->x, s.hidden, m->input, m->input16);
    batch_product(m, m->head, m->input16, m->logits, s.vocab, s.hidden, 0);
    if (k.c) advance<<<1, 1, 0, m->stream>>>(*k.c);
    CHECK(cudaGetLastError());
}

static cudaGraphExec_t capture_step(const batch_model *m, const step_kind &k) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK(cudaStreamBeginCapture(m->stream, cudaStreamCaptureModeThreadLocal));
    launch_batch_step(m, k);
    CHECK(cudaStreamEndCapture(m->stream, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    return exec;
}

// What a step changes of a cache besides pages, to be put back.
struct cells_state {
    uint32_t *count;
    unsigned int *used;
    int *tokens;
};
static cells_state state_of(const cells &c) {
    cells_state s;
    const size_t counts = (size_t)c.streams * SIDES * 8 * 4;
    CHECK(cudaMalloc(&s.count, counts));
    CHECK(cudaMalloc(&s.used, sizeof *s.used));
    CHECK(cudaMalloc(&s.tokens, sizeof *s.tokens));
    CHECK(cudaMemcpy(s.count, c.count, counts, cudaMemcpyDeviceToDevice));
    CHECK(cudaMemcpy(s.used, c.used, sizeof *s.used, cudaMemcpyDeviceToDevice));
    CHECK(cudaMemcpy(s.tokens, c.tokens, sizeof *s.tokens, cudaMemcpyDeviceToDevice));
    return s;
}
static void put_back(const cells &c, const cells_state &s, cudaStream_t stream) {
    CHECK(cudaMemcpyAsync(c.count, s.count, (size_t)c.streams * SIDES * 8 * 4,
                          cudaMemcpyDeviceToDevice, stream));
    CHECK(cudaMemcpyAsync(c.used, s.used, sizeof *s.used, cudaMemcpyDeviceToDevice, stream));
    CHECK(cudaMemcpyAsync(c.tokens, s.tokens, sizeof *s.tokens, cudaMemcpyDeviceToDevice, stream));
}
static void state_fini(cells_state *s) {
    CHECK(cudaFree(s->count));
    CHECK(cudaFree(s->used));
    CHECK(cudaFree(s->tokens));
}

#endif
