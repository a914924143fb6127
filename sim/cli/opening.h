// SPDX-License-Identifier: Apache-2.0
// Options that several commands read alike: names, ranges of a trace's items, the model of a trace.
#ifndef KV_CLI_OPENING_H
#define KV_CLI_OPENING_H

#include "sim/base/outcome.h"
#include "sim/cli/options.h"
#include "sim/model/compute.h"
#include "sim/model/path.h"
#include "traces/range.h"
#include "traces/trace.h"

// Reads option `name` as one of `names`, a list that ends with NULL, into *index; a command without
// the option leaves it as it is. KV_EUSAGE says what is expected.
KV_MUST_CHECK int kv_opt_named(const struct kv_cli *c, const char *name, const char *const *names,
                               int *index, struct kv_error *e);

// The same of --form: iso, element, vector or channel; *form stays without it.
KV_MUST_CHECK int kv_opt_form(const struct kv_cli *c, enum kv_form *form, struct kv_error *e);

// Reads option `name`, "A-B" counted from 0; without it *r stays as it is. KV_EUSAGE says what is
// expected.
KV_MUST_CHECK int kv_opt_range(const struct kv_cli *c, const char *name, struct kv_item_range *r,
                               struct kv_error *e);

// Where --compute wants matrix products and in what --precision: here in float32 without them.
KV_MUST_CHECK int kv_opt_compute(const struct kv_cli *c, enum kv_compute *how, struct kv_error *e);
// Opens the model that exact replay of a trace runs: by kv_model_path of --model, its products
// where --compute says. KV_EUSAGE when there is none.
KV_MUST_CHECK int kv_opt_model(const struct kv_cli *c, const struct kv_trace_info *info,
                               struct kv_model **m, struct kv_error *e);

// What a study says of wrong usage names a field of its options; the user knows that by the option
// of this command that is spelt alike: "items" becomes "--items". Returns rc.
int kv_opt_blame(const struct kv_cli *c, int rc, struct kv_error *e);

#define KV_COMPUTE_OPTION                                                                          \
    {                                                                                              \
        "compute", 0, "WHERE", "cpu",                                                              \
            "cpu, or on a GPU (`make cuda`) cublas for products, cuda for passes"                  \
    }
#define KV_PRECISION_OPTION                                                                        \
    { "precision", 0, "TYPE", "f32", "of --compute cuda in exact replay: f32 or bf16" }

#endif
