/* blas.c - products and sums against naive ones, and the same bytes for any number of threads. blas.h
 * names one type at a time, so both are declared here by their suffix. */
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

/* As nn_gemm, nn_affine and nn_column_sums of blas.h, over double. */
void nn_gemm_f64(const struct nn_parallel *par, enum nn_trans ta, enum nn_trans tb, int64_t m, int64_t n,
                 int64_t k, const double *a, const double *b, double beta, double *c);
void nn_affine_f64(const struct nn_parallel *par, enum nn_trans tw, int64_t m, int64_t n, int64_t k,
                   const double *x, const double *w, const double *bias, double *y);
void nn_column_sums_f64(const struct nn_parallel *par, int64_t m, int64_t n, const double *a, double *sum);

/* One edge below, at and above a tile, and sizes of one. */
static const int64_t sizes[][3] = {
    {1, 1, 1}, {1, 70, 33}, {5, 3, 2}, {127, 9, 31}, {128, 64, 64}, {129, 65, 7}, {300, 10, 128}, {513, 1, 3},
};
enum { SIZES = sizeof sizes / sizeof sizes[0], MAX = 513 * 128 };

static double a64[MAX], b64[MAX], c64[MAX], want[MAX];
static float a32[MAX], b32[MAX], c32[MAX];

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

static void naive(enum nn_trans ta, enum nn_trans tb, const int64_t size[3], double beta) {
    int64_t m = size[0], n = size[1], k = size[2];
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++) sum += at(a64, ta, m, k, i, l) * at(b64, tb, k, n, l, j);
            want[i * n + j] = beta * want[i * n + j] + sum;
        }
}

static void compare(int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        assert_true(fabs(c64[i] - want[i]) < 1e-12);
        assert_true(fabs((double)c32[i] - want[i]) < 1e-4);
    }
}

static void gemm_is_the_product(void **state) {
    (void)state;
    for (int s = 0; s < SIZES; s++)
        for (int variant = 0; variant < 8; variant++) {
            enum nn_trans ta = variant & 1 ? NN_TRANSPOSED : NN_PLAIN;
            enum nn_trans tb = variant & 2 ? NN_TRANSPOSED : NN_PLAIN;
            double beta = variant & 4 ? 1 : 0;
            int64_t m = sizes[s][0], n = sizes[s][1], k = sizes[s][2];
            fill(a64, a32, 1);
            fill(b64, b32, 2);
            fill(c64, c32, 3);
            memcpy(want, c64, sizeof want);
            naive(ta, tb, sizes[s], beta);
            nn_gemm_f64(NULL, ta, tb, m, n, k, a64, b64, beta, c64);
            nn_gemm_f32(NULL, ta, tb, m, n, k, a32, b32, (float)beta, c32);
            compare(m * n);
            assert_true(c64[m * n] == (double)c32[m * n]); /* nothing beyond the end is written */
        }
}

static void a_beta_of_zero_does_not_read(void **state) {
    (void)state;
    fill(a64, a32, 1);
    fill(b64, b32, 2);
    for (int i = 0; i < MAX; i++) c64[i] = c32[i] = NAN;
    memset(want, 0, sizeof want);
    naive(NN_PLAIN, NN_PLAIN, sizes[3], 0);
    nn_gemm_f64(NULL, NN_PLAIN, NN_PLAIN, sizes[3][0], sizes[3][1], sizes[3][2], a64, b64, 0, c64);
    nn_gemm_f32(NULL, NN_PLAIN, NN_PLAIN, sizes[3][0], sizes[3][1], sizes[3][2], a32, b32, 0, c32);
    compare(sizes[3][0] * sizes[3][1]);
}

static void affine_adds_the_bias_to_every_row(void **state) {
    (void)state;
    static double bias64[MAX];
    static float bias32[MAX];
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
            naive(NN_PLAIN, tw, sizes[s], 1);
            nn_affine_f64(NULL, tw, m, n, k, a64, b64, biased ? bias64 : NULL, c64);
            nn_affine_f32(NULL, tw, m, n, k, a32, b32, biased ? bias32 : NULL, c32);
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
    nn_affine_f32(par, NN_TRANSPOSED, ROWS, WIDE, DEEP, x, w, w, y);
    nn_gemm_f32(par, NN_TRANSPOSED, NN_PLAIN, WIDE, DEEP, ROWS, y, x, 1, d_w);
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
    const struct nn_init normal = {NN_INIT_NORMAL, 1};
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
    const struct nn_parallel par = {counted, &tasks};
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

static int setup(void **state) {
    (void)state;
    nn_blas_init();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm_is_the_product),
        cmocka_unit_test(a_beta_of_zero_does_not_read),
        cmocka_unit_test(affine_adds_the_bias_to_every_row),
        cmocka_unit_test(column_sums_add),
        cmocka_unit_test(threads_do_not_show),
        cmocka_unit_test(the_self_test_passes),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
