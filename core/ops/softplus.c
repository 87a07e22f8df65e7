/* softplus - y = log(1 + e^(beta x)) / beta, and y = x where beta x > threshold;
 *   dx = dy σ(beta x), and dx = dy there */
#include "../op.h"
#include "../real.h"
#include "logistic.h"
#include "same_shape.h"

enum { BETA, THRESHOLD };
static const struct nn_attr_def attrs[] = {
    {.name = "beta",
     .type = NN_REAL,
     .min_open = true,
     .min = 0,
     .max = 1e30,
     .by_default = 1,
     .text = "how sharp the bend is"},
    {.name = "threshold", .type = NN_REAL, .by_default = 20, .text = "beta x from which on y is x"},
    {0},
};

/* log(1 + eᶻ) without overflow */
static real softplus(real z) { return (z > 0 ? z : 0) + nn_log1p_exp(-fabs(z)); }

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0];
    real *y = pass->y;
    const real beta = (real)pass->attrs[BETA].r, threshold = (real)pass->attrs[THRESHOLD].r;
    for (int64_t i = begin; i < end; i++) {
        real curved = softplus(beta * x[i]) / beta; /* in any case, so that the loop vectorises */
        y[i] = beta * x[i] > threshold ? x[i] : curved;
    }
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *d_y = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    const real beta = (real)pass->attrs[BETA].r, threshold = (real)pass->attrs[THRESHOLD].r;
    for (int64_t i = begin; i < end; i++) {
        real curved = d_y[i] * nn_logistic(beta * x[i]);
        d_x[i] += beta * x[i] > threshold ? d_y[i] : curved;
    }
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "\"beta\": 2, \"threshold\": 1", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
};

const struct nn_op NN_OP(softplus) = {
    .def =
        {
            .name = "softplus",
            .summary = "A smooth relu.",
            .forward = "y = log(1 + e^(beta x)) / beta, or x where beta x > threshold",
            .backward = "dx = dy σ(beta x), or dy where beta x > threshold",
            .min_inputs = 1,
            .max_inputs = 1,
            .flags = NN_HAS_KINKS,
            .attrs = attrs,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .forward_split = NN_BY_ELEMENT,
    .backward_split = NN_BY_ELEMENT,
    .reads = NN_READS_X,
    .infer = nn_infer_same_shape,
    .forward = forward,
    .backward = backward,
};
