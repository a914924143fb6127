// SPDX-License-Identifier: Apache-2.0
// mlp: a token's width, or that of each of its layers or cells (grain=), is the class that a small
// network picks from four features. The controller
// of Don't Waste Bits; `kvsim train mlp` makes its weights.
#include "policies/weights.h"
#include "sim/base/blas.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_mlp;

// Tokens are always computed in blocks of this many rows, so that a token's answer never depends on
// how many others are decided with it.
enum { BLOCK = 64, INPUTS = 4 };

static const struct kv_param params[] = {
    {"weights", KV_TEXT, NULL, 0, 0, NULL, NULL, "safetensors file of the network"},
    {"bits", KV_LIST, "2/4/8/16", 1, 16, NULL, "bits", "width of each class, in the net's order"},
    {"grain", KV_CHOICE, "token", 0, 0, "token/layer/kv/cell", NULL,
     "what shares a class: a token, as in the paper; a layer of it; a layer's K or V; nothing. The "
     "network then has its classes once for each"},
    {"digest", KV_TEXT, "", 0, 0, NULL, NULL, "of the file; checked where it is given"},
    {0}};

static const uint32_t inputs[INPUTS] = {KV_ENTROPY_NATS, KV_RARITY_NATS, KV_ATTN_VAR,
                                        KV_CONFIDENCE};

struct controller {
    struct kv_net net;
    char path[256];
    size_t n, cells, units, widest; // classes; cells and units of a token; outputs of a layer
    struct kv_shape shape;
    enum kv_net_grain grain;
    double bits[KV_MAX_WIDTHS];
    uint8_t index[KV_MAX_WIDTHS];
};

static int mlp_open(void **self, const struct kv_run *run, const struct kv_args *args,
                    struct kv_error *e) {
    const struct kv_value *bits = kv_arg(args, "bits"), *digest = kv_arg(args, "digest");
    const char *path = kv_arg(args, "weights")->text;
    struct controller *c = calloc(1, sizeof *c);
    if (!c) return kv_fail(e, KV_ENOMEM, "mlp", "out of memory");
    *self = c;
    c->n = bits->n_list;
    c->cells = kv_cells(&run->shape);
    c->shape = run->shape;
    c->grain = (enum kv_net_grain)kv_number(args, "grain");
    c->units = kv_net_units(&c->shape, c->grain);
    if (strlen(path) >= sizeof c->path)
        return kv_fail(e, KV_EUSAGE, "policy mlp", "weights: a path below %zu characters",
                       sizeof c->path);
    strcpy(c->path, path);
    int rc = kv_blas_open(e);
    if (rc == 0) rc = kv_net_open(&c->net, path, e);
    if (rc) return rc;
    if (digest->given && strcmp(digest->text, c->net.file.digest) != 0)
        return kv_fail(e, KV_EFAIL, path, "has digest %s, not %s as the spec says",
                       c->net.file.digest, digest->text);
    if (*c->net.inputs && strcmp(c->net.inputs, KV_NET_INPUTS) != 0)
        return kv_fail(e, KV_EFAIL, path,
                       "was trained on other inputs than policy mlp gives it (%s, where rarity "
                       "counts the distinct tokens seen); train it again",
                       KV_NET_INPUTS);
    if (c->n > KV_MAX_WIDTHS || c->net.width[0] != INPUTS ||
        c->net.width[KV_NET_LAYERS] != c->n * c->units)
        return kv_fail(
            e, KV_EUSAGE, path,
            "maps %zu inputs to %zu classes where %d and %zu (bits=%s, grain=%s) are expected",
            c->net.width[0], c->net.width[KV_NET_LAYERS], INPUTS, c->n * c->units, bits->text,
            kv_net_grains[c->grain]);
    for (size_t l = 0; l <= KV_NET_LAYERS; l++)
        if (c->net.width[l] > c->widest) c->widest = c->net.width[l];
    for (size_t i = 0; i < c->n; i++) {
        int index = kv_width_index(run, bits->list[i]);
        if (index < 0) return kv_width_refused(run, bits->list[i], e);
        c->bits[i] = bits->list[i];
        c->index[i] = (uint8_t)index;
    }
    return 0;
}

// y[BLOCK][out] = x[BLOCK][in] weight^T + bias
static void layer(const struct kv_net *net, size_t l, const float *x, float *y) {
    size_t in = net->width[l], out = net->width[l + 1];
    for (size_t r = 0; r < BLOCK; r++) memcpy(y + r * out, net->bias[l], out * sizeof *y);
    kv_sgemm(false, true, BLOCK, out, in, x, in, net->weight[l], in, 1, y, out);
}

