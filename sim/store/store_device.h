// SPDX-License-Identifier: Apache-2.0
// Devices in a store: the parameters, and the measured runs beside what was predicted of them.
#ifndef KV_STORE_STORE_DEVICE_H
#define KV_STORE_STORE_DEVICE_H

#include "sim/store/store.h"
#include "sim/cost/cost.h"

// Puts the device with its runs in place of one of the same name. predicted_ns[n_runs]: of the fits
// that left the run's context out; NAN = not predicted. In one transaction.
KV_MUST_CHECK int kv_store_put_device(struct kv_store *s, const struct kv_device *d,
                                      const double *predicted_ns, struct kv_error *e);

#endif
