/* blas.c - products and sums against naive ones, and the same bytes for any number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/blas.h"
#include "../../core/op.h"
#include "../support/threads.h"

/* One edge below, at and above a tile, and sizes of one. */
static const int64_t sizes[][3] = {
    {1, 1, 1}, {1, 70, 33}, {5, 3, 2}, {127, 9, 31}, {128, 64, 64}, {129, 65, 7}, {300, 10, 128}, {513, 1, 3},
};
enum { SIZES = sizeof sizes / sizeof sizes[0], MAX = 513 * 128 };

static double a64[MAX], b64[MAX], c64[MAX], bias64[MAX], want[MAX];
static float a32[MAX], b32[MAX], c32[MAX], bias32[MAX];

/* Numbers in [-1, 1) that float holds exactly, so that both types get the same. */
static void fill(double *x, float *y, uint64_t seed) {
    for (uint32_t i = 0; i < MAX; i += 4) {
        uint32_t word[4];
        nn_rng_draw((struct nn_rng_key){seed, 0}, 0, i / 4, word);
        for (uint32_t j = 0; j < 4 && i + j < MAX; j++)
            y[i + j] = (float)(x[i + j] = 2 * nn_rng_unit(word[j]) - 1);
    }
}

static double at(const double *x, enum nn_trans trans, int64_t rows, int64_t columns, int64_t i, int64_t j) {
    return trans == NN_TRANSPOSED ? x[j * rows + i] : x[i * columns + j];
}

static void naive(enum nn_trans ta, enum nn_trans tb, const int64_t size[3], bool add) {
    int64_t m = size[0], n = size[1], k = size[2];
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++) sum += at(a64, ta, m, k, i, l) * at(b64, tb, k, n, l, j);
            want[i * n + j] = (add ? want[i * n + j] : 0) + sum;
        }
}

static void compare(int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        assert_true(fabs(c64[i] - want[i]) < 1e-12);
        assert_true(fabs((double)c32[i] - want[i]) < 1e-4);
    }
}

/* In both types, of a, b and c, and the bias where there is one. */
static void multiply_both(struct nn_product p, bool biased) {
    p.a = a64, p.b = b64, p.c = c64, p.bias = biased ? bias64 : NULL;
    nn_multiply_f64(NULL, &p);
    p.a = a32, p.b = b32, p.c = c32, p.bias = biased ? bias32 : NULL;
    nn_multiply_f32(NULL, &p);
}

static void the_product_is_right(void **state) {
    (void)state;
    for (int s = 0; s < SIZES; s++)
        for (int variant = 0; variant < 8; variant++) {
            enum nn_trans ta = variant & 1 ? NN_TRANSPOSED : NN_PLAIN;
            enum nn_trans tb = variant & 2 ? NN_TRANSPOSED : NN_PLAIN;
            const bool add = variant & 4;
            int64_t m = sizes[s][0], n = sizes[s][1], k = sizes[s][2];
            fill(a64, a32, 1);
            fill(b64, b32, 2);
            fill(c64, c32, 3);
            memcpy(want, c64, sizeof want);
            naive(ta, tb, sizes[s], add);
            multiply_both((struct nn_product){.ta = ta, .tb = tb, .m = m, .n = n, .k = k, .add = add}, false);
            compare(m * n);
            assert_true(c64[m * n] == (double)c32[m * n]); /* nothing beyond the end is written */
        }
}

/* --- matrices that are not packed, and batches ------------------------------------------------------- */

enum { COUNT = 5, GAP = 3, ROOM = COUNT * 40 * 80 };
static double a_many[ROOM], b_many[ROOM], c_many[ROOM], c_before[ROOM];
static float a_many32[ROOM], b_many32[ROOM], c_many32[ROOM];

