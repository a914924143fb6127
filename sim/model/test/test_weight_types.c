// SPDX-License-Identifier: Apache-2.0
// Judges the decoders of stored weights by the gguf package's: random blocks of each type and every
// tensor of the models' files, bit for bit; then through the loader, into scores.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <zlib.h>

#include "sim/base/cpu.h"
#include "sim/base/hash.h"
#include "sim/base/work.h"
#include "sim/model/forward.h"
#include "sim/model/gguf.h"
#include "sim/model/test/model_files.h"
#include "sim/model/weight_types.h"
#include "sim/test/light.h"

#define REFERENCE "sim/test/reference/"

// ---- random blocks, as sim/test/reference/make_weights.py draws them ------------------

enum { N_BLOCKS = 4096, SEED = 15, HALF = 0x7C00, BRAIN = 0x7F80 };

// Where floats stand in a block, and the bits of their exponent: a half's, a bfloat16's, or those
// of a float32's upper half.
struct kind {
    const char *name;
    uint16_t exponent;
    size_t n_floats, floats[2];
};
static const struct kind kinds[] = {
    {"F32", BRAIN, 1, {2}},    {"F16", HALF, 1, {0}},     {"BF16", BRAIN, 1, {0}},
    {"Q4_0", HALF, 1, {0}},    {"Q4_1", HALF, 2, {0, 2}}, {"Q5_0", HALF, 1, {0}},
    {"Q5_1", HALF, 2, {0, 2}}, {"Q8_0", HALF, 1, {0}},    {"Q2_K", HALF, 2, {80, 82}},
    {"Q3_K", HALF, 1, {108}},  {"Q4_K", HALF, 2, {0, 2}}, {"Q5_K", HALF, 2, {0, 2}},
    {"Q6_K", HALF, 1, {208}},  {"IQ4_NL", HALF, 1, {0}},  {"IQ4_XS", HALF, 1, {0}},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static const struct kv_weight_type *type_of(const struct kind *k) {
    const struct kv_weight_type *type = kv_weight_type_named(k->name);
    if (!type) fail_msg("%s is not read", k->name);
    return type;
}

static uint16_t number_at(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static void put_number_at(uint8_t *p, unsigned x) {
    p[0] = (uint8_t)x;
    p[1] = (uint8_t)(x >> 8);
}

static void draw_bytes(uint64_t key, uint8_t *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = (uint8_t)(kv_draw(SEED, key, i) * 256);
}

static uint8_t *random_blocks(const struct kind *k) {
    size_t size = type_of(k)->block_bytes;
    uint8_t *blocks = kv_alloc(N_BLOCKS, size);
    draw_bytes(type_of(k)->number, blocks, N_BLOCKS * size);
    for (size_t b = 0; b < N_BLOCKS; b++)
        for (size_t i = 0; i < k->n_floats; i++) {
            uint8_t *at = blocks + b * size + k->floats[i];
            unsigned x = number_at(at);
            if ((x & k->exponent) == k->exponent) x &= 0xBFFF;
            put_number_at(at, b % 16 ? x : x & 0x8000);
        }
    return blocks;
}

static uint32_t crc_of(const void *data, size_t n) {
    return (uint32_t)crc32_z(0, data, n);
}

static void random_blocks_decode_as_the_gguf_package_decodes_them(void **state) {
    (void)state;
    FILE *file = fopen(REFERENCE "weight_blocks.tsv", "r");
    char line[200], name[16];
    size_t n = 0;
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof line, file)); // the header
    for (; fgets(line, sizeof line, file); n++) {
        unsigned number, values, bytes, blocks_crc, values_crc;
        assert_int_equal(sscanf(line, "%15s %u %u %u %x %x", name, &number, &values, &bytes,
                                &blocks_crc, &values_crc),
                         6);
        assert_true(n < N_KINDS);
        assert_string_equal(name, kinds[n].name);
        const struct kv_weight_type *type = type_of(&kinds[n]);
        assert_int_equal(type->number, number);
        assert_int_equal(type->block_values, values);
        assert_int_equal(type->block_bytes, bytes);
        uint8_t *blocks = random_blocks(&kinds[n]);
        float *x = kv_alloc((size_t)N_BLOCKS * values, sizeof *x);
        type->decode(blocks, N_BLOCKS, x);
        if (crc_of(blocks, (size_t)N_BLOCKS * bytes) != blocks_crc)
            fail_msg("%s: these are not the blocks that the script drew", name);
        if (crc_of(x, (size_t)N_BLOCKS * values * sizeof *x) != values_crc)
            fail_msg("%s: the blocks decode to other bits", name);
        free(x);
        free(blocks);
    }
    fclose(file);
    assert_int_equal(n, N_KINDS);
}

