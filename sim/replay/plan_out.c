// SPDX-License-Identifier: Apache-2.0
// Decisions as widths in bits, item after item, with what the policy said of tags and of the
// future.
#include "sim/replay/plan_out.h"

#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/model/safetensors.h"

struct kv_plan_out {
    const struct kv_trace *trace;
    const struct kv_replay_spec *spec;
    size_t first, n, cells;
    size_t *row;     // [n + 1]
    uint8_t *widths; // [rows][cells] bits
    bool *taken;     // [n]
};

static int check(const struct kv_replay_spec *spec, struct kv_error *e) {
    const struct kv_replay_spec *by = kv_by_layers(spec);
    const char *why = !*spec->format_text        ? "has no format"
                      : spec->hops > 1           ? "codes the prompt more than once"
                      : by && by->policy->revise ? "may lower widths as tokens age"
                                                 : NULL;
    return why ? kv_fail(e, KV_EUSAGE, spec->canonical,
                         "%s: what it stores does not follow from one width a cell, as a plan has",
                         why)
               : 0;
}

int kv_plan_out_new(struct kv_plan_out **out, const struct kv_trace *t,
                    const struct kv_replay_spec *spec, size_t first, size_t n, struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    int rc = check(spec, e);
    if (rc) return rc;
    struct kv_plan_out *p = kv_alloc(1, sizeof *p);
    *p = (struct kv_plan_out){
        .trace = t, .spec = spec, .first = first, .n = n, .cells = kv_cells(&spec->run.shape)};
    p->row = kv_alloc(n + 1, sizeof *p->row);
    p->taken = kv_alloc(n, sizeof *p->taken);
    for (size_t i = 0; i < n; i++)
        p->row[i + 1] = p->row[i] + kv_trace_item(t, first + i)->n_tokens;
    p->widths = kv_alloc(p->row[n] * p->cells, 1);
    *out = p;
    return 0;
}

void kv_plan_out_free(struct kv_plan_out *p) {
    if (!p) return;
    free(p->row);
    free(p->widths);
    free(p->taken);
    free(p);
}

void kv_plan_out_take(struct kv_plan_out *p, size_t item, const uint8_t *cells) {
    size_t i = item - p->first, n = (p->row[i + 1] - p->row[i]) * p->cells;
    uint8_t *to = p->widths + p->row[i] * p->cells;
    for (size_t c = 0; c < n; c++)
        to[c] = cells[c] == KV_EVICT     ? 0
                : cells[c] == KV_FLOAT32 ? 32
                                         : p->spec->run.width_bits[cells[c]];
    p->taken[i] = true;
}

static void name_axes(uint32_t varies, char text[48]) {
    static const char *const names[] = {"token", "layer", "head", "kv", "position"};
    *text = 0;
    for (size_t a = 0; a < 5; a++)
        if (varies >> a & 1u) {
            if (*text) strcat(text, "/");
            strcat(text, names[a]);
        }
}

static void put(uint8_t *to, uint64_t x, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) to[i] = (uint8_t)(x >> 8 * i);
}

static void fill(const struct kv_plan_out *p, const struct kv_tensor t[3], uint8_t *file) {
    for (size_t i = 0; i < p->n; i++) {
        put(file + t[0].offset + 8 * i, kv_trace_item(p->trace, p->first + i)->key, 8);
        put(file + t[1].offset + 4 * i, p->row[i + 1] - p->row[i], 4);
    }
    memcpy(file + t[2].offset, p->widths, p->row[p->n] * p->cells);
}

int kv_plan_out_write(const struct kv_plan_out *p, const char *path, struct kv_error *e) {
    KV_GUARD(e);
    const struct kv_shape *s = &p->spec->run.shape;
    char varies[48], options[16];
    for (size_t i = 0; i < p->n; i++)
        if (!p->taken[i])
            return kv_fail(e, KV_EFAIL, path, "item %s was not decided",
                           kv_trace_item(p->trace, p->first + i)->id);
    name_axes(p->spec->varies, varies);
    snprintf(options, sizeof options, "%u", p->spec->options);
    const char *const meta[] = {"format",  "kvsim-plan-1",
                                "trace",   kv_trace_info(p->trace)->digest,
                                "spec",    p->spec->canonical,
                                "varies",  varies,
                                "options", options,
                                "causal",  p->spec->needs & KV_NEEDS_FUTURE ? "no" : "yes"};
    struct kv_tensor t[] = {{.name = "item.key", .dtype = "U64", .n_dims = 1, .dims = {p->n}},
                            {.name = "item.n_tokens", .dtype = "U32", .n_dims = 1, .dims = {p->n}},
                            {.name = "widths",
                             .dtype = "U8",
                             .n_dims = 4,
                             .dims = {p->row[p->n], s->n_layers, s->n_kv_heads, 2}}};
    char *header;
    size_t header_bytes;
    uint64_t total;
    int rc = kv_safetensors_layout(t, 3, meta, sizeof meta / sizeof *meta / 2, &header,
                                   &header_bytes, &total, e);
    if (rc) return rc;
    uint8_t *file = kv_alloc(total, 1);
    memcpy(file, header, header_bytes);
    fill(p, t, file);
    rc = kv_write_file(path, file, total, e);
    free(header);
    free(file);
    return rc;
}
