/* reshape - the elements of x in their order, under another shape of a sample;  dx = dy. */
#include "../op.h"
#include "copy.h"

enum { SHAPE };
static const struct nn_attr_def attrs[] = {
    {.name = "shape",
     .type = NN_INTS,
     .required = true,
     .min = -1,
     .max = NN_MAX_ELEMENTS,
     .list_max = NN_MAX_RANK - 1,
     .text = "dimensions of a sample, the batch left out; one may be -1: what is left"},
    {0},
};

static int fail(const struct nn_shape *in, struct nn_error *err) {
    char text[160];
    return nn_fail_member(err, NN_E_SHAPE, "shape", "a sample %s does not have as many elements as \"shape\"",
                          nn_shape_text(in, text, sizeof text));
}

static int infer(struct nn_infer *infer, struct nn_error *err) {
    const union nn_attr_value *shape = &infer->attrs[SHAPE];
    const int64_t elements = nn_shape_elements(&infer->in[0]);
    int64_t known = 1;
    int open = -1; /* the dimension that is -1 */
    infer->out.rank = (int)shape->list.n;
    for (int i = 0; i < infer->out.rank; i++) {
        int64_t dim = infer->out.dim[i] = shape->list.ints[i];
        if (dim == 0 || (dim == -1 && open >= 0))
            return nn_fail_member(err, NN_E_VALUE, "shape",
                                  "the numbers of \"shape\" are at least 1, but for one that may be -1");
        if (dim == -1)
            open = i;
        else if ((known *= dim) > elements) /* before the next factor could overflow it */
            return fail(&infer->in[0], err);
    }
    if (open >= 0) known *= infer->out.dim[open] = elements / known;
    return known == elements ? NN_OK : fail(&infer->in[0], err);
}

static const struct nn_example examples[] = {
    {.attrs = "\"shape\": [3, 2]", .n_inputs = 1, .inputs = {{1, {6}}}},
    {.attrs = "\"shape\": [-1]", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
    {.attrs = "\"shape\": [2, -1, 3]", .n_inputs = 1, .inputs = {{2, {4, 3}}}},
};

const struct nn_op NN_OP(reshape) = {
    NN_DEF(reshape, 1, 1, .summary = "Another shape for the same elements.",
           .forward = "y = x, with another shape", .backward = "dx = dy", .attrs = attrs),
    .forward_split = NN_BY_ELEMENT,
    .backward_split = NN_BY_ELEMENT,
    .infer = infer,
    .work = nn_work_none,
    .forward = nn_copy_forward,
    .backward = nn_copy_backward,
};