static void each_type_that_is_read_has_such_blocks(void **state) {
    (void)state;
    size_t n = 0;
    for (uint32_t number = 0; number < 64; number++) {
        const char *name = kv_weight_type_name(number);
        if (!name || !kv_weight_type_named(name)) continue;
        size_t i = 0;
        while (i < N_KINDS && strcmp(kinds[i].name, name) != 0) i++;
        if (i == N_KINDS) fail_msg("%s has no random blocks", name);
        n++;
    }
    assert_int_equal(n, N_KINDS);
}

// ---- the models' files ----------------------------------------------------------------

struct listed {
    char name[128], type[16];
    size_t rows, cols;
    unsigned crc;
};

struct listing {
    const struct kv_gguf *g;
    struct listed *tensors;
    bool few; // under a sanitizer, which makes each ten times as dear
};

// Decodes a tensor a few rows at a time, so that a large one needs no memory of its size.
static int check_tensor(void *self, unsigned worker, size_t i, struct kv_error *e) {
    (void)worker;
    const struct listing *l = self;
    if (l->few && i % 16) return KV_OK;
    const struct listed *want = &l->tensors[i];
    const struct kv_gguf_tensor *t = kv_gguf_tensor_named(l->g, want->name);
    if (!t || strcmp(t->type, want->type) != 0 || t->rows != want->rows || t->cols != want->cols)
        return kv_fail(e, KV_EFAIL, want->name, "missing, or of another type or shape");
    const struct kv_weight_type *type = kv_weight_type_named(t->type);
    size_t n_blocks = t->rows * t->cols / type->block_values,
           step = (1u << 18) / type->block_values;
    float *x = kv_alloc(1u << 18, sizeof *x);
    uLong crc = 0;
    for (size_t b = 0; b < n_blocks; b += step) {
        size_t n = n_blocks - b < step ? n_blocks - b : step;
        type->decode(t->data + b * type->block_bytes, n, x);
        crc = crc32_z(crc, (const Bytef *)x, n * type->block_values * sizeof *x);
    }
    free(x);
    return crc == want->crc ? KV_OK : kv_fail(e, KV_EFAIL, want->name, "decodes to other bits");
}

// The folder that models lie in: that of MODEL.
static char *model_path(const char *file) {
    const char *model = getenv("MODEL"), *slash = model ? strrchr(model, '/') : NULL;
    if (!model) return kv_format_text("data/%s", file);
    return kv_format_text("%.*s%s", slash ? (int)(slash - model + 1) : 0, model, file);
}

static void every_tensor_decodes_as_the_gguf_package_decodes_it(void **state) {
    const char *list = *state;
    struct kv_error e;
    FILE *file = fopen(list, "r");
    char line[300], name[100];
    size_t bytes, n = 0;
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof line, file));
    assert_int_equal(sscanf(line, "# %99s %zu", name, &bytes), 2);
    assert_non_null(fgets(line, sizeof line, file)); // the header
    char *path = model_path(name);
    struct kv_gguf g = {.path = path};
    bool here = access(path, R_OK) == 0;
    if (here && kv_gguf_open(&g, &e)) fail_msg("%s: %s", e.where, e.msg);
    if (here && g.map.n == bytes) {
        struct listing l = {&g, kv_alloc(g.n_entries + 1, sizeof *l.tensors), light_testing()};
        for (; n <= g.n_entries && fgets(line, sizeof line, file); n++) {
            struct listed *t = &l.tensors[n];
            assert_int_equal(sscanf(line, "%127s %15s %zu %zu %x", t->name, t->type, &t->rows,
                                    &t->cols, &t->crc),
                             5);
        }
        assert_int_equal(n, g.n_entries);
        if (kv_parallel(n, kv_cpu_count(), check_tensor, &l, &e))
            fail_msg("%s: %s", e.where, e.msg);
        free(l.tensors);
    } else if (here) {
        fail_msg("%s has %zu bytes; the list is of a file of %zu", path, g.map.n, bytes);
    } else {
        print_message("no model at %s: `make models` fetches it\n", path);
    }
    kv_gguf_close(&g);
    free(path);
    fclose(file);
    if (!here) skip();
}

// ---- through the loader ---------------------------------------------------------------

// Rows of 256 hold one super-block; 1,536 of them are more than one job of the loader converts.
static const struct kv_shape shape = {2, 4, 2, 64, 256, 1536, N_TINY_PIECES, 32};

struct fixture {
    char dir[64], path[96];
    struct kv_model *model; // whose tensors' places and shapes are written
};

