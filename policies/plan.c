// SPDX-License-Identifier: Apache-2.0
// plan: widths that stand in a file, written by whatever program decided them: by item, token,
// layer, KV head, K and V, or by layer and head alone. policies/README.md has the file's layout.
#include "policies/tensors.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_plan;

enum { EVICTED_BITS = 0, FLOAT32_BITS = 32, NO_INDEX = 0xFC };

static const struct kv_param params[] = {
    {"file", KV_TEXT, NULL, 0, 0, NULL, NULL, "safetensors file of the widths"},
    {"digest", KV_TEXT, "", 0, 0, NULL, NULL, "of the file; checked where it is given"},
    {0}};

struct place {
    uint64_t key;
    size_t item;
};

struct plan {
    struct kv_tensors file;
    size_t cells, n_items;       // n_items 0: one row for all tokens
    const unsigned char *widths; // [rows][cells] bits
    size_t *first;               // [n_items + 1] rows
    struct place *places;        // [n_items] by key
    uint8_t index[256];          // decision of each number of bits, or NO_INDEX
    uint32_t varies, options;
    bool causal;
    char trace[24];
    bool held; // against the recording
};

// ---- reading the file --------------------------------------------------------------------

static int by_key(const void *a, const void *b) {
    const struct place *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->item > y->item) - (x->item < y->item);
}

static bool same_widths(const struct plan *p, size_t a, size_t b) {
    size_t n = p->first[a + 1] - p->first[a];
    return n == p->first[b + 1] - p->first[b] &&
           memcmp(p->widths + p->first[a] * p->cells, p->widths + p->first[b] * p->cells,
                  n * p->cells) == 0;
}

// Where each item's rows are. Errors: counts that do not add up; a key twice with other widths.
static int place_items(struct plan *p, size_t rows, struct kv_error *e) {
    size_t keys[1] = {0}, counts[1] = {0};
    const unsigned char *key, *count;
    int rc = kv_tensors_raw(&p->file, "item.key", "U64", 8, 1, keys, &key, e);
    if (rc == 0) {
        counts[0] = keys[0];
        rc = kv_tensors_raw(&p->file, "item.n_tokens", "U32", 4, 1, counts, &count, e);
    }
    if (rc) return rc;
    p->first = calloc(keys[0] + 1, sizeof *p->first);
    p->places = calloc(keys[0], sizeof *p->places);
    if (!p->first || !p->places) return kv_fail(e, KV_ENOMEM, "policy plan", "out of memory");
    p->n_items = keys[0];
    for (size_t i = 0; i < p->n_items; i++) {
        p->first[i + 1] = p->first[i] + kv_little_endian(count + 4 * i, 4);
        p->places[i] = (struct place){kv_little_endian(key + 8 * i, 8), i};
    }
    if (p->first[p->n_items] != rows)
        return kv_fail(e, KV_EFAIL, p->file.path,
                       "item.n_tokens adds up to %zu tokens, widths holds %zu",
                       p->first[p->n_items], rows);
    qsort(p->places, p->n_items, sizeof *p->places, by_key);
    for (size_t i = 1; i < p->n_items; i++)
        if (p->places[i].key == p->places[i - 1].key &&
            !same_widths(p, p->places[i].item, p->places[i - 1].item))
            return kv_fail(e, KV_EFAIL, p->file.path,
                           "items %zu and %zu have one key and different widths",
                           p->places[i - 1].item, p->places[i].item);
    return 0;
}

