/* mse - squared error, elementwise: loss = (x - t)²;  dx = dloss 2 (x - t). */
#include "../op.h"
#include "../real.h"
#include "same_shape.h"

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *t = pass->target;
    real *loss = pass->y;
    for (int64_t i = begin; i < end; i++) loss[i] = (x[i] - t[i]) * (x[i] - t[i]);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *t = pass->target, *d_loss = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    for (int64_t i = begin; i < end; i++) d_x[i] += d_loss[i] * 2 * (x[i] - t[i]);
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {3}}}},
    {.attrs = "", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
    {.attrs = "", .n_inputs = 1, .inputs = {{0, {0}}}},
};

const struct nn_op NN_OP(mse) = {
    .def =
        {
            .name = "mse",
            .summary = "Squared error.",
            .forward = "loss = (x - t)²",
            .backward = "dx = dloss 2 (x - t)",
            .min_inputs = 1,
            .max_inputs = 1,
            .flags = NN_IS_LOSS,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .forward_split = NN_BY_ELEMENT,
    .backward_split = NN_BY_ELEMENT,
    .reads = NN_READS_X,
    .infer = nn_infer_like_target,
    .forward = forward,
    .backward = backward,
};
