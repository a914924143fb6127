// SPDX-License-Identifier: Apache-2.0
// One sequence's cache as a device would hold it at the sequence's end: the packed bytes of every
// unit, the tags that tell widths, and where each lies.
//
//     struct kv_dump *d;
//     if (kv_dump_new(&d, &r, spec, item, choice, &e)) ...
//     d->cells, d->n_bytes      units back to back: token after token; in a token layer after
//     layer,
//                               keys' units before values', head after head
//     d->units[i].at            where unit i begins
//     kv_dump_free(d);
//
// Vectors are the recorded ones (fp16), so bytes are those of a device whose prefill computed what
// was recorded; decisions are the spec's. Sums of bits are the ledger's of this sequence.
#ifndef KV_REPLAY_DUMP_H
#define KV_REPLAY_DUMP_H

#include "sim/replay/replay.h"

KV_BEGIN_DECLS

enum kv_held {
    KV_HELD_CODED,   // as the format codes a unit of this width
    KV_HELD_FP16,    // exact: sinks, the window, an open group
    KV_HELD_FLOAT32, // not rounded
    KV_HELD_TENSOR // all coded cells of a layer's side, as a format of whole tensors lays them out
};
extern const char *const kv_held_names[]; // "coded", "fp16", "float32", "tensor", NULL

// What holds a unit: a run of tokens of some heads, K or V of one layer. A unit of several tokens
// stands with the first of them.
struct kv_dump_unit {
    uint64_t at; // byte in cells
    uint32_t bytes, code_bits, meta_bits;
    uint32_t token, n_tokens; // positions in the sequence
    uint32_t layer, head, n_heads;
    enum kv_side side;
    enum kv_held held;
    uint8_t bits;                 // of the width; 0: several (KV_HELD_TENSOR)
    size_t first_field, n_fields; // of a tensor: in the dump's list of fields
};

// Bits of one token; those of a unit count at its first token.
struct kv_dump_token {
    uint32_t id;
    uint64_t code_bits, meta_bits, padding_bits, tag_bits;
};

struct kv_dump {
    const struct kv_trace *trace; // borrowed, as spec is
    const struct kv_replay_spec *spec;
    size_t item;
    uint32_t choice;
    uint32_t n_tokens, n_context; // of the sequence, and of them the context's
    size_t n_units;
    struct kv_dump_unit *units;
    size_t n_fields;
    struct kv_field *fields; // of tensors, each of which has a layout of its own
    uint8_t *cells;
    uint64_t n_bytes;
    struct kv_dump_token *tokens; // [n_tokens]
    // Tags: one bit stream, token after token; of each token a number for each layer, head, K and V
    // along which the policy's answers differ, its lowest bit first: which of tag_width[] is held.
    uint32_t n_tag_numbers, tag_number_bits;
    uint8_t *tags;
    uint64_t n_tag_bytes;
    size_t n_tag_widths;
    uint8_t tag_width[KV_MAX_WIDTHS + 2]; // bits; 0 = evicted, 32 = float32
    struct kv_ledger ledger;              // of this sequence
};

// The sequence of context and choice `choice` of an item (of text: the window; choice is 0). r:
// trace, tables and seed; its model and mode are not looked at: rows are held as in the modes
// inline and prefill. Errors: a trace that keeps no K and V; a choice that the item lacks; the
// policy's own; a policy that codes the prompt several times or has no format.
KV_MUST_CHECK int kv_dump_new(struct kv_dump **d, const struct kv_replay *r, size_t spec,
                              size_t item, uint32_t choice, struct kv_error *e);
void kv_dump_free(struct kv_dump *d); // NULL is fine

// Writes about.json, cells.bin, cells.hex, units.tsv, fields.tsv, where there are tensors
// tensors.tsv and, where there are tags, tags.bin, tags.hex and tags.tsv into a folder, which is
// made. hex: $readmemh text, words of word_bytes (1 to 64), the lowest byte last.
// sim/test/conformance/README.md says what each holds. (dump_files.c)
KV_MUST_CHECK int kv_dump_write(const struct kv_dump *d, const char *dir, uint32_t word_bytes,
                                struct kv_error *e);

KV_END_DECLS

#endif
