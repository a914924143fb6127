// SPDX-License-Identifier: Apache-2.0
// template: a policy to copy. Keeps the first `cut` positions at `wide` bits and the rest at
// `narrow`.
//
// Build it outside kvsim, then name it by its path wherever a spec is expected:
//
//     cc -std=c17 -O2 -fPIC -shared -I. -o work/mine.so policies/template.c
//     build/kvsim replay work/samples.trace work/mine.so:cut=8@sym
//
// One that decides in each layer, as it codes, is template_layers.c.
//
// Or make it one of kvsim's own: copy it to policies/mine.c, write mine for template, delete
// kv_policy_entry at its end, and add KV_POLICY(mine) to policies/policies.def (CONTRIBUTING.md).
#include "policies/policy.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_template;

// Help, checks and the policy's canonical text come from this table.
static const struct kv_param params[] = {
    {"cut", KV_INT, "4", 0, 1e6, NULL, "tokens", "positions below it are kept wide"},
    {"wide", KV_INT, "16", 1, 16, NULL, "bits", "width before the cut"},
    {"narrow", KV_INT, "4", 1, 16, NULL, "bits", "width from the cut on"},
    {0}};

// What open learns and decide reads. Workers call decide at once, so it is read-only from then on.
struct mine {
    uint32_t cut;
    uint8_t wide, narrow; // indices into run->width_bits
    size_t cells;         // of a token: layers x KV heads x 2
};

static int mine_open(void **self, const struct kv_run *run, const struct kv_args *args,
                     struct kv_error *e) {
    int wide = kv_width_index(run, kv_number(args, "wide"));
    int narrow = kv_width_index(run, kv_number(args, "narrow"));
    struct mine *m = calloc(1, sizeof *m);
    if (!m) return kv_fail(e, KV_ENOMEM, "template", "out of memory");
    *self = m; // freed by close, also when open fails below
    if (wide < 0) return kv_width_refused(run, kv_number(args, "wide"), e);
    if (narrow < 0) return kv_width_refused(run, kv_number(args, "narrow"), e);
    m->cut = (uint32_t)kv_number(args, "cut");
    m->wide = (uint8_t)wide;
    m->narrow = (uint8_t)narrow;
    m->cells = kv_cells(&run->shape);
    return 0;
}

// Decides about tokens [first, first + n) of one segment. cells points at token `first` and holds
// m->cells answers a token, [layer][KV head][K or V]. A feature read here must stand in `needs`.
static int mine_decide(void *self, const struct kv_item *item, size_t first, size_t n,
                       uint8_t *cells, struct kv_error *e) {
    const struct mine *m = self;
    (void)e;
    for (size_t t = first; t < first + n; t++, cells += m->cells)
        memset(cells, item->tokens[t].pos < m->cut ? m->wide : m->narrow, m->cells);
    return 0;
}

const struct kv_policy kv_policy_template = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "template",
    .summary = "keeps the first positions wide and the rest narrow",
    .citation = NULL,  // the paper, where there is one
    .tag = "baseline", // exact, faithful or approximate: how it relates to the paper
    .params = params,
    .varies = KV_VARIES_TOKEN, // its width may differ by token, not by layer, head, K and V
    .needs = 0,                // KV_NEED(KV_ENTROPY_NATS) | ...: what it reads beyond positions
    .open = mine_open,
    .decide = mine_decide,
    .close = free,
};

const struct kv_policy *kv_policy_entry(uint32_t host_abi) {
    return host_abi == KV_POLICY_ABI ? &kv_policy_template : NULL;
}
