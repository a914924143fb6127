// SPDX-License-Identifier: Apache-2.0
// cells: a width for every (token, layer, KV head, K or V), decided by the layer that codes it,
// from a learned sensitivity of the cell and what coding it would cost at each width.
//
// width = argmin over w of 0.5 s sum_i m_i e_i(w)^2 + lambda bits(w). log s comes from
// cells_weights.h; e(w) from trial coding. Lambda starts where training met the budget; hold=run
// moves it, layer by layer, by the bits that the sequence has taken. `kvsim train cells` makes the
// weights.
#include "policies/cells_plain.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_cells;

enum hold { HOLD_RUN, HOLD_HARD, HOLD_NONE, HOLD_MATCHED };
enum { TURNS_MOST = 12 }; // of matching
#define MATCHED_BITS 0.005
// What the first steps of a sequence start below the budget: it may end before it can be led back,
// and is led back to the budget if it goes on.
#define SHORT_OF_BITS 0.10

static const struct kv_param params[] = {
    {"bits", KV_FLOAT, NULL, 1, 32, NULL, "bits a value",
     "budget: allocated bits, metadata and width tags counted"},
    {"weights", KV_TEXT, "shipped", 0, 0, NULL, NULL,
     "safetensors file of kvsim train cells; shipped: those that travel with kvsim, by the model's "
     "digest"},
    {"digest", KV_TEXT, "", 0, 0, NULL, NULL, "of the weights; checked where it is given"},
    {"hold", KV_CHOICE, "run", 0, 0, "run/hard/none/matched", NULL,
     "run: each layer is led back to its share of the budget; hard: and never above it by more "
     "than a page "
     "of 64 tokens; none: lambda as in training; matched: lambda found on the items judged, for "
     "comparing "
     "rules"},
    {"grain", KV_CHOICE, "cell", 0, 0, "cell/kv/layer", NULL,
     "what shares a width: nothing, the heads of K or V, a whole layer; as trained where it is not "
     "given"},
    {"widths", KV_LIST, "2/3/4/5/6/8", 1, 16, NULL, "bits",
     "to choose from; those of training where it is not given"},
    {"features", KV_CHOICE, "stored", 0, 0, "stored/exact", NULL,
     "earlier keys that a token's attention features read: as stored, or before coding"},
    {"error", KV_CHOICE, "trial", 0, 0, "trial/scaled/range", NULL,
     "coding errors: tried at each width; tried at 4 bits and scaled by (15 / (2^w - 1))^2; or, "
     "without coding, "
     "a twelfth of the squared step that a group's range takes (formats asym and sym)"},
    {"gain", KV_FLOAT, "0.75", 0, 4, NULL, NULL,
     "hold=run, hard: how far log lambda moves for a step of 16 tokens that took a bit a value too "
     "many"},
    {"scale", KV_FLOAT, "1", 1e-9, 1e9, NULL, NULL, "lambda times this"},
    {0}};

struct cells {
    struct kv_cells_weights model;
    struct kv_run run;
    char source[256]; // weights= as it is written back
    enum hold hold;
    struct kv_cells_choice choice;
    bool exact_keys, scale_given, matching;
    double bits;
    struct {
        double at, off; // log scale, bits beyond the budget
        bool known;
    } end[2]; // of matching: where too few and where too many bits were taken
    unsigned turns;
    struct kv_cells_hold budget;
    double *share;   // the budget's
    double tag_bits; // a value
};

// ---- opening --------------------------------------------------------------------------

