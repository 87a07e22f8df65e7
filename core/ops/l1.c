/* l1 - absolute error, elementwise: loss = |x - t|;  dx = dloss sign(x - t), and 0 where x = t. */
#include "../op.h"
#include "../real.h"
#include "same_shape.h"

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *t = pass->target;
    real *loss = pass->y;
    for (int64_t i = begin; i < end; i++) loss[i] = fabs(x[i] - t[i]);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *t = pass->target, *d_loss = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    for (int64_t i = begin; i < end; i++) {
        real sign = (real)((x[i] > t[i]) - (x[i] < t[i]));
        d_x[i] += sign * d_loss[i];
    }
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {3}}}},
    {.attrs = "", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
};

const struct nn_op NN_OP(l1) = {
    .def =
        {
            .name = "l1",
            .summary = "Absolute error.",
            .forward = "loss = |x - t|",
            .backward = "dx = dloss sign(x - t)",
            .min_inputs = 1,
            .max_inputs = 1,
            .flags = NN_IS_LOSS | NN_HAS_KINKS,
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
