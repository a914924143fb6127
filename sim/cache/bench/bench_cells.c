// SPDX-License-Identifier: Apache-2.0
// What widths by cell are worth in whole decode steps: bytes and ms a token of fp16, of uniform
// storage at 6.0 allocated bits, of cells at 5.0 (as good as that: policies/cells.sweep) with their
// controller running, and of a step without a cache, which is the ceiling.
#include "sim/base/print.h"
#include "sim/cache/bench/bench_steps.h"
#include "sim/cost/timing.h"
#include "sim/test/figure.h"

#include <getopt.h>
#include <unistd.h>

// Variants take turns, so that drift falls on all alike. A turn's first step finds the last-level
// cache as another variant left it and is not counted. Rounds go on, up to `most`, until each
// variant has LEAST steps in which the system took no core away.
enum { STEPS = 2, LEAST = 9, READS = 9, MAX_CONTEXTS = 8 };
enum variant { CEILING, FP16, UNIFORM, CELLS, N };
static const char *const names[N] = {"none (ceiling)", "fp16", "uniform", "cells"};
static const uint8_t one_width[N] = {16, 16, 5, 0}; // code bits; 0: each cell for itself

// Percent of the cells at each width, as shares_pct of `kvsim show --tsv` has it: what
// cells:bits=5,hold=run,error=trial took on the first 17 HellaSwag items of policies/cells.sweep,
// 4.948 allocated bits. --shares takes those of a whole set, or of error=range.
static const char default_shares[] = "2:14.5 3:26.2 4:27.2 5:20.4 6:11 8:0.727";

struct options {
    const char *shape; // NULL: all
    size_t n_contexts;
    uint32_t contexts[MAX_CONTEXTS]; // ascending
    struct kv_width_shares widths;
    double memory_bytes; // that caches may take together
    size_t rounds, most;
    bool json;
};

struct samples {
    struct kv_step_time *time;
    size_t n;
};

// One shape's parts and what was measured: of the caches at each context, and of each's steps.
struct trial {
    const struct options *o;
    const char *name;
    struct kv_shape shape;
    struct kv_decoder *decoder;
    struct kv_seeded_weights weights;
    struct kv_controller *controller;
    float *x, *kv; // a token's embedding; a key and a value
    struct kv_cache *caches[N];
    double bytes_per_ns; // of a streaming read
    struct held {
        double held, tags, allocated; // bytes a token
    } held[MAX_CONTEXTS][N];
    struct samples samples[MAX_CONTEXTS][N];
};

// ---- measuring ------------------------------------------------------------------------

static void grow(struct trial *t, enum variant v, uint32_t n) {
    const float *key = t->kv, *value = t->kv + (size_t)t->shape.n_kv_heads * t->shape.head_dim;
    if (v == CELLS)
        kv_cache_draw_cells(t->caches[v], &t->shape, &t->o->widths, n, key, value);
    else if (v != CEILING)
        bench_grow_uniform(t->caches[v], &t->shape, one_width[v], n, key, value);
}

static void note_bytes(struct trial *t, size_t context, enum variant v) {
    const struct kv_cache *c = t->caches[v];
    double n = kv_cache_tokens(c);
    if (n == 0) return;
    t->held[context][v] = (struct held){.held = (double)kv_cache_bytes_held(c) / n,
                                        .tags = v == CELLS ? (double)kv_cache_bytes_tags(c) / n : 0,
                                        .allocated = (double)kv_cache_bytes_allocated(c) / n};
}

static void take_turn(struct trial *t, size_t context, enum variant v) {
    struct samples *s = &t->samples[context][v];
    struct kv_step_time time[1 + STEPS];
    const uint8_t bits[2] = {one_width[v], one_width[v]};
    kv_decoder_control(t->decoder, v == CELLS ? t->controller : NULL);
    kv_decoder_steps(t->decoder, t->caches[v], v == CELLS ? NULL : bits, 1 + STEPS, t->x, time,
                     false, NULL);
    s->time = kv_grow(s->time, s->n + STEPS, sizeof *s->time);
    memcpy(s->time + s->n, time + 1, STEPS * sizeof *time);
    s->n += STEPS;
}

