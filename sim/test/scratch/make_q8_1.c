// SPDX-License-Identifier: Apache-2.0
// For scratch.sh: writes a tiny model as a GGUF file whose matrices are Q8_1. usage: make_q8_1 FILE
#include "sim/model/test/model_files.h"

enum { VALUES = 32, BYTES = 36 };

static void encode_q8_1(const float *x, size_t n_blocks, uint8_t *out) {
    for (size_t b = 0; b < n_blocks; b++, x += VALUES, out += BYTES) {
        float largest = 0;
        int sum = 0;
        for (int i = 0; i < VALUES; i++) largest = fmaxf(largest, fabsf(x[i]));
        uint16_t half = kv_f32_to_f16(largest / 127);
        float d = kv_f16_to_f32(half);
        for (int i = 0; i < VALUES; i++) {
            long code = d > 0 ? lrintf(x[i] / d) : 0;
            code = code > 127 ? 127 : code < -127 ? -127 : code;
            out[4 + i] = (uint8_t)(int8_t)code;
            sum += (int)code;
        }
        memcpy(out, &half, 2);
        half = kv_f32_to_f16(d * (float)sum);
        memcpy(out + 2, &half, 2);
    }
}

int main(int argc, char **argv) {
    const struct kv_shape shape = {2, 4, 2, 32, 64, 96, N_TINY_PIECES, 1024};
    const struct gguf_type type = {9, VALUES, BYTES, encode_q8_1};
    struct kv_text t = {0};
    struct kv_error e = {0};
    struct kv_model *m = kv_model_random(&shape, KV_ORDER_GGML, true, 7);
    if (argc != 2 || !m) return 2;
    build_gguf(&t, m, &type);
    int rc = kv_write_file(argv[1], t.s, t.n, &e);
    if (rc) fprintf(stderr, "make_q8_1: %s: %s\n", e.where, e.msg);
    free(t.s);
    kv_model_close(m);
    return rc != 0;
}