// Those given; or of training's those that the format offers.
static int choose_widths(struct cells *c, const struct kv_value *given, struct kv_error *e) {
    int rc = 0;
    if (given->given && given->n_list > KV_MAX_WIDTHS)
        return kv_fail(e, KV_EUSAGE, "policy cells", "up to %d widths", KV_MAX_WIDTHS);
    for (size_t i = 0; given->given && i < given->n_list && rc == 0; i++)
        rc = kv_cells_choice_add(&c->choice, &c->run, given->list[i], e);
    for (const char *at = c->model.widths; !given->given && *at && rc == 0;) {
        char *end;
        double bits = strtod(at, &end);
        if (end == at) break;
        if (kv_width_index(&c->run, bits) >= 0 && c->choice.n_widths < KV_MAX_WIDTHS)
            rc = kv_cells_choice_add(&c->choice, &c->run, bits, e);
        at = end + (*end == '/');
    }
    if (rc == 0 && c->choice.n_widths == 0)
        rc = kv_fail(e, KV_EUSAGE, "policy cells", "format %s offers none of the widths %s",
                     c->run.format, c->model.widths);
    return rc;
}

// Bits beyond the codes of the run's format, nearest to 4 bits.
static double overhead(const struct cells *c) {
    size_t middle = kv_cells_choice_middle(&c->choice, &c->run);
    return kv_cells_choice_bits(&c->choice, middle) - c->run.width_bits[c->choice.width[middle]];
}

static uint32_t cells_varies(void *self) {
    const struct cells *c = self;
    return KV_VARIES_TOKEN | KV_VARIES_LAYER |
           (c->choice.grain == KV_CHOICE_LAYER ? 0 : KV_VARIES_KV) |
           (c->choice.grain == KV_CHOICE_CELL ? KV_VARIES_HEAD : 0);
}

static uint32_t cells_options(void *self) {
    return (uint32_t)((const struct cells *)self)->choice.n_widths;
}

// Whether grain or widths are others than those of training, whose curve then says little.
static bool differs(const struct cells *c) {
    static const char *const grains[] = {"cell", "kv", "layer"};
    bool other = strcmp(c->model.grain, grains[c->choice.grain]) != 0 ||
                 c->choice.n_widths != c->model.n_listed;
    for (size_t w = 0; w < c->choice.n_widths && !other; w++)
        other = c->run.width_bits[c->choice.width[w]] != c->model.listed[w];
    return other;
}

static struct kv_cells_offer offer(const struct cells *c) {
    size_t heads = c->choice.grain == KV_CHOICE_CELL ? 1 : c->run.shape.n_kv_heads;
    struct kv_cells_offer o = {.n_widths = c->choice.n_widths, .spread = c->choice.grain};
    o.values =
        (double)(heads * c->run.shape.head_dim) * (c->choice.grain == KV_CHOICE_LAYER ? 2 : 1);
    for (size_t w = 0; w < o.n_widths; w++) {
        o.width[w] = c->run.width_bits[c->choice.width[w]];
        o.bits[w] = o.values * kv_cells_choice_bits(&c->choice, w);
    }
    return o;
}

// The budget without tags, as lambda and as the share of each layer, by steps of a
// sequence: a sequence's first tokens are worth more, and what is short must keep the budget too.
static int set_budget(struct cells *c, struct kv_error *e) {
    const struct kv_shape *s = &c->run.shape;
    double values = 2.0 * s->n_layers * s->n_kv_heads * s->head_dim;
    c->tag_bits = kv_tag_bits(s, cells_varies(c), cells_options(c)) / values;
    double target = c->bits - c->tag_bits,
           more = c->model.budgets_of ? 0 : overhead(c) - c->model.overhead_bits;
    double least = kv_cells_choice_bits(&c->choice, 0),
           most = kv_cells_choice_bits(&c->choice, c->choice.n_widths - 1);
    if (target < least || target > most)
        return kv_fail(
            e, KV_EUSAGE, "policy cells",
            "bits=%g cannot be met: with tags of %.3f bits a value, these widths take %.3f to %.3f",
            c->bits, c->tag_bits, least + c->tag_bits, most + c->tag_bits);
    size_t n = s->n_layers;
    const struct kv_cells_offer o = offer(c);
    bool by_spread = c->model.spread && differs(c);
    c->share = malloc(KV_CELLS_STEPS * n * sizeof *c->share);
    if (!c->share) return kv_fail(e, KV_ENOMEM, "policy cells", "out of memory");
    double *lambda = c->budget.lambda;
    c->budget.share = c->share;
    for (size_t k = 0; k < KV_CELLS_STEPS; k++) {
        double *layer = c->share + k * n, sum = 0;
        double aim = target - (c->budget.held && k + 1 < KV_CELLS_STEPS ? SHORT_OF_BITS : 0);
        lambda[k] = by_spread ? kv_cells_spread_lambda(&c->model, &o, k, aim, layer)
                              : kv_cells_lambda(&c->model, k, aim - more, layer);
        if (isnan(lambda[k])) return kv_fail(e, KV_ENOMEM, "policy cells", "out of memory");
        for (size_t l = 0; l < n; l++) sum += layer[l] / (double)n;
        for (size_t l = 0; l < n; l++) // shared as was learned, the mean as asked for
            layer[l] = fmin(fmax(layer[l] + target - sum, least), most);
    }
    // A set's bits are met as a whole: no step of a sequence must keep the budget by itself.
    for (size_t k = 0; c->hold == HOLD_MATCHED && k < KV_CELLS_STEPS; k++)
        lambda[k] = lambda[KV_CELLS_STEPS - 1];
    return 0;
}

