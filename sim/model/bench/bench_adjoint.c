// SPDX-License-Identifier: Apache-2.0
// What a label draw of the backward pass costs beside the plain forward pass, with a whole and with
// a thrifty tape, in CPU time of one thread and in memory.
//
// Environment: MODEL.
#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/model/adjoint.h"
#include "sim/test/figure.h"

enum { CONTEXT = 96, CHOICES = 4, CHOICE = 36, TOKENS = CONTEXT + CHOICES * CHOICE, DRAWS = 4 };

static int keep_float32(void *self, uint32_t layer, const struct kv_layer_kv *kv,
                        struct kv_layer_view *view, struct kv_error *e) {
    (void)self, (void)layer, (void)e;
    *view = (struct kv_layer_view){.k_exact = kv->k, .v_exact = kv->v};
    return 0;
}

static void forget(void *self, size_t draw, uint32_t layer, const float *dk, const float *dv,
                   const float *d_evict) {
    (void)self, (void)draw, (void)layer, (void)dk, (void)dv, (void)d_evict;
}

// Seconds of the forward pass, with or without a tape.
static double forward_s(const struct kv_model *m, const struct kv_tree *t, struct kv_tape *tape,
                        float *final, struct kv_scratch *s) {
    struct kv_error e;
    double start = kv_cpu_time_s();
    struct kv_forward job = {.tree = t, .store = keep_float32, .tape = tape, .final = final};
    if (kv_forward(m, &job, s, &e)) {
        fprintf(stderr, "bench_adjoint: %s: %s\n", e.where, e.msg);
        exit(1);
    }
    return kv_cpu_time_s() - start;
}

int main(void) {
    struct kv_error e = {0};
    struct kv_model *m;
    const char *path = getenv("MODEL");
    uint32_t ids[TOKENS], first[CHOICES + 1];
    struct kv_scored scored[1 + CHOICES * (CHOICE - 1)] = {{CONTEXT - 1, CHOICES}};
    size_t n_scored = 1;
    if (kv_model_open(&m, path ? path : "data/SmolLM2-135M-Instruct.Q4_1.gguf", KV_WEIGHTS_F32,
                      &e)) {
        fprintf(stderr, "bench_adjoint: %s: %s\n", e.where, e.msg);
        return 1;
    }
    for (uint32_t i = 0; i < TOKENS; i++)
        ids[i] = (uint32_t)(kv_draw(1, 2, i) * (double)m->shape.vocab);
    for (uint32_t c = 0; c <= CHOICES; c++) first[c] = CONTEXT + c * CHOICE;
    for (uint32_t row = CONTEXT; row < TOKENS; row++)
        if ((row + 1 - CONTEXT) % CHOICE) scored[n_scored++] = (struct kv_scored){row, 1};
    const struct kv_tree tree = {TOKENS, CONTEXT, CHOICES, first, ids};
    size_t n = (size_t)TOKENS * m->shape.hidden;
    float *final = kv_alloc(n, sizeof *final), *d_final = kv_alloc(DRAWS * n, sizeof *d_final);
    struct kv_scratch *s = kv_scratch_new();
    struct kv_tape *tape[] = {kv_tape_new(m, TOKENS, SIZE_MAX), kv_tape_new(m, TOKENS, 0)};
    struct kv_adjoint_seed seed;
    double plain = 0, taped[2] = {0}, back[2] = {0}, labels = 0;
    forward_s(m, &tree, tape[0], final, s);
    for (int round = 0; round < 3; round++) { // in turn, so that the machine's moods meet all alike
        plain += forward_s(m, &tree, NULL, final, s);
        for (int k = 0; k < 2; k++) {
            taped[k] += forward_s(m, &tree, tape[k], final, s);
            double start = kv_cpu_time_s();
            kv_adjoint_seed(m, final, scored, n_scored, 1, DRAWS, s, &seed);
            for (size_t r = 0; r < DRAWS; r++)
                kv_adjoint_draw(m, &seed, r, TOKENS, d_final + r * n);
            labels += (kv_cpu_time_s() - start) / 2;
            start = kv_cpu_time_s();
            kv_adjoint(m,
                       &(struct kv_adjoint){.tree = &tree,
                                            .tape = tape[k],
                                            .n_draws = DRAWS,
                                            .d_final = d_final,
                                            .take = forget},
                       s);
            back[k] += kv_cpu_time_s() - start;
            kv_adjoint_seed_fini(&seed);
        }
    }
    printf("backward pass, %d tokens, %d draws; plain forward pass: %.2f s\n", TOKENS, DRAWS,
           plain / 3);
    bench_figure(3 * DRAWS / back[0], "passes/s", "a plain forward pass", 3 / plain,
                 "backward, whole tape");
    bench_figure(3 * DRAWS / back[1], "passes/s", "a plain forward pass", 3 / plain,
                 "backward, thrifty tape");
    printf("%-34s %10s %10s\n", "", "whole", "thrifty");
    printf("%-34s %10.2f %10.2f   (at most 2.5 is asked of a whole tape)\n",
           "a draw, of the plain pass", back[0] / plain / DRAWS, back[1] / plain / DRAWS);
    printf("%-34s %10.2f %10.2f\n", "forward pass with tape", taped[0] / plain, taped[1] / plain);
    printf("%-34s %10.2f\n", "labels of all draws", labels / plain);
    for (size_t tokens = TOKENS; tokens <= 2048; tokens += 2048 - TOKENS)
        printf("tape for %4zu tokens, MB             %10.0f %10.0f\n", tokens,
               1e-6 * (double)kv_tape_bytes(m, tokens, false),
               1e-6 * (double)kv_tape_bytes(m, tokens, true));
    for (int k = 0; k < 2; k++) kv_tape_free(tape[k]);
    kv_scratch_free(s);
    kv_model_close(m);
    free(final);
    free(d_final);
    return 0;
}
