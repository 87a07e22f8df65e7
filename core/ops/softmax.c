/* softmax - y_j = e^(x_j) / Σ_k e^(x_k) along one dimension;  dx_j = y_j (dy_j - Σ_k dy_k y_k).
 * Forward subtracts the greatest x from all, so that no exponential overflows. If a y is near 1, backward subtracts
 * its dy from every dy: dx is the same, and no large numbers cancel. */
#include "../op.h"
#include "../real.h"
#include "axis.h"

enum { DIM };
static const struct nn_attr_def attrs[] = {
    NN_AXIS_ROW("dim", -1, "the dimension that sums to 1; the batch is 0 and may not be it"),
    {0},
};

static inline void softmax(const real *x, real *y, int64_t n, int64_t stride) {
    real factor = (real)nn_div(1, 1 + nn_axis_exp(x, nn_axis_max(x, n, stride), y, n, stride));
    for (int64_t j = 0; j < n; j++) y[j * stride] *= factor;
}

static inline void softmax_backward(const real *y, const real *d_y, real *d_x, int64_t n, int64_t stride) {
    real max = nn_axis_max(y, n, stride);
    real level = nn_re(max) > nn_re((real)0.5) ? d_y[nn_axis_place(y, max, n, stride) * stride] : 0;
    real dot = (real)nn_axis_dot(d_y, level, y, n, stride);
    for (int64_t i = 0; i < n * stride; i += stride) d_x[i] += y[i] * (d_y[i] - level - dot);
}

NN_ALONG_AXIS(softmax, softmax, softmax_backward, NN_WORK_EXP + 4,
              .summary = "Numbers of one dimension as a distribution.", .forward = "yⱼ = e^xⱼ / Σₖ e^xₖ",
              .backward = "dxⱼ = yⱼ (dyⱼ - Σₖ dyₖ yₖ)");
