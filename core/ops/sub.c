/* sub - y = a - b;  da = dy, db = -dy. */
#include "broadcast.h"

static real sub(real a, real b) { return a - b; }
static real same(real d_y) { return d_y; }
static real minus(real d_y) { return -d_y; }

NN_BINARY(sub, NOTHING, 1, sub, same, minus,
          .summary = "Difference of two inputs, the smaller one repeated as NumPy does.",
          .forward = "y = a - b", .backward = "da = dy, db = -dy");
