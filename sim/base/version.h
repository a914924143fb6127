// SPDX-License-Identifier: Apache-2.0
// Which kvsim this is.
#ifndef KV_BASE_VERSION_H
#define KV_BASE_VERSION_H

#define KV_VERSION_MAJOR 0
#define KV_VERSION_MINOR 1
#define KV_VERSION_PATCH 0
#define KV_VERSION "0.1.0"

#endif
