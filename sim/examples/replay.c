// SPDX-License-Identifier: Apache-2.0
// Replays two policies against a recording: how far does each take the model from its 16-bit run?
//
//     kvsim record -m MODEL -t samples -o samples.trace
//     cc replay.c $(pkg-config --cflags --libs kvsim) -o replay
//     ./replay MODEL samples.trace static:bits=4@sym static:k=4,v=2@kivi
#include <kvsim/kvsim.h>

#include <stdlib.h>

enum { N_SPECS = 2 };

struct sums {
    double kl_nats, tokens, bits, items;
};

// An item's outcome under one of the specs; comes from any worker, one at a time.
static int take(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    struct sums *s = (struct sums *)self + spec;
    (void)item, (void)e;
    s->kl_nats += o->kl_nats * o->n_scored;
    s->tokens += o->n_scored;
    s->bits += o->ledger.effective_bits;
    s->items += 1;
    return 0;
}

static int replay(const struct kv_trace *trace, const struct kv_model *model, char **texts,
                  struct kv_error *e) {
    const struct kv_trace_info *info = kv_trace_info(trace);
    const struct kv_format_setting setting = kv_trace_setting(info);
    struct kv_replay_spec specs[N_SPECS] = {0};
    struct sums sums[N_SPECS] = {0};
    struct kv_replay r = {.trace = trace,
                          .model = model,
                          .specs = specs,
                          .n_specs = N_SPECS,
                          .n_items = info->n_items,
                          .take = take,
                          .self = sums};
    int rc = 0;
    for (int i = 0; i < N_SPECS && rc == 0; i++)
        rc = kv_replay_spec_open(&specs[i], texts[i], &setting, 1, e);
    if (rc == 0) rc = kv_replay_open_tables(&r, KV_TABLE_ISO, 2, e); // for policies that read them
    if (rc == 0) rc = kv_replay_exact(&r, 2, e);                     // on two threads
    for (int i = 0; i < N_SPECS && rc == 0; i++)
        printf("%5.2f bits, %.6f nats a token: %s\n", sums[i].bits / sums[i].items,
               sums[i].kl_nats / sums[i].tokens, specs[i].canonical);
    kv_replay_close_tables(&r);
    for (int i = 0; i < N_SPECS; i++) kv_replay_spec_close(&specs[i]);
    return rc;
}

int main(int argc, char **argv) {
    struct kv_error e = {0};
    struct kv_trace *trace = NULL;
    struct kv_model *model = NULL;
    if (argc != 3 + N_SPECS) return fprintf(stderr, "usage: replay MODEL TRACE SPEC SPEC\n"), 2;
    kv_set_verbosity(-1); // no progress
    int rc = kv_model_open(&model, argv[1], KV_WEIGHTS_F32, &e);
    if (rc == 0) rc = kv_trace_open(&trace, argv[2], &e);
    if (rc == 0) rc = replay(trace, model, argv + 3, &e);
    if (rc) fprintf(stderr, "replay: %s: %s\n", e.where, e.msg);
    kv_trace_close(trace);
    kv_model_close(model);
    return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
