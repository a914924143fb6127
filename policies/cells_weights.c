// SPDX-License-Identifier: Apache-2.0
// Reading the weights of policy cells, and computing with them.
#include "policies/cells_weights.h"
#include "policies/dot.h"

#include <stdlib.h>

const char *const kv_cells_groups[] = {"place", "paper", "token", "attention", "probe", NULL};

// ---- the file -------------------------------------------------------------------------

static int read_groups(struct kv_cells_weights *m, struct kv_error *e) {
    char inputs[96];
    kv_tensors_text(&m->file, "inputs", inputs, sizeof inputs);
    for (char *word = inputs; *word;) {
        size_t n = strcspn(word, "/"), g = 0;
        while (g < KV_CELLS_N_GROUPS &&
               !(strlen(kv_cells_groups[g]) == n && memcmp(word, kv_cells_groups[g], n) == 0))
            g++;
        if (g == KV_CELLS_N_GROUPS)
            return kv_fail(e, KV_EFAIL, m->file.path,
                           "reads inputs '%s', which this kvsim does not know", inputs);
        m->groups |= 1u << g;
        word += n + (word[n] == '/');
    }
    m->n_token =
        (m->groups >> KV_CELLS_PAPER & 1 ? 4 : 0) + (m->groups >> KV_CELLS_TOKEN & 1 ? 4 : 0);
    m->n_x = m->n_token + (m->groups >> KV_CELLS_ATTENTION & 1 ? KV_N_CELL_FEATURES : 0);
    return 0;
}

static int read_texts(struct kv_cells_weights *m, struct kv_error *e) {
    char format[24], overhead[24], *end;
    kv_tensors_text(&m->file, "format", format, sizeof format);
    if (strcmp(format, "kvsim-cells 1") != 0)
        return kv_fail(e, KV_EFAIL, m->file.path,
                       "is no file of weights for policy cells (kvsim train cells makes them)");
    kv_tensors_text(&m->file, "model_digest", m->model_digest, sizeof m->model_digest);
    kv_tensors_text(&m->file, "model_name", m->model_name, sizeof m->model_name);
    kv_tensors_text(&m->file, "grain", m->grain, sizeof m->grain);
    kv_tensors_text(&m->file, "widths", m->widths, sizeof m->widths);
    kv_tensors_text(&m->file, "cache_formats", m->formats, sizeof m->formats);
    kv_tensors_text(&m->file, "overhead_bits", overhead, sizeof overhead);
    m->overhead_bits = strtod(overhead, &end);
    if (end == overhead || !isfinite(m->overhead_bits) || m->overhead_bits < 0)
        return kv_fail(e, KV_EFAIL, m->file.path,
                       "does not say its format's bits beyond the codes (overhead_bits)");
    return read_groups(m, e);
}

// Some tensors of the file; stops at the first that does not fit.
struct wanted {
    const char *name;
    size_t shape[2], n_dims;
    const float **to;
};
static int take_all(struct kv_cells_weights *m, const struct wanted *w, size_t n,
                    struct kv_error *e) {
    for (size_t i = 0; i < n; i++) {
        size_t shape[2] = {w[i].shape[0], w[i].shape[1]};
        int rc = kv_tensors_take(&m->file, w[i].name, w[i].n_dims, shape, w[i].to, e);
        if (rc) return rc;
    }
    return 0;
}

static float *transposed(const float *x, size_t rows, size_t cols, size_t ld) {
    float *y = malloc((rows * cols + 1) * sizeof *y);
    for (size_t r = 0; y && r < rows; r++)
        for (size_t c = 0; c < cols; c++) y[c * rows + r] = x[r * ld + c];
    return y;
}

