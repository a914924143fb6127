// SPDX-License-Identifier: Apache-2.0
// The tokenizer from inside: what its loaders hand over, and what encoding reads. From outside it
// is model.h's.
//
// Two families. Byte-level BPE (GPT-2's): regular expressions cut the text, each span becomes a
// list of byte tokens, merges are by rank. BPE over characters (SentencePiece's): a space is
// U+2581, the text is one span of character tokens, a character that is no piece becomes its bytes'
// tokens, and merges are by rank or, where a file has scores, by the score of what they make.
#ifndef KV_MODEL_TOKENIZER_H
#define KV_MODEL_TOKENIZER_H

#include "sim/model/model.h"
#include "sim/model/piece_table.h"
#include "sim/model/pretokenizers.h"

// Kinds of tokens by GGUF's numbers (gguf-py/gguf/constants.py of llama.cpp), which are those of
// sentencepiece_model.proto.
enum kv_piece_type {
    KV_PIECE_NORMAL = 1,
    KV_PIECE_UNKNOWN,
    KV_PIECE_CONTROL,
    KV_PIECE_USER_DEFINED,
    KV_PIECE_UNUSED,
    KV_PIECE_BYTE
};

// Whether a text of characters, between added tokens, gets a space in front.
enum kv_space_prefix {
    KV_PREFIX_NONE,
    KV_PREFIX_EACH,      // always
    KV_PREFIX_EACH_BARE, // where it has none
    KV_PREFIX_FIRST_BARE // where it has none and begins the sequence
};

// Everything is borrowed for the call. pieces[i] is token i's text: in GPT-2's byte-to-unicode
// spelling, or with U+2581 for a space and "<0x0A>" for a byte where `characters` is set.
struct kv_tokenizer_parts {
    const char *const *pieces;
    size_t n_pieces;
    const int32_t *types;      // [n_pieces] enum kv_piece_type, or NULL
    const char *const *merges; // "left right" in order of rank
    size_t n_merges;
    const float *scores; // [n_pieces] with `characters`, instead of merges; or NULL
    bool characters;
    enum kv_space_prefix space_prefix;
    bool nfc;                        // texts are brought to NFC first
    bool ignore_merges;              // a span that is a piece is that token
    const char *steps[KV_MAX_STEPS]; // regular expressions (pretokenizers.h), NULL after the last
};

// Errors, with the piece or merge: a merge of unknown pieces, a piece that is not UTF-8, a score
// that is no number, no piece for any byte, or with `characters` for each one.
KV_MUST_CHECK int kv_tokenizer_make(struct kv_tokenizer **t, const struct kv_tokenizer_parts *parts,
                                    struct kv_error *e);

struct kv_merge {
    uint32_t left, right, result;
    uint32_t rank; // low ones first, equal ones from the left
};

struct kv_tokenizer {
    size_t n_pieces, n_merges;
    char *bytes;                 // all tokens' bytes, one after the other
    struct kv_piece_text *text;  // [n_pieces] in bytes
    uint8_t *kinds;              // [n_pieces] enum kv_token_kind
    uint32_t of_byte[256];       // token of a byte; with characters of an ASCII character
    struct kv_piece_table table; // of the tokens' bytes; empty where nothing asks for it
    struct kv_merge *merges;
    uint32_t *pairs; // hash table of (left, right): index of a merge
    uint64_t mask;   // of pairs
    uint64_t digest;
    bool characters, nfc, ignore_merges;
    enum kv_space_prefix space_prefix;
    pcre2_code *steps[KV_MAX_STEPS];
    size_t n_steps;
    struct kv_added_token *added; // [n_added], by first byte, then the longest text first
    size_t n_added;
    uint32_t first_added[257]; // where those of a first byte begin
};

// Where the merge of a pair of tokens stands in t->pairs, or would stand.
static inline uint32_t *kv_pair_slot(const struct kv_tokenizer *t, uint32_t left, uint32_t right) {
    uint64_t z = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u, i = (z ^ z >> 29) & t->mask;
    for (; t->pairs[i] != KV_NO_TOKEN; i = (i + 1) & t->mask) {
        const struct kv_merge *m = &t->merges[t->pairs[i]];
        if (m->left == left && m->right == right) break;
    }
    return &t->pairs[i];
}

// Fills t->merges and t->pairs, from either source (tokenizer_merges.c). t->text stands.
KV_MUST_CHECK int kv_tokenizer_merges(struct kv_tokenizer *t,
                                      const struct kv_tokenizer_parts *parts, struct kv_error *e);

// Copies a text with a space for each U+2581, SentencePiece's sign of one; returns its bytes.
static inline size_t kv_put_spaces(char *out, const char *s, size_t n) {
    size_t n_out = 0;
    for (size_t i = 0; i < n; i++) {
        bool sign = n - i >= 3 && memcmp(s + i, "\u2581", 3) == 0;
        out[n_out++] = sign ? ' ' : s[i];
        i += sign ? 2 : 0;
    }
    return n_out;
}

// The first added token of the pass at or after `from`, as AddedVocabulary of
// https://github.com/huggingface/tokenizers finds it; NULL when there is none (tokenizer_added.c).
const struct kv_added_token *kv_added_next(const struct kv_tokenizer *t, bool normalized,
                                           const char *s, size_t n, size_t from, size_t *begin,
                                           size_t *end);

// The kind of a token by its bytes (token_kind.c).
enum kv_token_kind kv_kind_of_bytes(const char *s, size_t n);

#endif
