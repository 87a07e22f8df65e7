/* mse - squared error, elementwise: loss = (x - t)²;  dx = dloss 2 (x - t). */
#include "elementwise.h"

static real mse(real x, real t) { return (x - t) * (x - t); }
static real mse_back(real x, real t, real d_loss) { return d_loss * 2 * (x - t); }

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {3}}}},
    {.attrs = "", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
    {.attrs = "", .n_inputs = 1, .inputs = {{0, {0}}}},
};

NN_LOSS_PASSES(0, mse, mse_back)
NN_ELEMENTWISE_ROW(mse, 1, NN_READS_X, nn_infer_like_target, 2, .summary = "Squared error.",
                   .forward = "loss = (x - t)²", .backward = "dx = dloss 2 (x - t)", .flags = NN_IS_LOSS);
