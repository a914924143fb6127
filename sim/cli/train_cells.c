// SPDX-License-Identifier: Apache-2.0
// kvsim train cells: trains policy cells on one trace or several.
#include "analysis/studies/cells.h"
#include "sim/base/args.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"
#include "sim/base/spec.h"
#include "sim/cli/lists.h"
#include "sim/cli/opening.h"
#include "sim/cli/train_kinds.h"

#include <stdlib.h>

// ---- options --------------------------------------------------------------------------

// Lists are separated by commas, or by slashes as in specs: a copy with commas alone. Caller frees.
static char *with_commas(const char *text) {
    char *copy = kv_strdup(text);
    for (char *s = copy; *s; s++)
        if (*s == '/') *s = ',';
    return copy;
}

static int read_features(const char *text, uint32_t *groups, struct kv_error *e) {
    char *list = with_commas(text), *rest = list, *name;
    int rc = 0;
    *groups = 0;
    while (rc == 0 && (name = strsep(&rest, ","))) {
        int at = kv_index_of(name, kv_cells_groups);
        if (at < 0)
            rc = kv_fail(e, KV_EUSAGE, "train",
                         "--features %s: a list of place, paper, token, attention and probe is "
                         "expected",
                         text);
        else
            *groups |= 1u << at;
    }
    free(list);
    return rc;
}

static int read_widths(const char *text, struct kv_cells_training *o, struct kv_error *e) {
    char *list = with_commas(text), *rest = list, *name;
    int rc = 0;
    o->n_widths = 0;
    while (rc == 0 && (name = strsep(&rest, ","))) {
        char *end;
        unsigned long bits = strtoul(name, &end, 10);
        if (end == name || *end || bits < 1 || bits > 16 || o->n_widths == KV_MAX_WIDTHS)
            rc = kv_fail(e, KV_EUSAGE, "train",
                         "--widths %s: at most %d whole numbers from 1 to 16 are expected", text,
                         KV_MAX_WIDTHS);
        else
            o->widths[o->n_widths++] = (uint32_t)bits;
    }
    free(list);
    return rc;
}

static int read_options(const struct kv_cli *c, struct kv_cells_training *o, struct kv_error *e) {
    long net = 0, passes = 0;
    int grain = 0;
    kv_cells_training_defaults(o);
    o->fit.seed = c->seed;
    o->fit.jobs = c->jobs;
    o->out = kv_opt_given(c, "out") ? kv_opt(c, "out") : KV_TRAIN_CELLS_OUT;
    o->items_out = kv_opt(c, "items-out");
    o->again = kv_opt(c, "again");
    int rc = read_features(kv_opt(c, "features"), &o->groups, e);
    if (rc == 0) rc = read_widths(kv_opt(c, "widths"), o, e);
    if (rc == 0) rc = kv_opt_int(c, "net", 0, KV_CELLS_MOST_HIDDEN, &net, e);
    if (rc == 0) rc = kv_opt_int(c, "passes", 1, 10000, &passes, e);
    if (rc == 0 && kv_opt_given(c, "grain"))
        rc = kv_opt_named(c, "grain", kv_cells_grains, &grain, e);
    if (rc == 0) rc = kv_opt_float(c, "rate", 1e-9, 1, &o->fit.rate, e);
    if (rc == 0 && kv_opt_given(c, "holdout"))
        rc = kv_opt_float(c, "holdout", 0.001, 0.5, &o->holdout, e);
    o->net = (uint32_t)net;
    o->grain = (enum kv_cells_grain)grain;
    o->fit.passes = (uint32_t)passes;
    return rc;
}

// The command as one would type it again, but for where files lie and how many workers there were,
// on which the weights do not depend.
static char *command_text(const struct kv_cli *c) {
    static const char *const elsewhere[] = {"out",     "items-out", "jobs", "quiet",
                                            "verbose", "tsv",       "json", NULL};
    struct kv_text t = {0};
    kv_text_addf(&t, "kvsim train cells");
    for (size_t i = 1; i < c->n_args; i++) {
        size_t n = strlen(c->args[i]);
        while (n > 1 && c->args[i][n - 1] == '/') n--;
        size_t from = n;
        while (from > 0 && c->args[i][from - 1] != '/') from--;
        kv_text_addf(&t, " %.*s", (int)(n - from), c->args[i] + from);
    }
    for (size_t i = 0; i < c->n_given; i++)
        if (kv_index_of(c->given[i].option, elsewhere) < 0)
            kv_text_addf(&t, " --%s %s", c->given[i].option, c->given[i].value);
    return kv_text_take(&t);
}

// ---- printing -------------------------------------------------------------------------

#define WORTH(X, T)                                                                                \
    X(T, asked, KV_TEXT(row->asked))                                                               \
    X(T, deviance, KV_NUMBER(row->deviance, 4))                                                    \
    X(T, gain, KV_NUMBER(row->gain, 3))
KV_TABLE_COLUMNS(worth, kv_cells_worth, WORTH)

static int print_trained(const struct kv_cli *c, const struct kv_cells_trained *r,
                         struct kv_error *e) {
    bool text = c->output == KV_OUT_TEXT;
    if (text)
        printf("trained on %zu tokens of %zu items; deviance on the other %zu tokens of %zu "
               "items\n\n",
               r->n_learns, r->n_items - r->n_held_items, r->n_held, r->n_held_items);
    if (text && r->left_out)
        printf("%llu cells have no coding error at 4 bits and are left out\n\n",
               (unsigned long long)r->left_out);
    int rc = kv_table_print_rows(worth, r->worth, r->n_worth, sizeof *r->worth, c->output, e);
    if (rc || !text) return rc;
    kv_print("\n%s: %zu bytes, digest %s\n%s\n", r->path, r->bytes, r->digest, r->spec);
    return kv_flush_stdout(e);
}

// ---- command --------------------------------------------------------------------------

int kv_train_cells(struct kv_cli *c, struct kv_error *e) {
    struct kv_cells_training o;
    struct kv_cells_trained r = {0};
    struct kv_trace *traces[KV_TRAIN_MAX_TRACES] = {NULL};
    size_t n = c->n_args - 1;
    int rc = read_options(c, &o, e);
    if (rc) return rc;
    for (size_t i = 0; i < n && rc == 0; i++) rc = kv_trace_open(&traces[i], c->args[i + 1], e);
    char *command = command_text(c);
    o.command = command;
    if (rc == 0)
        rc = kv_opt_blame(c, kv_cells_train((const struct kv_trace *const *)traces, n, &o, &r, e),
                          e);
    if (rc == 0) rc = print_trained(c, &r, e);
    kv_cells_trained_fini(&r);
    for (size_t i = 0; i < n; i++) kv_trace_close(traces[i]);
    free(command);
    return rc;
}
