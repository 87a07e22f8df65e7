/* layer_norm - y = (x - mean) / √(variance + eps) * w + b, with the mean and the variance of each vector: the elements
 * of the last dimensions, which normalized_shape gives.
 *   x [..., normalized_shape], w [normalized_shape], b [normalized_shape], y as x
 *   with x̂ = (x - mean) / √(variance + eps) and g = dy w:
 *   dx = (g - mean of g - x̂ * mean of g x̂) / √(variance + eps), dw = Σ dy x̂, db = Σ dy over all vectors
 * All of it is computed in the wide type. The mean is that of x less the vector's first element: what all elements have
 * in common is subtracted before anything is rounded. */
#include <string.h>

#include "../params.h"
#include "../real.h"
#include "axis.h"

enum { NORMALIZED_SHAPE, EPS, ELEMENTWISE_AFFINE, BIAS };
static const struct nn_attr_def attrs[] = {
    {.name = "normalized_shape",
     .type = NN_INTS,
     .required = true,
     .min = 1,
     .max = NN_MAX_ELEMENTS,
     .list_min = 1,
     .list_max = NN_MAX_RANK - 1,
     .text = "the last dimensions of the input: what is normalized together"},
    {.name = "eps", .type = NN_REAL, NN_AT_LEAST_0, .by_default = 1e-5, .text = "added to the variance"},
    {.name = "elementwise_affine",
     .type = NN_BOOL,
     .by_default = 1,
     .text = "whether there is a weight for each element of normalized_shape"},
    {.name = "bias", .type = NN_BOOL, .by_default = 1, .text = "whether there is a bias beside the weight"},
    {0},
};
enum { WEIGHT, BIAS_PARAM };

static bool has_weight(const union nn_attr_value *given) { return given[ELEMENTWISE_AFFINE].b; }
static bool has_bias(const union nn_attr_value *given) { return has_weight(given) && given[BIAS].b; }

static int64_t length_of(const union nn_attr_value *given) {
    int64_t n = 1;
    for (int64_t i = 0; i < given[NORMALIZED_SHAPE].list.n; i++) n *= given[NORMALIZED_SHAPE].list.ints[i];
    return n;
}

/* What forward keeps of a vector: a few numbers, and in the wide type, since x less a rounded mean is not exact. */
struct stats {
    wide mean; /* less the first element */
    wide rstd; /* 1 / √(variance + eps) */
};

static int infer(struct nn_infer *infer, struct nn_error *err) {
    const struct nn_shape *in = &infer->in[0];
    struct nn_shape last = {.rank = (int)infer->attrs[NORMALIZED_SHAPE].list.n};
    for (int i = 0; i < last.rank; i++) last.dim[i] = infer->attrs[NORMALIZED_SHAPE].list.ints[i];
    for (int i = 1; i <= last.rank; i++)
        if (i > in->rank || in->dim[in->rank - i] != last.dim[last.rank - i])
            return nn_fail_member(err, NN_E_SHAPE, "normalized_shape",
                                  "\"normalized_shape\" must be the last dimensions of the input's sample");
    infer->out = *in;
    infer->saved.row = (size_t)(nn_shape_elements(in) / nn_shape_elements(&last)) * sizeof(struct stats);
    infer->n_params = has_weight(infer->attrs) + has_bias(infer->attrs);
    infer->param[WEIGHT].suffix = "weight";
    infer->param[WEIGHT].shape = last;
    infer->param[WEIGHT].init = (struct nn_init){.kind = NN_INIT_CONSTANT, .center = 1};
    infer->param[BIAS_PARAM].suffix = "bias";
    infer->param[BIAS_PARAM].shape = last;
    infer->param[BIAS_PARAM].init = (struct nn_init){.kind = NN_INIT_CONSTANT};
    return NN_OK;
}

