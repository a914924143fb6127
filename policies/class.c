// SPDX-License-Identifier: Apache-2.0
// class: widths by a token's class (first of the text, start or rest of a word, digit, punctuation,
// space), keys and values apart. The token knowledge that costs nothing at run time.
#include "policies/policy.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_class;

static const struct kv_param params[] = {
    {"first", KV_LIST, "4", 1, 16, NULL, "bits", "first token: one width, or keys/values"},
    {"word", KV_LIST, "4", 1, 16, NULL, "bits", "tokens that begin a word"},
    {"rest", KV_LIST, "4", 1, 16, NULL, "bits", "tokens inside a word"},
    {"digit", KV_LIST, "4", 1, 16, NULL, "bits", "digits"},
    {"punctuation", KV_LIST, "4", 1, 16, NULL, "bits", "punctuation"},
    {"space", KV_LIST, "4", 1, 16, NULL, "bits", "white space"},
    {0}};

// Parameters of the classes, in the order of enum kv_token_kind.
static const char *const names[KV_N_KINDS] = {"word",        "rest",  "digit",
                                              "punctuation", "space", "first"};

struct widths {
    uint8_t index[KV_N_KINDS][2];
    size_t cells;
};

static int class_open(void **self, const struct kv_run *run, const struct kv_args *args,
                      struct kv_error *e) {
    struct widths *w = calloc(1, sizeof *w);
    if (!w) return kv_fail(e, KV_ENOMEM, "class", "out of memory");
    *self = w;
    w->cells = kv_cells(&run->shape);
    for (size_t k = 0; k < KV_N_KINDS; k++) {
        const struct kv_value *list = kv_arg(args, names[k]);
        if (list->n_list > 2)
            return kv_fail(e, KV_EUSAGE, "policy class", "%s=%s: one width or two, keys/values",
                           names[k], list->text);
        for (size_t side = 0; side < 2; side++) {
            double bits = list->list[list->n_list == 2 ? side : 0];
            int index = kv_width_index(run, bits);
            if (index < 0) return kv_width_refused(run, bits, e);
            w->index[k][side] = (uint8_t)index;
        }
    }
    return 0;
}

static int class_decide(void *self, const struct kv_item *item, size_t first, size_t n,
                        uint8_t *cells, struct kv_error *e) {
    const struct widths *w = self;
    (void)e;
    for (size_t t = first; t < first + n; t++, cells += w->cells)
        for (size_t c = 0; c < w->cells; c++) cells[c] = w->index[item->tokens[t].kind][c & 1];
    return 0;
}

// A reader knows a token's class from its id: no tags, but for widths that differ at all.
static uint32_t class_options(void *self) {
    (void)self;
    return 1;
}

const struct kv_policy kv_policy_class = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "class",
    .summary =
        "widths by a token's class: first, word start, rest of a word, digit, punctuation, space",
    .tag = "baseline",
    .params = params,
    .varies = KV_VARIES_TOKEN | KV_VARIES_KV,
    .needs = KV_NEED_CLASS,
    .open = class_open,
    .decide = class_decide,
    .options_as_opened = class_options,
    .close = free,
};
