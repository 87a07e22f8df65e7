/* kernels.c - what the engine does to plain arrays. Compiled for float and for double; sums are in double
 * for both. */
#include "op.h"
#include "real.h"

static void add_to(real *restrict y, const real *restrict x, real factor, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += factor * x[i];
}

static void add(void *y, const void *x, double scale, int64_t begin, int64_t end) {
    add_to((real *)y + begin, (const real *)x + begin, (real)scale, end - begin);
}

static void blend_into(real *restrict y, const real *restrict x, real share, real keep, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = keep * y[i] + share * x[i];
}

static void blend(void *y, const void *x, double tau, int64_t begin, int64_t end) {
    blend_into((real *)y + begin, (const real *)x + begin, (real)tau, (real)(1 - tau), end - begin);
}

static void scale_by(void *y, double scale, int64_t begin, int64_t end) {
    real *to = y, factor = (real)scale;
    for (int64_t i = begin; i < end; i++) to[i] *= factor;
}

static bool finite_all(const void *x, int64_t begin, int64_t end) {
    const real *from = x;
    int bad = 0; /* without a branch, so that it vectorises */
    for (int64_t i = begin; i < end; i++) bad |= !(fabs(from[i]) <= NN_REAL_MAX);
    return !bad;
}

static bool within(const void *x, double factor, double limit, int64_t begin, int64_t end) {
    const real *from = x, by = (real)factor, most = (real)fmin(limit, (double)NN_REAL_MAX);
    int bad = 0;
    for (int64_t i = begin; i < end; i++) bad |= !(fabs(by * from[i]) <= nn_re(most));
    return !bad;
}

static bool sum_within(const void *y, const void *x, double factor, double limit, int64_t begin,
                       int64_t end) {
    const real *to = y, *from = x, by = (real)factor, most = (real)fmin(limit, (double)NN_REAL_MAX);
    int bad = 0;
    for (int64_t i = begin; i < end; i++) bad |= !(fabs(to[i] + by * from[i]) <= nn_re(most));
    return !bad;
}

/* A sum is computed in NN_LANES lanes, element i in lane i % NN_LANES, and then over the lanes in their order: a
 * single running sum would wait for each addition. The order depends on the length alone. */
static wide total_of(const wide lane[NN_LANES]) {
    wide total = 0;
    for (int l = 0; l < NN_LANES; l++) total += lane[l];
    return total;
}

static wide sum(const real *x, int64_t n) {
    wide lane[NN_LANES] = {0};
    int64_t whole = n - n % NN_LANES;
    for (int64_t i = 0; i < whole; i += NN_LANES)
        for (int l = 0; l < NN_LANES; l++) lane[l] += (wide)x[i + l];
    for (int64_t i = whole; i < n; i++) lane[i - whole] += (wide)x[i];
    return total_of(lane);
}

static wide sum_products(const real *x, const real *y, int64_t n) {
    wide lane[NN_LANES] = {0};
    int64_t whole = n - n % NN_LANES;
    for (int64_t i = 0; i < whole; i += NN_LANES)
        for (int l = 0; l < NN_LANES; l++) lane[l] += (wide)x[i + l] * (wide)y[i + l];
    for (int64_t i = whole; i < n; i++) lane[i - whole] += (wide)x[i] * (wide)y[i];
    return total_of(lane);
}

static double sum_squares(const void *x, int64_t begin, int64_t end) {
    const real *from = (const real *)x + begin;
    return sum_products(from, from, end - begin);
}

static double sum_scaled_squares(const void *x, double factor, int64_t begin, int64_t end) {
    const real *from = x;
    wide sum = 0;
    for (int64_t i = begin; i < end; i++) sum += factor * (wide)from[i] * (factor * (wide)from[i]);
    return sum;
}

/* Uniform in [center - scale, center + scale): element i is column i of row 0. */
static void init_uniform(real *w, int64_t n, const struct nn_init *how, struct nn_rng_key key) {
    uint32_t word[4];
    for (int64_t i = 0; i < n; i++) {
        if (i % 4 == 0) nn_rng_draw(key, 0, (uint32_t)(i / 4), word);
        w[i] = (real)(how->center + how->scale * (2 * nn_rng_unit(word[i % 4]) - 1));
    }
}

