// SPDX-License-Identifier: Apache-2.0
// The measuring itself: caches filled to each context, steps timed round by round, medians taken.
#include "sim/cost/timing.h"
#include "sim/base/cpu.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/cache/seeded.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

// A busy machine takes cores away: steps it disturbed are repeated, up to TRIES times as many.
enum { READS = 9, LEAST_UNDISTURBED = 5, TRIES = 4 };

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Quantile q of n sorted numbers, between neighbours.
static double quantile(const double *x, size_t n, double q) {
    double at = q * (double)(n - 1);
    size_t i = (size_t)at;
    return i + 1 < n ? x[i] + (at - (double)i) * (x[i + 1] - x[i]) : x[i];
}
static double median(double *x, size_t n) {
    qsort(x, n, sizeof *x, compare);
    return quantile(x, n, 0.5);
}

double kv_clock_mhz(void) {
    enum { REPEATS = 5, LINKS = 2000000 };
    double mhz[REPEATS];
    for (int t = 0; t < REPEATS; t++) {
        uint64_t x = 3, y = 5;
        __asm__ volatile("" : "+r"(y));
        double begin = kv_now_s();
        for (int i = 0; i < LINKS; i++) {
            x *= y;
            __asm__ volatile("" : "+r"(x));
        }
        mhz[t] = 3.0 * LINKS / (kv_now_s() - begin) / 1e6;
    }
    return median(mhz, REPEATS);
}

// ---- one grid -------------------------------------------------------------------------

struct cell {
    struct kv_step_time *time; // [rounds x steps x TRIES], n of them made
    size_t n;
    double cache_bytes;
};

struct grid {
    const struct kv_timing *m;
    struct kv_decoder *decoder;
    struct kv_cache **caches; // [n_mixes]
    struct cell *cells;       // [n_mixes][n_contexts]
    float *embedding;
    float *token;                     // the key and the value that every token holds, of a layer
    struct kv_seeded_weights weights; // of the controller
    struct kv_controller *controller; // NULL: no mix is by cell
};

// The part of a mix that holds token t: every prefix has the mix's shares, nearly, and no period.
static const uint8_t *widths_of(const struct kv_mix *mix, uint32_t t) {
    const double golden = 0.6180339887498949;
    double u = fmod(t * golden, 1);
    size_t i = 0;
    while (i + 1 < mix->n && u >= mix->part[i].share) u -= mix->part[i++].share;
    return mix->part[i].bits;
}

static void grow_cells(const struct grid *g, struct kv_cache *c, const struct kv_mix *mix,
                       uint32_t n) {
    const struct kv_shape *s = &g->m->decoder.shape;
    struct kv_width_shares w = {.n = mix->n};
    for (size_t i = 0; i < mix->n; i++) {
        w.bits[i] = mix->part[i].bits[KV_KEY];
        w.share[i] = mix->part[i].share;
    }
    kv_cache_draw_cells(c, s, &w, n, g->token, g->token + (size_t)s->n_kv_heads * s->head_dim);
}

// Grows a cache to n tokens. Those of a mix take turns: a policy's widths alternate, and tokens of
// a width that do not follow one another cost more than those that do.
static void grow(const struct grid *g, struct kv_cache *c, const struct kv_mix *mix, uint32_t n) {
    if (mix->by_cell)
        grow_cells(g, c, mix, n);
    else if (mix->n == 1 && n > kv_cache_tokens(c))
        kv_cache_repeat(c, mix->part[0].bits, n - kv_cache_tokens(c));
    else
        for (uint32_t t = kv_cache_tokens(c); t < n; t++) kv_cache_repeat(c, widths_of(mix, t), 1);
}

// The first token, whose codes the others repeat.
static void plant(const struct grid *g, struct kv_cache *c, const struct kv_mix *mix) {
    const struct kv_shape *s = &g->m->decoder.shape;
    size_t n = (size_t)s->n_kv_heads * s->head_dim;
    kv_cache_extend(c, mix->part[0].bits);
    for (uint32_t l = 0; l < s->n_layers; l++) kv_cache_put(c, l, g->token, g->token + n);
}

static void run_cell(struct grid *g, size_t mix, size_t context) {
    const struct kv_timing *m = g->m;
    struct cell *cell = &g->cells[mix * m->n_contexts + context];
    struct kv_cache *c = g->caches[mix];
    // The new token takes the widths of the mix's largest part, or those that the controller says.
    const struct kv_mix *x = &m->mixes[mix];
    size_t largest = 0;
    for (size_t i = 1; i < x->n; i++)
        if (x->part[i].share > x->part[largest].share) largest = i;
    const uint8_t *bits = x->by_cell ? NULL : x->part[largest].bits;
    grow(g, c, x, m->contexts[context] - 1);
    kv_decoder_control(g->decoder, x->by_cell ? g->controller : NULL);
    struct kv_step_time warm;
    kv_decoder_steps(g->decoder, c, bits, 1, g->embedding, &warm, false, NULL);
    for (size_t calm = 0, tries = 0; calm < m->steps && tries < (size_t)m->steps * TRIES;) {
        size_t n =
            m->steps - calm < m->steps * TRIES - tries ? m->steps - calm : m->steps * TRIES - tries;
        struct kv_step_time *made = cell->time + cell->n;
        kv_decoder_steps(g->decoder, c, bits, n, g->embedding, made, false, NULL);
        for (size_t i = 0; i < n; i++) calm += !made[i].disturbed;
        cell->n += n;
        tries += n;
    }
    cell->cache_bytes = (double)kv_cache_bytes_held(c);
}

