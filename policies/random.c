// SPDX-License-Identifier: Apache-2.0
// random: widths drawn at given shares, the null that every policy which claims to know must beat.
#include "policies/policy.h"

extern const struct kv_policy kv_policy_random;

#include <stdlib.h>

static const struct kv_param params[] = {
    {"bits", KV_LIST, "2/4/8/16", 1, 16, NULL, "bits", "widths to draw from"},
    {"shares", KV_LIST, "", 0, 1e9, NULL, NULL,
     "how often each width is drawn, any scale (default: alike)"},
    {"seed", KV_INT, "0", 0, 1e15, NULL, NULL, "added to the run's seed"},
    {"by", KV_CHOICE, "token", 0, 0, "token/layer/cell", NULL,
     "what is drawn: a token's width, a layer's width of a token, or each cell's"},
    {0}};

struct lottery {
    uint64_t seed;
    size_t n;
    uint8_t index[16];
    uint64_t upto[16]; // cumulative shares in units of 2^-32
    enum { BY_TOKEN, BY_LAYER, BY_CELL } by;
    size_t cells_per_layer, cells;
};

static int random_open(void **self, const struct kv_run *run, const struct kv_args *args,
                       struct kv_error *e) {
    const struct kv_value *bits = kv_arg(args, "bits"), *shares = kv_arg(args, "shares");
    struct lottery *l = calloc(1, sizeof *l);
    double sum = 0, upto[16];
    if (!l) return kv_fail(e, KV_ENOMEM, "random", "out of memory");
    *self = l;
    if (bits->n_list > 16) return kv_fail(e, KV_EUSAGE, "policy random", "bits: at most 16 widths");
    if (shares->given && shares->n_list != bits->n_list)
        return kv_fail(e, KV_EUSAGE, "policy random", "%zu widths need as many shares, not %zu",
                       bits->n_list, shares->n_list);
    for (size_t i = 0; i < bits->n_list; i++) {
        int index = kv_width_index(run, bits->list[i]);
        if (index < 0) return kv_width_refused(run, bits->list[i], e);
        l->index[i] = (uint8_t)index;
        upto[i] = sum += shares->given ? shares->list[i] : 1;
    }
    if (!(sum > 0)) return kv_fail(e, KV_EUSAGE, "policy random", "the shares add up to nothing");
    for (size_t i = 0; i < bits->n_list; i++)
        l->upto[i] = (uint64_t)llround(upto[i] / sum * 0x1p32);
    l->n = bits->n_list;
    l->by = (int)kv_number(args, "by");
    l->seed = run->seed + (uint64_t)kv_number(args, "seed") * 0x9E3779B97F4A7C15u;
    l->cells = kv_cells(&run->shape);
    l->cells_per_layer = l->cells / run->shape.n_layers;
    return 0;
}

static uint8_t width_at(const struct lottery *l, uint32_t u) {
    size_t i = 0;
    for (size_t k = 0; k + 1 < l->n; k++) i += u >= l->upto[k]; // no branch to mispredict
    return l->index[i];
}

// Number `which` of the SplitMix64 sequence from a seed (Steele, Lea and Flood 2014).
static uint64_t number(uint64_t seed, size_t which) {
    uint64_t z = seed + 0x9E3779B97F4A7C15u * (which + 1);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

// A token's own sequence depends on the run's seed, the item and the token's row alone.
static int random_decide(void *self, const struct kv_item *item, size_t first, size_t n,
                         uint8_t *cells, struct kv_error *e) {
    const struct lottery *l = self;
    (void)e;
    for (size_t t = first; t < first + n; t++, cells += l->cells) {
        uint64_t seed = (uint64_t)(kv_draw(l->seed, item->key, t) * 0x1p53);
        if (l->by == BY_TOKEN) memset(cells, width_at(l, (uint32_t)(seed >> 21)), l->cells);
        for (size_t c = 0; l->by == BY_LAYER && c < l->cells; c += l->cells_per_layer)
            memset(cells + c, width_at(l, (uint32_t)number(seed, c)), l->cells_per_layer);
        for (size_t c = 0; l->by == BY_CELL && c < l->cells; c += 2) { // K and V halve a number
            uint64_t z = number(seed, c);
            cells[c] = width_at(l, (uint32_t)(z >> 32));
            cells[c + 1] = width_at(l, (uint32_t)z);
        }
    }
    return 0;
}

static uint32_t random_varies(void *self) {
    static const uint32_t varies[] = {KV_VARIES_TOKEN, KV_VARIES_TOKEN | KV_VARIES_LAYER,
                                      KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_HEAD |
                                          KV_VARIES_KV};
    return varies[((const struct lottery *)self)->by];
}

static uint32_t random_options(void *self) {
    return (uint32_t)((const struct lottery *)self)->n;
}

const struct kv_policy kv_policy_random = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "random",
    .summary = "draws each token's width at fixed shares: the null of every learned policy",
    .tag = "baseline",
    .params = params,
    .varies = KV_VARIES_TOKEN,
    .open = random_open,
    .decide = random_decide,
    .varies_as_opened = random_varies,
    .options_as_opened = random_options,
    .close = free,
};
