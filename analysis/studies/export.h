// SPDX-License-Identifier: Apache-2.0
// Plans that leave and enter: a spec as a runtime's own file, with what that costs beside it.
//
//     struct kv_export_options o = kv_export_defaults();
//     struct kv_export x;
//     o.spec = "layerwise:k=8/4,v=4@asym", o.runtime = "llama.cpp", o.shape = "135m";
//     int rc = kv_export_run(&x, &o, &e);                      x.text, x.sentence
//     kv_export_fini(&x);
//
// What the runtime cannot serve is snapped to what it can (sim/runtimes/runtimes.h). With a trace
// and its model both, the plan asked for and the one exported, are replayed exactly.
#ifndef KV_ANALYSIS_STUDIES_EXPORT_H
#define KV_ANALYSIS_STUDIES_EXPORT_H

#include "analysis/stats/stats.h"
#include "analysis/studies/sweep.h"
#include "sim/runtimes/runtimes.h"

struct kv_export_options {
    size_t struct_bytes; // as kv_export_defaults sets it
    const char *spec, *runtime;
    // What tells the model's layers and heads: a name of kv_shape_named or "LAYERSxKV_HEADSxHEAD";
    // NULL = the trace's, else those of the model file.
    const char *shape;
    const char *trace, *model;  // NULL = none; model alone tells the shape
    struct kv_item_range items; // to replay; none = all
    // Where scales of an FP8 cache go, of the trace's items (sim/runtimes/scales.h); NULL =
    // nowhere. The replay has scales of 1.
    const char *scales;
    bool replay; // both plans, where there is a trace
    bool strict; // refuse what would be snapped
    unsigned jobs;
};
// Replaying, not strict, one thread.
struct kv_export_options kv_export_defaults(void);

// A plan on the items that were replayed; NAN where none were.
struct kv_export_side {
    char *spec; // canonical
    double allocated_bits, bytes_per_token;
    struct kv_mean kl; // nats a scored token
};
struct kv_export {
    char *text, *sentence;
    struct kv_export_side asked, served;
    struct kv_mean worse; // served minus asked, nats a scored token, paired by item
    struct kv_served plan;
    uint32_t n_layers;
    size_t n_items; // replayed
};
// Errors: those of kv_snap and kv_cache_plan_of_spec; KV_EUSAGE for an unknown runtime, a shape
// that is none, nothing that tells the shape; KV_EFAIL under strict, naming what would change;
// those of exact replay and of kv_cache_scales_of.
KV_MUST_CHECK int kv_export_run(struct kv_export *x, const struct kv_export_options *o,
                                struct kv_error *e);
void kv_export_fini(struct kv_export *x);

// The setting that options tell: of shape, trace or model, in this order.
KV_MUST_CHECK int kv_export_setting(struct kv_format_setting *s, const struct kv_export_options *o,
                                    struct kv_error *e);

// Reads a runtime's file (spec, replay and strict are not looked at; runtime NULL = the one that
// the file looks like) into the spec that replays it, canonical where the options tell a shape, and
// what the runtime calls it. Caller frees *spec; plan by kv_served_fini.
KV_MUST_CHECK int kv_import_run(const char *path, const struct kv_export_options *o, char **spec,
                                struct kv_served *plan, struct kv_error *e);

#endif
