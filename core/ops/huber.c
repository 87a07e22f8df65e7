/* huber - squared error near the target, absolute error away from it; elementwise with z = x - t:
 *   loss = ½ z² where |z| <= delta, else delta (|z| - ½ delta);  dx = dloss z, clamped to ±delta */
#include "../op.h"
#include "../real.h"
#include "same_shape.h"

enum { DELTA };
static const struct nn_attr_def attrs[] = {
    {.name = "delta",
     .type = NN_REAL,
     .min_open = true,
     .min = 0,
     .max = 1e30,
     .by_default = 1,
     .text = "distance at which the error turns from squared to absolute"},
    {0},
};

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *t = pass->target;
    real *loss = pass->y;
    const real delta = (real)pass->attrs[DELTA].r;
    for (int64_t i = begin; i < end; i++) {
        real z = fabs(x[i] - t[i]);
        loss[i] = z <= delta ? z * z / 2 : delta * (z - delta / 2);
    }
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *t = pass->target, *d_loss = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    const real delta = (real)pass->attrs[DELTA].r;
    for (int64_t i = begin; i < end; i++) {
        real z = x[i] - t[i];
        d_x[i] += d_loss[i] * (z > delta ? delta : z < -delta ? -delta : z);
    }
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {3}}}},
    {.attrs = "\"delta\": 0.5", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
};

const struct nn_op NN_OP(huber) = {
    .def =
        {
            .name = "huber",
            .summary = "Squared error near the target, absolute error away from it.",
            .forward = "loss = ½ (x - t)² where |x - t| <= delta, else delta (|x - t| - ½ delta)",
            .backward = "dx = dloss clamp(x - t, -delta, delta)",
            .min_inputs = 1,
            .max_inputs = 1,
            .flags = NN_IS_LOSS,
            .attrs = attrs,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .forward_split = NN_BY_ELEMENT,
    .backward_split = NN_BY_ELEMENT,
    .reads = NN_READS_X,
    .infer = nn_infer_like_target,
    .forward = forward,
    .backward = backward,
};
