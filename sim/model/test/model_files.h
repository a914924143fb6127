// SPDX-License-Identifier: Apache-2.0
// For tests: writes a model in memory as a GGUF file or a Hugging Face folder, with a tiny
// tokenizer.
#ifndef KV_MODEL_TEST_MODEL_FILES_H
#define KV_MODEL_TEST_MODEL_FILES_H

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "sim/base/utf8.h"
#include "sim/base/files.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/model/architecture.h"
#include "sim/model/safetensors.h"

// ---- a tokenizer of 256 bytes and a few merges ----------------------------------------

static const char *const tiny_merges[] = {"h e", "Ġ t", "Ġt he", "i n", "1 2"};
#define N_TINY_MERGES 5
#define N_TINY_PIECES (256 + N_TINY_MERGES)

// Token b is byte b; token 256 + i is what merge i makes. Texts live in `store`.
struct tiny_pieces {
    const char *text[N_TINY_PIECES];
    char store[N_TINY_PIECES][16];
};

static inline void make_tiny_pieces(struct tiny_pieces *p) {
    memset(p, 0, sizeof *p);
    for (uint32_t b = 0, n = 0; b < 256; b++) {
        bool plain = (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD);
        kv_utf8_put(plain ? b : 0x100 + n, p->store[b]);
        n += !plain;
    }
    for (int i = 0; i < N_TINY_MERGES; i++) {
        const char *space = strchr(tiny_merges[i], ' ');
        snprintf(p->store[256 + i], 16, "%.*s%s", (int)(space - tiny_merges[i]), tiny_merges[i],
                 space + 1);
    }
    for (int i = 0; i < N_TINY_PIECES; i++) p->text[i] = p->store[i];
}

// ---- tensors of a model under the names of a layout -----------------------------------

struct file_tensor {
    char name[64];
    const float *data;
    size_t rows, cols; // rows 0: a vector
};

struct file_tensors {
    struct file_tensor list[256];
    size_t n;
};

KV_PRINTF(5, 6)
static inline void add_file_tensor(struct file_tensors *t, const float *data, size_t rows,
                                   size_t cols, const char *format, ...) {
    struct file_tensor *one = &t->list[t->n++];
    va_list ap;
    va_start(ap, format);
    vsnprintf(one->name, sizeof one->name, format, ap);
    va_end(ap);
    one->data = data;
    one->rows = rows;
    one->cols = cols;
}

static inline const float *values_at(const float *data, size_t offset) {
    return data ? data + offset : NULL;
}

