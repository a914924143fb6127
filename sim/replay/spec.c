// SPDX-License-Identifier: Apache-2.0
// Binding a spec's text to a policy and a format.
#include "sim/replay/spec.h"

#include <stdlib.h>

#include "sim/base/args.h"
#include "sim/base/assets.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/quant/centre.h"
#include "sim/replay/plugin.h"

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

const char *kv_need_name(uint32_t bit) {
    static const struct {
        uint32_t bit;
        const char *name;
    } known[] = {{KV_NEED(KV_ENTROPY_NATS), "entropy_nats"},
                 {KV_NEED(KV_CONFIDENCE), "confidence"},
                 {KV_NEED(KV_RARITY_NATS), "rarity_nats"},
                 {KV_NEED(KV_ATTN_VAR), "attn_var"},
                 {KV_NEED(KV_KEY_RANGE), "key_range"},
                 {KV_NEED(KV_VALUE_RANGE), "value_range"},
                 {KV_NEED(KV_ATTN_SO_FAR), "attn_so_far"},
                 {KV_NEED(KV_ATTN_FUTURE), "attn_future"},
                 {KV_NEED_CLASS, "token class"},
                 {KV_NEED_DAMAGE, "damage"},
                 {KV_NEED_ERROR, "coding error"},
                 {KV_NEED_QUANTILES, "quantiles of features"},
                 {KV_NEED_KV, "keys and values"},
                 {KV_NEED_Q, "queries"},
                 {KV_NEED_HIDDEN, "hidden states"},
                 {KV_NEED_NORMS, "norms of projections"},
                 {KV_NEED_SURPRISAL, "surprisal"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].bit == bit) return known[i].name;
    return NULL;
}

// The narrowest width of a format of that name; 0 when there is none.
static unsigned format_width(const char *name, const struct kv_shape *shape) {
    struct kv_format_setting s = {.shape = *shape, .order = KV_ORDER_GGML};
    struct kv_format *f;
    unsigned bits = 0;
    if (kv_tolerate(kv_format_open(&f, name, &s, NULL), NULL)) return 0;
    bits = f->width_bits[0];
    kv_format_close(f);
    return bits;
}

static const struct kv_policy *find_policy(const char *name, const struct kv_shape *shape,
                                           struct kv_error *e) {
    const char *names[N_POLICIES + 1] = {NULL};
    for (size_t i = 0; i < N_POLICIES; i++) {
        names[i] = policies[i]->name;
        if (strcmp(name, names[i]) == 0) return policies[i];
    }
    unsigned bits = format_width(name, shape);
    if (bits) {
        kv_fail(e, KV_EUSAGE, "spec",
                "'%s' is a format and decides no widths; a policy does: static:bits=%u@%s", name,
                bits, name);
        return NULL;
    }
    const char *near = kv_nearest(name, names);
    if (near)
        kv_fail(e, KV_EUSAGE, "spec", "no policy is named '%s'; did you mean '%s'?", name, near);
    else
        kv_fail(e, KV_EUSAGE, "spec", "no policy is named '%s'; `kvsim list policies` shows them",
                name);
    return NULL;
}

static bool shipped(const char *folder, size_t i, struct kv_shipped *file) {
    const struct kv_asset *a;
    for (size_t at = 0; (a = kv_asset_at(at)); at++)
        if (strncmp(a->path, folder, strlen(folder)) == 0 && i-- == 0) {
            *file = (struct kv_shipped){a->path, a->data, a->n};
            return true;
        }
    return false;
}

static void describe_run(struct kv_run *run, const struct kv_format *f, uint64_t seed) {
    *run = (struct kv_run){.struct_bytes = sizeof *run,
                           .shape = f->setting.shape,
                           .n_widths = f->n_widths,
                           .format = f->type->name,
                           .seed = seed,
                           .shipped = shipped,
                           .format_text = f->canonical,
                           .sequence_bits = kv_centre_bits(f)};
    memcpy(run->width_bits, f->width_bits, sizeof run->width_bits);
    for (uint32_t w = 0; w < f->n_widths; w++)
        for (int side = 0; side < 2; side++) {
            struct kv_unit_size u = kv_format_size(f, (enum kv_side)side, w);
            run->cell_bits[side][w] = 8.0f * (float)u.bytes / (float)u.values;
        }
}

static int open_policy(struct kv_replay_spec *spec, const char *text, struct kv_error *e);

// The keys that every shared object takes.
static const struct kv_param plugin_params[] = {
    {"digest", KV_TEXT, "", 0, 0, NULL, NULL, "of the file; checked where it is given"}, {0}};