// Rounds are the outer loop; within one, mixes take turns at each context.
static int run_rounds(struct grid *g, struct kv_progress *progress, struct kv_error *e) {
    const struct kv_timing *m = g->m;
    for (unsigned round = 0; round < m->rounds; round++) {
        for (size_t i = 0; i < m->n_mixes; i++) {
            kv_cache_truncate(g->caches[i], 0);
            if (!m->mixes[i].by_cell) plant(g, g->caches[i], &m->mixes[i]);
        }
        for (size_t t = 0; t < m->n_contexts; t++)
            for (size_t i = 0; i < m->n_mixes; i++) {
                if (kv_interrupted()) return kv_fail(e, KV_EINTR, "bench", "interrupted");
                run_cell(g, (i + round) % m->n_mixes, t);
                kv_progress_step(progress, 1);
            }
    }
    return 0;
}

static void add_row(const struct grid *g, size_t mix, size_t context, struct kv_runs *runs) {
    const struct kv_timing *m = g->m;
    const struct cell *cell = &g->cells[mix * m->n_contexts + context];
    size_t n = cell->n, calm = 0;
    for (size_t i = 0; i < n; i++) calm += !cell->time[i].disturbed;
    bool only_calm = calm >= LEAST_UNDISTURBED;
    double *x = kv_alloc(n, sizeof *x);
    struct kv_device_run *r = kv_runs_add(runs);
    r->mix = m->mixes[mix];
    r->context = m->contexts[context];
    r->threads = kv_decoder_threads(g->decoder);
    r->shape = m->decoder.shape;
    for (uint32_t l = 0; m->decoder.windows && l < r->shape.n_layers; l++)
        if (m->decoder.windows[l]) {
            r->sliding.layers++;
            r->sliding.tokens = m->decoder.windows[l];
        }
    r->synthetic = m->synthetic;
    r->cache_bytes =
        cell->cache_bytes / r->context * kv_tokens_read(&r->sliding, r->shape.n_layers, r->context);
    r->samples = (uint32_t)(only_calm ? calm : n);
    r->disturbed = (uint32_t)(n - calm);
    snprintf(r->weights, sizeof r->weights, "%s", kv_weight_kind_names[m->decoder.weights]);
    snprintf(r->shape_name, sizeof r->shape_name, "%s", m->shape_name);
    for (int p = -1; p < KV_N_PARTS; p++) {
        size_t k = 0;
        for (size_t i = 0; i < n; i++)
            if (!only_calm || !cell->time[i].disturbed)
                x[k++] = p < 0 ? cell->time[i].step_ns : cell->time[i].part_ns[p];
        double middle = median(x, k);
        if (p >= 0) {
            r->part_ns[p] = middle;
            continue;
        }
        r->step_ns = middle;
        r->low_ns = quantile(x, k, 0.25);
        r->high_ns = quantile(x, k, 0.75);
    }
    free(x);
}

// ---- the machine ----------------------------------------------------------------------

static void put_text(char **field, char *text) {
    if (**field) {
        free(text);
        return;
    }
    free(*field);
    *field = text;
}

size_t kv_last_level_bytes(void) {
    size_t bytes = 0;
    for (int i = 0; i < 8; i++) {
        char path[80], unit = 0;
        unsigned long n;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%lu%c", &n, &unit) >= 1) {
            size_t size = n << (unit == 'K' ? 10 : unit == 'M' ? 20 : 0);
            if (size > bytes) bytes = size;
        }
        if (f) fclose(f);
    }
    return bytes;
}

static void describe_machine(struct kv_runs *runs, struct kv_decoder *d) {
    size_t last = kv_last_level_bytes();
    char date[32];
    time_t now = time(NULL);
    struct tm utc;
    strftime(date, sizeof date, "%Y-%m-%d", gmtime_r(&now, &utc));
    put_text(&runs->date, kv_strdup(date));
    put_text(&runs->machine, kv_format_text("%s, %u cores, %zu MB last-level cache", kv_cpu_model(),
                                            kv_cpu_count(), last >> 20));
#if defined(__clang__)
    put_text(&runs->compiler, kv_format_text("clang %d.%d.%d", __clang_major__, __clang_minor__,
                                             __clang_patchlevel__));
#else
    put_text(&runs->compiler, kv_format_text("gcc %s", __VERSION__));
#endif
    if (isnan(runs->clock_mhz)) runs->clock_mhz = kv_clock_mhz();
    if (isnan(runs->launch_ns)) runs->launch_ns = kv_decoder_barrier_ns(d);
    if (isnan(runs->bandwidth_bytes_per_ns)) {
        double rate[READS];
        size_t bytes = (size_t)256 << 20;
        if (last * 8 > bytes) bytes = last * 8 >> 20 << 20;
        kv_decoder_bandwidth(d, bytes, READS, rate);
        runs->bandwidth_bytes_per_ns = median(rate, READS);
    }
}

