/* concat - the inputs one after the other along one dimension, the batch counted as 0.
 *   x_i [..., n_i, ...], y [..., Σ n_i, ...];  dx_i = the part of dy that x_i went to */
#include <string.h>

#include "../op.h"
#include "../real.h"
#include "axis.h"

enum { DIM };
static const struct nn_attr_def attrs[] = {
    NN_AXIS_ROW("dim", 1, "the dimension that grows; the batch is 0 and may not"),
    {0},
};

static int infer(struct nn_infer *infer, struct nn_error *err) {
    int at = 0;
    if (nn_axis_find("dim", infer->attrs[DIM].i, &infer->in[0], &at, err)) return (int)err->code;
    infer->out = infer->in[0];
    for (int i = 1; i < infer->n_inputs; i++) {
        struct nn_shape expected = infer->in[0];
        if (infer->in[i].rank == expected.rank) expected.dim[at] = infer->in[i].dim[at];
        if (!nn_shape_equal(&infer->in[i], &expected))
            return nn_fail_shape(err, &expected, &infer->in[i],
                                 "the inputs of concat may differ in dimension %d only", at + 1);
        infer->out.dim[at] += infer->in[i].dim[at];
    }
    return NN_OK;
}

/* Seen as [outer, length * inner], y holds one contiguous run of every input in each of its lines. */
static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const struct nn_axis whole = nn_axis_at(pass->attrs[DIM].i, pass->out);
    const int64_t line = whole.length * whole.inner;
    int64_t start = 0; /* of this input's run in a line */
    for (int k = 0; k < pass->n_inputs; k++) {
        const int64_t run = nn_axis_at(pass->attrs[DIM].i, &pass->in[k]).length * whole.inner;
        const real *x = pass->x[k];
        real *y = (real *)pass->y + start;
        for (int64_t o = begin * whole.outer; o < end * whole.outer; o++)
            memcpy(y + o * line, x + o * run, (size_t)run * sizeof *y);
        start += run;
    }
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const struct nn_axis whole = nn_axis_at(pass->attrs[DIM].i, pass->out);
    const int64_t line = whole.length * whole.inner;
    int64_t start = 0; /* of this input's run in a line */
    for (int k = 0; k < pass->n_inputs; k++) {
        const int64_t run = nn_axis_at(pass->attrs[DIM].i, &pass->in[k]).length * whole.inner;
        const real *d_y = (const real *)pass->d_y + start;
        real *d_x = pass->d_x[k];
        for (int64_t o = begin * whole.outer; d_x && o < end * whole.outer; o++)
            for (int64_t j = 0; j < run; j++) d_x[o * run + j] += d_y[o * line + j];
        start += run;
    }
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 2, .inputs = {{1, {3}}, {1, {2}}}},
    {.attrs = "\"dim\": -1", .n_inputs = 3, .inputs = {{2, {2, 3}}, {2, {2, 1}}, {2, {2, 2}}}},
    {.attrs = "\"dim\": 1", .n_inputs = 2, .inputs = {{2, {2, 3}}, {2, {1, 3}}}},
};

const struct nn_op NN_OP(concat) = {
    NN_DEF(concat, 1, -1, .summary = "The inputs, one after the other along one dimension.",
           .forward = "y = [x₁, x₂, …] along dim", .backward = "dxᵢ = its part of dy", .attrs = attrs),
    .forward_split = NN_BY_ROW,
    .backward_split = NN_BY_ROW,
    .infer = infer,
    .work = nn_work_none,
    .forward = forward,
    .backward = backward,
};
