// SPDX-License-Identifier: Apache-2.0
// llama.cpp and ik_llama.cpp: cache types on the command line, or in a preset of llama-server.
//
// llama.cpp rotates quantized keys and values of heads that are a multiple of 64 unless
// LLAMA_ATTN_ROT_DISABLE=1 (ggml-org/llama.cpp pull 21038); ik_llama.cpp where -khad and -vhad say
// so, and has types of its own for the first and the last layers (ikawrakow/ik_llama.cpp pull
// 1599).
#include "sim/base/args.h"
#include "sim/base/spec.h"
#include "sim/runtimes/own.h"
#include "sim/runtimes/layer_runs.h"

#include <stdlib.h>

#define ROTATION "LLAMA_ATTN_ROT_DISABLE"

static const struct type {
    const char *name;
    unsigned bits;
    const char *set; // of the types that kvsim holds together: 0, 1, nl; "" = in all
} types[] = {{"f16", 16, ""},  {"q8_0", 8, ""},  {"q5_0", 5, "0"},    {"q4_0", 4, "0"},
             {"q5_1", 5, "1"}, {"q4_1", 4, "1"}, {"iq4_nl", 4, "nl"}, {"q5_0", 5, "nl"}};
enum { N_TYPES = sizeof types / sizeof *types };

static const char *set_of(const struct kv_offer *o) {
    return !o                              ? ""
           : strstr(o->format, "types=1")  ? "1"
           : strstr(o->format, "types=nl") ? "nl"
                                           : "0";
}

static const char *type_name(const struct kv_served *s, unsigned bits) {
    for (size_t i = 0; i < N_TYPES; i++)
        if (types[i].bits == bits &&
            (!*types[i].set || strcmp(types[i].set, set_of(s->offer)) == 0))
            return types[i].name;
    return "f16";
}

// ---- writing --------------------------------------------------------------------------

static bool quantized(const struct kv_served *s, enum kv_side side) {
    for (size_t i = 0; i < (size_t)s->n_layers * s->n_heads; i++)
        if (s->bits[2 * i + side] < 16) return true;
    return false;
}

static bool rotated(const struct kv_served *s) {
    return s->offer && strncmp(s->offer->format, "hadamard", 8) == 0;
}

int kv_write_llama(const struct kv_served *s, struct kv_text *t, struct kv_error *e) {
    (void)e;
    const char *k = type_name(s, s->bits[KV_KEY]), *v = type_name(s, s->bits[KV_VALUE]);
    if (s->offer && !rotated(s) && s->head_dim % 64 == 0) kv_text_addf(t, ROTATION "=1 ");
    kv_text_addf(t, "llama-server -m MODEL.gguf -ctk %s -ctv %s -fa %s\n", k, v,
                 quantized(s, KV_VALUE) ? "on" : "auto");
    return 0;
}

// The runs that a side's layers are.
static struct kv_runs_of_layers runs_of(const struct kv_served *s, enum kv_side side) {
    double *bits = kv_alloc(s->n_layers, sizeof *bits);
    double sum = 0;
    for (uint32_t l = 0; l < s->n_layers; l++) sum += bits[l] = kv_served_bits(s, l, side);
    uint32_t widths = 0;
    for (uint32_t l = 0; l < s->n_layers; l++) widths |= 1u << kv_served_bits(s, l, side);
    struct kv_runs_of_layers r = kv_runs_best(bits, s->n_layers, widths, sum / s->n_layers);
    free(bits);
    return r;
}

int kv_write_ik(const struct kv_served *s, struct kv_text *t, struct kv_error *e) {
    (void)e;
    struct kv_runs_of_layers r[2];
    const char *const names[] = {"-ctk", "-ctv"};
    kv_text_addf(t, "llama-server -m MODEL.gguf -fa on");
    for (int side = 0; side < 2; side++) {
        r[side] = runs_of(s, (enum kv_side)side);
        kv_text_addf(t, " %s %s", names[side], type_name(s, r[side].b));
    }
    for (int side = 0; side < 2; side++) {
        if (r[side].first)
            kv_text_addf(t, " %s-first %s,%zu", names[side], type_name(s, r[side].a),
                         r[side].first);
        if (r[side].last)
            kv_text_addf(t, " %s-last %s,%zu", names[side], type_name(s, r[side].c), r[side].last);
    }
    const char *format = s->offer ? s->offer->format : "";
    if (rotated(s) && !strstr(format, "sides=v")) kv_text_addf(t, " -khad");
    if (rotated(s) && !strstr(format, "sides=k")) kv_text_addf(t, " -vhad");
    kv_text_addf(t, "\n");
    return 0;
}

