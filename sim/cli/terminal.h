// SPDX-License-Identifier: Apache-2.0
// What a terminal can show: its width, colour, and texts that cannot steer it.
#ifndef KV_CLI_TERMINAL_H
#define KV_CLI_TERMINAL_H

#include "sim/base/print.h"

// "auto" (NULL): colour on a terminal, unless $NO_COLOR is set or $TERM is "dumb"; "always",
// "never". KV_EUSAGE names them.
KV_MUST_CHECK int kv_wants_colour(const char *when, bool *colour, struct kv_error *e);
// Columns of stdout's terminal (COLUMNS, else the terminal's own); 0 = unlimited.
size_t kv_terminal_width(void);
// Prints words and a newline in lines of at most `width` columns (0, or one that leaves no room =
// one line). The cursor stands at column `margin`, where the further lines begin too.
void kv_print_wrapped(const char *words, size_t margin, size_t width);

#endif
