/* leaky_relu - y = x where x > 0, else negative_slope x;  dx = dy or negative_slope dy likewise. */
#include "../op.h"
#include "../real.h"
#include "same_shape.h"

enum { NEGATIVE_SLOPE };
static const struct nn_attr_def attrs[] = {
    {.name = "negative_slope", .type = NN_REAL, .by_default = 0.01, .text = "slope where x is negative"},
    {0},
};

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0];
    real *y = pass->y;
    const real slope = (real)pass->attrs[NEGATIVE_SLOPE].r;
    for (int64_t i = begin; i < end; i++) y[i] = x[i] * (x[i] > 0 ? 1 : slope);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *d_y = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    const real slope = (real)pass->attrs[NEGATIVE_SLOPE].r;
    for (int64_t i = begin; i < end; i++) d_x[i] += d_y[i] * (x[i] > 0 ? 1 : slope);
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "\"negative_slope\": 0.3", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
};

const struct nn_op NN_OP(leaky_relu) = {
    .def =
        {
            .name = "leaky_relu",
            .summary = "Rectified linear unit with a slope for negative inputs.",
            .forward = "y = x where x > 0, else negative_slope x",
            .backward = "dx = dy where x > 0, else negative_slope dy",
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
