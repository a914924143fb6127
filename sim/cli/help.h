// SPDX-License-Identifier: Apache-2.0
// The commands there are, found by name, and their help as text and as a Markdown page.
#ifndef KV_CLI_HELP_H
#define KV_CLI_HELP_H

#include "sim/cli/options.h"

// The command of commands.def, or help itself. KV_EUSAGE gives the nearest name.
KV_MUST_CHECK int kv_find_command(const char *name, const struct kv_command **c,
                                  struct kv_error *e);
// What `kvsim --help` prints: commands by group.
void kv_help_all(void);
// What `kvsim COMMAND --help` prints.
void kv_help_one(const struct kv_command *c);

#endif