const char *kv_remark_llama(const struct kv_served *s) {
    const char *k = type_name(s, s->bits[KV_KEY]), *v = type_name(s, s->bits[KV_VALUE]);
    if (strcmp(k, "iq4_nl") == 0 || strcmp(v, "iq4_nl") == 0)
        return "no CUDA kernel of flash attention reads iq4_nl: it is converted to f16 first";
    if (strcmp(k, v) != 0)
        return "on CUDA an unequal pair is converted to f16 first, which is slow, unless it was "
               "built with GGML_CUDA_FA_QUANTS of that pair";
    if (rotated(s) && s->head_dim > 64)
        return "llama.cpp rotates values in blocks of 64, kvsim the whole head";
    return NULL;
}

// ---- reading --------------------------------------------------------------------------

// The types met so far: one set must hold them all.
struct typed {
    const char *path, *set, *first; // set "" = any; first: the type that fixed it
};

static int read_type(struct typed *t, const char *name, unsigned *bits, struct kv_error *e) {
    static const char *const known[] = {"f16",  "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0",
                                        "q5_1", "bf16", "f32",  "q6_0", "q8_KV",  NULL};
    int at = kv_index_of(name, known);
    if (at < 0) {
        const char *near = kv_nearest(name, known);
        return kv_fail(e, KV_EFAIL, t->path, "no cache type is named '%s'%s%s", name,
                       near ? "; the nearest is " : "", near ? near : "");
    }
    if (at >= 7) return kv_fail(e, KV_EFAIL, t->path, "cache type %s has no format in kvsim", name);
    for (size_t i = 0; i < N_TYPES; i++) {
        if (strcmp(types[i].name, name) != 0) continue;
        *bits = types[i].bits;
        if (!*types[i].set || strcmp(types[i].set, t->set) == 0) return 0;
        if (!*t->set) {
            t->set = types[i].set;
            t->first = name;
            return 0;
        }
        if (strcmp(name, "q5_0") == 0) continue; // it is in two sets
        if (strcmp(t->first, "q5_0") == 0 && strcmp(types[i].set, "nl") == 0) {
            t->set = "nl";
            return 0;
        }
    }
    return kv_fail(e, KV_EFAIL, t->path,
                   "keys and values are of types that no format of kvsim holds together: %s and %s",
                   t->first, name);
}

// The offer of a set of types with this rotation: "hadamard(...)" with sides, or none.
static const struct kv_offer *offer_of(const struct kv_runtime *r, const char *set, bool k,
                                       bool v) {
    for (size_t i = 0; i < r->n_offers; i++) {
        const struct kv_offer *o = &r->offers[i];
        bool turns = strncmp(o->format, "hadamard", 8) == 0;
        if (strcmp(set_of(o), *set ? set : "0") == 0 &&
            (turns && !strstr(o->format, "sides=v")) == k &&
            (turns && !strstr(o->format, "sides=k")) == v)
            return o;
    }
    return NULL;
}

static int check_flash(const char *value, bool coded, const char *path, struct kv_error *e) {
    static const char *const on[] = {"on", "1", "true", "enabled", "auto", NULL}, *const off[] = {
                                                                                      "off", "0",
                                                                                      "false",
                                                                                      "disabled",
                                                                                      NULL};
    // Older ones take no value: what follows is another option.
    if (!value || *value == '-' || kv_index_of(value, on) >= 0) return 0;
    if (kv_index_of(value, off) < 0)
        return kv_fail(e, KV_EFAIL, path, "flash attention is on, off or auto, not '%s'", value);
    return coded ? kv_fail(e, KV_EFAIL, path,
                           "quantized values need flash attention, and it is switched off")
                 : 0;
}

