// SPDX-License-Identifier: Apache-2.0
// Exact replay on NVIDIA GPUs (engine.h): weights and formats stay on each GPU, lanes of a stream
// each run batches. Products in float32 (no TF32), or with bf16 weights and activations.
#include "sim/cuda/engine/attend.cuh"
#include "sim/cuda/engine/decide.cuh"
#include "sim/cuda/engine/head.cuh"
#include "sim/cuda/engine/lane.cuh"
#include "sim/cuda/engine/rows.cuh"

#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>

namespace {

#ifndef KV_BATCH
#define KV_BATCH 4
#endif
#ifdef KV_EMULATED
constexpr uint32_t PIECE = 16, HEAD_ROWS = 8, LANES = 1;
#else
#ifndef KV_PIECE // rows of a product
#define KV_PIECE 8192
#endif
#ifndef KV_HEAD_ROWS
#define KV_HEAD_ROWS 512
#endif
#ifndef KV_LANES // batches at once on a GPU: one computes while others copy
#define KV_LANES 2
#endif
constexpr uint32_t PIECE = KV_PIECE, HEAD_ROWS = KV_HEAD_ROWS, LANES = KV_LANES;
#endif

static_assert(sizeof(kv_engine_branch) == sizeof(KvBranch), "one layout");

char hardware[320] = "a GPU";

struct Layer {
    const float *attn_norm, *qkv_bias, *q_norm, *k_norm, *out_bias, *attn_post_norm, *ffn_norm,
        *gateup_bias, *down_bias, *ffn_post_norm;
    KvWeights qkv, out, gateup, down;
    uint32_t window, rope;
};

// Where bf16 products are more than ten times as fast as float32 ones: A100, H100, H200, B200.
bool faster_in_pieces(const cudaDeviceProp &p) {
#ifdef KV_NO_PIECES
    return false;
#endif
    return p.minor == 0 && p.major >= 8 && p.major <= 10;
}

// One GPU: the model's weights, deciders, free lanes with the formats.
struct Gpu {
    int index = 0;
    bool pieces = false; // float32 products are made of bf16 ones
    kv_engine_model m = {};
    std::vector<Layer> layers;
    const float *embed = nullptr, *final_norm = nullptr, *cos[2] = {}, *sin[2] = {};
    KvWeights head;
    std::vector<void *> owned;
    KvDeciders deciders;
    std::vector<std::unique_ptr<KvLane>> idle;

