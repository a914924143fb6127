// SPDX-License-Identifier: Apache-2.0
// kvsim as a library, in one header: what there is, in the order in which to read it.
//
//     struct kv_error e;                                every call that can fail fills one sentence
//     struct kv_sweep_options o = kv_sweep_defaults();
//     const char *specs[] = {"static:bits={2,4,8}@sym"};
//     struct kv_sweep *s;
//     o.model = "model.gguf", o.trace = "samples.trace", o.db = "results.db";
//     o.specs = specs, o.n_specs = 1;
//     int rc = kv_sweep_open(&s, &o, &e);
//     if (rc == 0) rc = kv_sweep_run(s, &e);            what the store holds is not run again
//     kv_sweep_close(s);                                what was not opened can be closed
//     if (rc) fprintf(stderr, "%s: %s\n", e.where, e.msg);
//
//     cc mine.c $(pkg-config --cflags --libs kvsim)
//
// Two whole programs are in sim/examples. Calls return 0 or a negative enum kv_code. None ends the
// process, catches a signal or writes to stdout; kv_set_verbosity(-1) silences what is said on
// stderr. Memory that runs out is KV_ENOMEM like any other error: what the call had allocated for
// itself is lost then, what it was given can be used and closed as before. Models, traces and specs
// are read-only once opened and shared by threads. With SIGPIPE and SIGXFSZ ignored, a closed pipe
// and a reached file-size limit are errors too. The interface is what these headers declare, listed
// in sim/kvsim.symbols; the installed library exports nothing else.
#ifndef KV_KVSIM_H
#define KV_KVSIM_H

#include "policies/policy.h"  // errors; what a policy is told and answers
#include "sim/base/version.h" // which kvsim this is
#include "sim/base/talk.h"    // how much is said on stderr
#include "sim/base/work.h"    // stopping what runs
#include "sim/base/ranks.h"   // processes that share what runs
#include "sim/base/spec.h"    // specs as texts, and expansions of several at once

// A model, a benchmark, and the recording of one over the other.
#include "sim/quant/format.h"  // how K and V are coded
#include "sim/model/model.h"   // weights and tokenizer, from GGUF or Hugging Face
#include "sim/model/compute.h" // where its products run
#include "traces/tasks.h"      // benchmark files
#include "traces/record.h"     // recording
#include "traces/trace.h"      // reading what was recorded
#include "traces/range.h"      // a part of it
#include "traces/tables.h"     // what coding each cell at each width does

// Policies replayed against a recording: decisions in, outcomes out.
#include "sim/replay/spec.h"      // a policy and a format, opened
#include "sim/base/width_bins.h"  // bins of what is counted by width
#include "sim/base/cache_types.h" // names of runtimes' cache types
#include "sim/base/outcome.h"     // what comes of it
#include "sim/replay/replay.h"    // exact: the model runs again
#include "sim/replay/fisher.h"    // predicted, without the model
#include "sim/replay/attention.h" // what happens to attention
#include "sim/replay/dump.h"      // the bytes of a sequence's cache
#include "sim/cost/sliding.h"     // what of a context layers with a window read
#include "sim/cost/cost.h"        // what a decode step costs on a device

// Results: made, kept, summed up with intervals, traded off against each other.
#include "sim/store/store.h"         // the store, an SQLite file
#include "sim/store/merge.h"         // one store of several
#include "analysis/studies/sweep.h"  // many specs into a store
#include "analysis/stats/stats.h"    // intervals and tests
#include "analysis/stats/tokens.h"   // what scored tokens of text add up to
#include "analysis/stats/evidence.h" // equivalence, items needed, rounding
#include "analysis/results/rows.h"   // a store's rows with all that is said of them
#include "analysis/results/front.h"  // who is on the frontier, and how surely

// Text generated over coded caches.
#include "analysis/studies/generation_run.h" // from prompts into a store
#include "sim/store/generated.h"             // what was generated
#include "analysis/stats/survival.h"         // how long things stay as they were
#include "analysis/studies/generation.h"     // when texts part, and whether errors add up

#endif
