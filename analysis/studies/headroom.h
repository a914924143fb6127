// SPDX-License-Identifier: Apache-2.0
// Headroom: what each freedom to choose widths is worth, at equal bits. The best plan under every
// freedom, chosen on training items or by an oracle on each item, is run exactly on other items.
//
//     struct kv_headroom_options o = kv_headroom_defaults();
//     struct kv_headroom h;
//     o.plan.trace = "f.trace", o.model = "model.gguf", o.db = "headroom.db";
//     int rc = kv_headroom_run(&h, &o, &e);             h.at[0 .. h.n - 1], uniform storage first
//     kv_headroom_fini(&h);
#ifndef KV_ANALYSIS_STUDIES_HEADROOM_H
#define KV_ANALYSIS_STUDIES_HEADROOM_H

#include "analysis/stats/stats.h"
#include "analysis/studies/planner.h"
#include "sim/model/compute.h"

// From one width for all to a width of each cell's own; after an oracle its null.
struct kv_freedom {
    const char *name;
    int plan;                      // enum kv_plan_family, planned on the train items, or -1
    const char *grain, *kv, *more; // else an oracle's
    bool null;                     // its widths, on the wrong tokens or cells of the item
    bool again;                    // damage measured again at the allocation, `rounds` times in all
};
enum { KV_N_FREEDOMS = 13, KV_HEADROOM_BUDGETS = 8 };
extern const struct kv_freedom kv_freedoms[KV_N_FREEDOMS];

struct kv_headroom_options {
    size_t struct_bytes; // as kv_headroom_defaults sets it
    // Its items are what all is run on; none = the longer run beside plan.train. Its budget is not
    // read.
    struct kv_planner_options plan;
    const char *model; // GGUF file or Hugging Face folder
    enum kv_compute compute;
    const char *format;
    // Each budget is what uniform storage at so many bits takes, scales and all.
    uint32_t bits[KV_HEADROOM_BUDGETS], widths[KV_MAX_WIDTHS];
    size_t n_bits, n_widths; // widths: that plans may use
    uint32_t rounds;         // above 1, oracles also measure damage again at their allocation
    const char *db;          // store of results, made when missing: what it holds is not run again
};
// asym:group=32 at 3, 4 and 5 bits, widths 2 3 4 5 6 8, one round, into kvsim.db; else the defaults
// of kv_planner_defaults.
struct kv_headroom_options kv_headroom_defaults(void);
// Says what is wrong with options before anything is opened: KV_EUSAGE; `where` is the field.
KV_MUST_CHECK int kv_headroom_check(const struct kv_headroom_options *o, struct kv_error *e);

// One freedom at one budget.
struct kv_headroom_entry {
    const struct kv_freedom *freedom;
    size_t budget; // index into bits
    double uniform_bits;
    char *spec, *canonical;
    size_t n;             // items that count
    size_t n_left_out;    // its own whose scores or divergence are not finite: they count for none
    double bits;          // allocated, as run
    struct kv_mean exact; // nats a scored token
    double of_uniform;    // exact.mean to that of uniform storage
    double predicted;     // by fisher replay; NAN where the policy decides in rounds
    double right, agree;  // accuracy; pick agreement with 16 bit
};

struct kv_headroom {
    struct kv_headroom_entry at[KV_N_FREEDOMS * KV_HEADROOM_BUDGETS]; // by budget, then freedom
    size_t n;
    struct kv_headroom_options o; // as asked for; texts borrowed
    char *subtitle;               // "asym:group=32, MODEL, TASK, 24 items not chosen on"
    // How what was run is found in the store: items, the trace's digest, the form of damage.
    struct kv_item_range items;
    bool *left_out; // [items.n] not finite in some run: left out of all
    char digest[17];
    enum kv_form form;
};

// Runs the study. Free with kv_headroom_fini, whatever is returned. Errors: those of
// kv_headroom_check, kv_planner_open, kv_plan_find and of sweeps; items that are both chosen on and
// judged on.
KV_MUST_CHECK int kv_headroom_run(struct kv_headroom *h, const struct kv_headroom_options *o,
                                  struct kv_error *e);
void kv_headroom_fini(struct kv_headroom *h);

#endif
