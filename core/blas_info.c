/* blas_info.c - the BLAS library as a whole: its threads, its name, its self-test. */
#include <cblas.h>

#include "blas.h"

void nn_blas_init(void) { openblas_set_num_threads(1); }

const char *nn_blas_name(void) { return openblas_get_config(); }

int nn_blas_check(struct nn_error *err) {
    int rc = nn_blas_selftest_f32(err);
    return rc ? rc : nn_blas_selftest_f64(err);
}

int64_t nn_blas_tile(enum nn_dtype dtype) {
    return dtype == NN_F64 ? nn_blas_find_tile_f64(nn_multiply_f64) : nn_blas_find_tile_f32(nn_multiply_f32);
}
