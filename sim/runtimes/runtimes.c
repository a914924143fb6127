// SPDX-License-Identifier: Apache-2.0
// The table of runtimes: what each can be told, as read in their sources and tried in November
// 2026 (reports/plans.md names versions).
#include "sim/base/args.h"
#include "sim/base/guard.h"
#include "sim/runtimes/own.h"

#include <stdlib.h>

#define W(b) (1u << (b))
#define GGML (W(4) | W(5) | W(8))
#define GRIDS " asym asym-zp kivi hqq qaq zipcache rotatekv "
#define CENTRED " sym turbo nf4 fp8_e4m3 fp8_e5m2 "

// ---- llama.cpp ------------------------------------------------------------------------

#define LLAMA(NAME, FORMAT, LIKE, ROTATES)                                                         \
    { NAME, FORMAT, LIKE, GGML | W(16), KV_GRAIN_MODEL, true, ROTATES, 0, NULL, NULL }
static const struct kv_offer llama[] = {
    LLAMA("q4_0 q5_0 q8_0, rotated", "hadamard(ggml)", CENTRED, 64),
    LLAMA("q4_1 q5_1 q8_0, rotated", "hadamard(ggml:types=1)", GRIDS, 64),
    LLAMA("iq4_nl q5_0 q8_0, rotated", "hadamard(ggml:types=nl)", " ", 64),
    LLAMA("q4_0 q5_0 q8_0", "ggml", CENTRED, 0),
    LLAMA("q4_1 q5_1 q8_0", "ggml:types=1", GRIDS, 0),
    LLAMA("iq4_nl q5_0 q8_0", "ggml:types=nl", " ", 0)};

// Its rotation is off where the type of the layers between is not quantized: no 16 bit with it.
#define IK(NAME, TYPES, LIKE)                                                                      \
    {NAME, "ggml" TYPES, LIKE, GGML | W(16), KV_GRAIN_RUNS, true, 0, 0, NULL, NULL},               \
        {NAME " -khad -vhad",                                                                      \
         "hadamard(ggml" TYPES ")",                                                                \
         " ",                                                                                      \
         GGML,                                                                                     \
         KV_GRAIN_RUNS,                                                                            \
         true,                                                                                     \
         0,                                                                                        \
         0,                                                                                        \
         NULL,                                                                                     \
         NULL},                                                                                    \
        {NAME " -khad",                                                                            \
         "hadamard(ggml" TYPES "):sides=k",                                                        \
         " ",                                                                                      \
         GGML,                                                                                     \
         KV_GRAIN_RUNS,                                                                            \
         true,                                                                                     \
         0,                                                                                        \
         0,                                                                                        \
         NULL,                                                                                     \
         NULL},                                                                                    \
    {                                                                                              \
        NAME " -vhad", "hadamard(ggml" TYPES "):sides=v", " ", GGML, KV_GRAIN_RUNS, true, 0, 0,    \
            NULL, NULL                                                                             \
    }
static const struct kv_offer ik[] = {IK("q4_0 q5_0 q8_0", "", CENTRED),
                                     IK("q4_1 q5_1 q8_0", ":types=1", GRIDS),
                                     IK("iq4_nl q5_0 q8_0", ":types=nl", " ")};

// ---- Python's -------------------------------------------------------------------------

#define VLLM(NAME, FORMAT, LIKE, BITS, EDGE, DIFFERS)                                              \
    { NAME, FORMAT, LIKE, W(BITS) | W(16), KV_GRAIN_CLASSES, false, 0, EDGE, NULL, DIFFERS }
static const struct kv_offer vllm[] = {
    VLLM("fp8_e4m3", "fp8_e4m3", " fp8_e4m3 ", 8, 0, "scales are 1 unless the checkpoint has some"),
    VLLM("fp8_e5m2", "fp8_e5m2", " fp8_e5m2 ", 8, 0, NULL),
    VLLM("int8_per_token_head", "sym:scale=fp32", GRIDS CENTRED, 8, 0, NULL),
    VLLM("int4_per_token_head", "hadamard(asym)", GRIDS CENTRED, 4, 0,
         "its rotation is random, and its scale fp32 with the zero point inside"),
    VLLM("turboquant_4bit_nc", "turbo", " turbo ", 4, 2,
         "its values are a uniform grid with 4 bytes a head"),
    VLLM("turboquant_3bit_nc", "turbo", " turbo ", 3, 2,
         "its values are a uniform grid with 4 bytes a head")};

static const struct kv_offer modelopt[] = {
    {"FP8", "fp8_e4m3", CENTRED, W(8) | W(16), KV_GRAIN_CLASSES, false, 0, 0, NULL,
     "it divides by a scale a layer, absmax / 448, where the "
     "checkpoint has one"}};

static const uint32_t hqq_groups[] = {8, 16, 32, 64, 128, 256, 0};
static const struct kv_offer transformers[] = {
    {"hqq", "hqq:group={group},window={window}", " hqq ", W(2) | W(3) | W(4) | W(8), KV_GRAIN_MODEL,
     false, 0, 0, hqq_groups, NULL},
    {"quanto", "asym:group={group},window={window}", " asym asym-zp sym nf4 ", W(2) | W(4),
     KV_GRAIN_MODEL, false, 0, 0, hqq_groups, NULL},
    {"quanto, keys by channel", "kivi:group={group},residual={window}", " kivi ", W(2) | W(4),
     KV_GRAIN_MODEL, false, 0, 0, hqq_groups, NULL},
    {"fp8", "fp8_e4m3", " fp8_e4m3 ", W(8), KV_GRAIN_MODEL, false, 0, 0, NULL,
     "it divides by a scale of keys and one of values a layer"}};

