/* blas.h - products of matrices, the sole way from core to BLAS.
 *
 * OpenBLAS's last bit depends on the shape of a call. So a product is cut into tiles by its shape alone, one
 * call each, whoever computes them: the bytes do not depend on the thread count. */
#ifndef NN_BLAS_H
#define NN_BLAS_H

#include "op.h"
#include "real.h"

enum nn_trans { NN_PLAIN, NN_TRANSPOSED };

/* Where the matrices of a batch of products lie. */
struct nn_operand_batch {
    int64_t stride; /* elements from the matrix of a product to that of the next */
    int64_t
        period; /* of a and b: so many products have matrices of their own, and then the first comes again; 0: all */
};

/* c[m, n] = op(a)[m, k] op(b)[k, n] + bias[n] on every row; row-major, of the function's type. */
struct nn_product {
    enum nn_trans ta, tb;
    int64_t m, n, k;
    /* Elements from a row of the matrix, as it lies, to the next. 0: the rows are packed. */
    int64_t lda, ldb, ldc;
    /* So many products, of matrices that lie as a_batch, b_batch and c_batch say; their results do not overlap. 0: one.
     * Each is cut as if it were the only one. */
    int64_t count;
    struct nn_operand_batch a_batch, b_batch, c_batch;
    const void *a, *b;
    const void *bias; /* NULL: none; not together with `add` */
    void *c;
    bool add;                       /* to what c holds; else c is written, and not read */
    const struct nn_sequel *sequel; /* of one packed c, with `n` columns a row; NULL: none */
    int64_t tile; /* rows of c in a tile: m is a multiple of it, and how columns are cut depends on n and k
                   * alone; 0: tiles are chosen by m, n and k */
};
#define nn_multiply NN_SUFFIXED(nn_multiply)
void nn_multiply_f32(const struct nn_parallel *par, const struct nn_product *product);
void nn_multiply_f64(const struct nn_parallel *par, const struct nn_product *product);

/* sum[n] += Σ over m rows of a[m, n] */
#define nn_column_sums NN_SUFFIXED(nn_column_sums)
void nn_column_sums_f32(const struct nn_parallel *par, int64_t m, int64_t n, const float *a, float *sum);
void nn_column_sums_f64(const struct nn_parallel *par, int64_t m, int64_t n, const double *a, double *sum);

/* Products of many shapes against a naive one; see nn_blas_check. */
int nn_blas_selftest_f32(struct nn_error *err);
int nn_blas_selftest_f64(struct nn_error *err);

/* The height of tiles at which `multiply` gives a row the same bits at any place and in any company, over
 * products of many shapes; 0: none was found. See nn_blas_tile. */
typedef void nn_multiply_fn(const struct nn_parallel *par, const struct nn_product *product);
int64_t nn_blas_find_tile_f32(nn_multiply_fn *multiply);
int64_t nn_blas_find_tile_f64(nn_multiply_fn *multiply);

#endif
