/* expand.c - y = x for every row;  dx = Σ of dy over the rows, in double, in their order. */
#include "expand.h"

#include <string.h>

#include "params.h"

static int infer(struct nn_infer *infer, struct nn_error *err) {
    (void)err;
    infer->out = infer->in[0];
    return NN_OK;
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const size_t sample = (size_t)nn_shape_elements(pass->out) * nn_dtype_size(pass->dtype);
    for (int64_t row = begin; row < end; row++)
        memcpy((unsigned char *)pass->y + (size_t)row * sample, pass->x[0], sample);
}

enum { LEAST = 64 }; /* elements in one task: some cache lines of a row */

/* One range of the elements of a sample. */
static void backward_range(void *arg, int64_t begin, int64_t end) {
    const struct nn_pass *pass = arg;
    const size_t size = nn_dtype_size(pass->dtype);
    unsigned char *d_x = pass->d_x[0];
    if (pass->fresh_x[0]) memset(d_x + (size_t)begin * size, 0, (size_t)(end - begin) * size);
    nn_kernels_of(pass->dtype)
        ->column_sums(d_x, pass->d_y, pass->rows, nn_shape_elements(pass->out), begin, end);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)begin, (void)end;
    struct nn_pass copy = *pass; /* tasks take a plain pointer */
    const int64_t chunk = NN_CHUNK / pass->rows > LEAST ? NN_CHUNK / pass->rows : LEAST;
    if (pass->d_x[0])
        nn_parallel_ranges(pass->par, nn_shape_elements(pass->out), chunk, backward_range, &copy);
}

const struct nn_op nn_expand = {
    .def = {.name = "expand", .min_inputs = 1, .max_inputs = 1},
    .takes_shared = 1,
    .forward_split = NN_BY_ROW,
    .backward_split = NN_WHOLE,
    .infer = infer,
    .work = nn_work_none,
    .forward = forward,
    .backward = backward,
};