static int take_widths(struct plan *p, const struct kv_shape *s, size_t *rows, struct kv_error *e) {
    size_t n_dims = kv_tensors_dims(&p->file, "widths");
    size_t shape[4] = {0, s->n_layers, s->n_kv_heads, 2}, at = n_dims == 3 ? 1 : 0;
    if (!kv_tensors_has(&p->file, "widths"))
        return kv_fail(e, KV_EFAIL, p->file.path,
                       "holds no tensor widths, which a plan is made of");
    if (n_dims != 3 && n_dims != 4)
        return kv_fail(e, KV_EFAIL, p->file.path,
                       "tensor widths has the axes tokens, layers, KV heads, K and V, or without "
                       "the first");
    int rc = kv_tensors_raw(&p->file, "widths", "U8", 1, n_dims, shape + at, &p->widths, e);
    if (rc) {
        struct kv_error why = *e;
        return kv_fail(e, rc, why.where, "%s; this model takes U8 %s%u, %u, 2]", why.msg,
                       at ? "[" : "[tokens, ", s->n_layers, s->n_kv_heads);
    }
    *rows = at ? 1 : shape[0];
    return at ? 0 : place_items(p, *rows, e);
}

// ---- what stands in it -------------------------------------------------------------------

static size_t item_of_row(const struct plan *p, size_t row) {
    size_t low = 0, high = p->n_items; // first[low] <= row < first[high]
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        *(p->first[middle] <= row ? &low : &high) = middle;
    }
    return low;
}

// "item 3 of the file, token 5, layer 2, KV head 0, key"
static void name_cell(const struct plan *p, const struct kv_shape *s, size_t at, char *text,
                      size_t room) {
    size_t row = at / p->cells, cell = at % p->cells, by_layer = 2 * (size_t)s->n_kv_heads;
    int n = 0;
    *text = 0;
    if (p->n_items) {
        size_t item = item_of_row(p, row);
        n = snprintf(text, room, "item %zu of the file, token %zu, ", item, row - p->first[item]);
    }
    snprintf(text + n, room - (size_t)n, "layer %zu, KV head %zu, %s", cell / by_layer,
             cell % by_layer / 2, cell % 2 ? "value" : "key");
}

// Every width must be one that the format stores; a key and its value are evicted together.
static int check_widths(const struct plan *p, const struct kv_run *run, size_t rows, bool seen[256],
                        struct kv_error *e) {
    char where[96];
    for (size_t i = 0; i < rows * p->cells; i++) {
        uint8_t bits = p->widths[i];
        seen[bits] = true;
        if (p->index[bits] == NO_INDEX) {
            struct kv_error offered = {0};
            int rc = kv_width_refused(run, bits, &offered);
            name_cell(p, &run->shape, i, where, sizeof where);
            return kv_fail(e, rc, p->file.path, "%s: %s", where, offered.msg);
        }
        if (bits == EVICTED_BITS && p->widths[i ^ 1] != EVICTED_BITS) {
            name_cell(p, &run->shape, i, where, sizeof where);
            return kv_fail(e, KV_EFAIL, p->file.path,
                           "%s: evicted (0) without the other of key and value", where);
        }
    }
    return 0;
}

// Along which axes the widths differ: what a reader needs tags for.
static uint32_t axes_of(const struct plan *p, const struct kv_shape *s, size_t rows) {
    static const uint32_t axis[] = {KV_VARIES_TOKEN, KV_VARIES_LAYER, KV_VARIES_HEAD, KV_VARIES_KV};
    size_t by_layer = 2 * (size_t)s->n_kv_heads, item = 0;
    uint32_t varies = 0;
    for (size_t row = 0; row < rows; row++) {
        while (p->n_items && row >= p->first[item + 1]) item++;
        const uint8_t *now = p->widths + row * p->cells,
                      *start = p->widths + (p->n_items ? p->first[item] : 0) * p->cells;
        for (size_t c = 0; c < p->cells; c++) {
            const uint8_t from[] = {start[c], now[c % by_layer],
                                    now[c / by_layer * by_layer + c % 2], now[c & ~(size_t)1]};
            for (size_t a = 0; a < 4; a++) varies |= from[a] != now[c] ? axis[a] : 0;
        }
    }
    return varies;
}

