// SPDX-License-Identifier: Apache-2.0
// Matrix products of OpenBLAS, which is loaded at the first need and not linked.
//
// OpenBLAS starts threads and chooses kernels while it is loaded, before any main. Linked, it makes
// `kvsim version` hang where memory is short, and it takes processors younger than itself for old
// ones ("Prescott") and runs at a fraction of their speed. So it is loaded here, with one thread
// (workers are ours, and a product must not depend on their number) and with the kernels of our own
// CPU level: avx512 SkylakeX, avx2 Haswell, base as OpenBLAS likes. $OPENBLAS_CORETYPE goes before.
//
//     if ((rc = kv_blas_open(e))) return rc;      where a model is opened, a network trained
//     kv_sgemm(false, true, rows, out, in, x, in, w, in, 0, y, out);      y = x w^T
#ifndef KV_BASE_BLAS_H
#define KV_BASE_BLAS_H

#include "policies/policy.h"

// Loads the library, once; any thread. Error: it is not there, lacks a function, or there is not
// the memory that it takes for a thread (OpenBLAS itself would wait for ever).
KV_MUST_CHECK int kv_blas_open(struct kv_error *e);

// c[m][n] = op(a) op(b) + beta c, row-major; op(a) is [m][k], op(b) [k][n]; lda, ldb, ldc are the
// steps between rows as they lie. From any thread. Raises (guard.h) where kv_blas_open would fail.
void kv_sgemm(bool a_transposed, bool b_transposed, size_t m, size_t n, size_t k, const float *a,
              size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc);

// "SkylakeX": whose kernels multiply, a part of what a result was made with; "none" without the
// library. And "OpenBLAS 0.3.21 DYNAMIC_ARCH ...", or why there is none.
const char *kv_blas_core(void);
const char *kv_blas_core_of_level(void); // what our CPU level asks for; NULL: as OpenBLAS likes
const char *kv_blas_config(void);

#endif
