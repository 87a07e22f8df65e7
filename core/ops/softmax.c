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

static void softmax(const real *x, real *y, int64_t n, int64_t stride) {
    real factor = (real)(1 / nn_axis_exp(x, nn_axis_max(x, n, stride), y, n, stride));
    for (int64_t j = 0; j < n * stride; j += stride) y[j] *= factor;
}

static void softmax_backward(const real *y, const real *d_y, real *d_x, int64_t n, int64_t stride) {
    double dot = 0;
    for (int64_t j = 0; j < n * stride; j += stride) dot += (double)d_y[j] * (double)y[j];
    for (int64_t j = 0; j < n * stride; j += stride) d_x[j] += y[j] * (d_y[j] - (real)dot);
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const struct nn_axis axis = nn_axis_at(pass->attrs[DIM].i, pass->out);
    for (int64_t v = begin * axis.outer * axis.inner; v < end * axis.outer * axis.inner; v++) {
        int64_t first = nn_axis_vector(&axis, v);
        softmax((const real *)pass->x[0] + first, (real *)pass->y + first, axis.length, axis.inner);
    }
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const struct nn_axis axis = nn_axis_at(pass->attrs[DIM].i, pass->out);
    if (!pass->d_x[0]) return;
    for (int64_t v = begin * axis.outer * axis.inner; v < end * axis.outer * axis.inner; v++) {
        int64_t first = nn_axis_vector(&axis, v);
        softmax_backward((const real *)pass->y + first, (const real *)pass->d_y + first,
                         (real *)pass->d_x[0] + first, axis.length, axis.inner);
    }
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
