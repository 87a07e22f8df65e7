/* softplus - y = log(1 + e^(beta x)) / beta,  dx = dy σ(beta x);  y = x and dx = dy where beta x > threshold. */
#include "elementwise.h"

static const struct nn_attr_def attrs[] = {
    {.name = "beta", .type = NN_REAL, NN_ABOVE_0, .by_default = 1, .text = "how sharp the bend is"},
    {.name = "threshold", .type = NN_REAL, .by_default = 20, .text = "beta x from which on y is x"},
    {0},
};

static real softplus(real x, real beta, real threshold) {
    return nn_choose(nn_re(beta * x) > nn_re(threshold), x, nn_div(nn_softplus(beta * x), beta));
}
static real softplus_back(real x, real d_y, real beta, real threshold) {
    return nn_choose(nn_re(beta * x) > nn_re(threshold), d_y, d_y * nn_logistic(beta * x));
}

NN_UNARY(softplus, X, 2, softplus, softplus_back, 2 * NN_WORK_EXP, "\"beta\": 2, \"threshold\": 1",
         .summary = "A smooth relu.", .flags = NN_HAS_KINKS,
         .forward = "y = log(1 + e^(beta x)) / beta, or x where beta x > threshold",
         .backward = "dx = dy σ(beta x), or dy where beta x > threshold");