// The net: columns turned into rows, so that sums run along the hidden units; what an embedding
// adds to the first layer is the same for all tokens.
static int take_net(struct kv_cells_weights *m, size_t places, struct kv_error *e) {
    const float *first, *first_bias, *second, *embedding;
    size_t shape[2] = {0, m->n_x + KV_CELLS_EMBEDDING};
    int rc = kv_tensors_take(&m->file, "net.0.weight", 2, shape, &first, e);
    if (rc) return rc;
    size_t h = m->n_hidden = shape[0], in = shape[1];
    if (h > KV_CELLS_MOST_HIDDEN)
        return kv_fail(e, KV_EFAIL, m->file.path, "its net has %zu hidden units; up to %d are read",
                       h, KV_CELLS_MOST_HIDDEN);
    const struct wanted w[] = {{"net.0.bias", {h}, 1, &first_bias},
                               {"net.2.weight", {h, h}, 2, &second},
                               {"net.2.bias", {h}, 1, &m->second_bias},
                               {"net.4.weight", {1, h}, 2, &m->last},
                               {"net.4.bias", {1}, 1, &m->last_bias},
                               {"embedding", {places, KV_CELLS_EMBEDDING}, 2, &embedding}};
    rc = take_all(m, w, sizeof w / sizeof *w, e);
    if (rc) return rc;
    m->first = transposed(first, h, m->n_x, in);
    m->second = transposed(second, h, h, h);
    m->place = malloc(places * h * sizeof *m->place);
    if (!m->first || !m->second || !m->place)
        return kv_fail(e, KV_ENOMEM, m->file.path, "out of memory");
    for (size_t p = 0; p < places; p++)
        for (size_t j = 0; j < h; j++) {
            float sum = first_bias[j];
            for (size_t i = 0; i < KV_CELLS_EMBEDDING; i++)
                sum += first[j * in + m->n_x + i] * embedding[p * KV_CELLS_EMBEDDING + i];
            m->place[p * h + j] = sum;
        }
    return 0;
}

static int check_numbers(const struct kv_cells_weights *m, struct kv_error *e) {
    size_t heads = (size_t)m->shape.n_layers * m->shape.n_kv_heads;
    for (size_t i = 0; i < m->n_budgets; i++)
        if (m->lambda[i] <= 0 ||
            (i && (m->lambda[i] <= m->lambda[i - 1] || m->budget_bits[i] > m->budget_bits[i - 1])))
            return kv_fail(e, KV_EFAIL, m->file.path, "its budgets do not fall with lambda");
    for (size_t i = 0; m->attention_deviation && i < heads * KV_N_CELL_FEATURES; i++)
        if (m->attention_deviation[i] <= 0)
            return kv_fail(e, KV_EFAIL, m->file.path,
                           "tensor attention.deviation holds a number that is not above 0");
    for (size_t i = 0; i < m->n_token; i++)
        if (m->token_deviation[i] <= 0)
            return kv_fail(e, KV_EFAIL, m->file.path,
                           "tensor token.deviation holds a number that is not above 0");
    for (size_t i = 0; i < heads * 2 * m->shape.head_dim; i++)
        if (m->channel[i] < 0)
            return kv_fail(e, KV_EFAIL, m->file.path, "tensor channel holds a number below 0");
    return 0;
}

// Which of the file's budgets are of a format.
static size_t find_budgets(const struct kv_cells_weights *m, const char *format) {
    size_t i = 0, n = format ? strlen(format) : 0;
    for (const char *at = m->formats; *at && n; i++) {
        size_t word = strcspn(at, " ");
        if (word == n && memcmp(at, format, n) == 0) return i;
        at += word + (at[word] == ' ');
    }
    return 0;
}

static int take_budgets(struct kv_cells_weights *m, struct kv_error *e) {
    char lambda[48], bits[48], step_bits[48], prefix[32] = "budget";
    size_t n[1] = {0};
    if (m->budgets_of) snprintf(prefix, sizeof prefix, "budget.%zu", m->budgets_of);
    snprintf(lambda, sizeof lambda, "%s.lambda", prefix);
    snprintf(bits, sizeof bits, "%s.bits", prefix);
    snprintf(step_bits, sizeof step_bits, "%s.step_bits", prefix);
    int rc = kv_tensors_take(&m->file, lambda, 1, n, &m->lambda, e);
    m->n_budgets = n[0];
    const struct wanted more[] = {
        {bits, {n[0]}, 1, &m->budget_bits},
        {step_bits, {n[0], KV_CELLS_STEPS * m->shape.n_layers}, 2, &m->step_bits}};
    return rc ? rc : take_all(m, more, 2, e);
}