    ~Gpu() {
        cudaSetDevice(index);
        idle.clear();
        for (void *p : owned) cudaFree(p);
    }
    template <class T> T *own(size_t n) {
        T *p = nullptr;
        kv_try(cudaMalloc((void **)&p, n * sizeof(T)));
        owned.push_back(p);
        return p;
    }
    const float *copy(const float *from, size_t n) {
        if (!from) return nullptr;
        float *to = own<float>(n);
        kv_try(cudaMemcpy(to, from, n * sizeof(float), cudaMemcpyHostToDevice));
        return to;
    }
    KvWeights weights(const float *from, size_t n, size_t k, bool bf16) {
        KvWeights w;
        if (!bf16 && !(pieces && kv_chunk(k))) {
            w.f32 = copy(from, n * k);
            return w;
        }
        KvBuffer<float> wide;
        __nv_bfloat16 *to = own<__nv_bfloat16>(n * k * (bf16 ? 1 : KV_PIECES));
        kv_try(cudaMemcpy(wide.room(n * k), from, n * k * sizeof(float), cudaMemcpyHostToDevice));
        if (bf16)
            kv_narrow_all(wide.room(n * k), n * k, to, nullptr);
        else
            kv_cut_all(wide.room(n * k), n, k, false, to, nullptr);
        kv_try(cudaDeviceSynchronize());
        (bf16 ? w.bf16 : w.pieces) = to;
        return w;
    }
    void load(const kv_engine_model *from, bool bf16) {
        cudaDeviceProp p;
        kv_try(cudaGetDeviceProperties(&p, index));
        pieces = faster_in_pieces(p);
        m = *from;
        const size_t h = m.hidden, d = m.head_dim, n_q = (size_t)m.n_heads * d,
                     n_all = n_q + 2 * (size_t)m.n_kv_heads * d, ffn = m.ffn,
                     turns = (size_t)m.n_positions * d / 2;
        for (int i = 0; i < 2; i++) cos[i] = copy(from->cos[i], turns), sin[i] = copy(from->sin[i], turns);
        embed = copy(from->embed, (size_t)m.vocab * h);
        final_norm = copy(from->final_norm, h);
        if (!bf16 && !(pieces && kv_chunk(h)) && from->head == from->embed)
            head.f32 = embed;
        else
            head = weights(from->head, m.vocab, h, bf16);
        for (uint32_t l = 0; l < m.n_layers; l++) {
            const kv_engine_layer &w = from->layers[l];
            Layer to = {copy(w.attn_norm, h), copy(w.qkv_bias, n_all), copy(w.q_norm, d),
                        copy(w.k_norm, d), copy(w.out_bias, h), copy(w.attn_post_norm, h),
                        copy(w.ffn_norm, h), copy(w.gateup_bias, 2 * ffn), copy(w.down_bias, h),
                        copy(w.ffn_post_norm, h), weights(w.qkv, n_all, h, bf16),
                        weights(w.out, h, n_q, bf16), weights(w.gateup, 2 * ffn, h, bf16),
                        weights(w.down, h, ffn, bf16), w.window, w.rope};
            layers.push_back(to);
        }
        for (uint32_t i = 0; i < LANES; i++) idle.emplace_back(new KvLane);
    }
};

// A batch on its way through a lane.
class Batch {
  public:
    Batch(const Gpu &gpu, KvLane &lane, kv_engine_batch &batch) : g(gpu), m(gpu.m), l(lane), b(batch) {
        rows = (b.n_rows + PIECE - 1) / PIECE * (size_t)PIECE;
        kv_dim = m.n_kv_heads * m.head_dim;
        q_dim = m.n_heads * m.head_dim;
    }
    void run() {
        l.begin();
        bring();
        l.phase(KvLane::COPIES);
        KV_LAUNCH(kv_embed, dim3(b.n_rows), dim3(KV_ROW_THREADS), 0, l.stream, g.embed, ids, m.hidden,
                  m.embed_scale, x);
        for (uint32_t i = 0; i < m.n_layers; i++) layer(i);
        score();
        l.phase(KvLane::SCORES);
        fetch();
        l.phase(KvLane::COPIES);
    }

  private:
    const Gpu &g;
    const kv_engine_model &m;
    KvLane &l;
    kv_engine_batch &b;
    size_t rows;
    uint32_t kv_dim, q_dim;
    const uint32_t *ids, *position, *stored_as, *upto, *run_of, *copied, *scored;
    const uint8_t *flags;
    uint8_t *cells;
    KvDecide d;
    const kv_engine_branch *branches;
    const kv_engine_tile *tiles;
    const kv_engine_target *targets;
    const float *references;
    uint32_t *bad;
    uint32_t *top;
    uint8_t *not_finite;
    unsigned long long *tally;
    float *x, *norm, *qkv, *q, *k_raw, *k, *v, *k_exact, *v_exact, *k_coded, *v_coded, *mixed, *delta,
        *gateup, *act;
    double *kl, *logprob;

    // Rows that only pad are zeros, so that they stay finite.
    float *padded(KvBuffer<float> &to, size_t width) {
        float *p = to.room(rows * width);
        kv_try(cudaMemsetAsync(p + b.n_rows * width, 0, (rows - b.n_rows) * width * sizeof *p, l.stream));
        return p;
    }

