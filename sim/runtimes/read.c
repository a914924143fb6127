// SPDX-License-Identifier: Apache-2.0
// A plan while a reader fills it.
#include "sim/runtimes/own.h"

#include <errno.h>
#include <stdlib.h>

int kv_served_spread(struct kv_served *s, uint32_t n_heads, const char *path, struct kv_error *e) {
    if (!s->model_layers)
        return kv_fail(e, KV_EFAIL, path,
                       "it names layers and not how many the model has; say so with --shape, "
                       "--trace or --model");
    free(s->bits);
    s->n_layers = s->model_layers;
    s->n_heads = n_heads;
    s->bits = kv_alloc((size_t)s->n_layers * n_heads * 2, 1);
    memset(s->bits, 16, (size_t)s->n_layers * n_heads * 2);
    return 0;
}

void kv_served_all(struct kv_served *s, unsigned k, unsigned v) {
    free(s->bits);
    s->n_layers = s->n_heads = 1;
    s->bits = kv_alloc(2, 1);
    s->bits[KV_KEY] = (uint8_t)k;
    s->bits[KV_VALUE] = (uint8_t)v;
}

const struct kv_offer *kv_offer_named(const struct kv_runtime *r, const char *name) {
    for (size_t i = 0; i < r->n_offers; i++)
        if (strcmp(r->offers[i].name, name) == 0) return &r->offers[i];
    return NULL;
}

bool kv_served_uniform(const struct kv_served *s) {
    size_t n = (size_t)s->n_layers * s->n_heads * 2;
    for (size_t c = 2; c < n; c++)
        if (s->bits[c] != s->bits[c & 1]) return false;
    return true;
}

bool kv_whole_number(const char *text, long min, long max, long *x) {
    char *end;
    errno = 0;
    *x = strtol(text, &end, 10);
    return end > text && !*end && !errno && *x >= min && *x <= max;
}

int kv_served_group(struct kv_served *s, long group, const char *path, const char *name,
                    struct kv_error *e) {
    const uint32_t *may = s->offer->group;
    bool known = false;
    for (size_t i = 0; may[i]; i++) known = known || may[i] == (uint32_t)group;
    if (!known) return kv_fail(e, KV_EFAIL, path, "%s: %ld is no group that it takes", name, group);
    if (s->head_dim && s->head_dim % (uint32_t)group)
        return kv_fail(e, KV_EFAIL, path, "%s: groups of %ld do not divide heads of %u", name,
                       group, s->head_dim);
    s->group = s->head_dim == (uint32_t)group ? 0 : (uint32_t)group;
    return 0;
}
