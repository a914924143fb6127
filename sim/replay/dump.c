// SPDX-License-Identifier: Apache-2.0
// Codes a sequence unit by unit as the ledger counts it, and lays the units out token by token.
#include "sim/replay/dump.h"

#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/quant/code.h"
#include "sim/quant/own.h"
#include "sim/quant/pack.h"
#include "sim/quant/whole.h"
#include "sim/replay/ledger.h"
#include "traces/recorded.h"

const char *const kv_held_names[] = {"coded", "fp16", "float32", "tensor", NULL};

// A dump while it is made: units in any order, with bytes of their own.
struct maker {
    struct kv_dump *d;
    const struct kv_format *f;
    const struct kv_trace_item *it;
    const uint8_t *cells; // [n_tokens of the item][...] decisions
    float *x;             // [n_tokens of the item][n_kv_heads][head_dim] of the layer and side
    uint8_t *bytes;       // of all units, in the order in which they were made
    size_t n_bytes, room;
};

// ---- units ----------------------------------------------------------------------------

static uint8_t *add(struct maker *m, struct kv_dump_unit u) {
    if (m->n_bytes + u.bytes > m->room) {
        m->room = 2 * (m->n_bytes + u.bytes);
        m->bytes = kv_grow(m->bytes, m->room, 1);
    }
    u.at = m->n_bytes;
    m->d->units = kv_grow(m->d->units, m->d->n_units + 1, sizeof u);
    m->d->units[m->d->n_units++] = u;
    m->n_bytes += u.bytes;
    return m->bytes + u.at;
}

// Rows of the item that stand one after the other in the sequence, and where the first stands.
struct rows {
    size_t row, n, position;
    struct kv_vectors v; // with x of the first row
};

static uint8_t decision(const struct rows *r, size_t row, size_t head) {
    return r->v.cells[row * r->v.cell_token_stride + head * r->v.cell_head_stride];
}

static void put_floats(const float *x, size_t n, uint8_t *out) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        kv_put32(out + 4 * i, bits);
    }
}

static void add_exact(struct maker *m, const struct rows *r, size_t from, size_t to) {
    size_t d = m->f->setting.shape.head_dim;
    for (size_t row = from; row < to; row++)
        for (uint32_t h = 0; h < m->f->setting.shape.n_kv_heads; h++) {
            uint8_t w = decision(r, row, h);
            if (w == KV_EVICT) continue;
            uint32_t bits = w == KV_FLOAT32 ? 32 : 16;
            uint8_t *to_bytes =
                add(m, (struct kv_dump_unit){.bytes = bits / 8 * (uint32_t)d,
                                             .code_bits = bits * (uint32_t)d,
                                             .token = (uint32_t)(r->position + row),
                                             .n_tokens = 1,
                                             .layer = r->v.layer,
                                             .head = h,
                                             .n_heads = 1,
                                             .side = r->v.side,
                                             .held = bits == 32 ? KV_HELD_FLOAT32 : KV_HELD_FP16,
                                             .bits = (uint8_t)bits});
            const float *x = r->v.x + row * r->v.x_stride + h * d;
            if (bits == 32)
                put_floats(x, d, to_bytes);
            else
                kv_put_halves(x, d, to_bytes);
        }
}

// The unit's vectors as the format takes them: [tokens][heads][head_dim] in its order of channels.
static void gather(const struct maker *m, const struct rows *r, size_t row, size_t head,
                   float *out) {
    const struct kv_format *f = m->f;
    size_t d = f->setting.shape.head_dim;
    enum kv_order to = r->v.side == KV_KEY ? f->order : f->setting.order;
    for (size_t t = 0; t < f->unit_tokens[r->v.side]; t++)
        for (size_t h = 0; h < f->unit_heads; h++, out += d)
            kv_reorder(r->v.x + (row + t) * r->v.x_stride + (head + h) * d, out, d,
                       f->setting.order, to);
}

// The width that a unit's kept cells agree on (kv_code_rows has refused others); KV_EVICT: none.
static uint8_t unit_width(const struct maker *m, const struct rows *r, size_t row, size_t head) {
    for (size_t t = row; t < row + m->f->unit_tokens[r->v.side]; t++)
        for (size_t h = head; h < head + m->f->unit_heads; h++)
            if (decision(r, t, h) != KV_EVICT) return decision(r, t, h);
    return KV_EVICT;
}

