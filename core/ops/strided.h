/* strided.h - walks over the elements of a shape, for operators that read or write tensors in another order than that
 * of their memory: each dimension has a step in each tensor. The order of a walk is that of the shape, row-major. */
#ifndef NN_STRIDED_H
#define NN_STRIDED_H

#include "../op.h"
#include "../real.h"

enum { NN_TENSORS = 3 }; /* in one walk at most */

struct nn_loops {
    int rank; /* after nn_loops_end at least 1 */
    int64_t dim[NN_MAX_RANK];
    int64_t step[NN_TENSORS][NN_MAX_RANK]; /* elements; 0: the tensor's element is repeated */
};

/* A further dimension, inside of those that are there. One loop does for two dimensions where the steps allow it. */
static inline void nn_loops_add(struct nn_loops *loops, int64_t dim, const int64_t step[NN_TENSORS]) {
    if (dim == 1) return;
    int i = loops->rank - 1;
    bool one = i >= 0;
    for (int t = 0; t < NN_TENSORS && one; t++) one = loops->step[t][i] == dim * step[t];
    if (!one) loops->dim[i = loops->rank++] = 1;
    loops->dim[i] *= dim;
    for (int t = 0; t < NN_TENSORS; t++) loops->step[t][i] = step[t];
}

/* Loops over nothing but one element have one dimension too. */
static inline void nn_loops_end(struct nn_loops *loops) {
    if (!loops->rank) loops->dim[loops->rank++] = 1;
}

/* The number of elements along the innermost dimension: a line. */
static inline int64_t nn_loops_line(const struct nn_loops *loops) { return loops->dim[loops->rank - 1]; }

/* A step along the line. */
static inline int64_t nn_loops_step(const struct nn_loops *loops, int tensor) {
    return loops->step[tensor][loops->rank - 1];
}

static inline int64_t nn_loops_elements(const struct nn_loops *loops) {
    int64_t n = 1;
    for (int i = 0; i < loops->rank; i++) n *= loops->dim[i];
    return n;
}

/* Where a line begins in each tensor. */
struct nn_walk {
    int64_t index[NN_MAX_RANK], at[NN_TENSORS];
};

static inline struct nn_walk nn_walk_to(const struct nn_loops *loops, int64_t line) {
    struct nn_walk walk = {.at = {0}};
    for (int i = loops->rank - 2; i >= 0; line /= loops->dim[i--]) {
        walk.index[i] = line % loops->dim[i];
        for (int t = 0; t < NN_TENSORS; t++) walk.at[t] += walk.index[i] * loops->step[t][i];
    }
    return walk;
}

/* To the next line; behind the last one, to the first. */
static inline void nn_walk_next(struct nn_walk *walk, const struct nn_loops *loops) {
    for (int i = loops->rank - 2; i >= 0; i--) {
        const bool wraps = ++walk->index[i] == loops->dim[i];
        for (int t = 0; t < NN_TENSORS; t++)
            walk->at[t] += loops->step[t][i] - (wraps ? loops->dim[i] * loops->step[t][i] : 0);
        if (!wraps) return;
        walk->index[i] = 0;
    }
}

/* --- operators whose output is a view of their input --------------------------------------------------------- */

/* The passes over the rows [begin, end): y is x, walked in y's order. No element of x is met twice. The loops are those
 * of a row; x begins with element `first` of each row. */
enum { NN_VIEW_X, NN_VIEW_Y };

static inline void nn_view_forward(const struct nn_pass *pass, const struct nn_loops *loops, int64_t first,
                                   int64_t begin, int64_t end) {
    const int64_t x_row = nn_shape_elements(&pass->in[0]), y_row = nn_shape_elements(pass->out);
    const int64_t line = nn_loops_line(loops), step = nn_loops_step(loops, NN_VIEW_X);
    for (int64_t row = begin; row < end; row++) {
        struct nn_walk walk = nn_walk_to(loops, 0);
        real *y = (real *)pass->y + row * y_row;
        for (int64_t i = 0; i < y_row; i += line, nn_walk_next(&walk, loops)) {
            const real *x = (const real *)pass->x[0] + row * x_row + first + walk.at[NN_VIEW_X];
            for (int64_t j = 0; j < line; j++) y[i + j] = x[j * step];
        }
    }
}

static inline void nn_view_backward(const struct nn_pass *pass, const struct nn_loops *loops, int64_t first,
                                    int64_t begin, int64_t end) {
    const int64_t x_row = nn_shape_elements(&pass->in[0]), y_row = nn_shape_elements(pass->out);
    const int64_t line = nn_loops_line(loops), step = nn_loops_step(loops, NN_VIEW_X);
    for (int64_t row = begin; pass->d_x[0] && row < end; row++) {
        struct nn_walk walk = nn_walk_to(loops, 0);
        const real *d_y = (const real *)pass->d_y + row * y_row;
        for (int64_t i = 0; i < y_row; i += line, nn_walk_next(&walk, loops)) {
            real *d_x = (real *)pass->d_x[0] + row * x_row + first + walk.at[NN_VIEW_X];
            for (int64_t j = 0; j < line; j++) d_x[j * step] += d_y[i + j];
        }
    }
}

#endif
