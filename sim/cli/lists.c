// SPDX-License-Identifier: Apache-2.0
// Lists as option values, read element by element.
#include "sim/cli/lists.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"

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

// The elements of an option that lists numbers. "2/4/8", as lists once were and those inside specs
// are, is refused with the spelling that is taken.
static int number_list(const struct kv_cli *c, const char *name, char ***list, size_t *n,
                       struct kv_error *e) {
    const char *text = kv_opt(c, name);
    *n = kv_opt_list(c, name, list);
    if (*n == 0) return kv_fail(e, KV_EUSAGE, c->command->name, "--%s names nothing", name);
    if (!strchr(text, '/') || text[strspn(text, "0123456789./")]) return 0;
    char *commas = kv_strdup(text);
    for (char *p = commas; (p = strchr(p, '/'));) *p = ',';
    kv_fail(e, KV_EUSAGE, c->command->name, "--%s %s is written --%s %s now", name, text, name,
            commas);
    free(commas);
    return KV_EUSAGE;
}

int kv_opt_counts(const struct kv_cli *c, const char *name, long min, long max, uint32_t *out,
                  size_t room, size_t *n, struct kv_error *e) {
    char **list, *end;
    int rc = number_list(c, name, &list, n, e);
    for (size_t i = 0; rc == 0 && i < *n; i++) {
        long x = strtol(list[i], &end, 10);
        if (end == list[i] || *end || x < min || x > max || i == room)
            rc = kv_fail(e, KV_EUSAGE, c->command->name,
                         "--%s: '%s' where up to %zu whole numbers from %ld to %ld are expected",
                         name, list[i], room, min, max);
        else
            out[i] = (uint32_t)x;
    }
    kv_list_free(list, *n);
    return rc;
}

int kv_opt_numbers(const struct kv_cli *c, const char *name, double min, double max, double *out,
                   size_t room, size_t *n, struct kv_error *e) {
    char **list, *end;
    int rc = number_list(c, name, &list, n, e);
    for (size_t i = 0; rc == 0 && i < *n; i++) {
        double x = strtod(list[i], &end);
        if (end == list[i] || *end || !(x >= min && x <= max) || i == room)
            rc = kv_fail(e, KV_EUSAGE, c->command->name,
                         "--%s: '%s' where up to %zu numbers from %g to %g are expected", name,
                         list[i], room, min, max);
        else
            out[i] = x;
    }
    kv_list_free(list, *n);
    return rc;
}

#define FIELD_LETTERS "abcdefghijklmnopqrstuvwxyz0123456789_"

// A comma followed by a field and '=' parts two conditions, since values hold commas too.
static const char *condition_end(const char *at) {
    const char *comma = strchr(at, ',');
    while (comma && comma[1 + strspn(comma + 1, FIELD_LETTERS)] != '=')
        comma = strchr(comma + 1, ',');
    return comma ? comma : at + strlen(at);
}

int kv_opt_conditions(const struct kv_cli *c, const char *name, char ***list, size_t *n,
                      struct kv_error *e) {
    const char *text;
    int rc = 0;
    *list = NULL;
    *n = 0;
    for (size_t i = 0; (text = kv_opt_nth(c, name, i)); i++)
        for (const char *at = text, *end; at; at = *end ? end + 1 : NULL) {
            end = condition_end(at);
            *list = kv_grow(*list, *n + 1, sizeof **list);
            (*list)[(*n)++] = kv_format_text("%.*s", (int)(end - at), at);
        }
    for (size_t i = 0; i < *n && rc == 0; i++)
        if ((*list)[i][0] == '=' || (*list)[i][strspn((*list)[i], FIELD_LETTERS)] != '=')
            rc = kv_fail(e, KV_EUSAGE, c->command->name, "--%s %.80s: expected field=value", name,
                         (*list)[i]);
    if (rc) kv_list_free(*list, *n);
    return rc;
}

int kv_opt_devices(const struct kv_cli *c, const char *name, struct kv_device ***devices, size_t *n,
                   struct kv_error *e) {
    char **names;
    size_t n_names = kv_opt_list(c, name, &names);
    if (n_names == 0) {
        const char *shipped;
        while ((shipped = kv_device_name_at(n_names))) {
            names = kv_grow(names, n_names + 1, sizeof *names);
            names[n_names++] = kv_strdup(shipped);
        }
    }
    int rc = n_names ? 0 : kv_fail(e, KV_EFAIL, c->command->name, "no device is shipped; name one");
    *devices = kv_alloc(n_names + 1, sizeof **devices);
    for (*n = 0; rc == 0 && *n < n_names; *n += rc == 0)
        rc = kv_device_open(&(*devices)[*n], names[*n], e);
    kv_list_free(names, n_names);
    if (rc) kv_devices_free(*devices, *n);
    return rc;
}

void kv_devices_free(struct kv_device **devices, size_t n) {
    for (size_t i = 0; i < n; i++) kv_device_free(devices[i]);
    free(devices);
}
