// SPDX-License-Identifier: Apache-2.0
// Comma-separated option values.
#include "sim/cli/lists.h"
#include "sim/base/args.h"

#include <stdlib.h>

size_t kv_opt_list(const struct kv_cli *c, const char *name, char ***list) {
    const char *at = kv_opt(c, name);
    size_t n = 0;
    *list = NULL;
    while (at && *at) {
        size_t length = strcspn(at, ",");
        *list = kv_grow(*list, n + 1, sizeof **list);
        (*list)[n++] = kv_format_text("%.*s", (int)length, at);
        at += length + (at[length] == ',');
    }
    return n;
}

int kv_opt_counts(const struct kv_cli *c, const char *name, long min, long max, uint32_t *out,
                  size_t room, size_t *n, struct kv_error *e) {
    char **list;
    size_t n_list = kv_opt_list(c, name, &list);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n_list; i++) {
        char *end;
        long x = strtol(list[i], &end, 10);
        if (end == list[i] || *end || x < min || x > max || i == room)
            rc = kv_fail(e, KV_EUSAGE, c->command->name,
                         "--%s: '%s' where up to %zu whole numbers from %ld to %ld are expected",
                         name, list[i], room, min, max);
        else
            out[i] = (uint32_t)x;
    }
    *n = n_list;
    kv_list_free(list, n_list);
    if (rc == 0 && n_list == 0)
        rc = kv_fail(e, KV_EUSAGE, c->command->name, "--%s names nothing", name);
    return rc;
}
