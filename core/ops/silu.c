/* silu - y = x σ(x), σ(x) = 1 / (1 + e⁻ˣ);  dx = dy σ(x) (1 + x (1 - σ(x))). */
#include "../op.h"
#include "../real.h"
#include "logistic.h"
#include "same_shape.h"

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0];
    real *y = pass->y;
    for (int64_t i = begin; i < end; i++) y[i] = x[i] * nn_logistic(x[i]);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *d_y = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    for (int64_t i = begin; i < end; i++) {
        real s = nn_logistic(x[i]);
        d_x[i] += d_y[i] * s * (1 + x[i] * (1 - s));
    }
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
};

const struct nn_op NN_OP(silu) = {
    .def =
        {
            .name = "silu",
            .summary = "Sigmoid linear unit, also called swish.",
            .forward = "y = x σ(x), σ(x) = 1 / (1 + e⁻ˣ)",
            .backward = "dx = dy σ(x) (1 + x (1 - σ(x)))",
            .source = "Elfwing et al., \"Sigmoid-weighted linear units\", 2017, section 2",
            .min_inputs = 1,
            .max_inputs = 1,
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