static struct kv_dump_unit unit_at(const struct maker *m, const struct rows *r, size_t row,
                                   size_t head, uint8_t w) {
    struct kv_dump_unit u = {.token = (uint32_t)(r->position + row),
                             .n_tokens = m->f->unit_tokens[r->v.side],
                             .layer = r->v.layer,
                             .head = (uint32_t)head,
                             .n_heads = m->f->unit_heads,
                             .side = r->v.side};
    uint32_t values = kv_unit_values(m->f, r->v.side);
    if (w == KV_FLOAT32) {
        u.held = KV_HELD_FLOAT32, u.bits = 32;
        u.code_bits = 32 * values, u.bytes = 4 * values;
    } else {
        struct kv_unit_size size = kv_format_size(m->f, r->v.side, w);
        u.bits = m->f->width_bits[w];
        u.code_bits = size.code_bits, u.meta_bits = size.meta_bits, u.bytes = size.bytes;
    }
    return u;
}

// Units of rows [from, to), which the format codes together where it looks at tensors.
static void add_units(struct maker *m, const struct rows *r, size_t from, size_t to) {
    const struct kv_format *f = m->f;
    size_t values = kv_unit_values(f, r->v.side), tokens = f->unit_tokens[r->v.side],
           heads = f->setting.shape.n_kv_heads,
           most = (to - from) / tokens * (heads / f->unit_heads);
    float *x = kv_alloc(most * values + 1, sizeof *x);
    size_t *unit = kv_alloc(most + 1, sizeof *unit);
    for (uint32_t w = 0; w <= f->n_widths; w++) {
        uint8_t wanted = w < f->n_widths ? (uint8_t)w : KV_FLOAT32;
        size_t n = 0;
        for (size_t row = from; row < to; row += tokens)
            for (size_t head = 0; head < heads; head += f->unit_heads) {
                if (unit_width(m, r, row, head) != wanted) continue;
                gather(m, r, row, head, x + n * values);
                unit[n++] = m->d->n_units;
                uint8_t *out = add(m, unit_at(m, r, row, head, wanted));
                if (wanted == KV_FLOAT32) put_floats(x + (n - 1) * values, values, out);
            }
        if (n == 0 || wanted == KV_FLOAT32) continue;
        // made one after the other, so their bytes are one block
        struct kv_block b = {r->v.layer, r->v.side, w};
        kv_format_encode(f, &b, x, n, m->bytes + m->d->units[unit[0]].at);
    }
    free(x);
    free(unit);
}

static void keep_field(void *self, const struct kv_field *x) {
    struct kv_dump *d = self;
    d->fields = kv_grow(d->fields, d->n_fields + 1, sizeof *d->fields);
    d->fields[d->n_fields++] = *x;
}

// A format that lays out a tensor itself: one unit for all that it codes, and float32 ones.
static void add_whole(struct maker *m, const struct rows *r, size_t from, size_t to) {
    const struct kv_format *f = m->f;
    size_t heads = f->setting.shape.n_kv_heads, d = f->setting.shape.head_dim, coded = 0;
    uint8_t *width = kv_alloc((to - from) * heads + 1, 1);
    for (size_t i = 0; i < (to - from) * heads; i++) {
        uint8_t w = decision(r, from + i / heads, i % heads);
        width[i] = w < f->n_widths ? w : KV_EVICT;
        coded += w < f->n_widths;
        if (w != KV_FLOAT32) continue;
        struct kv_dump_unit u = unit_at(m, r, from + i / heads, i % heads, w);
        put_floats(r->v.x + (from + i / heads) * r->v.x_stride + i % heads * d, d, add(m, u));
    }
    struct kv_whole t = {r->v.layer, r->v.side, to - from, width};
    struct kv_whole_size size = f->type->whole_size(f, &t);
    if (coded) {
        float *x = kv_whole_gather(f, &r->v, from, to);
        uint8_t *out = add(m, (struct kv_dump_unit){.bytes = (uint32_t)size.bytes,
                                                    .code_bits = (uint32_t)size.code_bits,
                                                    .meta_bits = (uint32_t)size.meta_bits,
                                                    .token = (uint32_t)(r->position + from),
                                                    .n_tokens = (uint32_t)(to - from),
                                                    .layer = r->v.layer,
                                                    .n_heads = (uint32_t)heads,
                                                    .side = r->v.side,
                                                    .held = KV_HELD_TENSOR});
        f->type->whole_encode(f, &t, x, out);
        free(x);
        struct kv_dump_unit *u = &m->d->units[m->d->n_units - 1];
        u->first_field = m->d->n_fields;
        f->type->whole_fields(f, &t, keep_field, m->d);
        u->n_fields = m->d->n_fields - u->first_field;
    }
    free(width);
}

