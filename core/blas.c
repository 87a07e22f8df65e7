/* blas.c - matrix products in fixed tiles of rows, so that no thread count shows in their bytes.
 * Compiled for float and for double. */
#include <assert.h>
#include <cblas.h>
#include <string.h>

#include "blas.h"

#ifdef NN_REAL_IS_DOUBLE
#define cblas_gemm cblas_dgemm
#else
#define cblas_gemm cblas_sgemm
#endif

#define COLUMNS   64                 /* in a unit of their sums */
#define TASK_MACS ((int64_t)1 << 19) /* multiply-adds that are worth another thread: some ten microseconds */
#define TASK_SUMS ((int64_t)1 << 15) /* additions, likewise */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* As many units in a range as make it worth a thread's while; depends on the shape alone. */
static int64_t worthwhile(int64_t unit, int64_t cost_of_unit, int64_t task) {
    int64_t units = task / cost_of_unit;
    return units > 1 ? units * unit : unit;
}

/* The least multiple of `unit` of which `parts` make up a length. */
static int64_t part_of(int64_t length, int64_t parts, int64_t unit) {
    return (length + parts * unit - 1) / (parts * unit) * unit;
}

/* --- how a product is cut ----------------------------------------------------------------------- */

/* What one call of BLAS computes of c. */
struct tile {
    int64_t rows, columns;
};

/* OpenBLAS copies both operands before it multiplies them, every call anew. Few calls, each for a long side
 * of c, copy least; where rows are long, those next to each other are computed together, as two threads
 * that write to one row's neighbouring halves slow each other down. */
#define LONG_ROW 2048
static int64_t long_part(int64_t length) {
    return length <= 256 ? larger(part_of(length, 2, 16), 64) : larger(part_of(length, 4, 64), 256);
}

static struct tile large_tile(const struct nn_product *p) {
    const bool by_columns = p->n >= LONG_ROW && (p->tile || p->n > p->m);
    struct tile tile = {p->m, p->n};
    if (by_columns) tile.columns = long_part(p->n);
    if (p->tile)
        tile.rows = p->tile;
    else if (!by_columns)
        tile.rows = long_part(p->m);
    return tile;
}

/* For some processors it has kernels that read operands where they lie, if a call has no more than a million
 * multiply-adds and, with b transposed, 1,200 elements of c (its "small matrix optimization"). They are the
 * fastest there are, as long as sums are short enough for a tile that is worth a call, and the lines of an
 * operand do not share too few sets of a cache. For a few rows they are in any case: to copy b costs more than
 * to multiply it. */
#define DIRECT_MACS   1000000
#define DIRECT_C      1024
#define DIRECT_STRIDE ((int64_t)(16384 / sizeof(real)))
#define MOST_C        (128 * 128)
#define FEW_ROWS      16
#define LEAST_COLUMNS 8

static int64_t row_of_a(const struct nn_product *p) {
    return p->lda ? p->lda : p->ta == NN_TRANSPOSED ? p->m : p->k;
}
static int64_t row_of_b(const struct nn_product *p) {
    return p->ldb ? p->ldb : p->tb == NN_TRANSPOSED ? p->k : p->n;
}
static int64_t row_of_c(const struct nn_product *p) { return p->ldc ? p->ldc : p->n; }

static bool suits_direct(const struct nn_product *p) {
    static const char *const cores[] = {"SkylakeX", "Cooperlake", "SapphireRapids"};
    const int64_t lda = row_of_a(p), ldb = row_of_b(p);
    const int64_t rows = p->tile ? p->tile : p->m;
    if (p->tb == NN_TRANSPOSED && rows <= FEW_ROWS) {
        if (rows * LEAST_COLUMNS * p->k > DIRECT_MACS) return false;
    } else if (p->k * DIRECT_C > DIRECT_MACS || larger(lda, ldb) >= DIRECT_STRIDE || p->tile > DIRECT_C / 16)
        return false;
    const char *core = openblas_get_corename();
    for (size_t i = 0; i < sizeof cores / sizeof cores[0]; i++)
        if (strcmp(core, cores[i]) == 0) return true;
    return false;
}

/* In the proportions that were measured to be best, by which operands are transposed; with short sums more of
 * c, so that a call is worth its while; with a short side of c more of the other one. */
