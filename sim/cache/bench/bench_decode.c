// SPDX-License-Identifier: Apache-2.0
// Attention over 16k tokens at each width, and over cells whose keys and values each have a width
// of their own: speed against fp16 and against a plain streaming read of the same run.
#include "sim/base/work.h"
#include "sim/cache/bench/bench_steps.h"
#include "sim/cache/team.h"
#include "sim/cost/timing.h"
#include "sim/test/figure.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#endif

// A sample is one layer's attention, or 32 MB read. Those in which the system took a core away are
// left out while LEAST others are there; rounds go on, up to MOST, until they are.
enum { TOKENS = 16384, ROUNDS = 5, MOST = 40, LAYERS_READ = 8, LEAST = 9, PIECE = 32 << 20 };
enum { PIECES = 8, SAMPLES = MOST * LAYERS_READ };

struct samples {
    double ns[SAMPLES];
    bool calm[SAMPLES];
    size_t n, n_calm;
    double begin;
    long switches;
};

static long switches(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? u.ru_nivcsw : 0;
}
static void begin_sample(struct samples *s) {
    s->switches = switches();
    s->begin = kv_now_s();
}
static void end_sample(struct samples *s) {
    if (s->n == SAMPLES) return;
    s->ns[s->n] = (kv_now_s() - s->begin) * 1e9;
    s->calm[s->n] = switches() == s->switches;
    s->n_calm += s->calm[s->n++];
}

struct pass {
    struct samples *samples;
    const char *data; // to read, [PIECES][PIECE]; else attend
    uint64_t sums[64];
    struct kv_team *team;
    const struct kv_cache *cache;
    const struct kv_shape *shape;
    const float *query;
    struct kv_partial *partials;
    float *out;
};

static void attend(void *self, unsigned worker) {
    struct pass *p = self;
    unsigned n = kv_team_size(p->team);
    for (uint32_t l = 0; l < p->shape->n_layers; l++) {
        kv_team_barrier(p->team);
        if (worker == 0) begin_sample(p->samples);
        kv_cache_attend_part(p->cache, l, p->query, worker, n, &p->partials[worker]);
        kv_team_barrier(p->team);
        if (worker != 0) continue;
        kv_cache_attend_merge(p->cache, p->partials, n, p->out);
        end_sample(p->samples);
    }
}

static void read_pieces(void *self, unsigned worker) {
    struct pass *p = self;
    size_t share = PIECE / kv_team_size(p->team) / 4096 * 4096;
    for (size_t i = 0; i < PIECES; i++) {
        kv_team_barrier(p->team);
        if (worker == 0) begin_sample(p->samples);
        p->sums[worker % 64] ^= kv_stream_read(p->data + i * PIECE + worker * share, share);
        kv_team_barrier(p->team);
        if (worker == 0) end_sample(p->samples);
    }
}

// Of the calm samples, where there are enough of them.
static double middle(const struct samples *s) {
    double x[SAMPLES];
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        if (s->calm[i] || s->n_calm < LEAST) x[n++] = s->ns[i];
    return kv_quantile(x, n, 0.5);
}

// Instructions of the calling thread, or -1 where the system does not count them.
static int open_counter(void) {
#if defined(__linux__)
    struct perf_event_attr a = {.type = PERF_TYPE_HARDWARE,
                                .size = sizeof a,
                                .config = PERF_COUNT_HW_INSTRUCTIONS,
                                .exclude_kernel = 1};
    return (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);
#else
    return -1;
#endif
}
static double count_of(int counter) {
    uint64_t n;
    return counter >= 0 && read(counter, &n, sizeof n) == sizeof n ? (double)n : NAN;
}

// Widths that a policy of cells draws at about 4 code bits; 0: each cell for itself.
static const struct kv_width_shares mix = {6, {2, 3, 4, 5, 6, 8}, {.2, .25, .25, .15, .1, .05}};
static const uint8_t widths[] = {16, 8, 6, 5, 4, 3, 2, 0};
enum { N = sizeof widths };

// TOKENS tokens with keys k and values v, at one width or at widths drawn cell by cell.
static int fill(struct kv_cache **c, const struct kv_shape *s, uint8_t bits, const float *k,
                const float *v, struct kv_error *e) {
    int rc = bench_cache_new(c, s, bits == 0, e);
    if (rc) return rc;
    if (bits)
        bench_grow_uniform(*c, s, bits, TOKENS, k, v);
    else
        kv_cache_draw_cells(*c, s, &mix, TOKENS, k, v);
    return 0;
}

