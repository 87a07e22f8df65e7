/* kernels.c - what the engine does to plain arrays. Compiled for float and for double; sums are in double
 * for both. */
#include <float.h>

#include "blas.h"
#include "op.h"
#include "real.h"

#ifdef NN_REAL_IS_DOUBLE
#define REAL_MAX DBL_MAX
#else
#define REAL_MAX FLT_MAX
#endif

static void add(void *y, const void *x, double scale, int64_t begin, int64_t end) {
    real *to = y, factor = (real)scale;
    const real *from = x;
    for (int64_t i = begin; i < end; i++) to[i] += factor * from[i];
}

static void scale_by(void *y, double scale, int64_t begin, int64_t end) {
    real *to = y, factor = (real)scale;
    for (int64_t i = begin; i < end; i++) to[i] *= factor;
}

static bool finite_all(const void *x, int64_t begin, int64_t end) {
    const real *from = x;
    unsigned bad = 0; /* without a branch, so that it vectorises */
    for (int64_t i = begin; i < end; i++) bad |= !(fabs(from[i]) <= REAL_MAX);
    return !bad;
}

static double sum_squares(const void *x, int64_t begin, int64_t end) {
    enum { LANES = 8 };
    const real *from = x;
    double lane[LANES] = {0}, total = 0;
    int64_t i = begin;
    for (; i + LANES <= end; i += LANES)
        for (int l = 0; l < LANES; l++) lane[l] += (double)from[i + l] * (double)from[i + l];
    for (; i < end; i++) total += (double)from[i] * (double)from[i];
    for (int l = 0; l < LANES; l++) total += lane[l];
    return total;
}

/* Uniform in [-scale, scale): element i is column i of row 0. */
static void init_uniform(real *w, int64_t n, double scale, struct nn_rng_key key) {
    uint32_t word[4];
    for (int64_t i = 0; i < n; i++) {
        if (i % 4 == 0) nn_rng_draw(key, 0, (uint32_t)(i / 4), word);
        w[i] = (real)(scale * (2 * nn_rng_unit(word[i % 4]) - 1));
    }
}

/* Box and Muller, 1958: two uniform numbers make two normal ones. */
static void init_normal(real *w, int64_t n, double scale, struct nn_rng_key key) {
    uint32_t word[4];
    for (int64_t i = 0; i < n; i++) {
        if (i % 4 == 0) nn_rng_draw(key, 0, (uint32_t)(i / 4), word);
        const uint32_t *pair = &word[i % 4 & ~1];
        double radius = sqrt(-2 * log(1 - nn_rng_unit(pair[0]))); /* 1 - u is never 0 */
        double angle = 2 * M_PI * nn_rng_unit(pair[1]);
        w[i] = (real)(scale * radius * (i % 2 ? sin(angle) : cos(angle)));
    }
}

static void fill(void *y, double value, int64_t begin, int64_t end) {
    real *to = y;
    for (int64_t i = begin; i < end; i++) to[i] = (real)value;
}

static void init(void *w, int64_t n, const struct nn_init *how, struct nn_rng_key key) {
    switch (how->kind) {
    case NN_INIT_ZERO:
        fill(w, 0, 0, n);
        break;
    case NN_INIT_UNIFORM:
        init_uniform(w, n, how->scale, key);
        break;
    case NN_INIT_NORMAL:
        init_normal(w, n, how->scale, key);
        break;
    }
}

/* Where the run of elements ends that share i's weight. */
static int64_t weight_end(int64_t i, int64_t per_weight, int64_t end) {
    int64_t stop = (i / per_weight + 1) * per_weight;
    return stop < end ? stop : end;
}

static double reduce(const void *loss, const void *weight, int64_t per_weight, int64_t begin, int64_t end) {
    const real *l = loss, *w = weight;
    double total = 0;
    for (int64_t i = begin; i < end;) {
        double part = 0, factor = w ? (double)w[i / per_weight] : 1;
        for (int64_t stop = weight_end(i, per_weight, end); i < stop; i++) part += (double)l[i];
        total += factor * part;
    }
    return total;
}

static void spread(void *out, const void *weight, int64_t per_weight, double scale, int64_t begin,
                   int64_t end) {
    real *to = out;
    const real *w = weight;
    for (int64_t i = begin; i < end;) {
        real value = (real)(w ? scale * (double)w[i / per_weight] : scale);
        for (int64_t stop = weight_end(i, per_weight, end); i < stop; i++) to[i] = value;
    }
}

const struct nn_kernels NN_SUFFIXED(nn_kernels) = {
    .add = add,
    .scale = scale_by,
    .finite = finite_all,
    .sum_squares = sum_squares,
    .init = init,
    .reduce = reduce,
    .spread = spread,
    .fill = fill,
    .blas_selftest = nn_blas_selftest,
};
