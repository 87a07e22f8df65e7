/* blas_check.c - whether the BLAS at hand computes right, and in which tiles a row's bits are its own.
 * Compiled for float and for double. */
#include <string.h>

#include "blas.h"

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

/* --- rows that depend on themselves alone ------------------------------------------------------------- */

/* Shapes of a right factor: around the edges of kernels and of the library's blocks in both directions. All
 * pairs of these that have at most MAX_PAIR entries, and a few large ones. */
static const int64_t widths[] = {1, 3, 17, 64, 125, 250, 300, 471, 1001};
static const int64_t depths[] = {1, 7, 64, 100, 256, 400, 784, 1025};
static const int64_t large[][2] = {{1001, 784}, {512, 512}, {250, 1025}};
#define MAX_PAIR   ((int64_t)70 * 1025)
#define MAX_FACTOR ((size_t)1001 * 784)
#define MAX_WIDTH  ((size_t)1001)
#define MAX_DEPTH  ((size_t)1025)

/* The best first. Low tiles cost a lone row least; where BLAS copies both operands for every call, tall ones
 * give the most rows a second. */
static const int64_t heights[] = {8, 16, 4};
#define MAX_HEIGHT ((size_t)16)

/* What a trial needs: the factor, a tile of rows, their product, and a row of it. */
struct trial {
    nn_multiply_fn *multiply;
    int64_t height;
    real *b, *a, *c, *alone;
};

/* Numbers that use all their bits, so that another order of summation shows (those of NN_INIT_UNIFORM have
 * 24, and their products are exact in double). They repeat after a prime. */
static void scatter(real *x, size_t n) {
    const size_t period = 10007;
    const struct nn_init normal = {.kind = NN_INIT_NORMAL, .scale = 1};
    nn_kernels_of(sizeof *x == sizeof(float) ? NN_F32 : NN_F64)
        ->init(x, (int64_t)(n < period ? n : period), &normal, (struct nn_rng_key){1, 0});
    for (size_t i = period; i < n; i++) x[i] = x[i - period];
}

static void product_of(const struct trial *t, enum nn_trans tb, int64_t n, int64_t k) {
    t->multiply(
        NULL,
        &(struct nn_product){
            .tb = tb, .m = t->height, .n = n, .k = k, .a = t->a, .b = t->b, .c = t->c, .tile = t->height});
}

static bool same_row(const struct trial *t, int64_t row, int64_t n) {
    return memcmp(t->c + row * n, t->alone, (size_t)n * sizeof *t->c) == 0;
}

/* One row among random ones, at every place among its like, and last among what are no numbers. */
static bool stands(const struct trial *t, enum nn_trans tb, int64_t n, int64_t k) {
    const int64_t h = t->height;
    const size_t row = (size_t)k * sizeof *t->a;
    scatter(t->a, (size_t)(h * k));
    product_of(t, tb, n, k);
    memcpy(t->alone, t->c, (size_t)n * sizeof *t->c);
    for (int64_t i = 1; i < h; i++) memcpy(t->a + i * k, t->a, row);
    product_of(t, tb, n, k);
    for (int64_t i = 0; i < h; i++)
        if (!same_row(t, i, n)) return false;
    for (int64_t i = 0; i < (h - 1) * k; i++) t->a[i] = (real)(i % 2 ? NAN : INFINITY);
    product_of(t, tb, n, k);
    return same_row(t, h - 1, n);
}

static bool stands_in_all(const struct trial *t) {
    bool well = true;
    for (int plain = 0; plain < 2; plain++) {
        enum nn_trans tb = plain ? NN_PLAIN : NN_TRANSPOSED;
        for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
            for (size_t j = 0; j < sizeof depths / sizeof depths[0] && well; j++)
                if (widths[i] * depths[j] <= MAX_PAIR) well = stands(t, tb, widths[i], depths[j]);
        for (size_t i = 0; i < sizeof large / sizeof large[0] && well; i++)
            well = stands(t, tb, large[i][0], large[i][1]);
    }
    return well;
}

int64_t NN_SUFFIXED(nn_blas_find_tile)(nn_multiply_fn *multiply) {
    struct trial t = {.multiply = multiply};
    t.b = nn_block_new((MAX_FACTOR + MAX_HEIGHT * (MAX_DEPTH + MAX_WIDTH) + MAX_WIDTH) * sizeof *t.b);
    if (!t.b) return 0;
    t.a = t.b + MAX_FACTOR;
    t.c = t.a + MAX_HEIGHT * MAX_DEPTH;
    t.alone = t.c + MAX_HEIGHT * MAX_WIDTH;
    scatter(t.b, MAX_FACTOR);
    int64_t found = 0;
    for (size_t i = 0; i < sizeof heights / sizeof heights[0] && !found; i++) {
        t.height = heights[i];
        if (stands_in_all(&t)) found = t.height;
    }
    nn_block_free(t.b);
    return found;
}