static int set_up(void **state) {
    struct fixture *f = kv_alloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/kvsim-types-XXXXXX");
    if (!mkdtemp(f->dir)) return -1;
    snprintf(f->path, sizeof f->path, "%s/m.gguf", f->dir);
    f->model = kv_model_random(&shape, KV_ORDER_GGML, true, 7);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    unlink(f->path);
    int rc = rmdir(f->dir);
    kv_model_close(f->model);
    free(f);
    return rc;
}

// The kind that the fillers below fill with, since gguf_type hands them none.
static const struct kind *filling;

// Blocks that differ from tensor to tensor, their scales of either sign and near 2^-10.
static void fill(const float *x, size_t n, uint8_t *out) {
    const struct kv_weight_type *type = type_of(filling);
    unsigned lowest = filling->exponent & -filling->exponent;
    unsigned small = (filling->exponent == HALF ? 5u : 117u) * lowest;
    draw_bytes(kv_hash(x, 256 * sizeof *x, 0), out, n * type->block_bytes);
    for (size_t b = 0; b < n; b++)
        for (size_t i = 0; i < filling->n_floats; i++) {
            uint8_t *at = out + b * type->block_bytes + filling->floats[i];
            put_number_at(at, (number_at(at) & ~(unsigned)filling->exponent) | small);
        }
}

// The same tensor as float32.
static void fill_decoded(const float *x, size_t n, uint8_t *out) {
    const struct kv_weight_type *type = type_of(filling);
    size_t n_blocks = n / type->block_values;
    uint8_t *blocks = kv_alloc(n_blocks, type->block_bytes);
    float *y = kv_alloc(n, sizeof *y);
    fill(x, n_blocks, blocks);
    type->decode(blocks, n_blocks, y);
    memcpy(out, y, n * sizeof *y);
    free(y);
    free(blocks);
}

static void write_filled(const struct fixture *f, const struct kind *k) {
    const struct kv_weight_type *type = type_of(k);
    struct kv_text t = {0};
    struct kv_error e;
    filling = k;
    build_gguf(&t, f->model,
               &(struct gguf_type){type->number, type->block_values, type->block_bytes, fill});
    assert_int_equal(kv_write_file(f->path, t.s, t.n, &e), 0);
    free(t.s);
}

static int read_exactly(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                        struct kv_layer_view *view, struct kv_error *e) {
    (void)self, (void)layer, (void)e;
    *view = (struct kv_layer_view){.k_exact = kv->k, .v_exact = kv->v};
    return KV_OK;
}

// Logits [8][vocab] of a few tokens by the model in the file.
enum { N_TOKENS = 8 };
static float *score(const struct fixture *f, enum kv_weights_as as) {
    static const uint32_t ids[N_TOKENS] = {3, 17, 257, 40, 258, 9, 33, 260};
    const struct kv_tree line = {N_TOKENS, N_TOKENS, 0, NULL, ids};
    struct kv_scratch *s = kv_scratch_new();
    struct kv_reference r;
    struct kv_model *m;
    struct kv_error e;
    if (kv_model_open(&m, f->path, as, &e)) fail_msg("%s: %s", e.where, e.msg);
    float *final = kv_alloc(N_TOKENS * shape.hidden, sizeof *final);
    struct kv_forward job = {.tree = &line, .store = read_exactly, .final = final};
    assert_int_equal(kv_forward(m, &job, s, &e), 0);
    kv_head_reference(m, final, N_TOKENS, s, &r);
    float *logits = kv_alloc(N_TOKENS * shape.vocab, sizeof *logits);
    memcpy(logits, r.logit, N_TOKENS * shape.vocab * sizeof *logits);
    for (size_t i = 0; i < N_TOKENS * shape.vocab; i++) assert_true(isfinite(logits[i]));
    free(final);
    kv_scratch_free(s);
    kv_model_close(m);
    return logits;
}

static void a_model_of_each_type_scores_as_its_tensors_in_float32(void **state) {
    const struct fixture *f = *state;
    size_t bytes = N_TOKENS * shape.vocab * sizeof(float);
    uint32_t before = 0;
    for (size_t i = 0; i < N_KINDS; i++) {
        struct kv_text t = {0};
        struct kv_error e;
        write_filled(f, &kinds[i]);
        float *f32 = score(f, KV_WEIGHTS_F32), *bf16 = score(f, KV_WEIGHTS_BF16);
        build_gguf(&t, f->model, &(struct gguf_type){0, 1, 4, fill_decoded});
        assert_int_equal(kv_write_file(f->path, t.s, t.n, &e), 0);
        float *want_f32 = score(f, KV_WEIGHTS_F32), *want_bf16 = score(f, KV_WEIGHTS_BF16);
        if (memcmp(f32, want_f32, bytes) || memcmp(bf16, want_bf16, bytes))
            fail_msg("%s: the scores differ", kinds[i].name);
        assert_true(crc_of(f32, bytes) != before); // another type, another model
        before = crc_of(f32, bytes);
        free(f32);
        free(bf16);
        free(want_f32);
        free(want_bf16);
        free(t.s);
    }
}

