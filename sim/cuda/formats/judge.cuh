// SPDX-License-Identifier: Apache-2.0
// What judges a device's formats: the vectors of sim/test/conformance, and units and rows of
// branches of random and awkward numbers, as sim/quant codes them. A device is a class with
//
//     void units(const kv_plain_format &f, uint32_t side, uint32_t width, size_t n, const float *x,
//                float *y, uint8_t *code, uint8_t *bytes);
//     void rows(const std::vector<kv_plain_format> &f, const std::vector<float> &turns,
//               uint32_t positions, KvCode &job, const std::vector<KvBranch> &branches);
//
// of host memory. Each check returns "" or what is wrong, in a sentence.
#ifndef KV_CUDA_FORMATS_JUDGE_CUH
#define KV_CUDA_FORMATS_JUDGE_CUH

#include "sim/cuda/formats/rows.cuh"

extern "C" {
#include "sim/base/files.h"
#include "sim/quant/code.h"
}
#include <stdlib.h>
#include <string>
#include <vector>
#include <zlib.h>

static const char *const kv_judged_specs[] = {"sym",
                                              "sym:group=16",
                                              "sym:group=layer",
                                              "sym:scale=fp32",
                                              "sym:levels=max3",
                                              "asym",
                                              "asym:group=32,sinks=2",
                                              "asym:group=layer",
                                              "asym:scale=fp32,window=5",
                                              "asym:order=hf",
                                              "asym-zp",
                                              "asym-zp:way=rotatekv,clip=0.9",
                                              "asym-zp:group=layer",
                                              "asym-zp:order=ggml",
                                              "kivi:group=8,residual=8",
                                              "kivi:group=4,residual=16,sinks=3",
                                              "qaq",
                                              "qaq:outliers=0",
                                              "qaq:group=layer",
                                              "qaq:outliers=0.2",
                                              "rotatekv",
                                              "rotatekv:heads=2,clip=0.7",
                                              "turbo",
                                              "nf4",
                                              "nf4:group=16",
                                              "nf4:group=layer",
                                              "fp8_e4m3",
                                              "fp8_e4m3:scale=head",
                                              "fp8_e5m2",
                                              "fp8_e5m2:scale=head",
                                              "fp16",
                                              "bf16",
                                              "ggml",
                                              "ggml:types=1",
                                              "ggml:types=nl",
                                              "q8_0",
                                              "q5_0",
                                              "q5_1",
                                              "q4_0",
                                              "q4_1",
                                              "iq4_nl",
                                              "hadamard(q4_0)",
                                              "hadamard(asym:group=16)",
                                              "hadamard(kivi:group=4,residual=4)",
                                              "hadamard(hadamard(sym:group=layer))",
                                              "hadamard(rotatekv:heads=2)",
                                              "hadamard(turbo)",
                                              "hadamard(sym):sides=k",
                                              "center(asym)",
                                              "center(q4_0):tokens=5,sides=both",
                                              "center(sym:sinks=1):side=pre,tokens=7",
                                              "center(hadamard(q8_0)):sides=v",
                                              "center(asym:group=layer):tokens=100",
                                              "center(asym-zp):side=pre",
                                              "center(rotatekv):side=pre",
                                              "hqq",
                                              "hqq:group=16,steps=3",
                                              "hqq:order=ggml,group=2",
                                              "hqq:steps=0,sinks=3",
                                              "hadamard(hqq)",
                                              "zipcache",
                                              "zipcache:gap=3",
                                              "zipcache:gap=2,sinks=2"};
enum { KV_N_JUDGED = sizeof kv_judged_specs / sizeof *kv_judged_specs };

enum { KV_JUDGE_HEADS = 4, KV_JUDGE_LAYERS = 2, KV_JUDGE_POSITIONS = 64 };

// ---- numbers
// -------------------------------------------------------------------------------------

