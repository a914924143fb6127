// SPDX-License-Identifier: Apache-2.0
// RoPE's angles between a model, a manifest and those who turn recorded keys back.
#include "traces/angles.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/model/model.h"

struct kv_format_setting kv_trace_setting(const struct kv_trace_info *in) {
    return (struct kv_format_setting){.shape = in->shape, .order = in->order, .rope = in->rope};
}

size_t kv_trace_position(const struct kv_trace_item *it, size_t row) {
    uint32_t c = 0;
    if (row < it->n_context) return row;
    while (c + 1 < it->n_choices && row >= it->first[c + 1]) c++;
    return it->n_context + row - it->first[c];
}

double *kv_angles_of_model(const struct kv_model *m) {
    size_t half = m->shape.head_dim / 2;
    double *angles = kv_alloc(m->shape.n_layers * half + 1, sizeof *angles);
    for (size_t l = 0; l < m->shape.n_layers; l++)
        for (size_t i = 0; i < half; i++)
            angles[l * half + i] =
                kv_rope_frequency(&m->rope[m->layers[l].rope], m->shape.head_dim, (uint32_t)i);
    return angles;
}

static double *plain(const struct kv_trace_info *in) {
    size_t half = in->shape.head_dim / 2;
    double *angles = kv_alloc(in->shape.n_layers * half + 1, sizeof *angles);
    for (size_t i = 0; i < in->shape.n_layers * half; i++)
        angles[i] = pow((double)in->rope_base, -(double)(i % half) / (double)half);
    return angles;
}

// The model's tables and pow above may differ in the last place.
static bool is_plain(const struct kv_trace_info *in) {
    size_t n = in->shape.n_layers * (in->shape.head_dim / 2), i = 0;
    double *like = plain(in);
    while (i < n && fabs(in->rope[i] - like[i]) <= 1e-12 * like[i]) i++;
    free(like);
    return i == n;
}

json_t *kv_angles_json(const struct kv_trace_info *in) {
    if (!in->rope || is_plain(in)) return NULL;
    size_t half = in->shape.head_dim / 2;
    json_t *rows = json_array(), *layers = json_array();
    for (size_t l = 0; l < in->shape.n_layers; l++) {
        const double *mine = in->rope + l * half;
        size_t first = 0, row = 0; // of the layers with these angles; among the distinct ones
        while (memcmp(in->rope + first * half, mine, half * sizeof *mine) != 0) first++;
        if (first < l)
            row = (size_t)json_integer_value(json_array_get(layers, first));
        else {
            json_t *angles = json_array();
            row = json_array_size(rows);
            for (size_t i = 0; i < half; i++) json_array_append_new(angles, json_real(mine[i]));
            json_array_append_new(rows, angles);
        }
        json_array_append_new(layers, json_integer((json_int_t)row));
    }
    return json_pack("{s:o, s:o}", "angles", rows, "layers", layers);
}

static bool read_row(const json_t *row, size_t half, double *to) {
    if (json_array_size(row) != half) return false;
    for (size_t i = 0; i < half; i++) {
        const json_t *one = json_array_get(row, i);
        to[i] = json_number_value(one);
        if (!json_is_number(one) || !isfinite(to[i])) return false;
    }
    return true;
}

int kv_angles_read(const json_t *rope, struct kv_trace_info *in, const char *path,
                   struct kv_error *e) {
    size_t half = in->shape.head_dim / 2;
    const json_t *rows = json_object_get(rope, "angles"), *layers = json_object_get(rope, "layers");
    in->rope = plain(in);
    if (!rope) return 0;
    for (size_t l = 0; l < in->shape.n_layers; l++) {
        const json_t *which = json_array_get(layers, l);
        size_t row = (size_t)json_integer_value(which);
        if (!json_is_integer(which) || row >= json_array_size(rows) ||
            !read_row(json_array_get(rows, row), half, in->rope + l * half))
            return kv_fail(e, KV_EFAIL, path,
                           "'rope' names no row of %zu finite angles for layer %zu", half, l);
    }
    return 0;
}
