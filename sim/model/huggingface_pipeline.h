// SPDX-License-Identifier: Apache-2.0
// What a tokenizer.json does to a text before and after its model: normalizer, pre_tokenizer,
// post_processor.
#ifndef KV_MODEL_HUGGINGFACE_PIPELINE_H
#define KV_MODEL_HUGGINGFACE_PIPELINE_H

#include "sim/model/huggingface.h"
#include "sim/model/tokenizer.h"

// Sets of parts what is no list of pieces or merges, and m->add_bos and m->bos. Regular expressions
// are those of the table of pretokenizers.h; any step that is not computed as the file says is
// refused by its name, the error's place being `path`.
KV_MUST_CHECK int kv_huggingface_pipeline(const json_t *root, const char *path,
                                          struct kv_tokenizer_parts *parts, struct kv_model *m,
                                          struct kv_error *e);

#endif