static void add_coded(struct maker *m, const struct rows *r, size_t from, size_t to) {
    bool tensors = m->f->scope == KV_SCOPE_TENSOR && r->v.start > 0;
    size_t n = tensors ? m->f->gathers : to - from; // of a tensor; the prompt is one
    for (size_t row = from; row < to; row += n) {
        if (m->f->type->whole_encode)
            add_whole(m, r, row, row + n);
        else
            add_units(m, r, row, row + n);
    }
}

// ---- a sequence -----------------------------------------------------------------------

static void add_rows(struct maker *m, uint32_t layer, enum kv_side side, uint32_t branch,
                     size_t upto) {
    const struct kv_shape *s = &m->f->setting.shape;
    struct rows r = {.v = kv_branch_rows(s, layer, side, m->it->n_context, m->it->first, branch,
                                         m->cells, m->x, m->x)};
    size_t from, to;
    r.n = r.v.n;
    r.position = branch ? m->it->n_context : 0;
    kv_held_rows(m->f, &r.v, upto, &from, &to);
    add_exact(m, &r, 0, from);
    add_exact(m, &r, to, r.n);
    add_coded(m, &r, from, to);
}

static int code_sequence(struct maker *m, const struct kv_trace_info *in, uint32_t choice,
                         struct kv_error *e) {
    const struct kv_trace_item *it = m->it;
    const struct kv_format *f = m->f;
    size_t width = (size_t)in->shape.n_kv_heads * in->shape.head_dim;
    size_t n_choice = it->n_choices ? it->first[choice + 1] - it->first[choice] : 0,
           end = it->n_context + n_choice - 1;
    float *y = kv_alloc(it->n_tokens * width, sizeof *y);
    void *scratch = kv_alloc(kv_code_scratch_bytes(f), 1);
    int rc = 0;
    m->x = kv_alloc(it->n_tokens * width, sizeof *m->x);
    for (uint32_t layer = 0; layer < in->shape.n_layers && rc == 0; layer++)
        for (int s = 0; s < 2 && rc == 0; s++) {
            enum kv_side side = (enum kv_side)s;
            kv_recorded_rows(in, it, layer, side, f->keys_before_rope, m->x);
            for (uint32_t b = 0; b <= it->n_choices && rc == 0; b++) {
                if (b && b != choice + 1) continue;
                struct kv_vectors v = kv_branch_rows(&in->shape, layer, side, it->n_context,
                                                     it->first, b, m->cells, m->x, y);
                rc = kv_code_rows(f, &v, scratch, NULL, e); // refuses what cannot be stored
                if (rc == 0)
                    add_rows(m, layer, side, b,
                             kv_coded_upto(f, side, n_choice ? it->n_context : 0, end, false));
            }
        }
    free(y);
    free(scratch);
    return rc;
}

static int by_place(const void *a, const void *b) {
    const struct kv_dump_unit *x = a, *y = b;
    const uint32_t p[] = {x->token, x->layer, x->side, x->head},
                   q[] = {y->token, y->layer, y->side, y->head};
    for (size_t i = 0; i < 4; i++)
        if (p[i] != q[i]) return p[i] < q[i] ? -1 : 1;
    return x->at < y->at ? -1 : 1; // float32 cells at a tensor's first token
}

