// SPDX-License-Identifier: Apache-2.0
// The price of a decode step: the device's parameters applied to a ledger's shares.
#include "sim/cost/cost.h"

// The next width at or above w that the hardware addresses; w itself when it has no port list or
// nothing that wide, which is marked as extrapolated.
static size_t port_of(const struct kv_device *d, size_t w) {
    for (size_t i = 0; i < d->n_ports; i++)
        if (d->ports[i] >= w) return d->ports[i];
    return w;
}

// ns a value by width alone: the width's own cost, or the dearest of the types of its bits, so that
// what was not measured never beats what was. NAN = none.
static double width_ns(const struct kv_device *d, enum kv_side side, size_t w) {
    double dearest = d->c_ns[side][w];
    if (!isnan(dearest)) return dearest;
    for (unsigned type = 1; type <= KV_N_CACHE_TYPES; type++)
        if (kv_cache_type_at(type)->bits == kv_bits_of_bin(w))
            dearest = fmax(dearest, d->c_ns[side][kv_cost_bin(0, type)]); // fmax passes NAN over
    return dearest;
}

// Whether the runs of a device named cache types.
static bool is_by_type(const struct kv_device *d) {
    for (size_t bin = KV_WIDTH_BINS; bin < KV_COST_BINS; bin++)
        if (!isnan(d->c_ns[KV_KEY][bin]) || !isnan(d->c_ns[KV_VALUE][bin])) return true;
    return false;
}

// ns a value at width w, held in a cache type (0 = none). A width without a measured cost is stored
// at the next measured one; above all of them the widest is scaled by the bits. Both set
// t->extrapolated, and t->by_width where the value has a type, or the device types, and they do not
// meet. Float32 and fp16 are held the same way everywhere.
static double value_ns(const struct kv_device *d, enum kv_side side, size_t w, unsigned type,
                       struct kv_latency *t) {
    size_t port = port_of(d, w);
    if (d->n_ports && w > d->ports[d->n_ports - 1]) t->extrapolated = true;
    if (type && port == w && !isnan(d->c_ns[side][kv_cost_bin(0, type)]))
        return d->c_ns[side][kv_cost_bin(0, type)];
    if (type || (w < 16 && is_by_type(d))) t->by_width = t->extrapolated = true;
    w = port;
    double own = width_ns(d, side, w);
    if (!isnan(own)) return own;
    t->extrapolated = true;
    for (size_t up = w + 1; up < KV_WIDTH_BINS; up++)
        if (!isnan(own = width_ns(d, side, up))) return own;
    for (size_t down = w; down-- > 1;)
        if (!isnan(own = width_ns(d, side, down)))
            return own * kv_bits_of_bin(w) / kv_bits_of_bin(down);
    return 0;
}

static int bits_set(uint32_t x) {
    int n = 0;
    for (; x; x &= x - 1) n++;
    return n;
}

// Passes over a stream of keys or values: one a width in use. Where a place has one width for all
// tokens, one, and another where a format keeps its newest or first tokens at 16 bits.
static int passes_of(const struct kv_ledger *ledger, uint32_t used) {
    const uint32_t kept = 1u << 16;
    return !ledger->by_place ? bits_set(used) : (used & ~kept) && (used & kept) ? 2 : 1;
}

struct kv_latency kv_device_step(const struct kv_device *d, const struct kv_ledger *ledger,
                                 double context, double policy_ns) {
    double values = (double)d->shape.n_layers * d->shape.n_kv_heads * d->shape.head_dim;
    double tokens = kv_tokens_read(&d->sliding, d->shape.n_layers, context);
    struct kv_latency t = {0};
    double per_token = 0, held[2] = {0, 0};
    uint32_t used[2] = {0, 0}; // bit w: the cache holds width w
    for (int side = 0; side < 2; side++)
        for (size_t w = 1; w < KV_WIDTH_BINS; w++) {
            double share = ledger->share[side][w];
            if (!(share > 0)) continue;
            held[side] += share;
            used[side] |= 1u << port_of(d, w);
            per_token += share * values * value_ns(d, side, w, ledger->type[side][w], &t);
        }
    t.cache_bytes = ledger->allocated_bits * 2 * values / 8 * tokens;
    double stretch = 1;
    if (t.cache_bytes > d->knee_bytes)
        stretch =
            (d->knee_bytes + d->knee_factor * (t.cache_bytes - d->knee_bytes)) / t.cache_bytes;
    if (d->hidden_bytes > 0) stretch *= fmax(0, 1 - d->hidden_bytes / fmax(t.cache_bytes, 1));
    double kept = fmax(held[KV_KEY], held[KV_VALUE]);
    double heads = tokens * d->attend_ns * kept * stretch, class_ns = d->class_ns;
    // A device keeps tokens of one pair of widths together; the longer list is the least of pairs.
    double widths =
        fmax(1, fmax(passes_of(ledger, used[KV_KEY]), passes_of(ledger, used[KV_VALUE])));
    if (widths > 1 && !ledger->by_place && !isnan(d->mixed_ns))
        per_token += (held[KV_KEY] + held[KV_VALUE]) * values * d->mixed_ns;
    if (ledger->by_cell && !isnan(d->cell_class_ns)) class_ns = d->cell_class_ns;
    if (ledger->by_cell && isnan(d->cell_class_ns) && isnan(d->controller_ns))
        t.extrapolated = true; // no run was by cell
    if (ledger->controlled && !isnan(d->controller_ns)) policy_ns += d->controller_ns;
    double mixed = (widths - 1) * class_ns;
    if (d->round_tokens > 0) {
        double rounds = ceil(tokens * kept / d->round_tokens);
        heads += d->round_ns * rounds;
        mixed += d->switch_ns * fmax(0, fmin(rounds, widths) - 1);
    }
    t.cache_ns = heads + tokens * per_token * stretch + mixed;
    t.step_ns = d->base_ns + d->append_ns + policy_ns + t.cache_ns;
    t.ceiling_ns = d->base_ns + d->append_ns + heads;
    t.extrapolated = t.extrapolated || context < d->context_min || context > d->context_max;
    return t;
}

const char *kv_device_error_text(const struct kv_device *d) {
    static _Thread_local char text[96];
    if (isnan(d->error_median)) return "the latency model's error is not known";
    snprintf(text, sizeof text, "the latency model errs by %.1f %%, at worst %.1f %%",
             100 * d->error_median, 100 * d->error_worst);
    return text;
}

double kv_device_break_even(const struct kv_device *d, const struct kv_ledger *ledger,
                            const struct kv_ledger *reference, double policy_ns) {
    double low = 0, high = 1;
    const double far_tokens = 0x1p40;
    while (kv_device_step(d, ledger, high, policy_ns).step_ns >=
           kv_device_step(d, reference, high, 0).step_ns) {
        low = high;
        high *= 2;
        if (high > far_tokens) return INFINITY;
    }
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        bool pays = kv_device_step(d, ledger, middle, policy_ns).step_ns <
                    kv_device_step(d, reference, middle, 0).step_ns;
        *(pays ? &high : &low) = middle;
    }
    return high < 1 ? 0 : high;
}
