// SPDX-License-Identifier: Apache-2.0
// vLLM and mlx-lm: one coded type on the command line, for all layers or all but some.
#include "sim/base/args.h"
#include "sim/runtimes/own.h"

#include <stdlib.h>

static const char *const cache_dtype[] = {"--kv-cache-dtype", NULL};

// ---- vLLM -----------------------------------------------------------------------------

int kv_write_vllm(const struct kv_served *s, struct kv_text *t, struct kv_error *e) {
    (void)e;
    kv_text_addf(t, "vllm serve MODEL --kv-cache-dtype %s", s->offer ? s->offer->name : "auto");
    bool named = false;
    for (uint32_t l = 0; s->offer && s->n_layers > 1 && l < s->n_layers; l++) {
        bool edge = l < s->offer->edge || l + s->offer->edge >= s->n_layers;
        if (edge || kv_served_bits(s, l, KV_KEY) < 16) continue;
        if (!named) kv_text_addf(t, " --kv-cache-dtype-skip-layers");
        kv_text_addf(t, " %u", l);
        named = true;
    }
    kv_text_addf(t, "\n");
    return 0;
}

static unsigned width_of(const struct kv_offer *o) {
    unsigned b = 1;
    while (!(o->widths >> b & 1)) b++;
    return b;
}

// Layers behind --kv-cache-dtype-skip-layers, up to the next option.
static int read_skipped(struct kv_served *s, const struct kv_words *w, const char *path,
                        struct kv_error *e) {
    bool inside = false;
    long layer;
    for (size_t i = w->n_settings; i < w->n; i++) {
        if (w->at[i][0] == '-') {
            inside = strcmp(w->at[i], "--kv-cache-dtype-skip-layers") == 0;
            continue;
        }
        if (!inside) continue;
        if (!kv_whole_number(w->at[i], 0, (long)s->n_layers - 1, &layer))
            return kv_fail(e, KV_EFAIL, path,
                           "--kv-cache-dtype-skip-layers: '%s' is no layer from 0 to %u", w->at[i],
                           s->n_layers - 1);
        s->bits[2 * layer + KV_KEY] = s->bits[2 * layer + KV_VALUE] = 16;
    }
    return 0;
}

static int find_dtype(struct kv_served *s, const char *name, const char *path, struct kv_error *e) {
    static const char *const plain[] = {"auto", "float16", "bfloat16", NULL};
    const char *names[24];
    size_t n = 0;
    if (strcmp(name, "fp8") == 0) name = "fp8_e4m3";
    s->offer = kv_offer_named(s->runtime, name);
    if (s->offer || kv_index_of(name, plain) >= 0) return 0;
    for (; n < s->runtime->n_offers; n++) names[n] = s->runtime->offers[n].name;
    names[n] = NULL;
    const char *near = kv_nearest(name, names);
    return kv_fail(e, KV_EFAIL, path, "kv-cache-dtype '%s' has no format in kvsim%s%s", name,
                   near ? "; the nearest is " : "", near ? near : "");
}

// compressed-tensors: {"quantization_config": {"kv_cache_scheme": {...}}}
static int read_scheme(struct kv_served *s, const char *text, const char *path,
                       struct kv_error *e) {
    json_t *root;
    long bits = 0;
    int rc = kv_json_object_read(&root, text, path, e);
    if (rc) return rc;
    const json_t *config = json_object_get(root, "quantization_config"),
                 *scheme = json_object_get(config ? config : root, "kv_cache_scheme");
    const char *type = json_string_value(json_object_get(scheme, "type"));
    if (!json_is_object(scheme)) rc = kv_fail(e, KV_EFAIL, path, "holds no kv_cache_scheme");
    if (rc == 0) rc = kv_json_whole(scheme, "num_bits", 1, 16, 0, &bits, path, e);
    if (rc == 0 && (bits != 8 || !type || strcmp(type, "float") != 0))
        rc = kv_fail(e, KV_EFAIL, path,
                     "kv_cache_scheme: num_bits 8 of type float is the one that is read");
    if (rc == 0) {
        s->offer = kv_offer_named(s->runtime, "fp8_e4m3");
        kv_served_all(s, 8, 8);
    }
    json_decref(root);
    return rc;
}

