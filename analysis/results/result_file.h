// SPDX-License-Identifier: Apache-2.0
// Results of items, choices and tokens as arrays in a safetensors file, for numpy and its like.
//
//     struct kv_result_file *f = kv_result_file_new();
//     kv_result_put(f, KV_ITEM_KL_NATS, o->kl_nats);         row after row, in the order of the
//     items kv_result_file_write(f, "scores.safetensors", texts, n_texts, &e);
//     kv_result_file_free(f);
//
// A column that nothing was put into is left out. Numbers that are not known are NaN.
#ifndef KV_ANALYSIS_RESULTS_RESULT_FILE_H
#define KV_ANALYSIS_RESULTS_RESULT_FILE_H

#include "sim/store/store.h"

// Columns, each with the name of its tensor (result_file.c).
enum kv_result_column {
    KV_ITEM_KEY,       // U64 the recording's item.key
    KV_ITEM_INDEX,     // U32 in the recording, from 0
    KV_ITEM_GOLD,      // I32 -1 for text
    KV_ITEM_N_CHOICES, // U32 rows of the choices that are the item's; text: 1
    KV_ITEM_N_TOKENS,  // U32 rows of the tokens that are
    KV_ITEM_KL_NATS,   // F64 a scored token
    KV_ITEM_RIGHT,     // F64 [4] 1 where the pick of acc, acc_norm, acc_bytes, acc_token is gold
    KV_ITEM_RIGHT16,   // F64 [4] the same of the 16-bit run
    KV_ITEM_MARGIN,    // F64 log-prob of gold minus the best other, nats
    KV_ITEM_BITS,      // F64 [3] nominal, effective, allocated bits a value
    KV_CHOICE_LOGPROB, // F64 sum over its tokens, nats
    KV_CHOICE_LOGPROB16,
    KV_CHOICE_KL_NATS, // F64 sum over its tokens
    KV_CHOICE_TOKENS,  // U32
    KV_CHOICE_CHARS,   // U32
    KV_CHOICE_BYTES,   // U32
    KV_TOKEN_ID,       // U32 the token that is scored
    KV_TOKEN_LOGPROB,  // F64 of it, nats
    KV_TOKEN_LOGPROB16,
    KV_TOKEN_KL_NATS, // F64 of the distribution that it is drawn from: KL(16 bit || policy)
    KV_N_RESULT_COLUMNS
};

struct kv_result_file;
struct kv_result_file *kv_result_file_new(void);
void kv_result_file_free(struct kv_result_file *f); // NULL is fine
// Appends a number to a column (whole ones are exact below 2^53); keys go by kv_result_put_key.
void kv_result_put(struct kv_result_file *f, enum kv_result_column column, double x);
void kv_result_put_key(struct kv_result_file *f, uint64_t key);
// texts: n_texts pairs key, value of the metadata. Errors: those of kv_write_file.
KV_MUST_CHECK int kv_result_file_write(const struct kv_result_file *f, const char *path,
                                       const char *const *texts, size_t n_texts,
                                       struct kv_error *e);

// Writes what a store holds of a group of runs: items (redraws averaged) and the choices of the run
// itself (redraw 0). Stores hold no tokens.
KV_MUST_CHECK int kv_result_file_of_run(struct kv_store *s, const struct kv_summary *run,
                                        const char *path, struct kv_error *e);

#endif
