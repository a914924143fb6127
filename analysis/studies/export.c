// SPDX-License-Identifier: Apache-2.0
// Exporting a plan, pricing the loss, and reading one back.
#include "analysis/studies/export.h"

#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/replay/spec.h"
#include "sim/runtimes/scales.h"
#include "sim/store/label.h"

struct kv_export_options kv_export_defaults(void) {
    return (struct kv_export_options){
        .struct_bytes = sizeof(struct kv_export_options), .replay = true, .jobs = 1};
}

// ---- the shape ------------------------------------------------------------------------

static int named_shape(struct kv_shape *shape, const char *text, struct kv_error *e) {
    const struct kv_shape *named = kv_shape_named(text);
    unsigned layers, heads, head;
    char rest;
    if (named) {
        *shape = *named;
        return 0;
    }
    if (sscanf(text, "%ux%ux%u%c", &layers, &heads, &head, &rest) == 3 && layers >= 1 &&
        layers <= 1000 && heads >= 1 && heads <= 1000 && head >= 1 && head <= 1024) {
        *shape = (struct kv_shape){
            .n_layers = layers, .n_heads = heads, .n_kv_heads = heads, .head_dim = head};
        return 0;
    }
    return kv_fail(e, KV_EUSAGE, "shape",
                   "'%s' is no shape; 135m, 360m, 1.7b are, and LAYERSxKV_HEADSxHEAD such as "
                   "30x3x64",
                   text);
}

int kv_export_setting(struct kv_format_setting *s, const struct kv_export_options *o,
                      struct kv_error *e) {
    *s = (struct kv_format_setting){.order = KV_ORDER_GGML};
    KV_GUARD(e);
    if (o->shape) return named_shape(&s->shape, o->shape, e);
    if (o->trace) {
        struct kv_trace *t;
        int rc = kv_trace_open(&t, o->trace, e);
        if (rc) return rc;
        s->shape = kv_trace_info(t)->shape; // a plan's rooms need no angles
        s->order = kv_trace_info(t)->order;
        kv_trace_close(t);
        return 0;
    }
    if (o->model) {
        struct kv_model *m;
        int rc = kv_model_open(&m, o->model, KV_WEIGHTS_F32, e);
        if (rc) return rc;
        s->shape = m->shape;
        s->order = m->order;
        kv_model_close(m);
    }
    return 0;
}

// ---- both plans replayed ----------------------------------------------------------------

struct listener {
    struct kv_export *x;
    size_t first, n;
    double *kl, *scored; // [2][n]
};

static void take(void *self, size_t spec, size_t item, enum kv_fidelity fidelity, enum kv_mode mode,
                 const struct kv_outcome *o) {
    struct listener *l = self;
    (void)fidelity, (void)mode;
    if (item < l->first || item - l->first >= l->n || spec > 1) return;
    l->kl[spec * l->n + item - l->first] = o->kl_nats;
    l->scored[spec * l->n + item - l->first] = o->n_scored;
}

// Two spellings of one plan are one spec to a sweep: then both sides are that.
static void compare(struct kv_export *x, const struct listener *l, size_t n_specs) {
    const double *other = l->kl + (n_specs - 1) * l->n;
    double *worse = kv_alloc(l->n + 1, sizeof *worse);
    for (size_t i = 0; i < l->n; i++) worse[i] = other[i] - l->kl[i];
    x->asked.kl = kv_ratio_interval(l->kl, l->scored, l->n, 0.95);
    x->served.kl = kv_ratio_interval(other, l->scored, l->n, 0.95);
    x->worse = kv_ratio_interval(worse, l->scored, l->n, 0.95);
    x->n_items = x->worse.n;
    free(worse);
}

static int replay(struct kv_export *x, const struct kv_export_options *o, struct kv_error *e) {
    const char *specs[] = {x->asked.spec, x->served.spec};
    struct kv_sweep_options how = kv_sweep_defaults();
    struct kv_sweep *s = NULL;
    struct listener l = {.x = x};
    size_t n_specs = 0;
    how.trace = o->trace, how.model = o->model, how.items = o->items, how.jobs = o->jobs;
    how.specs = specs, how.n_specs = 2;
    how.take = take, how.listener = &l;
    int rc = kv_sweep_open(&s, &how, e);
    if (rc == 0) {
        struct kv_item_range items = kv_sweep_items(s);
        kv_sweep_specs(s, &n_specs);
        l.first = items.first, l.n = items.n;
        l.kl = kv_alloc(2 * l.n + 1, sizeof *l.kl);
        l.scored = kv_alloc(2 * l.n + 1, sizeof *l.scored);
        for (size_t i = 0; i < 2 * l.n; i++) l.kl[i] = NAN;
        rc = kv_sweep_run(s, e);
    }
    if (rc == 0) compare(x, &l, n_specs);
    free(l.kl);
    free(l.scored);
    kv_sweep_close(s);
    return rc;
}

