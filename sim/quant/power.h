// SPDX-License-Identifier: Apache-2.0
// The power that hqq's refinement takes, of IEEE sums, products and fused products alone: the C
// library's differs in its last bit from machine to machine, and a GPU has another one yet.
#ifndef KV_QUANT_POWER_H
#define KV_QUANT_POWER_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define KV_POWER __host__ __device__ static inline
#else
#define KV_POWER static inline
#endif

// A sum of two doubles, the second far below the first.
struct kv_pair_of_doubles {
    double high, low;
};

KV_POWER struct kv_pair_of_doubles kv_settled(double high, double low) {
    struct kv_pair_of_doubles p;
    p.high = high + low;
    p.low = low - (p.high - high);
    return p;
}

KV_POWER struct kv_pair_of_doubles kv_twofold(struct kv_pair_of_doubles a,
                                              struct kv_pair_of_doubles b) {
    double high = a.high * b.high;
    return kv_settled(high, fma(a.high, b.high, -high) + (a.high * b.low + a.low * b.high));
}

// pow(a, -0.3) of a normal a > 0: r = a^-0.1 by Newton's steps from the exponent's share, and r^3
// with what r^10 a lacks to 1, in twice the digits.
KV_POWER double kv_power_minus_03(double a) {
    uint64_t u;
    double r;
    memcpy(&u, &a, sizeof u);
    // 0.3 as a double lacks 1.11e-17, which a logarithm read off the exponent is good enough for.
    double log2_a = (double)(int64_t)(u - 0x3FF0000000000000ull) * 0x1p-52 + 0.043;
    u = 0x4654CCCCCCCCD000ull - u / 10; // 1.1 times the bits of 1.0
    memcpy(&r, &u, sizeof r);
    for (int k = 0; k < 5; k++) {
        double r2 = r * r, r4 = r2 * r2, r8 = r4 * r4;
        r = r + r * (1.0 - a * (r8 * r2)) * 0.1;
    }
    struct kv_pair_of_doubles one, of_a, two, four, eight, ten, three;
    one.high = r, one.low = 0.0;
    of_a.high = a, of_a.low = 0.0;
    two = kv_twofold(one, one);
    four = kv_twofold(two, two);
    eight = kv_twofold(four, four);
    ten = kv_twofold(kv_twofold(eight, two), of_a);
    three = kv_twofold(two, one);
    double more = 0x1.999999999999ap-57 * 0.6931471805599453 * log2_a;
    double lacks = 0.3 * ((ten.high - 1.0) + ten.low);
    return three.high + (three.low + (more - lacks) * three.high);
}

// sign(e) max(|e| - |e|^(p - 1) / beta, 0) with p = 0.7 and beta = 10: the proximal step of |e|^p.
KV_POWER float kv_shrink(float e) {
    double a = fabs((double)e);
    if (!(a > 0.17)) return 0.0f; // below 0.1^(1 / 1.3)
    double left = a - kv_power_minus_03(a) / 10.0;
    return left <= 0.0 ? 0.0f : e < 0.0f ? (float)-left : (float)left;
}

#endif
