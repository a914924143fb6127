// SPDX-License-Identifier: Apache-2.0
// Mixes of widths: reading, spelling, and what they come to in bits and shares.
#include "sim/cost/mix.h"

#include <stdlib.h>

static bool read_width(const char **at, uint8_t *bits, uint8_t *type) {
    unsigned named, number;
    size_t length = kv_cache_type_read(*at, &named, &number);
    *type = (uint8_t)number;
    if (length) {
        *at += length;
        *bits = (uint8_t)named;
        return true;
    }
    char *end;
    unsigned long v = strtoul(*at, &end, 10);
    if (end == *at || **at == '-' || **at == '+' || !((v >= 1 && v <= 16) || v == 32)) return false;
    *at = end;
    *bits = (uint8_t)v;
    return true;
}

// "8", "k8v4", "4=0.5": share stays NAN when not written.
static bool read_part(const char **at, struct kv_mix_part *p) {
    p->share = NAN;
    if (**at == 'k') {
        ++*at;
        if (!read_width(at, &p->bits[KV_KEY], &p->type[KV_KEY]) || *(*at)++ != 'v' ||
            !read_width(at, &p->bits[KV_VALUE], &p->type[KV_VALUE]))
            return false;
    } else {
        if (!read_width(at, &p->bits[KV_KEY], &p->type[KV_KEY])) return false;
        p->bits[KV_VALUE] = p->bits[KV_KEY];
        p->type[KV_VALUE] = p->type[KV_KEY];
    }
    if (**at != '=') return true;
    char *end;
    p->share = strtod(++*at, &end);
    bool ok = end > *at && p->share > 0 && p->share <= 1 + 1e-9;
    *at = end;
    return ok;
}

// A cache holds a width in one type a side: a ledger counts by width.
static bool types_agree(const struct kv_mix *m) {
    for (size_t i = 1; i < m->n; i++)
        for (size_t k = 0; k < i; k++)
            for (int side = 0; side < 2; side++)
                if (m->part[i].bits[side] == m->part[k].bits[side] &&
                    m->part[i].type[side] != m->part[k].type[side])
                    return false;
    return true;
}

// A cell holds a key or a value, of a width that either may have.
static bool cells_agree(const struct kv_mix *m) {
    for (size_t i = 0; i < m->n; i++)
        if (m->part[i].bits[KV_KEY] != m->part[i].bits[KV_VALUE] || m->part[i].type[KV_KEY] ||
            m->part[i].type[KV_VALUE])
            return false;
    return true;
}

static const char cells_prefix[] = "cells:";

int kv_mix_parse(struct kv_mix *mix, const char *text, struct kv_error *e) {
    bool by_cell = strncmp(text, cells_prefix, strlen(cells_prefix)) == 0;
    *mix = (struct kv_mix){.by_cell = by_cell};
    const char *at = by_cell ? text + strlen(cells_prefix) : text;
    double given = 0;
    size_t open = 0;
    for (bool more = true; more; more = *at == '/' && at++) {
        if (mix->n == KV_MIX_PARTS || !read_part(&at, &mix->part[mix->n]))
            return kv_fail(
                e, KV_EUSAGE, "mix",
                "'%s' is no mix of widths; expected like 8, k8v4, q4_0 or k4v2=0.5/8=0.5", text);
        double share = mix->part[mix->n++].share;
        if (isnan(share))
            open++;
        else
            given += share;
    }
    double left = 1 - given;
    if (*at || left < -2e-3 || (open == 0 && left > 2e-3) || (open > 0 && left <= 0))
        return kv_fail(e, KV_EUSAGE, "mix", "the shares of '%s' must add up to 1", text);
    if (!types_agree(mix))
        return kv_fail(e, KV_EUSAGE, "mix", "'%s' holds one width in two cache types", text);
    if (by_cell && !cells_agree(mix))
        return kv_fail(e, KV_EUSAGE, "mix",
                       "'%s': a mix by cell takes widths alone, like cells:2=0.5/8=0.5", text);
    for (size_t i = 0; i < mix->n; i++) {
        if (isnan(mix->part[i].share)) mix->part[i].share = left / (double)open;
        if (open == 0) mix->part[i].share /= given;
    }
    return 0;
}

void kv_mix_text(const struct kv_mix *mix, char *out, size_t room) {
    size_t n = (size_t)snprintf(out, room, "%s", mix->by_cell ? cells_prefix : "");
    for (size_t i = 0; i < mix->n && n < room; i++) {
        const struct kv_mix_part *p = &mix->part[i];
        bool same = p->bits[0] == p->bits[1] && p->type[0] == p->type[1];
        n += (size_t)snprintf(out + n, room - n, "%s%s%s", i ? "/" : "", same ? "" : "k",
                              kv_cost_bin_name(kv_cost_bin(p->bits[0], p->type[0])));
        if (!same && n < room)
            n += (size_t)snprintf(out + n, room - n, "v%s",
                                  kv_cost_bin_name(kv_cost_bin(p->bits[1], p->type[1])));
        if (mix->n > 1 && n < room) n += (size_t)snprintf(out + n, room - n, "=%.4g", p->share);
    }
}

void kv_mix_shares(const struct kv_mix *mix, struct kv_ledger *ledger) {
    memset(ledger->share, 0, sizeof ledger->share);
    memset(ledger->type, 0, sizeof ledger->type);
    ledger->by_cell = ledger->controlled = mix->by_cell;
    for (size_t i = 0; i < mix->n; i++)
        for (int side = 0; side < 2; side++) {
            size_t bin = kv_bin_of_bits(mix->part[i].bits[side]);
            ledger->share[side][bin] += mix->part[i].share;
            ledger->type[side][bin] = mix->part[i].type[side];
        }
}

void kv_mix_cost_shares(const struct kv_mix *mix, double share[2][KV_COST_BINS]) {
    memset(share, 0, 2 * sizeof *share);
    for (size_t i = 0; i < mix->n; i++) {
        const struct kv_mix_part *p = &mix->part[i];
        for (int side = 0; side < 2; side++)
            share[side][kv_cost_bin(p->bits[side], p->type[side])] += p->share;
    }
}

double kv_mix_bits(const struct kv_mix *mix) {
    double bits = 0;
    for (size_t i = 0; i < mix->n; i++)
        bits += mix->part[i].share * (mix->part[i].bits[0] + mix->part[i].bits[1]) / 2;
    return bits;
}

double kv_mix_allocated_bits(const struct kv_mix *mix, uint32_t head_dim) {
    double bits = kv_mix_bits(mix);
    for (size_t i = 0; i < mix->n; i++)
        for (int side = 0; side < 2; side++) {
            const struct kv_mix_part *p = &mix->part[i];
            const struct kv_cache_type *type = kv_cache_type_at(p->type[side]);
            if (type)
                bits += p->share * (type->stored_bits - type->bits) / 2;
            else if (p->bits[side] < 16)
                bits += p->share * 8 / head_dim;
        }
    return bits;
}
