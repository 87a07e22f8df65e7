/* elu - y = x where x > 0, else alpha (eˣ - 1);  dx = dy, or dy alpha eˣ likewise. */
#include "elementwise.h"

static const struct nn_attr_def attrs[] = {
    {.name = "alpha", .type = NN_REAL, .by_default = 1, .text = "minus the limit of y for x → -∞"},
    {0},
};

static real elu(real x, real alpha) { return nn_choose(nn_re(x) > 0, x, alpha * nn_expm1(x)); }
static real elu_back(real x, real d_y, real alpha) {
    return nn_choose(nn_re(x) > 0, d_y, d_y * alpha * nn_exp(x));
}

NN_UNARY(
    elu, X, 1, elu, elu_back, NN_WORK_EXP + 2, "\"alpha\": 0.5", .summary = "Exponential linear unit.",
    .forward = "y = x where x > 0, else alpha (eˣ - 1)", .backward = "dx = dy where x > 0, else dy alpha eˣ",
    .source = "Clevert et al., \"Fast and accurate deep network learning by exponential linear units\", 2016",
    .flags = NN_HAS_KINKS);