struct KvDice {
    uint64_t state = 1;
    uint32_t bits() {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        return (uint32_t)(state >> 32);
    }
    float uniform() { return (float)(bits() >> 8) * 0x1p-24f - 0.5f; }
    // What values look like: usual, on rounding boundaries, constant, with outliers, subnormal,
    // huge, zeros of both signs, small, any bits that are a number.
    enum { KINDS = 9 };
    float value(uint32_t kind, size_t i) {
        float x = kv_float(bits());
        switch (kind) {
        case 0:
            return uniform() + uniform() + uniform();
        case 1:
            return (float)(int)(bits() % 64) * 0.5f - 16.0f;
        case 2:
            return 3.25f;
        case 3:
            return i % 61 == 7 ? 300.0f * uniform() : uniform();
        case 4:
            return uniform() * 1e-39f;
        case 5:
            return uniform() * 1e7f;
        case 6:
            return bits() & 1 ? 0.0f : -0.0f;
        case 7:
            return uniform() * 4e-5f;
        default:
            return x == x && fabsf(x) < 3e38f ? x : 1.0f;
        }
    }
};

struct KvOpened {
    kv_format *f = nullptr;
    kv_plain_format plain = {};
    std::vector<double> angles;
    std::vector<float> turns; // [n_layers][positions][d]
    std::string why;
    KvOpened(const char *text, uint32_t layers, uint32_t heads, uint32_t d, kv_order order,
             double base, uint32_t positions) {
        kv_error e = {};
        for (uint32_t l = 0; l < layers; l++)
            for (uint32_t i = 0; i < d / 2; i++)
                angles.push_back(pow(base + 5000.0 * l, -2.0 * i / d));
        turns.resize((size_t)layers * positions * d);
        for (uint32_t l = 0; l < layers; l++)
            kv_plain_turns(&angles[l * (d / 2)], d, positions, &turns[(size_t)l * positions * d]);
        kv_format_setting s = {};
        s.shape.n_layers = layers;
        s.shape.n_heads = s.shape.n_kv_heads = heads;
        s.shape.head_dim = d;
        s.order = order;
        s.rope = angles.data();
        if (kv_format_open(&f, text, &s, &e) || kv_format_plain(f, &plain, &e))
            why = std::string(text) + ": " + e.msg;
    }
    KvOpened(const KvOpened &) = delete;
    ~KvOpened() { kv_format_close(f); }
};

__attribute__((format(printf, 1, 2))) static inline std::string kv_wrong(const char *format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return text;
}

// Of NaN the sign is the processor's: what no format defines.
static inline std::string kv_same_bits(const char *spec, const char *what, const float *want,
                                       const float *is, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (kv_bits(want[i]) != kv_bits(is[i]) && !(kv_nan(want[i]) && kv_nan(is[i])))
            return kv_wrong("%s, %s: value %zu is %a, not %a", spec, what, i, (double)is[i],
                            (double)want[i]);
    return "";
}

// ---- units
// ---------------------------------------------------------------------------------------

template <class D>
std::string kv_judge_units(D &device, const char *text, const KvOpened &s, uint32_t side,
                           uint32_t w, uint32_t kind, size_t n, KvDice &dice) {
    const kv_plain_width &width = s.plain.at[side][w];
    const kv_block block = {1, (kv_side)side, w};
    std::vector<float> x(n * width.values), y(x.size()), own_y(x.size());
    std::vector<uint8_t> bytes(n * width.bytes), own(bytes), code(x.size()), own_code(code);
    for (size_t i = 0; i < x.size(); i++) x[i] = dice.value(kind, i);
    kv_format_encode(s.f, &block, x.data(), n, bytes.data());
    kv_format_decode(s.f, &block, bytes.data(), n, y.data());
    const bool coded = width.bits <= 8 && s.f->type->codes;
    if (coded) s.f->type->codes(s.f, &block, bytes.data(), n, code.data());
    device.units(s.plain, side, w, n, x.data(), own_y.data(), own_code.data(), own.data());
    std::vector<bool> none(n); // units that hold a NaN, whose sign and payload are the processor's
    for (size_t i = 0; i < y.size(); i++)
        if (kv_nan(y[i])) none[i / width.values] = true;
    for (size_t i = 0; i < bytes.size(); i++)
        if (own[i] != bytes[i] && !none[i / width.bytes])
            return kv_wrong("%s, side %u, %u bits, numbers of kind %u: byte %zu of unit %zu is %u, "
                            "not %u",
                            text, side, width.bits, kind, i % width.bytes, i / width.bytes, own[i],
                            bytes[i]);
    for (size_t i = 0; coded && i < code.size(); i++)
        if (code[i] != own_code[i] && !none[i / width.values])
            return kv_wrong("%s, side %u, %u bits: codes differ", text, side, width.bits);
    return kv_same_bits(text, "a unit", y.data(), own_y.data(), y.size());
}