// Units in their order, and the bits of each token.
static void lay_out(struct maker *m) {
    struct kv_dump *d = m->d;
    uint64_t at = 0;
    qsort(d->units, d->n_units, sizeof *d->units, by_place);
    d->cells = kv_alloc(m->n_bytes + 1, 1);
    d->n_bytes = m->n_bytes;
    for (size_t i = 0; i < d->n_units; i++) {
        struct kv_dump_unit *u = &d->units[i];
        struct kv_dump_token *t = &d->tokens[u->token];
        memcpy(d->cells + at, m->bytes + u->at, u->bytes);
        u->at = at;
        at += u->bytes;
        t->code_bits += u->code_bits;
        t->meta_bits += u->meta_bits;
        t->padding_bits += 8 * (uint64_t)u->bytes - u->code_bits - u->meta_bits;
    }
}

// ---- tags -----------------------------------------------------------------------------

static uint8_t bits_of(const struct kv_format *f, uint8_t w) {
    return w == KV_EVICT ? 0 : w == KV_FLOAT32 ? 32 : f->width_bits[w];
}

// The row of the item that a position of the sequence is.
static size_t row_at(const struct kv_trace_item *it, uint32_t choice, size_t position) {
    return position < it->n_context ? position : it->first[choice] + position - it->n_context;
}

static int ascending(const void *a, const void *b) {
    return *(const uint8_t *)a - *(const uint8_t *)b;
}

// Which widths occur, ascending: a tag says which of them.
static void list_widths(struct maker *m, uint32_t choice, size_t n_cells) {
    struct kv_dump *d = m->d;
    for (size_t t = 0; t < d->n_tokens; t++)
        for (size_t c = 0; c < n_cells; c++) {
            uint8_t bits = bits_of(m->f, m->cells[row_at(m->it, choice, t) * n_cells + c]);
            if (!memchr(d->tag_width, bits, d->n_tag_widths))
                d->tag_width[d->n_tag_widths++] = bits;
        }
    qsort(d->tag_width, d->n_tag_widths, 1, ascending);
}

static void put_bits(uint8_t *stream, uint64_t at, uint32_t number, uint32_t bits) {
    for (uint32_t b = 0; b < bits; b++)
        if (number >> b & 1u) stream[(at + b) / 8] |= (uint8_t)(1u << (at + b) % 8);
}

static int put_tags(struct maker *m, uint32_t choice, struct kv_error *e) {
    struct kv_dump *d = m->d;
    const struct kv_replay_spec *spec = d->spec;
    const struct kv_shape *s = &spec->run.shape;
    size_t n_cells = kv_cells(s);
    double bits = kv_tag_bits(s, spec->varies, spec->options);
    list_widths(m, choice, n_cells);
    if (bits == 0) return 0;
    uint32_t layers = spec->varies & KV_VARIES_LAYER ? s->n_layers : 1,
             heads = spec->varies & KV_VARIES_HEAD ? s->n_kv_heads : 1,
             sides = spec->varies & KV_VARIES_KV ? 2 : 1;
    d->n_tag_numbers = layers * heads * sides;
    d->tag_number_bits = (uint32_t)bits / d->n_tag_numbers;
    if (d->n_tag_widths > (size_t)1 << d->tag_number_bits)
        return kv_fail(e, KV_EFAIL, spec->canonical,
                       "policy %s gives cells %zu widths and counts tags for %u of them",
                       spec->policy_name, d->n_tag_widths, spec->options);
    d->n_tag_bytes = ((uint64_t)d->n_tokens * (uint64_t)bits + 7) / 8;
    d->tags = kv_alloc(d->n_tag_bytes + 1, 1);
    uint64_t at = 0;
    for (size_t t = 0; t < d->n_tokens; t++) {
        const uint8_t *cells = m->cells + row_at(m->it, choice, t) * n_cells;
        d->tokens[t].tag_bits = (uint64_t)bits;
        for (uint32_t l = 0; l < layers; l++)
            for (uint32_t h = 0; h < heads; h++)
                for (uint32_t k = 0; k < sides; k++, at += d->tag_number_bits) {
                    uint8_t w = bits_of(m->f, cells[(l * s->n_kv_heads + h) * 2 + k]);
                    uint8_t *found = memchr(d->tag_width, w, d->n_tag_widths);
                    put_bits(d->tags, at, (uint32_t)(found - d->tag_width), d->tag_number_bits);
                }
    }
    return 0;
}