/* A product whose rows lie GAP elements apart, and whose matrices lie GAP rows apart. */
static struct nn_product spread_out(const int64_t size[3], int variant, int64_t period) {
    struct nn_product p = {.m = size[0], .n = size[1], .k = size[2], .count = COUNT, .add = variant & 4};
    p.ta = variant & 1 ? NN_TRANSPOSED : NN_PLAIN;
    p.tb = variant & 2 ? NN_TRANSPOSED : NN_PLAIN;
    p.lda = (p.ta == NN_TRANSPOSED ? p.m : p.k) + GAP;
    p.ldb = (p.tb == NN_TRANSPOSED ? p.k : p.n) + GAP;
    p.ldc = p.n + GAP;
    p.a_batch.stride = p.lda * ((p.ta == NN_TRANSPOSED ? p.k : p.m) + GAP);
    p.b_batch = (struct nn_operand_batch){p.ldb * ((p.tb == NN_TRANSPOSED ? p.n : p.k) + GAP), period};
    p.c_batch.stride = p.ldc * (p.m + GAP);
    return p;
}

static double element(const double *x, enum nn_trans trans, int64_t ld, int64_t i, int64_t j) {
    return trans == NN_TRANSPOSED ? x[j * ld + i] : x[i * ld + j];
}

/* What stands at a place of all of c: a sum of products, or what stood there before. */
static double expected(const struct nn_product *p, int64_t at) {
    const int64_t product = at / p->c_batch.stride, rest = at % p->c_batch.stride;
    const int64_t i = rest / p->ldc, j = rest % p->ldc;
    if (product >= COUNT || i >= p->m || j >= p->n) return c_before[at];
    const double *a = a_many + product * p->a_batch.stride;
    const double *b =
        b_many + (p->b_batch.period ? product % p->b_batch.period : product) * p->b_batch.stride;
    double sum = p->add ? c_before[at] : 0;
    for (int64_t l = 0; l < p->k; l++)
        sum += element(a, p->ta, p->lda, i, l) * element(b, p->tb, p->ldb, l, j);
    return sum;
}

static void check_spread_out(struct nn_product p, const struct nn_parallel *par) {
    for (int i = 0; i < ROOM; i++) {
        a_many[i] = a_many32[i] = (float)(i * 5 % 17) / 8 - 1;
        b_many[i] = b_many32[i] = (float)(i * 7 % 19) / 8 - 1;
        c_before[i] = c_many[i] = c_many32[i] = (float)(i * 11 % 23) / 8;
    }
    p.a = a_many, p.b = b_many, p.c = c_many;
    nn_multiply_f64(par, &p);
    p.a = a_many32, p.b = b_many32, p.c = c_many32;
    nn_multiply_f32(par, &p);
    for (int64_t i = 0; i < ROOM; i++) { /* sums of few eighths are exact */
        assert_true(c_many[i] == expected(&p, i));
        assert_true((double)c_many32[i] == c_many[i]);
    }
}

static void strides_and_batches(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1}, {2, 3, 5}, {1, 33, 20}, {17, 33, 40}, {32, 8, 16}};
    const struct nn_parallel threads = test_parallel(3);
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (int variant = 0; variant < 8; variant++)
            for (int64_t period = 0; period < 3; period++) {
                check_spread_out(spread_out(shapes[s], variant, period), NULL);
                check_spread_out(spread_out(shapes[s], variant, period), &threads);
            }
}

static void a_product_that_is_written_is_not_read(void **state) {
    (void)state;
    fill(a64, a32, 1);
    fill(b64, b32, 2);
    for (int i = 0; i < MAX; i++) c64[i] = c32[i] = NAN;
    memset(want, 0, sizeof want);
    naive(NN_PLAIN, NN_PLAIN, sizes[3], false);
    multiply_both((struct nn_product){.m = sizes[3][0], .n = sizes[3][1], .k = sizes[3][2]}, false);
    compare(sizes[3][0] * sizes[3][1]);
}