template <class D>
std::string kv_judge_all_units(D &device, size_t n, uint32_t dims, const uint32_t *dim) {
    KvDice dice;
    for (const char *text : kv_judged_specs)
        for (uint32_t k = 0; k < dims; k++) {
            if (dim[k] & (dim[k] - 1) && strstr(text, "turbo")) continue; // a power of two alone
            KvOpened s(text, KV_JUDGE_LAYERS, KV_JUDGE_HEADS, dim[k], KV_ORDER_GGML, 1e4,
                       KV_JUDGE_POSITIONS);
            if (!s.why.empty()) return s.why;
            for (uint32_t side = 0; !s.plain.tensor && side < 2; side++)
                for (uint32_t w = 0; w < s.plain.n_widths; w++)
                    for (uint32_t kind = 0; kind < KvDice::KINDS; kind++) {
                        std::string why = kv_judge_units(device, text, s, side, w, kind, n, dice);
                        if (!why.empty()) return why;
                    }
        }
    return "";
}

// ---- rows of branches
// ----------------------------------------------------------------------------

// Decisions of a branch: cells of a unit agree; some are float32 and some evicted.
static inline void kv_judge_decide(const kv_plain_format &f, uint32_t n, uint32_t start, bool one,
                                   KvDice &dice, uint8_t *cells) {
    const uint32_t heads = f.n_kv_heads, per_token = f.n_layers * heads * 2;
    for (uint32_t side = 0; side < 2; side++) {
        uint32_t tokens = f.unit_tokens[side], base = start > f.sinks ? start : f.sinks;
        for (uint32_t row = 0; row < n; row++)
            for (uint32_t l = 0; l < f.n_layers; l++)
                for (uint32_t h = 0; h < heads; h++) {
                    uint8_t *at = cells + row * per_token + (l * heads + h) * 2 + side;
                    uint32_t k = start + row < base ? 0 : (start + row - base) % tokens;
                    uint32_t c = one ? f.n_widths / 2 : dice.bits() % (f.n_widths + 1);
                    *at = (uint8_t)(c == f.n_widths ? KV_FLOAT32 : c);
                    if (k || h % f.unit_heads) // as the unit's first cell
                        *at = *(at - k * per_token - h % f.unit_heads * 2);
                }
    }
    for (size_t i = 0; !one && i < (size_t)n * per_token; i++)
        if (dice.bits() % 16 == 0) cells[i] = KV_EVICT;
}