// ---- all of it ------------------------------------------------------------------------

static int check(const struct kv_replay *r, const struct kv_replay_spec *spec,
                 const struct kv_trace_item *it, uint32_t choice, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(r->trace);
    uint32_t n = it->n_choices ? it->n_choices : 1;
    if (!(in->keep & KV_KEEP_KV))
        return kv_fail(e, KV_EFAIL, in->path, "keeps no keys and values; record with --keep kv");
    if (choice >= n)
        return kv_fail(e, KV_EUSAGE, "choice", "item %s has choices 0 to %u", it->id, n - 1);
    if (!*spec->format_text)
        return kv_fail(e, KV_EUSAGE, spec->canonical, "has no format, so nothing is packed");
    if (spec->hops > 1)
        return kv_fail(e, KV_EUSAGE, spec->canonical,
                       "codes the prompt more than once, from what a run has read");
    if (spec->format->centre.tokens > 0)
        return kv_fail(
            e, KV_EUSAGE, spec->canonical,
            "holds a mean a sequence beside its units, which is not laid out; dump what it "
            "wraps");
    uint32_t longest =
        it->n_context + (it->n_choices ? it->first[choice + 1] - it->first[choice] : 0);
    for (uint32_t l = 0; spec->windows && l < in->shape.n_layers; l++)
        if (spec->windows[l] && spec->windows[l] < longest)
            return kv_fail(
                e, KV_EFAIL, it->id,
                "is %u tokens long, and layer %u forgets all but the newest %u, which is "
                "not laid out",
                longest, l, spec->windows[l]);
    return 0;
}

// The ledger's own count of this sequence: of an item that has no other.
static void count(struct maker *m, uint32_t choice) {
    const struct kv_trace_item *it = m->it;
    struct kv_trace_item alone = *it;
    uint32_t first[2] = {0};
    if (it->n_choices) {
        first[0] = it->first[choice], first[1] = it->first[choice + 1];
        alone.n_choices = 1, alone.first = first;
    }
    kv_ledger_count(m->d->spec, &alone, m->cells, &m->d->ledger);
}

int kv_dump_new(struct kv_dump **out, const struct kv_replay *r, size_t which, size_t item,
                uint32_t choice, struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    const struct kv_trace_info *in = kv_trace_info(r->trace);
    const struct kv_trace_item *it = kv_trace_item(r->trace, item);
    const struct kv_replay_spec *spec = &r->specs[which];
    int rc = check(r, spec, it, choice, e);
    if (rc == 0) rc = kv_trace_check_item(r->trace, item, KV_KEEP_KV, e);
    if (rc) return rc;
    struct kv_dump *d = kv_alloc(1, sizeof *d);
    uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(&in->shape), 1);
    struct maker m = {.d = d, .f = spec->format, .it = it, .cells = cells};
    d->trace = r->trace;
    d->spec = spec;
    d->item = item;
    d->choice = choice;
    d->n_context = it->n_context;
    d->n_tokens = it->n_context + (it->n_choices ? it->first[choice + 1] - it->first[choice] : 0);
    d->tokens = kv_alloc(d->n_tokens, sizeof *d->tokens);
    for (size_t t = 0; t < d->n_tokens; t++) d->tokens[t].id = it->ids[row_at(it, choice, t)];
    rc = kv_decide(r, which, item, cells, e);
    if (rc == 0) rc = code_sequence(&m, in, choice, e);
    if (rc == 0) rc = put_tags(&m, choice, e);
    if (rc == 0) {
        lay_out(&m);
        count(&m, choice);
    }
    free(m.x);
    free(m.bytes);
    free(cells);
    if (rc)
        kv_dump_free(d);
    else
        *out = d;
    return rc;
}

void kv_dump_free(struct kv_dump *d) {
    if (!d) return;
    free(d->units);
    free(d->fields);
    free(d->cells);
    free(d->tokens);
    free(d->tags);
    free(d);
}