static int cells_open(void **self, const struct kv_run *run, const struct kv_args *args,
                      struct kv_error *e) {
    struct cells *c = calloc(1, sizeof *c);
    if (!c) return kv_fail(e, KV_ENOMEM, "cells", "out of memory");
    *self = c;
    c->run = *run;
    c->bits = kv_number(args, "bits");
    c->hold = (enum hold)kv_number(args, "hold");
    c->choice.grain = (enum kv_cells_shares)kv_number(args, "grain");
    c->choice.error = (enum kv_cells_error)kv_number(args, "error");
    c->exact_keys = kv_number(args, "features") > 0;
    c->budget.n_layers = run->shape.n_layers;
    c->budget.held = c->hold == HOLD_RUN || c->hold == HOLD_HARD;
    c->budget.hard = c->hold == HOLD_HARD;
    c->budget.scale = kv_number(args, "scale");
    c->budget.gain = kv_number(args, "gain");
    c->scale_given = kv_arg(args, "scale")->given;
    if (2u * run->shape.n_kv_heads > KV_CELLS_ROW)
        return kv_fail(e, KV_EFAIL, "policy cells", "serves up to %d KV heads", KV_CELLS_ROW / 2);
    int rc = kv_cells_weights_find(&c->model, run, args, c->source, sizeof c->source, e);
    if (rc) return rc;
    if (!kv_arg(args, "grain")->given) { // as trained
        static const char *const grains[] = {"cell", "kv", "layer"};
        size_t g = 0;
        while (g < 3 && strcmp(c->model.grain, grains[g]) != 0) g++;
        if (g == 3)
            return kv_fail(e, KV_EFAIL, c->model.file.path,
                           "was trained for grain %s, which no layer can decide alone; give grain=",
                           c->model.grain);
        c->choice.grain = (enum kv_cells_shares)g;
    }
    rc = choose_widths(c, kv_arg(args, "widths"), e);
    if (rc == 0) rc = set_budget(c, e);
    return rc ? rc : kv_cells_choice_scale(&c->choice, &c->run, e);
}

static void cells_close(void *self) {
    struct cells *c = self;
    if (!c) return;
    kv_cells_weights_close(&c->model);
    free(c->share);
    free(c);
}

// The weights must be of the model that was recorded.
static int cells_fit(void *self, const struct kv_fitting *f, struct kv_error *e) {
    return kv_cells_weights_fit(&((const struct cells *)self)->model, f, e);
}

// ---- deciding -------------------------------------------------------------------------

static double row_bits(const struct cells *c, struct kv_cells_row *r,
                       const struct kv_cells_memory *m, uint32_t layer) {
    double lambda = kv_cells_price(&c->budget, m);
    return c->budget.hard ? kv_cells_choose_at_most(&c->choice, r, lambda,
                                                    kv_cells_most_bits(&c->budget, m, layer))
                          : kv_cells_choose(&c->choice, r, lambda);
}

