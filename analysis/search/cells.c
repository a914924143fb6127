// SPDX-License-Identifier: Apache-2.0
// Fits the model of cells.h: draws, Adam, and asking it afterwards.
#include "analysis/search/cells.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "analysis/search/cells_net.h"
#include "sim/base/blas.h"
#include "sim/base/finite.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"

enum { BLOCK = 256 }; // tokens that lie together and are drawn from together
// Streams of kv_draw.
enum { DRAW_MODEL = 8100, DRAW_BLOCKS = 100000, DRAW_TOKENS = 200000 };

static const double adam_first = 0.9, adam_second = 0.999, adam_epsilon = 1e-8;

void kv_cells_defaults(struct kv_cells_options *o) {
    *o = (struct kv_cells_options){.rate = 3e-3,
                                   .probe_rate = 2e-4,
                                   .clip = 1,
                                   .passes = 14,
                                   .batch = 2048,
                                   .window_bytes = (uint64_t)4 << 30,
                                   .jobs = 1};
}

// ---- a model ------------------------------------------------------------------------------

static void draw_uniform(float *w, size_t n, size_t inputs, uint64_t seed, uint64_t stream) {
    for (size_t i = 0; i < n; i++)
        w[i] = (float)((2 * kv_draw(seed, stream, i) - 1) / sqrt((double)inputs));
}

struct kv_cells_model *kv_cells_new(const struct kv_cells_shape *s, uint64_t seed) {
    struct kv_cells_model *m = kv_alloc(1, sizeof *m);
    size_t n = kv_cells_view(s, NULL).n;
    *m = kv_cells_view(s, kv_alloc(n, sizeof(float)));
    if (!s->net) return m;
    for (size_t i = 0; i < kv_cells_places(s) * KV_CELLS_EMBEDDING; i++) { // Box and Muller 1958
        double u = 1.0 - kv_draw(seed, DRAW_MODEL, 2 * i), v = kv_draw(seed, DRAW_MODEL, 2 * i + 1);
        m->embedding[i] = (float)(0.1 * sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
    }
    size_t inputs = kv_cells_features_of(s) + KV_CELLS_EMBEDDING, net = s->net;
    draw_uniform(m->weight[0], net * inputs, inputs, seed, DRAW_MODEL + 1);
    draw_uniform(m->offset[0], net, inputs, seed, DRAW_MODEL + 2);
    draw_uniform(m->weight[1], net * net, net, seed, DRAW_MODEL + 3);
    draw_uniform(m->offset[1], net, net, seed, DRAW_MODEL + 4);
    return m;
}

void kv_cells_free(struct kv_cells_model *m) {
    if (m) free(m->parameter);
    free(m);
}

// ---- which tokens are drawn ---------------------------------------------------------------

struct draws {
    const uint32_t *learns;
    size_t n_learns, n_blocks, blocks_a_window;
    uint32_t *order;           // [n_blocks] of this pass
    uint32_t *window;          // tokens to draw from
    size_t n_window, pass, at; // the window's pass and number in it
};

static size_t n_windows(const struct draws *w) {
    return (w->n_blocks + w->blocks_a_window - 1) / w->blocks_a_window;
}

static void shuffle_blocks(struct draws *w, uint64_t seed, size_t pass) {
    for (size_t i = 0; i < w->n_blocks; i++) w->order[i] = (uint32_t)i;
    for (size_t i = w->n_blocks; i-- > 1;) {
        size_t j = (size_t)(kv_draw(seed, DRAW_BLOCKS + pass, i) * (double)(i + 1));
        uint32_t swap = w->order[i];
        w->order[i] = w->order[j];
        w->order[j] = swap;
    }
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void open_window(struct draws *w, size_t pass, size_t at) {
    size_t first = at * w->blocks_a_window;
    w->pass = pass;
    w->at = at;
    w->n_window = 0;
    for (size_t b = first; b < w->n_blocks && b < first + w->blocks_a_window; b++) {
        size_t from = (size_t)w->order[b] * BLOCK;
        for (size_t i = from; i < from + BLOCK && i < w->n_learns; i++)
            w->window[w->n_window++] = w->learns[i];
    }
    qsort(w->window, w->n_window, sizeof *w->window, ascending);
}

// Asks for the window's inputs in the order in which they lie; runs of neighbours at once.
static void read_ahead(const struct draws *w, const struct kv_cells_data *d, size_t row_bytes) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0, to; i < w->n_window; i = to) {
        const uint8_t *first = (const uint8_t *)d->hidden[w->window[i]], *end = first + row_bytes;
        for (to = i + 1; to < w->n_window && (const uint8_t *)d->hidden[w->window[to]] == end; to++)
            end += row_bytes;
        const uint8_t *start = first - (uintptr_t)first % page;
        // Only advice: where it is not taken, pages come as they are touched.
        (void)posix_madvise((void *)(uintptr_t)start, (size_t)(end - start), POSIX_MADV_WILLNEED);
    }
}

