/* axis.h - one dimension of a sample, for the operators that work along it. Dimensions are counted as in
 * PyTorch: the batch is 0, and negative ones count from the end. */
#ifndef NN_AXIS_H
#define NN_AXIS_H

#include "../op.h"
#include "../real.h"

#define NN_AXIS_ROW(which, dim, what)                                                                        \
    {                                                                                                        \
        .name = (which), .type = NN_INT, .min = -NN_MAX_RANK, .max = NN_MAX_RANK - 1, .by_default = (dim),   \
        .text = (what)                                                                                       \
    }

/* Finds the place in `sample` of the dimension that attribute `member` names. NN_E_VALUE. */
static inline int nn_axis_find(const char *member, int64_t dim, const struct nn_shape *sample, int *at,
                               struct nn_error *err) {
    const int rank = sample->rank + 1;
    int64_t i = dim < 0 ? dim + rank : dim;
    if (i == 0) return nn_fail_member(err, NN_E_VALUE, member, "\"%s\" may not be the batch", member);
    if (i < 0 || i >= rank)
        return nn_fail_member(err, NN_E_VALUE, member,
                              "\"%s\" is %lld, and the input has %d dimensions, the batch included", member,
                              (long long)dim, rank);
    *at = (int)i - 1;
    return NN_OK;
}

/* A sample seen as [outer, length, inner] around that dimension. */
struct nn_axis {
    int64_t outer, length, inner;
};

static inline struct nn_axis nn_axis_at(int64_t dim, const struct nn_shape *sample) {
    const int at = (int)(dim < 0 ? dim + sample->rank : dim - 1);
    struct nn_axis axis = {1, sample->dim[at], 1};
    for (int i = 0; i < at; i++) axis.outer *= sample->dim[i];
    for (int i = at + 1; i < sample->rank; i++) axis.inner *= sample->dim[i];
    return axis;
}

/* Where the v-th vector of the batch begins; its elements are `inner` apart. A row has outer * inner. */
static inline int64_t nn_axis_vector(const struct nn_axis *axis, int64_t v) {
    return v / axis->inner * axis->length * axis->inner + v % axis->inner;
}

static inline real nn_axis_max(const real *x, int64_t n, int64_t stride) {
    real max = x[0];
    for (int64_t j = 1; j < n; j++) max = x[j * stride] > max ? x[j * stride] : max;
    return max;
}

/* y_j = e^(x_j - max), which cannot overflow; returns the sum. */
static inline double nn_axis_exp(const real *x, real max, real *y, int64_t n, int64_t stride) {
    double sum = 0;
    for (int64_t j = 0; j < n * stride; j += stride) sum += (double)(y[j] = exp(x[j] - max));
    return sum;
}

#endif
