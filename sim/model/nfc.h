// SPDX-License-Identifier: Apache-2.0
// Unicode's normalization form C: canonical decomposition, order of marks, composition.
#ifndef KV_MODEL_NFC_H
#define KV_MODEL_NFC_H

#include <stdbool.h>
#include <stddef.h>

// Whether a well-formed UTF-8 text is in form C for sure: a quick look at its characters, which
// says no of some texts that are.
bool kv_nfc_surely(const char *s, size_t n);
// The text in form C (Unicode Standard Annex 15; The Unicode Standard, sections 3.11 and 3.12); the
// caller frees it. s is well-formed UTF-8.
char *kv_nfc(const char *s, size_t n, size_t *n_out);

#endif
