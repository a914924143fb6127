// SPDX-License-Identifier: Apache-2.0
// For tests: writes a tiny model as a GGUF file, whole or broken in one way.
//
// usage: make_gguf KIND FILE. Kinds: good, other (another seed), truncated, tensors and pairs
// (counts that lie), type and number (tensor types not read), architecture, nan.
#include "sim/model/test/model_files.h"

// Overwrites `n` bytes at the first place that holds them.
static void replace(struct kv_text *t, const char *from, const char *to) {
    size_t n = strlen(from);
    char *at = memmem(t->s, t->n, from, n);
    if (at) memcpy(at, to, n);
}

static void put_count(struct kv_text *t, size_t at, uint64_t x) {
    for (size_t i = 0; i < 8; i++) t->s[at + i] = (char)(x >> (8 * i));
}

int main(int argc, char **argv) {
    // Long enough for the samples in bytes; heads of 32, so that groups of 32 exist.
    const struct kv_shape shape = {2, 4, 2, 32, 64, 96, N_TINY_PIECES, 1024};
    struct gguf_type type = gguf_f32;
    struct kv_text t = {0};
    struct kv_error e;
    if (argc != 3) return 2;
    const char *kind = argv[1];
    if (strcmp(kind, "type") == 0) type.number = 15; // Q8_K
    if (strcmp(kind, "number") == 0) type.number = 77;
    struct kv_model *m =
        kv_model_random(&shape, KV_ORDER_GGML, true, strcmp(kind, "other") == 0 ? 8 : 7);
    if (!m) return 1;
    if (strcmp(kind, "nan") == 0) m->layers[1].down.f32[1234] = NAN;
    build_gguf(&t, m, &type);
    if (strcmp(kind, "truncated") == 0) t.n -= 1000;
    if (strcmp(kind, "tensors") == 0) put_count(&t, 8, 1u << 30);
    if (strcmp(kind, "pairs") == 0) put_count(&t, 16, 1ull << 40);
    if (strcmp(kind, "architecture") == 0) replace(&t, "llama", "mamba");
    if (kv_write_file(argv[2], t.s, t.n, &e)) {
        fprintf(stderr, "make_gguf: %s: %s\n", e.where, e.msg);
        return 1;
    }
    free(t.s);
    kv_model_close(m);
    return 0;
}
