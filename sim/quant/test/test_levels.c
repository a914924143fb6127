// SPDX-License-Identifier: Apache-2.0
// Every format gives the same bytes at every CPU level, inside its buffers, for any length and
// data.
//
// A level is fixed at the first call of a process, so each one runs in a child that prints hashes;
// the parent compares them with those of the scalar judge (level base).
#include "sim/base/cpu.h"
#include "sim/base/half.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/quant/format.h"
#include "sim/quant/pack.h"

#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { PAGE = 4096, ROOM = 64 * PAGE, KINDS = 11 };

// A buffer of n bytes that ends at a page nobody may touch.
static uint8_t *guarded(size_t n) {
    size_t room = (n + PAGE - 1) / PAGE * PAGE;
    uint8_t *p = mmap(NULL, room + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + PAGE, room, PROT_READ | PROT_WRITE)) abort();
    return p + PAGE + room; // the end
}

static float bell(uint64_t seed, uint64_t i) {
    return (float)(kv_draw(seed, 1, i) + kv_draw(seed, 2, i) + kv_draw(seed, 3, i) - 1.5);
}

// Ordinary values, and those that break quantizers.
static void fill(float *x, size_t n, int kind, uint64_t seed, unsigned bits) {
    static const float odd[] = {0.0f,    -0.0f, 1.0f,     -1.0f, NAN,     INFINITY, -INFINITY,
                                65504.f, 7e4f,  -3.2e38f, 1e-8f, -1e-40f, 6e-8f,    3e-5f,
                                127.5f,  -0.5f, 2.5f,     1e30f, -1e-5f,  100.03f};
    for (size_t i = 0; i < n; i++) {
        float b = bell(seed, i);
        switch (kind) {
        case 0:
            x[i] = b;
            break;
        case 1: // a grid of halves: ties everywhere
            x[i] = rintf(b * 16.0f) / 2.0f;
            break;
        case 2: // constant, far from zero
            x[i] = 5.0f + (float)(seed % 3) * 1e-6f * b;
            break;
        case 3: // zeros of both signs, few values
            x[i] = kv_draw(seed, 4, i) < 0.5 ? -0.0f : kv_draw(seed, 5, i) < 0.9 ? 0.0f : b;
            break;
        case 4: // small: scales become subnormal halves or zero
            x[i] = b * 0x1p-20f;
            break;
        case 5: // large: scales saturate
            x[i] = b * 1e7f;
            break;
        case 6: // an outlier channel
            x[i] = i % 61 == 7 ? 40.0f + b : b;
            break;
        case 7: // one odd value among ordinary ones
            x[i] = i % 37 == seed % 37 ? odd[(seed + i) % (sizeof odd / sizeof *odd)] : b;
            break;
        case 8: // half steps of the scale that the grid will find, give or take a last place
        case 9: {
            float top = (float)((1u << (bits - (kind == 8))) - 1);
            float step = kv_f16_to_f32(kv_f32_to_f16((float)(0.5 + kv_draw(seed, 7, i / 32))));
            float at = ((float)(int)(kv_draw(seed, 8, i) * (double)top) + 0.5f) * step;
            int nudge = (int)(kv_draw(seed, 9, i) * 3.0) - 1;
            x[i] = nudge == 0 ? at : nextafterf(at, nudge < 0 ? 0.0f : 1e9f);
            if (i % 32 == 0) x[i] = top * step;
            if (i % 32 == 1) x[i] = 0.0f;
            break;
        }
        default: // nothing but odd values
            x[i] = odd[(size_t)(kv_draw(seed, 6, i) * (double)(sizeof odd / sizeof *odd))];
        }
    }
}

static void one(const struct kv_format *f, const struct kv_block *b, size_t n_units, int kind,
                uint8_t *x_end, uint8_t *c_end, uint8_t *y_end, uint64_t *hash) {
    struct kv_unit_size size = kv_format_size(f, b->side, b->width);
    size_t n = n_units * size.values;
    float *x = (float *)(void *)(x_end - n * sizeof(float));
    float *y = (float *)(void *)(y_end - n * sizeof(float));
    uint8_t *codes = c_end - n_units * size.bytes;
    fill(x, n, kind, n + (uint64_t)kind + 31 * b->width, f->width_bits[b->width]);
    memset(codes - 64, 0xA5, 64 + n_units * size.bytes);
    kv_format_encode(f, b, x, n_units, codes);
    for (int i = 1; i <= 64; i++)
        if (codes[-i] != 0xA5) abort(); // wrote before its buffer
    kv_format_decode(f, b, codes, n_units, y);
    for (size_t i = 0; i < n; i++)
        if (isnan(y[i])) y[i] = NAN; // one NaN is as good as another
    *hash = kv_hash(codes, n_units * size.bytes, *hash);
    *hash = kv_hash(y, n * sizeof(float), *hash);
}

static bool whole(uint32_t dim) { // dimensions for formats that need blocks of 32
    return dim % 32 == 0;
}

