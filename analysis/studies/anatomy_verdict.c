// SPDX-License-Identifier: Apache-2.0
// Which layers stand out, why, and what is expected to help, in words.
#include <stdlib.h>

#include "analysis/studies/anatomy_inside.h"
#include "sim/base/memory.h"

// A layer's keys (or values) stand out where their damage, or of the weights alone their bias, is
// at least so many times the median layer's (keys' or values', whichever is more); and of damage
// where they hold so much of all of it. Or where a head's errors are larger than what tells its
// tokens apart, and the damage is not less than the median layer's.
static const double stands_out = 8, least_pct = 0.5;
static const double constant_out = 4; // times the median layer's: a constant stands out
// A constant is spoken of where it holds so much of the energy, in heads with so much of their
// layer's damage.
static const double constant_pct = 50, head_share = 0.1;
static const double outside = 0.5; // nats a token; design of fisher replay
enum { LISTED = 3 };               // channels named

static int ascending(const void *x, const void *y) {
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static double median(const double *x, size_t n) {
    double *sorted = kv_alloc(n, sizeof *sorted), middle;
    memcpy(sorted, x, n * sizeof *x);
    qsort(sorted, n, sizeof *sorted, ascending);
    middle = n % 2 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]);
    free(sorted);
    return middle;
}

// A layer's damage, or the norm of its bias: [n_layers]. Caller frees.
static double *by_layer(const struct kv_anatomy *a, enum kv_side side, bool bias) {
    double *of = kv_alloc(a->n_layers, sizeof *of);
    for (size_t i = side; i < a->n_layers * a->n_heads * 2; i += 2) {
        const struct kv_anatomy_place *p = &a->places[i];
        of[p->layer] = bias ? hypot(of[p->layer], p->bias) : of[p->layer] + p->damage;
    }
    return of;
}

// Norms of the means of layers' keys or values: [n_layers]. Caller frees.
static double *constants(const struct kv_anatomy *a, enum kv_side side) {
    double *of = kv_alloc(a->n_layers, sizeof *of);
    for (size_t i = 0; i < a->n_layers * a->n_heads * 2 * a->head_dim; i++)
        if (i / a->head_dim % 2 == side) {
            size_t layer = i / (a->n_heads * 2 * a->head_dim);
            of[layer] = hypot(of[layer], a->mean[i]);
        }
    return of;
}

// Of layers that stand out, those whose constant does too, where there are any: they hold the
// cause.
static void keep_constants(const struct kv_anatomy *a, enum kv_side side, bool *out) {
    double *of = constants(a, side), least = constant_out * median(of, a->n_layers);
    bool any = false;
    for (size_t l = 0; l < a->n_layers; l++) any |= out[l] && of[l] >= least;
    for (size_t l = 0; l < a->n_layers; l++) out[l] &= !any || of[l] >= least;
    free(of);
}

static double most_buried(const struct kv_anatomy *a, size_t layer, enum kv_side side) {
    double most = 0;
    for (size_t h = 0; h < a->n_heads; h++)
        most = fmax(most, a->places[kv_anatomy_at(a, layer, h, side)].buried);
    return most;
}

void kv_anatomy_name_places(struct kv_anatomy *a) {
    bool bias = !a->options.trace;
    double *layers[2] = {by_layer(a, KV_KEY, bias), by_layer(a, KV_VALUE, bias)};
    double middle[2] = {median(layers[0], a->n_layers), median(layers[1], a->n_layers)};
    bool *out = kv_alloc(a->n_layers, sizeof *out);
    for (int side = 0; side < 2; side++) {
        double ordinary = bias ? middle[side] : fmax(middle[0], middle[1]);
        for (size_t l = 0; l < a->n_layers; l++) {
            double mine = layers[side][l];
            out[l] = mine > 0 && mine >= stands_out * ordinary;
            if (bias) continue;
            out[l] = (out[l] && 100 * mine >= least_pct * a->all_damage) ||
                     (mine >= ordinary && most_buried(a, l, (enum kv_side)side) >= 1);
        }
        if (!bias) keep_constants(a, (enum kv_side)side, out);
        for (size_t i = (size_t)side; i < a->n_layers * a->n_heads * 2; i += 2)
            a->places[i].named = out[a->places[i].layer];
    }
    free(out);
    free(layers[0]);
    free(layers[1]);
}