static void the_bias_is_added_to_every_row(void **state) {
    (void)state;
    for (int s = 0; s < SIZES; s++)
        for (int variant = 0; variant < 4; variant++) {
            enum nn_trans tw = variant & 1 ? NN_TRANSPOSED : NN_PLAIN;
            const bool biased = variant & 2;
            int64_t m = sizes[s][0], n = sizes[s][1], k = sizes[s][2];
            fill(a64, a32, 4);
            fill(b64, b32, 5);
            fill(bias64, bias32, 6);
            for (int i = 0; i < MAX; i++) c64[i] = c32[i] = NAN;
            for (int64_t i = 0; i < m * n; i++) want[i] = biased ? bias64[i % n] : 0;
            naive(NN_PLAIN, tw, sizes[s], true);
            multiply_both((struct nn_product){.tb = tw, .m = m, .n = n, .k = k}, biased);
            compare(m * n);
        }
}

static void column_sums_add(void **state) {
    (void)state;
    for (int s = 0; s < SIZES; s++) {
        int64_t m = sizes[s][0], n = sizes[s][1];
        fill(a64, a32, 7);
        fill(c64, c32, 8);
        memcpy(want, c64, sizeof want);
        for (int64_t i = 0; i < m * n; i++) want[i % n] += a64[i];
        nn_column_sums_f64(NULL, m, n, a64, c64);
        nn_column_sums_f32(NULL, m, n, a32, c32);
        compare(n);
    }
}

/* Wide enough that the work is in fact cut into several tasks. */
#define ROWS ((size_t)1000)
#define WIDE ((size_t)300)
#define DEEP ((size_t)200)

static void all_of_it(const struct nn_parallel *par, const float *x, const float *w, float *y, float *d_w,
                      float *sum) {
    struct nn_product product = {.tb = NN_TRANSPOSED, .m = ROWS, .n = WIDE, .k = DEEP, .a = x, .b = w};
    struct nn_product gradient = {.ta = NN_TRANSPOSED, .m = WIDE, .n = DEEP, .k = ROWS, .a = y, .b = x};
    product.bias = w;
    product.c = y;
    nn_multiply_f32(par, &product);
    gradient.c = d_w;
    gradient.add = true;
    nn_multiply_f32(par, &gradient);
    nn_column_sums_f32(par, ROWS, WIDE, y, sum);
}

static void counted(void *pool, size_t n, void (*task)(void *arg, size_t i), void *arg) {
    size_t *most = pool;
    if (n > *most) *most = n;
    for (size_t i = n; i-- > 0;) task(arg, i); /* backwards, which must not matter either */
}

static void threads_do_not_show(void **state) {
    (void)state;
    const size_t n_y = ROWS * WIDE, n_w = WIDE * DEEP, all = n_y + n_w + WIDE;
    float *x = calloc(ROWS * DEEP, sizeof *x), *w = calloc(n_w, sizeof *w);
    float *one = calloc(all, sizeof *one), *many = calloc(all, sizeof *many);
    assert_true(x && w && one && many);
    const struct nn_init normal = {.kind = NN_INIT_NORMAL, .scale = 1};
    nn_kernels_of(NN_F32)->init(x, (int64_t)(ROWS * DEEP), &normal, (struct nn_rng_key){1, 0});
    nn_kernels_of(NN_F32)->init(w, (int64_t)n_w, &normal, (struct nn_rng_key){2, 0});

    all_of_it(NULL, x, w, one, one + n_y, one + n_y + n_w);
    static const int threads[] = {1, 2, 3, 8};
    for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
        const struct nn_parallel par = test_parallel(threads[t]);
        memset(many, 0, all * sizeof *many);
        all_of_it(&par, x, w, many, many + n_y, many + n_y + n_w);
        assert_memory_equal(one, many, all * sizeof *one);
    }

    size_t tasks = 0;
    const struct nn_parallel par = {.run = counted, .pool = &tasks};
    memset(many, 0, all * sizeof *many);
    all_of_it(&par, x, w, many, many + n_y, many + n_y + n_w);
    assert_memory_equal(one, many, all * sizeof *one);
    assert_true(tasks > 1);
    free(x), free(w), free(one), free(many);
}

static void the_self_test_passes(void **state) {
    (void)state;
    struct nn_error err = {0};
    assert_int_equal(nn_blas_check(&err), NN_OK);
    assert_non_null(strstr(nn_blas_name(), "OpenBLAS"));
}

