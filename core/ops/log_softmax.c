/* log_softmax - y_j = x_j - log Σ_k e^(x_k) along one dimension;  dx_j = dy_j - e^(y_j) Σ_k dy_k.
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

static inline void log_softmax(const real *x, real *y, int64_t n, int64_t stride) {
    real max = nn_axis_max(x, n, stride);
    real log_sum = (real)log(nn_axis_exp(x, max, y, n, stride));
    for (int64_t j = 0; j < n; j++) y[j * stride] = x[j * stride] - max - log_sum;
}

static inline void log_softmax_backward(const real *y, const real *d_y, real *d_x, int64_t n,
                                        int64_t stride) {
    real sum = (real)nn_axis_sum(d_y, n, stride);
    for (int64_t i = 0; i < n * stride; i += stride) d_x[i] += d_y[i] - nn_exp(y[i]) * sum;
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    nn_axis_forward(pass, pass->attrs[DIM].i, begin, end, log_softmax);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    nn_axis_backward(pass, pass->attrs[DIM].i, begin, end, log_softmax_backward);
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "\"dim\": 1", .n_inputs = 1, .inputs = {{2, {3, 2}}}},
    {.attrs = "\"dim\": -2", .n_inputs = 1, .inputs = {{3, {2, 3, 2}}}},
};

const struct nn_op NN_OP(log_softmax) = {
    .def =
        {
            .name = "log_softmax",
            .summary = "Logarithm of softmax, computed stably.",
            .forward = "yⱼ = xⱼ - log Σₖ e^xₖ",
            .backward = "dxⱼ = dyⱼ - e^yⱼ Σₖ dyₖ",
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