static void print_rows(const char *name, const struct kv_shape *s, struct kv_cache *const *cache,
                       const struct samples *samples, const double *instructions, unsigned threads,
                       double bandwidth, double mhz) {
    printf(" bits  x_fp16  values_per_ns  GB_per_s  of_read_pct  cache_MB  allocated_MB  "
           "cycles_per_value  instructions_per_value  calm_samples\n");
    double values = 2.0 * s->n_kv_heads * s->head_dim * TOKENS;
    for (size_t w = 0; w < N; w++) {
        double t = middle(&samples[w]), held = (double)kv_cache_bytes_held(cache[w]);
        double rate = held / s->n_layers / t;
        char label[8], counted[24] = "-";
        snprintf(label, sizeof label, widths[w] ? "%u" : "mixed", widths[w]);
        if (threads == 1 && isfinite(instructions[w]))
            snprintf(counted, sizeof counted, "%.3f", instructions[w] / values / s->n_layers);
        bench_figure(rate, "GB/s", "a streaming read", bandwidth, "%s, %u threads, attend %s bits",
                     name, threads, label);
        printf("%5s  %6.2f  %13.1f  %8.1f  %11.0f  %8.0f  %12.0f  %16.3f  %22s  %12zu\n", label,
               middle(&samples[0]) / t, values / t, rate, 100 * rate / bandwidth, held / 1e6,
               (double)kv_cache_bytes_allocated(cache[w]) / 1e6, t / values * mhz / 1e3, counted,
               samples[w].n_calm);
    }
}

static int bench(const char *name, struct kv_shape s, unsigned threads) {
    struct kv_cache *cache[N];
    struct kv_error e;
    s.n_layers = LAYERS_READ; // a part of the layers: already far beyond any cache of the machine
    size_t heads = (size_t)s.n_heads * s.head_dim, kv = (size_t)s.n_kv_heads * s.head_dim;
    float *x = kv_alloc(heads + 2 * kv, sizeof *x), *out = kv_alloc(heads, sizeof *out);
    for (size_t i = 0; i < heads + 2 * kv; i++) x[i] = (float)kv_draw(1, 1, i) * 2 - 1;
    char *data = kv_alloc(PIECES, PIECE);
    memset(data, 1, (size_t)PIECES * PIECE); // untouched pages would all be one page of zeros
    struct pass p = {
        .team = kv_team_new(threads), .shape = &s, .query = x, .out = out, .data = data};
    p.partials = kv_alloc(threads, sizeof *p.partials);
    for (unsigned i = 0; i < threads; i++)
        p.partials[i] = (struct kv_partial){.max = kv_alloc(s.n_heads, 4),
                                            .sum = kv_alloc(s.n_heads, 4),
                                            .out = kv_alloc(heads, 4)};
    for (size_t w = 0; w < N; w++)
        if (fill(&cache[w], &s, widths[w], x + heads, x + heads + kv, &e)) {
            fprintf(stderr, "bench_decode: %s: %s\n", e.where, e.msg);
            return 1;
        }
    struct samples *samples = kv_alloc(N + 1, sizeof *samples); // the last: of plain reading
    double instructions[N];
    int counter = open_counter();
    size_t least = 0; // calm samples of any row
    for (int r = -1; r < MOST && (r < ROUNDS || least < LEAST); r++) {
        p.samples = &samples[N];
        kv_team_run(p.team, read_pieces, &p);
        least = samples[N].n_calm;
        for (size_t w = 0; w < N; w++) {
            p.cache = cache[w];
            p.samples = &samples[w];
            double counted = count_of(counter);
            kv_team_run(p.team, attend, &p);
            instructions[w] = count_of(counter) - counted;
            if (samples[w].n_calm < least) least = samples[w].n_calm;
        }
        if (r < 0) // this round warmed up
            for (size_t w = 0; w <= N; w++) samples[w].n = samples[w].n_calm = 0;
    }
    double mhz = kv_clock_mhz(), bandwidth = PIECE / middle(&samples[N]);
    printf("%s, asym:group=32, %u KV heads of %u, %u query heads each, %d tokens, %d layers, %u "
           "threads; "
           "streaming read %.1f GB/s, core at %.0f MHz\n",
           name, s.n_kv_heads, s.head_dim, s.n_heads / s.n_kv_heads, TOKENS, LAYERS_READ, threads,
           bandwidth, mhz);
    print_rows(name, &s, cache, samples, instructions, threads, bandwidth, mhz);
    if (counter >= 0) close(counter);
    for (size_t w = 0; w < N; w++) kv_cache_free(cache[w]);
    for (unsigned i = 0; i < threads; i++) {
        free(p.partials[i].max);
        free(p.partials[i].sum);
        free(p.partials[i].out);
    }
    free(p.partials);
    free(samples);
    free(data);
    free(x);
    free(out);
    kv_team_free(p.team);
    return 0;
}

int main(void) {
    static const struct {
        const char *name;
        struct kv_shape shape;
    } shapes[] = {
        {"360M", {.n_heads = 15, .n_kv_heads = 5, .head_dim = 64}},
        {"1.7B", {.n_heads = 32, .n_kv_heads = 32, .head_dim = 64}},
        {"Qwen2.5-0.5B", {.n_heads = 14, .n_kv_heads = 2, .head_dim = 64}},
        {"Qwen2.5-1.5B", {.n_heads = 12, .n_kv_heads = 2, .head_dim = 128}},
        {"Gemma-3-270m", {.n_heads = 4, .n_kv_heads = 1, .head_dim = 256}},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (unsigned threads = 1; threads <= kv_cpu_count(); threads++)
            if ((threads == 1 || threads == kv_cpu_count()) &&
                bench(shapes[i].name, shapes[i].shape, threads))
                return 1;
    return 0;
}
