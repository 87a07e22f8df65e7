/* constant - y = value: numbers that the model holds and does not train, without a batch dimension. */
#include "../real.h"
#include "rowless.h"

enum { SHAPE, VALUE };
static const struct nn_attr_def attrs[] = {
    NN_SHAPE_ROW,
    {.name = "value",
     .type = NN_REALS,
     .required = true,
     .min = -NN_UNBOUNDED,
     .max = NN_UNBOUNDED,
     .list_min = 1,
     .list_max = NN_MAX_ELEMENTS,
     .text = "its elements in row-major order, or one number for all of them"},
    {0},
};

static int infer(struct nn_infer *infer, struct nn_error *err) {
    if (nn_infer_given_shape(infer, &infer->attrs[SHAPE], err)) return (int)err->code;
    const int64_t elements = nn_shape_elements(&infer->out), given = infer->attrs[VALUE].list.n;
    if (given == 1 || given == elements) return NN_OK;
    return nn_fail_member(err, NN_E_SHAPE, "value",
                          "\"value\" has %lld numbers, and \"shape\" asks for %lld or 1", (long long)given,
                          (long long)elements);
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const union nn_attr_value *value = &pass->attrs[VALUE];
    real *y = pass->y;
    for (int64_t i = begin; i < end; i++) y[i] = (real)value->list.reals[value->list.n == 1 ? 0 : i];
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)pass, (void)begin, (void)end;
}

static const struct nn_example examples[] = {
    {.attrs = "\"shape\": [3], \"value\": [0.5]"},
    {.attrs = "\"shape\": [2, 2], \"value\": [1, -2, 3, 4.5]"},
};

const struct nn_op NN_OP(constant) = {
    NN_DEF(constant, 0, 0, .summary = "Numbers that are not trained, the same for all rows.",
           .forward = "y = value", .backward = "none", .attrs = attrs),
    .forward_split = NN_BY_ELEMENT,
    .backward_split = NN_BY_ELEMENT,
    .infer = infer,
    .work = nn_work_outputs,
    .forward = forward,
    .backward = backward,
};
