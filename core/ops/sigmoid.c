/* sigmoid - y = σ(x) = 1 / (1 + e⁻ˣ);  dx = dy σ(x) σ(-x).
 * Backward reads x, because 1 - y has lost its digits where y is near 1. */
#include "elementwise.h"

static real sigmoid_back(real x, real d_y) {
    const real e = nn_exp(-nn_abs(x));
    return d_y * (nn_div(1, 1 + e) * nn_div(e, 1 + e)); /* σ(x) and σ(-x), in either order */
}

NN_UNARY(sigmoid, X, 0, nn_logistic, sigmoid_back, NN_WORK_EXP + 2, "", .summary = "Logistic function.",
         .forward = "y = 1 / (1 + e⁻ˣ)", .backward = "dx = dy σ(x) σ(-x), which is dy y (1 - y)");
