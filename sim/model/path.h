// SPDX-License-Identifier: Apache-2.0
// Where the model is when nobody says.
#ifndef KV_MODEL_PATH_H
#define KV_MODEL_PATH_H

// The model file named, else $KVSIM_MODEL, else the only file data/*.gguf, among several that of
// `make model`; NULL when there is none. Caller frees.
char *kv_model_path(const char *given);

#endif
