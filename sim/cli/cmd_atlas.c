// SPDX-License-Identifier: Apache-2.0
// kvsim atlas: where bits matter: sensitivities and damage by layer and head, by position, by class
// of token, by distance to the end of the prompt.
#include <stdlib.h>

#include "analysis/studies/atlas.h"
#include "reports/draw/atlas.h"
#include "sim/base/args.h"
#include "sim/cli/opening.h"

#define PLACES(X, T)                                                                               \
    X(T, axis, KV_TEXT(row->axis))                                                                 \
    X(T, place, KV_TEXT(row->place))                                                               \
    X(T, tokens, KV_NUMBER(row->tokens, 0))                                                        \
    X(T, key_sensitivity, KV_NUMBER(row->sensitivity[KV_KEY], 8))                                  \
    X(T, value_sensitivity, KV_NUMBER(row->sensitivity[KV_VALUE], 8))                              \
    X(T, key_damage, KV_NUMBER(row->damage[KV_KEY], 8))                                            \
    X(T, value_damage, KV_NUMBER(row->damage[KV_VALUE], 8))                                        \
    X(T, damage_pct, KV_NUMBER(row->damage_pct, 2))                                                \
    X(T, damage_a_token, KV_NUMBER(row->damage_a_token, 3))
KV_TABLE_COLUMNS(places, kv_atlas_row, PLACES)

static int print(const struct kv_atlas *a, enum kv_atlas_axis axis, enum kv_output how,
                 struct kv_error *e) {
    size_t n;
    struct kv_atlas_row *rows = kv_atlas_rows(a, axis, &n);
    int rc = kv_table_print_rows(places, rows, n, sizeof *rows, how, e);
    free(rows);
    return rc;
}

static int choose_axis(const struct kv_cli *c, enum kv_atlas_axis *axis, struct kv_error *e) {
    const char *by = kv_opt(c, "by");
    bool all = strcmp(by, "all") == 0;
    int known = all ? KV_N_ATLAS_AXES : kv_index_of(by, kv_atlas_axes);
    *axis = (enum kv_atlas_axis)known;
    if (known >= 0) return 0;
    return kv_fail(e, KV_EUSAGE, "--by",
                   "%s: all, head, position, class, distance or segment is expected", by);
}

static int atlas(struct kv_cli *c, struct kv_error *e) {
    struct kv_atlas a = {0};
    struct kv_trace *trace = NULL;
    enum kv_atlas_axis axis;
    long bits;
    int rc = choose_axis(c, &axis, e);
    if (rc == 0) rc = kv_opt_int(c, "bits", 1, 16, &bits, e);
    if (rc == 0) rc = kv_trace_open(&trace, c->args[0], e);
    if (rc == 0) {
        struct kv_atlas_options o = {kv_opt(c, "format"), (uint32_t)bits, c->jobs};
        rc = kv_opt_blame(c, kv_atlas_open(&a, trace, &o, e), e);
    }
    if (rc == 0 && kv_opt(c, "out")) rc = kv_atlas_draw(&a, kv_opt(c, "out"), e);
    if (rc == 0) rc = print(&a, axis, c->output, e);
    kv_atlas_close(&a);
    kv_trace_close(trace);
    return rc;
}

static const struct kv_option options[] = {
    {"format", 'f', "FORMAT", "asym:group=32", "the format whose damage is shown"},
    {"bits", 'b', "N", "4", "at this width"},
    {"by", 0, "AXIS", "all",
     "head, position, class, distance (to the prompt's end), segment, or all"},
    {"out", 'o', "DIR", NULL, "also draws the maps there"},
    {0}};

const struct kv_command kv_cmd_atlas = {
    .name = "atlas",
    .summary = "shows where bits matter: by layer and head, position, class, distance to the end",
    .usage = "TRACE",
    .example = "kvsim atlas work/samples.trace --by class",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = atlas};
