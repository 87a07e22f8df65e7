/* l1 - absolute error, elementwise: loss = |x - t|;  dx = dloss sign(x - t), and 0 where x = t. */
#include "elementwise.h"

static real l1(real x, real t) { return nn_abs(x - t); }
static real l1_back(real x, real t, real d_loss) {
    return (real)((nn_re(x) > nn_re(t)) - (nn_re(x) < nn_re(t))) * d_loss;
}

NN_LOSS(l1, 0, l1, l1_back, 2, "", .summary = "Absolute error.", .forward = "loss = |x - t|",
        .backward = "dx = dloss sign(x - t)", .flags = NN_IS_LOSS | NN_HAS_KINKS);
