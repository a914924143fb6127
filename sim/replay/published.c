// SPDX-License-Identifier: Apache-2.0
// Compares a run's read mode with those that its policy and its format declare.
#include "sim/replay/published.h"

static const struct {
    const char *name, *policy, *format; // what is said where it is not the run's mode
    enum kv_mode mode;
} published[] = {
    [KV_PUBLISHED_INLINE] = {"inline", "the policy was published in mode inline",
                             "the format was published in mode inline", KV_INLINE},
    [KV_PUBLISHED_PREFILL] = {"prefill", "the policy was published in mode prefill",
                              "the format was published in mode prefill", KV_PREFILL},
    [KV_PUBLISHED_PREFILL1] = {"prefill1", "the policy was published in mode prefill1",
                               "the format was published in mode prefill1", KV_PREFILL1},
    [KV_PUBLISHED_REQUANT] = {"requant", "the policy was published in mode requant",
                              "the format was published in mode requant", KV_REQUANT},
};

static bool known(uint32_t mode) {
    return mode < sizeof published / sizeof *published && published[mode].name;
}

const char *kv_published_name(uint32_t mode) {
    return known(mode) ? published[mode].name : "";
}

static bool differs(uint32_t declared, enum kv_mode mode) {
    return known(declared) && published[declared].mode != mode;
}

// What the policy, and what the format declares. A wrapper changes neither.
static uint32_t of_policy(const struct kv_replay_spec *spec) {
    while (spec->inner) spec = spec->inner;
    return spec->policy->published_mode;
}

static uint32_t of_format(const struct kv_replay_spec *spec) {
    const struct kv_format *f = *spec->format_text ? spec->format : NULL; // policy none takes none
    while (f && f->type->published_mode == KV_PUBLISHED_ANY) f = f->inner;
    return f ? f->type->published_mode : KV_PUBLISHED_ANY;
}

static bool decides_at_prompts_end(const struct kv_replay_spec *spec) {
    while (spec->inner) spec = spec->inner;
    return spec->delay_tokens == KV_DELAY_PROMPT;
}

enum kv_mode kv_published_mode(const struct kv_replay_spec *spec) {
    uint32_t policy = of_policy(spec), format = of_format(spec);
    if (known(policy)) return published[policy].mode;
    if (known(format)) return published[format].mode;
    return decides_at_prompts_end(spec) ? KV_PREFILL : KV_INLINE;
}

const char *kv_mode_mismatch(const struct kv_replay_spec *spec, enum kv_mode mode) {
    uint32_t policy = of_policy(spec), format = of_format(spec);
    if (mode == KV_INLINE && decides_at_prompts_end(spec) && policy != KV_PUBLISHED_INLINE)
        return "the policy decides at the prompt's end, and the prompt's own queries read its "
               "widths";
    if (differs(policy, mode)) return published[policy].policy;
    return differs(format, mode) ? published[format].format : NULL;
}
