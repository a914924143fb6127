// SPDX-License-Identifier: Apache-2.0
// Parts of a decode step, as it is timed and as runs are written down.
#ifndef KV_CACHE_PART_H
#define KV_CACHE_PART_H

// Their sum is the step, up to the time between clock reads.
enum kv_part {
    KV_PART_WEIGHTS, // matrix products of the layers
    KV_PART_ATTEND,  // attention over the cache
    KV_PART_APPEND,  // coding and storing the new token
    KV_PART_POLICY,  // entropy and confidence of the logits, when asked for; the controller of
                     // widths
    KV_PART_HEAD,    // final norm and logits
    KV_PART_OTHER,   // norms, RoPE, activations, barriers
    KV_N_PARTS
};

#endif