// Writes the file's digest into the spec, so that its canonical form names one build.
static int pin_digest(struct kv_spec *s, const char *digest, struct kv_error *e) {
    for (size_t i = 0; i < s->n_pairs; i++)
        if (strcmp(s->keys[i], "digest") == 0)
            return strcmp(s->values[i], digest) == 0
                       ? 0
                       : kv_fail(e, KV_EFAIL, s->name, "has digest %s, not %s as the spec says",
                                 digest, s->values[i]);
    s->keys = kv_grow(s->keys, s->n_pairs + 1, sizeof *s->keys);
    s->values = kv_grow(s->values, s->n_pairs + 1, sizeof *s->values);
    s->keys[s->n_pairs] = kv_strdup("digest");
    s->values[s->n_pairs++] = kv_strdup(digest);
    return 0;
}

static int find(struct kv_replay_spec *spec, struct kv_spec *s, struct kv_error *e) {
    if (!kv_is_plugin(s->name)) {
        spec->policy = find_policy(s->name, &spec->run.shape, e);
        return spec->policy ? 0 : KV_EUSAGE;
    }
    int rc = kv_plugin_open(&spec->plugin, s->name, e);
    if (rc) return rc;
    spec->policy = &spec->plugin->policy;
    return pin_digest(s, spec->plugin->digest, e);
}

static int open_inner(struct kv_replay_spec *spec, const struct kv_spec *s, struct kv_error *e) {
    if (!spec->policy->wraps)
        return s->inner
                   ? kv_fail(e, KV_EUSAGE, "spec", "'%s(...)': this policy wraps no other", s->name)
                   : 0;
    if (!s->inner)
        return kv_fail(e, KV_EUSAGE, "spec", "policy %s wraps another: %s(static:bits=4)", s->name,
                       s->name);
    spec->inner = kv_alloc(1, sizeof *spec->inner);
    spec->inner->run = spec->run;
    int rc = open_policy(spec->inner, s->inner, e);
    if (rc) return rc;
    const struct kv_replay_spec *in = spec->inner;
    spec->inner_view = kv_alloc(1, sizeof *spec->inner_view);
    *spec->inner_view = (struct kv_inner){in->policy, in->self, in->varies, in->options, in->needs};
    spec->run.inner = spec->inner_view;
    return 0;
}

// What an opened policy says of itself, its inner one included.
static void describe_policy(struct kv_replay_spec *spec) {
    const struct kv_policy *p = spec->policy;
    const struct kv_replay_spec *in = spec->inner;
    spec->varies = p->varies_as_opened ? p->varies_as_opened(spec->self) : p->varies;
    spec->options =
        p->options_as_opened ? p->options_as_opened(spec->self) : (uint32_t)spec->run.n_widths;
    spec->needs =
        (p->needs_as_opened ? p->needs_as_opened(spec->self) : p->needs) | (in ? in->needs : 0);
    spec->hops = p->hops_as_opened ? p->hops_as_opened(spec->self) : in ? in->hops : 1;
    spec->rounds = p->rounds_as_opened ? p->rounds_as_opened(spec->self) : in ? in->rounds : 1;
    spec->delay_tokens =
        in && in->delay_tokens > p->delay_tokens ? in->delay_tokens : p->delay_tokens;
}

static int check_delay(const struct kv_replay_spec *spec, const char *name, struct kv_error *e) {
    bool too_early = spec->needs & KV_NEED(KV_ATTN_SO_FAR) && !(spec->needs & KV_NEEDS_FUTURE) &&
                     spec->delay_tokens != KV_DELAY_PROMPT;
    return too_early ? kv_fail(e, KV_EFAIL, name,
                               "reads the attention received so far, which is known when the "
                               "prompt has been read, but says it decides %u tokens late",
                               spec->delay_tokens)
                     : 0;
}

static int check_rounds(const struct kv_replay_spec *spec, const char *name, struct kv_error *e) {
    return spec->rounds > 1 && !(spec->needs & KV_NEED_DAMAGE)
               ? kv_fail(e, KV_EFAIL, name,
                         "decides in %u rounds but does not read the damage that they measure",
                         spec->rounds)
               : 0;
}

const struct kv_replay_spec *kv_by_layers(const struct kv_replay_spec *spec) {
    while (spec && !spec->policy->decide_layer) spec = spec->inner;
    return spec;
}