static int take_tensors(struct kv_cells_weights *m, struct kv_error *e) {
    const struct kv_shape *s = &m->shape;
    size_t heads = (size_t)s->n_layers * s->n_kv_heads, places = 2 * heads;
    const struct wanted always[] = {{"channel", {places, s->head_dim}, 2, &m->channel},
                                    {"bias", {places}, 1, &m->bias}};
    int rc = take_all(m, always, 2, e);
    if (rc == 0) rc = take_budgets(m, e);
    const struct wanted linear = {"linear", {places, m->n_x}, 2, &m->linear},
                        probe = {"probe", {places, s->hidden}, 2, &m->probe};
    const struct wanted attention[] = {
        {"attention.mean", {heads, KV_N_CELL_FEATURES}, 2, &m->attention_mean},
        {"attention.deviation", {heads, KV_N_CELL_FEATURES}, 2, &m->attention_deviation}};
    const struct wanted token[] = {{"token.mean", {m->n_token}, 1, &m->token_mean},
                                   {"token.deviation", {m->n_token}, 1, &m->token_deviation}};
    if (rc == 0 && m->n_x) rc = take_all(m, &linear, 1, e);
    if (rc == 0 && m->groups >> KV_CELLS_PROBE & 1) rc = take_all(m, &probe, 1, e);
    if (rc == 0 && m->groups >> KV_CELLS_ATTENTION & 1) rc = take_all(m, attention, 2, e);
    if (rc == 0 && m->n_token) rc = take_all(m, token, 2, e);
    if (rc == 0 && kv_tensors_has(&m->file, "net.0.weight")) rc = take_net(m, places, e);
    return rc ? rc : check_numbers(m, e);
}

int kv_cells_weights_open(struct kv_cells_weights *m, struct kv_tensors *file,
                          const struct kv_shape *s, const char *format, struct kv_error *e) {
    *m = (struct kv_cells_weights){.file = *file, .shape = *s};
    memset(file, 0, sizeof *file);
    int rc = read_texts(m, e);
    m->budgets_of = find_budgets(m, format);
    return rc ? rc : take_tensors(m, e);
}

void kv_cells_weights_close(struct kv_cells_weights *m) {
    free(m->first);
    free(m->second);
    free(m->place);
    kv_tensors_close(&m->file);
}

// ---- computing ------------------------------------------------------------------------

