// SPDX-License-Identifier: Apache-2.0
// The architectures, a row each.
#include "sim/model/architecture.h"

#include "sim/base/memory.h"
#include "sim/model/rope.h"

size_t kv_dim_size(const struct kv_shape *s, enum kv_dim d) {
    const size_t sizes[] = {[KV_DIM_NONE] = 0,
                            [KV_DIM_ONE] = 1,
                            [KV_DIM_HIDDEN] = s->hidden,
                            [KV_DIM_QUERIES] = (size_t)s->n_heads * s->head_dim,
                            [KV_DIM_KEYS] = (size_t)s->n_kv_heads * s->head_dim,
                            [KV_DIM_HEAD] = s->head_dim,
                            [KV_DIM_FFN] = s->ffn,
                            [KV_DIM_VOCAB] = s->vocab};
    return sizes[d];
}

#define ONE KV_DIM_ONE
#define HIDDEN KV_DIM_HIDDEN
#define QUERIES KV_DIM_QUERIES
#define KEYS KV_DIM_KEYS
#define HEAD KV_DIM_HEAD
#define FFN KV_DIM_FFN
#define VOCAB KV_DIM_VOCAB
#define NORM (KV_SLOT_VECTOR | KV_SLOT_NORM)
#define QKV_BIAS (KV_SLOT_VECTOR | KV_SLOT_QKV_BIAS)
#define OUT_BIAS (KV_SLOT_VECTOR | KV_SLOT_OUT_BIAS)
#define FFN_BIAS (KV_SLOT_VECTOR | KV_SLOT_FFN_BIAS)

// ---- slots ----------------------------------------------------------------------------
//
// Names: LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM and Gemma3ForCausalLM of
// https://github.com/huggingface/transformers, and gguf-py/gguf/constants.py of
// https://github.com/ggml-org/llama.cpp.

// clang-format off
#define TO(m) offsetof(struct kv_model, m)
static const struct kv_slot model_slots[] = {
    {{"token_embd.weight", "model.embed_tokens.weight"}, VOCAB, HIDDEN, TO(embed), 0, {0}},
    {{"output_norm.weight", "model.norm.weight"}, ONE, HIDDEN, TO(final_norm), NORM, {0}},
    {{"output.weight", "lm_head.weight"}, VOCAB, HIDDEN, TO(head), KV_SLOT_UNLESS_TIED, {0}},
    {.name = {NULL}},
};
#undef TO
#define TO(m) offsetof(struct kv_layer_weights, m)
static const struct kv_slot norms_before[] = {
    {{"attn_norm.weight", "input_layernorm.weight"}, ONE, HIDDEN, TO(attn_norm), NORM, {0}},
    {{"ffn_norm.weight", "post_attention_layernorm.weight"}, ONE, HIDDEN, TO(ffn_norm), NORM, {0}},
    {.name = {NULL}},
};
static const struct kv_slot norms_around[] = {
    {{"attn_norm.weight", "input_layernorm.weight"}, ONE, HIDDEN, TO(attn_norm), NORM, {0}},
    {{"post_attention_norm.weight", "post_attention_layernorm.weight"}, ONE, HIDDEN, TO(attn_post_norm), NORM, {0}},
    {{"ffn_norm.weight", "pre_feedforward_layernorm.weight"}, ONE, HIDDEN, TO(ffn_norm), NORM, {0}},
    {{"post_ffw_norm.weight", "post_feedforward_layernorm.weight"}, ONE, HIDDEN, TO(ffn_post_norm), NORM, {0}},
    {.name = {NULL}},
};
static const struct kv_slot norms_of_heads[] = {
    {{"attn_q_norm.weight", "self_attn.q_norm.weight"}, ONE, HEAD, TO(q_norm), NORM, {0}},
    {{"attn_k_norm.weight", "self_attn.k_norm.weight"}, ONE, HEAD, TO(k_norm), NORM, {0}},
    {.name = {NULL}},
};
static const struct kv_slot matrices[] = {
    {{"attn_q.weight", "self_attn.q_proj.weight"}, QUERIES, HIDDEN, TO(qkv), 0, {0}},
    {{"attn_k.weight", "self_attn.k_proj.weight"}, KEYS, HIDDEN, TO(qkv), 0, {QUERIES}},
    {{"attn_v.weight", "self_attn.v_proj.weight"}, KEYS, HIDDEN, TO(qkv), 0, {QUERIES, KEYS}},
    {{"attn_output.weight", "self_attn.o_proj.weight"}, HIDDEN, QUERIES, TO(out), 0, {0}},
    {{"ffn_gate.weight", "mlp.gate_proj.weight"}, FFN, HIDDEN, TO(gateup), 0, {0}},
    {{"ffn_up.weight", "mlp.up_proj.weight"}, FFN, HIDDEN, TO(gateup), 0, {FFN}},
    {{"ffn_down.weight", "mlp.down_proj.weight"}, HIDDEN, FFN, TO(down), 0, {0}},
    {.name = {NULL}},
};
static const struct kv_slot biases[] = {
    {{"attn_q.bias", "self_attn.q_proj.bias"}, ONE, QUERIES, TO(qkv_bias), QKV_BIAS, {0}},
    {{"attn_k.bias", "self_attn.k_proj.bias"}, ONE, KEYS, TO(qkv_bias), QKV_BIAS, {QUERIES}},
    {{"attn_v.bias", "self_attn.v_proj.bias"}, ONE, KEYS, TO(qkv_bias), QKV_BIAS, {QUERIES, KEYS}},
    {{"attn_output.bias", "self_attn.o_proj.bias"}, ONE, HIDDEN, TO(out_bias), OUT_BIAS, {0}},
    {{"ffn_gate.bias", "mlp.gate_proj.bias"}, ONE, FFN, TO(gateup_bias), FFN_BIAS, {0}},
    {{"ffn_up.bias", "mlp.up_proj.bias"}, ONE, FFN, TO(gateup_bias), FFN_BIAS, {FFN}},
    {{"ffn_down.bias", "mlp.down_proj.bias"}, ONE, HIDDEN, TO(down_bias), FFN_BIAS, {0}},
    {.name = {NULL}},
};
#undef TO
// clang-format on