// All contexts of the variants of a group; the caches grow from one to the next.
static int run_group(struct trial *t, const enum variant *group, size_t n, struct kv_error *e) {
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = bench_cache_new(&t->caches[group[i]], &t->shape, group[i] == CELLS, e);
    for (size_t c = 0; c < t->o->n_contexts && rc == 0; c++) {
        for (size_t i = 0; i < n; i++) { // a step adds the context's last token
            grow(t, group[i], t->o->contexts[c] - 1);
            note_bytes(t, c, group[i]);
        }
        size_t least = 0;
        for (size_t r = 0; r < t->o->most && (r < t->o->rounds || least < LEAST); r++) {
            least = SIZE_MAX;
            for (size_t i = 0; i < n; i++) {
                enum variant v = group[(i + r) % n];
                take_turn(t, c, v);
                size_t calm = bench_calm(t->samples[c][v].time, t->samples[c][v].n);
                if (calm < least) least = calm;
            }
        }
    }
    for (enum variant v = 0; v < N; v++) {
        kv_cache_free(t->caches[v]);
        t->caches[v] = NULL;
    }
    return rc;
}

// Bytes of a variant's cache at the longest context, with a tenth for pages that are not full.
static double expected_bytes(const struct trial *t, enum variant v) {
    double bits = one_width[v], values = 2.0 * t->shape.n_layers * t->shape.n_kv_heads;
    if (v == CEILING) return 0;
    if (v == CELLS)
        for (size_t i = 0; i < t->o->widths.n; i++)
            bits += t->o->widths.share[i] * t->o->widths.bits[i];
    return 1.1 * values * t->shape.head_dim * t->o->contexts[t->o->n_contexts - 1] *
           (bits + (bits < 16)) / 8;
}

// Together where memory allows, else each cache alone beside the ceiling.
static int run_groups(struct trial *t, struct kv_error *e) {
    static const enum variant all[] = {CEILING, FP16, UNIFORM, CELLS};
    double together = 0;
    for (enum variant v = 0; v < N; v++) together += expected_bytes(t, all[v]);
    if (together <= t->o->memory_bytes) return run_group(t, all, N, e);
    fprintf(stderr,
            "bench_cells: %s: caches of %.1f GB together are more than %.1f GB: one after the "
            "other, each beside the ceiling\n",
            t->name, together / 1e9, t->o->memory_bytes / 1e9);
    int rc = 0;
    for (size_t v = FP16; v < N && rc == 0; v++)
        rc = run_group(t, (enum variant[]){CEILING, all[v]}, 2, e);
    return rc;
}

// ---- what is said of it ---------------------------------------------------------------

static double us_of(const struct trial *t, size_t context, enum variant v, int part, double q) {
    const struct samples *s = &t->samples[context][v];
    return bench_quantile_us(s->time, s->n, LEAST, part, q);
}
static double step_ms(const struct trial *t, size_t context, enum variant v) {
    return us_of(t, context, v, KV_N_PARTS, 0.5) / 1e3;
}
static double attend_ms(const struct trial *t, size_t context, enum variant v) {
    return us_of(t, context, v, KV_PART_ATTEND, 0.5) / 1e3;
}

// Deciding, and what coding the token at its widths takes beyond coding it at one.
static double controller_ms(const struct trial *t, size_t context) {
    return (us_of(t, context, CELLS, KV_PART_POLICY, 0.5) +
            us_of(t, context, CELLS, KV_PART_APPEND, 0.5) -
            us_of(t, context, UNIFORM, KV_PART_APPEND, 0.5)) /
           1e3;
}

static double read_pct(const struct trial *t, size_t context, enum variant v) {
    double bytes = t->held[context][v].held * (t->o->contexts[context] - 1);
    return 100 * bytes / (attend_ms(t, context, v) * 1e6) / t->bytes_per_ns;
}

static double caches(const struct trial *t, size_t context, enum variant v) {
    double last = (double)kv_last_level_bytes();
    return last > 0 ? t->held[context][v].held * t->o->contexts[context] / last : NAN;
}