// e^x to about 2 units of the last place: 2^n by its bits, the rest by a polynomial that a compiler
// lays across lanes.
static float exp_fast(float x) {
    x = x < -87 ? -87 : x > 87 ? 87 : x;
    float t = x * 1.44269504f, n = t >= 0 ? (float)(int)(t + 0.5f) : (float)(int)(t - 0.5f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f, bits;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1;
    int32_t power = ((int32_t)n + 127) * (1 << 23);
    memcpy(&bits, &power, sizeof bits);
    return y * bits;
}

static void silu(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = x[i] / (1 + exp_fast(-x[i]));
}

static float net(const struct kv_cells_weights *m, size_t place, const float *x) {
    float a[KV_CELLS_MOST_HIDDEN], b[KV_CELLS_MOST_HIDDEN];
    size_t h = m->n_hidden;
    memcpy(a, m->place + place * h, h * sizeof *a);
    for (size_t i = 0; i < m->n_x; i++)
        for (size_t j = 0; j < h; j++) a[j] += m->first[i * h + j] * x[i];
    silu(a, h);
    memcpy(b, m->second_bias, h * sizeof *b);
    for (size_t i = 0; i < h; i++)
        for (size_t j = 0; j < h; j++) b[j] += m->second[i * h + j] * a[i];
    silu(b, h);
    return kv_dot(m->last, b, h) + m->last_bias[0];
}

// Token features of a row, standardised.
static void token_features(const struct kv_cells_weights *m, const struct kv_layer_rows *rows,
                           size_t row, float *x) {
    const struct kv_token *t = &rows->item->tokens[rows->first + row];
    float raw[8];
    size_t n = 0;
    if (m->groups >> KV_CELLS_PAPER & 1) {
        raw[n++] = t->feature[KV_ENTROPY_NATS];
        raw[n++] = t->feature[KV_CONFIDENCE];
        raw[n++] = t->feature[KV_RARITY_NATS];
        raw[n++] = logf(fmaxf(t->feature[KV_ATTN_VAR], 1e-12f));
    }
    if (m->groups >> KV_CELLS_TOKEN & 1) {
        raw[n++] = rows->item->surprisal_nats[rows->first + row];
        raw[n++] = log1pf((float)t->pos);
        raw[n++] = t->pos == 0;
        raw[n++] = t->pos < 4;
    }
    for (size_t i = 0; i < n; i++) x[i] = (raw[i] - m->token_mean[i]) / m->token_deviation[i];
}

void kv_cells_log_s(const struct kv_cells_weights *m, const struct kv_layer_rows *rows, size_t row,
                    float *out) {
    const struct kv_shape *s = &m->shape;
    const float *h = rows->input + row * s->hidden;
    float x[KV_CELLS_MOST_INPUTS];
    size_t n_own = m->groups >> KV_CELLS_ATTENTION & 1 ? KV_N_CELL_FEATURES : 0;
    if (m->n_token) token_features(m, rows, row, x + n_own);
    for (size_t head = 0; head < s->n_kv_heads; head++) {
        size_t at = (size_t)rows->layer * s->n_kv_heads + head;
        const float *own = rows->features + (row * s->n_kv_heads + head) * KV_N_CELL_FEATURES;
        for (size_t i = 0; i < n_own; i++)
            x[i] = (own[i] - m->attention_mean[at * KV_N_CELL_FEATURES + i]) /
                   m->attention_deviation[at * KV_N_CELL_FEATURES + i];
        for (size_t side = 0; side < 2; side++) {
            size_t p = 2 * at + side;
            float f = m->bias[p];
            if (m->n_x) f += kv_dot(m->linear + p * m->n_x, x, m->n_x);
            if (m->n_hidden) f += net(m, p, x);
            if (m->probe) f += kv_dot(m->probe + p * s->hidden, h, s->hidden);
            out[2 * head + side] = f < -30 ? -30 : f > 30 ? 30 : f;
        }
    }
}

// Mean over layers of what budget i took in a step.
static double step_mean(const struct kv_cells_weights *m, size_t i, size_t step) {
    size_t n = m->shape.n_layers;
    const float *bits = m->step_bits + (i * KV_CELLS_STEPS + step) * n;
    double sum = 0;
    for (size_t l = 0; l < n; l++) sum += (double)bits[l];
    return sum / (double)n;
}

double kv_cells_lambda(const struct kv_cells_weights *m, size_t step, double bits, double *layer) {
    size_t n = m->n_budgets, layers = m->shape.n_layers, i = 0;
    while (i + 2 < n && step_mean(m, i + 1, step) > bits) i++;
    size_t j = n > 1 ? i + 1 : i;
    double high = step_mean(m, i, step), low = step_mean(m, j, step);
    double t = high > low ? (high - bits) / (high - low) : 0; // 0 at i, 1 at j
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    for (size_t l = 0; l < layers; l++)
        layer[l] = (1 - t) * (double)m->step_bits[(i * KV_CELLS_STEPS + step) * layers + l] +
                   t * (double)m->step_bits[(j * KV_CELLS_STEPS + step) * layers + l];
    return exp((1 - t) * log((double)m->lambda[i]) + t * log((double)m->lambda[j]));
}
