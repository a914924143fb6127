// SPDX-License-Identifier: Apache-2.0
// One line of a benchmark file as an item. (private to traces)
#ifndef KV_TRACES_TASK_LINES_H
#define KV_TRACES_TASK_LINES_H

#include <jansson.h>

#include "traces/tasks.h"

// One file being read: where it is, for messages, and what is asked of it.
struct kv_task_source {
    const char *path;
    const char *unit; // what is counted: "line", or "item" of an array
    size_t line;      // from 1
    bool sample;      // shipped with kvsim
    bool harness;
};

// KV_EFAIL at "path: line N", the end of a path too long for a message being its telling part.
KV_PRINTF(3, 4)
int kv_task_line_fail(const struct kv_task_source *s, struct kv_error *e, const char *format, ...);

// Fills an item (zeroed before; half filled after an error, too) from a line of a file of that
// kind.
KV_MUST_CHECK int kv_task_line_read(const struct kv_task_source *s, enum kv_task_kind kind,
                                    const json_t *line, struct kv_task_item *item,
                                    struct kv_error *e);

#endif
