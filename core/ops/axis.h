/* axis.h - one dimension of a sample, for the operators that work along it. Dimensions are counted as in
 * PyTorch: the batch is 0, and negative ones count from the end. */
#ifndef NN_AXIS_H
#define NN_AXIS_H

#include "../op.h"
#include "../vexp.h"

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

/* The functions below take the elements of one vector, `stride` apart. They are inline and called with a
 * constant 1 where that is the stride, so that the compiler makes a version of its own for neighbours. Of
 * those the maximum and the sum are taken in this many lanes, element j in lane
 * j % NN_AXIS_LANES, so that loops vectorise; the sum's order depends on the length alone. */
enum { NN_AXIS_LANES = 16 };

static inline real nn_axis_max(const real *x, int64_t n, int64_t stride) {
    real lane[NN_AXIS_LANES], max = x[0];
    int64_t whole = stride == 1 ? n - n % NN_AXIS_LANES : 0;
    for (int l = 0; l < NN_AXIS_LANES; l++) lane[l] = max;
    for (int64_t j = 0; j < whole; j += NN_AXIS_LANES)
        for (int l = 0; l < NN_AXIS_LANES; l++) lane[l] = x[j + l] > lane[l] ? x[j + l] : lane[l];
    for (int l = 0; l < NN_AXIS_LANES; l++) max = lane[l] > max ? lane[l] : max;
    for (int64_t j = whole; j < n; j++) max = x[j * stride] > max ? x[j * stride] : max;
    return max;
}

static inline double nn_axis_sum(const real *x, int64_t n, int64_t stride) {
    double lane[NN_AXIS_LANES] = {0}, sum = 0;
    int64_t whole = stride == 1 ? n - n % NN_AXIS_LANES : 0;
    for (int64_t j = 0; j < whole; j += NN_AXIS_LANES)
        for (int l = 0; l < NN_AXIS_LANES; l++) lane[l] += (double)x[j + l];
    for (int l = 0; l < NN_AXIS_LANES; l++) sum += lane[l];
    for (int64_t j = whole; j < n; j++) sum += (double)x[j * stride];
    return sum;
}

static inline double nn_axis_dot(const real *x, const real *y, int64_t n, int64_t stride) {
    double lane[NN_AXIS_LANES] = {0}, sum = 0;
    int64_t whole = stride == 1 ? n - n % NN_AXIS_LANES : 0;
    for (int64_t j = 0; j < whole; j += NN_AXIS_LANES)
        for (int l = 0; l < NN_AXIS_LANES; l++) lane[l] += (double)x[j + l] * (double)y[j + l];
    for (int l = 0; l < NN_AXIS_LANES; l++) sum += lane[l];
    for (int64_t j = whole; j < n; j++) sum += (double)x[j * stride] * (double)y[j * stride];
    return sum;
}

/* y_j = e^(x_j - max), which cannot overflow; returns the sum. */
static inline double nn_axis_exp(const real *x, real max, real *y, int64_t n, int64_t stride) {
    for (int64_t j = 0; j < n; j++) y[j * stride] = nn_exp(x[j * stride] - max);
    return nn_axis_sum(y, n, stride);
}

/* Forward, and backward that reads y, of an operator that takes one vector after the other: of rows begin to end. */
static inline void nn_axis_forward(const struct nn_pass *pass, int64_t dim, int64_t begin, int64_t end,
                                   void (*vector)(const real *x, real *y, int64_t n, int64_t stride)) {
    const struct nn_axis axis = nn_axis_at(dim, pass->out);
    for (int64_t v = begin * axis.outer * axis.inner; v < end * axis.outer * axis.inner; v++) {
        int64_t first = nn_axis_vector(&axis, v);
        const real *x = (const real *)pass->x[0] + first;
        real *y = (real *)pass->y + first;
        if (axis.inner == 1)
            vector(x, y, axis.length, 1);
        else
            vector(x, y, axis.length, axis.inner);
    }
}

static inline void nn_axis_backward(const struct nn_pass *pass, int64_t dim, int64_t begin, int64_t end,
                                    void (*vector)(const real *y, const real *d_y, real *d_x, int64_t n,
                                                   int64_t stride)) {
    const struct nn_axis axis = nn_axis_at(dim, pass->out);
    if (!pass->d_x[0]) return;
    for (int64_t v = begin * axis.outer * axis.inner; v < end * axis.outer * axis.inner; v++) {
        int64_t first = nn_axis_vector(&axis, v);
        const real *y = (const real *)pass->y + first, *d_y = (const real *)pass->d_y + first;
        real *d_x = (real *)pass->d_x[0] + first;
        if (axis.inner == 1)
            vector(y, d_y, d_x, axis.length, 1);
        else
            vector(y, d_y, d_x, axis.length, axis.inner);
    }
}

#endif
