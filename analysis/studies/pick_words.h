// SPDX-License-Identifier: Apache-2.0
// The words of an answer: pick.c finds it, this says it.
#ifndef KV_ANALYSIS_STUDIES_PICK_WORDS_H
#define KV_ANALYSIS_STUDIES_PICK_WORDS_H

#include "analysis/studies/pick.h"

// Sets title and sentence of a group whose rows stand in their order and whose 16-bit cache is
// priced. shape: of the recorded model.
void kv_pick_put_words(struct kv_pick *p, const struct kv_rows *rows,
                       const struct kv_pick_options *o, const struct kv_shape *shape);

#endif
