// SPDX-License-Identifier: Apache-2.0
// How many tokens a second a policy decides about on one core, at the 135M model's 180 cells.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/work.h"
#include "sim/model/safetensors.h"
#include "sim/replay/replay.h"
#include "sim/test/figure.h"

enum { TOKENS = 4096 };

static const struct kv_format_setting setting = {.shape = {.n_layers = 30,
                                                           .n_heads = 9,
                                                           .n_kv_heads = 3,
                                                           .head_dim = 64,
                                                           .hidden = 576,
                                                           .ffn = 1536,
                                                           .vocab = 49152,
                                                           .max_tokens = 8192},
                                                 .order = KV_ORDER_GGML};

// A 4-128-128-4 network of small weights: its speed does not depend on their values.
static void write_net(const char *path) {
    static const char *const names[] = {"0.weight", "0.bias",   "2.weight",
                                        "2.bias",   "4.weight", "4.bias"};
    const size_t width[] = {4, 128, 128, 4};
    struct kv_tensor t[6];
    char *header;
    size_t n;
    uint64_t total;
    struct kv_error e;
    for (size_t i = 0; i < 6; i++) {
        t[i] = (struct kv_tensor){.dtype = "F32",
                                  .n_dims = i % 2 ? 1 : 2,
                                  .dims = {width[i / 2 + 1], i % 2 ? 0 : width[i / 2]}};
        snprintf(t[i].name, sizeof t[i].name, "%s", names[i]);
    }
    if (kv_safetensors_layout(t, 6, NULL, 0, &header, &n, &total, &e)) exit(1);
    uint8_t *file = kv_alloc(total, 1);
    memcpy(file, header, n);
    for (size_t i = 0; i < (total - n) / sizeof(float); i++) {
        float w = (float)(0.2 * kv_draw(1, 2, i) - 0.1);
        memcpy(file + n + i * sizeof w, &w, sizeof w);
    }
    if (kv_write_file(path, file, total, &e)) exit(1);
    free(file);
    free(header);
}

static double tokens_a_second(const char *text, struct kv_item *item, uint8_t *cells) {
    struct kv_replay_spec spec;
    struct kv_error e = {0};
    if (kv_replay_spec_open(&spec, text, &setting, 1, &e)) {
        printf("%s: %s\n", text, e.msg);
        exit(1);
    }
    item->run = &spec.run;
    size_t rounds = 0;
    double start = kv_cpu_time_s(), took; // other processes do not count
    do {
        if (kv_ask(spec.policy, spec.self, item, cells, &e)) exit(1);
        rounds++;
    } while ((took = kv_cpu_time_s() - start) < 0.3);
    kv_replay_spec_close(&spec);
    return (double)(rounds * TOKENS) / took;
}

int main(void) {
    static struct kv_quantiles quantiles;
    static struct kv_token tokens[TOKENS];
    struct kv_item item = {.struct_bytes = sizeof item,
                           .key = 1,
                           .n_tokens = TOKENS,
                           .n_context = TOKENS,
                           .tokens = tokens,
                           .quantiles = &quantiles};
    uint8_t *cells = kv_alloc(TOKENS * kv_cells(&setting.shape), 1);
    char path[] = "/tmp/kvsim-bench-XXXXXX", mlp[64];
    int fd = mkstemp(path);
    if (fd < 0) return 1;
    close(fd);
    for (size_t t = 0; t < TOKENS; t++) {
        tokens[t].pos = (uint32_t)t;
        for (size_t f = 0; f < KV_N_FEATURES; f++) tokens[t].feature[f] = (float)kv_draw(1, f, t);
    }
    for (size_t f = 0; f <= KV_MEAN_OF_FOUR; f++)
        for (size_t q = 0; q < KV_N_QUANTILES; q++)
            quantiles.quantile[f][q] = (float)q / (KV_N_QUANTILES - 1);
    write_net(path);
    snprintf(mlp, sizeof mlp, "mlp:weights=%s", path);
    const char *const specs[] = {"static:bits=4", "context",        "threshold",
                                 "random",        "random:by=cell", mlp};
    double base = 0;
    printf("policy                million tokens/s   of static\n");
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        double speed = tokens_a_second(specs[i], &item, cells);
        if (i == 0) base = speed;
        if (i)
            bench_figure(speed / 1e6, "Mtokens/s", "policy static", base / 1e6, "decide, %s",
                         specs[i] == mlp ? "mlp 4-128-128-4" : specs[i]);
        printf("%-22s %15.2f %10.1f %%\n", specs[i] == mlp ? "mlp 4-128-128-4" : specs[i],
               speed / 1e6, 100 * speed / base);
    }
    unlink(path);
    free(cells);
    return 0;
}
