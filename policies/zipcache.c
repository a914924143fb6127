// SPDX-License-Identifier: Apache-2.0
// zipcache: few bits for the tokens of least attention, counted fairly: what a token received from
// the rows that probe, by how many rows of the prompt could see it.
#include "policies/attention.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_zipcache;

static const struct kv_param params[] = {
    {"low", KV_FLOAT, "0.4", 0, 1, NULL, NULL, "share of the prompt's tokens stored narrow"},
    {"narrow", KV_INT, "2", 1, 16, NULL, "bits", "width of those"},
    {"wide", KV_INT, "4", 1, 16, NULL, "bits", "width of the others and of newer tokens"},
    {"recent", KV_FLOAT, "0.05", 0, 1, NULL, NULL, "share of the newest rows that probe"},
    {"random", KV_FLOAT, "0.05", 0, 1, NULL, NULL,
     "how many draws, with repeats, of the other rows probe too: a share of the prompt"},
    {"seed", KV_INT, "0", 0, 1e15, NULL, NULL, "added to the run's seed"},
    {0}};

struct zip {
    double low, recent, random;
    uint8_t narrow, wide;
    uint64_t seed;
};

static int zipcache_open(void **self, const struct kv_run *run, const struct kv_args *args,
                         struct kv_error *e) {
    struct zip *z = calloc(1, sizeof *z);
    int narrow = kv_width_index(run, kv_number(args, "narrow")),
        wide = kv_width_index(run, kv_number(args, "wide"));
    if (!z) return kv_fail(e, KV_ENOMEM, "zipcache", "out of memory");
    *self = z;
    if (narrow < 0) return kv_width_refused(run, kv_number(args, "narrow"), e);
    if (wide < 0) return kv_width_refused(run, kv_number(args, "wide"), e);
    z->narrow = (uint8_t)narrow;
    z->wide = (uint8_t)wide;
    z->low = kv_number(args, "low");
    z->recent = kv_number(args, "recent");
    z->random = kv_number(args, "random");
    z->seed = run->seed + (uint64_t)kv_number(args, "seed") * 0x9E3779B97F4A7C15u;
    return 0;
}

// How often each row probes: the newest once, each of the earlier ones as often as it is drawn
// (zipcache/models/modeling_llama.py, commit b6932b99: arange(int(T - .05 T), T) and
// randint(0, int(T - .05 T), int(.05 T))).
static void draw_probes(const struct zip *z, const struct kv_item *item, uint32_t *probes) {
    double n = item->n_context;
    size_t old = (size_t)(n - z->recent * n), random = old ? (size_t)(z->random * n) : 0;
    for (size_t t = 0; t < item->n_context; t++) probes[t] = t >= old;
    for (size_t i = 0; i < random; i++)
        probes[(size_t)(kv_draw(z->seed, item->key, i) * (double)old)]++;
}

// Attention from the probes, summed over a KV head's query heads, by the rows that see a token: all
// from its own on, whether they probe or not.
static void weigh(const struct kv_item *item, size_t head, const uint32_t *probes, float *keys,
                  float *p, float *saliency) {
    const struct kv_shape *s = &item->run->shape;
    size_t n = item->n_context, per = s->n_heads / s->n_kv_heads, layer = head / s->n_kv_heads,
           g = head % s->n_kv_heads;
    memset(saliency, 0, n * sizeof *saliency);
    kv_attention_keys(item, layer, g, keys);
    for (size_t h = g * per; h < (g + 1) * per; h++)
        for (size_t row = 0; row < n; row++) {
            if (!probes[row]) continue;
            kv_attention_row(item, layer, h, row, keys, p);
            for (size_t t = 0; t <= row; t++) saliency[t] += (float)probes[row] * p[t];
        }
    for (size_t t = 0; t < n; t++) saliency[t] /= (float)(n - t);
}

// Stores the tokens of least saliency narrow: the later one where they tie.
static void narrow_least(const struct zip *z, const float *saliency, size_t n, bool *narrow) {
    size_t count = (size_t)(z->low * (double)n);
    memset(narrow, 0, n);
    for (size_t i = 0; i < count; i++) {
        size_t least = n;
        for (size_t t = 0; t < n; t++)
            if (!narrow[t] && (least == n || saliency[t] <= saliency[least])) least = t;
        narrow[least] = true;
    }
}

static int zipcache_plan(void *self, const struct kv_item *item, uint8_t *cells,
                         struct kv_error *e) {
    const struct zip *z = self;
    size_t n = item->n_context, n_cells = kv_cells(&item->run->shape);
    float *keys = calloc(kv_attention_floats(item) + 2 * n + 1, sizeof *keys);
    uint32_t *probes = calloc(n + 1, sizeof *probes);
    bool *narrow = calloc(n + 1, 1);
    int rc = keys && probes && narrow ? 0 : kv_fail(e, KV_ENOMEM, "zipcache", "out of memory");
    memset(cells, z->wide, item->n_tokens * n_cells);
    if (rc == 0) draw_probes(z, item, probes);
    for (size_t head = 0; head < n_cells / 2 && rc == 0; head++) {
        float *p = keys + kv_attention_floats(item), *saliency = p + n;
        weigh(item, head, probes, keys, p, saliency);
        narrow_least(z, saliency, n, narrow);
        for (size_t t = 0; t < n; t++)
            if (narrow[t]) memset(cells + t * n_cells + 2 * head, z->narrow, 2);
    }
    free(keys);
    free(probes);
    free(narrow);
    return rc;
}

static uint32_t zipcache_options(void *self) {
    (void)self;
    return 2;
}

const struct kv_policy kv_policy_zipcache = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "zipcache",
    .summary = "narrow widths for the prompt's tokens of least normalised attention",
    .citation =
        "ZipCache, arXiv 2405.14256 (its re-decision every 100 new tokens lies beyond these "
        "items; its quantizers are the format zipcache)",
    .tag = "faithful",
    .params = params,
    .varies = KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_HEAD,
    .needs = KV_NEED_KV | KV_NEED_Q,
    .delay_tokens = KV_DELAY_PROMPT,
    .open = zipcache_open,
    .plan = zipcache_plan,
    .options_as_opened = zipcache_options,
    .close = free,
    .published_mode = KV_PUBLISHED_PREFILL,
};
