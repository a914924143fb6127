// SPDX-License-Identifier: Apache-2.0
// kvsim headroom: what each freedom to choose widths is worth, at equal bits.
#include <stdlib.h>

#include "reports/draw/headroom.h"
#include "sim/base/talk.h"
#include "sim/cli/study_options.h"
#include "sim/store/label.h"

#define ENTRIES(X, T)                                                                              \
    X(T, bits_of_uniform, KV_NUMBER(row->uniform_bits, -1))                                        \
    X(T, widths_by, KV_TEXT(row->freedom->name))                                                   \
    X(T, n, KV_COUNT(row->n))                                                                      \
    X(T, allocated_bits, KV_NUMBER(row->bits, 3))                                                  \
    X(T, kl_nats, KV_NUMBER(row->exact.mean, 5))                                                   \
    X(T, kl_error, KV_NUMBER(row->exact.standard_error, 5))                                        \
    X(T, of_uniform, KV_NUMBER(row->of_uniform, 3))                                                \
    X(T, kl_predicted, KV_NUMBER(row->predicted, 5))                                               \
    X(T, acc, KV_NUMBER(row->right, 4))                                                            \
    X(T, agree16, KV_NUMBER(row->agree, 4))                                                        \
    X(T, spec, KV_TEXT(row->canonical))                                                            \
    X(T, left_out, KV_COUNT(row->n_left_out))                                                      \
    X(T, label, KV_LEFT, kv_table_take(t, kv_spec_label(row->spec)))
KV_TABLE_COLUMNS(entries, kv_headroom_entry, ENTRIES)

static int read_options(const struct kv_cli *c, struct kv_headroom_options *o, char **model,
                        struct kv_error *e) {
    long rounds;
    *o = kv_headroom_defaults();
    int rc = kv_opt_widths(c, "widths", o->widths, KV_MAX_WIDTHS, &o->n_widths, e);
    if (rc == 0) rc = kv_opt_widths(c, "bits", o->bits, KV_HEADROOM_BUDGETS, &o->n_bits, e);
    if (rc == 0) rc = kv_opt_int(c, "rounds", 1, 16, &rounds, e);
    if (rc == 0) rc = kv_opt_compute(c, &o->compute, e);
    if (rc == 0) rc = kv_opt_planner(c, &o->plan, e);
    if (rc) return rc;
    o->model = *model = kv_model_path(kv_opt(c, "model"));
    o->format = kv_opt(c, "format");
    o->rounds = (uint32_t)rounds;
    o->db = kv_opt(c, "db");
    return 0;
}

static int headroom(struct kv_cli *c, struct kv_error *e) {
    struct kv_headroom_options o;
    struct kv_headroom h = {0};
    const char *dir = kv_opt(c, "out");
    char *model = NULL;
    int rc = read_options(c, &o, &model, e);
    if (rc == 0) rc = kv_opt_blame(c, kv_headroom_run(&h, &o, e), e);
    if (rc == 0 && dir) rc = kv_headroom_draw(&h, dir, e);
    if (rc == 0 && dir) kv_say("drawn: %s/headroom.svg", dir);
    if (rc == 0) rc = kv_table_print_rows(entries, h.at, h.n, sizeof *h.at, c->output, e);
    size_t n_left_out = 0;
    for (size_t i = 0; rc == 0 && h.left_out && i < h.items.n; i++) n_left_out += h.left_out[i];
    if (n_left_out)
        kv_say("%zu of %zu items are left out of every row: in some run their scores or divergence "
               "are not finite",
               n_left_out, h.items.n);
    kv_headroom_fini(&h);
    free(model);
    return rc;
}

static const struct kv_option options[] = {
    {"model", 'm', "MODEL", NULL, "the trace's model (default: as in replay)"},
    KV_COMPUTE_OPTION,
    KV_PRECISION_OPTION,
    {"format", 'f', "FORMAT", "asym:group=32", "the format of all plans"},
    {"bits", 'b', "LIST", "3,4,5",
     "budgets: the allocated bits of uniform storage at these widths"},
    {"widths", 0, "LIST", "2,3,4,5,6,8", "widths that plans may use"},
    {"rounds", 0, "R", "1",
     "above 1, oracles also measure damage again at their own allocation, so often"},
    {"form", 0, "FORM", NULL,
     "of damage: iso, channel, element, vector (default: element, channel or iso, the finest that "
     "the trace can give)"},
    {"train", 0, "A-B", NULL, "items that plans are chosen on (default: the first half)"},
    {"items", 0, "A-B", NULL, "items that all is run on (default: the others)"},
    {"db", 0, "FILE", "kvsim.db", "store of results: what it holds is not run again"},
    {"out", 'o', "DIR", NULL, "also draws the figure there"},
    {0}};

const struct kv_command kv_cmd_headroom = {
    .name = "headroom",
    .summary = "shows what each freedom to choose widths is worth at equal bits",
    .usage = "TRACE",
    .example = "kvsim headroom work/samples.trace --bits 4 --train 0-11 --items 12-23 --db "
               "work/headroom.db",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = headroom};
