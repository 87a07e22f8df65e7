/* elu - y = x where x > 0, else alpha (eˣ - 1);  dx = dy, or dy alpha eˣ likewise. */
#include "../op.h"
#include "../vexp.h"
#include "same_shape.h"

enum { ALPHA };
static const struct nn_attr_def attrs[] = {
    {.name = "alpha", .type = NN_REAL, .by_default = 1, .text = "minus the limit of y for x → -∞"},
    {0},
};

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0];
    real *y = pass->y;
    const real alpha = (real)pass->attrs[ALPHA].r;
    for (int64_t i = begin; i < end; i++) {
        real below = alpha * nn_expm1(x[i]); /* in any case, so that the loop vectorises */
        y[i] = x[i] > 0 ? x[i] : below;
    }
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *d_y = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    const real alpha = (real)pass->attrs[ALPHA].r;
    for (int64_t i = begin; i < end; i++) {
        real below = d_y[i] * alpha * nn_exp(x[i]);
        d_x[i] += x[i] > 0 ? d_y[i] : below;
    }
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "\"alpha\": 0.5", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
};

const struct nn_op NN_OP(elu) = {
    .def =
        {
            .name = "elu",
            .summary = "Exponential linear unit.",
            .forward = "y = x where x > 0, else alpha (eˣ - 1)",
            .backward = "dx = dy where x > 0, else dy alpha eˣ",
            .source = "Clevert et al., \"Fast and accurate deep network learning by exponential linear "
                      "units\", 2016",
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
