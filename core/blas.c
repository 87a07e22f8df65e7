/* blas.c - matrix products in fixed tiles of rows, so that no thread count shows in their bytes.
 * Compiled for float and for double. */
#include <cblas.h>
#include <string.h>

#include "blas.h"
#include "op.h"

#ifdef NN_REAL_IS_DOUBLE
#define cblas_gemm cblas_dgemm
#else
#define cblas_gemm cblas_sgemm
#endif

#define TILE      128                /* rows of C a call */
#define COLUMNS   64                 /* summed together */
#define TASK_MACS ((int64_t)1 << 19) /* multiply-adds that are worth another thread: some ten microseconds */
#define TASK_SUMS ((int64_t)1 << 15) /* additions, likewise */

/* As many units in a range as make it worth a thread's while; depends on the shape alone. */
static int64_t worthwhile(int64_t unit, int64_t cost_of_unit, int64_t task) {
    int64_t units = task / cost_of_unit;
    return units > 1 ? units * unit : unit;
}

struct product {
    enum nn_trans ta, tb;
    int64_t m, n, k;
    const real *a, *b;
    real beta, *c;
    const real *bias; /* NULL, or what the rows of c hold first; beta is then 1 */
};

static void one_tile(const struct product *p, int64_t row, int64_t rows) {
    real *c = p->c + row * p->n;
    if (p->bias)
        for (int64_t i = 0; i < rows; i++) memcpy(c + i * p->n, p->bias, (size_t)p->n * sizeof *c);
    const real *a = p->a + (p->ta == NN_TRANSPOSED ? row : row * p->k);
    cblas_gemm(CblasRowMajor, p->ta == NN_TRANSPOSED ? CblasTrans : CblasNoTrans,
               p->tb == NN_TRANSPOSED ? CblasTrans : CblasNoTrans, (int)rows, (int)p->n, (int)p->k, 1, a,
               (int)(p->ta == NN_TRANSPOSED ? p->m : p->k), p->b, (int)(p->tb == NN_TRANSPOSED ? p->k : p->n),
               p->beta, c, (int)p->n);
}

static void tiles(void *arg, int64_t begin, int64_t end) {
    const struct product *p = arg;
    for (int64_t row = begin; row < end; row += TILE) one_tile(p, row, end - row < TILE ? end - row : TILE);
}

static void multiply(const struct nn_parallel *par, struct product *p) {
    nn_parallel_ranges(par, p->m, worthwhile(TILE, TILE * p->n * p->k, TASK_MACS), tiles, p);
}

void nn_gemm(const struct nn_parallel *par, enum nn_trans ta, enum nn_trans tb, int64_t m, int64_t n,
             int64_t k, const real *a, const real *b, real beta, real *c) {
    multiply(par, &(struct product){ta, tb, m, n, k, a, b, beta, c, NULL});
}

/* The bias goes into y before the product is added to it: a beta of 0 would have cost a pass over y too. */
void nn_affine(const struct nn_parallel *par, enum nn_trans tw, int64_t m, int64_t n, int64_t k,
               const real *x, const real *w, const real *bias, real *y) {
    multiply(par, &(struct product){NN_PLAIN, tw, m, n, k, x, w, bias ? 1 : 0, y, bias});
}

struct sums {
    int64_t m, n;
    const real *a;
    real *sum;
};

/* Rows in their order, in double: no split by rows, so nothing to combine. */
static void sum_columns(void *arg, int64_t begin, int64_t end) {
    const struct sums *s = arg;
    for (int64_t first = begin; first < end; first += COLUMNS) {
        int64_t width = end - first < COLUMNS ? end - first : COLUMNS;
        double total[COLUMNS] = {0};
        for (int64_t i = 0; i < s->m; i++) {
            const real *row = s->a + i * s->n + first;
            for (int64_t j = 0; j < width; j++) total[j] += (double)row[j];
        }
        for (int64_t j = 0; j < width; j++) s->sum[first + j] += (real)total[j];
    }
}

void nn_column_sums(const struct nn_parallel *par, int64_t m, int64_t n, const real *a, real *sum) {
    nn_parallel_ranges(par, n, worthwhile(COLUMNS, COLUMNS * m, TASK_SUMS), sum_columns,
                       &(struct sums){m, n, a, sum});
}

/* --- the self-test ---------------------------------------------------------------------------------- */

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

static int check_product(const int64_t size[3], enum nn_trans ta, enum nn_trans tb, real beta, real *a,
                         real *b, real *c, struct nn_error *err) {
    int64_t m = size[0], n = size[1], k = size[2];
    fill(a, m * k, 5);
    fill(b, k * n, 7);
    fill(c, m * n, 11);
    nn_gemm(NULL, ta, tb, m, n, k, a, b, beta, c);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double want = (double)beta * ((double)((i * n + j) * 11 % 17 - 8) / 8);
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
                               variant & 2 ? NN_TRANSPOSED : NN_PLAIN, (real)(variant & 4 ? 1 : 0), block,
                               block + MAX_OPERAND, block + 2 * MAX_OPERAND, err);
    nn_block_free(block);
    return rc;
}
