// SPDX-License-Identifier: Apache-2.0
// The rows of one branch coded by a block of threads: kv_code_rows (sim/quant/code.c) cell by cell.
#ifndef KV_CUDA_FORMATS_ROWS_CUH
#define KV_CUDA_FORMATS_ROWS_CUH

#include "sim/cuda/formats/tensors.cuh"

// A block that is one thread. KvBlock (formats.cu) is a real one.
struct KvLoneBlock {
    KV_MEMBER uint32_t thread() const { return 0; }
    KV_MEMBER uint32_t threads() const { return 1; }
    KV_MEMBER uint32_t part() const { return 0; } // which of the blocks that share a branch
    KV_MEMBER uint32_t parts() const { return 1; }
    KV_MEMBER uint32_t team_index() const { return 0; }
    KV_MEMBER uint32_t teams() const { return 1; }
    KV_MEMBER KvAlone team() const { return KvAlone(); }
    KV_MEMBER void sync() const {}
    KV_MEMBER void count(uint32_t *n) const { ++*n; }
    KV_MEMBER void add(unsigned long long *n, uint32_t by) const { *n += by; }
};

template <class B>
KV_BOTH void kv_rows_unit(const B &b, const KvRows &r, const KvRoom &room, uint32_t row,
                          uint32_t head) {
    const kv_plain_format &f = *r.f;
    auto t = b.team();
    uint32_t w = kv_unit_width(t, r, row, head);
    if (w >= f.n_widths) {
        if (w < KV_FLOAT32) kv_refuse(r, row);
        for (uint32_t k = 0; k < f.unit_tokens[r.side]; k++)
            kv_exact_cell(t, r, row + k, head, f.unit_heads * f.head_dim, w == KV_FLOAT32);
        return;
    }
    const kv_plain_width &width = f.at[r.side][w];
    bool centred = room.centre && width.bits < 16;
    kv_move(t, r, room, row, head, centred, false);
    t.sync();
    kv_code_unit(t, width, room.x, room.code, (uint8_t *)nullptr);
    t.sync();
    kv_move(t, r, room, row, head, centred, true);
    if (room.tally && width.bits <= 8 && f.has_codes)
        for (uint32_t i = t.lane(); i < width.values; i += t.size())
            b.count(&room.tally[256 * w + room.code[i]]);
    t.sync();
}

// memory: kv_rows_room bytes that the block shares.
template <class B>
KV_BOTH void kv_code_branch(const B &b, const KvCode &job, const kv_plain_format *f,
                            const float *turns, const KvBranch &branch, uint32_t unit_values,
                            bool any_centred, void *memory) {
    const KvRows r = kv_rows_of(job, f, turns, branch);
    KvRoom room = {};
    room.x = (float *)memory;
    float *free = room.x + (any_centred ? r.kv_dim : 0);
    if (f->centred[r.side] || f->tensor) room.centre = room.x;
    if (job.tally) {
        room.tally = (uint32_t *)free;
        free += 256 * KV_MAX_WIDTHS;
        for (uint32_t i = b.thread(); i < 256 * f->n_widths; i += b.threads()) room.tally[i] = 0;
        b.sync();
    }
    room.first = free;
    room.stride = unit_values;
    room.x = free + b.team_index() * unit_values;
    room.code = (uint8_t *)(free + b.teams() * unit_values) +
                b.team_index() * ((unit_values + 15) / 16 * 16);
    if (r.from < r.to && f->centred[r.side]) kv_find_centre(b, r, room.centre);
    kv_exact_rows(b, r, 0, r.from);
    kv_exact_rows(b, r, r.to, r.n);
    const uint32_t tokens = f->unit_tokens[r.side], per_block = f->n_kv_heads / f->unit_heads,
                   n = (r.to - r.from) / tokens * per_block;
    if (f->tensor) kv_code_tensors(b, r, room);
    for (uint32_t u = b.part() * b.teams() + b.team_index(); !f->tensor && u < n;
         u += b.teams() * b.parts())
        kv_rows_unit(b, r, room, r.from + u / per_block * tokens, u % per_block * f->unit_heads);
    if (!room.tally) return;
    b.sync();
    unsigned long long *all = job.tally + (size_t)branch.tally * KV_MAX_WIDTHS * 256;
    for (uint32_t i = b.thread(); i < 256 * f->n_widths; i += b.threads())
        if (room.tally[i]) b.add(&all[i], room.tally[i]);
}

#endif
