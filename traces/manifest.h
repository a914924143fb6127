// SPDX-License-Identifier: Apache-2.0
// The manifest of a trace as JSON: made before the model runs (so that what cannot be written is
// known then), sealed with a checksum of its own text.
#ifndef KV_TRACES_MANIFEST_H
#define KV_TRACES_MANIFEST_H

#include <jansson.h>

#include "traces/trace.h"

// Everything but the shards. Texts that are not UTF-8 (paths, names in a model's file) are written
// with the odd bytes as "\xE9". Caller decrefs; NULL with *e filled when it cannot be made.
json_t *kv_manifest_json(const struct kv_trace_info *info, const struct kv_trace_item *items,
                         size_t n, struct kv_error *e);

// The text with its own XXH64 in "manifest_xxh64": that of the text with sixteen zeros there.
// digest[17]: of the finished text, which names the trace. Caller frees.
char *kv_manifest_seal(json_t *manifest, char digest[17]);

// Compares the text with the checksum it holds; which seal gets; "": it holds none (recordings made
// before there was one).
KV_MUST_CHECK int kv_manifest_check(const json_t *manifest, const char *text, size_t n,
                                    const char *path, char seal[17], struct kv_error *e);

// Results go by an item's id: KV_EFAIL with both places where two of the items have one.
KV_MUST_CHECK int kv_manifest_check_ids(const struct kv_trace_item *items, size_t n,
                                        const char *path, struct kv_error *e);

#endif