// "token/layer/kv" as the metadata has it, or -1 for a word that is none.
static int64_t axes_named(const char *text) {
    static const struct {
        const char *name;
        uint32_t axis;
    } known[] = {{"token", KV_VARIES_TOKEN},
                 {"layer", KV_VARIES_LAYER},
                 {"head", KV_VARIES_HEAD},
                 {"kv", KV_VARIES_KV},
                 {"position", KV_VARIES_POSITION}};
    uint32_t axes = 0;
    while (*text) {
        size_t n = strcspn(text, "/"), k = 0;
        while (k < 5 && (strlen(known[k].name) != n || memcmp(text, known[k].name, n) != 0)) k++;
        if (k == 5) return -1;
        axes |= known[k].axis;
        text += n + (text[n] == '/');
    }
    return axes;
}

// What the metadata says of tags and of the future; without it, what the widths show.
static int read_texts(struct plan *p, const struct kv_shape *s, size_t rows, const bool seen[256],
                      struct kv_error *e) {
    char text[64], *end;
    uint32_t shown = axes_of(p, s, rows), different = 0;
    for (size_t b = 0; b < 256; b++) different += seen[b];
    p->varies = shown;
    p->options = different;
    kv_tensors_text(&p->file, "varies", text, sizeof text);
    if (*text) {
        int64_t axes = axes_named(text);
        if (axes < 0)
            return kv_fail(e, KV_EFAIL, p->file.path,
                           "varies '%s': token, layer, head, kv, position are expected, with "
                           "slashes between",
                           text);
        p->varies = (uint32_t)axes;
        if (axes & KV_VARIES_POSITION) shown &= ~(uint32_t)KV_VARIES_TOKEN;
        if (shown & ~p->varies)
            return kv_fail(e, KV_EFAIL, p->file.path,
                           "its widths differ along an axis that varies '%s' leaves out", text);
    }
    kv_tensors_text(&p->file, "options", text, sizeof text);
    if (*text) {
        unsigned long n = strtoul(text, &end, 10);
        // 1: a reader knows the widths from what it has, as those of class; so it may evicted cells
        uint32_t kept = different - seen[EVICTED_BITS];
        if (*end || n == 0 || (n > 1 && n < kept) || n > KV_MAX_WIDTHS + 2)
            return kv_fail(e, KV_EFAIL, p->file.path,
                           "options '%s': a cell has one of %u widths here; 1 where no tags are "
                           "needed, and at most %d",
                           text, kept, KV_MAX_WIDTHS + 2);
        p->options = (uint32_t)n;
    }
    kv_tensors_text(&p->file, "causal", text, sizeof text);
    if (*text && strcmp(text, "yes") != 0 && strcmp(text, "no") != 0)
        return kv_fail(e, KV_EFAIL, p->file.path, "causal '%s': yes or no is expected", text);
    p->causal = strcmp(text, "yes") == 0 || p->n_items == 0;
    kv_tensors_text(&p->file, "trace", p->trace, sizeof p->trace);
    if (p->n_items && !*p->trace)
        return kv_fail(e, KV_EFAIL, p->file.path,
                       "does not say of which recording it is: metadata trace is to hold "
                       "manifest_xxh64 of the trace's manifest.json");
    return 0;
}

// ---- the policy --------------------------------------------------------------------------

static int plan_open(void **self, const struct kv_run *run, const struct kv_args *args,
                     struct kv_error *e) {
    const struct kv_value *digest = kv_arg(args, "digest");
    const char *path = kv_arg(args, "file")->text;
    struct plan *p = calloc(1, sizeof *p);
    size_t rows = 0;
    bool seen[256] = {false};
    if (!p) return kv_fail(e, KV_ENOMEM, "policy plan", "out of memory");
    *self = p;
    p->cells = kv_cells(&run->shape);
    memset(p->index, NO_INDEX, sizeof p->index);
    for (size_t i = 0; i < run->n_widths; i++) p->index[run->width_bits[i]] = (uint8_t)i;
    p->index[EVICTED_BITS] = KV_EVICT;
    p->index[FLOAT32_BITS] = KV_FLOAT32;
    if (strlen(path) >= sizeof p->file.path)
        return kv_fail(e, KV_EUSAGE, "policy plan", "file: a path below %zu characters",
                       sizeof p->file.path);
    int rc = kv_tensors_open(&p->file, path, e);
    if (rc) return rc;
    if (digest->given && strcmp(digest->text, p->file.digest) != 0)
        return kv_fail(e, KV_EFAIL, path, "has digest %s, not %s as the spec says", p->file.digest,
                       digest->text);
    rc = take_widths(p, &run->shape, &rows, e);
    if (rc == 0) rc = check_widths(p, run, rows, seen, e);
    return rc ? rc : read_texts(p, &run->shape, rows, seen, e);
}