// Features of a block's rows; the others are 0.
static int load(const struct kv_item *item, size_t first, size_t rows, float *x,
                struct kv_error *e) {
    memset(x, 0, BLOCK * INPUTS * sizeof *x);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < INPUTS; i++) {
            x[r * INPUTS + i] = item->tokens[first + r].feature[inputs[i]];
            if (!isfinite(x[r * INPUTS + i]))
                return kv_fail(e, KV_EFAIL, "policy mlp", "a feature of token %zu is no number",
                               first + r);
        }
    return 0;
}

// The best class of each unit, the first of equal ones, for its cells.
static void pick(const struct controller *c, const float *score, uint8_t *cells) {
    for (size_t cell = 0; cell < c->cells; cell++) {
        const float *of = score + kv_net_unit(&c->shape, c->grain, cell) * c->n;
        size_t best = 0;
        for (size_t i = 1; i < c->n; i++)
            if (of[i] > of[best]) best = i;
        cells[cell] = c->index[best];
    }
}

static int mlp_decide(void *self, const struct kv_item *item, size_t first, size_t n,
                      uint8_t *cells, struct kv_error *e) {
    const struct controller *c = self;
    float *a = malloc(2 * BLOCK * c->widest * sizeof *a), *b = a + BLOCK * c->widest;
    int rc = a ? 0 : kv_fail(e, KV_ENOMEM, "mlp", "out of memory");
    for (size_t done = 0; done < n && rc == 0; done += BLOCK) {
        size_t rows = n - done < BLOCK ? n - done : BLOCK;
        rc = load(item, first + done, rows, a, e);
        if (rc) break;
        for (size_t l = 0; l < KV_NET_LAYERS; l++) {
            float *x = l % 2 ? b : a, *y = l % 2 ? a : b;
            layer(&c->net, l, x, y);
            for (size_t i = 0; l + 1 < KV_NET_LAYERS && i < BLOCK * c->net.width[l + 1]; i++)
                y[i] = y[i] > 0 ? y[i] : 0;
        }
        const float *score = KV_NET_LAYERS % 2 ? b : a;
        for (size_t r = 0; r < rows; r++, cells += c->cells)
            pick(c, score + r * c->n * c->units, cells);
    }
    free(a);
    return rc;
}

// The weights' digest is part of the policy: another file under the same name is another policy.
static void mlp_canonical(void *self, const struct kv_run *run, char *text, size_t room) {
    const struct controller *c = self;
    (void)run;
    int n = snprintf(text, room, "mlp:bits=");
    for (size_t i = 0; i < c->n && n > 0 && (size_t)n < room; i++)
        n += snprintf(text + n, room - (size_t)n, "%s%g", i ? "/" : "", c->bits[i]);
    if (n > 0 && (size_t)n < room) // a token's grain goes without saying: as stores have it
        n += snprintf(text + n, room - (size_t)n, ",digest=%s%s%s", c->net.file.digest,
                      c->grain == KV_NET_TOKEN ? "" : ",grain=",
                      c->grain == KV_NET_TOKEN ? "" : kv_net_grains[c->grain]);
    if (n > 0 && (size_t)n < room) snprintf(text + n, room - (size_t)n, ",weights=%s", c->path);
}

static uint32_t mlp_varies(void *self) {
    switch (((const struct controller *)self)->grain) {
    case KV_NET_CELL:
        return KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_HEAD | KV_VARIES_KV;
    case KV_NET_KV:
        return KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_KV;
    case KV_NET_LAYER:
        return KV_VARIES_TOKEN | KV_VARIES_LAYER;
    default:
        return KV_VARIES_TOKEN;
    }
}

static uint32_t mlp_options(void *self) {
    return (uint32_t)((const struct controller *)self)->n;
}

static void mlp_close(void *self) {
    struct controller *c = self;
    if (c) kv_net_close(&c->net);
    free(c);
}

const struct kv_policy kv_policy_mlp = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "mlp",
    .summary = "a small network picks each token's width from four features",
    .citation = "Don't Waste Bits, arXiv 2604.04722 (sections 3 and 4; labels and loss weights are "
                "not given there)",
    .tag = "faithful",
    .params = params,
    .varies = KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_HEAD | KV_VARIES_KV,
    .varies_as_opened = mlp_varies,
    .needs = KV_NEED(KV_ENTROPY_NATS) | KV_NEED(KV_RARITY_NATS) | KV_NEED(KV_ATTN_VAR) |
             KV_NEED(KV_CONFIDENCE),
    .open = mlp_open,
    .decide = mlp_decide,
    .canonical = mlp_canonical,
    .options_as_opened = mlp_options,
    .close = mlp_close,
};
