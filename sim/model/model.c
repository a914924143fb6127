// SPDX-License-Identifier: Apache-2.0
// Opens, closes and makes models: which loader a path needs, RoPE tables, published shapes.
#include "sim/model/accelerator.h"
#include "sim/model/model.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "sim/base/blas.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/model/rope.h"
#include "sim/model/weights.h"

// Shapes of the SmolLM and SmolLM2 models, from their config.json at
// https://huggingface.co/HuggingFaceTB (context: SmolLM's 2,048; SmolLM2's 8,192 is only longer).
struct named_shape {
    const char *name;
    struct kv_shape shape;
};

static const struct named_shape named_shapes[] = {
    {"135m", {30, 9, 3, 64, 576, 1536, 49152, 2048}},
    {"360m", {32, 15, 5, 64, 960, 2560, 49152, 2048}},
    {"1.7b", {24, 32, 32, 64, 2048, 8192, 49152, 2048}},
};

const struct kv_shape *kv_shape_named(const char *name) {
    for (size_t i = 0; i < sizeof named_shapes / sizeof *named_shapes; i++)
        if (strcmp(named_shapes[i].name, name) == 0) return &named_shapes[i].shape;
    return NULL;
}

const char *kv_shape_name_at(size_t i) {
    return i < sizeof named_shapes / sizeof *named_shapes ? named_shapes[i].name : NULL;
}

int kv_model_open(struct kv_model **out, const char *path, enum kv_weights_as as,
                  struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    int rc = kv_blas_open(e);
    if (rc) return rc;
    struct stat st;
    if (stat(path, &st) != 0)
        return kv_fail(e, KV_EFAIL, path, "%s; a model is a GGUF file or a Hugging Face folder",
                       errno == ENOENT ? "there is no such file or folder" : strerror(errno));
    struct kv_model *m = kv_alloc(1, sizeof *m);
    if (S_ISDIR(st.st_mode))
        rc = kv_huggingface_load(m, path, as, e);
    else if (S_ISREG(st.st_mode))
        rc = kv_gguf_load(m, path, as, e);
    else
        rc = kv_fail(e, KV_EFAIL, path, "this is neither a GGUF file nor a Hugging Face folder");
    if (rc) {
        kv_model_close(m);
        return rc;
    }
    kv_rope_make_tables(m);
    *out = m;
    return KV_OK;
}

static void free_matrix(struct kv_matrix *w) {
    free(w->f32);
    free(w->bf16);
}

void kv_model_close(struct kv_model *m) {
    if (!m) return;
    if (m->accelerator) m->accelerator->stop();
    for (size_t i = 0; i < m->n_layers; i++) {
        struct kv_layer_weights *l = &m->layers[i];
        float **vector;
        for (size_t k = 0; (vector = kv_layer_vector(l, k)); k++) free(*vector);
        free_matrix(&l->qkv);
        free_matrix(&l->out);
        free_matrix(&l->gateup);
        free_matrix(&l->down);
    }
    free(m->layers);
    free(m->final_norm);
    free_matrix(&m->embed);
    if (!m->tied) free_matrix(&m->head);
    for (size_t i = 0; i < m->n_ropes; i++) {
        free(m->rope[i].divisors);
        free(m->rope[i].cos);
        free(m->rope[i].sin);
    }
    kv_tokenizer_free(m->tokenizer);
    free(m);
}