// A model of few layers; its matrices must be f32, or absent where only names and shapes matter.
static inline void list_file_tensors(struct file_tensors *t, const struct kv_model *m, bool gguf) {
    const struct kv_shape *s = &m->shape;
    size_t h = s->hidden, q = (size_t)s->n_heads * s->head_dim, d = s->head_dim, ffn = s->ffn;
    size_t kv = (size_t)s->n_kv_heads * s->head_dim;
    t->n = 0;
    add_file_tensor(t, m->embed.f32, s->vocab, h,
                    gguf ? "token_embd.weight" : "model.embed_tokens.weight");
    add_file_tensor(t, m->final_norm, 0, h, gguf ? "output_norm.weight" : "model.norm.weight");
    if (!m->tied)
        add_file_tensor(t, m->head.f32, s->vocab, h, gguf ? "output.weight" : "lm_head.weight");
    if (gguf && m->rope[0].divisors)
        add_file_tensor(t, m->rope[0].divisors, 0, d / 2, "rope_freqs.weight");
    for (unsigned i = 0; i < s->n_layers; i++) {
        const struct kv_layer_weights *l = &m->layers[i];
        const float *qkv = l->qkv.f32, *up = values_at(l->gateup.f32, (size_t)s->ffn * h);
        bool around = l->attn_post_norm; // norms before and after a part
        const struct {
            const char *gguf, *hf;
            const float *data;
            size_t rows, cols;
            bool absent;
        } of_layer[] = {
            {"attn_norm.weight", "input_layernorm.weight", l->attn_norm, 0, h, false},
            {"attn_q.weight", "self_attn.q_proj.weight", qkv, q, h, false},
            {"attn_k.weight", "self_attn.k_proj.weight", values_at(qkv, q * h), kv, h, false},
            {"attn_v.weight", "self_attn.v_proj.weight", values_at(qkv, (q + kv) * h), kv, h,
             false},
            {"attn_output.weight", "self_attn.o_proj.weight", l->out.f32, h, q, false},
            {"ffn_norm.weight",
             around ? "pre_feedforward_layernorm.weight" : "post_attention_layernorm.weight",
             l->ffn_norm, 0, h, false},
            {"ffn_gate.weight", "mlp.gate_proj.weight", l->gateup.f32, ffn, h, false},
            {"ffn_up.weight", "mlp.up_proj.weight", up, ffn, h, false},
            {"ffn_down.weight", "mlp.down_proj.weight", l->down.f32, h, ffn, false},
            {"post_attention_norm.weight", "post_attention_layernorm.weight", l->attn_post_norm, 0,
             h, !around},
            {"post_ffw_norm.weight", "post_feedforward_layernorm.weight", l->ffn_post_norm, 0, h,
             !around},
            {"attn_q_norm.weight", "self_attn.q_norm.weight", l->q_norm, 0, d, !l->q_norm},
            {"attn_k_norm.weight", "self_attn.k_norm.weight", l->k_norm, 0, d, !l->k_norm},
            {"attn_q.bias", "self_attn.q_proj.bias", l->qkv_bias, 0, q, !l->qkv_bias},
            {"attn_k.bias", "self_attn.k_proj.bias", values_at(l->qkv_bias, q), 0, kv,
             !l->qkv_bias},
            {"attn_v.bias", "self_attn.v_proj.bias", values_at(l->qkv_bias, q + kv), 0, kv,
             !l->qkv_bias},
            {"attn_output.bias", "self_attn.o_proj.bias", l->out_bias, 0, h, !l->out_bias},
            {"ffn_gate.bias", "mlp.gate_proj.bias", l->gateup_bias, 0, ffn, !l->gateup_bias},
            {"ffn_up.bias", "mlp.up_proj.bias", values_at(l->gateup_bias, ffn), 0, ffn,
             !l->gateup_bias},
            {"ffn_down.bias", "mlp.down_proj.bias", l->down_bias, 0, h, !l->down_bias},
        };
        for (size_t k = 0; k < sizeof of_layer / sizeof *of_layer; k++)
            if (!of_layer[k].absent)
                add_file_tensor(t, of_layer[k].data, of_layer[k].rows, of_layer[k].cols, "%s%u.%s",
                                gguf ? "blk." : "model.layers.", i,
                                gguf ? of_layer[k].gguf : of_layer[k].hf);
    }
}

static inline size_t file_values(const struct file_tensor *t) {
    return (t->rows ? t->rows : 1) * t->cols;
}

// ---- GGUF -----------------------------------------------------------------------------

static inline void put_number(struct kv_text *t, uint64_t x, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) kv_text_add(t, &(char){(char)(x >> (8 * i))}, 1);
}

static inline void put_string(struct kv_text *t, const char *s) {
    put_number(t, strlen(s), 8);
    kv_text_add(t, s, strlen(s));
}

static inline void put_u32_pair(struct kv_text *t, const char *key, uint32_t x) {
    put_string(t, key);
    put_number(t, 4, 4);
    put_number(t, x, 4);
}

static inline void put_float_pair(struct kv_text *t, const char *key, float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    put_string(t, key);
    put_number(t, 6, 4);
    put_number(t, bits, 4);
}

static inline void put_text_pair(struct kv_text *t, const char *key, const char *x) {
    put_string(t, key);
    put_number(t, 8, 4);
    put_string(t, x);
}

static inline void put_list_pair(struct kv_text *t, const char *key, const char *const *x,
                                 size_t n) {
    put_string(t, key);
    put_number(t, 9, 4);
    put_number(t, 8, 4);
    put_number(t, n, 8);
    for (size_t i = 0; i < n; i++) put_string(t, x[i]);
}

// How matrices are stored: ggml's number, values and bytes of a block, and what fills the blocks
// (NULL: the values as F32).
struct gguf_type {
    uint32_t number;
    size_t block_values, block_bytes;
    void (*encode)(const float *x, size_t n_blocks, uint8_t *out);
};

static inline void encode_f16(const float *x, size_t n, uint8_t *out) {
    for (size_t i = 0; i < n; i++) {
        uint16_t h = kv_f32_to_f16(x[i]);
        memcpy(out + 2 * i, &h, 2);
    }
}

static inline void encode_bf16(const float *x, size_t n, uint8_t *out) {
    for (size_t i = 0; i < n; i++) {
        uint16_t h = kv_f32_to_bf16(x[i]);
        memcpy(out + 2 * i, &h, 2);
    }
}

static const struct gguf_type gguf_f32 = {0, 1, 4, NULL};

static inline const char *gguf_key(char key[64], const char *architecture, const char *name) {
    snprintf(key, 64, "%s.%s", architecture, name);
    return key;
}

