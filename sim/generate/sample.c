// SPDX-License-Identifier: Apache-2.0
#include "sim/generate/sample.h"

#include <stdlib.h>

#include "sim/base/memory.h"

void kv_sample_noise(uint64_t seed, uint64_t item_key, uint32_t step, size_t vocab, float *noise) {
    for (size_t i = 0; i < vocab; i++) {
        double u = kv_draw(seed, item_key, (uint64_t)step * vocab + i);
        noise[i] = (float)-log(-log(u > 0 ? u : 0x1p-54));
    }
}

uint32_t kv_sample_pick(const float *logits, size_t vocab, double temperature, const float *noise) {
    size_t best = 0;
    double top = -INFINITY;
    for (size_t i = 0; i < vocab; i++) {
        double x = (double)logits[i];
        if (temperature > 0) x = x / temperature + (double)noise[i];
        if (x <= top) continue;
        top = x;
        best = i;
    }
    return (uint32_t)best;
}

int kv_sample_ends(const struct kv_tokenizer *t, uint32_t **ids, size_t *n, struct kv_error *e) {
    static const char *const names[] = {"<|endoftext|>", "<|im_end|>",    "</s>",
                                        "<eos>",         "<end_of_turn>", "<|end_of_text|>",
                                        "<|eot_id|>",    "<|end|>"};
    *ids = NULL;
    *n = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        uint32_t *of = NULL;
        size_t n_of = 0, n_bytes = 0;
        int rc = kv_tokenizer_encode(t, names[i], strlen(names[i]), &of, &n_of, e);
        if (rc == 0 && n_of == 1) {
            const char *bytes = kv_tokenizer_bytes(t, of[0], &n_bytes);
            if (n_bytes == strlen(names[i]) && memcmp(bytes, names[i], n_bytes) == 0) {
                *ids = kv_grow(*ids, *n + 1, sizeof **ids);
                (*ids)[(*n)++] = of[0];
            }
        }
        free(of);
        if (rc) return rc;
    }
    return 0;
}

// *before: bytes of all tokens but the last.
static struct kv_text text_of(const struct kv_tokenizer *t, const uint32_t *ids, size_t n,
                              size_t *before) {
    struct kv_text text = {0};
    *before = 0;
    for (size_t i = 0; i < n; i++) {
        size_t n_bytes;
        const char *bytes = kv_tokenizer_bytes(t, ids[i], &n_bytes);
        if (i + 1 == n) *before = text.n;
        kv_text_add(&text, bytes, n_bytes);
    }
    return text;
}

// Where a stop stands in the text from byte `from` on; n: nowhere.
static size_t find_stop(const struct kv_text *text, size_t from, const char *stop) {
    const char *at =
        from < text->n ? memmem(text->s + from, text->n - from, stop, strlen(stop)) : NULL;
    return at && *stop ? (size_t)(at - text->s) : text->n;
}

bool kv_sample_stops(const struct kv_tokenizer *t, const uint32_t *ids, size_t n,
                     const char *const *stops) {
    if (!stops || !*stops) return false;
    size_t before;
    struct kv_text text = text_of(t, ids, n, &before);
    bool found = false;
    for (; *stops && !found; stops++) {
        size_t n_stop = strlen(*stops);
        found = find_stop(&text, before >= n_stop ? before - n_stop + 1 : 0, *stops) < text.n;
    }
    free(text.s);
    return found;
}

char *kv_sample_text(const struct kv_tokenizer *t, const uint32_t *ids, size_t n,
                     const char *const *stops) {
    size_t before;
    struct kv_text text = text_of(t, ids, n, &before);
    for (; stops && *stops; stops++) text.n = find_stop(&text, 0, *stops);
    char *out = kv_format_text("%.*s", (int)text.n, text.s ? text.s : "");
    free(text.s);
    return out;
}