    void bring() {
        cudaStream_t s = l.stream;
        const size_t n_cells = (size_t)m.n_layers * m.n_kv_heads * 2, stored = (size_t)b.n_stored * kv_dim;
        ids = l.ids.take(b.ids, b.n_rows, s);
        position = l.position.take(b.position, b.n_rows, s);
        stored_as = l.stored_as.take(b.stored_as, b.n_rows, s);
        upto = l.upto.take(b.coded_upto, 2 * (size_t)b.n_rows, s);
        run_of = l.run.take(b.run, b.n_stored, s);
        copied = l.copied.take(b.n_copied ? b.copied[0] : nullptr, 2 * (size_t)b.n_copied, s);
        flags = l.flags.take(b.flags, b.n_runs, s);
        cells = l.cells.take(b.cells, b.n_stored * n_cells, s);
        branches = l.branches.take(b.branches, b.n_branches, s);
        tiles = l.tiles.take(b.tiles, b.n_tiles, s);
        targets = l.targets.take(b.targets, b.n_targets, s);
        references = l.references.take(b.references, (size_t)b.n_references * m.hidden, s);
        scored = l.scored.take(b.scored, (size_t)b.n_slots * b.n_references, s);
        bad = l.bad.zeros(1, s);
        not_finite = l.not_finite.zeros(b.n_runs, s);
        tally = l.tally.zeros((size_t)b.n_runs * KV_MAX_WIDTHS * 256, s);
        top = l.top.room(((size_t)b.n_slots + 1) * b.n_references + HEAD_ROWS);
        kl = l.kl.room((size_t)b.n_slots * b.n_references + HEAD_ROWS);
        logprob = l.logprob.room(((size_t)b.n_slots + 1) * b.n_targets + 1);
        x = padded(l.x, m.hidden);
        norm = padded(l.norm, m.hidden);
        mixed = padded(l.mixed, q_dim);
        act = padded(l.act, m.ffn);
        qkv = l.qkv.room(rows * (q_dim + 2 * kv_dim));
        q = l.q.room(rows * q_dim);
        delta = l.delta.room(rows * m.hidden);
        gateup = l.gateup.room(rows * 2 * m.ffn);
        k_raw = l.k_raw.room(stored), k = l.k.room(stored), v = l.v.room(stored);
        k_coded = l.k_coded.room(stored), v_coded = l.v_coded.room(stored);
        k_exact = v_exact = nullptr;
        if (b.reads_exact) k_exact = l.k_exact.room(stored), v_exact = l.v_exact.room(stored);
        if (b.n_decided) bring_decisions();
    }

    // What deciding on the way needs of every layer, and room for what it finds.
    void bring_decisions() {
        cudaStream_t s = l.stream;
        const KvDeciders &by = g.deciders;
        const size_t stored = (size_t)b.n_stored * kv_dim, layer_cells = (size_t)b.n_stored * 2 * m.n_kv_heads,
                     n_cells = layer_cells * m.n_layers;
        d = KvDecide();
        d.deciders = by.at, d.branches = branches, d.tried = by.tried, d.n_tried = by.n_tried;
        d.decisions = l.decided.decisions.take(b.decisions, b.n_decided, s);
        d.known = l.decided.known.take(b.known, b.n_known, s);
        d.q = q, d.input = norm, d.k = k, d.v = v, d.cells = cells;
        d.n_layers = m.n_layers, d.n_heads = m.n_heads, d.n_kv_heads = m.n_kv_heads;
        d.head_dim = m.head_dim, d.hidden = m.hidden, d.n_stored = b.n_stored;
        d.coded_k = l.decided.coded_k.room(by.n_tried * stored);
        l.decided.coded_v.room(stored);
        d.error = l.decided.error.room(by.n_tried * layer_cells);
        d.fact = l.decided.fact.room(2 * layer_cells);
        d.seen = l.decided.seen.room(stored);
        d.scan = (KvScan *)l.decided.scan.room((size_t)b.n_stored * m.n_heads * sizeof(KvScan) / sizeof(float));
        d.memory = l.decided.memory.room(b.n_decided);
        d.no_number = l.decided.no_number.zeros(2 * (size_t)b.n_decided, s);
        uint8_t *widths = l.decided.widths.room(by.n_tried * n_cells);
        for (uint32_t w = 0, slot = 0; w < KV_MAX_WIDTHS; w++)
            if (by.tried >> w & 1)
                kv_try(cudaMemsetAsync(widths + slot++ * n_cells, (int)w, n_cells, s));
    }

