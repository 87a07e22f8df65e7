/* flatten - dimensions start_dim to end_dim of x as one, the batch counted as 0;  dx = dy. */
#include "../op.h"
#include "axis.h"
#include "copy.h"

enum { START_DIM, END_DIM };
static const struct nn_attr_def attrs[] = {
    NN_AXIS_ROW("start_dim", 1, "the first dimension to be merged; the batch is 0 and may not be"),
    NN_AXIS_ROW("end_dim", -1, "the last one"),
    {0},
};

static int infer(struct nn_infer *infer, struct nn_error *err) {
    const struct nn_shape *in = &infer->in[0];
    int first = 0, last = 0;
    if (nn_axis_find("start_dim", infer->attrs[START_DIM].i, in, &first, err) ||
        nn_axis_find("end_dim", infer->attrs[END_DIM].i, in, &last, err))
        return (int)err->code;
    if (first > last)
        return nn_fail_member(err, NN_E_VALUE, "end_dim", "\"end_dim\" comes before \"start_dim\"");
    struct nn_shape *out = &infer->out;
    *out = (struct nn_shape){.rank = 0};
    for (int i = 0; i < in->rank; i++) {
        if (i > first && i <= last)
            out->dim[out->rank - 1] *= in->dim[i];
        else
            out->dim[out->rank++] = in->dim[i];
    }
    return NN_OK;
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
    {.attrs = "\"start_dim\": 2, \"end_dim\": 3", .n_inputs = 1, .inputs = {{3, {2, 3, 2}}}},
    {.attrs = "\"end_dim\": -2", .n_inputs = 1, .inputs = {{3, {2, 3, 2}}}},
};

const struct nn_op NN_OP(flatten) = {
    NN_DEF(flatten, 1, 1, .summary = "Some dimensions as one.", .forward = "y = x, with other dimensions",
           .backward = "dx = dy", .attrs = attrs),
    .forward_split = NN_BY_ELEMENT,
    .backward_split = NN_BY_ELEMENT,
    .infer = infer,
    .work = nn_work_none,
    .forward = nn_copy_forward,
    .backward = nn_copy_backward,
};
