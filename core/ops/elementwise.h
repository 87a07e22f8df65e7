/* elementwise.h - operators and losses that compute each element of the result from one element of every input. Their
 * files give scalar functions and texts. The macros here make the passes over a range and the row. Operators on two
 * inputs have theirs in broadcast.h.
 *
 *   NN_UNARY(op, from, n, f, back, cost, example, texts...)
 *     y = f(x, attributes...),  dx += back(x or y, dy, attributes...); `from` is X or Y: the one that back takes
 *   NN_LOSS(op, n, f, back, cost, example, texts...)
 *     loss = f(x, t, attributes...),  dx += back(x, t, dloss, attributes...)
 *
 * n        0 to 2: the scalar functions take the first n attributes, of type NN_REAL, of the file's table `attrs`
 * cost     of an element's forward, in the unit of nn_op.work
 * example  the attributes of the second example; the first example has the defaults
 * texts    members of struct nn_def: .summary, .forward, .backward, .source, .flags
 *
 * An operator that these do not fit uses NN_*_PASSES and NN_ELEMENTWISE_ROW, or the latter alone. */
#ifndef NN_ELEMENTWISE_H
#define NN_ELEMENTWISE_H

#include "../op.h"
#include "logistic.h"
#include "same_shape.h"

#define NN_UNARY(op, from, n, f, back, cost, example, ...)                                                   \
    NN_UNARY_PASSES(forward, backward, from, n, f, back)                                                     \
    static const struct nn_example examples[] = {                                                            \
        {.attrs = "", .n_inputs = 1, .inputs = {{1, {5}}}},                                                  \
        {.attrs = example, .n_inputs = 1, .inputs = {{2, {2, 3}}}},                                          \
    };                                                                                                       \
    NN_ELEMENTWISE_ROW(op, 1, NN_READS_##from, nn_infer_same_shape, cost, .attrs = NN_TABLE_##n, __VA_ARGS__)

#define NN_LOSS(op, n, f, back, cost, example, ...)                                                          \
    NN_LOSS_PASSES(n, f, back)                                                                               \
    static const struct nn_example examples[] = {                                                            \
        {.attrs = "", .n_inputs = 1, .inputs = {{1, {3}}}},                                                  \
        {.attrs = example, .n_inputs = 1, .inputs = {{2, {2, 3}}}},                                          \
    };                                                                                                       \
    NN_ELEMENTWISE_ROW(op, 1, NN_READS_X, nn_infer_like_target, cost, .attrs = NN_TABLE_##n, __VA_ARGS__)

/* --- passes ----------------------------------------------------------------------------------------------- */

/* A forward pass may write its output over an input, element by element. The compiler has to know that two arrays are
 * either one or apart: else it makes a loop that does not vectorise for the former. */
#ifdef __clang__
#define NN_IN_PLACE _Pragma("clang loop vectorize(assume_safety)")
#else
#define NN_IN_PLACE _Pragma("GCC ivdep")
#endif

/* A pass reads the attributes before its loop. Inside, the compiler would have to read them again for every element,
 * because it cannot rule out that a store to the result changes them. */
#define NN_LOAD_0
#define NN_LOAD_1 const real attr0 = (real)pass->attrs[0].r
#define NN_LOAD_2                                                                                            \
    NN_LOAD_1;                                                                                               \
    const real attr1 = (real)pass->attrs[1].r

#define NN_CALL_0(f, ...) f(__VA_ARGS__)
#define NN_CALL_1(f, ...) f(__VA_ARGS__, attr0)
#define NN_CALL_2(f, ...) f(__VA_ARGS__, attr0, attr1)

#define NN_FROM_X pass->x[0]
#define NN_FROM_Y pass->y

#define NN_UNARY_PASSES(forward, backward, from, n, f, back)                                                 \
    static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {                            \
        const real *x = pass->x[0];                                                                          \
        real *y = pass->y;                                                                                   \
        NN_LOAD_##n;                                                                                         \
        NN_IN_PLACE                                                                                          \
        for (int64_t i = begin; i < end; i++) y[i] = NN_CALL_##n(f, x[i]);                                   \
    }                                                                                                        \
    static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {                           \
        const real *x_or_y = NN_FROM_##from, *d_y = pass->d_y;                                               \
        real *d_x = pass->d_x[0];                                                                            \
        if (!d_x) return;                                                                                    \
        NN_LOAD_##n;                                                                                         \
        for (int64_t i = begin; i < end; i++) d_x[i] += NN_CALL_##n(back, x_or_y[i], d_y[i]);                \
    }

#define NN_LOSS_PASSES(n, f, back)                                                                           \
    static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {                            \
        const real *x = pass->x[0], *t = pass->target;                                                       \
        real *loss = pass->y;                                                                                \
        NN_LOAD_##n;                                                                                         \
        for (int64_t i = begin; i < end; i++) loss[i] = NN_CALL_##n(f, x[i], t[i]);                          \
    }                                                                                                        \
    static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {                           \
        const real *x = pass->x[0], *t = pass->target, *d_loss = pass->d_y;                                  \
        real *d_x = pass->d_x[0];                                                                            \
        if (!d_x) return;                                                                                    \
        NN_LOAD_##n;                                                                                         \
        for (int64_t i = begin; i < end; i++) d_x[i] += NN_CALL_##n(back, x[i], t[i], d_loss[i]);            \
    }

/* Both inputs may be one node. Then d_a and d_b are one array, which gets both sums. */
#define NN_BINARY_READ_X const real *a = pass->x[0], *b = pass->x[1]
#define NN_BINARY_READ_NOTHING
#define NN_BINARY_CALL_X(back)       back(a[i], b[i], d_y[i])
#define NN_BINARY_CALL_NOTHING(back) back(d_y[i])

#define NN_BINARY_PASSES(forward, backward, from, f, back_a, back_b)                                         \
    static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {                            \
        const real *a = pass->x[0], *b = pass->x[1];                                                         \
        real *y = pass->y;                                                                                   \
        NN_IN_PLACE                                                                                          \
        for (int64_t i = begin; i < end; i++) y[i] = f(a[i], b[i]);                                          \
    }                                                                                                        \
    static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {                           \
        NN_BINARY_READ_##from;                                                                               \
        const real *d_y = pass->d_y;                                                                         \
        real *d_a = pass->d_x[0], *d_b = pass->d_x[1];                                                       \
        for (int64_t i = begin; d_a && i < end; i++) d_a[i] += NN_BINARY_CALL_##from(back_a);                \
        for (int64_t i = begin; d_b && i < end; i++) d_b[i] += NN_BINARY_CALL_##from(back_b);                \
    }

/* --- the row ---------------------------------------------------------------------------------------------- */

#define NN_TABLE_0 NULL
#define NN_TABLE_1 attrs
#define NN_TABLE_2 attrs

/* The row, made of the file's `examples`, `forward` and `backward`. */
#define NN_ELEMENTWISE_ROW(op, inputs, what_backward_reads, shape_inference, cost, ...)                      \
    static double work(const struct nn_infer *infer) { return (cost)*nn_work_outputs(infer); }               \
    const struct nn_op NN_OP(op) = {                                                                         \
        NN_DEF(op, inputs, inputs, __VA_ARGS__),                                                             \
        .forward_split = NN_BY_ELEMENT,                                                                      \
        .backward_split = NN_BY_ELEMENT,                                                                     \
        .reads = what_backward_reads,                                                                        \
        .infer = shape_inference,                                                                            \
        .work = work,                                                                                        \
        .forward = forward,                                                                                  \
        .backward = backward,                                                                                \
    }

#endif
