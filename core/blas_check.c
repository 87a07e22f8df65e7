/* blas_check.c - whether the BLAS at hand computes right. Compiled for float and for double. */
#include "blas.h"
#include "op.h"

/* Sizes that meet the library's main kernels, their edges, and the border of a tile. */
static const int64_t sizes[][3] = {
    {1, 1, 1}, {1, 10, 64}, {2, 3, 5}, {7, 1, 9}, {17, 33, 65}, {64, 64, 64}, {128, 48, 96}, {130, 31, 70},
};
#define MAX_OPERAND ((size_t)130 * 96)

static double entry(const real *a, enum nn_trans trans, int64_t rows, int64_t columns, int64_t i, int64_t j) {
    return (double)a[trans == NN_TRANSPOSED ? j * rows + i : i * columns + j];
}

/* The entries are small multiples of 1/8, so every product and sum is exact in float too: an answer is
 * right to the bit, or wrong. */
static void fill(real *a, int64_t n, int64_t step) {
    for (int64_t i = 0; i < n; i++) a[i] = (real)((i * step) % 17 - 8) / 8;
}

static int check_product(const int64_t size[3], enum nn_trans ta, enum nn_trans tb, bool add, real *a,
                         real *b, real *c, struct nn_error *err) {
    int64_t m = size[0], n = size[1], k = size[2];
    fill(a, m * k, 5);
    fill(b, k * n, 7);
    fill(c, m * n, 11);
    struct nn_product product = {
        .ta = ta, .tb = tb, .m = m, .n = n, .k = k, .a = a, .b = b, .c = c, .add = add};
    nn_multiply(NULL, &product);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double want = add ? (double)((i * n + j) * 11 % 17 - 8) / 8 : 0;
            for (int64_t l = 0; l < k; l++) want += entry(a, ta, m, k, i, l) * entry(b, tb, k, n, l, j);
            if ((double)c[i * n + j] != want)
                return nn_fail(err, NN_E_INTERNAL,
                               "BLAS is wrong in %d-bit numbers: [%lld, %lld] x [%lld, %lld]%s%s differs at "
                               "[%lld, %lld]: %.9g, not %.9g",
                               (int)sizeof(real) * 8, (long long)m, (long long)k, (long long)k, (long long)n,
                               ta == NN_TRANSPOSED ? ", first transposed" : "",
                               tb == NN_TRANSPOSED ? ", second transposed" : "", (long long)i, (long long)j,
                               (double)c[i * n + j], want);
        }
    return NN_OK;
}

int NN_SUFFIXED(nn_blas_selftest)(struct nn_error *err) {
    real *block = nn_block_new(3 * MAX_OPERAND * sizeof *block);
    if (!block) return nn_fail(err, NN_E_NOMEM, "no memory for the self-test of BLAS");
    int rc = NN_OK;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0] && !rc; s++)
        for (int variant = 0; variant < 8 && !rc; variant++)
            rc = check_product(sizes[s], variant & 1 ? NN_TRANSPOSED : NN_PLAIN,
                               variant & 2 ? NN_TRANSPOSED : NN_PLAIN, variant & 4, block,
                               block + MAX_OPERAND, block + 2 * MAX_OPERAND, err);
    nn_block_free(block);
    return rc;
}
