// SPDX-License-Identifier: Apache-2.0
// A packed cache on a GPU whose cells (a token's key or value in one layer and KV head) each lie at
// a width of their own. Pages have the bytes of sim/cache/layout.h at asym:group=32: tokens of its
// slots [64] u16, then one block: low bit plane, high bit plane, scales, minima.
#ifndef KV_CELLS_CUH
#define KV_CELLS_CUH

#include "kernels.cuh"

enum { PORTS = 7, GROUPS = 2, PAGE_HEAD = PAGE * 2, UNIT = 128 }; // pages start at units of bytes
enum { RANK_TOKENS = 128, MOST_TOKENS = 16384 }; // a rank each; one span of sim/cache
enum { KEY, VALUE, SIDES };

// Bits of a code, and of its share in the low and the high plane, by port.
__host__ __device__ static inline int port_bits(int port) {
    return port == 6 ? 16 : port == 5 ? 8 : port + 2;
}
__host__ __device__ static inline int low_bits(int port) {
    return port < 2 ? 2 : port < 5 ? 4 : port_bits(port);
}
__host__ __device__ static inline int high_bits(int port) {
    return port_bits(port) - low_bits(port);
}
// Offsets in a block; its size.
__host__ __device__ static inline int high_at(int port) {
    return PAGE * words_of(low_bits(port)) * 4;
}
__host__ __device__ static inline int scale_at(int port) {
    return PAGE * words_of(port_bits(port)) * 4;
}
__host__ __device__ static inline int min_at(int port) {
    return scale_at(port) + GROUPS * PAGE * 2;
}
__host__ __device__ static inline int cell_block_bytes(int port) {
    return port == 6 ? PAGE * DIM * 2 : min_at(port) + GROUPS * PAGE * 2;
}
// What a cell holds: codes and the metadata of its groups.
__host__ __device__ static inline int cell_bits(int port) {
    return DIM * port_bits(port) + (port == 6 ? 0 : GROUPS * 32);
}

// Streams are [layer][sequence][KV head]. All have the same number of tokens. A cell's slot is its
// rank among those of its stream, side and port.
struct cells {
    int streams, room, pages_room; // tokens; pages of a run
    uint8_t *arena;
    unsigned int *used; // units of the arena
    unsigned int units;
    uint32_t *page;   // [stream][side][PORTS][pages_room] in units
    uint8_t *tag;     // [stream][room] port of the key | port of the value << 4
    uint16_t *rank;   // [stream][side][room / RANK_TOKENS + 1][8] cells of a port before a token
    uint32_t *count;  // [stream][side][8]
    float *largest;   // [stream] bound of the values' scales
    int *tokens;      // [1]
};

__host__ __device__ static inline size_t run_at(const cells &c, int stream, int side, int port) {
    return ((size_t)(stream * SIDES + side) * PORTS + port) * c.pages_room;
}
__host__ __device__ static inline size_t rank_at(const cells &c, int stream, int side, int token) {
    return ((size_t)(stream * SIDES + side) * (c.room / RANK_TOKENS + 1) + token / RANK_TOKENS) * 8;
}
__host__ __device__ static inline uint8_t *page_of(const cells &c, uint32_t units) {
    return c.arena + (size_t)units * UNIT;
}
// Word w of a token's low or high plane.
__host__ __device__ static inline uint32_t *cell_word(uint8_t *block, int side, int port, bool high,
                                                      int slot, int w) {
    const int words = words_of(high ? high_bits(port) : low_bits(port));
    uint32_t *plane = (uint32_t *)(block + (high ? high_at(port) : 0));
    return plane + (side == KEY ? (slot / TILE * words + w) * TILE + slot % TILE
                                : slot * words + w);
}
// Sixteen bits: number i of a token.
__host__ __device__ static inline uint16_t *cell_half(uint8_t *block, int side, int slot, int i) {
    return (uint16_t *)block +
           (side == KEY ? (slot / TILE * DIM + i) * TILE + slot % TILE : slot * DIM + i);
}
// Where the high bits of code i begin in the words of the high plane (sim/cache/layout.h).
__host__ __device__ static inline int high_bit_at(int port, int i) {
    const int a = low_bits(port), b = high_bits(port), half = 16 / a, ratio = a / b;
    const int w = i / (2 * half), at = b * (w % ratio * half + i % half);
    return 32 * (w / ratio) + 16 * (i / half % 2) + at;
}

