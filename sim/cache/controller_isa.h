// SPDX-License-Identifier: Apache-2.0
// The controller's arithmetic (controller.isa.c) by CPU level.
#ifndef KV_CACHE_CONTROLLER_ISA_H
#define KV_CACHE_CONTROLLER_ISA_H

#include "sim/cache/controller.h"

// The net with what does not vary folded: weights [in][out].
struct kv_width_net {
    float first[KV_N_CELL_FEATURES][KV_NET_WIDTH], second[KV_NET_WIDTH][KV_NET_WIDTH];
    float second_bias[KV_NET_WIDTH], third[KV_NET_WIDTH], third_bias;
};

// Output of the net; constant [64]: first_bias and the place's embedding.
typedef float kv_net_fn(const struct kv_width_net *net, const float *constant, const float *x);
typedef float kv_dot_fn(const float *a, const float *b, size_t n);
// sum of m (x - y)^2
typedef float kv_error_fn(const float *m, const float *x, const float *y, size_t n);
// Least and largest of n numbers, n a multiple of 16.
typedef void kv_range_fn(const float *x, size_t n, float range[2]);

kv_net_fn kv_net_base, kv_net_avx2, kv_net_avx512;
kv_dot_fn kv_dot_base, kv_dot_avx2, kv_dot_avx512;
kv_error_fn kv_error_base, kv_error_avx2, kv_error_avx512;
kv_range_fn kv_range_base, kv_range_avx2, kv_range_avx512;

#endif
