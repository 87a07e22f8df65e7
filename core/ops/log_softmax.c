/* log_softmax - y_j = x_j - log Σ_k e^(x_k) along one dimension;  dx_j = dy_j - e^(y_j) Σ_k dy_k.
 * Forward subtracts the greatest x from all, so that no exponential overflows. For a y near 0, where dy_j and its
 * share in the sum nearly cancel, backward computes
 *   dx_j = dy_j (1 - e^(y_j)) - e^(y_j) Σ_{k≠j} dy_k,  1 - e^y = -expm1(y) */
#include "../op.h"
#include "../real.h"
#include "axis.h"

enum { DIM };
static const struct nn_attr_def attrs[] = {
    NN_AXIS_ROW("dim", -1, "the dimension that sums to 1; the batch is 0 and may not be it"),
    {0},
};

static inline void log_softmax(const real *x, real *y, int64_t n, int64_t stride) {
    real max = nn_axis_max(x, n, stride);
    real log_sum = (real)nn_log1p(nn_axis_exp(x, max, y, n, stride));
    for (int64_t j = 0; j < n; j++) y[j * stride] = x[j * stride] - max - log_sum;
}

/* noinline: gcc 12 does not vectorise the loop when it inlines this into the next function. */
static __attribute__((noinline)) void add_slopes(const real *y, const real *d_y, real *d_x, real sum,
                                                 int64_t n, int64_t stride) {
    for (int64_t i = 0; i < n * stride; i += stride) d_x[i] += d_y[i] - nn_exp(y[i]) * sum;
}

static inline void log_softmax_backward(const real *y, const real *d_y, real *d_x, int64_t n,
                                        int64_t stride) {
    const real max = nn_axis_max(y, n, stride), sum = (real)nn_axis_sum(d_y, n, stride);
    if (!(nn_re(max) > nn_re((real)-0.6))) {
        add_slopes(y, d_y, d_x, sum, n, stride);
        return;
    }
    const int64_t at = nn_axis_place(y, max, n, stride); /* the only place with more than half of the sum */
    const real before = d_x[at * stride], others = (real)nn_axis_others(d_y, at, n, stride);
    add_slopes(y, d_y, d_x, sum, n, stride);
    d_x[at * stride] = before - (d_y[at * stride] * nn_expm1(max) + nn_exp(max) * others);
}

NN_ALONG_AXIS(log_softmax, log_softmax, log_softmax_backward, NN_WORK_EXP + 5,
              .summary = "Logarithm of softmax, computed stably.", .forward = "yⱼ = xⱼ - log Σₖ e^xₖ",
              .backward = "dxⱼ = dyⱼ - e^yⱼ Σₖ dyₖ");
