// SPDX-License-Identifier: Apache-2.0
// Reads what a study plans with from the command line.
#include "sim/cli/study_options.h"

#include <stdlib.h>

#include "sim/cli/lists.h"

static int read_budget(const struct kv_cli *c, struct kv_planner_options *o, struct kv_error *e) {
    static const char *const units[] = {"bits=", "bytes=", "ms="}; // as in enum kv_budget_unit
    const char *text = kv_opt(c, "budget");
    char *end = NULL;
    if (!text) return 0;
    o->limit = NAN;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strncmp(text, units[i], strlen(units[i])) == 0) {
            o->unit = (enum kv_budget_unit)i;
            o->limit = strtod(text + strlen(units[i]), &end);
        }
    bool device = end && *end == '@' && end[1] && o->unit == KV_BUDGET_MS;
    if (!(o->limit > 0) || (device ? 0 : !end || *end || o->unit == KV_BUDGET_MS))
        return kv_fail(e, KV_EUSAGE, "--budget",
                       "%s: bits=N (allocated, a value), bytes=N (a token) or ms=X@DEVICE is "
                       "expected",
                       text);
    o->device = device ? end + 1 : NULL;
    return kv_opt_float(c, "context", 1, 1e9, &o->context, e);
}

int kv_opt_planner(const struct kv_cli *c, struct kv_planner_options *o, struct kv_error *e) {
    int mean = (int)o->mean, rc = kv_opt_form(c, &o->form, e);
    if (rc == 0) rc = kv_opt_named(c, "mean", kv_train_means, &mean, e);
    if (rc == 0) rc = kv_opt_range(c, "train", &o->train, e);
    if (rc == 0) rc = kv_opt_range(c, "items", &o->items, e);
    if (rc == 0) rc = read_budget(c, o, e);
    o->trace = c->args[0];
    o->mean = (enum kv_train_mean)mean;
    o->jobs = c->jobs;
    o->seed = c->seed;
    return rc;
}

int kv_opt_widths(const struct kv_cli *c, const char *name, uint32_t *widths, size_t room,
                  size_t *n, struct kv_error *e) {
    *n = 0;
    return kv_opt(c, name) ? kv_opt_counts(c, name, 1, 16, widths, room, n, e) : 0;
}
