// SPDX-License-Identifier: Apache-2.0
// kvtuner: a pair of widths (keys, values) for each layer, found on calibration items: pairs that
// another beats in bits and attention-output error are dropped, layers that are alike choose
// together, and the best choice within a budget is searched.
//
// KVTuner searches with NSGA-II on the model's accuracy. Here the search runs on the recording,
// where what is minimised is a sum over layers, so that the best choice of a budget is a knapsack
// (knapsack.h) and the front is a sweep over budgets: kvtuner:bits=3..8+0.5.
#include "policies/knapsack.h"

#include <stdlib.h>

extern const struct kv_policy kv_policy_kvtuner;

enum { MAX_PAIRS = KV_MAX_WIDTHS * KV_MAX_WIDTHS, MAX_STATES = 1 << 18 };

static const struct kv_param params[] = {
    {"bits", KV_FLOAT, NULL, 0.5, 16, NULL, "bits", "budget a value, mean over layers, K and V"},
    {"count", KV_CHOICE, "allocated", 0, 0, "allocated/nominal", NULL,
     "bits that the budget counts: all that is stored, or codes alone, as KVTuner does"},
    {"widths", KV_LIST, "2/4/8", 1, 16, NULL, "bits", "widths that pairs are made of, rising"},
    {"items", KV_INT, "20", 1, 1e9, NULL, NULL, "first items of the recording to calibrate on"},
    {"spread", KV_FLOAT, "0.25", 0, 1e9, NULL, NULL,
     "layers of equal candidates choose together where ln of their errors differs by no more"},
    {"search", KV_CHOICE, "output", 0, 0, "output/damage", NULL,
     "what the search adds up: attention-output error, or expected divergence (needs --keep sens)"},
    {0}};

struct tuner {
    double bits, spread;
    bool nominal, by_damage, fitted;
    size_t items, n_layers, per_layer; // cells of a layer
    size_t n_pairs, n_groups, n_kept;  // pairs kept by all layers together
    uint8_t pair[MAX_PAIRS][2];        // indices into the run's widths
    double cost[MAX_PAIRS];            // bits a value
    uint8_t *choice;                   // [n_layers] index of a pair
    size_t n_widths;                   // of the run
    uint8_t width_bits[KV_MAX_WIDTHS];
};

static int kvtuner_open(void **self, const struct kv_run *run, const struct kv_args *args,
                        struct kv_error *e) {
    const struct kv_value *widths = kv_arg(args, "widths");
    struct tuner *t = calloc(1, sizeof *t);
    if (!t) return kv_fail(e, KV_ENOMEM, "kvtuner", "out of memory");
    *self = t;
    t->n_widths = run->n_widths;
    memcpy(t->width_bits, run->width_bits, sizeof t->width_bits);
    t->bits = kv_number(args, "bits");
    t->nominal = kv_number(args, "count") > 0;
    t->items = (size_t)kv_number(args, "items");
    t->spread = kv_number(args, "spread");
    t->by_damage = kv_number(args, "search") > 0;
    t->n_layers = run->shape.n_layers;
    t->per_layer = kv_cells(&run->shape) / t->n_layers;
    if (widths->n_list > KV_MAX_WIDTHS)
        return kv_fail(e, KV_EUSAGE, "policy kvtuner", "widths: at most %d", KV_MAX_WIDTHS);
    for (size_t k = 0; k < widths->n_list; k++) {
        if (kv_width_index(run, widths->list[k]) < 0)
            return kv_width_refused(run, widths->list[k], e);
        if (k && widths->list[k] <= widths->list[k - 1])
            return kv_fail(e, KV_EUSAGE, "policy kvtuner", "widths=%s: they must rise",
                           widths->text);
        for (size_t v = 0; v < widths->n_list; v++) {
            const double bits[2] = {widths->list[k], widths->list[v]};
            for (int side = 0; side < 2; side++) {
                uint8_t index = (uint8_t)kv_width_index(run, bits[side]);
                t->pair[t->n_pairs][side] = index;
                t->cost[t->n_pairs] +=
                    0.5 * (t->nominal ? bits[side] : (double)run->cell_bits[side][index]);
            }
            t->n_pairs++;
        }
    }
    t->choice = calloc(t->n_layers, 1);
    return t->choice ? 0 : kv_fail(e, KV_ENOMEM, "kvtuner", "out of memory");
}

