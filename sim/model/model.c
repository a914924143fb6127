// SPDX-License-Identifier: Apache-2.0
// Opens, closes and makes models: which loader a path needs, RoPE tables, published shapes.
#include "sim/model/accelerator.h"
#include "sim/model/engine.h"
#include "sim/model/model.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "sim/base/blas.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/model/rope.h"
#include "sim/model/weights.h"

// From their config.json at https://huggingface.co/HuggingFaceTB, /Qwen and /google (contexts:
// SmolLM's 2,048, where SmolLM2's 8,192 is only longer; 8,192 for the others likewise).
static const struct kv_published published[] = {
    {.name = "135m", .shape = {30, 9, 3, 64, 576, 1536, 49152, 2048}},
    {.name = "360m", .shape = {32, 15, 5, 64, 960, 2560, 49152, 2048}},
    {.name = "1.7b", .shape = {24, 32, 32, 64, 2048, 8192, 49152, 2048}},
    {.name = "qwen2.5-0.5b", .shape = {24, 14, 2, 64, 896, 4864, 151936, 8192}, .qkv_bias = true},
    {.name = "qwen2.5-1.5b", .shape = {28, 12, 2, 128, 1536, 8960, 151936, 8192}, .qkv_bias = true},
    {.name = "gemma-3-270m",
     .shape = {18, 4, 1, 256, 640, 2048, 262144, 8192},
     .head_norms = true,
     .post_norms = true,
     .gelu = true,
     .window = 512,
     .window_pattern = 6},
};

const struct kv_published *kv_published_at(size_t i) {
    return i < sizeof published / sizeof *published ? &published[i] : NULL;
}

const struct kv_published *kv_published_named(const char *name) {
    for (size_t i = 0; i < sizeof published / sizeof *published; i++)
        if (strcmp(published[i].name, name) == 0) return &published[i];
    return NULL;
}

const struct kv_shape *kv_shape_named(const char *name) {
    const struct kv_published *p = kv_published_named(name);
    return p ? &p->shape : NULL;
}

int kv_shape_unknown(const char *where, const char *name, struct kv_error *e) {
    char known[256];
    for (size_t i = 0, n = 0; i < sizeof published / sizeof *published; i++)
        n +=
            (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", published[i].name);
    return kv_fail(e, KV_EUSAGE, where, "--shape: '%s' is none of %s", name, known);
}

const char *kv_shape_name_at(size_t i) {
    const struct kv_published *p = kv_published_at(i);
    return p ? p->name : NULL;
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
    kv_engine_detach(m);
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