// Which of a policy's keys says how fine its widths are; what it is, if the spec does not.
static const char *grain_of(const struct kv_policy *p, const struct kv_spec *s) {
    static const char *const keys[] = {"grain", "level", "by"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        for (const struct kv_param *x = p->params; x && x->name; x++) {
            if (strcmp(x->name, keys[k]) != 0 || x->type != KV_CHOICE) continue;
            const char *said = kv_spec_value(s, keys[k]);
            return said ? said : x->fallback;
        }
    return NULL;
}

void kv_ledger_name_grain(struct kv_ledger *ledger, const struct kv_spec_parts *parts) {
    const uint32_t cell = KV_VARIES_TOKEN | KV_VARIES_HEAD;
    ledger->by_place = ledger->by_cell = ledger->controlled = false;
    if (parts->n_policies == 0) return;
    const struct kv_spec *s = &parts->policies[parts->n_policies - 1];
    for (size_t i = 0; i < N_POLICIES; i++) {
        const struct kv_policy *p = policies[i];
        if (strcmp(p->name, s->name) != 0) continue;
        ledger->by_place = !(p->varies & (KV_VARIES_TOKEN | KV_VARIES_POSITION));
        if ((p->varies & cell) != cell) continue;
        const char *grain = grain_of(p, s);
        ledger->by_cell = !grain || strcmp(grain, "cell") == 0 || strcmp(grain, "head") == 0;
        ledger->controlled = ledger->by_cell && p->decide_layer;
    }
}

const char *kv_spec_plugin(const struct kv_replay_spec *spec) {
    while (!spec->plugin && spec->inner) spec = spec->inner;
    return spec->plugin ? spec->plugin->path : NULL;
}

int kv_spec_ask(const struct kv_replay_spec *spec, const struct kv_item *item, uint8_t *cells,
                struct kv_error *e) {
    const char *before = kv_plugin_enter(kv_spec_plugin(spec));
    int rc = kv_ask(spec->policy, spec->self, item, cells, e);
    kv_plugin_leave(before);
    return rc;
}

// What the policy itself calls its setting; NULL where it leaves that to its parameters.
static char *own_text(const struct kv_replay_spec *spec) {
    char own[512] = "";
    if (spec->policy->canonical && !spec->plugin)
        spec->policy->canonical(spec->self, &spec->run, own, sizeof own);
    return *own ? kv_strdup(own) : NULL;
}

int kv_spec_rename(struct kv_replay_spec *spec, struct kv_error *e) {
    KV_GUARD(e);
    char *own = own_text(spec);
    if (!own) return 0;
    char *whole = kv_format_text("%s@%s", own, spec->format_text);
    free(spec->canonical);
    spec->canonical = whole;
    free(own);
    return 0;
}

static int open_policy(struct kv_replay_spec *spec, const char *text, struct kv_error *e) {
    struct kv_spec s;
    struct kv_args *args = NULL;
    int rc = kv_spec_parse(&s, text, e);
    if (rc) return rc;
    char *what = kv_format_text("policy %s", s.name);
    const char *before = kv_plugin_enter(NULL);
    rc = find(spec, &s, e);
    if (rc == 0) kv_plugin_enter(kv_spec_plugin(spec));
    if (rc == 0) rc = open_inner(spec, &s, e);
    if (rc == 0)
        rc = kv_args_new(&args, &s, spec->policy->params, spec->plugin ? plugin_params : NULL, what,
                         e);
    if (rc == 0) rc = spec->policy->open(&spec->self, &spec->run, args, e);
    if (rc == 0) {
        spec->policy_name = kv_strdup(s.name);
        describe_policy(spec);
        rc = check_delay(spec, s.name, e);
        if (rc == 0) rc = check_rounds(spec, s.name, e);
    }
    if (rc == 0) {
        struct kv_args spelled = *args;
        if (spec->inner) spelled.inner = spec->inner->canonical;
        spec->canonical = own_text(spec);
        if (!spec->canonical) spec->canonical = kv_args_canonical(&spelled, s.name);
    }
    kv_plugin_leave(before);
    kv_args_free(args);
    free(what);
    kv_spec_fini(&s);
    return rc;
}

int kv_replay_spec_open(struct kv_replay_spec *spec, const char *text,
                        const struct kv_format_setting *s, uint64_t seed, struct kv_error *e) {
    *spec = (struct kv_replay_spec){0};
    KV_GUARD(e);
    char *policy, *format;
    int rc = kv_spec_split(text, &policy, &format, e);
    if (rc) return rc;
    rc = kv_format_open(&spec->format, format ? format : "sym", s, e);
    if (rc == 0) {
        describe_run(&spec->run, spec->format, seed);
        spec->windows = s->windows;
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
    const char *before = kv_plugin_enter(kv_spec_plugin(spec));
    if (spec->policy && spec->policy->close) spec->policy->close(spec->self);
    kv_plugin_leave(before);
    if (spec->inner) kv_replay_spec_close(spec->inner);
    free(spec->inner);
    free(spec->inner_view);
    kv_plugin_close(spec->plugin);
    kv_format_close(spec->format);
    free(spec->canonical);
    free(spec->policy_name);
    free(spec->format_text);
    *spec = (struct kv_replay_spec){0};
}

int kv_spec_canonical(const char *text, const struct kv_format_setting *s, char **canonical,
                      struct kv_error *e) {
    *canonical = NULL;
    KV_GUARD(e);
    struct kv_replay_spec spec;
    int rc = kv_replay_spec_open(&spec, text, s, 0, e);
    if (rc) return rc;
    *canonical = kv_strdup(spec.canonical);
    kv_replay_spec_close(&spec);
    return 0;
}