static struct tile direct_tile(const struct nn_product *p) {
    static const struct tile best[2][2] = {{{16, 64}, {32, 32}}, {{32, 32}, {32, 32}}};
    struct tile tile = best[p->ta][p->tb];
    const int64_t most = smaller(DIRECT_MACS / p->k, p->tb == NN_TRANSPOSED ? DIRECT_C : MOST_C);
    while (2 * tile.rows * tile.columns <= most)
        if (tile.rows < tile.columns)
            tile.rows *= 2;
        else
            tile.columns *= 2;
    int64_t rows = p->tile ? p->tile : smaller(tile.rows, p->m);
    if (rows != tile.rows) tile = (struct tile){rows, most / rows / LEAST_COLUMNS * LEAST_COLUMNS};
    if (p->n < tile.columns) {
        tile.columns = p->n;
        if (!p->tile)
            tile.rows = smaller(larger(most / p->n / LEAST_COLUMNS * LEAST_COLUMNS, tile.rows), p->m);
    }
    return tile;
}

/* --- products ----------------------------------------------------------------------------------- */

struct cutting {
    const struct nn_product *product;
    struct tile tile;
    int64_t across, down; /* tiles in a row of them, and in a column */
};

/* Where the matrix of a batch's product begins. */
static int64_t place(const struct nn_operand_batch *batch, int64_t product) {
    return batch->stride * (batch->period ? product % batch->period : product);
}

/* What follows a tile of the one product. */
static void follow(const struct nn_product *p, int64_t row, int64_t column, int64_t rows, int64_t columns) {
    const int64_t runs = columns == p->n ? 1 : rows, length = columns == p->n ? rows * columns : columns;
    for (int64_t i = 0; i < runs; i++) {
        int64_t begin = (row + i) * p->n + column;
        p->sequel->fn(p->sequel->arg, begin, begin + length);
    }
}

static void multiply_tile(const struct nn_product *p, int64_t product, int64_t row, int64_t column,
                          const struct tile *tile) {
    const bool ta = p->ta == NN_TRANSPOSED, tb = p->tb == NN_TRANSPOSED;
    const int64_t rows = smaller(tile->rows, p->m - row), columns = smaller(tile->columns, p->n - column);
    const int64_t lda = row_of_a(p), ldb = row_of_b(p), ldc = row_of_c(p);
    const real *a = (const real *)p->a + place(&p->a_batch, product) + (ta ? row : row * lda);
    const real *b = (const real *)p->b + place(&p->b_batch, product) + (tb ? column * ldb : column);
    const real *bias = p->bias;
    real *c = (real *)p->c + place(&p->c_batch, product) + row * ldc + column;
    if (bias) /* before the product is added: a beta of 0 would cost a pass over c too */
        for (int64_t i = 0; i < rows; i++) memcpy(c + i * ldc, bias + column, (size_t)columns * sizeof *c);
    cblas_gemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (int)rows,
               (int)columns, (int)p->k, 1, a, (int)lda, b, (int)ldb, bias || p->add, c, (int)ldc);
    if (p->sequel) follow(p, row, column, rows, columns);
}

/* Tiles of a height that was asked for are low, and a column of them reads the same part of b: one after the
 * other, from a cache. */
#define LOW_TILES 4

static void multiply_tiles(void *arg, int64_t begin, int64_t end) {
    const struct cutting *cutting = arg;
    const struct tile *tile = &cutting->tile;
    const int64_t each = cutting->across * cutting->down;
    for (int64_t i = begin; i < end; i++) {
        bool low = cutting->product->tile != 0;
        int64_t at = i % each;
        int64_t row = low ? at % cutting->down : at / cutting->across;
        int64_t column = low ? at / cutting->down : at % cutting->across;
        multiply_tile(cutting->product, i / each, row * tile->rows, column * tile->columns, tile);
    }
}

void nn_multiply(const struct nn_parallel *par, const struct nn_product *p) {
    struct cutting cutting = {p, suits_direct(p) ? direct_tile(p) : large_tile(p), 0, 0};
    const struct tile *tile = &cutting.tile;
    const int64_t count = p->count ? p->count : 1;
    assert(!p->sequel || (count == 1 && row_of_c(p) == p->n));
    assert(count == 1 || (p->c_batch.stride && !p->c_batch.period));
    cutting.across = (p->n + tile->columns - 1) / tile->columns;
    cutting.down = (p->m + tile->rows - 1) / tile->rows;
    const int64_t together = p->tile ? smaller(cutting.down, LOW_TILES) : 1;
    const int64_t macs = smaller(tile->rows, p->m) * smaller(tile->columns, p->n) * p->k;
    nn_parallel_ranges(par, cutting.across * cutting.down * count,
                       worthwhile(together, together * macs, TASK_MACS), multiply_tiles, &cutting);
}

/* --- sums --------------------------------------------------------------------------------------- */

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