// A plan is of one recording: its items are known by their keys, its rows by the tokens.
static int plan_fit(void *self, const struct kv_fitting *f, struct kv_error *e) {
    struct plan *p = self;
    if (*p->trace && strcmp(p->trace, f->trace_digest) != 0 && strcmp(p->trace, f->trace_seal) != 0)
        return kv_fail(e, KV_EFAIL, p->file.path,
                       "is a plan of recording %s; this one is %s (digest), %s (manifest_xxh64)",
                       p->trace, f->trace_digest, f->trace_seal);
    p->held = true;
    return 0;
}

static const uint8_t *rows_of(const struct plan *p, const struct kv_item *item,
                              struct kv_error *e) {
    size_t low = 0, high = p->n_items;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (p->places[middle].key < item->key)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == p->n_items || p->places[low].key != item->key) {
        kv_fail(e, KV_EFAIL, p->file.path, "holds no widths for key %016llx",
                (unsigned long long)item->key);
        return NULL;
    }
    size_t at = p->places[low].item, n = p->first[at + 1] - p->first[at];
    if (n == item->n_tokens) return p->widths + p->first[at] * p->cells;
    kv_fail(e, KV_EFAIL, p->file.path, "holds %zu tokens of key %016llx, which has %u", n,
            (unsigned long long)item->key, item->n_tokens);
    return NULL;
}

static int plan_plan(void *self, const struct kv_item *item, uint8_t *cells, struct kv_error *e) {
    const struct plan *p = self;
    if (!p->held) return kv_fail(e, KV_EFAIL, p->file.path, "was not held against a recording");
    const uint8_t *from = p->n_items ? rows_of(p, item, e) : p->widths;
    if (!from) return KV_EFAIL;
    for (size_t i = 0; i < item->n_tokens * p->cells; i++)
        cells[i] = p->index[from[p->n_items ? i : i % p->cells]];
    return 0;
}

// Another file under the same name is another policy.
static void plan_canonical(void *self, const struct kv_run *run, char *text, size_t room) {
    const struct plan *p = self;
    (void)run;
    snprintf(text, room, "plan:digest=%s,file=%s", p->file.digest, p->file.path);
}

static uint32_t plan_varies(void *self) {
    return ((const struct plan *)self)->varies;
}

static uint32_t plan_options(void *self) {
    return ((const struct plan *)self)->options;
}

// Whether widths came of later tokens, a file cannot show: it is believed where it says so.
static uint32_t plan_needs(void *self) {
    return ((const struct plan *)self)->causal ? 0 : KV_NEED(KV_ATTN_FUTURE);
}

static void plan_close(void *self) {
    struct plan *p = self;
    if (!p) return;
    kv_tensors_close(&p->file);
    free(p->first);
    free(p->places);
    free(p);
}

const struct kv_policy kv_policy_plan = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "plan",
    .summary =
        "widths from a file: of each item's cells (an oracle unless the file says causal), or of "
        "layers and heads",
    .tag = "baseline",
    .params = params,
    .varies = KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_HEAD | KV_VARIES_KV,
    .needs = KV_NEED(KV_ATTN_FUTURE),
    .open = plan_open,
    .plan = plan_plan,
    .canonical = plan_canonical,
    .varies_as_opened = plan_varies,
    .options_as_opened = plan_options,
    .close = plan_close,
    .needs_as_opened = plan_needs,
    .fit = plan_fit,
};