static int check_scale(const struct cells *c, struct kv_error *e) {
    if (c->hold != HOLD_MATCHED || c->scale_given || c->matching) return 0;
    return kv_fail(e, KV_EUSAGE, "policy cells",
                   "hold=matched is led to its budget by exact replays of a set, which has not "
                   "been done here; give the scale= that they found");
}

static int cells_decide_layer(void *self, const struct kv_layer_rows *rows, void *state,
                              uint8_t *cells, struct kv_error *e) {
    const struct cells *c = self;
    struct kv_cells_memory *m = state;
    int rc = check_scale(c, e);
    if (rc) return rc;
    struct kv_cells_row r = {.n = 2 * (size_t)c->run.shape.n_kv_heads};
    size_t width = (size_t)c->run.shape.n_kv_heads * c->run.shape.head_dim;
    for (size_t i = 0; i < rows->n; i++, cells += r.n) {
        kv_cells_log_s(&c->model, rows, i, r.half_s);
        if (c->choice.error == KV_CELLS_RANGE)
            kv_cells_choice_ranges(&c->choice, rows->k + i * width, rows->v + i * width,
                                   c->model.channel + rows->layer * 2 * width, &r);
        else
            r.error = rows->error + i * r.n * c->run.n_widths;
        for (size_t cell = 0; cell < r.n; cell++) {
            if (!isfinite(r.half_s[cell]))
                return kv_fail(e, KV_EFAIL, "policy cells",
                               "a feature of token %zu in layer %u is no number", rows->first + i,
                               rows->layer);
            r.half_s[cell] = 0.5f * expf(r.half_s[cell]);
        }
        kv_cells_count(&c->budget, m, rows->layer, row_bits(c, &r, m, rows->layer));
        for (size_t cell = 0; cell < r.n; cell++) cells[cell] = c->choice.width[r.pick[cell]];
    }
    return 0;
}

static size_t cells_state_bytes(void *self) {
    (void)self;
    return sizeof(struct kv_cells_memory);
}

static const float *cells_error_weights(void *self) {
    return ((const struct cells *)self)->model.channel;
}

static uint32_t cells_error_widths(void *self) {
    const struct cells *c = self;
    uint32_t wanted = 0;
    if (c->choice.error == KV_CELLS_SCALED) return 1u << c->choice.tried;
    if (c->choice.error == KV_CELLS_RANGE) return 0;
    for (size_t w = 0; w < c->choice.n_widths; w++) wanted |= 1u << c->choice.width[w];
    return wanted;
}

static bool cells_reads_exact_keys(void *self) {
    return ((const struct cells *)self)->exact_keys;
}

static uint32_t cells_needs(void *self) {
    uint32_t groups = ((const struct cells *)self)->model.groups, needs = 0;
    if (groups >> KV_CELLS_PAPER & 1)
        needs |= KV_NEED(KV_ENTROPY_NATS) | KV_NEED(KV_CONFIDENCE) | KV_NEED(KV_RARITY_NATS) |
                 KV_NEED(KV_ATTN_VAR);
    if (groups >> KV_CELLS_TOKEN & 1) needs |= KV_NEED_SURPRISAL;
    return needs;
}

static int cells_plain(void *self, struct kv_plain_cells *to, struct kv_error *e) {
    const struct cells *c = self;
    const struct kv_cells_weights *m = &c->model;
    *to = (struct kv_plain_cells){.n_layers = m->shape.n_layers,
                                  .n_kv_heads = m->shape.n_kv_heads,
                                  .head_dim = m->shape.head_dim,
                                  .hidden = m->shape.hidden,
                                  .n_x = (uint32_t)m->n_x,
                                  .n_token = (uint32_t)m->n_token,
                                  .n_hidden = (uint32_t)m->n_hidden,
                                  .channel = m->channel,
                                  .bias = m->bias,
                                  .linear = m->linear,
                                  .probe = m->probe,
                                  .attention_mean = m->attention_mean,
                                  .attention_deviation = m->attention_deviation,
                                  .first = m->first,
                                  .place = m->place,
                                  .second = m->second,
                                  .second_bias = m->second_bias,
                                  .last = m->last,
                                  .last_bias = m->n_hidden ? m->last_bias[0] : 0,
                                  .choice = c->choice,
                                  .error_widths = cells_error_widths(self),
                                  .exact_keys = c->exact_keys,
                                  .budget = c->budget};
    return check_scale(c, e);
}

