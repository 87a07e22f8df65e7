/* tanh - y = tanh x;  dx = dy (1 - y²) = dy 4 e / (1 + e)², e = e^(-2|x|).
 * Backward reads x, because 1 - y² has lost its digits where y is near 1. */
#include "elementwise.h"

static real tanh_back(real x, real d_y) {
    const real e = nn_exp(-2 * nn_abs(x));
    return d_y * nn_div(4 * e, (1 + e) * (1 + e));
}

NN_UNARY(tanh, X, 0, nn_tanh, tanh_back, 2 * NN_WORK_EXP, "", .summary = "Hyperbolic tangent.",
         .forward = "y = tanh x", .backward = "dx = dy (1 - y²)");
