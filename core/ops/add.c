/* add - y = a + b;  da = dy, db = dy.
 * Both inputs may be one node: d_x[0] and d_x[1] are then one array, and it gets both sums. */
#include "../op.h"
#include "../real.h"
#include "same_shape.h"

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *a = pass->x[0], *b = pass->x[1];
    real *y = pass->y;
    for (int64_t i = begin; i < end; i++) y[i] = a[i] + b[i];
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *d_y = pass->d_y;
    real *d_a = pass->d_x[0], *d_b = pass->d_x[1];
    for (int64_t i = begin; d_a && i < end; i++) d_a[i] += d_y[i];
    for (int64_t i = begin; d_b && i < end; i++) d_b[i] += d_y[i];
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 2, .inputs = {{1, {5}}, {1, {5}}}},
    {.attrs = "", .n_inputs = 2, .inputs = {{2, {2, 3}}, {2, {2, 3}}}},
};

const struct nn_op NN_OP(add) = {
    .def =
        {
            .name = "add",
            .summary = "Sum of two inputs of one shape.",
            .forward = "y = a + b",
            .backward = "da = dy, db = dy",
            .min_inputs = 2,
            .max_inputs = 2,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .forward_split = NN_BY_ELEMENT,
    .backward_split = NN_BY_ELEMENT,
    .infer = nn_infer_same_shape,
    .forward = forward,
    .backward = backward,
};