// Bytes that the caches of all mixes take at the longest context.
static double cache_bytes(const struct kv_timing *m) {
    const struct kv_shape *s = &m->decoder.shape;
    double values = 2.0 * s->n_layers * s->n_kv_heads * s->head_dim, bytes = 0;
    for (size_t i = 0; i < m->n_mixes; i++)
        bytes += values * (kv_mix_bits(&m->mixes[i]) / 8 + 0.1) * m->contexts[m->n_contexts - 1];
    return bytes;
}

// Errors by range, six widths, with the network: the cheapest form that has one (reports/cells.md).
static int make_controller(struct grid *g, struct kv_error *e) {
    static const uint8_t offered[] = {2, 3, 4, 5, 6, 8};
    const struct kv_shape *s = &g->m->decoder.shape;
    kv_seeded_weights_init(&g->weights, s);
    return kv_seeded_controller(&g->controller, &g->weights, s, true, KV_ERROR_RANGE, offered,
                                sizeof offered, e);
}

// Widths by cell are those that bit planes hold (sim/cache/cache.h), each once.
static int check_cells(const struct kv_mix *mix, struct kv_error *e) {
    uint32_t seen = 0;
    for (size_t i = 0; mix->by_cell && i < mix->n; i++) {
        uint8_t bits = mix->part[i].bits[KV_KEY];
        bool held = false;
        for (size_t p = 0; p < KV_PORT_WIDTHS; p++) held |= kv_port_bits[p] == bits;
        if (!held || seen & 1u << bits)
            return kv_fail(e, KV_EUSAGE, "bench",
                           "a mix by cell takes 2, 3, 4, 5, 6, 8 and 16 bits, each once; %u is %s",
                           bits, held ? "there twice" : "none of them");
        seen |= 1u << bits;
    }
    return 0;
}

int kv_timing_run(const struct kv_timing *m, struct kv_runs *runs, struct kv_error *e) {
    struct grid g = {.m = m};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < m->n_mixes; i++) rc = check_cells(&m->mixes[i], e);
    if (rc == 0) rc = kv_decoder_new(&g.decoder, &m->decoder, e);
    if (rc) return rc;
    const struct kv_shape *shape = &m->decoder.shape;
    double memory = (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    g.caches = kv_alloc(m->n_mixes, sizeof(struct kv_cache *));
    g.cells = kv_alloc(m->n_mixes * m->n_contexts, sizeof *g.cells);
    g.embedding = kv_alloc(m->decoder.shape.hidden, sizeof *g.embedding);
    for (size_t i = 0; i < m->decoder.shape.hidden; i++)
        g.embedding[i] = (float)kv_draw(2, 0, i) * 2 - 1;
    g.token = kv_seeded_noise(2 * (size_t)shape->n_kv_heads * shape->head_dim, 1, 1, 0);
    for (size_t i = 0; i < m->n_mixes * m->n_contexts; i++)
        g.cells[i].time =
            kv_alloc((size_t)m->rounds * m->steps * TRIES, sizeof(struct kv_step_time));
    if (cache_bytes(m) > memory)
        rc =
            kv_fail(e, KV_EFAIL, "bench",
                    "caches of %zu mixes at %u tokens take %.1f GB; %.1f GB of memory are free",
                    m->n_mixes, m->contexts[m->n_contexts - 1], cache_bytes(m) / 1e9, memory / 1e9);
    for (size_t i = 0; rc == 0 && i < m->n_mixes; i++) {
        bool by_cell = m->mixes[i].by_cell;
        struct kv_cache_setting s = {.shape = *shape,
                                     .format = m->format,
                                     .windows = m->decoder.windows,
                                     .varies = by_cell ? KV_VARIES_LAYER | KV_VARIES_HEAD : 0};
        rc = kv_cache_new(&g.caches[i], &s, e);
        if (rc == 0 && by_cell && !g.controller) rc = make_controller(&g, e);
    }
    if (rc == 0) {
        describe_machine(runs, g.decoder);
        struct kv_progress *progress =
            kv_progress_start("measuring", m->n_contexts * m->n_mixes * m->rounds, "cells");
        rc = run_rounds(&g, progress, e);
        kv_progress_end(progress);
    }
    for (size_t i = 0; rc == 0 && i < m->n_mixes; i++)
        for (size_t t = 0; t < m->n_contexts; t++) add_row(&g, i, t, runs);
    for (size_t i = 0; i < m->n_mixes; i++) kv_cache_free(g.caches[i]);
    for (size_t i = 0; i < m->n_mixes * m->n_contexts; i++) free(g.cells[i].time);
    kv_decoder_free(g.decoder);
    free(g.caches);
    free(g.cells);
    free(g.embedding);
    free(g.token);
    kv_controller_free(g.controller);
    kv_seeded_weights_fini(&g.weights);
    return rc;
}