/* Sums over a vector, element j in lane j % NN_LANES. The order depends on the length alone. */
static wide sum_less(const real *x, wide level, int64_t n) {
    wide lane[NN_LANES] = {0}, sum = 0;
    const int64_t whole = n - n % NN_LANES;
    for (int64_t j = 0; j < whole; j += NN_LANES)
        for (int l = 0; l < NN_LANES; l++) lane[l] += (wide)x[j + l] - level;
    for (int l = 0; l < NN_LANES; l++) sum += lane[l];
    for (int64_t j = whole; j < n; j++) sum += (wide)x[j] - level;
    return sum;
}

static wide deviation(real x, wide level, wide mean) { return (wide)x - level - mean; }

static wide sum_squares(const real *x, wide level, wide mean, int64_t n) {
    wide lane[NN_LANES] = {0}, sum = 0;
    const int64_t whole = n - n % NN_LANES;
    for (int64_t j = 0; j < whole; j += NN_LANES)
        for (int l = 0; l < NN_LANES; l++) {
            const wide d = deviation(x[j + l], level, mean);
            lane[l] += d * d;
        }
    for (int l = 0; l < NN_LANES; l++) sum += lane[l];
    for (int64_t j = whole; j < n; j++) sum += deviation(x[j], level, mean) * deviation(x[j], level, mean);
    return sum;
}

/* Σ g and Σ g d, with d the deviation of x; `w` may be NULL. */
static void sum_gradient(const real *x, wide level, wide mean, const real *d_y, const real *w, int64_t n,
                         wide sum[2]) {
    wide lane[NN_LANES] = {0}, product[NN_LANES] = {0};
    for (int64_t j = 0; j < n; j += NN_LANES) {
        const int64_t width = n - j < NN_LANES ? n - j : NN_LANES;
        for (int64_t l = 0; l < width; l++) {
            const wide g = w ? (wide)d_y[j + l] * (wide)w[j + l] : (wide)d_y[j + l];
            lane[l] += g;
            product[l] += g * deviation(x[j + l], level, mean);
        }
    }
    sum[0] = sum[1] = 0;
    for (int l = 0; l < NN_LANES; l++) sum[0] += lane[l], sum[1] += product[l];
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const int64_t n = length_of(pass->attrs), vectors = nn_shape_elements(pass->out) / n;
    const real *w = has_weight(pass->attrs) ? pass->w[WEIGHT] : NULL;
    const real *b = has_bias(pass->attrs) ? pass->w[BIAS_PARAM] : NULL;
    struct stats *stats = pass->saved;
    for (int64_t v = begin * vectors; v < end * vectors; v++) {
        const real *x = (const real *)pass->x[0] + v * n;
        real *y = (real *)pass->y + v * n;
        const wide level = (wide)x[0], mean = sum_less(x, level, n) / (wide)n;
        const wide variance = sum_squares(x, level, mean, n) / (wide)n;
        const wide rstd = nn_div(1, sqrt(variance + (wide)pass->attrs[EPS].r));
        for (int64_t j = 0; j < n; j++) {
            const wide normal = deviation(x[j], level, mean) * rstd;
            y[j] = (real)((w ? normal * (wide)w[j] : normal) + (b ? (wide)b[j] : 0));
        }
        stats[v] = (struct stats){mean, rstd};
    }
}

static void backward_vectors(void *arg, int64_t begin, int64_t end) {
    const struct nn_pass *pass = arg;
    const int64_t n = length_of(pass->attrs);
    const real *w = has_weight(pass->attrs) ? pass->w[WEIGHT] : NULL;
    const struct stats *stats = pass->saved;
    for (int64_t v = begin; v < end; v++) {
        const real *x = (const real *)pass->x[0] + v * n, *d_y = (const real *)pass->d_y + v * n;
        real *d_x = (real *)pass->d_x[0] + v * n;
        const wide level = (wide)x[0], mean = stats[v].mean, rstd = stats[v].rstd;
        wide sum[2];
        sum_gradient(x, level, mean, d_y, w, n, sum);
        const wide mean_g = sum[0] / (wide)n, slope = sum[1] * rstd / (wide)n * rstd;
        if (pass->fresh_x && pass->fresh_x[0]) memset(d_x, 0, (size_t)n * sizeof *d_x);
        for (int64_t j = 0; j < n; j++) {
            const wide g = w ? (wide)d_y[j] * (wide)w[j] : (wide)d_y[j];
            d_x[j] += (real)(rstd * (g - mean_g - deviation(x[j], level, mean) * slope));
        }
    }
}

