// SPDX-License-Identifier: Apache-2.0
// A decision: the item is shown, damage is taken where the rounds lead, the policy is asked, and
// asked again about the first item, or about all where an audit is on.
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/replay/ask.h"
#include "sim/replay/layered.h"
#include "sim/replay/relinear.h"

// decided: the answers of a policy that decides by layers, from a pass; NULL: by recorded features.
static int decide(const struct kv_replay *r, size_t which, size_t item, const float *features,
                  const uint8_t *decided, uint8_t *cells, struct kv_error *e) {
    const struct kv_trace_item *it = kv_trace_item(r->trace, item);
    const struct kv_replay_spec *spec = &r->specs[which];
    struct kv_token *tokens = kv_alloc(it->n_tokens, sizeof *tokens);
    struct kv_item view;
    float *moved = NULL;    // the damage where the rounds have led
    uint8_t *layers = NULL; // answers by recorded features
    int rc = kv_show_item(r, which, item, features, tokens, &view, e);
    if (rc == 0 && kv_by_layers(spec) && !decided) {
        layers = kv_alloc(it->n_tokens * kv_cells(&spec->run.shape), 1);
        rc = kv_layered_recorded(r, which, item, &view, layers, e);
    }
    view.decided = decided ? decided : layers;
    if (rc == 0 && spec->rounds > 1) {
        rc = kv_relinear_damage(r, which, item, &view, &moved, e);
        view.damage = moved;
    }
    if (rc == 0) rc = kv_ask_checked(spec, &view, it->id, cells, e);
    if (rc == 0 && (r->audit || item == r->first_item)) {
        rc = kv_audit_needs(spec, it, features, &view, cells, e);
        if (rc == 0) rc = kv_audit(spec, &view, cells, e);
    }
    free(moved);
    free(layers);
    free(tokens);
    return rc;
}

int kv_decide_by(const struct kv_replay *r, size_t which, size_t item, const float *features,
                 uint8_t *cells, struct kv_error *e) {
    KV_GUARD(e);
    return decide(r, which, item, features, NULL, cells, e);
}

int kv_decide_given(const struct kv_replay *r, size_t which, size_t item, const uint8_t *decided,
                    uint8_t *cells, struct kv_error *e) {
    KV_GUARD(e);
    return decide(r, which, item, kv_trace_item(r->trace, item)->features, decided, cells, e);
}

int kv_decide(const struct kv_replay *r, size_t which, size_t item, uint8_t *cells,
              struct kv_error *e) {
    KV_GUARD(e);
    int rc = kv_trace_check_item(r->trace, item, 0, e); // features: what a policy reads is finite
    if (rc) return rc;
    return kv_decide_by(r, which, item, kv_trace_item(r->trace, item)->features, cells, e);
}