// Numbers of a row, in the table and in JSON alike. Bytes are of a token; x_NAME: how many times as
// fast as the step of NAME, by medians; x_last_level: the cache's size in last-level caches.
static const struct column {
    const char *name;
    int decimals;
} columns[] = {
    {"bits", 3},         {"held_bytes", 0},    {"tag_bytes", 0},      {"allocated_bytes", 0},
    {"x_last_level", 2}, {"step_ms", 3},       {"low_ms", 3},         {"high_ms", 3},
    {"attend_ms", 3},    {"of_read_pct", 0},   {"x_fp16", 3},         {"x_uniform", 3},
    {"x_ceiling", 3},    {"controller_ms", 3}, {"controller_pct", 2}, {"calm", 0}};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

static void numbers(const struct trial *t, size_t c, enum variant v, double x[N_COLUMNS]) {
    const struct held *h = &t->held[c][v];
    double step = step_ms(t, c, v), values = 2.0 * t->shape.n_layers * t->shape.n_kv_heads;
    double control = v == CELLS ? controller_ms(t, c) : 0;
    const double all[N_COLUMNS] = {8 * (h->held + h->tags) / (values * t->shape.head_dim),
                                   h->held,
                                   h->tags,
                                   h->allocated,
                                   caches(t, c, v),
                                   step,
                                   us_of(t, c, v, KV_N_PARTS, 0.25) / 1e3,
                                   us_of(t, c, v, KV_N_PARTS, 0.75) / 1e3,
                                   attend_ms(t, c, v),
                                   read_pct(t, c, v),
                                   step_ms(t, c, FP16) / step,
                                   step_ms(t, c, UNIFORM) / step,
                                   step_ms(t, c, CEILING) / step,
                                   control,
                                   100 * control / (step - control),
                                   (double)bench_calm(t->samples[c][v].time, t->samples[c][v].n)};
    memcpy(x, all, sizeof all);
}

// Cells against uniform by parts of the step, and where they are slower, what binds.
static char *reading(const struct trial *t, size_t c) {
    double step = step_ms(t, c, CELLS) - step_ms(t, c, UNIFORM);
    double attend = attend_ms(t, c, CELLS) - attend_ms(t, c, UNIFORM),
           control = controller_ms(t, c);
    const char *binds = "";
    bool calm = true;
    for (enum variant v = 0; v < N; v++)
        calm &= bench_calm(t->samples[c][v].time, t->samples[c][v].n) >= LEAST;
    if (!calm)
        binds = "; too few calm steps to say what binds";
    else if (step > 0)
        binds = attend > control ? "; slower: unpacking mixed widths binds, not bytes"
                : control > step - attend - control ? "; slower: the controller binds"
                                                    : "; slower: neither part explains it: noise";
    return kv_format_text(
        "cells - uniform %+.3f ms: attention %+.3f for %.1f %% of the bytes, at "
        "%.0f against %.0f %% of a streaming read; controller %+.3f; rest %+.3f%s",
        step, attend, 100 * t->held[c][CELLS].held / t->held[c][UNIFORM].held,
        read_pct(t, c, CELLS), read_pct(t, c, UNIFORM), control, step - attend - control, binds);
}

static void print_rows(const struct trial *t) {
    for (size_t c = 0; c < t->o->n_contexts; c++) {
        for (enum variant v = 0; v < N; v++) {
            double x[N_COLUMNS];
            numbers(t, c, v, x);
            if (v == CELLS || v == UNIFORM)
                bench_figure(read_pct(t, c, v) / 100 * t->bytes_per_ns, "GB/s", "a streaming read",
                             t->bytes_per_ns, "%s, %u tokens, attend %s", t->name,
                             t->o->contexts[c], names[v]);
            printf("%-5s  %7u  %-14s", t->name, t->o->contexts[c], names[v]);
            for (size_t i = 0; i < N_COLUMNS; i++) {
                int width = (int)strlen(columns[i].name);
                if (isfinite(x[i]))
                    printf("  %*.*f", width, columns[i].decimals, x[i]);
                else
                    printf("  %*s", width, "-");
            }
            printf("\n");
        }
        char *text = reading(t, c);
        printf("  %s\n", text);
        free(text);
    }
    fflush(stdout);
}

