// SPDX-License-Identifier: Apache-2.0
// The table of architectures that the forward pass computes: what their files call things, and
// where each tensor goes. Loaders and weights.c know no architecture by name.
//
// A new one is a row of architecture.c and its slots; what its forward pass does beyond Llama's
// reads m->architecture.
#ifndef KV_MODEL_ARCHITECTURE_H
#define KV_MODEL_ARCHITECTURE_H

#include "sim/model/model.h"

// Whose names a file uses. They differ in more than names: GGUF's converter permutes Q and K.
enum kv_model_layout { KV_LAYOUT_GGUF, KV_LAYOUT_HF, KV_N_LAYOUTS };

// Sizes that follow from a model's shape.
enum kv_dim {
    KV_DIM_NONE,
    KV_DIM_ONE,
    KV_DIM_HIDDEN,
    KV_DIM_QUERIES, // n_heads * head_dim
    KV_DIM_KEYS,    // n_kv_heads * head_dim
    KV_DIM_FFN,
    KV_DIM_VOCAB
};
size_t kv_dim_size(const struct kv_shape *s, enum kv_dim d);

enum kv_slot_flags {
    KV_SLOT_VECTOR = 1,     // the member is a float *, not a kv_matrix
    KV_SLOT_UNLESS_TIED = 2 // only where the head is not the embedding
};

// A tensor: its name in each layout (after the prefix of its layer for those of a layer), its
// shape, and where it goes: a member of kv_layer_weights or kv_model, from row after[0] + after[1]
// on.
struct kv_slot {
    const char *name[KV_N_LAYOUTS];
    enum kv_dim rows, cols;
    size_t member;
    unsigned flags; // enum kv_slot_flags
    enum kv_dim after[2];
};

struct kv_architecture {
    const char *title;                      // "Llama", in sentences
    const char *name[KV_N_LAYOUTS];         // "llama", "LlamaForCausalLM": what files call it
    const char *layer_prefix[KV_N_LAYOUTS]; // "blk.", "model.layers.", before a layer's number
    enum kv_order order[KV_N_LAYOUTS];      // of the channels of Q and K inside a head
    const struct kv_slot *model_slots, *layer_slots; // end with a row without name
    // Of Hugging Face's configuration: what holds where config.json is silent, the activation, and
    // keys that would change the computation when set.
    uint32_t max_tokens;
    float rms_eps, rope_base;
    const char *activation;
    const char *const *refused; // ends with NULL
};

// The row of an architecture by the name that a file of this layout gives it. Errors: KV_EFAIL with
// `what` ("general.architecture"), the name, and those known.
KV_MUST_CHECK int kv_architecture_find(const struct kv_architecture **a,
                                       enum kv_model_layout layout, const char *name,
                                       const char *what, const char *path, struct kv_error *e);

// The architecture of models that come from no file.
extern const struct kv_architecture *const kv_architecture_usual;

#endif
