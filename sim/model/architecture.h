// SPDX-License-Identifier: Apache-2.0
// The table of architectures that the forward pass computes: what their files call things, where
// each tensor goes, and what they do beyond Llama. Loaders and weights.c know no architecture by
// name.
//
// A new one is a row of architecture.c and its lists of slots; what its forward pass does that no
// other does reads the members of kv_model that the row fills.
#ifndef KV_MODEL_ARCHITECTURE_H
#define KV_MODEL_ARCHITECTURE_H

#include "sim/model/model.h"

// Whose names a file uses. They differ in more than names: GGUF's converter permutes Q and K of
// some architectures.
enum kv_model_layout { KV_LAYOUT_GGUF, KV_LAYOUT_HF, KV_N_LAYOUTS };

// Sizes that follow from a model's shape.
enum kv_dim {
    KV_DIM_NONE,
    KV_DIM_ONE,
    KV_DIM_HIDDEN,
    KV_DIM_QUERIES, // n_heads * head_dim
    KV_DIM_KEYS,    // n_kv_heads * head_dim
    KV_DIM_HEAD,    // head_dim
    KV_DIM_FFN,
    KV_DIM_VOCAB
};
size_t kv_dim_size(const struct kv_shape *s, enum kv_dim d);

enum kv_slot_flags {
    KV_SLOT_VECTOR = 1,      // the member is a float *, not a kv_matrix
    KV_SLOT_UNLESS_TIED = 2, // only where the head is not the embedding
    KV_SLOT_NORM = 4,        // a norm's weights, which norm_shift is added to
    // Groups of biases, which an architecture has, may have or has not.
    KV_SLOT_QKV_BIAS = 8,
    KV_SLOT_OUT_BIAS = 16,
    KV_SLOT_FFN_BIAS = 32,
    KV_SLOT_BIASES = KV_SLOT_QKV_BIAS | KV_SLOT_OUT_BIAS | KV_SLOT_FFN_BIAS
};

// A tensor: its name in each layout (after the prefix of its layer for those of a layer), its
// shape, and where it goes: a member of kv_layer_weights or kv_model, from row after[0] + after[1]
// on (of a vector: from element).
struct kv_slot {
    const char *name[KV_N_LAYOUTS];
    enum kv_dim rows, cols;
    size_t member;
    unsigned flags; // enum kv_slot_flags
    enum kv_dim after[2];
};

// Which layers look back through a window only.
enum kv_windows {
    KV_WINDOWS_NONE,
    KV_WINDOWS_LAST, // where a configuration turns them on, those from max_window_layers on
    KV_WINDOWS_MOST  // all but each sixth, or as a configuration says; with a RoPE of their own
};

enum { KV_SLOT_LISTS = 4 };

struct kv_architecture {
    const char *title;                      // "Llama", in sentences
    const char *name[KV_N_LAYOUTS];         // "llama", "LlamaForCausalLM": what files call it
    const char *layer_prefix[KV_N_LAYOUTS]; // "blk.", "model.layers.", before a layer's number
    enum kv_order order[KV_N_LAYOUTS];      // of the channels of Q and K inside a head
    // Lists of slots that end with a row without name; the layers' follow each other.
    const struct kv_slot *model_slots, *layer_slots[KV_SLOT_LISTS];
    unsigned biases, may_have_biases; // groups of kv_slot_flags: always, and where a file says so
    float norm_shift[KV_N_LAYOUTS];   // Gemma's norms weigh by 1 + what a Hugging Face file holds
    enum kv_gate activation;          // of the gate
    bool scaled_embeddings;           // embeddings are multiplied by sqrt(hidden)
    enum kv_windows windows;
    const char *rope_divisors; // the tensor of a GGUF file that divides frequencies, or NULL
    // Of Hugging Face's configuration: what holds where config.json is silent (0: hidden / heads,
    // and as many KV heads as heads), what it calls the activation and under which key, and keys
    // that would change the computation when set.
    uint32_t max_tokens, head_dim, n_kv_heads;
    float rms_eps, rope_base,
        query_scalar; // query_scalar 0: no such key, scores over sqrt(head_dim)
    bool tied;
    const char *activation_key, *activation_name;
    const char *const *refused; // ends with NULL
};

// The row of an architecture by the name that a file of this layout gives it. Errors: KV_EFAIL with
// `what` ("general.architecture"), the name, those known, and what of a known other one is missing
// here.
KV_MUST_CHECK int kv_architecture_find(const struct kv_architecture **a,
                                       enum kv_model_layout layout, const char *name,
                                       const char *what, const char *path, struct kv_error *e);

// What a model of an architecture and a shape is unless its file says otherwise: one RoPE that is
// not stretched of base 10000, scores over sqrt(head_dim), no windows. Sets m->architecture,
// m->order for the layout, all that follows from row and shape, and takes m->layers, whose weights
// are not yet there.
void kv_architecture_apply(struct kv_model *m, const struct kv_architecture *a,
                           enum kv_model_layout layout);

// All but each `pattern`-th layer look through a window of so many tokens, with the model's second
// RoPE where it has one.
void kv_architecture_slide(struct kv_model *m, uint32_t window, uint32_t pattern);
enum { KV_WINDOW_PATTERN = 6 }; // Gemma 3's: 5 local layers, 1 global (arXiv 2503.19786)

// The architecture of models that come from no file.
extern const struct kv_architecture *const kv_architecture_usual;

#endif