static void print_json(const struct trial *t, bool first) {
    for (size_t c = 0; c < t->o->n_contexts; c++)
        for (enum variant v = 0; v < N; v++, first = false) {
            double x[N_COLUMNS];
            numbers(t, c, v, x);
            printf("%s\n  {\"shape\": \"%s\", \"context\": %u, \"cache\": \"%s\", "
                   "\"streaming_bytes_per_ns\": %.2f",
                   first ? "" : ",", t->name, t->o->contexts[c], names[v], t->bytes_per_ns);
            for (size_t i = 0; i < N_COLUMNS; i++)
                if (isfinite(x[i]))
                    printf(", \"%s\": %.*f", columns[i].name, columns[i].decimals + 2, x[i]);
                else
                    printf(", \"%s\": null", columns[i].name);
            char *text = v == CELLS ? reading(t, c) : NULL;
            if (text) printf(", \"reading\": \"%s\"", text);
            printf("}");
            free(text);
        }
}

// ---- a shape --------------------------------------------------------------------------

static int bench(const struct options *o, const char *name, bool first) {
    // The form of the controller that keeps to 3 % of a step (bench_controller): net, range rule.
    static const uint8_t offered[] = {2, 3, 4, 5, 6, 8};
    struct kv_error e;
    struct trial *t = kv_alloc(1, sizeof *t);
    *t = (struct trial){.o = o, .name = name, .shape = *kv_shape_named(name)};
    kv_seeded_weights_init(&t->weights, &t->shape);
    t->x = kv_seeded_noise(t->shape.hidden, 40, 1, 0);
    t->kv = kv_seeded_noise(2 * (size_t)t->shape.n_kv_heads * t->shape.head_dim, 30, 1, 0);
    int rc = kv_seeded_controller(&t->controller, &t->weights, &t->shape, true, KV_ERROR_RANGE,
                                  offered, sizeof offered, &e);
    if (rc == 0) rc = bench_decoder_new(&t->decoder, &t->shape, &e);
    if (rc == 0) {
        double rate[READS], last = (double)kv_last_level_bytes();
        kv_decoder_bandwidth(t->decoder, (size_t)fmax(256 << 20, 8 * last), READS, rate);
        t->bytes_per_ns = kv_quantile(rate, READS, 0.5);
        rc = run_groups(t, &e);
    }
    if (rc)
        fprintf(stderr, "bench_cells: %s: %s\n", e.where, e.msg);
    else if (o->json)
        print_json(t, first);
    else
        print_rows(t);
    for (size_t c = 0; c < MAX_CONTEXTS; c++)
        for (enum variant v = 0; v < N; v++) free(t->samples[c][v].time);
    kv_decoder_free(t->decoder);
    kv_controller_free(t->controller);
    kv_seeded_weights_fini(&t->weights);
    free(t->x);
    free(t->kv);
    free(t);
    return rc;
}

static void print_head(const struct options *o) {
    size_t last = kv_last_level_bytes();
    double bits = 0;
    for (size_t i = 0; i < o->widths.n; i++) bits += o->widths.share[i] * o->widths.bits[i];
    if (o->json) {
        char *cpu = kv_json_quoted(kv_cpu_model());
        printf("{\"cpu\": %s, \"threads\": %u, \"last_level_bytes\": %zu, \"cells_code_bits\": "
               "%.3f, \"rows\": [",
               cpu, kv_cpu_count(), last, bits);
        free(cpu);
        return;
    }
    kv_print("%s, %u threads, last-level cache of %zu MB; q4 weights, asym:group=32; cells of %.3f "
             "code bits in the mean:",
             kv_cpu_model(), kv_cpu_count(), last >> 20, bits);
    for (size_t i = 0; i < o->widths.n; i++)
        printf(" %u:%.3g", o->widths.bits[i], 100 * o->widths.share[i]);
    printf("\nbytes a token; x_NAME: times as fast; of a cache below 4 last levels a part may stay "
           "there from step to step\n%-5s  %7s  %-14s",
           "shape", "context", "cache");
    for (size_t i = 0; i < N_COLUMNS; i++) printf("  %s", columns[i].name);
    printf("\n");
}

