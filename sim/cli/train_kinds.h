// SPDX-License-Identifier: Apache-2.0
// What `kvsim train` trains.
#ifndef KV_CLI_TRAIN_KINDS_H
#define KV_CLI_TRAIN_KINDS_H

#include "sim/cli/options.h"

#define KV_TRAIN_MLP_OUT "work/controller.safetensors"
#define KV_TRAIN_CELLS_OUT "work/cells.safetensors"

enum { KV_TRAIN_MAX_TRACES = 64 };

// Each trains on the arguments behind its own name, writes its weights and prints.
KV_MUST_CHECK int kv_train_mlp(struct kv_cli *c, struct kv_error *e);
KV_MUST_CHECK int kv_train_cells(struct kv_cli *c, struct kv_error *e);

#endif