/* Box and Muller, 1958: two uniform numbers make two normal ones. */
static void init_normal(real *w, int64_t n, const struct nn_init *how, struct nn_rng_key key) {
    uint32_t word[4];
    for (int64_t i = 0; i < n; i++) {
        if (i % 4 == 0) nn_rng_draw(key, 0, (uint32_t)(i / 4), word);
        const uint32_t *pair = &word[i % 4 & ~1];
        double radius = sqrt(-2 * log(1 - nn_rng_unit(pair[0]))); /* 1 - u is never 0 */
        double angle = 2 * M_PI * nn_rng_unit(pair[1]);
        w[i] = (real)(how->center + how->scale * radius * (i % 2 ? sin(angle) : cos(angle)));
    }
}

static void fill(void *y, double value, int64_t begin, int64_t end) {
    real *to = y;
    for (int64_t i = begin; i < end; i++) to[i] = (real)value;
}

static void init(void *w, int64_t n, const struct nn_init *how, struct nn_rng_key key) {
    switch (how->kind) {
    case NN_INIT_CONSTANT:
        fill(w, how->center, 0, n);
        break;
    case NN_INIT_UNIFORM:
        init_uniform(w, n, how, key);
        break;
    case NN_INIT_NORMAL:
        init_normal(w, n, how, key);
        break;
    }
}

/* The end of the run of elements that share the weight of element i. */
static int64_t weight_end(int64_t i, int64_t per_weight, int64_t end) {
    int64_t stop = (i / per_weight + 1) * per_weight;
    return stop < end ? stop : end;
}

static double reduce(const void *loss, const void *weight, int64_t per_weight, int64_t begin, int64_t end) {
    const real *l = loss, *w = weight;
    wide total = 0;
    if (!w) return sum(l + begin, end - begin);
    if (per_weight == 1) return sum_products(l + begin, w + begin, end - begin);
    for (int64_t i = begin, stop; i < end; i = stop) {
        stop = weight_end(i, per_weight, end);
        total += (wide)w[i / per_weight] * sum(l + i, stop - i);
    }
    return total;
}

static void spread_each(real *restrict out, const real *restrict weight, double scale, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = (real)(scale * (double)weight[i]);
}

static void spread(void *out, const void *weight, int64_t per_weight, double scale, int64_t begin,
                   int64_t end) {
    const real *w = weight;
    if (!w)
        fill(out, scale, begin, end);
    else if (per_weight == 1)
        spread_each((real *)out + begin, w + begin, scale, end - begin);
    else
        for (int64_t i = begin, stop; i < end; i = stop) {
            stop = weight_end(i, per_weight, end);
            fill(out, scale * (double)w[i / per_weight], i, stop);
        }
}

static void column_sums(void *sum, const void *a, int64_t m, int64_t n, int64_t begin, int64_t end) {
    enum { COLUMNS = 256 }; /* summed together: a piece of a row that spans some cache lines */
    wide total[COLUMNS];
    real *to = sum;
    for (int64_t first = begin, width; first < end; first += width) {
        width = end - first < COLUMNS ? end - first : COLUMNS;
        for (int64_t j = 0; j < width; j++) total[j] = 0;
        for (int64_t i = 0; i < m; i++) {
            const real *row = (const real *)a + i * n + first;
            for (int64_t j = 0; j < width; j++) total[j] += (wide)row[j];
        }
        for (int64_t j = 0; j < width; j++) to[first + j] += (real)total[j];
    }
}

const struct nn_kernels NN_VARIANT(nn_kernels) = {
    .add = add,
    .blend = blend,
    .scale = scale_by,
    .finite = finite_all,
    .within = within,
    .sum_within = sum_within,
    .sum_squares = sum_squares,
    .sum_scaled_squares = sum_scaled_squares,
    .init = init,
    .reduce = reduce,
    .spread = spread,
    .fill = fill,
    .column_sums = column_sums,
};