static bool is_named(const struct kv_anatomy *a, size_t layer, enum kv_side side) {
    return a->places[kv_anatomy_at(a, layer, 0, side)].named;
}

// "layers 0, 1 and 8"; how many.
static size_t list_layers(struct kv_text *t, const struct kv_anatomy *a, enum kv_side side) {
    size_t n = 0, said = 0;
    for (size_t l = 0; l < a->n_layers; l++) n += is_named(a, l, side);
    kv_text_addf(t, "layer%s ", n == 1 ? "" : "s");
    for (size_t l = 0; l < a->n_layers; l++) {
        if (!is_named(a, l, side)) continue;
        kv_text_addf(t, "%s%zu", said == 0 ? "" : said + 1 == n ? " and " : ", ", l);
        said++;
    }
    return n;
}

static void span(struct kv_text *t, double low, double high, const char *unit) {
    if (high - low < 0.05 * high)
        kv_text_addf(t, "%.3g%s", high, unit);
    else
        kv_text_addf(t, "%.3g to %.3g%s", low, high, unit);
}

// What biases of named layers are beside the median layer's.
static void add_biases(struct kv_text *t, const struct kv_anatomy *a, enum kv_side side) {
    double *of = by_layer(a, side, true), low = INFINITY, high = 0;
    for (size_t l = 0; l < a->n_layers; l++)
        if (is_named(a, l, side)) low = fmin(low, of[l]), high = fmax(high, of[l]);
    if (high > 0) {
        kv_text_addf(t, "|bias| ");
        span(t, low, high, "");
        kv_text_addf(t, ", the median layer's %.3g", median(of, a->n_layers));
    }
    free(of);
}

// The channels of named places with the largest constants.
static void add_channels(struct kv_text *t, const struct kv_anatomy *a, enum kv_side side) {
    double below = INFINITY;
    for (int k = 0; k < LISTED; k++) {
        const struct kv_anatomy_place *most = NULL;
        for (size_t i = side; i < a->n_layers * a->n_heads * 2; i += 2) {
            const struct kv_anatomy_place *p = &a->places[i];
            if (p->named && p->mean < below && (!most || p->mean > most->mean)) most = p;
        }
        if (!most) return;
        below = most->mean;
        kv_text_addf(t, "%s%u of layer %u (%.3g)", k ? ", " : "", most->mean_channel, most->layer,
                     most->mean);
    }
}

// Nothing where no constant rules the named places.
static void add_constants(struct kv_text *t, const struct kv_anatomy *a, enum kv_side side) {
    double low = INFINITY, high = 0, *of = by_layer(a, side, false);
    struct kv_text bias = {0};
    for (size_t i = side; i < a->n_layers * a->n_heads * 2; i += 2) {
        const struct kv_anatomy_place *p = &a->places[i];
        if (!p->named || p->damage < head_share * of[p->layer]) continue;
        low = fmin(low, p->constant_pct);
        high = fmax(high, p->constant_pct);
    }
    free(of);
    if (high < constant_pct) return;
    kv_text_addf(t, ": a constant holds ");
    span(t, low, high, " % of their energy");
    if (a->options.model) add_biases(&bias, a, side);
    if (bias.n) kv_text_addf(t, " (%s)", bias.s);
    free(bias.s);
    kv_text_addf(t, ", most in channels ");
    add_channels(t, a, side);
}

static double damage_pct(const struct kv_anatomy *a, enum kv_side side) {
    double sum = 0;
    for (size_t i = side; i < a->n_layers * a->n_heads * 2; i += 2)
        if (a->places[i].named) sum += a->places[i].damage_pct;
    return sum;
}

static bool any_named(const struct kv_anatomy *a, enum kv_side side) {
    for (size_t l = 0; l < a->n_layers; l++)
        if (is_named(a, l, side)) return true;
    return false;
}

