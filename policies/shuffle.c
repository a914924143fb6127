// SPDX-License-Identifier: Apache-2.0
// shuffle(SPEC): another policy's decisions handed to the wrong tokens. Bits and histogram of every
// sequence stay the same, so the difference to SPEC is what knowing the token is worth.
#include "policies/policy.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_shuffle;

enum { ITEM, LAYER, ALL, CELL };

static const struct kv_param params[] = {
    {"within", KV_CHOICE, "item", 0, 0, "item/layer/all/cell", NULL,
     "tokens exchange whole decisions (item), those of each layer apart (layer), those of each "
     "layer, "
     "head, K and V apart (cell), or all cells do (all: layers, heads, K and V lose their shares "
     "too)"},
    {"seed", KV_INT, "0", 0, 1e15, NULL, NULL, "added to the run's seed"},
    {0}};

struct shuffle {
    const struct kv_inner *inner;
    uint64_t seed;
    int within;
    bool sides_cost_alike; // a width takes as many bits for a key as for a value
    size_t cells, layers;
};

static int shuffle_open(void **self, const struct kv_run *run, const struct kv_args *args,
                        struct kv_error *e) {
    struct shuffle *s = calloc(1, sizeof *s);
    if (!s) return kv_fail(e, KV_ENOMEM, "shuffle", "out of memory");
    *self = s;
    s->inner = run->inner;
    s->seed = run->seed + (uint64_t)kv_number(args, "seed") * 0x9E3779B97F4A7C15u;
    s->within = (int)kv_number(args, "within");
    s->cells = kv_cells(&run->shape);
    s->layers = run->shape.n_layers;
    s->sides_cost_alike = true;
    for (size_t w = 0; w < run->n_widths; w++)
        if (run->cell_bits[KV_KEY][w] != run->cell_bits[KV_VALUE][w]) s->sides_cost_alike = false;
    return 0;
}

static void exchange(uint8_t *a, uint8_t *b, size_t n, size_t stride) {
    for (size_t i = 0; i < n; i++) {
        uint8_t t = a[i * stride];
        a[i * stride] = b[i * stride];
        b[i * stride] = t;
    }
}

// Fisher and Yates: n pieces of `size` answers, `step` apart (answers of a piece `stride` apart).
static void permute(uint8_t *first, size_t n, size_t step, size_t size, size_t stride,
                    uint64_t seed, uint64_t key) {
    for (size_t i = n; i-- > 1;) {
        size_t j = (size_t)(kv_draw(seed, key, i) * (double)(i + 1));
        exchange(first + i * step, first + j * step, size, stride);
    }
}

static void shuffle_segment(const struct shuffle *s, uint8_t *cells, size_t n, uint64_t key,
                            size_t first) {
    uint64_t seed = s->seed + first * 0xD1B54A32D192ED03u;
    size_t layer = s->cells / s->layers;
    if (s->within == ITEM) permute(cells, n, s->cells, s->cells, 1, seed, key);
    for (size_t l = 0; s->within == LAYER && l < s->layers; l++)
        permute(cells + l * layer, n, s->cells, layer, 1, seed + l, key);
    for (size_t c = 0; s->within == CELL && c < s->cells; c++)
        permute(cells + c, n, s->cells, 1, 1, seed + c, key);
    if (s->within != ALL) return;
    if (memchr(cells, KV_EVICT, n * s->cells)) // a token's K and V leave together
        permute(cells, n * s->cells / 2, 2, 2, 1, seed, key);
    else if (s->sides_cost_alike)
        permute(cells, n * s->cells, 1, 1, 1, seed, key);
    else
        for (size_t side = 0; side < 2; side++)
            permute(cells + side, n * s->cells / 2, 2, 1, 1, seed + side, key);
}

static int shuffle_plan(void *self, const struct kv_item *item, uint8_t *cells,
                        struct kv_error *e) {
    const struct shuffle *s = self;
    int rc = kv_ask(s->inner->policy, s->inner->self, item, cells, e);
    for (size_t row = 0, end; row < item->n_tokens && rc == 0; row = end) {
        end = kv_segment_end(item, row);
        shuffle_segment(s, cells + row * s->cells, end - row, item->key, row);
    }
    return rc;
}

static uint32_t shuffle_varies(void *self) {
    const struct shuffle *s = self;
    uint32_t varies = s->inner->varies;
    if (!(varies & KV_VARIES_TOKEN) && s->within != ALL) return varies;
    if (s->within == LAYER) varies |= KV_VARIES_LAYER;
    if (s->within == ALL || s->within == CELL)
        varies |= KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_HEAD | KV_VARIES_KV;
    return varies;
}

static uint32_t shuffle_options(void *self) {
    return ((const struct shuffle *)self)->inner->options;
}

const struct kv_policy kv_policy_shuffle = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "shuffle",
    .summary = "another policy's widths on the wrong tokens of a sequence: its null at equal bits",
    .tag = "baseline",
    .params = params,
    .wraps = true,
    .varies = KV_VARIES_TOKEN,
    .delay_tokens = KV_DELAY_PROMPT,
    .open = shuffle_open,
    .plan = shuffle_plan,
    .varies_as_opened = shuffle_varies,
    .options_as_opened = shuffle_options,
    .close = free,
};