enum { COLUMNS = 256, LEAST = 64 }; /* summed together, and in one task at least: some cache lines */

/* Adds the sums of some columns, at most COLUMNS, the vectors in their order. */
static void add_columns(const struct nn_pass *pass, int64_t first, int64_t width) {
    const int64_t n = length_of(pass->attrs), vectors = pass->rows * nn_shape_elements(pass->out) / n;
    const struct stats *stats = pass->saved;
    real *d_w = pass->d_w[WEIGHT], *d_b = has_bias(pass->attrs) ? pass->d_w[BIAS_PARAM] : NULL;
    wide weight[COLUMNS] = {0}, bias[COLUMNS] = {0};
    for (int64_t v = 0; v < vectors; v++) {
        const real *x = (const real *)pass->x[0] + v * n, *d_y = (const real *)pass->d_y + v * n + first;
        const wide level = (wide)x[0];
        x += first;
        for (int64_t j = 0; j < width; j++) {
            weight[j] += (wide)d_y[j] * (deviation(x[j], level, stats[v].mean) * stats[v].rstd);
            bias[j] += (wide)d_y[j];
        }
    }
    for (int64_t j = 0; d_w && j < width; j++) d_w[first + j] += (real)weight[j];
    for (int64_t j = 0; d_b && j < width; j++) d_b[first + j] += (real)bias[j];
}

static void backward_columns(void *arg, int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += COLUMNS)
        add_columns(arg, first, end - first < COLUMNS ? end - first : COLUMNS);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)begin, (void)end;
    const int64_t n = length_of(pass->attrs), vectors = pass->rows * nn_shape_elements(pass->out) / n;
    const int64_t at_once = NN_CHUNK / n > 1 ? NN_CHUNK / n : 1;
    const int64_t columns = NN_CHUNK / vectors > LEAST ? NN_CHUNK / vectors : LEAST;
    struct nn_pass copy = *pass; /* tasks take a plain pointer */
    if (pass->d_x[0]) nn_parallel_ranges(pass->par, vectors, at_once, backward_vectors, &copy);
    if (has_weight(pass->attrs) && (pass->d_w[WEIGHT] || (has_bias(pass->attrs) && pass->d_w[BIAS_PARAM])))
        nn_parallel_ranges(pass->par, n, columns, backward_columns, &copy);
}

static double work(const struct nn_infer *infer) { return 24 * nn_work_outputs(infer); }

static const struct nn_example examples[] = {
    {.attrs = "\"normalized_shape\": [5]", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "\"normalized_shape\": [3, 2], \"eps\": 0.001", .n_inputs = 1, .inputs = {{3, {2, 3, 2}}}},
    {.attrs = "\"normalized_shape\": [4], \"bias\": false", .n_inputs = 1, .inputs = {{2, {3, 4}}}},
    {.attrs = "\"normalized_shape\": [20], \"elementwise_affine\": false",
     .n_inputs = 1,
     .inputs = {{2, {2, 20}}}},
};

const struct nn_op NN_OP(layer_norm) = {
    NN_DEF(layer_norm, 1, 1,
           .summary = "Each vector with a mean of 0 and a variance of 1, then scaled and shifted.",
           .forward = "y = (x - mean) / √(variance + eps) * w + b",
           .backward =
               "dx = (g - mean(g) - x̂ mean(g x̂)) / √(variance + eps) with g = dy w, dw = Σ dy x̂, db = Σ dy",
           .source = "Ba, Kiros, Hinton 2016: Layer Normalization, section 3", .attrs = attrs),
    .forward_split = NN_BY_ROW,
    .backward_split = NN_WHOLE,
    .reads = NN_READS_X,
    .infer = infer,
    .work = work,
    .forward = forward,
    .backward = backward,
};
