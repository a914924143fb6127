// SPDX-License-Identifier: Apache-2.0
// Names made short, so that what tells them apart stays.
#ifndef KV_REPORTS_TABLE_NAMES_H
#define KV_REPORTS_TABLE_NAMES_H

#include "policies/policy.h"

// Of each of n printable texts a name of at most `room` characters (8 at least are used), for the
// caller to free. A text that fits stays as it is. Another loses first the parts that all names of
// its kind share, each run of them for an ellipsis ("mine.so:cut=4…" beside "mine.so:cut=16…"), and
// its middle if that is not enough. Two texts that differ are never named alike where their
// difference has room.
void kv_shorten_names(const char *const *texts, size_t n, size_t room, char **names);

// Behind the first n characters of a printable text.
const char *kv_skip_characters(const char *s, size_t n);

#endif
