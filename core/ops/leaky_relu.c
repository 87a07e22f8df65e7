/* leaky_relu - y = x where x > 0, else negative_slope x;  dx = dy or negative_slope dy likewise. */
#include "elementwise.h"

static const struct nn_attr_def attrs[] = {
    {.name = "negative_slope", .type = NN_REAL, .by_default = 0.01, .text = "slope where x is negative"},
    {0},
};

static real leaky_relu(real x, real slope) { return x * (nn_re(x) > 0 ? 1 : slope); }
static real leaky_relu_back(real x, real d_y, real slope) { return d_y * (nn_re(x) > 0 ? 1 : slope); }

NN_UNARY(leaky_relu, X, 1, leaky_relu, leaky_relu_back, 2, "\"negative_slope\": 0.3",
         .summary = "Rectified linear unit with a slope for negative inputs.",
         .forward = "y = x where x > 0, else negative_slope x",
         .backward = "dx = dy where x > 0, else negative_slope dy", .flags = NN_HAS_KINKS);