// ---- the table ------------------------------------------------------------------------

// What no row computes; a number 0 is as if it were not there.
#define REFUSED_BY_ALL                                                                             \
    "rope_interleaved", "quantization_config", "attn_logit_softcapping",                           \
        "final_logit_softcapping", "use_bidirectional_attention", "attention_sinks",               \
        "kv_lora_rank", "num_experts", "num_local_experts", "n_routed_experts"

static const char *const refused_by_all[] = {REFUSED_BY_ALL, NULL};
static const char *const llama_refused[] = {REFUSED_BY_ALL, "sliding_window", NULL};

#define LAYERS                                                                                     \
    { "blk.", "model.layers." }

static const struct kv_architecture architectures[] = {
    {
        // Touvron et al. 2023 (arXiv 2302.13971)
        .title = "Llama",
        .name = {"llama", "LlamaForCausalLM"},
        .layer_prefix = LAYERS,
        .order = {KV_ORDER_GGML, KV_ORDER_HF},
        .model_slots = model_slots,
        .layer_slots = {norms_before, matrices, biases},
        .may_have_biases = KV_SLOT_BIASES,
        .rope_divisors = "rope_freqs.weight",
        .max_tokens = 2048,
        .rms_eps = 1e-6f,
        .rope_base = 10000,
        .activation_key = "hidden_act",
        .activation_name = "silu",
        .refused = llama_refused,
    },
    {
        // Qwen2 technical report (arXiv 2407.10671)
        .title = "Qwen2",
        .name = {"qwen2", "Qwen2ForCausalLM"},
        .layer_prefix = LAYERS,
        .order = {KV_ORDER_HF, KV_ORDER_HF},
        .model_slots = model_slots,
        .layer_slots = {norms_before, matrices, biases},
        .biases = KV_SLOT_QKV_BIAS,
        .windows = KV_WINDOWS_LAST,
        .max_tokens = 32768,
        .n_kv_heads = 32,
        .rms_eps = 1e-6f,
        .rope_base = 10000,
        .activation_key = "hidden_act",
        .activation_name = "silu",
        .refused = refused_by_all,
    },
    {
        // Qwen3 technical report (arXiv 2505.09388)
        .title = "Qwen3",
        .name = {"qwen3", "Qwen3ForCausalLM"},
        .layer_prefix = LAYERS,
        .order = {KV_ORDER_HF, KV_ORDER_HF},
        .model_slots = model_slots,
        .layer_slots = {norms_before, norms_of_heads, matrices, biases},
        .may_have_biases = KV_SLOT_QKV_BIAS | KV_SLOT_OUT_BIAS,
        .windows = KV_WINDOWS_LAST,
        .max_tokens = 32768,
        .head_dim = 128,
        .n_kv_heads = 32,
        .rms_eps = 1e-6f,
        .rope_base = 10000,
        .activation_key = "hidden_act",
        .activation_name = "silu",
        .refused = refused_by_all,
    },
    {
        // Gemma 3 technical report (arXiv 2503.19786); the text model
        .title = "Gemma 3",
        .name = {"gemma3", "Gemma3ForCausalLM"},
        .layer_prefix = LAYERS,
        .order = {KV_ORDER_HF, KV_ORDER_HF},
        .model_slots = model_slots,
        .layer_slots = {norms_around, norms_of_heads, matrices, biases},
        .may_have_biases = KV_SLOT_QKV_BIAS | KV_SLOT_OUT_BIAS,
        .norm_shift = {0, 1},
        .activation = KV_GELU_TANH,
        .scaled_embeddings = true,
        .windows = KV_WINDOWS_MOST,
        .max_tokens = 131072,
        .head_dim = 256,
        .n_kv_heads = 4,
        .rms_eps = 1e-6f,
        .rope_base = 1e6f,
        .query_scalar = 256,
        .tied = true,
        .activation_key = "hidden_activation",
        .activation_name = "gelu_pytorch_tanh",
        .refused = refused_by_all,
    },
};
#define N_ARCHITECTURES (sizeof architectures / sizeof *architectures)