static int read_common(struct kv_served *s, const char *k, const char *v, const char *flash,
                       struct typed *t, struct kv_error *e) {
    unsigned bits[2] = {16, 16};
    int rc = k ? read_type(t, k, &bits[KV_KEY], e) : 0;
    if (rc == 0 && v) rc = read_type(t, v, &bits[KV_VALUE], e);
    if (rc == 0) rc = check_flash(flash, bits[KV_VALUE] < 16, t->path, e);
    if (rc == 0) kv_served_all(s, bits[KV_KEY], bits[KV_VALUE]);
    return rc;
}

static const char *const ctk[] = {"-ctk", "--cache-type-k", NULL};
static const char *const ctv[] = {"-ctv", "--cache-type-v", NULL};
static const char *const fa[] = {"-fa", "--flash-attn", NULL};

// "name = value" of an INI file's only plan; NULL = none. Caller frees.
static char *ini_value(const char *text, const char *name) {
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        line += strspn(line, " \t");
        size_t n = strlen(name), end = strcspn(line, "\r\n");
        if (strncmp(line, name, n) != 0) continue;
        size_t at = n + strspn(line + n, " \t");
        if (line[at] != '=') continue;
        at += 1 + strspn(line + at + 1, " \t");
        while (end > at && strchr(" \t", line[end - 1])) end--;
        return kv_format_text("%.*s", (int)(end - at), line + at);
    }
    return NULL;
}

static int read_preset(struct kv_served *s, const char *text, struct typed *t, struct kv_error *e) {
    char *k = ini_value(text, "cache-type-k"), *v = ini_value(text, "cache-type-v"),
         *flash = ini_value(text, "flash-attn");
    int rc = k || v ? read_common(s, k, v, flash, t, e)
                    : kv_fail(e, KV_EFAIL, t->path,
                              "the preset names neither cache-type-k nor cache-type-v");
    if (rc == 0) s->offer = offer_of(s->runtime, t->set, !(s->head_dim % 64), !(s->head_dim % 64));
    free(k);
    free(v);
    free(flash);
    return rc;
}

int kv_read_llama(struct kv_served *s, const char *text, const char *path, struct kv_error *e) {
    struct typed t = {path, "", ""};
    struct kv_words w;
    const char *k, *v, *flash;
    if (*text == '[' || strncmp(text, "version", 7) == 0) return read_preset(s, text, &t, e);
    int rc = kv_words_read(&w, text, path, e);
    if (rc == 0) rc = kv_words_option(&w, ctk, path, &k, e);
    if (rc == 0) rc = kv_words_option(&w, ctv, path, &v, e);
    if (rc == 0) rc = kv_words_option(&w, fa, path, &flash, e);
    if (rc == 0) {
        const char *off = kv_words_setting(&w, ROTATION);
        bool turns = !(off && strcmp(off, "0") != 0) && s->head_dim % 64 == 0;
        if (!k) k = kv_words_setting(&w, "LLAMA_ARG_CACHE_TYPE_K");
        if (!v) v = kv_words_setting(&w, "LLAMA_ARG_CACHE_TYPE_V");
        rc = k || v ? read_common(s, k, v, flash, &t, e)
                    : kv_fail(e, KV_EFAIL, path, "it names no cache type (-ctk, -ctv)");
        if (rc == 0) s->offer = offer_of(s->runtime, t.set, turns, turns);
    }
    kv_words_fini(&w);
    return rc;
}

// "q8_0,2" over a side's first or last layers.
static int read_end(struct kv_served *s, const char *value, int side, bool last, struct typed *t,
                    struct kv_error *e) {
    const char *comma = strchr(value, ',');
    char name[16];
    long n = 0;
    unsigned bits = 16;
    if (!comma || comma - value >= (long)sizeof name ||
        !kv_whole_number(comma + 1, -1, 1000000, &n))
        return kv_fail(e, KV_EFAIL, t->path, "'%s' is no TYPE,N such as q8_0,2", value);
    snprintf(name, sizeof name, "%.*s", (int)(comma - value), value);
    int rc = read_type(t, name, &bits, e);
    if (rc || n <= 0) return rc;
    if ((uint32_t)n > s->model_layers)
        return kv_fail(e, KV_EFAIL, t->path, "'%s' names more than the model's %u layers", value,
                       s->model_layers);
    for (uint32_t l = 0; l < (uint32_t)n; l++)
        s->bits[(last ? s->n_layers - 1 - l : l) * 2 + (uint32_t)side] = (uint8_t)bits;
    return 0;
}

