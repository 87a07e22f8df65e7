/* slice - every step-th element of x from `start` on, along one dimension, the batch counted as 0.
 *   y = x[..., start:end:step, ...]
 *   x [..., n, ...], y [..., ⌈(end - start) / step⌉, ...];  dx = dy where x was taken, and 0 elsewhere */
#include "axis.h"
#include "strided.h"

enum { DIM, START, END, STEP };
static const struct nn_attr_def attrs[] = {
    NN_AXIS_ROW("dim", 1, "the dimension that is cut; the batch is 0 and may not be"),
    {.name = "start",
     .type = NN_INT,
     .min = -NN_MAX_ELEMENTS,
     .max = NN_MAX_ELEMENTS,
     .text = "the first place; a negative one counts from the end of the dimension"},
    {.name = "end",
     .type = NN_INT,
     .min = -NN_MAX_ELEMENTS,
     .max = NN_MAX_ELEMENTS,
     .by_default = NN_MAX_ELEMENTS,
     .text = "the place before which the slice ends, counted as start is; beyond the dimension: its end"},
    {.name = "step",
     .type = NN_INT,
     .min = 1,
     .max = NN_MAX_ELEMENTS,
     .by_default = 1,
     .text = "from each place to the next"},
    {0},
};

/* A place within 0 to n, as Python has it. */
static int64_t place_in(int64_t place, int64_t n) {
    if (place < 0) place += n;
    return place < 0 ? 0 : place > n ? n : place;
}

static int infer(struct nn_infer *infer, struct nn_error *err) {
    int at = 0;
    if (nn_axis_find("dim", infer->attrs[DIM].i, &infer->in[0], &at, err)) return (int)err->code;
    const int64_t n = infer->in[0].dim[at], step = infer->attrs[STEP].i;
    const int64_t start = place_in(infer->attrs[START].i, n), end = place_in(infer->attrs[END].i, n);
    if (start >= end)
        return nn_fail_member(err, NN_E_VALUE, infer->attrs[START].i >= n ? "start" : "end",
                              "the slice is empty: it is of the places %lld to %lld of a dimension of %lld",
                              (long long)start, (long long)end, (long long)n);
    infer->out = infer->in[0];
    infer->out.dim[at] = (end - start + step - 1) / step;
    return NN_OK;
}

/* Of a row, and the element of x that it begins with. */
static struct nn_loops loops_of(const struct nn_pass *pass, int64_t *first) {
    const struct nn_axis x = nn_axis_at(pass->attrs[DIM].i, &pass->in[0]);
    const struct nn_axis y = nn_axis_at(pass->attrs[DIM].i, pass->out);
    const int64_t outer[NN_TENSORS] = {x.length * x.inner, y.length * y.inner};
    const int64_t along[NN_TENSORS] = {pass->attrs[STEP].i * x.inner, y.inner};
    const int64_t inner[NN_TENSORS] = {1, 1};
    struct nn_loops loops = {.rank = 0};
    nn_loops_add(&loops, y.outer, outer);
    nn_loops_add(&loops, y.length, along);
    nn_loops_add(&loops, y.inner, inner);
    nn_loops_end(&loops);
    *first = place_in(pass->attrs[START].i, x.length) * x.inner;
    return loops;
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    int64_t first;
    const struct nn_loops loops = loops_of(pass, &first);
    nn_view_forward(pass, &loops, first, begin, end);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    int64_t first;
    const struct nn_loops loops = loops_of(pass, &first);
    nn_view_backward(pass, &loops, first, begin, end);
}

static const struct nn_example examples[] = {
    {.attrs = "\"start\": 1, \"end\": 3", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "\"dim\": 2, \"start\": -4, \"end\": -1, \"step\": 2", .n_inputs = 1, .inputs = {{2, {2, 5}}}},
    {.attrs = "\"start\": 1", .n_inputs = 1, .inputs = {{3, {3, 2, 2}}}},
    {.attrs = "\"dim\": -2, \"step\": 3, \"end\": 100", .n_inputs = 1, .inputs = {{3, {2, 4, 2}}}},
};

const struct nn_op NN_OP(slice) = {
    NN_DEF(slice, 1, 1, .summary = "A part of one dimension, as Python's x[start:end:step].",
           .forward = "y = x[…, start:end:step, …]", .backward = "dx = dy where x was taken, and 0 elsewhere",
           .attrs = attrs),
    .forward_split = NN_BY_ROW,
    .backward_split = NN_BY_ROW,
    .infer = infer,
    .work = nn_work_none,
    .forward = forward,
    .backward = backward,
};
