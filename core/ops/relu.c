/* relu - y = max(x, 0);  dx = dy where y > 0, else 0 (the subgradient at 0 is 0, as in PyTorch).
 * Both are written so that a NaN passes. */
#include "../op.h"
#include "../real.h"
#include "same_shape.h"

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0];
    real *y = pass->y;
    for (int64_t i = begin; i < end; i++) y[i] = x[i] <= 0 ? 0 : x[i];
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *y = pass->y, *d_y = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    for (int64_t i = begin; i < end; i++) {
        real upstream = d_y[i]; /* read in any case, so that the loop vectorises */
        d_x[i] += y[i] <= 0 ? 0 : upstream;
    }
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
};

const struct nn_op NN_OP(relu) = {
    .def =
        {
            .name = "relu",
            .summary = "Rectified linear unit.",
            .forward = "y = max(x, 0)",
            .backward = "dx = dy where x > 0, else 0",
            .min_inputs = 1,
            .max_inputs = 1,
            .flags = NN_HAS_KINKS,
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
