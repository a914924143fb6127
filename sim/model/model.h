// SPDX-License-Identifier: Apache-2.0
// A language model in memory: weights and tokenizer. forward.h runs it.
//
//     struct kv_model *m;
//     if (kv_model_open(&m, "data/SmolLM2-135M-Instruct.Q4_1.gguf", KV_WEIGHTS_F32, &e)) ...
//     kv_tokenizer_encode(m->tokenizer, text, strlen(text), &ids, &n);
//
// Opened models are read-only and shared by threads; each worker brings its own kv_scratch.
#ifndef KV_MODEL_MODEL_H
#define KV_MODEL_MODEL_H

#include "policies/policy.h"
#include "sim/quant/format.h"

KV_BEGIN_DECLS

struct kv_tokenizer;
struct kv_accelerator;
struct kv_engine;
struct kv_architecture;

enum kv_weights_as { KV_WEIGHTS_F32, KV_WEIGHTS_BF16 };

// A weight matrix [rows][cols], row-major: y = W x. Exactly one of f32 and bf16 is set.
struct kv_matrix {
    size_t rows, cols;
    float *f32;
    uint16_t *bf16;
    const struct kv_accelerator *accelerator; // where its products run; NULL = CBLAS
};

// Q, K, V fused by rows, as are gate and up, so that each layer needs four products. Vectors that
// the architecture does not have are NULL.
struct kv_layer_weights {
    float *attn_norm;        // [hidden]
    struct kv_matrix qkv;    // [(n_heads + 2 n_kv_heads) head_dim][hidden]
    float *qkv_bias;         // [(n_heads + 2 n_kv_heads) head_dim] or NULL
    float *q_norm, *k_norm;  // [head_dim] of each head's RMS norm before RoPE, or NULL
    struct kv_matrix out;    // [hidden][n_heads head_dim]
    float *out_bias;         // [hidden] or NULL
    float *attn_post_norm;   // [hidden] of attention's output before it is added, or NULL
    float *ffn_norm;         // [hidden]
    struct kv_matrix gateup; // [2 ffn][hidden]: gate rows, then up rows
    float *gateup_bias;      // [2 ffn] or NULL
    struct kv_matrix down;   // [hidden][ffn]
    float *down_bias;        // [hidden] or NULL
    float *ffn_post_norm;    // [hidden] of the feed-forward output before it is added, or NULL
    uint32_t window;         // a query at p sees the keys at p - window + 1 .. p; 0: all before it
    uint8_t rope;            // which of the model's RoPEs turns its queries and keys
};

enum kv_gate { KV_SILU, KV_GELU_TANH };

// How RoPE's frequencies are stretched beyond the context that a model was trained on.
enum kv_rope_scaling {
    KV_ROPE_PLAIN,
    KV_ROPE_LINEAR,  // all divided by `factor`
    KV_ROPE_LLAMA3,  // long waves divided by `factor`, short ones kept
    KV_ROPE_YARN,    // between fast and slow ones a ramp; and keys and queries grow
    KV_ROPE_DIVISORS // pair i's divided by divisors[i], as a file says
};

struct kv_rope {
    float base;
    enum kv_rope_scaling scaling;
    float factor;
    float low_factor, high_factor; // LLAMA3: original_tokens over the longest and the shortest wave
                                   // between which it blends; YARN: beta_slow and beta_fast
    float attention_factor;        // what rotated vectors are multiplied by; 1 but for YARN
    uint32_t original_tokens;      // of the context before it was stretched
    float *divisors;               // [head_dim / 2] with DIVISORS, else NULL
    float *cos, *sin;              // [max_tokens][head_dim / 2], times attention_factor
};

struct kv_model {
    const struct kv_architecture *architecture; // a row of sim/model/architecture.c
    struct kv_shape shape;
    enum kv_order order; // channel order of Q and K inside a head
    float rms_eps;
    float embed_scale;       // what embeddings are multiplied by; 1 but for Gemma
    float attn_scale;        // of a query times a key; 1 / sqrt(head_dim) but for some Gemmas
    enum kv_gate activation; // of the gate
    struct kv_rope rope[2];  // a layer says which
    size_t n_ropes;
    char name[96];       // general.name or the folder's name
    char digest[17];     // XXH64 of the weight files' bytes
    char weights_as[16]; // "f32" or "bf16"
    char source[64];     // "GGUF v3 (Q4_1)", "safetensors (BF16)"
    size_t n_layers;
    struct kv_layer_weights *layers;
    float *final_norm;      // [hidden]
    struct kv_matrix embed; // [vocab][hidden]
    struct kv_matrix head;  // [vocab][hidden]; the same memory as embed when tied
    bool tied;
    const struct kv_accelerator *accelerator; // NULL = none (sim/model/accelerator.h)
    const struct kv_engine *engine; // runs whole coded passes (sim/model/engine.h); NULL = none
    void *engine_self;
    bool engine_bf16;
    struct kv_tokenizer *tokenizer;
    bool add_bos; // each sequence begins with bos
    uint32_t bos; // 0 without add_bos
};