// ---- pruning and clustering --------------------------------------------------------------

// Arrays of one fit.
struct fitting {
    double *error; // [n_pairs][n_layers]
    bool *kept;    // [n_layers][n_pairs]
    size_t *group; // [n_layers]
};

// A layer keeps the pairs that no other pair beats: none is as cheap and as good, and better in
// one of the two. Of equal ones the first stays.
static void prune(const struct tuner *t, size_t layer, const double *error, bool *kept) {
    for (size_t p = 0; p < t->n_pairs; p++) {
        double own = error[p * t->n_layers + layer];
        kept[p] = true;
        for (size_t q = 0; q < t->n_pairs && kept[p]; q++) {
            double other = error[q * t->n_layers + layer];
            if (q == p || t->cost[q] > t->cost[p] || other > own) continue;
            kept[p] = !(t->cost[q] < t->cost[p] || other < own || q < p);
        }
    }
}

// Layers of the same candidates whose errors are within the spread for each of them.
static bool alike(const struct tuner *t, const struct fitting *f, size_t a, size_t b) {
    for (size_t p = 0; p < t->n_pairs; p++) {
        double x = f->error[p * t->n_layers + a], y = f->error[p * t->n_layers + b];
        if (f->kept[a * t->n_pairs + p] != f->kept[b * t->n_pairs + p]) return false;
        // errors are squares: half the logarithm is that of the error itself
        if (f->kept[a * t->n_pairs + p] && x != y && !(0.5 * fabs(log(x / y)) <= t->spread))
            return false;
    }
    return true;
}

// Single linkage: DBSCAN whose clusters may have one member. A group bears its first layer's
// number until all are found, then numbers run from 0.
static size_t cluster(const struct tuner *t, const struct fitting *f) {
    size_t n = 0, *group = f->group;
    for (size_t l = 0; l < t->n_layers; l++) group[l] = l;
    for (size_t a = 0; a < t->n_layers; a++)
        for (size_t b = a + 1; b < t->n_layers; b++) {
            if (group[a] == group[b] || !alike(t, f, a, b)) continue;
            size_t low = group[a] < group[b] ? group[a] : group[b],
                   high = group[a] + group[b] - low;
            for (size_t l = 0; l < t->n_layers; l++)
                if (group[l] == high) group[l] = low;
        }
    for (size_t l = 0; l < t->n_layers; l++) {
        size_t first = group[l];
        group[l] = first == l ? n++ : group[first];
    }
    return n;
}

// ---- search ------------------------------------------------------------------------------

// What the search adds up, [n_pairs][n_layers]: the pruning's own errors, or expected damage.
static int objective(const struct tuner *t, const struct kv_fitting *host, const double *error,
                     double *loss, struct kv_error *e) {
    size_t n_widths = t->n_widths;
    if (!t->by_damage) {
        memcpy(loss, error, t->n_pairs * t->n_layers * sizeof *loss);
        return 0;
    }
    double *damage = calloc(t->n_layers * 2 * n_widths, sizeof *damage);
    int rc = damage ? host->damage(host, t->items, damage, e)
                    : kv_fail(e, KV_ENOMEM, "kvtuner", "out of memory");
    for (size_t p = 0; p < t->n_pairs && rc == 0; p++)
        for (size_t l = 0; l < t->n_layers; l++) {
            const double *of = damage + l * 2 * n_widths;
            loss[p * t->n_layers + l] = of[t->pair[p][0]] + of[n_widths + t->pair[p][1]];
        }
    free(damage);
    return rc;
}

static int search(struct tuner *t, const struct fitting *f, const double *loss,
                  struct kv_error *e) {
    size_t n = t->n_groups * t->n_pairs;
    double *cost = calloc(2 * n, sizeof *cost), *sum = cost + n;
    uint8_t *choice = calloc(t->n_groups, 1);
    struct kv_knapsack_result r;
    int rc = cost && choice ? 0 : kv_fail(e, KV_ENOMEM, "kvtuner", "out of memory");
    for (size_t l = 0; l < t->n_layers && rc == 0; l++)
        for (size_t p = 0; p < t->n_pairs; p++) {
            size_t at = f->group[l] * t->n_pairs + p;
            cost[at] += t->cost[p] / (double)t->n_layers;
            sum[at] += f->kept[l * t->n_pairs + p] ? loss[p * t->n_layers + l] : INFINITY;
        }
    struct kv_knapsack k = {.n_groups = t->n_groups,
                            .n_options = t->n_pairs,
                            .cost = cost,
                            .loss = sum,
                            .budget = t->bits * (1 + 1e-9),
                            .max_states = MAX_STATES};
    if (rc == 0 && !kv_knapsack_solve(&k, choice, &r))
        rc = kv_fail(e, KV_EUSAGE, "policy kvtuner",
                     "bits=%g: the narrowest pairs take %.3f bits already", t->bits, r.cost);
    for (size_t l = 0; l < t->n_layers && rc == 0; l++) t->choice[l] = choice[f->group[l]];
    free(cost);
    free(choice);
    return rc;
}