// The bytes of a GGUF file of version 3 with the tiny tokenizer, whose 261 pieces are the
// vocabulary, and n_more further pairs. Vectors are F32. Caller frees t->s.
static inline void build_gguf_with(struct kv_text *t, const struct kv_model *m,
                                   const struct gguf_type *type, const struct kv_text *more,
                                   uint64_t n_more) {
    struct tiny_pieces pieces;
    struct file_tensors *tensors = kv_alloc(1, sizeof *tensors);
    const struct kv_shape *s = &m->shape;
    const char *name = m->architecture->name[KV_LAYOUT_GGUF];
    char key[64];
    make_tiny_pieces(&pieces);
    list_file_tensors(tensors, m, true);
    kv_text_add(t, "GGUF", 4);
    put_number(t, 3, 4);
    put_number(t, tensors->n, 8);
    put_number(t, 15 + n_more, 8);
    put_text_pair(t, "general.architecture", name);
    put_text_pair(t, "general.name", "tiny");
    put_u32_pair(t, gguf_key(key, name, "block_count"), s->n_layers);
    put_u32_pair(t, gguf_key(key, name, "context_length"), s->max_tokens);
    put_u32_pair(t, gguf_key(key, name, "embedding_length"), s->hidden);
    put_u32_pair(t, gguf_key(key, name, "feed_forward_length"), s->ffn);
    put_u32_pair(t, gguf_key(key, name, "attention.head_count"), s->n_heads);
    put_u32_pair(t, gguf_key(key, name, "attention.head_count_kv"), s->n_kv_heads);
    put_u32_pair(t, gguf_key(key, name, "attention.key_length"), s->head_dim);
    put_float_pair(t, gguf_key(key, name, "rope.freq_base"), m->rope[0].base);
    put_float_pair(t, gguf_key(key, name, "attention.layer_norm_rms_epsilon"), m->rms_eps);
    put_text_pair(t, "tokenizer.ggml.model", "gpt2");
    put_text_pair(t, "tokenizer.ggml.pre", "smollm");
    put_list_pair(t, "tokenizer.ggml.tokens", pieces.text, N_TINY_PIECES);
    put_list_pair(t, "tokenizer.ggml.merges", tiny_merges, N_TINY_MERGES);
    if (n_more) kv_text_add(t, more->s, more->n);
    uint64_t offset = 0;
    for (size_t i = 0; i < tensors->n; i++) {
        const struct file_tensor *one = &tensors->list[i];
        const struct gguf_type *as = one->rows ? type : &gguf_f32;
        put_string(t, one->name);
        put_number(t, one->rows ? 2 : 1, 4);
        put_number(t, one->cols, 8);
        if (one->rows) put_number(t, one->rows, 8);
        put_number(t, as->number, 4);
        put_number(t, offset, 8);
        offset += file_values(one) / as->block_values * as->block_bytes;
        offset = (offset + 31) / 32 * 32;
    }
    for (size_t i = 0; i < tensors->n; i++) {
        const struct file_tensor *one = &tensors->list[i];
        const struct gguf_type *as = one->rows ? type : &gguf_f32;
        while (t->n % 32) kv_text_add(t, "", 1);
        size_t n_blocks = file_values(one) / as->block_values;
        uint8_t *blocks = kv_alloc(n_blocks, as->block_bytes);
        if (as->encode)
            as->encode(one->data, n_blocks, blocks);
        else
            memcpy(blocks, one->data, n_blocks * 4);
        kv_text_add(t, (const char *)blocks, n_blocks * as->block_bytes);
        free(blocks);
    }
    free(tensors);
}

static inline void build_gguf(struct kv_text *t, const struct kv_model *m,
                              const struct gguf_type *type) {
    build_gguf_with(t, m, type, NULL, 0);
}

// ---- Hugging Face folder --------------------------------------------------------------

static inline char *file_in(const char *dir, const char *name) {
    return kv_format_text("%s/%s", dir, name);
}

static inline int write_file_in(const char *dir, const char *name, const void *data, size_t n) {
    struct kv_error e;
    char *path = file_in(dir, name);
    int rc = kv_write_file(path, data, n, &e);
    free(path);
    return rc;
}

static inline void remove_file_in(const char *dir, const char *name) {
    char *path = file_in(dir, name);
    unlink(path);
    free(path);
}

