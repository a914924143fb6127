// SPDX-License-Identifier: Apache-2.0
// Scales of an FP8 cache: measured on a recording, written as a checkpoint's tensors.
#include "sim/runtimes/scales.h"

#include <math.h>
#include <stdlib.h>

#include "sim/base/half.h"
#include "sim/base/version.h"
#include "sim/model/safetensors.h"
#include "sim/runtimes/own.h"

static const float largest = 448.0f; // of e4m3

// ---- measuring --------------------------------------------------------------------------

static int check(const struct kv_served *s, const struct kv_trace_info *in, struct kv_error *e) {
    if (!s->offer || !s->runtime->scales || strcmp(s->offer->format, "fp8_e4m3") != 0)
        return kv_fail(e, KV_EUSAGE, "scales",
                       "%s takes none with %s; vllm and modelopt do, with fp8_e4m3",
                       s->runtime->name, s->offer ? s->offer->name : "a 16-bit cache");
    if (!(in->keep & KV_KEEP_KV))
        return kv_fail(e, KV_EUSAGE, "scales",
                       "the recording holds no keys and values (kvsim record --keep final,kv)");
    return 0;
}

static void widen(float *most, const uint16_t *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float a = fabsf(kv_f16_to_f32(x[i]));
        if (a > *most) *most = a;
    }
}

int kv_cache_scales_of(struct kv_cache_scales *c, const struct kv_served *s,
                       const struct kv_trace *t, size_t first, size_t n, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(t);
    const uint32_t layers = in->shape.n_layers;
    const size_t row = (size_t)in->shape.n_kv_heads * in->shape.head_dim;
    int rc = check(s, in, e);
    *c = (struct kv_cache_scales){.n_layers = layers};
    if (rc) return rc;
    c->of = kv_alloc((size_t)layers * 2, sizeof *c->of);
    for (size_t i = first; rc == 0 && i < first + n; i++) {
        const struct kv_trace_item *item = kv_trace_item(t, i);
        rc = kv_trace_check_item(t, i, KV_KEEP_KV, e);
        for (size_t at = 0; rc == 0 && at < (size_t)item->n_tokens * layers; at++) {
            widen(&c->of[at % layers * 2 + KV_KEY], item->k + at * row, row);
            widen(&c->of[at % layers * 2 + KV_VALUE], item->v + at * row, row);
        }
    }
    for (uint32_t l = 0; rc == 0 && l < layers; l++)
        for (int side = 0; rc == 0 && side < 2; side++) {
            float *x = &c->of[2 * l + side];
            *x = kv_served_bits(s, l, side) < 16 ? *x / largest : 0;
            if (*x == 0 && kv_served_bits(s, l, side) < 16)
                rc = kv_fail(e, KV_EFAIL, "scales", "layer %u: all recorded %s are 0", l,
                             side == KV_KEY ? "keys" : "values");
        }
    if (rc) kv_cache_scales_fini(c);
    return rc;
}

// ---- writing ----------------------------------------------------------------------------

int kv_cache_scales_write(const struct kv_cache_scales *c, const char *path, struct kv_error *e) {
    static const char *const names[] = {"k_proj.k_scale", "v_proj.v_scale"};
    const char *meta[] = {"format", "pt", "producer", "kvsim", "version", kv_version()};
    struct kv_tensor *t = kv_alloc((size_t)c->n_layers * 2, sizeof *t);
    float *in_order = kv_alloc((size_t)c->n_layers * 2, sizeof *in_order);
    size_t n = 0, header_bytes;
    uint64_t total;
    char *header;
    for (size_t i = 0; i < (size_t)c->n_layers * 2; i++) {
        if (c->of[i] == 0) continue;
        snprintf(t[n].name, sizeof t[n].name, "model.layers.%zu.self_attn.%s", i / 2, names[i & 1]);
        snprintf(t[n].dtype, sizeof t[n].dtype, "F32");
        in_order[n++] = c->of[i];
    }
    int rc = kv_safetensors_layout(t, n, meta, 3, &header, &header_bytes, &total, e);
    if (rc == 0) {
        uint8_t *file = kv_alloc(total, 1);
        memcpy(file, header, header_bytes);
        for (size_t i = 0; i < n; i++) memcpy(file + t[i].offset, &in_order[i], sizeof *in_order);
        rc = kv_write_file(path, file, total, e);
        free(file);
        free(header);
    }
    free(in_order);
    free(t);
    return rc;
}

char *kv_cache_scales_words(const struct kv_cache_scales *c) {
    float low[2] = {INFINITY, INFINITY}, high[2] = {0, 0};
    for (size_t i = 0; i < (size_t)c->n_layers * 2; i++) {
        if (c->of[i] == 0) continue;
        low[i & 1] = fminf(low[i & 1], c->of[i]);
        high[i & 1] = fmaxf(high[i & 1], c->of[i]);
    }
    return kv_format_text("keys %.3g to %.3g, values %.3g to %.3g", (double)low[KV_KEY],
                          (double)high[KV_KEY], (double)low[KV_VALUE], (double)high[KV_VALUE]);
}

void kv_cache_scales_fini(struct kv_cache_scales *c) {
    free(c->of);
    *c = (struct kv_cache_scales){0};
}
