// SPDX-License-Identifier: Apache-2.0
// What one core can do at most: the measure for the speed of a matrix product.
#ifndef KV_MODEL_PEAK_H
#define KV_MODEL_PEAK_H

// Billions of float32 operations a second of one thread that multiplies and adds in registers and
// does nothing else, at the CPU level in use; the best of a few runs, 100 ms in all.
double kv_peak_gflops(void);

#endif