static int kvtuner_fit(void *self, const struct kv_fitting *host, struct kv_error *e) {
    struct tuner *t = self;
    size_t table = t->n_pairs * t->n_layers;
    if (t->fitted) return 0;
    struct fitting f = {.error = calloc(2 * table, sizeof(double)),
                        .kept = calloc(table, 1),
                        .group = calloc(t->n_layers, sizeof(size_t))};
    int rc = f.error && f.kept && f.group ? 0 : kv_fail(e, KV_ENOMEM, "kvtuner", "out of memory");
    if (rc == 0)
        rc = host->output_error(host, t->items, t->n_pairs, (const uint8_t(*)[2])t->pair, f.error,
                                e);
    if (rc == 0) rc = objective(t, host, f.error, f.error + table, e);
    if (rc == 0) {
        for (size_t l = 0; l < t->n_layers; l++) prune(t, l, f.error, f.kept + l * t->n_pairs);
        for (size_t i = 0; i < table; i++) t->n_kept += f.kept[i];
        t->n_groups = cluster(t, &f);
        rc = search(t, &f, f.error + table, e);
    }
    t->fitted = rc == 0;
    free(f.error);
    free(f.kept);
    free(f.group);
    return rc;
}

// ---- the plan ----------------------------------------------------------------------------

static int kvtuner_plan(void *self, const struct kv_item *item, uint8_t *cells,
                        struct kv_error *e) {
    const struct tuner *t = self;
    if (!t->fitted) return kv_fail(e, KV_EFAIL, "policy kvtuner", "was not fitted to any item");
    for (size_t row = 0; row < item->n_tokens; row++)
        for (size_t c = 0; c < t->n_layers * t->per_layer; c++)
            *cells++ = t->pair[t->choice[c / t->per_layer]][c & 1];
    return 0;
}

static void kvtuner_remark(void *self, char *text, size_t room) {
    const struct tuner *t = self;
    size_t n = 0;
    if (!t->fitted) return;
    for (int side = 0; side < 2; side++)
        for (size_t l = 0; l < t->n_layers && n < room; l++)
            n += (size_t)snprintf(text + n, room - n, "%s%u",
                                  l      ? "/"
                                  : side ? ",v="
                                         : "layerwise:k=",
                                  t->width_bits[t->pair[t->choice[l]][side]]);
    if (n < room)
        snprintf(text + n, room - n, " (%zu layers in %zu groups; %.1f of %zu pairs left a layer)",
                 t->n_layers, t->n_groups, (double)t->n_kept / (double)t->n_layers, t->n_pairs);
}

static void kvtuner_close(void *self) {
    struct tuner *t = self;
    if (t) free(t->choice);
    free(t);
}

const struct kv_policy kv_policy_kvtuner = {
    .abi = KV_POLICY_ABI,
    .struct_bytes = sizeof(struct kv_policy),
    .name = "kvtuner",
    .summary = "a pair of widths a layer, from attention-output errors on calibration items",
    .citation = "KVTuner, arXiv 2502.04420: Pareto pruning by attention-output error, "
                "clusters of layers, search within a budget (here an exact knapsack over the "
                "recording's errors in the place of NSGA-II on accuracy; mean square of the "
                "relative error; clusters by single linkage, whose width the paper's code does "
                "not give)",
    .tag = "approximate",
    .params = params,
    .varies = KV_VARIES_LAYER | KV_VARIES_KV,
    .open = kvtuner_open,
    .fit = kvtuner_fit,
    .plan = kvtuner_plan,
    .remark = kvtuner_remark,
    .close = kvtuner_close,
    .published_mode = KV_PUBLISHED_PREFILL,
};