// ---- training -----------------------------------------------------------------------------

struct fit {
    struct kv_cells_model *m;
    const struct kv_cells_data *d;
    const struct kv_cells_options *o;
    struct draws draws;
    uint32_t *batch; // [o->batch]
    struct kv_cells_rows rows;
    size_t n_chunks;
    float *gradients; // [n_chunks][n]
    double *loss;     // [n_chunks]
    float *first, *second;
    double first_power, second_power; // of Adam's bias correction
    struct kv_cells_room **room;      // [jobs]
};

static int chunk_job(void *self, unsigned worker, size_t i, struct kv_error *e) {
    struct fit *t = self;
    (void)e;
    size_t from = i * KV_CELLS_CHUNK, n = t->rows.n - from;
    if (n > KV_CELLS_CHUNK) n = KV_CELLS_CHUNK;
    float *gradient = t->gradients + i * t->m->n;
    float scale = (float)(1.0 / ((double)t->rows.n * (double)kv_cells_places(&t->m->shape)));
    memset(gradient, 0, t->m->n * sizeof *gradient);
    if (!t->room[worker]) t->room[worker] = kv_cells_room_new(&t->m->shape);
    t->loss[i] =
        kv_cells_chunk(t->m, t->d, &t->rows, from, n, t->room[worker], NULL, scale, gradient);
    return 0;
}

static void adam(struct fit *t, float *gradient, double share) {
    double squares = 0;
    for (size_t i = 0; i < t->m->n; i++) squares += (double)gradient[i] * (double)gradient[i];
    double norm = sqrt(squares);
    float scale = (float)(norm > t->o->clip ? t->o->clip / norm : 1);
    t->first_power *= adam_first;
    t->second_power *= adam_second;
    const float b1 = (float)adam_first, b2 = (float)adam_second, tiny = (float)adam_epsilon;
    const float c2 = (float)(1 / (1 - t->second_power));
    for (size_t i = 0; i < t->m->n; i++) {
        double rate = (i < t->m->probe_at ? t->o->rate : t->o->probe_rate) * share;
        float step = (float)(rate / (1 - t->first_power)), g = scale * gradient[i];
        t->first[i] = b1 * t->first[i] + (1 - b1) * g;
        t->second[i] = b2 * t->second[i] + (1 - b2) * g * g;
        t->m->parameter[i] -= step * t->first[i] / (sqrtf(c2 * t->second[i]) + tiny);
    }
}