    void layer(uint32_t i) {
        const Layer &w = g.layers[i];
        const dim3 row(b.n_rows), threads(KV_ROW_THREADS);
        cudaStream_t s = l.stream;
        KV_LAUNCH(kv_norm, row, threads, 0, s, x, w.attn_norm, m.hidden, m.rms_eps, norm);
        l.phase(KvLane::ROWS);
        l.product(w.qkv, norm, rows, q_dim + 2 * kv_dim, m.hidden, qkv, PIECE);
        l.phase(KvLane::PRODUCTS);
        KvSplit split = {m.n_heads, m.n_kv_heads, m.head_dim, m.pairwise, m.rms_eps, m.query_scale,
                         w.qkv_bias, w.q_norm, w.k_norm, g.cos[w.rope], g.sin[w.rope], position,
                         stored_as, qkv, q, k_raw, k, v};
        KV_LAUNCH(kv_split, row, threads, 0, s, split);
        l.phase(KvLane::ROWS);
        if (b.n_copied)
            KV_LAUNCH(kv_copy_rows, dim3(b.n_copied), threads, 0, s, copied, kv_dim, k_raw, k, v);
        if (b.n_decided) decide(i, w);
        l.phase(KvLane::DECISIONS);
        store(i, w);
        l.phase(KvLane::CODES);
        attend(i, w);
        l.phase(KvLane::ATTENTION);
        l.product(w.out, mixed, rows, m.hidden, q_dim, delta, PIECE);
        l.phase(KvLane::PRODUCTS);
        KV_LAUNCH(kv_add, row, threads, 0, s, delta, w.out_bias, w.attn_post_norm, m.hidden, m.rms_eps, x);
        KV_LAUNCH(kv_norm, row, threads, 0, s, x, w.ffn_norm, m.hidden, m.rms_eps, norm);
        l.phase(KvLane::ROWS);
        l.product(w.gateup, norm, rows, 2 * (size_t)m.ffn, m.hidden, gateup, PIECE);
        l.phase(KvLane::PRODUCTS);
        KV_LAUNCH(kv_gate, row, threads, 0, s, gateup, w.gateup_bias, m.ffn, m.gelu, act);
        l.phase(KvLane::ROWS);
        l.product(w.down, act, rows, m.hidden, m.ffn, delta, PIECE);
        l.phase(KvLane::PRODUCTS);
        KV_LAUNCH(kv_add, row, threads, 0, s, delta, w.down_bias, w.ffn_post_norm, m.hidden, m.rms_eps, x);
        kv_try(cudaGetLastError());
    }

    void code(uint32_t i, int side, const float *from, float *to, uint32_t first, uint32_t n) {
        KvCode job = {};
        job.layer = i, job.side = side, job.x = from, job.y = to, job.cells = cells;
        job.tally = tally, job.bad = bad, job.rows = b.n_stored, job.longest = b.longest;
        kv_try((cudaError_t)kv_cuda_code_rows(l.formats, &job, (const KvBranch *)branches + first, n,
                                              l.stream));
    }

    // Codes all branches that are decided at each width that matters, and takes the errors.
    void try_widths(uint32_t i) {
        const size_t stored = (size_t)b.n_stored * kv_dim,
                     n_cells = (size_t)b.n_stored * m.n_layers * m.n_kv_heads * 2;
        const dim3 grid(b.n_decided, (b.longest + 31) / 32), threads(32 * KV_FACT_WARPS);
        for (uint32_t w = 0, slot = 0; w < KV_MAX_WIDTHS; w++) {
            if (!(d.tried >> w & 1)) continue;
            for (int side = 0; side < 2; side++) {
                KvCode job = {};
                job.layer = i, job.side = side, job.x = side ? v : k, job.rows = b.n_stored;
                job.y = side ? l.decided.coded_v.room(stored) : l.decided.coded_k.room(stored) + slot * stored;
                job.cells = l.decided.widths.room(n_cells) + slot * n_cells;
                job.longest = b.longest;
                kv_try((cudaError_t)kv_cuda_code_rows(l.formats, &job, (const KvBranch *)branches, b.n_decided,
                                                      l.stream));
                KV_LAUNCH(kv_try_width, grid, threads, 0, l.stream, d, (uint32_t)side, w, job.y);
            }
            slot++;
        }
    }