/* --- tiles in which a row's bits are its own ----------------------------------------------------------- */

/* Computes an odd row of a tile from the end of its sum: right, and different in its last bits. */
static void multiply_by_place_f64(const struct nn_parallel *par, const struct nn_product *p) {
    nn_multiply_f64(par, p);
    const double *a = p->a, *b = p->b;
    double *c = p->c;
    for (int64_t i = 1; i < p->m; i += 2)
        for (int64_t j = 0; j < p->n; j++) {
            c[i * p->n + j] = 0;
            for (int64_t l = p->k; l-- > 0;)
                c[i * p->n + j] +=
                    a[i * p->k + l] * (p->tb == NN_TRANSPOSED ? b[j * p->k + l] : b[l * p->n + j]);
        }
}

/* A row gets something of the row before it: of what is 0 among numbers, and is not where they are none. */
static void multiply_by_company_f32(const struct nn_parallel *par, const struct nn_product *p) {
    nn_multiply_f32(par, p);
    const float *a = p->a;
    float *c = p->c;
    for (int64_t i = 1; i < p->m; i++) c[i * p->n] += 0 * a[i * p->k - 1];
}

static int64_t tallest_tried;

/* As a library whose kernels of more than 4 rows are of another kind. */
static void multiply_low_f32(const struct nn_parallel *par, const struct nn_product *p) {
    nn_multiply_f32(par, p);
    float *c = p->c;
    if (p->tile > tallest_tried) tallest_tried = p->tile;
    if (p->tile > 4) c[(p->m - 1) * p->n] = nextafterf(c[(p->m - 1) * p->n], INFINITY);
}

static void a_tile_that_is_unfit_is_found_out(void **state) {
    (void)state;
    assert_int_equal(nn_blas_find_tile_f64(multiply_by_place_f64), 0);
    assert_int_equal(nn_blas_find_tile_f32(multiply_by_company_f32), 0);
    int64_t found = nn_blas_find_tile_f32(multiply_low_f32);
    assert_int_equal(tallest_tried, 16);
    assert_int_equal(found, nn_blas_tile(NN_F32) ? 4 : 0);
}

/* Rows of shapes that the search has not seen: alone in a tile of zeros, and among others at another place. */
static void a_row_has_its_own_bits(void **state) {
    (void)state;
    const int64_t tile = nn_blas_tile(NN_F32);
    if (!tile) skip();
    static const int64_t shapes[][2] = {{5, 640}, {77, 77}, {200, 300}, {2100, 28}, {128, 499}};
    fill(a64, a32, 1);
    fill(b64, b32, 2);
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (int trans = 0; trans < 2; trans++) {
            const int64_t n = shapes[s][0], k = shapes[s][1];
            struct nn_product p = {.tb = trans ? NN_TRANSPOSED : NN_PLAIN, .m = tile, .n = n, .k = k};
            p.a = a32, p.b = b32, p.c = c32, p.tile = tile;
            nn_multiply_f32(NULL, &p);
            float *lone = calloc((size_t)(tile * k), sizeof *lone),
                  *y = calloc((size_t)(tile * n), sizeof *y);
            assert_true(lone && y);
            memcpy(lone, a32 + (tile - 1) * k, (size_t)k * sizeof *lone);
            p.a = lone, p.c = y;
            nn_multiply_f32(NULL, &p);
            assert_memory_equal(y, c32 + (tile - 1) * n, (size_t)n * sizeof *y);
            free(lone), free(y);
        }
}

static int setup(void **state) {
    (void)state;
    nn_blas_init();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_product_is_right),
        cmocka_unit_test(strides_and_batches),
        cmocka_unit_test(a_product_that_is_written_is_not_read),
        cmocka_unit_test(the_bias_is_added_to_every_row),
        cmocka_unit_test(column_sums_add),
        cmocka_unit_test(threads_do_not_show),
        cmocka_unit_test(the_self_test_passes),
        cmocka_unit_test(a_tile_that_is_unfit_is_found_out),
        cmocka_unit_test(a_row_has_its_own_bits),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