static int take_step(struct fit *t, size_t step, size_t n_steps, struct kv_error *e) {
    for (size_t i = 0; i < t->rows.n; i++)
        t->batch[i] = t->draws.window[(size_t)(kv_draw(t->o->seed, DRAW_TOKENS + step, i) *
                                               (double)t->draws.n_window)];
    int rc = kv_parallel(t->n_chunks, t->o->jobs, chunk_job, t, e);
    if (rc) return rc;
    double loss = t->loss[0];
    for (size_t c = 1; c < t->n_chunks; c++) {
        const float *more = t->gradients + c * t->m->n;
        for (size_t i = 0; i < t->m->n; i++) t->gradients[i] += more[i];
        loss += t->loss[c];
    }
    if (!isfinite(loss) || !kv_all_finite(t->gradients, t->m->n))
        return kv_fail(e, KV_EFAIL, "train", "the loss is no number after %zu of %zu steps", step,
                       n_steps);
    adam(t, t->gradients, 0.5 * (1 + cos(3.141592653589793 * (double)step / (double)n_steps)));
    return 0;
}

static int run_steps(struct fit *t, struct kv_error *e) {
    const struct kv_cells_options *o = t->o;
    struct draws *w = &t->draws;
    size_t row_bytes = (size_t)t->m->shape.n_layers * t->m->shape.hidden * sizeof(uint16_t);
    size_t n_steps = (size_t)((double)o->passes * (double)w->n_learns / o->batch + 0.5);
    if (n_steps < o->passes) n_steps = o->passes;
    struct kv_progress *progress = kv_progress_start("training", n_steps, "steps");
    int rc = 0;
    w->pass = SIZE_MAX;
    for (size_t step = 0; step < n_steps && rc == 0; step++) {
        // The first step of a pass is the least whose pass it is.
        size_t pass = step * o->passes / n_steps;
        size_t first = (pass * n_steps + o->passes - 1) / o->passes;
        size_t end = ((pass + 1) * n_steps + o->passes - 1) / o->passes;
        size_t at = (step - first) * n_windows(w) / (end - first);
        if (w->pass != pass) shuffle_blocks(w, o->seed, pass);
        if (w->pass != pass || w->at != at) {
            open_window(w, pass, at);
            if (n_windows(w) > 1) read_ahead(w, t->d, row_bytes);
        }
        rc = take_step(t, step, n_steps, e);
        kv_progress_step(progress, 1);
        if (rc == 0 && kv_interrupted()) rc = kv_fail(e, KV_EINTR, "train", "interrupted");
    }
    kv_progress_end(progress);
    return rc;
}

static int check(const struct kv_cells_model *m, size_t n_learns, const struct kv_cells_options *o,
                 struct kv_error *e) {
    const char *why = n_learns == 0                         ? "tokens to learn from"
                      : !(o->rate > 0 && o->rate <= 1)      ? "a rate above 0, up to 1"
                      : !(o->probe_rate >= 0)               ? "a rate of the probe of at least 0"
                      : !(o->clip > 0)                      ? "a bound on the gradient above 0"
                      : o->passes == 0 || o->batch == 0     ? "passes and a batch above 0"
                      : m->shape.net > KV_CELLS_MOST_HIDDEN ? "a net of at most 512 units"
                                                            : NULL;
    return why ? kv_fail(e, KV_EUSAGE, "train", "training needs %s", why) : 0;
}

int kv_cells_fit(struct kv_cells_model *m, const struct kv_cells_data *d, const uint32_t *learns,
                 size_t n_learns, const struct kv_cells_options *o, struct kv_error *e) {
    int rc = check(m, n_learns, o, e);
    if (rc == 0) rc = kv_blas_open(e);
    if (rc) return rc;
    unsigned jobs = o->jobs ? o->jobs : 1;
    uint64_t block_bytes = (uint64_t)BLOCK * m->shape.n_layers * m->shape.hidden * 2;
    struct fit t = {.m = m, .d = d, .o = o, .first_power = 1, .second_power = 1};
    t.draws = (struct draws){
        .learns = learns, .n_learns = n_learns, .n_blocks = (n_learns + BLOCK - 1) / BLOCK};
    t.draws.blocks_a_window = t.draws.n_blocks;
    if (block_bytes && o->window_bytes / block_bytes < t.draws.n_blocks)
        t.draws.blocks_a_window = (size_t)(o->window_bytes / block_bytes) + 1;
    t.draws.order = kv_alloc(t.draws.n_blocks, sizeof *t.draws.order);
    t.draws.window = kv_alloc(n_learns, sizeof *t.draws.window);
    t.batch = kv_alloc(o->batch, sizeof *t.batch);
    t.rows = (struct kv_cells_rows){.n = o->batch, .token = t.batch};
    t.n_chunks = (o->batch + KV_CELLS_CHUNK - 1) / KV_CELLS_CHUNK;
    t.gradients = kv_alloc(t.n_chunks * m->n, sizeof *t.gradients);
    t.loss = kv_alloc(t.n_chunks, sizeof *t.loss);
    t.first = kv_alloc(m->n, sizeof *t.first);
    t.second = kv_alloc(m->n, sizeof *t.second);
    t.room = kv_alloc(jobs, sizeof(struct kv_cells_room *));
    rc = run_steps(&t, e);
    for (unsigned w = 0; w < jobs; w++) kv_cells_room_free(t.room[w]);
    void *owned[] = {t.draws.order, t.draws.window, t.batch,  t.gradients,
                     t.loss,        t.first,        t.second, t.room};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    return rc;
}

