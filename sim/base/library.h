// SPDX-License-Identifier: Apache-2.0
// Shared objects that a run loads by name: what they are called, where they lie, what they export.
#ifndef KV_BASE_LIBRARY_H
#define KV_BASE_LIBRARY_H

#include "policies/policy.h"

// What the environment's `variable` names, else `name` in the folder of the running program. To be
// freed.
char *kv_library_path(const char *variable, const char *name);

// Loads the library and finds the function that it exports under `symbol`; the caller knows its
// type. global: its symbols serve what it loads itself. It stays loaded, since threads may still be
// in it when its caller is done, unless the handle in *library (may be NULL) is closed. Errors:
// cannot be loaded, with the loader's reason; no such symbol.
KV_MUST_CHECK int kv_library_load(const char *path, bool global, const char *symbol, void **library,
                                  void (**function)(void), struct kv_error *e);

#endif
