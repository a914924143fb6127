// SPDX-License-Identifier: Apache-2.0
// Fitting policies to the recording's first items: what they ask about is measured here.
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/replay/attention.h"
#include "sim/replay/damage.h"
#include "sim/replay/plugin.h"

// Errors measured before: specs of one format often ask the same, as along a front of budgets.
struct measured {
    const char *format; // canonical; borrowed
    size_t n_items, n_pairs;
    uint8_t *pair; // [n_pairs][2]
    double *error; // [n_pairs][n_layers]
};

struct memory {
    struct measured *at;
    size_t n;
};

// The host's side of a fit; the view is what the policy sees.
struct fitting {
    struct kv_fitting view;
    const struct kv_replay *r;
    const struct kv_replay_spec *spec; // whose format is meant
    unsigned jobs;
    struct memory *memory;
};

static const struct fitting *host_of(const struct kv_fitting *f) {
    return (const struct fitting *)f;
}

static size_t at_most(const struct kv_fitting *f, size_t n) {
    return n < f->n_items ? n : f->n_items;
}

// ---- attention-output errors ----------------------------------------------------------

struct errors {
    size_t n_layers, n_pairs;
    double *of; // [items][n_pairs][n_layers], so that sums do not follow the order of work
};

static int take(void *self, size_t item, size_t pair, const struct kv_attention_error *x,
                struct kv_error *e) {
    const struct errors *s = self;
    (void)e;
    for (size_t l = 0; l < s->n_layers; l++)
        s->of[(item * s->n_pairs + pair) * s->n_layers + l] = x->layer[l].output;
    return 0;
}

static int measure(const struct fitting *f, size_t n, size_t n_pairs, const uint8_t (*pair)[2],
                   double *error, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(f->r->trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    struct kv_replay_spec *specs = kv_alloc(n_pairs, sizeof *specs);
    size_t n_layers = in->shape.n_layers, opened = 0, table = n_pairs * n_layers;
    int rc = kv_attention_answers(in, e);
    for (; opened < n_pairs && rc == 0; opened += rc == 0) {
        const uint8_t *bits = f->spec->run.width_bits;
        char *text = kv_format_text("static:k=%u,v=%u@%s", bits[pair[opened][0]],
                                    bits[pair[opened][1]], f->spec->format->canonical);
        rc = kv_replay_spec_open(&specs[opened], text, &setting, f->r->seed, e);
        free(text);
    }
    struct errors s = {n_layers, n_pairs, kv_alloc(n * table, sizeof(double))};
    struct kv_replay job = {.trace = f->r->trace,
                            .specs = specs,
                            .n_specs = n_pairs,
                            .self_exact = f->r->self_exact,
                            .n_items = n};
    if (rc == 0) rc = kv_replay_attention(&job, f->jobs, take, &s, e);
    memset(error, 0, table * sizeof *error);
    for (size_t i = 0; i < n && rc == 0; i++)
        for (size_t k = 0; k < table; k++) error[k] += s.of[i * table + k] / (double)n;
    for (size_t p = 0; p < opened; p++) kv_replay_spec_close(&specs[p]);
    free(s.of);
    free(specs);
    return rc;
}

static int output_error(const struct kv_fitting *view, size_t n, size_t n_pairs,
                        const uint8_t (*pair)[2], double *error, struct kv_error *e) {
    const struct fitting *f = host_of(view);
    struct memory *m = f->memory;
    size_t bytes = n_pairs * kv_trace_info(f->r->trace)->shape.n_layers * sizeof *error;
    n = at_most(view, n);
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->at[i].format, f->spec->format->canonical) == 0 && m->at[i].n_items == n &&
            m->at[i].n_pairs == n_pairs && memcmp(m->at[i].pair, pair, 2 * n_pairs) == 0) {
            memcpy(error, m->at[i].error, bytes);
            return 0;
        }
    int rc = measure(f, n, n_pairs, pair, error, e);
    if (rc) return rc;
    m->at = kv_grow(m->at, m->n + 1, sizeof *m->at);
    m->at[m->n] = (struct measured){f->spec->format->canonical, n, n_pairs, kv_alloc(n_pairs, 2),
                                    kv_alloc(bytes, 1)};
    memcpy(m->at[m->n].pair, pair, 2 * n_pairs);
    memcpy(m->at[m->n++].error, error, bytes);
    return 0;
}

// ---- expected damage ------------------------------------------------------------------

static int damage(const struct kv_fitting *view, size_t n, double *out, struct kv_error *e) {
    const struct fitting *f = host_of(view);
    const struct kv_trace_info *in = kv_trace_info(f->r->trace);
    size_t cells = kv_cells(&in->shape), per_layer = cells / in->shape.n_layers,
           n_widths = f->spec->run.n_widths, all = in->shape.n_layers * 2 * n_widths;
    struct kv_cell_table *table;
    double scored = 0;
    int rc = kv_cell_table_open(&table, f->r->trace, f->spec->format, KV_TABLE_ISO, f->jobs, e);
    if (rc) return rc;
    memset(out, 0, all * sizeof *out);
    for (size_t i = 0; i < at_most(view, n); i++) {
        const struct kv_trace_item *it = kv_trace_item(f->r->trace, i);
        const float *entry = kv_cell_table_item(table, i);
        scored += kv_fisher_scored(in, it);
        for (size_t row = 0; row < it->n_tokens; row++)
            for (size_t w = 0; w < n_widths; w++, entry += cells)
                for (size_t c = 0; c < cells; c++)
                    out[(c / per_layer * 2 + (c & 1)) * n_widths + w] += (double)entry[c];
    }
    for (size_t k = 0; k < all; k++) out[k] /= scored;
    kv_cell_table_close(table);
    return 0;
}

int kv_replay_fit(const struct kv_replay *r, unsigned jobs, struct kv_error *e) {
    KV_GUARD(e);
    struct memory memory = {0};
    int rc = 0;
    for (size_t j = 0; j < r->n_specs && rc == 0; j++)
        for (const struct kv_replay_spec *s = &r->specs[j]; s && rc == 0; s = s->inner) {
            struct fitting f = {.view = {.struct_bytes = sizeof f.view,
                                         .run = &s->run,
                                         .n_items = kv_trace_info(r->trace)->n_items,
                                         .output_error = output_error,
                                         .damage = damage,
                                         .model_name = kv_trace_info(r->trace)->model_name,
                                         .model_digest = kv_trace_info(r->trace)->model_digest,
                                         .trace_digest = kv_trace_info(r->trace)->digest,
                                         .trace_seal = kv_trace_info(r->trace)->seal},
                                .r = r,
                                .spec = &r->specs[j],
                                .jobs = jobs,
                                .memory = &memory};
            const char *before = kv_plugin_enter(kv_spec_plugin(s));
            if (s->policy->fit) rc = s->policy->fit(s->self, &f.view, e);
            kv_plugin_leave(before);
        }
    for (size_t i = 0; i < memory.n; i++) {
        free(memory.at[i].pair);
        free(memory.at[i].error);
    }
    free(memory.at);
    return rc;
}
