/* mul - y = a * b (elementwise);  da = dy * b, db = dy * a. */
#include "broadcast.h"

static real mul(real a, real b) { return a * b; }
static real back_a(real a, real b, real d_y) { return (void)a, d_y * b; }
static real back_b(real a, real b, real d_y) { return (void)b, d_y * a; }

NN_BINARY(mul, X, 1, mul, back_a, back_b,
          .summary = "Elementwise product of two inputs, the smaller one repeated as NumPy does.",
          .forward = "y = a * b (elementwise)", .backward = "da = dy * b, db = dy * a");
