/* div - y = a / b (elementwise);  da = dy / b, db = -dy a / b². The square of b may overflow, or be 0, where db is
 * neither: db is computed as -dy (a / b / b), in the wide type. */
#include "broadcast.h"

static real quotient(real a, real b) { return nn_div(a, b); }
static real back_a(real a, real b, real d_y) { return (void)a, nn_div(d_y, b); }
static real back_b(real a, real b, real d_y) {
    return (real)(-(wide)d_y * nn_div(nn_div((wide)a, (wide)b), (wide)b));
}

NN_BINARY(div, X, 16, quotient, back_a, back_b,
          .summary = "Elementwise quotient of two inputs, the smaller one repeated as NumPy does.",
          .forward = "y = a / b (elementwise)", .backward = "da = dy / b, db = -dy a / b²");