// ---- memory ----------------------------------------------------------------------------------

// What a stream takes at most: all at 16 bits, and a page begun at each width.
static double most_stream_bytes(int tokens) {
    return SIDES * (double)(pages_of(tokens) + PORTS) * (PAGE_HEAD + cell_block_bytes(PORTS - 1));
}

static void cells_init(cells *c, int streams, int room, double bytes) {
    memset(c, 0, sizeof *c);
    c->streams = streams;
    c->room = (room + RANK_TOKENS - 1) / RANK_TOKENS * RANK_TOKENS;
    c->pages_room = pages_of(c->room) + 1;
    c->units = (unsigned)ceil(bytes / UNIT);
    const size_t runs = (size_t)streams * SIDES * PORTS * c->pages_room;
    const size_t ranks = (size_t)streams * SIDES * (c->room / RANK_TOKENS + 1) * 8;
    CHECK(cudaMalloc(&c->arena, (size_t)c->units * UNIT));
    CHECK(cudaMalloc(&c->used, sizeof *c->used));
    CHECK(cudaMalloc(&c->page, runs * sizeof *c->page));
    CHECK(cudaMalloc(&c->tag, (size_t)streams * c->room));
    CHECK(cudaMalloc(&c->rank, ranks * sizeof *c->rank));
    CHECK(cudaMalloc(&c->count, (size_t)streams * SIDES * 8 * sizeof *c->count));
    CHECK(cudaMalloc(&c->largest, streams * sizeof *c->largest));
    CHECK(cudaMalloc(&c->tokens, sizeof *c->tokens));
    CHECK(cudaMemset(c->arena, 0, (size_t)c->units * UNIT));
    CHECK(cudaMemset(c->used, 0, sizeof *c->used));
    CHECK(cudaMemset(c->rank, 0, ranks * sizeof *c->rank));
    CHECK(cudaMemset(c->count, 0, (size_t)streams * SIDES * 8 * sizeof *c->count));
    CHECK(cudaMemset(c->largest, 0, streams * sizeof *c->largest));
    CHECK(cudaMemset(c->tokens, 0, sizeof *c->tokens));
}

static void cells_fini(cells *c) {
    void *owned[] = {c->arena, c->used, c->page, c->tag, c->rank, c->count, c->largest, c->tokens};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) CHECK(cudaFree(owned[i]));
}

// ---- tokens ----------------------------------------------------------------------------------

// Opens a page of a run.
__device__ static inline uint32_t open_page(const cells &c, int stream, int side, int port,
                                            uint32_t page) {
    const unsigned units = (PAGE_HEAD + cell_block_bytes(port)) / UNIT;
    const unsigned at = atomicAdd(c.used, units);
    if (at + units > c.units) __trap(); // the arena was measured too short
    c.page[run_at(c, stream, side, port) + page] = at;
    return at;
}

// Shares of the ports, as sums in 1 / 2^32.
struct port_shares {
    uint32_t below[PORTS]; // draws under below[p] and not under the one before take port p
};

__device__ static inline int drawn_port(const port_shares &s, uint64_t at) {
    const uint32_t u = mixed(at * 0x9E3779B97F4A7C15ull + 7);
    int port = 0;
    while (port < PORTS - 1 && u >= s.below[port]) port++;
    return port;
}