    // Tile after tile of branches [first, first + n).
    void decide_branches(uint32_t first, uint32_t n) {
        const uint32_t cells_of_layer = 2 * m.n_kv_heads,
                       asked = m.n_heads > cells_of_layer ? m.n_heads : cells_of_layer,
                       warps = asked < KV_DECIDE_WARPS ? asked : (uint32_t)KV_DECIDE_WARPS;
        const size_t scan_bytes = kv_scan_bytes(m.head_dim),
                     bytes = kv_decide_bytes(cells_of_layer, m.n_heads, g.deciders.most_hidden, warps);
        const dim3 scan_grid(n, m.n_kv_heads * kv_scan_parts(m.n_heads / m.n_kv_heads));
        uint32_t longest = 0;
        for (uint32_t i = first; i < first + n; i++)
            longest = b.branches[i].n > longest ? b.branches[i].n : longest;
        if (n == 0) return;
#ifndef KV_EMULATED
        kv_try(cudaFuncSetAttribute(kv_scan, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)scan_bytes));
        kv_try(cudaFuncSetAttribute(kv_decide_tile, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
#endif
        for (uint32_t tile = 0; tile == 0 || tile * KV_DECIDE_TOKENS < longest; tile++) {
            const bool scanned = tile > 0 || first > 0;
            if (scanned)
                KV_LAUNCH(kv_scan, scan_grid, dim3(32 * KV_SCAN_WARPS), scan_bytes, l.stream, d, first, tile);
            KV_LAUNCH(kv_decide_tile, dim3(n), dim3(32 * warps), bytes, l.stream, d, first, tile, (uint32_t)scanned);
        }
    }

    void decide(uint32_t i, const Layer &w) {
        d.layer = i, d.window = w.window;
        try_widths(i);
        KV_LAUNCH(kv_facts, dim3(b.n_decided, (b.longest + 31) / 32), dim3(32 * KV_FACT_WARPS), 0, l.stream, d);
        decide_branches(0, b.n_decided_contexts);
        decide_branches(b.n_decided_contexts, b.n_decided - b.n_decided_contexts);
    }

    void store(uint32_t i, const Layer &w) {
        const dim3 threads(KV_ROW_THREADS), stored(b.n_stored);
        const uint32_t after = b.n_branches - b.n_before_rope;
        if (b.reads_exact) {
            KV_LAUNCH(kv_round, stored, threads, 0, l.stream, k, v, run_of, flags, kv_dim, k_exact, v_exact);
            KV_LAUNCH(kv_check, stored, threads, 0, l.stream, k_exact, v_exact, run_of, flags, KV_ENGINE_READS_EXACT, kv_dim, not_finite);
        }
        if (b.n_branches == 0) return;
        // Rows of runs that code nothing are compared as if coded: exact, so that nothing stale is.
        if (b.reads_exact) {
            kv_try(cudaMemcpyAsync(k_coded, k, (size_t)b.n_stored * kv_dim * sizeof *k, cudaMemcpyDeviceToDevice, l.stream));
            kv_try(cudaMemcpyAsync(v_coded, v, (size_t)b.n_stored * kv_dim * sizeof *k, cudaMemcpyDeviceToDevice, l.stream));
        }
        code(i, 0, k, k_coded, 0, after);
        if (b.n_before_rope) {
            code(i, 0, k_raw, k_coded, after, b.n_before_rope);
            KV_LAUNCH(kv_turn_branches, dim3(b.n_before_rope), threads, 0, l.stream, branches + after,
                      m.n_kv_heads, m.head_dim, m.pairwise, g.cos[w.rope], g.sin[w.rope], k_coded);
        }
        code(i, 1, v, v_coded, 0, b.n_branches);
        KV_LAUNCH(kv_check, stored, threads, 0, l.stream, k_coded, v_coded, run_of, flags, 0u, kv_dim, not_finite);
    }

    template <int D> void attend_heads(const KvAttend &a) {
#ifndef KV_EMULATED
        kv_try(cudaFuncSetAttribute(kv_attend<D>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    (int)kv_attend_bytes<D>()));
#endif
        KV_LAUNCH(kv_attend<D>, dim3(b.n_tiles, m.n_kv_heads), dim3(KV_TILE_THREADS), kv_attend_bytes<D>(),
                  l.stream, a);
    }
    void attend(uint32_t i, const Layer &w) {
        KvAttend a = {tiles, q, {k_exact, k_coded}, {v_exact, v_coded}, upto, cells, i, m.n_layers,
                      m.n_heads, m.n_kv_heads, w.window, mixed};
        switch (m.head_dim) {
        case 16: return attend_heads<16>(a);
        case 32: return attend_heads<32>(a);
        case 64: return attend_heads<64>(a);
        case 80: return attend_heads<80>(a);
        case 96: return attend_heads<96>(a);
        case 128: return attend_heads<128>(a);
        case 256: return attend_heads<256>(a);
        }
    }

    void score() {
        const dim3 threads(KV_HEAD_THREADS), n(HEAD_ROWS), some((b.n_targets + 255) / 256), few(256);
        cudaStream_t s = l.stream;
        float *reference = l.reference_logits.room((size_t)HEAD_ROWS * m.vocab),
              *logits = l.logits.room((size_t)HEAD_ROWS * m.vocab),
              *state = l.state.room((size_t)HEAD_ROWS * m.hidden),
              *likeliest = l.likeliest.room(HEAD_ROWS);
        double *log_z = l.log_z.room(HEAD_ROWS), *sum_p = l.sum_p.room(HEAD_ROWS),
               *log_ratio = l.log_ratio.room(HEAD_ROWS);
        for (uint32_t first = 0; first < b.n_references; first += HEAD_ROWS) {
            const uint32_t have = b.n_references - first < HEAD_ROWS ? b.n_references - first : HEAD_ROWS;
            kv_try(cudaMemsetAsync(state, 0, (size_t)HEAD_ROWS * m.hidden * sizeof *state, s));
            kv_try(cudaMemcpyAsync(state, references + (size_t)first * m.hidden,
                                   (size_t)have * m.hidden * sizeof *state, cudaMemcpyDeviceToDevice, s));
            l.product(g.head, state, HEAD_ROWS, m.vocab, m.hidden, reference, HEAD_ROWS);
            KV_LAUNCH(kv_reference_sums, n, threads, 0, s, reference, state, m.vocab, m.hidden, log_z, sum_p,
                      likeliest);
            KV_LAUNCH(kv_targets, some, few, 0, s, targets, b.n_targets, first, have, (const float *)nullptr,
                      reference, log_z, (const double *)nullptr, m.vocab, logprob + (size_t)b.n_slots * b.n_targets);
            for (uint32_t slot = 0; slot < b.n_slots; slot++) {
                const size_t at = (size_t)slot * b.n_references;
                KV_LAUNCH(kv_final_rows, n, dim3(KV_ROW_THREADS), 0, s, scored + at, x, references, g.final_norm,
                          b.n_references, m.hidden, m.rms_eps, first, state);
                l.product(g.head, state, HEAD_ROWS, m.vocab, m.hidden, logits, HEAD_ROWS);
                KV_LAUNCH(kv_compare, dim3(have), threads, 0, s, logits, state, reference, log_z, sum_p, likeliest, m.vocab,
                          m.hidden, kl + at + first, log_ratio, top + at + first,
                          top + (size_t)b.n_slots * b.n_references + first);
                KV_LAUNCH(kv_targets, some, few, 0, s, targets, b.n_targets, first, have, logits, reference, log_z,
                          log_ratio, m.vocab, logprob + (size_t)slot * b.n_targets);
            }
        }
        kv_try(cudaGetLastError());
    }

    template <class T> void back(T *to, const T *from, size_t n) {
        if (n) kv_try(cudaMemcpyAsync(to, from, n * sizeof *to, cudaMemcpyDeviceToHost, l.stream));
    }
    void fetch() {
        back(b.kl_nats, kl, (size_t)b.n_slots * b.n_references);
        back(b.top, top, ((size_t)b.n_slots + 1) * b.n_references);
        back(b.logprob, logprob, (size_t)b.n_slots * b.n_targets);
        back(b.logprob_ref, logprob + (size_t)b.n_slots * b.n_targets, b.n_targets);
        back(b.not_finite, not_finite, b.n_runs);
        back((unsigned long long *)b.tally, tally, (size_t)b.n_runs * KV_MAX_WIDTHS * 256);
        back(&b.bad, bad, 1);
        if (b.n_decided) {
            back(b.cells, cells, (size_t)b.n_stored * m.n_layers * m.n_kv_heads * 2);
            back(b.no_number[0], d.no_number, 2 * (size_t)b.n_decided);
        }
        kv_try(cudaStreamSynchronize(l.stream));
    }
};

struct Engine {
    std::vector<std::unique_ptr<Gpu>> gpus;
    std::mutex lock;
    std::condition_variable freed;