// Writes a float that is none into the last block of row 3 of a tensor, at one of the block's
// places, and looks at the sentence.
static void refuses(const struct fixture *f, const struct kind *k, size_t place, unsigned bad) {
    const struct kv_weight_type *type = type_of(k);
    struct kv_gguf g = {.path = f->path};
    struct kv_model *m;
    struct kv_error e;
    char message[120], *bytes;
    size_t n;
    write_filled(f, k);
    assert_int_equal(kv_gguf_open(&g, &e), 0);
    const struct kv_gguf_tensor *t = kv_gguf_tensor_named(&g, "blk.1.ffn_down.weight");
    size_t block = 4 * t->cols / type->block_values - 1;
    size_t at = (size_t)(t->data - g.map.data) + block * type->block_bytes;
    n = g.map.n;
    bytes = kv_alloc(n, 1);
    memcpy(bytes, g.map.data, n);
    kv_gguf_close(&g);
    put_number_at((uint8_t *)bytes + at + k->floats[place], bad);
    float x[256];
    type->decode((const uint8_t *)bytes + at, 1, x);
    snprintf(message, sizeof message, "tensor blk.1.ffn_down.weight holds %s at row 3, column %zu",
             isnan(x[0]) ? "NaN" : "infinity", (size_t)(shape.ffn - type->block_values));
    assert_int_equal(kv_write_file(f->path, bytes, n, &e), 0);
    assert_int_equal(kv_model_open(&m, f->path, KV_WEIGHTS_F32, &e), KV_EFAIL);
    if (strcmp(e.msg, message) != 0) fail_msg("%s: %s, not %s", k->name, e.msg, message);
    assert_string_equal(e.where, f->path);
    free(bytes);
}

static void a_scale_or_minimum_that_is_no_number_is_refused_with_its_place(void **state) {
    const struct fixture *f = *state;
    for (size_t i = 0; i < N_KINDS; i++)
        for (size_t p = 0; p < kinds[i].n_floats; p++) {
            const struct kind *k = &kinds[i];
            refuses(f, k, p, k->exponent);
            refuses(f, k, p, k->exponent | 0x8000u);
            refuses(f, k, p, k->exponent | 1u);
        }
}

// A row that is no whole number of super-blocks cannot be cut into them.
static void rows_that_no_super_block_fits_are_refused(void **state) {
    const struct fixture *f = *state;
    struct kv_model *m;
    struct kv_error e;
    write_filled(f, &kinds[3]); // Q4_0, whose blocks are shorter
    char *bytes;
    size_t n;
    assert_int_equal(kv_read_file(f->path, &bytes, &n, &e), 0);
    char *at = memmem(bytes, n, "blk.0.attn_q.weight", 19);
    assert_non_null(at);
    at[19 + 4] = (char)(shape.hidden - 32); // its first dimension, of 256 in 8 bytes
    at[19 + 4 + 1] = 0;
    at[19 + 4 + 16] = 12; // Q4_K
    assert_int_equal(kv_write_file(f->path, bytes, n, &e), 0);
    assert_int_equal(kv_model_open(&m, f->path, KV_WEIGHTS_F32, &e), KV_EFAIL);
    assert_string_equal(e.msg, "tensor blk.0.attn_q.weight has rows of 224, no multiple of the 256 "
                               "values in a block of Q4_K");
    free(bytes);
}

#define LIST(file)                                                                                 \
    {                                                                                              \
        "every_tensor_decodes_as_the_gguf_package_decodes_it: " file,                              \
            every_tensor_decodes_as_the_gguf_package_decodes_it, NULL, NULL,                       \
            REFERENCE "tensors/" file ".tsv"                                                       \
    }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_blocks_decode_as_the_gguf_package_decodes_them),
        cmocka_unit_test(each_type_that_is_read_has_such_blocks),
        cmocka_unit_test(a_model_of_each_type_scores_as_its_tensors_in_float32),
        cmocka_unit_test(a_scale_or_minimum_that_is_no_number_is_refused_with_its_place),
        cmocka_unit_test(rows_that_no_super_block_fits_are_refused),
    };
    const struct CMUnitTest files[] = {
        LIST("SmolLM2-135M-Instruct.Q4_1"),
        LIST("qwen2.5-coder-0.5b-instruct-q4_k_m"),
        LIST("gemma-3-270m-q4_k_m"),
        LIST("qwen2.5-coder-1.5b-instruct-q4_k_m"),
    };
    return cmocka_run_group_tests_name("weight_types", tests, set_up, tear_down) +
           cmocka_run_group_tests_name("weight_files", files, NULL, NULL);
}