const struct kv_architecture *const kv_architecture_usual = &architectures[0];

// Others that people have, and what of them is not computed.
static const struct {
    const char *name[KV_N_LAYOUTS], *lacks;
} others[] = {
    {{"gpt-oss", "GptOssForCausalLM"}, "attention sinks"},
    {{"deepseek2", "DeepseekV3ForCausalLM"}, "multi-head latent attention (MLA)"},
    {{"deepseek2", "DeepseekV2ForCausalLM"}, "multi-head latent attention (MLA)"},
    {{"minicpm3", "MiniCPM3ForCausalLM"}, "multi-head latent attention (MLA)"},
    {{"gemma2", "Gemma2ForCausalLM"}, "logit softcaps"},
    {{"grok", "Grok1ModelForCausalLM"}, "logit softcaps"},
    {{"qwen2moe", "Qwen2MoeForCausalLM"}, "mixtures of experts"},
    {{"qwen3moe", "Qwen3MoeForCausalLM"}, "mixtures of experts"},
    {{"olmoe", "OlmoeForCausalLM"}, "mixtures of experts"},
    {{"llama4", "Llama4ForConditionalGeneration"}, "mixtures of experts"},
    {{"mixtral", "MixtralForCausalLM"}, "mixtures of experts"},
};

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
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(others[i].name[layout], name) == 0)
            return kv_fail(e, KV_EFAIL, path,
                           "%s is %.80s, which needs %s: not computed; only %s models are", what,
                           name, others[i].lacks, known);
    return kv_fail(e, KV_EFAIL, path, "%s is %.80s; only %s models are computed", what, name,
                   known);
}

// ---- what follows from it -------------------------------------------------------------

void kv_architecture_apply(struct kv_model *m, const struct kv_architecture *a,
                           enum kv_model_layout layout) {
    const struct kv_shape *s = &m->shape;
    m->architecture = a;
    m->order = a->order[layout];
    m->activation = a->activation;
    m->embed_scale = a->scaled_embeddings ? sqrtf((float)s->hidden) : 1;
    m->attn_scale = 1.0f / sqrtf((float)s->head_dim);
    m->rope[0] = kv_rope_plain(10000);
    m->n_ropes = 1;
    m->n_layers = s->n_layers;
    m->layers = kv_alloc(s->n_layers, sizeof *m->layers);
}

void kv_architecture_slide(struct kv_model *m, uint32_t window, uint32_t pattern) {
    for (size_t i = 0; i < m->n_layers; i++) {
        if ((i + 1) % pattern == 0) continue;
        m->layers[i].window = window;
        m->layers[i].rope = m->n_ropes > 1;
    }
}
