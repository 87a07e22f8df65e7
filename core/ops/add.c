/* add - y = a + b;  da = dy, db = dy. */
#include "broadcast.h"

static real add(real a, real b) { return a + b; }
static real same(real d_y) { return d_y; }

NN_BINARY(add, NOTHING, 1, add, same, same,
          .summary = "Sum of two inputs, the smaller one repeated as NumPy does.", .forward = "y = a + b",
          .backward = "da = dy, db = dy");
