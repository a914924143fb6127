// SPDX-License-Identifier: Apache-2.0
// What a shell may offer for the word that is being typed: verbs, options, their values, specs.
#ifndef KV_CLI_COMPLETE_H
#define KV_CLI_COMPLETE_H

#include "sim/cli/options.h"

// Prints what the last of the words behind "kvsim" may become, one a line; nothing where it is a
// file's name or nothing fits. Specs are completed part by part ("sta" to "static:", that to its
// keys, behind '@' to formats) and by the labels and names that the store of --db holds.
typedef const struct kv_command *kv_commands_fn(size_t i); // NULL past the end
void kv_complete(char *const *words, size_t n, kv_commands_fn *commands);
// Prints the script that makes bash ask so.
void kv_complete_bash(void);

#endif
