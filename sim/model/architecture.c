// SPDX-License-Identifier: Apache-2.0
// The architectures, a row each. Only Llama so far.
#include "sim/model/architecture.h"

size_t kv_dim_size(const struct kv_shape *s, enum kv_dim d) {
    const size_t sizes[] = {[KV_DIM_NONE] = 0,
                            [KV_DIM_ONE] = 1,
                            [KV_DIM_HIDDEN] = s->hidden,
                            [KV_DIM_QUERIES] = (size_t)s->n_heads * s->head_dim,
                            [KV_DIM_KEYS] = (size_t)s->n_kv_heads * s->head_dim,
                            [KV_DIM_FFN] = s->ffn,
                            [KV_DIM_VOCAB] = s->vocab};
    return sizes[d];
}

#define ONE KV_DIM_ONE
#define HIDDEN KV_DIM_HIDDEN
#define QUERIES KV_DIM_QUERIES
#define KEYS KV_DIM_KEYS
#define FFN KV_DIM_FFN
#define VOCAB KV_DIM_VOCAB
#define VECTOR KV_SLOT_VECTOR

// ---- Llama ----------------------------------------------------------------------------
//
// Touvron et al. 2023 (arXiv 2302.13971); names: LlamaForCausalLM of
// https://github.com/huggingface/transformers and gguf-py/gguf/constants.py of
// https://github.com/ggml-org/llama.cpp.

// clang-format off
#define TO(m) offsetof(struct kv_model, m)
static const struct kv_slot llama_model[] = {
    {{"token_embd.weight", "model.embed_tokens.weight"}, VOCAB, HIDDEN, TO(embed), 0, {0}},
    {{"output_norm.weight", "model.norm.weight"}, ONE, HIDDEN, TO(final_norm), VECTOR, {0}},
    {{"output.weight", "lm_head.weight"}, VOCAB, HIDDEN, TO(head), KV_SLOT_UNLESS_TIED, {0}},
    {.name = {NULL}},
};
#undef TO
#define TO(m) offsetof(struct kv_layer_weights, m)
static const struct kv_slot llama_layer[] = {
    {{"attn_norm.weight", "input_layernorm.weight"}, ONE, HIDDEN, TO(attn_norm), VECTOR, {0}},
    {{"attn_q.weight", "self_attn.q_proj.weight"}, QUERIES, HIDDEN, TO(qkv), 0, {0}},
    {{"attn_k.weight", "self_attn.k_proj.weight"}, KEYS, HIDDEN, TO(qkv), 0, {QUERIES}},
    {{"attn_v.weight", "self_attn.v_proj.weight"}, KEYS, HIDDEN, TO(qkv), 0, {QUERIES, KEYS}},
    {{"attn_output.weight", "self_attn.o_proj.weight"}, HIDDEN, QUERIES, TO(out), 0, {0}},
    {{"ffn_norm.weight", "post_attention_layernorm.weight"}, ONE, HIDDEN, TO(ffn_norm), VECTOR, {0}},
    {{"ffn_gate.weight", "mlp.gate_proj.weight"}, FFN, HIDDEN, TO(gateup), 0, {0}},
    {{"ffn_up.weight", "mlp.up_proj.weight"}, FFN, HIDDEN, TO(gateup), 0, {FFN}},
    {{"ffn_down.weight", "mlp.down_proj.weight"}, HIDDEN, FFN, TO(down), 0, {0}},
    {.name = {NULL}},
};
#undef TO
// clang-format on

static const char *const llama_refused[] = {"attention_bias",      "mlp_bias",
                                            "rope_interleaved",    "sliding_window",
                                            "quantization_config", NULL};

// ---- the table ------------------------------------------------------------------------

static const struct kv_architecture architectures[] = {
    {
        .title = "Llama",
        .name = {"llama", "LlamaForCausalLM"},
        .layer_prefix = {"blk.", "model.layers."},
        .order = {KV_ORDER_GGML, KV_ORDER_HF},
        .model_slots = llama_model,
        .layer_slots = llama_layer,
        .max_tokens = 2048,
        .rms_eps = 1e-6f,
        .rope_base = 10000,
        .activation = "silu",
        .refused = llama_refused,
    },
};
#define N_ARCHITECTURES (sizeof architectures / sizeof *architectures)

const struct kv_architecture *const kv_architecture_usual = &architectures[0];

int kv_architecture_find(const struct kv_architecture **a, enum kv_model_layout layout,
                         const char *name, const char *what, const char *path, struct kv_error *e) {
    char known[256] = "";
    size_t n = 0;
    for (size_t i = 0; i < N_ARCHITECTURES; i++) {
        const char *one = architectures[i].name[layout];
        *a = &architectures[i];
        if (strcmp(one, name) == 0) return KV_OK;
        if (n < sizeof known)
            n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", one);
    }
    return kv_fail(e, KV_EFAIL, path, "%s is %.80s; only %s models are computed", what, name,
                   known);
}
