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
#define COLUMNS   64                 /* in a unit of their sums */
#define TASK_MACS ((int64_t)1 << 19) /* multiply-adds that are worth another thread: some ten microseconds */
#define TASK_SUMS ((int64_t)1 << 15) /* additions, likewise */

/* As many units in a range as make it worth a thread's while; depends on the shape alone. */
static int64_t worthwhile(int64_t unit, int64_t cost_of_unit, int64_t task) {
    int64_t units = task / cost_of_unit;
    return units > 1 ? units * unit : unit;
}

static void one_tile(const struct nn_product *p, int64_t row, int64_t rows) {
    real *c = (real *)p->c + row * p->n;
    if (p->bias) /* before the product is added: a beta of 0 would cost a pass over c too */
        for (int64_t i = 0; i < rows; i++) memcpy(c + i * p->n, p->bias, (size_t)p->n * sizeof *c);
    const real *a = (const real *)p->a + (p->ta == NN_TRANSPOSED ? row : row * p->k);
    cblas_gemm(CblasRowMajor, p->ta == NN_TRANSPOSED ? CblasTrans : CblasNoTrans,
               p->tb == NN_TRANSPOSED ? CblasTrans : CblasNoTrans, (int)rows, (int)p->n, (int)p->k, 1, a,
               (int)(p->ta == NN_TRANSPOSED ? p->m : p->k), p->b, (int)(p->tb == NN_TRANSPOSED ? p->k : p->n),
               p->bias || p->add, c, (int)p->n);
}

struct tiles {
    const struct nn_product *product;
    int64_t height;
};

static void tiles(void *arg, int64_t begin, int64_t end) {
    const struct tiles *t = arg;
    for (int64_t row = begin; row < end; row += t->height)
        one_tile(t->product, row, end - row < t->height ? end - row : t->height);
}

void nn_multiply(const struct nn_parallel *par, const struct nn_product *p) {
    struct tiles t = {p, p->tile ? p->tile : TILE};
    nn_parallel_ranges(par, p->m, worthwhile(t.height, t.height * p->n * p->k, TASK_MACS), tiles, &t);
}

struct sums {
    const struct nn_kernels *kernels;
    int64_t m, n;
    const real *a;
    real *sum;
};

static void sum_columns(void *arg, int64_t begin, int64_t end) {
    const struct sums *s = arg;
    s->kernels->column_sums(s->sum, s->a, s->m, s->n, begin, end);
}

void nn_column_sums(const struct nn_parallel *par, int64_t m, int64_t n, const real *a, real *sum) {
    nn_parallel_ranges(
        par, n, worthwhile(COLUMNS, COLUMNS * m, TASK_SUMS), sum_columns,
        &(struct sums){nn_kernels_of(sizeof *a == sizeof(float) ? NN_F32 : NN_F64), m, n, a, sum});
}
