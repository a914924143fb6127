// SPDX-License-Identifier: Apache-2.0
// Scales of an FP8 cache that a checkpoint holds: one for the keys and one for the values of each
// layer, fixed before anything is generated.
#ifndef KV_RUNTIMES_SCALES_H
#define KV_RUNTIMES_SCALES_H

#include "sim/runtimes/runtimes.h"
#include "traces/trace.h"

struct kv_cache_scales {
    uint32_t n_layers;
    float
        *of; // [n_layers][2] K, V: what a stored code is multiplied by; 0 = the layer is not coded
};
// The largest magnitude of a layer's recorded keys (after RoPE) and of its values over the items
// [first, first + n) / 448, the largest e4m3. Errors: KV_EUSAGE where the runtime's plan takes no
// such scales, or the recording keeps no keys and values; KV_EFAIL naming a layer whose keys or
// values are all 0, which no scale divides.
// Source: NVIDIA Model-Optimizer 0.47 (kv cache scaling factor: amax / 448).
KV_MUST_CHECK int kv_cache_scales_of(struct kv_cache_scales *c, const struct kv_served *s,
                                     const struct kv_trace *t, size_t first, size_t n,
                                     struct kv_error *e);
// Writes them as safetensors, float32 scalars model.layers.N.self_attn.k_proj.k_scale and
// v_proj.v_scale: as ModelOpt names them and vLLM reads them.
KV_MUST_CHECK int kv_cache_scales_write(const struct kv_cache_scales *c, const char *path,
                                        struct kv_error *e);
// "keys 0.0031 to 0.041, values 0.0004 to 0.0125", of the layers that are coded. Caller frees.
char *kv_cache_scales_words(const struct kv_cache_scales *c);
void kv_cache_scales_fini(struct kv_cache_scales *c);

#endif
