// SPDX-License-Identifier: Apache-2.0
// Which kvsim this is: the one place that says so (the Makefile reads it here).
//
//     #if KV_VERSION_NUMBER < KV_VERSION_AT(0, 2, 0)                at compile time: the headers'
//     puts(kv_version());                                           at run time: the library's
#ifndef KV_BASE_VERSION_H
#define KV_BASE_VERSION_H

#include "policies/policy.h"

KV_BEGIN_DECLS

#define KV_VERSION_MAJOR 0
#define KV_VERSION_MINOR 1
#define KV_VERSION_PATCH 0

#define KV_VERSION_AT(major, minor, patch) ((major)*1000000 + (minor)*1000 + (patch))
#define KV_VERSION_NUMBER KV_VERSION_AT(KV_VERSION_MAJOR, KV_VERSION_MINOR, KV_VERSION_PATCH)

#define KV_VERSION_TEXT_OF(major, minor, patch) #major "." #minor "." #patch
#define KV_VERSION_TEXT(major, minor, patch) KV_VERSION_TEXT_OF(major, minor, patch)
#define KV_VERSION KV_VERSION_TEXT(KV_VERSION_MAJOR, KV_VERSION_MINOR, KV_VERSION_PATCH)

const char *kv_version(void); // "0.1.0"

KV_END_DECLS

#endif