// ---- words ------------------------------------------------------------------------------

static void add_bits(struct kv_text *t, const struct kv_export *x) {
    const struct kv_export_side *a = &x->asked, *b = &x->served;
    kv_text_addf(t, "%.3g -> %.3g bits a value (%.0f -> %.0f bytes a token)", a->allocated_bits,
                 b->allocated_bits, a->bytes_per_token, b->bytes_per_token);
    if (x->n_items)
        kv_text_addf(t, ", KL %.4f -> %.4f nats a scored token on %zu items (%+.4f [%+.4f, %+.4f])",
                     a->kl.mean, b->kl.mean, x->n_items, x->worse.mean, x->worse.interval.low,
                     x->worse.interval.high);
}

static char *words_of(const struct kv_export *x, const char *label) {
    const struct kv_served *s = &x->plan;
    struct kv_text t = {0};
    kv_text_addf(&t, "%s serves it ", s->runtime->name);
    if (!s->changed) {
        kv_text_addf(&t, "as it is: ");
    } else {
        kv_text_addf(&t, "as %s (it takes %s): ", label, s->runtime->about);
        if (s->n_changed)
            kv_text_addf(&t, "%zu of %u layers hold other widths%s, ", s->n_changed, x->n_layers,
                         s->narrowed ? ", some narrower" : ", none narrower");
        else
            kv_text_addf(&t, "the widths stay, the format does not, ");
    }
    add_bits(&t, x);
    if (s->offer && s->offer->differs) kv_text_addf(&t, "; there %s", s->offer->differs);
    const char *remark = s->runtime->remark ? s->runtime->remark(s) : NULL;
    if (remark) kv_text_addf(&t, "; %s", remark);
    return kv_text_take(&t);
}

static void put_words(struct kv_export *x, const struct kv_format_setting *setting,
                      const char *scales) {
    const char *spec = x->served.spec;
    char *label;
    kv_spec_labels(&spec, &setting, 1, &label);
    char *words = words_of(x, label);
    x->sentence = scales ? kv_format_text("%s; %s", words, scales) : kv_strdup(words);
    free(words);
    free(label);
}

// ---- export -----------------------------------------------------------------------------

static void measure(struct kv_export_side *side, const struct kv_cache_plan *p) {
    side->allocated_bits = p->allocated_bits;
    side->bytes_per_token =
        p->allocated_bits * (double)kv_cells(&p->setting.shape) * p->setting.shape.head_dim / 8;
}

// The trace, and the items that the options name.
static int open_items(struct kv_trace **t, struct kv_item_range *items,
                      const struct kv_export_options *o, struct kv_error *e) {
    int rc = kv_trace_open(t, o->trace, e);
    if (rc) return rc;
    *items = o->items;
    if (!items->n) *items = (struct kv_item_range){0, kv_trace_info(*t)->n_items};
    rc = kv_item_range_check(items, kv_trace_info(*t)->n_items, "items", e);
    if (rc) kv_trace_close(*t);
    return rc;
}

static int plan_of(struct kv_cache_plan *p, const struct kv_export_options *o,
                   const struct kv_format_setting *setting, struct kv_error *e) {
    struct kv_error first;
    struct kv_item_range items;
    struct kv_trace *t;
    int rc = kv_cache_plan_of_spec(p, o->spec, setting, &first);
    if (rc == 0) return 0;
    *e = first;
    if (!o->trace || strcmp(first.where, "export") != 0) return rc;
    // It tells tokens apart: their mean is what can be exported.
    rc = open_items(&t, &items, o, e);
    if (rc) return rc;
    rc = kv_cache_plan_of_items(p, o->spec, t, items.first, items.n, o->jobs, e);
    kv_trace_close(t);
    return rc;
}