int kv_read_vllm(struct kv_served *s, const char *text, const char *path, struct kv_error *e) {
    struct kv_words w;
    const char *name;
    if (*text == '{') return read_scheme(s, text, path, e);
    int rc = kv_words_read(&w, text, path, e);
    if (rc == 0) rc = kv_words_option(&w, cache_dtype, path, &name, e);
    if (rc == 0 && !name) rc = kv_fail(e, KV_EFAIL, path, "it names no --kv-cache-dtype");
    if (rc == 0) rc = find_dtype(s, name, path, e);
    bool skips = kv_words_flag(&w, "--kv-cache-dtype-skip-layers");
    if (rc == 0 && s->offer && (skips || s->offer->edge)) {
        rc = kv_served_spread(s, 1, path, e);
        for (uint32_t l = s->offer->edge; rc == 0 && l + s->offer->edge < s->n_layers; l++)
            memset(s->bits + 2 * (size_t)l, (int)width_of(s->offer), 2);
        if (rc == 0) rc = read_skipped(s, &w, path, e);
    } else if (rc == 0) {
        unsigned bits = s->offer ? width_of(s->offer) : 16;
        kv_served_all(s, bits, bits);
    }
    kv_words_fini(&w);
    return rc;
}

bool kv_is_vllm(const char *text) {
    return strstr(text, "--kv-cache-dtype") || strstr(text, "vllm serve") ||
           (*text == '{' && strstr(text, "compressed-tensors"));
}

// ---- mlx-lm ---------------------------------------------------------------------------

int kv_write_mlx(const struct kv_served *s, struct kv_text *t, struct kv_error *e) {
    (void)e;
    kv_text_addf(t, "mlx_lm.generate --model MODEL");
    if (s->offer)
        kv_text_addf(t, " --kv-bits %u --kv-group-size %u --quantized-kv-start 0", s->bits[KV_KEY],
                     s->group ? s->group : s->head_dim);
    kv_text_addf(t, "\n");
    return 0;
}

int kv_read_mlx(struct kv_served *s, const char *text, const char *path, struct kv_error *e) {
    static const char *const bits_name[] = {"--kv-bits", NULL},
                             *const group_name[] = {"--kv-group-size", NULL},
                             *const start_name[] = {"--quantized-kv-start", NULL};
    struct kv_words w;
    const char *bits = NULL, *group = NULL, *start = NULL;
    long b = 16, g = 64, from;
    int rc = kv_words_read(&w, text, path, e);
    if (rc == 0) rc = kv_words_option(&w, bits_name, path, &bits, e);
    if (rc == 0) rc = kv_words_option(&w, group_name, path, &group, e);
    if (rc == 0) rc = kv_words_option(&w, start_name, path, &start, e);
    if (rc == 0 && (kv_words_say(&w, "--kv-key-") || kv_words_say(&w, "--kv-value-") ||
                    kv_words_say(&w, "--kv-quant-scheme")))
        rc = kv_fail(e, KV_EFAIL, path, "keys and values apart are mlx-vlm's, which is not read");
    s->offer = bits ? &s->runtime->offers[0] : NULL;
    if (rc == 0 && bits && (!kv_whole_number(bits, 1, 16, &b) || !(s->offer->widths >> b & 1)))
        rc = kv_fail(e, KV_EFAIL, path, "--kv-bits: '%s' is none of 2, 3, 4, 5, 6, 8", bits);
    if (rc == 0 && group && !kv_whole_number(group, 1, 100000, &g))
        rc = kv_fail(e, KV_EFAIL, path, "--kv-group-size: '%s' is no number", group);
    if (rc == 0 && start && !kv_whole_number(start, 0, 1000000000, &from))
        rc = kv_fail(e, KV_EFAIL, path, "--quantized-kv-start: '%s' is no number of tokens", start);
    if (rc == 0 && s->offer) rc = kv_served_group(s, g, path, "--kv-group-size", e);
    if (rc == 0) kv_served_all(s, (unsigned)b, (unsigned)b);
    kv_words_fini(&w);
    return rc;
}

bool kv_is_mlx(const char *text) {
    return strstr(text, "mlx_lm") || strstr(text, "--kv-bits");
}

const char *kv_remark_mlx(const struct kv_served *s) {
    return s->offer ? "a cache that is limited in size (max-kv-size) cannot be coded" : NULL;
}
