// SPDX-License-Identifier: Apache-2.0
// kvsim as a library, in one header: what there is, in the order in which to read it.
//
//     struct kv_error e = {0};                          every call that can fail fills one sentence
//     struct kv_trace *trace = NULL;
//     struct kv_replay_spec spec = {0};
//     int rc = kv_trace_open(&trace, "samples.trace", &e);
//     if (rc == 0) {
//         const struct kv_trace_info *info = kv_trace_info(trace);
//         const struct kv_format_setting setting = {info->shape, info->order};
//         rc = kv_replay_spec_open(&spec, "static:bits=4@sym", &setting, 1, &e);
//     }
//     if (rc == 0) printf("%s decides about %zu items\n", spec.canonical, info->n_items);
//     kv_replay_spec_close(&spec);                      NULL and {0} are fine
//     kv_trace_close(trace);
//     if (rc) fprintf(stderr, "%s: %s\n", e.where, e.msg);
//
//     cc mine.c $(pkg-config --cflags --libs kvsim)
//
// sim/examples/ has two whole programs. Calls return 0 or a negative enum kv_code. None ends the
// process, catches a signal or writes to stdout; what is said on stderr kv_set_verbosity(-1)
// silences. Memory that runs out is KV_ENOMEM like any other error; what the call had allocated by
// then is lost, what it was given can be used and closed. Opened models, traces and specs are
// read-only and shared by threads. The interface is what these headers declare, by name in
// kvsim.symbols; the installed library exports nothing else.
#ifndef KV_KVSIM_H
#define KV_KVSIM_H

#include "policies/policy.h"  // errors, and what a policy is told and answers
#include "sim/base/version.h" // which kvsim this is
#include "sim/base/talk.h"    // how much is said on stderr
#include "sim/base/work.h"    // stopping what runs
#include "sim/base/spec.h"    // specs, and expansions of several at once

// A model, a benchmark, and the recording of one over the other.
#include "sim/quant/format.h" // how K and V are coded
#include "sim/model/model.h"
#include "traces/tasks.h"
#include "traces/record.h"
#include "traces/trace.h"
#include "traces/tables.h" // what coding each cell at each width does

// Policies replayed against a recording: decisions in, outcomes out.
#include "sim/replay/spec.h"
#include "sim/base/outcome.h"
#include "sim/replay/replay.h"    // exact: the model runs again
#include "sim/replay/fisher.h"    // predicted, without the model
#include "sim/replay/attention.h" // what happens to attention

// What a decode step costs on a device.
#include "sim/cost/cost.h"
#include "sim/cache/part.h" // what a step consists of
#include "sim/cost/runs.h"  // steps as measured
#include "sim/cost/calibrate.h" // and a device fitted to them

// Results: kept, summed up with intervals, traded off against each other.
#include "analysis/store/store.h"
#include "analysis/stats/stats.h"

#endif
