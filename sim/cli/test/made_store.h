// SPDX-License-Identifier: Apache-2.0
// A store of made-up outcomes and a kvsim to ask about it, for tests of commands. Include after
// cmocka.h.
#ifndef KV_CLI_TEST_MADE_STORE_H
#define KV_CLI_TEST_MADE_STORE_H

#include <sys/wait.h>
#include <unistd.h>

#include "analysis/test/synthetic.h"

enum { N = 200 };

static const char hostile[] = "plugin:note=<script>alert('\"\\\t&x')</script>";

struct made_spec {
    const char *spec, *policy, *format;
    double damage;
    int k_bits, v_bits;
};

static const struct made_spec specs[] = {
    {"none", "none", "", 0, 16, 16},
    {"static:k=4,v=4@asym:group=32,order=hf,scale=fp16,sinks=0,window=0", "static:k=4,v=4",
     "asym:group=32,order=hf,scale=fp16,sinks=0,window=0", 0.1, 4, 4},
    {"static:k=8,v=4@asym:group=32,order=hf,scale=fp16,sinks=0,window=0", "static:k=8,v=4",
     "asym:group=32,order=hf,scale=fp16,sinks=0,window=0", 0.03, 8, 4},
    {hostile, hostile, "", 0.5, 2, 2},
};

struct fixture {
    char dir[64], db[96], kvsim[512];
};

// Adds one redraw of a spec; `draw` numbers its outcomes.
static inline int made_run(struct kv_store *s, long long trace, const struct made_spec *m,
                           uint64_t draw, uint32_t redraw, struct kv_error *e) {
    struct kv_run_key key = synthetic_key(trace, m->spec);
    long long run;
    key.policy = m->policy;
    key.format = m->format;
    key.redraw = redraw;
    int code = kv_store_run(s, &key, &run, e);
    for (size_t i = 0; !code && i < N; i++) {
        struct kv_choice_outcome choice[SYNTHETIC_CHOICES];
        struct kv_outcome o =
            synthetic_outcome(i, draw, 0.6, m->damage, m->k_bits, m->v_bits, choice);
        code = kv_store_put(s, run, (uint32_t)i, &o, e);
    }
    return code;
}

static inline int set_up(void **state) {
    struct fixture *f = kv_alloc(1, sizeof *f);
    struct kv_error e = {0};
    struct kv_store *s;
    struct synthetic *t = synthetic_new(N);
    const char *build = getenv("BUILD") ? getenv("BUILD") : "build";
    long long trace;
    snprintf(f->dir, sizeof f->dir, "/tmp/kvsim-cli-XXXXXX");
    if (!mkdtemp(f->dir)) return -1;
    snprintf(f->db, sizeof f->db, "%s/a.db", f->dir);
    snprintf(f->kvsim, sizeof f->kvsim, "%s/kvsim", build);
    int code = kv_store_open(&s, f->db, KV_STORE_CREATE, &e);
    if (!code) code = synthetic_trace(s, t, &trace, &e);
    for (size_t p = 0; !code && p < sizeof specs / sizeof *specs; p++)
        code = made_run(s, trace, &specs[p], p, 0, &e);
    if (!code) code = kv_store_close(s, &e);
    synthetic_free(t);
    *state = f;
    return code;
}

static inline int tear_down(void **state) {
    struct fixture *f = *state;
    char *command = kv_format_text("rm -rf '%s'", f->dir);
    int code = system(command);
    free(command);
    free(f);
    return code;
}

// Runs "[setting] kvsim arguments", returns its exit code and all it said.
static inline int run(const struct fixture *f, const char *setting, const char *arguments,
                      char **said) {
    char chunk[4096];
    size_t got;
    struct kv_text t = {0};
    char *command = kv_format_text("%s %s %s 2>&1", setting, f->kvsim, arguments);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    while ((got = fread(chunk, 1, sizeof chunk, p)) > 0) kv_text_add(&t, chunk, got);
    int status = pclose(p);
    free(command);
    *said = kv_text_take(&t);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline void expect(const struct fixture *f, const char *arguments, int code,
                          const char *message) {
    char *said;
    int got = run(f, "", arguments, &said);
    if (got != code || !strstr(said, message)) fail_msg("%s: %d: %s", arguments, got, said);
    free(said);
}

#endif