// Tokens [0, n) of each stream at drawn widths, slots and ranks: a warp a stream, in token order, so
// that pages lie in the arena as a decode would have opened them.
__global__ void draw_widths(cells c, int n, port_shares shares) {
    const int stream = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (stream >= c.streams) return;
    uint32_t had[SIDES] = {0, 0}; // of lane's port
    for (int first = 0; first < n; first += 32) {
        const int t = first + lane;
        uint8_t tag = 0;
        for (int side = 0; side < SIDES; side++) {
            if (first % RANK_TOKENS == 0 && lane < 8)
                c.rank[rank_at(c, stream, side, first) + lane] = (uint16_t)had[side];
            const int port =
                t < n ? drawn_port(shares, ((uint64_t)stream * SIDES + side) * MOST_TOKENS + t) : 7;
            const uint32_t same = __match_any_sync(~0u, port);
            const uint32_t before = __shfl_sync(~0u, had[side], port);
            const uint32_t slot = before + __popc(same & ((1u << lane) - 1));
            if (port < PORTS) {
                if (slot % PAGE == 0) open_page(c, stream, side, port, slot / PAGE);
                tag |= port << (4 * side);
            }
            __syncwarp();
            if (port < PORTS) {
                const uint32_t page = c.page[run_at(c, stream, side, port) + slot / PAGE];
                ((uint16_t *)page_of(c, page))[slot % PAGE] = (uint16_t)t;
            }
            for (int p = 0; p < PORTS; p++) {
                const uint32_t more = __popc(__ballot_sync(~0u, port == p));
                if (lane == p) had[side] += more;
            }
        }
        if (t < n) c.tag[(size_t)stream * c.room + t] = tag;
    }
    for (int side = 0; side < SIDES && lane < 8; side++)
        c.count[(stream * SIDES + side) * 8 + lane] = had[side];
    if (stream == 0 && lane == 0) *c.tokens = n;
}

__device__ static inline uint32_t two_halves(float a, float b) {
    return __half_as_ushort(__float2half_rn(a)) |
           (uint32_t)__half_as_ushort(__float2half_rn(b)) << 16;
}

// Seeded codes, scales and minima of all pages: values of about -1..1 at every width.
__global__ void fill_pages(cells c) {
    const int lane = threadIdx.x % 32;
    for (int run = (blockIdx.x * blockDim.x + threadIdx.x) / 32; run < c.streams * SIDES * PORTS;
         run += gridDim.x * blockDim.x / 32) {
        const int port = run % PORTS, stream = run / (SIDES * PORTS);
        const float step = 2.0f / (float)((1 << port_bits(port)) - 1);
        const int pages = pages_of(c.count[run / PORTS * 8 + port]);
        for (int p = 0; p < pages; p++) {
            uint32_t *block =
                (uint32_t *)(page_of(c, c.page[(size_t)run * c.pages_room + p]) + PAGE_HEAD);
            const int words = cell_block_bytes(port) / 4, metas = scale_at(port) / 4;
            for (int i = lane; i < words; i += 32) {
                const uint32_t r =
                    mixed((((uint64_t)run * c.pages_room + p) * 4096 + i) * 0x9E3779B97F4A7C15ull);
                const float a = (float)(r & 0xFFFF) * 0x1p-16f, b = (float)(r >> 16) * 0x1p-16f;
                if (port == 6)
                    block[i] = two_halves(2 * a - 1, 2 * b - 1);
                else if (i < metas)
                    block[i] = r;
                else if (i < metas + GROUPS * PAGE / 2)
                    block[i] = two_halves(step * (0.5f + a / 2), step * (0.5f + b / 2));
                else
                    block[i] = two_halves(-1 + a / 2, -1 + b / 2);
            }
        }
        if (lane == 0 && run % (SIDES * PORTS) == 0) c.largest[stream] = 2.0f / 3;
    }
}

static void cells_fill(cells *c, int n, const port_shares &shares) {
    CHECK(cudaMemset(c->used, 0, sizeof *c->used));
    draw_widths<<<(c->streams + 3) / 4, 128>>>(*c, n, shares);
    fill_pages<<<2048, 256>>>(*c);
    CHECK(cudaDeviceSynchronize());
}

#endif