static int read_ends(struct kv_served *s, const struct kv_words *w, struct typed *t,
                     struct kv_error *e) {
    // First ones, then last ones: where both cover a layer, the last win.
    static const char *const ends[4][3] = {{"-ctk-first", "--cache-type-k-first", NULL},
                                           {"-ctv-first", "--cache-type-v-first", NULL},
                                           {"-ctk-last", "--cache-type-k-last", NULL},
                                           {"-ctv-last", "--cache-type-v-last", NULL}};
    unsigned k = s->bits[KV_KEY], v = s->bits[KV_VALUE];
    int rc = 0;
    for (int i = 0; i < 4 && rc == 0; i++) {
        const char *value;
        rc = kv_words_option(w, ends[i], t->path, &value, e);
        if (rc || !value) continue;
        if (s->n_layers == 1 && s->model_layers != 1) {
            rc = kv_served_spread(s, 1, t->path, e);
            for (size_t c = 0; rc == 0 && c < 2 * (size_t)s->n_layers; c++)
                s->bits[c] = (uint8_t)(c & 1 ? v : k);
        }
        if (rc == 0) rc = read_end(s, value, i & 1, i > 1, t, e);
    }
    return rc;
}

int kv_read_ik(struct kv_served *s, const char *text, const char *path, struct kv_error *e) {
    struct typed t = {path, "", ""};
    struct kv_words w;
    const char *k, *v, *flash;
    int rc = kv_words_read(&w, text, path, e);
    if (rc == 0) rc = kv_words_option(&w, ctk, path, &k, e);
    if (rc == 0) rc = kv_words_option(&w, ctv, path, &v, e);
    if (rc == 0) rc = kv_words_option(&w, fa, path, &flash, e);
    if (rc == 0) rc = read_common(s, k, v, flash, &t, e);
    if (rc == 0) {
        // Switched off with a warning where the type of the layers between is not quantized.
        bool turn_k = kv_words_flag(&w, "-khad") && s->bits[KV_KEY] < 16,
             turn_v = kv_words_flag(&w, "-vhad") && s->bits[KV_VALUE] < 16;
        rc = read_ends(s, &w, &t, e);
        if (rc == 0) s->offer = offer_of(s->runtime, t.set, turn_k, turn_v);
    }
    kv_words_fini(&w);
    return rc;
}

// q8_0 and f16 are of every set: then the first set is told.
const struct kv_offer *kv_plain_llama(const struct kv_served *s) {
    bool turns = rotated(s);
    for (size_t i = 0; i < (size_t)s->n_layers * s->n_heads * 2; i++)
        if (s->bits[i] < 8) return s->offer;
    return offer_of(s->runtime, "0", turns && !strstr(s->offer->format, "sides=v"),
                    turns && !strstr(s->offer->format, "sides=k"));
}

// ---- whose it is ----------------------------------------------------------------------

static bool says(const char *text, const char *const *parts) {
    for (; *parts; parts++)
        if (strstr(text, *parts)) return true;
    return false;
}

bool kv_is_ik(const char *text) {
    static const char *const own[] = {"-ctk-first",
                                      "-ctk-last",
                                      "-ctv-first",
                                      "-ctv-last",
                                      "-type-k-first",
                                      "-type-k-last",
                                      "-type-v-first",
                                      "-type-v-last",
                                      "-khad",
                                      "-vhad",
                                      NULL};
    return says(text, own);
}

bool kv_is_llama(const char *text) {
    static const char *const own[] = {
        "-ctk",         "-ctv",      "cache-type-k",    "cache-type-v",
        "llama-server", "llama-cli", "LLAMA_ARG_CACHE", NULL};
    return *text != '{' && says(text, own) && !kv_is_ik(text); // whose line is llama.cpp's and more
}
