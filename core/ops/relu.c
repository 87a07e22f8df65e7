/* relu - y = max(x, 0);  dx = dy where y > 0, else 0 (the subgradient at 0 is 0, as in PyTorch). Comparisons with
 * NaN are false: the form x <= 0 ? 0 : x passes a NaN on. */
#include "elementwise.h"

static real relu(real x) { return nn_choose(nn_re(x) <= 0, 0, x); }
static real relu_back(real y, real d_y) { return nn_choose(nn_re(y) <= 0, 0, d_y); }

NN_UNARY(relu, Y, 0, relu, relu_back, 1, "", .summary = "Rectified linear unit.", .forward = "y = max(x, 0)",
         .backward = "dx = dy where x > 0, else 0", .flags = NN_HAS_KINKS);
