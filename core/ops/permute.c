/* permute - x with its dimensions in another order, the batch counted as 0.
 *   y[i_dims[0], i_dims[1], ...] = x[i_0, i_1, ...];  dx = dy, permuted back */
#include "strided.h"

enum { DIMS };
static const struct nn_attr_def attrs[] = {
    {.name = "dims",
     .type = NN_INTS,
     .required = true,
     .min = -NN_MAX_RANK,
     .max = NN_MAX_RANK - 1,
     .list_min = 1,
     .list_max = NN_MAX_RANK,
     .text = "which dimension of the input each one of the output is; the batch is 0 and stays first"},
    {0},
};

/* The place in a sample of the input of the output's dimension i. */
static int place_of(const union nn_attr_value *dims, int i) {
    const int64_t dim = dims->list.ints[i + 1];
    return (int)(dim < 0 ? dim + dims->list.n : dim) - 1;
}

static int infer(struct nn_infer *infer, struct nn_error *err) {
    const union nn_attr_value *dims = &infer->attrs[DIMS];
    const int rank = infer->in[0].rank;
    bool met[NN_MAX_RANK] = {false};
    if (dims->list.n != rank + 1)
        return nn_fail_member(err, NN_E_VALUE, "dims",
                              "\"dims\" names %lld dimensions, and the input has %d, the batch included",
                              (long long)dims->list.n, rank + 1);
    if (place_of(dims, -1) != -1)
        return nn_fail_member(err, NN_E_VALUE, "dims", "\"dims\" begins with 0: the batch stays first");
    infer->out.rank = rank;
    for (int i = 0; i < rank; i++) {
        const int at = place_of(dims, i);
        if (at < 0 || at >= rank || met[at])
            return nn_fail_member(err, NN_E_VALUE, "dims", "\"dims\" names each dimension of the input once");
        met[at] = true;
        infer->out.dim[i] = infer->in[0].dim[at];
    }
    return NN_OK;
}

static struct nn_loops loops_of(const struct nn_pass *pass) {
    struct nn_loops loops = {.rank = 0};
    int64_t step[NN_MAX_RANK] = {0}, elements = 1;
    for (int i = pass->in[0].rank - 1; i >= 0; i--) step[i] = elements, elements *= pass->in[0].dim[i];
    for (int i = 0; i < pass->out->rank; i++) {
        elements /= pass->out->dim[i];
        const int64_t steps[NN_TENSORS] = {
            [NN_VIEW_X] = step[place_of(&pass->attrs[DIMS], i)], [NN_VIEW_Y] = elements};
        nn_loops_add(&loops, pass->out->dim[i], steps);
    }
    nn_loops_end(&loops);
    return loops;
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const struct nn_loops loops = loops_of(pass);
    nn_view_forward(pass, &loops, 0, begin, end);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const struct nn_loops loops = loops_of(pass);
    nn_view_backward(pass, &loops, 0, begin, end);
}

static const struct nn_example examples[] = {
    {.attrs = "\"dims\": [0, 2, 1]", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
    {.attrs = "\"dims\": [0, 3, 1, 2]", .n_inputs = 1, .inputs = {{3, {2, 3, 4}}}},
    {.attrs = "\"dims\": [0, -2, 1, -1]", .n_inputs = 1, .inputs = {{3, {2, 3, 2}}}},
    {.attrs = "\"dims\": [0]", .n_inputs = 1, .inputs = {{0, {0}}}},
};

const struct nn_op NN_OP(permute) = {
    NN_DEF(permute, 1, 1, .summary = "The dimensions of a sample in another order.",
           .forward = "y = x, with its dimensions in the order dims", .backward = "dx = dy, permuted back",
           .attrs = attrs),
    .forward_split = NN_BY_ROW,
    .backward_split = NN_BY_ROW,
    .infer = infer,
    .work = nn_work_none,
    .forward = forward,
    .backward = backward,
};
