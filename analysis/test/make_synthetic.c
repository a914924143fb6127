// SPDX-License-Identifier: Apache-2.0
// Writes a made-up store to look at reports with: make_synthetic STORE POLICIES ITEMS [RECORDINGS]
#include "analysis/test/synthetic.h"

static const struct {
    const char *policy, *format;
    int k_bits, v_bits;
    double damage;
} policies[] = {
    {"none", "fp16:order=hf,sinks=0,window=0", 16, 16, 0},
    {"static:k=8,v=8", "q8_0:order=ggml,sinks=0,window=0", 8, 8, 0.01},
    {"static:k=4,v=4", "sym:group=head,levels=full,order=hf,scale=fp16,sinks=0,window=0", 4, 4,
     0.17},
    {"static:k=4,v=4", "asym:group=32,order=hf,scale=fp16,sinks=0,window=0", 4, 4, 0.06},
    {"static:k=8,v=4", "asym:group=32,order=hf,scale=fp16,sinks=0,window=0", 8, 4, 0.03},
    {"static:k=2,v=2", "sym:group=layer,levels=full,order=hf,scale=fp16,sinks=0,window=0", 2, 2,
     0.78},
    {"static:k=3,v=3", "asym:group=32,order=hf,scale=fp16,sinks=0,window=0", 3, 3, 0.2},
    {"random:bits=2/4/8/16,by=token,seed=0,shares=0.25/0.25/0.25/0.25",
     "sym:group=head,levels=full,order=hf,scale=fp16,sinks=0,window=0", 8, 8, 0.45},
    {"threshold:bits=2/4/8/16,cuts=0.5/1.5/3,feature=entropy",
     "sym:group=head,levels=full,order=hf,scale=fp16,sinks=0,window=0", 6, 6, 0.3},
    {"static:k=6,v=6", "sym:group=layer,levels=full,order=hf,scale=fp16,sinks=0,window=0", 6, 6,
     0.04},
};

// All policies on one recording.
static int fill(struct kv_store *s, const struct synthetic *t, size_t n_policies, size_t n_items,
                size_t recording, struct kv_error *e) {
    long long trace, run;
    int code = synthetic_trace(s, t, &trace, e);
    for (size_t p = 0; !code && p < n_policies; p++) {
        size_t k = p % (sizeof policies / sizeof *policies), round = p / 10;
        uint64_t draw = p + 1 + 1000 * recording;
        char *policy = round ? kv_format_text("%s,rank=%zu", policies[k].policy, round)
                             : kv_strdup(policies[k].policy);
        char *spec = kv_format_text("%s@%s", policy, policies[k].format);
        struct kv_run_key key = synthetic_key(trace, spec);
        key.policy = policy;
        key.format = policies[k].format;
        code = kv_store_run(s, &key, &run, e);
        double drift = round ? (kv_draw(99, draw, 1) - 0.5) * 0.1 : 0;
        for (size_t i = 0; !code && i < n_items; i++) {
            struct kv_choice_outcome choice[SYNTHETIC_CHOICES];
            struct kv_outcome o =
                synthetic_outcome(i, draw, 0.55, fmax(0, policies[k].damage + drift),
                                  policies[k].k_bits, policies[k].v_bits, choice);
            if (policies[k].k_bits < 16) {
                double extra = 2 * kv_draw(98, p, 2) * (round > 0);
                o.ledger.nominal_bits += extra;
                o.ledger.effective_bits += extra;
                o.ledger.allocated_bits += extra;
            }
            code = kv_store_put(s, run, (uint32_t)i, &o, e);
        }
        free(policy);
        free(spec);
    }
    return code;
}

int main(int argc, char **argv) {
    static char *const tasks[] = {"hellaswag", "arc_easy", "arc_challenge", "openbookqa"};
    struct kv_error e = {0};
    struct kv_store *s;
    if (argc < 4 || argc > 5) {
        fprintf(stderr, "usage: make_synthetic STORE POLICIES ITEMS [RECORDINGS]\n");
        return 2;
    }
    size_t n_policies = strtoul(argv[2], NULL, 10), n_items = strtoul(argv[3], NULL, 10);
    size_t n_recordings = argc == 5 ? strtoul(argv[4], NULL, 10) : 1;
    struct synthetic *t = synthetic_new(n_items);
    int code = kv_store_open(&s, argv[1], KV_STORE_CREATE, &e);
    for (size_t r = 0; !code && r < n_recordings; r++) {
        t->info.digest[0] = "0123456789abcdef"[r % 16];
        t->info.task_name = tasks[r % 4];
        code = fill(s, t, n_policies, n_items, r, &e);
    }
    if (!code) code = kv_store_close(s, &e);
    if (code) fprintf(stderr, "%s: %s\n", e.where, e.msg);
    synthetic_free(t);
    return code != 0;
}
