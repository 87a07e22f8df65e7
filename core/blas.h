/* blas.h - products of matrices, the sole way from core to BLAS.
 *
 * OpenBLAS's last bit depends on the shape of a call. So the rows of C are cut into tiles of fixed height
 * and full width, one call each, whoever computes them: the bytes do not depend on the thread count. */
#ifndef NN_BLAS_H
#define NN_BLAS_H

#include "nn.h"
#include "real.h"

enum nn_trans { NN_PLAIN, NN_TRANSPOSED };

/* c[m, n] = beta c + op(a) op(b), row-major; op(a) is [m, k], op(b) is [k, n]. beta is 0 or 1; with 0,
 * c is not read. */
#define nn_gemm NN_SUFFIXED(nn_gemm)
void nn_gemm(const struct nn_parallel *par, enum nn_trans ta, enum nn_trans tb, int64_t m, int64_t n,
             int64_t k, const real *a, const real *b, real beta, real *c);

/* y[m, n] = x[m, k] op(w) + bias[n] on every row; op(w) is [k, n]; a NULL bias is none. */
#define nn_affine NN_SUFFIXED(nn_affine)
void nn_affine(const struct nn_parallel *par, enum nn_trans tw, int64_t m, int64_t n, int64_t k,
               const real *x, const real *w, const real *bias, real *y);

/* sum[n] += Σ over m rows of a[m, n] */
#define nn_column_sums NN_SUFFIXED(nn_column_sums)
void nn_column_sums(const struct nn_parallel *par, int64_t m, int64_t n, const real *a, real *sum);

/* Products of many shapes against a naive one; see nn_blas_check. */
int nn_blas_selftest_f32(struct nn_error *err);
int nn_blas_selftest_f64(struct nn_error *err);

#endif