// ---- asking it ----------------------------------------------------------------------------

struct asked {
    const struct kv_cells_model *m;
    const struct kv_cells_data *d;
    const struct kv_cells_rows *rows;
    float *f;
    struct kv_cells_room **room;
};

static int ask_job(void *self, unsigned worker, size_t i, struct kv_error *e) {
    const struct asked *a = self;
    (void)e;
    size_t from = i * KV_CELLS_CHUNK, n = a->rows->n - from;
    if (n > KV_CELLS_CHUNK) n = KV_CELLS_CHUNK;
    if (!a->room[worker]) a->room[worker] = kv_cells_room_new(&a->m->shape);
    kv_cells_chunk(a->m, a->d, a->rows, from, n, a->room[worker],
                   a->f + from * kv_cells_places(&a->m->shape), 0, NULL);
    return 0;
}

int kv_cells_predict(const struct kv_cells_model *m, const struct kv_cells_data *d,
                     const struct kv_cells_rows *rows, unsigned jobs, float *f,
                     struct kv_error *e) {
    int rc = kv_blas_open(e);
    if (rc) return rc;
    if (jobs == 0) jobs = 1;
    struct asked a = {m, d, rows, f, kv_alloc(jobs, sizeof(struct kv_cells_room *))};
    rc = kv_parallel((rows->n + KV_CELLS_CHUNK - 1) / KV_CELLS_CHUNK, jobs, ask_job, &a, e);
    for (unsigned w = 0; w < jobs; w++) kv_cells_room_free(a.room[w]);
    free(a.room);
    return rc;
}

double kv_cells_deviance(const struct kv_cells_model *m, const struct kv_cells_data *d,
                         const struct kv_cells_rows *rows, const float *f) {
    size_t places = kv_cells_places(&m->shape);
    double sum = 0, n = 0;
    for (size_t i = 0; i < rows->n; i++) {
        const float *target = d->target + rows->token[i] * places;
        double weight = d->weight ? (double)d->weight[rows->token[i]] : 1;
        for (size_t p = 0; p < places; p++) {
            if (!(target[p] >= 0)) continue;
            double at = f ? (double)f[i * places + p] : 0, clip = (double)kv_cells_clip;
            at = at > clip ? clip : at < -clip ? -clip : at;
            sum += weight * ((double)target[p] * exp(-at) + at);
            n += weight;
        }
    }
    return n > 0 ? sum / n : NAN;
}

double kv_cells_gradient(const struct kv_cells_model *m, const struct kv_cells_data *d,
                         const struct kv_cells_rows *rows, float scale, float *gradient) {
    struct kv_cells_room *room = kv_cells_room_new(&m->shape);
    memset(gradient, 0, m->n * sizeof *gradient);
    double loss = kv_cells_chunk(m, d, rows, 0, rows->n, room, NULL, scale, gradient);
    kv_cells_room_free(room);
    return loss;
}