// The first position that a query at `position` sees in a layer of a window.
static inline uint32_t kv_window_start(uint32_t window, uint32_t position) {
    return window && position >= window ? position - window + 1 : 0;
}

// Opens a GGUF file or a Hugging Face folder. Refuses, in one sentence that names file and place:
// truncated files, headers whose counts lie, unknown tensor types, other architectures, NaN
// weights. OpenBLAS is loaded, with one thread (sim/base/blas.h): workers are ours.
KV_MUST_CHECK int kv_model_open(struct kv_model **m, const char *path, enum kv_weights_as as,
                                struct kv_error *e);
void kv_model_close(struct kv_model *m);

// A Llama of the given shape with seeded random weights and no tokenizer, for tests and device
// runs. NULL when memory runs out.
struct kv_model *kv_model_random(const struct kv_shape *shape, enum kv_order order, bool tied,
                                 uint64_t seed);

// The same of another architecture ("qwen2", by GGUF's name; NULL: Llama), with what it may have. A
// RoPE of base 0 is the usual one; the second is that of sliding layers. NULL also for a name that
// is not known.
struct kv_random_model {
    const char *architecture;
    bool biases;                     // those that the architecture may have
    uint32_t window, window_pattern; // tokens (0: no layer slides); each so manieth layer sees all
    struct kv_rope rope[2];
    float attn_scale; // 0: the usual
};
struct kv_model *kv_model_random_as(const struct kv_shape *shape, enum kv_order order, bool tied,
                                    uint64_t seed, const struct kv_random_model *how);

// A published model without its weights: what a decode step's time depends on.
struct kv_published {
    const char *name; // "135m"
    struct kv_shape shape;
    bool qkv_bias, head_norms, post_norms, gelu;
    uint32_t window, window_pattern; // tokens (0: no layer slides); each so manieth layer sees all
};
const struct kv_published *kv_published_at(size_t i); // NULL past the end
// NULL when unknown.
const struct kv_published *kv_published_named(const char *name);
const struct kv_shape *kv_shape_named(const char *name);
// KV_EUSAGE with the name and those known.
int kv_shape_unknown(const char *where, const char *name, struct kv_error *e);
const char *kv_shape_name_at(size_t i); // NULL past the end

// ---- RoPE (rope.c) --------------------------------------------------------------------

// Radians a position that pair i of a head turns by, i < head_dim / 2, its scaling included:
// base^(-2i / head_dim) (Su et al. 2021, RoFormer, section 3.2.2) divided as rope.c says.
double kv_rope_frequency(const struct kv_rope *r, uint32_t head_dim, uint32_t pair);

// ---- tokenizer (tokenizer.h) ----------------------------------------------------------

// Makes a byte-level BPE tokenizer. pieces[i] is token i's text in GPT-2's byte-to-unicode
// spelling; merges are "left right" in order of rank. split_digits: SmolLM's pre-tokenizer (each
// digit alone, then GPT-2's pattern). Texts are copied. Errors: a merge of unknown pieces, no
// piece for any byte.
KV_MUST_CHECK int kv_tokenizer_new(struct kv_tokenizer **t, const char *const *pieces,
                                   size_t n_pieces, const char *const *merges, size_t n_merges,
                                   bool split_digits, struct kv_error *e);
void kv_tokenizer_free(struct kv_tokenizer *t);

// A token that is recognized in a text before anything else, with the flags of Hugging Face's
// tokenizers (AddedToken): lstrip and rstrip take the white space on that side in, single_word asks
// that no letter or digit stand beside it, normalized ones are looked for after the others.
struct kv_added_token {
    const char *text; // not empty
    uint32_t id;
    bool normalized, lstrip, rstrip, single_word;
};

// Makes the tokenizer know added tokens: special ones, and those a user added. Texts are copied. To
// be called once, before the tokenizer is used. Errors: an empty text, an id without a piece.
KV_MUST_CHECK int kv_tokenizer_add(struct kv_tokenizer *t, const struct kv_added_token *added,
                                   size_t n, struct kv_error *e);

// Ids of a UTF-8 text; the text of an added token is that token, no BOS is added; bytes without a
// token (some control characters in SmolLM) are left out, as the tokenizers library does; a text
// that is not in NFC is brought to it where the model's own tokenizer does so (Qwen's). *ids is
// grown with kv_grow and owned by the caller. Thread-safe. Errors: text that is not UTF-8, with the
// byte.
KV_MUST_CHECK int kv_tokenizer_encode(const struct kv_tokenizer *t, const char *text,
                                      size_t n_bytes, uint32_t **ids, size_t *n_ids,
                                      struct kv_error *e);
// The bytes of a token (not NUL-terminated, maybe no whole character). Borrowed.
const char *kv_tokenizer_bytes(const struct kv_tokenizer *t, uint32_t id, size_t *n_bytes);
uint64_t kv_tokenizer_digest(const struct kv_tokenizer *t); // over pieces, merges, rules
enum kv_token_kind kv_tokenizer_kind(const struct kv_tokenizer *t, uint32_t id); // never KV_FIRST

KV_END_DECLS

#endif