// ---- options --------------------------------------------------------------------------

// "2:10 3:27 ...", by spaces or commas, in percent.
static bool parse_shares(struct kv_width_shares *w, const char *text) {
    double sum = 0;
    *w = (struct kv_width_shares){0};
    for (const char *at = text; *at;) {
        unsigned bits;
        double pct;
        int n = 0;
        if (w->n == KV_PORT_WIDTHS || sscanf(at, "%u:%lf%n", &bits, &pct, &n) != 2 || bits > 16 ||
            !memchr(kv_port_bits, (int)bits, KV_PORT_WIDTHS) || !(pct >= 0 && pct <= 100))
            return false;
        w->bits[w->n] = (uint8_t)bits;
        w->share[w->n++] = pct;
        sum += pct;
        at += n;
        at += strspn(at, ", ");
    }
    for (size_t i = 0; i < w->n; i++) w->share[i] /= sum;
    return fabs(sum - 100) < 1; // printed shares are rounded
}

static bool parse_contexts(struct options *o, const char *text) {
    o->n_contexts = 0;
    for (const char *at = text; *at;) {
        char *end;
        unsigned long n = strtoul(at, &end, 10);
        if (o->n_contexts == MAX_CONTEXTS || end == at || n < 2 || n > 1 << 20 ||
            (o->n_contexts > 0 && n <= o->contexts[o->n_contexts - 1]))
            return false;
        o->contexts[o->n_contexts++] = (uint32_t)n;
        at = end + strspn(end, ",");
    }
    return o->n_contexts > 0;
}

static bool parse(struct options *o, int n, char **words) {
    static const struct option known[] = {{"shape", required_argument, NULL, 's'},
                                          {"contexts", required_argument, NULL, 'c'},
                                          {"shares", required_argument, NULL, 'w'},
                                          {"memory-gb", required_argument, NULL, 'm'},
                                          {"quick", no_argument, NULL, 'q'},
                                          {"json", no_argument, NULL, 'j'},
                                          {0}};
    const char *quick = getenv("KVSIM_BENCH_QUICK"), *contexts = NULL, *shares = default_shares;
    bool hurry = quick && strcmp(quick, "1") == 0;
    for (int c; (c = getopt_long(n, words, "", known, NULL)) != -1;) {
        char *end = NULL;
        if (c == 's') o->shape = optarg;
        if (c == 'c') contexts = optarg;
        if (c == 'w') shares = optarg;
        if (c == 'm') o->memory_bytes = strtod(optarg, &end) * 1e9;
        if (c == 'q') hurry = true;
        if (c == 'j') o->json = true;
        if (c == '?' || (end && (*end || !(o->memory_bytes > 0)))) return false;
    }
    if (hurry) {
        o->rounds = o->most = 2;
        if (!o->shape) o->shape = kv_shape_name_at(0);
    }
    return optind == n && (!o->shape || kv_shape_named(o->shape)) &&
           parse_shares(&o->widths, shares) &&
           parse_contexts(o, contexts ? contexts
                             : hurry  ? "2048"
                                      : "2048,8192,16384");
}

int main(int n, char **words) {
    struct options o = {.rounds = 12,
                        .most = 60,
                        .memory_bytes =
                            0.5 * (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE)};
    if (!parse(&o, n, words)) {
        fprintf(stderr, "bench_cells: usage: bench_cells [--shape NAME] [--contexts "
                        "2048,8192,16384] [--shares 2:14.5,3:26.2,...] [--memory-gb N] "
                        "[--quick] [--json]; contexts rise, shares add up to 100\n");
        return 2;
    }
    int rc = 0;
    size_t shown = 0;
    print_head(&o);
    for (size_t i = 0; kv_shape_name_at(i) && rc == 0; i++)
        if (!o.shape || strcmp(o.shape, kv_shape_name_at(i)) == 0)
            rc = bench(&o, kv_shape_name_at(i), shown++ == 0);
    if (o.json) printf("\n]}\n");
    return rc ? 1 : 0;
}