    // The lane of the GPU that has most of them free.
    Gpu *take(std::unique_ptr<KvLane> &lane) {
        std::unique_lock<std::mutex> held(lock);
        for (;;) {
            Gpu *best = nullptr;
            for (auto &g : gpus)
                if (!best || g->idle.size() > best->idle.size()) best = g.get();
            if (!best->idle.empty()) {
                lane = std::move(best->idle.back());
                best->idle.pop_back();
                return best;
            }
            freed.wait(held);
        }
    }
    void give(Gpu *g, std::unique_ptr<KvLane> lane) {
        std::lock_guard<std::mutex> held(lock);
        g->idle.push_back(std::move(lane));
        freed.notify_one();
    }
};

template <class F> int said(char *why, size_t room, F f) {
    try {
        f();
        return 0;
    } catch (const std::exception &e) {
        snprintf(why, room, "%s", e.what());
        return 1;
    }
}

bool computes(uint32_t d) {
    return d == 16 || d == 32 || d == 64 || d == 80 || d == 96 || d == 128 || d == 256;
}

// Products that a batch best has rows for: KV_BATCH, or what each GPU's lanes have memory for. Half of it is left to logits and
// to decisions in the pass.
uint32_t products_that_fit(const Engine &e) {
    size_t most = KV_BATCH;
    for (const auto &g : e.gpus) {
        const kv_engine_model &m = g->m;
        const size_t q_dim = (size_t)m.n_heads * m.head_dim, kv_dim = (size_t)m.n_kv_heads * m.head_dim,
                     row = sizeof(float) * (3 * (size_t)m.hidden + 3 * q_dim + 9 * kv_dim + 3 * (size_t)m.ffn);
        size_t free, total;
        kv_try(cudaSetDevice(g->index));
        kv_try(cudaMemGetInfo(&free, &total));
        const size_t fit = free / 2 / LANES / (row * PIECE);
        if (fit < most) most = fit;
    }
    return most ? (uint32_t)most : 1;
}

kv_engine engine;

int open(void **self, const kv_engine_model *m, bool bf16, char *why, size_t room) {
    return said(why, room, [&] {
        int n = 0, version = 0;
        cudaDeviceProp p;
        if (!computes(m->head_dim))
            throw std::runtime_error("heads of " + std::to_string(m->head_dim) +
                                     " channels are not computed there");
        if (m->n_heads / m->n_kv_heads > KV_TILE_QUERIES)
            throw std::runtime_error("too many query heads share a KV head");
        kv_try(cudaGetDeviceCount(&n));
        auto e = std::make_unique<Engine>();
        for (int i = 0; i < n; i++) {
            kv_try(cudaSetDevice(i));
            e->gpus.emplace_back(new Gpu);
            e->gpus.back()->index = i;
            e->gpus.back()->load(m, bf16);
        }
        engine.rows = products_that_fit(*e) * PIECE / 2;
        kv_try(cudaGetDeviceProperties(&p, 0));
        kv_try(cublasGetVersion(e->gpus[0]->idle[0]->blas, &version));
        // Not how many there are: rows do not depend on it.
        snprintf(hardware, sizeof hardware, "%s, cuBLAS %d.%d.%d%s", p.name, version / 10000, version / 100 % 100,
                 version % 100, !bf16 && e->gpus[0]->pieces ? ", float32 in bf16 pieces" : "");
        *self = e.release();
    });
}

int hold(void *self, const kv_plain_format *formats, uint32_t n, const float *turns,
         uint32_t n_positions, char *why, size_t room) {
    return said(why, room, [&] {
        for (auto &g : static_cast<Engine *>(self)->gpus) {
            kv_try(cudaSetDevice(g->index));
            for (auto &lane : g->idle) // each has its own, as some formats write beside them
                lane->hold(formats, n, turns, n_positions);
        }
    });
}

int hold_deciders(void *self, const kv_plain_cells *deciders, uint32_t n, char *why, size_t room) {
    return said(why, room, [&] {
        for (auto &g : static_cast<Engine *>(self)->gpus) {
            kv_try(cudaSetDevice(g->index));
            g->deciders.hold(deciders, n);
        }
    });
}

int run(void *self, kv_engine_batch *b, char *why, size_t room) {
    auto *e = static_cast<Engine *>(self);
    std::unique_ptr<KvLane> lane;
    Gpu *g = e->take(lane);
    int rc = said(why, room, [&] {
        kv_try(cudaSetDevice(g->index));
        Batch(*g, *lane, *b).run();
    });
    e->give(g, std::move(lane));
    return rc;
}

void close(void *self) {
    delete static_cast<Engine *>(self);
}

} // namespace

extern "C" const struct kv_engine *kv_engine_entry(uint32_t abi) {
    engine = {KV_ENGINE_ABI, hardware, KV_BATCH * PIECE / 2, open, hold, hold_deciders, run, close};
    return abi == KV_ENGINE_ABI ? &engine : nullptr;
}
