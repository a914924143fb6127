// SPDX-License-Identifier: Apache-2.0
// What a sweep of one spec leaves beside its lines: its decisions as a plan, its scores as arrays.
//
//     kv_sweep_files_open(&f, &options, trace, specs, n, &e);
//     kv_sweep_files_decided, _scored, _take                     as kv_replay's calls say
//     kv_sweep_files_write(f, &options, &e);
//     kv_sweep_files_close(f);
#ifndef KV_ANALYSIS_STUDIES_SWEEP_FILES_H
#define KV_ANALYSIS_STUDIES_SWEEP_FILES_H

#include "analysis/studies/sweep.h"
#include "sim/replay/compare.h"

// Whether the options leave the one run that a file is of. Errors: KV_EUSAGE naming what asks for
// more, or for fewer items; those of kv_check_output.
KV_MUST_CHECK int kv_sweep_files_check(const struct kv_sweep_options *o, struct kv_error *e);

// NULL where no file is asked for. o and specs are borrowed. Errors: several specs; those of
// kv_plan_out_new.
struct kv_sweep_files;
KV_MUST_CHECK int kv_sweep_files_open(struct kv_sweep_files **f, const struct kv_sweep_options *o,
                                      const struct kv_trace *t, const struct kv_replay_spec *specs,
                                      size_t n, struct kv_error *e);
void kv_sweep_files_close(struct kv_sweep_files *f); // NULL is fine

// One at a time; each keeps what a file wants of it.
void kv_sweep_files_decided(struct kv_sweep_files *f, size_t item, const uint8_t *cells);
void kv_sweep_files_scored(struct kv_sweep_files *f, size_t item, const struct kv_targets *t,
                           const double *kl_nats);
void kv_sweep_files_take(struct kv_sweep_files *f, size_t item, const struct kv_outcome *o);

// Writes them. Errors: those of kv_write_file.
KV_MUST_CHECK int kv_sweep_files_write(const struct kv_sweep_files *f, struct kv_error *e);

#endif
