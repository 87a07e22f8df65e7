/* tanh - y = tanh x;  dx = dy (1 - y²). */
#include "../op.h"
#include "../vexp.h"
#include "same_shape.h"

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0];
    real *y = pass->y;
    for (int64_t i = begin; i < end; i++) y[i] = nn_tanh(x[i]);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *y = pass->y, *d_y = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    for (int64_t i = begin; i < end; i++) d_x[i] += d_y[i] * (1 - y[i] * y[i]);
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
};

const struct nn_op NN_OP(tanh) = {
    .def =
        {
            .name = "tanh",
            .summary = "Hyperbolic tangent.",
            .forward = "y = tanh x",
            .backward = "dx = dy (1 - y²)",
            .min_inputs = 1,
            .max_inputs = 1,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .forward_split = NN_BY_ELEMENT,
    .backward_split = NN_BY_ELEMENT,
    .reads = NN_READS_Y,
    .infer = nn_infer_same_shape,
    .forward = forward,
    .backward = backward,
};
