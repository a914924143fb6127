// SPDX-License-Identifier: Apache-2.0
// Looks through the columns of an item for a number that is not finite.
#include "traces/numbers.h"

#include <stdlib.h>

#include "sim/base/finite.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "traces/layout.h"

// How the numbers of a column are searched, and read for the message.
static double read_f32(const void *x, size_t i) {
    return (double)((const float *)x)[i];
}
static double read_f64(const void *x, size_t i) {
    return ((const double *)x)[i];
}
static double read_f16(const void *x, size_t i) {
    return (double)kv_f16_to_f32(((const uint16_t *)x)[i]);
}
static double read_bf16(const void *x, size_t i) {
    return (double)kv_bf16_to_f32(((const uint16_t *)x)[i]);
}
static size_t find_f32(const void *x, size_t n) {
    return kv_find_not_finite(x, n);
}
static size_t find_f64(const void *x, size_t n) {
    return kv_find_not_finite_f64(x, n);
}
static size_t find_f16(const void *x, size_t n) {
    return kv_find_not_finite_f16(x, n);
}
static size_t find_bf16(const void *x, size_t n) {
    return kv_find_not_finite_bf16(x, n);
}

static const struct kind {
    const char *dtype;
    size_t (*find)(const void *x, size_t n);
    double (*read)(const void *x, size_t i);
} kinds[] = {{"F32", find_f32, read_f32},
             {"F64", find_f64, read_f64},
             {"F16", find_f16, read_f16},
             {"BF16", find_bf16, read_bf16}};

static const struct kind *kind_of(const struct kv_column_spec *c) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].dtype, c->dtype) == 0) return &kinds[i];
    return NULL;
}

// Whether a row predicts no token: the branch point, and the last of each choice or of a text.
static bool predicts_nothing(const struct kv_trace_item *it, size_t row) {
    bool none = row + 1 == it->n_tokens || (it->n_choices > 0 && row + 1 == it->n_context);
    for (uint32_t c = 0; c < it->n_choices; c++) none = none || row + 1 == it->first[c + 1];
    return none;
}

// "layer 3, token 7" of number i of a column, as far as it has them.
static char *place(const struct kv_trace_info *in, const struct kv_trace_item *it,
                   const struct kv_column_spec *c, size_t i) {
    struct kv_text t = {0};
    size_t row_size = kv_column_row_bytes(c, in) / kv_dtype_bytes(c->dtype), row = i / row_size;
    size_t below = row_size, rest = i % row_size;
    for (uint32_t k = 0; k < c->n_dims; k++) {
        uint64_t n = c->dim[k](in);
        below /= n;
        if (c->dim[k] == kv_layers_of) kv_text_addf(&t, "layer %zu, ", rest / below);
        rest %= below;
    }
    if (c->axis == KV_AXIS_WHOLE) kv_text_addf(&t, "channel %zu", i % in->shape.head_dim);
    if (c->axis == KV_AXIS_TOKEN) kv_text_addf(&t, "token %zu", row);
    if (c->axis == KV_AXIS_FINAL) kv_text_addf(&t, "token %u", it->final_rows[row]);
    if (c->axis == KV_AXIS_SCORE) kv_text_addf(&t, "choice %zu", row);
    return kv_text_take(&t);
}

static int refuse(const struct kv_trace_info *in, const struct kv_trace_item *it,
                  const struct kv_column_spec *c, size_t i, double x, const char *where,
                  struct kv_error *e) {
    char *at = place(in, it, c, i);
    int rc = kv_fail(e, KV_EFAIL, where,
                     "item %u (id %s): %s at %s is %g, where every number must be finite",
                     it->index, it->id, c->name, at, x);
    free(at);
    return rc;
}

int kv_item_check_numbers(const struct kv_trace_info *in, const struct kv_trace_item *it,
                          uint32_t keep, const char *where, struct kv_error *e) {
    for (const struct kv_column_spec *c = kv_trace_columns; c->name; c++) {
        const struct kind *k = kind_of(c);
        const void *x;
        memcpy(&x, (const char *)it + c->field, sizeof x);
        if (!k || !x || (c->keep && !(c->keep & keep))) continue;
        if (c->field == offsetof(struct kv_trace_item, sens_spread) && in->adjoint.draws < 2)
            continue;
        bool next = c->field == offsetof(struct kv_trace_item, next_logprob);
        size_t size = kv_dtype_bytes(c->dtype),
               n = kv_axis_rows(it, c->axis) * (kv_column_row_bytes(c, in) / size);
        for (size_t i = 0; i < n; i++) {
            i += k->find((const char *)x + i * size, n - i);
            if (i < n && !(next && predicts_nothing(it, i)))
                return refuse(in, it, c, i, k->read(x, i), where, e);
        }
    }
    return 0;
}
