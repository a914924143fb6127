// SPDX-License-Identifier: Apache-2.0
// What the files of the study share (private to them).
#ifndef KV_ANALYSIS_STUDIES_ANATOMY_INSIDE_H
#define KV_ANALYSIS_STUDIES_ANATOMY_INSIDE_H

#include "analysis/studies/anatomy.h"

static inline size_t kv_anatomy_at(const struct kv_anatomy *a, size_t layer, size_t head,
                                   enum kv_side side) {
    return (layer * a->n_heads + head) * 2 + side;
}

// Fills places and channels from the recorded items. (anatomy_measure.c)
KV_MUST_CHECK int kv_anatomy_measure(struct kv_anatomy *a, const struct kv_item_range *items,
                                     const struct kv_format *f, uint8_t width, struct kv_error *e);

// Fills the remedies, the format itself first; places have their damage. (anatomy_remedies.c)
KV_MUST_CHECK int kv_anatomy_try_remedies(struct kv_anatomy *a, const struct kv_item_range *items,
                                          struct kv_error *e);

// Marks the places that stand out and writes the verdict. (anatomy_verdict.c)
void kv_anatomy_name_places(struct kv_anatomy *a);
void kv_anatomy_conclude(struct kv_anatomy *a);

#endif