// *words: what was written, for the sentence. Caller frees.
static int write_scales(const struct kv_served *s, const struct kv_export_options *o, char **words,
                        struct kv_error *e) {
    struct kv_cache_scales scales = {0};
    struct kv_item_range items;
    struct kv_trace *t;
    if (!o->trace)
        return kv_fail(e, KV_EUSAGE, "scales", "they are measured on a recording: --trace DIR");
    int rc = open_items(&t, &items, o, e);
    if (rc) return rc;
    rc = kv_cache_scales_of(&scales, s, t, items.first, items.n, e);
    if (rc == 0) rc = kv_cache_scales_write(&scales, o->scales, e);
    if (rc == 0) {
        char *ranges = kv_cache_scales_words(&scales);
        *words =
            kv_format_text("scales of %zu items (%s) are in %s, and the replay has scales of 1",
                           items.n, ranges, o->scales);
        free(ranges);
    }
    kv_cache_scales_fini(&scales);
    kv_trace_close(t);
    return rc;
}

static int refuse_change(const struct kv_export *x, struct kv_error *e) {
    return kv_fail(e, KV_EFAIL, x->plan.runtime->name,
                   "does not serve it as it is: it takes %s, so %zu of %u layers would hold other "
                   "widths; the nearest is %s",
                   x->plan.runtime->about, x->plan.n_changed, x->n_layers, x->served.spec);
}

static int write_plan(struct kv_export *x, const struct kv_export_options *o,
                      const struct kv_cache_plan *asked, struct kv_error *e) {
    struct kv_text t = {0};
    struct kv_cache_plan served;
    x->n_layers = asked->setting.shape.n_layers;
    measure(&x->asked, asked);
    int rc = kv_spec_canonical(o->spec, &asked->setting, &x->asked.spec, e);
    if (rc == 0) rc = kv_served_spec(&x->plan, &asked->setting, &x->served.spec, e);
    if (rc == 0) rc = kv_cache_plan_of_spec(&served, x->served.spec, &asked->setting, e);
    if (rc) return rc;
    measure(&x->served, &served);
    kv_cache_plan_fini(&served);
    if (o->strict && x->plan.changed) return refuse_change(x, e);
    rc = x->plan.runtime->write(&x->plan, &t, e);
    x->text = kv_text_take(&t);
    return rc;
}

static int run(struct kv_export *x, const struct kv_export_options *o, struct kv_error *e) {
    KV_GUARD(e);
    const struct kv_runtime *runtime;
    struct kv_format_setting setting;
    struct kv_cache_plan plan;
    int rc = kv_runtime_find(&runtime, o->runtime, e);
    if (rc == 0) rc = kv_export_setting(&setting, o, e);
    if (rc == 0 && !setting.shape.n_layers)
        rc = kv_fail(e, KV_EUSAGE, "shape",
                     "how many layers and heads the model has must be said: --shape, --trace or "
                     "--model");
    if (rc == 0) rc = plan_of(&plan, o, &setting, e);
    if (rc) return rc;
    rc = kv_snap(&x->plan, runtime, &plan, e);
    if (rc == 0) rc = write_plan(x, o, &plan, e);
    kv_cache_plan_fini(&plan);
    char *scales = NULL;
    if (rc == 0 && o->scales) rc = write_scales(&x->plan, o, &scales, e);
    if (rc == 0 && o->trace && o->replay) rc = replay(x, o, e);
    if (rc == 0) put_words(x, &setting, scales);
    free(scales);
    return rc;
}

int kv_export_run(struct kv_export *x, const struct kv_export_options *o, struct kv_error *e) {
    const struct kv_mean none = {.mean = NAN, .interval = {NAN, NAN}};
    *x = (struct kv_export){.asked.kl = none, .served.kl = none, .worse = none};
    int rc = run(x, o, e);
    if (rc) kv_export_fini(x);
    return rc;
}

void kv_export_fini(struct kv_export *x) {
    free(x->text);
    free(x->sentence);
    free(x->asked.spec);
    free(x->served.spec);
    kv_served_fini(&x->plan);
    *x = (struct kv_export){0};
}

// ---- import -----------------------------------------------------------------------------

int kv_import_run(const char *path, const struct kv_export_options *o, char **spec,
                  struct kv_served *plan, struct kv_error *e) {
    *spec = NULL;
    *plan = (struct kv_served){0};
    KV_GUARD(e);
    const struct kv_runtime *runtime = NULL;
    struct kv_format_setting setting;
    char *text = NULL;
    size_t n;
    int rc = o->runtime ? kv_runtime_find(&runtime, o->runtime, e) : 0;
    if (rc == 0) rc = kv_export_setting(&setting, o, e);
    if (rc == 0) rc = kv_read_lines(path, &text, &n, e);
    if (rc == 0) rc = kv_runtime_read(plan, runtime, text, path, &setting.shape, e);
    if (rc == 0) rc = kv_served_spec(plan, setting.shape.n_layers ? &setting : NULL, spec, e);
    free(text);
    if (rc) kv_served_fini(plan);
    return rc;
}
