// SPDX-License-Identifier: Apache-2.0
// Plans: what a policy that knows layers, heads and sides alone gives each of them.
#include "sim/runtimes/runtimes.h"
#include "sim/base/guard.h"
#include "sim/replay/replay.h"
#include "sim/replay/spec.h"

#include <stdlib.h>

// Asks about one made-up token, as the answer is the same for all.
static int ask(const struct kv_replay_spec *spec, uint8_t *cells, struct kv_error *e) {
    struct kv_token token = {0};
    const struct kv_item item = {.struct_bytes = sizeof item,
                                 .run = &spec->run,
                                 .n_tokens = 1,
                                 .n_context = 1,
                                 .tokens = &token};
    return kv_spec_ask(spec, &item, cells, e);
}

static int refuse_eviction(struct kv_error *e) {
    return kv_fail(e, KV_EUSAGE, "export", "a policy that evicts tokens is no plan of widths");
}

static int fill(struct kv_cache_plan *p, const struct kv_replay_spec *spec, struct kv_error *e) {
    size_t n = kv_cells(&p->setting.shape);
    uint8_t *cells = kv_alloc(n, 1);
    int rc = ask(spec, cells, e);
    for (size_t c = 0; rc == 0 && c < n; c++) {
        if (cells[c] == KV_EVICT)
            rc = refuse_eviction(e);
        else if (cells[c] == KV_FLOAT32)
            p->bits[c] = 32, p->allocated_bits += 32.0 / (double)n;
        else
            p->bits[c] = spec->run.width_bits[cells[c]],
            p->allocated_bits += (double)spec->run.cell_bits[c & 1][cells[c]] / (double)n;
    }
    free(cells);
    return rc;
}

int kv_cache_plan_of_spec(struct kv_cache_plan *p, const char *text,
                          const struct kv_format_setting *s, struct kv_error *e) {
    struct kv_replay_spec spec;
    *p = (struct kv_cache_plan){.setting = *s};
    int rc = kv_replay_spec_open(&spec, text, s, 1, e);
    if (rc) return rc;
    if ((spec.varies & (KV_VARIES_TOKEN | KV_VARIES_POSITION)) || spec.needs || spec.policy->fit)
        rc = kv_fail(e, KV_EUSAGE, "export",
                     "%s decides by tokens or by what it measures, and no runtime takes that; "
                     "static and layerwise are plans, and kvsim tune finds them",
                     spec.policy_name);
    p->bits = kv_alloc(kv_cells(&s->shape), sizeof *p->bits);
    p->format = kv_strdup(spec.format_text);
    if (rc == 0) rc = fill(p, &spec, e);
    kv_replay_spec_close(&spec);
    if (rc) kv_cache_plan_fini(p);
    return rc;
}

// ---- policies that tell tokens apart ----------------------------------------------------

// Adds an item's answers to sums over tokens.
static int add_item(struct kv_cache_plan *p, const struct kv_replay *r, size_t item,
                    struct kv_error *e) {
    size_t n_tokens = kv_trace_item(r->trace, item)->n_tokens, n = kv_cells(&p->setting.shape);
    const struct kv_run *run = &r->specs[0].run;
    uint8_t *cells = kv_alloc(n_tokens * n, 1);
    int rc = kv_decide(r, 0, item, cells, e);
    if (rc == 0 && memchr(cells, KV_EVICT, n_tokens * n)) rc = refuse_eviction(e);
    for (size_t i = 0; rc == 0 && i < n_tokens * n; i++) {
        bool whole = cells[i] == KV_FLOAT32;
        p->bits[i % n] += whole ? 32 : run->width_bits[cells[i]];
        p->allocated_bits += whole ? 32 : (double)run->cell_bits[i & 1][cells[i]];
    }
    free(cells);
    return rc;
}

static int add_items(struct kv_cache_plan *p, struct kv_replay *r, unsigned jobs,
                     struct kv_error *e) {
    size_t n_tokens = 0, n = kv_cells(&p->setting.shape);
    int rc = kv_replay_open_tables(r, KV_TABLE_ISO, jobs, e);
    for (size_t i = r->first_item; rc == 0 && i < r->first_item + r->n_items; i++) {
        rc = add_item(p, r, i, e);
        n_tokens += kv_trace_item(r->trace, i)->n_tokens;
    }
    for (size_t c = 0; rc == 0 && c < n; c++) p->bits[c] /= (double)n_tokens;
    p->allocated_bits /= (double)(n_tokens * n);
    kv_replay_close_tables(r);
    return rc;
}

int kv_cache_plan_of_items(struct kv_cache_plan *p, const char *text, const struct kv_trace *t,
                           size_t first, size_t n, unsigned jobs, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(t);
    *p = (struct kv_cache_plan){.setting = kv_trace_setting(in)};
    KV_GUARD(e);
    struct kv_replay_spec spec;
    int rc = kv_replay_spec_open(&spec, text, &p->setting, 1, e);
    if (rc) return rc;
    struct kv_replay r = {.trace = t,
                          .specs = &spec,
                          .n_specs = 1,
                          .seed = 1,
                          .quiet = true,
                          .first_item = first,
                          .n_items = n};
    p->bits = kv_alloc(kv_cells(&in->shape), sizeof *p->bits);
    p->format = kv_strdup(spec.format_text);
    rc = add_items(p, &r, jobs, e);
    kv_replay_spec_close(&spec);
    p->setting.rope = NULL; // the trace's, which the plan outlives
    p->setting.windows = NULL;
    if (rc) kv_cache_plan_fini(p);
    return rc;
}

void kv_cache_plan_fini(struct kv_cache_plan *p) {
    free(p->bits);
    free(p->format);
    *p = (struct kv_cache_plan){0};
}
