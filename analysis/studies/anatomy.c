// SPDX-License-Identifier: Apache-2.0
// Opens the study: of a recording and the model it came from, or of the weights alone.
#include "analysis/studies/anatomy.h"

#include <stdlib.h>

#include "analysis/studies/anatomy_inside.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"

static const struct kv_shape *shape_of(const struct kv_anatomy_options *o) {
    return o->trace ? &kv_trace_info(o->trace)->shape : &o->model->shape;
}

static void make_places(struct kv_anatomy *a) {
    size_t n = a->n_layers * a->n_heads * 2, channels = n * a->head_dim;
    a->places = kv_alloc(n, sizeof *a->places);
    a->mean = kv_alloc(3 * channels, sizeof *a->mean);
    a->range = a->mean + channels;
    a->damage = a->range + channels;
    for (size_t i = 0; i < n; i++) {
        a->places[i] = (struct kv_anatomy_place){.layer = (uint32_t)(i / 2 / a->n_heads),
                                                 .head = (uint32_t)(i / 2 % a->n_heads),
                                                 .side = (enum kv_side)(i % 2),
                                                 .bias = NAN};
        if (a->options.trace) continue;
        struct kv_anatomy_place *p = &a->places[i];
        p->constant_pct = p->after_pct = p->range = p->kurtosis = p->pair_pct = NAN;
        p->first_ratio = p->sink_pct = p->error = p->buried = p->damage = p->damage_pct = NAN;
    }
}

// Biases of the projections; of the weights alone they stand for the mean, which they are of
// inputs without a mean of their own.
static void read_biases(struct kv_anatomy *a) {
    const struct kv_model *m = a->options.model;
    size_t d = a->head_dim, keys = (size_t)m->shape.n_heads * d, values = keys + a->n_heads * d;
    for (size_t i = 0; i < a->n_layers * a->n_heads * 2; i++) {
        struct kv_anatomy_place *p = &a->places[i];
        const float *bias = m->layers[p->layer].qkv_bias;
        double sum = 0;
        for (size_t c = 0; bias && c < d; c++) {
            double b = fabs((double)bias[(p->side ? values : keys) + p->head * d + c]);
            sum += b * b;
            if (a->options.trace) continue;
            a->mean[i * d + c] = b;
            if (b > p->mean) p->mean = b, p->mean_channel = (uint32_t)c;
        }
        p->bias = sqrt(sum);
    }
}

static int check(const struct kv_anatomy_options *o, struct kv_error *e) {
    if (!o->trace && !o->model)
        return kv_fail(e, KV_EUSAGE, "anatomy", "a trace or a model is needed");
    if (!o->trace) return 0;
    const struct kv_trace_info *in = kv_trace_info(o->trace);
    if (!(in->keep & KV_KEEP_KV) || !(in->keep & KV_KEEP_SENS))
        return kv_fail(e, KV_EFAIL, in->path,
                       "keeps no keys and values, or no sensitivities; record with --keep kv,sens");
    if (o->check && !o->model)
        return kv_fail(e, KV_EUSAGE, "check", "an exact run needs the model");
    int rc = kv_item_range_check(&o->items, in->n_items, "items", e);
    return rc || !o->model ? rc : kv_trace_check_model(in, o->model, e);
}

static int read_trace(struct kv_anatomy *a, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(a->options.trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    struct kv_item_range items = a->options.items;
    struct kv_format *f;
    size_t width = 0;
    if (items.n == 0) items = (struct kv_item_range){0, in->n_items};
    int rc = kv_format_open(&f, a->options.format, &setting, e);
    if (rc) return rc;
    while (width < f->n_widths && f->width_bits[width] != a->options.bits) width++;
    if (width == f->n_widths)
        rc = kv_fail(e, KV_EUSAGE, "bits", "format %s does not offer %u bits", a->options.format,
                     a->options.bits);
    if (rc == 0) rc = kv_anatomy_measure(a, &items, f, (uint8_t)width, e);
    kv_format_close(f);
    if (rc == 0 && !(a->all_damage > 0))
        rc = kv_fail(e, KV_EFAIL, in->path, "%s at %u bits does no damage to these items",
                     a->options.format, a->options.bits);
    return rc ? rc : kv_anatomy_try_remedies(a, &items, e);
}

int kv_anatomy_open(struct kv_anatomy *a, const struct kv_anatomy_options *o, struct kv_error *e) {
    *a = (struct kv_anatomy){.options = *o};
    KV_GUARD(e);
    int rc = check(o, e);
    if (rc) return rc;
    const struct kv_shape *s = shape_of(o);
    a->n_layers = s->n_layers;
    a->n_heads = s->n_kv_heads;
    a->head_dim = s->head_dim;
    make_places(a);
    if (o->model) read_biases(a);
    if (o->trace) rc = read_trace(a, e);
    if (rc == 0) {
        kv_anatomy_name_places(a);
        kv_anatomy_conclude(a);
    } else
        kv_anatomy_close(a);
    return rc;
}

void kv_anatomy_close(struct kv_anatomy *a) {
    for (size_t i = 0; i < a->n_remedies; i++) free(a->remedies[i].spec);
    free(a->remedies);
    free(a->places);
    free(a->mean);
    free(a->verdict);
    *a = (struct kv_anatomy){0};
}
