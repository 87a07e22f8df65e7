/* silu - y = x σ(x), σ(x) = 1 / (1 + e⁻ˣ);  dx = dy σ(x) (1 + x σ(-x)). */
#include "elementwise.h"

static real silu(real x) { return x * nn_logistic(x); }
static real silu_back(real x, real d_y) {
    const struct nn_logistic_pair s = nn_logistic_pair(x);
    return d_y * (s.of * (1 + x * s.of_minus));
}

NN_UNARY(silu, X, 0, silu, silu_back, NN_WORK_EXP + 3, "",
         .summary = "Sigmoid linear unit, also called swish.", .forward = "y = x σ(x), σ(x) = 1 / (1 + e⁻ˣ)",
         .backward = "dx = dy σ(x) (1 + x σ(-x))",
         .source = "Elfwing et al., \"Sigmoid-weighted linear units\", 2017, section 2");
