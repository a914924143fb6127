// SPDX-License-Identifier: Apache-2.0
// llama.cpp's cache types by name and number, and which of them a format's widths are.
#include "sim/base/cache_types.h"
#include "sim/base/guard.h"
#include "sim/base/spec.h"

#include <stdlib.h>

// Bits as in ggml's block sizes (ggml-common.h); q6_0 is a fork's.
static const struct kv_cache_type types[] = {
    {"bf16", 16, 16}, {"q8_0", 8, 8.5}, {"q8_1", 8, 9},   {"q6_0", 6, 6.5},   {"q5_1", 5, 6},
    {"q5_0", 5, 5.5}, {"q4_1", 4, 5},   {"q4_0", 4, 4.5}, {"iq4_nl", 4, 4.5},
};
_Static_assert(sizeof types / sizeof *types == KV_N_CACHE_TYPES, "every type has a bin");

const struct kv_cache_type *kv_cache_type_at(unsigned type) {
    return type >= 1 && type <= KV_N_CACHE_TYPES ? &types[type - 1] : NULL;
}

static bool begins_with(const char *text, const char *name) {
    return strncmp(text, name, strlen(name)) == 0;
}

size_t kv_cache_type_read(const char *text, unsigned *bits, unsigned *type) {
    static const struct kv_cache_type exact[] = {{"f16", 16, 16}, {"f32", 32, 32}};
    *type = 0;
    for (size_t i = 0; i < 2; i++)
        if (begins_with(text, exact[i].name)) {
            *bits = exact[i].bits;
            return strlen(exact[i].name);
        }
    for (unsigned i = 0; i < KV_N_CACHE_TYPES; i++)
        if (begins_with(text, types[i].name)) {
            *bits = types[i].bits;
            *type = i + 1;
            return strlen(types[i].name);
        }
    return 0;
}

unsigned kv_bits_of_cost_bin(size_t bin) {
    return bin < KV_WIDTH_BINS ? kv_bits_of_bin(bin) : types[bin - KV_WIDTH_BINS].bits;
}

const char *kv_cost_bin_name(size_t bin) {
    static _Thread_local char width[8];
    if (bin >= KV_WIDTH_BINS) return types[bin - KV_WIDTH_BINS].name;
    snprintf(width, sizeof width, "%u", kv_bits_of_bin(bin));
    return width;
}

bool kv_cost_bin_read(const char *text, size_t *bin) {
    unsigned bits, type;
    size_t n = kv_cache_type_read(text, &bits, &type);
    if (n && !text[n]) {
        *bin = kv_cost_bin(bits, type);
        return true;
    }
    char *end;
    long w = strtol(text, &end, 10);
    if (end == text || *end || w < 1 || (w > 16 && w != 32)) return false;
    *bin = kv_bin_of_bits((unsigned)w);
    return true;
}

static void name_type(struct kv_ledger *ledger, const char *name) {
    unsigned bits, type;
    size_t n = kv_cache_type_read(name, &bits, &type);
    if (!n || name[n]) return;
    for (int side = 0; side < 2; side++) ledger->type[side][kv_bin_of_bits(bits)] = (uint8_t)type;
}

static void name_types(struct kv_ledger *ledger, const struct kv_spec *s) {
    const char *set = kv_spec_value(s, "types");
    if (strcmp(s->name, "ggml") == 0) {
        bool ranged = set && strcmp(set, "1") == 0, uneven = set && strcmp(set, "nl") == 0;
        name_type(ledger, ranged ? "q4_1" : uneven ? "iq4_nl" : "q4_0");
        name_type(ledger, ranged ? "q5_1" : "q5_0");
        name_type(ledger, "q8_0");
    } else if (!s->inner) {
        name_type(ledger, s->name);
    }
}

void kv_ledger_name_types(struct kv_ledger *ledger, const char *format) {
    memset(ledger->type, 0, sizeof ledger->type);
    KV_GUARD_ELSE(return );
    struct kv_spec s, inner;
    struct kv_error ignored;
    if (!format || !*format || kv_tolerate(kv_spec_parse(&s, format, &ignored), &ignored)) return;
    // llama.cpp rotates by itself what it quantizes: a rotated type costs what it was timed at.
    bool rotated = s.inner && strcmp(s.name, "hadamard") == 0;
    if (rotated && !kv_tolerate(kv_spec_parse(&inner, s.inner, &ignored), &ignored)) {
        name_types(ledger, &inner);
        kv_spec_fini(&inner);
    } else if (!rotated) {
        name_types(ledger, &s);
    }
    kv_spec_fini(&s);
}
