/* parameter - y = W: a tensor that is trained, of the shape that is asked for, without a batch dimension.
 *   W [shape], y [shape];  dW = dy */
#include "../real.h"
#include "rowless.h"

enum { SHAPE, INIT, MEAN, STD, LOWER, UPPER, VALUE };
enum { ZEROS, ONES, FULL, NORMAL, UNIFORM };
static const char *const inits[] = {"zeros", "ones", "constant", "normal", "uniform", NULL};
static const struct nn_attr_def attrs[] = {
    NN_SHAPE_ROW,
    {.name = "init",
     .type = NN_CHOICE,
     .choices = inits,
     .by_default = ZEROS,
     .text = "how it is filled at the start, as torch.nn.init names it"},
    {.name = "mean", .type = NN_REAL, .min = -NN_UNBOUNDED, .max = NN_UNBOUNDED, .text = "of normal"},
    {.name = "std", .type = NN_REAL, NN_AT_LEAST_0, .by_default = 1, .text = "standard deviation of normal"},
    {.name = "a",
     .type = NN_REAL,
     .min = -NN_UNBOUNDED,
     .max = NN_UNBOUNDED,
     .text = "lower bound of uniform"},
    {.name = "b",
     .type = NN_REAL,
     .min = -NN_UNBOUNDED,
     .max = NN_UNBOUNDED,
     .by_default = 1,
     .text = "upper bound of uniform, not reached"},
    {.name = "val", .type = NN_REAL, .min = -NN_UNBOUNDED, .max = NN_UNBOUNDED, .text = "of constant"},
    {0},
};

static struct nn_init init_of(const union nn_attr_value *given) {
    const double lower = given[LOWER].r, upper = given[UPPER].r;
    const struct nn_init init[] = {
        [ZEROS] = {.kind = NN_INIT_CONSTANT},
        [ONES] = {.kind = NN_INIT_CONSTANT, .center = 1},
        [FULL] = {.kind = NN_INIT_CONSTANT, .center = given[VALUE].r},
        [NORMAL] = {.kind = NN_INIT_NORMAL, .center = given[MEAN].r, .scale = given[STD].r},
        [UNIFORM] = {.kind = NN_INIT_UNIFORM, .center = (lower + upper) / 2, .scale = (upper - lower) / 2},
    };
    return init[given[INIT].i];
}

static int infer(struct nn_infer *infer, struct nn_error *err) {
    if (infer->attrs[UPPER].r < infer->attrs[LOWER].r)
        return nn_fail_member(err, NN_E_VALUE, "b", "\"b\" is at least \"a\"");
    if (nn_infer_given_shape(infer, &infer->attrs[SHAPE], err)) return (int)err->code;
    infer->n_params = 1;
    infer->param[0].suffix = "";
    infer->param[0].shape = infer->out;
    infer->param[0].init = init_of(infer->attrs);
    return NN_OK;
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *w = pass->w[0];
    memcpy((real *)pass->y + begin, w + begin, (size_t)(end - begin) * sizeof *w);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *d_y = pass->d_y;
    real *d_w = pass->d_w[0];
    for (int64_t i = begin; d_w && i < end; i++) d_w[i] += d_y[i];
}

static const struct nn_example examples[] = {
    {.attrs = "\"shape\": [3]"},
    {.attrs = "\"shape\": [2, 3], \"init\": \"normal\", \"std\": 0.02"},
    {.attrs = "\"shape\": [4], \"init\": \"uniform\", \"a\": -1, \"b\": 2"},
    {.attrs = "\"shape\": [2], \"init\": \"ones\""},
    {.attrs = "\"shape\": [2], \"init\": \"constant\", \"val\": -2.5"},
};

const struct nn_op NN_OP(parameter) = {
    NN_DEF(parameter, 0, 0, .summary = "A tensor that is trained, the same for all rows.", .forward = "y = W",
           .backward = "dW = dy", .attrs = attrs),
    .forward_split = NN_BY_ELEMENT,
    .backward_split = NN_BY_ELEMENT,
    .infer = infer,
    .work = nn_work_none,
    .forward = forward,
    .backward = backward,
};
