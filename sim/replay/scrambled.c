// SPDX-License-Identifier: Apache-2.0
// Noise in place of what is not known yet.
#include "sim/replay/scrambled.h"

#include <stdlib.h>

#include "sim/base/memory.h"

void kv_scrambled_init(struct kv_scrambled *s, const struct kv_item *it, uint32_t row) {
    const struct kv_token *at = &it->tokens[row];
    *s = (struct kv_scrambled){.item = *it};
    s->tokens = kv_alloc(it->n_tokens, sizeof *s->tokens);
    if (it->surprisal_nats) s->surprisal_nats = kv_alloc(it->n_tokens, sizeof(float));
    for (uint32_t i = 0; i < it->n_tokens; i++) {
        struct kv_token *t = &s->tokens[i];
        bool known = i <= row && (t->segment == 0 || t->segment == at->segment);
        *t = it->tokens[i];
        if (!known) t->id = (uint32_t)(kv_draw(it->key, 1, i) * 1000);
        if (!known) t->kind = (uint32_t)(kv_draw(it->key, 2, i) * KV_N_KINDS);
        for (size_t f = 0; f < KV_N_FEATURES; f++)
            if (!known || isnan(t->feature[f]))
                t->feature[f] = (float)(8 * kv_draw(it->key, 3 + f, i));
        if (s->surprisal_nats)
            s->surprisal_nats[i] =
                known ? it->surprisal_nats[i] : (float)(8 * kv_draw(it->key, 99, i));
    }
    s->item.tokens = s->tokens;
    s->item.surprisal_nats = s->surprisal_nats;
}

void kv_scrambled_fini(struct kv_scrambled *s) {
    free(s->tokens);
    free(s->surprisal_nats);
}
