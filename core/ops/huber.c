/* huber - squared error near the target, absolute error away from it; elementwise with z = x - t:
 *   loss = ½ z² where |z| <= delta, else delta (|z| - ½ delta);  dx = dloss z, clamped to ±delta */
#include "elementwise.h"

static const struct nn_attr_def attrs[] = {
    {.name = "delta",
     .type = NN_REAL,
     NN_ABOVE_0,
     .by_default = 1,
     .text = "distance at which the error turns from squared to absolute"},
    {0},
};

static real huber(real x, real t, real delta) {
    const real z = nn_abs(x - t);
    return nn_re(z) <= nn_re(delta) ? z * z / 2 : delta * (z - delta / 2);
}
static real huber_back(real x, real t, real d_loss, real delta) {
    real z = x - t;
    z = nn_re(z) > nn_re(delta) ? delta : z;
    z = nn_re(z) < -nn_re(delta) ? -delta : z;
    return d_loss * z;
}

NN_LOSS(huber, 1, huber, huber_back, 6, "\"delta\": 0.5",
        .summary = "Squared error near the target, absolute error away from it.",
        .forward = "loss = ½ (x - t)² where |x - t| <= delta, else delta (|x - t| - ½ delta)",
        .backward = "dx = dloss clamp(x - t, -delta, delta)", .flags = NN_IS_LOSS);
