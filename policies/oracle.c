// SPDX-License-Identifier: Apache-2.0
// oracle: the widths that lose least within a budget of bits, an item at a time, knowing the
// future.
//
// by=loss: the damage of each cell at each width, expected from recorded sensitivities; by=error:
// its squared coding error times the attention that the token will receive. Either is a sum over
// cells, so the best allocation is a knapsack (knapsack.h). It bounds that sum and nothing else:
// exact KL and accuracy of its answer stand beside it in every table.
#include "policies/knapsack.h"

#include <stdatomic.h>
#include <stdlib.h>

extern const struct kv_policy kv_policy_oracle;

enum { BY_LOSS, BY_ERROR };
enum { TOKEN, TOKEN_LAYER, CELL };
enum { MAX_STATES = 1 << 18 }; // of the dynamic program: 6 MB

static const struct kv_param params[] = {
    {"by", KV_CHOICE, "loss", 0, 0, "loss/error", NULL,
     "what is minimised: expected damage (loss), or coding error weighted by future attention"},
    {"bits", KV_FLOAT, NULL, 0.5, 16, NULL, "bits", "budget a value, for each item"},
    {"count", KV_CHOICE, "allocated", 0, 0, "allocated/nominal", NULL,
     "bits that the budget counts: all that is stored, tags included, or codes alone"},
    {"grain", KV_CHOICE, "cell", 0, 0, "token/token-layer/cell", NULL,
     "what shares a width: all of a token, a layer of it, or a KV head of a layer"},
    {"kv", KV_CHOICE, "apart", 0, 0, "joint/apart", NULL, "whether K and V share it too"},
    {"rounds", KV_INT, "1", 1, 16, NULL, NULL,
     "measure damage again at the allocation found, and solve again, until asked so often"},
    {"widths", KV_LIST, "", 1, 16, NULL, "bits", "widths to choose from (default: all offered)"},
    {0}};

struct oracle {
    int by, grain;
    bool nominal, apart;
    double bits;
    uint32_t rounds;
    size_t n_widths;
    uint8_t width[KV_MAX_WIDTHS]; // indices into the run's table
    double cell_bits[2][KV_MAX_WIDTHS];
    double tag_bits;      // a token
    double sequence_bits; // a sequence
    // What the remark tells; the largest is the same in whatever order items come.
    _Atomic uint32_t items, exact_items, worst_gap_ppm;
};

static uint32_t oracle_varies(void *self) {
    const struct oracle *o = self;
    return KV_VARIES_TOKEN | (o->grain >= TOKEN_LAYER ? KV_VARIES_LAYER : 0) |
           (o->grain == CELL ? KV_VARIES_HEAD : 0) | (o->apart ? KV_VARIES_KV : 0);
}

static uint32_t oracle_options(void *self) {
    return (uint32_t)((const struct oracle *)self)->n_widths;
}

static uint32_t oracle_needs(void *self) {
    return ((const struct oracle *)self)->by == BY_LOSS ? KV_NEED_DAMAGE
                                                        : KV_NEED_ERROR | KV_NEED(KV_ATTN_FUTURE);
}

static uint32_t oracle_rounds(void *self) {
    return ((const struct oracle *)self)->rounds;
}

static int oracle_open(void **self, const struct kv_run *run, const struct kv_args *args,
                       struct kv_error *e) {
    const struct kv_value *widths = kv_arg(args, "widths");
    struct oracle *o = calloc(1, sizeof *o);
    if (!o) return kv_fail(e, KV_ENOMEM, "oracle", "out of memory");
    *self = o;
    o->by = (int)kv_number(args, "by");
    o->grain = (int)kv_number(args, "grain");
    o->apart = kv_number(args, "kv") > 0;
    o->nominal = kv_number(args, "count") > 0;
    o->bits = kv_number(args, "bits");
    o->rounds = (uint32_t)kv_number(args, "rounds");
    if (o->rounds > 1 && o->by != BY_LOSS)
        return kv_fail(e, KV_EUSAGE, "policy oracle",
                       "rounds=%u measures damage again, which by=error does not read", o->rounds);
    o->n_widths = widths->given ? widths->n_list : run->n_widths;
    if (o->n_widths > KV_MAX_WIDTHS)
        return kv_fail(e, KV_EUSAGE, "policy oracle", "widths: at most %d", KV_MAX_WIDTHS);
    for (size_t i = 0; i < o->n_widths; i++) {
        double bits = widths->given ? widths->list[i] : run->width_bits[i];
        int index = kv_width_index(run, bits);
        if (index < 0) return kv_width_refused(run, bits, e);
        o->width[i] = (uint8_t)index;
        for (int side = 0; side < 2; side++)
            o->cell_bits[side][i] = o->nominal ? bits : (double)run->cell_bits[side][index];
    }
    if (!o->nominal) {
        o->tag_bits = kv_tag_bits(&run->shape, oracle_varies(o), (uint32_t)o->n_widths);
        o->sequence_bits = run->sequence_bits;
    }
    return 0;
}

// How much a bit a value of each token adds to the item's bits a value, the mean over its sequences
// (context + choice); and what their tags add, and what the sequences hold besides.
static double weigh_tokens(const struct oracle *o, const struct kv_item *item, double *weight) {
    const struct kv_shape *s = &item->run->shape;
    double values = (double)kv_cells(s) * s->head_dim, tags = 0;
    size_t sequences = item->n_choices ? item->n_choices : 1;
    for (size_t t = 0; t < item->n_tokens; t++) weight[t] = 0;
    size_t row = item->n_context;
    for (size_t c = 0; c < sequences; c++) {
        size_t end = row < item->n_tokens ? kv_segment_end(item, row) : row,
               n = item->n_context + end - row;
        double share = 1 / ((double)sequences * (double)n);
        for (size_t t = 0; t < item->n_context; t++) weight[t] += share;
        for (; row < end; row++) weight[row] += share;
        tags += (8 * ceil((double)n * o->tag_bits / 8) + o->sequence_bits) / values * share;
    }
    return tags;
}