// Runs of several specs in one batch, coded once and then again from what was read, which is how a
// prompt is handed on.
template <class D>
std::string kv_judge_batch(D &device, uint32_t first_spec, uint32_t n_specs, kv_order order,
                           uint32_t side, uint32_t kind, bool one, KvDice &dice) {
    enum { N = 4, ROWS = 77, CONTEXT = 53, HEAD = 64, DIM = KV_JUDGE_HEADS * HEAD };
    const uint32_t layer = 1, first[] = {CONTEXT, 64, 65, ROWS};
    const size_t per_token = KV_JUDGE_LAYERS * KV_JUDGE_HEADS * 2;
    const uint32_t positions = 128;
    std::vector<KvOpened *> open;
    std::vector<kv_plain_format> plain;
    std::vector<KvBranch> branches;
    std::vector<float> x((size_t)n_specs * ROWS * DIM), y(x.size()), own(x.size());
    std::vector<uint8_t> cells((size_t)n_specs * ROWS * per_token);
    std::vector<uint64_t> histogram((size_t)n_specs * 256 * KV_MAX_WIDTHS);
    std::vector<unsigned long long> tally(histogram.size());
    std::string why;
    for (size_t i = 0; i < x.size(); i++) x[i] = dice.value(kind, i);
    for (uint32_t s = 0; s < n_specs; s++) {
        KvOpened *o = new KvOpened(kv_judged_specs[first_spec + s], KV_JUDGE_LAYERS, KV_JUDGE_HEADS,
                                   HEAD, order, 1e4, positions);
        open.push_back(o);
        if (why.empty()) why = o->why;
        plain.push_back(o->plain);
        for (uint32_t b = 0; b < N; b++) {
            uint32_t row = b ? first[b - 1] : 0, n = b ? first[b] - row : (uint32_t)CONTEXT,
                     start = b ? (uint32_t)CONTEXT : 0;
            branches.push_back(
                KvBranch{s * ROWS + row, n, start, s, s * ROWS, (uint32_t)CONTEXT, s});
            if (why.empty())
                kv_judge_decide(o->plain, n, start, one, dice,
                                &cells[(s * ROWS + row) * per_token]);
        }
    }
    uint32_t bad = 0;
    KvCode job = {};
    job.layer = layer, job.side = (int)side, job.x = x.data(), job.y = own.data();
    job.cells = cells.data(), job.tally = tally.data(), job.bad = &bad;
    job.rows = n_specs * ROWS, job.longest = CONTEXT;
    for (uint32_t hop = 0; hop < 2 && why.empty(); hop++) {
        device.rows(plain, open[0]->turns, positions, job, branches);
        if (bad) why = kv_wrong("row %u is refused", bad - 1);
        for (uint32_t s = 0; s < n_specs && why.empty(); s++) {
            const char *text = kv_judged_specs[first_spec + s];
            void *scratch = calloc(kv_code_scratch_bytes(open[s]->f), 1);
            for (uint32_t b = 0; b < N; b++) {
                size_t at = (size_t)s * ROWS;
                kv_vectors r =
                    kv_branch_rows(&open[s]->f->setting.shape, layer, (kv_side)side, CONTEXT, first,
                                   b, &cells[at * per_token], &x[at * DIM], &y[at * DIM]);
                kv_error e = {};
                if (hop) r.x = r.y;
                if (kv_code_rows(open[s]->f, &r, scratch,
                                 &histogram[(size_t)s * 256 * KV_MAX_WIDTHS], &e))
                    why = std::string(text) + ": " + e.msg;
            }
            free(scratch);
            if (why.empty())
                why = kv_same_bits(text, side ? "rows of values" : "rows of keys",
                                   &y[(size_t)s * ROWS * DIM], &own[(size_t)s * ROWS * DIM],
                                   (size_t)ROWS * DIM);
            for (size_t i = s * 256 * KV_MAX_WIDTHS;
                 why.empty() && i < (s + 1) * 256u * KV_MAX_WIDTHS; i++)
                if (histogram[i] != tally[i])
                    why = kv_wrong("%s: a code is counted %llu times, not %llu", text, tally[i],
                                   (unsigned long long)histogram[i]);
        }
        job.x = own.data(), job.opening = x.data();
    }
    for (KvOpened *o : open) delete o;
    return why;
}

template <class D> std::string kv_judge_all_rows(D &device) {
    KvDice dice;
    for (uint32_t s = 0; s < KV_N_JUDGED; s += 9)
        for (kv_order order : {KV_ORDER_GGML, KV_ORDER_HF})
            for (uint32_t side = 0; side < 2; side++)
                for (uint32_t kind : {0u, 3u, 6u})
                    for (bool one : {true, false}) {
                        uint32_t n = KV_N_JUDGED - s < 9 ? KV_N_JUDGED - s : 9;
                        std::string why =
                            kv_judge_batch(device, s, n, order, side, kind, one, dice);
                        if (!why.empty()) return why;
                    }
    return "";
}

// ---- the conformance vectors
// -----------------------------------------------------------------------

struct KvVectors {
    std::vector<float> x;
    std::vector<uint8_t> codes;
    std::string cases, why;
    explicit KvVectors(const std::string &folder) {
        char *text = nullptr;
        size_t n = 0;
        kv_error e = {};
        if (kv_read_file((folder + "/input.f32").c_str(), &text, &n, &e) == 0)
            x.assign((const float *)text, (const float *)(text + n)), free(text);
        else
            why = e.msg;
        if (why.empty() && kv_read_file((folder + "/codes.bin").c_str(), &text, &n, &e) == 0)
            codes.assign(text, text + n), free(text);
        if (why.empty() && kv_read_file((folder + "/cases.tsv").c_str(), &text, &n, &e) == 0)
            cases.assign(text, n), free(text);
        if (codes.empty() || cases.empty()) why = e.msg;
    }
};