static void cells_plain_token(void *self, const struct kv_item *item, size_t row, float *x) {
    kv_cells_token_features(&((const struct cells *)self)->model, item, row, x);
}

// hold=matched: the scale of lambda at which the items judged take the budget. A bit a value is
// about 1.6 in log lambda; steps double until the budget is bracketed, then the bracket is cut
// where a line through its ends would, or halved.
static int cells_settle(void *self, double allocated_bits) {
    struct cells *c = self;
    if (c->hold != HOLD_MATCHED || c->scale_given) return 0;
    c->matching = true;
    if (isnan(allocated_bits)) return 1;
    double at = log(c->budget.scale), off = allocated_bits - c->bits, next;
    if (fabs(off) <= MATCHED_BITS || ++c->turns > TURNS_MOST) return 0;
    c->end[off > 0].at = at, c->end[off > 0].off = off, c->end[off > 0].known = true;
    if (c->end[0].known && c->end[1].known) {
        double low = c->end[1].at, span = c->end[0].at - low;
        double cut = c->turns % 3 ? c->end[1].off / (c->end[1].off - c->end[0].off) : 0.5;
        next = low + span * fmin(fmax(cut, 0.05), 0.95);
    } else
        next = at + ldexp(1.6 * off, (int)c->turns - 1);
    c->budget.scale = exp(next);
    return 1;
}

static void cells_canonical(void *self, const struct kv_run *run, char *text, size_t room) {
    static const char *const holds[] = {"run", "hard", "none", "matched"}, *const grains[] = {
                                                                               "cell", "kv",
                                                                               "layer"};
    static const char *const errors[] = {"trial", "scaled", "range"};
    const struct cells *c = self;
    char widths[64] = "";
    for (size_t w = 0, n = 0; w < c->choice.n_widths; w++)
        n += (size_t)snprintf(widths + n, sizeof widths - n, "%s%u", w ? "/" : "",
                              run->width_bits[c->choice.width[w]]);
    snprintf(text, room,
             "cells:bits=%g,digest=%s,error=%s,features=%s,gain=%g,grain=%s,hold=%s,scale=%.9g,"
             "weights=%s,"
             "widths=%s",
             c->bits, c->model.file.digest, errors[c->choice.error],
             c->exact_keys ? "exact" : "stored", c->budget.gain, grains[c->choice.grain],
             holds[c->hold], c->budget.scale, c->source, widths);
}

const struct kv_policy kv_policy_cells = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "cells",
    .summary = "a learned width for every cell, decided by the layer that codes it",
    .tag = "exact",
    .params = params,
    .varies = KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_HEAD | KV_VARIES_KV,
    .needs = KV_NEED(KV_ENTROPY_NATS) | KV_NEED(KV_CONFIDENCE) | KV_NEED(KV_RARITY_NATS) |
             KV_NEED(KV_ATTN_VAR) | KV_NEED_SURPRISAL,
    .open = cells_open,
    .canonical = cells_canonical,
    .varies_as_opened = cells_varies,
    .options_as_opened = cells_options,
    .close = cells_close,
    .needs_as_opened = cells_needs,
    .fit = cells_fit,
    .published_mode = KV_PUBLISHED_ANY,
    .decide_layer = cells_decide_layer,
    .layer_state_bytes = cells_state_bytes,
    .error_weights = cells_error_weights,
    .error_widths = cells_error_widths,
    .reads_exact_keys = cells_reads_exact_keys,
    .settle = cells_settle,
    .plain_cells = cells_plain,
    .plain_token = cells_plain_token,
};