static const struct kv_offer kvtuner[] = {{"per token", "asym-zp", " asym sym hqq ",
                                           W(2) | W(3) | W(4) | W(8), KV_GRAIN_HEAD, true, 0, 0,
                                           NULL, "its newest tokens stay exact (residual_length)"}};

static const struct kv_offer openvino[] = {{"CPU", "asym:group={group},scale=fp32", GRIDS,
                                            W(3) | W(4) | W(8) | W(16), KV_GRAIN_MODEL, true, 0, 0,
                                            hqq_groups, NULL}};

static const uint32_t mlx_groups[] = {32, 64, 128, 0};
static const struct kv_offer mlx[] = {
    {"affine", "asym:group={group}", GRIDS, W(2) | W(3) | W(4) | W(5) | W(6) | W(8), KV_GRAIN_MODEL,
     false, 0, 0, mlx_groups, "scale and bias are of the model's own type"}};

// ---- the table ------------------------------------------------------------------------

#define ROW(NAME, FILE, ABOUT, OFFERS, ID, REMARK, PLAIN, SCALES)                                  \
    {                                                                                              \
        NAME, FILE, ABOUT, OFFERS, sizeof OFFERS / sizeof *OFFERS, kv_write_##ID, kv_read_##ID,    \
            kv_is_##ID, REMARK, PLAIN, SCALES                                                      \
    }
static const struct kv_runtime table[] = {
    ROW("llama.cpp", "a command line", "one type for all keys and one for all values", llama, llama,
        kv_remark_llama, kv_plain_llama, false),
    ROW("ik_llama.cpp", "a command line",
        "types of the first layers, of the last ones and of those between, keys and values apart",
        ik, ik, NULL, kv_plain_llama, false),
    ROW("vllm", "a command line", "one coded type, and layers that are left out of it", vllm, vllm,
        NULL, NULL, true),
    ROW("modelopt", "hf_quant_config.json", "FP8 or nothing, layer by layer", modelopt, modelopt,
        NULL, NULL, true),
    ROW("transformers", "generation_config.json", "one width for all keys and values", transformers,
        transformers, kv_remark_transformers, NULL, false),
    ROW("kvtuner", "YAML", "widths by layer or head, keys and values apart", kvtuner, kvtuner, NULL,
        NULL, false),
    ROW("openvino", "JSON of properties", "one precision for keys and one for values", openvino,
        openvino, NULL, NULL, false),
    ROW("mlx-lm", "a command line", "one width for all keys and values", mlx, mlx, kv_remark_mlx,
        NULL, false)};
enum { N_RUNTIMES = sizeof table / sizeof *table };

const struct kv_runtime *kv_runtime_at(size_t i) {
    return i < N_RUNTIMES ? &table[i] : NULL;
}

int kv_runtime_find(const struct kv_runtime **r, const char *name, struct kv_error *e) {
    const char *names[N_RUNTIMES + 1] = {0};
    for (size_t i = 0; i < N_RUNTIMES; i++) names[i] = table[i].name;
    int at = kv_index_of(name, names);
    *r = at < 0 ? NULL : &table[at];
    if (*r) return 0;
    const char *near = kv_nearest(name, names);
    if (near)
        return kv_fail(e, KV_EUSAGE, "runtime", "none is named '%s'; did you mean '%s'?", name,
                       near);
    struct kv_text all = {0};
    for (size_t i = 0; i < N_RUNTIMES; i++) kv_text_addf(&all, "%s%s", i ? ", " : "", names[i]);
    kv_fail(e, KV_EUSAGE, "runtime", "none is named '%s'; there are %s", name, all.s);
    free(all.s);
    return KV_EUSAGE;
}

static const struct kv_runtime *like(const char *text) {
    for (size_t i = 0; i < N_RUNTIMES; i++)
        if (table[i].is(text)) return &table[i];
    return NULL;
}

static int read_guarded(struct kv_served *s, const char *text, const char *path,
                        struct kv_error *e) {
    KV_GUARD(e);
    int rc = s->runtime->read(s, text, path, e);
    bool coded = false;
    for (size_t c = 0; rc == 0 && c < (size_t)s->n_layers * s->n_heads * 2; c++)
        coded = coded || s->bits[c] < 16;
    if (!coded) s->offer = NULL;
    return rc;
}

int kv_runtime_read(struct kv_served *s, const struct kv_runtime *r, const char *text,
                    const char *path, const struct kv_shape *shape, struct kv_error *e) {
    text += strspn(text, " \t\r\n");
    *s = (struct kv_served){.runtime = r ? r : like(text),
                            .head_dim = shape->head_dim,
                            .model_layers = shape->n_layers};
    int rc = s->runtime
                 ? read_guarded(s, text, path, e)
                 : kv_fail(e, KV_EFAIL, path,
                           "looks like no plan of a runtime that is known; --from names one");
    if (rc) kv_served_fini(s);
    return rc;
}