// One hash a (spec, dimension): printed to fd in order.
static void run_all(int fd) {
    uint8_t *x_end = guarded(ROOM), *c_end = guarded(ROOM), *y_end = guarded(ROOM);
    static const char *const more[] = {"sym:levels=max3",
                                       "sym:group=32",
                                       "asym:group=32",
                                       "asym:group=layer",
                                       "sym:scale=fp32",
                                       "asym:group=48",
                                       "asym-zp:rule=rotatekv,clip=0.9",
                                       "ggml:types=1",
                                       "hadamard(asym)",
                                       "hadamard(q4_0)",
                                       "rotatekv:heads=3",
                                       "kivi:zero=zp",
                                       "hadamard(kivi)"};
    size_t n_more = sizeof more / sizeof *more;
    for (size_t k = 0;; k++) {
        const struct kv_format_type *t = k < n_more ? NULL : kv_format_type_at(k - n_more);
        if (k >= n_more && !t) break;
        if (t && !t->encode && !t->wraps) continue; // codes whole tensors, in plain C
        const char *spec = t ? t->name : more[k];
        if (t && t->wraps) spec = "hadamard(sym)";
        for (uint32_t dim = 1; dim <= 300; dim += whole(dim + 1) || dim > 290 ? 1 : 1 + dim / 40) {
            struct kv_format_setting s = {
                .shape = {.n_layers = 2, .n_heads = 3, .n_kv_heads = 3, .head_dim = dim},
                .order = KV_ORDER_GGML};
            struct kv_format *f;
            uint64_t hash = 0;
            if (kv_format_open(&f, spec, &s, NULL) == 0) {
                for (uint32_t w = 0; w < f->n_widths; w++)
                    for (int kind = 0; kind < KINDS; kind++)
                        for (int side = 0; side < 2; side++) {
                            struct kv_block b = {1, side, w};
                            size_t units = 1 + (dim + w + (uint32_t)kind) % 5;
                            size_t room = kv_format_size(f, side, w).values * sizeof(float);
                            if (dim == 64) units = 19;
                            if (units * room > ROOM - 64) units = 1;
                            one(f, &b, units, kind, x_end, c_end, y_end, &hash);
                        }
                kv_format_close(f);
            }
            char line[96];
            int n = snprintf(line, sizeof line, "%s dim %u: %016llx\n", spec, dim,
                             (unsigned long long)hash);
            if (write(fd, line, (size_t)n) != n) abort();
        }
    }
}

static char *at_level(const char *level) {
    int pipes[2];
    if (pipe(pipes)) abort();
    pid_t child = fork();
    if (child == 0) {
        close(pipes[0]);
        setenv("KVSIM_CPU", level, 1);
        if (strcmp(kv_cpu_level_name(kv_cpu_level()), level) == 0) run_all(pipes[1]);
        _exit(0);
    }
    close(pipes[1]);
    struct kv_text out = {0};
    char part[4096];
    for (ssize_t n; (n = read(pipes[0], part, sizeof part)) > 0;)
        kv_text_add(&out, part, (size_t)n);
    close(pipes[0]);
    int status = 0;
    waitpid(child, &status, 0);
    char *text = kv_text_take(&out);
    if (status != 0)
        fail_msg("level %s died with status %d after:\n%s", level, status,
                 strlen(text) > 200 ? text + strlen(text) - 200 : text);
    return text;
}

static void test_levels(void **state) {
    (void)state;
    char *judge = at_level("base");
    assert_true(strlen(judge) > 1000);
    for (int l = 1; l < KV_N_CPU; l++) {
        char *fast = at_level(kv_cpu_level_name((enum kv_cpu)l));
        if (!*fast) print_message("level %s is not to be had here\n", kv_cpu_level_name(l));
        for (char *a = judge, *b = fast; *b;) {
            size_t n = strcspn(a, "\n");
            if (strncmp(a, b, n + 1) != 0)
                fail_msg("level %s: %.*s; judge: %.*s", kv_cpu_level_name(l), (int)strcspn(b, "\n"),
                         b, (int)n, a);
            a += n + 1, b += n + 1;
        }
        free(fast);
    }
    free(judge);
}

static void test_packing(void **state) {
    (void)state;
    uint8_t *a_end = guarded(PAGE), *b_end = guarded(PAGE), *c_end = guarded(PAGE);
    for (unsigned bits = 1; bits <= 8; bits++)
        for (size_t n = 1; n <= 300; n++) {
            size_t bytes = kv_packed_bytes(n, bits);
            uint8_t *a = a_end - n, *b = b_end - bytes, *c = c_end - n;
            for (size_t i = 0; i < n; i++)
                a[i] = (uint8_t)(kv_draw(n, bits, i) * (double)(1u << bits));
            kv_pack(a, n, bits, b);
            memset(c, 0xFF, n);
            kv_unpack(b, n, bits, c);
            assert_memory_equal(a, c, n);
            for (size_t i = 0; i < n; i++) { // bit by bit, as the layout is written down
                unsigned v = 0;
                for (unsigned k = 0; k < bits; k++)
                    v |= (b[(i * bits + k) / 8] >> ((i * bits + k) % 8) & 1u) << k;
                assert_int_equal(v, a[i]);
            }
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"packing gives every width and length 1 to 300 back, bit by bit", test_packing, 0, 0, 0},
        {"every CPU level gives the judge's bytes, between guard pages", test_levels, 0, 0, 0},
    };
    return cmocka_run_group_tests_name("levels", tests, NULL, NULL);
}
