// SPDX-License-Identifier: Apache-2.0
// Binding a spec's text to a policy and a format.
#include "sim/replay/spec.h"

#include <stdlib.h>

#include "sim/base/args.h"
#include "sim/base/util.h"

#define KV_POLICY(name) extern const struct kv_policy kv_policy_##name;
#include "policies/policies.def"
#undef KV_POLICY

static const struct kv_policy *const policies[] = {
#define KV_POLICY(name) &kv_policy_##name,
#include "policies/policies.def"
#undef KV_POLICY
};
#define N_POLICIES (sizeof policies / sizeof *policies)

const struct kv_policy *kv_policy_at(size_t i) {
    return i < N_POLICIES ? policies[i] : NULL;
}

static const struct kv_policy *find_policy(const char *name, struct kv_error *e) {
    const char *names[N_POLICIES + 1] = {NULL};
    for (size_t i = 0; i < N_POLICIES; i++) {
        names[i] = policies[i]->name;
        if (strcmp(name, names[i]) == 0) return policies[i];
    }
    const char *near = kv_nearest(name, names);
    if (near)
        kv_fail(e, KV_EUSAGE, "spec", "no policy is named '%s'; did you mean '%s'?", name, near);
    else
        kv_fail(e, KV_EUSAGE, "spec", "no policy is named '%s'; `kvsim list policies` shows them",
                name);
    return NULL;
}

static void describe_run(struct kv_run *run, const struct kv_format *f, uint64_t seed) {
    *run = (struct kv_run){.struct_bytes = sizeof *run,
                           .shape = f->setting.shape,
                           .n_widths = f->n_widths,
                           .format = f->type->name,
                           .seed = seed};
    memcpy(run->width_bits, f->width_bits, sizeof run->width_bits);
    for (uint32_t w = 0; w < f->n_widths; w++)
        for (int side = 0; side < 2; side++) {
            struct kv_unit_size u = kv_format_size(f, (enum kv_side)side, w);
            run->cell_bits[side][w] = 8.0f * (float)u.bytes / (float)u.values;
        }
}

static int open_policy(struct kv_replay_spec *spec, const char *text, struct kv_error *e) {
    struct kv_spec s;
    struct kv_args *args = NULL;
    int rc = kv_spec_parse(&s, text, e);
    if (rc) return rc;
    spec->policy = find_policy(s.name, e);
    char *what = kv_format_text("policy %s", s.name);
    rc = spec->policy ? kv_args_new(&args, &s, spec->policy->params, NULL, what, e) : KV_EUSAGE;
    if (rc == 0) rc = spec->policy->open(&spec->self, &spec->run, args, e);
    if (rc == 0) {
        spec->policy_name = kv_strdup(s.name);
        spec->varies = spec->policy->varies_as_opened ? spec->policy->varies_as_opened(spec->self)
                                                      : spec->policy->varies;
        spec->options = spec->policy->options_as_opened
                            ? spec->policy->options_as_opened(spec->self)
                            : (uint32_t)spec->run.n_widths;
        char own[512] = "";
        if (spec->policy->canonical)
            spec->policy->canonical(spec->self, &spec->run, own, sizeof own);
        spec->canonical = *own ? kv_strdup(own) : kv_args_canonical(args, s.name);
    }
    kv_args_free(args);
    free(what);
    kv_spec_fini(&s);
    return rc;
}

int kv_replay_spec_open(struct kv_replay_spec *spec, const char *text,
                        const struct kv_format_setting *s, uint64_t seed, struct kv_error *e) {
    char *policy, *format;
    *spec = (struct kv_replay_spec){0};
    int rc = kv_spec_split(text, &policy, &format, e);
    if (rc) return rc;
    rc = kv_format_open(&spec->format, format ? format : "sym", s, e);
    if (rc == 0) {
        describe_run(&spec->run, spec->format, seed);
        rc = open_policy(spec, policy, e);
    }
    bool formatless = rc == 0 && strcmp(spec->policy_name, "none") == 0;
    if (formatless && format)
        rc = kv_fail(e, KV_EUSAGE, text, "policy none stores float32 and takes no format");
    if (rc == 0) {
        spec->format_text = kv_strdup(formatless ? "" : spec->format->canonical);
        if (!formatless) {
            char *whole = kv_format_text("%s@%s", spec->canonical, spec->format->canonical);
            free(spec->canonical);
            spec->canonical = whole;
        }
    }
    free(policy);
    free(format);
    if (rc) kv_replay_spec_close(spec);
    return rc;
}

void kv_replay_spec_close(struct kv_replay_spec *spec) {
    if (spec->policy && spec->policy->close) spec->policy->close(spec->self);
    kv_format_close(spec->format);
    free(spec->canonical);
    free(spec->policy_name);
    free(spec->format_text);
    *spec = (struct kv_replay_spec){0};
}

int kv_spec_canonical(const char *text, const struct kv_format_setting *s, char **canonical,
                      struct kv_error *e) {
    struct kv_replay_spec spec;
    int rc = kv_replay_spec_open(&spec, text, s, 0, e);
    if (rc) return rc;
    *canonical = kv_strdup(spec.canonical);
    kv_replay_spec_close(&spec);
    return 0;
}