static size_t groups_a_token(const struct oracle *o, const struct kv_shape *s) {
    size_t n = o->grain == TOKEN ? 1 : o->grain == TOKEN_LAYER ? s->n_layers : kv_cells(s) / 2;
    return o->apart ? 2 * n : n;
}

static size_t group_of(const struct oracle *o, const struct kv_shape *s, size_t cell) {
    size_t head = cell / 2, place = o->grain == TOKEN         ? 0
                                    : o->grain == TOKEN_LAYER ? head / s->n_kv_heads
                                                              : head;
    return o->apart ? 2 * place + (cell & 1) : place;
}

static void fill_options(const struct oracle *o, const struct kv_item *item, const double *weight,
                         double *cost, double *loss) {
    const struct kv_shape *s = &item->run->shape;
    size_t cells = kv_cells(s), groups = groups_a_token(o, s), widths = item->run->n_widths;
    for (size_t t = 0; t < item->n_tokens; t++) {
        double future = o->by == BY_ERROR ? (double)item->tokens[t].feature[KV_ATTN_FUTURE] : 1;
        for (size_t i = 0; i < o->n_widths; i++) {
            const float *table = (o->by == BY_LOSS ? item->damage : item->error) +
                                 (t * widths + o->width[i]) * cells;
            for (size_t c = 0; c < cells; c++) {
                size_t at = (t * groups + group_of(o, s, c)) * o->n_widths + i;
                cost[at] += weight[t] * o->cell_bits[c & 1][i] / (double)cells;
                loss[at] += future * (double)table[c];
            }
        }
    }
}

static void remember(struct oracle *o, const struct kv_knapsack_result *r) {
    double gap = r->loss > 0 ? (r->loss - r->bound) / r->loss : 0;
    uint32_t ppm = r->exact ? 0 : (uint32_t)ceil(1e6 * gap), worst = atomic_load(&o->worst_gap_ppm);
    atomic_fetch_add(&o->items, 1);
    if (r->exact) atomic_fetch_add(&o->exact_items, 1);
    while (ppm > worst && !atomic_compare_exchange_weak(&o->worst_gap_ppm, &worst, ppm)) {
    }
}

static int oracle_plan(void *self, const struct kv_item *item, uint8_t *cells, struct kv_error *e) {
    struct oracle *o = self;
    const struct kv_shape *s = &item->run->shape;
    size_t per_token = groups_a_token(o, s), n = item->n_tokens * per_token, n_cells = kv_cells(s);
    double *weight = calloc(item->n_tokens, sizeof *weight),
           *cost = calloc(n * o->n_widths, sizeof *cost),
           *loss = calloc(n * o->n_widths, sizeof *loss);
    uint8_t *choice = calloc(n, 1);
    int rc = 0;
    if (!weight || !cost || !loss || !choice) rc = kv_fail(e, KV_ENOMEM, "oracle", "out of memory");
    if (rc == 0) {
        double tags = weigh_tokens(o, item, weight);
        fill_options(o, item, weight, cost, loss);
        struct kv_knapsack k = {.n_groups = n,
                                .n_options = o->n_widths,
                                .cost = cost,
                                .loss = loss,
                                .budget = o->bits - tags,
                                .max_states = MAX_STATES};
        struct kv_knapsack_result r;
        if (!kv_knapsack_solve(&k, choice, &r))
            rc = kv_fail(e, KV_EUSAGE, "policy oracle",
                         "bits=%g: the narrowest widths take %.3f bits already", o->bits,
                         r.cost + tags);
        else
            remember(o, &r);
    }
    for (size_t t = 0; t < item->n_tokens && rc == 0; t++)
        for (size_t c = 0; c < n_cells; c++)
            cells[t * n_cells + c] = o->width[choice[t * per_token + group_of(o, s, c)]];
    free(weight);
    free(cost);
    free(loss);
    free(choice);
    return rc;
}

static void oracle_remark(void *self, char *text, size_t room) {
    struct oracle *o = self;
    uint32_t n = atomic_load(&o->items), exact = atomic_load(&o->exact_items);
    if (n && exact == n)
        snprintf(text, room, "every answer is proven best in its own objective");
    else if (n)
        snprintf(
            text, room,
            "in its own objective every answer is within %.2g of the bound, %.0f %% proven best",
            atomic_load(&o->worst_gap_ppm) * 1e-6, 100.0 * exact / n);
}

const struct kv_policy kv_policy_oracle = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "oracle",
    .summary = "the least expected damage within a budget of bits; reads the future",
    .citation = "multiple-choice knapsack, Sinha and Zoltners 1979; damage as in Fisher replay",
    .tag = "baseline",
    .params = params,
    .varies = KV_VARIES_TOKEN | KV_VARIES_LAYER | KV_VARIES_HEAD | KV_VARIES_KV,
    .needs = KV_NEED_DAMAGE | KV_NEED_ERROR | KV_NEED(KV_ATTN_FUTURE),
    .open = oracle_open,
    .plan = oracle_plan,
    .varies_as_opened = oracle_varies,
    .options_as_opened = oracle_options,
    .needs_as_opened = oracle_needs,
    .rounds_as_opened = oracle_rounds,
    .remark = oracle_remark,
    .close = free,
};
