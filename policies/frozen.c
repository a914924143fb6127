// SPDX-License-Identifier: Apache-2.0
// frozen: what policy cells learned, as a table of widths by class of position and place (layer, KV
// head, K or V): nothing is computed when a token comes.
//
// width = argmin over w of the mean loss of the class and place at w + lambda bits(w), lambda the
// one at which the positions of a step of 16 tokens take the budget. The means are in the weights
// that `kvsim train cells` writes.
#include "policies/cells_choice.h"
#include "policies/cells_weights.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_frozen;

static const struct kv_param params[] = {
    {"bits", KV_FLOAT, NULL, 1, 32, NULL, "bits a value", "budget: allocated bits"},
    {"weights", KV_TEXT, "shipped", 0, 0, NULL, NULL,
     "safetensors file of kvsim train cells; shipped: those that travel with kvsim, by the model's "
     "digest"},
    {"digest", KV_TEXT, "", 0, 0, NULL, NULL, "of the weights; checked where it is given"},
    {"widths", KV_LIST, "2/3/4/5/6/8", 1, 16, NULL, "bits",
     "to choose from; those of training where it is not given"},
    {0}};

struct frozen {
    struct kv_cells_weights model;
    struct kv_cells_choice choice;
    struct kv_run run;
    char source[256];
    double bits;
    size_t places;
    uint8_t *width; // [KV_CELLS_CLASSES][places] index among the format's; owned
};

// Positions of each class, as far as a step tells them apart: of the first 1, 3 and 12.
static double positions(size_t class) {
    static const double first[] = {1, 3, 12};
    return class < 3 ? first[class] : KV_CELLS_STEP_TOKENS;
}

// Picks widths of classes [from, to) at a lambda; returns the mean bits of their positions.
static double pick(struct frozen *f, size_t from, size_t to, double lambda) {
    double bits = 0, values = 0, ratio[KV_MAX_WIDTHS];
    const struct kv_cells_choice *c = &f->choice;
    for (size_t w = 0; w < c->n_widths; w++)
        ratio[w] = kv_cells_ratio(&f->model, KV_CHOICE_CELL, f->run.width_bits[c->width[w]]);
    for (size_t k = from; k < to; k++)
        for (size_t p = 0; p < f->places; p++) {
            size_t best = 0;
            double least = INFINITY;
            for (size_t w = 0; w < c->n_widths; w++) {
                double cost = exp((double)f->model.table[k * f->places + p] + ratio[w]) +
                              lambda * c->cell_bits[p & 1][w];
                if (cost < least) least = cost, best = w;
            }
            f->width[k * f->places + p] = c->width[best];
            bits += positions(k) * c->cell_bits[p & 1][best];
            values += positions(k) * (double)c->head_dim;
        }
    return bits / values;
}

// The least lambda at which they take at most the budget.
static void freeze(struct frozen *f, size_t from, size_t to) {
    double low = -80, high = 80;
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        if (pick(f, from, to, exp(middle)) > f->bits)
            low = middle;
        else
            high = middle;
    }
    pick(f, from, to, exp(high));
}

static int choose_widths(struct frozen *f, const struct kv_value *given, struct kv_error *e) {
    int rc = 0;
    const double *from = given->given ? given->list : f->model.listed;
    size_t n = given->given ? given->n_list : f->model.n_listed;
    if (n > KV_MAX_WIDTHS)
        return kv_fail(e, KV_EUSAGE, "policy frozen", "up to %d widths", KV_MAX_WIDTHS);
    for (size_t i = 0; i < n && rc == 0; i++)
        if (given->given || kv_width_index(&f->run, from[i]) >= 0)
            rc = kv_cells_choice_add(&f->choice, &f->run, from[i], e);
    if (rc == 0 && f->choice.n_widths == 0)
        rc = kv_fail(e, KV_EUSAGE, "policy frozen", "format %s offers none of the widths %s",
                     f->run.format, f->model.widths);
    return rc;
}

static int frozen_open(void **self, const struct kv_run *run, const struct kv_args *args,
                       struct kv_error *e) {
    struct frozen *f = calloc(1, sizeof *f);
    if (!f) return kv_fail(e, KV_ENOMEM, "frozen", "out of memory");
    *self = f;
    f->run = *run;
    f->bits = kv_number(args, "bits");
    f->places = kv_cells(&run->shape);
    int rc = kv_cells_weights_find(&f->model, run, args, f->source, sizeof f->source, e);
    if (rc) return rc;
    if (!f->model.table)
        return kv_fail(e, KV_EFAIL, f->model.file.path,
                       "holds no table by class and place; kvsim train cells --again adds one");
    rc = choose_widths(f, kv_arg(args, "widths"), e);
    if (rc) return rc;
    double least = kv_cells_choice_bits(&f->choice, 0),
           most = kv_cells_choice_bits(&f->choice, f->choice.n_widths - 1);
    if (f->bits < least || f->bits > most)
        return kv_fail(e, KV_EUSAGE, "policy frozen",
                       "bits=%g cannot be met: these widths take %.3f to %.3f", f->bits, least,
                       most);
    f->width = malloc(KV_CELLS_CLASSES * f->places);
    if (!f->width) return kv_fail(e, KV_ENOMEM, "frozen", "out of memory");
    freeze(f, 0, 3);
    for (size_t k = 3; k < KV_CELLS_CLASSES; k++) freeze(f, k, k + 1);
    return 0;
}

static int frozen_decide(void *self, const struct kv_item *item, size_t first, size_t n,
                         uint8_t *cells, struct kv_error *e) {
    const struct frozen *f = self;
    (void)e;
    for (size_t t = first; t < first + n; t++, cells += f->places)
        memcpy(cells, f->width + kv_cells_class(item->tokens[t].pos) * f->places, f->places);
    return 0;
}

static int frozen_fit(void *self, const struct kv_fitting *g, struct kv_error *e) {
    return kv_cells_weights_fit(&((const struct frozen *)self)->model, g, e);
}

static void frozen_canonical(void *self, const struct kv_run *run, char *text, size_t room) {
    const struct frozen *f = self;
    char widths[64] = "";
    for (size_t w = 0, n = 0; w < f->choice.n_widths; w++)
        n += (size_t)snprintf(widths + n, sizeof widths - n, "%s%u", w ? "/" : "",
                              run->width_bits[f->choice.width[w]]);
    snprintf(text, room, "frozen:bits=%g,digest=%s,weights=%s,widths=%s", f->bits,
             f->model.file.digest, f->source, widths);
}

// A reader knows a token's class from where it lies: no tags.
static uint32_t frozen_options(void *self) {
    (void)self;
    return 1;
}

static void frozen_close(void *self) {
    struct frozen *f = self;
    if (!f) return;
    kv_cells_weights_close(&f->model);
    free(f->width);
    free(f);
}

const struct kv_policy kv_policy_frozen = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "frozen",
    .summary = "what cells learned as a fixed table of widths by class of position and place",
    .tag = "baseline",
    .params = params,
    .varies = KV_VARIES_POSITION | KV_VARIES_LAYER | KV_VARIES_HEAD | KV_VARIES_KV,
    .open = frozen_open,
    .decide = frozen_decide,
    .canonical = frozen_canonical,
    .options_as_opened = frozen_options,
    .fit = frozen_fit,
    .close = frozen_close,
};