static void add_no_place(struct kv_text *t, const struct kv_anatomy *a) {
    size_t most = 0;
    int where = 0;
    double largest = 0, middle = 0;
    for (int side = 0; side < 2; side++) {
        double *of = by_layer(a, (enum kv_side)side, false);
        for (size_t l = 0; l < a->n_layers; l++)
            if (of[l] > largest) {
                largest = of[l], most = l, where = side;
                middle = median(of, a->n_layers);
            }
        free(of);
    }
    kv_text_addf(t,
                 "no layer stands out: the %s of layer %zu hold the most, %.0f %%, %.1f times the "
                 "median layer's",
                 where ? "values" : "keys", most, 100 * largest / a->all_damage, largest / middle);
}

static void add_remedy(struct kv_text *t, const struct kv_anatomy *a) {
    const struct kv_anatomy_remedy *r = &a->remedies[1];
    if (a->n_remedies < 2 || !r->within || !(r->kl_fisher < a->remedies[0].kl_fisher)) {
        kv_text_addf(t, "; no remedy within %+.2f bits is expected to help",
                     a->options.budget_bits);
        return;
    }
    kv_text_addf(t, "; first remedy: %s, expected to leave %.3g (%.0f %%) at %+.2f bits", r->name,
                 r->kl_fisher, r->left_pct, r->more_bits);
    if (isfinite(r->kl_exact))
        kv_text_addf(t, ", and run exactly it leaves %.3g of %.3g (%.0f %%)", r->kl_exact,
                     a->remedies[0].kl_exact, r->exact_left_pct);
    kv_text_addf(t, ": %s", r->spec);
}

static void of_trace(struct kv_text *t, const struct kv_anatomy *a) {
    bool keys = any_named(a, KV_KEY), values = any_named(a, KV_VALUE);
    double kl = a->remedies[0].kl_fisher;
    kv_text_addf(t, "%s at %u bits is expected to cost %.3g nats a token%s, and ",
                 a->options.format, a->options.bits, kl,
                 kl > outside ? " (beyond what fisher replay answers for)" : "");
    for (int side = 0; side < 2; side++) {
        if (!any_named(a, (enum kv_side)side)) continue;
        kv_text_addf(t, "%s%.0f %% of it lies in the %s of ", side && keys ? "; " : "",
                     damage_pct(a, (enum kv_side)side), side ? "values" : "keys");
        list_layers(t, a, (enum kv_side)side);
        add_constants(t, a, (enum kv_side)side);
    }
    if (!keys && !values) add_no_place(t, a);
    add_remedy(t, a);
}

static void of_weights(struct kv_text *t, const struct kv_anatomy *a) {
    double *of = by_layer(a, KV_KEY, true), middle = median(of, a->n_layers), most = 0;
    for (size_t l = 0; l < a->n_layers; l++) most = fmax(most, of[l]);
    if (most == 0)
        kv_text_addf(t, "keys have no bias: the weights foretell no constant in them");
    else if (!any_named(a, KV_KEY))
        kv_text_addf(t,
                     "the biases of keys are alike, up to %.3g and the median layer's %.3g: the "
                     "weights foretell no layer that stands out",
                     most, middle);
    else {
        kv_text_addf(t, "the biases foretell a constant in the keys of ");
        list_layers(t, a, KV_KEY);
        kv_text_addf(t, " (");
        add_biases(t, a, KV_KEY);
        kv_text_addf(t, "), most in channels ");
        add_channels(t, a, KV_KEY);
        kv_text_addf(t,
                     ", on which a grid spends its range: expect %s to fail there first, and "
                     "center(%s):side=pre to take it off",
                     a->options.format, a->options.format);
    }
    free(of);
}

void kv_anatomy_conclude(struct kv_anatomy *a) {
    struct kv_text t = {0};
    if (a->options.trace)
        of_trace(&t, a);
    else
        of_weights(&t, a);
    a->verdict = kv_text_take(&t);
}
