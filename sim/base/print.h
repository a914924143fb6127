// SPDX-License-Identifier: Apache-2.0
// Foreign text on its way to a terminal: what files, paths and answers hold is printed through
// these alone, so that no escape sequence in them steers it.
#ifndef KV_BASE_PRINT_H
#define KV_BASE_PRINT_H

#include "policies/policy.h"

#include <stdio.h>

// A copy with '?' for control characters and what is not UTF-8. *width counts characters. Caller
// frees.
char *kv_printable(const char *s, size_t *width);

// printf to stdout, and to any file, of lines that hold foreign text: as kv_printable, but newlines
// stay.
KV_PRINTF(1, 2) void kv_print(const char *format, ...);
KV_PRINTF(2, 0) void kv_vprint_to(FILE *f, const char *format, va_list ap);
KV_PRINTF(2, 3) void kv_print_to(FILE *f, const char *format, ...);

// The text as a JSON string, in quotes: what steers a terminal (control characters, those of C1
// too) is escaped, and each byte that is no UTF-8 (encoded surrogates are none) becomes U+FFFD,
// escaped. Caller frees.
char *kv_json_quoted(const char *s);

#endif