static inline int write_config(const char *dir, const struct kv_model *m, const char *more) {
    const struct kv_shape *s = &m->shape;
    char *text = kv_format_text(
        "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_act\": \"silu\", "
        "\"hidden_size\": %u, \"intermediate_size\": %u, \"num_hidden_layers\": %u, "
        "\"num_attention_heads\": %u, \"num_key_value_heads\": %u, \"head_dim\": %u, "
        "\"vocab_size\": %u, \"max_position_embeddings\": %u, \"rms_norm_eps\": %g, "
        "\"rope_theta\": %g, \"rope_scaling\": null, \"tie_word_embeddings\": %s%s}",
        s->hidden, s->ffn, s->n_layers, s->n_heads, s->n_kv_heads, s->head_dim, s->vocab,
        s->max_tokens, (double)m->rms_eps, (double)m->rope[0].base, m->tied ? "true" : "false",
        more);
    json_t *root = json_loads(text, 0, NULL); // what `more` says again wins
    free(text);
    text = json_dumps(root, JSON_REAL_PRECISION(17));
    int rc = write_file_in(dir, "config.json", text, strlen(text));
    free(text);
    json_decref(root);
    return rc;
}

// merges_as_pairs: the newer spelling of merges.
static inline int write_tokenizer(const char *dir, bool merges_as_pairs) {
    struct tiny_pieces pieces;
    make_tiny_pieces(&pieces);
    json_t *vocab = json_object(), *merges = json_array();
    for (int i = 0; i < N_TINY_PIECES; i++)
        json_object_set_new(vocab, pieces.text[i], json_integer(i));
    for (int i = 0; i < N_TINY_MERGES; i++) {
        const char *text = tiny_merges[i], *space = strchr(text, ' ');
        json_array_append_new(
            merges, merges_as_pairs ? json_pack("[s%, s]", text, (size_t)(space - text), space + 1)
                                    : json_string(text));
    }
    json_t *root =
        json_pack("{s:n, s:{s:s, s:[{s:s, s:b}, {s:s, s:b, s:b}]}, s:{s:s, s:o, s:o}}",
                  "normalizer", "pre_tokenizer", "type", "Sequence", "pretokenizers", "type",
                  "Digits", "individual_digits", 1, "type", "ByteLevel", "add_prefix_space", 0,
                  "use_regex", 1, "model", "type", "BPE", "vocab", vocab, "merges", merges);
    char *text = json_dumps(root, 0);
    int rc = write_file_in(dir, "tokenizer.json", text, strlen(text));
    free(text);
    json_decref(root);
    return rc;
}

// Writes tensors [first, first + n) of the model as dtype F32, F16 or BF16.
static inline int write_safetensors(const char *dir, const char *name, const struct kv_model *m,
                                    const char *dtype, size_t first, size_t n) {
    struct file_tensors *from = kv_alloc(1, sizeof *from);
    struct kv_tensor *to = kv_alloc(n, sizeof *to);
    struct kv_error e;
    list_file_tensors(from, m, false);
    for (size_t i = 0; i < n; i++) {
        const struct file_tensor *f = &from->list[first + i];
        memcpy(to[i].name, f->name, sizeof f->name);
        snprintf(to[i].dtype, sizeof to[i].dtype, "%s", dtype);
        if (f->rows) to[i].dims[to[i].n_dims++] = f->rows;
        to[i].dims[to[i].n_dims++] = f->cols;
    }
    char *header;
    size_t header_bytes;
    uint64_t total;
    int rc = kv_safetensors_layout(to, n, NULL, 0, &header, &header_bytes, &total, &e);
    if (!rc) {
        uint8_t *file = kv_alloc(total, 1);
        memcpy(file, header, header_bytes);
        for (size_t i = 0; i < n; i++) {
            const struct file_tensor *f = &from->list[first + i];
            if (strcmp(dtype, "F32") == 0)
                memcpy(file + to[i].offset, f->data, to[i].n_bytes);
            else if (strcmp(dtype, "F16") == 0)
                encode_f16(f->data, file_values(f), file + to[i].offset);
            else
                encode_bf16(f->data, file_values(f), file + to[i].offset);
        }
        rc = write_file_in(dir, name, file, total);
        free(file);
        free(header);
    }
    free(to);
    free(from);
    return rc;
}

static inline size_t count_file_tensors(const struct kv_model *m) {
    struct file_tensors *list = kv_alloc(1, sizeof *list);
    list_file_tensors(list, m, false);
    size_t n = list->n;
    free(list);
    return n;
}

// A whole folder in one shard.
static inline int write_folder(const char *dir, const struct kv_model *m, const char *dtype) {
    int rc = write_config(dir, m, "");
    if (!rc) rc = write_tokenizer(dir, false);
    if (!rc) rc = write_safetensors(dir, "model.safetensors", m, dtype, 0, count_file_tensors(m));
    return rc;
}

#endif
