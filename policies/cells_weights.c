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

static void read_widths(struct kv_cells_weights *m) {
    char *end;
    for (const char *at = m->widths; *at && m->n_listed < KV_MAX_WIDTHS; at = end + (*end == '/')) {
        double bits = strtod(at, &end);
        if (end == at) break;
        size_t n = m->n_listed, w = m->spread_width;
        if (n && fabs(bits - 4) < fabs(m->listed[w] - 4)) m->spread_width = n;
        m->listed[m->n_listed++] = bits;
    }
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
    read_widths(m);
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

// What serves other grains and widths; a file that was written before has none of it.
static int take_spread(struct kv_cells_weights *m, struct kv_error *e) {
    const struct kv_shape *s = &m->shape;
    size_t places = 2 * (size_t)s->n_layers * s->n_kv_heads, formats = 0;
    for (const char *at = m->formats; *at; at += *at == ' ') {
        formats++;
        at += strcspn(at, " ");
    }
    if (!kv_tensors_has(&m->file, "spread")) return 0;
    const struct wanted w[] = {
        {"spread",
         {KV_CELLS_SPREADS * KV_CELLS_STEPS, (size_t)s->n_layers * KV_CELLS_QUANTILES},
         2,
         &m->spread},
        {"spread.ratio", {formats * KV_CELLS_SPREADS, m->n_listed}, 2, &m->ratio},
        {"table", {KV_CELLS_CLASSES, places}, 2, &m->table}};
    int rc = take_all(m, w, 3, e);
    if (rc == 0) m->ratio += m->budgets_of * KV_CELLS_SPREADS * m->n_listed;
    return rc;
}

static int take_tensors(struct kv_cells_weights *m, struct kv_error *e) {
    const struct kv_shape *s = &m->shape;
    size_t heads = (size_t)s->n_layers * s->n_kv_heads, places = 2 * heads;
    const struct wanted always[] = {{"channel", {places, s->head_dim}, 2, &m->channel},
                                    {"bias", {places}, 1, &m->bias}};
    int rc = take_all(m, always, 2, e);
    if (rc == 0) rc = take_budgets(m, e);
    if (rc == 0) rc = take_spread(m, e);
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

// weights=shipped: the first file that fits the shape (fit compares the model); shipped/NAME: that
// one.
static int open_shipped(struct kv_cells_weights *m, const struct kv_run *run, const char *wanted,
                        char *source, size_t room, struct kv_error *e) {
    static const char folder[] = "policies/cells/";
    struct kv_shipped file;
    for (size_t i = 0; run->shipped && run->shipped(folder, i, &file); i++) {
        const char *name = file.path + strlen(folder);
        struct kv_tensors t;
        struct kv_error why;
        snprintf(source, room, "shipped/%.*s", (int)(strrchr(name, '.') - name), name);
        if (strchr(wanted, '/') && strcmp(wanted, source) != 0) continue;
        int rc = kv_tensors_read(&t, file.path, file.data, file.n, e);
        if (rc) return rc;
        if (kv_cells_weights_open(m, &t, &run->shape, run->format_text, &why) == 0) return 0;
        kv_cells_weights_close(m);
        *m = (struct kv_cells_weights){0};
    }
    return kv_fail(e, KV_EFAIL, "policy cells",
                   "no weights for a model of this shape travel with kvsim%s%s; train some (kvsim "
                   "train cells) "
                   "and name them: cells:weights=FILE",
                   strchr(wanted, '/') ? " as " : "", strchr(wanted, '/') ? wanted : "");
}

int kv_cells_weights_find(struct kv_cells_weights *m, const struct kv_run *run,
                          const struct kv_args *args, char *source, size_t room,
                          struct kv_error *e) {
    const char *path = kv_arg(args, "weights")->text;
    const struct kv_value *digest = kv_arg(args, "digest");
    int rc;
    if (strcmp(path, "shipped") == 0 || strncmp(path, "shipped/", 8) == 0)
        rc = open_shipped(m, run, path, source, room, e);
    else {
        struct kv_tensors t;
        if (strlen(path) >= room)
            return kv_fail(e, KV_EUSAGE, "policy cells", "weights: a path below %zu characters",
                           room);
        snprintf(source, room, "%s", path);
        rc = kv_tensors_open(&t, path, e);
        if (rc == 0) rc = kv_cells_weights_open(m, &t, &run->shape, run->format_text, e);
    }
    if (rc) return rc;
    if (digest->given && strcmp(digest->text, m->file.digest) != 0)
        return kv_fail(e, KV_EFAIL, m->file.path, "has digest %s, not %s as the spec says",
                       m->file.digest, digest->text);
    return 0;
}

int kv_cells_weights_fit(const struct kv_cells_weights *m, const struct kv_fitting *f,
                         struct kv_error *e) {
    if (f->struct_bytes < sizeof *f || !f->model_digest ||
        strcmp(f->model_digest, m->model_digest) == 0)
        return 0;
    return kv_fail(e, KV_EFAIL, m->file.path,
                   "holds weights for model %s (digest %s), not for %s (digest %s); train some: "
                   "kvsim train cells",
                   m->model_name, m->model_digest, f->model_name, f->model_digest);
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

void kv_cells_token_features(const struct kv_cells_weights *m, const struct kv_item *item,
                             size_t row, float *x) {
    const struct kv_token *t = &item->tokens[row];
    float raw[8];
    size_t n = 0;
    if (m->groups >> KV_CELLS_PAPER & 1) {
        raw[n++] = t->feature[KV_ENTROPY_NATS];
        raw[n++] = t->feature[KV_CONFIDENCE];
        raw[n++] = t->feature[KV_RARITY_NATS];
        raw[n++] = logf(fmaxf(t->feature[KV_ATTN_VAR], 1e-12f));
    }
    if (m->groups >> KV_CELLS_TOKEN & 1) {
        raw[n++] = item->surprisal_nats[row];
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
    bool passed = rows->window && rows->item->tokens[rows->first + row].pos >= rows->window;
    kv_cells_token_features(m, rows->item, rows->first + row, x + n_own);
    for (size_t head = 0; head < s->n_kv_heads; head++) {
        size_t at = (size_t)rows->layer * s->n_kv_heads + head;
        const float *own = rows->features + (row * s->n_kv_heads + head) * KV_N_CELL_FEATURES;
        for (size_t i = 0; i < n_own; i++)
            x[i] = (own[i] - m->attention_mean[at * KV_N_CELL_FEATURES + i]) /
                   m->attention_deviation[at * KV_N_CELL_FEATURES + i];
        if (n_own && passed) x[KV_CELL_FIRST] = 0;
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

// ---- other grains and widths than those of training ------------------------------------

double kv_cells_ratio(const struct kv_cells_weights *m, size_t spread, double width) {
    for (size_t w = 0; w < m->n_listed; w++)
        if (m->listed[w] == width) return (double)m->ratio[spread * m->n_listed + w];
    double from = exp2(m->listed[m->spread_width]) - 1, to = exp2(width) - 1;
    return 2 * log(from / to);
}

enum { FINE = 96, HALVINGS = 60 }; // losses that stand for a layer's tokens

// Losses of one layer's units, evenly over their quantiles.
static void unfold(const float *quantile, double *loss) {
    for (size_t i = 0, q = 0; i < FINE; i++) {
        double at = ((double)i + 0.5) / FINE;
        while (q + 2 < KV_CELLS_QUANTILES && at > kv_cells_quantile(q + 1)) q++;
        double from = kv_cells_quantile(q), to = kv_cells_quantile(q + 1);
        double t = fmin(fmax((at - from) / (to - from), 0), 1);
        loss[i] = exp((1 - t) * (double)quantile[q] + t * (double)quantile[q + 1]);
    }
}

// Bits a value of each layer at a lambda; returns their mean.
static double spread_bits(const struct kv_cells_offer *o, const double *ratio, const double *loss,
                          size_t n_layers, double lambda, double *layer) {
    double all = 0;
    for (size_t l = 0; l < n_layers; l++) {
        double bits = 0;
        for (size_t i = 0; i < FINE; i++) {
            size_t best = 0;
            double least = INFINITY;
            for (size_t w = 0; w < o->n_widths; w++) {
                double cost = loss[l * FINE + i] * ratio[w] + lambda * o->bits[w];
                if (cost < least) least = cost, best = w;
            }
            bits += o->bits[best];
        }
        layer[l] = bits / FINE / o->values;
        all += layer[l] / (double)n_layers;
    }
    return all;
}

double kv_cells_spread_lambda(const struct kv_cells_weights *m, const struct kv_cells_offer *o,
                              size_t step, double bits, double *layer) {
    size_t n = m->shape.n_layers;
    double ratio[KV_MAX_WIDTHS], low = -80, high = 80;
    double *loss = malloc(n * FINE * sizeof *loss);
    if (!loss) return NAN;
    for (size_t w = 0; w < o->n_widths; w++)
        ratio[w] = exp(kv_cells_ratio(m, o->spread, o->width[w]));
    for (size_t l = 0; l < n; l++)
        unfold(m->spread +
                   ((o->spread * KV_CELLS_STEPS + step) * n + l) * (size_t)KV_CELLS_QUANTILES,
               loss + l * FINE);
    for (int i = 0; i < HALVINGS; i++) { // bits never rise with lambda
        double middle = (low + high) / 2;
        if (spread_bits(o, ratio, loss, n, exp(middle), layer) > bits)
            low = middle;
        else
            high = middle;
    }
    spread_bits(o, ratio, loss, n, exp(high), layer);
    free(loss);
    return exp(high);
}
