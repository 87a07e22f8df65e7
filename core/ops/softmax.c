/* softmax - y_j = e^(x_j) / Σ_k e^(x_k) along one dimension;  dx_j = y_j (dy_j - Σ_k dy_k y_k).
 * The greatest x is taken from all first, so that no exponential overflows. */
#include "../op.h"
#include "../real.h"
#include "axis.h"

enum { DIM };
static const struct nn_attr_def attrs[] = {
    NN_AXIS_ROW("dim", -1, "the dimension that sums to 1; the batch is 0 and may not be it"),
    {0},
};

static int infer(struct nn_infer *infer, struct nn_error *err) {
    int at = 0;
    infer->out = infer->in[0];
    return nn_axis_find("dim", infer->attrs[DIM].i, &infer->in[0], &at, err);
}

static inline void softmax(const real *x, real *y, int64_t n, int64_t stride) {
    real factor = (real)(1 / nn_axis_exp(x, nn_axis_max(x, n, stride), y, n, stride));
    for (int64_t j = 0; j < n; j++) y[j * stride] *= factor;
}

static inline void softmax_backward(const real *y, const real *d_y, real *d_x, int64_t n, int64_t stride) {
    real dot = (real)nn_axis_dot(d_y, y, n, stride);
    for (int64_t i = 0; i < n * stride; i += stride) d_x[i] += y[i] * (d_y[i] - dot);
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    nn_axis_forward(pass, pass->attrs[DIM].i, begin, end, softmax);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    nn_axis_backward(pass, pass->attrs[DIM].i, begin, end, softmax_backward);
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "\"dim\": 1", .n_inputs = 1, .inputs = {{2, {3, 2}}}},
    {.attrs = "\"dim\": -2", .n_inputs = 1, .inputs = {{3, {2, 3, 2}}}},
};

const struct nn_op NN_OP(softmax) = {
    .def =
        {
            .name = "softmax",
            .summary = "Numbers of one dimension as a distribution.",
            .forward = "yⱼ = e^xⱼ / Σₖ e^xₖ",
            .backward = "dxⱼ = yⱼ (dyⱼ - Σₖ dyₖ yₖ)",
            .min_inputs = 1,
            .max_inputs = 1,
            .attrs = attrs,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .forward_split = NN_BY_ROW,
    .backward_split = NN_BY_ROW,
    .reads = NN_READS_Y,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