struct KvCase {
    char spec[80], side, by[40];
    unsigned bits, heads, offset, bytes, codes_crc, crc;
};

static inline uint8_t kv_width_index(const kv_plain_format &f, unsigned bits) {
    uint8_t w = 0;
    while (w + 1u < f.n_widths && f.width_bits[w] != bits) w++;
    return w;
}

// All vectors are one prompt: what codes.bin says of it is held against what comes back.
template <class D>
std::string kv_judge_prompt(D &device, const KvVectors &v, const KvCase &c, const KvOpened &s,
                            std::vector<float> &y) {
    const size_t heads = c.heads, rows = v.x.size() / (heads * 64), cells = rows * heads;
    std::vector<uint8_t> width(2 * cells);
    for (size_t i = 0; i < cells; i++) // bits 0: 2 bits where 5 i mod 7 < 3, else 4
        width[2 * i] = width[2 * i + 1] = kv_width_index(s.plain, c.bits          ? c.bits
                                                                  : i * 5 % 7 < 3 ? 2
                                                                                  : 4);
    KvCode job = {};
    uint32_t bad = 0;
    job.side = c.side == 'v', job.x = v.x.data(), job.y = y.data(), job.cells = width.data();
    job.bad = &bad, job.rows = (uint32_t)rows;
    device.rows({s.plain}, s.turns, KV_JUDGE_POSITIONS, job,
                {KvBranch{0, (uint32_t)rows, 0, 0, 0, (uint32_t)rows, 0}});
    return bad ? kv_wrong("%s: row %u is refused", c.spec, bad - 1) : "";
}

template <class D> std::string kv_judge_vector(D &device, const KvVectors &v, const KvCase &c) {
    KvOpened s(c.spec, 1, c.heads, 64, KV_ORDER_GGML, 1e4, KV_JUDGE_POSITIONS);
    if (!s.why.empty()) return s.why;
    std::vector<float> y(v.x.size());
    std::string why;
    if (s.plain.tensor || s.plain.centre_tokens)
        why = kv_judge_prompt(device, v, c, s, y);
    else {
        const uint32_t side = c.side == 'v', w = kv_width_index(s.plain, c.bits);
        const kv_plain_width &width = s.plain.at[side][w];
        std::vector<uint8_t> bytes(c.bytes), code(v.x.size());
        device.units(s.plain, side, w, v.x.size() / width.values, v.x.data(), y.data(), code.data(),
                     bytes.data());
        for (size_t i = 0; i < c.bytes && why.empty(); i++)
            if (bytes[i] != v.codes[c.offset + i])
                why = kv_wrong("%s, %c, %u bits: byte %zu of unit %zu is %u, %s says %u", c.spec,
                               c.side, c.bits, i % width.bytes, i / width.bytes, bytes[i], c.by,
                               v.codes[c.offset + i]);
    }
    if (why.empty() && crc32(0, (const Bytef *)y.data(), (uInt)(y.size() * sizeof(float))) != c.crc)
        why = kv_wrong("%s, %c, %u bits: what is read back differs from what %s says", c.spec,
                       c.side, c.bits, c.by);
    return why;
}

template <class D> std::string kv_judge_vectors(D &device, const std::string &folder, size_t *n) {
    KvVectors v(folder);
    KvCase c;
    *n = 0;
    if (!v.why.empty()) return v.why;
    for (size_t at = v.cases.find('\n'); at != std::string::npos; at = v.cases.find('\n', at + 1)) {
        if (sscanf(v.cases.c_str() + at + 1, "%79[^\t]\t%c\t%u\t%u\t%u\t%u\t%u\t%u\t%39[^\n]",
                   c.spec, &c.side, &c.bits, &c.heads, &c.offset, &c.bytes, &c.codes_crc, &c.crc,
                   c.by) != 9)
            break;
        std::string why = kv_judge_vector(device, v, c);
        if (!why.empty()) return why;
        ++*n;
    }
    return "";
}

#endif
