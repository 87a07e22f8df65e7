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

/* Shape inference of an operator that keeps the shape and whose first attribute is "dim". */
static inline int nn_infer_along_axis(struct nn_infer *infer, struct nn_error *err) {
    int at = 0;
    infer->out = infer->in[0];
    return nn_axis_find("dim", infer->attrs[0].i, &infer->in[0], &at, err);
}

/* The functions below take the elements of one vector, `stride` apart. They are inline, and a caller whose stride
 * is 1 passes the constant 1, so that the compiler makes a separate version for it. That version computes a maximum
 * or a sum in NN_LANES lanes, element j in lane j % NN_LANES, so that the loop vectorises. The order of a sum
 * depends on the length alone. */

static inline real nn_axis_max(const real *x, int64_t n, int64_t stride) {
    real lane[NN_LANES], max = x[0];
    int64_t whole = stride == 1 ? n - n % NN_LANES : 0;
    for (int l = 0; l < NN_LANES; l++) lane[l] = max;
    for (int64_t j = 0; j < whole; j += NN_LANES)
        for (int l = 0; l < NN_LANES; l++) lane[l] = nn_re(x[j + l]) > nn_re(lane[l]) ? x[j + l] : lane[l];
    for (int l = 0; l < NN_LANES; l++) max = nn_re(lane[l]) > nn_re(max) ? lane[l] : max;
    for (int64_t j = whole; j < n; j++) max = nn_re(x[j * stride]) > nn_re(max) ? x[j * stride] : max;
    return max;
}

static inline wide nn_axis_sum(const real *x, int64_t n, int64_t stride) {
    wide lane[NN_LANES] = {0}, sum = 0;
    int64_t whole = stride == 1 ? n - n % NN_LANES : 0;
    for (int64_t j = 0; j < whole; j += NN_LANES)
        for (int l = 0; l < NN_LANES; l++) lane[l] += (wide)x[j + l];
    for (int l = 0; l < NN_LANES; l++) sum += lane[l];
    for (int64_t j = whole; j < n; j++) sum += (wide)x[j * stride];
    return sum;
}

/* Σ (x_j - level) y_j */
static inline wide nn_axis_dot(const real *x, real level, const real *y, int64_t n, int64_t stride) {
    wide lane[NN_LANES] = {0}, sum = 0;
    int64_t whole = stride == 1 ? n - n % NN_LANES : 0;
    for (int64_t j = 0; j < whole; j += NN_LANES)
        for (int l = 0; l < NN_LANES; l++) lane[l] += (wide)(x[j + l] - level) * (wide)y[j + l];
    for (int l = 0; l < NN_LANES; l++) sum += lane[l];
    for (int64_t j = whole; j < n; j++) sum += (wide)(x[j * stride] - level) * (wide)y[j * stride];
    return sum;
}

/* The sum of all elements but x_at. Callers use it where x_at is most of the whole sum. */
static wide __attribute__((noinline, unused))
nn_axis_others(const real *x, int64_t at, int64_t n, int64_t stride) {
    return nn_axis_sum(x, at, stride) + nn_axis_sum(x + (at + 1) * stride, n - at - 1, stride);
}

/* The first place of `max`, which is nn_axis_max of the vector. */
static inline int64_t nn_axis_place(const real *x, real max, int64_t n, int64_t stride) {
    for (int64_t j = 0; j < n; j++)
        if (nn_re(x[j * stride]) == nn_re(max)) return j;
    return 0;
}

/* y_j = e^(x_j - max), which cannot overflow. Returns the sum of all y but the greatest, which is 1: added to that
 * 1, small numbers would lose their digits. */
static inline wide nn_axis_exp(const real *x, real max, real *y, int64_t n, int64_t stride) {
    for (int64_t j = 0; j < n; j++) y[j * stride] = nn_exp(x[j * stride] - max);
    wide sum = nn_axis_sum(y, n, stride);
    return nn_re(sum) < 2 ? nn_axis_others(y, nn_axis_place(x, max, n, stride), n, stride) : sum - 1;
}

/* The passes, over the rows [begin, end), of an operator that computes each vector by itself. Backward reads y. */
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

/* The passes, the examples and the row of such an operator. `cost` is that of an element's forward. */
#define NN_ALONG_AXIS(op, vector, vector_back, cost, ...)                                                    \
    static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {                            \
        nn_axis_forward(pass, pass->attrs[DIM].i, begin, end, vector);                                       \
    }                                                                                                        \
    static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {                           \
        nn_axis_backward(pass, pass->attrs[DIM].i, begin, end, vector_back);                                 \
    }                                                                                                        \
    static double work(const struct nn_infer *infer) { return (cost)*nn_work_outputs(infer); }               \
    static const struct nn_example examples[] = {                                                            \
        {.attrs = "", .n_inputs = 1, .inputs = {{1, {5}}}},                                                  \
        {.attrs = "\"dim\": 1", .n_inputs = 1, .inputs = {{2, {3, 2}}}},                                     \
        {.attrs = "\"dim\": -2", .n_inputs = 1, .inputs = {{3, {2, 3, 2}}}},                                 \
    };                                                                                                       \
    const struct nn_op NN_OP(op) = {                                                                         \
        NN_DEF(op, 1, 1, .attrs = attrs, __VA_ARGS__),                                                       \
        .forward_split = NN_BY_ROW,                                                                          \
        .backward_split = NN_BY_ROW,                                                                         \
        .reads = NN_READS_Y,                                                                                 \
        .infer = nn_infer_along_axis,                                                                        \
        .work = work,                                                                                        \
        .forward = forward,                                                                                  \
        .backward = backward,                                                                                \
    }

#endif
